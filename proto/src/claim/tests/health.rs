//! Failing health checks and other soft rules: they move what another node can serve better, and
//! nothing more.

use super::*;
use crate::claim::NodeState;
use crate::wire::hello::{Body, FailingReport};

/// Sets one node's units; their health checks on the node fail or not.
fn fails(wire: &mut Wire, name: &str, failing: bool) {
    fails_for(wire, name, &[VIP], if failing { &[VIP] } else { &[] });
}

/// The same for a unit with these addresses.
fn fails_for(wire: &mut Wire, name: &str, addresses: &[IpAddr], failing: &[IpAddr]) {
    let unit = Unit { failing: failing.into(), ..(*unit(addresses, &THREE)).clone() };
    wire.input(name, Input::Units(vec![Arc::new(unit)]));
}

fn started(wire: &Wire) -> usize {
    wire.nodes.iter().map(|node| node.started).sum()
}

fn undisturbed(wire: &Wire) {
    assert_eq!(wire.longest_gap(VIP), Duration::ZERO, "nothing is unanswered");
    assert!(wire.longest_double(VIP) <= ms(1), "make before break: {:?}", wire.longest_double(VIP));
}

#[test]
fn a_holder_whose_checks_fail_hands_over_within_a_stagger() {
    let mut wire = settled();
    let order = ranked(&THREE, VIP);
    fails(&mut wire, order[0], true);
    assert_eq!(wire.owners(VIP), [order[0]], "it goes on until another one answers");
    wire.run(STAGGER_MIN);
    assert_eq!(wire.owners(VIP), [order[1]]);
    undisturbed(&wire);
}

#[test]
fn where_all_fail_the_last_sound_one_keeps_it_and_it_stays_announced() {
    let mut wire = settled();
    let order = ranked(&THREE, VIP);
    for (name, owner) in [(order[0], order[1]), (order[1], order[2]), (order[2], order[2])] {
        fails(&mut wire, name, true);
        wire.run(Duration::from_secs(1));
        assert_eq!(wire.owners(VIP), [owner]);
    }
    let moves = started(&wire);
    wire.run(Duration::from_secs(150));
    assert_eq!(
        (wire.owners(VIP), started(&wire)),
        (vec![order[2]], moves),
        "nor when it is no longer kept"
    );
    // A node whose health check recovers takes the unit, however recently the unit moved.
    fails(&mut wire, order[1], false);
    wire.run(ms(200));
    assert_eq!(wire.owners(VIP), [order[1]]);
    undisturbed(&wire);
    let insists: u64 = THREE.iter().map(|name| wire.node(name).machine.counts().conflicts).sum();
    assert_eq!(insists, moves as u64, "each that hands over hears one claim, and nobody insists");
}

#[test]
fn who_recovers_says_so_before_it_takes_and_the_holder_understands_it() {
    let mut wire = settled();
    let order = ranked(&THREE, VIP);
    THREE.iter().for_each(|name| fails(&mut wire, name, true));
    wire.run(Duration::from_secs(40));
    assert_eq!(wire.owners(VIP), [order[0]], "that they all fail moves nothing");
    let refreshed = wire.node(order[0]).refreshed;
    fails(&mut wire, order[2], false);
    wire.run(ms(300));
    assert_eq!(wire.owners(VIP), [order[2]]);
    assert_eq!(wire.node(order[0]).refreshed, refreshed, "the holder defends nothing");
    undisturbed(&wire);
}

#[test]
fn checks_that_come_and_go_move_it_once_in_the_failback_delay() {
    let mut wire = settled();
    let order = ranked(&THREE, VIP);
    let before = started(&wire);
    for round in 0..10 {
        fails(&mut wire, order[0], round % 2 == 0);
        wire.run(ms(2_999));
    }
    assert_eq!((started(&wire) - before, wire.owners(VIP)), (1, vec![order[1]]));
    undisturbed(&wire);
}

/// Changes all nodes one after the other, the owner first, and checks how often the address moves.
fn one_after_another(become_so: impl Fn(&mut Wire, usize)) {
    let mut wire = settled();
    let order = ranked(&THREE, VIP);
    let before = started(&wire);
    for (count, owner) in [(1, order[1]), (2, order[2]), (3, order[2])] {
        become_so(&mut wire, count);
        wire.run(Duration::from_secs(40));
        assert_eq!(wire.owners(VIP), [owner], "when {count} are");
    }
    wire.run(Duration::from_secs(150));
    assert_eq!(
        (wire.owners(VIP), started(&wire) - before),
        (vec![order[2]], 2),
        "nothing wanders back to the first in order"
    );
    undisturbed(&wire);
}

