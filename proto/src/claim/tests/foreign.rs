//! Foreign hosts, peers' kernels that reply, and devices that reply for failed peers.

use super::*;
use crate::claim::NodeState;
use crate::wire::hello::{Body, FailingReport};

const STRANGER: Mac = Mac([2, 9, 9, 9, 9, 9]);

/// Delivers an ARP frame, which assigns the address to `mac`, to every node that is up.
fn seen(wire: &mut Wire, mac: Mac, announced: bool) {
    for name in THREE {
        if wire.node(name).up {
            wire.input(name, Input::Foreign { address: VIP, mac, announced });
        }
    }
}

fn troubles(wire: &mut Wire, name: &str) -> Vec<AddressConflict> {
    wire.node(name).machine.conflicts().collect()
}

fn by(kind: ConflictKind, mac: Mac) -> Vec<AddressConflict> {
    vec![AddressConflict { address: VIP, mac, kind }]
}

#[test]
fn a_fresh_address_is_asked_for_three_times_and_only_when_it_is_fresh() {
    let mut wire = settled();
    let order = ranked(&THREE, VIP);
    assert_eq!(wire.node(order[0]).checked, [VIP; 3]);
    wire.node(order[0]).up = false;
    wire.run(Duration::from_secs(5));
    assert_eq!(wire.owners(VIP), [order[1]]);
    assert!(wire.node(order[1]).checked.is_empty(), "who takes over from a dead node asks nobody");
}

#[test]
fn a_fresh_address_that_a_stranger_has_is_left_to_it_and_taken_when_it_lets_go() {
    let mut wire = Wire::new(&THREE);
    wire.run(Duration::from_secs(40));
    wire.units(&[unit(&[VIP], &THREE)]);
    let order = ranked(&THREE, VIP);
    assert_eq!(wire.owners(VIP), [order[0]], "at once");
    wire.run(ms(10));
    // The foreign host replies to every probe.
    let mut questions = 0;
    for _ in 0..300 {
        for name in THREE {
            if !std::mem::take(&mut wire.node(name).checked).is_empty() {
                questions += 1;
                wire.input(name, Input::Foreign { address: VIP, mac: STRANGER, announced: false });
            }
        }
        wire.run(ms(100));
        assert!(wire.owners(VIP).is_empty());
    }
    assert!(
        questions <= 8,
        "{questions}: one when it was new, and then one or two every ten seconds"
    );
    assert_eq!(troubles(&mut wire, order[0]), by(ConflictKind::ForeignHost, STRANGER));
    let started: usize = THREE.iter().map(|name| wire.node(name).started).sum();
    assert_eq!(started, 1, "nobody else tried");
    wire.run(Duration::from_secs(12));
    assert_eq!(wire.owners(VIP), [order[0]]);
    assert!(troubles(&mut wire, order[0]).is_empty());
}

#[test]
fn a_node_that_came_back_under_another_name_is_the_living_one_and_the_dead_one_is_forgotten() {
    let mut wire = settled();
    let (dead, mac) = ("node1", wire.node("node1").mac);
    wire.node(dead).up = false;
    wire.run(Duration::from_secs(2));
    // The MAC now sends frames for a node whose name sorts later.
    wire.start("other1");
    wire.node("other1").mac = mac;
    wire.run(Duration::from_secs(2));
    let owner =
        ["node2", "node3"].into_iter().find(|name| wire.owners(VIP) == [*name]).expect("an owner");
    wire.input(owner, Input::Foreign { address: VIP, mac, announced: true });
    assert_eq!(wire.owners(VIP), [owner], "a living node's kernel is defended against");
    assert_eq!(troubles(&mut wire, owner), by(ConflictKind::PeerKernel("other1".into()), mac));
    assert!(wire.node(owner).machine.peers.contains_key(dead));
    wire.run(Duration::from_secs(3_600));
    assert!(!wire.node(owner).machine.peers.contains_key(dead), "an hour later");
    assert!(wire.node(owner).machine.peers.contains_key("other1"));
}

