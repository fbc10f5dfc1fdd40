//! The membership alone: which frames are accepted, how a suspicion ends, and when this node fences
//! itself.

use std::time::Duration;

use ferrolb_proto::wire::hello::{Body, ClaimSetSummary, Flags, Frame, PathReport};

use super::self_check::MinimumOffset;
use super::*;
use crate::claim::LISTEN_PHASE;

const PEER: &str = "node2";
const PEER_MAC: Mac = Mac([2, 0, 0, 0, 0, 2]);
const OTHER_MAC: Mac = Mac([2, 0, 0, 0, 0, 3]);

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn hello() -> Body {
    Body::Hello { accepted_keys: vec![] }
}

/// The membership of node1, which knows node2 as a peer.
struct Segment {
    membership: Membership,
    now: Instant,
}

impl Segment {
    /// Starts without a peer, at the end of the listen phase.
    fn without_peers() -> Self {
        let config = ClaimConfig {
            node: "node1".into(),
            epoch: 1,
            hello_interval: ms(50),
            hello_misses: 3,
            detection_time_max: Duration::from_secs(2),
            failback_delay: Some(ms(2_000)),
        };
        let start = Instant::from_millis(1_000);
        let now = start + LISTEN_PHASE;
        let mut membership = Membership::new(config, start);
        membership.own_mut().set_keys(vec![1], start);
        membership.own_mut().expire(now);
        membership.send_hello(now);
        let mut segment = Self { membership, now };
        segment.effects();
        segment
    }

    fn new() -> Self {
        let mut segment = Self::without_peers();
        let now = segment.now;
        admit(&mut segment.membership, PEER, PEER_MAC, Flags::default(), now);
        segment.membership.frame_received(now);
        segment.effects();
        segment
    }

    fn frame(&self, node: &str, epoch: u64, clock: u64, body: Body) -> Frame {
        Frame {
            node: node.into(),
            epoch,
            clock,
            claim_set: ClaimSetSummary::default(),
            interval: ms(50),
            detection_time: None,
            flags: Flags::default(),
            body,
        }
    }

    fn effects(&mut self) -> Vec<MemberEffect> {
        std::iter::from_fn(|| self.membership.poll()).collect()
    }

    /// Lets this time pass, and handles the deadlines of the peers meanwhile. Another host sends a
    /// frame at each deadline, so this node is not isolated.
    fn wait(&mut self, time: Duration) -> Vec<MemberEffect> {
        let (end, mut effects) = (self.now + time, Vec::new());
        while let Some(at) = self.membership.peers.deadline().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.membership.frame_received(self.now);
            self.membership.check_peers(self.now);
            effects.extend(self.effects());
        }
        self.now = end;
        effects
    }
}

/// Returns the nonces of the challenges that go to the peer by the segment.
fn challenges(effects: &[MemberEffect]) -> Vec<u64> {
    let nonce = |effect: &MemberEffect| {
        let MemberEffect::Output(Output::Send { to: Some(PEER_MAC), frame, .. }) = effect else {
            return None;
        };
        if let Body::Challenge { nonce } = frame.body { Some(nonce) } else { None }
    };
    effects.iter().filter_map(nonce).collect()
}

#[test]
fn a_frame_is_accepted_by_its_sender_epoch_and_clock() {
    const LATEST: u64 = 1_000_000_000;
    let newest = Admission::Newest { has_returned: false };
    let (late, old) = (Admission::Late { is_recent: true }, Admission::Late { is_recent: false });
    let report = Body::PathReport { nonce: 1, report: PathReport::default() };
    let cases = [
        ("newer", PEER, 7, LATEST + 1, hello(), newest),
        ("the same again", PEER, 7, LATEST, hello(), late),
        ("just overtaken", PEER, 7, LATEST - 1_000_000, hello(), late),
        ("recorded", PEER, 7, LATEST - 30_000_000, hello(), old),
        ("own name", "node1", 7, LATEST + 1, hello(), Admission::Dropped),
        ("unknown node", "node3", 7, LATEST + 1, hello(), Admission::Dropped),
        ("new epoch", PEER, 8, LATEST + 1, hello(), Admission::Dropped),
        ("report on the segment", PEER, 7, LATEST + 1, report, Admission::Dropped),
    ];
    for (case, node, epoch, clock, body, expected) in cases {
        let mut segment = Segment::new();
        let before = segment.frame(PEER, 7, LATEST, hello());
        segment.membership.admit(PEER_MAC, &before, segment.now);
        let frame = segment.frame(node, epoch, clock, body);
        let admission = segment.membership.admit(PEER_MAC, &frame, segment.now);
        assert_eq!(admission, expected, "{case}");
    }
}

