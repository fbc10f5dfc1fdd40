//! Which pools and advertisements can be used, and what their statuses should say. Pure functions; the state asks them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ferrolb_proto::api;
use ferrolb_proto::facts::{Pool, PoolProblem};
use ferrolb_proto::range::AddressRange;
use k8s_openapi::apimachinery::pkg::apis::meta::v1;

use crate::desired::{AdvertisementStatus, Condition, PoolStatus};
use crate::event::Advertisement;

/// The reason of what is right.
const VALID: &str = "Valid";
/// Stands for the time of a condition that was written and not seen yet.
const UNKNOWN_TIME: v1::Time = v1::Time(jiff::Timestamp::UNIX_EPOCH);

/// Why a pool cannot be used: a reason and a message for whoever wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    reason: &'static str,
    message: Box<str>,
}

/// The faults of all pools, by name; the others can be used. Of two that overlap, the later by name is the culprit: names
/// are what every replica sees alike, and a pool that is refused today is refused tomorrow.
pub(super) fn faults<'a>(pools: impl Iterator<Item = &'a Pool>) -> BTreeMap<Box<str>, Fault> {
    let mut faults = BTreeMap::new();
    // The ranges in use so far. They share no address, so a range overlaps one of them only if it overlaps the last of those
    // that begin at or before its end.
    let mut used: BTreeMap<IpAddr, (AddressRange, &'a str)> = BTreeMap::new();
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
        PoolProblem::Empty | PoolProblem::Addresses(_) => "BadAddresses",
        PoolProblem::Exclude(_) => "BadExcludeAddresses",
        PoolProblem::Overlap(..) => "Overlap",
        PoolProblem::Unreadable(_) => "Unreadable",
    }
}

/// The status that a pool should have; none when it has it. `counts` are, for each family, all addresses and those in use.
pub(super) fn pool_status(pool: &Pool, fault: Option<&Fault>, counts: [(u128, u64); 2]) -> Option<PoolStatus> {
    let wanted = PoolStatus {
        assigned: counts.map(|(_, used)| i64::try_from(used).unwrap_or(i64::MAX)),
        available: counts.map(|(total, used)| i64::try_from(total.saturating_sub(used.into())).ok()),
        valid: valid(fault.map(|fault| (fault.reason, &*fault.message)), "addresses of this pool can be given"),
        generation: pool.generation,
    };
    let has = &pool.status;
    let (now, since) = present(&has.conditions);
    let same = wanted.assigned == [has.assigned_ipv4, has.assigned_ipv6]
        && wanted.available == [has.available_ipv4, has.available_ipv6]
        && wanted.generation == has.observed_generation
        && now.as_ref().is_some_and(|now| says_the_same(now, &wanted.valid));
    (!same).then(|| PoolStatus { valid: keep_time(wanted.valid, now, since), ..wanted })
}

/// The status that an advertisement should have; none when it has it.
pub(super) fn advertisement_status(ad: &Advertisement, pools: &BTreeSet<&str>) -> Option<AdvertisementStatus> {
    let unknown: Vec<_> = ad.pools.iter().filter(|name| !pools.contains(name.as_str())).map(String::as_str).collect();
    let message;
    let fault = match (&ad.problem, unknown.is_empty()) {
        (Some(problem), _) => Some(("BadSelector", &**problem)),
        (None, true) => None,
        (None, false) => {
            message = format!(
                "spec.ipAddressPools: there is no IPAddressPool {}; what else is selected is announced",
                unknown.join(", ")
            );
            Some(("UnknownPool", message.as_str()))
        }
    };
    let wanted = AdvertisementStatus {
        valid: valid(fault, "what this advertisement selects is announced"),
        generation: ad.generation,
    };
    let (now, since) = present(&ad.status.conditions);
    let same = wanted.generation == ad.status.observed_generation
        && now.as_ref().is_some_and(|now| says_the_same(now, &wanted.valid));
    (!same).then(|| AdvertisementStatus { valid: keep_time(wanted.valid, now, since), ..wanted })
}

/// Takes a status that was written for the one that is there, until the watch shows it.
pub(super) fn assume_pool(is: &mut api::IPAddressPoolStatus, written: &PoolStatus) {
    [is.assigned_ipv4, is.assigned_ipv6] = written.assigned;
    [is.available_ipv4, is.available_ipv6] = written.available;
    is.observed_generation = written.generation;
    assume_condition(&mut is.conditions, &written.valid);
}

/// As [`assume_pool`].
pub(super) fn assume_advertisement(is: &mut api::L2AdvertisementStatus, written: &AdvertisementStatus) {
    is.observed_generation = written.generation;
    assume_condition(&mut is.conditions, &written.valid);
}

fn assume_condition(conditions: &mut Vec<v1::Condition>, written: &Condition) {
    let since = written.since.as_ref().and_then(|since| since.parse().ok());
    conditions.retain(|condition| condition.type_ != api::CONDITION_VALID);
    conditions.push(v1::Condition {
        type_: api::CONDITION_VALID.to_owned(),
        status: if written.is_true { "True" } else { "False" }.to_owned(),
        reason: written.reason.to_owned(),
        message: written.message.to_string(),
        last_transition_time: since.map_or(UNKNOWN_TIME, v1::Time),
        observed_generation: None,
    });
}

fn valid(fault: Option<(&'static str, &str)>, sound: &str) -> Condition {
    let (reason, message) = fault.unwrap_or((VALID, sound));
    Condition { is_true: fault.is_none(), reason, message: message.into(), since: None }
}

/// The `Valid` condition that is there, and its time.
fn present(conditions: &[v1::Condition]) -> (Option<&v1::Condition>, Option<Box<str>>) {
    let found = conditions.iter().find(|condition| condition.type_ == api::CONDITION_VALID);
    let known = found.filter(|condition| condition.last_transition_time != UNKNOWN_TIME);
    (found, known.map(|condition| condition.last_transition_time.0.to_string().into()))
}

fn says_the_same(is: &v1::Condition, wanted: &Condition) -> bool {
    (is.status == "True") == wanted.is_true && is.reason == wanted.reason && is.message == *wanted.message
}

/// The time of the last change of the status stays while the status does.
fn keep_time(wanted: Condition, is: Option<&v1::Condition>, since: Option<Box<str>>) -> Condition {
    let unchanged = is.is_some_and(|is| (is.status == "True") == wanted.is_true);
    Condition { since: since.filter(|_| unchanged), ..wanted }
}

#[cfg(test)]
mod tests;
