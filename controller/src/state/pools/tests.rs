//! Faults and statuses as data.

use super::*;

fn pool(name: &str, ranges: &[&str]) -> Pool {
    Pool { name: name.into(), ranges: ranges.iter().map(|text| text.parse().unwrap()).collect(), ..Pool::default() }
}

fn told(pools: &[Pool]) -> Vec<String> {
    faults(pools.iter()).iter().map(|(name, fault)| format!("{name} {}: {}", fault.reason, fault.message)).collect()
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
        "b Overlap: 10.0.0.128-10.0.0.255 of this pool (b) overlaps 10.0.0.0-10.0.0.255 of pool a: \
         this pool is not used until they share no address"
    );
    assert!(told[1].starts_with("d Overlap: fd00::7 of this pool (d) overlaps fd00::"), "{}", told[1]);
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

#[test]
fn a_pools_status_is_written_when_it_says_something_else_and_keeps_its_time() {
    let mut pool = Pool { generation: 3, ..pool("lan", &["10.0.0.0/24"]) };
    let counts = [(256, 2), (u128::MAX, 0)];
    let first = pool_status(&pool, None, counts).unwrap();
    assert_eq!((first.assigned, first.available, first.generation), ([2, 0], [Some(254), None], 3));
    assert_eq!((first.valid.is_true, first.valid.reason, &first.valid.since), (true, "Valid", &None));
    assume_pool(&mut pool.status, &first);
    assert_eq!(pool_status(&pool, None, counts), None);
    let unseen = pool_status(&pool, None, [(256, 3), (0, 0)]).unwrap();
    assert_eq!(unseen.valid.since, None, "the time of a condition that was not seen yet is not known");

    pool.status.conditions[0].last_transition_time = v1::Time("2026-01-02T03:04:05Z".parse().unwrap());
    let counted = pool_status(&pool, None, [(256, 3), (0, 0)]).unwrap();
    assert_eq!(counted.valid.since.as_deref(), Some("2026-01-02T03:04:05Z"));
    let fault = Fault { reason: "Overlap", message: "m".into() };
    let invalid = pool_status(&pool, Some(&fault), counts).unwrap();
    assert_eq!((invalid.valid.is_true, &invalid.valid.since), (false, &None), "a change of the status has a new time");
}

#[test]
fn an_advertisement_names_the_pools_that_are_not_there() {
    let mut ad = Advertisement { pools: vec!["lan".into(), "wan".into(), "dmz".into()], ..Advertisement::default() };
    let status = advertisement_status(&ad, &["lan"].into()).unwrap();
    assert_eq!((status.valid.is_true, status.valid.reason), (false, "UnknownPool"));
    assert!(status.valid.message.contains("no IPAddressPool wan, dmz;"), "{}", status.valid.message);
    assume_advertisement(&mut ad.status, &status);
    assert_eq!(advertisement_status(&ad, &["lan"].into()), None);
    assert_eq!(advertisement_status(&ad, &["lan", "wan", "dmz"].into()).unwrap().valid.reason, "Valid");
    ad.problem = Some("spec.nodeSelectors: no".into());
    assert_eq!(advertisement_status(&ad, &["lan"].into()).unwrap().valid.reason, "BadSelector");
}
