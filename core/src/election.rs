//! Ranking of the nodes that may announce an address, from the facts of a node about itself, or
//! from the rank that an owner states. Pure functions; used by the speakers' claim machines and the
//! controller's conditions.
//!
//! Hard rules select the candidates. Soft rules only order them, so they can never leave an address
//! unannounced.

use std::cmp::Reverse;
use std::net::IpAddr;
use std::sync::Arc;

use ferrolb_proto::wire::hello::{ClaimRank, Flags};
use sha2::{Digest, Sha256};

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
    /// Sum of the weights of the matching `preferredNodeSelectors`, at most 65,535; more is better.
    pub preference: u16,
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
    /// True if all endpoints on this node fail their health check. If this node owns the address,
    /// it states this with its claim.
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

    /// Returns the rank of a candidate that owns nothing, from the facts of the Kubernetes API and
    /// the flags of its frames.
    #[must_use]
    pub fn rank<'a>(&self, candidate: &'a Candidate, flags: Flags) -> Rank<'a> {
        Rank::of_candidate(candidate, self.order(&candidate.node), flags)
    }

    /// Returns the rank of `node`, which is the node of this speaker, as its claim states it.
    #[must_use]
    pub fn claim_rank(&self, node: &str) -> ClaimRank {
        let candidate = self.own_candidate(node);
        let soft_rules = candidate
            .map_or(SoftRules::INELIGIBLE, SoftRules::of_candidate)
            .and(SoftRules::FAILING.when(self.failing));
        let preference = candidate.map_or(0, |Candidate { preference, .. }| *preference);
        ClaimRank { soft_rules: soft_rules.bits(), preference, order: self.order(node) }
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

/// Soft rules that apply to a node for an address, one bit for each rule. A worse rule has a higher
/// bit, so less is better.
///
/// Terminating is worse than cordoned: terminating Pods end within seconds, and connections to them
/// fail until the API reports that they ended. Pods of a cordoned node may run for days.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct SoftRules(u16);

impl SoftRules {
    /// No soft rule applies.
    pub const NONE: Self = Self(0);
    /// The Node is cordoned or not Ready (soft rule 6).
    pub const CORDONED: Self = Self(1 << 1);
    /// All local endpoints are terminating (soft rule 5).
    pub const TERMINATING: Self = Self(1 << 2);
    /// kube-proxy of the node is unhealthy (soft rule 4).
    pub const UNHEALTHY: Self = Self(1 << 3);
    /// The node has an announcement drain (soft rule 3).
    pub const DRAINING: Self = Self(1 << 4);
    /// All local endpoints fail their health check (soft rule 2).
    pub const FAILING: Self = Self(1 << 5);
    /// The speaker is about to stop (soft rule 1).
    pub const LEAVING: Self = Self(1 << 6);
    /// The node may not announce the address any more, or another node doubts that it may. An owner
    /// keeps the address until another node takes it.
    pub const INELIGIBLE: Self = Self(1 << 7);
    /// The node receives no frames.
    pub const ISOLATED: Self = Self(1 << 8);

    /// Returns this rule if `applies` is true, and [`Self::NONE`] otherwise.
    #[must_use]
    pub const fn when(self, applies: bool) -> Self {
        if applies { self } else { Self::NONE }
    }

    /// Returns the rules of both.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Returns whether any of these rules applies.
    #[must_use]
    pub const fn has(self, rules: Self) -> bool {
        self.0 & rules.0 != 0
    }

    /// Returns the rules in the flags of a node's frames, which apply to all its addresses.
    #[must_use]
    pub const fn of_node(flags: Flags) -> Self {
        let Flags { leaving, draining, unhealthy, isolated, .. } = flags;
        Self::ISOLATED
            .when(isolated)
            .and(Self::LEAVING.when(leaving))
            .and(Self::DRAINING.when(draining))
            .and(Self::UNHEALTHY.when(unhealthy))
    }

    /// Returns the rules that a claim states for its address alone.
    #[must_use]
    pub fn of_claim(rank: ClaimRank) -> Self {
        Self(u16::from(rank.soft_rules))
    }

    /// Returns the rules that follow from the facts of the Kubernetes API about a candidate.
    const fn of_candidate(candidate: &Candidate) -> Self {
        let Candidate { cordoned, terminating, .. } = *candidate;
        Self::TERMINATING.when(terminating).and(Self::CORDONED.when(cordoned))
    }

    /// Returns the bits for [`ClaimRank::soft_rules`]. The rules of the whole node have no bit
    /// there, because each frame carries them as flags.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "the highest bit is a rule of the node")]
    pub const fn bits(self) -> u8 {
        self.0 as u8
    }
}

/// Rank of a node for an address: soft rules, preempt delay, preference, order and name, compared
/// in this sequence. Less is better, and no two nodes have the same rank.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank<'a> {
    /// Soft rules that apply to the node.
    pub soft_rules: SoftRules,
    /// True if the node is in preempt delay.
    pub in_preempt_delay: bool,
    preference: Reverse<u16>,
    order: u32,
    /// Name of the node.
    pub node: &'a str,
}

impl<'a> Rank<'a> {
    /// Returns the rank that an owner states, in the flags of its frames and in its claim.
    #[must_use]
    pub fn stated(node: &'a str, flags: Flags, rank: ClaimRank) -> Self {
        Self {
            soft_rules: SoftRules::of_node(flags).and(SoftRules::of_claim(rank)),
            in_preempt_delay: flags.in_preempt_delay,
            preference: Reverse(rank.preference),
            order: rank.order,
            node,
        }
    }

    fn of_candidate(candidate: &'a Candidate, order: u32, flags: Flags) -> Self {
        Self {
            soft_rules: SoftRules::of_node(flags).and(SoftRules::of_candidate(candidate)),
            in_preempt_delay: flags.in_preempt_delay,
            preference: Reverse(candidate.preference),
            order,
            node: &candidate.node,
        }
    }

    /// Returns whether a node with this rank may take an address from its owner. Less severe soft
    /// rules suffice. The preference and the order suffice if no soft rule applies to the two, no
    /// preempt delay runs at this node, and none for the address (`delay_runs`).
    ///
    /// A returning node must not move an address that works. The order must not move an address
    /// where no node is healthy.
    #[must_use]
    pub fn may_take_from(&self, owner: &Rank<'_>, delay_runs: bool) -> bool {
        let by_order = || {
            self.soft_rules == SoftRules::NONE
                && !(self.in_preempt_delay || delay_runs)
                && (self.preference, self.order, self.node)
                    < (owner.preference, owner.order, owner.node)
        };
        self.soft_rules < owner.soft_rules || (self.soft_rules == owner.soft_rules && by_order())
    }
}

#[cfg(test)]
mod tests;
