//! Ranking of the nodes that may announce an address, from facts that all nodes share. Pure
//! functions; used by the speakers' claim machines and the controller's conditions.
//!
//! Hard rules select the candidates. Soft rules only order them, so they can never leave an address
//! unannounced.

use std::cmp::Reverse;
use std::net::IpAddr;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::wire::hello::Flags;

/// A node that passes every hard rule for an election unit, with the facts about the node from the
/// Kubernetes API.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Candidate {
    /// Name of the Node. All units share one allocation of the name.
    pub node: Arc<str>,
    /// True if a Service of the unit has `externalTrafficPolicy: Local`, and all its eligible
    /// endpoints on this node are terminating (soft rule 5).
    pub terminating: bool,
    /// True if the Node is cordoned or not Ready (soft rule 6).
    pub cordoned: bool,
    /// Sum of the weights of the matching `preferredNodeSelectors`; more is better.
    pub preference: u32,
}

/// A candidate of one unit, with its order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OrderedCandidate<'a> {
    /// The facts about the node.
    pub facts: &'a Candidate,
    /// [`order`] of the node for [`Unit::ordered_by`].
    pub order: u32,
}

/// An election unit: one address, which one node announces.
///
/// A unit takes four bytes for each candidate, because a cluster may have thousands of nodes and
/// units: most units share one list of candidates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unit {
    /// The address.
    pub address: IpAddr,
    /// The address that decides the order of the nodes: the first address of the Service. Both
    /// families of a Service therefore have the same order.
    pub ordered_by: IpAddr,
    /// Nodes that may announce the address, sorted by name.
    pub candidates: Arc<[Candidate]>,
    /// [`order`] of each candidate for `ordered_by`, at the position of the candidate.
    pub orders: Arc<[u32]>,
    /// True if the node of this speaker can forward traffic to an eligible endpoint.
    pub can_serve_here: bool,
    /// True if all endpoints on this node fail their health check. The other nodes get this
    /// information from this node's hellos.
    pub failing: bool,
    /// True if an advertisement selects the interface. If false, the node of this speaker is no
    /// candidate, although `candidates` may contain it. A node evaluates interface selectors only
    /// for itself.
    pub announced_here: bool,
}

impl Unit {
    /// Returns the unit of an address that the node of this speaker can serve and may announce.
    /// `candidates` are sorted by name.
    ///
    /// The orders of the nodes that are also in the unit `before` are copied from it, because a
    /// hash for each node and each address takes long.
    #[must_use]
    pub fn new(
        address: IpAddr,
        ordered_by: IpAddr,
        candidates: Arc<[Candidate]>,
        before: Option<&Self>,
    ) -> Self {
        debug_assert!(candidates.is_sorted_by(|one, next| one.node < next.node));
        let orders = orders(&candidates, ordered_by, before);
        let (can_serve_here, failing, announced_here) = (true, false, true);
        Self { address, ordered_by, candidates, orders, can_serve_here, failing, announced_here }
    }

    /// Returns the candidates with their orders, sorted by name.
    pub fn ordered_candidates(&self) -> impl Iterator<Item = OrderedCandidate<'_>> + Clone {
        let both = self.candidates.iter().zip(&*self.orders);
        both.map(|(facts, order)| OrderedCandidate { facts, order: *order })
    }

    /// Returns the candidate whose Node has this name, if there is one.
    #[must_use]
    pub fn candidate(&self, node: &str) -> Option<OrderedCandidate<'_>> {
        let index =
            self.candidates.binary_search_by(|candidate| (*candidate.node).cmp(node)).ok()?;
        Some(OrderedCandidate { facts: &self.candidates[index], order: self.orders[index] })
    }

    /// Returns the candidate `node`, which is the node of this speaker; `None` if the node may not
    /// announce the address on the interface of the unit.
    #[must_use]
    pub fn own_candidate(&self, node: &str) -> Option<OrderedCandidate<'_>> {
        self.candidate(node).filter(|_| self.announced_here)
    }
}

