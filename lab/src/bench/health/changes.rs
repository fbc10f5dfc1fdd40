//! A thousand Services with policy Local and five endpoints each over all nodes, with fifty changes
//! per second. Each change removes the endpoints of a Service's owner, so that another node must
//! announce. Measures the cost to the speakers and the time to the announcement. The same again
//! among ten thousand Services.
//!
//! # Method
//!
//! - The EndpointSlices are manual. When the controller has written nothing for 10 s, nothing
//!   changes for 10 s more, and then 50 slices per second change for 20 s, each once.
//! - Of ten thousand Services, nine thousand have policy Cluster and do not change. The cause is
//!   the API server: it assigns each Service with policy Local a node port for health checks, and
//!   it has 2,768 node ports.
//! - The planning times are those of `ferrolb_speaker_plan_seconds` of all speakers during the
//!   changes, evaluated like Prometheus' `histogram_quantile`.
//! - The time to the announcement starts when the API server replies to the change. It ends with
//!   the first gratuitous ARP of another node on the client's segment. The target is 50 ms for the
//!   speaker and the 60 ms of one stagger of the ownership protocol.

use crate::bench::report::Findings;
use crate::bench::segment::{self, AnnouncementRecorder};
use crate::bench::services::{self, POOL};
use crate::bench::targets::ChangeMeasures;
use crate::bench::{cpu, create, plan_times, settle};
use crate::cluster::ferrolb::{ADMIN_PORT, CONTROLLER, speaker_name};
use crate::topology::{CONTROL_PLANE, Host, node_index};
use crate::{Lab, wait};
use anyhow::{Context, Result, ensure};
use futures::stream::{self, StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, ListParams, Patch, PatchParams};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

/// Number of Services whose endpoints change.
pub(super) const CHANGED: usize = 1_000;
/// Endpoints of each Service.
pub(super) const ENDPOINTS: usize = 5;
/// First octets of the endpoints' addresses.
pub(super) const ENDPOINT_RANGE: [u8; 2] = [10, 245];
/// Time between two changes: 50 per second.
const CHANGE_INTERVAL: Duration = Duration::from_millis(20);
/// Maximum number of concurrent changes at the API server.
const CONCURRENT_CHANGES_MAX: usize = 8;
/// Time for which the speakers are observed while nothing changes.
pub(super) const OBSERVATION_TIME: Duration = Duration::from_secs(10);
/// Maximum time for an address to move after the last change.
const MOVE_MAX: Duration = Duration::from_secs(10);
/// Time in which a speaker may be in preempt delay, repeat announcements, and write a delayed
/// status.
pub(super) const SETTLE_TIME: Duration = Duration::from_secs(10);
/// Flags of the speakers. With the default failback delay, the run would have to wait until no
/// speaker is in preempt delay. `--health-checks` allows health checks of the endpoints' range.
const SPEAKER_FLAGS: [&str; 4] = ["--failback-delay", "2s", "--health-checks", "10.245.0.0/16"];

/// One change of a Service's endpoints: the address, the owner before the change, and the time of
/// the API server's reply.
struct EndpointChange {
    address: IpAddr,
    owner: String,
    replied: Instant,
}

/// Runs this benchmark with this number of Services in a lab without kube-proxies and without
/// FerroLB.
///
/// # Errors
/// If an address has no owner, or does not move.
pub(super) fn run(lab: &Lab, services: usize, measures: &ChangeMeasures) -> Result<Findings> {
    let mut findings = Findings::default();
    let nodes = lab.nodes();
    start(lab)?;
    lab.api(async |client| create_services(&client, &names(services), &nodes).await)?;
    settle::wait_no_writes(lab, services, SETTLE_TIME)?;
    findings.add(
        &measures.cpu_at_rest,
        busiest_speaker_time(lab, || wait::during(OBSERVATION_TIME, || Ok(())))?,
    );
    let (owners, recorder) = (settle::owners(lab)?, AnnouncementRecorder::start(lab)?);
    let mut addresses = lab.api(async |client| addresses(&client).await)?;
    addresses.retain(|name, _| services::number(name) < CHANGED);
    let before = plan_times::histogram(lab, &lab.nodes())?;
    let mut changes = Vec::new();
    let used = busiest_speaker_time(lab, || {
        changes = lab.api(async |client| change(&client, &addresses, &owners, &nodes).await)?;
        Ok(())
    })?;
    findings.add(&measures.cpu, used);
    let times = move_times(&recorder, &changes)?;
    recorder.stop()?;
    for (measure, share) in measures.plan.iter().zip([0.5, 0.99]) {
        findings.add(
            measure,
            plan_times::quantile(&before, &plan_times::histogram(lab, &lab.nodes())?, share)?
                * 1000.0,
        );
    }
    create::add_spread(&mut findings, &measures.announcement, &times)?;
    findings.keep_samples(measures.announcement[1].id, times);
    Ok(findings)
}

fn start(lab: &Lab) -> Result<()> {
    lab.install_ferrolb()?;
    lab.start_controller(&[])?;
    lab.nodes().iter().try_for_each(|node| lab.start_speaker(node, &SPEAKER_FLAGS))?;
    lab.wait_healthy(CONTROLLER, CONTROL_PLANE, ADMIN_PORT, "/readyz")?;
    lab.apply(POOL)?;
    settle::wait_settled(lab)
}

/// Creates the EndpointSlices and their Services.
async fn create_services(client: &Client, names: &[String], nodes: &[String]) -> Result<()> {
    let slices: Api<EndpointSlice> = Api::default_namespaced(client.clone());
    services::for_each_name(names, async |name| services::post(&slices, slice(name, nodes)).await)
        .await?;
    let services: Api<Service> = Api::default_namespaced(client.clone());
    services::for_each_name(names, async |name| services::post(&services, service(name)).await)
        .await?;
    Ok(())
}

