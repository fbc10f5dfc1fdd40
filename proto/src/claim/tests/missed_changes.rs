//! Reaction of an owner to missed claims and releases of peers: the owner announces its addresses
//! again, because caches of clients may contain the MAC of the peer.

use super::faults::{admit_peer, frame_from};
use super::*;
use crate::claim::unit::YieldSituation;
use crate::election::NO_SOFT_RULES;
use crate::wire::hello::{Body, FailingReport, Flags, ReleaseReason};

const OTHER_ADDRESS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(172, 30, 0, 201));

/// A node that owns an address and receives only the frames of the test.
struct TestOwner {
    machine: ClaimMachine,
    now: Instant,
    clock: u64,
}

impl TestOwner {
    /// Creates node1, which has owned [`VIP`] for a while. Its peers node2 and node3 own nothing.
    fn new() -> Self {
        let mut machine = ClaimMachine::new(config("node1", 1), Instant::ZERO);
        machine.handle(Input::Keys(vec![1]), Instant::ZERO);
        admit_peer(&mut machine, "node2", 7, Instant::from_millis(500));
        admit_peer(&mut machine, "node3", 8, Instant::from_millis(500));
        machine.tick(Instant::from_millis(1_000));
        let now = Instant::from_millis(1_500);
        set_units(&mut machine, vec![unit(VIP, &["node1"])], now);
        let mut owner = Self { machine, now, clock: 2 };
        owner.receive(Body::Hello {
            generation: 0,
            accepted_keys: vec![],
            failing: FailingReport::default(),
        });
        assert_eq!(owner.machine.owned().keys().copied().collect::<Vec<_>>(), [VIP]);
        owner.count_announcements();
        owner
    }

    /// Creates node1 as the owner of an address that node2, which ranks better, has just claimed.
    fn yielding() -> Self {
        let mut owner = Self::new();
        let is_node2_better =
            |address: &IpAddr| ranked(&["node1", "node2"], *address)[0] == "node2";
        let address = (1..=250)
            .map(|n| IpAddr::from([172, 30, 0, n]))
            .find(is_node2_better)
            .expect("such an address");
        set_units(&mut owner.machine, vec![unit(address, &["node1", "node2"])], owner.now);
        owner.count_announcements();
        assert_eq!(owner.machine.owned().keys().copied().collect::<Vec<_>>(), [address]);
        owner.receive(Body::Claim {
            previous_generation: 0,
            generation: 1,
            addresses: vec![address],
            preempt_delays: vec![],
        });
        owner
    }

    /// Delivers a frame of node2.
    fn receive(&mut self, body: Body) {
        self.clock += 1;
        self.machine.handle(frame_from("node2", 7, self.clock, body), self.now);
    }

    /// Runs the machine for 1.5 s, in which the peers send only list requests. Returns the number
    /// of announcements.
    fn count_announcements(&mut self) -> usize {
        let mut count = 0;
        for _ in 0..15 {
            self.now = self.now + ms(100);
            self.clock += 1;
            for (node, epoch) in [("node2", 7), ("node3", 8)] {
                self.machine
                    .handle(frame_from(node, epoch, self.clock, Body::ListRequest), self.now);
            }
            self.machine.tick(self.now);
            let outputs = std::iter::from_fn(|| self.machine.poll());
            count += outputs
                .filter(|output| matches!(output, Output::AnnounceSeries(_) | Output::Defend(_)))
                .count();
        }
        count
    }
}

/// Returns a release of [`VIP`].
fn release(before: u32, generation: u32) -> Body {
    Body::Release {
        previous_generation: before,
        generation,
        addresses: vec![VIP],
        reason: ReleaseReason::HandedOver,
    }
}

#[test]
fn a_repeated_release_counts_unless_the_first_arrived() {
    let mut owner = TestOwner::new();
    assert_eq!(owner.count_announcements(), 0, "no announcement without a release");
    owner.receive(release(7, 7));
    assert_eq!(owner.count_announcements(), 1);
    owner.receive(Body::List {
        generation: 7,
        part: 0,
        parts: 1,
        addresses: vec![OTHER_ADDRESS],
        preempt_delays: vec![],
    });
    assert_eq!(owner.count_announcements(), 1, "a claim and a release of VIP were missed");
    owner.receive(release(7, 8));
    assert_eq!(owner.count_announcements(), 1);
    owner.receive(release(8, 8));
    assert_eq!(owner.count_announcements(), 0);
    // The list contains the current claims of the peer, not the missed ones.
    owner.receive(Body::List {
        generation: 9,
        part: 0,
        parts: 1,
        addresses: vec![OTHER_ADDRESS],
        preempt_delays: vec![],
    });
    owner.count_announcements();
    owner.receive(release(9, 9));
    assert_eq!(owner.count_announcements(), 1);
}

