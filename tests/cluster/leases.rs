//! Node leases: Kubernetes itself detects a failed node, and treats a live node without a working
//! kubelet as failed. Both take a minute. Meanwhile other scenarios use the healthy nodes of the
//! same lab.

use crate::pools::{self, STATE_MAX};
use crate::scenario::{print_measured, run_scenario, step};
use crate::services::{self, WEB};
use crate::under_load::{stays, wait_moved, without_loss};
use crate::{kube_proxy_rules, segment, slices};
use anyhow::{Result, ensure};
use ferrolb_lab::cluster::lease::process_name;
use ferrolb_lab::topology::CLIENT;
use ferrolb_lab::{Lab, Options, Signal, wait};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

/// Minimum and maximum time until a node is NotReady: kube-controller-manager's
/// `--node-monitor-grace-period` (50 s since Kubernetes 1.32), less up to 10 s since the last
/// renewal. The maximum adds its check every 5 s, and time for a busy machine.
const NOT_READY_AFTER: [Duration; 2] = [Duration::from_secs(40), Duration::from_secs(75)];
/// Maximum time of a handover. A planned move takes 0.1 s and one look at the replies 0.5 s; the
/// rest is for a busy machine.
const HANDED_OVER_MAX: Duration = Duration::from_secs(3);
/// Time in which nothing may move without need.
const SETTLED: Duration = Duration::from_secs(2);
/// The node that fails.
const FAILED_NODE: &str = "node4";

#[test]
fn kubernetes_detects_a_failed_node_and_kube_proxy_features_hold_on_the_others() {
    run_scenario(&Options { nodes: 4, leases: true, ..Options::named("leases") }, |lab| {
        lab.start_ferrolb()?;
        lab.apply_objects(&[
            pools::pool("lan", &["172.30.0.200-172.30.0.209"]),
            pools::advertisement(),
        ])?;
        for number in 1..=3 {
            lab.pod(&format!("web{number}"), &format!("node{number}"), &WEB)?;
        }
        step("every node has a lease", || leased(lab))?;
        let dead = wait::now();
        lab.power_off(FAILED_NODE)?;
        kube_proxy_rules::part(lab)?;
        let (address, owner) =
            step("the owner of an address lives, and its kubelet stands still", || {
                stop_lease_renewal(lab)
            })?;
        let still = wait::now();
        slices::part(lab)?;
        let second = step("both are NotReady in the end, and the address moves", || {
            without_loss(lab, address, ("a living owner is NotReady", 1), || {
                not_ready(lab, "a powered-off node", FAILED_NODE, dead)?;
                handed_over(lab, address, &owner, still)
            })
        })?;
        step("the living one is Ready again, and nothing moves back so soon", || {
            without_loss(lab, address, ("the former owner is Ready again", 0), || {
                lab.restart(&process_name(&owner))?;
                wait::until("all but the dead one are Ready", STATE_MAX, || {
                    let others = lab.nodes().into_iter().filter(|node| node != FAILED_NODE);
                    others.map(|node| readiness(lab, &node)).try_for_each(|said| {
                        ensure!(said? == "True", "not yet");
                        Ok(())
                    })?;
                    Ok(Some(()))
                })?;
                stays(lab, address, &second, SETTLED)
            })
        })
    });
}

fn leased(lab: &Lab) -> Result<()> {
    wait::until("a lease of every node", STATE_MAX, || {
        let leases =
            lab.kubectl(&["get", "leases", "--namespace", "kube-node-lease", "-o", "name"])?;
        ensure!(lab.nodes().iter().all(|node| leases.contains(node)), "there are {leases}");
        Ok(Some(()))
    })
}

/// Serves an address, and stops the renewal of its owner's lease. Everything else on that node
/// continues.
fn stop_lease_renewal(lab: &Lab) -> Result<(Ipv4Addr, String)> {
    let address = services::serve(lab, "living")?;
    let owner = segment::wait_owner(lab, address)?;
    wait::until("the page", STATE_MAX, || {
        let page = lab.http_get(CLIENT, services::http(address), "/")?;
        ensure!(page.status == 200, "{page:?}");
        Ok(Some(()))
    })?;
    lab.stop(&process_name(&owner), Signal::KILL)?;
    Ok((address, owner))
}

/// Returns the status of a node's condition `Ready`.
fn readiness(lab: &Lab, node: &str) -> Result<String> {
    lab.kubectl(&[
        "get",
        "node",
        node,
        "-o",
        r#"jsonpath={.status.conditions[?(@.type=="Ready")].status}"#,
    ])
}

/// Waits until a node whose lease was last renewed at `since` is NotReady.
fn not_ready(lab: &Lab, what: &str, node: &str, since: Instant) -> Result<()> {
    let [soonest, latest] = NOT_READY_AFTER;
    wait::until(&format!("{node} is NotReady"), latest.saturating_sub(since.elapsed()), || {
        let said = readiness(lab, node)?;
        ensure!(said == "Unknown", "the status is {said:?}");
        Ok(Some(()))
    })?;
    let after = since.elapsed();
    print_measured(&format!("{what} is NotReady after {} s", after.as_secs()));
    ensure!(after > soonest, "after {after:?} only: times are not as users have them");
    Ok(())
}

/// Checks that the owner keeps its address until it is NotReady, and then loses it. Returns the
/// next owner.
fn handed_over(lab: &Lab, address: Ipv4Addr, owner: &str, since: Instant) -> Result<String> {
    let kept = segment::owner(lab, address)?;
    ensure!(
        kept == owner || readiness(lab, owner)? == "Unknown",
        "the address moved to {kept} although {owner} is Ready"
    );
    not_ready(lab, "a living owner without a kubelet", owner, since)?;
    let said = wait::now();
    let second = wait_moved(lab, address, owner)?;
    print_measured(&format!(
        "and another node answers {:.1} s later at most",
        said.elapsed().as_secs_f64()
    ));
    ensure!(said.elapsed() < HANDED_OVER_MAX, "it took {:?}", said.elapsed());
    ensure!(second != FAILED_NODE, "{FAILED_NODE} is powered off and owns the address");
    Ok(second)
}
