//! Node failures, missing hellos, frame loss, stalls, partitions, and replayed frames.

use ferrolb_proto::wire::hello::PEERS_MAX;

use super::*;
use crate::claim::NodeState;

#[test]
fn a_failed_owner_is_replaced_within_200_ms() {
    let mut segment = settled_segment();
    let order = ranked(&NODES, VIP);
    segment.node(order[0]).up = false;
    segment.run(Duration::from_secs(2));
    assert_eq!(segment.owners(VIP), [order[1]]);
    let gap = segment.longest_gap(VIP);
    assert!(gap >= ms(140) && gap <= ms(200), "no owner for {gap:?}");
    assert_eq!(segment.longest_overlap(VIP), Duration::ZERO);
    assert_eq!(segment.node(order[1]).machine.counts().peer_failures, 1);
    let failovers = segment.node(order[1]).failovers.clone();
    assert!(
        failovers.len() == 1 && failovers[0] >= ms(189) && failovers[0] <= ms(200),
        "durations of the failovers: {failovers:?}"
    );
}

/// Returns the time from the latest frame of a peer until that peer is declared failed. Another
/// peer sends frames meanwhile. From the first suspicion on, dropped frames are reported every 20
/// ms for `losses`.
fn failure_detection_time(losses: Duration) -> Duration {
    let (mut machine, mut node2) = machine_with_peer();
    let start = Instant::from_millis(1_500);
    TestPeer::admitted("node3", 3, &mut machine, start);
    machine.handle(node2.send(claim(&[VIP])), start);
    for n in 0..200 {
        let (now, since) = (start + ms(20 * n), ms(20 * n));
        machine.handle(frame_from("node3", 3, 10 + n, Body::ListRequest), now);
        if since >= ms(160) && since < ms(160) + losses {
            machine.handle(Input::FramesDropped, now);
        }
        machine.tick(now);
        if machine.members().peers().get_live("node2").is_none() {
            return since;
        }
    }
    panic!("node2 is never declared failed");
}

#[test]
fn dropped_frames_delay_failure_detection_only_for_a_while() {
    assert_eq!(failure_detection_time(ms(0)), ms(200));
    assert_eq!(
        failure_detection_time(ms(100)),
        ms(280),
        "the peer fails 40 ms after the latest report of dropped frames"
    );
    let always = failure_detection_time(Duration::from_secs(60));
    assert!(always >= ms(1_150) && always <= ms(1_240), "node2 fails after {always:?}");
}

#[test]
fn only_a_failover_is_counted_and_only_once() {
    let mut segment = settled_segment();
    let order = ranked(&NODES, VIP);
    segment.node(order[0]).up = false;
    segment.run(Duration::from_secs(5));
    assert_eq!(segment.node(order[1]).failovers.len(), 1);
    segment.input(order[1], Input::NodeState(NodeState { draining: true, ..NodeState::default() }));
    segment.run(Duration::from_secs(1));
    assert_eq!(segment.owners(VIP), [order[2]]);
    assert!(segment.node(order[2]).failovers.is_empty(), "a handover is no failover");

    let mut segment = settled_segment();
    // The others are no candidates, and become candidates a minute after the owner's failure.
    for name in &order[1..] {
        segment.set_units(name, vec![unit(VIP, &[order[0]])]);
    }
    segment.node(order[0]).up = false;
    segment.run(Duration::from_secs(61));
    for name in &order[1..] {
        segment.set_units(name, vec![unit(VIP, &NODES)]);
    }
    segment.run(Duration::from_secs(1));
    assert_eq!(segment.owners(VIP), [order[1]]);
    assert!(
        segment.node(order[1]).failovers.is_empty(),
        "a move a minute after the failure is no failover"
    );
}

#[test]
fn the_third_candidate_replaces_two_failed_nodes() {
    let mut segment = settled_segment();
    let order = ranked(&NODES, VIP);
    segment.node(order[0]).up = false;
    segment.node(order[1]).up = false;
    segment.run(Duration::from_secs(1));
    assert_eq!(
        segment.owners(VIP),
        [order[2]],
        "the third candidate waits one stagger for the second"
    );
    assert!(segment.longest_gap(VIP) <= ms(260), "no owner for {:?}", segment.longest_gap(VIP));
}

