//! The owner's speaker is told to stop, as an upgrade does: another node answers before it is gone.

use crate::client_wire;
use crate::metrics::metric;
use crate::node_death::serve_elsewhere;
use crate::stage::{play, step};
use crate::under_load::{stays, unharmed};
use anyhow::{Result, ensure};
use ferrolb_tests::{Lab, Options, Signal};
use std::time::Duration;

/// Longer than a speaker that begins listens before it may claim.
const SETTLED: Duration = Duration::from_secs(3);

#[test]
fn when_the_owners_speaker_is_told_to_stop_another_takes_over_first() {
    play(&Options::named("plannedstop"), |lab| {
        lab.start_ferrolb()?;
        let (address, owner) =
            step("a Service is served from a pod that is not on its owner", || serve_elsewhere(lab))?;
        let speaker = format!("speaker-{owner}");
        step("the owner's speaker is told to stop and ends", || {
            unharmed(lab, address, ("speaker of the owner stopped", 1), || {
                lab.stop(&speaker, Signal::TERM)?;
                held_elsewhere(lab, &owner)
            })
        })?;
        let second = step("another node is the one owner", || client_wire::owner(lab, address))?;
        ensure!(second != owner, "{owner} was stopped and answers");
        step("it is started again, and takes nothing from the one that serves", || {
            unharmed(lab, address, ("speaker of the owner started again", 0), || {
                lab.restart(&speaker)?;
                stays(lab, address, &second, SETTLED)
            })
        })
    });
}

/// The moment the owner's speaker has ended, another one holds its address: nobody had to find out by silence.
fn held_elsewhere(lab: &Lab, owner: &str) -> Result<()> {
    let others = lab.nodes().into_iter().filter(|node| node != owner);
    let held = others.map(|node| metric(lab, &node, "ferrolb_speaker_owned_addresses")).sum::<Result<f64>>()?;
    ensure!(held == 1.0, "the others hold {held} addresses");
    Ok(())
}
