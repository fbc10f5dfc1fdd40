//! Failback: it is delayed, the delay grows, and it can be switched off.

use super::*;
use crate::claim::NodeState;

/// Returns how long after its start the node owns the address again.
fn failback(wire: &mut Wire, name: &str, at_most: Duration) -> Duration {
    let start = wire.now;
    while wire.now.since(start) < at_most {
        wire.run(ms(100));
        if wire.owners(VIP) == [name] {
            return wire.now.since(start);
        }
    }
    panic!("not within {at_most:?}");
}

/// Stops the owner, and starts it again two seconds later.
fn comes_back(wire: &mut Wire, owner: &str) {
    wire.node(owner).up = false;
    wire.run(Duration::from_secs(2));
    wire.start(owner);
    wire.input(owner, Input::Units(vec![unit(&[VIP], &THREE)]));
}

#[test]
fn each_return_within_ten_minutes_is_waited_for_longer_and_a_new_process_knows_it() {
    let mut wire = settled();
    let owner = ranked(&THREE, VIP)[0];
    let mut waits = Vec::new();
    for _ in 0..3 {
        comes_back(&mut wire, owner);
        waits.push(failback(&mut wire, owner, Duration::from_secs(620)).as_secs());
    }
    // A failure and a return are two moves. The delay of 30, 120 or 480 s begins at the failure.
    assert!((30..=31).contains(&waits[0]), "{waits:?}");
    assert!((117..=119).contains(&waits[1]), "{waits:?}");
    assert!((477..=479).contains(&waits[2]), "{waits:?}");
    wire.run(Duration::from_secs(601));
    comes_back(&mut wire, owner);
    let wait = failback(&mut wire, owner, Duration::from_secs(60)).as_secs();
    assert!((30..=31).contains(&wait), "after ten quiet minutes as at first: {wait}");
}

#[test]
fn a_node_that_was_cut_off_since_its_start_moves_nothing_when_it_first_hears_others() {
    let mut wire = Wire::new(&THREE);
    wire.units(&[unit(&[VIP], &THREE)]);
    let order = ranked(&THREE, VIP);
    wire.node(order[0]).cut = true;
    wire.run(Duration::from_secs(40));
    assert_eq!(wire.owners(VIP).len(), 2, "each side of the cut has one");
    wire.node(order[0]).cut = false;
    wire.run(Duration::from_secs(5));
    assert_eq!(wire.owners(VIP), [order[1]]);
    let wait = failback(&mut wire, order[0], Duration::from_secs(60)).as_secs();
    assert!((24..=26).contains(&wait), "fresh for the failback delay: {wait}");
}

#[test]
fn what_is_kept_moves_at_once_for_a_better_reason_than_order() {
    let mut wire = settled();
    let order = ranked(&THREE, VIP);
    comes_back(&mut wire, order[0]);
    failback(&mut wire, order[0], Duration::from_secs(60));
    comes_back(&mut wire, order[0]);
    wire.run(Duration::from_secs(40));
    assert_eq!(wire.owners(VIP), [order[1]], "kept");
    wire.input(order[1], Input::NodeState(NodeState { draining: true, ..NodeState::default() }));
    wire.run(ms(200));
    assert_eq!(wire.owners(VIP), [order[0]]);
    wire.input(order[1], Input::NodeState(NodeState::default()));
    wire.node(order[0]).up = false;
    wire.run(ms(300));
    assert_eq!(wire.owners(VIP), [order[1]], "nor does it keep anyone from a dead node's place");
}

#[test]
fn never_means_never() {
    let mut wire = Wire::with(&THREE, |config| config.failback_delay = None);
    wire.units(&[unit(&[VIP], &THREE)]);
    wire.run(Duration::from_secs(40));
    let order = ranked(&THREE, VIP);
    assert_eq!(wire.owners(VIP), [order[0]]);
    comes_back(&mut wire, order[0]);
    wire.run(Duration::from_secs(2_000));
    assert_eq!(wire.owners(VIP), [order[1]]);
}

#[test]
fn it_waits_also_where_the_new_holder_heard_of_the_first_before_it_knew_the_address() {
    let mut wire = Wire::new(&THREE);
    let (all, order) = (unit(&[VIP], &THREE), ranked(&THREE, VIP));
    wire.input(order[0], Input::Units(vec![Arc::clone(&all)]));
    wire.run(Duration::from_secs(3));
    assert_eq!(wire.owners(VIP), [order[0]]);
    wire.units(&[Arc::clone(&all)]);
    let mut cordoned = (*all).clone();
    cordoned
        .candidates
        .iter_mut()
        .filter(|candidate| *candidate.node == *order[0])
        .for_each(|it| it.cordoned = true);
    wire.run(Duration::from_secs(40));
    wire.units(&[Arc::new(cordoned)]);
    wire.run(Duration::from_secs(1));
    assert_eq!(wire.owners(VIP), [order[1]]);
    wire.units(&[all]);
    wire.run(Duration::from_secs(20));
    assert_eq!(wire.owners(VIP), [order[1]], "it moved a moment ago");
    let wait = failback(&mut wire, order[0], Duration::from_secs(60)).as_secs();
    assert!((8..=10).contains(&wait), "30 s after the move: {wait}");
}
