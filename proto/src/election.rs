//! Who should answer for an address: rank by common knowledge. Pure; the speakers' claim machines, the controller's
//! conditions and the CLI use it.
//!
//! Hard rules make candidates; soft rules only order them, so they can never leave an address unannounced.

use std::cmp::Reverse;
use std::net::IpAddr;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::wire::hello::Flags;

/// A node that passes every hard rule for a unit, with what the API says about it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Candidate {
    /// The Node's name, one text for all units.
    pub node: Arc<str>,
    /// `externalTrafficPolicy: Local` and only serving-while-terminating endpoints here (soft 5).
    pub terminating: bool,
    /// Cordoned or not Ready (soft 6).
    pub cordoned: bool,
    /// Sum of the weights of `preferredNodeSelectors` that match; more is better.
    pub preference: u32,
    /// [`order`] of the node for the unit's first address.
    pub order: u128,
}

/// An election unit: Services joined by shared addresses (usually one Service), all announced from one node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unit {
    /// Its addresses; the first names the unit.
    pub addresses: Box<[IpAddr]>,
    /// The nodes that may announce it.
    pub candidates: Box<[Candidate]>,
    /// Whether this node could forward to an endpoint, were it asked to.
    pub serves_here: bool,
    /// Those of the addresses for which this node's own endpoints all fail their health check. What the others know of it is in its hellos.
    pub failing: Box<[IpAddr]>,
}

impl Unit {
    /// The candidate of this name.
    #[must_use]
    pub fn candidate(&self, node: &str) -> Option<&Candidate> {
        self.candidates.iter().find(|candidate| *candidate.node == *node)
    }
}

/// MetalLB's order of the nodes for an address, so that a take-over moves nothing: ascending
/// `sha256(nodeName + "#" + address)`, here its leading 128 bits.
#[must_use]
pub fn order(node: &str, address: IpAddr) -> u128 {
    let hash = Sha256::new().chain_update(node).chain_update("#").chain_update(address.to_string()).finalize();
    let mut head = [0; 16];
    head.copy_from_slice(&hash[..16]);
    u128::from_be_bytes(head)
}

/// Which of the soft rules 1 to 7 speak against a candidate, worst first: leaving, failing, draining, unhealthy, terminating, cordoned,
/// unstable. Pods that end are gone in seconds, and their addresses are refused until the API says so; those of a cordoned node may stay
/// for days. Less is better. Each is 0 or 1, but that failing is for how many of the unit's addresses: where every node fails
/// for one of them, the other is still better off with one that fails for no more.
pub type Soft = [u8; 7];

/// No soft rule speaks against it.
pub const CLEAN: Soft = [0; 7];

/// The soft rules that speak against a candidate whose hello says `flags`, and whose hellos say for how many of the unit's addresses
/// its checks are `failing`.
#[must_use]
pub const fn soft(candidate: &Candidate, flags: Flags, failing: u8) -> Soft {
    let Candidate { cordoned, terminating, .. } = *candidate;
    let [leaving, draining, unhealthy] = [flags.leaving as u8, flags.draining as u8, flags.unhealthy as u8];
    [leaving, failing, draining, unhealthy, terminating as u8, cordoned as u8, flags.unstable as u8]
}

/// A candidate's rank; less is better, and no two nodes have the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank(Soft, bool, Reverse<u32>, u128);

/// The rank of a candidate, of whom its hello says what [`soft`] takes. Freshness counts for an unclaimed unit and between two
/// claims only.
#[must_use]
pub const fn rank(candidate: &Candidate, flags: Flags, failing: u8, count_fresh: bool) -> Rank {
    let soft = soft(candidate, flags, failing);
    Rank(soft, count_fresh && flags.fresh, Reverse(candidate.preference), candidate.order)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_is_metallbs() {
        // sha256("node1#172.30.0.200"), by coreutils' sha256sum.
        let expected = include_str!("election_order.hex").trim();
        assert_eq!(format!("{:032x}", order("node1", IpAddr::from([172, 30, 0, 200]))), expected[..32]);
    }

    /// What may speak against a node, worst first: the soft rules, then freshness, less preference, a later place in the order.
    const AGAINST: usize = 10;

    fn with(against: [bool; AGAINST], count_fresh: bool) -> Rank {
        let [leaving, failing, draining, unhealthy, terminating, cordoned, unstable, fresh, disliked, later] = against;
        let (preference, order) = (u32::from(!disliked), u128::from(later));
        let candidate = Candidate { node: "n".into(), cordoned, terminating, preference, order };
        let flags = Flags { leaving, draining, unhealthy, unstable, fresh, ..Flags::default() };
        rank(&candidate, flags, u8::from(failing), count_fresh)
    }

    #[test]
    fn each_that_speaks_against_a_node_outweighs_all_that_are_lighter() {
        for rule in 0..AGAINST {
            let (alone, lighter) = (std::array::from_fn(|i| i == rule), std::array::from_fn(|i| i > rule));
            assert!(with(lighter, true) < with(alone, true), "rule {rule}");
        }
        let fresh = std::array::from_fn(|i| i == 7);
        assert!(with(fresh, false) == with([false; AGAINST], false), "freshness counts only where asked");
    }

    #[test]
    fn a_node_is_clean_when_no_soft_rule_speaks_against_it() {
        let unsound = Flags { deaf: true, fresh: true, checked: true, ..Flags::default() };
        assert_eq!(soft(&Candidate { preference: 7, ..Candidate::default() }, unsound, 0), CLEAN);
        let failing = |count| soft(&Candidate::default(), Flags::default(), count);
        assert!(failing(0) == CLEAN && failing(0) < failing(1) && failing(1) < failing(2));
    }
}