/// Returns the order of each candidate for `ordered_by`, without a new hash for the nodes of the
/// unit `before`.
fn orders(candidates: &Arc<[Candidate]>, ordered_by: IpAddr, before: Option<&Unit>) -> Arc<[u32]> {
    let before = before.filter(|before| before.ordered_by == ordered_by);
    let has_same_nodes = |before: &&Unit| {
        let mut both = before.candidates.iter().zip(&**candidates);
        before.candidates.len() == candidates.len() && both.all(|(old, new)| old.node == new.node)
    };
    if let Some(same) = before.filter(has_same_nodes) {
        return Arc::clone(&same.orders);
    }
    let mut before = before.into_iter().flat_map(Unit::ordered_candidates).peekable();
    let order_of = |candidate: &Candidate| {
        while before.next_if(|before| before.facts.node < candidate.node).is_some() {}
        let known = before.next_if(|before| before.facts.node == candidate.node);
        known.map_or_else(|| order(&candidate.node, ordered_by), |known| known.order)
    };
    candidates.iter().map(order_of).collect()
}

/// Returns the sort key (ascending) of a node for an address: the leading 32 bits of
/// `sha256(nodeName + "#" + address)`. MetalLB sorts nodes by the same hash, so an in-place
/// migration from MetalLB moves no address. Nodes with equal keys are sorted by name.
#[must_use]
pub fn order(node: &str, address: IpAddr) -> u32 {
    let hash = Sha256::new()
        .chain_update(node)
        .chain_update("#")
        .chain_update(address.to_string())
        .finalize();
    let mut head = [0; 4];
    head.copy_from_slice(&hash[..4]);
    u32::from_be_bytes(head)
}

/// Soft rules 1 to 7 that apply to a candidate, worst first: leaving, failing, draining, unhealthy,
/// terminating, cordoned, flapping. Less is better.
///
/// Terminating is worse than cordoned: terminating Pods end within seconds, and connections to them
/// fail until the API reports that they ended. Pods of a cordoned node may run for days.
pub type SoftRules = [bool; 7];

/// Value of a candidate to which no soft rule applies.
pub const NO_SOFT_RULES: SoftRules = [false; 7];

/// Returns the soft rules that apply to a candidate. The candidate's hellos carry its `flags`, and
/// whether the health checks of the address fail on it.
#[must_use]
pub const fn soft_rules(candidate: &Candidate, flags: Flags, failing: bool) -> SoftRules {
    let Candidate { cordoned, terminating, .. } = *candidate;
    let Flags { leaving, draining, unhealthy, flapping, .. } = flags;
    [leaving, failing, draining, unhealthy, terminating, cordoned, flapping]
}

/// Rank of a candidate: soft rules, preempt delay, preference, order and name, compared in this
/// sequence. Less is better, and no two nodes have the same rank.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank<'a>(SoftRules, bool, Reverse<u32>, u32, &'a str);

impl Rank<'_> {
    /// Returns the rank as it is without the facts of the Kubernetes API. It depends only on the
    /// state that the node itself reports, and on the order.
    #[must_use]
    pub const fn without_api_facts(self) -> Self {
        let Self([leaving, failing, draining, unhealthy, _, _, flapping], delay, _, order, node) =
            self;
        let soft = [leaving, failing, draining, unhealthy, false, false, flapping];
        Self(soft, delay, Reverse(0), order, node)
    }
}

/// Returns the rank of a candidate; see [`soft_rules`] for `flags` and `failing`.
/// `count_preempt_delay` defines whether a running preempt delay lowers the rank: true to compare
/// claims or waiting candidates with each other, false to compare a candidate with a live owner.
#[must_use]
pub fn rank(
    candidate: OrderedCandidate<'_>,
    flags: Flags,
    failing: bool,
    count_preempt_delay: bool,
) -> Rank<'_> {
    let OrderedCandidate { facts, order } = candidate;
    Rank(
        soft_rules(facts, flags, failing),
        count_preempt_delay && flags.in_preempt_delay,
        Reverse(facts.preference),
        order,
        &facts.node,
    )
}

#[cfg(test)]
mod tests;
