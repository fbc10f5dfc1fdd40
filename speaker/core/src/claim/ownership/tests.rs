//! The ownership alone: when a node takes, keeps and releases an address, and what it does about
//! other hosts that use an address.

use std::time::Duration;

use ferrolb_core::election::{Candidate, SoftRules, Unit};
use ferrolb_proto::wire::hello::{Body, Claim, ClaimSetSummary, Flags, Frame};

use super::*;
use crate::claim::LISTEN_PHASE;
use crate::claim::membership::admit;

const PEER: &str = "node2";
const PEER_MAC: Mac = Mac([2, 0, 0, 0, 0, 2]);
const OTHER_MAC: Mac = Mac([2, 0, 0, 0, 0, 9]);
const VIP: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(172, 30, 0, 200));
const NONE: SoftRules = SoftRules::NONE;

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// Parts of node1, whose only peer is node2.
struct Node {
    members: Membership,
    sets: ClaimSets,
    ownership: Ownership,
    now: Instant,
}

impl Node {
    /// Starts after the preempt delay, with a peer that has these flags.
    fn new(peer: Flags) -> Self {
        let config = ClaimConfig {
            node: "node1".into(),
            epoch: 1,
            hello_interval: ms(50),
            hello_misses: 3,
            detection_time_max: Duration::from_secs(2),
            failback_delay: Some(ms(2_000)),
        };
        let start = Instant::from_millis(1_000);
        let (now, mut members) = (start + ms(3_000), Membership::new(config.clone(), start));
        members.own_mut().set_keys(vec![1], start);
        members.own_mut().expire(start + LISTEN_PHASE);
        members.own_mut().expire(now);
        admit(&mut members, PEER, PEER_MAC, peer, now);
        members.own_mut().expire(now + ms(2_000));
        let mut sets = ClaimSets::new(1, start);
        sets.add_peer(PEER.into(), 7);
        let now = now + ms(2_000);
        Self { members, sets, ownership: Ownership::new(config, now), now }
    }

    fn ownership(&mut self) -> (&mut Ownership, View<'_>) {
        let Self { members, sets, ownership, now } = self;
        (ownership, View { members, sets, now: *now })
    }

    /// Adds the unit with these candidates, each with its preference.
    fn unit(&mut self, candidates: &[(&str, u16)]) {
        let candidate = |(node, preference): &(&str, u16)| Candidate {
            node: (*node).into(),
            preference: *preference,
            ..Candidate::default()
        };
        let candidates = candidates.iter().map(candidate).collect();
        let (ownership, view) = self.ownership();
        ownership.update_units(vec![Arc::new(Unit::new(VIP, VIP, candidates))], view);
    }

    /// Receives a claim of the peer.
    fn peer_claims(&mut self, rules: SoftRules, preference: u16, preempt_delay: Duration) {
        let rank = ClaimRank { soft_rules: rules.bits(), preference, order: 0 };
        let claim_set = ClaimSetSummary::new(7, 1, [(VIP, rank)]);
        let (interval, detection_time, flags) = (ms(50), None, Flags::default());
        let body = Body::Claim(vec![Claim { address: VIP, rank, preempt_delay }]);
        let frame = Frame {
            node: PEER.into(),
            epoch: 7,
            clock: 10,
            claim_set,
            interval,
            detection_time,
            flags,
            body,
        };
        let changes = self.sets.receive(PEER, &frame, self.now);
        let (ownership, view) = self.ownership();
        ownership.on_set_changes(PEER, &frame.body, changes, view);
    }

    /// Owns the address since this time.
    fn owns(&mut self, rank: ClaimRank, since: Duration) {
        let at = Instant::ZERO + self.now.since(Instant::ZERO).saturating_sub(since);
        self.sets.claim(&[(VIP, rank)], at);
    }

