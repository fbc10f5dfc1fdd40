//! Who may announce an address, as far as the API says: the hard rules. Pure, over borrowed facts; the speakers' plans, the
//! controller's conditions and the CLI ask it. What the wire adds (a speaker is heard, the link is up) is the claim machine's.
//!
//! [`groups`] joins Services by shared addresses, a [`Group`] is one such join with what announces it, and the [`Scene`] is
//! what they all stand in.

mod group;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use crate::facts::{Advertisement, Endpoint, Node, Policy, Pool, Usable};
use crate::range::{AddressRange, Family};

pub use group::{Group, groups};

/// Labels as they are kept, in little room: sorted by key.
pub type Labels = [(Box<str>, Box<str>)];

/// A Service, as far as it decides who may announce it.
#[derive(Clone, Debug)]
pub struct Served<'a> {
    /// `spec.externalTrafficPolicy`.
    pub policy: Policy,
    /// Which of its endpoints count.
    pub usable: Usable,
    /// The addresses in its status that may be announced, in order.
    pub assigned: &'a [IpAddr],
    /// The pool that its annotation names.
    pub from_pool: Option<&'a str>,
    /// `metadata.labels`.
    pub labels: &'a Labels,
    /// The endpoints of all its slices.
    pub endpoints: Vec<&'a Endpoint>,
    /// The nodes that say that none of their own endpoints of a family passes its health check.
    pub failing_on: Vec<(&'a str, Family)>,
}

impl Served<'_> {
    /// Its labels as selectors take them.
    pub(crate) fn labels(&self) -> BTreeMap<String, String> {
        self.labels.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect()
    }
}

/// Why a node may not announce.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Bar {
    /// Its network is not available, or it is out of service.
    Unreachable,
    /// It carries the exclude label.
    Excluded,
    /// An address has no advertisement that selects it.
    NotSelected,
    /// It cannot serve one of the Services.
    CannotServe,
    /// By BGP: no Service that has the address has a usable endpoint of its family, on whatever node.
    NoEndpoint,
    /// By BGP: no BGPPeer selects it that takes the address's family and is named by an advertisement.
    NoRouter,
    /// By BGP: its advertisements have more communities together than a route can carry.
    TooManyCommunities,
}

/// Nodes, pools and advertisements, looked at once for all Services.
#[derive(Debug)]
pub struct Scene<'a> {
    /// By name, with the one text of each name.
    nodes: Vec<(&'a Node, Arc<str>)>,
    honor_label: bool,
    pools: BTreeMap<&'a str, &'a Pool>,
    advertisements: Vec<&'a Advertisement>,
}

/// Whether the exclude label means nothing because every Node carries it, as on a fresh cluster of one node.
pub fn exclusion_means_nothing<'a>(nodes: impl IntoIterator<Item = &'a Node>) -> bool {
    let mut nodes = nodes.into_iter().peekable();
    nodes.peek().is_some() && nodes.all(|node| node.excluded)
}

impl<'a> Scene<'a> {
    /// A scene of all Nodes, pools and advertisements, each by name. `ignore_label`: the exclude label is ignored in any case.
    #[must_use]
    pub fn new(
        nodes: impl Iterator<Item = &'a Node> + Clone,
        pools: impl Iterator<Item = &'a Pool>,
        advertisements: impl Iterator<Item = &'a Advertisement>,
        ignore_label: bool,
    ) -> Self {
        Self {
            honor_label: !ignore_label && !exclusion_means_nothing(nodes.clone()),
            nodes: nodes.map(|node| (node, (*node.name).into())).collect(),
            pools: pools.map(|pool| (&*pool.name, pool)).collect(),
            advertisements: advertisements.collect(),
        }
    }

    /// Whether the exclude label keeps no node from announcing.
    #[must_use]
    pub const fn ignores_label(&self) -> bool {
        !self.honor_label
    }

    /// Why a node may announce nothing at all, if so.
    pub(crate) fn bar(&self, node: &Node) -> Option<Bar> {
        if node.unreachable {
            Some(Bar::Unreachable)
        } else {
            (self.honor_label && node.excluded).then_some(Bar::Excluded)
        }
    }

    /// The pool of an address: the one that the Service says it is from, if that has it or cannot be read (a slip in a pool
    /// takes no address off the wire), else the first by name that has it.
    #[must_use]
    pub fn pool_of(&self, from_pool: Option<&str>, address: IpAddr) -> Option<&'a Pool> {
        let single = AddressRange::single(address);
        let has = |pool: &&Pool| pool.ranges.iter().any(|range| range.overlaps(&single));
        let named = from_pool.and_then(|name| self.pools.get(name).copied());
        named.filter(|pool| pool.problem.is_some() || has(pool)).or_else(|| self.pools.values().copied().find(has))
    }

    /// The advertisements that announce an address of a Service.
    fn advertisements_of(&self, served: &Served<'_>, address: IpAddr) -> Vec<&'a Advertisement> {
        let Some(pool) = self.pool_of(served.from_pool, address) else { return Vec::new() };
        let selects = |ad: &&&Advertisement| ad.selects_pool(pool) && ad.selects_service(|| served.labels());
        self.advertisements.iter().filter(selects).copied().collect()
    }
}
