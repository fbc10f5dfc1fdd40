//! Desired contents of the API server. [`crate::plan`] computes them, and the drivers
//! apply them.
//!
//! The module contains plain values only. The latest [`Desired`] replaces every earlier one, and
//! each write in it contains a complete status. The drivers store only which writes they have
//! attempted.

use std::borrow::Cow;
use std::hash::{Hash, Hasher};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ferrolb_proto::Instant;
use ferrolb_proto::api::{self, ConditionMessage, ConditionStatus, CustomResourceKind, IpMode};
use ferrolb_proto::facts::{AddressRecord, Key, RememberedAddresses};
use serde::Serialize;

use crate::node_failure::failures::FailuresOutput;

/// Maximum number of writes in one [`Desired`]; further writes follow as these finish. The maximum
/// exceeds the number of concurrent writes, so that the writer always has a next write.
pub const WRITES_MAX: usize = 64;

/// An object whose status the controller writes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    /// A Service.
    Service(Key),
    /// A custom resource in the controller's namespace, by kind and name.
    CustomResource(CustomResourceKind, Box<str>),
    /// The ConfigMap [`api::ADDRESS_MEMORY`].
    AddressMemory,
}

impl Target {
    /// Returns the key of a Service.
    #[must_use]
    pub const fn service(&self) -> Option<&Key> {
        match self {
            Self::Service(key) => Some(key),
            Self::CustomResource(..) | Self::AddressMemory => None,
        }
    }
}

/// Writes that the drivers execute, and the leadership term to which the writes belong.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Desired {
    /// Number of the leadership term, which lasts from the acquisition of the leader lease to its
    /// loss; the first term is 1. `None` if this replica does not hold the lease. The drivers
    /// cancel requests of an earlier term.
    pub term: Option<u32>,
    /// End of the leader lease: no request may start at or after this instant. A process that was
    /// stopped for a while loses the lease without receiving an event.
    #[serde(skip)]
    pub until: Instant,
    /// The writes in flight, in the order in which they began. A later [`Desired`] contains others,
    /// after these have ended.
    pub writes: Vec<Write>,
    /// Actions on silent nodes.
    pub node_tasks: Vec<NodeTask>,
    /// Kubelets that the active leader may have to probe, in a cluster with two speakers.
    pub kubelets: Vec<SocketAddr>,
}

/// An action on a silent node, which the driver executes once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NodeTask {
    /// Number of this attempt. Each retry has a new number.
    pub attempt: u64,
    /// Name of the node.
    pub node: Box<str>,
    /// The action.
    pub action: NodeAction,
    /// No request of the action may start at or after this instant.
    #[serde(skip)]
    pub until: Instant,
}

impl NodeTask {
    /// Returns the address of the kubelet to probe, if the task is such a probe.
    #[must_use]
    pub const fn kubelet(&self) -> Option<SocketAddr> {
        match self.action {
            NodeAction::ProbeKubelet(kubelet) => kubelet,
            NodeAction::Mark(_) | NodeAction::Restore(_) => None,
        }
    }
}

/// Kind of a [`NodeTask`], with what the driver must know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum NodeAction {
    /// Connect to the kubelet at this address; `None`: the address is not known.
    ProbeKubelet(Option<SocketAddr>),
    /// Mark the pods of these Services on the node as not Ready.
    Mark(ServiceKeys),
    /// Restore the marked pods of these Services on the node.
    Restore(ServiceKeys),
}

/// Services that have endpoints on a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceKeys(pub Arc<[Key]>);

impl Serialize for ServiceKeys {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(ToString::to_string))
    }
}

/// One attempt to write the status of an object.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Write {
    /// Number of this attempt. Each retry has a new number, and the driver executes each number
    /// once.
    pub attempt: u64,
    /// True if a refusal of this write ([`crate::event::Outcome::Refused`]) is
    /// reported: in the log, and by an Event if the object is a Service.
    pub reports_refusal: bool,
    /// The object to write, and its status.
    pub status: Status,
}

