//! Faults and statuses of pools, as data.

use super::*;
use crate::state::alloc::{UnmanagedSource, UnmanagedUse};
use crate::state::messages::Message;
use ferrolb_proto::facts::{Key, PoolProblem};

const SOUND: PoolMessage<'_> = PoolMessage::Valid(Vec::new());

fn pool(name: &str, ranges: &[&str]) -> Pool {
    Pool {
        name: name.into(),
        ranges: ranges.iter().map(|text| text.parse().unwrap()).collect(),
        ..Pool::default()
    }
}

fn told(pools: &[Pool]) -> Vec<String> {
    faults(pools.iter())
        .iter()
        .map(|(name, fault)| (name, PoolMessage::Fault(fault)))
        .map(|(name, message)| format!("{name} {}: {message}", message.reason()))
        .collect()
}

#[test]
fn of_two_pools_that_overlap_the_later_by_name_is_the_culprit_and_both_are_named() {
    let pools = [
        pool("a", &["10.0.0.0/24", "fd00::/64"]),
        pool("b", &["10.0.9.0/24", "10.0.0.128/25"]),
        pool("c", &["10.0.9.7"]),
        pool("d", &["fd00::7"]),
    ];
    let told = told(&pools);
    assert_eq!(told.len(), 2, "{told:?}");
    assert_eq!(
        told[0],
        "b Overlap: 10.0.0.128-10.0.0.255 of this pool (b) overlaps 10.0.0.0-10.0.0.255 of \
         IPAddressPool a, which is older: this pool assigns nothing until the overlap is removed \
         from one of them"
    );
    assert!(
        told[1].starts_with("d Overlap: fd00::7 of this pool (d) overlaps fd00::"),
        "{}",
        told[1]
    );
}

#[test]
fn neighbours_and_both_families_side_by_side_are_no_overlap() {
    let pools = [
        pool("a", &["10.0.0.0-10.0.0.9", "10.0.0.20-10.0.0.29"]),
        pool("b", &["10.0.0.10-10.0.0.19", "0.0.0.0/1", "::/16"]),
        pool("c", &["10.0.0.30", "fd00::/8"]),
    ];
    assert_eq!(told(&pools[..1]), Vec::<String>::new());
    assert_eq!(told(&[pools[0].clone(), pools[2].clone()]), Vec::<String>::new());
    assert!(told(&pools)[0].starts_with("b Overlap"), "a range around others overlaps them");
}

#[test]
fn a_pool_with_a_problem_of_its_own_is_at_fault_and_hides_nobody() {
    let mut broken = pool("a", &[]);
    broken.problem = Some(PoolProblem::Empty);
    let told = told(&[broken, pool("b", &["10.0.0.0/24"])]);
    assert_eq!(told.len(), 1);
    assert!(told[0].starts_with("a BadAddresses: spec.addresses is empty"), "{}", told[0]);
}

fn counts(v4: (u128, u64), v6: (u128, u64)) -> [AddressCounts; 2] {
    [v4, v6].map(|(total, used)| AddressCounts { total, used, available: total - u128::from(used) })
}

#[test]
fn a_pools_status_is_written_when_it_says_something_else_and_keeps_its_time() {
    let mut pool = Pool { generation: 3, ..pool("lan", &["10.0.0.0/24"]) };
    let status = |pool: &Pool, fault: Option<&PoolFault>, counts| {
        let message = fault.map_or(SOUND, PoolMessage::Fault);
        pool_status(pool, &message, counts, &StatusFields::All)
    };
    let huge = counts((256, 2), (u128::MAX, 0));
    let first = status(&pool, None, huge).unwrap();
    assert_eq!((first.assigned, first.available), ([2, 0], [Some(254), None]));
    assert_eq!(
        first.text.as_deref(),
        Some("254 IPv4, 340282366920938463463374607431768211455 IPv6")
    );
    let valid = first.valid.clone().unwrap();
    assert_eq!(
        (valid.generation, &*valid.condition.reason, valid.condition.since),
        (3, "Valid", None)
    );
    pool.record_written(&first);
    assert_eq!(status(&pool, None, huge), None);
    let fewer = counts((256, 3), (0, 0));
    let since = |status: PoolStatus| status.valid.unwrap().condition.since;
    let unseen = status(&pool, None, fewer).unwrap();
    assert_eq!(since(unseen), None, "the time of a condition that was not seen yet is not known");

    let seen = k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(
        "2026-01-02T03:04:05Z".parse().unwrap(),
    );
    pool.status.conditions[0].last_transition_time = seen;
    assert_eq!(since(status(&pool, None, fewer).unwrap()), Some(1_767_323_045));
    let fault = PoolFault::Problem(PoolProblem::Empty);
    let invalid = status(&pool, Some(&fault), huge).unwrap();
    assert_eq!(since(invalid), None, "a change of the status has a new time");
}

#[test]
fn a_crd_that_is_not_ours_gets_what_it_has_fields_for() {
    let mut pool = Pool { generation: 3, ..pool("lan", &["10.0.0.0/24"]) };
    let counted = StatusFields::Only(
        ["assignedIPv4", "assignedIPv6", "availableIPv4", "availableIPv6"]
            .into_iter()
            .map(Into::into)
            .collect(),
    );
    let huge = counts((256, 2), (u128::MAX, 0));
    let status = pool_status(&pool, &SOUND, huge, &counted).unwrap();
    assert_eq!(
        (status.available, &status.text, &status.valid),
        ([Some(254), Some(i64::MAX)], &None, &None)
    );
    pool.record_written(&status);
    assert_eq!(pool_status(&pool, &SOUND, huge, &counted), None);
    assert_eq!(pool_status(&pool, &SOUND, huge, &StatusFields::Only([].into())), None);
}

#[test]
fn a_sound_pool_names_what_it_does_not_give() {
    let owner =
        UnmanagedUse { key: Key::new("default", "x"), source: UnmanagedSource::ExternalIps };
    let ip = |last: u8| IpAddr::from([10, 0, 0, last]);
    assert_eq!(valid([].into_iter()).to_string(), "addresses of this pool can be assigned");
    assert_eq!(
        valid([(ip(1), SkipReason::Node), (ip(2), SkipReason::Unmanaged(&owner))].into_iter())
            .to_string(),
        "addresses of this pool can be assigned, except 10.0.0.1 (an address of a Node), 10.0.0.2 \
         (in spec.externalIPs of Service default/x)"
    );
    let many = valid((1..7).map(|last| (ip(last), SkipReason::Node))).to_string();
    assert!(many.ends_with("10.0.0.5 (an address of a Node) and others"), "{many}");
}
