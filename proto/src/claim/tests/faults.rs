//! Node failures, silence, frame loss, stalls, partitions, and false frames.

use super::*;
use crate::claim::NodeState;
use crate::wire::hello::{Body, FailingReport, ReleaseReason};

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
    assert_eq!(wire.node(order[1]).machine.counts().peer_failures, 1);
    let took_over = wire.node(order[1]).took_over.clone();
    assert!(
        took_over.len() == 1 && took_over[0] >= ms(189) && took_over[0] <= ms(200),
        "{took_over:?}"
    );
}

/// Returns when a peer is declared failed that owns an address and falls silent at 1,500 ms, while
/// another peer is received. Dropped frames are reported every 20 ms, for `losses` after the first
/// suspicion.
fn found_dead_after(losses: Duration) -> Duration {
    let (mut machine, _) = with_a_peer();
    let start = Instant::from_millis(1_500);
    introduce(&mut machine, "node3", 3, start);
    let claim = Body::Claim {
        previous_generation: 0,
        generation: 1,
        addresses: vec![VIP],
        preempt_delays: vec![],
    };
    machine.handle(said("node2", 1, 3, claim), start);
    for n in 0..200 {
        let (now, since) = (start + ms(20 * n), ms(20 * n));
        machine.handle(said("node3", 3, 10 + n, Body::ListRequest), now);
        if since >= ms(160) && since < ms(160) + losses {
            machine.handle(Input::FramesDropped, now);
        }
        machine.tick(now);
        if machine.peers["node2"].dead {
            return since;
        }
    }
    panic!("it lives for ever");
}

#[test]
fn lost_frames_put_a_verdict_off_but_not_for_ever() {
    assert_eq!(found_dead_after(ms(0)), ms(200));
    assert_eq!(found_dead_after(ms(100)), ms(280), "40 ms after the last");
    let always = found_dead_after(Duration::from_secs(60));
    assert!(always >= ms(1_150) && always <= ms(1_240), "{always:?}");
}

#[test]
fn a_takeover_is_counted_once_and_only_where_it_is_a_failover() {
    let mut wire = settled();
    let order = ranked(&THREE, VIP);
    wire.node(order[0]).up = false;
    wire.run(Duration::from_secs(5));
    assert_eq!(wire.node(order[1]).took_over.len(), 1);
    wire.input(order[1], Input::NodeState(NodeState { draining: true, ..NodeState::default() }));
    wire.run(Duration::from_secs(1));
    assert_eq!(wire.owners(VIP), [order[2]]);
    assert!(wire.node(order[2]).took_over.is_empty(), "it was handed over");

    let mut wire = settled();
    // The others are no candidates, and become candidates a minute after the owner's failure.
    for name in &order[1..] {
        wire.input(name, Input::Units(vec![unit(&[VIP], &[order[0]])]));
    }
    wire.node(order[0]).up = false;
    wire.run(Duration::from_secs(61));
    for name in &order[1..] {
        wire.input(name, Input::Units(vec![unit(&[VIP], &THREE)]));
    }
    wire.run(Duration::from_secs(1));
    assert_eq!(wire.owners(VIP), [order[1]]);
    assert!(wire.node(order[1]).took_over.is_empty(), "nobody could have taken it sooner");
}

