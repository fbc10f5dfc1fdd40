//! Views of the Kubernetes API that differ between nodes: a candidate doubts the owner, and an
//! address moves at most once for each node.

use ferrolb_core::election::SoftRules;

use super::*;
use crate::claim::DOUBT_LIFETIME;

/// Returns how often any node has taken [`VIP`].
fn takes(segment: &Segment) -> usize {
    segment.nodes.iter().map(|node| node.starts).sum()
}

#[test]
fn an_owner_that_learns_late_of_its_last_endpoint_is_replaced_at_once() {
    let mut segment = settled_segment();
    let order = ranked(&NODES, VIP);
    // The owner has no endpoint any more, and the others know.
    for name in &order[1..] {
        segment.set_units(name, vec![unit(VIP, &order[1..])]);
    }
    segment.run(ms(130));
    assert_eq!(segment.owners(VIP), [order[1]]);
    assert_eq!(segment.longest_gap(VIP), Duration::ZERO);
    // The owner learns of it, and later gets an endpoint again.
    segment.set_units(order[0], vec![unit(VIP, &order[1..])]);
    segment.run(Duration::from_secs(40));
    assert_eq!(segment.owners(VIP), [order[1]]);
    segment.units(&[unit(VIP, &NODES)]);
    segment.run(Duration::from_secs(40));
    assert_eq!(segment.owners(VIP), [order[0]]);
}

#[test]
fn an_owner_that_learns_in_time_gets_no_doubt() {
    let mut segment = settled_segment();
    let order = ranked(&NODES, VIP);
    let view = unit(VIP, &order[1..]);
    for name in &order[1..] {
        segment.set_units(name, vec![Arc::clone(&view)]);
    }
    segment.run(STAGGER_MIN - ms(2));
    segment.set_units(order[0], vec![view]);
    segment.run(ms(5));
    assert_eq!(segment.owners(VIP), [order[1]]);
    assert!(!segment.node(order[0]).machine.ownership.is_doubted(VIP));
}

#[test]
fn contrary_views_move_an_address_at_most_once_for_each_node() {
    let mut segment = settled_segment();
    let order = ranked(&NODES, VIP);
    let before = takes(&segment);
    // Each node is the only candidate in its own view.
    for name in &order {
        segment.set_units(name, vec![unit(VIP, &[name])]);
    }
    let frames = segment.sent;
    segment.run(Duration::from_secs(8));
    assert!(takes(&segment) - before <= NODES.len(), "{} moves", takes(&segment) - before);
    assert_eq!(segment.owners(VIP).len(), 1);
    assert_eq!(segment.longest_gap(VIP), Duration::ZERO);
    assert!(segment.sent - frames < 8 * 40, "the nodes send {} frames", segment.sent - frames);
    // The views never agree: the time from one move to the next doubles, up to ten minutes.
    segment.run(Duration::from_secs(600));
    let moves = takes(&segment) - before;
    assert!(moves <= 8 * NODES.len(), "{moves} moves in ten minutes");
    segment.run(Duration::from_secs(600));
    let later = takes(&segment) - before - moves;
    assert!(later <= 4 * NODES.len(), "{later} moves in the next ten minutes");
}

#[test]
fn the_wrong_doubt_of_a_node_ends_with_its_lifetime() {
    let mut segment = settled_segment();
    let order = ranked(&NODES, VIP);
    segment.set_units(order[2], vec![unit(VIP, &order[1..])]);
    segment.run(ms(500));
    assert_eq!(segment.owners(VIP), [order[1]], "the doubt of one node moves the address");
    segment.set_units(order[2], vec![unit(VIP, &NODES)]);
    let now = segment.now;
    while segment.owners(VIP) != [order[0]] {
        segment.run(Duration::from_secs(1));
        assert!(segment.now.since(now) < Duration::from_secs(60), "the address returns");
    }
    assert!(segment.now.since(now) >= DOUBT_LIFETIME - ms(500));
    assert_eq!(segment.longest_gap(VIP), Duration::ZERO);
}

#[test]
fn an_owner_states_a_doubt_and_keeps_the_address() {
    let (mut machine, mut peer) = faults::machine_with_peer();
    let now = Instant::from_millis(1_600);
    set_units(&mut machine, vec![unit(VIP, &["node1"])], now);
    prove(&mut machine, &[VIP], now);
    machine.handle(peer.send(hello()), now);
    let other = IpAddr::from([172, 30, 0, 201]);
    machine.handle(peer.send(Body::Doubt(vec![VIP, other])), now);
    let rank = machine.owned().get(&VIP).expect("node1 owns the address").rank;
    assert_eq!(SoftRules::of_claim(rank), SoftRules::INELIGIBLE);
    // The doubt ends with a change of the unit, and with its lifetime.
    machine.handle(Input::Units { changed: vec![unit(VIP, &["node1"])], removed: vec![] }, now);
    let soft_rules = |machine: &ClaimMachine| {
        SoftRules::of_claim(machine.owned().get(&VIP).expect("an owner").rank)
    };
    assert_eq!(soft_rules(&machine), SoftRules::NONE);
    machine.handle(peer.send(Body::Doubt(vec![VIP])), now);
    let end = now + DOUBT_LIFETIME;
    let mut at = now;
    while at < end {
        assert_eq!(soft_rules(&machine), SoftRules::INELIGIBLE);
        at = (at + ms(40)).min(end);
        machine.handle(peer.send(hello()), at);
        machine.tick(at);
    }
    assert_eq!(soft_rules(&machine), SoftRules::NONE);
}

#[test]
fn two_owners_compare_the_ranks_that_they_state() {
    // The soft rules and the order that the peer states, and whether node1 keeps the address.
    let cases = [
        (SoftRules::NONE, 0, false),
        (SoftRules::NONE, u32::MAX, true),
        (SoftRules::CORDONED, 0, true),
        (SoftRules::INELIGIBLE, 0, true),
    ];
    for (soft_rules, order, keeps) in cases {
        let (mut machine, mut peer) = faults::machine_with_peer();
        machine.membership.end_preempt_delay();
        let now = Instant::from_millis(1_600);
        // In the view of node1, only node2 is cordoned. That has no effect.
        let view = change_candidates(&unit(VIP, &["node1", "node2"]), |candidate| {
            candidate.cordoned = &*candidate.node == "node2";
        });
        set_units(&mut machine, vec![unit(VIP, &["node1"])], now);
        set_units(&mut machine, vec![view], now);
        machine.handle(peer.send(claim_with(VIP, soft_rules, order)), now + ms(50));
        assert_eq!(machine.owned().contains_key(&VIP), keeps, "{soft_rules:?} {order}");
    }
}

#[test]
fn a_node_to_which_a_soft_rule_applies_sends_no_doubt() {
    let mut segment = settled_segment();
    let order = ranked(&NODES, VIP);
    // The last node considers itself the only candidate, and is cordoned.
    let view = change_candidates(&unit(VIP, &order[2..]), |candidate| candidate.cordoned = true);
    segment.set_units(order[2], vec![view]);
    let before = takes(&segment);
    segment.run(Duration::from_secs(30));
    assert_eq!((segment.owners(VIP), takes(&segment)), (vec![order[0]], before));
}
