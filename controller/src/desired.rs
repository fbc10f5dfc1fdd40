//! What the API server should say and does not say yet: made by [`crate::plan`], brought about by the drivers.
//!
//! Plain values. The latest Desired replaces every earlier one, and each write in it is whole: nothing has to be remembered
//! from one to the next but which attempts were made.

use std::borrow::Cow;
use std::hash::{Hash, Hasher};
use std::net::IpAddr;

use ferrolb_proto::Instant;
use ferrolb_proto::api::{IpMode, Kind, Truth};
use ferrolb_proto::facts::Key;
use serde::Serialize;

/// An object whose status we write.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    /// A Service.
    Service(Key),
    /// An IPAddressPool in our namespace, by name.
    Pool(Box<str>),
    /// An L2Advertisement in our namespace, by name.
    Advertisement(Box<str>),
    /// A Community in our namespace, by name.
    Community(Box<str>),
    /// A BGPPeer in our namespace, by name.
    Peer(Box<str>),
    /// A BGPAdvertisement in our namespace, by name.
    BgpAdvertisement(Box<str>),
    /// A BFDProfile in our namespace, by name.
    BfdProfile(Box<str>),
}

impl Target {
    /// The kind and the name, where the kind is one of ours.
    #[must_use]
    pub fn own(&self) -> Option<(Kind, &str)> {
        match self {
            Self::Service(_) => None,
            Self::Pool(name) => Some((Kind::IPAddressPool, name)),
            Self::Advertisement(name) => Some((Kind::L2Advertisement, name)),
            Self::Community(name) => Some((Kind::Community, name)),
            Self::Peer(name) => Some((Kind::BGPPeer, name)),
            Self::BgpAdvertisement(name) => Some((Kind::BGPAdvertisement, name)),
            Self::BfdProfile(name) => Some((Kind::BFDProfile, name)),
        }
    }
}

/// What is to be done.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Desired {
    /// Which time this replica holds the lease; none: it does not. Whatever is under way from another one is broken off.
    pub term: Option<u32>,
    /// Until when requests may be sent for it: a process that was stopped for long has lost the
    /// lease without a word.
    #[serde(skip)]
    pub until: Instant,
    /// The most urgent writes, in order; later ones follow as these are done.
    pub writes: Vec<Write>,
}

/// One object's status as it should be.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Write {
    /// Which object.
    #[serde(serialize_with = "crate::desired::as_text")]
    pub target: Target,
    /// Another one for each try: a driver makes each attempt once.
    pub attempt: u64,
    /// A refusal of this attempt is reported: in the log, and by an event about a Service.
    pub reports_refusal: bool,
    /// What to write.
    pub status: Status,
}

/// The status of one object.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub enum Status {
    /// Of a Service.
    Service(ServiceStatus),
    /// Of an IPAddressPool.
    Pool(PoolStatus),
    /// Of a BGPPeer.
    Peer(PeerStatus),
    /// Of any other kind of ours.
    Valid(ValidStatus),
}

/// The part of a Service that is ours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ServiceStatus {
    /// `metadata.uid`: a new Service of the same name is another one.
    pub uid: Box<str>,
    /// Another load balancer's: its `status.loadBalancer` stays as it is, and the next two say nothing.
    pub theirs: bool,
    /// `status.loadBalancer.ingress`.
    pub addresses: Vec<IpAddr>,
    /// The `ipMode` of each of them.
    pub mode: IpMode,
    /// The annotation that names the pool; none: no annotation.
    pub pool: Option<Box<str>>,
    /// Condition `ferrolb.io/AddressAssigned`; none: no condition.
    pub condition: Option<Condition>,
    /// Condition `ferrolb.io/Announced`; none: no condition.
    pub announced: Option<Condition>,
    /// The events to tell, if something changed that a person wants to know.
    pub notices: Vec<Notice>,
}