#[test]
fn an_address_that_was_held_for_long_is_defended_once_in_ten_seconds_and_kept() {
    let mut wire = settled();
    let owner = ranked(&THREE, VIP)[0];
    for _ in 0..250 {
        seen(&mut wire, STRANGER, true);
        wire.run(ms(100));
    }
    assert_eq!(wire.node(owner).defended, 3, "in 25 s");
    assert_eq!(wire.owners(VIP), [owner]);
    assert_eq!(troubles(&mut wire, owner), by(ConflictKind::ForeignHost, STRANGER));
    assert_eq!(wire.node(owner).machine.counts().foreign_hosts, 250);
    wire.run(Duration::from_secs(301));
    assert!(troubles(&mut wire, owner).is_empty(), "it was not seen again");
}

#[test]
fn who_lies_in_many_names_is_named_once_in_a_second() {
    let mut wire = settled();
    let owner = ranked(&THREE, VIP)[0];
    let mut named = Vec::new();
    for n in 0..100 {
        seen(&mut wire, Mac([2, 9, 9, 9, 9, n]), true);
        wire.run(ms(30));
        named.extend(troubles(&mut wire, owner));
        named.dedup();
    }
    assert_eq!(named.len(), 3, "in 3 s: {named:?}");
    assert_eq!(wire.node(owner).machine.counts().foreign_hosts, 100);
}

#[test]
fn a_member_whose_kernel_answers_is_named_and_nothing_moves() {
    let mut wire = settled();
    let order = ranked(&THREE, VIP);
    let mac = wire.node(order[1]).mac;
    seen(&mut wire, mac, false);
    wire.run(Duration::from_secs(1));
    assert_eq!(troubles(&mut wire, order[0]), by(ConflictKind::PeerKernel(order[1].into()), mac));
    assert_eq!((wire.owners(VIP), wire.longest_gap(VIP)), (vec![order[0]], Duration::ZERO));
    assert!(troubles(&mut wire, order[2]).is_empty(), "who does not hold it has no trouble");
    // The peer is back after a partition, and its claims are not known yet.
    let mut wire = settled();
    wire.node(order[0]).machine.peers.get_mut(order[1]).expect("a peer").generation = None;
    seen(&mut wire, mac, true);
    assert!(troubles(&mut wire, order[0]).is_empty());
    assert_eq!(wire.node(order[0]).defended, 0);
}

#[test]
fn what_a_former_holder_said_lately_is_no_trouble() {
    let mut wire = settled();
    let order = ranked(&THREE, VIP);
    let mac = wire.node(order[0]).mac;
    wire.input(order[0], Input::NodeState(NodeState { draining: true, ..NodeState::default() }));
    wire.run(ms(500));
    assert_eq!(wire.owners(VIP), [order[1]]);
    seen(&mut wire, mac, true);
    assert!(troubles(&mut wire, order[1]).is_empty());
    wire.run(ms(600));
    seen(&mut wire, mac, true);
    assert_eq!(troubles(&mut wire, order[1]), by(ConflictKind::PeerKernel(order[0].into()), mac));
}

#[test]
fn what_a_member_said_that_claimed_it_beside_us_and_let_go_again_is_no_trouble() {
    let mut wire = settled();
    let order = ranked(&THREE, VIP);
    let mac = wire.node(order[1]).mac;
    // The second node is the first to get units in which the owner is no candidate, and takes the
    // unit. Next it gets units in which it is none either.
    wire.input(order[1], Input::Units(vec![unit(&[VIP], &order[1..])]));
    wire.run(ms(1));
    wire.input(order[1], Input::Units(vec![unit(&[VIP], &order[2..])]));
    wire.run(ms(1));
    assert_eq!(wire.node(order[1]).started, 1);
    assert_eq!(wire.owners(VIP), [order[0]]);
    seen(&mut wire, mac, true);
    assert!(troubles(&mut wire, order[0]).is_empty(), "its announcement was overtaken");
    wire.run(Duration::from_secs(1));
    seen(&mut wire, mac, true);
    assert_eq!(troubles(&mut wire, order[0]), by(ConflictKind::PeerKernel(order[1].into()), mac));
}

