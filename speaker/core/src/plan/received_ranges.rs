//! Ranges of addresses about which the interfaces receive ARP and NDP frames of other hosts: the
//! ranges of all pools, and the Services' addresses outside them. A Service keeps its address after
//! its pool was edited or deleted, so the ranges of the pools alone are not enough. Pure;
//! [`super::Memo`] has the ranges of the latest plan.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use ferrolb_proto::facts::Pool;
use ferrolb_proto::range::{AddressRange, AddressSet, Family};

/// Maximum number of ranges of IPv4 addresses. If there are more, those with the smallest gaps
/// between them are merged.
pub const IPV4_RANGES_MAX: usize = 64;
/// Maximum number of ranges of IPv6 addresses; each takes up to six times as many instructions of
/// a BPF program as an IPv4 range.
pub const IPV6_RANGES_MAX: usize = 16;

/// Ranges, and the sets from which they follow.
#[derive(Debug, Default)]
pub(super) struct ReceivedRanges {
    /// Addresses of all pools. None: the pools are not known yet, or one of them is invalid. The
    /// ranges of an invalid pool are not known.
    pools: Option<AddressSet>,
    /// Addresses of Services that are in no pool.
    outside: BTreeSet<IpAddr>,
    ranges: Option<Arc<[AddressRange]>>,
    /// True if `pools` or `outside` have changed since `ranges` was computed.
    stale: bool,
}

impl ReceivedRanges {
    /// Replaces the pools. The caller then calls [`ReceivedRanges::set_address`] for every address.
    pub(super) fn set_pools<'a>(&mut self, pools: impl Iterator<Item = &'a Pool> + Clone) {
        self.stale = true;
        self.outside.clear();
        if pools.clone().any(|pool| pool.problem.is_some()) {
            self.pools = None;
            return;
        }
        let mut addresses = AddressSet::default();
        pools.flat_map(|pool| &pool.ranges).for_each(|range| addresses.insert(*range));
        self.pools = Some(addresses);
    }

    /// Sets whether any Service has this address.
    pub(super) fn set_address(&mut self, address: IpAddr, assigned: bool) {
        let is_outside = self.pools.as_ref().is_some_and(|pools| !pools.contains(address));
        self.stale |= if assigned && is_outside {
            self.outside.insert(address)
        } else {
            self.outside.remove(&address)
        };
    }

    /// Returns the ranges, IPv4 first, ascending. None: they are not known.
    pub(super) fn ranges(&mut self) -> Option<Arc<[AddressRange]>> {
        if std::mem::take(&mut self.stale) {
            self.ranges = self.pools.as_ref().map(|pools| {
                let mut addresses = pools.clone();
                let outside = self.outside.iter().copied().map(AddressRange::single);
                outside.for_each(|address| addresses.insert(address));
                let ipv4 = addresses.covering_ranges(Family::V4, IPV4_RANGES_MAX);
                let ipv6 = addresses.covering_ranges(Family::V6, IPV6_RANGES_MAX);
                ipv4.into_iter().chain(ipv6).collect()
            });
        }
        self.ranges.clone()
    }
}
