//! Hard rules of announcing: which nodes may announce an address, as far as Kubernetes objects
//! determine it. Pure functions over borrowed facts; used by the speakers' plans and the
//! controller's conditions. Rules about the network segment (a live speaker, an interface that is
//! up) belong to the claim machine.
//!
//! [`sharing_groups`] joins Services by shared addresses. A [`SharingGroup`] is one set of joined
//! Services with its advertisements. The [`ClusterView`] contains the nodes, pools and
//! advertisements of the cluster.

mod group;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use crate::facts::{Endpoint, EndpointCondition, L2Advertisement, Node, Pool, TrafficPolicy};
use crate::range::{AddressRange, Family};

pub use group::{SharingGroup, sharing_groups};

/// Labels of an object as key-value pairs, sorted by key.
pub type SortedLabels = [(Box<str>, Box<str>)];

/// Facts of a Service that determine which nodes may announce it.
#[derive(Clone, Debug)]
pub struct ServiceView<'a> {
    /// `spec.externalTrafficPolicy`.
    pub policy: TrafficPolicy,
    /// Rule that decides which endpoints are eligible.
    pub eligible: EndpointCondition,
    /// Addresses in the Service's status that may be announced, in the order of the status.
    pub assigned: &'a [IpAddr],
    /// Name of the pool in the annotation that the controller writes to the Service, if any.
    pub from_pool: Option<&'a str>,
    /// `metadata.labels`.
    pub labels: &'a SortedLabels,
    /// Endpoints of all EndpointSlices of the Service.
    pub endpoints: Vec<&'a Endpoint>,
    /// Nodes on which all endpoints of an address family fail their health check, as these nodes
    /// report, each with the family.
    pub failing_on: Vec<(&'a str, Family)>,
}

impl ServiceView<'_> {
    /// Returns the labels as the map that label selectors require.
    pub(crate) fn labels(&self) -> BTreeMap<String, String> {
        self.labels.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect()
    }
}

/// Reason why a node may not announce an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ineligible {
    /// The Node has the condition `NetworkUnavailable`, or the taint for nodes that are out of
    /// service.
    Unreachable,
    /// The node has the exclude label.
    Excluded,
    /// At least one of the addresses that must be announced together has no advertisement that
    /// selects the node.
    NotSelected,
    /// For one of the Services, there is no eligible endpoint to which the node can forward.
    CannotServe,
    /// BGP: no Service with the address has an eligible endpoint of its family on any node.
    NoEndpoint,
    /// BGP: no BGPPeer fulfills all three conditions: the BGPPeer selects the node and accepts the
    /// address's family, and an advertisement selects the BGPPeer.
    NoRouter,
    /// BGP: the advertisements together have more communities than a route may carry.
    TooManyCommunities,
}

/// Nodes, pools and advertisements of the cluster, prepared once for all Services.
#[derive(Debug)]
pub struct ClusterView<'a> {
    /// All Nodes, sorted by name. Each has its name as a shared string, so that candidates do not
    /// copy it.
    nodes: Vec<(&'a Node, Arc<str>)>,
    honor_label: bool,
    pools: BTreeMap<&'a str, &'a Pool>,
    advertisements: Vec<&'a L2Advertisement>,
}

/// Returns whether every Node has the exclude label, as on a new cluster with one node. The label
/// then has no effect.
pub fn every_node_is_excluded<'a>(nodes: impl IntoIterator<Item = &'a Node>) -> bool {
    let mut nodes = nodes.into_iter().peekable();
    nodes.peek().is_some() && nodes.all(|node| node.excluded)
}

impl<'a> ClusterView<'a> {
    /// Prepares all Nodes, pools and advertisements, each sorted by name. If `ignore_label` is
    /// true, the exclude label is always ignored.
    #[must_use]
    pub fn new(
        nodes: impl Iterator<Item = &'a Node> + Clone,
        pools: impl Iterator<Item = &'a Pool>,
        advertisements: impl Iterator<Item = &'a L2Advertisement>,
        ignore_label: bool,
    ) -> Self {
        Self {
            honor_label: !ignore_label && !every_node_is_excluded(nodes.clone()),
            nodes: nodes.map(|node| (node, (*node.name).into())).collect(),
            pools: pools.map(|pool| (&*pool.name, pool)).collect(),
            advertisements: advertisements.collect(),
        }
    }

    /// Returns whether the exclude label is ignored.
    #[must_use]
    pub const fn ignores_label(&self) -> bool {
        !self.honor_label
    }

    /// Returns the reason why a node may not announce any address; `None` if there is no such
    /// reason.
    pub(crate) fn ineligible(&self, node: &Node) -> Option<Ineligible> {
        if node.unreachable {
            Some(Ineligible::Unreachable)
        } else {
            (self.honor_label && node.excluded).then_some(Ineligible::Excluded)
        }
    }

    /// Returns the pool of an address: the pool that the Service names, if that pool contains the
    /// address or is invalid. Otherwise returns the first pool by name that contains the address.
    /// Invalid pools are not skipped, so that a mistake in a pool withdraws no address.
    #[must_use]
    pub fn pool_of(&self, from_pool: Option<&str>, address: IpAddr) -> Option<&'a Pool> {
        let single = AddressRange::single(address);
        let has = |pool: &&Pool| pool.ranges.iter().any(|range| range.overlaps(&single));
        let named = from_pool.and_then(|name| self.pools.get(name).copied());
        named
            .filter(|pool| pool.problem.is_some() || has(pool))
            .or_else(|| self.pools.values().copied().find(has))
    }

    /// Returns the advertisements that announce an address of a Service.
    fn advertisements_of(
        &self,
        served: &ServiceView<'_>,
        address: IpAddr,
    ) -> Vec<&'a L2Advertisement> {
        let Some(pool) = self.pool_of(served.from_pool, address) else { return Vec::new() };
        let selects = |ad: &&&L2Advertisement| {
            ad.selects_pool(pool) && ad.selects_service(|| served.labels())
        };
        self.advertisements.iter().filter(selects).copied().collect()
    }
}
