//! Reaction of an owner to missed claims and releases of peers: the owner announces its addresses
//! again, because caches of clients may contain the MAC of the peer.

use super::*;

const OTHER_ADDRESS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(172, 30, 0, 201));

/// A node that owns an address and receives only the frames of the test.
struct TestOwner {
    machine: ClaimMachine,
    now: Instant,
    node2: TestPeer,
    node3: TestPeer,
}

impl TestOwner {
    /// Creates node1, which has owned [`VIP`] for a while. Its peers node2 and node3 own nothing.
    fn new() -> Self {
        let mut machine = ClaimMachine::new(config("node1", 1), Instant::ZERO);
        machine.handle(Input::Keys(vec![1]), Instant::ZERO);
        let half = Instant::from_millis(500);
        let node2 = TestPeer::admitted("node2", 7, &mut machine, half);
        let node3 = TestPeer::admitted("node3", 8, &mut machine, half);
        machine.tick(Instant::from_millis(1_000));
        machine.membership.end_preempt_delay();
        let now = Instant::from_millis(1_500);
        set_units(&mut machine, vec![unit(VIP, &["node1"])], now);
        prove(&mut machine, &[VIP], now);
        let mut owner = Self { machine, now, node2, node3 };
        owner.receive(hello());
        assert_eq!(owner.machine.owned().keys().copied().collect::<Vec<_>>(), [VIP]);
        owner.count_announcements();
        owner
    }

    /// Delivers a frame of node2.
    fn receive(&mut self, body: Body) {
        let frame = self.node2.send(body);
        self.machine.handle(frame, self.now);
    }

    /// Sends a frame of node2, which is lost.
    fn lose(&mut self, body: Body) {
        drop(self.node2.send(body));
    }

    /// Runs the machine for 1.5 s, in which the peers send only list requests. Returns the number
    /// of announcements.
    fn count_announcements(&mut self) -> usize {
        let mut count = 0;
        for _ in 0..15 {
            self.now = self.now + ms(100);
            let frames =
                [&mut self.node2, &mut self.node3].map(|peer| peer.send(Body::ListRequest));
            frames.into_iter().for_each(|frame| self.machine.handle(frame, self.now));
            self.machine.tick(self.now);
            let outputs = std::iter::from_fn(|| self.machine.poll());
            count += outputs
                .filter(|output| matches!(output, Output::AnnounceSeries(_) | Output::Defend(_)))
                .count();
        }
        count
    }
}

#[test]
fn only_missed_changes_that_may_hide_a_claim_cause_an_announcement() {
    let others = [OTHER_ADDRESS, IpAddr::from([172, 30, 0, 202])];
    let steps: [(&str, &[Body], &[Body], usize); 5] = [
        ("no missed change", &[], &[claim(&others), hand_over(&others)], 0),
        ("a missed claim, which the list contains", &[claim(&others)], &[], 0),
        ("a missed release", &[hand_over(&others)], &[], 0),
        ("a missed claim and its release", &[claim(&[VIP]), hand_over(&[VIP])], &[], 1),
        ("a missed claim, whose release arrives", &[claim(&[VIP])], &[hand_over(&[VIP])], 1),
    ];
    let mut owner = TestOwner::new();
    for (name, lost, received, expected) in steps {
        lost.iter().for_each(|body| owner.lose(body.clone()));
        received.iter().for_each(|body| owner.receive(body.clone()));
        owner.receive(owner.node2.list());
        assert_eq!(owner.count_announcements(), expected, "{name}");
        assert_eq!(
            known_claims(&owner.machine, "node2"),
            Vec::from_iter(owner.node2.owned.keys().copied())
        );
        owner.count_announcements();
        owner.count_announcements();
    }
}

#[test]
fn a_peer_that_often_hides_claims_causes_fewer_and_fewer_announcements() {
    let mut owner = TestOwner::new();
    let mut announcements = Vec::new();
    for _ in 0..100 {
        owner.lose(claim(&[OTHER_ADDRESS]));
        owner.lose(hand_over(&[OTHER_ADDRESS]));
        announcements.push(owner.count_announcements());
    }
    // The changes are hidden every 1.5 s, for 150 s. The interval doubles to 8 s.
    let count = announcements.iter().sum::<usize>();
    assert!((18..=24).contains(&count), "{announcements:?}");
}

#[test]
fn two_claims_in_the_wrong_order_are_both_applied() {
    let mut owner = TestOwner::new();
    let third = IpAddr::from([172, 30, 0, 202]);
    let first = owner.node2.send(claim(&[third]));
    owner.receive(claim(&[OTHER_ADDRESS]));
    owner.machine.handle(first, owner.now);
    assert_eq!(known_claims(&owner.machine, "node2"), [OTHER_ADDRESS, third]);
    assert_eq!(owner.count_announcements(), 0, "no change was missed");
}