impl Write {
    /// Returns the object to write.
    #[must_use]
    pub fn target(&self) -> Target {
        self.status.target()
    }
}

impl Status {
    /// Returns the object that has the status.
    #[must_use]
    pub fn target(&self) -> Target {
        match self {
            Self::Service(key, _) => Target::Service(key.clone()),
            Self::CustomResource(name, status) => {
                Target::CustomResource(status.kind(), name.clone())
            }
            Self::AddressMemory(_) => Target::AddressMemory,
        }
    }
}

/// An object and its status.
#[derive(Clone, Debug, PartialEq, Hash, Serialize)]
pub enum Status {
    /// A Service and its status.
    Service(#[serde(serialize_with = "crate::desired::as_text")] Key, ServiceStatus),
    /// A custom resource in the controller's namespace: its name and its status.
    CustomResource(Box<str>, CustomResourceStatus),
    /// The addresses of all deleted Services, for the ConfigMap [`api::ADDRESS_MEMORY`].
    AddressMemory(#[serde(serialize_with = "as_entries")] Vec<RememberedAddresses>),
}

/// Status of a custom resource.
#[derive(Clone, Debug, PartialEq, Hash, Serialize)]
pub enum CustomResourceStatus {
    /// Status of an IPAddressPool.
    Pool(PoolStatus),
    /// Status of a BGPPeer.
    Peer(PeerStatus),
    /// Status of an object of this kind, whose only condition is `Valid`.
    Valid(CustomResourceKind, ValidStatus),
}

impl CustomResourceStatus {
    /// Returns the kind of the custom resource.
    #[must_use]
    pub const fn kind(&self) -> CustomResourceKind {
        match self {
            Self::Pool(_) => CustomResourceKind::IPAddressPool,
            Self::Peer(_) => CustomResourceKind::BGPPeer,
            Self::Valid(kind, _) => *kind,
        }
    }

    /// Returns the condition `Valid` and the field `observedGeneration`.
    #[must_use]
    pub const fn valid(&self) -> &ValidStatus {
        match self {
            Self::Pool(PoolStatus { valid, .. })
            | Self::Peer(PeerStatus { valid, .. })
            | Self::Valid(_, valid) => valid,
        }
    }
}

/// Status and annotations that the controller writes to a Service, and the Events to send
/// afterwards.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ServiceStatus {
    /// `metadata.uid`. A new Service with the same name has a different one.
    pub uid: Box<str>,
    /// Effect of the write on `status.loadBalancer.ingress`.
    pub ingress: IngressChange,
    /// Addresses in the status from which the state decided. If another client has replaced them
    /// meanwhile, the write is outdated.
    pub seen: Vec<IpAddr>,
    /// Addresses for `status.loadBalancer.ingress`; empty unless `ingress` is
    /// [`IngressChange::Assign`].
    pub addresses: Vec<IpAddr>,
    /// `ipMode` of every address.
    pub mode: IpMode,
    /// Value of the annotation that names the pool; `None`: no annotation.
    pub pool: Option<Box<str>>,
    /// Record for the annotation `ferrolb.io/assigned`; `None`: no annotation.
    pub record: Option<Box<AddressRecord>>,
    /// Condition `ferrolb.io/AddressAssigned`; `None`: no condition.
    pub condition: Option<Condition>,
    /// Condition `ferrolb.io/Announced`; `None`: no condition.
    pub announced: Option<Condition>,
    /// Kubernetes Events about the Service, to send after the write.
    pub notices: Vec<Notice>,
}

/// Effect of a write on `status.loadBalancer.ingress` of a Service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum IngressChange {
    /// The addresses replace the present ones, whoever wrote these.
    Assign,
    /// MetalLB serves the Service: the addresses remain, even if the controller owns them.
    KeepForMetalLb,
    /// Another load balancer serves the Service, or FerroLB does not serve it any more: the
    /// addresses that only the controller owns disappear, and others remain.
    Release,
}

