//! The thousand Services of [`super::changes`] with a health check each, with default settings.
//! Their five thousand endpoints are checked every second, a third of them by each speaker. All
//! checks pass: a pod on each node replies at the addresses of all endpoints. Nothing else changes,
//! and the result is the processor time over 10 s.

use super::changes::{
    CHANGED, ENDPOINT_RANGE, ENDPOINTS, OBSERVATION_TIME, SETTLE_TIME, busiest_speaker_time,
    endpoints, names,
};
use crate::bench::report::Findings;
use crate::bench::services;
use crate::bench::settle::SETTLE_MAX;
use crate::bench::targets;
use crate::lab::admin::metric;
use crate::{Lab, wait};
use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Client;
use kube::api::{Api, Patch, PatchParams};
use serde_json::json;

/// Runs these measurements in the lab of [`super::changes`], after those of that module.
///
/// # Errors
/// If an endpoint is not checked, or does not reply.
pub(super) fn run(lab: &Lab) -> Result<Findings> {
    let nodes = lab.nodes();
    nodes.iter().try_for_each(|node| serve_endpoints(lab, node))?;
    lab.api(async |client| check_all(&client, &nodes).await)?;
    wait::until("all endpoints are checked and pass", SETTLE_MAX, || {
        let (checked, failing) =
            (metric_sum(lab, "health_targets")?, metric_sum(lab, "health_targets_failing")?);
        ensure!(
            checked == (CHANGED * ENDPOINTS) as f64 && failing == 0.0,
            "{checked} endpoints are checked, {failing} fail"
        );
        Ok(Some(()))
    })?;
    wait::during(SETTLE_TIME, || Ok(()))?;
    let (before, start) = (metric_sum(lab, "health_checks_total")?, wait::now());
    let used = busiest_speaker_time(lab, || wait::during(OBSERVATION_TIME, || Ok(())))?;
    let rate = (metric_sum(lab, "health_checks_total")? - before) / start.elapsed().as_secs_f64();
    let mut findings = Findings::default();
    findings.add(&targets::HEALTH_CPU_CHECKED, used);
    findings.add(&targets::HEALTH_CHECK_RATE, rate);
    Ok(findings)
}

/// Runs a pod on a node that replies at the addresses of all endpoints.
fn serve_endpoints(lab: &Lab, node: &str) -> Result<()> {
    let (pod, [first, second]) = (format!("all{node}"), ENDPOINT_RANGE);
    lab.pod(&pod, node, &[])?;
    let range = format!("{first}.{second}.0.0/16");
    let address = lab.kubectl(&["get", "pod", &pod, "-o", "jsonpath={.status.podIP}"])?;
    lab.exec(&pod, &["ip", "route", "add", "local", &range, "dev", "lo"])?;
    lab.exec(node, &["ip", "route", "add", &range, "via", &address]).map(drop)
}

/// Makes all endpoints ready again, and adds a health check to each Service.
async fn check_all(client: &Client, nodes: &[String]) -> Result<()> {
    let slices: Api<EndpointSlice> = Api::default_namespaced(client.clone());
    let services: Api<Service> = Api::default_namespaced(client.clone());
    let checked =
        Patch::Merge(json!({"metadata": {"annotations": {"ferrolb.io/health-check": "tcp"}}}));
    services::for_each_name(&names(CHANGED), async |name| {
        let ready = Patch::Merge(json!({"endpoints": endpoints(name, nodes, None)}));
        slices.patch(name, &PatchParams::default(), &ready).await?;
        services.patch(name, &PatchParams::default(), &checked).await?;
        Ok(())
    })
    .await?;
    Ok(())
}

/// Returns the sum of a metric over all speakers.
fn metric_sum(lab: &Lab, name: &str) -> Result<f64> {
    lab.nodes().iter().map(|node| metric(lab, node, &format!("ferrolb_speaker_{name}"))).sum()
}