#[test]
fn a_newcomer_joins_with_its_response_to_the_challenge() {
    let mut segment = Segment::new();
    for (epoch, before) in [(8, Some(EarlierEpoch { is_leaving: false, failed: false })), (8, None)]
    {
        let node = if before.is_some() { PEER } else { "node3" };
        let hello = segment.frame(node, epoch, 1, hello());
        segment.membership.admit(PEER_MAC, &hello, segment.now);
        let nonces = challenges(&segment.effects());
        let [nonce] = nonces[..] else { panic!("one challenge: {nonces:?}") };
        let wrong = Body::ChallengeReply { nonce: nonce.wrapping_add(1) };
        let reply = segment.frame(node, epoch, 2, wrong);
        let admission = segment.membership.admit(PEER_MAC, &reply, segment.now);
        assert_eq!(admission, Admission::Dropped, "the response has another nonce");
        let reply = segment.frame(node, epoch, 2, Body::ChallengeReply { nonce });
        let admission = segment.membership.admit(PEER_MAC, &reply, segment.now);
        assert_eq!(admission, Admission::Newest { has_returned: false });
        let joined = MemberEffect::Joined { node: node.into(), epoch, before };
        assert!(segment.effects().contains(&joined), "{node}");
    }
}

/// End of a suspicion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    Unheard,
    Failed { arp_replied: bool },
}

fn ending(effects: &[MemberEffect]) -> Option<Ending> {
    let ending = |effect: &MemberEffect| {
        if let MemberEffect::Failed { arp_replied, .. } = effect {
            return Some(Ending::Failed { arp_replied: *arp_replied });
        }
        matches!(effect, MemberEffect::BecameUnheard { .. }).then_some(Ending::Unheard)
    };
    effects.iter().find_map(ending)
}

#[test]
fn the_evidence_decides_how_a_suspicion_ends() {
    let report = |receives, has_replied, is_received| {
        Some(PathReport { receives, has_replied, is_received })
    };
    let failed = |arp_replied| Ending::Failed { arp_replied };
    // The last column is the time from the latest frame of the peer to the end, in milliseconds.
    let cases = [
        ("no reply by any path", None, false, failed(false), 190),
        ("only a device replies to ARP", None, true, failed(true), 190),
        ("it receives and is received", report(true, false, true), false, Ending::Unheard, 195),
        ("it receives", report(true, false, false), false, failed(false), 210),
        ("others receive it", report(false, false, true), false, failed(false), 210),
        ("its reply has arrived", report(false, true, false), true, Ending::Unheard, 195),
        ("it has replied", report(false, true, false), false, failed(false), 210),
        ("a device replies for it", report(false, false, false), true, failed(true), 210),
    ];
    for (case, report, arp_replied, expected, time) in cases {
        let mut segment = Segment::new();
        let nonces = challenges(&segment.wait(ms(151)));
        let [nonce] = nonces[..] else { panic!("one challenge after 151 ms: {nonces:?}") };
        if arp_replied {
            segment.membership.on_arp_reply(PEER_MAC);
        }
        if let Some(report) = report {
            let frame = segment.frame(PEER, 7, 10, Body::PathReport { nonce, report });
            assert_eq!(segment.membership.receive_datagram(frame, segment.now), None);
        }
        let (mut end, mut passed) = (None, 151);
        while end.is_none() && passed < 300 {
            end = ending(&segment.wait(ms(1)));
            passed += 1;
        }
        assert_eq!((end, passed), (Some(expected), time), "{case}");
        let is_live = segment.membership.peers().get_live(PEER).is_some();
        assert_eq!(is_live, expected == Ending::Unheard, "{case}");
    }
}

