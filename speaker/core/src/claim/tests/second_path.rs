//! Filtered frames of the ownership protocol: the second path, and what happens without it.

use super::*;

/// Returns a settled segment whose second path leads through another network, and the nodes in
/// order of rank. Announcements arrive.
fn segment_with_second_path() -> (Segment, Vec<&'static str>) {
    let mut segment = settled_segment();
    segment.has_second_path = true;
    segment.announcements_arrive = true;
    (segment, ranked(&NODES, VIP))
}

fn unheard(segment: &mut Segment, name: &str) -> Vec<String> {
    segment.node(name).machine.members().peers().unheard().map(Into::into).collect()
}

fn no_gap_or_overlap(segment: &Segment) {
    assert_eq!(
        (segment.longest_gap(VIP), segment.longest_overlap(VIP)),
        (Duration::ZERO, Duration::ZERO)
    );
}

#[test]
fn a_node_that_filters_frames_takes_nothing() {
    for filtered in [&[1][..], &[0], &[0, 1, 2]] {
        let (mut segment, order) = segment_with_second_path();
        filtered.iter().for_each(|index| segment.node(order[*index]).filters = true);
        segment.run(Duration::from_secs(60));
        assert_eq!(segment.owners(VIP), [order[0]], "{filtered:?}");
        no_gap_or_overlap(&segment);
        let expected = if filtered.contains(&1) { vec![order[0].to_owned()] } else { vec![] };
        assert!(unheard(&mut segment, order[1]).starts_with(&expected), "{filtered:?}");
        let failures = segment.node(order[1]).machine.counts().peer_failures;
        assert_eq!(failures, 0, "{filtered:?}");
        filtered.iter().for_each(|index| segment.node(order[*index]).filters = false);
        segment.run(Duration::from_secs(2));
        assert!(unheard(&mut segment, order[1]).is_empty(), "the frames arrive again");
        no_gap_or_overlap(&segment);
    }
}

#[test]
fn an_unheard_owner_hands_over_and_its_successor_is_known() {
    let (mut segment, order) = segment_with_second_path();
    segment.nodes.iter_mut().for_each(|node| node.filters = true);
    segment.run(Duration::from_secs(2));
    let draining = NodeState { draining: true, ..NodeState::default() };
    segment.input(order[0], Input::NodeState(draining));
    segment.run(Duration::from_secs(2));
    assert_eq!(segment.owners(VIP), [order[1]]);
    assert_eq!(segment.longest_gap(VIP), Duration::ZERO);
    assert!(segment.longest_overlap(VIP) <= ms(300), "{:?}", segment.longest_overlap(VIP));
    assert_eq!(known_claims(&segment.node(order[2]).machine, order[1]), [VIP]);
}

#[test]
fn the_failure_of_an_unheard_owner_is_detected() {
    let (mut segment, order) = segment_with_second_path();
    segment.nodes.iter_mut().for_each(|node| node.filters = true);
    segment.run(Duration::from_secs(2));
    segment.node(order[0]).up = false;
    segment.run(Duration::from_secs(3));
    assert_eq!(segment.owners(VIP), [order[1]]);
    let gap = segment.longest_gap(VIP);
    assert!(gap <= UNHEARD_FAILOVER_MAX, "no owner for {gap:?}");
    assert!(segment.longest_overlap(VIP) <= ms(100), "{:?}", segment.longest_overlap(VIP));
}

/// Maximum time without an owner after the failure of an unheard one: the interval of the
/// challenges, the challenges, and a stagger.
const UNHEARD_FAILOVER_MAX: Duration = Duration::from_millis(1_250);

#[test]
fn a_peer_that_is_cut_off_or_mute_fails_although_the_second_path_works() {
    let (mut segment, order) = segment_with_second_path();
    segment.node(order[0]).partitioned = true;
    segment.run(Duration::from_secs(2));
    assert!(segment.owners(VIP).contains(&order[1]));
    assert_eq!(segment.node(order[1]).machine.counts().peer_failures, 1, "it is cut off");
    assert_eq!(segment.node(order[1]).failovers.len(), 1);
    assert!(segment.node(order[1]).failovers[0] <= ms(250));

    let (mut segment, order) = segment_with_second_path();
    segment.node(order[0]).is_mute = true;
    segment.run(Duration::from_secs(2));
    assert!(segment.node(order[1]).announced.contains(&VIP));
    assert!(segment.node(order[1]).failovers[0] <= ms(270), "a mute peer receives the challenge");
}

