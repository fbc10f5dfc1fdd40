//! Ownership: first claims, handovers, and the claims that a newcomer receives.

use super::*;
use crate::claim::NodeState;

#[test]
fn a_lone_node_listens_for_a_second_and_probes_before_it_claims() {
    let mut segment = Segment::new(&["node1"]);
    segment.units(&[unit(VIP, &["node1"])]);
    segment.run(ms(1_449));
    assert!(segment.owners(VIP).is_empty());
    segment.run(ms(2));
    assert_eq!(segment.owners(VIP), ["node1"]);
}

#[test]
fn a_node_without_a_hello_key_sends_and_claims_nothing() {
    let mut machine = ClaimMachine::new(config("node1", 1), Instant::ZERO);
    set_units(&mut machine, vec![unit(VIP, &["node1"])], Instant::ZERO);
    machine.tick(Instant::from_millis(60_000));
    assert_eq!(machine.poll(), None);
}

#[test]
fn only_the_candidate_with_the_best_rank_claims() {
    let mut segment = Segment::new(&NODES);
    let units: Vec<_> = (200..=220).map(|n| unit(IpAddr::from([172, 30, 0, n]), &NODES)).collect();
    segment.units(&units);
    units.iter().for_each(|unit| segment.watch_owners(unit.address));
    segment.run(Duration::from_secs(40));
    for unit in &units {
        let address = unit.address;
        assert_eq!(segment.owners(address), [ranked(&NODES, address)[0]]);
        assert_eq!(
            segment.longest_overlap(address),
            Duration::ZERO,
            "{address} never has two owners"
        );
    }
}

#[test]
fn the_best_candidate_claims_a_new_unit_after_its_probes() {
    let mut segment = settled_segment();
    let address = IpAddr::from([172, 30, 0, 201]);
    segment.units(&[unit(VIP, &NODES), unit(address, &NODES)]);
    segment.run(ms(449));
    assert!(segment.owners(address).is_empty());
    segment.run(ms(2));
    assert_eq!(segment.owners(address), [ranked(&NODES, address)[0]]);
}

#[test]
fn a_removed_unit_is_released_at_once() {
    let mut segment = settled_segment();
    segment.units(&[]);
    assert!(segment.nodes.iter().all(|node| node.announced.is_empty()));
    segment.run(ms(10));
    segment.units(&[unit(VIP, &NODES)]);
    segment.run(ms(451));
    assert_eq!(
        segment.owners(VIP),
        [ranked(&NODES, VIP)[0]],
        "the released claim does not block a new one"
    );
}

#[test]
fn a_leaving_owner_hands_over_first() {
    let mut segment = settled_segment();
    let order = ranked(&NODES, VIP);
    segment.input(order[0], Input::Leave);
    segment.run(ms(500));
    assert_eq!(segment.owners(VIP), [order[1]]);
    assert_eq!(segment.longest_gap(VIP), Duration::ZERO);
    assert!(
        segment.longest_overlap(VIP) <= ms(2),
        "two owners for {:?}",
        segment.longest_overlap(VIP)
    );
    assert!(segment.node(order[0]).finished, "a speaker without addresses may end");
}

#[test]
fn a_leaving_lone_owner_waits_two_seconds_for_a_peer() {
    let mut segment = Segment::new(&["node1"]);
    segment.units(&[unit(VIP, &["node1"])]);
    segment.run(ms(1_500));
    segment.input("node1", Input::Leave);
    segment.run(ms(1999));
    assert!(!segment.node("node1").finished && segment.owners(VIP) == ["node1"]);
    segment.run(ms(1));
    assert!(segment.node("node1").finished && segment.owners(VIP).is_empty());
}

#[test]
fn a_better_node_takes_over_after_its_preempt_delay_without_gap() {
    let mut segment = settled_segment();
    let order = ranked(&NODES, VIP);
    segment.node(order[0]).up = false;
    segment.run(Duration::from_secs(5));
    assert_eq!(segment.owners(VIP), [order[1]]);
    segment.start(order[0]);
    segment.set_units(order[0], vec![unit(VIP, &NODES)]);
    segment.watch_owners(VIP);
    segment.run(ms(29_900));
    assert_eq!(segment.owners(VIP), [order[1]], "the better node is in preempt delay");
    segment.run(ms(500));
    assert_eq!(segment.owners(VIP), [order[0]]);
    assert_eq!(segment.longest_gap(VIP), Duration::ZERO);
    assert!(segment.longest_overlap(VIP) <= ms(2));
}

#[test]
fn a_drain_moves_the_unit_even_to_a_node_in_preempt_delay() {
    let mut segment = settled_segment();
    let order = ranked(&NODES, VIP);
    for name in &order[1..] {
        segment.start(name);
        segment.set_units(name, vec![unit(VIP, &NODES)]);
    }
    segment.run(ms(1500));
    segment.input(order[0], Input::NodeState(NodeState { draining: true, ..NodeState::default() }));
    segment.run(ms(200));
    assert_eq!(segment.owners(VIP), [order[1]]);
    assert_eq!(segment.longest_gap(VIP), Duration::ZERO);
}

#[test]
fn a_node_takes_its_unit_back_after_a_drain_from_a_cordoned_owner() {
    let two = &NODES[..2];
    let (mut segment, order, all) = (Segment::new(two), ranked(two, VIP), unit(VIP, two));
    segment.units(&[Arc::clone(&all)]);
    segment.run(Duration::from_secs(3));
    assert_eq!(segment.owners(VIP), [order[0]]);
    segment.watch_owners(VIP);
    segment.input(order[0], Input::NodeState(NodeState { draining: true, ..NodeState::default() }));
    segment.run(ms(500));
    segment.input(order[0], Input::NodeState(NodeState::default()));
    segment.run(ms(500));
    assert_eq!(segment.owners(VIP), [order[1]]);
    segment.units(&[change_candidates(&all, |candidate| {
        candidate.cordoned = *candidate.node == *order[1];
    })]);
    segment.run(ms(200));
    assert_eq!(segment.owners(VIP), [order[0]]);
    assert_eq!(segment.longest_gap(VIP), Duration::ZERO);
}

