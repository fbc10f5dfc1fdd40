//! Address conflicts: foreign hosts, kernels of peers, and devices that reply for failed peers.

use super::*;
use crate::claim::NodeState;

const FOREIGN_HOST: Mac = Mac([2, 9, 9, 9, 9, 9]);

/// Delivers an ARP frame to every node that is up. In the frame, [`VIP`] has the hardware address
/// `mac`.
fn receive_arp(segment: &mut Segment, mac: Mac, announced: bool) {
    for name in NODES {
        if segment.node(name).up {
            segment.input(name, Input::ForeignFrame { address: VIP, mac, announced });
        }
    }
}

fn conflicts_of(segment: &mut Segment, name: &str) -> Vec<AddressConflict> {
    segment.node(name).machine.conflicts().collect()
}

fn conflict_with(kind: ConflictKind, mac: Mac) -> Vec<AddressConflict> {
    vec![AddressConflict { address: VIP, mac, kind }]
}

#[test]
fn only_a_new_address_is_probed_three_times() {
    let mut segment = settled_segment();
    let order = ranked(&NODES, VIP);
    assert_eq!(segment.node(order[0]).probed, [VIP; 3]);
    segment.node(order[0]).up = false;
    segment.run(Duration::from_secs(5));
    assert_eq!(segment.owners(VIP), [order[1]]);
    assert!(segment.node(order[1]).probed.is_empty(), "a failover sends no ARP probe");
}

#[test]
fn a_new_address_is_left_to_a_foreign_host_and_claimed_later() {
    let mut segment = Segment::new(&NODES);
    segment.run(Duration::from_secs(40));
    segment.units(&[unit(VIP, &NODES)]);
    let order = ranked(&NODES, VIP);
    // The foreign host replies to every probe.
    let mut probes = 0;
    for _ in 0..300 {
        for name in NODES {
            if !std::mem::take(&mut segment.node(name).probed).is_empty() {
                probes += 1;
                segment.input(
                    name,
                    Input::ForeignFrame { address: VIP, mac: FOREIGN_HOST, announced: false },
                );
            }
        }
        segment.run(ms(100));
    }
    assert_eq!(probes, 3, "one node probes the new address, once every ten seconds");
    assert_eq!(
        conflicts_of(&mut segment, order[0]),
        conflict_with(ConflictKind::ForeignHost, FOREIGN_HOST)
    );
    let started: usize = NODES.iter().map(|name| segment.node(name).starts).sum();
    assert_eq!(started, 0, "no node claims the address");
    segment.run(Duration::from_secs(12));
    assert_eq!(segment.owners(VIP), [order[0]]);
    assert!(conflicts_of(&mut segment, order[0]).is_empty());
}

#[test]
fn the_mac_of_a_renamed_node_belongs_to_the_live_peer() {
    let mut segment = settled_segment();
    let (old_name, mac) = ("node1", segment.node("node1").mac);
    segment.node(old_name).up = false;
    segment.run(Duration::from_secs(2));
    // The host with this MAC now runs a node with another name, which sorts later.
    segment.start("other1");
    segment.node("other1").mac = mac;
    segment.run(Duration::from_secs(2));
    let owner = ["node2", "node3"]
        .into_iter()
        .find(|name| segment.owners(VIP) == [*name])
        .expect("an owner");
    segment.input(owner, Input::ForeignFrame { address: VIP, mac, announced: true });
    assert_eq!(segment.owners(VIP), [owner], "the owner keeps the address");
    assert_eq!(
        conflicts_of(&mut segment, owner),
        conflict_with(ConflictKind::PeerKernel("other1".into()), mac)
    );
    assert!(segment.node(owner).machine.members().peers().mac_of(old_name).is_some());
    segment.run(Duration::from_secs(3_600));
    assert!(
        segment.node(owner).machine.members().peers().mac_of(old_name).is_none(),
        "the failed peer is removed after an hour"
    );
    assert!(segment.node(owner).machine.members().peers().mac_of("other1").is_some());
}

#[test]
fn an_owned_address_is_defended_every_ten_seconds_and_kept() {
    let mut segment = settled_segment();
    let owner = ranked(&NODES, VIP)[0];
    for _ in 0..250 {
        receive_arp(&mut segment, FOREIGN_HOST, true);
        segment.run(ms(100));
    }
    assert_eq!(segment.node(owner).defenses, 3, "the owner defends the address every ten seconds");
    assert_eq!(segment.owners(VIP), [owner]);
    assert_eq!(
        conflicts_of(&mut segment, owner),
        conflict_with(ConflictKind::ForeignHost, FOREIGN_HOST)
    );
    assert_eq!(segment.node(owner).machine.counts().foreign_hosts, 250);
    segment.run(Duration::from_secs(301));
    assert!(conflicts_of(&mut segment, owner).is_empty(), "the conflict expires");
}

