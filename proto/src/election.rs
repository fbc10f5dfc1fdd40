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
    /// Cordoned or not Ready (soft 3).
    pub cordoned: bool,
    /// `externalTrafficPolicy: Local` and only serving-while-terminating endpoints here (soft 5).
    pub terminating: bool,
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
    /// Whether this node's own endpoints of one of the Services all fail their health check.
    pub failing: bool,
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

/// The soft rules 1 to 5, worst first in weight.
pub type Soft = (u8, bool, bool, bool, bool);

/// The soft rules 1 to 5 of a candidate whose hello says `flags`; less is better.
#[must_use]
pub const fn soft(candidate: &Candidate, flags: Flags) -> Soft {
    let going = if flags.leaving { 2 } else { flags.draining as u8 };
    (going, flags.unhealthy, candidate.cordoned, flags.unstable, candidate.terminating)
}

/// A candidate's rank; less is better, and no two nodes have the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank(Soft, bool, Reverse<u32>, u128);

/// The rank of a candidate whose hello says `flags`. Freshness counts for an unclaimed unit and between two claims only.
#[must_use]
pub const fn rank(candidate: &Candidate, flags: Flags, count_fresh: bool) -> Rank {
    Rank(soft(candidate, flags), count_fresh && flags.fresh, Reverse(candidate.preference), candidate.order)
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

    #[test]
    fn every_soft_rule_outweighs_all_later_ones() {
        let candidate = |cordoned, terminating, preference, order| Candidate {
            node: "n".into(),
            cordoned,
            terminating,
            preference,
            order,
        };
        let flags = |leaving, draining, unhealthy, unstable, fresh| Flags {
            leaving,
            draining,
            unhealthy,
            unstable,
            fresh,
            deaf: false,
            checked: false,
        };
        let t = true;
        let f = false;
        // Each row is worse than the one before it, although all that comes later in weight is as good as it can be.
        let rows = [
            (candidate(f, f, 9, 1), flags(f, f, f, f, f)),
            (candidate(f, f, 9, 2), flags(f, f, f, f, f)),
            (candidate(f, f, 1, 1), flags(f, f, f, f, f)),
            (candidate(f, f, 9, 1), flags(f, f, f, f, t)),
            (candidate(f, t, 9, 1), flags(f, f, f, f, f)),
            (candidate(f, f, 9, 1), flags(f, f, f, t, f)),
            (candidate(t, f, 9, 1), flags(f, f, f, f, f)),
            (candidate(f, f, 9, 1), flags(f, f, t, f, f)),
            (candidate(f, f, 9, 1), flags(f, t, f, f, f)),
            (candidate(f, f, 9, 1), flags(t, f, f, f, f)),
        ];
        for pair in rows.windows(2) {
            assert!(rank(&pair[0].0, pair[0].1, true) < rank(&pair[1].0, pair[1].1, true), "{pair:?}");
        }
        let (fresh, plain) = (flags(f, f, f, f, t), flags(f, f, f, f, f));
        assert!(rank(&rows[0].0, fresh, false) == rank(&rows[0].0, plain, false), "freshness counts only where asked");
    }
}
