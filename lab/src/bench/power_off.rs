//! Power failure of the machine that owns an address, in a kubeadm cluster, while a client connects
//! every 10 ms.
//!
//! Measures the time until another machine owns the address, and the share of served connections
//! until Kubernetes removes the failed machine's pod from the endpoints. No announcer of addresses
//! can change this share.
//!
//! # Method
//!
//! FerroLB and the three backends of the address are pods, and one backend is on the machine that
//! owns the address. This machine loses its power, with kubelet, containerd and pods. The longest
//! gap ends when another machine owns the address. After that, a third of the connections is lost,
//! until Kubernetes declares the machine failed (`--node-monitor-grace-period` of
//! kube-controller-manager, 50 s by default): until then, kube-proxy of the new owner sends a third
//! of them to the pod of the failed machine. `ferrolb.io/health-check` changes which node owns an
//! address, and not which pod serves a connection.
//!
//! `cargo lab bench power-off --svg docs/images/power-off.svg` draws the plot of the documentation.
//! `tests/kubeadm/power_off.rs` tests the same case.

mod plot;

use super::in_lab;
use super::report::{Findings, Remark};
use super::settle::SETTLE_MAX;
use super::targets;
use crate::setup::Tools;
use crate::setup::kubeadm::PodImage;
use crate::traffic::probe::ProbeReport;
use crate::{Lab, Options, wait};
use anyhow::{Context, Result, ensure};
use serde_json::json;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

/// Interval of the client's connections.
const PROBE_INTERVAL: Duration = Duration::from_millis(10);
/// Time for which the client connects before the power failure.
const PROBE_BEFORE: Duration = Duration::from_secs(1);
/// Time for which the client connects after the power failure: 50 s of grace period in Kubernetes,
/// and a margin.
const PROBE_AFTER: Duration = Duration::from_secs(70);
/// Length of one column of a report's timeline, in seconds.
const COLUMN_SECONDS: f64 = 0.1;
/// Name of the samples for the plot that contain the share of served connections per column.
/// [`EVENT_SAMPLES`] contain the times of the events.
const SERVED_SAMPLES: &str = "power-off.answered";
const EVENT_SAMPLES: &str = "power-off.marks";
/// Labels of the events in the plot.
const EVENT_LABELS: [&str; 4] =
    ["power off", "another machine replies", "NotReady", "endpoint left out"];
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

/// The client's report of a power failure.
#[derive(Debug)]
pub struct PowerFailure {
    pub machine: String,
    pub report: ProbeReport,
    /// Time from the client's start to the power failure.
    at: Duration,
}

/// Creates a kubeadm cluster, and measures a power failure in it.
///
/// # Errors
/// If no other machine takes the address, or Kubernetes does not detect the failed machine.
pub(super) fn run(tools: &Tools, options: &Options) -> Result<Findings> {
    in_lab(tools, &Options { kubeadm: true, ..options.clone() }, |lab| {
        lab.deploy_ferrolb()?;
        let server = create_service(lab)?;
        let (cut, [not_ready, endpoint_removed]) =
            power_off_owner(lab, server, PROBE_AFTER, |machine, start| {
                wait_detected(lab, machine, start)
            })?;
        let mut findings = Findings::default();
        let report = &cut.report;
        findings.add(&targets::POWER_OFF_GAP, report.longest_gap_ms);
        findings.add(&targets::POWER_OFF_NOT_READY, not_ready);
        findings.add(&targets::POWER_OFF_ENDPOINTS, endpoint_removed);
        findings.add(&targets::POWER_OFF_LOST, report.lost as f64);
        let off_s = cut.at.as_secs_f64();
        let reply_after_s = (report.gap_began_ms + report.longest_gap_ms) / 1000.0 - off_s;
        findings.keep_samples(
            EVENT_SAMPLES,
            vec![
                off_s,
                off_s + reply_after_s,
                off_s + not_ready / 1000.0,
                off_s + endpoint_removed / 1000.0,
            ],
        );
        findings.keep_samples(SERVED_SAMPLES, served_shares(report));
        let text_plot = format!("\n{}", plot::text(&served_shares(report), COLUMN_SECONDS));
        findings.remarks.push(Remark {
            id: "power-off.plot",
            what: "served connections of 100",
            text: text_plot,
        });
        Ok(findings)
    })
}

