//! Replication of claim sets over a lossy segment: which copies are complete, and which missed
//! changes may have hidden a claim.

use std::time::Duration;

use ferrolb_proto::wire::hello::{ADDRESSES_PER_FRAME_MAX, Flags};
use proptest::prelude::*;

use super::*;

const PEER: &str = "node2";
const RANK: ClaimRank = ClaimRank { soft_rules: 0, preference: 1, order: 2 };

fn address(n: u32) -> IpAddr {
    IpAddr::from((0x0a00_0000 + n).to_be_bytes())
}

fn addresses(range: impl IntoIterator<Item = u32>) -> Vec<IpAddr> {
    range.into_iter().map(address).collect()
}

/// A node with its own set, and the node that has a copy of it.
struct Pair {
    sender: ClaimSets,
    receiver: ClaimSets,
    now: Instant,
}

impl Pair {
    fn new() -> Self {
        let now = Instant::from_millis(1_000);
        let mut pair =
            Self { sender: ClaimSets::new(7, now), receiver: ClaimSets::new(1, now), now };
        pair.receiver.add_peer(PEER.into(), 7);
        pair
    }

    fn frame(&self, body: Body) -> Frame {
        Frame {
            node: PEER.into(),
            epoch: 7,
            clock: self.now.as_nanos(),
            claim_set: self.sender.own().summary(),
            interval: Duration::from_millis(50),
            detection_time: None,
            flags: Flags::default(),
            body,
        }
    }

    fn claim(&mut self, addresses: &[IpAddr]) -> Frame {
        self.claim_with(addresses, RANK)
    }

    fn claim_with(&mut self, addresses: &[IpAddr], rank: ClaimRank) -> Frame {
        let claims: Vec<_> = addresses.iter().map(|address| (*address, rank)).collect();
        self.sender.claim(&claims, self.now);
        self.frame(Body::Claim(claims.into_iter().map(claim).collect()))
    }

    fn release(&mut self, addresses: &[IpAddr]) -> Frame {
        self.sender.release(addresses);
        self.frame(Body::Release { addresses: addresses.to_vec(), contested: false })
    }

    fn stretch(&mut self) -> Frame {
        let (after, last, addresses) = self.sender.own_mut().next_stretch(self.now);
        let owned = self.sender.own().owned();
        let rank = |address: &IpAddr| owned.get(address).expect("an owned address").rank;
        let claims =
            addresses.into_iter().map(|address| claim((address, rank(&address)))).collect();
        self.frame(Body::List(Stretch { after, last, claims }))
    }

    fn receive(&mut self, frame: &Frame) -> SetChanges {
        let changes = self.receiver.receive(PEER, frame, self.now);
        assert!(self.receiver.is_consistent());
        changes
    }

    fn receive_late(&mut self, frame: &Frame) -> Option<SetChanges> {
        let changes = self.receiver.receive_late(PEER, frame, false, self.now);
        assert!(self.receiver.is_consistent());
        changes
    }

    fn copy(&self) -> &SetCopy {
        self.receiver.copy(PEER).expect("the receiver knows the peer")
    }

    fn known(&self) -> Vec<IpAddr> {
        self.copy().claims().keys().copied().collect()
    }

    fn owned(&self) -> Vec<IpAddr> {
        self.sender.own().owned().keys().copied().collect()
    }
}

fn hello() -> Body {
    Body::Hello { accepted_keys: vec![] }
}

fn claim((address, rank): (IpAddr, ClaimRank)) -> Claim {
    Claim { address, rank, preempt_delay: Duration::ZERO }
}

#[test]
fn changes_name_what_a_frame_adds_and_removes() {
    let mut pair = Pair::new();
    let frame = pair.claim(&addresses([1, 2, 3]));
    let changes = pair.receive(&frame);
    assert_eq!(changes, SetChanges { claimed: addresses([1, 2, 3]), ..SetChanges::default() });
    let repeated = pair.receive(&frame);
    assert_eq!(repeated, SetChanges::default());
    let frame = pair.release(&addresses([2]));
    let released = SetChanges { released: addresses([2]), ..SetChanges::default() };
    assert_eq!(pair.receive(&frame), released);
    let unknown = SetChanges { unknown: addresses([2]), ..SetChanges::default() };
    assert_eq!(pair.receive(&frame), unknown);
    // The release of all others is lost; the hello shows that the set is empty.
    pair.release(&addresses([1, 3]));
    let frame = pair.frame(hello());
    let released = SetChanges { released: addresses([1, 3]), ..SetChanges::default() };
    assert_eq!(pair.receive(&frame), released);
    assert!(pair.copy().is_complete());
}