#[test]
fn a_restart_of_a_peer_without_leaving_causes_an_announcement() {
    for (leaves, announced) in [(false, 1), (true, 0)] {
        let mut owner = TestOwner::new();
        if leaves {
            owner.machine.membership.set_leaving("node2");
        }
        owner.node2 = TestPeer::admitted("node2", 9, &mut owner.machine, owner.now);
        assert_eq!(owner.count_announcements(), announced, "node2 leaves first: {leaves}");
    }
}

#[test]
fn the_unnoticed_claim_of_a_new_peer_causes_an_announcement() {
    let mut machine = ClaimMachine::new(config("node1", 1), Instant::ZERO);
    machine.handle(Input::Keys(vec![1]), Instant::ZERO);
    set_units(&mut machine, vec![unit(VIP, &["node1"])], Instant::ZERO);
    prove(&mut machine, &[VIP], Instant::ZERO);
    machine.tick(Instant::from_millis(1_000));
    let now = Instant::from_millis(1_500);
    let mut node2 = TestPeer::new("node2", 7);
    drop(node2.send(claim(&[VIP])));
    drop(node2.send(hand_over(&[VIP])));
    node2.admit(&mut machine, now);
    let mut owner = TestOwner { machine, now, node2, node3: TestPeer::new("node3", 8) };
    assert_eq!(owner.count_announcements(), 1);
}

#[test]
fn an_owner_announces_after_a_claim_it_missed_in_a_partition() {
    let mut segment = settled_segment();
    let order = ranked(&NODES, VIP);
    // The last node is partitioned for 260 ms and takes the address on its side. Then it stalls,
    // and is fenced.
    segment.node(order[2]).partitioned = true;
    segment.run(ms(260));
    assert_eq!(segment.owners(VIP).len(), 2, "the partitioned node announces on its side");
    segment.node(order[2]).stalled = true;
    segment.run(ms(170));
    segment.node(order[2]).stalled = false;
    segment.run(ms(10));
    assert_eq!(segment.node(order[2]).machine.counts().fences, 1);
    assert_eq!(segment.owners(VIP), [order[0]]);
    assert!(
        segment.node(order[0]).machine.members().peers().get_live(order[2]).is_some(),
        "the partition was too short for failure detection"
    );
    let before = segment.node(order[0]).announce_series;
    segment.node(order[2]).partitioned = false;
    segment.run(Duration::from_secs(1));
    assert!(segment.node(order[0]).announce_series > before);
}

#[test]
fn a_leaving_owner_next_to_a_stable_one_causes_one_claim() {
    let mut owner = TestOwner::new();
    let ranks_second = |address: &IpAddr| {
        ranked(&["node1", "node2", "node3"], *address)[..2] == ["node2", "node1"]
    };
    let address = (1..=250)
        .map(|n| IpAddr::from([172, 30, 0, n]))
        .find(ranks_second)
        .expect("such an address");
    // In node1's view, node2 is no candidate.
    set_units(&mut owner.machine, vec![unit(address, &["node1", "node3"])], owner.now);
    let Input::Frame { source, mut frame } = owner.node3.send(claim(&[address])) else {
        unreachable!("a frame")
    };
    frame.flags.leaving = true;
    owner.machine.handle(Input::Frame { source, frame }, owner.now);
    let mut takes = 0;
    for _ in 0..20 {
        owner.receive(claim(&[address]));
        owner.now = owner.now + ms(2);
        owner.machine.tick(owner.now);
        takes += std::iter::from_fn(|| owner.machine.poll())
            .filter(|output| *output == Output::Start(address))
            .count();
    }
    assert_eq!((takes, owner.machine.owned().len()), (1, 0), "the order alone decides");
}

#[test]
fn the_release_of_a_second_owner_causes_an_announcement() {
    let mut owner = TestOwner::new();
    owner.receive(claim(&[VIP]));
    assert_eq!(owner.count_announcements(), 1, "the owner defends the address");
    owner.receive(hand_over(&[VIP]));
    assert_eq!(owner.count_announcements(), 1);
}

#[test]
fn the_return_of_an_idle_peer_causes_no_announcement() {
    let mut owner = TestOwner::new();
    for round in 0..5 {
        for _ in 0..40 {
            owner.now = owner.now + ms(100);
            let frame = owner.node3.send(hello());
            owner.machine.handle(frame, owner.now);
            owner.machine.tick(owner.now);
        }
        while owner.machine.poll().is_some() {}
        assert!(owner.machine.members().peers().get_live("node2").is_none(), "round {round}");
        owner.receive(hello());
        assert!(owner.machine.members().peers().get_live("node2").is_some());
        assert_eq!(owner.count_announcements(), 0, "round {round}");
    }
}

/// The repeated claim contains nothing of the lost release, although its address is new here.
#[test]
fn a_repeated_claim_does_not_explain_a_lost_release() {
    let mut owner = TestOwner::new();
    owner.lose(claim(&[VIP, OTHER_ADDRESS]));
    owner.receive(hello());
    owner.lose(hand_over(&[VIP]));
    owner.receive(claim(&[OTHER_ADDRESS]));
    assert_eq!(owner.count_announcements(), 1, "node2 may have announced the address");
}