/// Status of an IPAddressPool.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct PoolStatus {
    /// Numbers of assigned addresses, for the fields `assignedIPv4` and `assignedIPv6`.
    pub assigned: [i64; 2],
    /// Numbers of available addresses, for the fields `availableIPv4` and `availableIPv6`;
    /// `None` if the number does not fit into an `i64`.
    pub available: [Option<i64>; 2],
    /// Text for the field `available`: the exact numbers of available addresses, which may exceed
    /// an `i64`.
    pub text: Box<str>,
    /// Condition `Valid` and the field `observedGeneration`.
    pub valid: ValidStatus,
}

/// Status of a BGPPeer.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct PeerStatus {
    /// Condition `Valid` and the field `observedGeneration`.
    pub valid: ValidStatus,
    /// Text for the field `sessions`, such as `2/3`; `None`: the spec is invalid, or no selected
    /// node runs gobgpd.
    pub sessions: Option<Box<str>>,
    /// Condition `Established`; `None`: no condition.
    pub established: Option<Condition>,
}

/// Status of a custom resource whose only condition is `Valid`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct ValidStatus {
    /// Condition `Valid`.
    pub condition: Condition,
    /// Value of the field `observedGeneration`.
    pub generation: i64,
}

/// A condition without its type (`meta/v1.Condition`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Condition {
    /// Field `status` of the condition.
    pub status: ConditionStatus,
    /// Field `reason` of the condition.
    pub reason: Cow<'static, str>,
    /// Field `message` of the condition.
    pub message: ConditionMessage,
    /// Current `lastTransitionTime`, which the write preserves, in seconds since 1970; `None`: the
    /// write sets its own time.
    pub since: Option<i64>,
}

/// Field `action` of a Kubernetes Event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum EventAction {
    /// The controller assigns addresses to the Service.
    AssignAddress,
    /// The speakers announce the addresses of the Service.
    Announce,
    /// The controller marks pods of a node as not Ready.
    MarkPods,
}

/// A Kubernetes Event about a Service or a Node (`events.k8s.io/v1`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Notice {
    /// True if the Event's `type` is `Warning`, false if it is `Normal`.
    pub warning: bool,
    /// Field `action` of the Event.
    pub action: EventAction,
    /// Field `reason` of the Event.
    pub reason: Cow<'static, str>,
    /// Field `note` of the Event.
    pub message: Box<str>,
}

/// A Kubernetes Event about a Node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeNotice {
    /// Name of the Node.
    pub node: Box<str>,
    /// The fact that the Event reports.
    pub fact: FailuresOutput,
    /// The content.
    pub notice: Notice,
}

/// Reason, in an Event and a metric, for a Service whose status update the API server rejects. No
/// condition has this reason.
pub const NOT_WRITTEN: &str = "NotWritten";

/// A rejected status update of a Service. `Display` renders the message of the Event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RejectedStatus<'a> {
    /// The reply of the API server.
    pub reply: &'a str,
}

impl RejectedStatus<'_> {
    /// Returns the Event that reports the rejection.
    #[must_use]
    pub fn notice(&self) -> Notice {
        let (reason, message) = (NOT_WRITTEN.into(), self.to_string().into());
        Notice { warning: true, action: EventAction::AssignAddress, reason, message }
    }
}

/// Values of the metrics that [`crate::state`] computes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct MetricValues {
    /// True if this replica holds the leader lease.
    pub leading: bool,
    /// Usage of the pools, by name.
    pub pools: Vec<PoolMetricValues>,
    /// Number of FerroLB's Services for each reason of the condition `ferrolb.io/AddressAssigned`.
    /// A Service whose status the API server rejects counts under [`NOT_WRITTEN`] instead.
    pub services: Vec<(&'static str, i64)>,
    /// Number of FerroLB's Services for each reason of the condition `ferrolb.io/Announced`.
    pub announced: Vec<(&'static str, i64)>,
    /// Number of failed nodes whose pods are marked as not Ready.
    pub failed_nodes: i64,
}

/// Values of the metrics of one pool.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PoolMetricValues {
    /// Name of the pool.
    pub name: Box<str>,
    /// Usage by family: IPv4, then IPv6.
    pub usage: [Usage; 2],
    /// Number of Services that have addresses from the pool.
    pub services: u64,
}

