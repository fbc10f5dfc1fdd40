//! Addresses of one pool: which ones can be assigned, which ones are free, and in which order.
//! Owned by the allocator.
//!
//! Free addresses are stored as intervals, so the next free address is found without a scan. The
//! size of the pool does not matter: an IPv4 /8 and an IPv6 /64 cost the same as a /28.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::time::Duration;

use ferrolb_proto::api::IpMode;
use ferrolb_proto::facts::{Pool, ServiceRestriction};
use ferrolb_proto::range::{AddressRange, AddressSet, Family};

/// Addresses of one pool.
#[derive(Debug, Default)]
pub(super) struct PoolAddresses {
    /// True if the pool is valid. An invalid pool assigns nothing and releases nothing.
    pub(super) valid: bool,
    pub(super) auto_assign: bool,
    pub(super) mode: IpMode,
    /// Services that may use the addresses; `None` for all.
    pub(super) allocation: Option<ServiceRestriction>,
    avoid_buggy: bool,
    sticky_for: Duration,
    /// Ranges in the order of the pool's spec.
    ranges: Vec<AddressRange>,
    /// Addresses of the pool without the excluded ones. The set still contains the addresses that
    /// `avoidBuggyIPs` skips.
    assignable: AddressSet,
    /// Addresses that automatic assignment can use, without those that the allocator remembers. The
    /// set may contain addresses to skip: a search removes each of them when it finds it.
    free: AddressSet,
    total: [u128; 2],
    /// Number of assigned addresses per family. An address that several Services share counts once.
    pub(super) used: [u64; 2],
    /// Number of unassigned addresses per family that automatic assignment skips: Nodes or Services
    /// use them without an assignment by FerroLB, or they are Subnet-Router anycast addresses.
    pub(super) skipped: [u64; 2],
}

/// Address counts of one family in a pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct AddressCounts {
    /// Addresses that the pool can assign, whether or not they are free.
    pub(super) total: u128,
    /// Addresses that are assigned to Services.
    pub(super) used: u64,
    /// Addresses that automatic assignment can still use.
    pub(super) available: u128,
}

/// Returns the index of a family in arrays with one element per family: IPv4 first, as in the
/// status of a pool.
pub(super) const fn family_index(family: Family) -> usize {
    match family {
        Family::V4 => 0,
        Family::V6 => 1,
    }
}

/// Returns true if `avoidBuggyIPs` skips the address: an IPv4 address that ends in .0 or .255,
/// which some old devices reject.
fn is_buggy(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => matches!(address.octets()[3], 0 | 255),
        IpAddr::V6(_) => false,
    }
}

/// Returns true if the routers of a network own the address: IPv6 with an interface identifier of
/// zero, the Subnet-Router anycast address (RFC 4291, 2.6.1). The kernels of routers reply for this
/// address, and so do the kernels of nodes that forward packets.
pub(super) fn is_router_anycast(address: IpAddr) -> bool {
    router_prefixes(&AddressRange::single(address)).next().is_some()
}

/// Returns the upper 64 bits of the addresses of a range for which [`is_router_anycast`] is true.
fn router_prefixes(range: &AddressRange) -> RangeInclusive<u128> {
    #[expect(
        clippy::reversed_empty_ranges,
        reason = "an empty range: no IPv4 address is a router anycast address"
    )]
    let (IpAddr::V6(first), IpAddr::V6(last)) = (range.first(), range.last()) else { return 1..=0 };
    let includes_first = first.to_bits().trailing_zeros() >= 64;
    (first.to_bits() >> 64) + u128::from(!includes_first)..=last.to_bits() >> 64
}

/// Returns the number of addresses of a range for which [`is_router_anycast`] is true.
pub(super) fn count_router_anycast(range: &AddressRange) -> u128 {
    let prefixes = router_prefixes(range);
    (prefixes.end() + 1).saturating_sub(*prefixes.start())
}

/// Returns the number of addresses of a range for which [`is_buggy`] is true.
pub(super) fn count_buggy(range: &AddressRange) -> u128 {
    let (IpAddr::V4(first), IpAddr::V4(last)) = (range.first(), range.last()) else { return 0 };
    // Below `n`, each complete block of 256 addresses has two such addresses, and an incomplete
    // block has one: its first address.
    let below = |n: u64| 2 * (n / 256) + u64::from(!n.is_multiple_of(256));
    u128::from(below(u64::from(last.to_bits()) + 1) - below(u64::from(first.to_bits())))
}

