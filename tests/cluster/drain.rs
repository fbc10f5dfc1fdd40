//! A node is to go: by FerroLB's own annotation, by the cluster autoscaler's taint, by a cordon of every node. It hands over first, and where
//! all are to go, nothing moves.

use crate::client_wire;
use crate::node_death::{listened, serve_elsewhere};
use crate::speakers::wait_for;
use crate::stage::{play, step};
use crate::under_load::{stays, unharmed, wait_moved};
use anyhow::Result;
use ferrolb_tests::{Lab, Options};
use std::net::IpAddr;
use std::time::Duration;

const DRAIN: &str = "ferrolb.io/drain";
const TO_BE_DELETED: &str = "ToBeDeletedByClusterAutoscaler=1700000000:NoSchedule";
const KEPT: &str = r#"{"metadata":{"finalizers":["tests.ferrolb.io/kept"]}}"#;
/// A node that is better again may take over after so long, in this test.
const FAILBACK: &str = "2s";
/// Twice that: who would take an address back by order alone had time to.
const SETTLED: Duration = Duration::from_secs(4);

#[test]
fn a_node_that_is_to_go_hands_over_and_where_all_are_nothing_moves() {
    play(&Options::named("drain"), |lab| {
        lab.install_ferrolb()?;
        lab.start_controller(&[])?;
        for node in lab.nodes() {
            lab.start_speaker(&node, &["--failback-delay", FAILBACK])?;
        }
        step("all speakers have listened, so that the first in line is the first owner", || listened(lab))?;
        let (address, first) =
            step("a Service is served from a pod that is not on its owner", || serve_elsewhere(lab))?;
        step("all nodes are cordoned, the first in line first, and after the last nothing moves", || {
            all_cordoned(lab, address, &first)
        })?;
        for (name, on, off) in [
            ("annotation of the owner", annotate as fn(&Lab, &str, bool) -> Result<()>, "annotation taken off"),
            ("taint of the autoscaler on the owner", taint, "taint taken off"),
        ] {
            step(&format!("{name}: it drains, and the address moves"), || drained(lab, address, (name, off), on))?;
        }
        // The last step, because a node that is being deleted stays so.
        step(
            "the owner's Node is being deleted, which its kube-proxy alone tells: it drains, and the address moves",
            || deleted(lab, address),
        )
    });
}

/// The owner drains, and drains no more.
fn drained(
    lab: &Lab,
    address: IpAddr,
    (name, off): (&str, &str),
    drain: impl Fn(&Lab, &str, bool) -> Result<()>,
) -> Result<()> {
    let owner = client_wire::wait_owner(lab, address)?;
    unharmed(lab, address, (name, 1), || {
        drain(lab, &owner, true)?;
        wait_moved(lab, address, &owner)
    })?;
    wait_for(lab, &owner, "it drains", |status| status.draining.then_some(()))?;
    // It may have its address again as soon as the failback delay is over.
    unharmed(lab, address, (off, 1), || {
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

/// A finalizer keeps the Node, so that kube-proxy reads of its end and says that the node is not eligible. No speaker reads that itself.
fn deleted(lab: &Lab, address: IpAddr) -> Result<()> {
    let owner = client_wire::wait_owner(lab, address)?;
    lab.kubectl(&["patch", "node", &owner, "--type=merge", "--patch", KEPT])?;
    unharmed(lab, address, ("Node of the owner is being deleted", 1), || {
        lab.kubectl(&["delete", "node", &owner, "--wait=false"])?;
        wait_moved(lab, address, &owner)
    })?;
    wait_for(lab, &owner, "it drains", |status| status.draining.then_some(()))
}

/// Who comes first by order is cordoned first, and so better than the holder as soon as that is cordoned, too.
fn all_cordoned(lab: &Lab, address: IpAddr, first: &str) -> Result<()> {
    let holder = unharmed(lab, address, ("first in line cordoned", 1), || {
        lab.kubectl(&["cordon", first])?;
        wait_moved(lab, address, first)
    })?;
    unharmed(lab, address, ("all others cordoned, the holder last", 0), || {
        let third = lab.nodes().into_iter().find(|node| *node != first && *node != holder);
        for node in third.iter().chain([&holder]) {
            lab.kubectl(&["cordon", node])?;
        }
        stays(lab, address, &holder, SETTLED)
    })?;
    unharmed(lab, address, ("all uncordoned, the first in line first", 1), || {
        lab.kubectl(&["uncordon", first])?;
        wait_moved(lab, address, &holder)?;
        lab.nodes().iter().filter(|node| *node != first).try_for_each(|node| lab.kubectl(&["uncordon", node]).map(drop))
    })
}
