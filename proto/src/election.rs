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
    /// [`order`] of the node for [`Unit::ordered_by`].
    pub order: u128,
}

/// An election unit: one address, which one node announces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unit {
    /// The address.
    pub address: IpAddr,
    /// The address that decides the order of the nodes: the first address of the Service. Both
    /// families of a Service therefore have the same order.
    pub ordered_by: IpAddr,
    /// Nodes that may announce the address.
    pub candidates: Box<[Candidate]>,
    /// True if the node of this speaker can forward traffic to an eligible endpoint.
    pub can_serve_here: bool,
    /// True if all endpoints on this node fail their health check. The other nodes get this
    /// information from this node's hellos.
    pub failing: bool,
}

impl Unit {
    /// Returns the candidate whose Node has this name, if there is one.
    #[must_use]
    pub fn candidate(&self, node: &str) -> Option<&Candidate> {
        self.candidates.iter().find(|candidate| *candidate.node == *node)
    }
}

/// Returns the sort key (ascending) of a node for an address: the leading 128 bits of
/// `sha256(nodeName + "#" + address)`. MetalLB sorts nodes by the same hash, so an in-place
/// migration from MetalLB moves no address.
#[must_use]
pub fn order(node: &str, address: IpAddr) -> u128 {
    let hash = Sha256::new()
        .chain_update(node)
        .chain_update("#")
        .chain_update(address.to_string())
        .finalize();
    let mut head = [0; 16];
    head.copy_from_slice(&hash[..16]);
    u128::from_be_bytes(head)
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

/// Rank of a candidate: soft rules, preempt delay, preference and order, compared in this sequence.
/// Less is better, and no two nodes have the same rank.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank(SoftRules, bool, Reverse<u32>, u128);

/// Returns the rank of a candidate; see [`soft_rules`] for `flags` and `failing`.
/// `count_preempt_delay` defines whether a running preempt delay lowers the rank: true to compare
/// claims or waiting candidates with each other, false to compare a candidate with a live owner.
#[must_use]
pub const fn rank(
    candidate: &Candidate,
    flags: Flags,
    failing: bool,
    count_preempt_delay: bool,
) -> Rank {
    let soft = soft_rules(candidate, flags, failing);
    Rank(
        soft,
        count_preempt_delay && flags.in_preempt_delay,
        Reverse(candidate.preference),
        candidate.order,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_is_that_of_metallb() {
        // sha256("node1#172.30.0.200"), computed with sha256sum of coreutils.
        let expected = include_str!("election_order.hex").trim();
        assert_eq!(
            format!("{:032x}", order("node1", IpAddr::from([172, 30, 0, 200]))),
            expected[..32]
        );
    }

    /// Number of criteria that worsen the rank of a node, worst first: the soft rules, a running
    /// preempt delay, less preference, a later position in the order.
    const CRITERIA: usize = 10;

    /// Returns the rank of a node to which these criteria apply.
    fn rank_with(criteria: [bool; CRITERIA], count_preempt_delay: bool) -> Rank {
        let [
            leaving,
            failing,
            draining,
            unhealthy,
            terminating,
            cordoned,
            flapping,
            in_preempt_delay,
            less_preferred,
            later,
        ] = criteria;
        let (preference, order) = (u32::from(!less_preferred), u128::from(later));
        let candidate = Candidate { node: "n".into(), cordoned, terminating, preference, order };
        let flags =
            Flags { leaving, draining, unhealthy, flapping, in_preempt_delay, ..Flags::default() };
        rank(&candidate, flags, failing, count_preempt_delay)
    }

    #[test]
    fn each_rank_criterion_outweighs_all_later_ones() {
        for criterion in 0..CRITERIA {
            let (alone, all_later) =
                (std::array::from_fn(|i| i == criterion), std::array::from_fn(|i| i > criterion));
            assert!(
                rank_with(all_later, true) < rank_with(alone, true),
                "criterion {criterion} outweighs all later ones"
            );
        }
        let delay_only = std::array::from_fn(|i| i == 7);
        assert!(
            rank_with(delay_only, false) == rank_with([false; CRITERIA], false),
            "the preempt delay counts only if `count_preempt_delay` is true"
        );
    }

    #[test]
    fn flags_other_than_soft_rules_do_not_count() {
        let other_flags = Flags {
            isolated: true,
            in_preempt_delay: true,
            health_checked: true,
            ..Flags::default()
        };
        assert_eq!(
            soft_rules(&Candidate { preference: 7, ..Candidate::default() }, other_flags, false),
            NO_SOFT_RULES
        );
    }
}
