//! Single ownership: first claims, planned moves, and the state that a newcomer receives.

use super::*;
use crate::claim::NodeState;

#[test]
fn a_lone_node_listens_for_a_second_and_then_claims() {
    let mut wire = Wire::new(&["node1"]);
    wire.units(&[unit(&[VIP], &["node1"])]);
    wire.run(ms(999));
    assert!(wire.owners(VIP).is_empty());
    wire.run(ms(2));
    assert_eq!(wire.owners(VIP), ["node1"]);
}

#[test]
fn without_a_key_nothing_is_sent_and_nothing_claimed() {
    let mut machine = ClaimMachine::new(config("node1", 1), Instant::ZERO);
    machine.handle(Input::Units(vec![unit(&[VIP], &["node1"])]), Instant::ZERO);
    machine.tick(Instant::from_millis(60_000));
    assert_eq!(machine.poll(), None);
}

#[test]
fn the_best_rank_claims_and_nobody_else_ever_does() {
    let mut wire = Wire::new(&THREE);
    let units: Vec<_> =
        (200..=220).map(|n| unit(&[IpAddr::from([172, 30, 0, n])], &THREE)).collect();
    wire.units(&units);
    units.iter().for_each(|unit| wire.watch(unit.addresses[0]));
    wire.run(Duration::from_secs(40));
    for unit in &units {
        let address = unit.addresses[0];
        assert_eq!(wire.owners(address), [ranked(&THREE, address)[0]]);
        assert_eq!(
            wire.longest_double(address),
            Duration::ZERO,
            "{address} was answered for twice"
        );
    }
}

#[test]
fn a_new_unit_is_claimed_at_once() {
    let mut wire = settled();
    let address = IpAddr::from([172, 30, 0, 201]);
    wire.units(&[unit(&[VIP], &THREE), unit(&[address], &THREE)]);
    assert_eq!(wire.owners(address), [ranked(&THREE, address)[0]], "no wait for the first in rank");
}

#[test]
fn a_unit_that_is_gone_is_silent_at_once_and_released() {
    let mut wire = settled();
    wire.units(&[]);
    assert!(wire.nodes.iter().all(|node| node.answers.is_empty()));
    wire.run(ms(10));
    wire.units(&[unit(&[VIP], &THREE)]);
    assert_eq!(wire.owners(VIP), [ranked(&THREE, VIP)[0]], "nobody believes the old claim");
}

#[test]
fn an_owner_that_leaves_hands_over_first() {
    let mut wire = settled();
    let order = ranked(&THREE, VIP);
    wire.input(order[0], Input::Leave);
    wire.run(ms(500));
    assert_eq!(wire.owners(VIP), [order[1]]);
    assert_eq!(wire.longest_gap(VIP), Duration::ZERO);
    assert!(wire.longest_double(VIP) <= ms(2), "{:?}", wire.longest_double(VIP));
    assert!(wire.node(order[0]).left, "it may end as soon as nothing is left to answer");
}

#[test]
fn a_lone_owner_that_leaves_waits_two_seconds_for_somebody() {
    let mut wire = Wire::new(&["node1"]);
    wire.units(&[unit(&[VIP], &["node1"])]);
    wire.run(ms(1100));
    wire.input("node1", Input::Leave);
    wire.run(ms(1999));
    assert!(!wire.node("node1").left && wire.owners(VIP) == ["node1"]);
    wire.run(ms(1));
    assert!(wire.node("node1").left && wire.owners(VIP).is_empty());
}

#[test]
fn a_better_node_that_returns_takes_over_when_it_is_no_longer_fresh_and_without_a_gap() {
    let mut wire = settled();
    let order = ranked(&THREE, VIP);
    wire.node(order[0]).up = false;
    wire.run(Duration::from_secs(5));
    assert_eq!(wire.owners(VIP), [order[1]]);
    wire.start(order[0]);
    wire.input(order[0], Input::Units(vec![unit(&[VIP], &THREE)]));
    wire.watch(VIP);
    wire.run(ms(29_900));
    assert_eq!(wire.owners(VIP), [order[1]], "fresh");
    wire.run(ms(500));
    assert_eq!(wire.owners(VIP), [order[0]]);
    assert_eq!(wire.longest_gap(VIP), Duration::ZERO);
    assert!(wire.longest_double(VIP) <= ms(2));
}

