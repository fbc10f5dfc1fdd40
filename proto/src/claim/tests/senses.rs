//! Isolated nodes, stopped clocks, and devices that reply for failed peers.

use super::*;
use crate::claim::senses::MinimumOffset;
use crate::claim::unit::YieldSituation;
use crate::election::NO_SOFT_RULES;

#[test]
fn a_deaf_owner_is_relieved_after_a_second_and_moves_nothing_when_it_hears_again() {
    let mut wire = settled();
    let order = ranked(&THREE, VIP);
    wire.node(order[0]).deaf = true;
    wire.run(ms(700));
    assert!(wire.owners(VIP).is_empty(), "the others do not know yet");
    wire.run(ms(1_300));
    assert_eq!(wire.owners(VIP), [order[1]]);
    assert!(wire.longest_gap(VIP) <= ms(1_050), "{:?}", wire.longest_gap(VIP));
    assert_eq!(wire.node(order[0]).machine.counts().isolations, 1);
    assert_eq!(wire.node(order[0]).machine.live_peers().next(), None, "all were challenged");
    // A node that owns nothing becomes isolated. It claims the address as if it were alone, and the
    // owner announces the address again.
    wire.node(order[2]).deaf = true;
    wire.run(Duration::from_secs(30));
    assert_eq!((wire.owners(VIP), wire.longest_double(VIP)), (vec![order[1]], Duration::ZERO));
    assert!(wire.node(order[1]).refreshed >= 2, "its clients were told by each of the two");
    for back in [order[0], order[2]] {
        wire.node(back).deaf = false;
        wire.run(Duration::from_secs(2));
        assert!(!wire.node(back).machine.own.flags.isolated, "the first frame ends it");
        assert_eq!(wire.owners(VIP), [order[1]]);
        assert!(wire.longest_double(VIP) <= ms(60), "{:?}", wire.longest_double(VIP));
    }
}

#[test]
fn a_hold_down_leaves_nothing_to_a_deaf_owner() {
    let mut wire = settled();
    let order = ranked(&THREE, VIP);
    let now = wire.now;
    // Both successors have yielded to the owner, which is no candidate in their view of the API.
    for name in &order[1..] {
        let state = wire.node(name).machine.units.get_mut(&VIP).expect("its unit");
        state
            .story()
            .back_off(YieldSituation { differs: true, us: Some(NO_SOFT_RULES), them: None }, now);
    }
    wire.node(order[0]).deaf = true;
    wire.run(Duration::from_secs(2));
    assert_eq!(wire.owners(VIP), [order[1]]);
    assert!(wire.longest_gap(VIP) <= ms(1_050), "{:?}", wire.longest_gap(VIP));
}

#[test]
fn a_node_all_of_whose_members_are_dead_still_notices_that_it_receives_nothing() {
    let mut wire = settled();
    let order = ranked(&THREE, VIP);
    order[1..].iter().for_each(|name| wire.node(name).up = false);
    wire.run(Duration::from_secs(20));
    assert!(!wire.node(order[0]).machine.is_isolated(), "hosts that it asked have answered");
    wire.node(order[0]).deaf = true;
    wire.run(ms(1_300));
    assert!(wire.node(order[0]).machine.is_isolated(), "members that return have to know");
    assert!(wire.node(order[0]).answers.contains(&VIP));
}

/// Returns twelve addresses, each a unit.
fn twelve(nodes: &[&str]) -> (Vec<IpAddr>, Vec<Arc<Unit>>) {
    let addresses: Vec<IpAddr> = (0..12).map(|n| [172, 30, 1, n].into()).collect();
    let units = addresses.iter().map(|address| unit(&[*address], nodes)).collect();
    (addresses, units)
}

/// Makes two nodes that share twelve addresses, on a segment without any other host.
fn two_alone() -> (Wire, Vec<IpAddr>) {
    let (two, mut wire) = (&THREE[..2], Wire::new(&THREE[..2]));
    let (addresses, units) = twelve(two);
    wire.hosts_answer = false;
    wire.units(&units);
    wire.run(Duration::from_secs(40));
    let shares: BTreeSet<_> =
        addresses.iter().map(|address| wire.owners(*address).join(" ")).collect();
    assert_eq!(shares.len(), 2, "each has some: {shares:?}");
    addresses.iter().for_each(|address| wire.watch(*address));
    (wire, addresses)
}

fn assert_all_of(wire: &Wire, addresses: &[IpAddr], name: &str) {
    for address in addresses {
        assert_eq!(wire.owners(*address), [name], "{address}");
        assert!(
            wire.longest_gap(*address) <= ms(1_100),
            "{address}: {:?}",
            wire.longest_gap(*address)
        );
    }
}

#[test]
fn who_is_left_alone_on_a_silent_wire_has_everything_within_a_second() {
    let (mut wire, addresses) = two_alone();
    wire.node("node2").up = false;
    wire.run(ms(1_300));
    assert_all_of(&wire, &addresses, "node1");
    wire.run(Duration::from_secs(60));
    assert_all_of(&wire, &addresses, "node1");
    assert_eq!(wire.node("node1").machine.counts().isolations, 1);
}

#[test]
fn who_has_just_started_and_is_left_alone_on_a_silent_wire_has_everything_within_a_second() {
    let (mut wire, addresses) = two_alone();
    let (_, units) = twelve(&THREE[..2]);
    wire.start("node1");
    wire.input("node1", Input::Units(units));
    wire.run(Duration::from_secs(9));
    addresses.iter().for_each(|address| wire.watch(*address));
    wire.node("node2").up = false;
    wire.run(ms(1_300));
    assert_all_of(&wire, &addresses, "node1");
}

