//! Reads the facts of a check from the API server. A kind that the cluster does not have is empty.
//! A read that the user may not perform leaves a message in [`ClusterFacts::denied`].

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context as _, Result};
use ferrolb_controller_core::other_load_balancers::METALLB;
use ferrolb_controller_core::state::Names;
use ferrolb_proto::api::{self, ConditionStatus, CustomResourceKind};
use ferrolb_proto::facts::{Key, SERVICE_NAME_LABEL, Service};
use ferrolb_proto::range::AddressRange;
use k8s_openapi::api::admissionregistration::v1::{
    ServiceReference, ValidatingWebhook, ValidatingWebhookConfiguration,
};
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::ServiceCIDR;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{DynamicObject, ListParams};
use kube::{Api, Client};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::daemon_sets::{LoadBalancer, load_balancer};
use super::facts::{
    ClusterFacts, KubeProxyConfig, Objects, OtherLoadBalancers, ResourceCondition, Webhook,
};
use super::finding::Category;
use super::plugins::{
    CiliumConfig, cilium_namespace, is_kube_proxy_absent, is_kube_proxy_replaced, plugins,
};
use super::rbac::{self, Permission};
use super::read_traces::traces;
use super::reviews;
use crate::init::propose::AddressesInUse;
use crate::read::{NoPermission, permitted};
use crate::snapshot::Snapshot;

/// API groups whose objects MetalLB and FRR-K8s validate by webhooks.
const WEBHOOK_GROUPS: [&str; 2] = ["metallb.io", "frrk8s.metallb.io"];

/// ConfigMap of kubeadm in the namespace `kube-system`.
const KUBEADM_CONFIG: &str = "kubeadm-config";
/// Maximum time for the resolution of one name.
const RESOLVE_MAX: Duration = Duration::from_secs(2);

/// The configuration file in the ConfigMap of kubeadm.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct KubeadmConfig {
    control_plane_endpoint: Option<String>,
}

/// The configuration file in the ConfigMap of kube-proxy.
#[derive(Deserialize, Default)]
#[serde(default)]
struct KubeProxyFile {
    mode: Option<String>,
    ipvs: Option<Ipvs>,
}

#[derive(Deserialize)]
struct Ipvs {
    #[serde(default, rename = "strictARP")]
    strict_arp: Option<bool>,
}

/// The conditions of a custom resource of any kind.
#[derive(Deserialize, Default)]
struct Conditions {
    #[serde(default)]
    conditions: Vec<Condition>,
}

#[derive(Deserialize)]
struct Condition {
    r#type: String,
    status: String,
    #[serde(default)]
    reason: String,
    #[serde(default)]
    message: String,
}

/// Reads the facts. `namespace` is the namespace of the installation, and `unix_time` the present
/// time in seconds since 1970.
///
/// # Errors
/// The API server is unavailable.
pub async fn read(
    client: &Client,
    namespace: &str,
    before_installation: bool,
    unix_time: i64,
) -> Result<ClusterFacts> {
    let mut reader = Reader { client, denied: BTreeSet::new() };
    let version = client.apiserver_version().await.context("cannot reach the API server")?;
    let objects = match Snapshot::read_any(client, namespace, unix_time).await {
        Ok(Snapshot { namespaces_denied: Some(message), .. }) => {
            reader.denied.insert((Category::Installation, message));
            None
        }
        Ok(mut snapshot) => {
            let denied = snapshot.speaker_denied.take();
            reader.denied.extend(denied.map(|message| (Category::Cluster, message)));
            Some(objects(snapshot, unix_time))
        }
        Err(error) => {
            let NoPermission(message) = error.downcast()?;
            reader.denied.insert((Category::Installation, message));
            None
        }
    };
    let daemon_sets =
        reader.list(Category::LoadBalancers, &Api::<DaemonSet>::all(client.clone())).await?;
    let kube_proxy = reader.kube_proxy().await?.filter(|_| !is_kube_proxy_absent(&daemon_sets));
    let cilium = reader.cilium(&daemon_sets).await?;
    let kube_proxy_replaced = is_kube_proxy_replaced(cilium, &daemon_sets);
    let mut facts = ClusterFacts {
        before_installation,
        kubernetes: number(&version.major).zip(number(&version.minor)).map(|(a, b)| [a, b]),
        kube_proxy,
        kube_proxy_replaced,
        plugins: plugins(&daemon_sets),
        cilium,
        load_balancers: daemon_sets.iter().filter_map(load_balancer).collect(),
        webhooks: reader.webhooks().await?,
        ..ClusterFacts::default()
    };
    let names = objects.as_ref().map(|it| it.installation.config.names.clone()).unwrap_or_default();
    let services = objects.as_ref().map(Objects::served_services).unwrap_or_default();
    let with_metallb = runs_metallb(&facts.load_balancers);
    facts.traces = traces(client, &services, with_metallb, cilium, unix_time).await;
    facts.service_ranges = reader.service_ranges(objects.as_ref()).await?;
    if before_installation {
        facts.permissions = reader.reviews(rbac::of_installer()?, namespace).await?;
    } else if let Some(objects) = objects.as_ref().filter(|it| it.installation.exists) {
        let permissions = rbac::of_components(&names, objects.installation.marks_pods)?;
        facts.permissions = reader.reviews(permissions, namespace).await?;
        facts.crds = reader.crds().await?;
        facts.conditions = reader.conditions(&names).await?;
    }
    facts.objects = objects;
    facts.denied = reader.denied;
    Ok(facts)
}

