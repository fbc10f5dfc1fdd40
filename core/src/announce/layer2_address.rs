//! One address that L2Advertisements announce, and the nodes that may announce it. Pure functions.

use std::net::IpAddr;
use std::sync::Arc;

use ferrolb_proto::facts::{L2Advertisement, Node};
use ferrolb_proto::range::Family;

use super::{ClusterView, ServiceView};
use crate::election::{Candidate, Unit};
use crate::eligibility::{Ineligible, Serving, eligibility, serving};

/// An address that at least one L2Advertisement announces.
#[derive(Debug)]
pub struct Layer2Address<'s, 'a> {
    address: IpAddr,
    /// Services that have the address and that an L2Advertisement selects, sorted by namespace and
    /// name.
    services: Vec<&'s ServiceView<'a>>,
    /// L2Advertisements that select any of `services`, each once.
    advertisements: Vec<&'a L2Advertisement>,
    /// Address that decides the order of the nodes: the first address of the first Service. Both
    /// families of a Service therefore have the same order.
    ordered_by: IpAddr,
}

impl<'s, 'a> Layer2Address<'s, 'a> {
    /// Selects the L2Advertisements that announce an address. `services` are the Services that have
    /// the address, sorted by namespace and name. Returns `None` if there is no such
    /// L2Advertisement: the address has no pool, or no L2Advertisement selects the pool.
    pub fn new(
        view: &ClusterView<'a>,
        address: IpAddr,
        services: impl IntoIterator<Item = &'s ServiceView<'a>>,
    ) -> Option<Self> {
        let mut selected = Vec::new();
        let mut all: Vec<&'a L2Advertisement> = Vec::new();
        for service in services {
            let advertisements = view.advertisements_of(service, address);
            if !advertisements.is_empty() {
                selected.push(service);
            }
            for ad in advertisements {
                if !all.iter().any(|other| std::ptr::eq(*other, ad)) {
                    all.push(ad);
                }
            }
        }
        let ordered_by = *selected.first()?.assigned.first()?;
        Some(Self { address, services: selected, advertisements: all, ordered_by })
    }

    /// Returns the address.
    #[must_use]
    pub const fn address(&self) -> IpAddr {
        self.address
    }

    /// Returns the L2Advertisements that announce the address.
    #[must_use]
    pub fn advertisements(&self) -> &[&'a L2Advertisement] {
        &self.advertisements
    }

    /// Returns whether one of the Services has an eligible endpoint of the address's family on any
    /// node.
    #[must_use]
    pub fn has_endpoint(&self) -> bool {
        let family = Family::of(self.address);
        self.services.iter().any(|service| service.endpoints.exist(family))
    }

    /// Returns how a node can serve the address, whether or not it may announce it.
    ///
    /// # Errors
    /// Returns [`Ineligible::NoLocalEndpoint`] or [`Ineligible::NoEndpoint`].
    pub fn serving(&self, node: &str) -> Result<Serving, Ineligible> {
        serving(self.address, node, self.services.iter().copied())
    }

    /// Returns how a node may announce the address.
    ///
    /// # Errors
    /// Returns the reason why the node may not announce the address.
    pub fn eligibility(&self, view: &ClusterView<'_>, node: &Node) -> Result<Serving, Ineligible> {
        let is_selected =
            self.advertisements.iter().any(|ad| ad.selectors.select_node(&node.labels));
        eligibility(view, node, is_selected, self.address, self.services.iter().copied())
    }

    /// Returns the election unit of the address, as the speaker of `node` sees it. `selected` are
    /// the nodes that [`ClusterView::select_nodes`] returns for [`Self::advertisements`].
    #[must_use]
    pub fn unit(&self, selected: &Arc<[Candidate]>, node: &str) -> Unit {
        let serving = self.serving(node);
        Unit {
            can_serve_here: serving.is_ok(),
            failing: serving.is_ok_and(|serving| serving.failing),
            ..Unit::new(self.address, self.ordered_by, self.candidates(selected))
        }
    }

    /// Returns the nodes that may announce the address, sorted by name.
    ///
    /// The work depends only on the number of nodes with endpoints of the Services that have the
    /// policy `Local`. Without such a Service, every selected node is a candidate.
    fn candidates(&self, selected: &Arc<[Candidate]>) -> Arc<[Candidate]> {
        let family = Family::of(self.address);
        if !self.has_endpoint() {
            return Arc::default();
        }
        let local = self.services.iter().filter_map(|service| service.endpoints.local(family));
        let Some(fewest) = local.min_by_key(|nodes| nodes.len()) else {
            return Arc::clone(selected);
        };
        let candidate = |(name, _): &(Box<str>, bool)| {
            let index = selected.binary_search_by(|candidate| (*candidate.node).cmp(name)).ok()?;
            let Serving { terminating, .. } = self.serving(name).ok()?;
            Some(Candidate { terminating, ..selected[index].clone() })
        };
        fewest.iter().filter_map(candidate).collect()
    }
}

#[cfg(test)]
mod tests;