#[test]
fn the_failure_of_a_node_without_addresses_moves_nothing() {
    let mut segment = settled_segment();
    let order = ranked(&NODES, VIP);
    segment.node(order[2]).up = false;
    segment.run(Duration::from_secs(10));
    assert_eq!(segment.owners(VIP), [order[0]]);
    assert_eq!(
        (segment.longest_gap(VIP), segment.longest_overlap(VIP)),
        (Duration::ZERO, Duration::ZERO)
    );
}

#[test]
fn a_proxy_does_not_delay_the_failover() {
    let mut segment = settled_segment();
    let order = ranked(&NODES, VIP);
    segment.proxy = true;
    segment.node(order[0]).up = false;
    segment.run(Duration::from_secs(3));
    assert_eq!(segment.owners(VIP), [order[1]]);
    let gap = segment.longest_gap(VIP);
    assert!(gap <= ms(200), "no owner for {gap:?}");
}

#[test]
fn lost_frames_move_no_address() {
    let mut segment = settled_segment();
    let order = ranked(&NODES, VIP);
    // A tenth of all frames is lost for half a minute. Now and then that is three hellos in a row,
    // but then the challenge gets a reply.
    segment.is_lost = |number| (number * 2_654_435_761) % 4_294_967_296 < 429_496_730;
    segment.run(Duration::from_secs(30));
    assert_eq!(segment.owners(VIP), [order[0]]);
    assert_eq!(
        (segment.longest_gap(VIP), segment.longest_overlap(VIP)),
        (Duration::ZERO, Duration::ZERO)
    );
}

#[test]
fn a_lost_claim_is_recovered_by_the_next_hello() {
    let mut segment = Segment::new(&NODES);
    segment.run(Duration::from_secs(40));
    segment.is_lost = |_| true;
    let (first, rest) = (ranked(&NODES, VIP)[0], ranked(&NODES, VIP)[1..].to_vec());
    segment.set_units(first, vec![unit(VIP, &NODES)]);
    segment.run(ms(5));
    segment.is_lost = |_| false;
    for name in rest {
        segment.set_units(name, vec![unit(VIP, &NODES)]);
    }
    segment.watch_owners(VIP);
    segment.run(Duration::from_secs(5));
    assert_eq!(segment.owners(VIP), [first]);
    assert_eq!(segment.longest_overlap(VIP), Duration::ZERO);
}

#[test]
fn one_owner_remains_after_a_partition() {
    let mut segment = settled_segment();
    let order = ranked(&NODES, VIP);
    segment.node(order[0]).partitioned = true;
    segment.run(Duration::from_secs(3));
    assert_eq!(segment.owners(VIP).len(), 2, "each side has an owner");
    segment.node(order[0]).partitioned = false;
    segment.watch_owners(VIP);
    segment.run(Duration::from_secs(3));
    assert_eq!(
        segment.owners(VIP),
        [order[1]],
        "the node that was alone is in preempt delay, and yields"
    );
    assert!(
        segment.longest_overlap(VIP) <= ms(120),
        "two owners for {:?}",
        segment.longest_overlap(VIP)
    );
    assert_eq!(segment.longest_gap(VIP), Duration::ZERO);
}

#[test]
fn a_stalled_owner_is_fenced_before_it_replies_again() {
    let mut segment = settled_segment();
    let order = ranked(&NODES, VIP);
    segment.node(order[0]).stalled = true;
    segment.run(Duration::from_secs(2));
    assert_eq!(segment.owners(VIP), [order[1]]);
    segment.node(order[0]).stalled = false;
    assert_eq!(segment.owners(VIP), [order[1]], "the answer lease has expired");
    segment.run(Duration::from_secs(5));
    assert_eq!(segment.owners(VIP), [order[1]]);
    assert_eq!(segment.node(order[0]).machine.counts().fences, 1);
    assert_eq!(segment.longest_overlap(VIP), Duration::ZERO);
}

#[test]
fn a_short_stall_has_no_effect() {
    let mut segment = settled_segment();
    let order = ranked(&NODES, VIP);
    segment.node(order[0]).stalled = true;
    segment.run(ms(95));
    segment.node(order[0]).stalled = false;
    segment.run(Duration::from_secs(5));
    assert_eq!(segment.owners(VIP), [order[0]]);
    assert_eq!(segment.node(order[0]).machine.counts().fences, 0);
}

#[test]
fn a_restart_before_failure_detection_voids_the_old_claims() {
    let mut segment = settled_segment();
    let order = ranked(&NODES, VIP);
    segment.node(order[0]).up = false;
    segment.run(ms(50));
    segment.start(order[0]);
    segment.set_units(order[0], vec![unit(VIP, &NODES)]);
    segment.run(ms(200));
    assert_eq!(segment.owners(VIP), [order[1]], "the new epoch voids the old claim");
}

