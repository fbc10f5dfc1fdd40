//! State of the API about the units, as each node has received it. Nodes receive changes at
//! different times, so the views of two nodes may differ.

use ferrolb_core::election::{Candidate, Unit};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::rc::Rc;
use std::sync::Arc;

/// Interval of the units with an IPv6 address: every fourth unit. Such a unit and the unit before
/// it are the two addresses of one Service.
const IPV6_EVERY: usize = 4;

/// State of the API: the true state, or the state that one node has received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ApiView {
    /// For each unit and each node, true if the node is a candidate for the unit. Empty for a unit
    /// that does not exist.
    pub(super) candidates: Vec<Rc<[bool]>>,
    pub(super) cordoned: Rc<[bool]>,
}

/// A change in the API; fields that are `None` do not change.
#[derive(Clone, Debug, Default)]
pub(super) struct ApiChange {
    pub(super) candidates: Option<Vec<Rc<[bool]>>>,
    pub(super) cordoned: Option<Rc<[bool]>>,
}

impl ApiView {
    /// Returns a view in which all nodes are candidates of all units.
    pub(super) fn open(nodes: usize, units: usize) -> Self {
        let all: Rc<[bool]> = vec![true; nodes].into();
        Self { candidates: vec![all; units], cordoned: vec![false; nodes].into() }
    }

    pub(super) fn is_candidate(&self, unit: usize, node: usize) -> bool {
        self.candidates[unit].get(node) == Some(&true)
    }

    pub(super) fn apply(&mut self, change: &ApiChange) {
        if let Some(candidates) = &change.candidates {
            self.candidates.clone_from(candidates);
        }
        if let Some(cordoned) = &change.cordoned {
            self.cordoned = Rc::clone(cordoned);
        }
    }
}

/// Returns a flag for each of `nodes` nodes, which is true for the nodes in `some`.
pub(super) fn node_flags(nodes: usize, some: &[usize]) -> Rc<[bool]> {
    (0..nodes).map(|node| some.contains(&node)).collect()
}

/// Properties of the units and the nodes that are constant in a run.
pub(super) struct UnitCatalog {
    names: Vec<Arc<str>>,
    /// Indexes of the nodes, sorted by name.
    by_name: Vec<usize>,
    /// Each unit, with every node as a candidate.
    units: Vec<Unit>,
    /// Indexes of the units, by address.
    by_address: BTreeMap<IpAddr, usize>,
}

impl UnitCatalog {
    /// Creates the catalog for a run. Each `salt` results in other addresses, and thus in another
    /// order of the nodes.
    pub(super) fn new(nodes: usize, units: usize, salt: u32) -> Self {
        let names: Vec<Arc<str>> = (0..nodes).map(|node| format!("n{node}").into()).collect();
        let mut by_name: Vec<usize> = (0..nodes).collect();
        by_name.sort_by_key(|node| &names[*node]);
        let candidate =
            |node: &usize| Candidate { node: Arc::clone(&names[*node]), ..Candidate::default() };
        let all: Arc<[Candidate]> = by_name.iter().map(candidate).collect();
        let unit = |unit| {
            let ordered_by = address(first_of_service(unit), salt);
            Unit::new(address(unit, salt), ordered_by, Arc::clone(&all))
        };
        let units: Vec<_> = (0..units).map(unit).collect();
        let by_address = units.iter().map(|unit| unit.address).zip(0..).collect();
        Self { names, by_name, units, by_address }
    }

    pub(super) fn address(&self, unit: usize) -> IpAddr {
        self.units[unit].address
    }

    /// Returns the index of the unit of an address.
    pub(super) fn unit_of(&self, address: IpAddr) -> Option<usize> {
        self.by_address.get(&address).copied()
    }

    /// Returns the nodes except `without`, in the order of the unit.
    pub(super) fn ranked(&self, unit: usize, without: usize) -> Vec<usize> {
        let mut nodes: Vec<usize> = (0..self.names.len()).filter(|node| *node != without).collect();
        nodes.sort_by_key(|node| self.order_key(unit, *node));
        nodes
    }

    /// Returns whether the node `first` comes before the node `second` in the order of the unit.
    pub(super) fn is_before(&self, unit: usize, first: usize, second: usize) -> bool {
        self.order_key(unit, first) < self.order_key(unit, second)
    }

    fn order_key(&self, unit: usize, node: usize) -> Option<(u32, &str)> {
        let candidate = self.units[unit].candidate(&self.names[node])?;
        Some((self.units[unit].order(&candidate.node), &candidate.node))
    }

    /// Returns the units that exist in a node's view. `serves` is whether a node that is not a
    /// candidate could still forward traffic. `failing` is, for each unit, whether the node's
    /// health checks fail.
    pub(super) fn units(&self, view: &ApiView, serves: bool, failing: &[bool]) -> Vec<Arc<Unit>> {
        let mut candidates: BTreeMap<&[bool], Arc<[Candidate]>> = BTreeMap::new();
        let unit = |(unit, all): (usize, &Unit)| {
            let is_candidate = &*view.candidates[unit];
            let candidates = candidates
                .entry(is_candidate)
                .or_insert_with(|| self.candidates(view, is_candidate));
            Arc::new(Unit {
                can_serve_here: serves,
                failing: failing[unit],
                candidates: Arc::clone(candidates),
                ..all.clone()
            })
        };
        let exists = |(unit, _): &(usize, &Unit)| !view.candidates[*unit].is_empty();
        self.units.iter().enumerate().filter(exists).map(unit).collect()
    }

    fn candidates(&self, view: &ApiView, is_candidate: &[bool]) -> Arc<[Candidate]> {
        let candidate = |node: &usize| Candidate {
            node: Arc::clone(&self.names[*node]),
            cordoned: view.cordoned[*node],
            ..Candidate::default()
        };
        self.by_name.iter().filter(|node| is_candidate[**node]).map(candidate).collect()
    }
}

/// Returns the unit whose address is the first one of the same Service.
const fn first_of_service(unit: usize) -> usize {
    if has_ipv6(unit) { unit - 1 } else { unit }
}

const fn has_ipv6(unit: usize) -> bool {
    unit % IPV6_EVERY == IPV6_EVERY - 1
}

fn address(unit: usize, salt: u32) -> IpAddr {
    let number = u32::try_from(unit).unwrap_or(u32::MAX).wrapping_add(salt) & 0x00ff_ffff;
    if has_ipv6(unit) {
        Ipv6Addr::from(0xfd30_u128 << 112 | u128::from(number)).into()
    } else {
        Ipv4Addr::from(0x0a00_0000 | number).into()
    }
}