#[test]
fn a_takeover_behind_a_proxy_is_marked_and_ends_when_the_dead_defends_itself() {
    let mut wire = settled();
    let order = ranked(&THREE, VIP);
    let mac = wire.node(order[0]).mac;
    wire.proxy = true;
    wire.node(order[0]).up = false;
    wire.run(Duration::from_secs(2));
    assert_eq!(wire.owners(VIP), [order[1]]);
    assert_eq!(
        troubles(&mut wire, order[1]),
        by(ConflictKind::ProxyOfFailedPeer(order[0].into()), mac)
    );
    seen(&mut wire, mac, false);
    assert_eq!(wire.owners(VIP), [order[1]], "answers are what such a device gives");
    seen(&mut wire, mac, true);
    wire.run(ms(1));
    assert!(wire.node(order[1]).answers.is_empty(), "an announcement is a sign of life");
}

#[test]
fn what_was_left_to_a_node_that_held_nothing_before_is_taken_at_once_when_it_dies() {
    let mut wire = settled();
    let order = ranked(&THREE, VIP);
    let mac = wire.node(order[2]).mac;
    // The third node took the address on its side of the partition, and announced it when the
    // partition healed, before its first hello.
    wire.node(order[2]).cut = true;
    wire.run(Duration::from_secs(3));
    assert_eq!(wire.owners(VIP).len(), 2);
    for (name, time) in [(order[0], ms(1_100)), (order[1], ms(100))] {
        wire.input(name, Input::Foreign { address: VIP, mac, announced: true });
        wire.run(time);
    }
    assert_eq!(wire.owners(VIP), [order[2]]);
    wire.node(order[2]).cut = false;
    wire.run(ms(200));
    wire.watch(VIP);
    wire.node(order[2]).up = false;
    wire.run(Duration::from_secs(3));
    assert_eq!(wire.owners(VIP).len(), 1);
    assert!(wire.longest_gap(VIP) <= ms(350), "{:?}", wire.longest_gap(VIP));
}

#[test]
fn what_was_left_to_a_node_that_is_back_is_taken_at_once_when_it_dies_again() {
    let mut wire = settled();
    let order = ranked(&THREE, VIP);
    let mac = wire.node(order[0]).mac;
    // The others take the address from a node that is cut off, and receive its announcements
    // nevertheless.
    wire.node(order[0]).cut = true;
    wire.run(Duration::from_secs(3));
    for (name, time) in [(order[1], ms(1_100)), (order[2], ms(100))] {
        wire.input(name, Input::Foreign { address: VIP, mac, announced: true });
        wire.run(time);
    }
    assert_eq!(wire.owners(VIP), [order[0]], "on its side");
    wire.node(order[0]).cut = false;
    wire.run(ms(200));
    assert_eq!(wire.owners(VIP), [order[0]]);
    wire.watch(VIP);
    wire.node(order[0]).up = false;
    wire.run(Duration::from_secs(3));
    assert!(wire.longest_gap(VIP) <= ms(260), "{:?}", wire.longest_gap(VIP));
}

#[test]
fn ten_thousand_fresh_addresses_are_asked_for_at_a_bounded_pace() {
    let mut wire = Wire::new(&THREE[..1]);
    wire.run(Duration::from_secs(40));
    let units: Vec<_> = (0..3_000u16)
        .map(|n| unit(&[IpAddr::from([10, 0, (n >> 8) as u8, n as u8])], &THREE[..1]))
        .collect();
    wire.units(&units);
    wire.run(Duration::from_secs(1));
    let asked = wire.node(THREE[0]).checked.len();
    assert!((900..=1_100).contains(&asked), "{asked} in the first second");
    wire.run(Duration::from_secs(10));
    assert_eq!(wire.node(THREE[0]).checked.len(), 9_000);
    assert_eq!(wire.node(THREE[0]).machine.owned().count(), 3_000);
}

#[test]
fn the_last_word_about_an_address_is_its_holders() {
    let mut wire = settled();
    let owner = ranked(&THREE, VIP)[0];
    seen(&mut wire, STRANGER, true);
    wire.run(Duration::from_secs(2));
    seen(&mut wire, STRANGER, true);
    wire.run(Duration::from_secs(7));
    assert_eq!(wire.node(owner).defended, 1, "not again so soon");
    wire.run(Duration::from_secs(2));
    assert_eq!(wire.node(owner).defended, 2);
    wire.run(Duration::from_secs(60));
    assert_eq!(wire.node(owner).defended, 2, "and then there is nothing to say");
}