#[test]
fn replayed_and_reflected_frames_are_counted_and_ignored() {
    let mut segment = settled_segment();
    let order = ranked(&NODES, VIP);
    let body = hand_over(&[VIP]);
    let (flags, interval) = (Flags::default(), ms(50));
    let epoch = segment.node(order[0]).machine.members().epoch();
    let old = |node: &str| Frame {
        node: node.into(),
        epoch,
        clock: 1,
        claim_set: ClaimSetSummary::default(),
        interval,
        detection_time: None,
        flags,
        body: body.clone(),
    };
    for frame in [old(order[0]), old(order[1])] {
        segment.input(order[1], Input::Frame { source: Mac([2, 0, 0, 0, 0, 66]), frame });
    }
    let counts = segment.node(order[1]).machine.counts();
    assert_eq!((counts.stale_frames, counts.own_name_frames), (1, 1));
    segment.run(ms(300));
    assert_eq!(segment.owners(VIP), [order[0]]);
}

#[test]
fn the_peer_table_has_a_limit() {
    let (mut machine, _) = machine_with_peer();
    for n in 1..=PEERS_MAX {
        TestPeer::admitted(&format!("peer{n}"), 9, &mut machine, Instant::from_millis(2000));
    }
    assert_eq!(
        (machine.members().peers().live().count(), machine.counts().over_limit),
        (PEERS_MAX, 1)
    );
}

#[test]
fn a_stall_just_beyond_the_answer_lease_ends_with_a_hello() {
    let mut segment = settled_segment();
    let order = ranked(&NODES, VIP);
    segment.run(ms(1));
    let last_hello = segment.node(order[0]).machine.members().last_hello();
    segment.node(order[0]).stalled = true;
    segment.run((last_hello + ms(130)).since(segment.now));
    segment.node(order[0]).stalled = false;
    segment.run(Duration::from_secs(5));
    assert_eq!(segment.owners(VIP), [order[0]]);
    assert_eq!(segment.node(order[0]).machine.counts().fences, 0);
    assert!(segment.longest_gap(VIP) <= ms(140), "no owner for {:?}", segment.longest_gap(VIP));
}

#[test]
fn a_claim_is_followed_by_a_hello_within_25_ms() {
    let mut segment = Segment::new(&["node1"]);
    segment.run(Duration::from_secs(40));
    segment.set_units("node1", vec![unit(VIP, &["node1"])]);
    segment.run(ms(450));
    assert_eq!(segment.owners(VIP), ["node1"]);
    let due = segment.node("node1").machine.deadline().expect("a pending hello");
    assert!(due.since(segment.now) <= ms(25));
}

/// Makes the input for a frame of a node that owns nothing.
pub(super) fn frame_from(node: &str, epoch: u64, clock: u64, body: Body) -> Input {
    let (interval, flags) = (ms(50), Flags::default());
    let claim_set = ClaimSetSummary::default();
    let frame = Frame {
        node: node.into(),
        epoch,
        clock,
        claim_set,
        interval,
        detection_time: None,
        flags,
        body,
    };
    Input::Frame { source: Mac([2, 0, 0, 0, 0, 2]), frame }
}

/// Creates a machine after its listen phase, with the peer node2.
pub(super) fn machine_with_peer() -> (ClaimMachine, TestPeer) {
    let mut machine = ClaimMachine::new(config("node1", 1), Instant::ZERO);
    machine.handle(Input::Keys(vec![1]), Instant::ZERO);
    machine.tick(Instant::from_millis(1000));
    let peer = TestPeer::admitted("node2", 1, &mut machine, Instant::from_millis(1500));
    (machine, peer)
}

#[test]
fn each_fence_within_ten_minutes_doubles_the_preempt_delay() {
    let mut segment = Segment::with(&NODES, |config| config.detection_time_max = Duration::ZERO);
    let name = "node1";
    // Only this node is a candidate, so it takes the address each time.
    segment.units(&[unit(VIP, &[name])]);
    segment.run(Duration::from_secs(40));
    for (fence, delay) in (1..).zip([30, 60, 120, 240, 30]) {
        let is_delayed = |segment: &mut Segment| {
            segment.node(name).machine.members().own().flags().in_preempt_delay
        };
        segment.node(name).stalled = true;
        segment.run(Duration::from_secs(1));
        segment.node(name).stalled = false;
        segment.run(Duration::from_secs(delay - 1));
        assert_eq!(segment.node(name).machine.counts().fences, fence);
        assert!(is_delayed(&mut segment), "{fence} fences");
        segment.run(Duration::from_secs(2));
        assert!(!is_delayed(&mut segment), "{fence} fences");
        if fence == 4 {
            segment.run(Duration::from_secs(600));
        }
    }
}

