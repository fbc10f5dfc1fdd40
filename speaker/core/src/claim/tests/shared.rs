//! Two interfaces of one node on one segment, a stalled main loop, and Services with two addresses.

use super::peer::claim_of;
use super::*;

#[test]
fn one_of_two_interfaces_of_a_node_on_a_segment_is_active() {
    let mut segment = settled_segment();
    let owner = ranked(&NODES, VIP)[0];
    // The thread of the owner's other interface reports that its interface becomes active.
    segment.input(owner, Input::SiblingInterface { is_active: true });
    assert!(segment.node(owner).machine.members().own().is_standby());
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
        (
            segment.node(owner).machine.members().own().is_standby(),
            segment.multicast_frames_sent(owner)
        ),
        (true, sent)
    );
    segment.run(ms(200));
    assert!(
        !segment.node(owner).machine.members().own().is_standby()
            && segment.multicast_frames_sent(owner) > sent
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
        !segment.node(owner).machine.members().own().is_standby()
            && segment.multicast_frames_sent(owner) > sent
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
    segment.run(ms(100));
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
    let (mut machine, mut peer) = faults::machine_with_peer();
    let at = Instant::from_millis(1_500);
    let address = |n: u8| IpAddr::from([10, 0, 0, n]);
    let stretch = |after, last, n| {
        Body::List(Stretch { after, last, claims: vec![claim_of("node2", address(n))] })
    };
    // The node claims two addresses, and the claims are lost. The second stretch of its list
    // arrives before the first one, with a hello in between.
    drop(peer.send(claim(&[address(1), address(2)])));
    let first = peer.send(stretch(None, Some(address(1)), 1));
    let second = peer.send(stretch(Some(address(1)), None, 2));
    for input in [second.clone(), peer.send(hello()), first.clone()] {
        machine.handle(input, at);
    }
    assert_eq!((known_claims(&machine, "node2").len(), machine.counts().stale_frames), (2, 0));
    // A claim and a release arrive after the hellos that followed them.
    let claimed = peer.send(claim(&[address(3)]));
    for input in [peer.send(hello()), claimed.clone()] {
        machine.handle(input, at);
    }
    assert_eq!((known_claims(&machine, "node2").len(), machine.counts().stale_frames), (3, 0));
    let released = peer.send(hand_over(&[address(1)]));
    for input in [peer.send(hello()), released.clone()] {
        machine.handle(input, at);
    }
    let known = [address(2), address(3)];
    assert_eq!((known_claims(&machine, "node2"), machine.counts().stale_frames), (known.into(), 0));
    // All replayed frames are stale.
    peer.clock += Duration::from_secs(1).as_nanos() as u64;
    machine.handle(peer.send(hello()), at);
    for input in [first, second, claimed, released] {
        machine.handle(input, at);
        assert_eq!(known_claims(&machine, "node2"), known);
    }
    assert_eq!(machine.counts().stale_frames, 4);
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
