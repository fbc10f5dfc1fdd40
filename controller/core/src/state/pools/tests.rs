//! Tests of the faults and the statuses of pools.

use ferrolb_proto::facts::{Key, PoolProblem};

use super::*;
use crate::state::alloc::{AddressUser, UnmanagedSource, UnmanagedUse};
use crate::state::messages::Message;

const VALID_POOL: PoolMessage<'_> =
    PoolMessage::Valid { skipped: Vec::new(), outside: &[], widened: &[] };

fn pool(name: &str, ranges: &[&str]) -> Pool {
    Pool {
        name: name.into(),
        ranges: ranges.iter().map(|text| text.parse().unwrap()).collect(),
        ..Pool::default()
    }
}

fn described_faults(pools: &[Pool]) -> Vec<String> {
    faults(pools.iter())
        .iter()
        .map(|(name, fault)| (name, PoolMessage::Fault(fault)))
        .map(|(name, message)| format!("{name} {}: {message}", message.reason()))
        .collect()
}

#[test]
fn the_later_of_two_overlapping_pools_is_invalid() {
    let pools = [
        pool("a", &["10.0.0.0/24", "fd00::/64"]),
        pool("b", &["10.0.9.0/24", "10.0.0.128/25"]),
        pool("c", &["10.0.9.7"]),
        pool("d", &["fd00::7"]),
    ];
    let faults = described_faults(&pools);
    assert_eq!(faults.len(), 2, "{faults:?}");
    assert_eq!(
        faults[0],
        "b Overlap: 10.0.0.128-10.0.0.255 of this pool (b) overlaps 10.0.0.0-10.0.0.255 of \
         IPAddressPool a, which is older: this pool assigns nothing until the overlap is removed \
         from one of them"
    );
    assert!(
        faults[1].starts_with("d Overlap: fd00::7 of this pool (d) overlaps fd00::"),
        "{}",
        faults[1]
    );
}

#[test]
fn adjacent_ranges_and_different_families_do_not_overlap() {
    let pools = [
        pool("a", &["10.0.0.0-10.0.0.9", "10.0.0.20-10.0.0.29"]),
        pool("b", &["10.0.0.10-10.0.0.19", "0.0.0.0/1", "::/16"]),
        pool("c", &["10.0.0.30", "fd00::/8"]),
    ];
    assert_eq!(described_faults(&pools[..1]), Vec::<String>::new());
    assert_eq!(described_faults(&[pools[0].clone(), pools[2].clone()]), Vec::<String>::new());
    assert!(
        described_faults(&pools)[0].starts_with("b Overlap"),
        "a range that contains others overlaps them"
    );
}

#[test]
fn an_invalid_pool_does_not_invalidate_other_pools() {
    let mut broken = pool("a", &[]);
    broken.problem = Some(PoolProblem::Empty);
    let faults = described_faults(&[broken, pool("b", &["10.0.0.0/24"])]);
    assert_eq!(faults.len(), 1);
    assert!(faults[0].starts_with("a BadAddresses: spec.addresses is empty"), "{}", faults[0]);
}

fn counts(v4: (u128, u64), v6: (u128, u64)) -> [AddressCounts; 2] {
    [v4, v6].map(|(total, used)| AddressCounts { total, used, available: total - u128::from(used) })
}

