//! Reaction of an owner to changes that it did not receive: its clients may have been diverted.

use super::faults::{introduce, said};
use super::*;
use crate::claim::unit::YieldSituation;
use crate::election::NO_SOFT_RULES;
use crate::wire::hello::{Body, FailingReport, Flags, ReleaseReason};

const OTHER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(172, 30, 0, 201));

/// An owner that receives only the test's frames.
struct Holder {
    machine: ClaimMachine,
    now: Instant,
    clock: u64,
}

impl Holder {
    /// Makes a node that has owned an address for a while, and has the peers node2, which owns
    /// nothing, and node3.
    fn new() -> Self {
        let mut machine = ClaimMachine::new(config("node1", 1), Instant::ZERO);
        machine.handle(Input::Keys(vec![1]), Instant::ZERO);
        introduce(&mut machine, "node2", 7, Instant::from_millis(500));
        introduce(&mut machine, "node3", 8, Instant::from_millis(500));
        machine.tick(Instant::from_millis(1_000));
        let now = Instant::from_millis(1_500);
        machine.handle(Input::Units(vec![unit(&[VIP], &["node1"])]), now);
        let mut holder = Self { machine, now, clock: 2 };
        holder.hears(Body::Hello {
            generation: 0,
            accepted_keys: vec![],
            failing: FailingReport::default(),
        });
        assert_eq!(holder.machine.owned().collect::<Vec<_>>(), [VIP]);
        holder.announced();
        holder
    }

    /// Makes the same owner, but node2 is better and has just claimed the address.
    fn that_yields() -> Self {
        let mut holder = Self::new();
        let theirs = |address: &IpAddr| ranked(&["node1", "node2"], *address)[0] == "node2";
        let address =
            (1..=250).map(|n| IpAddr::from([172, 30, 0, n])).find(theirs).expect("one of many");
        holder
            .machine
            .handle(Input::Units(vec![unit(&[address], &["node1", "node2"])]), holder.now);
        holder.announced();
        assert_eq!(holder.machine.owned().collect::<Vec<_>>(), [address]);
        holder.hears(Body::Claim {
            previous_generation: 0,
            generation: 1,
            addresses: vec![address],
            preempt_delays: vec![],
        });
        holder
    }

    fn hears(&mut self, body: Body) {
        self.clock += 1;
        self.machine.handle(said("node2", 7, self.clock, body), self.now);
    }

