//! A thousand Services with policy Local, five endpoints each over all nodes, and fifty changes a second: each takes the endpoints of its
//! Service's owner away, so that another node has to announce. What that costs the speakers, and how soon it is on the wire.

use crate::bench::budgets::{self, HEALTH_PLAN, HEALTH_WIRE};
use crate::bench::report::Findings;
use crate::bench::services::{self, POOL};
use crate::bench::wire::{self, Listener};
use crate::bench::{cpu, create, plans, rest};
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

pub(super) const SERVICES: usize = 1000;
/// Of each Service.
pub(super) const ENDPOINTS: usize = 5;
/// The first octets of their addresses.
pub(super) const RANGE: [u8; 2] = [10, 245];
/// The time between two changes: 50 in a second, so that every Service has its own in 20 s.
const STEP: Duration = Duration::from_millis(20);
/// How many changes may be under way at the API server.
const UNDER_WAY_MAX: usize = 8;
/// How long the speakers are looked at while nothing happens.
pub(super) const LOOK: Duration = Duration::from_secs(10);
/// How long after the last change its address may take to move, and how long all may take to be owned.
const MOVE_MAX: Duration = Duration::from_secs(10);
const OWNED_MAX: Duration = Duration::from_secs(60);
/// How long a speaker is fresh, repeats what it has announced, and writes its status late.
pub(super) const SETTLE: Duration = Duration::from_secs(10);
/// A node that is back takes its address again after so long: the default would make the run wait
/// until nobody is fresh. Endpoints are in a range of their own.
const FLAGS: [&str; 4] = ["--failback-delay", "2s", "--health-checks", "10.245.0.0/16"];

/// One change: of which address, who owned it, and when the API server had it.
struct Change {
    address: IpAddr,
    owner: String,
    sent: Instant,
    answered: Instant,
}

/// Runs in a lab without kube-proxies and without FerroLB.
///
/// # Errors
/// When an address is not owned, or does not move.
pub(super) fn run(lab: &Lab) -> Result<Findings> {
    let mut findings = Findings::default();
    let nodes = lab.nodes();
    start(lab)?;
    lab.api(async |client| make(&client, &nodes).await)?;
    rest::wait_for_owners(lab, SERVICES as i64, OWNED_MAX)?;
    wait::during(SETTLE, || Ok(()))?;
    findings.add(&budgets::HEALTH_REST, busiest(lab, || wait::during(LOOK, || Ok(())))?);
    let (owners, listener) = (rest::owners(lab)?, Listener::start(lab)?);
    let addresses = lab.api(async |client| addresses(&client).await)?;
    let before = plans::of(lab, &lab.nodes())?;
    let mut changed = Vec::new();
    let used = busiest(lab, || {
        changed = lab.api(async |client| change_all(&client, &addresses, &owners, &nodes).await)?;
        Ok(())
    })?;
    findings.add(&budgets::HEALTH_CHANGES, used);
    let moved = moved(&listener, &changed)?;
    listener.stop()?;
    for (known, share) in HEALTH_PLAN.iter().zip([0.5, 0.99]) {
        findings.add(known, plans::slowest(&before, &plans::of(lab, &lab.nodes())?, share)? * 1000.0);
    }
    create::spread(&mut findings, &HEALTH_WIRE, &moved)?;
    findings.keep("health.wire", moved);
    findings.keep("health.api", changed.iter().map(|it| (it.answered - it.sent).as_secs_f64() * 1000.0).collect());
    Ok(findings)
}

fn start(lab: &Lab) -> Result<()> {
    lab.install_ferrolb()?;
    lab.start_controller(&[])?;
    lab.nodes().iter().try_for_each(|node| lab.start_speaker(node, &FLAGS))?;
    lab.wait_healthy(CONTROLLER, CONTROL_PLANE, ADMIN_PORT, "/readyz")?;
    lab.apply(POOL)?;
    rest::wait_for(lab)
}

/// Makes the slices and their Services.
async fn make(client: &Client, nodes: &[String]) -> Result<()> {
    let names = names();
    let slices: Api<EndpointSlice> = Api::default_namespaced(client.clone());
    services::each(&names, async |name| services::post(&slices, slice(name, nodes)).await).await?;
    let services: Api<Service> = Api::default_namespaced(client.clone());
    services::each(&names, async |name| services::post(&services, service(name)).await).await?;
    Ok(())
}

