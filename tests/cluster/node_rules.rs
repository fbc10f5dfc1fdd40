//! States of a node in Kubernetes in which its addresses move to another node: cordoned, excluded,
//! out of service, and without a network. A client connects meanwhile.

use crate::node_failure::serve_from_other_node;
use crate::scenario::{run_scenario, step};
use crate::under_load::{check_owner_stays, run_without_loss, wait_moved};
use crate::{pools, segment};
use anyhow::{Context, Result};
use ferrolb_lab::{Lab, Options, wait};
use std::net::IpAddr;
use std::time::Duration;

const EXCLUDE_LABEL: &str = "node.kubernetes.io/exclude-from-external-load-balancers";
const OUT_OF_SERVICE_TAINT: &str = "node.kubernetes.io/out-of-service=nodeshutdown:NoExecute";
/// Part of the log message of a speaker that ignores the exclude label.
const LABEL_IGNORED: &str = "every Node has the label";
/// Time for which an address must stay: longer than a planned move takes.
const SETTLED: Duration = Duration::from_secs(1);

#[test]
fn an_address_leaves_ineligible_nodes_without_loss() {
    run_scenario(&Options::named("noderules"), |lab| {
        lab.start_ferrolb()?;
        let (address, first) =
            step("a Service is served by a pod that is not on the owner", || {
                serve_from_other_node(lab)
            })?;
        let second = step("the owner is cordoned, and the address moves", || {
            run_without_loss(lab, address, ("owner cordoned", 1), || {
                lab.kubectl(&["cordon", &first])?;
                wait_moved(lab, address, &first)
            })
        })?;
        step("the former owner is uncordoned, and the address stays", || {
            run_without_loss(lab, address, ("former owner uncordoned", 0), || {
                lab.kubectl(&["uncordon", &first])?;
                check_owner_stays(lab, address, &second, SETTLED)
            })
        })?;
        step("the owner gets the exclude label, and the address moves", || {
            run_without_loss(lab, address, ("exclude label on the owner", 1), || {
                label(lab, &second, "=")?;
                wait_moved(lab, address, &second)
            })
        })?;
        step("with the exclude label on every node, speakers log that they ignore it", || {
            run_without_loss(
                lab,
                address,
                ("exclude label set on all nodes, one after another", 3),
                || label_all_nodes(lab, address),
            )
        })?;
        step("the exclude label is removed from all nodes", || {
            run_without_loss(
                lab,
                address,
                ("exclude label removed from all nodes, one after another", 3),
                || {
                    lab.nodes().iter().try_for_each(|node| label(lab, node, "-"))?;
                    segment::wait_owner(lab, address)
                },
            )
        })?;
        for (name, on, off) in [
            (
                "out-of-service taint on the owner",
                add_taint as fn(&Lab, &str) -> Result<()>,
                remove_taint as fn(&Lab, &str) -> Result<()>,
            ),
            (
                "NetworkUnavailable on the owner",
                |lab, node| set_network_unavailable(lab, node, "True"),
                |lab, node| set_network_unavailable(lab, node, "False"),
            ),
        ] {
            step(&format!("{name}: the address moves"), || {
                let owner = segment::wait_owner(lab, address)?;
                run_without_loss(lab, address, (name, 1), || {
                    on(lab, &owner)?;
                    wait_moved(lab, address, &owner)
                })?;
                off(lab, &owner)
            })?;
        }
        Ok(())
    });
}

/// Sets the exclude label of a node (`sign` is `=`) or removes it (`-`).
fn label(lab: &Lab, node: &str, sign: &str) -> Result<()> {
    lab.kubectl(&["label", "--overwrite", "node", node, &format!("{EXCLUDE_LABEL}{sign}")])
        .map(drop)
}

fn label_all_nodes(lab: &Lab, address: IpAddr) -> Result<()> {
    lab.nodes().iter().try_for_each(|node| label(lab, node, "="))?;
    for node in lab.nodes() {
        wait::until(
            &format!("the speaker of {node} logs that it ignores the label"),
            pools::STATE_MAX,
            || Ok(lab.logs(&format!("speaker-{node}")).contains(LABEL_IGNORED).then_some(())),
        )?;
    }
    let owner = segment::wait_owner(lab, address)?;
    check_owner_stays(lab, address, &owner, SETTLED)
}

fn add_taint(lab: &Lab, node: &str) -> Result<()> {
    lab.kubectl(&["taint", "node", node, OUT_OF_SERVICE_TAINT]).map(drop)
}

fn remove_taint(lab: &Lab, node: &str) -> Result<()> {
    lab.kubectl(&["taint", "node", node, &format!("{OUT_OF_SERVICE_TAINT}-")]).map(drop)
}

/// Sets the condition `NetworkUnavailable` of a node, as a network plugin does.
fn set_network_unavailable(lab: &Lab, node: &str, unavailable: &str) -> Result<()> {
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
    .with_context(|| format!("cannot set NetworkUnavailable={unavailable} on {node}"))
}
