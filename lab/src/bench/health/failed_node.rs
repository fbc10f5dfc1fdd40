//! Failure of a node that does not own the address, with one of three pods of a Service with policy
//! Cluster. Until Kubernetes detects the failure, kube-proxy on the owner sends a third of the
//! connections to that pod. No announcer of addresses can change that, but users should know how
//! many connections it costs.
//!
//! # Method
//!
//! The nodes renew Leases like kubelets, every 10 s. kube-controller-manager has its defaults: a
//! Node is NotReady after 50 s without a renewal (since Kubernetes 1.32), checked every 5 s. The
//! client opens a new connection every 10 ms for 75 s after the failure. The results are the times
//! until the Node is NotReady and until its endpoints are not ready, and the number of lost
//! connections of each second. They have no target.
//!
//! About a tenth of the connections is lost even after the endpoints are removed. A client may use
//! a source port again from which a connection was lost. The old entry of the owner's connection
//! tracking then sends it to the failed pod, for two minutes (`nf_conntrack_tcp_timeout_syn_sent`;
//! a repeated SYN does not renew it). Of 999 connections in the ten seconds after the removal, 20
//! were lost: exactly those from such ports. This client reuses its own ports often; many clients
//! rarely do.

use crate::bench::report::{Findings, Remark};
use crate::bench::settle::SETTLE_MAX;
use crate::bench::targets;
use crate::traffic::probe::ProbeReport;
use crate::{Lab, wait};
use anyhow::{Context, Result, ensure};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

/// Interval of the client's connections.
const PROBE_INTERVAL: Duration = Duration::from_millis(10);
/// Time for which the client connects after the failure: the grace period of 50 s after which a
/// node is NotReady, the 10 s between two renewals of the Node's Lease, and a margin.
const PROBE_TIME: Duration = Duration::from_secs(75);
/// Columns of a report's timeline per second.
const COLUMNS_PER_SECOND: usize = 10;
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

/// Runs this measurement in a lab with node leases, FerroLB, and a pod on each node.
///
/// # Errors
/// If Kubernetes does not detect the failed node.
pub(super) fn run(lab: &Lab) -> Result<Findings> {
    let server = SocketAddr::new(IpAddr::from(SERVER.0), SERVER.1);
    lab.apply(YAML)?;
    wait::until("all pods reply", SETTLE_MAX, || {
        let report = lab.start_probe(server, Duration::from_secs(1), PROBE_INTERVAL).finish()?;
        ensure!(report.lost == 0 && report.pods.len() == lab.nodes().len(), "{report:?}");
        Ok(Some(()))
    })?;
    let owner = lab.owner_of(server.ip())?.context("no node replies for the address")?;
    let failed =
        lab.nodes().into_iter().find(|node| *node != owner).context("every node is the owner")?;
    let (start, probing) = (wait::now(), lab.start_probe(server, PROBE_TIME, PROBE_INTERVAL));
    lab.power_off(&failed)?;
    let prints_true = |args: &[&str]| -> Result<bool> { Ok(lab.kubectl(args)?.contains("True")) };
    let is_ready = || {
        prints_true(&[
            "get",
            "node",
            &failed,
            "-o",
            r#"jsonpath={.status.conditions[?(@.type=="Ready")].status}"#,
        ])
    };
    let path = format!(
        r#"jsonpath={{range .items[*].endpoints[?(@.nodeName=="{failed}")]}}{{.conditions.ready}}{{end}}"#
    );
    let has_ready_endpoint = || {
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
    let not_ready = wait_ended("the failed node is NotReady", start, is_ready)?;
    let endpoints_removed =
        wait_ended("the endpoints of the failed node are not ready", start, has_ready_endpoint)?;
    let report = probing.finish()?;
    let mut findings = Findings::default();
    findings.add(&targets::FAILED_NODE_NOT_READY, not_ready);
    findings.add(&targets::FAILED_NODE_ENDPOINTS, endpoints_removed);
    findings.add(&targets::FAILED_NODE_LOST, report.lost as f64);
    let what = "a node fails: lost in each second, of 100";
    findings.remarks.push(Remark { id: "health.dead.series", what, text: series(&report) });
    Ok(findings)
}

/// Waits until `condition` is no longer true and returns the time since `start`, in milliseconds.
fn wait_ended(what: &str, start: Instant, condition: impl Fn() -> Result<bool>) -> Result<f64> {
    wait::until(what, PROBE_TIME, || {
        Ok((!condition()?).then_some(start.elapsed().as_secs_f64() * 1000.0))
    })
}

/// Formats the lost connections per hundred, second by second; runs of equal values are shortened.
fn series(report: &ProbeReport) -> String {
    let seconds = report.timeline.chunks(COLUMNS_PER_SECOND).map(|columns| {
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
    let parts = seconds.into_iter().map(|(lost, times)| {
        if times > 2 { format!("{lost} ({times} times)") } else { vec![lost; times].join(" ") }
    });
    parts.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_series_has_a_number_for_each_second() {
        let second = |good: usize| vec![(10, good); COLUMNS_PER_SECOND];
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