#[test]
fn a_changed_pool_status_is_written_with_its_transition_time() {
    let mut pool = Pool { generation: 3, ..pool("lan", &["10.0.0.0/24"]) };
    let status = |pool: &Pool, fault: Option<&PoolFault>, counts| {
        let message = fault.map_or(VALID_POOL, PoolMessage::Fault);
        pool_status(pool, &message, counts)
    };
    let huge_counts = counts((256, 2), (u128::MAX, 0));
    let first = status(&pool, None, huge_counts).unwrap();
    assert_eq!((first.assigned, first.available), ([2, 0], [Some(254), None]));
    assert_eq!(&*first.text, "254 IPv4, 340282366920938463463374607431768211455 IPv6");
    let valid = first.valid.clone();
    assert_eq!(
        (valid.generation, &*valid.condition.reason, valid.condition.since),
        (3, "Valid", None)
    );
    pool.record_written(&CustomResourceStatus::Pool(first));
    assert_eq!(status(&pool, None, huge_counts), None);
    let other_counts = counts((256, 3), (0, 0));
    let since = |status: PoolStatus| status.valid.condition.since;
    let unobserved = status(&pool, None, other_counts).unwrap();
    assert_eq!(
        since(unobserved),
        None,
        "the transition time is unknown until the watch reports the condition"
    );

    let observed_time = k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(
        "2026-01-02T03:04:05Z".parse().unwrap(),
    );
    pool.status.conditions[0].last_transition_time = observed_time;
    assert_eq!(since(status(&pool, None, other_counts).unwrap()), Some(1_767_323_045));
    let fault = PoolFault::Problem(PoolProblem::Empty);
    let invalid = status(&pool, Some(&fault), huge_counts).unwrap();
    assert_eq!(since(invalid), None, "a condition whose status changes gets a new transition time");
}

#[test]
fn a_valid_pool_lists_the_addresses_that_it_skips() {
    let service = AddressUser::Service(Key::new("default", "x"));
    let owner = UnmanagedUse { user: service, source: UnmanagedSource::ExternalIps };
    let node = AddressUser::Node("n1".into());
    let node = UnmanagedUse { user: node, source: UnmanagedSource::NodeAddress };
    let ip = |last: u8| IpAddr::from([10, 0, 0, last]);
    assert_eq!(
        valid_message(&Pool::default(), [].into_iter(), &[]).to_string(),
        "addresses of this pool can be assigned"
    );
    assert_eq!(
        valid_message(
            &Pool::default(),
            [(ip(1), SkipReason::Unmanaged(&node)), (ip(2), SkipReason::Unmanaged(&owner))]
                .into_iter(),
            &[],
        )
        .to_string(),
        "addresses of this pool can be assigned, except 10.0.0.1 (an address of Node n1), 10.0.0.2 \
         (in spec.externalIPs of Service default/x)"
    );
    let many = (1..7).map(|last| (ip(last), SkipReason::Unmanaged(&node)));
    let many = valid_message(&Pool::default(), many, &[]).to_string();
    assert!(many.ends_with("10.0.0.5 (an address of Node n1) and others"), "{many}");
}

#[test]
fn ranges_outside_all_subnets_are_reported_unless_the_pool_is_routed() {
    let ranges = ["10.0.0.10-10.0.0.20", "10.0.0.200-10.0.1.9", "10.9.0.0/24", "fd00::/64"];
    let lan = pool("lan", &ranges);
    let outside = |pool: &Pool, texts: &[&str]| {
        let ranges: BTreeSet<AddressRange> = texts.iter().map(|it| it.parse().unwrap()).collect();
        let families = ranges.iter().map(AddressRange::family).collect();
        let ranges = ranges_outside(pool, &AnnouncingSubnets { ranges, families });
        ranges.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let expected = ["10.0.0.200-10.0.1.9", "10.9.0.0-10.9.0.255"];
    assert_eq!(outside(&lan, &["10.0.0.0/24"]), expected, "IPv6 subnets are not known");
    assert_eq!(outside(&lan, &["10.0.0.0/16", "fd01::/64"]).len(), 2);
    assert_eq!(outside(&lan, &["10.0.0.0/8", "fd00::/64"]), Vec::<String>::new());
    assert_eq!(outside(&lan, &[]), Vec::<String>::new(), "the subnets are not known");
    let without = AnnouncingSubnets { families: [Family::V4].into(), ..Default::default() };
    assert_eq!(ranges_outside(&lan, &without), lan.ranges[..3], "no interface has an IPv4 subnet");
    let racks = pool("racks", &["10.0.0.0/23"]);
    assert_eq!(outside(&racks, &["10.0.0.0/24", "10.0.1.0/24"]), Vec::<String>::new());
    let excluded = vec!["10.0.1.0/24".parse().unwrap()];
    assert_eq!(outside(&Pool { excluded, ..racks }, &["10.0.0.0/24"]), Vec::<String>::new());
    assert_eq!(outside(&Pool { routed: true, ..lan }, &["10.0.0.0/24"]), Vec::<String>::new());
}
