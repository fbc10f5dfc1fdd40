//! Rows of unplanned failures: the owner loses power, its network, or its speaker.

use super::runs::{RowResults, conclude_times};
use super::setup::FailoverSetup;
use crate::bench::report::Findings;
use crate::bench::segment::{self, AnnouncementRecorder};
use crate::bench::settle::{self, REST_MAX};
use crate::bench::targets::{self, OutageMeasures};
use crate::cluster::ferrolb::{ADMIN_PORT, speaker_name};
use crate::lab::admin;
use crate::topology::Host;
use crate::{Signal, wait};
use anyhow::{Context, Result, ensure};

/// Powers the owner off and on. With a row in `known_back`, the client also observes how the node
/// retakes its address.
pub(super) fn power_failure(
    scene: &FailoverSetup<'_>,
    runs: usize,
    known: &[OutageMeasures],
    known_back: Option<&[OutageMeasures]>,
    findings: &mut Findings,
) -> Result<()> {
    let (lab, mut back) = (scene.lab, RowResults::default());
    let dead = RowResults::of(runs, || {
        let owner = scene.settle()?;
        let seen = scene.watch(|| lab.power_off(&owner))?;
        if known_back.is_none() {
            settle::return_power(lab, &owner)?;
            return Ok(seen);
        }
        let returned = scene.watch(|| {
            settle::return_power(lab, &owner)?;
            // Uses a metric, not a request on the network: the reply would update the client's own
            // neighbor table.
            wait::until("the node has its address again", REST_MAX, || {
                let owned = admin::metric(lab, &owner, "ferrolb_speaker_owned_addresses")?;
                Ok((owned > 0.0).then_some(()))
            })
        })?;
        back.add_run(&returned);
        Ok(seen)
    })?
    .require_losses()?;
    // The best run is reported with the row whose node also returns.
    if known_back.is_some() {
        targets::FAILOVER_MIN
            .iter()
            .zip(dead.best())
            .for_each(|(known, best)| findings.add(known, best));
    }
    dead.conclude(findings, known)?;
    known_back.map_or(Ok(()), |known| back.conclude(findings, known))
}

/// Takes the owner's interface down and up.
pub(super) fn interface_down(
    scene: &FailoverSetup<'_>,
    runs: usize,
    findings: &mut Findings,
) -> Result<()> {
    let all = RowResults::of(runs, || {
        let owner = scene.settle()?;
        let seen = scene.watch(|| scene.lab.set_link(&owner, false));
        scene.lab.set_link(&owner, true)?;
        seen
    })?;
    all.require_losses()?.conclude(findings, &targets::FAILOVER_LINK)
}

/// Kills and restarts the owner's speaker. Also records announcements on the client's network
/// segment, because the client itself may lose no connection.
pub(super) fn killed(
    scene: &FailoverSetup<'_>,
    runs: usize,
    findings: &mut Findings,
) -> Result<()> {
    let mut taken = vec![Vec::new(); scene.servers.len()];
    let all = RowResults::of(runs, || {
        let owner = scene.settle()?;
        let speaker = speaker_name(&owner);
        let (listener, mac) = (
            AnnouncementRecorder::start(scene.lab)?,
            segment::mac(&Host::named(&owner).context("the owner is a node")?)?,
        );
        let mut killed = wait::now();
        let seen = scene.watch(|| {
            killed = wait::now();
            scene.lab.stop(&speaker, Signal::KILL)
        })?;
        for (server, taken) in scene.servers.iter().zip(&mut taken) {
            let announced = listener.first_by_another(server.ip(), mac);
            let announced =
                announced.with_context(|| format!("no other node announced {}", server.ip()))?;
            ensure!(announced > killed, "another node announced before the speaker was killed");
            taken.push((announced - killed).as_secs_f64() * 1000.0);
        }
        listener.stop()?;
        scene.lab.restart(&speaker)?;
        scene.lab.wait_healthy(&speaker, &owner, ADMIN_PORT, "/readyz")?;
        Ok(seen)
    })?;
    // Not `require_losses`: the node runs, and forwards for a client whose neighbor table is not
    // yet updated.
    all.conclude(findings, &targets::FAILOVER_KILLED)?;
    targets::FAILOVER_TAKEN
        .iter()
        .zip(taken)
        .try_for_each(|(known, taken)| conclude_times(findings, known, taken))
}
