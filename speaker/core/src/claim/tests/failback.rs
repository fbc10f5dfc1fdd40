//! Failback: the preempt delay, its growth, and `--failback-delay never`.

use super::faults::machine_with_peer;
use super::peer::claim_of;
use super::*;
use crate::claim::NodeState;

/// Waits until a node owns [`VIP`] again, at most `limit`. Returns how long that took.
fn time_to_failback(segment: &mut Segment, name: &str, limit: Duration) -> Duration {
    let start = segment.now;
    while segment.now.since(start) < limit {
        segment.run(ms(100));
        if segment.owners(VIP) == [name] {
            return segment.now.since(start);
        }
    }
    panic!("no failback within {limit:?}");
}

/// Stops the owner, and starts it again two seconds later.
fn restart_owner(segment: &mut Segment, owner: &str) {
    segment.node(owner).up = false;
    segment.run(Duration::from_secs(2));
    segment.start(owner);
    segment.set_units(owner, vec![unit(VIP, &NODES)]);
}

#[test]
fn each_move_within_ten_minutes_lengthens_the_preempt_delay() {
    let mut segment = settled_segment();
    let owner = ranked(&NODES, VIP)[0];
    let mut waits = Vec::new();
    for _ in 0..3 {
        restart_owner(&mut segment, owner);
        waits.push(time_to_failback(&mut segment, owner, Duration::from_secs(620)).as_secs());
    }
    // A failure and a return are two moves. The delay of 30, 120 or 480 s begins at the failure.
    assert!((30..=31).contains(&waits[0]), "the failbacks took {waits:?} s");
    assert!((117..=119).contains(&waits[1]), "the failbacks took {waits:?} s");
    assert!((477..=479).contains(&waits[2]), "the failbacks took {waits:?} s");
    segment.run(Duration::from_secs(601));
    restart_owner(&mut segment, owner);
    let wait = time_to_failback(&mut segment, owner, Duration::from_secs(60)).as_secs();
    assert!(
        (30..=31).contains(&wait),
        "the delay has its initial length after ten minutes: {wait}"
    );
}

#[test]
fn a_node_partitioned_since_its_start_takes_nothing_at_once() {
    let mut segment = Segment::new(&NODES);
    segment.units(&[unit(VIP, &NODES)]);
    let order = ranked(&NODES, VIP);
    segment.node(order[0]).partitioned = true;
    segment.run(Duration::from_secs(40));
    assert_eq!(segment.owners(VIP).len(), 2, "each side of the partition has an owner");
    segment.node(order[0]).partitioned = false;
    segment.run(Duration::from_secs(5));
    assert_eq!(segment.owners(VIP), [order[1]]);
    let wait = time_to_failback(&mut segment, order[0], Duration::from_secs(60)).as_secs();
    assert!((24..=26).contains(&wait), "the failback follows the preempt delay: {wait}");
}

#[test]
fn soft_rules_and_failures_override_the_preempt_delay() {
    let mut segment = settled_segment();
    let order = ranked(&NODES, VIP);
    restart_owner(&mut segment, order[0]);
    time_to_failback(&mut segment, order[0], Duration::from_secs(60));
    restart_owner(&mut segment, order[0]);
    segment.run(Duration::from_secs(40));
    assert_eq!(segment.owners(VIP), [order[1]], "the unit is in preempt delay");
    segment.input(order[1], Input::NodeState(NodeState { draining: true, ..NodeState::default() }));
    segment.run(ms(200));
    assert_eq!(segment.owners(VIP), [order[0]]);
    segment.input(order[1], Input::NodeState(NodeState::default()));
    segment.node(order[0]).up = false;
    segment.run(ms(300));
    assert_eq!(segment.owners(VIP), [order[1]], "a failed owner is replaced at once");
}

#[test]
fn failback_delay_never_disables_failback() {
    let mut segment = Segment::with(&NODES, |config| config.failback_delay = None);
    segment.units(&[unit(VIP, &NODES)]);
    segment.run(Duration::from_secs(40));
    let order = ranked(&NODES, VIP);
    assert_eq!(segment.owners(VIP), [order[0]]);
    restart_owner(&mut segment, order[0]);
    segment.run(Duration::from_secs(2_000));
    assert_eq!(segment.owners(VIP), [order[1]]);
}

#[test]
fn a_claim_received_before_its_unit_counts_for_the_preempt_delay() {
    let mut segment = Segment::new(&NODES);
    let (all, order) = (unit(VIP, &NODES), ranked(&NODES, VIP));
    segment.set_units(order[0], vec![Arc::clone(&all)]);
    segment.run(Duration::from_secs(3));
    assert_eq!(segment.owners(VIP), [order[0]]);
    segment.units(&[Arc::clone(&all)]);
    let cordoned = change_candidates(&all, |candidate| {
        candidate.cordoned = *candidate.node == *order[0];
    });
    segment.run(Duration::from_secs(40));
    segment.units(&[cordoned]);
    segment.run(Duration::from_secs(1));
    assert_eq!(segment.owners(VIP), [order[1]]);
    segment.units(&[all]);
    segment.run(Duration::from_secs(20));
    assert_eq!(segment.owners(VIP), [order[1]], "the unit is in preempt delay after its move");
    let wait = time_to_failback(&mut segment, order[0], Duration::from_secs(60)).as_secs();
    assert!((8..=10).contains(&wait), "the failback is 30 s after the move: {wait}");
}

#[test]
fn a_preempt_delay_that_the_owner_withdraws_ends_at_once() {
    let (mut machine, mut peer) = machine_with_peer();
    let now = Instant::from_millis(1_600);
    machine.membership.end_preempt_delay();
    let is_first = |address: &IpAddr| ranked(&["node1", "node2"], *address)[0] == "node1";
    let address = (1..=250).map(|n| IpAddr::from([172, 30, 0, n])).find(is_first);
    let address = address.expect("such an address");
    let claim =
        |preempt_delay| Body::Claim(vec![Claim { preempt_delay, ..claim_of("node2", address) }]);
    machine.handle(peer.send(claim(Duration::from_secs(20))), now);
    set_units(&mut machine, vec![unit(address, &["node1", "node2"])], now);
    assert_eq!(machine.owned().len(), 0, "the owner keeps the unit during the preempt delay");
    machine.handle(peer.send(claim(Duration::ZERO)), now + ms(10));
    assert_eq!(machine.owned().keys().copied().collect::<Vec<_>>(), [address]);
}
