//! Deaf nodes, stopped clocks, and devices that answer for the dead.

use super::*;
use crate::claim::senses::Floor;

#[test]
fn a_deaf_owner_gives_up_within_a_second_and_a_deaf_node_claims_nothing() {
    let mut wire = settled();
    let order = ranked(&THREE, VIP);
    wire.node(order[0]).deaf = true;
    wire.run(ms(900));
    assert_eq!(wire.owners(VIP), [order[0]], "it is not sure yet");
    wire.run(ms(1100));
    assert_eq!(wire.owners(VIP), [order[1]]);
    assert!(wire.longest_gap(VIP) < ms(5), "its last words are a release: {:?}", wire.longest_gap(VIP));
    assert_eq!(wire.node(order[0]).machine.counts().deaf, 1);
    // The other one, which holds nothing.
    wire.node(order[2]).deaf = true;
    wire.run(Duration::from_secs(30));
    assert_eq!((wire.owners(VIP), wire.longest_double(VIP)), (vec![order[1]], Duration::ZERO));
    wire.node(order[0]).deaf = false;
    wire.run(Duration::from_secs(2));
    assert!(!wire.node(order[0]).machine.own.flags.deaf, "the first frame ends it");
    assert_eq!((wire.owners(VIP), wire.longest_double(VIP)), (vec![order[1]], Duration::ZERO));
}

#[test]
fn who_hears_only_its_clients_takes_over_from_a_dead_node_at_once() {
    let two = &THREE[..2];
    let mut wire = Wire::new(two);
    wire.units(&[unit(&[VIP], two)]);
    wire.run(Duration::from_secs(40));
    wire.watch(VIP);
    let order = ranked(two, VIP);
    wire.node(order[0]).up = false;
    wire.run(Duration::from_secs(5));
    assert_eq!(wire.owners(VIP), [order[1]]);
    assert!(wire.longest_gap(VIP) <= ms(200), "{:?}", wire.longest_gap(VIP));
    assert_eq!(wire.node(order[1]).machine.counts().deaf, 0, "hosts that it asked have answered");
}

#[test]
fn a_lone_node_is_never_deaf() {
    let mut wire = Wire::new(&THREE[..1]);
    wire.units(&[unit(&[VIP], &THREE[..1])]);
    wire.node(THREE[0]).deaf = true;
    wire.run(Duration::from_secs(40));
    assert_eq!(wire.owners(VIP), THREE[..1]);
}

/// Pauses the owner as a hypervisor does: its own clock stands still, too.
fn paused(nodes: &[&'static str], length: Duration) -> (Wire, &'static str) {
    let mut wire = Wire::new(nodes);
    wire.units(&[unit(&[VIP], nodes)]);
    wire.run(Duration::from_secs(40));
    wire.watch(VIP);
    let owner = ranked(nodes, VIP)[0];
    wire.node(owner).frozen = true;
    wire.run(length);
    wire.node(owner).behind = length;
    wire.node(owner).frozen = false;
    wire.run(Duration::from_secs(5));
    (wire, owner)
}

#[test]
fn a_paused_machine_learns_it_from_the_clocks_of_two_others() {
    for nodes in [&THREE[..], &THREE[..2]] {
        let (mut wire, owner) = paused(nodes, Duration::from_secs(2));
        assert_eq!(wire.node(owner).machine.counts().fences, 1);
        assert_eq!(wire.owners(VIP), [ranked(nodes, VIP)[1]], "it is fresh, and takes nothing back");
        assert!(wire.longest_double(VIP) <= ms(60), "{:?}", wire.longest_double(VIP));
    }
    let (mut wire, owner) = paused(&THREE, ms(100));
    assert_eq!((wire.node(owner).machine.counts().fences, wire.owners(VIP)), (0, vec![owner]), "nobody noticed");
}

#[test]
fn what_queued_up_during_a_pause_does_not_hide_it() {
    let mut floor = Floor::new(0, Instant::from_millis(1_000));
    for n in 1..40 {
        assert!(!floor.fell(n * 50_000_000, ms(150), Instant::from_millis(1_000 + n * 50)));
    }
    // Our clock stands still for a second, whose twenty hellos are then read at one go.
    let fell = (40..60).any(|n| floor.fell(n * 50_000_000, ms(150), Instant::from_millis(2_951)));
    assert!(fell);
}

#[test]
fn one_clock_that_leaps_and_clocks_that_drift_fence_nobody() {
    let mut wire = settled();
    let order = ranked(&THREE, VIP);
    // A clock that leaps back looks to the others as if theirs had gone on: no harm. Its own view is the one above.
    for name in THREE {
        assert_eq!(wire.node(name).machine.counts().fences, 0);
    }
    // The clock of one that is not the owner leaps ahead: for the owner it is as if its own had stood still.
    wire.node(order[2]).ahead(Duration::from_secs(100));
    wire.run(Duration::from_secs(10));
    assert_eq!(wire.node(order[0]).machine.counts().fences, 0);
    // A drift of 0.2 per mille, of all against the owner.
    for _ in 0..300 {
        wire.node(order[1]).ahead(Duration::from_micros(200));
        wire.node(order[2]).ahead(Duration::from_micros(200));
        wire.run(Duration::from_secs(1));
    }
    assert_eq!((wire.owners(VIP), wire.longest_gap(VIP)), (vec![order[0]], Duration::ZERO));
    assert_eq!(wire.node(order[0]).machine.counts().fences, 0);
}

#[test]
fn who_proved_alive_behind_a_proxy_is_waited_for_twice_as_long() {
    let mut wire = settled();
    let order = ranked(&THREE, VIP);
    wire.proxy = true;
    for (round, patience) in [1, 2, 4].into_iter().enumerate() {
        let held = wire.owners(VIP)[0].to_owned();
        wire.watch(VIP);
        wire.node(order[0]).cut = true;
        wire.run(Duration::from_secs(patience + 1));
        if round == 0 {
            assert_eq!(held, order[0]);
        }
        let deaths = wire.node(order[1]).machine.counts().proxied;
        assert_eq!(deaths, round as u64 + 1, "found dead after {patience} s");
        wire.node(order[0]).cut = false;
        // Long enough that it is no longer fresh, and has its address back.
        wire.run(Duration::from_secs(700));
        assert_eq!(wire.owners(VIP), [order[0]]);
    }
}
