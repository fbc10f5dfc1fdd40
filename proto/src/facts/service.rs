//! What we read of a Service.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use k8s_openapi::jiff::Timestamp;
use kube::Resource;
use kube::core::ObjectMeta;
use serde::Deserialize;

use super::metadata::{self, Labels};
use super::request::OBJECT_NAME_MAX;
use super::{HEALTH_CHECK, HealthCheck, HealthCheckProblem, Key, Request, Usable, UsableProblem};
use crate::api::{self, IpMode, Truth};
use crate::range::Family;

/// MetalLB's API group.
const METALLB: &str = "metallb.io";
/// MetalLB's annotations that name the pool: the one that it writes, and the one that it wrote before.
const METALLBS: [&str; 2] = ["metallb.io/ip-allocated-from-pool", "metallb.universe.tf/ip-allocated-from-pool"];

/// The external IPs of a Service that count: its first. Kubernetes has no limit for them.
const EXTERNAL_IPS_MAX: usize = 1024;
/// The ports of a Service that may share an address: one that has more shares with nobody.
const SHARED_PORTS_MAX: usize = 1024;

/// A Service as decoded off the wire: only the fields that [`Service`] is made of.
#[derive(Resource, Deserialize, Clone, Debug, Default)]
#[resource(inherit = "k8s_openapi::api::core::v1::Service")]
pub struct ServiceObject {
    /// `metadata`.
    #[serde(deserialize_with = "metadata::read")]
    pub metadata: ObjectMeta,
    #[serde(default)]
    spec: Spec,
    #[serde(default)]
    status: Status,
}

#[derive(Deserialize, Clone, Debug, Default)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    r#type: Option<String>,
    load_balancer_class: Option<String>,
    #[serde(rename = "clusterIP")]
    cluster_ip: Option<String>,
    #[serde(rename = "clusterIPs")]
    cluster_ips: Option<Vec<String>>,
    ip_family_policy: Option<String>,
    external_traffic_policy: Option<String>,
    #[serde(rename = "loadBalancerIP")]
    load_balancer_ip: Option<String>,
    #[serde(rename = "externalIPs")]
    external_ips: Option<Vec<String>>,
    health_check_node_port: Option<u16>,
    ports: Option<Vec<RawPort>>,
    selector: Labels,
}

#[derive(Deserialize, Clone, Debug, Default)]
#[serde(default)]
struct RawPort {
    name: Option<String>,
    protocol: Option<String>,
    port: u16,
}

#[derive(Deserialize, Clone, Debug, Default)]
#[serde(rename_all = "camelCase", default)]
struct Status {
    load_balancer: LoadBalancer,
    conditions: Option<Vec<RawCondition>>,
}

#[derive(Deserialize, Clone, Debug, Default)]
#[serde(default)]
struct LoadBalancer {
    ingress: Option<Vec<Ingress>>,
}

#[derive(Deserialize, Clone, Debug, Default)]
#[serde(rename_all = "camelCase", default)]
struct Ingress {
    ip: Option<String>,
    ip_mode: Option<String>,
    hostname: Option<String>,
}

#[derive(Deserialize, Clone, Debug, Default)]
#[serde(rename_all = "camelCase", default)]
struct RawCondition {
    r#type: String,
    status: String,
    reason: String,
    message: String,
    last_transition_time: String,
}

/// `Service.spec.externalTrafficPolicy`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// Any node forwards to any endpoint.
    #[default]
    Cluster,
    /// A node forwards to its own endpoints only, and the client's address is kept.
    Local,
}

/// `Service.spec.ipFamilyPolicy`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FamilyPolicy {
    /// One family.
    #[default]
    Single,
    /// Both where that can be had.
    Prefer,
    /// Both or none.
    Require,
}

/// One of `Service.spec.ports`, as far as it takes room at an address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Port {
    /// `protocol`: `TCP`, `UDP` or `SCTP`.
    pub protocol: Box<str>,
    /// `port`.
    pub port: u16,
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.protocol, self.port)
    }
}

/// One address in `Service.status.loadBalancer.ingress`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AssignedAddress {
    /// `ip`.
    pub address: IpAddr,
    /// `ipMode` (KEP-1860); none: absent, which means VIP, or none that we know.
    pub mode: Option<IpMode>,
}