/// Numbers of addresses of one family in one pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Usage {
    /// Number of addresses that the pool can assign.
    #[serde(serialize_with = "crate::desired::as_text")]
    pub total: u128,
    /// Number of addresses that are assigned.
    pub used: u64,
}

/// Hashes all fields except `notices` and `seen`, because they are not part of the status: Events
/// are sent after the write.
impl Hash for ServiceStatus {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // Name all fields instead of `..`, so that a new field does not compile until it is
        // included or excluded here.
        let Self {
            uid,
            ingress,
            seen: _,
            addresses,
            mode,
            pool,
            record,
            condition,
            announced,
            notices: _,
        } = self;
        (uid, ingress, addresses, mode, pool, record, condition, announced).hash(state);
    }
}

/// Hashes all fields except `since`, because the time of a condition is unknown until its first
/// write.
impl Hash for Condition {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.status, &self.reason, &self.message).hash(state);
    }
}

/// Renders the message with the reply at its end: an Event keeps 250 characters, and the reply may
/// be longer.
impl std::fmt::Display for RejectedStatus<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "status update of this Service rejected, retrying: apply deploy/base/rbac.yaml if \
             permissions are missing, or change the policy that rejects it. Reply: {}",
            self.reply
        )
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Service(key) => write!(f, "Service {key}"),
            Self::CustomResource(kind, name) => write!(f, "{} {name}", kind.name()),
            Self::AddressMemory => write!(f, "ConfigMap {}", api::ADDRESS_MEMORY),
        }
    }
}

/// Serializes the addresses of deleted Services as the data of their ConfigMap.
fn as_entries<S: serde::Serializer>(
    services: &[RememberedAddresses],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_map(services.iter().map(RememberedAddresses::entry))
}

/// Serializes a value as its `Display` text.
pub(crate) fn as_text<T: std::fmt::Display, S: serde::Serializer>(
    value: &T,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

#[cfg(test)]
mod tests {
    use std::hash::DefaultHasher;

    use super::*;

    fn status() -> ServiceStatus {
        ServiceStatus {
            uid: "uid".into(),
            ingress: IngressChange::Assign,
            seen: Vec::new(),
            addresses: Vec::new(),
            mode: IpMode::Vip,
            pool: None,
            record: None,
            condition: None,
            announced: None,
            notices: Vec::new(),
        }
    }

    fn hash(change: impl FnOnce(&mut ServiceStatus)) -> u64 {
        let (mut status, mut hasher) = (status(), DefaultHasher::new());
        change(&mut status);
        status.hash(&mut hasher);
        hasher.finish()
    }

    #[test]
    fn the_hash_of_a_service_status_covers_all_but_notices() {
        let condition = |reason: &'static str| Condition {
            status: ConditionStatus::True,
            reason: reason.into(),
            message: ConditionMessage::default(),
            since: None,
        };
        let record = || Box::new(AddressRecord { addresses: Box::default(), sharing: None });
        let changed = [
            ("uid", hash(|status| status.uid = "new".into())),
            ("ingress", hash(|status| status.ingress = IngressChange::Release)),
            ("addresses", hash(|status| status.addresses.push([10, 0, 0, 1].into()))),
            ("mode", hash(|status| status.mode = IpMode::Proxy)),
            ("pool", hash(|status| status.pool = Some("lan".into()))),
            ("record", hash(|status| status.record = Some(record()))),
            ("condition", hash(|status| status.condition = Some(condition("Assigned")))),
            ("announced", hash(|status| status.announced = Some(condition("Announced")))),
        ];
        for (field, changed) in changed {
            assert_ne!(changed, hash(|_| ()), "the hash covers {field}");
        }
        let notice = Notice {
            warning: false,
            action: EventAction::Announce,
            reason: "Announced".into(),
            message: "".into(),
        };
        assert_eq!(hash(|status| status.notices.push(notice)), hash(|_| ()));
    }
}
