//! Creation of many Services, and a watch that records when each Service gets its address. The
//! cluster tests also use this module.

use crate::wait;
use anyhow::{Context, Result, anyhow, bail};
use ferrolb_proto::range::Family;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, DeleteParams, ListParams, PostParams, WatchEvent, WatchParams};
use kube::{Client, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Number of concurrent requests that create Services, the same as in the measurement of MetalLB.
const CREATORS: usize = 8;
/// Maximum time for all Services of a batch to get their addresses.
const ADDRESSES_MAX: Duration = Duration::from_secs(600);
/// Label of every Service of a benchmark and of its endpoints; the value is its batch.
const BATCH_LABEL: &str = "bench";
/// IP families of a single-stack Service, IPv4 or IPv6, and of a dual-stack Service.
pub const V4: [Family; 1] = [Family::V4];
pub const V6: [Family; 1] = [Family::V6];
pub const DUAL: [Family; 2] = [Family::V4, Family::V6];
/// Pool of the benchmarks. It contains no lab host's own address, and at least ten thousand
/// addresses of each family.
pub const POOL: &str = "\
apiVersion: ferrolb.io/v1beta1
kind: IPAddressPool
metadata: {name: bench, namespace: ferrolb-system}
spec: {addresses: [172.31.0.0/16, 'fd31::/112']}
---
apiVersion: ferrolb.io/v1beta1
kind: L2Advertisement
metadata: {name: bench, namespace: ferrolb-system}
";

/// A Service with its addresses.
#[derive(Clone, Debug)]
pub struct Assigned {
    /// One address of each family of the Service, in the order of its families.
    pub addresses: Vec<IpAddr>,
    /// Time at which the request that creates the Service was sent.
    pub sent: Instant,
    /// Time at which the API server replied to this request.
    pub created: Instant,
    /// Time at which the watch delivered the addresses.
    pub assigned: Instant,
}

impl Assigned {
    /// Returns the time from the request that creates the Service to the API server's reply, in
    /// milliseconds.
    pub fn api_ms(&self) -> f64 {
        (self.created - self.sent).as_secs_f64() * 1000.0
    }

    /// Returns the time from `created` until the watch delivers the addresses, in milliseconds.
    pub fn address_ms(&self) -> f64 {
        self.until_ms(self.assigned)
    }

    /// Returns the time from `created` until `when`, in milliseconds, or zero if `when` is earlier.
    pub fn until_ms(&self, when: Instant) -> f64 {
        when.saturating_duration_since(self.created).as_secs_f64() * 1000.0
    }
}

/// Stream of changes of the Services of one batch.
///
/// The API server ends a watch after some minutes, and at once if the client does not keep up. The
/// stream then continues after the last delivered change.
pub struct ServiceEvents {
    services: Api<Service>,
    batch: String,
    /// `resourceVersion` of the last change.
    version: String,
    watch: BoxStream<'static, kube::Result<WatchEvent<Service>>>,
}

impl ServiceEvents {
    /// Starts the stream of the batch with this name. When this function returns, the watch is
    /// open.
    ///
    /// # Errors
    /// If the API server rejects the watch.
    pub async fn of(client: &Client, batch: &str) -> Result<Self> {
        let services: Api<Service> = Api::default_namespaced(client.clone());
        let now = services.list(&ListParams::default().limit(1)).await?;
        let version = now.metadata.resource_version.context("the list has no resourceVersion")?;
        let watch = watch(&services, batch, &version).await?;
        Ok(Self { services, batch: batch.to_owned(), version, watch })
    }

    /// Returns the next Service that was created or changed. Cancel safe: a dropped call loses no
    /// event.
    ///
    /// # Errors
    /// If the API server rejects the watch, or sends an event other than an addition or a change.
    pub async fn next(&mut self) -> Result<Service> {
        loop {
            match self.watch.try_next().await? {
                Some(WatchEvent::Added(service) | WatchEvent::Modified(service)) => {
                    self.version =
                        service.resource_version().context("the Service has no resourceVersion")?;
                    return Ok(service);
                }
                Some(other) => bail!("unexpected watch event {other:?}"),
                None => self.watch = watch(&self.services, &self.batch, &self.version).await?,
            }
        }
    }
}

/// Opens a watch of the Services of one batch after `version`.
async fn watch(
    services: &Api<Service>,
    batch: &str,
    version: &str,
) -> Result<BoxStream<'static, kube::Result<WatchEvent<Service>>>> {
    let params =
        WatchParams::default().labels(&format!("{BATCH_LABEL}={batch}")).disable_bookmarks();
    Ok(services.watch(&params, version).await?.boxed())
}

