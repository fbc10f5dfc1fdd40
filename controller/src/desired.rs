//! What the API server should say and does not say yet: made by [`crate::plan`], brought about by the drivers.
//!
//! Plain values. The latest Desired replaces every earlier one, and each write in it is whole: nothing has to be remembered
//! from one to the next but which attempts were made.

use std::net::IpAddr;

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
}

/// What is to be done.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Desired {
    /// Which time this replica holds the lease; none: it does not. Whatever is under way from another one is broken off.
    pub term: Option<u32>,
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
    /// Of an L2Advertisement.
    Advertisement(AdvertisementStatus),
}

/// The part of a Service that is ours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ServiceStatus {
    /// `metadata.uid`: a new Service of the same name is another one.
    pub uid: Box<str>,
    /// `status.loadBalancer.ingress`, each `ipMode: VIP`.
    pub addresses: Vec<IpAddr>,
    /// The annotation that names the pool; none: no annotation.
    pub pool: Option<Box<str>>,
    /// Condition `ferrolb.io/AddressAssigned`; none: no condition.
    pub condition: Option<Condition>,
    /// The event to tell, if something changed that a person wants to know.
    pub notice: Option<Notice>,
}

/// The status of an IPAddressPool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PoolStatus {
    /// `assignedIPv4`, `assignedIPv6`.
    pub assigned: [i64; 2],
    /// `availableIPv4`, `availableIPv6`; none where the number does not fit.
    pub available: [Option<i64>; 2],
    /// Condition `Valid`.
    pub valid: Condition,
    /// `observedGeneration`.
    pub generation: i64,
}

/// The status of an L2Advertisement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AdvertisementStatus {
    /// Condition `Valid`.
    pub valid: Condition,
    /// `observedGeneration`.
    pub generation: i64,
}

/// A condition without its type (`meta/v1.Condition`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Condition {
    /// `status` is `True`.
    pub is_true: bool,
    /// `reason`.
    pub reason: &'static str,
    /// `message`.
    pub message: Box<str>,
    /// `lastTransitionTime` to keep, RFC 3339; none: the time of the write.
    pub since: Option<Box<str>>,
}

/// An event about a Service (`events.k8s.io/v1`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Notice {
    /// `type` is `Warning`.
    pub warning: bool,
    /// `reason`.
    pub reason: &'static str,
    /// `note`.
    pub message: Box<str>,
}

/// What the metrics say; made by the state, counted by nobody else.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Figures {
    /// Whether this replica holds the lease.
    pub leading: bool,
    /// Pool, then IPv4 and IPv6: how many addresses there are and how many are in use.
    pub pools: Vec<(Box<str>, [Usage; 2])>,
    /// Our Services by the reason of their condition.
    pub services: Vec<(&'static str, i64)>,
}

/// Addresses of one family in one pool; `i64::MAX` stands for anything larger.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Usage {
    /// How many could be given in all.
    pub total: i64,
    /// How many are.
    pub used: i64,
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Service(key) => write!(f, "Service {key}"),
            Self::Pool(name) => write!(f, "IPAddressPool {name}"),
            Self::Advertisement(name) => write!(f, "L2Advertisement {name}"),
        }
    }
}

/// Serializes anything that has a text as that text.
pub(crate) fn as_text<T: std::fmt::Display, S: serde::Serializer>(value: &T, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(value)
}