/// Reads the facts about other load balancers and one Service. A missing permission is no error.
pub async fn read_others(client: &Client, service: &Service, unix_time: i64) -> OtherLoadBalancers {
    let daemon_sets = Api::<DaemonSet>::all(client.clone());
    let daemon_sets = daemon_sets.list(&ListParams::default().match_any()).await;
    let daemon_sets = daemon_sets.map(|list| list.items).unwrap_or_default();
    let running: Vec<_> = daemon_sets.iter().filter_map(load_balancer).collect();
    let mut reader = Reader { client, denied: BTreeSet::new() };
    let cilium = reader.cilium(&daemon_sets).await.ok().flatten();
    let services = std::slice::from_ref(service);
    let traces = traces(client, services, runs_metallb(&running), cilium, unix_time).await;
    OtherLoadBalancers { running, traces }
}

fn runs_metallb(running: &[LoadBalancer]) -> bool {
    running.iter().any(|it| *it.product == METALLB)
}

/// The facts about addresses in use.
pub struct AddressFacts {
    /// The objects that FerroLB reads.
    pub objects: Objects,
    /// Addresses in use that are not in these objects.
    pub in_use: AddressesInUse,
    /// Messages of the API server about objects that it does not permit to read, and that the facts
    /// can lack.
    pub denied: Vec<String>,
}

/// Reads the facts about addresses in use. `server` is the host of the API server in the kubeconfig
/// file.
///
/// # Errors
/// The API server is unavailable, or does not permit a list that the facts cannot lack.
pub async fn read_addresses(
    client: &Client,
    server: &str,
    namespace: &str,
    unix_time: i64,
) -> Result<AddressFacts> {
    let mut snapshot = Snapshot::read_any(client, namespace, unix_time).await?;
    let namespaces_denied = snapshot.namespaces_denied.take();
    let objects = objects(snapshot, unix_time);
    let mut reader = Reader { client, denied: BTreeSet::new() };
    let service_ranges = reader.service_ranges(Some(&objects)).await?;
    let in_use = AddressesInUse { service_ranges, api_servers: reader.api_servers(server).await? };
    let denied = reader.denied.into_iter().map(|(_, message)| message);
    let denied = namespaces_denied.into_iter().chain(denied).collect();
    Ok(AddressFacts { objects, in_use, denied })
}

fn objects(snapshot: Snapshot, unix_time: i64) -> Objects {
    let (installation, state) = snapshot.into_state(unix_time);
    Objects {
        installation,
        rows: state.service_rows(),
        pool_rows: state.pool_rows(),
        served_by_others: state.served_by_others().cloned().collect(),
        ranges_outside: state.ranges_outside().clone(),
        nodes: state.nodes().cloned().collect(),
        speakers: state.speakers().cloned().collect(),
        stale: state.stale(),
        services: state.services().cloned().collect(),
        pools: state.pools().cloned().collect(),
        peers: state.peers().cloned().collect(),
    }
}

/// Returns the number at the beginning of a text: `36+` is 36.
fn number(text: &str) -> Option<u32> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    text.get(..digits)?.parse().ok()
}

fn kube_proxy_config(text: &str) -> Option<KubeProxyConfig> {
    let file: KubeProxyFile = serde_saphyr::from_str(text).ok()?;
    Some(KubeProxyConfig {
        mode: file.mode.unwrap_or_default(),
        strict_arp: file.ipvs.and_then(|ipvs| ipvs.strict_arp).unwrap_or(false),
    })
}

/// Returns the addresses of a host, which may have a port. A name that cannot be resolved has none.
async fn resolve(host: &str) -> Vec<IpAddr> {
    let without_brackets = |host: &str| host.trim_matches(['[', ']']).to_owned();
    if let Ok(address) = without_brackets(host).parse() {
        return vec![address];
    }
    let name = without_brackets(host.rsplit_once(':').map_or(host, |(name, _)| name));
    let found = tokio::time::timeout(RESOLVE_MAX, tokio::net::lookup_host((&*name, 0))).await;
    found.into_iter().flatten().flatten().map(|address| address.ip()).collect()
}

