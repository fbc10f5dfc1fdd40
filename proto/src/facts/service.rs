//! The fact of a Service.

mod condition;

use super::kind::{Kind, ReadContext};
use kube::core::ApiResource;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use kube::Resource;
use kube::core::ObjectMeta;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::address_request::OBJECT_NAME_MAX;
use super::field_managers::FieldOwners;
use super::metadata::{self, Labels};
use super::{
    AddressRecord, AddressRequest, EndpointCondition, EndpointConditionProblem, EndpointProblem,
    HEALTH_CHECK_ANNOTATION, HealthCheck, HealthCheckProblem, Key,
};
use crate::api::{self, IpMode};
use crate::range::Family;
use condition::RawCondition;

pub use condition::{ServiceCondition, ServiceConditionType};

/// MetalLB's API group.
const METALLB_GROUP: &str = "metallb.io";
/// MetalLB's annotations with the name of the pool: the current one and the deprecated one.
const METALLB_POOL_ANNOTATIONS: [&str; 2] =
    ["metallb.io/ip-allocated-from-pool", "metallb.universe.tf/ip-allocated-from-pool"];

/// The largest number of external IPs that are decoded from a Service, in the order written.
/// Kubernetes has no limit.
const EXTERNAL_IPS_MAX: usize = 1024;
/// The largest number of ports of a Service that may share an address. A Service with more ports
/// shares no address.
const SHARED_PORTS_MAX: usize = 1024;

/// A decoded Service: only the fields that [`Service`] needs.
#[derive(Resource, Deserialize, Clone, Debug, Default)]
#[resource(inherit = "k8s_openapi::api::core::v1::Service")]
pub struct ServiceObject {
    /// `metadata`.
    #[serde(deserialize_with = "metadata::read_with_managers")]
    pub metadata: ObjectMeta,
    #[serde(default)]
    spec: RawServiceSpec,
    #[serde(default)]
    status: RawServiceStatus,
}

#[derive(Deserialize, Clone, Debug, Default)]
#[serde(rename_all = "camelCase", default)]
struct RawServiceSpec {
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
    ports: Option<Vec<RawServicePort>>,
    selector: Labels,
}

#[derive(Deserialize, Clone, Debug, Default)]
#[serde(default)]
struct RawServicePort {
    name: Option<String>,
    protocol: Option<String>,
    port: u16,
}

#[derive(Deserialize, Clone, Debug, Default)]
#[serde(rename_all = "camelCase", default)]
struct RawServiceStatus {
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
    ports: Option<Vec<IgnoredAny>>,
}

/// `Service.spec.externalTrafficPolicy`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TrafficPolicy {
    /// Every node forwards to all endpoints.
    #[default]
    Cluster,
    /// A node forwards only to its own endpoints, and preserves the client's address.
    Local,
}

/// `Service.spec.ipFamilyPolicy`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FamilyPolicy {
    /// One family.
    #[default]
    Single,
    /// Both families if the cluster has both.
    Prefer,
    /// Both families. A Service that cannot get both gets no address.
    Require,
}

/// The fields of an entry in `Service.spec.ports` that decide whether Services can share an
/// address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServicePort {
    /// `protocol`: `TCP`, `UDP` or `SCTP`.
    pub protocol: Box<str>,
    /// `port`.
    pub port: u16,
}

impl fmt::Display for ServicePort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.protocol, self.port)
    }
}

/// One address in `Service.status.loadBalancer.ingress`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AssignedAddress {
    /// `ip`.
    pub address: IpAddr,
    /// `ipMode` (KEP-1860). `None` if the field is absent, which means `VIP`, or has an unknown
    /// value.
    pub mode: Option<IpMode>,
}

/// The fields by which the controller decides which addresses a Service gets. For a Service that is
/// no load balancer, only the cluster IPs, the external IPs, and the labels of a Service with
/// external IPs are decoded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AllocationDemand {
    /// The request in the annotations and in `spec.loadBalancerIP`.
    pub request: AddressRequest,
    /// `spec.ipFamilyPolicy`.
    pub family_policy: FamilyPolicy,
    /// `spec.ports`, sorted; empty if the Service has no sharing key.
    pub ports: Box<[ServicePort]>,
    /// `spec.selector` as one text, sorted by key: `a=b,c=d`.
    pub selector: Box<str>,
    /// `metadata.labels`, sorted.
    pub labels: Box<[(Box<str>, Box<str>)]>,
    /// `spec.externalIPs`, ascending. These addresses are in use, although FerroLB did not assign
    /// them.
    pub external_ips: Box<[IpAddr]>,
    /// `spec.clusterIPs`. These addresses are in use in the whole cluster.
    pub cluster_ips: Box<[IpAddr]>,
}

