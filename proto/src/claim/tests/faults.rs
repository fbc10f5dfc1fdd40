//! Death, silence, loss, stalls, partitions, and frames that lie.

use super::*;
use crate::wire::hello::Body;

const THREE: [&str; 3] = ["node1", "node2", "node3"];

fn settled() -> Wire {
    let mut wire = Wire::new(&THREE);
    wire.units(&[unit(&[VIP], &THREE)]);
    wire.run(Duration::from_secs(40));
    wire.watch(VIP);
    wire
}

#[test]
fn a_dead_owner_is_answered_for_within_200_ms() {
    let mut wire = settled();
    let order = ranked(&THREE, VIP);
    wire.node(order[0]).up = false;
    wire.run(Duration::from_secs(2));
    assert_eq!(wire.owners(VIP), [order[1]]);
    let gap = wire.longest_gap(VIP);
    assert!(gap >= ms(140) && gap <= ms(200), "{gap:?}");
    assert_eq!(wire.longest_double(VIP), Duration::ZERO);
    assert_eq!(wire.node(order[1]).machine.counts().deaths, 1);
}

#[test]
fn both_best_dead_is_answered_for_by_the_third() {
    let mut wire = settled();
    let order = ranked(&THREE, VIP);
    wire.node(order[0]).up = false;
    wire.node(order[1]).up = false;
    wire.run(Duration::from_secs(1));
    assert_eq!(wire.owners(VIP), [order[2]], "the second in rank is not waited for longer than its stagger");
    assert!(wire.longest_gap(VIP) <= ms(260), "{:?}", wire.longest_gap(VIP));
}

#[test]
fn a_death_that_concerns_nobody_moves_nothing() {
    let mut wire = settled();
    let order = ranked(&THREE, VIP);
    wire.node(order[2]).up = false;
    wire.run(Duration::from_secs(10));
    assert_eq!(wire.owners(VIP), [order[0]]);
    assert_eq!((wire.longest_gap(VIP), wire.longest_double(VIP)), (Duration::ZERO, Duration::ZERO));
}

#[test]
fn a_dead_owner_behind_a_proxy_is_asked_for_a_second() {
    let mut wire = settled();
    let order = ranked(&THREE, VIP);
    wire.proxy = true;
    wire.node(order[0]).up = false;
    wire.run(Duration::from_secs(3));
    assert_eq!(wire.owners(VIP), [order[1]]);
    let gap = wire.longest_gap(VIP);
    assert!(gap > ms(1000) && gap < ms(1250), "{gap:?}");
}

#[test]
fn lost_hellos_alone_move_nothing() {
    let mut wire = settled();
    let order = ranked(&THREE, VIP);
    // A tenth of all frames for half a minute: three hellos in a row are lost now and then; the challenge saves them.
    wire.loses = |number| (number * 2_654_435_761) % 4_294_967_296 < 429_496_730;
    wire.run(Duration::from_secs(30));
    assert_eq!(wire.owners(VIP), [order[0]]);
    assert_eq!((wire.longest_gap(VIP), wire.longest_double(VIP)), (Duration::ZERO, Duration::ZERO));
}

#[test]
fn a_lost_claim_is_made_good_by_the_next_hello() {
    let mut wire = Wire::new(&THREE);
    wire.run(Duration::from_secs(40));
    wire.loses = |_| true;
    let (first, rest) = (ranked(&THREE, VIP)[0], ranked(&THREE, VIP)[1..].to_vec());
    wire.input(first, Input::Units(vec![unit(&[VIP], &THREE)]));
    wire.run(ms(5));
    wire.loses = |_| false;
    for name in rest {
        wire.input(name, Input::Units(vec![unit(&[VIP], &THREE)]));
    }
    wire.watch(VIP);
    wire.run(Duration::from_secs(5));
    assert_eq!(wire.owners(VIP), [first]);
    assert_eq!(wire.longest_double(VIP), Duration::ZERO);
}