/// The fields that decide which addresses a Service gets; only the controller needs them. Of a
/// Service that is no load balancer only the external IPs are read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Demand {
    /// What its annotations ask for.
    pub request: Request,
    /// `spec.ipFamilyPolicy`.
    pub family_policy: FamilyPolicy,
    /// `spec.ports`, sorted; empty where the Service shares no address.
    pub ports: Box<[Port]>,
    /// `spec.selector` as one text, sorted by key: `a=b,c=d`.
    pub selector: Box<str>,
    /// `metadata.labels`, sorted.
    pub labels: Box<[(Box<str>, Box<str>)]>,
    /// `spec.externalIPs`, ascending: taken, though not given by anybody.
    pub external_ips: Box<[IpAddr]>,
    /// `spec.clusterIPs`: taken in the whole cluster.
    pub cluster_ips: Box<[IpAddr]>,
}

/// The type of a condition of ours on a Service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConditionKind {
    /// [`api::CONDITION_ADDRESS_ASSIGNED`].
    AddressAssigned,
    /// [`api::CONDITION_ANNOUNCED`].
    Announced,
}

/// One of our own conditions on a Service. There are two on each of ten thousand, so they take little room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConditionFact {
    /// `type`.
    pub kind: ConditionKind,
    /// `status`.
    pub status: Truth,
    /// `reason`.
    pub reason: Box<str>,
    /// `message`.
    pub message: Box<str>,
    /// `lastTransitionTime` in seconds since 1970, kept so that an unchanged status keeps its time; none: not readable.
    pub since: Option<i64>,
}

/// What we know of a Service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Service {
    /// Namespace and name.
    pub key: Key,
    /// `metadata.uid`, for events about it.
    pub uid: Box<str>,
    /// Whether `metadata.deletionTimestamp` is set.
    pub deleting: bool,
    /// `spec.type` is `LoadBalancer` and the Service is not headless.
    pub load_balancer: bool,
    /// `spec.loadBalancerClass`.
    pub class: Option<Box<str>>,
    /// The families it has cluster IPs of, in the order of `spec.ipFamilies`.
    pub families: Vec<Family>,
    /// `spec.externalTrafficPolicy`.
    pub policy: Policy,
    /// `spec.healthCheckNodePort`, where kube-proxy says how it is; zero: none, as with every policy but Local.
    pub health_check_node_port: u16,
    /// Which of its endpoints count, by its annotation.
    pub usable: Usable,
    /// Why that annotation cannot be understood.
    pub usable_problem: Option<Box<UsableProblem>>,
    /// What decides which addresses it gets.
    pub demand: Demand,
    /// The addresses in `status.loadBalancer.ingress`, in order.
    pub assigned: Vec<AssignedAddress>,
    /// Whether `status.loadBalancer.ingress` holds anything but addresses (a host name, a text that is no address).
    pub foreign_ingress: bool,
    /// The pool named by the annotation that the controller writes, [`api::from_pool`].
    pub from_pool: Option<Box<str>>,
    /// The annotation by which MetalLB says that it gave the addresses, if it does; none in MetalLB's own API group, where
    /// that is ours.
    pub metallb: Option<&'static str>,
    /// What its annotation says of how its endpoints are checked: one pointer for each of ten thousand.
    pub checked: Option<Box<Result<HealthCheck, HealthCheckProblem>>>,
    /// Our own conditions.
    pub conditions: Box<[ConditionFact]>,
}

impl Service {
    /// What our condition of this type says, if it is there.
    #[must_use]
    pub fn condition(&self, kind: ConditionKind) -> Option<&ConditionFact> {
        self.conditions.iter().find(|condition| condition.kind == kind)
    }

    /// How its endpoints are to be checked, if they are, or why that cannot be understood.
    #[must_use]
    pub fn health_check(&self) -> Option<Result<&HealthCheck, &HealthCheckProblem>> {
        self.checked.as_deref().map(Result::as_ref)
    }

