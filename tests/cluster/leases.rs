//! Where nodes renew leases, Kubernetes itself finds a dead node, and a minute is long: meanwhile the living nodes of the same lab show what
//! Services of every kind come to.

use crate::pools::{self, BRINGING_MAX};
use crate::services::WEB;
use crate::stage::{measured, play, step};
use crate::{kube_proxy_rules, slices};
use anyhow::{Result, ensure};
use ferrolb_tests::{Lab, Options, wait};
use std::time::{Duration, Instant};

/// kube-controller-manager's `--node-monitor-grace-period`, 50 s since Kubernetes 1.32, and a lease renewed up to 10 s before the power went;
/// its look every 5 s, and some time for a busy machine.
const NOT_READY_AFTER: [Duration; 2] = [Duration::from_secs(40), Duration::from_secs(75)];
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
        slices::part(lab)?;
        step("the dead node is NotReady in the end, and the others are Ready", || not_ready(lab, dead))
    });
}

fn leased(lab: &Lab) -> Result<()> {
    wait::until("a lease of every node", BRINGING_MAX, || {
        let leases = lab.kubectl(&["get", "leases", "--namespace", "kube-node-lease", "-o", "name"])?;
        ensure!(lab.nodes().iter().all(|node| leases.contains(node)), "there are {leases}");
        Ok(Some(()))
    })
}

/// What each node says of `Ready`.
fn readiness(lab: &Lab) -> Result<Vec<String>> {
    let path = r#"{range .items[*]}{.status.conditions[?(@.type=="Ready")].status}{"\n"}{end}"#;
    let said = lab.kubectl(&["get", "nodes", "-o", &format!("jsonpath={path}")])?;
    Ok(said.lines().map(str::to_owned).collect())
}

fn not_ready(lab: &Lab, dead: Instant) -> Result<()> {
    let [soonest, latest] = NOT_READY_AFTER;
    let left = latest.saturating_sub(dead.elapsed());
    wait::until(&format!("{DEAD} is NotReady"), left, || {
        let said = readiness(lab)?;
        ensure!(said == ["True", "True", "True", "Unknown"], "the nodes say {said:?}");
        Ok(Some(()))
    })?;
    let after = dead.elapsed();
    measured(&format!("a powered-off node is NotReady after {} s", after.as_secs()));
    ensure!(after > soonest, "after {after:?} only: times are not as users have them");
    Ok(())
}
