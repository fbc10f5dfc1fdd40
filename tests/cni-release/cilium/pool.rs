//! A CiliumLoadBalancerIPPool without a selector, with which Cilium assigns addresses to Services
//! that FerroLB serves. With `defaultLBServiceIPAM: none` it assigns none.

use super::{clean, condition, configure};
use crate::client::{NamedServer, run_without_loss};
use crate::scenario::{print_measured, step};
use crate::workload::Servers;
use anyhow::{Result, ensure};
use ferrolb_lab::{Lab, wait};
use std::time::Duration;

const POOL: &str = "\
apiVersion: cilium.io/v2
kind: CiliumLoadBalancerIPPool
metadata: {name: second}
spec: {blocks: [{start: 172.30.0.160, stop: 172.30.0.180}]}
";
const KIND: &str = "CiliumLoadBalancerIPPool";
/// Field manager of Cilium's LB IPAM.
const MANAGER: &str = "cilium-operator-lb-ipam";
const OFF: &str = "defaultLBServiceIPAM=none";
/// Longest time until the condition has the contest.
const CONTESTED_MAX: Duration = Duration::from_secs(60);
/// Time for which nothing happens if Cilium assigns no addresses.
const QUIET_TIME: Duration = Duration::from_secs(15);

/// Creates and deletes the pool, with and without the value. `values` are those of the chart.
pub(super) fn check(lab: &Lab, servers: &Servers, values: &[&str]) -> Result<()> {
    step("a pool of Cilium is named, and all is clean after its end", || contest(lab))?;
    step("Cilium assigns no addresses by default", || quiet(lab, servers, values))
}

fn contest(lab: &Lab) -> Result<()> {
    lab.apply(POOL)?;
    let start = wait::now();
    wait::until("the Service is contested", CONTESTED_MAX, || {
        let found = condition(lab, "open", "AddressAssigned")?;
        ensure!(found.starts_with("False StatusContested"), "{found}");
        ensure!(found.contains(MANAGER), "{found}");
        Ok(Some(()))
    })?;
    let after = start.elapsed().as_secs_f64();
    print_measured(&format!("StatusContested {after:.1} s after the creation of the pool"));
    let found = lab.kubectl_ferrolb(&["check", "-o", "json"])?;
    for part in ["FLB024", MANAGER, KIND, "second"] {
        ensure!(found.contains(part), "check does not name {part}: {found}");
    }
    let why = lab.kubectl_ferrolb(&["why", "open"])?;
    for part in [KIND, "second"] {
        ensure!(why.contains(part), "why does not name {part}: {why}");
    }
    lab.kubectl(&["delete", KIND, "second"])?;
    clean(lab, "deletion of the pool")
}

fn quiet(lab: &Lab, servers: &Servers, values: &[&str]) -> Result<()> {
    configure(lab, &[values, &[OFF]].concat())?;
    let named: [NamedServer<'_>; 2] = [("open", servers.open[0]), ("local", servers.local[0])];
    let before = status(lab)?;
    run_without_loss(lab, "pool with defaultLBServiceIPAM: none", &named, || {
        lab.apply(POOL)?;
        wait::during(QUIET_TIME, || {
            let now = status(lab)?;
            ensure!(now == before, "the status has changed: {before}, {now}");
            Ok(())
        })
    })?;
    lab.kubectl(&["delete", KIND, "second"])?;
    configure(lab, values)?;
    clean(lab, "last change")
}

/// Returns the addresses of all Services.
fn status(lab: &Lab) -> Result<String> {
    let path = "jsonpath={range .items[*]}{.metadata.name} {.status.loadBalancer} {end}";
    lab.kubectl(&["get", "services", "-o", path])
}