#[test]
fn after_a_partition_one_owner_is_left() {
    let mut wire = settled();
    let order = ranked(&THREE, VIP);
    wire.node(order[0]).cut = true;
    wire.run(Duration::from_secs(3));
    assert_eq!(wire.owners(VIP).len(), 2, "each side answers its own clients");
    wire.node(order[0]).cut = false;
    wire.watch(VIP);
    wire.run(Duration::from_secs(3));
    assert_eq!(wire.owners(VIP), [order[1]], "the one that was alone is fresh, and yields");
    assert!(wire.longest_double(VIP) <= ms(120), "{:?}", wire.longest_double(VIP));
    assert_eq!(wire.longest_gap(VIP), Duration::ZERO);
}

#[test]
fn a_frozen_owner_gives_up_all_it_had_before_it_answers_again() {
    let mut wire = settled();
    let order = ranked(&THREE, VIP);
    wire.node(order[0]).frozen = true;
    wire.run(Duration::from_secs(2));
    assert_eq!(wire.owners(VIP), [order[1]]);
    wire.node(order[0]).frozen = false;
    assert_eq!(wire.owners(VIP), [order[1]], "the gate is shut before anything was handled");
    wire.run(Duration::from_secs(5));
    assert_eq!(wire.owners(VIP), [order[1]]);
    assert_eq!(wire.node(order[0]).machine.counts().fences, 1);
    assert_eq!(wire.longest_double(VIP), Duration::ZERO);
}

#[test]
fn a_stall_that_nobody_noticed_costs_nothing() {
    let mut wire = settled();
    let order = ranked(&THREE, VIP);
    wire.node(order[0]).frozen = true;
    wire.run(ms(95));
    wire.node(order[0]).frozen = false;
    wire.run(Duration::from_secs(5));
    assert_eq!(wire.owners(VIP), [order[0]]);
    assert_eq!(wire.node(order[0]).machine.counts().fences, 0);
}

#[test]
fn a_node_back_within_its_own_death_loses_its_old_claims() {
    let mut wire = settled();
    let order = ranked(&THREE, VIP);
    wire.node(order[0]).up = false;
    wire.run(ms(50));
    wire.start(order[0]);
    wire.input(order[0], Input::Units(vec![unit(&[VIP], &THREE)]));
    wire.run(ms(200));
    assert_eq!(wire.owners(VIP), [order[1]], "the new epoch voids the old claim at once");
}

#[test]
fn replayed_and_reflected_frames_are_counted_and_ignored() {
    let mut wire = settled();
    let order = ranked(&THREE, VIP);
    let body = Body::Release { before: 1, generation: 2, addresses: vec![VIP], refused: true };
    let (flags, interval) = (Flags::default(), ms(50));
    let epoch = wire.node(order[0]).machine.config.epoch;
    let old =
        |node: &str| Frame { node: node.into(), epoch, sequence: 1, clock: 1, interval, flags, body: body.clone() };
    for frame in [old(order[0]), old(order[1])] {
        wire.input(order[1], Input::Frame { source: Mac([2, 0, 0, 0, 0, 66]), frame });
    }
    let counts = wire.node(order[1]).machine.counts();
    assert_eq!((counts.stale_frames, counts.own_name), (1, 1));
    wire.run(ms(300));
    assert_eq!(wire.owners(VIP), [order[0]]);
}

#[test]
fn the_tables_have_limits() {
    let mut machine = Claims::new(config("node1", 1), Instant::ZERO);
    machine.handle(Input::Keys(vec![1]), Instant::ZERO);
    let frame = |node: String, body| Frame {
        node: node.into(),
        epoch: 9,
        sequence: 1,
        clock: 1,
        interval: ms(50),
        flags: Flags::default(),
        body,
    };
    for n in 0..=PEERS_MAX {
        let frame = frame(format!("peer{n}"), Body::Hello { generation: 0, accepts: vec![] });
        machine.handle(Input::Frame { source: Mac::ZERO, frame }, Instant::ZERO);
    }
    assert_eq!((machine.heard().count(), machine.counts().over_limit), (PEERS_MAX, 1));
}