#[test]
fn both_best_dead_is_answered_for_by_the_third() {
    let mut wire = settled();
    let order = ranked(&THREE, VIP);
    wire.node(order[0]).up = false;
    wire.node(order[1]).up = false;
    wire.run(Duration::from_secs(1));
    assert_eq!(
        wire.owners(VIP),
        [order[2]],
        "the second in rank is not waited for longer than its stagger"
    );
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
    // A tenth of all frames is lost for half a minute. Now and then that is three hellos in a row,
    // but then the challenge gets a reply.
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
    let body = Body::Release {
        previous_generation: 7,
        generation: 8,
        addresses: vec![VIP],
        reason: ReleaseReason::NotCandidate,
    };
    let (flags, interval) = (Flags::default(), ms(50));
    let epoch = wire.node(order[0]).machine.config.epoch;
    let old = |node: &str| Frame {
        node: node.into(),
        epoch,
        sequence: 1,
        clock: 1,
        interval,
        flags,
        body: body.clone(),
    };
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
    let (mut machine, _) = with_a_peer();
    for n in 1..=PEERS_MAX {
        introduce(&mut machine, &format!("peer{n}"), 9, Instant::from_millis(2000));
    }
    assert_eq!((machine.live_peers().count(), machine.counts().over_limit), (PEERS_MAX, 1));
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

pub(super) fn said(node: &str, epoch: u64, clock: u64, body: Body) -> Input {
    let (interval, flags) = (ms(50), Flags::default());
    let frame = Frame { node: node.into(), epoch, sequence: 1, clock, interval, flags, body };
    Input::Frame { source: Mac([2, 0, 0, 0, 0, 2]), frame }
}

/// Sends a node's hello, and the reply to the challenge that follows, with the clocks 1 and 2.
pub(super) fn introduce(machine: &mut ClaimMachine, node: &str, epoch: u64, now: Instant) {
    machine.handle(
        said(
            node,
            epoch,
            1,
            Body::Hello { generation: 0, accepted_keys: vec![], failing: FailingReport::default() },
        ),
        now,
    );
    while let Some(output) = machine.poll() {
        if let Output::Send {
            to: Some(_),
            frame: Frame { body: Body::Challenge { nonce }, .. },
            ..
        } = output
        {
            machine.handle(said(node, epoch, 2, Body::ChallengeReply { nonce }), now);
        }
    }
}

/// Makes a machine that is past its listen phase, with a peer, node2, that sends only the test's
/// frames.
pub(super) fn with_a_peer() -> (ClaimMachine, impl Fn(u64, u64, Body) -> Input) {
    let mut machine = ClaimMachine::new(config("node1", 1), Instant::ZERO);
    machine.handle(Input::Keys(vec![1]), Instant::ZERO);
    machine.tick(Instant::from_millis(1000));
    introduce(&mut machine, "node2", 1, Instant::from_millis(1500));
    (machine, |epoch, clock, body| said("node2", epoch, clock, body))
}

#[test]
fn three_fences_make_a_node_unstable_until_the_first_is_ten_minutes_back() {
    let mut wire = Wire::new(&THREE);
    let name = "node1";
    // Only this node is a candidate, so it takes the address each time.
    wire.units(&[unit(&[VIP], &[name])]);
    wire.run(Duration::from_secs(40));
    let mut second = Instant::ZERO;
    for fence in 1..=4 {
        wire.node(name).frozen = true;
        wire.run(Duration::from_secs(1));
        wire.node(name).frozen = false;
        wire.run(Duration::from_secs(59));
        if fence == 2 {
            second = wire.now;
        }
        assert_eq!(wire.node(name).machine.counts().fences, fence);
        assert_eq!(wire.node(name).machine.own.flags.flapping, fence >= 3, "after {fence}");
    }
    // The second of four fences is the first of the last three; it was 59 s before the end of its
    // minute.
    let end = second + Duration::from_secs(600 - 59);
    wire.run(end.since(wire.now) - Duration::from_secs(1));
    assert!(wire.node(name).machine.own.flags.flapping);
    wire.run(Duration::from_secs(2));
    assert!(!wire.node(name).machine.own.flags.flapping);
}

#[test]
fn a_member_that_never_yields_is_not_shouted_at() {
    let (mut machine, said) = with_a_peer();
    let start = Instant::from_millis(2000);
    // The plain order must not make node1 yield either.
    let ours = |address: &IpAddr| order("node1", *address) < order("node2", *address);
    let address =
        (200..250).map(|n| IpAddr::from([172, 30, 0, n])).find(ours).expect("one of fifty");
    machine.handle(Input::Units(vec![unit(&[address], &["node1"])]), start);
    machine.handle(
        said(
            1,
            3,
            Body::Claim {
                previous_generation: 0,
                generation: 1,
                addresses: vec![address],
                preempt_delays: vec![],
            },
        ),
        start + ms(5),
    );
    let (mut defended, mut claims) = (0, 0);
    for n in 1..=400 {
        let now = start + ms(5 + n * 50);
        machine.handle(
            said(
                1,
                3 + n,
                Body::Hello {
                    generation: 1,
                    accepted_keys: vec![],
                    failing: FailingReport::default(),
                },
            ),
            now,
        );
        machine.tick(now);
        for output in std::iter::from_fn(|| machine.poll()) {
            defended += usize::from(matches!(output, Output::AnnounceSeries(_)));
            claims += usize::from(matches!(
                output,
                Output::Send { frame: Frame { body: Body::Claim { .. }, .. }, .. }
            ));
        }
    }
    assert_eq!(machine.owned().collect::<Vec<_>>(), [address]);
    assert!(
        (1..=3).contains(&defended) && (1..=8).contains(&claims),
        "{defended} times in 20 s, {claims} claims"
    );
}

#[test]
fn a_thousand_addresses_move_in_a_few_frames_and_are_never_answered_for_twice() {
    let units: Vec<_> = (0..1000u16)
        .map(|n| unit(&[IpAddr::from([10, 0, (n >> 8) as u8, n as u8])], &THREE))
        .collect();
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

#[test]
fn who_was_found_dead_by_mistake_still_holds_what_it_held() {
    let (mut machine, _) = with_a_peer();
    let node2 = |clock, body| said("node2", 1, clock, body);
    let at = Instant::from_millis(1_500);
    // A unit for which node1 is the last in line, so that its turn is late.
    let third =
        |address: &IpAddr| ranked(&["node1", "node2", "node3", "node4"], *address)[3] == "node1";
    let address =
        (1..=250).map(|n| IpAddr::from([172, 30, 0, n])).find(third).expect("one of many");
    introduce(&mut machine, "node3", 3, at);
    introduce(&mut machine, "node4", 4, at);
    machine.handle(
        node2(
            3,
            Body::Claim {
                previous_generation: 0,
                generation: 1,
                addresses: vec![address],
                preempt_delays: vec![],
            },
        ),
        at,
    );
    machine.handle(Input::Units(vec![unit(&[address], &["node1", "node2", "node3", "node4"])]), at);
    // Node2 is silent for slightly too long; the other peers are received.
    let mut now = at;
    for clock in 10..16 {
        now = now + ms(40);
        machine.tick(now);
        for (node, epoch) in [("node3", 3), ("node4", 4)] {
            let hello = Body::Hello {
                generation: 0,
                accepted_keys: vec![],
                failing: FailingReport::default(),
            };
            machine.handle(said(node, epoch, clock, hello), now);
        }
    }
    assert!(machine.peers["node2"].dead);
    // Node2 sends a hello, but every reply to list requests is lost.
    machine.handle(
        node2(
            20,
            Body::Hello { generation: 1, accepted_keys: vec![], failing: FailingReport::default() },
        ),
        now,
    );
    machine.tick(now + ms(149));
    assert_eq!(machine.owned().count(), 0, "nothing is taken from it");
}