#[test]
fn a_changed_preempt_delay_or_rank_is_reported() {
    let mut pair = Pair::new();
    let mut frame = pair.claim(&addresses([1]));
    pair.receive(&frame);
    let Body::Claim(claims) = &mut frame.body else { unreachable!("a claim") };
    claims[0].preempt_delay = Duration::from_secs(30);
    let restated = SetChanges { restated: addresses([1]), ..SetChanges::default() };
    assert_eq!(pair.receive(&frame), restated);
    let end = pair.now + Duration::from_secs(30);
    assert_eq!(pair.copy().claims()[&address(1)].delay_end, end);
    // A list that repeats the delay a moment later is no change.
    pair.now = pair.now + Duration::from_millis(20);
    assert_eq!(pair.receive(&frame), SetChanges::default());
    let frame = pair.claim_with(&addresses([1]), ClaimRank { soft_rules: 2, ..RANK });
    assert!(!pair.copy().is_complete() || pair.copy().claims()[&address(1)].rank == RANK);
    let restated = SetChanges { restated: addresses([1]), ..SetChanges::default() };
    assert_eq!(pair.receive(&frame), restated);
    assert!(pair.copy().is_complete());
}

#[test]
fn a_lost_claim_leads_to_one_list_request_per_interval() {
    let mut pair = Pair::new();
    pair.claim(&addresses([1]));
    let frame = pair.frame(hello());
    let mut requests = Vec::new();
    for _ in 0..5 {
        pair.receive(&frame);
        requests.push(pair.receiver.requests_list(PEER, pair.now));
        pair.now = pair.now + LIST_REQUEST_INTERVAL / 2;
    }
    assert_eq!(requests, [true, false, true, false, true]);
    let list = pair.stretch();
    pair.receive(&list);
    assert!(!pair.receiver.requests_list(PEER, pair.now));
    assert_eq!(pair.known(), addresses([1]));
}

#[test]
fn two_missed_changes_are_reported_once_the_copy_is_complete() {
    for (changes, missed) in [(1, false), (2, true), (3, true)] {
        let mut pair = Pair::new();
        for n in 0..changes {
            pair.claim(&addresses([n]));
        }
        let frame = pair.frame(hello());
        assert!(!pair.receive(&frame).missed, "the copy is incomplete");
        let list = pair.stretch();
        assert_eq!(pair.receive(&list).missed, missed, "{changes} changes");
        assert!(!pair.receive(&frame).missed, "the changes are reported once");
    }
}

#[test]
fn an_overtaken_change_is_no_missed_change() {
    let mut pair = Pair::new();
    let claim = pair.claim(&addresses([1]));
    let release = pair.release(&addresses([1]));
    let again = pair.claim(&addresses([2]));
    pair.receive(&release);
    pair.receive(&again);
    assert_eq!(pair.receive_late(&claim), None, "the address is released again");
    let mut pair = Pair::new();
    let frames: Vec<_> = (0..3).map(|n| pair.claim(&addresses([n]))).collect();
    pair.receive(&frames[2]);
    assert_eq!(pair.receive_late(&frames[0]), None, "the second claim is missing, too");
    let list = pair.stretch();
    assert!(pair.receive(&list).missed);
    let mut pair = Pair::new();
    let frames: Vec<_> = (0..2).map(|n| pair.claim(&addresses([n]))).collect();
    pair.receive(&frames[1]);
    let claimed = SetChanges { claimed: addresses([0]), ..SetChanges::default() };
    assert_eq!(pair.receive_late(&frames[0]), Some(claimed));
    assert_eq!(pair.receive_late(&frames[0]), None, "a replay changes nothing");
}