#[test]
fn a_stall_past_the_gate_but_within_the_others_patience_is_made_good_by_a_hello() {
    let mut wire = settled();
    let order = ranked(&THREE, VIP);
    wire.run(ms(1));
    let last_hello = wire.node(order[0]).machine.own.last_hello;
    wire.node(order[0]).frozen = true;
    wire.run((last_hello + ms(130)).since(wire.now));
    wire.node(order[0]).frozen = false;
    wire.run(Duration::from_secs(5));
    assert_eq!(wire.owners(VIP), [order[0]]);
    assert_eq!(wire.node(order[0]).machine.counts().fences, 0);
    assert!(wire.longest_gap(VIP) <= ms(140), "{:?}", wire.longest_gap(VIP));
}

#[test]
fn a_claim_is_restated_within_25_ms() {
    let mut wire = Wire::new(&["node1"]);
    wire.run(Duration::from_secs(40));
    wire.input("node1", Input::Units(vec![unit(&[VIP], &["node1"])]));
    let due = wire.node("node1").machine.deadline().expect("a hello is due");
    assert!(due.since(wire.now) <= ms(25));
}

/// A machine that listened long enough, and a peer that only says what the test lets it say.
fn with_a_peer() -> (Claims, impl Fn(u64, u64, Body) -> Input) {
    let mut machine = Claims::new(config("node1", 1), Instant::ZERO);
    machine.handle(Input::Keys(vec![1]), Instant::ZERO);
    machine.tick(Instant::from_millis(1000));
    let said = |epoch, clock: u64, body| {
        let (sequence, flags) = (u32::try_from(clock).expect("a small clock"), Flags::default());
        let frame = Frame { node: "node2".into(), epoch, sequence, clock, interval: ms(50), flags, body };
        Input::Frame { source: Mac([2, 0, 0, 0, 0, 2]), frame }
    };
    (machine, said)
}

#[test]
fn a_claim_that_is_not_restated_for_12_s_is_forgotten() {
    let (mut machine, said) = with_a_peer();
    let mut at = Instant::from_millis(2000);
    machine.handle(said(1, 1, Body::Claim { before: 4, generation: 5, addresses: vec![VIP] }), at);
    machine.handle(Input::Units(vec![unit(&[VIP], &["node1"])]), at);
    // It lives, but its hellos speak of a set that we never learn.
    for n in 2..240 {
        at = at + ms(50);
        machine.handle(said(1, n, Body::Hello { generation: 9, accepts: vec![] }), at);
        machine.tick(at);
    }
    assert!(at.since(Instant::from_millis(2000)) < CLAIM_LIFETIME && machine.peers["node2"].claims.contains(&VIP));
    at = at + ms(101);
    machine.handle(said(1, 240, Body::Hello { generation: 9, accepts: vec![] }), at);
    machine.tick(at);
    assert!(machine.peers["node2"].claims.is_empty());
}

#[test]
fn frames_of_a_former_epoch_are_stale() {
    let (mut machine, said) = with_a_peer();
    let at = Instant::from_millis(2000);
    machine.handle(said(1, 5, Body::Hello { generation: 0, accepts: vec![] }), at);
    machine.handle(said(2, 1, Body::Hello { generation: 0, accepts: vec![] }), at);
    machine.handle(said(1, 6, Body::Claim { before: 0, generation: 1, addresses: vec![VIP] }), at);
    assert_eq!(machine.counts().stale_frames, 1);
    assert!(machine.peers["node2"].claims.is_empty());
}

#[test]
fn a_thousand_addresses_move_in_a_few_frames_and_are_never_answered_for_twice() {
    let units: Vec<_> = (0..1000u16).map(|n| unit(&[IpAddr::from([10, 0, (n >> 8) as u8, n as u8])], &THREE)).collect();
    let mut wire = Wire::new(&THREE);
    wire.units(&units);
    wire.run(Duration::from_secs(40));
    wire.node("node1").up = false;
    units.iter().for_each(|unit| wire.watch(unit.addresses[0]));
    let sent = wire.sent;
    wire.run(ms(400));
    assert!(wire.sent - sent < 60, "{} frames", wire.sent - sent);
    for unit in &units {
        let address = unit.addresses[0];
        assert_eq!(wire.owners(address).len(), 1);
        assert_eq!(wire.longest_double(address), Duration::ZERO);
        assert!(wire.longest_gap(address) <= ms(200), "{:?}", wire.longest_gap(address));
    }
}
