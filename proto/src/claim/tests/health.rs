//! Failing health checks and other soft rules: a unit moves only to a node that can serve it
//! better.

use super::*;
use crate::claim::NodeState;
use crate::wire::hello::{Body, FailingReport};

/// Sets the unit of [`VIP`] on one node. `failing` is true if its health check fails there.
fn set_failing(segment: &mut Segment, name: &str, failing: bool) {
    let unit = Unit { failing, ..(*unit(VIP, &NODES)).clone() };
    segment.set_units(name, vec![Arc::new(unit)]);
}

/// Returns how often any node has taken [`VIP`].
fn count_takes(segment: &Segment) -> usize {
    segment.nodes.iter().map(|node| node.starts).sum()
}

/// Checks that [`VIP`] always had an owner, and two of them for at most a millisecond.
fn assert_no_gap(segment: &Segment) {
    assert_eq!(segment.longest_gap(VIP), Duration::ZERO, "the address always has an owner");
    assert!(
        segment.longest_overlap(VIP) <= ms(1),
        "two nodes own the address for {:?}",
        segment.longest_overlap(VIP)
    );
}

#[test]
fn an_owner_with_failing_checks_hands_over_within_a_stagger() {
    let mut segment = settled_segment();
    let order = ranked(&NODES, VIP);
    set_failing(&mut segment, order[0], true);
    assert_eq!(
        segment.owners(VIP),
        [order[0]],
        "the owner announces until another node has claimed"
    );
    segment.run(STAGGER_MIN);
    assert_eq!(segment.owners(VIP), [order[1]]);
    assert_no_gap(&segment);
}

#[test]
fn the_last_passing_node_keeps_the_unit_when_all_nodes_fail() {
    let mut segment = settled_segment();
    let order = ranked(&NODES, VIP);
    for (name, owner) in [(order[0], order[1]), (order[1], order[2]), (order[2], order[2])] {
        set_failing(&mut segment, name, true);
        segment.run(Duration::from_secs(1));
        assert_eq!(segment.owners(VIP), [owner]);
    }
    let moves = count_takes(&segment);
    segment.run(Duration::from_secs(150));
    assert_eq!(
        (segment.owners(VIP), count_takes(&segment)),
        (vec![order[2]], moves),
        "the end of the preempt delay moves nothing"
    );
    // A node whose health check recovers takes the unit, although the unit moved recently.
    set_failing(&mut segment, order[1], false);
    segment.run(ms(200));
    assert_eq!(segment.owners(VIP), [order[1]]);
    assert_no_gap(&segment);
    let conflicts: u64 =
        NODES.iter().map(|name| segment.node(name).machine.counts().conflicts).sum();
    let range = moves as u64..=moves as u64 + 1;
    assert!(range.contains(&conflicts), "each handover causes one claim: {conflicts}");
}

#[test]
fn a_recovered_node_reports_its_recovery_before_it_claims() {
    let mut segment = settled_segment();
    let order = ranked(&NODES, VIP);
    NODES.iter().for_each(|name| set_failing(&mut segment, name, true));
    segment.run(Duration::from_secs(40));
    assert_eq!(segment.owners(VIP), [order[0]], "a failure on all nodes moves nothing");
    let refreshed = segment.node(order[0]).announce_series;
    set_failing(&mut segment, order[2], false);
    segment.run(ms(300));
    assert_eq!(segment.owners(VIP), [order[2]]);
    assert_eq!(segment.node(order[0]).announce_series, refreshed, "the owner announces nothing");
    assert_no_gap(&segment);
}

#[test]
fn flapping_checks_move_a_unit_once_per_failback_delay() {
    let mut segment = settled_segment();
    let order = ranked(&NODES, VIP);
    let before = count_takes(&segment);
    for round in 0..10 {
        set_failing(&mut segment, order[0], round % 2 == 0);
        segment.run(ms(2_999));
    }
    assert_eq!((count_takes(&segment) - before, segment.owners(VIP)), (1, vec![order[1]]));
    assert_no_gap(&segment);
}

/// Applies `change` to all nodes one after the other, the owner first, and checks that the address
/// moves twice.
fn change_nodes_in_turn(change: impl Fn(&mut Segment, usize)) {
    let mut segment = settled_segment();
    let order = ranked(&NODES, VIP);
    let before = count_takes(&segment);
    for (count, owner) in [(1, order[1]), (2, order[2]), (3, order[2])] {
        change(&mut segment, count);
        segment.run(Duration::from_secs(40));
        assert_eq!(segment.owners(VIP), [owner], "owner after {count} changed nodes");
    }
    segment.run(Duration::from_secs(150));
    assert_eq!(
        (segment.owners(VIP), count_takes(&segment) - before),
        (vec![order[2]], 2),
        "the address does not return to the first node in order"
    );
    assert_no_gap(&segment);
}