    /// Returns the first action on the address within two seconds, and the time until it.
    fn action(&mut self) -> Option<(Action, u64)> {
        let start = self.now;
        loop {
            let (ownership, view) = self.ownership();
            assert!(ownership.evaluate_dirty(view));
            let decided = ownership.take_decisions();
            let action = if !decided.take.is_empty() {
                Some(Action::Take)
            } else if !decided.hand_over.is_empty() {
                Some(Action::HandOver)
            } else if !decided.doubts.is_empty() {
                Some(Action::Doubt)
            } else {
                None
            };
            if let Some(action) = action {
                let waited = self.now.since(start).as_millis();
                return Some((action, waited.try_into().expect("a short time")));
            }
            let next = self.ownership.deadline().filter(|at| at.since(start) <= ms(2_000))?;
            self.now = self.now.max(next);
        }
    }

    fn effects(&mut self) -> Vec<OwnershipEffect> {
        std::iter::from_fn(|| self.ownership.poll()).collect()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Take,
    HandOver,
    Doubt,
}

#[test]
fn a_free_address_goes_to_the_candidates_in_order_of_rank() {
    let live = Flags::default();
    let isolated = Flags { isolated: true, ..live };
    let draining = Flags { draining: true, ..live };
    let (both, alone): (&[_], &[_]) = (&[("node1", 0), (PEER, 9)], &[("node1", 0)]);
    let worse: &[_] = &[("node1", 9), (PEER, 0)];
    let other: &[_] = &[(PEER, 0)];
    let cases = [
        ("the only candidate", live, alone, Some((0, 450))),
        ("a better candidate", live, both, Some((60, 950))),
        ("a worse candidate", live, worse, Some((0, 450))),
        ("the better one receives nothing", isolated, both, Some((0, 450))),
        ("a soft rule applies to it", draining, both, Some((0, 450))),
        ("no candidate", live, other, None),
    ];
    for (case, peer, candidates, waits) in cases {
        let (proven, new) = waits.unzip();
        let mut node = Node::new(peer);
        node.unit(candidates);
        assert_eq!(node.action(), new.map(|wait| (Action::Take, wait)), "{case}, after its probes");
        let mut node = Node::new(peer);
        node.unit(candidates);
        let (ownership, view) = node.ownership();
        ownership.note_moves(&[VIP], view.now);
        assert_eq!(node.action(), proven.map(|wait| (Action::Take, wait)), "{case}, proven");
    }
}

#[test]
fn two_stated_ranks_decide_whether_an_address_moves() {
    let (none, live) = (Duration::ZERO, Flags::default());
    let draining = Flags { draining: true, ..live };
    let take = |after| Some((Action::Take, after));
    let cases = [
        ("the owner is better", live, NONE, 9, none, None),
        ("the owner is worse", live, NONE, 0, none, take(0)),
        ("the same in its preempt delay", live, NONE, 0, ms(500), take(500)),
        ("the checks of the owner fail", live, SoftRules::FAILING, 9, none, take(0)),
        ("the same in its preempt delay", live, SoftRules::FAILING, 9, ms(500), take(0)),
        ("the owner states that it is ineligible", live, SoftRules::INELIGIBLE, 9, none, take(0)),
        ("the owner drains", draining, NONE, 9, none, take(0)),
    ];
    for (case, peer, rules, preference, delay, expected) in cases {
        let mut node = Node::new(peer);
        node.unit(&[("node1", 5), (PEER, 5)]);
        node.peer_claims(rules, preference, delay);
        assert_eq!(node.action(), expected, "{case}");
    }
}

#[test]
fn an_owner_that_may_not_announce_gets_a_doubt_first() {
    for (rules, expected) in
        [(NONE, (Action::Doubt, 60)), (SoftRules::INELIGIBLE, (Action::Take, 0))]
    {
        let mut node = Node::new(Flags::default());
        node.unit(&[("node1", 0)]);
        node.peer_claims(rules, 9, Duration::ZERO);
        assert_eq!(node.action(), Some(expected), "{rules:?}");
    }
}

#[test]
fn the_owner_with_the_worse_stated_rank_releases() {
    let worse = ClaimRank { order: u32::MAX, ..ClaimRank::default() };
    let better = ClaimRank { preference: 9, ..ClaimRank::default() };
    for (case, own, rules, releases) in [
        ("worse by the order", worse, NONE, true),
        ("better by the preference", better, NONE, false),
        ("better, because the checks of the peer fail", worse, SoftRules::FAILING, false),
    ] {
        let mut node = Node::new(Flags::default());
        node.unit(&[("node1", 0), (PEER, 0)]);
        node.owns(own, ms(5_000));
        node.peer_claims(rules, 0, Duration::ZERO);
        let decided = node.ownership.take_decisions();
        assert_eq!(decided.hand_over, if releases { vec![VIP] } else { vec![] }, "{case}");
        assert_eq!(decided.moves.len(), usize::from(releases), "{case}");
        assert_eq!(decided.restate.is_empty(), releases, "{case}");
    }
}

#[test]
fn an_owner_that_is_no_candidate_keeps_the_address_for_a_while() {
    let mut node = Node::new(Flags::default());
    node.unit(&[("node1", 0)]);
    node.owns(ClaimRank::default(), ms(5_000));
    let mut unit = Unit::new(VIP, VIP, Arc::new([]));
    unit.can_serve_here = false;
    let (ownership, view) = node.ownership();
    ownership.update_units(vec![Arc::new(unit)], view);
    assert_eq!(node.action(), Some((Action::HandOver, 1_000)));
}

/// Reaction to a frame in which another host uses an owned or probed address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reaction {
    None,
    Defend,
    Leave,
    Check,
    Suspect,
}