    /// Whether the Service is ours: a LoadBalancer of one of our classes, or without a class where we are the default
    /// implementation (`Service.spec.loadBalancerClass`, KEP-1959) and MetalLB does not have it.
    #[must_use]
    pub fn is_ours(&self, classes: &[String], default_implementation: bool) -> bool {
        let ours = match &self.class {
            None => default_implementation && self.metallb.is_none(),
            Some(class) => classes.iter().any(|ours| **ours == **class),
        };
        self.load_balancer && ours
    }

    /// Whether it would be ours, if MetalLB did not have it.
    #[must_use]
    pub const fn is_contested(&self, default_implementation: bool) -> bool {
        self.load_balancer && self.class.is_none() && default_implementation && self.metallb.is_some()
    }

    /// The addresses in its status that may be announced, in order. kube-proxy makes no rule for one whose mode is Proxy
    /// (KEP-1860): without a data path it is not announced, unless the Service says that it has one.
    pub fn announceable(&self) -> impl Iterator<Item = IpAddr> {
        let announce = self.demand.request.announce;
        let has_path = move |assigned: &&AssignedAddress| assigned.mode != Some(IpMode::Proxy) || announce;
        self.assigned.iter().filter(has_path).map(|assigned| assigned.address)
    }

    /// What cannot be understood of what it says about its endpoints, each for whoever wrote it.
    pub fn endpoint_problems(&self) -> impl Iterator<Item = String> {
        let check = self.health_check().and_then(Result::err);
        self.usable_problem.iter().map(ToString::to_string).chain(check.map(ToString::to_string))
    }
}

impl Service {
    /// The Service of an object, where ours is the API group `group` (`--api-group`).
    #[must_use]
    pub fn read(object: ServiceObject, group: &str) -> Self {
        let ServiceObject { metadata, mut spec, status } = object;
        let ingress = status.load_balancer.ingress.unwrap_or_default();
        let assigned: Vec<_> = ingress.iter().filter_map(Ingress::read).collect();
        let foreign_ingress = assigned.len() != ingress.len() || ingress.iter().any(|entry| entry.hostname.is_some());
        let cluster_ips = spec.cluster_ips.take().unwrap_or_else(|| spec.cluster_ip.clone().into_iter().collect());
        let cluster_ips: Box<[IpAddr]> = cluster_ips.iter().filter_map(|ip| ip.parse().ok()).collect();
        let families: Vec<_> = cluster_ips.iter().copied().map(Family::of).collect();
        // A headless Service has the cluster IP "None", which is no address.
        let load_balancer = spec.r#type.as_deref() == Some("LoadBalancer") && !families.is_empty();
        let conditions = status.conditions.unwrap_or_default().into_iter();
        let annotations = metadata.annotations.as_ref();
        let checked = annotations.and_then(|all| all.get(HEALTH_CHECK)).filter(|text| !text.trim().is_empty());
        let checked = checked.map(|text| Box::new(HealthCheck::read(text, spec.first_tcp_port())));
        let policy = match spec.external_traffic_policy.as_deref() {
            Some("Local") => Policy::Local,
            Some(_) | None => Policy::Cluster,
        };
        let (usable, usable_problem) = Usable::read(annotations);
        Self {
            key: Key::of(&metadata),
            uid: metadata.uid.clone().unwrap_or_default().into(),
            deleting: metadata.deletion_timestamp.is_some(),
            load_balancer,
            class: spec.load_balancer_class.take().map(Into::into),
            policy,
            health_check_node_port: match policy {
                Policy::Local => spec.health_check_node_port.unwrap_or_default(),
                Policy::Cluster => 0,
            },
            usable,
            usable_problem,
            demand: Demand { cluster_ips, ..Demand::read(&metadata, spec, load_balancer.then_some(&*families)) },
            families,
            assigned,
            foreign_ingress,
            checked,
            metallb: by_metallb(annotations).filter(|_| group != METALLB),
            from_pool: from_pool(annotations, group),
            conditions: conditions.filter_map(RawCondition::read).collect(),
        }
    }
}

/// An address as Kubernetes reads it in Services: IPv4 also with leading zeros, which old objects
/// may have, and as IPv6.
fn address(text: &str) -> Option<IpAddr> {
    let octet = |text: &str| text.parse::<u8>().ok();
    let octets = || text.split('.').map(octet).collect::<Option<Vec<_>>>();
    let zeros = || octets().and_then(|octets| <[u8; 4]>::try_from(octets).ok()).map(IpAddr::from);
    text.parse().ok().or_else(zeros).map(|address: IpAddr| address.to_canonical())
}

