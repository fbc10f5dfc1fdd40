//! Two interfaces of one node on one segment, a stalled main loop, and units with several
//! addresses.

use super::*;
use crate::wire::hello::{Body, FailingReport, ReleaseReason};

#[test]
fn of_two_links_of_a_node_on_one_wire_one_speaks() {
    let mut wire = settled();
    let owner = ranked(&THREE, VIP)[0];
    // Input from the thread of the owner's other interface.
    wire.input(owner, Input::SiblingInterface { is_active: true });
    assert!(wire.node(owner).machine.is_standby());
    wire.run(ms(2));
    assert_ne!(wire.owners(VIP), [owner], "it handed over and is silent");
    let sent = wire.sent_by(owner);
    for _ in 0..10 {
        wire.run(Duration::from_secs(1));
        wire.input(owner, Input::SiblingInterface { is_active: true });
    }
    assert_eq!(wire.sent_by(owner), sent, "not a word while the other link is heard");
    // The interfaces are on different segments again.
    wire.run(ms(3_400));
    assert_eq!((wire.node(owner).machine.is_standby(), wire.sent_by(owner)), (true, sent));
    wire.run(ms(200));
    assert!(!wire.node(owner).machine.is_standby() && wire.sent_by(owner) > sent);
    wire.run(Duration::from_secs(40));
    assert_eq!(wire.owners(VIP), [owner], "it has its address back after the failback delay");
}

#[test]
fn a_muted_link_that_precedes_the_other_one_from_now_on_speaks_at_once() {
    let mut wire = settled();
    let owner = ranked(&THREE, VIP)[0];
    wire.input(owner, Input::SiblingInterface { is_active: true });
    wire.run(ms(100));
    let sent = wire.sent_by(owner);
    wire.input(owner, Input::SiblingInterface { is_active: false });
    assert!(!wire.node(owner).machine.is_standby() && wire.sent_by(owner) > sent);
}

#[test]
fn a_link_that_is_no_longer_used_releases_at_once_and_claims_nothing_after_that() {
    let mut wire = settled();
    let order = ranked(&THREE, VIP);
    wire.input(order[0], Input::InterfaceRemoved);
    assert!(!wire.owners(VIP).contains(&order[0]));
    wire.run(ms(200));
    assert_eq!(wire.owners(VIP), [order[1]]);
    wire.run(Duration::from_secs(120));
    assert_eq!(wire.owners(VIP), [order[1]]);
    let suspicions: u64 =
        THREE.iter().map(|name| wire.node(name).machine.counts().suspicions).sum();
    assert_eq!((suspicions, wire.node(order[0]).left), (0, false));
}

#[test]
fn the_link_that_speaks_says_hello_at_once_and_no_more_than_once_a_stagger() {
    let mut wire = settled();
    let idle = ranked(&THREE, VIP)[2];
    wire.run(ms(200));
    let sent = wire.sent_by(idle);
    for _ in 0..10 {
        wire.input(idle, Input::SiblingInterface { is_active: false });
    }
    assert_eq!(wire.sent_by(idle), sent + 1);
}

#[test]
fn a_node_whose_main_loop_stands_still_hands_over_and_is_fresh_when_it_goes_on() {
    let mut wire = settled();
    let order = ranked(&THREE, VIP);
    wire.input(order[0], Input::MainLoopStalled(true));
    wire.run(ms(200));
    assert_eq!(wire.owners(VIP), [order[1]]);
    assert!(!wire.node(order[0]).left, "nobody asked it to end");
    wire.input(order[0], Input::MainLoopStalled(false));
    wire.run(Duration::from_secs(29));
    assert_eq!(wire.owners(VIP), [order[1]], "fresh");
    wire.run(Duration::from_secs(90));
    assert_eq!(wire.owners(VIP), [order[0]]);
    assert_eq!(wire.longest_gap(VIP), Duration::ZERO);
    assert!(wire.longest_double(VIP) <= ms(1), "make before break: {:?}", wire.longest_double(VIP));
}

