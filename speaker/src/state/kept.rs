//! What the state keeps of a Service and of an EndpointSlice: what a plan reads, and nothing else, because ten thousand of each
//! must fit into a small process. Pure; [`super::State`] owns them, by the object's key.

use std::net::{IpAddr, SocketAddr};

use ferrolb_proto::facts::{Endpoint, HealthCheck, Policy, Service, Slice, Target, Usable};

/// The API servers of one slice that are kept: whoever may write slices could name any number.
const API_SERVERS_MAX: usize = 64;
/// Namespace and name of the Service that leads to the API server.
const API_SERVER: (&str, &str) = ("default", "kubernetes");

/// What a plan needs of a Service that is ours and has addresses.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct KeptService {
    /// `spec.externalTrafficPolicy`.
    pub(crate) policy: Policy,
    /// `spec.healthCheckNodePort`; zero: none.
    pub(crate) health_check_node_port: u16,
    /// Which of its endpoints count.
    pub(crate) usable: Usable,
    /// The addresses in its status that may be announced, in order.
    pub(crate) assigned: Box<[IpAddr]>,
    /// The pool that its annotation names.
    pub(crate) from_pool: Option<Box<str>>,
    /// `metadata.labels`, sorted, for the selectors of advertisements.
    pub(crate) labels: Box<[(Box<str>, Box<str>)]>,
    /// How its endpoints are checked. One that cannot be understood is none: readiness alone decides.
    pub(crate) check: Option<Box<HealthCheck>>,
}

impl From<Service> for KeptService {
    fn from(service: Service) -> Self {
        Self {
            policy: service.policy,
            health_check_node_port: service.health_check_node_port,
            usable: service.usable,
            assigned: service.announceable().collect(),
            from_pool: service.from_pool,
            labels: service.demand.labels,
            check: service.checked.and_then(|check| check.ok()).map(Box::new),
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
    /// Where those on this node are reached; none if there are none.
    pub(crate) own: Option<Box<OwnTargets>>,
    /// Where API servers are reached, at most [`API_SERVERS_MAX`], if the slice is one of theirs.
    pub(crate) api_servers: Box<[SocketAddr]>,
}

/// Where a slice's endpoints on this node are reached.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct OwnTargets {
    /// Each with the place of its endpoint in the slice.
    pub(crate) targets: Box<[Target]>,
    /// The slice's TCP ports by name.
    pub(crate) ports: Box<[(Box<str>, u16)]>,
}

impl KeptSlice {
    /// What `node` keeps of a slice. None: no endpoint of any Service.
    pub(super) fn of(slice: Slice, node: &str) -> Option<Self> {
        let Slice { key, service, endpoints, targets, ports } = slice;
        let service = service?.name;
        let is_api_server = (&*key.namespace, &*service) == API_SERVER;
        let at = |target: &Target| {
            let address = target.address;
            ports.iter().map(move |(_, port)| SocketAddr::new(address, *port))
        };
        let api_servers = targets.iter().filter(|_| is_api_server).flat_map(at).take(API_SERVERS_MAX).collect();
        let is_own = |target: &Target| {
            endpoints.get(target.endpoint).is_some_and(|endpoint| endpoint.node.as_deref() == Some(node))
        };
        let targets: Box<[_]> = targets.into_iter().filter(is_own).collect();
        let own = (!targets.is_empty()).then(|| Box::new(OwnTargets { targets, ports: ports.into() }));
        (!endpoints.is_empty()).then(|| Self { service, endpoints: endpoints.into(), own, api_servers })
    }
}
