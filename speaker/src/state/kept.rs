//! What the state keeps of a Service and of an EndpointSlice: what a plan reads, and nothing else, because ten thousand of each
//! must fit into a small process. Pure; [`super::State`] owns them, by the object's key.

use std::net::IpAddr;

use ferrolb_proto::facts::{Endpoint, Policy, Service, Slice};

/// What a plan needs of a Service that is ours and has addresses.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct KeptService {
    /// `spec.externalTrafficPolicy`.
    pub(crate) policy: Policy,
    /// `spec.healthCheckNodePort`; zero: none.
    pub(crate) health_check_node_port: u16,
    /// The addresses in its status that may be announced, in order.
    pub(crate) assigned: Box<[IpAddr]>,
    /// The pool that its annotation names.
    pub(crate) from_pool: Option<Box<str>>,
    /// `metadata.labels`, sorted, for the selectors of advertisements.
    pub(crate) labels: Box<[(Box<str>, Box<str>)]>,
}

impl From<Service> for KeptService {
    fn from(service: Service) -> Self {
        let assigned = service.announceable().collect();
        Self {
            policy: service.policy,
            health_check_node_port: service.health_check_node_port,
            assigned,
            from_pool: service.from_pool,
            labels: service.demand.labels,
        }
    }
}

/// What a plan needs of an EndpointSlice of a Service.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct KeptSlice {
    /// The Service's name; its namespace is the slice's own.
    pub(crate) service: Box<str>,
    /// Its endpoints.
    pub(crate) endpoints: Box<[Endpoint]>,
}

impl KeptSlice {
    /// None: no endpoint of any Service.
    pub(super) fn of(slice: Slice) -> Option<Self> {
        let service = slice.service?.name;
        (!slice.endpoints.is_empty()).then(|| Self { service, endpoints: slice.endpoints.into() })
    }
}