/// Addresses of each Service by its name, and the time at which they were observed.
type AddressTimes = BTreeMap<String, (Vec<IpAddr>, Instant)>;

/// Creates `count` Services of these families, named `PREFIX-N`, with eight concurrent creators,
/// and waits for their addresses.
///
/// The endpoints of each Service exist before the Service, so the result does not include the time
/// of the controller that creates EndpointSlices.
///
/// # Errors
/// If the API server rejects a Service, or a Service has no address in time.
pub async fn create(
    client: &Client,
    prefix: &str,
    count: usize,
    families: &[Family],
) -> Result<Vec<Assigned>> {
    let slices: Api<EndpointSlice> = Api::default_namespaced(client.clone());
    let names = names(prefix, count);
    for family in families {
        let slice_of = |name: &str| match family {
            Family::V4 => slice(name, prefix),
            Family::V6 => slice_v6(name, prefix),
        };
        for_each_name(&names, async |name| post(&slices, slice_of(name)).await).await?;
    }
    let services: Api<Service> = Api::default_namespaced(client.clone());
    let events = ServiceEvents::of(client, prefix).await?;
    // The watch occupies one connection. These requests open a connection for each creator, because
    // the first request on a connection waits for an acknowledgment that the kernel delays by 40
    // ms.
    for_each_name(&names[..count.min(CREATORS)], async |name| Ok(services.get_opt(name).await?))
        .await?;
    let creators = post_all(client, prefix, count, families);
    let (created, mut assigned) =
        futures::future::try_join(creators, assigned_addresses(events, count)).await?;
    created
        .into_iter()
        .map(|(name, sent, created)| {
            let (addresses, assigned) =
                assigned.remove(&name).ok_or_else(|| anyhow!("{name} has no address"))?;
            Ok(Assigned { addresses, sent, created, assigned })
        })
        .collect()
}

/// Creates `count` Services of these families, named `PREFIX-N`, with eight concurrent creators and
/// without endpoints. Returns each name with the times of the request and of the API server's
/// reply.
///
/// # Errors
/// If the API server rejects a Service.
pub async fn post_all(
    client: &Client,
    prefix: &str,
    count: usize,
    families: &[Family],
) -> Result<Vec<(String, Instant, Instant)>> {
    let services: Api<Service> = Api::default_namespaced(client.clone());
    for_each_name(&names(prefix, count), async |name| {
        let sent = wait::now();
        post(&services, service(name, prefix, families)).await?;
        Ok((name.to_owned(), sent, wait::now()))
    })
    .await
}

/// Deletes the Services of one batch and their endpoints.
///
/// # Errors
/// If the API server rejects the request.
pub async fn remove(client: &Client, batch: &str) -> Result<()> {
    let of_batch = ListParams::default().labels(&format!("{BATCH_LABEL}={batch}"));
    Api::<Service>::default_namespaced(client.clone())
        .delete_collection(&DeleteParams::default(), &of_batch)
        .await?;
    Api::<EndpointSlice>::default_namespaced(client.clone())
        .delete_collection(&DeleteParams::default(), &of_batch)
        .await?;
    Ok(())
}

/// Returns the names of the Services of a batch: `PREFIX-N`.
pub(super) fn names(prefix: &str, count: usize) -> Vec<String> {
    (0..count).map(|number| format!("{prefix}-{number}")).collect()
}

/// Returns the number in a name of [`names`].
pub(super) fn number(name: &str) -> usize {
    name.rsplit('-').next().and_then(|number| number.parse().ok()).unwrap_or_default()
}

/// Runs `work` for every name, eight at a time.
pub(super) async fn for_each_name<T>(
    names: &[String],
    work: impl AsyncFn(&str) -> Result<T>,
) -> Result<Vec<T>> {
    stream::iter(names).map(|name| work(name)).buffer_unordered(CREATORS).try_collect().await
}