#[test]
fn the_reported_mac_of_a_conflict_changes_once_per_second() {
    let mut segment = settled_segment();
    let owner = ranked(&NODES, VIP)[0];
    let mut reported = Vec::new();
    for n in 0..100 {
        receive_arp(&mut segment, Mac([2, 9, 9, 9, 9, n]), true);
        segment.run(ms(30));
        reported.extend(conflicts_of(&mut segment, owner));
        reported.dedup();
    }
    assert_eq!(reported.len(), 3, "the reported MAC changes once per second: {reported:?}");
    assert_eq!(segment.node(owner).machine.counts().foreign_hosts, 100);
}

#[test]
fn a_kernel_reply_of_a_peer_is_reported_and_moves_nothing() {
    let mut segment = settled_segment();
    let order = ranked(&NODES, VIP);
    let mac = segment.node(order[1]).mac;
    receive_arp(&mut segment, mac, false);
    segment.run(Duration::from_secs(1));
    assert_eq!(
        conflicts_of(&mut segment, order[0]),
        conflict_with(ConflictKind::PeerKernel(order[1].into()), mac)
    );
    assert_eq!((segment.owners(VIP), segment.longest_gap(VIP)), (vec![order[0]], Duration::ZERO));
    assert!(conflicts_of(&mut segment, order[2]).is_empty(), "only the owner reports the conflict");
    // The peer is back after a partition, and its claims are not known yet.
    let mut segment = settled_segment();
    let epoch = segment.node(order[1]).machine.members().epoch();
    let mut peer = TestPeer { clock: u64::MAX / 2, mac, ..TestPeer::new("peer", epoch) };
    peer.owned.insert(IpAddr::from([10, 0, 0, 1]), ClaimRank::default());
    let Input::Frame { source, mut frame } = peer.send(hello()) else { unreachable!("a frame") };
    frame.node = order[1].into();
    segment.input(order[0], Input::Frame { source, frame });
    receive_arp(&mut segment, mac, true);
    assert!(conflicts_of(&mut segment, order[0]).is_empty());
    assert_eq!(segment.node(order[0]).defenses, 0);
}

#[test]
fn recent_frames_of_a_former_owner_are_no_conflict() {
    let mut segment = settled_segment();
    let order = ranked(&NODES, VIP);
    let mac = segment.node(order[0]).mac;
    segment.input(order[0], Input::NodeState(NodeState { draining: true, ..NodeState::default() }));
    segment.run(ms(500));
    assert_eq!(segment.owners(VIP), [order[1]]);
    receive_arp(&mut segment, mac, true);
    assert!(conflicts_of(&mut segment, order[1]).is_empty());
    segment.run(ms(600));
    receive_arp(&mut segment, mac, true);
    assert_eq!(
        conflicts_of(&mut segment, order[1]),
        conflict_with(ConflictKind::PeerKernel(order[0].into()), mac)
    );
}

#[test]
fn a_proxied_failure_is_reported() {
    let mut segment = settled_segment();
    let order = ranked(&NODES, VIP);
    let mac = segment.node(order[0]).mac;
    segment.proxy = true;
    segment.node(order[0]).up = false;
    segment.run(Duration::from_secs(2));
    assert_eq!(segment.owners(VIP), [order[1]]);
    assert_eq!(
        conflicts_of(&mut segment, order[1]),
        conflict_with(ConflictKind::ProxyOfFailedPeer(order[0].into()), mac)
    );
    receive_arp(&mut segment, mac, false);
    assert_eq!(segment.owners(VIP), [order[1]], "a mere reply comes from the proxy");
}

#[test]
fn arp_probes_of_3000_new_addresses_are_rate_limited() {
    let mut segment = Segment::new(&NODES[..1]);
    segment.run(Duration::from_secs(40));
    let units: Vec<_> = (0..3_000u16)
        .map(|n| unit(IpAddr::from([10, 0, (n >> 8) as u8, n as u8]), &NODES[..1]))
        .collect();
    segment.units(&units);
    segment.run(Duration::from_secs(1));
    let probes = segment.node(NODES[0]).probed.len();
    // 2,000 first probes, and further ones for the units of the first 850 and 700 ms.
    assert!((5_000..=5_200).contains(&probes), "{probes} probes in the first second");
    assert!((1_099..=1_101).contains(&segment.node(NODES[0]).machine.owned().len()));
    segment.run(Duration::from_secs(1));
    assert_eq!(segment.node(NODES[0]).probed.len(), 9_000);
    assert_eq!(segment.node(NODES[0]).machine.owned().len(), 3_000);
}

#[test]
fn the_final_announcement_of_an_address_is_its_owners() {
    let mut segment = settled_segment();
    let owner = ranked(&NODES, VIP)[0];
    receive_arp(&mut segment, FOREIGN_HOST, true);
    segment.run(Duration::from_secs(2));
    receive_arp(&mut segment, FOREIGN_HOST, true);
    segment.run(Duration::from_secs(7));
    assert_eq!(segment.node(owner).defenses, 1, "the second defense is postponed");
    segment.run(Duration::from_secs(2));
    assert_eq!(segment.node(owner).defenses, 2);
    segment.run(Duration::from_secs(60));
    assert_eq!(segment.node(owner).defenses, 2, "the owner defends nothing without a new frame");
}