#[test]
fn a_node_takes_its_unit_back_after_a_drain_from_an_unhealthy_owner() {
    let two = &NODES[..2];
    let (mut segment, order) = (Segment::new(two), ranked(two, VIP));
    segment.units(&[unit(VIP, two)]);
    segment
        .input(order[1], Input::NodeState(NodeState { unhealthy: true, ..NodeState::default() }));
    segment.run(Duration::from_secs(3));
    assert_eq!(segment.owners(VIP), [order[0]]);
    segment.watch_owners(VIP);
    segment.input(order[0], Input::NodeState(NodeState { draining: true, ..NodeState::default() }));
    segment.run(ms(500));
    assert_eq!(segment.owners(VIP), [order[1]]);
    segment.input(order[0], Input::NodeState(NodeState::default()));
    segment.run(ms(200));
    assert_eq!(segment.owners(VIP), [order[0]]);
    assert_eq!(segment.longest_gap(VIP), Duration::ZERO);
}

#[test]
fn a_node_takes_its_unit_back_from_an_owner_with_terminating_pods() {
    let two = &NODES[..2];
    let (mut segment, order, all) = (Segment::new(two), ranked(two, VIP), unit(VIP, two));
    let changed = |change: &dyn Fn(&mut Candidate)| change_candidates(&all, change);
    segment.units(&[Arc::clone(&all)]);
    segment.run(Duration::from_secs(3));
    assert_eq!(segment.owners(VIP), [order[0]]);
    segment.watch_owners(VIP);
    segment.units(&[changed(&|candidate| candidate.cordoned = *candidate.node == *order[0])]);
    segment.run(ms(500));
    assert_eq!(segment.owners(VIP), [order[1]]);
    segment.units(&[changed(&|candidate| {
        candidate.cordoned = *candidate.node == *order[0];
        candidate.terminating = !candidate.cordoned;
    })]);
    segment.run(ms(200));
    assert_eq!(segment.owners(VIP), [order[0]]);
    assert_eq!(segment.longest_gap(VIP), Duration::ZERO);
}

#[test]
fn an_owner_that_is_no_candidate_releases_after_a_delay() {
    for (can_serve_here, release_delay) in [(true, ms(10_000)), (false, ms(1000))] {
        let mut segment = Segment::new(&["node1"]);
        segment.units(&[unit(VIP, &["node1"])]);
        segment.run(ms(1_500));
        segment.units(&[Arc::new(Unit { can_serve_here, ..(*unit(VIP, &["node2"])).clone() })]);
        segment.run(release_delay - ms(1));
        assert_eq!(segment.owners(VIP), ["node1"]);
        segment.run(ms(1));
        assert!(segment.owners(VIP).is_empty());
    }
}

#[test]
fn a_newcomer_receives_all_claims_before_it_may_claim() {
    let addresses: Vec<_> = (0..200u8).map(|n| IpAddr::from([10, 0, 0, n])).collect();
    let units: Vec<_> =
        addresses.iter().map(|address| unit(*address, &["node1", "node2"])).collect();
    let mut segment = Segment::new(&["node1"]);
    segment.units(&units);
    segment.run(ms(4_000));
    segment.start("node2");
    segment.set_units("node2", units.clone());
    addresses.iter().for_each(|address| segment.watch_owners(*address));
    segment.run(Duration::from_secs(20));
    for address in addresses {
        assert_eq!(segment.owners(address), ["node1"]);
        assert_eq!(
            (segment.longest_gap(address), segment.longest_overlap(address)),
            (Duration::ZERO, Duration::ZERO)
        );
    }
}

#[test]
fn both_addresses_of_a_service_go_to_one_node() {
    let second: IpAddr = "fd30::c8".parse().expect("address");
    let mut segment = settled_segment();
    segment.units(&[unit(VIP, &NODES), unit_ordered_by(VIP, second, &NODES)]);
    segment.run(ms(500));
    assert_eq!(segment.owners(second), segment.owners(VIP));
}

#[test]
fn a_leaving_node_claims_nothing() {
    let mut segment = settled_segment();
    let owner = ranked(&NODES, VIP)[0];
    segment.node(ranked(&NODES, VIP)[1]).up = false;
    segment.node(ranked(&NODES, VIP)[2]).up = false;
    segment.input(owner, Input::Leave);
    let other = IpAddr::from([172, 30, 0, 201]);
    segment.set_units(owner, vec![unit(VIP, &NODES), unit(other, &[owner])]);
    segment.run(ms(1000));
    assert_eq!(segment.owners(VIP), [owner]);
    assert!(segment.owners(other).is_empty());
}

#[test]
fn a_leaving_node_yields_to_any_other_node() {
    let mut segment = settled_segment();
    let order = ranked(&NODES, VIP);
    // The owner is the only candidate in its own view.
    segment.set_units(order[0], vec![unit(VIP, &[order[0]])]);
    segment.input(order[0], Input::Leave);
    segment.run(Duration::from_secs(3));
    assert_eq!(segment.owners(VIP), [order[1]]);
    let moves: usize = order.iter().map(|name| segment.node(name).starts).sum();
    assert_eq!(moves, 2, "only the first claim and the handover are moves");
    assert_eq!(segment.longest_gap(VIP), Duration::ZERO);
}
