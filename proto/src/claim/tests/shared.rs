//! Two interfaces of one node on one segment, a stalled main loop, and Services with two addresses.

use super::*;
use crate::wire::hello::{Body, FailingReport, ReleaseReason};

#[test]
fn one_of_two_interfaces_of_a_node_on_a_segment_is_active() {
    let mut segment = settled_segment();
    let owner = ranked(&NODES, VIP)[0];
    // The thread of the owner's other interface reports that its interface becomes active.
    segment.input(owner, Input::SiblingInterface { is_active: true });
    assert!(segment.node(owner).machine.is_standby());
    segment.run(ms(2));
    assert_ne!(segment.owners(VIP), [owner], "the standby interface has handed over");
    let sent = segment.multicast_frames_sent(owner);
    for _ in 0..10 {
        segment.run(Duration::from_secs(1));
        segment.input(owner, Input::SiblingInterface { is_active: true });
    }
    assert_eq!(segment.multicast_frames_sent(owner), sent, "the standby interface sends nothing");
    // The interfaces are on different segments again.
    segment.run(ms(3_400));
    assert_eq!(
        (segment.node(owner).machine.is_standby(), segment.multicast_frames_sent(owner)),
        (true, sent)
    );
    segment.run(ms(200));
    assert!(
        !segment.node(owner).machine.is_standby() && segment.multicast_frames_sent(owner) > sent
    );
    segment.run(Duration::from_secs(40));
    assert_eq!(segment.owners(VIP), [owner], "the address returns after the preempt delay");
}

#[test]
fn a_standby_interface_that_becomes_active_sends_at_once() {
    let mut segment = settled_segment();
    let owner = ranked(&NODES, VIP)[0];
    segment.input(owner, Input::SiblingInterface { is_active: true });
    segment.run(ms(100));
    let sent = segment.multicast_frames_sent(owner);
    segment.input(owner, Input::SiblingInterface { is_active: false });
    assert!(
        !segment.node(owner).machine.is_standby() && segment.multicast_frames_sent(owner) > sent
    );
}

#[test]
fn a_removed_interface_releases_at_once_and_claims_nothing() {
    let mut segment = settled_segment();
    let order = ranked(&NODES, VIP);
    segment.input(order[0], Input::InterfaceRemoved);
    assert!(!segment.owners(VIP).contains(&order[0]));
    segment.run(ms(200));
    assert_eq!(segment.owners(VIP), [order[1]]);
    segment.run(Duration::from_secs(120));
    assert_eq!(segment.owners(VIP), [order[1]]);
    let suspicions: u64 =
        NODES.iter().map(|name| segment.node(name).machine.counts().suspicions).sum();
    assert_eq!((suspicions, segment.node(order[0]).finished), (0, false));
}

#[test]
fn the_active_interface_sends_at_most_one_hello_per_stagger() {
    let mut segment = settled_segment();
    let idle = ranked(&NODES, VIP)[2];
    segment.run(ms(200));
    let sent = segment.multicast_frames_sent(idle);
    for _ in 0..10 {
        segment.input(idle, Input::SiblingInterface { is_active: false });
    }
    assert_eq!(segment.multicast_frames_sent(idle), sent + 1);
}

#[test]
fn a_stalled_main_loop_causes_a_handover_and_a_preempt_delay() {
    let mut segment = settled_segment();
    let order = ranked(&NODES, VIP);
    segment.input(order[0], Input::MainLoopStalled(true));
    segment.run(ms(200));
    assert_eq!(segment.owners(VIP), [order[1]]);
    assert!(!segment.node(order[0]).finished, "a stalled main loop does not finish the handover");
    segment.input(order[0], Input::MainLoopStalled(false));
    segment.run(Duration::from_secs(29));
    assert_eq!(segment.owners(VIP), [order[1]], "the former owner is in preempt delay");
    segment.run(Duration::from_secs(90));
    assert_eq!(segment.owners(VIP), [order[0]]);
    assert_eq!(segment.longest_gap(VIP), Duration::ZERO);
    assert!(
        segment.longest_overlap(VIP) <= ms(1),
        "two nodes own the address for {:?}",
        segment.longest_overlap(VIP)
    );
}

