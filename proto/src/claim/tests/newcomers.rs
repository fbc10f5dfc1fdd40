//! Admission: challenges to newcomers, and replayed frames.

use super::faults::{admit_peer, frame_from, machine_with_peer};
use super::*;
use crate::wire::hello::{Body, FailingReport};

#[test]
fn replayed_frames_do_not_change_the_macs_of_a_peer() {
    let (mut machine, node2_frame) = machine_with_peer();
    let known = machine.peers["node2"].macs.clone();
    for n in 0..8 {
        // A frame recorded in an earlier epoch of node2, and sent by another host.
        let Input::Frame { frame, .. } = node2_frame(9, 1, Body::ListRequest) else {
            panic!("a frame")
        };
        machine.handle(
            Input::Frame { source: Mac([2, 8, 8, 8, 8, n]), frame },
            Instant::from_millis(1_600),
        );
    }
    assert_eq!((machine.counts().unchallenged, &machine.peers["node2"].macs), (8 + 1, &known));
}

#[test]
fn a_silent_newcomer_is_challenged_five_times_per_second() {
    let mut machine = ClaimMachine::new(config("node1", 1), Instant::ZERO);
    machine.handle(Input::Keys(vec![1]), Instant::ZERO);
    let mut challenges = 0;
    for n in 1..=200 {
        let at = Instant::from_millis(50 * n);
        machine.handle(
            frame_from(
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
    assert!((40..=50).contains(&challenges), "node1 sends {challenges} challenges in ten seconds");
}

/// Returns the nonces of the challenges among a machine's pending outputs.
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
fn newcomer_list_requests_are_challenged_with_nonces_of_1_s() {
    let mut machine = ClaimMachine::new(config("node1", 1), Instant::ZERO);
    machine.handle(Input::Keys(vec![1]), Instant::ZERO);
    let mut all = Vec::new();
    for n in 1..=30 {
        machine.handle(frame_from("node2", 1, n, Body::ListRequest), Instant::from_millis(50 * n));
        all.extend(challenges(&mut machine));
    }
    let numbers: BTreeSet<_> = all.iter().collect();
    assert_eq!((all.len(), numbers.len()), (30, 2));
    machine.handle(
        frame_from("node2", 1, 31, Body::ChallengeReply { nonce: all[0] }),
        Instant::from_millis(1_501),
    );
    assert!(machine.peers.is_empty(), "a late challenge response may be a recording");
    machine.handle(
        frame_from("node2", 1, 32, Body::ChallengeReply { nonce: all[29] }),
        Instant::from_millis(1_502),
    );
    assert!(machine.peers.contains_key("node2"));
}

#[test]
fn a_returned_peer_gets_list_requests_until_it_reports_its_claims() {
    let (mut machine, node2_frame) = machine_with_peer();
    let mut at = Instant::from_millis(1500);
    // Counts the list requests that node1 sends in `millis` ms, while frames of other hosts arrive.
    let mut list_requests = |machine: &mut ClaimMachine, millis: u64| {
        let mut count = 0;
        for _ in 0..millis {
            at = at + ms(1);
            machine.handle(Input::FrameReceived, at);
            machine.tick(at);
            let is_list_request = |output: &Output| matches!(output, Output::Send { frame, .. } if frame.body == Body::ListRequest);
            count += std::iter::from_fn(|| machine.poll()).filter(is_list_request).count();
        }
        (count, at)
    };
    let (_, now) = list_requests(&mut machine, 1);
    machine.handle(
        node2_frame(
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
    let (_, now) = list_requests(&mut machine, 500);
    assert!(machine.peers["node2"].failed);
    machine.handle(node2_frame(1, 4, Body::Challenge { nonce: 1 }), now);
    let (count, now) = list_requests(&mut machine, 130);
    assert_eq!(count, 3, "node1 sends one list request every 40 ms");
    machine.handle(
        node2_frame(
            1,
            5,
            Body::Hello { generation: 0, accepted_keys: vec![], failing: FailingReport::default() },
        ),
        now,
    );
    assert_eq!(list_requests(&mut machine, 100).0, 0);
}

#[test]
fn a_claim_without_confirmation_expires_after_12_s() {
    let (mut machine, node2_frame) = machine_with_peer();
    let mut at = Instant::from_millis(1500);
    machine.handle(
        node2_frame(
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
    set_units(&mut machine, vec![unit(VIP, &["node1"])], at);
    // Node2 is alive, but its hellos carry the generation of a claim set that never arrives.
    for n in 4..242 {
        at = at + ms(50);
        machine.handle(
            node2_frame(
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
        node2_frame(
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
fn replayed_frames_of_an_earlier_epoch_are_ignored() {
    let (mut machine, node2_frame) = machine_with_peer();
    let at = Instant::from_millis(2000);
    // After two restarts, frames of the first epoch arrive again.
    admit_peer(&mut machine, "node2", 2, at);
    admit_peer(&mut machine, "node2", 3, at);
    let recording = Body::Claim {
        previous_generation: 0,
        generation: 1,
        addresses: vec![VIP],
        preempt_delays: vec![],
    };
    for n in 0..100 {
        machine.handle(node2_frame(1, 100 + n, recording.clone()), at + ms(n));
        machine.handle(node2_frame(1, 1000 + n, Body::ChallengeReply { nonce: n }), at + ms(n));
    }
    assert!(machine.peers["node2"].claims.is_empty());
    assert_eq!(
        machine.counts().unchallenged,
        200 + 3,
        "one frame of each new epoch is unchallenged, too"
    );
    let challenges = std::iter::from_fn(|| machine.poll())
        .filter(|output| matches!(output, Output::Send { to: Some(_), .. }));
    assert!(challenges.count() <= 5, "node1 sends at most one challenge every 40 ms");
    let hello =
        Body::Hello { generation: 0, accepted_keys: vec![], failing: FailingReport::default() };
    machine.handle(node2_frame(3, 3, hello), at + ms(200));
    assert_eq!(machine.counts().stale_frames, 0, "frames of the current epoch are still accepted");
}