#[test]
fn the_repeat_of_two_releases_counts_if_the_first_was_lost() {
    for (lost, announced) in [(true, 1), (false, 0)] {
        let mut owner = TestOwner::new();
        owner.receive(Body::List {
            generation: 7,
            part: 0,
            parts: 1,
            addresses: vec![OTHER_ADDRESS],
            preempt_delays: vec![],
        });
        if !lost {
            owner.receive(release(7, 8));
        }
        let reason = ReleaseReason::HandedOver;
        owner.receive(Body::Release {
            previous_generation: 8,
            generation: 9,
            addresses: vec![OTHER_ADDRESS],
            reason,
        });
        owner.count_announcements();
        owner.receive(Body::Release {
            previous_generation: 9,
            generation: 9,
            addresses: vec![VIP, OTHER_ADDRESS],
            reason,
        });
        assert_eq!(owner.count_announcements(), announced, "first release is lost: {lost}");
    }
}

#[test]
fn a_yielding_node_sends_its_release_twice() {
    let mut owner = TestOwner::yielding();
    let mut generations = Vec::new();
    for _ in 0..4 {
        owner.machine.tick(owner.now);
        let outputs = std::iter::from_fn(|| owner.machine.poll());
        generations.extend(outputs.filter_map(|output| {
            let Output::Send {
                frame: Frame { body: Body::Release { generation, .. }, .. }, ..
            } = output
            else {
                return None;
            };
            Some(generation)
        }));
        owner.now = owner.now + ms(25);
    }
    assert!(
        matches!(generations[..], [first, second] if first == second),
        "generations of the releases: {generations:?}"
    );
}

#[test]
fn a_standby_interface_sends_no_pending_release() {
    let mut owner = TestOwner::yielding();
    owner.machine.handle(Input::SiblingInterface { is_active: true }, owner.now);
    let now = owner.now + ms(25);
    owner.machine.tick(now);
    let deadline = owner.machine.deadline();
    assert!(deadline.is_some_and(|at| at > now), "the deadline is in the future: {deadline:?}");
}

/// Checks a failover in which a soft rule applies to the second candidate and the third has just
/// yielded: the third candidate takes over.
fn check_yielded_node_takes_over(add_soft_rule: impl Fn(&mut Segment, &str)) {
    let mut segment = settled_segment();
    let order = ranked(&NODES, VIP);
    let now = segment.now;
    add_soft_rule(&mut segment, order[1]);
    let state = segment.node(order[2]).machine.units.get_mut(&VIP).expect("the state of the unit");
    state.history_mut().start_hold_down(
        YieldSituation {
            differs: false,
            this_node: Some(NO_SOFT_RULES),
            other_owner: Some(NO_SOFT_RULES),
        },
        now,
    );
    segment.run(Duration::from_secs(2));
    segment.node(order[0]).up = false;
    segment.run(Duration::from_secs(2));
    assert_eq!(segment.owners(VIP), [order[2]]);
    assert_eq!(segment.node(order[1]).starts, 0);
    assert!(segment.longest_gap(VIP) <= ms(200), "no owner for {:?}", segment.longest_gap(VIP));
}

#[test]
fn a_yielded_node_ranks_before_a_flapping_node() {
    check_yielded_node_takes_over(|segment, name| {
        let (now, flags) = (segment.now, segment.node(name).machine.own.flags);
        segment.node(name).machine.set_flags(Flags { flapping: true, ..flags }, now);
    });
}

#[test]
fn a_yielded_node_ranks_before_a_node_with_failing_checks() {
    check_yielded_node_takes_over(|segment, name| {
        segment.set_units(
            name,
            vec![Arc::new(Unit { failing: true, ..(*unit(VIP, &NODES)).clone() })],
        );
    });
}

#[test]
fn a_late_first_claim_does_not_void_the_next_claim() {
    let mut owner = TestOwner::new();
    let third = IpAddr::from([172, 30, 0, 202]);
    let claim = |before, generation, address| Body::Claim {
        previous_generation: before,
        generation,
        addresses: vec![address],
        preempt_delays: vec![],
    };
    for (clock, body) in [(2, claim(4, 5, OTHER_ADDRESS)), (1, claim(0, 4, third))] {
        owner.machine.handle(frame_from("node2", 7, owner.clock + clock, body), owner.now);
    }
    let known: Vec<_> = owner.machine.peers["node2"].claims.iter().copied().collect();
    assert_eq!(known, [OTHER_ADDRESS, third]);
}

#[test]
fn a_missed_claim_and_release_cause_an_announcement() {
    let mut owner = TestOwner::new();
    owner.receive(Body::Hello {
        generation: 7,
        accepted_keys: vec![],
        failing: FailingReport::default(),
    });
    assert_eq!(owner.count_announcements(), 0, "the missed claim may be for another address");
    owner.receive(Body::Hello {
        generation: 0,
        accepted_keys: vec![],
        failing: FailingReport::default(),
    });
    assert_eq!(owner.count_announcements(), 1);
    owner.receive(Body::Hello {
        generation: 0,
        accepted_keys: vec![],
        failing: FailingReport::default(),
    });
    assert_eq!(owner.count_announcements(), 0);
}

