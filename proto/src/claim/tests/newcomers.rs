//! Admission: challenges to new nodes, and frames that another host has recorded.

use super::faults::{introduce, said, with_a_peer};
use super::*;
use crate::wire::hello::{Body, FailingReport};

#[test]
fn relayed_old_frames_take_no_hardware_address_from_a_member() {
    let (mut machine, said) = with_a_peer();
    let known = machine.peers["node2"].macs.clone();
    for n in 0..8 {
        // A frame recorded in an earlier epoch of node2, and sent by another host.
        let Input::Frame { frame, .. } = said(9, 1, Body::ListRequest) else { panic!("a frame") };
        machine.handle(
            Input::Frame { source: Mac([2, 8, 8, 8, 8, n]), frame },
            Instant::from_millis(1_600),
        );
    }
    assert_eq!((machine.counts().unchallenged, &machine.peers["node2"].macs), (8 + 1, &known));
}

#[test]
fn a_newcomer_that_does_not_answer_is_challenged_five_times_a_second() {
    let mut machine = ClaimMachine::new(config("node1", 1), Instant::ZERO);
    machine.handle(Input::Keys(vec![1]), Instant::ZERO);
    let mut challenges = 0;
    for n in 1..=200 {
        let at = Instant::from_millis(50 * n);
        machine.handle(
            said(
                "node2",
                1,
                n,
                Body::Hello {
                    generation: 0,
                    accepted_keys: vec![],
                    failing: FailingReport::default(),
                },
            ),
            at,
        );
        let outputs = std::iter::from_fn(|| machine.poll());
        challenges += outputs
            .filter(|output| {
                matches!(
                    output,
                    Output::Send { frame: Frame { body: Body::Challenge { .. }, .. }, .. }
                )
            })
            .count();
    }
    assert!((40..=50).contains(&challenges), "{challenges} in ten seconds");
}

/// Returns the nonces of the challenges that a machine sends now.
fn challenges(machine: &mut ClaimMachine) -> Vec<u64> {
    let nonce = |output| {
        let Output::Send { frame: Frame { body: Body::Challenge { nonce }, .. }, .. } = output
        else {
            return None;
        };
        Some(nonce)
    };
    std::iter::from_fn(|| machine.poll()).filter_map(nonce).collect()
}

#[test]
fn a_newcomer_that_asks_hears_us_and_is_challenged_each_time_with_a_new_number_every_second() {
    let mut machine = ClaimMachine::new(config("node1", 1), Instant::ZERO);
    machine.handle(Input::Keys(vec![1]), Instant::ZERO);
    let mut all = Vec::new();
    for n in 1..=30 {
        machine.handle(said("node2", 1, n, Body::ListRequest), Instant::from_millis(50 * n));
        all.extend(challenges(&mut machine));
    }
    let numbers: BTreeSet<_> = all.iter().collect();
    assert_eq!((all.len(), numbers.len()), (30, 2));
    machine.handle(
        said("node2", 1, 31, Body::ChallengeReply { nonce: all[0] }),
        Instant::from_millis(1_501),
    );
    assert!(machine.peers.is_empty(), "an answer that is so old may be a recording");
    machine.handle(
        said("node2", 1, 32, Body::ChallengeReply { nonce: all[29] }),
        Instant::from_millis(1_502),
    );
    assert!(machine.peers.contains_key("node2"));
}

#[test]
fn who_is_back_is_asked_what_it_holds_until_it_says_so() {
    let (mut machine, said) = with_a_peer();
    let mut at = Instant::from_millis(1500);
    // Counts the challenges within this time, in which other peers are received.
    let mut asked = |machine: &mut ClaimMachine, millis: u64| {
        let mut count = 0;
        for _ in 0..millis {
            at = at + ms(1);
            machine.handle(Input::FrameReceived, at);
            machine.tick(at);
            let is_ask = |output: &Output| matches!(output, Output::Send { frame, .. } if frame.body == Body::ListRequest);
            count += std::iter::from_fn(|| machine.poll()).filter(is_ask).count();
        }
        (count, at)
    };
    let (_, now) = asked(&mut machine, 1);
    machine.handle(
        said(
            1,
            3,
            Body::Claim {
                previous_generation: 0,
                generation: 5,
                addresses: vec![VIP],
                preempt_delays: vec![],
            },
        ),
        now,
    );
    let (_, now) = asked(&mut machine, 500);
    assert!(machine.peers["node2"].dead);
    machine.handle(said(1, 4, Body::Challenge { nonce: 1 }), now);
    let (count, now) = asked(&mut machine, 130);
    assert_eq!(count, 3, "every 40 ms");
    machine.handle(
        said(
            1,
            5,
            Body::Hello { generation: 0, accepted_keys: vec![], failing: FailingReport::default() },
        ),
        now,
    );
    assert_eq!(asked(&mut machine, 100).0, 0);
}

#[test]
fn a_claim_that_is_not_restated_for_12_s_is_forgotten() {
    let (mut machine, said) = with_a_peer();
    let mut at = Instant::from_millis(1500);
    machine.handle(
        said(
            1,
            3,
            Body::Claim {
                previous_generation: 4,
                generation: 5,
                addresses: vec![VIP],
                preempt_delays: vec![],
            },
        ),
        at,
    );
    machine.handle(Input::Units(vec![unit(&[VIP], &["node1"])]), at);
    // Node2 is alive, but its hellos carry the generation of a set that never arrives.
    for n in 4..242 {
        at = at + ms(50);
        machine.handle(
            said(
                1,
                n,
                Body::Hello {
                    generation: 9,
                    accepted_keys: vec![],
                    failing: FailingReport::default(),
                },
            ),
            at,
        );
        machine.tick(at);
    }
    assert!(
        at.since(Instant::from_millis(1500)) < CLAIM_LIFETIME
            && machine.peers["node2"].claims.contains(&VIP)
    );
    at = at + ms(101);
    machine.handle(
        said(
            1,
            242,
            Body::Hello { generation: 9, accepted_keys: vec![], failing: FailingReport::default() },
        ),
        at,
    );
    machine.tick(at);
    assert!(machine.peers["node2"].claims.is_empty());
}

#[test]
fn a_recording_of_a_former_life_is_not_believed() {
    let (mut machine, said) = with_a_peer();
    let at = Instant::from_millis(2000);
    // After two restarts, frames of the first epoch arrive again.
    introduce(&mut machine, "node2", 2, at);
    introduce(&mut machine, "node2", 3, at);
    let recording = Body::Claim {
        previous_generation: 0,
        generation: 1,
        addresses: vec![VIP],
        preempt_delays: vec![],
    };
    for n in 0..100 {
        machine.handle(said(1, 100 + n, recording.clone()), at + ms(n));
        machine.handle(said(1, 1000 + n, Body::ChallengeReply { nonce: n }), at + ms(n));
    }
    assert!(machine.peers["node2"].claims.is_empty());
    assert_eq!(machine.counts().unchallenged, 200 + 3, "and one frame of each newcomer");
    let challenges = std::iter::from_fn(|| machine.poll())
        .filter(|output| matches!(output, Output::Send { to: Some(_), .. }));
    assert!(challenges.count() <= 5, "one in 40 ms");
    let hello =
        Body::Hello { generation: 0, accepted_keys: vec![], failing: FailingReport::default() };
    machine.handle(said(3, 3, hello), at + ms(200));
    assert_eq!(machine.counts().stale_frames, 0, "its living epoch is heard on");
}