/// Reads objects, and collects the messages about reads that are not permitted.
struct Reader<'a> {
    client: &'a Client,
    denied: BTreeSet<(Category, String)>,
}

impl Reader<'_> {
    /// Returns the result of a read for a category; `None` if the cluster does not have the kind,
    /// or if the user may not read it.
    fn permitted<T>(
        &mut self,
        category: Category,
        result: Result<T, kube::Error>,
    ) -> Result<Option<T>> {
        match permitted(result) {
            Ok(value) => Ok(value),
            Err(error) => {
                let NoPermission(message) = error.downcast()?;
                self.denied.insert((category, message));
                Ok(None)
            }
        }
    }

    async fn list<K>(&mut self, category: Category, api: &Api<K>) -> Result<Vec<K>>
    where
        K: Clone + DeserializeOwned + std::fmt::Debug,
    {
        let list = api.list(&ListParams::default().match_any()).await;
        Ok(self.permitted(category, list)?.map(|list| list.items).unwrap_or_default())
    }

    async fn config_map(
        &mut self,
        namespace: &str,
        name: &str,
    ) -> Result<Option<BTreeMap<String, String>>> {
        let maps = Api::<ConfigMap>::namespaced(self.client.clone(), namespace);
        let map = self.permitted(Category::Cluster, maps.get_opt(name).await)?;
        Ok(map.flatten().and_then(|map| map.data))
    }

    async fn kube_proxy(&mut self) -> Result<Option<KubeProxyConfig>> {
        let data = self.config_map("kube-system", "kube-proxy").await?;
        Ok(data.and_then(|data| kube_proxy_config(data.get("config.conf")?)))
    }

    async fn cilium(&mut self, daemon_sets: &[DaemonSet]) -> Result<Option<CiliumConfig>> {
        let Some(namespace) = cilium_namespace(daemon_sets) else { return Ok(None) };
        Ok(self.config_map(namespace, "cilium-config").await?.map(|data| CiliumConfig::of(&data)))
    }

    async fn webhooks(&mut self) -> Result<Vec<Webhook>> {
        let api = Api::<ValidatingWebhookConfiguration>::all(self.client.clone());
        let mut webhooks = Vec::new();
        for configuration in self.list(Category::LoadBalancers, &api).await? {
            let name = configuration.metadata.name.unwrap_or_default();
            let services = configuration.webhooks.iter().flatten().filter_map(service_of);
            let services: BTreeSet<_> = services.collect();
            for service in services {
                let Some(has_endpoint) = self.has_endpoint(&service).await? else { continue };
                webhooks.push(Webhook { configuration: name.clone(), service, has_endpoint });
            }
        }
        Ok(webhooks)
    }

    /// Returns whether a Service has a ready endpoint; `None` if the user may not read that.
    async fn has_endpoint(&mut self, service: &Key) -> Result<Option<bool>> {
        let api = Api::<EndpointSlice>::namespaced(self.client.clone(), service.namespace());
        let selector = format!("{SERVICE_NAME_LABEL}={}", service.name());
        let list = api.list(&ListParams::default().labels(&selector)).await;
        let Some(list) = self.permitted(Category::LoadBalancers, list)? else { return Ok(None) };
        let mut endpoints = list.items.iter().flat_map(|slice| slice.endpoints.iter().flatten());
        // An endpoint without the condition counts as ready.
        Ok(Some(endpoints.any(|it| {
            it.conditions.as_ref().and_then(|conditions| conditions.ready).unwrap_or(true)
        })))
    }

    /// Returns the ranges of the ServiceCIDRs. If the user may not read them, or if there are none,
    /// as before Kubernetes 1.33: the cluster IPs.
    async fn service_ranges(&mut self, objects: Option<&Objects>) -> Result<Vec<AddressRange>> {
        let ranges =
            self.list(Category::Pools, &Api::<ServiceCIDR>::all(self.client.clone())).await?;
        let texts = ranges.into_iter().flat_map(|it| it.spec.and_then(|spec| spec.cidrs)).flatten();
        let ranges: Vec<_> = texts.filter_map(|text| text.parse().ok()).collect();
        if !ranges.is_empty() {
            return Ok(ranges);
        }
        let services = objects.into_iter().flat_map(|objects| &objects.services);
        let addresses = services.flat_map(|service| &service.demand.cluster_ips);
        Ok(addresses.map(|address| AddressRange::single(*address)).collect())
    }

    /// Returns the addresses of the API server, each with its source: the kubeconfig file, the
    /// endpoints of its Service, and `controlPlaneEndpoint` of kubeadm.
    async fn api_servers(&mut self, server: &str) -> Result<Vec<(&'static str, IpAddr)>> {
        let slices = Api::<EndpointSlice>::namespaced(self.client.clone(), "default");
        let of_service = ListParams::default().labels(&format!("{SERVICE_NAME_LABEL}=kubernetes"));
        let slices = self.permitted(Category::Pools, slices.list(&of_service).await)?;
        let endpoints =
            slices.into_iter().flatten().flat_map(|slice| slice.endpoints.unwrap_or_default());
        let endpoints: Vec<_> = endpoints.flat_map(|endpoint| endpoint.addresses).collect();
        let config = Api::<ConfigMap>::namespaced(self.client.clone(), "kube-system");
        let config = config.get_opt(KUBEADM_CONFIG).await;
        let config = self.permitted(Category::Pools, config)?.flatten();
        let config = config.and_then(|it| it.data?.remove("ClusterConfiguration"));
        let config: Option<KubeadmConfig> =
            config.and_then(|text| serde_saphyr::from_str(&text).ok());
        let kubeadm = config.and_then(|it| it.control_plane_endpoint);
        let hosts = [("the kubeconfig file", server)].into_iter();
        let hosts = hosts.chain(endpoints.iter().map(|it| ("Service default/kubernetes", &**it)));
        let mut addresses = Vec::new();
        for (source, host) in hosts.chain(kubeadm.iter().map(|it| ("kubeadm-config", &**it))) {
            addresses.extend(resolve(host).await.into_iter().map(|address| (source, address)));
        }
        Ok(addresses)
    }

    /// Returns the CRDs by name; `None` if the user may not read them.
    async fn crds(&mut self) -> Result<Option<BTreeMap<String, CustomResourceDefinition>>> {
        let api = Api::<CustomResourceDefinition>::all(self.client.clone());
        let list = api.list(&ListParams::default().match_any()).await;
        let named = |crd: CustomResourceDefinition| Some((crd.metadata.name.clone()?, crd));
        let list = self.permitted(Category::Installation, list)?;
        Ok(list.map(|list| list.items.into_iter().filter_map(named).collect()))
    }

    /// Returns the permissions, each with the decision of the API server.
    async fn reviews(
        &mut self,
        permissions: BTreeSet<Permission>,
        installation: &str,
    ) -> Result<Vec<Permission>> {
        let reviewed = reviews::reviews(self.client, permissions, installation).await;
        Ok(self.permitted(Category::Permissions, reviewed)?.unwrap_or_default())
    }

    /// Returns the conditions of all custom resources.
    async fn conditions(&mut self, names: &Names) -> Result<Vec<ResourceCondition>> {
        let mut conditions = Vec::new();
        let mut kinds = CustomResourceKind::WITH_CONTROLLER_STATUS;
        kinds.sort_unstable();
        for kind in kinds {
            let resource = api::resource(kind, &names.group);
            let client = self.client.clone();
            let api = Api::<DynamicObject>::namespaced_with(client, &names.namespace, &resource);
            for object in self.list(Category::Installation, &api).await? {
                let name = object.metadata.name.unwrap_or_default();
                let status = object.data.get("status").cloned().unwrap_or_default();
                let status: Conditions = serde_json::from_value(status).unwrap_or_default();
                conditions.extend(status.conditions.into_iter().map(|it| ResourceCondition {
                    kind: kind.name(),
                    name: name.clone(),
                    condition: it.r#type,
                    status: condition_status(&it.status),
                    reason: it.reason,
                    message: it.message,
                }));
            }
        }
        Ok(conditions)
    }
}