#[test]
fn a_restart_of_a_peer_without_leaving_causes_an_announcement() {
    for (leaves, announced) in [(false, 1), (true, 0)] {
        let mut owner = TestOwner::new();
        if leaves {
            let peer = owner.machine.peers.get_mut("node2").expect("node2 is a peer");
            peer.flags.leaving = true;
        }
        let now = owner.now;
        admit_peer(&mut owner.machine, "node2", 9, now);
        assert_eq!(owner.count_announcements(), announced, "node2 leaves first: {leaves}");
    }
}

#[test]
fn the_first_peer_of_a_lone_owner_causes_an_announcement() {
    let mut machine = ClaimMachine::new(config("node1", 1), Instant::ZERO);
    machine.handle(Input::Keys(vec![1]), Instant::ZERO);
    set_units(&mut machine, vec![unit(VIP, &["node1"])], Instant::ZERO);
    machine.tick(Instant::from_millis(1_000));
    let mut owner = TestOwner { machine, now: Instant::from_millis(1_500), clock: 2 };
    admit_peer(&mut owner.machine, "node2", 7, owner.now);
    assert_eq!(owner.count_announcements(), 1);
}

#[test]
fn two_nodes_that_rank_each_other_higher_do_not_yield_forever() {
    let mut segment = Segment::new(&["node1", "node2"]);
    for name in ["node1", "node2"] {
        let view = change_candidates(&unit(VIP, &["node1", "node2"]), |candidate| {
            candidate.cordoned = *candidate.node == *name;
        });
        segment.set_units(name, vec![view]);
    }
    segment.run(Duration::from_secs(2));
    segment.watch_owners(VIP);
    segment.run(Duration::from_secs(30));
    assert_eq!(segment.owners(VIP).len(), 1);
    let moves: usize = ["node1", "node2"].iter().map(|name| segment.node(name).starts).sum();
    assert!(moves <= 4, "the unit moves {moves} times in half a minute");
    assert!(segment.longest_gap(VIP) < ms(130), "no owner for {:?}", segment.longest_gap(VIP));
}

#[test]
fn claims_of_a_returned_peer_get_a_full_lifetime() {
    let mut owner = TestOwner::new();
    // Node2 is silent, and declared failed, for longer than the lifetime of claims.
    for _ in 0..130 {
        owner.now = owner.now + ms(100);
        owner.clock += 1;
        owner.machine.handle(frame_from("node3", 8, owner.clock, Body::ListRequest), owner.now);
        owner.machine.tick(owner.now);
    }
    assert!(owner.machine.peers["node2"].failed);
    owner.receive(Body::Claim {
        previous_generation: 4,
        generation: 5,
        addresses: vec![OTHER_ADDRESS],
        preempt_delays: vec![],
    });
    let now = owner.now;
    owner.machine.tick(now + ms(1));
    assert!(owner.machine.peers["node2"].claims.contains(&OTHER_ADDRESS));
}

#[test]
fn an_owner_announces_after_a_claim_it_missed_in_a_partition() {
    let mut segment = settled_segment();
    let order = ranked(&NODES, VIP);
    // The last node is partitioned for 800 ms and takes the address on its side. Then it stalls,
    // and is fenced.
    segment.node(order[2]).partitioned = true;
    segment.run(ms(800));
    assert_eq!(segment.owners(VIP).len(), 2, "the partitioned node announces on its side");
    segment.node(order[2]).stalled = true;
    segment.run(ms(300));
    segment.node(order[2]).stalled = false;
    segment.run(ms(60));
    assert_eq!(segment.node(order[2]).machine.counts().fences, 1);
    assert_eq!(segment.owners(VIP), [order[0]]);
    assert!(
        !segment.node(order[0]).machine.peers[order[2]].failed,
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
    let claim = Body::Claim {
        previous_generation: 0,
        generation: 1,
        addresses: vec![address],
        preempt_delays: vec![],
    };
    let Input::Frame { source, mut frame } = frame_from("node3", 8, 1_000, claim.clone()) else {
        unreachable!("a frame")
    };
    frame.flags.leaving = true;
    owner.machine.handle(Input::Frame { source, frame }, owner.now);
    let mut takes = 0;
    owner.clock = 1_000;
    for _ in 0..20 {
        owner.receive(claim.clone());
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
    owner.receive(Body::Claim {
        previous_generation: 0,
        generation: 1,
        addresses: vec![VIP],
        preempt_delays: vec![],
    });
    assert_eq!(owner.count_announcements(), 1, "the owner defends the address");
    let reason = ReleaseReason::HandedOver;
    owner.receive(Body::Release {
        previous_generation: 1,
        generation: 2,
        addresses: vec![VIP],
        reason,
    });
    assert_eq!(owner.count_announcements(), 1);
}