#[test]
fn cordoning_the_last_node_moves_no_unit() {
    change_nodes_in_turn(|segment, count| {
        let first = &ranked(&NODES, VIP)[..count];
        let cordoned = change_candidates(&unit(VIP, &NODES), |candidate| {
            candidate.cordoned = first.contains(&&*candidate.node);
        });
        segment.units(&[cordoned]);
    });
}

#[test]
fn the_last_unhealthy_or_draining_node_keeps_its_unit() {
    for state in [
        NodeState { unhealthy: true, ..NodeState::default() },
        NodeState { draining: true, ..NodeState::default() },
    ] {
        change_nodes_in_turn(|segment, count| {
            segment.input(ranked(&NODES, VIP)[count - 1], Input::NodeState(state))
        });
    }
}

#[test]
fn an_unowned_unit_is_claimed_although_all_nodes_fail_checks() {
    let mut segment = settled_segment();
    let order = ranked(&NODES, VIP);
    for name in NODES {
        set_failing(&mut segment, name, true);
    }
    segment.run(ms(200));
    assert_eq!(segment.owners(VIP), [order[0]], "a failure on all nodes moves nothing");
    segment.node(order[0]).up = false;
    segment.run(ms(300));
    assert_eq!(segment.owners(VIP), [order[1]]);
}

#[test]
fn a_lost_failing_report_is_recovered_by_the_next_hello() {
    let mut segment = settled_segment();
    let order = ranked(&NODES, VIP);
    segment.run(ms(25));
    segment.is_lost = |_| true;
    set_failing(&mut segment, order[0], true);
    segment.run(ms(50));
    assert_eq!(segment.owners(VIP), [order[0]], "no peer has received the report");
    segment.is_lost = |_| false;
    segment.run(ms(60));
    assert_eq!(segment.owners(VIP), [order[1]]);
    // The same applies to an idle node, whose next periodic hello is due a second later.
    set_failing(&mut segment, order[2], true);
    segment.run(ms(200));
    segment.is_lost = |_| true;
    set_failing(&mut segment, order[2], false);
    segment.run(ms(10));
    segment.is_lost = |_| false;
    segment.run(ms(100));
    let known = &segment.node(order[1]).machine.peers[order[2]].failing;
    assert!(known.is_empty(), "the recovery is reported twice: {known:?}");
}

#[test]
fn with_one_family_failing_everywhere_the_other_still_moves() {
    let both = [VIP, IpAddr::from([0xfd30, 0, 0, 0, 0, 0, 0, 1])];
    let mut segment = settled_segment();
    let order = ranked(&NODES, VIP);
    let set = |segment: &mut Segment, name: &str, failing: [bool; 2]| {
        let units = both.into_iter().zip(failing).map(|(address, failing)| {
            Arc::new(Unit { failing, ..(*unit_ordered_by(VIP, address, &NODES)).clone() })
        });
        segment.set_units(name, units.collect());
    };
    NODES.iter().for_each(|name| set(&mut segment, name, [false, true]));
    segment.run(Duration::from_secs(40));
    assert_eq!(both.map(|address| segment.owners(address)), [[order[0]], [order[0]]]);
    for (failing, owner) in [(order[0], order[1]), (order[1], order[2])] {
        set(&mut segment, failing, [true, true]);
        segment.run(Duration::from_secs(1));
        assert_eq!(
            both.map(|address| segment.owners(address)),
            [[owner], [order[0]]],
            "the family that fails everywhere stays"
        );
    }
    assert_no_gap(&segment);
}

#[test]
fn hold_down_ends_if_the_owner_is_no_candidate() {
    let mut segment = settled_segment();
    let order = ranked(&NODES, VIP);
    let two = &order[..2];
    let set_failing = |segment: &mut Segment, candidates: &[&str], failing: &str| {
        for name in NODES {
            let failing = name == failing;
            segment.set_units(
                name,
                vec![Arc::new(Unit { failing, ..(*unit(VIP, candidates)).clone() })],
            );
        }
    };
    for (failing, owner) in [(two[0], two[1]), (two[1], two[0])] {
        set_failing(&mut segment, two, failing);
        segment.run(ms(500));
        assert_eq!(segment.owners(VIP), [owner]);
    }
    // The node that has just yielded is the only candidate now.
    set_failing(&mut segment, &two[1..], "");
    segment.run(ms(300));
    assert_eq!(segment.owners(VIP), [two[1]]);
    assert_no_gap(&segment);
}

