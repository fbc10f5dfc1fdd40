//! Address ranges as users write them, and sets of addresses as sorted intervals. Pure values; used
//! by the decoder of pools and the controller's allocator.
//!
//! The memory of a set depends on the number of its intervals, never on the number of its
//! addresses: a /8 or an IPv6 /64 takes as much as a /28.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// An address family (KEP-563, `Service.spec.ipFamilies`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Returns the family of an address.
    #[must_use]
    pub const fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    const fn address(self, bits: u128) -> IpAddr {
        match self {
            #[expect(
                clippy::cast_possible_truncation,
                reason = "a v4 interval never holds more than 32 bits"
            )]
            Self::V4 => IpAddr::V4(Ipv4Addr::from_bits(bits as u32)),
            Self::V6 => IpAddr::V6(Ipv6Addr::from_bits(bits)),
        }
    }

    /// Returns the number of bits of an address.
    #[must_use]
    pub const fn width(self) -> u8 {
        match self {
            Self::V4 => 32,
            Self::V6 => 128,
        }
    }

    /// Returns a mask of the host bits that follow a prefix of `length` bits.
    fn host_mask(self, length: u8) -> u128 {
        u128::MAX.checked_shr(u32::from(128 - self.width()) + u32::from(length)).unwrap_or(0)
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

const fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(a) => a.to_bits() as u128,
        IpAddr::V6(a) => a.to_bits(),
    }
}

/// A closed range of addresses of one family, as users write it: `10.0.0.0/24`, `10.0.0.5-10.0.0.9`
/// or `10.0.0.7`.
///
/// A CIDR with host bits set means its whole network, as in MetalLB.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AddressRange {
    family: Family,
    first: u128,
    last: u128,
}

/// The reason why a text is not an [`AddressRange`]. The messages are for the author of the pool.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseRangeError {
    /// The text contains no valid address.
    #[error(
        "{0:?} is not an address: write a CIDR (10.0.0.0/24), a range (10.0.0.5-10.0.0.9) or one address (10.0.0.7)"
    )]
    Address(String),
    /// The prefix length is not a number, or is longer than an address of the family.
    #[error("{text:?} has no valid prefix length: {family} takes 0 to {max}")]
    Prefix {
        /// The text that contains the prefix length.
        text: String,
        /// The family of the address.
        family: Family,
        /// The longest prefix length of the family, in bits.
        max: u32,
    },
    /// The last address of the range is lower than the first one.
    #[error("range {0:?} ends before it starts: write the lower address first")]
    Reversed(String),
    /// One end of the range is an IPv4 address, and the other is an IPv6 address.
    #[error("range {0:?} mixes IPv4 and IPv6: write one range for each family")]
    Mixed(String),
}

impl AddressRange {
    /// Returns the range that contains only `address`.
    #[must_use]
    pub const fn single(address: IpAddr) -> Self {
        Self { family: Family::of(address), first: bits(address), last: bits(address) }
    }

    /// Returns the network that has a prefix of `length` bits and contains `address`.
    #[must_use]
    pub fn network(address: IpAddr, length: u8) -> Self {
        let family = Family::of(address);
        let hosts = family.host_mask(length);
        let first = bits(address) & !hosts;
        Self { family, first, last: first | hosts }
    }

    /// Returns the prefix length, in bits, of the widest network that is completely inside the
    /// range.
    #[must_use]
    pub fn widest_network(&self) -> u8 {
        let fits = |length: &u8| {
            let hosts = self.family.host_mask(*length);
            let last =
                self.first.checked_add(hosts).and_then(|least| (least & !hosts).checked_add(hosts));
            last.is_some_and(|last| last <= self.last)
        };
        (0..self.family.width()).find(fits).unwrap_or(self.family.width())
    }

    /// Returns the family of the range.
    #[must_use]
    pub const fn family(&self) -> Family {
        self.family
    }

    /// Returns the lowest address of the range.
    #[must_use]
    pub const fn first(&self) -> IpAddr {
        self.family.address(self.first)
    }

    /// Returns the highest address of the range.
    #[must_use]
    pub const fn last(&self) -> IpAddr {
        self.family.address(self.last)
    }

    /// Returns whether the range contains an address.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        self.overlaps(&Self::single(address))
    }

    /// Returns whether the two ranges have an address in common.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        self.family == other.family && self.first <= other.last && other.first <= self.last
    }
}

