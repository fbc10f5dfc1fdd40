//! Time from endpoint removed to route withdrawn: from the API server's reply to the change until
//! the router's kernel removes the route.

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

/// Number of removals, each with a return.
const ROUNDS: usize = 20;
const NAME: &str = "gone";
/// Maximum time of a route change.
const ROUTE_MAX: Duration = Duration::from_secs(20);
/// Pause before the next change.
const APART: Duration = Duration::from_millis(300);

/// Creates a Service with policy Local and one endpoint on the first node, then removes and
/// restores the endpoint.
///
/// # Errors
/// If the route does not follow the endpoint.
pub(super) fn run(
    lab: &Lab,
    [going, worst, coming]: &'static [MeasureSpec; 3],
) -> Result<Findings> {
    let watch = RouteMonitor::start(lab, ROUTER)?;
    let (mut gone, mut back) = (Vec::new(), Vec::new());
    lab.api(async |client| {
        let start = wait::now();
        let address = make(&client).await?;
        wait::until_async("its route", ROUTE_MAX, async || Ok(watch.first(address, true, start)))
            .await?;
        for _ in 0..ROUNDS {
            gone.push(change(&client, &watch, address, false).await?);
            back.push(change(&client, &watch, address, true).await?);
        }
        remove(&client).await
    })?;
    let spread = Spread::of(&gone).context("a round")?;
    let mut findings = Findings::default();
    findings.add(going, spread.median);
    findings.add(worst, spread.max);
    findings.add(coming, Spread::of(&back).context("a round")?.median);
    findings.keep(going.id, gone);
    findings.keep(coming.id, back);
    Ok(findings)
}

async fn make(client: &Client) -> Result<IpAddr> {
    let slices: Api<EndpointSlice> = Api::default_namespaced(client.clone());
    let all: Api<Service> = Api::default_namespaced(client.clone());
    let slice = json!({
        "metadata": {"name": NAME, "labels": {"kubernetes.io/service-name": NAME, "endpointslice.kubernetes.io/managed-by": "ferrolb-bench"}},
        "addressType": "IPv4", "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}], "endpoints": endpoints(true),
    });
    services::post(&slices, slice).await?;
    let service = json!({
        "metadata": {"name": NAME},
        "spec": {"type": "LoadBalancer", "externalTrafficPolicy": "Local", "ports": [{"name": "http", "port": 80, "targetPort": 8080}]},
    });
    services::post(&all, service).await?;
    wait::until_async("an address", ROUTE_MAX, async || {
        Ok(services::addresses(&all.get(NAME).await?).first().copied())
    })
    .await
}

fn endpoints(ready: bool) -> serde_json::Value {
    json!([{"addresses": ["10.244.1.98"], "conditions": {"ready": ready, "serving": ready}, "nodeName": "node1"}])
}

/// Changes the endpoint and returns the time until the route follows, in milliseconds.
async fn change(
    client: &Client,
    watch: &RouteMonitor,
    address: IpAddr,
    ready: bool,
) -> Result<f64> {
    tokio::time::sleep(APART).await;
    let slices: Api<EndpointSlice> = Api::default_namespaced(client.clone());
    let sent = wait::now();
    let patch = Patch::Merge(json!({"endpoints": endpoints(ready)}));
    slices.patch(NAME, &PatchParams::default(), &patch).await?;
    let answered = wait::now();
    let what = if ready { "the route is back" } else { "the route is gone" };
    let at: Instant =
        wait::until_async(what, ROUTE_MAX, async || Ok(watch.first(address, ready, sent))).await?;
    Ok(at.saturating_duration_since(answered).as_secs_f64() * 1000.0)
}

async fn remove(client: &Client) -> Result<()> {
    Api::<Service>::default_namespaced(client.clone())
        .delete(NAME, &kube::api::DeleteParams::default())
        .await?;
    Api::<EndpointSlice>::default_namespaced(client.clone())
        .delete(NAME, &kube::api::DeleteParams::default())
        .await?;
    Ok(())
}
