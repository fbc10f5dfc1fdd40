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

/// An election unit: one address, which one node announces.
///
/// A cluster may have thousands of nodes and units. Most units therefore share one list of
/// candidates, and the order of a node is computed when it is needed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unit {
    /// The address.
    pub address: IpAddr,
    /// The address that decides the order of the nodes, as text: the first address of the Service.
    /// Both families of a Service therefore have the same order.
    pub ordered_by: Box<str>,
    /// Nodes that may announce the address, sorted by name.
    pub candidates: Arc<[Candidate]>,
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
    #[must_use]
    pub fn new(address: IpAddr, ordered_by: IpAddr, candidates: Arc<[Candidate]>) -> Self {
        debug_assert!(candidates.is_sorted_by(|one, next| one.node < next.node));
        let ordered_by = ordered_by.to_string().into();
        let (can_serve_here, failing, announced_here) = (true, false, true);
        Self { address, ordered_by, candidates, can_serve_here, failing, announced_here }
    }

    /// Returns the candidate whose Node has this name, if there is one.
    #[must_use]
    pub fn candidate(&self, node: &str) -> Option<&Candidate> {
        let index =
            self.candidates.binary_search_by(|candidate| (*candidate.node).cmp(node)).ok()?;
        Some(&self.candidates[index])
    }

    /// Returns the candidate `node`, which is the node of this speaker; `None` if the node may not
    /// announce the address on the interface of the unit.
    #[must_use]
    pub fn own_candidate(&self, node: &str) -> Option<&Candidate> {
        self.candidate(node).filter(|_| self.announced_here)
    }

    /// Returns the [`order`] of a node for this unit.
    #[must_use]
    pub fn order(&self, node: &str) -> u32 {
        order(node, &self.ordered_by)
    }
}

/// Returns the sort key (ascending) of a node for an address: the leading 32 bits of
/// `sha256(nodeName + "#" + address)`. MetalLB sorts nodes by the same hash, so an in-place
/// migration from MetalLB moves no address. Nodes with equal keys are sorted by name.
#[must_use]
pub fn order(node: &str, address: &str) -> u32 {
    let hash = Sha256::new().chain_update(node).chain_update("#").chain_update(address).finalize();
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

/// Returns the rank of a candidate; `order` is its [`Unit::order`]. See [`soft_rules`] for `flags`
/// and `failing`.
/// `count_preempt_delay` defines whether a running preempt delay lowers the rank: true to compare
/// claims or waiting candidates with each other, false to compare a candidate with a live owner.
#[must_use]
pub fn rank(
    candidate: &Candidate,
    order: u32,
    flags: Flags,
    failing: bool,
    count_preempt_delay: bool,
) -> Rank<'_> {
    Rank(
        soft_rules(candidate, flags, failing),
        count_preempt_delay && flags.in_preempt_delay,
        Reverse(candidate.preference),
        order,
        &candidate.node,
    )
}

#[cfg(test)]
mod tests;
