//! Time from endpoint removed to route withdrawn: from the API server's reply to the change until
//! the router's kernel removes the route.
//!
//! The Service has policy Local and one endpoint in a manual slice, which is removed and restored
//! twenty times. `ip monitor` on the router reports the changes of the kernel's routes.

use super::ROUTER;
use super::routes::RouteMonitor;
use crate::bench::report::Findings;
use crate::bench::services;
use crate::bench::stats::Spread;
use crate::bench::targets::MeasureSpec;
use crate::{Lab, wait};
use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Client;
use kube::api::{Api, Patch, PatchParams};
use serde_json::json;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Number of times that the endpoint is removed and restored.
const ROUNDS: usize = 20;
/// Name of the Service and of its EndpointSlice.
const SERVICE: &str = "gone";
/// Maximum time for the Service to get an address, and for the router to add or remove the route.
const ROUTE_MAX: Duration = Duration::from_secs(20);
/// Pause before the next change.
const PAUSE: Duration = Duration::from_millis(300);

/// Measures a Service with policy Local and one endpoint on the first node, which is removed and
/// restored repeatedly.
///
/// # Errors
/// If the router does not add or remove the route in time.
pub(super) fn run(
    lab: &Lab,
    [removal_median, removal_max, return_median]: &'static [MeasureSpec; 3],
) -> Result<Findings> {
    let monitor = RouteMonitor::start(lab, ROUTER)?;
    let (mut removal_times, mut return_times) = (Vec::new(), Vec::new());
    lab.api(async |client| {
        let start = wait::now();
        let address = create_service(&client).await?;
        wait::until_async("the router has the route", ROUTE_MAX, async || {
            Ok(monitor.first_change(address, true, start))
        })
        .await?;
        for _ in 0..ROUNDS {
            removal_times.push(set_endpoint_ready(&client, &monitor, address, false).await?);
            return_times.push(set_endpoint_ready(&client, &monitor, address, true).await?);
        }
        delete_service(&client).await
    })?;
    let spread = Spread::of(&removal_times).context("no removal was measured")?;
    let mut findings = Findings::default();
    findings.add(removal_median, spread.median);
    findings.add(removal_max, spread.max);
    findings
        .add(return_median, Spread::of(&return_times).context("no return was measured")?.median);
    findings.keep_samples(removal_median.id, removal_times);
    findings.keep_samples(return_median.id, return_times);
    Ok(findings)
}

async fn create_service(client: &Client) -> Result<IpAddr> {
    let slices: Api<EndpointSlice> = Api::default_namespaced(client.clone());
    let all: Api<Service> = Api::default_namespaced(client.clone());
    let slice = json!({
        "metadata": {"name": SERVICE, "labels": {"kubernetes.io/service-name": SERVICE, "endpointslice.kubernetes.io/managed-by": "ferrolb-bench"}},
        "addressType": "IPv4", "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}], "endpoints": endpoints(true),
    });
    services::post(&slices, slice).await?;
    let service = json!({
        "metadata": {"name": SERVICE},
        "spec": {"type": "LoadBalancer", "externalTrafficPolicy": "Local", "ports": [{"name": "http", "port": 80, "targetPort": 8080}]},
    });
    services::post(&all, service).await?;
    wait::until_async("the Service has an address", ROUTE_MAX, async || {
        Ok(services::addresses(&all.get(SERVICE).await?).first().copied())
    })
    .await
}

fn endpoints(ready: bool) -> serde_json::Value {
    json!([{"addresses": ["10.244.1.98"], "conditions": {"ready": ready, "serving": ready}, "nodeName": "node1"}])
}

/// Sets the readiness of the endpoint, and returns the time until the router adds or removes the
/// route, in milliseconds.
async fn set_endpoint_ready(
    client: &Client,
    monitor: &RouteMonitor,
    address: IpAddr,
    ready: bool,
) -> Result<f64> {
    tokio::time::sleep(PAUSE).await;
    let slices: Api<EndpointSlice> = Api::default_namespaced(client.clone());
    let sent = wait::now();
    let patch = Patch::Merge(json!({"endpoints": endpoints(ready)}));
    slices.patch(SERVICE, &PatchParams::default(), &patch).await?;
    let replied = wait::now();
    let what = if ready { "the router adds the route" } else { "the router removes the route" };
    let changed_at: Instant =
        wait::until_async(what, ROUTE_MAX, async || Ok(monitor.first_change(address, ready, sent)))
            .await?;
    Ok(changed_at.saturating_duration_since(replied).as_secs_f64() * 1000.0)
}

async fn delete_service(client: &Client) -> Result<()> {
    Api::<Service>::default_namespaced(client.clone())
        .delete(SERVICE, &kube::api::DeleteParams::default())
        .await?;
    Api::<EndpointSlice>::default_namespaced(client.clone())
        .delete(SERVICE, &kube::api::DeleteParams::default())
        .await?;
    Ok(())
}