#[test]
fn a_drain_moves_the_unit_even_to_a_fresh_node() {
    let mut wire = settled();
    let order = ranked(&THREE, VIP);
    for name in &order[1..] {
        wire.start(name);
        wire.input(name, Input::Units(vec![unit(&[VIP], &THREE)]));
    }
    wire.run(ms(1500));
    wire.input(order[0], Input::NodeState(NodeState { draining: true, ..NodeState::default() }));
    wire.run(ms(200));
    assert_eq!(wire.owners(VIP), [order[1]]);
    assert_eq!(wire.longest_gap(VIP), Duration::ZERO);
}

#[test]
fn who_drained_soon_after_it_took_the_unit_is_there_when_the_next_one_has_to_go() {
    let two = &THREE[..2];
    let (mut wire, order, all) = (Wire::new(two), ranked(two, VIP), unit(&[VIP], two));
    wire.units(&[Arc::clone(&all)]);
    wire.run(Duration::from_secs(3));
    assert_eq!(wire.owners(VIP), [order[0]]);
    wire.watch(VIP);
    wire.input(order[0], Input::NodeState(NodeState { draining: true, ..NodeState::default() }));
    wire.run(ms(500));
    wire.input(order[0], Input::NodeState(NodeState::default()));
    wire.run(ms(500));
    assert_eq!(wire.owners(VIP), [order[1]]);
    let mut cordoned = (*all).clone();
    cordoned
        .candidates
        .iter_mut()
        .filter(|candidate| *candidate.node == *order[1])
        .for_each(|it| it.cordoned = true);
    wire.units(&[Arc::new(cordoned)]);
    wire.run(ms(200));
    assert_eq!(wire.owners(VIP), [order[0]]);
    assert_eq!(wire.longest_gap(VIP), Duration::ZERO);
}

#[test]
fn who_drained_for_a_moment_takes_the_unit_back_from_one_whose_data_path_is_broken() {
    let two = &THREE[..2];
    let (mut wire, order) = (Wire::new(two), ranked(two, VIP));
    wire.units(&[unit(&[VIP], two)]);
    wire.input(order[1], Input::NodeState(NodeState { unhealthy: true, ..NodeState::default() }));
    wire.run(Duration::from_secs(3));
    assert_eq!(wire.owners(VIP), [order[0]]);
    wire.watch(VIP);
    wire.input(order[0], Input::NodeState(NodeState { draining: true, ..NodeState::default() }));
    wire.run(ms(500));
    assert_eq!(wire.owners(VIP), [order[1]]);
    wire.input(order[0], Input::NodeState(NodeState::default()));
    wire.run(ms(200));
    assert_eq!(wire.owners(VIP), [order[0]]);
    assert_eq!(wire.longest_gap(VIP), Duration::ZERO);
}

#[test]
fn who_was_cordoned_soon_after_it_took_the_unit_takes_it_back_before_the_last_pods_of_the_next_one_end()
 {
    let two = &THREE[..2];
    let (mut wire, order, all) = (Wire::new(two), ranked(two, VIP), unit(&[VIP], two));
    let but = |change: &dyn Fn(&mut Candidate)| {
        let mut unit = (*all).clone();
        unit.candidates.iter_mut().for_each(change);
        Arc::new(unit)
    };
    wire.units(&[Arc::clone(&all)]);
    wire.run(Duration::from_secs(3));
    assert_eq!(wire.owners(VIP), [order[0]]);
    wire.watch(VIP);
    wire.units(&[but(&|candidate| candidate.cordoned = *candidate.node == *order[0])]);
    wire.run(ms(500));
    assert_eq!(wire.owners(VIP), [order[1]]);
    wire.units(&[but(&|candidate| {
        candidate.cordoned = *candidate.node == *order[0];
        candidate.terminating = !candidate.cordoned;
    })]);
    wire.run(ms(200));
    assert_eq!(wire.owners(VIP), [order[0]]);
    assert_eq!(wire.longest_gap(VIP), Duration::ZERO);
}

#[test]
fn a_holder_that_is_no_candidate_hands_over_or_stops_in_time() {
    for (serves_here, stops_after) in [(true, ms(10_000)), (false, ms(1000))] {
        let mut wire = Wire::new(&["node1"]);
        wire.units(&[unit(&[VIP], &["node1"])]);
        wire.run(ms(1100));
        wire.units(&[Arc::new(Unit {
            can_serve_here: serves_here,
            ..(*unit(&[VIP], &["node2"])).clone()
        })]);
        wire.run(stops_after - ms(1));
        assert_eq!(wire.owners(VIP), ["node1"]);
        wire.run(ms(1));
        assert!(wire.owners(VIP).is_empty());
    }
}

