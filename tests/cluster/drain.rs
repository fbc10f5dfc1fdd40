//! Drain of a node: by FerroLB's own annotation, by the cluster autoscaler's taint, and by a
//! cordon. The node hands its address over before it stops announcing it. If all nodes drain, no
//! address moves.

use crate::node_failure::{serve_from_other_node, wait_listened};
use crate::scenario::{run_scenario, step};
use crate::segment;
use crate::speakers::wait_for;
use crate::under_load::{check_owner_stays, run_without_loss, wait_moved};
use anyhow::{Result, ensure};
use ferrolb_lab::{Lab, Options};
use serde_json::{Value, json};
use std::net::IpAddr;
use std::time::Duration;

const DRAIN_ANNOTATION: &str = "ferrolb.io/drain";
const AUTOSCALER_TAINT: &str = "ToBeDeletedByClusterAutoscaler=1700000000:NoSchedule";
/// Patch that sets a finalizer, so that a deleted Node remains.
const FINALIZER_PATCH: &str = r#"{"metadata":{"finalizers":["tests.ferrolb.io/kept"]}}"#;
/// Preempt delay (`--failback-delay`) of this test.
const PREEMPT_DELAY: &str = "2s";
/// Twice the preempt delay: within this time a node with a better rank would retake the address.
const SETTLED: Duration = Duration::from_secs(4);

#[test]
fn a_draining_node_hands_over_unless_all_nodes_drain() {
    run_scenario(&Options::named("drain"), |lab| {
        lab.install_ferrolb()?;
        lab.start_controller(&[])?;
        for node in lab.nodes() {
            lab.start_speaker(&node, &["--failback-delay", PREEMPT_DELAY])?;
        }
        step(
            "all speakers have listened, so that the node with the best rank is the first owner",
            || wait_listened(lab),
        )?;
        let (address, owner) =
            step("a Service is served by a pod that is not on the owner", || {
                serve_from_other_node(lab)
            })?;
        step(
            "all nodes are cordoned, that with the best rank first, and then the address stays",
            || cordon_all_nodes(lab, address, &owner),
        )?;
        for (name, on, off) in [
            (
                "drain annotation on the owner",
                annotate as fn(&Lab, &str, bool) -> Result<()>,
                "drain annotation removed",
            ),
            ("autoscaler taint on the owner", taint, "autoscaler taint removed"),
        ] {
            step(&format!("{name}: the owner drains, and the address moves"), || {
                drain_owner(lab, address, (name, off), on)
            })?;
        }
        // Last step, because the deletion of a Node cannot be undone.
        step(
            "the owner's Node is being deleted, only its kube-proxy reports this, and the address moves",
            || delete_node(lab, address),
        )
    });
}

/// Drains the owner until the address has moved, and ends the drain.
fn drain_owner(
    lab: &Lab,
    address: IpAddr,
    (name, off): (&str, &str),
    drain: impl Fn(&Lab, &str, bool) -> Result<()>,
) -> Result<()> {
    let owner = segment::wait_owner(lab, address)?;
    let plan = lab.kubectl_ferrolb(&["drain", &owner, "--dry-run", "-o", "json"])?;
    let plan: Value = serde_json::from_str(&plan)?;
    let predicted = &plan["addresses"][0]["movesTo"];
    let moved = run_without_loss(lab, address, (name, 1), || {
        drain(lab, &owner, true)?;
        wait_moved(lab, address, &owner)
    })?;
    ensure!(*predicted == json!([moved]), "the address moved to {moved}, not to {predicted}");
    wait_for(lab, &owner, "the node drains", |status| status.draining.then_some(()))?;
    // The node may get its address again when the preempt delay has ended.
    run_without_loss(lab, address, (off, 1), || {
        drain(lab, &owner, false)?;
        wait_for(lab, &owner, "the node no longer drains", |status| {
            (!status.draining).then_some(())
        })
    })
}

fn annotate(lab: &Lab, node: &str, on: bool) -> Result<()> {
    let annotation =
        if on { format!("{DRAIN_ANNOTATION}=") } else { format!("{DRAIN_ANNOTATION}-") };
    lab.kubectl(&["annotate", "node", node, &annotation]).map(drop)
}

fn taint(lab: &Lab, node: &str, on: bool) -> Result<()> {
    let taint = if on { AUTOSCALER_TAINT.to_owned() } else { format!("{AUTOSCALER_TAINT}-") };
    lab.kubectl(&["taint", "node", node, &taint]).map(drop)
}

/// Deletes the owner's Node. A finalizer keeps the object, so that kube-proxy sees the deletion and
/// reports the node as not eligible. Speakers do not evaluate the deletion in the Node itself.
fn delete_node(lab: &Lab, address: IpAddr) -> Result<()> {
    let owner = segment::wait_owner(lab, address)?;
    lab.kubectl(&["patch", "node", &owner, "--type=merge", "--patch", FINALIZER_PATCH])?;
    run_without_loss(lab, address, ("Node of the owner is being deleted", 1), || {
        lab.kubectl(&["delete", "node", &owner, "--wait=false"])?;
        wait_moved(lab, address, &owner)
    })?;
    wait_for(lab, &owner, "the node drains", |status| status.draining.then_some(()))
}

/// Cordons `first`, the node with the best rank, and then all other nodes: as soon as all nodes are
/// cordoned, `first` has the best rank again, and must not retake the address. Then uncordons all
/// nodes.
fn cordon_all_nodes(lab: &Lab, address: IpAddr, first: &str) -> Result<()> {
    let second = run_without_loss(lab, address, ("node with the best rank cordoned", 1), || {
        lab.kubectl(&["cordon", first])?;
        wait_moved(lab, address, first)
    })?;
    run_without_loss(lab, address, ("all other nodes cordoned, the owner last", 0), || {
        let third = lab.nodes().into_iter().find(|node| *node != first && *node != second);
        for node in third.iter().chain([&second]) {
            lab.kubectl(&["cordon", node])?;
        }
        check_owner_stays(lab, address, &second, SETTLED)
    })?;
    run_without_loss(
        lab,
        address,
        ("all nodes uncordoned, the node with the best rank first", 1),
        || {
            lab.kubectl(&["uncordon", first])?;
            wait_moved(lab, address, &second)?;
            lab.nodes()
                .iter()
                .filter(|node| *node != first)
                .try_for_each(|node| lab.kubectl(&["uncordon", node]).map(drop))
        },
    )
}