/// Creates an object.
pub(super) async fn post<K: Clone + std::fmt::Debug + DeserializeOwned + serde::Serialize>(
    api: &Api<K>,
    object: Value,
) -> Result<()> {
    api.create(&PostParams::default(), &serde_json::from_value(object)?).await?;
    Ok(())
}

/// Returns the addresses of each of `count` Services and the time at which they were observed.
async fn assigned_addresses(mut events: ServiceEvents, count: usize) -> Result<AddressTimes> {
    let mut assigned = AddressTimes::new();
    let all = async {
        while assigned.len() < count {
            let service = events.next().await?;
            let found = addresses(&service);
            if !found.is_empty() {
                assigned.entry(service.name_any()).or_insert_with(|| (found, wait::now()));
            }
        }
        Ok(())
    };
    let ended = tokio::time::timeout(ADDRESSES_MAX, all).await;
    ended
        .unwrap_or_else(|_| Err(anyhow!("some have none after {ADDRESSES_MAX:?}")))
        .with_context(|| format!("{} of {count} Services have an address", assigned.len()))?;
    Ok(assigned)
}

/// Returns the addresses in a Service's status (`status.loadBalancer.ingress[].ip`). One write sets
/// the addresses of all families.
pub fn addresses(service: &Service) -> Vec<IpAddr> {
    let balancer = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let ingress = balancer.and_then(|balancer| balancer.ingress.as_deref()).unwrap_or_default();
    ingress.iter().filter_map(|entry| entry.ip.as_deref()?.parse().ok()).collect()
}

/// Builds a Service without a selector; its endpoints are the slice of the same name.
pub(super) fn service(name: &str, batch: &str, families: &[Family]) -> Value {
    let policy = if families.len() > 1 { "RequireDualStack" } else { "SingleStack" };
    json!({
        "metadata": {"name": name, "labels": {BATCH_LABEL: batch}},
        "spec": {
            "type": "LoadBalancer", "allocateLoadBalancerNodePorts": false,
            "ports": [{"name": "http", "port": 80, "targetPort": 8080}],
            "ipFamilyPolicy": policy, "ipFamilies": families.iter().map(Family::to_string).collect::<Vec<_>>(),
        },
    })
}

/// Builds the endpoints of a Service: one ready endpoint on the first node. No client connects to
/// it, so an IPv4 endpoint is enough for every Service.
pub(super) fn slice(service: &str, batch: &str) -> Value {
    json!({
        "metadata": {"name": service, "labels": {
            BATCH_LABEL: batch, "kubernetes.io/service-name": service, "endpointslice.kubernetes.io/managed-by": "ferrolb-bench",
        }},
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        "endpoints": [{"addresses": ["10.244.1.99"], "conditions": {"ready": true}, "nodeName": "node1"}],
    })
}

/// Returns the EndpointSlice of [`slice`] for IPv6.
fn slice_v6(service: &str, batch: &str) -> Value {
    let mut slice = slice(service, batch);
    slice["metadata"]["name"] = json!(format!("{service}-v6"));
    slice["addressType"] = json!("IPv6");
    slice["endpoints"][0]["addresses"] = json!(["fd44::1:99"]);
    slice
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_ingress_addresses_are_returned() {
        for (ingress, expect) in [
            (json!([{"ip": "172.31.0.7", "ipMode": "VIP"}]), &["172.31.0.7"][..]),
            (json!([{"ip": "fd31::7"}, {"ip": "172.31.0.7"}]), &["fd31::7", "172.31.0.7"]),
            (json!([{"hostname": "a"}]), &[]),
            (json!([]), &[]),
        ] {
            let service = json!({"metadata": {"name": "a"}, "status": {"loadBalancer": {"ingress": ingress}}});
            let expect: Vec<IpAddr> =
                expect.iter().map(|address| address.parse().unwrap()).collect();
            assert_eq!(addresses(&serde_json::from_value(service).unwrap()), expect, "{ingress}");
        }
    }

    #[test]
    fn an_event_before_the_reply_counts_as_zero() {
        let (now, ms) = (wait::now(), Duration::from_millis);
        for (created, assigned, expect) in [(0, 5, 5.0), (5, 5, 0.0), (7, 5, 0.0)] {
            let (sent, created, assigned) = (now, now + ms(created), now + ms(assigned));
            let it = Assigned { addresses: Vec::new(), sent, created, assigned };
            assert_eq!(it.address_ms(), expect);
        }
    }
}
