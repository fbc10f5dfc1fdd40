//! Node leases: a node becomes NotReady after its failure, or when its kubelet no longer renews the
//! node's lease. Both take a minute, in which other scenarios use the healthy nodes of the same
//! lab.

use crate::pools::{self, STATE_MAX};
use crate::scenario::{print_measured, run_scenario, step};
use crate::services::{self, WEB};
use crate::under_load::{check_owner_stays, run_without_loss, wait_moved};
use crate::{kube_proxy_rules, segment, slices};
use anyhow::{Result, ensure};
use ferrolb_lab::cluster::lease::process_name;
use ferrolb_lab::topology::CLIENT;
use ferrolb_lab::{Lab, Options, Signal, wait};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

/// Minimum and maximum time from the failure until a node is NotReady. kube-controller-manager
/// waits for `--node-monitor-grace-period` (50 s since Kubernetes 1.32) after the last renewal of
/// the lease, which may precede the failure by 10 s. The maximum includes the interval of 5 s
/// between its checks, and time for a busy machine.
const NOT_READY_AFTER: [Duration; 2] = [Duration::from_secs(40), Duration::from_secs(75)];
/// Maximum time of a handover. A planned move takes 0.1 s, and the test finds the new owner within
/// 0.5 s; the rest is for a busy machine.
const HANDED_OVER_MAX: Duration = Duration::from_secs(3);
/// Time for which the address must stay with its new owner.
const SETTLED: Duration = Duration::from_secs(2);
/// The node that fails.
const FAILED_NODE: &str = "node4";

#[test]
fn an_address_leaves_a_node_that_kubernetes_reports_not_ready() {
    run_scenario(&Options { nodes: 4, leases: true, ..Options::named("leases") }, |lab| {
        lab.start_ferrolb()?;
        lab.apply_objects(&[
            pools::pool("lan", &["172.30.0.200-172.30.0.209"]),
            pools::advertisement(),
        ])?;
        for number in 1..=3 {
            lab.pod(&format!("web{number}"), &format!("node{number}"), &WEB)?;
        }
        step("every node has a lease", || wait_leases(lab))?;
        let failed_at = wait::now();
        lab.power_off(FAILED_NODE)?;
        kube_proxy_rules::part(lab)?;
        let (address, owner) =
            step("the owner of an address runs, and its lease is no longer renewed", || {
                stop_lease_renewal(lab)
            })?;
        let lease_stopped_at = wait::now();
        slices::part(lab)?;
        let second = step("both nodes become NotReady, and the address moves", || {
            run_without_loss(lab, address, ("a running owner becomes NotReady", 1), || {
                wait_not_ready(lab, "a powered-off node", FAILED_NODE, failed_at)?;
                check_handover(lab, address, &owner, lease_stopped_at)
            })
        })?;
        step("the former owner is Ready again, and the address stays", || {
            run_without_loss(lab, address, ("the former owner is Ready again", 0), || {
                lab.restart(&process_name(&owner))?;
                wait::until("all nodes but the failed one are Ready", STATE_MAX, || {
                    let others = lab.nodes().into_iter().filter(|node| node != FAILED_NODE);
                    others.map(|node| readiness(lab, &node)).try_for_each(|ready| {
                        ensure!(ready? == "True", "a running node is not Ready");
                        Ok(())
                    })?;
                    Ok(Some(()))
                })?;
                check_owner_stays(lab, address, &second, SETTLED)
            })
        })
    });
}

fn wait_leases(lab: &Lab) -> Result<()> {
    wait::until("every node has a lease", STATE_MAX, || {
        let leases =
            lab.kubectl(&["get", "leases", "--namespace", "kube-node-lease", "-o", "name"])?;
        ensure!(lab.nodes().iter().all(|node| leases.contains(node)), "the leases are {leases}");
        Ok(Some(()))
    })
}

/// Creates a Service, and stops the renewal of its owner's lease. Everything else on the owner
/// continues.
fn stop_lease_renewal(lab: &Lab) -> Result<(Ipv4Addr, String)> {
    let address = services::serve(lab, "running")?;
    let owner = segment::wait_owner(lab, address)?;
    wait::until("the client gets the page", STATE_MAX, || {
        let page = lab.http_get(CLIENT, services::http(address), "/")?;
        ensure!(page.status == 200, "the client gets {page:?}");
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

/// Waits until a node whose lease is no longer renewed after `since` is NotReady.
fn wait_not_ready(lab: &Lab, what: &str, node: &str, since: Instant) -> Result<()> {
    let [soonest, latest] = NOT_READY_AFTER;
    wait::until(&format!("{node} is NotReady"), latest.saturating_sub(since.elapsed()), || {
        let ready = readiness(lab, node)?;
        ensure!(ready == "Unknown", "the condition Ready is {ready:?}");
        Ok(Some(()))
    })?;
    let after = since.elapsed();
    print_measured(&format!("{what} is NotReady after {} s", after.as_secs()));
    ensure!(
        after > soonest,
        "{node} is NotReady after only {after:?}, so the lab does not use the default times"
    );
    Ok(())
}

/// Checks that the owner keeps its address until its Node is NotReady, and then hands the address
/// over. `since` is the end of the lease renewals. Returns the next owner.
fn check_handover(lab: &Lab, address: Ipv4Addr, owner: &str, since: Instant) -> Result<String> {
    let current = segment::owner(lab, address)?;
    ensure!(
        current == owner || readiness(lab, owner)? == "Unknown",
        "the address moved to {current} although {owner} is Ready"
    );
    wait_not_ready(lab, "a running owner without lease renewal", owner, since)?;
    let not_ready_at = wait::now();
    let second = wait_moved(lab, address, owner)?;
    print_measured(&format!(
        "another node replies at most {:.1} s after the owner is NotReady",
        not_ready_at.elapsed().as_secs_f64()
    ));
    ensure!(
        not_ready_at.elapsed() < HANDED_OVER_MAX,
        "the handover took {:?}",
        not_ready_at.elapsed()
    );
    ensure!(second != FAILED_NODE, "{FAILED_NODE} is powered off and owns the address");
    Ok(second)
}