#[test]
fn where_all_are_cordoned_one_after_another_nothing_moves_after_the_last() {
    one_after_another(|wire, count| {
        let mut cordoned = (*unit(&[VIP], &THREE)).clone();
        for candidate in &mut cordoned.candidates {
            candidate.cordoned = ranked(&THREE, VIP)[..count].contains(&&*candidate.node);
        }
        wire.units(&[Arc::new(cordoned)]);
    });
}

#[test]
fn where_all_are_unhealthy_or_draining_one_after_another_nothing_moves_after_the_last() {
    for says in [
        NodeState { unhealthy: true, ..NodeState::default() },
        NodeState { draining: true, ..NodeState::default() },
    ] {
        one_after_another(|wire, count| {
            wire.input(ranked(&THREE, VIP)[count - 1], Input::NodeState(says))
        });
    }
}

#[test]
fn what_nobody_holds_is_taken_whatever_speaks_against_all() {
    let mut wire = settled();
    let order = ranked(&THREE, VIP);
    for name in THREE {
        fails(&mut wire, name, true);
    }
    wire.run(ms(200));
    assert_eq!(wire.owners(VIP), [order[0]], "that they all fail moves nothing");
    wire.node(order[0]).up = false;
    wire.run(ms(300));
    assert_eq!(wire.owners(VIP), [order[1]]);
}

#[test]
fn a_lost_hello_is_made_good_by_the_next() {
    let mut wire = settled();
    let order = ranked(&THREE, VIP);
    wire.run(ms(25));
    wire.loses = |_| true;
    fails(&mut wire, order[0], true);
    wire.run(ms(50));
    assert_eq!(wire.owners(VIP), [order[0]], "nobody has heard of it");
    wire.loses = |_| false;
    wire.run(ms(60));
    assert_eq!(wire.owners(VIP), [order[1]]);
    // The same for an idle node, whose next periodic hello is due a second later.
    fails(&mut wire, order[2], true);
    wire.run(ms(200));
    wire.loses = |_| true;
    fails(&mut wire, order[2], false);
    wire.run(ms(10));
    wire.loses = |_| false;
    wire.run(ms(100));
    let known = &wire.node(order[1]).machine.peers[order[2]].failing;
    assert!(known.is_empty(), "said twice: {known:?}");
}

#[test]
fn where_one_family_fails_everywhere_the_other_still_finds_the_node_that_serves_it() {
    let both = [VIP, IpAddr::from([0xfd30, 0, 0, 0, 0, 0, 0, 1])];
    let mut wire = settled();
    let order = ranked(&THREE, VIP);
    THREE.iter().for_each(|name| fails_for(&mut wire, name, &both, &both[1..]));
    wire.run(Duration::from_secs(40));
    assert_eq!(wire.owners(VIP), [order[0]], "they are all alike");
    for (failing, owner) in [(order[0], order[1]), (order[1], order[2]), (order[2], order[2])] {
        fails_for(&mut wire, failing, &both, &both);
        wire.run(Duration::from_secs(1));
        assert_eq!(both.map(|address| wire.owners(address)), [[owner], [owner]]);
    }
    wire.run(Duration::from_secs(20));
    fails_for(&mut wire, order[1], &both, &both[..1]);
    wire.run(ms(200));
    assert_eq!(wire.owners(VIP), [order[1]], "one of the two is better than none, whichever");
    undisturbed(&wire);
}

#[test]
fn who_backs_off_from_a_quick_return_still_takes_it_from_one_that_cannot_serve() {
    let mut wire = settled();
    let order = ranked(&THREE, VIP);
    let two = &order[..2];
    let say = |wire: &mut Wire, candidates: &[&str], failing: &str| {
        for name in THREE {
            let failing: Box<[IpAddr]> =
                if name == failing { [VIP].into() } else { Box::default() };
            wire.input(
                name,
                Input::Units(vec![Arc::new(Unit {
                    failing,
                    ..(*unit(&[VIP], candidates)).clone()
                })]),
            );
        }
    };
    for (failing, owner) in [(two[0], two[1]), (two[1], two[0])] {
        say(&mut wire, two, failing);
        wire.run(ms(500));
        assert_eq!(wire.owners(VIP), [owner]);
    }
    // The node that has just yielded is the only candidate now.
    say(&mut wire, &two[1..], "");
    wire.run(ms(300));
    assert_eq!(wire.owners(VIP), [two[1]]);
    undisturbed(&wire);
}

