//! Validity and statuses of pools. Pure functions, called by the state.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ferrolb_proto::facts::{Pool, PoolProblem};
use ferrolb_proto::range::{AddressRange, AddressSet, Family};

use super::alloc::{Allocator, SkipReason};
use super::custom_resources::{StatusResource, Validity};
use super::messages::pool::{PoolFault, PoolMessage, SkippedAddress};
use super::pool_addresses::AddressCounts;
use crate::desired::{CustomResourceStatus, PoolStatus};

/// Number of skipped addresses that are passed to a message: one more than the message lists, so
/// that the message can add "and others".
const SKIPPED_MAX: usize = 6;

/// Returns the faults of the invalid pools, by pool name.
///
/// Of two pools that overlap, the one created later is invalid, or the later by name if both were
/// created at the same time. Every replica therefore decides the same, and a new pool never
/// invalidates a pool in use.
pub(super) fn faults<'a>(pools: impl Iterator<Item = &'a Pool>) -> BTreeMap<Box<str>, PoolFault> {
    let mut faults = BTreeMap::new();
    // Ranges of the valid pools so far, by first address. These ranges do not overlap each other.
    // If a range overlaps any of them, it also overlaps the nearest one that begins at or before
    // its end.
    let mut used: BTreeMap<IpAddr, (AddressRange, &'a str)> = BTreeMap::new();
    let mut pools: Vec<&Pool> = pools.collect();
    pools.sort_by_key(|pool| (pool.created, &pool.name));
    for pool in pools {
        let nearest =
            |range: &AddressRange| used.range(..=range.last()).next_back().map(|(_, found)| *found);
        let overlap = pool.ranges.iter().find_map(|range| {
            nearest(range)
                .filter(|(other, _)| other.overlaps(range))
                .map(|(other, name)| (*range, other, name))
        });
        let fault = match (&pool.problem, overlap) {
            (Some(problem), _) => PoolFault::Problem(problem.clone()),
            (None, Some((range, older_range, older))) => PoolFault::Overlap {
                pool: pool.name.clone(),
                range,
                older: older.into(),
                older_range,
            },
            (None, None) => {
                used.extend(pool.ranges.iter().map(|range| (range.first(), (*range, &*pool.name))));
                continue;
            }
        };
        faults.insert(pool.name.clone(), fault);
    }
    faults
}

/// The subnets of the interfaces that announce a pool.
#[derive(Debug, Default)]
pub(super) struct AnnouncingSubnets {
    pub(super) ranges: BTreeSet<AddressRange>,
    /// The families whose subnets are known.
    pub(super) families: BTreeSet<Family>,
}

/// Returns the ranges of a pool with addresses that are in none of these subnets, unless the pool
/// is routed. Excluded addresses do not count, and ranges of a family whose subnets are not known
/// are left out.
pub(super) fn ranges_outside(pool: &Pool, subnets: &AnnouncingSubnets) -> Vec<AddressRange> {
    let is_known = |range: &&AddressRange| subnets.families.contains(&range.family());
    let checked = || pool.ranges.iter().filter(|_| !pool.routed).filter(is_known);
    let mut outside = AddressSet::default();
    checked().for_each(|range| outside.insert(*range));
    pool.excluded.iter().chain(&subnets.ranges).for_each(|range| outside.remove(*range));
    checked().filter(|range| outside.lowest_in(range).is_some()).copied().collect()
}

/// Returns the message of a valid pool, with addresses that it does not assign automatically, and
/// ranges outside the subnets of the announcing interfaces.
pub(super) fn valid_message<'a>(
    pool: &'a Pool,
    skipped: impl Iterator<Item = (IpAddr, SkipReason<'a>)>,
    outside: &'a [AddressRange],
) -> PoolMessage<'a> {
    let skipped = skipped.take(SKIPPED_MAX).map(|(address, why)| SkippedAddress(address, why));
    PoolMessage::Valid { skipped: skipped.collect(), outside, widened: &pool.widened }
}

/// Returns the status that a pool should have, or `None` if the pool has it already. `counts` has
/// the counts for IPv4 and for IPv6.
pub(super) fn pool_status(
    pool: &Pool,
    message: &PoolMessage<'_>,
    counts: [AddressCounts; 2],
) -> Option<PoolStatus> {
    let status = &pool.status;
    let (valid, same) = pool.validity(message);
    let [v4, v6] = counts.map(|count| count.available);
    let desired = PoolStatus {
        assigned: counts.map(|count| i64::try_from(count.used).unwrap_or(i64::MAX)),
        available: [v4, v6].map(|available| i64::try_from(available).ok()),
        text: format!("{v4} IPv4, {v6} IPv6").into(),
        valid,
    };
    let counts_match = desired.assigned == [status.assigned_ipv4, status.assigned_ipv6]
        && desired.available == [status.available_ipv4, status.available_ipv6]
        && Some(&*desired.text) == status.available.as_deref();
    (!(counts_match && same)).then_some(desired)
}

/// Inputs of a pool's status, in addition to the pool itself.
pub(super) struct PoolStatusInputs<'a> {
    /// Faults of the invalid pools, from [`faults`].
    pub(super) faults: &'a BTreeMap<Box<str>, PoolFault>,
    pub(super) allocator: &'a Allocator,
    /// Ranges outside the subnets of the announcing interfaces, by pool.
    pub(super) ranges_outside: &'a BTreeMap<Box<str>, Vec<AddressRange>>,
}

impl StatusResource for Pool {
    type StatusInputs<'a> = PoolStatusInputs<'a>;

    fn unreadable(name: Box<str>, why: Box<str>, before: Option<&Self>) -> Self {
        let Self { generation, created, status, .. } = before.cloned().unwrap_or_default();
        let problem = Some(PoolProblem::Unreadable(why));
        Self { name, generation, created, status, problem, ..Self::default() }
    }

    fn status(&self, inputs: &PoolStatusInputs<'_>) -> Option<CustomResourceStatus> {
        let message = match inputs.faults.get(&self.name) {
            Some(fault) => PoolMessage::Fault(fault),
            None => {
                let outside = inputs.ranges_outside.get(&self.name);
                let outside = outside.map_or(&[][..], Vec::as_slice);
                valid_message(self, inputs.allocator.skipped(&self.name), outside)
            }
        };
        let counts = inputs.allocator.counts(&self.name);
        pool_status(self, &message, counts).map(CustomResourceStatus::Pool)
    }

    fn record_written(&mut self, written: &CustomResourceStatus) {
        self.record_validity(written.valid());
        let CustomResourceStatus::Pool(written) = written else { return };
        let status = &mut self.status.0;
        [status.assigned_ipv4, status.assigned_ipv6] = written.assigned;
        [status.available_ipv4, status.available_ipv6] = written.available;
        status.available = Some(written.text.to_string());
    }
}

#[cfg(test)]
mod tests;