#[test]
fn without_a_second_path_each_address_has_one_owner() {
    for filtered in [&[1][..], &[0], &[0, 1, 2]] {
        let (mut segment, order) = segment_with_second_path();
        segment.has_second_path = false;
        filtered.iter().for_each(|index| segment.node(order[*index]).filters = true);
        segment.run(Duration::from_secs(60));
        assert_eq!(segment.owners(VIP), [order[0]], "{filtered:?}");
        assert_eq!(segment.longest_gap(VIP), Duration::ZERO, "{filtered:?}");
        let overlap = segment.longest_overlap(VIP);
        assert!(overlap <= ms(200), "{filtered:?}: two owners for {overlap:?}");
        let reported: Vec<_> =
            segment.nodes.iter().flat_map(|node| node.machine.conflicts()).collect();
        let is_filtered = |it: &AddressConflict| matches!(it.kind, ConflictKind::UnheardPeer(_));
        // If the owner alone filters, the others hear it, and no conflict shows the filter.
        assert_eq!(reported.is_empty(), filtered == [0], "{filtered:?}");
        assert!(reported.iter().all(is_filtered), "{filtered:?}: {reported:?}");
        for name in &order[1..] {
            assert!(segment.node(name).starts <= 1, "{filtered:?}: {name} takes the address again");
        }
        segment.node(order[0]).up = false;
        segment.run(Duration::from_secs(15));
        assert_eq!(segment.owners(VIP).len(), 1, "{filtered:?}");
        let gap = segment.longest_gap(VIP);
        assert!(gap <= ms(12_500), "{filtered:?}: no owner for {gap:?}");
    }
}

#[test]
fn nodes_that_have_never_heard_each_other_find_one_owner() {
    let mut segment = Segment::new(&NODES);
    segment.announcements_arrive = true;
    segment.nodes.iter_mut().for_each(|node| node.filters = true);
    let addresses: Vec<_> = (1..=20).map(|n| IpAddr::from([10, 0, 0, n])).collect();
    let units: Vec<_> = addresses.iter().map(|address| unit(*address, &NODES)).collect();
    segment.units(&units);
    segment.run(Duration::from_secs(4));
    for address in &addresses {
        let first = ranked(&NODES, *address)[0];
        assert_eq!(segment.owners(*address), [first], "the best candidate waits least");
        segment.watch_owners(*address);
    }
    segment.run(Duration::from_secs(60));
    for address in &addresses {
        assert_eq!(segment.longest_gap(*address), Duration::ZERO);
        assert_eq!(segment.longest_overlap(*address), Duration::ZERO);
    }
}

#[test]
fn a_forged_announcement_of_a_failed_peer_takes_nothing() {
    let (mut segment, order) = segment_with_second_path();
    let mac = segment.node(order[0]).mac;
    segment.node(order[0]).up = false;
    segment.run(Duration::from_secs(2));
    segment.watch_owners(VIP);
    for _ in 0..100 {
        segment.input(order[1], Input::ForeignFrame { address: VIP, mac, announced: true });
        segment.run(ms(37));
    }
    assert_eq!(segment.owners(VIP), [order[1]]);
    no_gap_or_overlap(&segment);
}

#[test]
fn datagrams_that_are_old_or_of_unknown_peers_have_no_effect() {
    let mut machine = ClaimMachine::new(config("node1", 1), Instant::ZERO);
    let now = Instant::from_millis(5_000);
    machine.handle(Input::Keys(vec![1]), Instant::ZERO);
    let mut peer = TestPeer::new("node2", 2);
    let datagram = |peer: &mut TestPeer, body| {
        let Input::Frame { frame, .. } = peer.send(body) else { unreachable!("a frame") };
        Input::Datagram(frame)
    };
    let reports = |machine: &mut ClaimMachine| {
        let outputs: Vec<_> = std::iter::from_fn(|| machine.poll()).collect();
        let is_report = |output: &&Output| {
            matches!(output, Output::SendDatagram { frame, .. }
                if matches!(frame.body, Body::PathReport { .. }))
        };
        outputs.iter().filter(is_report).count()
    };
    let challenge = datagram(&mut peer, Body::Challenge { nonce: 1 });
    machine.handle(challenge, now);
    assert_eq!(reports(&mut machine), 0, "the peer is unknown");
    peer.admit(&mut machine, now);
    let challenge = datagram(&mut peer, Body::Challenge { nonce: 2 });
    machine.handle(challenge.clone(), now);
    assert_eq!(reports(&mut machine), 1);
    peer.clock += ms(25).as_nanos() as u64;
    let later = datagram(&mut peer, hello());
    machine.handle(later, now);
    machine.handle(challenge, now);
    assert_eq!(reports(&mut machine), 0, "the challenge is a recording");
    let claim = datagram(&mut peer, claim(&[VIP]));
    machine.handle(claim, now);
    assert!(known_claims(&machine, "node2").is_empty(), "the peer is heard on the segment");
    let mut restarted = TestPeer { epoch: 3, ..peer.clone() };
    let challenge = datagram(&mut restarted, Body::Challenge { nonce: 3 });
    machine.handle(challenge, now);
    assert_eq!(reports(&mut machine), 0, "the peer has another epoch");
}
