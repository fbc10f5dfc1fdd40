//! The rows in which nobody was warned: the owner loses its power, its cable, or its speaker.

use super::runs::{Runs, conclude_times};
use super::scene::Scene;
use crate::bench::budgets::{self, Outage};
use crate::bench::report::Findings;
use crate::bench::rest::{self, REST_MAX};
use crate::bench::wire::{self, Listener};
use crate::cluster::ferrolb::{ADMIN_PORT, speaker_name};
use crate::lab::admin;
use crate::topology::Host;
use crate::{Signal, wait};
use anyhow::{Context, Result, ensure};

/// The owner's plug is pulled and put back; where there is a row for it, the client also watches the node take its address again.
pub(super) fn power(
    scene: &Scene<'_>,
    runs: usize,
    known: &[Outage],
    known_back: Option<&[Outage]>,
    findings: &mut Findings,
) -> Result<()> {
    let (lab, mut back) = (scene.lab, Runs::default());
    let dead = Runs::of(runs, || {
        let owner = scene.rest()?;
        let seen = scene.watch(|| lab.power_off(&owner))?;
        if known_back.is_none() {
            rest::return_power(lab, &owner)?;
            return Ok(seen);
        }
        let returned = scene.watch(|| {
            rest::return_power(lab, &owner)?;
            // Not asked for on the wire: the answer would mend the client's own table, too.
            wait::until("the node has its address again", REST_MAX, || {
                let owned = admin::metric(lab, &owner, "ferrolb_speaker_owned_addresses")?;
                Ok((owned > 0.0).then_some(()))
            })
        })?;
        back.note(&returned);
        Ok(seen)
    })?
    .deadly()?;
    // The best run is in the table beside the row whose node also comes back.
    if known_back.is_some() {
        budgets::FAILOVER_MIN.iter().zip(dead.best()).for_each(|(known, best)| findings.add(known, best));
    }
    dead.conclude(findings, known)?;
    known_back.map_or(Ok(()), |known| back.conclude(findings, known))
}

/// The owner's cable is pulled and put back.
pub(super) fn link(scene: &Scene<'_>, runs: usize, findings: &mut Findings) -> Result<()> {
    let all = Runs::of(runs, || {
        let owner = scene.rest()?;
        let seen = scene.watch(|| scene.lab.set_link(&owner, false));
        scene.lab.set_link(&owner, true)?;
        seen
    })?;
    all.deadly()?.conclude(findings, &budgets::FAILOVER_LINK)
}

/// The owner's speaker is killed and started again; the client's wire is listened to as well, for the client itself may lose nothing.
pub(super) fn killed(scene: &Scene<'_>, runs: usize, findings: &mut Findings) -> Result<()> {
    let mut taken = vec![Vec::new(); scene.servers.len()];
    let all = Runs::of(runs, || {
        let owner = scene.rest()?;
        let speaker = speaker_name(&owner);
        let (listener, mac) =
            (Listener::start(scene.lab)?, wire::mac(&Host::named(&owner).context("the owner is a node")?)?);
        let mut killed = wait::now();
        let seen = scene.watch(|| {
            killed = wait::now();
            scene.lab.stop(&speaker, Signal::KILL)
        })?;
        for (server, taken) in scene.servers.iter().zip(&mut taken) {
            let announced = listener.first_by_another(server.ip(), mac);
            let announced = announced.with_context(|| format!("no other node announced {}", server.ip()))?;
            ensure!(announced > killed, "another node announced before the speaker was killed");
            taken.push((announced - killed).as_secs_f64() * 1000.0);
        }
        listener.stop()?;
        scene.lab.restart(&speaker)?;
        scene.lab.wait_healthy(&speaker, &owner, ADMIN_PORT, "/readyz")?;
        Ok(seen)
    })?;
    // Not `deadly`: the node lives, and forwards for a client that has not heard yet.
    all.conclude(findings, &budgets::FAILOVER_KILLED)?;
    budgets::FAILOVER_TAKEN.iter().zip(taken).try_for_each(|(known, taken)| conclude_times(findings, known, taken))
}
