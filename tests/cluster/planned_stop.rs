//! Clean stop of the owner's speaker, as in an upgrade: another node announces the address before
//! the speaker exits.

use crate::metrics::metric;
use crate::node_failure::serve_from_other_node;
use crate::scenario::{run_scenario, step};
use crate::segment;
use crate::under_load::{check_owner_stays, run_without_loss};
use anyhow::{Result, ensure};
use ferrolb_lab::{Lab, Options, Signal};
use std::time::Duration;

/// Time for which an address must stay: longer than the listen phase of a starting speaker.
const SETTLED: Duration = Duration::from_secs(3);

#[test]
fn another_node_takes_over_before_the_owners_speaker_stops() {
    run_scenario(&Options::named("plannedstop"), |lab| {
        lab.start_ferrolb()?;
        let (address, owner) =
            step("a Service is served by a pod that is not on the owner", || {
                serve_from_other_node(lab)
            })?;
        let speaker = format!("speaker-{owner}");
        step("the owner's speaker receives SIGTERM, and hands over before it exits", || {
            run_without_loss(lab, address, ("speaker of the owner stopped", 1), || {
                lab.stop(&speaker, Signal::TERM)?;
                check_handed_over(lab, &owner)
            })
        })?;
        let second =
            step("exactly one other node owns the address", || segment::owner(lab, address))?;
        ensure!(second != owner, "{owner} was stopped and still owns the address");
        step("the speaker is restarted, and the address stays with its new owner", || {
            run_without_loss(lab, address, ("speaker of the former owner restarted", 0), || {
                lab.restart(&speaker)?;
                check_owner_stays(lab, address, &second, SETTLED)
            })
        })
    });
}

/// Checks that another speaker owns the address as soon as the owner's speaker has exited, so that
/// no node had to detect a failure.
fn check_handed_over(lab: &Lab, owner: &str) -> Result<()> {
    let others = lab.nodes().into_iter().filter(|node| node != owner);
    let owned = others
        .map(|node| metric(lab, &node, "ferrolb_speaker_owned_addresses"))
        .sum::<Result<f64>>()?;
    ensure!(owned == 1.0, "the other nodes own {owned} addresses");
    Ok(())
}