/// The fact of a Service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Service {
    /// Namespace and name.
    pub key: Key,
    /// `metadata.uid`, for Kubernetes Events about the Service. The UID also distinguishes a new
    /// Service from a deleted one of the same name.
    pub uid: Box<str>,
    /// True if `metadata.deletionTimestamp` is set.
    pub deleting: bool,
    /// True if `spec.type` is `LoadBalancer` and the Service is not headless.
    pub load_balancer: bool,
    /// `spec.loadBalancerClass`.
    pub class: Option<Box<str>>,
    /// The families of the Service's cluster IPs, in the order of `spec.ipFamilies`.
    pub families: Vec<Family>,
    /// `spec.externalTrafficPolicy`.
    pub policy: TrafficPolicy,
    /// `spec.healthCheckNodePort`, at which kube-proxy reports its health. 0 if the Service has
    /// none, as with every policy except Local.
    pub health_check_node_port: u16,
    /// The condition that makes an endpoint eligible, from the annotation
    /// `ferrolb.io/endpoint-condition`.
    pub endpoint_condition: EndpointCondition,
    /// The reason why the annotation `ferrolb.io/endpoint-condition` is invalid, or `None`.
    pub endpoint_condition_problem: Option<Box<EndpointConditionProblem>>,
    /// The fields that decide which addresses the Service gets.
    pub demand: AllocationDemand,
    /// The addresses in `status.loadBalancer.ingress`, in order.
    pub assigned: Vec<AssignedAddress>,
    /// True if `status.loadBalancer.ingress` has entries that FerroLB does not write: host names,
    /// other text, or addresses with `ports`.
    pub has_foreign_ingress: bool,
    /// The field manager that owns `status.loadBalancer.ingress`, if it is not this controller.
    /// `None` also if nobody owns the field, or in a speaker.
    pub ingress_manager: Option<Box<str>>,
    /// Another field manager that owns a part of the status, such as a condition. `None` also in a
    /// speaker.
    pub status_manager: Option<Box<str>>,
    /// True if this controller owns a field of the Service; without a load balancer, a field of the
    /// status, because the record remains. Always false in a speaker.
    pub has_own_fields: bool,
    /// True if the annotation [`api::ADOPT_ANNOTATION`] is `true`.
    pub adopt: bool,
    /// The pool in the annotation [`api::pool_annotation`], which the controller writes.
    pub pool_annotation: Option<Box<str>>,
    /// The record in the annotation [`api::ASSIGNED_ANNOTATION`]. `None` if the annotation is
    /// missing, or if its text is no record of this Service.
    pub record: Option<Box<AddressRecord>>,
    /// The annotation by which MetalLB records that it assigned the addresses, if present. Always
    /// `None` if FerroLB uses MetalLB's own API group.
    pub metallb_annotation: Option<&'static str>,
    /// The health check in the annotation `ferrolb.io/health-check`, or why the annotation is
    /// invalid. Boxed, so that the many Services without a health check take little memory.
    pub health_check_annotation: Option<Box<Result<HealthCheck, HealthCheckProblem>>>,
    /// FerroLB's conditions on the Service.
    pub conditions: Box<[ServiceCondition]>,
}

impl Service {
    /// Returns FerroLB's condition of this type.
    #[must_use]
    pub fn condition(&self, kind: ServiceConditionType) -> Option<&ServiceCondition> {
        self.conditions.iter().find(|condition| condition.kind == kind)
    }

    /// Returns the health check of the endpoints, if the Service requests one, or why the
    /// annotation is invalid.
    #[must_use]
    pub fn health_check(&self) -> Option<Result<&HealthCheck, &HealthCheckProblem>> {
        self.health_check_annotation.as_deref().map(Result::as_ref)
    }

    /// Returns whether FerroLB serves this Service (`Service.spec.loadBalancerClass`, KEP-1959).
    /// The Service must be a load balancer of one of `classes`. A Service without a class is
    /// FerroLB's if FerroLB is the default implementation and MetalLB does not serve the Service.
    #[must_use]
    pub fn is_served_by_ferrolb(&self, classes: &[String], default_implementation: bool) -> bool {
        let is_own = match &self.class {
            None => default_implementation && self.metallb_annotation.is_none(),
            Some(class) => classes.iter().any(|own_class| **own_class == **class),
        };
        self.load_balancer && is_own
    }

    /// Returns whether MetalLB serves this Service, and FerroLB would serve it otherwise.
    #[must_use]
    pub const fn is_served_by_metallb(&self, default_implementation: bool) -> bool {
        self.load_balancer
            && self.class.is_none()
            && default_implementation
            && self.metallb_annotation.is_some()
    }

