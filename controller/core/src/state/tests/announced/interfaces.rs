//! Reports of conditions about the subnets of interfaces, and about IPv6 on them.

use super::*;

/// Returns the default topology in which n1 owns the address, and every interface has these
/// subnets.
fn with_subnets(subnets: &[&str]) -> Cluster {
    let mut speakers = [speaker("n1", &["10.0.0.0"]), speaker("n2", &[]), speaker("n3", &[])];
    for speaker in &mut speakers {
        let subnets = subnets.iter().map(|text| text.parse().unwrap());
        speaker.interfaces[0].subnets = subnets.collect();
    }
    Topology { speakers: speakers.into(), ..Topology::default() }.settled_cluster()
}

fn pool_reason(cluster: &Cluster) -> &str {
    &cluster.pools["lan"].status.conditions[0].reason
}

#[test]
fn an_address_outside_the_subnets_is_reported_unless_the_pool_is_routed() {
    let mut cluster = with_subnets(&["172.16.0.0/16"]);
    let (reason, message) = reason_and_message(&cluster, "a");
    let warning = "no interface that announces 10.0.0.0 has a subnet with it (172.16.0.0-";
    assert!(reason == "Announced" && message.contains(warning), "{reason}: {message}");
    assert_eq!(pool_reason(&cluster), "OutsideSubnets");
    let routed = Pool { routed: true, ..pool("lan", &["10.0.0.0/24", "fd00::/64"]) };
    cluster.apply_pool(routed);
    cluster.settle();
    assert_eq!(reason_and_message(&cluster, "a").1, "10.0.0.0 from n1 (eth0)");
    assert_eq!(pool_reason(&cluster), "Valid");

    for subnets in [&["10.0.0.0/16"][..], &[]] {
        let cluster = with_subnets(subnets);
        assert_eq!(reason_and_message(&cluster, "a").1, "10.0.0.0 from n1 (eth0)");
        assert_eq!(pool_reason(&cluster), "Valid");
    }
}

#[test]
fn an_interface_without_a_subnet_of_the_family_is_reported_if_the_subnets_are_known() {
    let hosts: [&[&str]; 3] = [&["fd00::5"], &["192.168.7.5", "fd00::5"], &[]];
    for (host_addresses, reported) in hosts.into_iter().zip([true, false, false]) {
        let mut cluster = with_subnets(&[]);
        for (node, addresses) in [("n1", &["10.0.0.0"][..]), ("n2", &[]), ("n3", &[])] {
            let hosts = host_addresses.iter().map(|text| text.parse().unwrap()).collect();
            let reporting = Speaker { host_addresses: hosts, ..speaker(node, addresses) };
            report_speaker(&mut cluster, reporting);
        }
        cluster.settle();
        let (_, message) = reason_and_message(&cluster, "a");
        let warning = "no interface that announces 10.0.0.0 has a subnet of this family";
        assert_eq!(message.contains(warning), reported, "{host_addresses:?}: {message}");
        assert_eq!(pool_reason(&cluster) == "OutsideSubnets", reported, "{host_addresses:?}");
    }
    // eth1 has no address, and eth0 shows that the subnets of the node are known.
    let mut cluster = with_subnets(&[]);
    let mut two = speaker("n1", &["10.0.0.0"]);
    let mut eth0 = SpeakerInterface { name: "eth0".into(), ..two.interfaces[0].clone() };
    two.interfaces[0].name = "eth1".into();
    eth0.addresses = [].into();
    eth0.subnets = ["192.168.7.0/24".parse().unwrap()].into();
    two.interfaces = [eth0, two.interfaces[0].clone()].into();
    two.host_addresses = ["192.168.7.5".parse().unwrap()].into();
    report_speaker(&mut cluster, two);
    cluster.settle();
    let (_, message) = reason_and_message(&cluster, "a");
    assert!(message.contains("so the nodes have no route back"), "{message}");
}

#[test]
fn a_node_without_ipv6_is_no_candidate_for_an_ipv6_address() {
    let mut topology = Topology {
        services: vec![Service { families: vec![Family::V6], ..service("a") }],
        slices: vec![with_family(Family::V6, endpoint_slice("a", &["n1"]))],
        ..Topology::default()
    };
    topology.speakers.iter_mut().for_each(|it| it.interfaces[0].ipv6_disabled = true);
    let mut cluster = topology.settled_cluster();
    let (reason, message) = reason_and_message(&cluster, "a");
    assert_eq!(reason, "NoCandidateNode");
    assert!(
        message.contains("3 without an IPv6 address on the interface: set the sysctl"),
        "{message}"
    );
    report_speaker(&mut cluster, speaker("n2", &[]));
    cluster.settle();
    assert_eq!(reason_and_message(&cluster, "a").0, "Pending");
}
