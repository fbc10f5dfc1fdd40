//! Where nodes renew leases, Kubernetes itself finds a dead node, and takes a living one whose kubelet stands still for one. A minute is long:
//! meanwhile the living nodes of the same lab show what Services of every kind come to.

use crate::pools::{self, BRINGING_MAX};
use crate::services::{self, WEB};
use crate::stage::{measured, play, step};
use crate::under_load::{stays, unharmed, wait_moved};
use crate::{client_wire, kube_proxy_rules, slices};
use anyhow::{Result, ensure};
use ferrolb_tests::cluster::lease::process_name;
use ferrolb_tests::topology::CLIENT;
use ferrolb_tests::{Lab, Options, Signal, wait};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

/// kube-controller-manager's `--node-monitor-grace-period`, 50 s since Kubernetes 1.32, and a lease renewed up to 10 s before the power went;
/// its look every 5 s, and some time for a busy machine.
const NOT_READY_AFTER: [Duration; 2] = [Duration::from_secs(40), Duration::from_secs(75)];
/// A planned move takes a tenth of a second, and a look at who answers half a one; some time for a busy machine.
const HANDED_OVER_MAX: Duration = Duration::from_secs(3);
/// How long is looked that nothing moves without need.
const SETTLED: Duration = Duration::from_secs(2);
/// The node that dies.
const DEAD: &str = "node4";

#[test]
fn a_dead_node_is_found_by_kubernetes_and_what_kube_proxy_does_holds_on_the_others() {
    play(&Options { nodes: 4, leases: true, ..Options::named("leases") }, |lab| {
        lab.start_ferrolb()?;
        lab.apply_objects(&[pools::pool("lan", &["172.30.0.200-172.30.0.209"]), pools::advertisement()])?;
        for number in 1..=3 {
            lab.pod(&format!("web{number}"), &format!("node{number}"), &WEB)?;
        }
        step("every node has a lease", || leased(lab))?;
        let dead = wait::now();
        lab.power_off(DEAD)?;
        kube_proxy_rules::part(lab)?;
        let (address, owner) = step("the owner of an address lives, and its kubelet stands still", || still(lab))?;
        let still = wait::now();
        slices::part(lab)?;
        let second = step("both are NotReady in the end, and the address moves", || {
            unharmed(lab, address, ("a living owner is NotReady", 1), || {
                not_ready(lab, "a powered-off node", DEAD, dead)?;
                handed_over(lab, address, &owner, still)
            })
        })?;
        step("the living one is Ready again, and nothing moves back so soon", || {
            unharmed(lab, address, ("the former owner is Ready again", 0), || {
                lab.restart(&process_name(&owner))?;
                wait::until("all but the dead one are Ready", BRINGING_MAX, || {
                    let others = lab.nodes().into_iter().filter(|node| node != DEAD);
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
    wait::until("a lease of every node", BRINGING_MAX, || {
        let leases = lab.kubectl(&["get", "leases", "--namespace", "kube-node-lease", "-o", "name"])?;
        ensure!(lab.nodes().iter().all(|node| leases.contains(node)), "there are {leases}");
        Ok(Some(()))
    })
}

/// Serves an address, and lets its owner's lease run out while all else on that node goes on.
fn still(lab: &Lab) -> Result<(Ipv4Addr, String)> {
    let address = services::serve(lab, "living")?;
    let owner = client_wire::wait_owner(lab, address)?;
    wait::until("the page", BRINGING_MAX, || {
        let page = lab.http_get(CLIENT, services::http(address), "/")?;
        ensure!(page.status == 200, "{page:?}");
        Ok(Some(()))
    })?;
    lab.stop(&process_name(&owner), Signal::KILL)?;
    Ok((address, owner))
}

/// What a node says of `Ready`.
fn readiness(lab: &Lab, node: &str) -> Result<String> {
    lab.kubectl(&["get", "node", node, "-o", r#"jsonpath={.status.conditions[?(@.type=="Ready")].status}"#])
}

/// Waits until a node whose lease was last renewed at `since` is NotReady.
fn not_ready(lab: &Lab, what: &str, node: &str, since: Instant) -> Result<()> {
    let [soonest, latest] = NOT_READY_AFTER;
    wait::until(&format!("{node} is NotReady"), latest.saturating_sub(since.elapsed()), || {
        let said = readiness(lab, node)?;
        ensure!(said == "Unknown", "it says {said:?}");
        Ok(Some(()))
    })?;
    let after = since.elapsed();
    measured(&format!("{what} is NotReady after {} s", after.as_secs()));
    ensure!(after > soonest, "after {after:?} only: times are not as users have them");
    Ok(())
}

/// The owner keeps its address until it is NotReady, and no longer; who has it then.
fn handed_over(lab: &Lab, address: Ipv4Addr, owner: &str, since: Instant) -> Result<String> {
    let kept = client_wire::owner(lab, address)?;
    ensure!(kept == owner || readiness(lab, owner)? == "Unknown", "it went to {kept} although {owner} is Ready");
    not_ready(lab, "a living owner without a kubelet", owner, since)?;
    let said = wait::now();
    let second = wait_moved(lab, address, owner)?;
    measured(&format!("and another node answers {:.1} s later at most", said.elapsed().as_secs_f64()));
    ensure!(said.elapsed() < HANDED_OVER_MAX, "it took {:?}", said.elapsed());
    ensure!(second != DEAD, "{DEAD} is off and answers");
    Ok(second)
}
