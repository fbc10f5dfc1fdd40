//! The longest time a client goes without an answer when the node that owns its Service's address loses power. A pod runs on every node, and
//! before each run the owner's own pod is taken out of the Service, so that what is measured is the address and not a dead endpoint.

use super::budgets;
use super::report::Findings;
use super::rest::{self, REST_MAX};
use super::stats::Spread;
use crate::cluster::ferrolb::{ADMIN_PORT, speaker_name};
use crate::cluster::nodes::proxy_name;
use crate::lab::PROXY_HEALTH_PORT;
use crate::traffic::probe::Report;
use crate::{Lab, wait};
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// The step of the client's connections.
const STEP: Duration = Duration::from_millis(10);
/// How long the client connects, and how long before the power goes.
const PROBE: Duration = Duration::from_secs(10);
const BEFORE: Duration = Duration::from_secs(1);
/// How long connections must have been answered by the right pods alone before a run.
const STEADY: Duration = Duration::from_secs(1);
/// The Service, its pool and what announces it.
const OBJECTS: &str = "\
apiVersion: ferrolb.io/v1beta1
kind: IPAddressPool
metadata: {name: failover, namespace: ferrolb-system}
spec: {addresses: [172.30.0.200-172.30.0.210]}
---
apiVersion: ferrolb.io/v1beta1
kind: L2Advertisement
metadata: {name: failover, namespace: ferrolb-system}
---
apiVersion: v1
kind: Service
metadata: {name: failover, namespace: default}
spec:
  type: LoadBalancer
  selector: {app: failover}
  ports: [{port: 80, targetPort: 8080}]
";

/// Runs in a lab with FerroLB and no pool.
///
/// # Errors
/// When the cluster does not come to rest, or the address is not answered for again.
pub(super) fn run(lab: &Lab, runs: usize) -> Result<Findings> {
    for node in lab.nodes() {
        lab.pod(&pod(&node), &node, &[("app", "failover")])?;
    }
    lab.apply(OBJECTS)?;
    let address = wait::until("the Service's address", REST_MAX, || address(lab))?;
    let (mut gaps, mut lost) = (Vec::new(), Vec::new());
    for number in 1..=runs {
        let report = one(lab, address).with_context(|| format!("run {number} of {runs}"))?;
        gaps.push(report.longest_gap_ms);
        lost.push(report.lost as f64);
    }
    let spread = Spread::of(&gaps).context("--runs is at least 1")?;
    let mut findings = Findings::default();
    findings.add(&budgets::FAILOVER_MIN, spread.min);
    findings.add(&budgets::FAILOVER_MEDIAN, spread.median);
    findings.add(&budgets::FAILOVER_MAX, spread.max);
    findings.keep("failover.gap", gaps);
    findings.keep("failover.lost", lost);
    Ok(findings)
}

/// Powers the owner off under a client, and on again when it is over.
fn one(lab: &Lab, address: IpAddr) -> Result<Report> {
    let owner = wait::until("somebody answers", REST_MAX, || lab.who_answers(address))?;
    let server = SocketAddr::new(address, 80);
    come_to_rest(lab, &owner, server)?;
    let probe = lab.start_probe(server, PROBE, STEP);
    wait::during(BEFORE, || Ok(()))?;
    lab.power_off(&owner)?;
    let report = probe.finish()?;
    lab.power_on(&owner)?;
    lab.wait_healthy(&proxy_name(&owner), &owner, PROXY_HEALTH_PORT, "/healthz")?;
    lab.wait_healthy(&speaker_name(&owner), &owner, ADMIN_PORT, "/readyz")?;
    check(&report)?;
    Ok(report)
}

/// Refuses a report that says nothing of a failover: no answer before, none after, or no gap at all.
fn check(report: &Report) -> Result<()> {
    let (began, gap, probe) = (report.gap_began_ms, report.longest_gap_ms, PROBE.as_secs_f64() * 1000.0);
    ensure!(began > 0.0, "nothing was answered before the power went: {report:?}");
    ensure!(began + gap < probe, "nothing was answered again within {PROBE:?} after the power went: {report:?}");
    ensure!(report.lost > 0, "no connection was lost, so the owner did not die: {report:?}");
    Ok(())
}

/// Waits until every speaker hears all others, and the Service is served by the pods of the other nodes alone.
fn come_to_rest(lab: &Lab, owner: &str, server: SocketAddr) -> Result<()> {
    rest::wait_for(lab)?;
    for node in lab.nodes() {
        lab.set_ready(&pod(&node), node != owner)?;
    }
    let without = pod(owner);
    wait::until("only the other nodes' pods serve", REST_MAX, || {
        let report = lab.start_probe(server, STEADY, STEP).finish()?;
        ensure!(report.lost == 0 && !report.pods.contains_key(&without), "{report:?}");
        Ok(Some(()))
    })
}

/// The pod of a node.
fn pod(node: &str) -> String {
    format!("web{node}")
}

/// The address that the Service was given.
fn address(lab: &Lab) -> Result<Option<IpAddr>> {
    let service: Value = serde_json::from_str(&lab.kubectl(&["get", "service", "failover", "-o", "json"])?)?;
    Ok(service["status"]["loadBalancer"]["ingress"][0]["ip"].as_str().map(str::parse).transpose()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_that_says_nothing_of_a_failover_is_refused() {
        let report =
            |gap_began_ms, longest_gap_ms, lost| Report { gap_began_ms, longest_gap_ms, lost, ..Report::default() };
        for (what, report, good) in [
            ("an outage that ended", report(1000.0, 190.0, 18), true),
            ("one that did not", report(1000.0, 9000.0, 900), false),
            ("never answered", report(0.0, 10_000.0, 1000), false),
            ("nobody died", report(4000.0, 14.0, 0), false),
        ] {
            assert_eq!(check(&report).is_ok(), good, "{what}");
        }
    }
}
