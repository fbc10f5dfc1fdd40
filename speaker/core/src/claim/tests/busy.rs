//! Busy nodes: a node whose hellos were late states a longer detection time.

use super::*;
use crate::claim::NodeState;

/// Lets the owner of the address stall for this time.
fn stall(segment: &mut Segment, name: &str, time: Duration) {
    segment.node(name).stalled = true;
    segment.run(time);
    segment.node(name).stalled = false;
}

/// Returns a settled segment on which only one node may own the address, and had hellos that were
/// 600 ms late.
fn with_busy_owner(settings: fn(&mut ClaimConfig)) -> (Segment, &'static str) {
    let owner = ranked(&NODES, VIP)[0];
    let mut segment = Segment::with(&NODES, settings);
    segment.units(&[unit(VIP, &NODES)]);
    segment.run(Duration::from_secs(40));
    assert_eq!(segment.owners(VIP), [owner]);
    stall(&mut segment, owner, ms(650));
    assert_ne!(segment.owners(VIP), [owner], "the first stall causes a failover");
    segment.run(Duration::from_secs(90));
    assert_eq!(segment.owners(VIP), [owner], "the owner is back");
    (segment, owner)
}

#[test]
fn a_node_that_was_late_keeps_its_addresses_in_the_next_stall() {
    let (mut segment, owner) = with_busy_owner(|_| ());
    let fences = segment.node(owner).machine.counts().fences;
    segment.watch_owners(VIP);
    for _ in 0..5 {
        stall(&mut segment, owner, ms(650));
        assert_eq!(segment.owners(VIP), [owner]);
        segment.run(Duration::from_secs(5));
    }
    assert_eq!(segment.node(owner).machine.counts().fences, fences);
    assert_eq!(segment.longest_overlap(VIP), Duration::ZERO);
}

#[test]
fn a_busy_node_that_fails_is_replaced_after_its_stated_time() {
    let (mut segment, owner) = with_busy_owner(|_| ());
    segment.node(owner).up = false;
    segment.run(Duration::from_secs(3));
    let taker = segment.owners(VIP)[0].to_owned();
    let silence = *segment.node(&taker).failovers.last().expect("a failover");
    // 190 ms and an allowance of 800 ms.
    assert!(silence >= ms(989) && silence <= ms(1_000), "{silence:?}");
}

#[test]
fn other_nodes_are_replaced_as_fast_as_before() {
    let (mut segment, busy) = with_busy_owner(|_| ());
    let other = ranked(&NODES, VIP)[1];
    segment.units(&[unit(VIP, &[other, busy])]);
    segment.input(busy, Input::NodeState(NodeState { draining: true, ..NodeState::default() }));
    segment.run(Duration::from_secs(2));
    assert_eq!(segment.owners(VIP), [other]);
    segment.node(other).up = false;
    segment.run(Duration::from_secs(2));
    assert_eq!(segment.owners(VIP), [busy]);
    let silence = *segment.node(busy).failovers.last().expect("a failover");
    assert!(silence >= ms(189) && silence <= ms(200), "{silence:?}");
}

#[test]
fn the_limit_bounds_the_stated_time() {
    let (mut segment, owner) = with_busy_owner(|config| config.detection_time_max = ms(400));
    segment.node(owner).up = false;
    segment.run(Duration::from_secs(3));
    let taker = segment.owners(VIP)[0].to_owned();
    let silence = *segment.node(&taker).failovers.last().expect("a failover");
    assert!(silence >= ms(399) && silence <= ms(410), "{silence:?}");
}

#[test]
fn a_fenced_node_that_hears_only_worse_owners_takes_its_addresses_back_soon() {
    let owner = ranked(&NODES, VIP)[0];
    let mut segment = settled_segment();
    for worse in NODES.iter().filter(|name| **name != owner) {
        let unhealthy = NodeState { unhealthy: true, ..NodeState::default() };
        segment.input(worse, Input::NodeState(unhealthy));
    }
    stall(&mut segment, owner, ms(650));
    assert_ne!(segment.owners(VIP), [owner]);
    segment.run(ms(20));
    assert_eq!(segment.node(owner).machine.counts().fences, 1);
    assert_ne!(segment.owners(VIP), [owner], "frames that have queued up prove nothing");
    // Nodes without addresses send a hello every 200 ms.
    segment.run(ms(210));
    assert_eq!(segment.owners(VIP), [owner]);
}

#[test]
fn a_fenced_node_waits_for_a_live_peer_that_it_does_not_hear() {
    let order = ranked(&NODES, VIP);
    let mut segment = settled_segment();
    for worse in &order[1..] {
        let unhealthy = NodeState { unhealthy: true, ..NodeState::default() };
        segment.input(worse, Input::NodeState(unhealthy));
    }
    stall(&mut segment, order[0], ms(260));
    segment.node(order[2]).is_mute = true;
    segment.run(ms(100));
    assert_eq!(segment.owners(VIP), [order[1]]);
    // Until then, the silent peer is declared failed.
    segment.run(ms(500));
    assert_eq!(segment.owners(VIP), [order[0]]);
}