#[test]
fn hold_down_ends_if_the_checks_of_the_owner_fail() {
    let mut segment = settled_segment();
    for round in 0..6 {
        let owner = segment.owners(VIP).first().map(|owner| (*owner).to_owned()).expect("an owner");
        for name in NODES {
            let failing = *name == *owner;
            segment
                .set_units(name, vec![Arc::new(Unit { failing, ..(*unit(VIP, &NODES)).clone() })]);
        }
        segment.run(Duration::from_secs(1));
        assert!(
            segment.owners(VIP).iter().all(|now| **now != *owner),
            "round {round}: {owner} still owns the address"
        );
        assert_eq!(segment.owners(VIP).len(), 1);
    }
    assert_no_gap(&segment);
}

/// Creates the claim machine of node1 with `count` units whose health checks fail. The candidates
/// of the units are `nodes`.
fn with_failing(count: u16, nodes: &[&str]) -> (ClaimMachine, Vec<Arc<Unit>>) {
    let mut machine = ClaimMachine::new(config("node1", 1), Instant::ZERO);
    machine.handle(Input::Keys(vec![1]), Instant::ZERO);
    let failing = |n| {
        let address = IpAddr::from([0xfd30, 0, 0, 0, 0, 0, 0, n]);
        Unit { failing: true, ..(*unit(address, nodes)).clone() }
    };
    let units: Vec<_> = (0..count).map(|n| Arc::new(failing(n))).collect();
    set_units(&mut machine, units.clone(), Instant::ZERO);
    (machine, units)
}

/// Runs a claim machine between two times, in milliseconds. Returns the failing addresses of each
/// hello, with the time of the hello.
fn failing_reports(machine: &mut ClaimMachine, from: u64, until: u64) -> Vec<(u64, Vec<IpAddr>)> {
    let mut reports = Vec::new();
    for n in from..until {
        machine.tick(Instant::from_millis(n));
        while let Some(output) = machine.poll() {
            if let Output::Send { frame: Frame { body: Body::Hello { failing, .. }, .. }, .. } =
                output
            {
                reports.push((n, failing.addresses));
            }
        }
    }
    reports
}

#[test]
fn a_long_failing_list_is_sent_in_ranges_and_twice() {
    let (mut machine, units) = with_failing(131, &["node1", "node2"]);
    let reports = failing_reports(&mut machine, 0, 1_000);
    let ranges = [0..45, 44..89, 88..131, 0..45, 44..89, 88..131];
    let all: Vec<_> = units.iter().map(|unit| unit.address).collect();
    let expected = (50..).step_by(50).zip(ranges.map(|range| all[range].to_vec()));
    assert_eq!(
        reports,
        expected.collect::<Vec<_>>(),
        "each range begins where the previous one ended"
    );
    assert!(
        units.iter().all(|unit| machine.own.failing.is_reported(unit.address)),
        "every failing address counts"
    );

    let (mut machine, _) = with_failing(2, &["node2"]);
    let reports = failing_reports(&mut machine, 0, 1_000);
    assert!(
        !reports.is_empty() && reports.iter().all(|(_, failing)| failing.is_empty()),
        "an address that the node may not announce is not reported"
    );
}

/// Sets two hundred units on node1, and returns the addresses of those for which `fails` is true.
fn set_two_hundred_units(segment: &mut Segment, fails: impl Fn(u16) -> bool) -> BTreeSet<IpAddr> {
    let address = |n: u16| IpAddr::from([0xfd30, 0, 0, 0, 0, 0, 0, n]);
    let unit = |n| Unit { failing: fails(n), ..(*unit(address(n), &["node1"])).clone() };
    segment.set_units("node1", (0..200).map(|n| Arc::new(unit(n))).collect());
    (0..200).filter(|n| fails(*n)).map(address).collect()
}

/// Returns the failing addresses of node1 that the node `to` has received.
fn failures_known<'a>(segment: &'a mut Segment, to: &str) -> &'a BTreeSet<IpAddr> {
    &segment.node(to).machine.peers["node1"].failing
}

