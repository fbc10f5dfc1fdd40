//! The machine that owns an address loses its power, in a cluster as kubeadm makes it, while a client connects every 10 ms: how soon another machine has
//! the address, and what connections come to until Kubernetes leaves out the dead machine's pod, which nothing that announces addresses can change.

mod plot;

use super::budgets;
use super::in_lab;
use super::report::{Findings, Remark};
use super::rest::REST_MAX;
use crate::setup::Tools;
use crate::setup::kubeadm::Pod;
use crate::traffic::probe::Report;
use crate::{Lab, Options, wait};
use anyhow::{Context, Result, ensure};
use serde_json::json;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

/// The step of the client's connections.
const STEP: Duration = Duration::from_millis(10);
/// How long it connects before the plug is pulled.
const BEFORE: Duration = Duration::from_secs(1);
/// How long after: Kubernetes' 50 s of grace, and some more.
const AFTER: Duration = Duration::from_secs(70);
/// A column of a report's timeline, in seconds.
const COLUMN: f64 = 0.1;
/// By these names the findings keep what is drawn.
const ANSWERED: &str = "power-off.answered";
const MARKS: &str = "power-off.marks";
/// What happens at the marks.
const MARKED: [&str; 4] = ["power off", "another machine answers", "NotReady", "endpoint left out"];
const SERVER: ([u8; 4], u16) = ([172, 30, 0, 210], 80);
const YAML: &str = "\
apiVersion: ferrolb.io/v1beta1
kind: IPAddressPool
metadata: {name: power, namespace: ferrolb-system}
spec: {addresses: [172.30.0.210/32]}
---
apiVersion: ferrolb.io/v1beta1
kind: L2Advertisement
metadata: {name: power, namespace: ferrolb-system}
---
apiVersion: v1
kind: Service
metadata: {name: power, namespace: default}
spec: {type: LoadBalancer, selector: {app: power}, ports: [{port: 80, targetPort: 8080}]}
";

/// What the client saw of a machine that lost its power.
#[derive(Debug)]
pub struct Cut {
    pub machine: String,
    pub report: Report,
    /// When the plug was pulled, after the client's start.
    at: Duration,
}

/// Runs in a cluster of its own.
///
/// # Errors
/// When another machine never answers, or Kubernetes does not find the dead one.
pub(super) fn run(tools: &Tools, options: &Options) -> Result<Findings> {
    in_lab(tools, &Options { kubeadm: true, ..options.clone() }, |lab| {
        lab.deploy_ferrolb()?;
        let server = serve(lab)?;
        let (cut, [not_ready, left_out]) = cut(lab, server, AFTER, |machine, start| noticed(lab, machine, start))?;
        let mut findings = Findings::default();
        let report = &cut.report;
        findings.add(&budgets::POWER_OFF_GAP, report.longest_gap_ms);
        findings.add(&budgets::POWER_OFF_NOT_READY, not_ready);
        findings.add(&budgets::POWER_OFF_ENDPOINTS, left_out);
        findings.add(&budgets::POWER_OFF_LOST, report.lost as f64);
        let off = cut.at.as_secs_f64();
        let again = (report.gap_began_ms + report.longest_gap_ms) / 1000.0 - off;
        findings.keep(MARKS, vec![off, off + again, off + not_ready / 1000.0, off + left_out / 1000.0]);
        findings.keep(ANSWERED, answered(report));
        let said = format!("\n{}", plot::text(&answered(report), COLUMN));
        findings.remarks.push(Remark { id: "power-off.plot", what: "of 100 connections how many were answered", said });
        Ok(findings)
    })
}

/// The drawing of what was measured, as SVG; none where it was not.
pub fn drawing(findings: &Findings) -> Option<String> {
    let (answered, marks) = (findings.samples.get(ANSWERED)?, findings.samples.get(MARKS)?);
    Some(plot::svg(answered, COLUMN, &marks.iter().copied().zip(MARKED).collect::<Vec<_>>()))
}

/// Serves an address from a pod on each machine; where.
///
/// # Errors
/// When not all pods answer.
pub fn serve(lab: &Lab) -> Result<SocketAddr> {
    let server = SocketAddr::new(IpAddr::from(SERVER.0), SERVER.1);
    lab.apply(YAML)?;
    lab.apply_objects(&[pods()])?;
    wait::until("all pods answer", REST_MAX, || {
        let report = lab.start_probe(server, BEFORE, STEP).finish()?;
        ensure!(report.lost == 0 && report.pods.len() == lab.nodes().len(), "{report:?}");
        Ok(Some(()))
    })?;
    Ok(server)
}

/// A pod on each machine, that of the control plane too.
fn pods() -> serde_json::Value {
    let name = json!({"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}});
    json!({
        "apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "power", "namespace": "default"},
        "spec": {
            "selector": {"matchLabels": {"app": "power"}},
            "template": {"metadata": {"labels": {"app": "power"}}, "spec": {
                "tolerations": [{"operator": "Exists"}], "terminationGracePeriodSeconds": 1,
                "containers": [{
                    "name": "power", "image": Pod::NAME, "imagePullPolicy": "Never", "args": ["serve", "$(NAME)", "8080"], "env": [name],
                    "readinessProbe": {"httpGet": {"path": "/", "port": 8080}, "periodSeconds": 1},
                }],
            }},
        },
    })
}

/// Pulls the plug of the machine that owns the server's address, while a client connects for as long as `after` from then, and `meanwhile` is looked on.
///
/// # Errors
/// When nobody owns it, or as `meanwhile`.
pub fn cut<T>(
    lab: &Lab,
    server: SocketAddr,
    after: Duration,
    meanwhile: impl FnOnce(&str, Instant) -> Result<T>,
) -> Result<(Cut, T)> {
    let machine = lab.who_answers(server.ip())?.context("nobody answers")?;
    let (start, probing) = (wait::now(), lab.start_probe(server, BEFORE + after, STEP));
    wait::during(BEFORE, || Ok(()))?;
    let at = start.elapsed();
    lab.power_off(&machine)?;
    let found = meanwhile(&machine, start + at)?;
    Ok((Cut { machine, report: probing.finish()?, at }, found))
}

/// How long after `start` a dead machine is NotReady, and its endpoint is not ready, in milliseconds.
fn noticed(lab: &Lab, machine: &str, start: Instant) -> Result<[f64; 2]> {
    let path = r#"jsonpath={.status.conditions[?(@.type=="Ready")].status}"#;
    let not_ready = ended("the dead node is NotReady", start, || lab.kubectl(&["get", "node", machine, "-o", path]))?;
    let of_it = format!(r#"{{range .items[*].endpoints[?(@.nodeName=="{machine}")]}}{{.conditions.ready}}{{end}}"#);
    let slices =
        ["get", "endpointslices", "-l", "kubernetes.io/service-name=power", "-o", &format!("jsonpath={of_it}")];
    let left_out = ended("its endpoint is not ready", start, || lab.kubectl(&slices))?;
    Ok([not_ready, left_out])
}

/// How long after `start` kubectl says true no more, in milliseconds.
fn ended(what: &str, start: Instant, said: impl Fn() -> Result<String>) -> Result<f64> {
    wait::until(what, AFTER, || {
        let still = said()?.to_lowercase().contains("true");
        Ok((!still).then_some(start.elapsed().as_secs_f64() * 1000.0))
    })
}

/// Of 100 connections how many were answered, column by column.
fn answered(report: &Report) -> Vec<f64> {
    report
        .timeline
        .iter()
        .map(|(sent, good)| if *sent == 0 { 100.0 } else { *good as f64 * 100.0 / *sent as f64 })
        .collect()
}