#[test]
fn the_host_decides_the_reaction_to_its_use_of_an_address() {
    let cases = [
        ("a host announces it", OTHER_MAC, true, false, Reaction::Defend, 1),
        ("a host replies to requests", OTHER_MAC, false, false, Reaction::Defend, 1),
        ("a host replies to the probe", OTHER_MAC, false, true, Reaction::Leave, 1),
        ("a peer announces it", PEER_MAC, true, false, Reaction::Suspect, 1),
        ("the kernel of a peer replies", PEER_MAC, false, false, Reaction::None, 1),
    ];
    for (case, mac, announced, is_probed, expected, conflicts) in cases {
        let mut node = Node::new(Flags::default());
        node.unit(&[("node1", 9), (PEER, 0)]);
        if is_probed {
            let (ownership, view) = node.ownership();
            assert!(ownership.evaluate_dirty(view));
            assert_eq!(node.effects(), [OwnershipEffect::Output(Output::ArpProbe(VIP))]);
        } else {
            node.owns(ClaimRank::default(), ms(60_000));
        }
        let (ownership, view) = node.ownership();
        ownership.on_foreign_frame(VIP, mac, announced, view);
        let is_left = !node.ownership.take_decisions().contest.is_empty();
        let reaction = match node.effects().first() {
            _ if is_left => Reaction::Leave,
            None => Reaction::None,
            Some(OwnershipEffect::Output(_)) => Reaction::Defend,
            Some(OwnershipEffect::Suspect(_)) => Reaction::Suspect,
            Some(OwnershipEffect::CheckFailedPeer { .. }) => Reaction::Check,
        };
        assert_eq!(reaction, expected, "{case}");
        assert_eq!(node.ownership.conflicts().count(), conflicts, "{case}");
    }
}

/// The foreign host begins after the probes of the peer that claims the address.
#[test]
fn a_claim_does_not_refute_an_answer_that_is_newer_than_its_probes() {
    for (age, expected) in [(1, None), (499, None), (500, Some((Action::Take, 0)))] {
        let mut node = Node::new(Flags::default());
        node.unit(&[("node1", 9), (PEER, 0)]);
        let (ownership, view) = node.ownership();
        assert!(ownership.evaluate_dirty(view));
        ownership.on_foreign_frame(VIP, OTHER_MAC, false, view);
        node.now = node.now + ms(age);
        node.peer_claims(NONE, 0, Duration::ZERO);
        assert_eq!(node.action(), expected, "{age} ms after the answer");
        assert_eq!(node.ownership.conflicts().count(), usize::from(age < 500));
    }
}

