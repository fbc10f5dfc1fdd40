//! Fuzz targets of the parts of the claim machine. Each takes the bytes of the fuzzer as a sequence
//! of steps. Run by `cargo lab fuzz`, and with few inputs by the unit tests.

mod claim_sets;
mod membership;
mod ownership;

pub use claim_sets::fuzz_claim_sets;
pub use membership::fuzz_membership;
pub use ownership::fuzz_ownership;

use std::net::IpAddr;
use std::time::Duration;

use ferrolb_proto::Instant;
use ferrolb_proto::wire::Mac;
use ferrolb_proto::wire::hello::{
    Body, Claim, ClaimRank, ClaimSetSummary, Flags, Frame, NodeWatch, PathReport, Stretch,
};

use super::ClaimConfig;

/// Names of the nodes; the first one is this node.
const NODES: [&str; 4] = ["n1", "n2", "n3", "n4"];
/// Maximum number of steps of a run. A higher limit would only make a run slower.
const STEPS_MAX: usize = 128;
/// Number of different addresses.
const ADDRESSES: u8 = 8;

/// The bytes of the fuzzer that are not used yet.
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    /// Returns the next bytes; `None` at the end of the input.
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*taken)
    }
}

fn config() -> ClaimConfig {
    ClaimConfig {
        node: NODES[0].into(),
        epoch: 1,
        hello_interval: Duration::from_millis(50),
        hello_misses: 3,
        detection_time_max: Duration::from_secs(2),
        failback_delay: Some(Duration::from_secs(2)),
    }
}

fn address(n: u8) -> IpAddr {
    IpAddr::from([10, 0, 0, n % ADDRESSES])
}

/// Returns the addresses of the set bits.
fn addresses(bits: u8) -> Vec<IpAddr> {
    (0..ADDRESSES).filter(|n| bits & (1 << n) != 0).map(address).collect()
}

fn mac(n: u8) -> Mac {
    Mac([2, 0, 0, 0, 0, n])
}

fn rank(n: u8) -> ClaimRank {
    ClaimRank { soft_rules: n & 0x2e, preference: (n >> 6).into(), order: (n & 1).into() }
}

fn flags(n: u8) -> Flags {
    Flags {
        leaving: n & 1 != 0,
        draining: n & 2 != 0,
        unhealthy: n & 4 != 0,
        in_preempt_delay: n & 16 != 0,
        isolated: n & 32 != 0,
        health_checked: n & 64 != 0,
    }
}

/// Returns a time between 0 and 32 s, which is short more often than long.
fn wait(n: u8) -> Duration {
    Duration::from_millis(u64::from(n & 0x1f) << (n >> 5) << (n >> 6))
}

fn claims(bits: u8, ranks: u8) -> Vec<Claim> {
    let preempt_delay = Duration::from_millis(u64::from(ranks) * 10);
    let claim = |address| Claim { address, rank: rank(ranks), preempt_delay };
    addresses(bits).into_iter().map(claim).collect()
}

/// Returns a body of each kind, with these addresses.
fn body(kind: u8, bits: u8, value: u8) -> Body {
    let nonce = value.into();
    match kind % 10 {
        0 => Body::Hello { accepted_keys: vec![u32::from(value % 3)] },
        1 => Body::Claim(claims(bits, value)),
        2 => Body::Release { addresses: addresses(bits), contested: value > 127 },
        3 => Body::ListRequest,
        4 => Body::List(Stretch { after: None, last: None, claims: claims(bits, value) }),
        5 => Body::Doubt(addresses(bits)),
        6 => Body::Challenge { nonce },
        7 => Body::ChallengeReply { nonce },
        8 => Body::NodeWatch(NodeWatch::Challenge(nonce)),
        _ => {
            let report = PathReport {
                receives: bits & 1 != 0,
                has_replied: bits & 2 != 0,
                is_received: bits & 4 != 0,
            };
            Body::PathReport { nonce, report }
        }
    }
}

/// Returns a frame that the node with this number sends at `now`, with an empty claim set.
fn frame(node: u8, body: Body, now: Instant) -> Frame {
    Frame {
        node: NODES[usize::from(node) % NODES.len()].into(),
        epoch: 7,
        clock: now.as_nanos(),
        claim_set: ClaimSetSummary::default(),
        interval: Duration::from_millis(50),
        detection_time: None,
        flags: Flags::default(),
        body,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    fn input() -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(any::<u8>(), 0..600)
    }

    proptest! {
        #[test]
        fn claim_sets_keep_their_rules(bytes in input()) {
            super::fuzz_claim_sets(&bytes);
        }

        #[test]
        fn the_membership_keeps_its_rules(bytes in input()) {
            super::fuzz_membership(&bytes);
        }

        #[test]
        fn the_ownership_keeps_its_rules(bytes in input()) {
            super::fuzz_ownership(&bytes);
        }
    }
}
