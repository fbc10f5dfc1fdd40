//! Failing health checks and other soft rules: a unit moves only to a node that can serve it
//! better.

use super::*;
use crate::claim::NodeState;

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
fn a_recovered_node_takes_the_unit_from_a_node_with_failing_checks() {
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
fn a_lost_change_of_the_rank_is_recovered_by_the_next_hello() {
    let mut segment = settled_segment();
    let order = ranked(&NODES, VIP);
    segment.run(ms(25));
    segment.is_lost = |_| true;
    set_failing(&mut segment, order[0], true);
    segment.run(ms(20));
    assert_eq!(segment.owners(VIP), [order[0]], "no peer has received the claim");
    segment.is_lost = |_| false;
    segment.run(STAGGER_MIN);
    assert_eq!(segment.owners(VIP), [order[1]]);
    assert_no_gap(&segment);
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
fn a_unit_returns_to_the_only_candidate_at_once() {
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
    // The node that has just released the unit is the only candidate.
    set_failing(&mut segment, &two[1..], "");
    segment.run(ms(300));
    assert_eq!(segment.owners(VIP), [two[1]]);
    assert_no_gap(&segment);
}

#[test]
fn a_unit_moves_whenever_the_checks_of_its_owner_fail() {
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