/// The names of the Services, and of their slices.
pub(super) fn names() -> Vec<String> {
    services::names("health", SERVICES)
}

fn service(name: &str) -> Value {
    json!({
        "metadata": {"name": name},
        "spec": {
            "type": "LoadBalancer", "allocateLoadBalancerNodePorts": false, "externalTrafficPolicy": "Local",
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

/// The endpoints of a Service, on one node after another, each with an address of its own; those on `without` are not ready.
pub(super) fn endpoints(service: &str, nodes: &[String], without: Option<&str>) -> Value {
    let number: usize = service.rsplit('-').next().and_then(|number| number.parse().ok()).unwrap_or_default();
    let endpoint = |place: usize| {
        let node = nodes.get((number + place) % nodes.len().max(1)).map_or("", String::as_str);
        let [.., high, low] = (number * ENDPOINTS + place + 1).to_be_bytes();
        json!({
            "addresses": [Ipv4Addr::new(RANGE[0], RANGE[1], high, low)], "nodeName": node,
            "conditions": {"ready": without != Some(node)},
        })
    };
    (0..ENDPOINTS).map(endpoint).collect()
}

/// The address of each Service.
async fn addresses(client: &Client) -> Result<BTreeMap<String, IpAddr>> {
    let services: Api<Service> = Api::default_namespaced(client.clone());
    let all = services.list(&ListParams::default()).await?.items;
    let addressed = |service: &Service| Some((service.name_any(), *services::addresses(service).first()?));
    Ok(all.iter().filter_map(addressed).collect())
}

/// Takes the endpoints of its owner from each Service in turn.
async fn change_all(
    client: &Client,
    addresses: &BTreeMap<String, IpAddr>,
    owners: &BTreeMap<IpAddr, String>,
    nodes: &[String],
) -> Result<Vec<Change>> {
    let slices: Api<EndpointSlice> = Api::default_namespaced(client.clone());
    let ticks = stream::unfold(tokio::time::interval(STEP), async |mut ticks| {
        ticks.tick().await;
        Some(((), ticks))
    });
    let change = async |(name, address): (&String, &IpAddr)| {
        let owner = owners.get(address).with_context(|| format!("nobody owns {address} of {name}"))?.clone();
        let patch = Patch::Merge(json!({"endpoints": endpoints(name, nodes, Some(&owner))}));
        let sent = wait::now();
        slices.patch(name, &PatchParams::default(), &patch).await?;
        Ok(Change { address: *address, owner, sent, answered: wait::now() })
    };
    let changes = stream::iter(addresses).zip(ticks).map(|(which, ())| change(which));
    changes.buffer_unordered(UNDER_WAY_MAX).try_collect().await
}

/// How long each change took to the announcement by another node, in milliseconds. What overtook the API server's answer took no time.
fn moved(listener: &Listener, changes: &[Change]) -> Result<Vec<f64>> {
    let host = |node: &str| node_index(node).map(Host::node).with_context(|| format!("{node} is no node"));
    let moved = |change: &Change| -> Result<Option<f64>> {
        let announced = listener.first_by_another(change.address, wire::mac(&host(&change.owner)?)?);
        Ok(announced.map(|at| at.saturating_duration_since(change.answered).as_secs_f64() * 1000.0))
    };
    wait::until("all addresses have moved", MOVE_MAX, || {
        let all: Vec<f64> = changes.iter().filter_map(|change| moved(change).transpose()).collect::<Result<_>>()?;
        ensure!(all.len() == changes.len(), "{} of {} have", all.len(), changes.len());
        Ok(Some(all))
    })
}

/// Lets `work` happen; the processor time that the busiest speaker used for it, in milliseconds a second.
pub(super) fn busiest(lab: &Lab, work: impl FnOnce() -> Result<()>) -> Result<f64> {
    let used = || -> Result<Vec<Duration>> {
        lab.nodes().iter().map(|node| cpu::used(lab.pid(&speaker_name(node))?)).collect()
    };
    let (start, before) = (wait::now(), used()?);
    work()?;
    let (after, length) = (used()?, start.elapsed());
    let most = after.iter().zip(&before).map(|(after, before)| *after - *before).max().context("a node")?;
    Ok(most.as_secs_f64() * 1000.0 / length.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_has_five_endpoints_of_its_own_and_none_ready_on_the_node_without() {
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
