//! Claims in frames, and the summary of a claim set that every frame carries. The values only
//! contain data; `claim_sets` of the claim machine keeps the sets.

use std::net::IpAddr;
use std::time::Duration;

/// A claim: the sender owns this address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Address that the sender owns.
    pub address: IpAddr,
    /// Rank of the sender for the address, without the part that its flags contain.
    pub rank: ClaimRank,
    /// Remaining preempt delay of the address, in units of 10 ms up to 655 s. A better candidate
    /// waits for the end of the delay, unless a soft rule makes it better.
    pub preempt_delay: Duration,
}

/// Rank of an owner for an address, as far as it differs between the addresses of the node. The
/// owner computes it from its own view of the Kubernetes API.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClaimRank {
    /// Soft rules, as `SoftRules::bits` of the election gives them.
    pub soft_rules: u8,
    /// Preference; more is better.
    pub preference: u16,
    /// Order of the node for the address; less is better.
    pub order: u32,
}

/// Claims of a stretch of the addresses: the sender owns these addresses of the stretch, and no
/// others of the stretch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stretch {
    /// The stretch begins behind this address; `None` for the first address of all.
    pub after: Option<IpAddr>,
    /// Last address of the stretch; `None` for the last address of all.
    pub last: Option<IpAddr>,
    /// Claims of the stretch, ascending by address, at most
    /// [`ADDRESSES_PER_FRAME_MAX`](super::ADDRESSES_PER_FRAME_MAX).
    pub claims: Vec<Claim>,
}

impl Stretch {
    /// Returns whether the stretch contains an address.
    #[must_use]
    pub fn contains(&self, address: &IpAddr) -> bool {
        self.after.is_none_or(|after| after < *address)
            && self.last.is_none_or(|last| *address <= last)
    }
}

/// Summary of a claim set. A receiver compares the summary with its copy of the set: if number and
/// digest are equal, the copy is complete.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClaimSetSummary {
    /// Number of frames in this epoch that changed the set. A receiver that knows the set before
    /// and after such frames, and misses the frames, learns how many it has missed.
    pub counter: u32,
    /// Number of addresses.
    pub count: u32,
    /// Exclusive or of [`Self::hash`] of all addresses and ranks.
    pub digest: u64,
}

impl ClaimSetSummary {
    /// Returns the summary of a set after this number of changes.
    #[must_use]
    pub fn new(
        epoch: u64,
        counter: u32,
        claims: impl IntoIterator<Item = (IpAddr, ClaimRank)>,
    ) -> Self {
        let mut summary = Self { counter, ..Self::default() };
        claims.into_iter().for_each(|(address, rank)| summary.add(epoch, address, rank));
        summary
    }

    /// Adds an address that is not in the set.
    pub fn add(&mut self, epoch: u64, address: IpAddr, rank: ClaimRank) {
        self.count = self.count.wrapping_add(1);
        self.digest ^= Self::hash(epoch, address, rank);
    }

    /// Removes an address of the set, which has this rank there.
    pub fn remove(&mut self, epoch: u64, address: IpAddr, rank: ClaimRank) {
        self.count = self.count.wrapping_sub(1);
        self.digest ^= Self::hash(epoch, address, rank);
    }

    /// Returns whether both summaries describe the same addresses and ranks.
    #[must_use]
    pub const fn has_same_claims(self, other: Self) -> bool {
        self.count == other.count && self.digest == other.digest
    }

    /// Returns the hash of an address and its rank in a claim set of an epoch of a node. The hash
    /// depends on the epoch, so that two sets whose digests are equal by chance differ after a
    /// restart.
    #[must_use]
    pub fn hash(epoch: u64, address: IpAddr, rank: ClaimRank) -> u64 {
        let (number, family) = match address {
            IpAddr::V4(address) => (u128::from(address.to_bits()), 4),
            IpAddr::V6(address) => (address.to_bits(), 6),
        };
        #[expect(clippy::cast_possible_truncation, reason = "the two halves of the number")]
        let (high, low) = ((number >> 64) as u64, number as u64);
        let ClaimRank { soft_rules, preference, order } = rank;
        let rank = u64::from(order) | u64::from(preference) << 32 | u64::from(soft_rules) << 48;
        mix(mix(mix(mix(epoch ^ family) ^ high) ^ low) ^ rank)
    }
}

/// Returns the finalizer of SplitMix64: each bit of the result depends on each bit of `value`.
const fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    value ^ (value >> 31)
}