#[test]
fn a_list_has_every_address_once_and_starts_at_most_every_20_ms() {
    let mut pair = Pair::new();
    let count = ADDRESSES_PER_FRAME_MAX as u32 * 3 + 1;
    for chunk in addresses(0..count).chunks(ADDRESSES_PER_FRAME_MAX) {
        pair.claim(chunk);
    }
    let mut frames = 0;
    for (wait, sent) in [(0, 4), (19, 0), (1, 4)] {
        pair.now = pair.now + Duration::from_millis(wait);
        pair.sender.own_mut().start_list(pair.now);
        frames = 0;
        while pair.sender.own().has_list() {
            let stretch = pair.stretch();
            pair.receive(&stretch);
            frames += 1;
        }
        assert_eq!(frames, sent, "after {wait} ms");
    }
    assert!(frames > 0 && pair.copy().is_complete());
    assert_eq!(pair.known(), pair.owned());
}

#[test]
fn a_full_copy_ignores_further_claims_and_requests_no_list() {
    let mut pair = Pair::new();
    let most = u32::try_from(CLAIMS_PER_PEER_MAX).expect("a small limit");
    let all = addresses(0..most + 3);
    for chunk in all.chunks(ADDRESSES_PER_FRAME_MAX) {
        let frame = pair.claim(chunk);
        let changes = pair.receiver.receive(PEER, &frame, pair.now);
        let over = chunk.iter().filter(|address| all[CLAIMS_PER_PEER_MAX..].contains(address));
        assert_eq!(changes.over_limit, over.count() as u64);
    }
    assert!(!pair.copy().is_complete());
    assert!(!pair.receiver.requests_list(PEER, pair.now));
}

#[test]
fn a_claim_outside_of_its_stretch_is_ignored() {
    let mut pair = Pair::new();
    let (after, last) = (Some(address(1)), Some(address(3)));
    pair.sender.claim(&[(address(2), RANK)], pair.now);
    let claims = (0..5).map(|n| claim((address(n), RANK))).collect();
    let frame = pair.frame(Body::List(Stretch { after, last, claims }));
    let changes = pair.receive(&frame);
    assert_eq!(changes.claimed, addresses([2, 3]));
}

/// A frame of the sender, and whether it arrives; a late frame arrives after the next one.
#[derive(Clone, Copy, Debug)]
enum Arrival {
    InOrder,
    Late,
    Lost,
}

fn arrival() -> impl Strategy<Value = Arrival> {
    prop_oneof![
        6 => Just(Arrival::InOrder),
        2 => Just(Arrival::Late),
        2 => Just(Arrival::Lost),
    ]
}

proptest! {
    #[test]
    fn every_copy_becomes_complete(
        steps in prop::collection::vec((0_u8..5, 0_u32..200, 1_u32..100, arrival()), 1..60),
    ) {
        let mut pair = Pair::new();
        let mut late = None;
        for (kind, from, count, arrival) in steps {
            pair.now = pair.now + Duration::from_millis(10);
            let range = addresses(from..from + count.min(ADDRESSES_PER_FRAME_MAX as u32));
            let owned = pair.owned();
            let (known, new): (Vec<_>, Vec<_>) =
                range.into_iter().partition(|address| owned.contains(address));
            let frame = match kind {
                0 if !new.is_empty() => pair.claim(&new),
                1 if !known.is_empty() => pair.release(&known),
                4 if !known.is_empty() => {
                    pair.claim_with(&known, ClaimRank { order: from, ..RANK })
                }
                2 => pair.stretch(),
                _ => pair.frame(hello()),
            };
            match arrival {
                Arrival::InOrder => drop(pair.receive(&frame)),
                Arrival::Late => {}
                Arrival::Lost => continue,
            }
            if let Some(before) = late.take() {
                pair.receive_late(&before);
            }
            late = matches!(arrival, Arrival::Late).then_some(frame);
        }
        let frame = pair.frame(hello());
        pair.receive(&frame);
        pair.now = pair.now + Duration::from_secs(1);
        pair.sender.own_mut().start_list(pair.now);
        while pair.sender.own().has_list() {
            let stretch = pair.stretch();
            pair.receive(&stretch);
        }
        prop_assert!(pair.copy().is_complete());
        prop_assert_eq!(pair.known(), pair.owned());
    }
}
