//! State of a node in Kubernetes (cordoned, excluded, out of service, without a network), and the
//! move of its addresses under load.

use crate::node_failure::serve_elsewhere;
use crate::scenario::{run_scenario, step};
use crate::under_load::{stays, wait_moved, without_loss};
use crate::{pools, segment};
use anyhow::{Context, Result};
use ferrolb_lab::{Lab, Options, wait};
use std::net::IpAddr;
use std::time::Duration;

const EXCLUDE: &str = "node.kubernetes.io/exclude-from-external-load-balancers";
const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service=nodeshutdown:NoExecute";
/// Log line of a speaker that ignores the exclude label.
const IGNORED: &str = "every Node has the label";
/// Longer than a planned move takes.
const SETTLED: Duration = Duration::from_secs(1);

#[test]
fn an_address_leaves_an_ineligible_node_and_is_always_announced() {
    run_scenario(&Options::named("noderules"), |lab| {
        lab.start_ferrolb()?;
        let (address, first) =
            step("a Service is served from a pod that is not on its owner", || {
                serve_elsewhere(lab)
            })?;
        let second = step("its owner is cordoned, and it moves", || {
            without_loss(lab, address, ("owner cordoned", 1), || {
                lab.kubectl(&["cordon", &first])?;
                wait_moved(lab, address, &first)
            })
        })?;
        step("the cordon is taken back, and nothing moves so soon", || {
            without_loss(lab, address, ("uncordoned", 0), || {
                lab.kubectl(&["uncordon", &first])?;
                stays(lab, address, &second, SETTLED)
            })
        })?;
        step("its owner is labelled as excluded, and it moves", || {
            without_loss(lab, address, ("owner excluded by its label", 1), || {
                label(lab, &second, "=")?;
                wait_moved(lab, address, &second)
            })
        })?;
        step(
            "with the label on every node it is ignored, which is said, and nothing goes dark",
            || {
                without_loss(
                    lab,
                    address,
                    ("label of exclusion on one node after another, to all", 3),
                    || all_labelled(lab, address),
                )
            },
        )?;
        step("it is taken back everywhere", || {
            without_loss(
                lab,
                address,
                ("label of exclusion taken off one node after another", 3),
                || {
                    lab.nodes().iter().try_for_each(|node| label(lab, node, "-"))?;
                    segment::wait_owner(lab, address)
                },
            )
        })?;
        for (name, on, off) in [
            (
                "out-of-service taint on the owner",
                tainted as fn(&Lab, &str) -> Result<()>,
                untainted as fn(&Lab, &str) -> Result<()>,
            ),
            (
                "NetworkUnavailable on the owner",
                |lab, node| network(lab, node, "True"),
                |lab, node| network(lab, node, "False"),
            ),
        ] {
            step(&format!("{name}: it moves"), || {
                let owner = segment::wait_owner(lab, address)?;
                without_loss(lab, address, (name, 1), || {
                    on(lab, &owner)?;
                    wait_moved(lab, address, &owner)
                })?;
                off(lab, &owner)
            })?;
        }
        Ok(())
    });
}

fn label(lab: &Lab, node: &str, sign: &str) -> Result<()> {
    lab.kubectl(&["label", "--overwrite", "node", node, &format!("{EXCLUDE}{sign}")]).map(drop)
}

fn all_labelled(lab: &Lab, address: IpAddr) -> Result<()> {
    lab.nodes().iter().try_for_each(|node| label(lab, node, "="))?;
    for node in lab.nodes() {
        wait::until(&format!("the speaker of {node} says so"), pools::STATE_MAX, || {
            Ok(lab.logs(&format!("speaker-{node}")).contains(IGNORED).then_some(()))
        })?;
    }
    let owner = segment::wait_owner(lab, address)?;
    stays(lab, address, &owner, SETTLED)
}

fn tainted(lab: &Lab, node: &str) -> Result<()> {
    lab.kubectl(&["taint", "node", node, OUT_OF_SERVICE]).map(drop)
}

fn untainted(lab: &Lab, node: &str) -> Result<()> {
    lab.kubectl(&["taint", "node", node, &format!("{OUT_OF_SERVICE}-")]).map(drop)
}

/// Writes the condition `NetworkUnavailable` of a node, as a network plugin does.
fn network(lab: &Lab, node: &str, unavailable: &str) -> Result<()> {
    let condition = format!(
        r#"{{"status":{{"conditions":[{{"type":"NetworkUnavailable","status":"{unavailable}"}}]}}}}"#
    );
    lab.kubectl(&[
        "patch",
        "node",
        node,
        "--subresource=status",
        "--type=strategic",
        "--patch",
        &condition,
    ])
    .map(drop)
    .with_context(|| format!("NetworkUnavailable={unavailable} on {node}"))
}