    /// Returns the addresses in the status that may be announced, in order. kube-proxy makes no
    /// rule for an address with mode Proxy (KEP-1860), so the node could not forward its traffic.
    /// An address with mode Proxy is announced only if the Service requests the announcement.
    pub fn announceable(&self) -> impl Iterator<Item = IpAddr> {
        let announce = self.demand.request.announce_in_proxy_mode;
        let is_announceable =
            move |assigned: &&AssignedAddress| assigned.mode != Some(IpMode::Proxy) || announce;
        self.assigned.iter().filter(is_announceable).map(|assigned| assigned.address)
    }

    /// Returns the problems of the annotations about endpoints.
    pub fn endpoint_problems(&self) -> impl Iterator<Item = EndpointProblem<'_>> {
        let condition = self.endpoint_condition_problem.as_deref();
        let check = self.health_check().and_then(Result::err);
        condition
            .map(EndpointProblem::Condition)
            .into_iter()
            .chain(check.map(EndpointProblem::HealthCheck))
    }
}

impl Service {
    /// Returns the fact of an object as [`Self::read`] does, with the owners of its fields. `own`
    /// is the field manager of this controller ([`api::field_manager`]).
    #[must_use]
    pub fn read_with_owners(object: ServiceObject, group: &str, own: &str) -> Self {
        let owners = FieldOwners::read(&object.metadata, own);
        let service = Self::read(object, group);
        let has_own_fields = match service.load_balancer {
            true => owners.includes_own,
            false => owners.includes_own_status,
        };
        let (ingress_manager, status_manager) = (owners.ingress, owners.status);
        Self { ingress_manager, status_manager, has_own_fields, ..service }
    }

    /// Returns the fact of an object. `group` is the API group that FerroLB uses (`--api-group`).
    #[must_use]
    pub fn read(object: ServiceObject, group: &str) -> Self {
        let ServiceObject { metadata, mut spec, status } = object;
        let ingress = status.load_balancer.ingress.unwrap_or_default();
        let assigned: Vec<_> = ingress.iter().filter_map(Ingress::read).collect();
        let is_foreign = |entry: &Ingress| {
            entry.hostname.is_some() || entry.ports.as_ref().is_some_and(|ports| !ports.is_empty())
        };
        let has_foreign_ingress = assigned.len() != ingress.len() || ingress.iter().any(is_foreign);
        let cluster_ips = spec
            .cluster_ips
            .take()
            .unwrap_or_else(|| spec.cluster_ip.clone().into_iter().collect());
        let cluster_ips: Box<[IpAddr]> =
            cluster_ips.iter().filter_map(|ip| ip.parse().ok()).collect();
        let families: Vec<_> = cluster_ips.iter().copied().map(Family::of).collect();
        // A headless Service has the cluster IP "None", which is no address.
        let load_balancer = spec.r#type.as_deref() == Some("LoadBalancer") && !families.is_empty();
        let conditions = status.conditions.unwrap_or_default().into_iter();
        let annotations = metadata.annotations.as_ref();
        let health_check = annotations
            .and_then(|all| all.get(HEALTH_CHECK_ANNOTATION))
            .filter(|text| !text.trim().is_empty());
        let health_check_annotation =
            health_check.map(|text| Box::new(HealthCheck::read(text, spec.first_tcp_port())));
        let policy = match spec.external_traffic_policy.as_deref() {
            Some("Local") => TrafficPolicy::Local,
            Some(_) | None => TrafficPolicy::Cluster,
        };
        let (endpoint_condition, endpoint_condition_problem) = EndpointCondition::read(annotations);
        let key = Key::of(&metadata);
        Self {
            uid: metadata.uid.clone().unwrap_or_default().into(),
            deleting: metadata.deletion_timestamp.is_some(),
            load_balancer,
            class: spec.load_balancer_class.take().map(Into::into),
            policy,
            health_check_node_port: match policy {
                TrafficPolicy::Local => spec.health_check_node_port.unwrap_or_default(),
                TrafficPolicy::Cluster => 0,
            },
            endpoint_condition,
            endpoint_condition_problem,
            demand: AllocationDemand {
                cluster_ips,
                ..AllocationDemand::read(&metadata, spec, load_balancer.then_some(&*families))
            },
            families,
            assigned,
            has_foreign_ingress,
            health_check_annotation,
            metallb_annotation: metallb_annotation(annotations).filter(|_| group != METALLB_GROUP),
            ingress_manager: None,
            status_manager: None,
            has_own_fields: false,
            adopt: annotations
                .and_then(|all| all.get(api::ADOPT_ANNOTATION))
                .is_some_and(|it| it == "true"),
            pool_annotation: pool_annotation(annotations, group),
            record: record(annotations, &key),
            key,
            conditions: conditions.filter_map(RawCondition::read).collect(),
        }
    }
}

