//! A large cluster: 1,000 Nodes, 10,000 Services and 50,000 endpoints at a real API server, with
//! one controller and three speakers. Measures memory, requests to the API server, and the cost of
//! 200 endpoint changes per second.
//!
//! # Method
//!
//! - All but three Nodes have no speaker. They are Ready, so each Node may announce each address.
//! - The Services have policy Cluster and one manual EndpointSlice each, with five endpoints on
//!   five Nodes. The components run while eight creators create the objects, first the Nodes.
//! - The measurement begins when the cluster is settled. That is, the speakers own all addresses,
//!   and the controller has written nothing for [`SETTLED_TIME`].
//! - The resident memory is that of [`memory`]. The peak is `VmHWM` of `/proc/PID/status`, since
//!   the start of the process. Then all components restart, and both are measured again. Of the
//!   three speakers, the largest value counts.
//! - [`requests`] has the method for the requests at rest, and [`changes`] for the changes.

use super::{changes, requests};
use crate::bench::report::Findings;
use crate::bench::services::{self, POOL, V4};
use crate::bench::targets::{self, ClusterMemory};
use crate::bench::{memory, settle};
use crate::cluster::ferrolb::CONTROLLER;
use crate::{Lab, wait};
use anyhow::Result;
use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Client;
use kube::api::{Api, Patch, PatchParams};
use serde_json::{Value, json};
use std::net::Ipv4Addr;
use std::time::Duration;

/// Number of Nodes with those of the lab, of Services, and of endpoints of each Service.
const NODES: usize = 1_000;
pub(super) const SERVICES: usize = 10_000;
pub(super) const ENDPOINTS: usize = 5;
/// Name of the Services without their numbers, and value of their label.
const BATCH: &str = "cluster";
/// First octets of the endpoints' addresses.
const ENDPOINT_RANGE: [u8; 2] = [10, 245];
/// Transition time of the Nodes' conditions; any time in the past works.
const CONDITION_TIME: &str = "2026-01-01T00:00:00Z";
/// Time without writes after which the cluster is settled. It is longer than the default of the
/// speakers' `--failback-delay`, after which an address may move.
const SETTLED_TIME: Duration = Duration::from_secs(35);

/// Runs this measurement in a lab with FerroLB and no pool, whose API server logs the requests of
/// FerroLB.
///
/// # Errors
/// If an object cannot be created, an address has no owner in time, or the API server cannot
/// process the changes in time.
pub(super) fn run(lab: &Lab) -> Result<Findings> {
    lab.apply(POOL)?;
    settle::wait_settled(lab)?;
    let mut findings = Findings::default();
    let nodes = nodes(lab);
    let start = wait::now();
    lab.api(async |client| create(&client, &nodes, lab.nodes().len()).await)?;
    findings.add(&targets::CLUSTER_CREATED, start.elapsed().as_secs_f64() * 1000.0);
    findings.add(&targets::CLUSTER_OWNED, super::wait_owned(lab, SERVICES, wait::now())?);
    settle::wait_no_writes(lab, SERVICES, SETTLED_TIME)?;
    measure_memory(lab, &mut findings, &targets::CLUSTER_MEMORY)?;
    findings.add(&targets::CLUSTER_RESTART_OWNED, super::restart(lab, SERVICES)?);
    settle::wait_no_writes(lab, SERVICES, SETTLED_TIME)?;
    measure_memory(lab, &mut findings, &targets::CLUSTER_RESTART_MEMORY)?;
    requests::measure(lab, &mut findings)?;
    changes::measure(lab, &mut findings, &nodes)?;
    Ok(findings)
}

/// Returns the names of all Nodes: first those of the lab, which exist.
fn nodes(lab: &Lab) -> Vec<String> {
    let mut nodes = lab.nodes();
    nodes.extend(services::names("idle", NODES - nodes.len()));
    nodes
}

/// Creates the Nodes after the first `existing` ones, the EndpointSlices and their Services.
async fn create(client: &Client, nodes: &[String], existing: usize) -> Result<()> {
    let api: Api<Node> = Api::all(client.clone());
    services::for_each_name(nodes.get(existing..).unwrap_or_default(), async |name| {
        services::post(&api, json!({"metadata": {"name": name}})).await?;
        api.patch_status(name, &PatchParams::default(), &Patch::Merge(ready())).await?;
        Ok(())
    })
    .await?;
    let names = names();
    let slices: Api<EndpointSlice> = Api::default_namespaced(client.clone());
    services::for_each_name(&names, async |name| {
        let mut slice = services::slice(name, BATCH);
        slice["endpoints"] = endpoints(services::number(name), nodes).into();
        services::post(&slices, slice).await
    })
    .await?;
    let services: Api<Service> = Api::default_namespaced(client.clone());
    services::for_each_name(&names, async |name| {
        services::post(&services, services::service(name, BATCH, &V4)).await
    })
    .await?;
    Ok(())
}

/// Returns the names of the Services, which are also the names of their EndpointSlices.
pub(super) fn names() -> Vec<String> {
    services::names(BATCH, SERVICES)
}

/// Returns the status of a Node that is Ready.
fn ready() -> Value {
    json!({"status": {"conditions": [{
        "type": "Ready", "status": "True", "reason": "Bench", "lastHeartbeatTime": CONDITION_TIME,
        "lastTransitionTime": CONDITION_TIME,
    }]}})
}

/// Returns the endpoints of a Service, all ready. Each has an address of its own, and all endpoints
/// of the cluster are on one Node after another.
pub(super) fn endpoints(service: usize, nodes: &[String]) -> Vec<Value> {
    let endpoint = |index: usize| {
        let number = service * ENDPOINTS + index;
        let [.., high, low] = (number + 1).to_be_bytes();
        json!({
            "addresses": [Ipv4Addr::new(ENDPOINT_RANGE[0], ENDPOINT_RANGE[1], high, low)],
            "nodeName": nodes.get(number % nodes.len().max(1)), "conditions": {"ready": true},
        })
    };
    (0..ENDPOINTS).map(endpoint).collect()
}

/// Measures the memory of the components.
fn measure_memory(lab: &Lab, findings: &mut Findings, measures: &ClusterMemory) -> Result<()> {
    let controller = [CONTROLLER.to_owned()];
    for ([resident, peak], names) in
        [(&measures.controller, &controller[..]), (&measures.speaker, &super::speakers(lab))]
    {
        let samples = memory::resident(lab, names)?;
        findings.add(resident, samples.iter().copied().fold(0.0, f64::max));
        findings.keep_samples(resident.id, samples);
        super::add_peak(lab, findings, peak, names)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_have_their_own_addresses_and_are_spread_over_the_nodes() {
        let nodes = ["a", "b", "c"].map(str::to_owned);
        for (service, first, last) in [
            ("cluster-0", ["10.245.0.1", "a"], ["10.245.0.5", "b"]),
            ("cluster-1", ["10.245.0.6", "c"], ["10.245.0.10", "a"]),
            ("cluster-9999", ["10.245.195.76", "a"], ["10.245.195.80", "b"]),
        ] {
            let all = endpoints(services::number(service), &nodes);
            for (endpoint, [address, node]) in [(&all[0], first), (&all[ENDPOINTS - 1], last)] {
                assert_eq!(endpoint["addresses"], json!([address]), "{service}");
                assert_eq!(endpoint["nodeName"], json!(node), "{service}");
            }
        }
    }
}
