//! Failure of a node that does not own the address, with one of three pods of a Service with policy
//! Cluster. Until Kubernetes detects the failure, kube-proxy on the owner sends a third of the
//! connections to that pod. No announcer of addresses can change that; users should know the
//! series.

use crate::bench::report::{Findings, Remark};
use crate::bench::settle::REST_MAX;
use crate::bench::targets;
use crate::traffic::probe::ProbeReport;
use crate::{Lab, wait};
use anyhow::{Context, Result, ensure};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

/// Interval of the client's connections.
const STEP: Duration = Duration::from_millis(10);
/// Time for which the client connects after the failure: 50 s of grace period, 10 s of lease, and a
/// margin.
const WATCH: Duration = Duration::from_secs(75);
/// Columns of a report's timeline per second.
const COLUMNS: usize = 10;
const YAML: &str = "\
apiVersion: ferrolb.io/v1beta1
kind: IPAddressPool
metadata: {name: health, namespace: ferrolb-system}
spec: {addresses: [172.30.0.200/32]}
---
apiVersion: ferrolb.io/v1beta1
kind: L2Advertisement
metadata: {name: health, namespace: ferrolb-system}
---
apiVersion: v1
kind: Service
metadata: {name: health, namespace: default}
spec: {type: LoadBalancer, selector: {app: health}, ports: [{port: 80, targetPort: 8080}]}
";
const SERVER: ([u8; 4], u16) = ([172, 30, 0, 200], 80);

/// Runs in a lab with node leases, FerroLB, and a pod on each node.
///
/// # Errors
/// If Kubernetes does not detect the failed node.
pub(super) fn run(lab: &Lab) -> Result<Findings> {
    let server = SocketAddr::new(IpAddr::from(SERVER.0), SERVER.1);
    lab.apply(YAML)?;
    wait::until("all pods reply", REST_MAX, || {
        let report = lab.start_probe(server, Duration::from_secs(1), STEP).finish()?;
        ensure!(report.lost == 0 && report.pods.len() == lab.nodes().len(), "{report:?}");
        Ok(Some(()))
    })?;
    let owner = lab.owner_of(server.ip())?.context("no node replies")?;
    let dead = lab
        .nodes()
        .into_iter()
        .find(|node| *node != owner)
        .context("a node that is not the owner")?;
    let (start, probing) = (wait::now(), lab.start_probe(server, WATCH, STEP));
    lab.power_off(&dead)?;
    let ready = |what: &[&str]| -> Result<bool> { Ok(lab.kubectl(what)?.contains("True")) };
    let node = || {
        ready(&[
            "get",
            "node",
            &dead,
            "-o",
            r#"jsonpath={.status.conditions[?(@.type=="Ready")].status}"#,
        ])
    };
    let path = format!(
        r#"jsonpath={{range .items[*].endpoints[?(@.nodeName=="{dead}")]}}{{.conditions.ready}}{{end}}"#
    );
    let endpoints = || {
        Ok(lab
            .kubectl(&[
                "get",
                "endpointslices",
                "-l",
                "kubernetes.io/service-name=health",
                "-o",
                &path,
            ])?
            .contains("true"))
    };
    let not_ready = ended("the failed node is NotReady", start, node)?;
    let left_out = ended("its endpoints are not ready", start, endpoints)?;
    let report = probing.finish()?;
    let mut findings = Findings::default();
    findings.add(&targets::DEAD_NOT_READY, not_ready);
    findings.add(&targets::DEAD_ENDPOINTS, left_out);
    findings.add(&targets::DEAD_LOST, report.lost as f64);
    let what = "a node fails: lost in each second, of 100";
    findings.remarks.push(Remark { id: "health.dead.series", what, text: series(&report) });
    Ok(findings)
}

/// Waits until the condition `is` ends and returns the time since `start`, in milliseconds.
fn ended(what: &str, start: Instant, is: impl Fn() -> Result<bool>) -> Result<f64> {
    wait::until(what, WATCH, || Ok((!is()?).then_some(start.elapsed().as_secs_f64() * 1000.0)))
}

/// Formats the lost connections per hundred, second by second; runs of equal values are shortened.
fn series(report: &ProbeReport) -> String {
    let seconds = report.timeline.chunks(COLUMNS).map(|columns| {
        let (sent, good) =
            columns.iter().fold((0, 0), |all, column| (all.0 + column.0, all.1 + column.1));
        ((sent - good) * 100).checked_div(sent).unwrap_or_default().to_string()
    });
    let mut seconds: Vec<(String, usize)> = seconds.map(|lost| (lost, 1)).collect();
    seconds.dedup_by(|next, before| {
        next.0 == before.0 && {
            before.1 += next.1;
            true
        }
    });
    let said = seconds.into_iter().map(|(lost, times)| {
        if times > 2 { format!("{lost} ({times} times)") } else { vec![lost; times].join(" ") }
    });
    said.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_series_has_a_number_for_each_second() {
        let second = |good: usize| vec![(10, good); COLUMNS];
        let timeline =
            [second(10), second(7), second(7), second(5), second(10), second(10), second(10)]
                .concat();
        assert_eq!(
            series(&ProbeReport { timeline, ..ProbeReport::default() }),
            "0 30 30 50 0 (3 times)"
        );
        assert_eq!(series(&ProbeReport::default()), "");
    }
}