/// Returns the names of the Services, which are also the names of their EndpointSlices.
pub(super) fn names(services: usize) -> Vec<String> {
    services::names("health", services)
}

fn service(name: &str) -> Value {
    let policy = if services::number(name) < CHANGED { "Local" } else { "Cluster" };
    json!({
        "metadata": {"name": name},
        "spec": {
            "type": "LoadBalancer", "allocateLoadBalancerNodePorts": false, "externalTrafficPolicy": policy,
            "ports": [{"name": "http", "port": 80, "targetPort": 8080}],
        },
    })
}

fn slice(service: &str, nodes: &[String]) -> Value {
    json!({
        "metadata": {"name": service, "labels": {
            "kubernetes.io/service-name": service, "endpointslice.kubernetes.io/managed-by": "ferrolb-bench",
        }},
        "addressType": "IPv4", "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        "endpoints": endpoints(service, nodes, None),
    })
}

/// Returns the endpoints of a Service, on one node after another, each with an address of its own.
/// The endpoints on `excluded` are not ready.
pub(super) fn endpoints(service: &str, nodes: &[String], excluded: Option<&str>) -> Value {
    let number = services::number(service);
    let endpoint = |index: usize| {
        let node = nodes.get((number + index) % nodes.len().max(1)).map_or("", String::as_str);
        let [.., high, low] = (number * ENDPOINTS + index + 1).to_be_bytes();
        json!({
            "addresses": [Ipv4Addr::new(ENDPOINT_RANGE[0], ENDPOINT_RANGE[1], high, low)], "nodeName": node,
            "conditions": {"ready": excluded != Some(node)},
        })
    };
    (0..ENDPOINTS).map(endpoint).collect()
}

/// Returns the address of each Service.
async fn addresses(client: &Client) -> Result<BTreeMap<String, IpAddr>> {
    let services: Api<Service> = Api::default_namespaced(client.clone());
    let all = services.list(&ListParams::default()).await?.items;
    let addressed =
        |service: &Service| Some((service.name_any(), *services::addresses(service).first()?));
    Ok(all.iter().filter_map(addressed).collect())
}

/// Removes the endpoints of the owner from each of these Services in turn.
async fn change(
    client: &Client,
    addresses: &BTreeMap<String, IpAddr>,
    owners: &BTreeMap<IpAddr, String>,
    nodes: &[String],
) -> Result<Vec<EndpointChange>> {
    let slices: Api<EndpointSlice> = Api::default_namespaced(client.clone());
    let ticks = stream::unfold(tokio::time::interval(CHANGE_INTERVAL), async |mut ticks| {
        ticks.tick().await;
        Some(((), ticks))
    });
    let change = async |(name, address): (&String, &IpAddr)| {
        let owner = owners
            .get(address)
            .with_context(|| format!("no node owns {address} of {name}"))?
            .clone();
        let patch = Patch::Merge(json!({"endpoints": endpoints(name, nodes, Some(&owner))}));
        slices.patch(name, &PatchParams::default(), &patch).await?;
        Ok(EndpointChange { address: *address, owner, replied: wait::now() })
    };
    let changes = stream::iter(addresses).zip(ticks).map(|(service, ())| change(service));
    changes.buffer_unordered(CONCURRENT_CHANGES_MAX).try_collect().await
}

/// Returns the time from each change to the announcement by another node, in milliseconds. An
/// announcement before the API server's reply counts as zero.
fn move_times(recorder: &AnnouncementRecorder, changes: &[EndpointChange]) -> Result<Vec<f64>> {
    let host = |node: &str| {
        node_index(node).map(Host::node).with_context(|| format!("{node} is not a node of the lab"))
    };
    let move_time = |change: &EndpointChange| -> Result<Option<f64>> {
        let announced = recorder
            .first_announcement_by_another(change.address, segment::mac(&host(&change.owner)?)?);
        Ok(announced.map(|at| at.saturating_duration_since(change.replied).as_secs_f64() * 1000.0))
    };
    wait::until("all addresses have moved", MOVE_MAX, || {
        let all: Vec<f64> = changes
            .iter()
            .filter_map(|change| move_time(change).transpose())
            .collect::<Result<_>>()?;
        ensure!(
            all.len() == changes.len(),
            "{} of {} addresses have moved",
            all.len(),
            changes.len()
        );
        Ok(Some(all))
    })
}

/// Runs `work` and returns the processor time that the busiest speaker uses during `work`, in
/// milliseconds per second.
pub(super) fn busiest_speaker_time(lab: &Lab, work: impl FnOnce() -> Result<()>) -> Result<f64> {
    let speakers: Vec<String> = lab.nodes().iter().map(|node| speaker_name(node)).collect();
    let times = cpu::milliseconds_per_second(lab, &speakers, work)?;
    Ok(times.into_iter().fold(0.0, f64::max))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_on_the_excluded_node_are_not_ready() {
        let nodes = ["node1", "node2", "node3"].map(str::to_owned);
        let all = endpoints("health-999", &nodes, Some("node2"));
        let all: Vec<(&str, &str, bool)> = all
            .as_array()
            .unwrap()
            .iter()
            .map(|it| {
                let ready = it["conditions"]["ready"].as_bool().unwrap();
                (it["addresses"][0].as_str().unwrap(), it["nodeName"].as_str().unwrap(), ready)
            })
            .collect();
        let expect = [
            ("10.245.19.132", "node1", true),
            ("10.245.19.133", "node2", false),
            ("10.245.19.134", "node3", true),
            ("10.245.19.135", "node1", true),
            ("10.245.19.136", "node2", false),
        ];
        assert_eq!(all, expect);
    }
}