#[test]
fn a_better_node_may_claim_an_address_during_its_probes() {
    let mut segment = Segment::new(&NODES);
    let order = ranked(&NODES, VIP);
    segment.node(order[0]).partitioned = true;
    segment.run(Duration::from_secs(40));
    for name in &order[1..] {
        segment.set_units(name, vec![unit(VIP, &NODES)]);
    }
    segment.run(ms(10));
    segment
        .input(order[1], Input::ForeignFrame { address: VIP, mac: FOREIGN_HOST, announced: false });
    segment.node(order[1]).probed.clear();
    // Ten seconds later the node probes the address; meanwhile a better node starts.
    while segment.node(order[1]).probed.is_empty() {
        segment.run(ms(10));
    }
    segment.node(order[0]).partitioned = false;
    segment.run(Duration::from_secs(1));
    segment.set_units(order[0], vec![unit(VIP, &NODES)]);
    // `Segment::run` panics if a machine returns a deadline that has passed.
    segment.run(Duration::from_secs(60));
    assert_eq!(segment.owners(VIP).len(), 1);
}

#[test]
fn a_newcomer_under_challenge_is_no_foreign_host() {
    let mut segment = settled_segment();
    let owner = ranked(&NODES, VIP)[0];
    let newcomer = faults::frame_from("node9", 9, 1, hello());
    let Input::Frame { source, .. } = newcomer else { unreachable!("a frame") };
    segment.input(owner, newcomer);
    receive_arp(&mut segment, source, true);
    assert!(conflicts_of(&mut segment, owner).is_empty());
    // The newcomer does not reply to its challenge, and is removed when the next one arrives.
    segment.run(ms(1_100));
    let Input::Frame { frame, .. } = faults::frame_from("node8", 8, 1, hello()) else {
        unreachable!("a frame")
    };
    segment.input(owner, Input::Frame { source: Mac([2, 9, 9, 9, 9, 8]), frame });
    receive_arp(&mut segment, source, true);
    assert_eq!(conflicts_of(&mut segment, owner), conflict_with(ConflictKind::ForeignHost, source));
}

#[test]
fn a_newcomer_that_keeps_sending_is_no_foreign_host() {
    let mut segment = settled_segment();
    let owner = ranked(&NODES, VIP)[0];
    let source = |node: u8| Mac([2, 9, 9, 9, 9, node]);
    let send = |segment: &mut Segment, node: u8, clock| {
        let Input::Frame { frame, .. } =
            faults::frame_from(&format!("node{node}"), 9, clock, Body::ListRequest)
        else {
            return;
        };
        segment.input(owner, Input::Frame { source: source(node), frame });
    };
    for n in 1..=4 {
        send(&mut segment, 9, n);
        segment.run(ms(300));
    }
    // This frame removes newcomers that have sent nothing for a second.
    send(&mut segment, 8, 1);
    receive_arp(&mut segment, source(9), true);
    let kind = ConflictKind::UnheardPeer("node9".into());
    assert_eq!(conflicts_of(&mut segment, owner), conflict_with(kind, source(9)));
}

#[test]
fn the_successor_of_a_prober_probes_itself() {
    let mut segment = Segment::new(&NODES);
    segment.run(Duration::from_secs(40));
    segment.units(&[unit(VIP, &NODES)]);
    let order = ranked(&NODES, VIP);
    segment.run(ms(400));
    segment.node(order[0]).up = false;
    segment.run(ms(500));
    assert!(segment.owners(VIP).is_empty(), "the successor still probes");
    segment.run(ms(100));
    assert_eq!(segment.owners(VIP), [order[1]]);
    assert_eq!(segment.node(order[1]).probed, [VIP; 3]);
}

#[test]
fn a_view_that_is_late_does_not_skip_the_probes() {
    for lag in [1, 5, 60, 100, 2_000] {
        let mut segment = Segment::new(&NODES);
        segment.run(Duration::from_secs(40));
        let order = ranked(&NODES, VIP);
        // The best candidate receives the unit last, after the others have begun to probe.
        for name in order.iter().rev() {
            segment.set_units(name, vec![unit(VIP, &NODES)]);
            segment.run(ms(lag));
        }
        segment.run(ms(2_500));
        let [owner] = segment.owners(VIP)[..] else { panic!("one owner with {lag} ms") };
        let owner = owner.to_owned();
        // Only the first claim needs probes, and all later owners take the address by order.
        let first = order.iter().filter(|name| segment.node(name).probed == [VIP; 3]).count();
        assert_eq!(first, 1, "{lag} ms");
        segment.input(
            &owner,
            Input::ForeignFrame { address: VIP, mac: FOREIGN_HOST, announced: false },
        );
        assert_eq!(segment.owners(VIP), [owner], "{lag} ms: an owned address is defended");
    }
}
