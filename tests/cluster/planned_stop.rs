//! Clean stop of the owner's speaker, as in an upgrade: another node announces before the speaker
//! exits.

use crate::metrics::metric;
use crate::node_failure::serve_elsewhere;
use crate::scenario::{run_scenario, step};
use crate::segment;
use crate::under_load::{stays, without_loss};
use anyhow::{Result, ensure};
use ferrolb_lab::{Lab, Options, Signal};
use std::time::Duration;

/// Longer than a starting speaker listens before it may claim.
const SETTLED: Duration = Duration::from_secs(3);

#[test]
fn another_node_takes_over_before_the_owners_speaker_stops() {
    run_scenario(&Options::named("plannedstop"), |lab| {
        lab.start_ferrolb()?;
        let (address, owner) =
            step("a Service is served from a pod that is not on its owner", || {
                serve_elsewhere(lab)
            })?;
        let speaker = format!("speaker-{owner}");
        step("the owner's speaker is told to stop and ends", || {
            without_loss(lab, address, ("speaker of the owner stopped", 1), || {
                lab.stop(&speaker, Signal::TERM)?;
                owned_elsewhere(lab, &owner)
            })
        })?;
        let second = step("another node is the one owner", || segment::owner(lab, address))?;
        ensure!(second != owner, "{owner} was stopped and still owns the address");
        step("it is started again, and takes nothing from the one that serves", || {
            without_loss(lab, address, ("speaker of the owner started again", 0), || {
                lab.restart(&speaker)?;
                stays(lab, address, &second, SETTLED)
            })
        })
    });
}

/// Checks that another speaker owns the address as soon as the owner's speaker has exited, so that
/// no node had to detect a failure.
fn owned_elsewhere(lab: &Lab, owner: &str) -> Result<()> {
    let others = lab.nodes().into_iter().filter(|node| node != owner);
    let held = others
        .map(|node| metric(lab, &node, "ferrolb_speaker_owned_addresses"))
        .sum::<Result<f64>>()?;
    ensure!(held == 1.0, "the other nodes own {held} addresses");
    Ok(())
}