#[test]
fn all_addresses_of_a_service_have_one_owner_after_a_partition() {
    let addresses: Vec<IpAddr> = (0..4u16)
        .flat_map(|n| {
            [IpAddr::from([10, 0, 0, n as u8]), IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, n])]
        })
        .collect();
    let first = addresses[0];
    // Both addresses of a Service have the order of the first one.
    let order_of = |index: usize| addresses[index - index % 2];
    let units: Vec<_> = addresses
        .iter()
        .take(4)
        .enumerate()
        .map(|(index, address)| unit_ordered_by(order_of(index), *address, &NODES))
        .collect();
    let mut segment = Segment::new(&NODES);
    segment.units(&units);
    segment.run(Duration::from_secs(40));
    let owner = ranked(&NODES, first)[0];
    segment.node(owner).partitioned = true;
    segment.run(Duration::from_secs(3));
    segment.node(owner).partitioned = false;
    segment.run(Duration::from_secs(2));
    for (index, address) in addresses.iter().take(4).enumerate() {
        assert_eq!(segment.owners(*address).len(), 1);
        assert_eq!(segment.owners(*address), segment.owners(order_of(index)));
    }
    let conflicts: u64 =
        NODES.iter().map(|name| segment.node(name).machine.counts().conflicts).sum();
    assert!(conflicts <= 12, "more than three conflicts for each of four addresses: {conflicts}");
}

#[test]
fn the_owner_announces_again_after_a_partition() {
    let mut segment = settled_segment();
    let order = ranked(&NODES, VIP);
    segment.node(order[0]).partitioned = true;
    segment.run(Duration::from_secs(3));
    let before = segment.node(order[1]).announce_series;
    segment.node(order[0]).partitioned = false;
    segment.run(Duration::from_secs(1));
    assert_eq!(segment.owners(VIP), [order[1]]);
    assert!(segment.node(order[1]).announce_series > before);
}

#[test]
fn reordered_frames_are_applied_and_replays_are_stale() {
    let mut machine = ClaimMachine::new(config("node1", 1), Instant::ZERO);
    machine.handle(Input::Keys(vec![1]), Instant::ZERO);
    let at = Instant::from_millis(1_500);
    faults::admit_peer(&mut machine, "node2", 9, at);
    while machine.poll().is_some() {}
    let node2_frame = |clock, body| faults::frame_from("node2", 9, clock, body);
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
    // The second part of a list arrives before the first part, with a hello in between.
    machine.handle(node2_frame(12, list(1, 2)), at);
    machine.handle(node2_frame(13, hello(3)), at);
    machine.handle(node2_frame(11, list(0, 1)), at);
    assert_eq!((claims(&machine), machine.counts().stale_frames), (2, 0));
    // A claim arrives after the hello that followed it.
    machine.handle(node2_frame(21, hello(4)), at);
    machine.handle(node2_frame(20, claim(3)), at);
    assert_eq!((claims(&machine), machine.counts().stale_frames), (3, 0));
    assert!(!machine.peers["node2"].missed, "the late claim is applied");
    // All replayed frames are stale.
    for (clock, body) in [(11, list(0, 1)), (20, claim(4)), (9, release)] {
        machine.handle(node2_frame(clock, body), at);
        assert_eq!(claims(&machine), 3, "claims after the frame with clock value {clock}");
    }
    assert_eq!(machine.counts().stale_frames, 3);
}

#[test]
fn challenge_responses_prevent_a_second_owner_without_hellos() {
    let mut segment = settled_segment();
    // All multicast frames are lost; unicast frames arrive.
    segment.loses_multicast = true;
    segment.run(Duration::from_secs(60));
    assert_eq!(segment.owners(VIP), [ranked(&NODES, VIP)[0]]);
    assert_eq!(
        (segment.longest_gap(VIP), segment.longest_overlap(VIP)),
        (Duration::ZERO, Duration::ZERO)
    );
    let refuted: u64 = NODES.iter().map(|name| segment.node(name).machine.counts().refuted).sum();
    assert!(refuted > 100, "too few refuted suspicions: {refuted}");
}

#[test]
fn the_owner_announces_after_a_partitioned_peer_restarts() {
    let mut segment = settled_segment();
    let order = ranked(&NODES, VIP);
    segment.node(order[2]).partitioned = true;
    segment.run(Duration::from_secs(3));
    assert_eq!(segment.owners(VIP).len(), 2, "the partitioned node announces on its side");
    let before = segment.node(order[0]).defenses;
    segment.start(order[2]);
    segment.run(Duration::from_secs(2));
    assert_eq!(segment.owners(VIP), [order[0]]);
    assert_eq!(segment.node(order[0]).defenses, before + 1);
}