#[test]
fn a_defended_address_stays_proven_when_a_peer_takes_it() {
    let mut node = Node::new(Flags::default());
    node.unit(&[("node1", 0), (PEER, 9)]);
    let (ownership, view) = node.ownership();
    ownership.note_moves(&[VIP], view.now);
    node.owns(ClaimRank::default(), ms(60_000));
    let (ownership, view) = node.ownership();
    ownership.on_foreign_frame(VIP, OTHER_MAC, true, view);
    node.now = node.now + ms(1);
    node.peer_claims(NONE, 9, Duration::ZERO);
    let state = node.ownership.units.get(VIP);
    assert!(state.is_some_and(|state| state.is_proven), "a later owner needs no probes");
}

#[test]
fn the_kernel_of_a_peer_that_replies_to_probes_is_reported_after_the_claim() {
    let mut node = Node::new(Flags::default());
    node.unit(&[("node1", 9), (PEER, 0)]);
    let (ownership, view) = node.ownership();
    assert!(ownership.evaluate_dirty(view));
    ownership.on_foreign_frame(VIP, PEER_MAC, false, view);
    assert_eq!(node.action(), Some((Action::Take, 450)));
    let conflict = node.ownership.conflicts().next().expect("the kernel is reported");
    assert_eq!(conflict.kind, ConflictKind::PeerKernel(PEER.into()));
}

#[test]
fn the_address_of_a_failed_peer_is_unowned_and_a_move_of_it_a_failover() {
    let mut node = Node::new(Flags::default());
    node.unit(&[("node1", 0), (PEER, 9)]);
    node.peer_claims(NONE, 9, Duration::ZERO);
    assert_eq!(node.action(), None, "the owner is alive and better");
    let last_frame = node.now;
    node.now = node.now + ms(190);
    node.members.frame_received(node.now);
    while node.members.peers().get_live(PEER).is_some() {
        node.now = node.now + ms(5);
        node.members.frame_received(node.now);
        node.members.check_peers(node.now);
    }
    let (ownership, view) = node.ownership();
    ownership.on_failure(PEER, last_frame, Some(PEER_MAC), view);
    assert!(ownership.evaluate_dirty(view));
    let decided = node.ownership.take_decisions();
    let [moved] = &decided.moves[..] else { panic!("one move: {decided:?}") };
    assert_eq!(
        (moved.cause, moved.from.as_deref()),
        (crate::claim::MoveCause::NodeFailed, Some(PEER))
    );
    assert!(moved.silence.is_some_and(|silence| silence >= ms(190)));
    let conflict = node.ownership.conflicts().next().expect("the proxy is reported");
    assert_eq!(conflict.kind, ConflictKind::ProxyOfFailedPeer(PEER.into()));
}

/// State that only tests read.
impl Ownership {
    pub(in crate::claim) fn unit(&self, address: IpAddr) -> Option<&Arc<Unit>> {
        self.units.get(address).map(|state| &state.unit)
    }

    pub(in crate::claim) fn addresses(&self) -> impl Iterator<Item = &IpAddr> {
        self.units.addresses()
    }

    pub(in crate::claim) fn is_doubted(&self, address: IpAddr) -> bool {
        let pending = self.units.get(address).and_then(|state| state.pending_claim.as_ref());
        pending.is_some_and(|pending| pending.doubted_until.is_some())
    }

    /// Returns whether an action on the unit is pending, or the unit has moved recently.
    pub(in crate::claim) fn is_pending(&self, address: IpAddr) -> bool {
        self.units.get(address).is_some_and(|state| state.pending_claim.is_some())
    }

    /// Returns the state that decides about the units, as text.
    pub(in crate::claim) fn state(&mut self, now: Instant) -> String {
        let units = self.units.state(now);
        let (unowned, announcements, counts) =
            (self.rule.unowned(), &self.announcements, &self.counts);
        format!("{units}{unowned:#?}{announcements:#?}{counts:#?}")
    }
}