#[test]
fn who_backs_off_from_a_quick_return_still_takes_it_from_one_whose_checks_fail() {
    let mut wire = settled();
    for round in 0..6 {
        let owner = wire.owners(VIP).first().map(|owner| (*owner).to_owned()).expect("an owner");
        for name in THREE {
            let failing: Box<[IpAddr]> =
                if *name == *owner { [VIP].into() } else { Box::default() };
            wire.input(
                name,
                Input::Units(vec![Arc::new(Unit { failing, ..(*unit(&[VIP], &THREE)).clone() })]),
            );
        }
        wire.run(Duration::from_secs(1));
        assert!(
            wire.owners(VIP).iter().all(|now| **now != *owner),
            "round {round}: {owner} is left with it"
        );
        assert_eq!(wire.owners(VIP).len(), 1);
    }
    undisturbed(&wire);
}

#[test]
fn any_address_of_the_unit_says_that_it_fails() {
    let second = IpAddr::from([172, 30, 0, 201]);
    let mut wire = settled();
    let order = ranked(&THREE, VIP);
    wire.units(&[unit(&[VIP, second], &THREE)]);
    // In the owner's view, the unit has another first address.
    let candidates = unit(&[VIP], &THREE).candidates.clone();
    let turned = Unit {
        addresses: [second, VIP].into(),
        candidates,
        can_serve_here: true,
        failing: [second, VIP].into(),
    };
    wire.input(order[0], Input::Units(vec![Arc::new(turned)]));
    wire.run(ms(200));
    assert_eq!((wire.owners(VIP), wire.owners(second)), (vec![order[1]], vec![order[1]]));
}

/// Makes a machine with `count` failing units, with or without each node as a candidate.
fn with_failing(count: u16, nodes: &[&str]) -> (ClaimMachine, Vec<Arc<Unit>>) {
    let mut machine = ClaimMachine::new(config("node1", 1), Instant::ZERO);
    machine.handle(Input::Keys(vec![1]), Instant::ZERO);
    let failing = |n| {
        let address = IpAddr::from([0xfd30, 0, 0, 0, 0, 0, 0, n]);
        Unit { failing: [address].into(), ..(*unit(&[address], nodes)).clone() }
    };
    let units: Vec<_> = (0..count).map(|n| Arc::new(failing(n))).collect();
    machine.handle(Input::Units(units.clone()), Instant::ZERO);
    (machine, units)
}

/// Returns the failures in a machine's hellos, with their times, between two times.
fn hellos(machine: &mut ClaimMachine, from: u64, until: u64) -> Vec<(u64, Vec<IpAddr>)> {
    let mut said = Vec::new();
    for n in from..until {
        machine.tick(Instant::from_millis(n));
        while let Some(output) = machine.poll() {
            if let Output::Send { frame: Frame { body: Body::Hello { failing, .. }, .. }, .. } =
                output
            {
                said.push((n, failing.addresses));
            }
        }
    }
    said
}

#[test]
fn what_does_not_fit_in_one_hello_is_said_by_those_that_follow_soon_and_twice() {
    let (mut machine, units) = with_failing(131, &["node1", "node2"]);
    let said = hellos(&mut machine, 0, 1_000);
    let stretches = [0..64, 63..127, 126..131, 0..64, 63..127, 126..131];
    let all: Vec<_> = units.iter().map(|unit| unit.addresses[0]).collect();
    let expected = (50..).step_by(50).zip(stretches.map(|stretch| all[stretch].to_vec()));
    assert_eq!(said, expected.collect::<Vec<_>>(), "each begins where the one before ended");
    assert!(units.iter().all(|unit| machine.fails("node1", unit) == 1), "they all count");

    let (mut machine, _) = with_failing(2, &["node2"]);
    let said = hellos(&mut machine, 0, 1_000);
    assert!(
        !said.is_empty() && said.iter().all(|(_, failing)| failing.is_empty()),
        "what it may not announce"
    );
}

/// Sets two hundred units; health checks on node1 fail for the selected ones.
fn of_two_hundred(wire: &mut Wire, fails: impl Fn(u16) -> bool) -> BTreeSet<IpAddr> {
    let address = |n: u16| IpAddr::from([0xfd30, 0, 0, 0, 0, 0, 0, n]);
    let failing = |n| if fails(n) { [address(n)].into() } else { Box::default() };
    let unit = |n| Unit { failing: failing(n), ..(*unit(&[address(n)], &["node1"])).clone() };
    wire.input("node1", Input::Units((0..200).map(|n| Arc::new(unit(n))).collect()));
    (0..200).filter(|n| fails(*n)).map(address).collect()
}

