//! A node that is not the owner dies with one of three pods of a Service with policy Cluster. Until Kubernetes says so, kube-proxy on the owner
//! goes on sending a third of the connections there; nothing that announces addresses can change it. The series is what users should know.

use crate::bench::budgets;
use crate::bench::report::{Findings, Remark};
use crate::bench::rest::REST_MAX;
use crate::traffic::probe::Report;
use crate::{Lab, wait};
use anyhow::{Context, Result, ensure};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

/// The step of the client's connections.
const STEP: Duration = Duration::from_millis(10);
/// How long the client connects after the death: 50 s of grace, 10 s of lease, and some more.
const WATCH: Duration = Duration::from_secs(75);
/// Columns of a report's timeline in a second.
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

/// Runs in a lab with leases, FerroLB, and a pod on each node.
///
/// # Errors
/// When Kubernetes does not find the dead node.
pub(super) fn run(lab: &Lab) -> Result<Findings> {
    let server = SocketAddr::new(IpAddr::from(SERVER.0), SERVER.1);
    lab.apply(YAML)?;
    wait::until("all pods answer", REST_MAX, || {
        let report = lab.start_probe(server, Duration::from_secs(1), STEP).finish()?;
        ensure!(report.lost == 0 && report.pods.len() == lab.nodes().len(), "{report:?}");
        Ok(Some(()))
    })?;
    let owner = lab.who_answers(server.ip())?.context("nobody answers")?;
    let dead = lab.nodes().into_iter().find(|node| *node != owner).context("a node that is not the owner")?;
    let (start, probing) = (wait::now(), lab.start_probe(server, WATCH, STEP));
    lab.power_off(&dead)?;
    let ready = |what: &[&str]| -> Result<bool> { Ok(lab.kubectl(what)?.contains("True")) };
    let node = || ready(&["get", "node", &dead, "-o", r#"jsonpath={.status.conditions[?(@.type=="Ready")].status}"#]);
    let path =
        format!(r#"jsonpath={{range .items[*].endpoints[?(@.nodeName=="{dead}")]}}{{.conditions.ready}}{{end}}"#);
    let endpoints = || {
        Ok(lab
            .kubectl(&["get", "endpointslices", "-l", "kubernetes.io/service-name=health", "-o", &path])?
            .contains("true"))
    };
    let not_ready = ended("the dead node is NotReady", start, node)?;
    let left_out = ended("its endpoints are not ready", start, endpoints)?;
    let report = probing.finish()?;
    let mut findings = Findings::default();
    findings.add(&budgets::DEAD_NOT_READY, not_ready);
    findings.add(&budgets::DEAD_ENDPOINTS, left_out);
    findings.add(&budgets::DEAD_LOST, report.lost as f64);
    let what = "a node dies: lost in each second, of 100";
    findings.remarks.push(Remark { id: "health.dead.series", what, said: series(&report) });
    Ok(findings)
}

/// How long after `start` it is so no more, in milliseconds.
fn ended(what: &str, start: Instant, is: impl Fn() -> Result<bool>) -> Result<f64> {
    wait::until(what, WATCH, || Ok((!is()?).then_some(start.elapsed().as_secs_f64() * 1000.0)))
}

/// Of a hundred connections how many were lost, second by second; equal ones in a row are told once.
fn series(report: &Report) -> String {
    let seconds = report.timeline.chunks(COLUMNS).map(|columns| {
        let (sent, good) = columns.iter().fold((0, 0), |all, column| (all.0 + column.0, all.1 + column.1));
        ((sent - good) * 100).checked_div(sent).unwrap_or_default().to_string()
    });
    let mut seconds: Vec<(String, usize)> = seconds.map(|lost| (lost, 1)).collect();
    seconds.dedup_by(|next, before| {
        next.0 == before.0 && {
            before.1 += next.1;
            true
        }
    });
    let said = seconds
        .into_iter()
        .map(|(lost, times)| if times > 2 { format!("{lost} ({times} times)") } else { vec![lost; times].join(" ") });
    said.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_series_has_a_number_for_each_second() {
        let second = |good: usize| vec![(10, good); COLUMNS];
        let timeline = [second(10), second(7), second(7), second(5), second(10), second(10), second(10)].concat();
        assert_eq!(series(&Report { timeline, ..Report::default() }), "0 30 30 50 0 (3 times)");
        assert_eq!(series(&Report::default()), "");
    }
}
