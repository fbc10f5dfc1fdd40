//! Isolated nodes, stopped clocks, and devices that reply for failed peers.

use super::*;

#[test]
fn an_isolated_owner_is_replaced_and_takes_nothing_back() {
    let mut segment = settled_segment();
    let order = ranked(&NODES, VIP);
    segment.node(order[0]).receives_nothing = true;
    segment.run(ms(200));
    assert!(segment.owners(VIP).is_empty(), "the peers do not know of the isolation yet");
    segment.run(ms(1_800));
    assert_eq!(segment.owners(VIP), [order[1]]);
    assert!(segment.longest_gap(VIP) <= ms(470), "no owner for {:?}", segment.longest_gap(VIP));
    assert_eq!(segment.node(order[0]).machine.counts().isolations, 1);
    assert_eq!(
        segment.node(order[0]).machine.members().peers().live().next(),
        None,
        "an isolated node declares all peers failed"
    );
    // A node that owns nothing becomes isolated. It claims the address as if it were alone, and the
    // owner announces the address again.
    segment.node(order[2]).receives_nothing = true;
    segment.run(Duration::from_secs(30));
    assert_eq!(
        (segment.owners(VIP), segment.longest_overlap(VIP)),
        (vec![order[1]], Duration::ZERO)
    );
    assert!(
        segment.node(order[1]).announce_series >= 2,
        "the owner announces after each claim of an isolated node"
    );
    for name in [order[0], order[2]] {
        segment.node(name).receives_nothing = false;
        segment.run(Duration::from_secs(2));
        assert!(
            !segment.node(name).machine.members().own().flags().isolated,
            "the first frame ends the isolation"
        );
        assert_eq!(segment.owners(VIP), [order[1]]);
        assert!(
            segment.longest_overlap(VIP) <= ms(60),
            "two owners for {:?}",
            segment.longest_overlap(VIP)
        );
    }
}

#[test]
fn isolation_is_detected_even_if_all_peers_have_failed() {
    let mut segment = settled_segment();
    let order = ranked(&NODES, VIP);
    order[1..].iter().for_each(|name| segment.node(name).up = false);
    segment.run(Duration::from_secs(20));
    assert!(
        !segment.node(order[0]).machine.members().own().is_isolated(),
        "probed hosts have replied"
    );
    segment.node(order[0]).receives_nothing = true;
    segment.run(ms(1_300));
    assert!(
        segment.node(order[0]).machine.members().own().is_isolated(),
        "the isolated flag informs returning peers"
    );
    assert!(segment.node(order[0]).announced.contains(&VIP));
}

/// Returns twelve addresses, and one unit for each.
fn twelve_units(nodes: &[&str]) -> (Vec<IpAddr>, Vec<Arc<Unit>>) {
    let addresses: Vec<IpAddr> = (0..12).map(|n| [172, 30, 1, n].into()).collect();
    let units = addresses.iter().map(|address| unit(*address, nodes)).collect();
    (addresses, units)
}

/// Creates a segment with two nodes and no other host. Each node owns some of twelve addresses.
fn two_nodes_alone() -> (Segment, Vec<IpAddr>) {
    let (two, mut segment) = (&NODES[..2], Segment::new(&NODES[..2]));
    let (addresses, units) = twelve_units(two);
    segment.hosts_reply = false;
    segment.units(&units);
    segment.run(Duration::from_secs(40));
    let shares: BTreeSet<_> =
        addresses.iter().map(|address| segment.owners(*address).join(" ")).collect();
    assert_eq!(shares.len(), 2, "each node owns an address: {shares:?}");
    addresses.iter().for_each(|address| segment.watch_owners(*address));
    (segment, addresses)
}

/// Checks that a node owns all these addresses, and that none was unowned for more than 1.1 s.
fn assert_owns_all(segment: &Segment, addresses: &[IpAddr], name: &str) {
    for address in addresses {
        assert_eq!(segment.owners(*address), [name], "owner of {address}");
        assert!(
            segment.longest_gap(*address) <= ms(1_100),
            "no owner of {address} for {:?}",
            segment.longest_gap(*address)
        );
    }
}