/// Decodes an address of a Service as Kubernetes does: also IPv4 with leading zeros, which old
/// objects may have, and IPv4-mapped IPv6.
fn address(text: &str) -> Option<IpAddr> {
    let octet = |text: &str| text.parse::<u8>().ok();
    let octets = || text.split('.').map(octet).collect::<Option<Vec<_>>>();
    let with_leading_zeros =
        || octets().and_then(|octets| <[u8; 4]>::try_from(octets).ok()).map(IpAddr::from);
    text.parse().ok().or_else(with_leading_zeros).map(|address: IpAddr| address.to_canonical())
}

/// Returns the name of the pool in the annotation [`api::pool_annotation`]. A text that is too long
/// for a name is truncated to a length at which it still matches no pool.
fn pool_annotation(
    annotations: Option<&BTreeMap<String, String>>,
    group: &str,
) -> Option<Box<str>> {
    let name = annotations?.get(&api::pool_annotation(group))?;
    Some(name.chars().take(OBJECT_NAME_MAX + 1).collect())
}

fn record(
    annotations: Option<&BTreeMap<String, String>>,
    service: &Key,
) -> Option<Box<AddressRecord>> {
    AddressRecord::read(annotations?.get(api::ASSIGNED_ANNOTATION)?, service).map(Box::new)
}

fn metallb_annotation(annotations: Option<&BTreeMap<String, String>>) -> Option<&'static str> {
    let annotations = annotations?;
    METALLB_POOL_ANNOTATIONS.into_iter().find(|name| annotations.contains_key(*name))
}

impl RawServiceSpec {
    /// Returns the name of the first TCP port, in the order written. A Service's only port may have
    /// an empty name.
    fn first_tcp_port(&self) -> Option<&str> {
        let tcp = |port: &&RawServicePort| port.protocol.as_deref().unwrap_or("TCP") == "TCP";
        self.ports.iter().flatten().find(tcp).map(|port| port.name.as_deref().unwrap_or_default())
    }
}

impl AllocationDemand {
    /// Decodes the fields. `families` is `None` for a Service that is no load balancer, as most
    /// Services are. Of such a Service, only the external IPs matter, because pools must not assign
    /// them.
    fn read(metadata: &ObjectMeta, spec: RawServiceSpec, families: Option<&[Family]>) -> Self {
        let external = spec.external_ips.unwrap_or_default();
        let external: BTreeSet<_> =
            external.iter().take(EXTERNAL_IPS_MAX).filter_map(|ip| address(ip)).collect();
        let external_ips: Box<[IpAddr]> = external.into_iter().collect();
        // External IPs block addresses only in pools that the Service may use, and its labels may
        // decide which pools these are.
        let labels = metadata
            .labels
            .iter()
            .flatten()
            .filter(|_| families.is_some() || !external_ips.is_empty());
        let labels =
            labels.map(|(key, value)| (key.as_str().into(), value.as_str().into())).collect();
        let Some(families) = families else {
            return Self { external_ips, labels, ..Self::default() };
        };
        let mut request = AddressRequest::read(
            metadata.annotations.as_ref(),
            spec.load_balancer_ip.as_deref(),
            families,
        );
        let mut ports = spec.ports.unwrap_or_default();
        if ports.len() > SHARED_PORTS_MAX {
            request.sharing_key = None;
        }
        if request.sharing_key.is_none() {
            ports.clear();
        }
        let port = |raw: RawServicePort| ServicePort {
            protocol: raw.protocol.as_deref().unwrap_or("TCP").into(),
            port: raw.port,
        };
        let mut ports: Vec<_> = ports.into_iter().map(port).collect();
        ports.sort();
        let selector: Vec<_> =
            spec.selector.0.iter().flatten().map(|(key, value)| format!("{key}={value}")).collect();
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

impl Kind for Service {
    type Object = ServiceObject;
    const NAME: &'static str = "Service";
    const PLURAL: &'static str = "Services";

    fn resource(_: &ReadContext) -> ApiResource {
        ApiResource::erase::<ServiceObject>(&())
    }

    fn read(object: ServiceObject, context: &ReadContext) -> Self {
        match &context.field_manager {
            Some(manager) => Self::read_with_owners(object, &context.group, manager),
            None => Self::read(object, &context.group),
        }
    }
}

#[cfg(test)]
mod tests;