#[test]
fn a_frame_ends_a_suspicion_and_returns_a_failed_peer() {
    for (silence, has_returned) in [(151, false), (300, true)] {
        let mut segment = Segment::new();
        let effects = segment.wait(ms(silence));
        assert_eq!(ending(&effects).is_some(), has_returned, "after {silence} ms");
        let frame = segment.frame(PEER, 7, 10, hello());
        let admission = segment.membership.admit(PEER_MAC, &frame, segment.now);
        assert_eq!(admission, Admission::Newest { has_returned });
        assert_eq!(segment.membership.counts().refuted, u64::from(!has_returned));
        assert!(
            segment.membership.peers().get_live(PEER).is_some()
                && !segment.membership.peers().has_suspicion()
        );
    }
}

#[test]
fn a_node_that_receives_nothing_declares_no_peer_failed_before_it_may_be_alone() {
    let stated = |time| (1, Some(ms(time)));
    for (time, is_isolated, is_live, (count, detection_time)) in [
        (300, false, true, (0, None)),
        (450, true, true, (0, None)),
        (1_100, true, false, (0, None)),
        (1_100, true, false, stated(190)),
        (1_950, true, true, stated(1_990)),
        (2_050, true, false, stated(1_990)),
    ] {
        let mut segment = Segment::new();
        let claim_set = ClaimSetSummary { count, ..ClaimSetSummary::default() };
        let hello = segment.frame(PEER, 7, 3, hello());
        let frame = Frame { claim_set, detection_time, ..hello };
        segment.membership.admit(PEER_MAC, &frame, segment.now);
        let end = segment.now + ms(time);
        while let Some(at) = segment.membership.deadline().filter(|at| *at <= end) {
            segment.now = segment.now.max(at);
            segment.membership.own_mut().expire(segment.now);
            segment.membership.check_silence(segment.now);
            segment.membership.check_peers(segment.now);
            if segment.membership.own_mut().is_hello_due(segment.now) {
                segment.membership.send_hello(segment.now);
            }
        }
        let now = (
            segment.membership.own().is_isolated(),
            segment.membership.peers().get_live(PEER).is_some(),
        );
        let case = format!("after {time} ms, stated {detection_time:?}");
        assert_eq!(now, (is_isolated, is_live), "{case}");
    }
}

/// Reaction of a node that continues after a stall.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reaction {
    None,
    Hello,
    Fence,
}

fn sends_hello(effects: &[MemberEffect]) -> bool {
    effects.iter().any(|effect| {
        let MemberEffect::Output(Output::Send { frame, .. }) = effect else { return false };
        matches!(frame.body, Body::Hello { .. })
    })
}

#[test]
fn a_stalled_owner_fences_itself_if_a_peer_may_have_taken_over() {
    let cases = [
        ("a short stall", 100, 1, true, Reaction::None),
        ("shorter than the timeout of the peers", 130, 1, true, Reaction::Hello),
        ("longer", 160, 1, true, Reaction::Fence),
        ("longer, without peers", 160, 1, false, Reaction::Hello),
        ("longer, without an address", 160, 0, true, Reaction::None),
    ];
    for (case, stall, count, has_peer, expected) in cases {
        let mut segment = if has_peer { Segment::new() } else { Segment::without_peers() };
        segment
            .membership
            .own_mut()
            .set_claim_set(ClaimSetSummary { count, ..ClaimSetSummary::default() });
        segment.membership.adjust_pace();
        segment.membership.send_hello(segment.now);
        segment.effects();
        segment.now = segment.now + ms(stall);
        segment.membership.check_answer_lease(segment.now);
        let effects = segment.effects();
        let reaction = if effects.contains(&MemberEffect::ReleaseAll) {
            Reaction::Fence
        } else if sends_hello(&effects) {
            Reaction::Hello
        } else {
            Reaction::None
        };
        assert_eq!(reaction, expected, "{case}");
    }
}