#[test]
fn a_unit_of_many_addresses_is_one_conflict_and_moves_whole() {
    let addresses: Vec<IpAddr> = (0..4u16)
        .flat_map(|n| {
            [IpAddr::from([10, 0, 0, n as u8]), IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, n])]
        })
        .collect();
    let first = addresses[0];
    // Two units, such that the addresses of one are not adjacent in any order.
    let pair = [[addresses[0], addresses[1]], [addresses[2], addresses[3]]];
    let units: Vec<_> = pair.iter().map(|both| unit(both, &THREE)).collect();
    let mut wire = Wire::new(&THREE);
    wire.units(&units);
    wire.run(Duration::from_secs(40));
    let owner = ranked(&THREE, first)[0];
    wire.node(owner).cut = true;
    wire.run(Duration::from_secs(3));
    wire.node(owner).cut = false;
    wire.run(Duration::from_secs(2));
    for address in pair.iter().flatten() {
        assert_eq!(wire.owners(*address).len(), 1);
    }
    let conflicts: u64 = THREE.iter().map(|name| wire.node(name).machine.counts().conflicts).sum();
    assert!(conflicts <= 6, "two units met, and not four: {conflicts}");
}

#[test]
fn after_a_heal_who_asked_the_loser_is_told() {
    let mut wire = settled();
    let order = ranked(&THREE, VIP);
    wire.node(order[0]).cut = true;
    wire.run(Duration::from_secs(3));
    let told = wire.node(order[1]).refreshed;
    wire.node(order[0]).cut = false;
    wire.run(Duration::from_secs(1));
    assert_eq!(wire.owners(VIP), [order[1]]);
    assert!(wire.node(order[1]).refreshed > told);
}

#[test]
fn frames_that_overtake_each_other_cost_no_question() {
    let mut machine = ClaimMachine::new(config("node1", 1), Instant::ZERO);
    machine.handle(Input::Keys(vec![1]), Instant::ZERO);
    let at = Instant::from_millis(1_500);
    faults::introduce(&mut machine, "node2", 9, at);
    while machine.poll().is_some() {}
    let said = |clock, body| faults::said("node2", 9, clock, body);
    let address = |n: u8| vec![IpAddr::from([10, 0, 0, n])];
    let list = |part, n| Body::List {
        generation: 3,
        part,
        parts: 2,
        addresses: address(n),
        preempt_delays: vec![],
    };
    let hello = |generation| Body::Hello {
        generation,
        accepted_keys: vec![],
        failing: FailingReport::default(),
    };
    let claim = |n| Body::Claim {
        previous_generation: 3,
        generation: 4,
        addresses: address(n),
        preempt_delays: vec![],
    };
    let release = Body::Release {
        previous_generation: 2,
        generation: 3,
        addresses: address(1),
        reason: ReleaseReason::NotCandidate,
    };
    let claims = |machine: &ClaimMachine| machine.peers["node2"].claims.len();
    // The second part of a list, then the first, with a hello in between.
    machine.handle(said(12, list(1, 2)), at);
    machine.handle(said(13, hello(3)), at);
    machine.handle(said(11, list(0, 1)), at);
    assert_eq!((claims(&machine), machine.counts().stale_frames), (2, 0));
    // A claim that was overtaken by its hello.
    machine.handle(said(21, hello(4)), at);
    machine.handle(said(20, claim(3)), at);
    assert_eq!((claims(&machine), machine.counts().stale_frames), (3, 0));
    assert!(!machine.peers["node2"].missed, "it came after all");
    // Replayed frames are stale, each of them.
    for (clock, body) in [(11, list(0, 1)), (20, claim(4)), (9, release)] {
        machine.handle(said(clock, body), at);
        assert_eq!(claims(&machine), 3, "clock {clock}");
    }
    assert_eq!(machine.counts().stale_frames, 3);
}

#[test]
fn hellos_that_are_lost_for_a_minute_while_answers_pass_make_no_second_owner() {
    let mut wire = settled();
    // All multicast frames are lost; unicast frames arrive.
    wire.loses_multicast = true;
    wire.run(Duration::from_secs(60));
    assert_eq!(wire.owners(VIP), [ranked(&THREE, VIP)[0]]);
    assert_eq!((wire.longest_gap(VIP), wire.longest_double(VIP)), (Duration::ZERO, Duration::ZERO));
    let refuted: u64 = THREE.iter().map(|name| wire.node(name).machine.counts().refuted).sum();
    assert!(refuted > 100, "they were in doubt all the time: {refuted}");
}

#[test]
fn who_was_cut_off_and_started_anew_leaves_no_client_behind() {
    let mut wire = settled();
    let order = ranked(&THREE, VIP);
    wire.node(order[2]).cut = true;
    wire.run(Duration::from_secs(3));
    assert_eq!(wire.owners(VIP).len(), 2, "it answers on its side");
    let before = wire.node(order[0]).defended;
    wire.start(order[2]);
    wire.run(Duration::from_secs(2));
    assert_eq!(wire.owners(VIP), [order[0]]);
    assert_eq!(wire.node(order[0]).defended, before + 1);
}
