//! Services by the dozen: who makes them, and a watch that notes when each has its address.

use crate::wait;
use anyhow::{Context, Result, anyhow};
use futures::{Stream, StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, ListParams, PostParams, WatchEvent, WatchParams};
use kube::{Client, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::pin::pin;
use std::time::{Duration, Instant};

/// How many Services are created at once, as MetalLB was measured.
const CREATORS: usize = 8;
/// How long all of a batch may take to have their addresses.
const ADDRESSES_MAX: Duration = Duration::from_secs(120);
/// The label of every Service of a benchmark.
const LABEL: &str = "bench";
/// Where the benchmarks' addresses come from: apart from the hosts' own, and enough for thousands.
pub(super) const POOL: &str = "\
apiVersion: ferrolb.io/v1beta1
kind: IPAddressPool
metadata: {name: bench, namespace: ferrolb-system}
spec: {addresses: [172.31.0.0/20]}
---
apiVersion: ferrolb.io/v1beta1
kind: L2Advertisement
metadata: {name: bench, namespace: ferrolb-system}
";

/// A Service that has its address.
#[derive(Clone, Copy, Debug)]
pub(super) struct Assigned {
    pub(super) address: Ipv4Addr,
    /// When the API server answered its creation.
    pub(super) created: Instant,
    /// When the address was on the watch.
    pub(super) assigned: Instant,
}

impl Assigned {
    /// From the creation's answer to the address on the watch, in milliseconds.
    pub(super) fn address_ms(&self) -> f64 {
        self.until_ms(self.assigned)
    }

    /// From the creation's answer to `when`, in milliseconds. What overtook the answer took no time.
    pub(super) fn until_ms(&self, when: Instant) -> f64 {
        when.saturating_duration_since(self.created).as_secs_f64() * 1000.0
    }
}

/// Makes `count` Services named `PREFIX-N` by eight creators and waits for their addresses. Each one's endpoints are there before it: what is
/// measured is FerroLB, and not the pace of the controller that makes EndpointSlices.
///
/// # Errors
/// When the API server refuses one, or one has no address in time.
pub(super) async fn create(client: &Client, prefix: &str, count: usize) -> Result<Vec<Assigned>> {
    let names: Vec<String> = (0..count).map(|number| format!("{prefix}-{number}")).collect();
    let slices: Api<EndpointSlice> = Api::default_namespaced(client.clone());
    each(&names, async |name| post(&slices, slice(name)).await).await?;
    let services: Api<Service> = Api::default_namespaced(client.clone());
    let events = watch(&services, prefix).await?;
    let creators = each(&names, async |name| {
        post(&services, service(name, prefix)).await?;
        Ok((name.to_owned(), wait::now()))
    });
    let (created, assigned) = futures::future::try_join(creators, addresses(events, count)).await?;
    created
        .into_iter()
        .map(|(name, created)| {
            let (address, assigned) = assigned.get(&name).ok_or_else(|| anyhow!("{name} has no address"))?;
            Ok(Assigned { address: *address, created, assigned: *assigned })
        })
        .collect()
}

/// Does `work` for every name, eight at a time.
async fn each<T>(names: &[String], work: impl AsyncFn(&str) -> Result<T>) -> Result<Vec<T>> {
    stream::iter(names).map(|name| work(name)).buffer_unordered(CREATORS).try_collect().await
}

async fn post<K: Clone + std::fmt::Debug + DeserializeOwned + serde::Serialize>(
    api: &Api<K>,
    object: Value,
) -> Result<()> {
    api.create(&PostParams::default(), &serde_json::from_value(object)?).await?;
    Ok(())
}

/// The events of the Services of one batch, from now on: when this returns the watch stands.
async fn watch(
    services: &Api<Service>,
    batch: &str,
) -> Result<impl Stream<Item = kube::Result<WatchEvent<Service>>> + use<>> {
    let selector = format!("{LABEL}={batch}");
    let now = services.list(&ListParams::default().labels(&selector).limit(1)).await?;
    let version = now.metadata.resource_version.context("a list has a version")?;
    Ok(services.watch(&WatchParams::default().labels(&selector), &version).await?)
}

/// The address of each of `count` Services and when it was seen.
async fn addresses(
    events: impl Stream<Item = kube::Result<WatchEvent<Service>>>,
    count: usize,
) -> Result<BTreeMap<String, (Ipv4Addr, Instant)>> {
    let mut assigned = BTreeMap::new();
    let all = async {
        let mut events = pin!(events);
        while let Some(event) = events.try_next().await? {
            let (WatchEvent::Added(service) | WatchEvent::Modified(service)) = event else { continue };
            if let Some(address) = address(&service) {
                assigned.entry(service.name_any()).or_insert_with(|| (address, wait::now()));
            }
            if assigned.len() == count {
                return Ok(());
            }
        }
        Err(anyhow!("the API server ended the watch"))
    };
    let ended = tokio::time::timeout(ADDRESSES_MAX, all).await;
    ended
        .unwrap_or_else(|_| Err(anyhow!("not within {ADDRESSES_MAX:?}")))
        .with_context(|| format!("{} of {count} Services have an address", assigned.len()))?;
    Ok(assigned)
}

/// The IPv4 address in a Service's status (`status.loadBalancer.ingress[].ip`).
fn address(service: &Service) -> Option<Ipv4Addr> {
    let ingress = service.status.as_ref()?.load_balancer.as_ref()?.ingress.as_ref()?;
    let addresses = ingress.iter().filter_map(|ingress| ingress.ip.as_ref()?.parse().ok());
    addresses.into_iter().find_map(|address| match address {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(_) => None,
    })
}

/// A Service without a selector: its endpoints are the slice of its name.
fn service(name: &str, batch: &str) -> Value {
    json!({
        "metadata": {"name": name, "labels": {LABEL: batch}},
        "spec": {"type": "LoadBalancer", "allocateLoadBalancerNodePorts": false, "ports": [{"name": "http", "port": 80, "targetPort": 8080}]},
    })
}

/// Its endpoint: one that is ready on the first node. Nobody connects to it.
fn slice(service: &str) -> Value {
    json!({
        "metadata": {"name": service, "labels": {
            "kubernetes.io/service-name": service, "endpointslice.kubernetes.io/managed-by": "ferrolb-bench",
        }},
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        "endpoints": [{"addresses": ["10.244.1.99"], "conditions": {"ready": true}, "nodeName": "node1"}],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_ipv4_address_in_the_status_counts() {
        for (ingress, expect) in [
            (json!([{"ip": "172.31.0.7", "ipMode": "VIP"}]), Some("172.31.0.7")),
            (json!([{"ip": "fd31::7"}, {"ip": "172.31.0.7"}]), Some("172.31.0.7")),
            (json!([{"hostname": "a"}]), None),
            (json!([]), None),
        ] {
            let service = json!({"metadata": {"name": "a"}, "status": {"loadBalancer": {"ingress": ingress}}});
            let expect = expect.map(|address| address.parse().unwrap());
            assert_eq!(address(&serde_json::from_value(service).unwrap()), expect, "{ingress}");
        }
    }

    #[test]
    fn what_overtakes_the_answer_took_no_time() {
        let (now, ms) = (wait::now(), Duration::from_millis);
        for (created, assigned, expect) in [(0, 5, 5.0), (5, 5, 0.0), (7, 5, 0.0)] {
            let it =
                Assigned { address: Ipv4Addr::LOCALHOST, created: now + ms(created), assigned: now + ms(assigned) };
            assert_eq!(it.address_ms(), expect);
        }
    }
}