/// Returns the plot of the results as SVG; `None` if they were not measured.
pub fn svg_plot(findings: &Findings) -> Option<String> {
    let (shares, marks) =
        (findings.samples.get(SERVED_SAMPLES)?, findings.samples.get(EVENT_SAMPLES)?);
    Some(plot::svg(
        shares,
        COLUMN_SECONDS,
        &marks.iter().copied().zip(EVENT_LABELS).collect::<Vec<_>>(),
    ))
}

/// Creates a Service with a pod on each machine and returns its socket address.
///
/// # Errors
/// If not all pods reply.
pub fn create_service(lab: &Lab) -> Result<SocketAddr> {
    let server = SocketAddr::new(IpAddr::from(SERVER.0), SERVER.1);
    lab.apply(YAML)?;
    lab.apply_objects(&[pods()])?;
    wait::until("all pods reply", SETTLE_MAX, || {
        let report = lab.start_probe(server, PROBE_BEFORE, PROBE_INTERVAL).finish()?;
        ensure!(report.lost == 0 && report.pods.len() == lab.nodes().len(), "{report:?}");
        Ok(Some(()))
    })?;
    Ok(server)
}

/// Returns a DaemonSet with a pod on each machine, including the control plane.
fn pods() -> serde_json::Value {
    let name = json!({"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}});
    json!({
        "apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "power", "namespace": "default"},
        "spec": {
            "selector": {"matchLabels": {"app": "power"}},
            "template": {"metadata": {"labels": {"app": "power"}}, "spec": {
                "tolerations": [{"operator": "Exists"}], "terminationGracePeriodSeconds": 1,
                "containers": [{
                    "name": "power", "image": PodImage::NAME, "imagePullPolicy": "Never", "args": ["serve", "$(NAME)", "8080"], "env": [name],
                    "readinessProbe": {"httpGet": {"path": "/", "port": 8080}, "periodSeconds": 1},
                }],
            }},
        },
    })
}

/// Powers off the owner of the server's address while a client connects, and runs `meanwhile`. The
/// client continues to connect for `after` from the power failure on.
///
/// # Errors
/// If no machine owns the address, or if `meanwhile` fails.
pub fn power_off_owner<T>(
    lab: &Lab,
    server: SocketAddr,
    after: Duration,
    meanwhile: impl FnOnce(&str, Instant) -> Result<T>,
) -> Result<(PowerFailure, T)> {
    let machine = lab.owner_of(server.ip())?.context("no machine replies for the address")?;
    let (start, probing) =
        (wait::now(), lab.start_probe(server, PROBE_BEFORE + after, PROBE_INTERVAL));
    wait::during(PROBE_BEFORE, || Ok(()))?;
    let at = start.elapsed();
    lab.power_off(&machine)?;
    let found = meanwhile(&machine, start + at)?;
    Ok((PowerFailure { machine, report: probing.finish()?, at }, found))
}

/// Waits until Kubernetes detects a failed machine. Returns the times from `start` until the
/// machine is NotReady and until its endpoint is not ready, in milliseconds.
fn wait_detected(lab: &Lab, machine: &str, start: Instant) -> Result<[f64; 2]> {
    let path = r#"jsonpath={.status.conditions[?(@.type=="Ready")].status}"#;
    let not_ready = wait_ended("the failed node is NotReady", start, || {
        lab.kubectl(&["get", "node", machine, "-o", path])
    })?;
    let template = format!(
        r#"{{range .items[*].endpoints[?(@.nodeName=="{machine}")]}}{{.conditions.ready}}{{end}}"#
    );
    let slices = [
        "get",
        "endpointslices",
        "-l",
        "kubernetes.io/service-name=power",
        "-o",
        &format!("jsonpath={template}"),
    ];
    let endpoint_removed =
        wait_ended("the endpoint of the failed node is not ready", start, || lab.kubectl(&slices))?;
    Ok([not_ready, endpoint_removed])
}

/// Waits until `output`, the output of kubectl, no longer contains "true". Returns the time since
/// `start`, in milliseconds.
fn wait_ended(what: &str, start: Instant, output: impl Fn() -> Result<String>) -> Result<f64> {
    wait::until(what, PROBE_AFTER, || {
        let is_true = output()?.to_lowercase().contains("true");
        Ok((!is_true).then_some(start.elapsed().as_secs_f64() * 1000.0))
    })
}

/// Returns the percentage of served connections in each column of the report's timeline.
fn served_shares(report: &ProbeReport) -> Vec<f64> {
    report
        .timeline
        .iter()
        .map(|(sent, good)| if *sent == 0 { 100.0 } else { *good as f64 * 100.0 / *sent as f64 })
        .collect()
}