fn condition_status(text: &str) -> ConditionStatus {
    match text {
        "True" => ConditionStatus::True,
        "False" => ConditionStatus::False,
        _ => ConditionStatus::Unknown,
    }
}

/// Returns the Service of a webhook for objects of MetalLB or FRR-K8s.
fn service_of(webhook: &ValidatingWebhook) -> Option<Key> {
    let rules = webhook.rules.iter().flatten();
    let mut groups = rules.flat_map(|rule| rule.api_groups.iter().flatten());
    let is_metallb = groups.any(|group| WEBHOOK_GROUPS.contains(&group.as_str()));
    let ServiceReference { namespace, name, .. } = webhook.client_config.service.as_ref()?;
    is_metallb.then(|| Key::new(namespace, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_of_kube_proxy_is_decoded() {
        let config = |text| kube_proxy_config(text).map(|it| (it.mode, it.strict_arp));
        let ipvs = "kind: KubeProxyConfiguration\nmode: ipvs\nipvs:\n  strictARP: true\n";
        assert_eq!(config(ipvs), Some(("ipvs".to_owned(), true)));
        let default = "mode: \"\"\nipvs: {strictARP: null}\niptables: null\n";
        assert_eq!(config(default), Some((String::new(), false)));
        assert_eq!(config("- a list"), None);
    }

    #[test]
    fn versions_of_providers_have_suffixes() {
        assert_eq!([number("36"), number("31+"), number("x")], [Some(36), Some(31), None]);
    }
}