#[test]
fn peers_learn_all_failures_despite_frame_loss() {
    let mut segment = Segment::new(&["node1", "node2"]);
    segment.run(Duration::from_secs(2));
    for round in 0..60_u16 {
        segment.is_lost = |n| n % 3 == 0;
        let fails = |n: u16| {
            (n * 37 + round * 11) % 200 < (round * 53) % 220 && n.is_multiple_of(1 + round % 3)
        };
        let failing = set_two_hundred_units(&mut segment, fails);
        segment.run(ms(u64::from(round) * 7 % 170));
        if round % 4 == 0 {
            segment.is_lost = |_| false;
            segment.run(ms(600));
            assert_eq!(
                *failures_known(&mut segment, "node2"),
                failing,
                "failures known in round {round}"
            );
        }
    }
}

#[test]
fn a_newcomer_receives_all_failures_of_an_idle_node() {
    let mut segment = Segment::new(&["node1", "node2"]);
    let failing = set_two_hundred_units(&mut segment, |_| true);
    segment.input("node1", Input::MainLoopStalled(true));
    segment.run(Duration::from_secs(10));
    segment.start("node3");
    segment.run(ms(800));
    assert_eq!(
        (segment.node("node1").announced.len(), failures_known(&mut segment, "node3")),
        (0, &failing)
    );
}

#[test]
fn flapping_checks_do_not_exceed_the_hello_rate_of_an_owner() {
    let (mut machine, units) = with_failing(1, &["node1", "node2"]);
    let mut reports = failing_reports(&mut machine, 0, 2_000);
    let idle = reports.len();
    for n in 0..1_000 {
        let now = Instant::from_millis(2_000 + 2 * n);
        let failing = n % 2 == 0;
        set_units(&mut machine, vec![Arc::new(Unit { failing, ..(*units[0]).clone() })], now);
        reports.extend(failing_reports(&mut machine, 2_000 + 2 * n, 2_002 + 2 * n));
    }
    let hellos = reports.len() - idle;
    assert!((30..=41).contains(&hellos), "the node sends {hellos} hellos in two seconds");
}

/// Delivers the `n`th hello of node2, with this report of failing addresses.
fn receive_report(machine: &mut ClaimMachine, n: u64, failing: FailingReport) {
    let body = Body::Hello { accepted_keys: vec![], failing };
    machine.handle(faults::frame_from("node2", 1, 9 + n, body), Instant::from_millis(1));
}

#[test]
fn the_stored_failures_of_a_peer_are_bounded() {
    let (mut machine, at) =
        (ClaimMachine::new(config("node1", 1), Instant::ZERO), Instant::from_millis(1));
    machine.handle(Input::Keys(vec![1]), Instant::ZERO);
    faults::admit_peer(&mut machine, "node2", 1, at);
    let most = CLAIMS_PER_PEER_MAX as u32;
    for n in 0..=most / 128 {
        let addresses =
            (128 * n..128 * (n + 1)).rev().map(|n| IpAddr::from(n.to_be_bytes())).collect();
        receive_report(
            &mut machine,
            n.into(),
            FailingReport { addresses, more_before: true, more_after: true },
        );
    }
    assert_eq!(machine.peers["node2"].failing.len(), CLAIMS_PER_PEER_MAX);
    assert_eq!(machine.counts().over_limit, 128);
    receive_report(&mut machine, u64::from(most), FailingReport::default());
    assert!(
        machine.peers["node2"].failing.is_empty(),
        "a complete report replaces all known failures"
    );
}

#[test]
fn a_failing_report_changes_only_its_own_range() {
    let (mut machine, at) =
        (ClaimMachine::new(config("node1", 1), Instant::ZERO), Instant::from_millis(1));
    machine.handle(Input::Keys(vec![1]), Instant::ZERO);
    faults::admit_peer(&mut machine, "node2", 1, at);
    let named = |all: &[u8]| all.iter().map(|n| IpAddr::from([10, 0, 0, *n])).collect::<Vec<_>>();
    let steps: [(&[u8], bool, bool, &[u8]); 8] = [
        (&[1, 3, 5, 7, 9], false, false, &[1, 3, 5, 7, 9]),
        (&[4, 6], true, true, &[1, 3, 4, 6, 7, 9]),
        (&[3, 9], true, true, &[1, 3, 9]),
        (&[2], false, true, &[2, 3, 9]),
        (&[4], true, false, &[2, 3, 4]),
        (&[], true, true, &[2, 3, 4]),
        (&[], true, false, &[2, 3, 4]),
        (&[], false, true, &[2, 3, 4]),
    ];
    for (n, (reported, more_before, more_after, known)) in (0..).zip(steps) {
        receive_report(
            &mut machine,
            n,
            FailingReport { addresses: named(reported), more_before, more_after },
        );
        assert!(
            machine.peers["node2"].failing.iter().eq(&named(known)),
            "failures known after step {n}"
        );
    }
}
