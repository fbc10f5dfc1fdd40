//! The addresses of one pool: which may be given, which are free, in which order. Owned by the allocator.
//!
//! Free addresses are intervals, so the next one is found without scanning, whatever the size of the pool: a /8 and a v6 /64
//! cost the same as a /28.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr};
use std::ops::RangeInclusive;

use ferrolb_proto::api::IpMode;
use ferrolb_proto::facts::{Pool, ServiceAllocation};
use ferrolb_proto::range::{AddressRange, AddressSet, Family};

/// The addresses of one pool.
#[derive(Debug, Default)]
pub(super) struct Space {
    /// Whether it is valid: one that is not gives nothing, and takes nothing away.
    pub(super) usable: bool,
    pub(super) auto_assign: bool,
    pub(super) mode: IpMode,
    /// Who may have its addresses; none: everyone.
    pub(super) allocation: Option<ServiceAllocation>,
    avoid_buggy: bool,
    /// Addresses of the pool that Nodes have: never given.
    of_nodes: Vec<IpAddr>,
    /// In the order written.
    ranges: Vec<AddressRange>,
    /// What may be given at all, but for the addresses that `avoidBuggyIPs` skips.
    all: AddressSet,
    /// Those that nobody has. Skipped ones are taken out when they are met.
    free: AddressSet,
    total: [u128; 2],
    /// How many Services have, counted once however many share it.
    pub(super) used: [u64; 2],
    /// How many are not given by themselves and no Service was given: somebody has them from
    /// elsewhere, or routers do.
    pub(super) skipped: [u64; 2],
}

/// How many addresses of a family a pool has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Count {
    /// In all.
    pub(super) total: u128,
    /// In use.
    pub(super) used: u64,
    /// Still to be had.
    pub(super) available: u128,
}

/// Where a family's numbers are: in the order of pool statuses.
pub(super) const fn index(family: Family) -> usize {
    match family {
        Family::V4 => 0,
        Family::V6 => 1,
    }
}

/// Whether some old devices refuse the address: IPv4, ending in .0 or .255.
fn is_buggy(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => matches!(address.octets()[3], 0 | 255),
        IpAddr::V6(_) => false,
    }
}

/// True if the routers of a network own the address: IPv6 with an interface identifier of zero, the
/// Subnet-Router anycast address (RFC 4291, 2.6.1). The kernels of routers reply for it, and so do
/// those of nodes that forward.
pub(super) fn is_router_anycast(address: IpAddr) -> bool {
    router_prefixes(&AddressRange::single(address)).next().is_some()
}

/// The upper halves of the addresses of a range that [`is_router_anycast`] names.
fn router_prefixes(range: &AddressRange) -> RangeInclusive<u128> {
    #[expect(clippy::reversed_empty_ranges, reason = "there are none")]
    let (IpAddr::V6(first), IpAddr::V6(last)) = (range.first(), range.last()) else { return 1..=0 };
    let begins = first.to_bits().trailing_zeros() >= 64;
    (first.to_bits() >> 64) + u128::from(!begins)..=last.to_bits() >> 64
}

/// How many addresses of a range [`is_router_anycast`] names.
pub(super) fn routers(range: &AddressRange) -> u128 {
    let prefixes = router_prefixes(range);
    (prefixes.end() + 1).saturating_sub(*prefixes.start())
}

/// How many addresses of a range [`is_buggy`] names.
pub(super) fn buggy(range: &AddressRange) -> u128 {
    let (IpAddr::V4(first), IpAddr::V4(last)) = (range.first(), range.last()) else { return 0 };
    // Below n there are two for each full 256, and one more once the next block has begun.
    let below = |n: u64| 2 * (n / 256) + u64::from(!n.is_multiple_of(256));
    u128::from(below(u64::from(last.to_bits()) + 1) - below(u64::from(first.to_bits())))
}