#[test]
fn a_hardware_address_belongs_to_one_host() {
    let mut segment = Segment::new();
    let host = |segment: &Segment, mac| segment.membership.host(mac, segment.now);
    assert_eq!(host(&segment, OTHER_MAC), Host::Foreign);
    assert_eq!(host(&segment, PEER_MAC), Host::Peer(PEER.into()));
    let frame = segment.frame("node3", 7, 1, hello());
    segment.membership.admit(OTHER_MAC, &frame, segment.now);
    let newcomer = |is_silent| Host::Newcomer { node: "node3".into(), is_silent };
    assert_eq!(host(&segment, OTHER_MAC), newcomer(false));
    segment.wait(ms(500));
    assert_eq!(host(&segment, OTHER_MAC), newcomer(true));
    assert_eq!(host(&segment, PEER_MAC), Host::FailedPeer(PEER.into()));
    // The node is installed again under another name.
    let now = segment.now;
    admit(&mut segment.membership, "node4", PEER_MAC, Flags::default(), now);
    assert_eq!(host(&segment, PEER_MAC), Host::Peer("node4".into()));
}

#[test]
fn frames_queued_during_a_pause_do_not_hide_the_pause() {
    let mut offset = MinimumOffset::new(0, Instant::from_millis(1_000));
    for n in 1..40 {
        assert!(!offset.has_fallen(n * 50_000_000, ms(150), Instant::from_millis(1_000 + n * 50)));
    }
    // The local clock stands still for a second; then the twenty hellos of that second are read at
    // the same time.
    let detected =
        (40..60).any(|n| offset.has_fallen(n * 50_000_000, ms(150), Instant::from_millis(2_951)));
    assert!(detected);
}

/// State that only tests read or change.
impl Membership {
    pub(in crate::claim) fn macs_of(&self, node: &str) -> VecDeque<Mac> {
        self.peers.get(node).expect("a peer").macs().clone()
    }

    pub(in crate::claim) const fn hello_interval(&self) -> Duration {
        self.own.hellos().interval()
    }

    pub(in crate::claim) const fn last_hello(&self) -> Instant {
        self.own.hellos().last()
    }

    pub(in crate::claim) const fn epoch(&self) -> u64 {
        self.own.config().epoch
    }

    pub(in crate::claim) const fn end_preempt_delay(&mut self) {
        self.own.end_preempt_delay();
    }

    pub(in crate::claim) fn set_leaving(&mut self, node: &str) {
        self.peers.get_mut(node).expect("a peer").set_leaving();
    }
}

#[test]
fn a_late_node_states_a_longer_time_only_if_every_peer_states_one() {
    // The first hello of the node was 940 ms late. A node without addresses sends one every 200 ms.
    for (states, expected) in [(true, ms(2_000)), (false, ms(640))] {
        let mut segment = Segment::new();
        let detection_time = states.then_some(ms(190));
        let frame = Frame { detection_time, ..segment.frame(PEER, 7, 3, hello()) };
        segment.membership.admit(PEER_MAC, &frame, segment.now);
        segment.membership.send_hello(segment.now + ms(200));
        assert_eq!(segment.membership.own.hellos().detection_time(), expected);
    }
}

#[test]
fn an_owner_is_not_declared_failed_before_its_stated_time() {
    let cases =
        [(1, None, 190), (1, Some(ms(190)), 190), (1, Some(ms(990)), 990), (0, Some(ms(990)), 60)];
    for (count, detection_time, expected) in cases {
        let mut segment = Segment::new();
        let claim_set = ClaimSetSummary { count, ..ClaimSetSummary::default() };
        let hello = segment.frame(PEER, 7, 3, hello());
        let frame = Frame { claim_set, detection_time, ..hello };
        segment.membership.admit(PEER_MAC, &frame, segment.now);
        // The copy of a frame has arrived without the frame.
        segment.membership.suspect_heard(PEER, segment.now);
        let begin = segment.now;
        while segment.membership.peers.get_live(PEER).is_some() {
            segment.wait(ms(1));
        }
        assert_eq!(segment.now.since(begin), ms(expected), "{count} addresses, {detection_time:?}");
    }
}
