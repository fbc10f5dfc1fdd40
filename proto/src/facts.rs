//! The facts: the few fields that our programs read of the cluster, small and ready for decisions.
//!
//! Each comes in two forms: what is decoded off the wire (`…Object`, only the fields we use, alive for one event), and the
//! fact itself, which the state keeps. `watch` in the shell turns the one into the other; nothing else sees Kubernetes types.

mod advertisement;
mod bfd_profile;
mod bgp_advertisement;
mod bgp_peer;
mod community;
mod health_check;
mod metadata;
mod namespace;
mod node;
mod pool;
mod request;
mod selectors;
mod service;
mod slice;
mod speaker;
mod usable;

use std::fmt;

use kube::core::ObjectMeta;

pub use advertisement::Advertisement;
pub use bfd_profile::{BfdProfile, BfdProfileProblem, BfdTimers};
pub use bgp_advertisement::{BgpAdvertisement, BgpAdvertisementProblem, CommunityRef};
pub use bgp_peer::{BgpPeer, BgpPeerProblem, PASSWORD_MAX, Password, PeerAsn, PeerPlace, Session};
pub use community::{Community, CommunityError, CommunityProblem, CommunityValue};
pub use health_check::{CheckKind, CheckPort, HEALTH_CHECK, HEALTH_INTERVAL, HealthCheck, HealthCheckProblem};
pub use namespace::{Namespace, NamespaceObject};
pub use node::{Drain, Node, NodeObject};
pub use pool::{Pool, PoolProblem, ServiceAllocation};
pub use request::{ALLOW_SHARED_IP, IP_MODE, Request, RequestProblem};
pub use service::{
    AssignedAddress, ConditionFact, ConditionKind, Demand, FamilyPolicy, Policy, Port, Service, ServiceObject,
};
pub use slice::{Endpoint, SLICES_OF_SERVICES, Slice, SliceObject, Target};
pub use speaker::{Failing, Speaker, SpeakerLink, SpeakerSession, void};
pub use usable::{USABLE, Usable, UsableProblem};

/// The name of a namespaced object. Cluster-scoped objects have an empty namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// `metadata.namespace`.
    pub namespace: Box<str>,
    /// `metadata.name`.
    pub name: Box<str>,
}

impl Key {
    /// The key of an object's metadata.
    #[must_use]
    pub fn of(meta: &ObjectMeta) -> Self {
        Self::new(meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default())
    }

    /// A key from its parts.
    #[must_use]
    pub fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() { f.write_str(&self.name) } else { write!(f, "{}/{}", self.namespace, self.name) }
    }
}
