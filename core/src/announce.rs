//! The cluster as the rules of announcing see it: the Services with addresses, and the Nodes, pools
//! and advertisements. Pure functions over borrowed facts; used by the speakers' plans and the
//! controller's conditions. Rules about the network segment (a live speaker, an interface that is
//! up) belong to the claim machine.
//!
//! [`ClusterView`] contains the Nodes, pools and L2Advertisements of the cluster, [`ServiceView`]
//! the facts of one Service, and [`Layer2Address`] one address with the L2Advertisements that
//! announce it.

mod interfaces;
mod layer2_address;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use ferrolb_proto::facts::{L2Advertisement, Node, Pool};
use ferrolb_proto::range::{AddressRange, Family};

use crate::election::Candidate;
use crate::eligibility::{EligibleEndpoints, Ineligible};

pub use interfaces::{Interface, SelectedInterface};
pub use layer2_address::Layer2Address;

/// Labels of an object as key-value pairs, sorted by key.
pub type SortedLabels = [(Box<str>, Box<str>)];

/// Facts of a Service that determine which nodes may announce it.
#[derive(Clone, Debug)]
pub struct ServiceView<'a> {
    /// Addresses in the Service's status that may be announced, in the order of the status.
    pub assigned: &'a [IpAddr],
    /// Name of the pool in the annotation that the controller writes to the Service, if any.
    pub from_pool: Option<&'a str>,
    /// `metadata.labels`.
    pub labels: &'a SortedLabels,
    /// Nodes with eligible endpoints of the Service.
    pub endpoints: EligibleEndpoints,
    /// Nodes on which all endpoints of an address family fail their health check, as these nodes
    /// report, each with the family.
    pub failing_on: Vec<(&'a str, Family)>,
}

impl ServiceView<'_> {
    /// Returns the labels as the map that label selectors require.
    pub fn labels(&self) -> BTreeMap<String, String> {
        self.labels.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect()
    }
}

/// Services with addresses, by address.
#[derive(Clone, Debug)]
pub struct ServicesByAddress<'a> {
    services: Vec<ServiceView<'a>>,
    /// Indexes into `services`, ascending.
    by_address: BTreeMap<IpAddr, Vec<usize>>,
}

impl<'a> FromIterator<ServiceView<'a>> for ServicesByAddress<'a> {
    /// Indexes these Services, which are sorted by namespace and name.
    fn from_iter<I: IntoIterator<Item = ServiceView<'a>>>(services: I) -> Self {
        let services: Vec<_> = services.into_iter().collect();
        let mut by_address: BTreeMap<IpAddr, Vec<usize>> = BTreeMap::new();
        for (index, service) in services.iter().enumerate() {
            for address in service.assigned {
                by_address.entry(*address).or_default().push(index);
            }
        }
        Self { services, by_address }
    }
}

impl<'a> ServicesByAddress<'a> {
    /// Returns each address, ascending, with the Services that have it.
    pub fn iter(
        &self,
    ) -> impl Iterator<Item = (IpAddr, impl Iterator<Item = &ServiceView<'a>> + Clone)> {
        self.by_address.iter().map(|(address, indexes)| {
            (*address, indexes.iter().map(|index| &self.services[*index]))
        })
    }

    /// Returns the Services that have an address, sorted by namespace and name.
    pub fn of(&self, address: IpAddr) -> impl Iterator<Item = &ServiceView<'a>> + Clone {
        let indexes = self.by_address.get(&address).into_iter().flatten();
        indexes.map(|index| &self.services[*index])
    }
}

/// The pool by which advertisements select an address.
#[derive(Clone, Copy, Debug)]
pub(crate) enum SelectedPool<'a> {
    /// A pool of the configuration.
    Exists(&'a Pool),
    /// Only the name is known, so no label selects the pool.
    Missing(&'a str),
}

/// Nodes, pools and advertisements of the cluster, prepared once for all Services.
#[derive(Debug)]
pub struct ClusterView<'a> {
    /// All Nodes, sorted by name.
    nodes: Vec<&'a Node>,
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
            nodes: nodes.collect(),
            pools: pools.map(|pool| (&*pool.name, pool)).collect(),
            advertisements: advertisements.collect(),
        }
    }

    /// Returns all Nodes, sorted by name.
    pub fn nodes(&self) -> impl Iterator<Item = &'a Node> {
        self.nodes.iter().copied()
    }

    /// Returns whether the exclude label is ignored.
    #[must_use]
    pub const fn ignores_label(&self) -> bool {
        !self.honor_label
    }

    /// Returns the reason why a node may not announce any address; `None` if there is no such
    /// reason.
    pub fn ineligible(&self, node: &Node) -> Option<Ineligible> {
        if node.unreachable {
            Some(Ineligible::Unreachable)
        } else {
            (self.honor_label && node.excluded).then_some(Ineligible::Excluded)
        }
    }

    /// Returns the nodes that may announce an address that every node can serve, sorted by name:
    /// those that one of these advertisements selects.
    #[must_use]
    pub fn select_nodes(&self, advertisements: &[&L2Advertisement]) -> Arc<[Candidate]> {
        let candidate = |node: &&Node| {
            let selecting =
                || advertisements.iter().filter(|ad| ad.selectors.select_node(&node.labels));
            if self.ineligible(node).is_some() || selecting().next().is_none() {
                return None;
            }
            Some(Candidate {
                node: Arc::clone(&node.name),
                terminating: false,
                cordoned: node.cordoned || !node.ready,
                preference: selecting()
                    .fold(0, |sum: u32, ad| sum.saturating_add(ad.preference(&node.labels)))
                    .try_into()
                    .unwrap_or(u16::MAX),
            })
        };
        self.nodes.iter().filter_map(candidate).collect()
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

    /// Returns the pool by which advertisements select an address: the one of [`Self::pool_of`], or
    /// the pool that the Service names, if it does not exist. The controller decides how long the
    /// Service keeps the address.
    pub(crate) fn selected_pool<'s>(
        &'s self,
        service: &'s ServiceView<'_>,
        address: IpAddr,
    ) -> Option<SelectedPool<'s>> {
        let missing = service.from_pool.filter(|name| !self.pools.contains_key(name));
        let pool = self.pool_of(service.from_pool, address).map(SelectedPool::Exists);
        pool.or_else(|| missing.map(SelectedPool::Missing))
    }

    /// Returns the advertisements that announce an address of a Service.
    fn advertisements_of(
        &self,
        served: &ServiceView<'_>,
        address: IpAddr,
    ) -> Vec<&'a L2Advertisement> {
        let Some(pool) = self.selected_pool(served, address) else { return Vec::new() };
        let selects = |ad: &&&L2Advertisement| {
            let selects_pool = match pool {
                SelectedPool::Exists(pool) => ad.selects_pool(pool),
                SelectedPool::Missing(name) => ad.names_pool(name),
            };
            selects_pool && ad.selectors.select_service(|| served.labels())
        };
        self.advertisements.iter().filter(selects).copied().collect()
    }
}