#[test]
fn the_last_node_on_a_silent_segment_owns_all_within_a_second() {
    let (mut segment, addresses) = two_nodes_alone();
    segment.node("node2").up = false;
    segment.run(ms(1_300));
    assert_owns_all(&segment, &addresses, "node1");
    segment.run(Duration::from_secs(60));
    assert_owns_all(&segment, &addresses, "node1");
    assert_eq!(segment.node("node1").machine.counts().isolations, 1);
}

#[test]
fn a_restarted_last_node_owns_all_within_a_second() {
    let (mut segment, addresses) = two_nodes_alone();
    let (_, units) = twelve_units(&NODES[..2]);
    segment.start("node1");
    segment.set_units("node1", units);
    segment.run(Duration::from_secs(9));
    addresses.iter().for_each(|address| segment.watch_owners(*address));
    segment.node("node2").up = false;
    segment.run(ms(1_300));
    assert_owns_all(&segment, &addresses, "node1");
}

#[test]
fn peers_and_announced_addresses_are_no_witnesses() {
    let mut segment = settled_segment();
    let member = segment.node("node2").mac;
    let (host, host_address): (_, IpAddr) = (Mac([2, 9, 9, 9, 9, 9]), [172, 30, 0, 11].into());
    for alive in [true, false] {
        segment.node("node2").up = alive;
        segment.run(Duration::from_secs(5));
        let machine = &segment.node("node1").machine;
        assert!(machine.is_witness(host, host_address));
        assert!(
            !machine.is_witness(member, host_address) && !machine.is_witness(host, VIP),
            "a peer or an announced address is no witness, peer alive: {alive}"
        );
    }
}

#[test]
fn two_nodes_agree_again_after_a_partition() {
    let (mut segment, addresses) = two_nodes_alone();
    segment.node("node2").partitioned = true;
    segment.run(Duration::from_secs(10));
    assert!(
        addresses.iter().all(|address| segment.owners(*address).len() == 2),
        "each node owns every address on its side"
    );
    addresses.iter().for_each(|address| segment.watch_owners(*address));
    segment.node("node2").partitioned = false;
    segment.run(Duration::from_secs(5));
    for address in addresses {
        assert_eq!(
            (segment.owners(address).len(), segment.longest_gap(address)),
            (1, Duration::ZERO),
            "number of owners and longest gap of {address}"
        );
        assert!(
            segment.longest_overlap(address) <= ms(110),
            "two owners for {:?}",
            segment.longest_overlap(address)
        );
    }
}

#[test]
fn the_owner_counters_each_announcement_of_an_isolated_peer() {
    let mut segment = settled_segment();
    let order = ranked(&NODES, VIP);
    segment.node(order[2]).receives_nothing = true;
    segment.run(Duration::from_secs(5));
    let mac = segment.node(order[2]).mac;
    let defended = segment.node(order[0]).defenses;
    for _ in 0..3 {
        segment.input(order[0], Input::ForeignFrame { address: VIP, mac, announced: true });
    }
    assert_eq!(segment.node(order[0]).defenses, defended + 3);
    assert!(
        segment.node(order[0]).machine.conflicts().next().is_none(),
        "a peer is no foreign host"
    );
    segment.input(order[0], Input::ForeignFrame { address: VIP, mac, announced: false });
    assert_eq!(
        segment.node(order[0]).defenses,
        defended + 3,
        "a mere reply causes no announcement"
    );
}

#[test]
fn an_isolated_node_takes_no_address_from_a_live_peer() {
    let (mut segment, addresses) = two_nodes_alone();
    segment.node("node1").receives_nothing = true;
    segment.run(Duration::from_secs(60));
    assert_owns_all(&segment, &addresses, "node2");
    let refreshed = segment.node("node2").announce_series;
    assert!(
        refreshed >= addresses.len() / 2,
        "the owner announces its addresses again: {refreshed}"
    );
    assert!(!segment.node("node1").announced.is_empty(), "an isolated node continues to announce");
    segment.node("node1").receives_nothing = false;
    segment.run(ms(200));
    assert_owns_all(&segment, &addresses, "node2");
    assert!(segment.node("node1").announced.is_empty());
}