#[test]
fn an_address_that_is_being_asked_for_may_become_another_node_s_turn() {
    let mut wire = Wire::new(&THREE);
    let order = ranked(&THREE, VIP);
    wire.node(order[0]).cut = true;
    wire.run(Duration::from_secs(40));
    for name in &order[1..] {
        wire.input(name, Input::Units(vec![unit(&[VIP], &THREE)]));
    }
    wire.run(ms(10));
    wire.input(order[1], Input::Foreign { address: VIP, mac: STRANGER, announced: false });
    wire.node(order[1]).checked.clear();
    // Ten seconds later the node probes the address; meanwhile a better node starts.
    while wire.node(order[1]).checked.is_empty() {
        wire.run(ms(10));
    }
    wire.node(order[0]).cut = false;
    wire.run(Duration::from_secs(1));
    wire.input(order[0], Input::Units(vec![unit(&[VIP], &THREE)]));
    // `Wire::run` panics if a machine returns a deadline that has passed.
    wire.run(Duration::from_secs(60));
    assert_eq!(wire.owners(VIP).len(), 1);
}

#[test]
fn a_wrong_death_doubles_the_patience_once_however_many_addresses_it_was_about() {
    let mut wire = settled();
    let addresses: Vec<_> = (1..=6).map(|n| IpAddr::from([10, 1, 0, n])).collect();
    let order = ranked(&THREE, VIP);
    let all: Vec<_> = addresses
        .iter()
        .map(|address| unit(&[*address], &order[..2]))
        .chain([unit(&[VIP], &THREE)])
        .collect();
    wire.units(&all);
    wire.run(Duration::from_secs(2));
    let (mac, proxied) =
        (wire.node(order[0]).mac, wire.node(order[0]).machine.owned().collect::<Vec<_>>());
    assert!(proxied.len() > 1, "{proxied:?}");
    wire.proxy = true;
    wire.node(order[0]).cut = true;
    wire.run(Duration::from_secs(2));
    for address in proxied {
        wire.input(order[1], Input::Foreign { address, mac, announced: true });
    }
    assert_eq!(wire.node(order[1]).machine.peers[order[0]].patience, Duration::from_secs(2));
}

#[test]
fn who_has_yet_to_prove_that_it_is_a_member_is_no_stranger() {
    let mut wire = settled();
    let owner = ranked(&THREE, VIP)[0];
    let newcomer = faults::said(
        "node9",
        9,
        1,
        Body::Hello { generation: 0, accepted_keys: vec![], failing: FailingReport::default() },
    );
    let Input::Frame { source, .. } = newcomer else { unreachable!("a frame") };
    wire.input(owner, newcomer);
    seen(&mut wire, source, true);
    assert!(troubles(&mut wire, owner).is_empty());
    // The newcomer does not reply to its challenge, and is removed when the next one arrives.
    wire.run(ms(1_100));
    let Input::Frame { frame, .. } = faults::said(
        "node8",
        8,
        1,
        Body::Hello { generation: 0, accepted_keys: vec![], failing: FailingReport::default() },
    ) else {
        unreachable!("a frame")
    };
    wire.input(owner, Input::Frame { source: Mac([2, 9, 9, 9, 9, 8]), frame });
    seen(&mut wire, source, true);
    assert_eq!(troubles(&mut wire, owner), by(ConflictKind::ForeignHost, source));
}

#[test]
fn a_newcomer_that_goes_on_to_speak_is_no_stranger_however_long_its_answers_are_lost() {
    let mut wire = settled();
    let owner = ranked(&THREE, VIP)[0];
    let source = |node: u8| Mac([2, 9, 9, 9, 9, node]);
    let speaks = |wire: &mut Wire, node: u8, clock| {
        let Input::Frame { frame, .. } =
            faults::said(&format!("node{node}"), 9, clock, Body::ListRequest)
        else {
            return;
        };
        wire.input(owner, Input::Frame { source: source(node), frame });
    };
    for n in 1..=4 {
        speaks(&mut wire, 9, n);
        wire.run(ms(300));
    }
    // Silent newcomers are removed now.
    speaks(&mut wire, 8, 1);
    seen(&mut wire, source(9), true);
    assert!(troubles(&mut wire, owner).is_empty());
}
