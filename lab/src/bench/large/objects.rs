//! Peak memory of the components since their start: with a thousand Services that have as many
//! annotations as the API server allows, and with three thousand additional Nodes.
//!
//! # Method
//!
//! - A user who may create Services can make them large: 256 KiB of annotations are allowed.
//! - All components restart when the objects exist. `VmHWM` of `/proc/PID/status` is read when the
//!   controller counts all Services and the speakers own all addresses. Of the three speakers, the
//!   largest value counts.
//! - The Nodes have no speaker.
//!
//! `runtime/tests/memory.rs` measures the watch alone.

use super::OWNED_MAX;
use crate::Lab;
use crate::bench::report::Findings;
use crate::bench::services::{self, POOL, V4};
use crate::bench::settle;
use crate::bench::targets::{self, PeakMeasures};
use crate::cluster::ferrolb::CONTROLLER;
use anyhow::Result;
use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Client;
use kube::api::Api;
use serde_json::json;

/// Number of Services, and the size of the annotations of each: an object may have 256 KiB of them
/// (`apimachinery`, `TotalAnnotationSizeLimitB`).
const SERVICES: usize = 1_000;
const ANNOTATION_BYTES: usize = 255 * 1024;
const NODES: usize = 3_000;

/// Runs this benchmark in a lab with FerroLB and no pool.
///
/// # Errors
/// If an object cannot be created, or an address has no owner in time.
pub(super) fn run(lab: &Lab) -> Result<Findings> {
    lab.apply(POOL)?;
    settle::wait_settled(lab)?;
    lab.api(async |client| create_services(&client).await)?;
    settle::wait_for_owners(lab, i64::try_from(SERVICES)?, OWNED_MAX)?;
    let mut findings = Findings::default();
    measure_restart(lab, &mut findings, &targets::LARGE_SERVICES)?;
    lab.api(async |client| create_nodes(&client).await)?;
    measure_restart(lab, &mut findings, &targets::LARGE_NODES)?;
    Ok(findings)
}

async fn create_services(client: &Client) -> Result<()> {
    let names = services::names("large", SERVICES);
    let slices: Api<EndpointSlice> = Api::default_namespaced(client.clone());
    services::for_each_name(&names, async |name| {
        services::post(&slices, services::slice(name, "large")).await
    })
    .await?;
    let api: Api<Service> = Api::default_namespaced(client.clone());
    let annotation = "x".repeat(ANNOTATION_BYTES);
    services::for_each_name(&names, async |name| {
        let mut service = services::service(name, "large", &V4);
        service["metadata"]["annotations"] = json!({"example.com/a": annotation});
        services::post(&api, service).await
    })
    .await?;
    Ok(())
}

async fn create_nodes(client: &Client) -> Result<()> {
    let api: Api<Node> = Api::all(client.clone());
    let names = services::names("idle", NODES);
    services::for_each_name(&names, async |name| {
        services::post(&api, json!({"metadata": {"name": name}})).await
    })
    .await?;
    Ok(())
}

/// Restarts all components, and measures their peak memory when the speakers own all addresses
/// again.
fn measure_restart(lab: &Lab, findings: &mut Findings, measures: &PeakMeasures) -> Result<()> {
    findings.add(&measures.owned, super::restart(lab, SERVICES)?);
    super::add_peak(lab, findings, &measures.controller, &[CONTROLLER.to_owned()])?;
    super::add_peak(lab, findings, &measures.speaker, &super::speakers(lab))
}