    /// Counts the announcements of the next one and a half seconds, in which the peers send nothing
    /// new.
    fn announced(&mut self) -> usize {
        let mut count = 0;
        for _ in 0..15 {
            self.now = self.now + ms(100);
            self.clock += 1;
            for (node, epoch) in [("node2", 7), ("node3", 8)] {
                self.machine.handle(said(node, epoch, self.clock, Body::ListRequest), self.now);
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

fn release(before: u32, generation: u32) -> Body {
    Body::Release {
        previous_generation: before,
        generation,
        addresses: vec![VIP],
        reason: ReleaseReason::HandedOver,
    }
}

#[test]
fn a_release_that_is_only_heard_the_second_time_counts_and_one_that_was_heard_counts_once() {
    let mut holder = Holder::new();
    assert_eq!(holder.announced(), 0, "nothing happens");
    holder.hears(release(7, 7));
    assert_eq!(holder.announced(), 1);
    holder.hears(Body::List {
        generation: 7,
        part: 0,
        parts: 1,
        addresses: vec![OTHER],
        preempt_delays: vec![],
    });
    assert_eq!(holder.announced(), 1, "it had and gave up what we never heard of");
    holder.hears(release(7, 8));
    assert_eq!(holder.announced(), 1);
    holder.hears(release(8, 8));
    assert_eq!(holder.announced(), 0);
    // The peer replied to the list request with its current claims, not with its earlier ones.
    holder.hears(Body::List {
        generation: 9,
        part: 0,
        parts: 1,
        addresses: vec![OTHER],
        preempt_delays: vec![],
    });
    holder.announced();
    holder.hears(release(9, 9));
    assert_eq!(holder.announced(), 1);
}

#[test]
fn the_repeat_of_two_releases_counts_if_the_first_was_lost() {
    for (lost, announced) in [(true, 1), (false, 0)] {
        let mut holder = Holder::new();
        holder.hears(Body::List {
            generation: 7,
            part: 0,
            parts: 1,
            addresses: vec![OTHER],
            preempt_delays: vec![],
        });
        if !lost {
            holder.hears(release(7, 8));
        }
        let why = ReleaseReason::HandedOver;
        holder.hears(Body::Release {
            previous_generation: 8,
            generation: 9,
            addresses: vec![OTHER],
            reason: why,
        });
        holder.announced();
        holder.hears(Body::Release {
            previous_generation: 9,
            generation: 9,
            addresses: vec![VIP, OTHER],
            reason: why,
        });
        assert_eq!(holder.announced(), announced, "the first was lost: {lost}");
    }
}

#[test]
fn who_yields_says_so_twice() {
    let mut holder = Holder::that_yields();
    let mut said = Vec::new();
    for _ in 0..4 {
        holder.machine.tick(holder.now);
        let outputs = std::iter::from_fn(|| holder.machine.poll());
        said.extend(outputs.filter_map(|output| {
            let Output::Send {
                frame: Frame { body: Body::Release { generation, .. }, .. }, ..
            } = output
            else {
                return None;
            };
            Some(generation)
        }));
        holder.now = holder.now + ms(25);
    }
    assert!(matches!(said[..], [first, second] if first == second), "{said:?}");
}

#[test]
fn a_link_that_falls_silent_has_nothing_left_to_say() {
    let mut holder = Holder::that_yields();
    holder.machine.handle(Input::SiblingInterface { is_active: true }, holder.now);
    let now = holder.now + ms(25);
    holder.machine.tick(now);
    let deadline = holder.machine.deadline();
    assert!(deadline.is_some_and(|at| at > now), "{deadline:?}");
}

/// Checks a failover in which the second in line is worse and the third has just yielded.
fn who_has_just_yielded_is_better_than(become_unsound: impl Fn(&mut Wire, &str)) {
    let mut wire = settled();
    let order = ranked(&THREE, VIP);
    let now = wire.now;
    become_unsound(&mut wire, order[1]);
    let state = wire.node(order[2]).machine.units.get_mut(&VIP).expect("its unit");
    state.story().back_off(
        YieldSituation { differs: false, us: Some(NO_SOFT_RULES), them: Some(NO_SOFT_RULES) },
        now,
    );
    wire.run(Duration::from_secs(2));
    wire.node(order[0]).up = false;
    wire.run(Duration::from_secs(2));
    assert_eq!(wire.owners(VIP), [order[2]]);
    assert_eq!(wire.node(order[1]).started, 0);
    assert!(wire.longest_gap(VIP) <= ms(200), "{:?}", wire.longest_gap(VIP));
}

#[test]
fn who_has_just_yielded_is_still_better_than_who_is_unstable() {
    who_has_just_yielded_is_better_than(|wire, name| {
        let (now, flags) = (wire.now, wire.node(name).machine.own.flags);
        wire.node(name).machine.set_flags(Flags { flapping: true, ..flags }, now);
    });
}

#[test]
fn who_has_just_yielded_is_still_better_than_one_whose_checks_fail() {
    who_has_just_yielded_is_better_than(|wire, name| {
        wire.input(
            name,
            Input::Units(vec![Arc::new(Unit {
                failing: [VIP].into(),
                ..(*unit(&[VIP], &THREE)).clone()
            })]),
        );
    });
}

#[test]
fn a_first_claim_that_the_next_one_overtook_does_not_void_it() {
    let mut holder = Holder::new();
    let third = IpAddr::from([172, 30, 0, 202]);
    let claim = |before, generation, address| Body::Claim {
        previous_generation: before,
        generation,
        addresses: vec![address],
        preempt_delays: vec![],
    };
    for (clock, body) in [(2, claim(4, 5, OTHER)), (1, claim(0, 4, third))] {
        holder.machine.handle(said("node2", 7, holder.clock + clock, body), holder.now);
    }
    let known: Vec<_> = holder.machine.peers["node2"].claims.iter().copied().collect();
    assert_eq!(known, [OTHER, third]);
}

#[test]
fn a_set_that_came_and_went_unheard_counts() {
    let mut holder = Holder::new();
    holder.hears(Body::Hello {
        generation: 7,
        accepted_keys: vec![],
        failing: FailingReport::default(),
    });
    assert_eq!(
        holder.announced(),
        0,
        "perhaps it is about other addresses, and a list will say so"
    );
    holder.hears(Body::Hello {
        generation: 0,
        accepted_keys: vec![],
        failing: FailingReport::default(),
    });
    assert_eq!(holder.announced(), 1);
    holder.hears(Body::Hello {
        generation: 0,
        accepted_keys: vec![],
        failing: FailingReport::default(),
    });
    assert_eq!(holder.announced(), 0);
}

#[test]
fn who_starts_anew_without_having_left_may_have_answered_on_the_other_side_of_a_cut() {
    for (leaves, announced) in [(false, 1), (true, 0)] {
        let mut holder = Holder::new();
        if leaves {
            let peer = holder.machine.peers.get_mut("node2").expect("it was introduced");
            peer.flags.leaving = true;
        }
        let now = holder.now;
        introduce(&mut holder.machine, "node2", 9, now);
        assert_eq!(holder.announced(), announced, "left first: {leaves}");
    }
}

#[test]
fn who_heard_nobody_and_now_hears_the_first_may_have_been_cut_off() {
    let mut machine = ClaimMachine::new(config("node1", 1), Instant::ZERO);
    machine.handle(Input::Keys(vec![1]), Instant::ZERO);
    machine.handle(Input::Units(vec![unit(&[VIP], &["node1"])]), Instant::ZERO);
    machine.tick(Instant::from_millis(1_000));
    let mut holder = Holder { machine, now: Instant::from_millis(1_500), clock: 2 };
    introduce(&mut holder.machine, "node2", 7, holder.now);
    assert_eq!(holder.announced(), 1);
}

#[test]
fn two_of_whom_each_thinks_the_other_better_do_not_yield_to_each_other_for_ever() {
    let mut wire = Wire::new(&["node1", "node2"]);
    for name in ["node1", "node2"] {
        let mut view = Unit::clone(&unit(&[VIP], &["node1", "node2"]));
        view.candidates
            .iter_mut()
            .for_each(|candidate| candidate.cordoned = *candidate.node == *name);
        wire.input(name, Input::Units(vec![Arc::new(view)]));
    }
    wire.run(Duration::from_secs(2));
    wire.watch(VIP);
    wire.run(Duration::from_secs(30));
    assert_eq!(wire.owners(VIP).len(), 1);
    let moves: usize = ["node1", "node2"].iter().map(|name| wire.node(name).started).sum();
    assert!(moves <= 4, "{moves} moves in half a minute");
    assert!(wire.longest_gap(VIP) < ms(130), "{:?}", wire.longest_gap(VIP));
}

#[test]
fn what_a_peer_claims_when_it_is_back_is_not_as_old_as_its_last_word() {
    let mut holder = Holder::new();
    // Node2 is silent, and declared failed, for longer than the lifetime of claims.
    for _ in 0..130 {
        holder.now = holder.now + ms(100);
        holder.clock += 1;
        holder.machine.handle(said("node3", 8, holder.clock, Body::ListRequest), holder.now);
        holder.machine.tick(holder.now);
    }
    assert!(holder.machine.peers["node2"].dead);
    holder.hears(Body::Claim {
        previous_generation: 4,
        generation: 5,
        addresses: vec![OTHER],
        preempt_delays: vec![],
    });
    let now = holder.now;
    holder.machine.tick(now + ms(1));
    assert!(holder.machine.peers["node2"].claims.contains(&OTHER));
}

#[test]
fn who_took_something_and_gave_it_up_where_the_holder_could_not_hear_says_so_when_it_can() {
    let mut wire = settled();
    let order = ranked(&THREE, VIP);
    // The last of the three nodes is cut off too briefly to be suspected, and stalls at the end of
    // that time.
    wire.node(order[2]).cut = true;
    wire.run(ms(800));
    assert_eq!(wire.owners(VIP).len(), 2, "it answers on its side");
    wire.node(order[2]).frozen = true;
    wire.run(ms(300));
    wire.node(order[2]).frozen = false;
    wire.run(ms(60));
    assert_eq!(wire.node(order[2]).machine.counts().fences, 1);
    assert_eq!(wire.owners(VIP), [order[0]]);
    assert!(!wire.node(order[0]).machine.peers[order[2]].dead, "it was not missed");
    let told = wire.node(order[0]).refreshed;
    wire.node(order[2]).cut = false;
    wire.run(Duration::from_secs(1));
    assert!(wire.node(order[0]).refreshed > told);
}

#[test]
fn a_holder_that_leaves_beside_one_that_stays_is_no_reason_to_claim_again_and_again() {
    let mut holder = Holder::new();
    let theirs = |address: &IpAddr| {
        ranked(&["node1", "node2", "node3"], *address)[..2] == ["node2", "node1"]
    };
    let address =
        (1..=250).map(|n| IpAddr::from([172, 30, 0, n])).find(theirs).expect("one of many");
    // In node1's view, node2 is no candidate.
    holder.machine.handle(Input::Units(vec![unit(&[address], &["node1", "node3"])]), holder.now);
    let claim = Body::Claim {
        previous_generation: 0,
        generation: 1,
        addresses: vec![address],
        preempt_delays: vec![],
    };
    let Input::Frame { source, mut frame } = said("node3", 8, 1_000, claim.clone()) else {
        unreachable!("a frame")
    };
    frame.flags.leaving = true;
    holder.machine.handle(Input::Frame { source, frame }, holder.now);
    let mut taken = 0;
    holder.clock = 1_000;
    for _ in 0..20 {
        holder.hears(claim.clone());
        holder.now = holder.now + ms(2);
        holder.machine.tick(holder.now);
        taken += std::iter::from_fn(|| holder.machine.poll())
            .filter(|output| *output == Output::Start(address))
            .count();
    }
    assert_eq!((taken, holder.machine.owned().count()), (1, 0), "plain order decides");
}

#[test]
fn who_held_it_too_and_gives_it_up_turned_clients_away() {
    let mut holder = Holder::new();
    holder.hears(Body::Claim {
        previous_generation: 0,
        generation: 1,
        addresses: vec![VIP],
        preempt_delays: vec![],
    });
    assert_eq!(holder.announced(), 1, "it insists");
    let why = ReleaseReason::HandedOver;
    holder.hears(Body::Release {
        previous_generation: 1,
        generation: 2,
        addresses: vec![VIP],
        reason: why,
    });
    assert_eq!(holder.announced(), 1);
}
