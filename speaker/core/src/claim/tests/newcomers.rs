//! Admission: challenges to newcomers, and replayed frames.

use super::faults::{frame_from, machine_with_peer};
use super::*;

#[test]
fn replayed_frames_do_not_change_the_macs_of_a_peer() {
    let (mut machine, _) = machine_with_peer();
    let known = machine.members().macs_of("node2");
    for n in 0..8 {
        // A frame recorded in an earlier epoch of node2, and sent by another host.
        let Input::Frame { frame, .. } = frame_from("node2", 9, 1, Body::ListRequest) else {
            panic!("a frame")
        };
        machine.handle(
            Input::Frame { source: Mac([2, 8, 8, 8, 8, n]), frame },
            Instant::from_millis(1_600),
        );
    }
    assert_eq!((machine.counts().unchallenged, machine.members().macs_of("node2")), (8 + 1, known));
}

#[test]
fn a_silent_newcomer_is_challenged_five_times_per_second() {
    let mut machine = ClaimMachine::new(config("node1", 1), Instant::ZERO);
    machine.handle(Input::Keys(vec![1]), Instant::ZERO);
    let mut challenges = 0;
    for n in 1..=200 {
        let at = Instant::from_millis(50 * n);
        machine.handle(frame_from("node2", 1, n, hello()), at);
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
    assert!(machine.members().peers().count() == 0, "a late challenge response may be a recording");
    machine.handle(
        frame_from("node2", 1, 32, Body::ChallengeReply { nonce: all[29] }),
        Instant::from_millis(1_502),
    );
    assert!(machine.members().peers().mac_of("node2").is_some());
}

#[test]
fn a_returned_peer_gets_list_requests_until_its_claims_are_known() {
    let (mut machine, mut peer) = machine_with_peer();
    let mut at = Instant::from_millis(1500);
    machine.handle(peer.send(claim(&[VIP])), at);
    // Frames of other hosts arrive, and none of node2.
    for _ in 0..500 {
        at = at + ms(1);
        machine.handle(Input::FrameReceived, at);
        machine.tick(at);
    }
    assert!(machine.members().peers().get_live("node2").is_none());
    while machine.poll().is_some() {}
    let mut list_requests = |machine: &mut ClaimMachine, input: Input| {
        at = at + ms(10);
        machine.handle(input, at);
        let is_request = |output: &Output| matches!(output, Output::Send { frame, .. } if frame.body == Body::ListRequest);
        std::iter::from_fn(|| machine.poll()).filter(is_request).count()
    };
    // The release is lost, and so are the replies to the requests.
    drop(peer.send(hand_over(&[VIP])));
    drop(peer.send(claim(&[IpAddr::from([172, 30, 0, 201])])));
    let counts: Vec<_> = (0..9).map(|_| list_requests(&mut machine, peer.send(hello()))).collect();
    assert_eq!(counts, [1, 0, 1, 0, 1, 0, 1, 0, 1], "one list request every 20 ms");
    assert_eq!(list_requests(&mut machine, peer.send(peer.list())), 0);
    assert_eq!(known_claims(&machine, "node2"), [IpAddr::from([172, 30, 0, 201])]);
    assert_eq!(list_requests(&mut machine, peer.send(hello())), 0);
}

#[test]
fn replayed_frames_of_an_earlier_epoch_are_ignored() {
    let (mut machine, _) = machine_with_peer();
    let at = Instant::from_millis(2000);
    // After two restarts, frames of the first epoch arrive again.
    TestPeer::admitted("node2", 2, &mut machine, at);
    TestPeer::admitted("node2", 3, &mut machine, at);
    let recording = claim(&[VIP]);
    let node2_frame = |epoch, clock, body| frame_from("node2", epoch, clock, body);
    for n in 0..100 {
        machine.handle(node2_frame(1, 100 + n, recording.clone()), at + ms(n));
        machine.handle(node2_frame(1, 1000 + n, Body::ChallengeReply { nonce: n }), at + ms(n));
    }
    assert!(known_claims(&machine, "node2").is_empty());
    assert_eq!(
        machine.counts().unchallenged,
        200 + 3,
        "one frame of each new epoch is unchallenged, too"
    );
    let challenges = std::iter::from_fn(|| machine.poll())
        .filter(|output| matches!(output, Output::Send { to: Some(_), .. }));
    assert!(challenges.count() <= 5, "node1 sends at most one challenge every 40 ms");
    machine.handle(node2_frame(3, 3, hello()), at + ms(200));
    assert_eq!(machine.counts().stale_frames, 0, "frames of the current epoch are still accepted");
}