#[test]
fn a_node_that_receives_only_clients_takes_over_at_once() {
    let two = &NODES[..2];
    let mut segment = Segment::new(two);
    segment.units(&[unit(VIP, two)]);
    segment.run(Duration::from_secs(40));
    segment.watch_owners(VIP);
    let order = ranked(two, VIP);
    segment.node(order[0]).up = false;
    segment.run(Duration::from_secs(5));
    assert_eq!(segment.owners(VIP), [order[1]]);
    assert!(segment.longest_gap(VIP) <= ms(200), "no owner for {:?}", segment.longest_gap(VIP));
    assert_eq!(segment.node(order[1]).machine.counts().isolations, 0, "probed hosts have replied");
}

#[test]
fn a_node_that_never_had_peers_is_never_isolated() {
    let mut segment = Segment::new(&NODES[..1]);
    segment.units(&[unit(VIP, &NODES[..1])]);
    segment.node(NODES[0]).receives_nothing = true;
    segment.run(Duration::from_secs(40));
    let node = segment.node(NODES[0]);
    assert!(node.announced.contains(&VIP) && !node.machine.members().own().is_isolated());
}

/// Pauses the owner as a hypervisor does, so that its clock stands still, too. Returns the segment
/// and the owner.
fn segment_with_paused_owner(nodes: &[&'static str], length: Duration) -> (Segment, &'static str) {
    let mut segment = Segment::new(nodes);
    segment.units(&[unit(VIP, nodes)]);
    segment.run(Duration::from_secs(40));
    segment.watch_owners(VIP);
    let owner = ranked(nodes, VIP)[0];
    segment.node(owner).stalled = true;
    segment.run(length);
    segment.node(owner).clock_lag = length;
    segment.node(owner).stalled = false;
    segment.run(Duration::from_secs(5));
    (segment, owner)
}

#[test]
fn a_paused_node_detects_the_pause_by_the_clocks_of_two_peers() {
    for nodes in [&NODES[..], &NODES[..2]] {
        let (mut segment, owner) = segment_with_paused_owner(nodes, Duration::from_secs(2));
        assert_eq!(segment.node(owner).machine.counts().fences, 1);
        assert_eq!(
            segment.owners(VIP),
            [ranked(nodes, VIP)[1]],
            "the paused node is in preempt delay"
        );
        assert!(
            segment.longest_overlap(VIP) <= ms(60),
            "two owners for {:?}",
            segment.longest_overlap(VIP)
        );
    }
    let (mut segment, owner) = segment_with_paused_owner(&NODES, ms(100));
    assert_eq!(
        (segment.node(owner).machine.counts().fences, segment.owners(VIP)),
        (0, vec![owner]),
        "the pause was too short to detect"
    );
}

#[test]
fn one_leaping_clock_or_drifting_clocks_fence_no_node() {
    let mut segment = settled_segment();
    let order = ranked(&NODES, VIP);
    for name in NODES {
        assert_eq!(segment.node(name).machine.counts().fences, 0);
    }
    // The clock of a node that is not the owner leaps ahead. For the owner it is as if its own
    // clock had stood still.
    segment.node(order[2]).advance_clock(Duration::from_secs(100));
    segment.run(Duration::from_secs(10));
    assert_eq!(segment.node(order[0]).machine.counts().fences, 0);
    // All other clocks drift by 0.2 per mille against the owner's clock.
    for _ in 0..300 {
        segment.node(order[1]).advance_clock(Duration::from_micros(200));
        segment.node(order[2]).advance_clock(Duration::from_micros(200));
        segment.run(Duration::from_secs(1));
    }
    assert_eq!((segment.owners(VIP), segment.longest_gap(VIP)), (vec![order[0]], Duration::ZERO));
    assert_eq!(segment.node(order[0]).machine.counts().fences, 0);
}
