//! Other programs that write the statuses of LoadBalancer Services: ServiceLB of k3s, `minikube
//! tunnel`, and MetalLB 0.9.6, which is minikube's addon. Each is rebuilt from its published
//! behavior; only its writes to the API server matter here.
//!
//! Sources: `pkg/cloudprovider/servicelb.go` of k3s, `pkg/minikube/tunnel/loadbalancer_patcher.go`
//! of minikube, and `controller/service.go` of MetalLB v0.9.6.

use anyhow::{Result, anyhow};
use ferrolb_lab::Lab;
use futures::StreamExt;
use k8s_openapi::api::core::v1::{LoadBalancerIngress, Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;
use tokio::sync::oneshot::{self, Receiver};

/// Interval at which `minikube tunnel` patches the Services.
const TUNNEL_INTERVAL: Duration = Duration::from_secs(5);
/// First address of the pool of MetalLB, and the number of its addresses.
pub(crate) const METALLB_FIRST: Ipv4Addr = Ipv4Addr::new(172, 30, 0, 150);
pub(crate) const METALLB_COUNT: u8 = 10;

/// Runs `work` while another program runs, and stops the program. Returns the number of writes of
/// the program, too.
pub(crate) fn beside<T>(
    lab: &Lab,
    program: impl AsyncFnOnce(Client, Receiver<()>) -> Result<usize> + Send,
    work: impl FnOnce() -> Result<T>,
) -> Result<(T, usize)> {
    std::thread::scope(|scope| {
        let (stop, stopped) = oneshot::channel();
        let running =
            scope.spawn(move || lab.api(async move |client| program(client, stopped).await));
        let result = work();
        drop(stop);
        let writes = running.join().map_err(|_| anyhow!("the other program panicked"))?;
        Ok((result?, writes?))
    })
}

/// Runs ServiceLB, as if a pod of each Service without a class were ready on every node. At a new
/// Service without a class, and at each change of an EndpointSlice, ServiceLB writes the status of
/// the Service: the addresses of the nodes, or nothing if the Service has a class.
pub(crate) async fn service_lb(client: Client, mut stop: Receiver<()>) -> Result<usize> {
    let nodes = Api::<Node>::all(client.clone()).list(&ListParams::default()).await?;
    let services = Api::<Service>::default_namespaced(client.clone());
    let mut created = services.watch(&WatchParams::default(), "0").await?.boxed();
    let slices = Api::<EndpointSlice>::default_namespaced(client);
    let mut slices = slices.watch(&WatchParams::default(), "0").await?.boxed();
    let mut writes = 0;
    loop {
        let name = tokio::select! {
            _ = &mut stop => return Ok(writes),
            Some(event) = created.next() => new_service(&event?),
            Some(event) = slices.next() => service_of(&event?),
        };
        let Some(name) = name else { continue };
        let Some(service) = services.get_opt(&name).await?.filter(is_load_balancer) else {
            continue;
        };
        let addresses =
            if class(&service).is_some() { Vec::new() } else { node_addresses(&nodes.items) };
        if addresses != ingress(&service) {
            let status = if addresses.is_empty() {
                json!({"status": {"loadBalancer": {"ingress": null}}})
            } else {
                json!({"status": {"loadBalancer": {"ingress": entries(&addresses)}}})
            };
            services.patch_status(&name, &by("k3s"), &Patch::Strategic(status)).await?;
            writes += 1;
        }
    }
}

/// Returns the name of a new Service without a class.
fn new_service(event: &WatchEvent<Service>) -> Option<String> {
    let WatchEvent::Added(service) = event else { return None };
    class(service).is_none().then(|| service.name_any())
}

/// Returns the name of the Service whose EndpointSlice has changed.
fn service_of(event: &WatchEvent<EndpointSlice>) -> Option<String> {
    let (WatchEvent::Added(slice) | WatchEvent::Modified(slice)) = event else { return None };
    slice.labels().get("kubernetes.io/service-name").cloned()
}

/// Runs `minikube tunnel`: it writes the cluster IP into the status of every LoadBalancer Service,
/// whatever its class, and removes all addresses when it ends.
pub(crate) async fn tunnel(client: Client, mut stop: Receiver<()>) -> Result<usize> {
    let services = Api::<Service>::default_namespaced(client);
    let (mut writes, mut is_stopped) = (0, false);
    loop {
        let all = services.list(&ListParams::default()).await?.items;
        for service in all.into_iter().filter(is_load_balancer) {
            let cluster_ip = service.spec.as_ref().and_then(|spec| spec.cluster_ip.clone());
            let path = "/status/loadBalancer/ingress";
            let patch = if is_stopped && !ingress(&service).is_empty() {
                json!([{"op": "remove", "path": path}])
            } else if !is_stopped && ingress(&service) != [cluster_ip.clone().unwrap_or_default()] {
                json!([{"op": "add", "path": path, "value": [{"ip": cluster_ip}]}])
            } else {
                continue;
            };
            let patch = Patch::<()>::Json(serde_json::from_value(patch)?);
            services.patch_status(&service.name_any(), &by("minikube"), &patch).await?;
            writes += 1;
        }
        if is_stopped {
            return Ok(writes);
        }
        is_stopped = tokio::time::timeout(TUNNEL_INTERVAL, &mut stop).await.is_ok();
    }
}

/// Runs the controller of MetalLB 0.9.6: it knows no class and no second address, and leaves no
/// mark on a Service. It replaces each status that is not one address of its pool.
pub(crate) async fn metallb_096(client: Client, mut stop: Receiver<()>) -> Result<usize> {
    let services = Api::<Service>::default_namespaced(client);
    let mut changes = services.watch(&WatchParams::default(), "0").await?.boxed();
    let mut assigned: BTreeMap<String, Ipv4Addr> = BTreeMap::new();
    let mut writes = 0;
    loop {
        let event = tokio::select! {
            _ = &mut stop => return Ok(writes),
            Some(event) = changes.next() => event?,
        };
        let mut service = match event {
            WatchEvent::Added(service) | WatchEvent::Modified(service) => service,
            WatchEvent::Deleted(service) => {
                assigned.remove(&service.name_any());
                continue;
            }
            WatchEvent::Bookmark(_) | WatchEvent::Error(_) => continue,
        };
        if !is_load_balancer(&service) {
            continue;
        }
        let name = service.name_any();
        let Some(address) = metallb_address(&assigned, &name, &ingress(&service)) else { continue };
        assigned.insert(name.clone(), address);
        if ingress(&service) == [address.to_string()] {
            continue;
        }
        let balancer = service.status.get_or_insert_default().load_balancer.get_or_insert_default();
        let entry = LoadBalancerIngress { ip: Some(address.to_string()), ..Default::default() };
        balancer.ingress = Some(vec![entry]);
        let params = PostParams { field_manager: Some("controller".into()), ..Default::default() };
        match services.replace_status(&name, &params, &service).await {
            Ok(_) => writes += 1,
            // The event of the other change follows.
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Returns the address that MetalLB gives to a Service: the one in the status if MetalLB's pool has
/// it, or the first free one.
fn metallb_address(
    assigned: &BTreeMap<String, Ipv4Addr>,
    name: &str,
    ingress: &[String],
) -> Option<Ipv4Addr> {
    let [a, b, c, first] = METALLB_FIRST.octets();
    let pool = (first..first + METALLB_COUNT).map(|last| Ipv4Addr::new(a, b, c, last));
    let is_free = |it: &Ipv4Addr| !assigned.iter().any(|(other, at)| at == it && other != name);
    let is_present = |it: &Ipv4Addr| ingress == [it.to_string()];
    let mut free = pool.filter(is_free);
    free.clone().find(is_present).or_else(|| free.next())
}

fn by(manager: &str) -> PatchParams {
    PatchParams { field_manager: Some(manager.to_owned()), ..PatchParams::default() }
}

fn is_load_balancer(service: &Service) -> bool {
    let spec = service.spec.as_ref();
    spec.is_some_and(|spec| spec.type_.as_deref() == Some("LoadBalancer"))
}

fn class(service: &Service) -> Option<&str> {
    service.spec.as_ref()?.load_balancer_class.as_deref()
}

/// Returns the addresses in the status of a Service.
fn ingress(service: &Service) -> Vec<String> {
    let balancer = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let entries = balancer.and_then(|balancer| balancer.ingress.as_ref()).into_iter().flatten();
    entries.filter_map(|entry| entry.ip.clone()).collect()
}

/// Returns the IPv4 addresses of all nodes, as ServiceLB writes them to a Service of this family.
fn node_addresses(nodes: &[Node]) -> Vec<String> {
    let status = nodes.iter().filter_map(|node| node.status.as_ref());
    let addresses = status.flat_map(|status| status.addresses.iter().flatten());
    let internal = addresses.filter(|it| it.type_ == "InternalIP" && it.address.contains('.'));
    internal.map(|address| address.address.clone()).collect()
}

fn entries(addresses: &[String]) -> Value {
    addresses.iter().map(|address| json!({"ip": address})).collect()
}
