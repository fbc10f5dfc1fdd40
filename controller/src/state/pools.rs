//! Which pools can be used, and what their statuses should say. Pure functions; the state asks them.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ferrolb_proto::api::{self, StatusFields};
use ferrolb_proto::facts::{Pool, PoolProblem};
use ferrolb_proto::range::AddressRange;

use super::alloc::Skipped;
use super::space::Count;
use super::validity::{self, Fault, verdict};
use crate::desired::PoolStatus;

/// Addresses that a condition lists.
const SKIPPED_NAMED_MAX: usize = 5;

/// The faults of all pools, by name; the others can be used. Of two that overlap, the one made later is the culprit, or of two
/// made at once the later by name: every replica sees that alike, and a pool in use is not put out of it by a new one.
pub(super) fn faults<'a>(pools: impl Iterator<Item = &'a Pool>) -> BTreeMap<Box<str>, Fault> {
    let mut faults = BTreeMap::new();
    // The ranges in use so far. They share no address, so a range overlaps one of them only if it overlaps the last of those
    // that begin at or before its end.
    let mut used: BTreeMap<IpAddr, (AddressRange, &'a str)> = BTreeMap::new();
    let mut pools: Vec<&Pool> = pools.collect();
    pools.sort_by_key(|pool| (pool.created, &pool.name));
    for pool in pools {
        let before = |range: &AddressRange| used.range(..=range.last()).next_back().map(|(_, found)| *found);
        let overlap = pool.ranges.iter().find_map(|range| {
            before(range).filter(|(other, _)| other.overlaps(range)).map(|(other, name)| (*range, other, name))
        });
        let fault = match (&pool.problem, overlap) {
            (Some(problem), _) => Fault { reason: reason(problem), message: problem.to_string().into() },
            (None, Some((own, other, name))) => Fault {
                reason: "Overlap",
                message: format!(
                    "{own} of this pool ({}) overlaps {other} of pool {name}: this pool is not used until they share no address",
                    pool.name
                )
                .into(),
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

const fn reason(problem: &PoolProblem) -> &'static str {
    match problem {
        PoolProblem::Empty | PoolProblem::Addresses(_) | PoolProblem::Special(..) => "BadAddresses",
        PoolProblem::Exclude(_) => "BadExcludeAddresses",
        PoolProblem::Overlap(..) => "Overlap",
        PoolProblem::Selector(_) => "BadSelector",
        PoolProblem::Unreadable(_) => "Unreadable",
    }
}

/// The message of a valid pool, with the addresses that it assigns on request only.
pub(super) fn sound<'a>(mut skipped: impl Iterator<Item = (IpAddr, Skipped<'a>)>) -> String {
    let text = |(address, why)| format!("{address} ({why})");
    let named: Vec<_> = skipped.by_ref().take(SKIPPED_NAMED_MAX).map(text).collect();
    let more = if skipped.next().is_some() { " and others" } else { "" };
    match named.len() {
        0 => "addresses of this pool can be given".to_owned(),
        _ => format!("addresses of this pool can be given, but for {}{more}", named.join(", ")),
    }
}

/// The status that a pool should have; none when it has it, or its CRD has no place for it. `counts` are those of IPv4 and
/// IPv6, `sound` what the condition says if there is no fault.
pub(super) fn pool_status(
    pool: &Pool,
    fault: Option<&Fault>,
    sound: &str,
    counts: [Count; 2],
    fields: &StatusFields,
) -> Option<PoolStatus> {
    let has = &pool.status;
    let is = (has.conditions.as_slice(), has.observed_generation);
    let (valid, same) = verdict(fault.cloned(), sound, pool.generation, is);
    // MetalLB's CRD demands a number; ours leaves out one that cannot be told.
    let largest = (*fields != StatusFields::All).then_some(i64::MAX);
    let [v4, v6] = counts.map(|count| count.available);
    let wanted = PoolStatus {
        assigned: counts.map(|count| i64::try_from(count.used).unwrap_or(i64::MAX)),
        available: [v4, v6].map(|available| i64::try_from(available).ok().or(largest)),
        text: fields.has("available").then(|| format!("{v4} IPv4, {v6} IPv6").into()),
        valid: fields.has("conditions").then_some(valid),
    };
    let counted = wanted.assigned == [has.assigned_ipv4, has.assigned_ipv6]
        && wanted.available == [has.available_ipv4, has.available_ipv6]
        && wanted.text.as_deref() == has.available.as_deref().filter(|_| wanted.text.is_some());
    let same = (counted || !fields.has("assignedIPv4")) && (same || wanted.valid.is_none());
    (!same).then_some(wanted)
}

/// Takes a status that was written for the one that is there, until the watch shows it.
pub(super) fn assume_pool(is: &mut api::IPAddressPoolStatus, written: &PoolStatus) {
    [is.assigned_ipv4, is.assigned_ipv6] = written.assigned;
    [is.available_ipv4, is.available_ipv6] = written.available;
    is.available = written.text.as_deref().map(str::to_owned);
    if let Some(valid) = &written.valid {
        validity::assume(&mut is.conditions, &mut is.observed_generation, valid);
    }
}

#[cfg(test)]
mod tests;