/// The status of an IPAddressPool. What is none is a field that its CRD does not have.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct PoolStatus {
    /// `assignedIPv4`, `assignedIPv6`.
    pub assigned: [i64; 2],
    /// `availableIPv4`, `availableIPv6`; none also where the number does not fit.
    pub available: [Option<i64>; 2],
    /// `available`: the same as a text, exact.
    pub text: Option<Box<str>>,
    /// `Valid` and `observedGeneration`.
    pub valid: Option<ValidStatus>,
}

/// The status of a BGPPeer.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct PeerStatus {
    /// `Valid` and `observedGeneration`.
    pub valid: ValidStatus,
    /// `sessions`; none: it should have none, or its CRD has no place for it.
    pub sessions: Option<Box<str>>,
    /// Condition `Established`; none: no condition.
    pub established: Option<Condition>,
}

/// The status of a kind that has nothing but its `Valid` condition.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct ValidStatus {
    /// Condition `Valid`.
    pub condition: Condition,
    /// `observedGeneration`.
    pub generation: i64,
}

/// A condition without its type (`meta/v1.Condition`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Condition {
    /// `status`.
    pub status: Truth,
    /// `reason`.
    pub reason: Cow<'static, str>,
    /// `message`.
    pub message: Box<str>,
    /// `lastTransitionTime` to keep, in seconds since 1970; none: the time of the write.
    pub since: Option<i64>,
}

/// What an event about a Service is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Action {
    /// Its addresses.
    AssignAddress,
    /// Who announces them.
    Announce,
}

/// An event about a Service (`events.k8s.io/v1`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Notice {
    /// `type` is `Warning`.
    pub warning: bool,
    /// `action`: what it is about.
    pub action: Action,
    /// `reason`.
    pub reason: Cow<'static, str>,
    /// `note`.
    pub message: Box<str>,
}

/// The reason of a Service whose status the API server refuses to write: of an event and in a
/// metric, in no condition.
pub const NOT_WRITTEN: &str = "NotWritten";

/// What the metrics say; made by the state, counted by nobody else.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Figures {
    /// Whether this replica holds the lease.
    pub leading: bool,
    /// The pools, by name.
    pub pools: Vec<PoolFigures>,
    /// Our Services by the reason of their condition `AddressAssigned`, or [`NOT_WRITTEN`].
    pub services: Vec<(&'static str, i64)>,
    /// The same by the reason of their condition `ferrolb.io/Announced`.
    pub announced: Vec<(&'static str, i64)>,
}

/// What the metrics say of a pool.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PoolFigures {
    /// Its name.
    pub name: Box<str>,
    /// IPv4 and IPv6.
    pub usage: [Usage; 2],
    /// How many Services have addresses of it.
    pub services: u64,
}

/// Addresses of one family in one pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Usage {
    /// How many could be given in all.
    #[serde(serialize_with = "crate::desired::as_text")]
    pub total: u128,
    /// How many are.
    pub used: u64,
}

/// What is told beside a status is no part of it.
impl Hash for ServiceStatus {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (&self.uid, self.theirs, &self.addresses, self.mode, &self.pool, &self.condition, &self.announced).hash(state);
    }
}

/// Nor is the time of a condition, which is not known before it was written once.
impl Hash for Condition {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.status, &self.reason, &self.message).hash(state);
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Service(key) => write!(f, "Service {key}"),
            Self::Pool(name) => write!(f, "IPAddressPool {name}"),
            Self::Advertisement(name) => write!(f, "L2Advertisement {name}"),
            Self::Community(name) => write!(f, "Community {name}"),
            Self::Peer(name) => write!(f, "BGPPeer {name}"),
            Self::BgpAdvertisement(name) => write!(f, "BGPAdvertisement {name}"),
            Self::BfdProfile(name) => write!(f, "BFDProfile {name}"),
        }
    }
}

/// Serializes anything that has a text as that text.
pub(crate) fn as_text<T: std::fmt::Display, S: serde::Serializer>(value: &T, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(value)
}
