//! Facts: small structs with the few fields of Kubernetes objects that FerroLB's components use.
//!
//! An object has two forms. The decoded object (`…Object`, or a type of [`crate::api`]) exists only
//! while its event is decoded. The module `watch` of the crate `runtime` converts it into the fact,
//! and the state stores only facts.

mod address_memory;
mod address_request;
mod advertisement_selectors;
mod bfd_profile;
mod bgp_advertisement;
mod bgp_peer;
mod community;
mod endpoint_condition;
mod endpoint_problem;
mod endpoint_slice;
mod field_managers;
mod health_check;
mod hello_secret;
mod key;
pub(crate) mod kind;
mod l2_advertisement;
mod metadata;
mod namespace;
mod node;
mod password_secret;
mod pod;
mod pool;
mod record;
mod selectors;
mod service;
mod speaker;

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

pub use address_memory::{
    ADDRESS_MEMORY_SELECTOR, AddressMemory, AddressMemoryObject, RememberedAddresses,
};
pub use address_request::{
    ALLOW_SHARED_IP_ANNOTATION, AddressRequest, AddressRequestProblem, IP_MODE_ANNOTATION,
};
pub use advertisement_selectors::AdvertisementSelectors;
pub use bfd_profile::{BfdProfile, BfdProfileProblem, BfdTimers};
pub use bgp_advertisement::{BgpAdvertisement, BgpAdvertisementProblem, CommunityRef};
pub use bgp_peer::{
    BgpPeer, BgpPeerProblem, PASSWORD_MAX, PasswordSource, PeerAsn, PeerLocation, SessionParameters,
};
pub use community::{Community, CommunityError, CommunityProblem, CommunityValue};
pub use endpoint_condition::{
    ENDPOINT_CONDITION_ANNOTATION, EndpointCondition, EndpointConditionProblem,
};
pub use endpoint_problem::EndpointProblem;
pub use endpoint_slice::{
    API_SERVERS_MAX, Endpoint, EndpointAddress, EndpointSlice, EndpointSliceObject,
    SERVICE_SLICES_SELECTOR, api_server, is_api_server,
};
pub use health_check::{
    CheckKind, CheckPort, HEALTH_CHECK_ANNOTATION, HEALTH_INTERVAL_RANGE, HealthCheck,
    HealthCheckProblem,
};
pub use key::Key;
pub use kind::{CustomResource, Kind, ReadContext};
pub use l2_advertisement::{L2Advertisement, L2AdvertisementProblem};
pub use metadata::SERVICE_NAME_LABEL;
pub use namespace::{Namespace, NamespaceObject};
pub use node::{DrainReason, Node, NodeObject};
pub use password_secret::{PasswordProblem, PasswordSecret};
pub use pod::{Component, PODS_SELECTOR, Pod, PodObject};
pub use pool::{Pool, PoolProblem, STICKY_FOR, ServiceRestriction, WidenedCidr};
pub use record::AddressRecord;
pub use selectors::selector_matches;
pub use service::{
    AllocationDemand, AssignedAddress, FamilyPolicy, Service, ServiceCondition,
    ServiceConditionType, ServiceObject, ServicePort, TrafficPolicy,
};
pub use speaker::{
    FailingHealthCheck, Speaker, SpeakerInterface, SpeakerSession, UncheckedHealthCheck,
};

/// A fact that a store finds by its key.
pub trait Keyed {
    /// The type of the key: [`Key`], or a string with only the name, for cluster-scoped objects
    /// and for objects that FerroLB reads in one namespace only.
    type Key: Ord + Clone + From<Key>;

    /// Returns the key of the fact's object.
    fn key(&self) -> Self::Key;
}

macro_rules! keyed {
    ($($fact:ident.$field:ident: $key:ty),+ $(,)?) => {
        $(impl Keyed for $fact {
            type Key = $key;

            fn key(&self) -> $key {
                self.$field.clone()
            }
        })+
    };
}

keyed! {
    Service.key: Key,
    EndpointSlice.key: Key,
    Node.name: Arc<str>,
    Namespace.name: Box<str>,
    Pod.key: Key,
    AddressMemory.name: Box<str>,
    PasswordSecret.name: Box<str>,
}

/// The status of a FerroLB custom resource, as read from the API server.
///
/// Any two values compare as equal. Two versions of a fact that differ only in the status are
/// therefore equal, and a change of the status alone is not reported as a change.
#[derive(Clone, Debug, Default)]
pub struct ObservedStatus<S>(pub S);

impl<S> PartialEq for ObservedStatus<S> {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl<S> Deref for ObservedStatus<S> {
    type Target = S;

    fn deref(&self) -> &S {
        &self.0
    }
}

impl<S> DerefMut for ObservedStatus<S> {
    fn deref_mut(&mut self) -> &mut S {
        &mut self.0
    }
}
