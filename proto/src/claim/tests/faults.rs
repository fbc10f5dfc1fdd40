//! Death, silence, loss, stalls, partitions, and frames that lie.

use super::*;
use crate::claim::Says;
use crate::wire::hello::{Body, Failing, Release};

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
    let took_over = wire.node(order[1]).took_over.clone();
    assert!(took_over.len() == 1 && took_over[0] >= ms(189) && took_over[0] <= ms(200), "{took_over:?}");
}

/// A peer that holds something falls silent at 1,500 ms, while another is heard; when it is found dead, if lost frames are noticed every 20 ms
/// from the first suspicion on, for so long.
fn found_dead_after(losses: Duration) -> Duration {
    let (mut machine, _) = with_a_peer();
    let start = Instant::from_millis(1_500);
    introduce(&mut machine, "node3", 3, start);
    let claim = Body::Claim { before: 0, generation: 1, addresses: vec![VIP], keeps: vec![] };
    machine.handle(said("node2", 1, 3, claim), start);
    for n in 0..200 {
        let (now, since) = (start + ms(20 * n), ms(20 * n));
        machine.handle(said("node3", 3, 10 + n, Body::Ask), now);
        if since >= ms(160) && since < ms(160) + losses {
            machine.handle(Input::Lost, now);
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
    wire.input(order[1], Input::Says(Says { draining: true, ..Says::default() }));
    wire.run(Duration::from_secs(1));
    assert_eq!(wire.owners(VIP), [order[2]]);
    assert!(wire.node(order[2]).took_over.is_empty(), "it was handed over");

    let mut wire = settled();
    // The others may not take it, and learn a minute after its holder's death that they may.
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
    let body = Body::Release { before: 7, generation: 8, addresses: vec![VIP], why: Release::Refused };
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
    let (mut machine, _) = with_a_peer();
    for n in 1..=PEERS_MAX {
        introduce(&mut machine, &format!("peer{n}"), 9, Instant::from_millis(2000));
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

pub(super) fn said(node: &str, epoch: u64, clock: u64, body: Body) -> Input {
    let (interval, flags) = (ms(50), Flags::default());
    let frame = Frame { node: node.into(), epoch, sequence: 1, clock, interval, flags, body };
    Input::Frame { source: Mac([2, 0, 0, 0, 0, 2]), frame }
}

/// Lets a node say hello, and answer the challenge that follows, with the clocks 1 and 2.
pub(super) fn introduce(machine: &mut Claims, node: &str, epoch: u64, now: Instant) {
    machine
        .handle(said(node, epoch, 1, Body::Hello { generation: 0, accepts: vec![], failing: Failing::default() }), now);
    while let Some(output) = machine.poll() {
        if let Output::Send { to: Some(_), frame: Frame { body: Body::Challenge { nonce }, .. }, .. } = output {
            machine.handle(said(node, epoch, 2, Body::Answer { nonce }), now);
        }
    }
}

/// A machine that listened long enough, and a peer, node2, that only says what the test lets it say.
fn with_a_peer() -> (Claims, impl Fn(u64, u64, Body) -> Input) {
    let mut machine = Claims::new(config("node1", 1), Instant::ZERO);
    machine.handle(Input::Keys(vec![1]), Instant::ZERO);
    machine.tick(Instant::from_millis(1000));
    introduce(&mut machine, "node2", 1, Instant::from_millis(1500));
    (machine, |epoch, clock, body| said("node2", epoch, clock, body))
}

#[test]
fn relayed_old_frames_take_no_hardware_address_from_a_member() {
    let (mut machine, said) = with_a_peer();
    let known = machine.peers["node2"].macs.clone();
    for n in 0..8 {
        // Recorded in an earlier life of node2, and sent on by another host.
        let Input::Frame { frame, .. } = said(9, 1, Body::Ask) else { panic!("a frame") };
        machine.handle(Input::Frame { source: Mac([2, 8, 8, 8, 8, n]), frame }, Instant::from_millis(1_600));
    }
    assert_eq!((machine.counts().unproven, &machine.peers["node2"].macs), (8 + 1, &known));
}

#[test]
fn a_newcomer_that_does_not_answer_is_challenged_five_times_a_second() {
    let mut machine = Claims::new(config("node1", 1), Instant::ZERO);
    machine.handle(Input::Keys(vec![1]), Instant::ZERO);
    let mut challenges = 0;
    for n in 1..=200 {
        let at = Instant::from_millis(50 * n);
        machine.handle(
            said("node2", 1, n, Body::Hello { generation: 0, accepts: vec![], failing: Failing::default() }),
            at,
        );
        let outputs = std::iter::from_fn(|| machine.poll());
        challenges += outputs
            .filter(|output| matches!(output, Output::Send { frame: Frame { body: Body::Challenge { .. }, .. }, .. }))
            .count();
    }
    assert!((40..=50).contains(&challenges), "{challenges} in ten seconds");
}

/// The numbers of the challenges that a machine sends now.
fn challenges(machine: &mut Claims) -> Vec<u64> {
    let nonce = |output| {
        let Output::Send { frame: Frame { body: Body::Challenge { nonce }, .. }, .. } = output else { return None };
        Some(nonce)
    };
    std::iter::from_fn(|| machine.poll()).filter_map(nonce).collect()
}

#[test]
fn a_newcomer_that_asks_hears_us_and_is_challenged_each_time_with_a_new_number_every_second() {
    let mut machine = Claims::new(config("node1", 1), Instant::ZERO);
    machine.handle(Input::Keys(vec![1]), Instant::ZERO);
    let mut all = Vec::new();
    for n in 1..=30 {
        machine.handle(said("node2", 1, n, Body::Ask), Instant::from_millis(50 * n));
        all.extend(challenges(&mut machine));
    }
    let numbers: BTreeSet<_> = all.iter().collect();
    assert_eq!((all.len(), numbers.len()), (30, 2));
    machine.handle(said("node2", 1, 31, Body::Answer { nonce: all[0] }), Instant::from_millis(1_501));
    assert!(machine.peers.is_empty(), "an answer that is so old may be a recording");
    machine.handle(said("node2", 1, 32, Body::Answer { nonce: all[29] }), Instant::from_millis(1_502));
    assert!(machine.peers.contains_key("node2"));
}

#[test]
fn who_is_back_is_asked_what_it_holds_until_it_says_so() {
    let (mut machine, said) = with_a_peer();
    let mut at = Instant::from_millis(1500);
    // How often it is asked within so long, in which others are heard.
    let mut asked = |machine: &mut Claims, millis: u64| {
        let mut count = 0;
        for _ in 0..millis {
            at = at + ms(1);
            machine.handle(Input::Heard, at);
            machine.tick(at);
            let is_ask = |output: &Output| matches!(output, Output::Send { frame, .. } if frame.body == Body::Ask);
            count += std::iter::from_fn(|| machine.poll()).filter(is_ask).count();
        }
        (count, at)
    };
    let (_, now) = asked(&mut machine, 1);
    machine.handle(said(1, 3, Body::Claim { before: 0, generation: 5, addresses: vec![VIP], keeps: vec![] }), now);
    let (_, now) = asked(&mut machine, 500);
    assert!(machine.peers["node2"].dead);
    machine.handle(said(1, 4, Body::Challenge { nonce: 1 }), now);
    let (count, now) = asked(&mut machine, 130);
    assert_eq!(count, 3, "every 40 ms");
    machine.handle(said(1, 5, Body::Hello { generation: 0, accepts: vec![], failing: Failing::default() }), now);
    assert_eq!(asked(&mut machine, 100).0, 0);
}

#[test]
fn a_claim_that_is_not_restated_for_12_s_is_forgotten() {
    let (mut machine, said) = with_a_peer();
    let mut at = Instant::from_millis(1500);
    machine.handle(said(1, 3, Body::Claim { before: 4, generation: 5, addresses: vec![VIP], keeps: vec![] }), at);
    machine.handle(Input::Units(vec![unit(&[VIP], &["node1"])]), at);
    // It lives, but its hellos speak of a set that we never learn.
    for n in 4..242 {
        at = at + ms(50);
        machine.handle(said(1, n, Body::Hello { generation: 9, accepts: vec![], failing: Failing::default() }), at);
        machine.tick(at);
    }
    assert!(at.since(Instant::from_millis(1500)) < CLAIM_LIFETIME && machine.peers["node2"].claims.contains(&VIP));
    at = at + ms(101);
    machine.handle(said(1, 242, Body::Hello { generation: 9, accepts: vec![], failing: Failing::default() }), at);
    machine.tick(at);
    assert!(machine.peers["node2"].claims.is_empty());
}

#[test]
fn a_recording_of_a_former_life_is_not_believed() {
    let (mut machine, said) = with_a_peer();
    let at = Instant::from_millis(2000);
    // Two restarts later, frames of the first life come again.
    introduce(&mut machine, "node2", 2, at);
    introduce(&mut machine, "node2", 3, at);
    let recording = Body::Claim { before: 0, generation: 1, addresses: vec![VIP], keeps: vec![] };
    for n in 0..100 {
        machine.handle(said(1, 100 + n, recording.clone()), at + ms(n));
        machine.handle(said(1, 1000 + n, Body::Answer { nonce: n }), at + ms(n));
    }
    assert!(machine.peers["node2"].claims.is_empty());
    assert_eq!(machine.counts().unproven, 200 + 3, "and one frame of each newcomer");
    let challenges =
        std::iter::from_fn(|| machine.poll()).filter(|output| matches!(output, Output::Send { to: Some(_), .. }));
    assert!(challenges.count() <= 5, "one in 40 ms");
    let hello = Body::Hello { generation: 0, accepts: vec![], failing: Failing::default() };
    machine.handle(said(3, 3, hello), at + ms(200));
    assert_eq!(machine.counts().stale_frames, 0, "its living epoch is heard on");
}

#[test]
fn three_fences_make_a_node_unstable_until_the_first_is_ten_minutes_back() {
    let mut wire = Wire::new(&THREE);
    let name = "node1";
    // Only it may have the address, so it gets it back each time.
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
        assert_eq!(wire.node(name).machine.own.flags.unstable, fence >= 3, "after {fence}");
    }
    // The second of four is the first of the last three; it was 59 s before the end of its minute.
    let end = second + Duration::from_secs(600 - 59);
    wire.run(end.since(wire.now) - Duration::from_secs(1));
    assert!(wire.node(name).machine.own.flags.unstable);
    wire.run(Duration::from_secs(2));
    assert!(!wire.node(name).machine.own.flags.unstable);
}

#[test]
fn a_member_that_never_yields_is_not_shouted_at() {
    let (mut machine, said) = with_a_peer();
    let start = Instant::from_millis(2000);
    // Plain order must not make us yield either.
    let ours = |address: &IpAddr| order("node1", *address) < order("node2", *address);
    let address = (200..250).map(|n| IpAddr::from([172, 30, 0, n])).find(ours).expect("one of fifty");
    machine.handle(Input::Units(vec![unit(&[address], &["node1"])]), start);
    machine.handle(
        said(1, 3, Body::Claim { before: 0, generation: 1, addresses: vec![address], keeps: vec![] }),
        start + ms(5),
    );
    let (mut defended, mut claims) = (0, 0);
    for n in 1..=400 {
        let now = start + ms(5 + n * 50);
        machine
            .handle(said(1, 3 + n, Body::Hello { generation: 1, accepts: vec![], failing: Failing::default() }), now);
        machine.tick(now);
        for output in std::iter::from_fn(|| machine.poll()) {
            defended += usize::from(matches!(output, Output::Refresh(_)));
            claims += usize::from(matches!(output, Output::Send { frame: Frame { body: Body::Claim { .. }, .. }, .. }));
        }
    }
    assert_eq!(machine.held().collect::<Vec<_>>(), [address]);
    assert!((1..=3).contains(&defended) && (1..=8).contains(&claims), "{defended} times in 20 s, {claims} claims");
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

#[test]
fn who_was_found_dead_by_mistake_still_holds_what_it_held() {
    let (mut machine, _) = with_a_peer();
    let node2 = |clock, body| said("node2", 1, clock, body);
    let at = Instant::from_millis(1_500);
    // A unit that comes to us third in line, so that its turn is late.
    let third = |address: &IpAddr| ranked(&["node1", "node2", "node3", "node4"], *address)[3] == "node1";
    let address = (1..=250).map(|n| IpAddr::from([172, 30, 0, n])).find(third).expect("one of many");
    introduce(&mut machine, "node3", 3, at);
    introduce(&mut machine, "node4", 4, at);
    machine.handle(node2(3, Body::Claim { before: 0, generation: 1, addresses: vec![address], keeps: vec![] }), at);
    machine.handle(Input::Units(vec![unit(&[address], &["node1", "node2", "node3", "node4"])]), at);
    // Node2 is silent for a moment too long; the others are heard.
    let mut now = at;
    for clock in 10..16 {
        now = now + ms(40);
        machine.tick(now);
        for (node, epoch) in [("node3", 3), ("node4", 4)] {
            let hello = Body::Hello { generation: 0, accepts: vec![], failing: Failing::default() };
            machine.handle(said(node, epoch, clock, hello), now);
        }
    }
    assert!(machine.peers["node2"].dead);
    // It says hello, and every answer to our questions is lost.
    machine.handle(node2(20, Body::Hello { generation: 1, accepts: vec![], failing: Failing::default() }), now);
    machine.tick(now + ms(149));
    assert_eq!(machine.held().count(), 0, "nothing is taken from it");
}
