//! Rows of unplanned failures: the owner loses power, its network, or its speaker.
//!
//! With a killed speaker, the node still forwards for a client that has it in its neighbor table. A
//! packet socket of the client therefore records when another node announces the address.

use super::runs::{RowResults, conclude_times};
use super::setup::FailoverSetup;
use crate::bench::report::Findings;
use crate::bench::segment::{self, AnnouncementRecorder};
use crate::bench::settle::{self, SETTLE_MAX};
use crate::bench::targets::{self, OutageMeasures};
use crate::cluster::ferrolb::{ADMIN_PORT, speaker_name};
use crate::lab::admin;
use crate::topology::Host;
use crate::{Signal, wait};
use anyhow::{Context, Result, ensure};

/// Powers the owner off and on. With `return_measures`, the client also observes how the node
/// retakes its address.
pub(super) fn power_failure(
    setup: &FailoverSetup<'_>,
    runs: usize,
    measures: &[OutageMeasures],
    return_measures: Option<&[OutageMeasures]>,
    findings: &mut Findings,
) -> Result<()> {
    let (lab, mut returns) = (setup.lab, RowResults::default());
    let failures = RowResults::of(runs, || {
        let owner = setup.settle()?;
        let results = setup.watch(|| lab.power_off(&owner))?;
        if return_measures.is_none() {
            settle::power_on_and_wait(lab, &owner)?;
            return Ok(results);
        }
        let returned = setup.watch(|| {
            settle::power_on_and_wait(lab, &owner)?;
            // Reads a metric and sends no ARP or NDP request, because the reply would update the
            // client's neighbor table.
            wait::until("the returned node owns its address again", SETTLE_MAX, || {
                let owned = admin::metric(lab, &owner, "ferrolb_speaker_owned_addresses")?;
                Ok((owned > 0.0).then_some(()))
            })
        })?;
        returns.add_run(&returned);
        Ok(results)
    })?
    .require_losses()?;
    // The best run is reported with the row whose node also returns.
    if return_measures.is_some() {
        targets::FAILOVER_BEST_RUN
            .iter()
            .zip(failures.best())
            .for_each(|(measure, best)| findings.add(measure, best));
    }
    failures.conclude(findings, measures)?;
    return_measures.map_or(Ok(()), |measures| returns.conclude(findings, measures))
}

/// Takes the owner's interface down and up.
pub(super) fn interface_down(
    setup: &FailoverSetup<'_>,
    runs: usize,
    findings: &mut Findings,
) -> Result<()> {
    let all = RowResults::of(runs, || {
        let owner = setup.settle()?;
        let results = setup.watch(|| setup.lab.set_link(&owner, false));
        setup.lab.set_link(&owner, true)?;
        results
    })?;
    all.require_losses()?.conclude(findings, &targets::FAILOVER_INTERFACE_DOWN)
}

/// Kills and restarts the owner's speaker. Also records announcements on the client's network
/// segment, because the client itself may lose no connection.
pub(super) fn killed(
    setup: &FailoverSetup<'_>,
    runs: usize,
    findings: &mut Findings,
) -> Result<()> {
    let mut times = vec![Vec::new(); setup.servers.len()];
    let all = RowResults::of(runs, || {
        let owner = setup.settle()?;
        let speaker = speaker_name(&owner);
        let (recorder, mac) = (
            AnnouncementRecorder::start(setup.lab)?,
            segment::mac(&Host::named(&owner).context("the owner is not a node of the lab")?)?,
        );
        let mut killed = wait::now();
        let results = setup.watch(|| {
            killed = wait::now();
            setup.lab.stop(&speaker, Signal::KILL)
        })?;
        for (server, times) in setup.servers.iter().zip(&mut times) {
            let announced = recorder.first_announcement_by_another(server.ip(), mac);
            let announced =
                announced.with_context(|| format!("no other node announced {}", server.ip()))?;
            ensure!(announced > killed, "another node announced before the speaker was killed");
            times.push((announced - killed).as_secs_f64() * 1000.0);
        }
        recorder.stop()?;
        setup.lab.restart(&speaker)?;
        setup.lab.wait_healthy(&speaker, &owner, ADMIN_PORT, "/readyz")?;
        Ok(results)
    })?;
    // Lost connections are not required: the node runs, and forwards for a client whose neighbor
    // table is not yet updated.
    all.conclude(findings, &targets::FAILOVER_KILLED)?;
    targets::FAILOVER_KILLED_ANNOUNCED
        .iter()
        .zip(times)
        .try_for_each(|(measures, times)| conclude_times(findings, measures, times))
}