#[test]
fn a_newcomer_learns_many_claims_before_it_may_claim() {
    let addresses: Vec<_> = (0..200u8).map(|n| IpAddr::from([10, 0, 0, n])).collect();
    let units: Vec<_> =
        addresses.iter().map(|address| unit(&[*address], &["node1", "node2"])).collect();
    let mut wire = Wire::new(&["node1"]);
    wire.units(&units);
    wire.run(ms(1500));
    wire.start("node2");
    wire.input("node2", Input::Units(units.clone()));
    addresses.iter().for_each(|address| wire.watch(*address));
    wire.run(Duration::from_secs(20));
    for address in addresses {
        assert_eq!(wire.owners(address), ["node1"]);
        assert_eq!(
            (wire.longest_gap(address), wire.longest_double(address)),
            (Duration::ZERO, Duration::ZERO)
        );
    }
}

#[test]
fn a_second_address_of_a_unit_goes_to_its_holder() {
    let second: IpAddr = "fd30::c8".parse().expect("address");
    let mut wire = settled();
    wire.units(&[unit(&[VIP, second], &THREE)]);
    assert_eq!(wire.owners(second), wire.owners(VIP));
}

#[test]
fn differing_views_end_in_one_owner_and_no_storm() {
    let mut wire = Wire::new(&["node1", "node2"]);
    let order = ranked(&["node1", "node2"], VIP);
    // In the view of each node, it is the only candidate.
    wire.input(order[0], Input::Units(vec![unit(&[VIP], &[order[0]])]));
    wire.input(order[1], Input::Units(vec![unit(&[VIP], &[order[1]])]));
    wire.run(Duration::from_secs(5));
    let frames = wire.sent;
    wire.run(Duration::from_secs(60));
    assert_eq!(wire.owners(VIP), [order[0]], "plain order decides");
    assert!(wire.sent - frames < 60 * 60, "{} frames in a minute", wire.sent - frames);
}

#[test]
fn who_yielded_to_another_view_does_not_wait_when_that_node_loses_its_pods() {
    let two = &THREE[..2];
    let (mut wire, order, all) = (Wire::new(two), ranked(two, VIP), unit(&[VIP], two));
    wire.units(&[Arc::clone(&all)]);
    wire.run(Duration::from_secs(40));
    assert_eq!(wire.owners(VIP), [order[0]]);
    wire.watch(VIP);
    let mut cordoned = (*all).clone();
    cordoned
        .candidates
        .iter_mut()
        .for_each(|candidate| candidate.cordoned = *candidate.node == *order[0]);
    let cordoned = Arc::new(cordoned);
    // The owner gets its cordoned state late.
    wire.input(order[1], Input::Units(vec![Arc::clone(&cordoned)]));
    wire.run(ms(1_000));
    wire.input(order[0], Input::Units(vec![cordoned]));
    wire.run(ms(1_000));
    assert_eq!(wire.owners(VIP), [order[0]], "the other one backs off");
    wire.units(&[Arc::new(Unit { can_serve_here: false, ..(*unit(&[VIP], &order[1..])).clone() })]);
    wire.run(ms(200));
    assert_eq!(wire.owners(VIP), [order[1]]);
    assert_eq!(wire.longest_gap(VIP), Duration::ZERO);
}

#[test]
fn a_leaving_node_claims_nothing() {
    let mut wire = settled();
    let owner = ranked(&THREE, VIP)[0];
    wire.node(ranked(&THREE, VIP)[1]).up = false;
    wire.node(ranked(&THREE, VIP)[2]).up = false;
    wire.input(owner, Input::Leave);
    let other = IpAddr::from([172, 30, 0, 201]);
    wire.input(owner, Input::Units(vec![unit(&[VIP], &THREE), unit(&[other], &[owner])]));
    wire.run(ms(1000));
    assert_eq!(wire.owners(VIP), [owner]);
    assert!(wire.owners(other).is_empty());
}

#[test]
fn who_leaves_yields_to_who_does_not_whatever_it_thinks_of_it() {
    let mut wire = settled();
    let order = ranked(&THREE, VIP);
    // The owner does not have the other candidates in its view yet, and these may not have each
    // other.
    wire.input(order[0], Input::Units(vec![unit(&[VIP], &[order[0]])]));
    wire.input(order[0], Input::Leave);
    wire.run(Duration::from_secs(3));
    assert_eq!(wire.owners(VIP), [order[1]]);
    let moves: usize = order.iter().map(|name| wire.node(name).started).sum();
    assert_eq!(moves, 2, "the first claim and the hand-over");
    assert_eq!(wire.longest_gap(VIP), Duration::ZERO);
}