#[test]
fn witnesses_are_hosts_and_neither_members_nor_addresses_that_they_announce() {
    let mut wire = settled();
    let member = wire.node("node2").mac;
    let (host, own): (_, IpAddr) = (Mac([2, 9, 9, 9, 9, 9]), [172, 30, 0, 11].into());
    for alive in [true, false] {
        wire.node("node2").up = alive;
        wire.run(Duration::from_secs(5));
        let machine = &wire.node("node1").machine;
        assert!(machine.is_witness(host, own));
        assert!(
            !machine.is_witness(member, own) && !machine.is_witness(host, VIP),
            "alive: {alive}"
        );
    }
}

#[test]
fn two_that_lose_each_other_on_a_silent_wire_agree_again_when_they_meet() {
    let (mut wire, addresses) = two_alone();
    wire.node("node2").cut = true;
    wire.run(Duration::from_secs(10));
    assert!(
        addresses.iter().all(|address| wire.owners(*address).len() == 2),
        "each is alone for all that it knows"
    );
    addresses.iter().for_each(|address| wire.watch(*address));
    wire.node("node2").cut = false;
    wire.run(Duration::from_secs(5));
    for address in addresses {
        assert_eq!(
            (wire.owners(address).len(), wire.longest_gap(address)),
            (1, Duration::ZERO),
            "{address}"
        );
        assert!(wire.longest_double(address) <= ms(110), "{:?}", wire.longest_double(address));
    }
}

#[test]
fn each_announcement_of_a_deaf_member_is_answered_by_the_owner() {
    let mut wire = settled();
    let order = ranked(&THREE, VIP);
    wire.node(order[2]).deaf = true;
    wire.run(Duration::from_secs(5));
    let mac = wire.node(order[2]).mac;
    let defended = wire.node(order[0]).defended;
    for _ in 0..3 {
        wire.input(order[0], Input::Foreign { address: VIP, mac, announced: true });
    }
    assert_eq!(wire.node(order[0]).defended, defended + 3);
    assert!(wire.node(order[0]).machine.conflicts().next().is_none(), "it is a member");
    wire.input(order[0], Input::Foreign { address: VIP, mac, announced: false });
    assert_eq!(
        wire.node(order[0]).defended,
        defended + 3,
        "its kernel's answer turns no cache for long"
    );
}

#[test]
fn a_deaf_node_whose_peer_lives_takes_nothing_from_it() {
    let (mut wire, addresses) = two_alone();
    wire.node("node1").deaf = true;
    wire.run(Duration::from_secs(60));
    assert_all_of(&wire, &addresses, "node2");
    let refreshed = wire.node("node2").refreshed;
    assert!(
        refreshed >= addresses.len() / 2,
        "the owner announces itself to the clients: {refreshed}"
    );
    assert!(
        !wire.node("node1").answers.is_empty(),
        "it goes on, for all that it knows it is alone"
    );
    wire.node("node1").deaf = false;
    wire.run(ms(200));
    assert_all_of(&wire, &addresses, "node2");
    assert!(wire.node("node1").answers.is_empty());
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
    assert_eq!(
        wire.node(order[1]).machine.counts().isolations,
        0,
        "hosts that it asked have answered"
    );
}

#[test]
fn a_lone_node_is_never_deaf() {
    let mut wire = Wire::new(&THREE[..1]);
    wire.units(&[unit(&[VIP], &THREE[..1])]);
    wire.node(THREE[0]).deaf = true;
    wire.run(Duration::from_secs(40));
    let node = wire.node(THREE[0]);
    assert!(node.answers.contains(&VIP) && !node.machine.is_isolated());
}

/// Pauses the owner as a hypervisor does: its clock stands still, too.
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
        assert_eq!(
            wire.owners(VIP),
            [ranked(nodes, VIP)[1]],
            "it is fresh, and takes nothing back"
        );
        assert!(wire.longest_double(VIP) <= ms(60), "{:?}", wire.longest_double(VIP));
    }
    let (mut wire, owner) = paused(&THREE, ms(100));
    assert_eq!(
        (wire.node(owner).machine.counts().fences, wire.owners(VIP)),
        (0, vec![owner]),
        "nobody noticed"
    );
}

#[test]
fn what_queued_up_during_a_pause_does_not_hide_it() {
    let mut floor = MinimumOffset::new(0, Instant::from_millis(1_000));
    for n in 1..40 {
        assert!(!floor.fell(n * 50_000_000, ms(150), Instant::from_millis(1_000 + n * 50)));
    }
    // The local clock stands still for a second; then the twenty hellos of that second are read at
    // one go.
    let fell = (40..60).any(|n| floor.fell(n * 50_000_000, ms(150), Instant::from_millis(2_951)));
    assert!(fell);
}

#[test]
fn one_clock_that_leaps_and_clocks_that_drift_fence_nobody() {
    let mut wire = settled();
    let order = ranked(&THREE, VIP);
    // For the other nodes, a clock that leaps back looks as if their own clocks had moved forward,
    // which is harmless. The test above covers the node's own view.
    for name in THREE {
        assert_eq!(wire.node(name).machine.counts().fences, 0);
    }
    // The clock of a node that is not the owner leaps ahead. For the owner it is as if its own
    // clock had stood still.
    wire.node(order[2]).ahead(Duration::from_secs(100));
    wire.run(Duration::from_secs(10));
    assert_eq!(wire.node(order[0]).machine.counts().fences, 0);
    // All other clocks drift by 0.2 per mille against the owner's clock.
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
        let deaths = wire.node(order[1]).machine.counts().proxied_failures;
        assert_eq!(deaths, round as u64 + 1, "found dead after {patience} s");
        wire.node(order[0]).cut = false;
        // Long enough to end the preempt delay and to get the address back.
        wire.run(Duration::from_secs(700));
        assert_eq!(wire.owners(VIP), [order[0]]);
    }
}