/// The pool that the annotation names. A text that is too long for a name is cut where it still is.
fn from_pool(annotations: Option<&BTreeMap<String, String>>, group: &str) -> Option<Box<str>> {
    let name = annotations?.get(&api::from_pool(group))?;
    Some(name.chars().take(OBJECT_NAME_MAX + 1).collect())
}

fn by_metallb(annotations: Option<&BTreeMap<String, String>>) -> Option<&'static str> {
    let annotations = annotations?;
    METALLBS.into_iter().find(|name| annotations.contains_key(*name))
}

impl Spec {
    /// The name of the first TCP port, in the order written; a single one may have none.
    fn first_tcp_port(&self) -> Option<&str> {
        let tcp = |port: &&RawPort| port.protocol.as_deref().unwrap_or("TCP") == "TCP";
        self.ports.iter().flatten().find(tcp).map(|port| port.name.as_deref().unwrap_or_default())
    }
}

impl Demand {
    /// `families`: of a load balancer. Most Services are none, and only take external IPs from
    /// the pools.
    fn read(metadata: &ObjectMeta, spec: Spec, families: Option<&[Family]>) -> Self {
        let external = spec.external_ips.unwrap_or_default();
        let external: BTreeSet<_> = external.iter().take(EXTERNAL_IPS_MAX).filter_map(|ip| address(ip)).collect();
        let external_ips: Box<[IpAddr]> = external.into_iter().collect();
        // A pool leaves out the external IPs of a Service that it would serve, which its labels may
        // decide.
        let labels = metadata.labels.iter().flatten().filter(|_| families.is_some() || !external_ips.is_empty());
        let labels = labels.map(|(key, value)| (key.as_str().into(), value.as_str().into())).collect();
        let Some(families) = families else { return Self { external_ips, labels, ..Self::default() } };
        let mut request = Request::read(metadata.annotations.as_ref(), spec.load_balancer_ip.as_deref(), families);
        let mut ports = spec.ports.unwrap_or_default();
        if ports.len() > SHARED_PORTS_MAX {
            request.sharing_key = None;
        }
        if request.sharing_key.is_none() {
            ports.clear();
        }
        let port = |raw: RawPort| Port { protocol: raw.protocol.as_deref().unwrap_or("TCP").into(), port: raw.port };
        let mut ports: Vec<_> = ports.into_iter().map(port).collect();
        ports.sort();
        let selector: Vec<_> = spec.selector.0.iter().flatten().map(|(key, value)| format!("{key}={value}")).collect();
        Self {
            request,
            family_policy: match spec.ip_family_policy.as_deref() {
                Some("PreferDualStack") => FamilyPolicy::Prefer,
                Some("RequireDualStack") => FamilyPolicy::Require,
                Some(_) | None => FamilyPolicy::Single,
            },
            ports: ports.into(),
            selector: selector.join(",").into(),
            labels,
            external_ips,
            cluster_ips: Box::default(),
        }
    }
}

impl Ingress {
    fn read(&self) -> Option<AssignedAddress> {
        let mode = match self.ip_mode.as_deref() {
            Some("VIP") => Some(IpMode::Vip),
            Some("Proxy") => Some(IpMode::Proxy),
            Some(_) | None => None,
        };
        Some(AssignedAddress { address: address(self.ip.as_ref()?)?, mode })
    }
}

impl RawCondition {
    /// None: one of somebody else.
    fn read(self) -> Option<ConditionFact> {
        let kind = match self.r#type.as_str() {
            api::CONDITION_ADDRESS_ASSIGNED => ConditionKind::AddressAssigned,
            api::CONDITION_ANNOUNCED => ConditionKind::Announced,
            _ => return None,
        };
        Some(ConditionFact {
            kind,
            status: Truth::read(&self.status),
            reason: self.reason.into(),
            message: self.message.into(),
            since: self.last_transition_time.parse().ok().map(Timestamp::as_second),
        })
    }
}

#[cfg(test)]
mod tests;