impl Space {
    /// The addresses of a pool, none of them in use.
    pub(super) fn new(pool: &Pool, usable: bool, nodes: &BTreeSet<IpAddr>) -> Self {
        let (mut all, mut of_nodes) = (AddressSet::default(), Vec::new());
        if usable {
            pool.ranges.iter().for_each(|range| all.insert(*range));
            pool.excluded.iter().for_each(|range| all.remove(*range));
            let inside = pool.ranges.iter().flat_map(|range| nodes.range(range.first()..=range.last()));
            of_nodes.extend(inside.copied().filter(|address| all.contains(*address)));
            of_nodes.iter().for_each(|node| all.remove(AddressRange::single(*node)));
        }
        let left_out = if pool.avoid_buggy { all.ranges().map(|range| buggy(&range)).sum() } else { 0 };
        let routers: u128 = all.ranges().map(|range| routers(&range)).sum();
        Self {
            usable,
            auto_assign: pool.auto_assign,
            mode: pool.mode,
            allocation: pool.allocation.clone(),
            avoid_buggy: pool.avoid_buggy,
            of_nodes,
            ranges: if usable { pool.ranges.clone() } else { Vec::new() },
            free: all.clone(),
            total: [all.count(Family::V4).saturating_sub(left_out), all.count(Family::V6)],
            all,
            used: [0; 2],
            skipped: [0, u64::try_from(routers).unwrap_or(u64::MAX)],
        }
    }

    /// Whether the pool may give this address, be it free or not.
    pub(super) fn has(&self, address: IpAddr) -> bool {
        self.all.contains(address) && !(self.avoid_buggy && is_buggy(address))
    }

    /// Whether the pool has any address of a family.
    pub(super) const fn has_family(&self, family: Family) -> bool {
        self.total[index(family)] > 0
    }

    /// The ranges as written, for whoever looks for addresses in them.
    pub(super) fn ranges(&self) -> &[AddressRange] {
        &self.ranges
    }

    /// Addresses of the pool that Nodes have.
    pub(super) fn of_nodes(&self) -> &[IpAddr] {
        &self.of_nodes
    }

    /// The addresses of the pool that routers own, ascending.
    pub(super) fn of_routers(&self) -> impl Iterator<Item = IpAddr> {
        let prefixes = self.all.ranges().flat_map(|range| router_prefixes(&range));
        prefixes.map(|prefix| IpAddr::V6(Ipv6Addr::from_bits(prefix << 64)))
    }

    pub(super) fn occupy(&mut self, address: IpAddr) {
        self.free.remove(AddressRange::single(address));
    }

    pub(super) fn vacate(&mut self, address: IpAddr) {
        if self.has(address) {
            self.free.insert(AddressRange::single(address));
        }
    }

    pub(super) fn count(&self, family: Family) -> Count {
        let family = index(family);
        let (total, used, skipped) = (self.total[family], self.used[family], self.skipped[family]);
        Count { total, used, available: total.saturating_sub(u128::from(used) + u128::from(skipped)) }
    }

    /// The first address of a family, in the order in which ranges are written and ascending within each, that is free or
    /// that `joins` says is as good as free; `shared` are those worth asking about.
    pub(super) fn first(
        &mut self,
        family: Family,
        shared: Option<&BTreeSet<IpAddr>>,
        joins: impl Fn(IpAddr) -> bool,
    ) -> Option<IpAddr> {
        for i in 0..self.ranges.len() {
            let range = self.ranges[i];
            if range.family() != family {
                continue;
            }
            let free = self.lowest(&range);
            let up_to = free.unwrap_or(range.last());
            let mut candidates = shared.into_iter().flat_map(|shared| shared.range(range.first()..=up_to));
            let joined = candidates.find(|address| self.has(**address) && joins(**address));
            if let Some(address) = joined.copied().or(free) {
                return Some(address);
            }
        }
        None
    }

    fn lowest(&mut self, range: &AddressRange) -> Option<IpAddr> {
        loop {
            let address = self.free.lowest_in(range)?;
            if !(is_router_anycast(address) || self.avoid_buggy && is_buggy(address)) {
                return Some(address);
            }
            self.occupy(address);
        }
    }

    /// Intervals of free addresses: what the pool's memory grows with.
    #[cfg(test)]
    pub(super) fn fragments(&self) -> usize {
        self.free.ranges().count()
    }
}
