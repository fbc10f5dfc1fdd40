//! Drain of a node: by FerroLB's own annotation, by the cluster autoscaler's taint, and by a
//! cordon. The node hands its address over first. If all nodes drain, nothing moves.

use crate::node_failure::{listened, serve_elsewhere};
use crate::scenario::{run_scenario, step};
use crate::segment;
use crate::speakers::wait_for;
use crate::under_load::{stays, wait_moved, without_loss};
use anyhow::Result;
use ferrolb_lab::{Lab, Options};
use std::net::IpAddr;
use std::time::Duration;

const DRAIN: &str = "ferrolb.io/drain";
const TO_BE_DELETED: &str = "ToBeDeletedByClusterAutoscaler=1700000000:NoSchedule";
const KEPT: &str = r#"{"metadata":{"finalizers":["tests.ferrolb.io/kept"]}}"#;
/// Time after which a better node takes over again, in this test.
const FAILBACK: &str = "2s";
/// Twice the failback delay, so a node that would retake the address by rank alone has time to.
const SETTLED: Duration = Duration::from_secs(4);

#[test]
fn a_draining_node_hands_over_unless_all_nodes_drain() {
    run_scenario(&Options::named("drain"), |lab| {
        lab.install_ferrolb()?;
        lab.start_controller(&[])?;
        for node in lab.nodes() {
            lab.start_speaker(&node, &["--failback-delay", FAILBACK])?;
        }
        step("all speakers have listened, so that the first in line is the first owner", || {
            listened(lab)
        })?;
        let (address, first) =
            step("a Service is served from a pod that is not on its owner", || {
                serve_elsewhere(lab)
            })?;
        step(
            "all nodes are cordoned, the first in line first, and after the last nothing moves",
            || all_cordoned(lab, address, &first),
        )?;
        for (name, on, off) in [
            (
                "annotation of the owner",
                annotate as fn(&Lab, &str, bool) -> Result<()>,
                "annotation taken off",
            ),
            ("taint of the autoscaler on the owner", taint, "taint taken off"),
        ] {
            step(&format!("{name}: it drains, and the address moves"), || {
                drained(lab, address, (name, off), on)
            })?;
        }
        // Last step, because the deletion of a Node cannot be undone.
        step(
            "the owner's Node is being deleted, which its kube-proxy alone tells: it drains, and the address moves",
            || deleted(lab, address),
        )
    });
}

/// Drains the owner, and ends the drain.
fn drained(
    lab: &Lab,
    address: IpAddr,
    (name, off): (&str, &str),
    drain: impl Fn(&Lab, &str, bool) -> Result<()>,
) -> Result<()> {
    let owner = segment::wait_owner(lab, address)?;
    without_loss(lab, address, (name, 1), || {
        drain(lab, &owner, true)?;
        wait_moved(lab, address, &owner)
    })?;
    wait_for(lab, &owner, "it drains", |status| status.draining.then_some(()))?;
    // The node may get its address again as soon as the failback delay is over.
    without_loss(lab, address, (off, 1), || {
        drain(lab, &owner, false)?;
        wait_for(lab, &owner, "it drains no more", |status| (!status.draining).then_some(()))
    })
}

fn annotate(lab: &Lab, node: &str, on: bool) -> Result<()> {
    let annotation = if on { format!("{DRAIN}=") } else { format!("{DRAIN}-") };
    lab.kubectl(&["annotate", "node", node, &annotation]).map(drop)
}

fn taint(lab: &Lab, node: &str, on: bool) -> Result<()> {
    let taint = if on { TO_BE_DELETED.to_owned() } else { format!("{TO_BE_DELETED}-") };
    lab.kubectl(&["taint", "node", node, &taint]).map(drop)
}

/// Deletes the owner's Node. A finalizer keeps the object, so kube-proxy sees the deletion and
/// reports the node as not eligible. No speaker reads that from the object itself.
fn deleted(lab: &Lab, address: IpAddr) -> Result<()> {
    let owner = segment::wait_owner(lab, address)?;
    lab.kubectl(&["patch", "node", &owner, "--type=merge", "--patch", KEPT])?;
    without_loss(lab, address, ("Node of the owner is being deleted", 1), || {
        lab.kubectl(&["delete", "node", &owner, "--wait=false"])?;
        wait_moved(lab, address, &owner)
    })?;
    wait_for(lab, &owner, "it drains", |status| status.draining.then_some(()))
}

/// Cordons the node with the best rank first, so it becomes the better candidate again as soon as
/// the owner is cordoned too.
fn all_cordoned(lab: &Lab, address: IpAddr, first: &str) -> Result<()> {
    let holder = without_loss(lab, address, ("first in line cordoned", 1), || {
        lab.kubectl(&["cordon", first])?;
        wait_moved(lab, address, first)
    })?;
    without_loss(lab, address, ("all others cordoned, the holder last", 0), || {
        let third = lab.nodes().into_iter().find(|node| *node != first && *node != holder);
        for node in third.iter().chain([&holder]) {
            lab.kubectl(&["cordon", node])?;
        }
        stays(lab, address, &holder, SETTLED)
    })?;
    without_loss(lab, address, ("all uncordoned, the first in line first", 1), || {
        lab.kubectl(&["uncordon", first])?;
        wait_moved(lab, address, &holder)?;
        lab.nodes()
            .iter()
            .filter(|node| *node != first)
            .try_for_each(|node| lab.kubectl(&["uncordon", node]).map(drop))
    })
}