impl FromStr for AddressRange {
    type Err = ParseRangeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let address = |part: &str| {
            part.trim()
                .parse::<IpAddr>()
                .map_err(|_| ParseRangeError::Address(text.trim().to_owned()))
        };
        if let Some((network, prefix)) = text.split_once('/') {
            let network = address(network)?;
            let family = Family::of(network);
            let max = u32::from(family.width());
            let length = prefix.trim().parse::<u32>().ok().filter(|length| *length <= max);
            let length = length.ok_or_else(|| ParseRangeError::Prefix {
                text: text.to_owned(),
                family,
                max,
            })?;
            return Ok(Self::network(network, u8::try_from(length).unwrap_or(u8::MAX)));
        }
        let Some((first, last)) = text.split_once('-') else {
            return address(text).map(Self::single);
        };
        let (first, last) = (address(first)?, address(last)?);
        if Family::of(first) != Family::of(last) {
            return Err(ParseRangeError::Mixed(text.to_owned()));
        }
        if first > last {
            return Err(ParseRangeError::Reversed(text.to_owned()));
        }
        Ok(Self { family: Family::of(first), first: bits(first), last: bits(last) })
    }
}

impl fmt::Display for AddressRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            self.first().fmt(f)
        } else {
            write!(f, "{}-{}", self.first(), self.last())
        }
    }
}

/// A set of addresses of both families, stored as intervals that neither overlap nor are adjacent.
/// The key of an interval is its first address, and the value is its last address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AddressSet {
    intervals: BTreeMap<(Family, u128), u128>,
}

impl AddressSet {
    /// Adds every address of `range`.
    pub fn insert(&mut self, range: AddressRange) {
        let AddressRange { family, mut first, mut last } = range;
        // Merge `range` and all intervals that overlap it or are adjacent to it into one interval.
        while let Some((&(f, start), &end)) =
            self.intervals.range(..=(family, last.saturating_add(1))).next_back()
        {
            if f != family || end.saturating_add(1) < first {
                break;
            }
            self.intervals.remove(&(family, start));
            first = first.min(start);
            last = last.max(end);
        }
        self.intervals.insert((family, first), last);
    }

    /// Removes every address of `range` that is in the set.
    pub fn remove(&mut self, range: AddressRange) {
        let AddressRange { family, first, last } = range;
        while let Some((&(f, start), &end)) = self.intervals.range(..=(family, last)).next_back() {
            if f != family || end < first {
                break;
            }
            self.intervals.remove(&(family, start));
            if end > last {
                self.intervals.insert((family, last + 1), end);
            }
            if start < first {
                self.intervals.insert((family, start), first - 1);
            }
        }
    }

    /// Returns whether `address` is in the set. Takes O(log n) time for n intervals.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let (family, bits) = (Family::of(address), bits(address));
        let below = self.intervals.range(..=(family, bits)).next_back();
        below.is_some_and(|(&(f, _), &end)| f == family && bits <= end)
    }

    /// Returns the lowest address that is in the set and in `range`. Takes O(log n) time for n
    /// intervals.
    #[must_use]
    pub fn lowest_in(&self, range: &AddressRange) -> Option<IpAddr> {
        let AddressRange { family, first, last } = *range;
        if self.contains(family.address(first)) {
            return Some(family.address(first));
        }
        let (&(_, start), _) = self.intervals.range((family, first)..=(family, last)).next()?;
        Some(family.address(start))
    }

    /// Returns the number of addresses of a family in the set. For all 2^128 IPv6 addresses,
    /// returns `u128::MAX`.
    #[must_use]
    pub fn count(&self, family: Family) -> u128 {
        let sizes = self.intervals.iter().filter(|((f, _), _)| *f == family);
        sizes.fold(0, |sum: u128, (&(_, start), &end)| {
            sum.saturating_add((end - start).saturating_add(1))
        })
    }

    /// Returns at most `max` ranges that together contain all addresses of a family in the set,
    /// ascending. The intervals with the smallest gaps between them are merged. If the set has
    /// addresses of the family, the result has at least one range.
    #[must_use]
    pub fn covering_ranges(&self, family: Family, max: usize) -> Vec<AddressRange> {
        let intervals: Vec<_> = self.ranges().filter(|range| range.family == family).collect();
        let gap = |index: &usize| intervals[*index].first - intervals[index - 1].last;
        let mut gaps: Vec<usize> = (1..intervals.len()).collect();
        gaps.sort_by_key(|index| Reverse(gap(index)));
        let kept: BTreeSet<usize> = gaps.into_iter().take(max.saturating_sub(1)).collect();
        let mut covering: Vec<AddressRange> = Vec::new();
        for (index, interval) in intervals.iter().enumerate() {
            match covering.last_mut() {
                Some(range) if !kept.contains(&index) => range.last = interval.last,
                _ => covering.push(*interval),
            }
        }
        covering
    }

    /// Returns the intervals of the set, IPv4 first, ascending.
    pub fn ranges(&self) -> impl Iterator<Item = AddressRange> + '_ {
        self.intervals.iter().map(|(&(family, first), &last)| AddressRange { family, first, last })
    }
}

#[cfg(test)]
mod tests;