impl PoolAddresses {
    /// Returns the addresses of a pool before any of them is assigned.
    pub(super) fn new(pool: &Pool, usable: bool) -> Self {
        let mut all = AddressSet::default();
        if usable {
            pool.ranges.iter().for_each(|range| all.insert(*range));
            pool.excluded.iter().for_each(|range| all.remove(*range));
        }
        let buggy_count =
            if pool.avoid_buggy { all.ranges().map(|range| count_buggy(&range)).sum() } else { 0 };
        let routers: u128 = all.ranges().map(|range| count_router_anycast(&range)).sum();
        Self {
            valid: usable,
            auto_assign: pool.auto_assign,
            mode: pool.ip_mode,
            allocation: pool.allocation.clone(),
            avoid_buggy: pool.avoid_buggy,
            sticky_for: pool.sticky_for,
            ranges: if usable { pool.ranges.clone() } else { Vec::new() },
            free: all.clone(),
            total: [all.count(Family::V4).saturating_sub(buggy_count), all.count(Family::V6)],
            assignable: all,
            used: [0; 2],
            skipped: [0, u64::try_from(routers).unwrap_or(u64::MAX)],
        }
    }

    /// Returns true if the pool can assign this address, whether or not the address is free.
    pub(super) fn can_assign(&self, address: IpAddr) -> bool {
        self.assignable.contains(address) && !(self.avoid_buggy && is_buggy(address))
    }

    /// Returns true if the pool has any address of a family.
    pub(super) const fn has_family(&self, family: Family) -> bool {
        self.total[family_index(family)] > 0
    }

    /// Returns the time for which the allocator remembers addresses of the pool.
    pub(super) const fn sticky_for(&self) -> Duration {
        self.sticky_for
    }

    /// Returns the ranges in the order of the pool's spec.
    pub(super) fn ranges(&self) -> &[AddressRange] {
        &self.ranges
    }

    /// Returns the Subnet-Router anycast addresses of the pool, ascending.
    pub(super) fn router_addresses(&self) -> impl Iterator<Item = IpAddr> {
        let prefixes = self.assignable.ranges().flat_map(|range| router_prefixes(&range));
        prefixes.map(|prefix| IpAddr::V6(Ipv6Addr::from_bits(prefix << 64)))
    }

    pub(super) fn occupy(&mut self, address: IpAddr) {
        self.free.remove(AddressRange::single(address));
    }

    pub(super) fn vacate(&mut self, address: IpAddr) {
        if self.can_assign(address) {
            self.free.insert(AddressRange::single(address));
        }
    }

    pub(super) fn count(&self, family: Family) -> AddressCounts {
        let family = family_index(family);
        let (total, used, skipped) = (self.total[family], self.used[family], self.skipped[family]);
        AddressCounts {
            total,
            used,
            available: total.saturating_sub(u128::from(used) + u128::from(skipped)),
        }
    }

    /// Returns the first address of a family that is free, or that the Service can share according
    /// to `can_share`.
    ///
    /// The order is that of the ranges in the spec, ascending within each range. `shared` has the
    /// assigned addresses with the Service's sharing key; only these are passed to `can_share`.
    pub(super) fn first(
        &mut self,
        family: Family,
        shared: Option<&BTreeSet<IpAddr>>,
        can_share: impl Fn(IpAddr) -> bool,
    ) -> Option<IpAddr> {
        for i in 0..self.ranges.len() {
            let range = self.ranges[i];
            if range.family() != family {
                continue;
            }
            let free = self.lowest_free(&range);
            let up_to = free.unwrap_or(range.last());
            let mut candidates =
                shared.into_iter().flat_map(|shared| shared.range(range.first()..=up_to));
            let shared_address =
                candidates.find(|address| self.can_assign(**address) && can_share(**address));
            if let Some(address) = shared_address.copied().or(free) {
                return Some(address);
            }
        }
        None
    }

    fn lowest_free(&mut self, range: &AddressRange) -> Option<IpAddr> {
        loop {
            let address = self.free.lowest_in(range)?;
            if !(is_router_anycast(address) || self.avoid_buggy && is_buggy(address)) {
                return Some(address);
            }
            self.occupy(address);
        }
    }

    /// Returns the number of intervals of free addresses; memory use grows with this number.
    #[cfg(test)]
    pub(super) fn fragments(&self) -> usize {
        self.free.ranges().count()
    }
}