/// Returns the failures of node1 that a node has received.
fn known<'a>(wire: &'a mut Wire, to: &str) -> &'a BTreeSet<IpAddr> {
    &wire.node(to).machine.peers["node1"].failing
}

#[test]
fn what_fails_is_known_in_the_end_whatever_came_and_went_and_was_lost() {
    let mut wire = Wire::new(&["node1", "node2"]);
    wire.run(Duration::from_secs(2));
    for round in 0..60_u16 {
        wire.loses = |n| n % 3 == 0;
        let fails = |n: u16| {
            (n * 37 + round * 11) % 200 < (round * 53) % 220 && n.is_multiple_of(1 + round % 3)
        };
        let failing = of_two_hundred(&mut wire, fails);
        wire.run(ms(u64::from(round) * 7 % 170));
        if round % 4 == 0 {
            wire.loses = |_| false;
            wire.run(ms(600));
            assert_eq!(*known(&mut wire, "node2"), failing, "round {round}");
        }
    }
}

#[test]
fn a_newcomer_is_told_of_all_that_fails_soon_though_who_fails_is_idle() {
    let mut wire = Wire::new(&["node1", "node2"]);
    let failing = of_two_hundred(&mut wire, |_| true);
    wire.input("node1", Input::MainLoopStalled(true));
    wire.run(Duration::from_secs(10));
    wire.start("node3");
    wire.run(ms(600));
    assert_eq!((wire.node("node1").answers.len(), known(&mut wire, "node3")), (0, &failing));
}

#[test]
fn checks_that_come_and_go_bring_no_more_hellos_than_an_owner_sends() {
    let (mut machine, units) = with_failing(1, &["node1", "node2"]);
    let mut said = hellos(&mut machine, 0, 2_000);
    let idle = said.len();
    for n in 0..1_000 {
        let now = Instant::from_millis(2_000 + 2 * n);
        let failing = if n % 2 == 0 { units[0].addresses.clone() } else { Box::default() };
        machine.handle(Input::Units(vec![Arc::new(Unit { failing, ..(*units[0]).clone() })]), now);
        said.extend(hellos(&mut machine, 2_000 + 2 * n, 2_002 + 2 * n));
    }
    let hellos = said.len() - idle;
    assert!((30..=41).contains(&hellos), "{hellos} in two seconds");
}

/// Delivers a peer's `n`th hello, with these failures.
fn tells(machine: &mut ClaimMachine, n: u64, failing: FailingReport) {
    let body = Body::Hello { generation: 0, accepted_keys: vec![], failing };
    machine.handle(faults::said("node2", 1, 9 + n, body), Instant::from_millis(1));
}

#[test]
fn what_a_member_says_that_it_fails_for_is_bounded() {
    let (mut machine, at) =
        (ClaimMachine::new(config("node1", 1), Instant::ZERO), Instant::from_millis(1));
    machine.handle(Input::Keys(vec![1]), Instant::ZERO);
    faults::introduce(&mut machine, "node2", 1, at);
    let most = CLAIMS_PER_PEER_MAX as u32;
    for n in 0..=most / 128 {
        let addresses =
            (128 * n..128 * (n + 1)).rev().map(|n| IpAddr::from(n.to_be_bytes())).collect();
        tells(
            &mut machine,
            n.into(),
            FailingReport { addresses, more_before: true, more_after: true },
        );
    }
    assert_eq!(machine.peers["node2"].failing.len(), CLAIMS_PER_PEER_MAX);
    assert_eq!(machine.counts().over_limit, 128);
    tells(&mut machine, u64::from(most), FailingReport::default());
    assert!(
        machine.peers["node2"].failing.is_empty(),
        "a hello that says all replaces what was known"
    );
}

#[test]
fn a_hello_speaks_of_its_stretch_alone_and_not_beyond_it() {
    let (mut machine, at) =
        (ClaimMachine::new(config("node1", 1), Instant::ZERO), Instant::from_millis(1));
    machine.handle(Input::Keys(vec![1]), Instant::ZERO);
    faults::introduce(&mut machine, "node2", 1, at);
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
    for (n, (said, more_before, more_after, known)) in (0..).zip(steps) {
        tells(&mut machine, n, FailingReport { addresses: named(said), more_before, more_after });
        assert!(machine.peers["node2"].failing.iter().eq(&named(known)), "{n}");
    }
}
