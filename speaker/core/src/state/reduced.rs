//! Reduced Services and EndpointSlices: only the fields that a plan reads, because the speaker must
//! store ten thousand of each in little memory. Pure; [`super::State`] owns them, by the object's
//! key.

use std::net::{IpAddr, SocketAddr};

use ferrolb_proto::facts::{
    API_SERVERS_MAX, Endpoint, EndpointAddress, EndpointCondition, EndpointSlice, HealthCheck, Key,
    Service, TrafficPolicy, is_api_server,
};

/// Reduced Service. The state stores only Services that have addresses and whose load-balancer
/// implementation is FerroLB.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ReducedService {
    /// `spec.externalTrafficPolicy`.
    pub(crate) policy: TrafficPolicy,
    /// `spec.healthCheckNodePort`. Zero: none.
    pub(crate) health_check_node_port: u16,
    /// Rule that decides which endpoints are eligible.
    pub(crate) eligible: EndpointCondition,
    /// Addresses in the status of the Service that may be announced, in the order of the status.
    pub(crate) assigned: Box<[IpAddr]>,
    /// Pool that the controller's annotation on the Service names.
    pub(crate) from_pool: Option<Box<str>>,
    /// `metadata.labels`, sorted, for the selectors of advertisements.
    pub(crate) labels: Box<[(Box<str>, Box<str>)]>,
    /// Health check that the annotations of the Service configure. None: the annotations are absent
    /// or invalid, so readiness alone decides.
    pub(crate) check: Option<Box<HealthCheck>>,
}

impl From<Service> for ReducedService {
    fn from(service: Service) -> Self {
        Self {
            policy: service.policy,
            health_check_node_port: service.health_check_node_port,
            eligible: service.endpoint_condition,
            assigned: service.announceable().collect(),
            from_pool: service.pool_annotation,
            labels: service.demand.labels,
            check: service.health_check_annotation.and_then(|check| check.ok()).map(Box::new),
        }
    }
}

/// Reduced EndpointSlice of a Service.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct ReducedSlice {
    /// Endpoints of the EndpointSlice, on all nodes.
    pub(crate) endpoints: Box<[Endpoint]>,
    /// Addresses and ports of the endpoints on this node. None: the EndpointSlice has no endpoint
    /// on this node.
    pub(crate) own: Option<Box<OwnTargets>>,
    /// Addresses and ports of the API servers, at most [`API_SERVERS_MAX`], if the EndpointSlice
    /// belongs to the API server's Service. Empty otherwise.
    pub(crate) api_servers: Box<[SocketAddr]>,
}

/// Addresses and ports of the endpoints of an EndpointSlice on this node.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct OwnTargets {
    /// Addresses, each with the index of its endpoint in the EndpointSlice.
    pub(crate) targets: Box<[EndpointAddress]>,
    /// TCP ports of the EndpointSlice, by name.
    pub(crate) ports: Box<[(Box<str>, u16)]>,
}

impl ReducedSlice {
    /// Reduces an EndpointSlice to the fields that the speaker of `node` needs. Returns them with
    /// the Service. Returns none if the EndpointSlice has no Service or no endpoint.
    pub(super) fn of(slice: EndpointSlice, node: &str) -> Option<(Key, Self)> {
        let EndpointSlice { service, endpoints, endpoint_addresses: targets, ports, .. } = slice;
        let service = service.filter(|_| !endpoints.is_empty())?;
        let is_api_server = is_api_server(&service);
        let at = |target: &EndpointAddress| {
            let address = target.address;
            ports.iter().map(move |(_, port)| SocketAddr::new(address, *port))
        };
        let api_servers =
            targets.iter().filter(|_| is_api_server).flat_map(at).take(API_SERVERS_MAX).collect();
        let is_own = |target: &EndpointAddress| {
            endpoints
                .get(target.endpoint)
                .is_some_and(|endpoint| endpoint.node.as_deref() == Some(node))
        };
        let targets: Box<[_]> = targets.into_iter().filter(is_own).collect();
        let own =
            (!targets.is_empty()).then(|| Box::new(OwnTargets { targets, ports: ports.into() }));
        Some((service, Self { endpoints: endpoints.into(), own, api_servers }))
    }
}