#[test]
fn claims_against_a_peer_that_never_yields_are_rate_limited() {
    let (mut machine, mut node2) = machine_with_peer();
    machine.membership.end_preempt_delay();
    let start = Instant::from_millis(2000);
    // The address is one for which node1 is first in order, so the order alone does not make node1
    // yield.
    let is_node1_first = |address: &IpAddr| {
        order("node1", &address.to_string()) < order("node2", &address.to_string())
    };
    let address = (200..250)
        .map(|n| IpAddr::from([172, 30, 0, n]))
        .find(is_node1_first)
        .expect("such an address");
    set_units(&mut machine, vec![unit(address, &["node1"])], start);
    machine.handle(node2.send(claim(&[address])), start + ms(5));
    let (mut announcements, mut claims) = (0, 0);
    for n in 1..=400 {
        let now = start + ms(5 + n * 50);
        machine.handle(node2.send(hello()), now);
        machine.tick(now);
        for output in std::iter::from_fn(|| machine.poll()) {
            announcements += usize::from(matches!(output, Output::AnnounceSeries(_)));
            claims += usize::from(matches!(
                output,
                Output::Send { frame: Frame { body: Body::Claim { .. }, .. }, .. }
            ));
        }
    }
    assert_eq!(machine.owned().keys().copied().collect::<Vec<_>>(), [address]);
    assert!(
        (1..=10).contains(&announcements) && (1..=11).contains(&claims),
        "node1 sends {announcements} announcements and {claims} claims in 20 s"
    );
}

#[test]
fn a_thousand_addresses_move_in_few_frames_without_overlap() {
    let units: Vec<_> = (0..1000u16)
        .map(|n| unit(IpAddr::from([10, 0, (n >> 8) as u8, n as u8]), &NODES))
        .collect();
    let mut segment = Segment::new(&NODES);
    segment.units(&units);
    segment.run(Duration::from_secs(40));
    segment.node("node1").up = false;
    units.iter().for_each(|unit| segment.watch_owners(unit.address));
    let sent = segment.sent;
    segment.run(ms(400));
    assert!(segment.sent - sent < 60, "the nodes send {} frames", segment.sent - sent);
    for unit in &units {
        let address = unit.address;
        assert_eq!(segment.owners(address).len(), 1);
        assert_eq!(segment.longest_overlap(address), Duration::ZERO);
        assert!(
            segment.longest_gap(address) <= ms(200),
            "no owner for {:?}",
            segment.longest_gap(address)
        );
    }
}

#[test]
fn a_peer_wrongly_declared_failed_keeps_its_addresses() {
    let (mut machine, mut node2) = machine_with_peer();
    let at = Instant::from_millis(1_500);
    // Node1 is the last candidate for the address, so it waits before it claims.
    let is_node1_last =
        |address: &IpAddr| ranked(&["node1", "node2", "node3", "node4"], *address)[3] == "node1";
    let address = (1..=250)
        .map(|n| IpAddr::from([172, 30, 0, n]))
        .find(is_node1_last)
        .expect("such an address");
    TestPeer::admitted("node3", 3, &mut machine, at);
    TestPeer::admitted("node4", 4, &mut machine, at);
    machine.handle(node2.send(claim(&[address])), at);
    set_units(&mut machine, vec![unit(address, &["node1", "node2", "node3", "node4"])], at);
    // Node2 sends nothing for slightly too long; the other peers send hellos.
    let mut now = at;
    for clock in 10..16 {
        now = now + ms(40);
        machine.tick(now);
        for (node, epoch) in [("node3", 3), ("node4", 4)] {
            machine.handle(frame_from(node, epoch, clock, hello()), now);
        }
    }
    assert!(machine.members().peers().get_live("node2").is_none());
    // Node2 sends a hello.
    machine.handle(node2.send(hello()), now);
    machine.tick(now + ms(149));
    assert_eq!(machine.owned().len(), 0, "node1 takes no address of node2");
}
