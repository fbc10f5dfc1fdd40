//! Every reason of the condition `Announced`, with its message.

use super::*;

/// A case: its name, its topology, and the expected status, reason and parts of the message of the
/// condition.
type ReasonCase = (&'static str, Topology, ConditionStatus, &'static str, &'static [&'static str]);

/// Returns a topology with policy Local and endpoints on these nodes.
fn local(nodes: &[&str]) -> Topology {
    Topology {
        services: vec![Service { policy: TrafficPolicy::Local, ..service("a") }],
        slices: vec![endpoint_slice("a", nodes)],
        ..Topology::default()
    }
}

/// Returns the default topology, with this change in the interface of each speaker.
fn with_interfaces(change: fn(&mut SpeakerInterface)) -> Topology {
    let mut topology = Topology::default();
    topology.speakers.iter_mut().for_each(|speaker| change(&mut speaker.interfaces[0]));
    topology
}

/// Returns a topology in which n2 announces these addresses and reports an issue.
fn with_issue(addresses: &[&str], reason: InterfaceIssueReason, node: Option<&str>) -> Topology {
    let mut topology = Topology::default();
    topology.speakers[1] = speaker("n2", addresses);
    topology.speakers[1].interfaces[0].issues = [interface_issue(reason, node)].into();
    topology
}

/// Returns a topology in which n2 owns the address. n1 has heard no other node, and reports the
/// hardware address of n2 as that of a foreign host.
fn with_unknown_owner() -> Topology {
    let mut topology = with_issue(&[ADDRESS], InterfaceIssueReason::AddressConflict, None);
    let [owner, other] = [1, 0];
    let issues = std::mem::take(&mut topology.speakers[owner].interfaces[0].issues);
    topology.speakers[owner].interfaces[0].mac = issues[0].mac.as_str().into();
    topology.speakers[other].interfaces[0].issues = issues;
    topology
}

/// Returns a topology in which n2 owns the address, and the speaker at this position does not hear
/// `node`.
fn with_unheard(position: usize, node: &str) -> Topology {
    let mut topology = Topology::default();
    topology.speakers[1] = speaker("n2", &[ADDRESS]);
    topology.speakers[position].interfaces[0].unheard = [node.into()].into();
    topology
}

/// Returns a topology whose only endpoint terminates, and whose Service has this endpoint
/// condition.
fn terminating(endpoint_condition: EndpointCondition) -> Topology {
    let mut slice = endpoint_slice("a", &["n1"]);
    slice
        .endpoints
        .iter_mut()
        .for_each(|endpoint| (endpoint.ready, endpoint.terminating) = (false, true));
    Topology {
        services: vec![Service { endpoint_condition, ..service("a") }],
        slices: vec![slice],
        ..Topology::default()
    }
}

fn owners() -> Vec<ReasonCase> {
    let alone_on_segment = |node| {
        let mut speaker = speaker(node, &[ADDRESS]);
        speaker.interfaces[0].hello_senders = Box::default();
        speaker
    };
    let seven_nodes = ["n1", "n2", "n3", "n4", "n5", "n6", "n7"];
    vec![
        (
            "owner",
            Topology {
                speakers: vec![speaker("n1", &[]), speaker("n2", &[ADDRESS]), speaker("n3", &[])],
                ..Topology::default()
            },
            ConditionStatus::True,
            "Announced",
            &["10.0.0.1 from n2 (eth0)"],
        ),
        (
            "seven owners, each alone on its segment",
            Topology {
                nodes: seven_nodes.map(ready_node).into(),
                speakers: seven_nodes.map(alone_on_segment).into(),
                ..Topology::default()
            },
            ConditionStatus::True,
            "Announced",
            &["from n1 (eth0) and n2 (eth0) and n3 (eth0) and n4 (eth0) and n5 (eth0) and 2 more"],
        ),
        (
            "no owner yet",
            local(&["n2"]),
            ConditionStatus::False,
            "Pending",
            &["no speaker has claimed the address yet (eligible: n2)"],
        ),
        (
            "one of both families without owner",
            Topology {
                services: vec![dual_stack_service("a")],
                slices: vec![
                    endpoint_slice("a", &["n1"]),
                    with_family(Family::V6, endpoint_slice("a", &["n1"])),
                ],
                speakers: vec![
                    speaker("n1", &["10.0.0.0"]),
                    speaker("n2", &[]),
                    speaker("n3", &[]),
                ],
                ..Topology::default()
            },
            ConditionStatus::False,
            "Pending",
            &["fd00::1 not announced", "; 10.0.0.0 from n1 (eth0)"],
        ),
    ]
}

fn endpoints() -> Vec<ReasonCase> {
    vec![
        (
            "no endpoint",
            Topology { slices: vec![endpoint_slice("a", &[])], ..Topology::default() },
            ConditionStatus::False,
            "NoEndpoints",
            &["10.0.0.1 not announced: no endpoint"],
        ),
        (
            "no EndpointSlice",
            Topology { slices: vec![], ..Topology::default() },
            ConditionStatus::False,
            "NoEndpoints",
            &["its pods"],
        ),
        (
            "IPv6",
            Topology {
                services: vec![Service { families: vec![Family::V6], ..service("a") }],
                slices: vec![with_family(Family::V6, endpoint_slice("a", &["n1", "n2", "n3"]))],
                ..Topology::default()
            },
            ConditionStatus::False,
            "Pending",
            &["fd00::1 not announced", "(eligible: n1, n2, n3)"],
        ),
        (
            "an IPv6 Service with IPv4 endpoints",
            Topology {
                services: vec![Service { families: vec![Family::V6], ..service("a") }],
                ..Topology::default()
            },
            ConditionStatus::False,
            "NoEndpoints",
            &["no IPv6 endpoint of the Service is ready, or serving while terminating:"],
        ),
        (
            "annotation requires ready endpoints",
            terminating(EndpointCondition::Ready),
            ConditionStatus::False,
            "NoEndpoints",
            &["no endpoint of the Service is ready, as annotation ferrolb.io/endpoint-condition \
                 requires:"],
        ),
        (
            "annotation requires serving endpoints",
            Topology { slices: vec![], ..terminating(EndpointCondition::Serving) },
            ConditionStatus::False,
            "NoEndpoints",
            &["no endpoint of the Service is serving, as annotation \
                 ferrolb.io/endpoint-condition requires:"],
        ),
    ]
}

fn advertisements() -> Vec<ReasonCase> {
    vec![
        (
            "no advertisement",
            Topology { advertisements: vec![], ..Topology::default() },
            ConditionStatus::False,
            "NoAdvertisement",
            &["selects IPAddressPool lan and this Service: create one"],
        ),
        (
            "advertisement of another pool",
            Topology {
                advertisements: vec![json!({"ipAddressPools": ["wan"]})],
                ..Topology::default()
            },
            ConditionStatus::False,
            "NoAdvertisement",
            &["IPAddressPool lan"],
        ),
        (
            "advertisement of another Service",
            Topology {
                advertisements: vec![json!({"serviceSelectors": [{"matchLabels": {"a": "b"}}]})],
                ..Topology::default()
            },
            ConditionStatus::False,
            "NoAdvertisement",
            &["IPAddressPool lan"],
        ),
    ]
}

/// Returns cases without a candidate node.
fn candidates() -> Vec<ReasonCase> {
    let mut three_causes = local(&["n1"]);
    three_causes.nodes[0].excluded = true;
    three_causes.advertisements = vec![node_selector("n1"), node_selector("n3")];
    let mut unreachable = Topology::default();
    unreachable.nodes.iter_mut().for_each(|node| node.unreachable = true);
    let other_interface =
        Topology { advertisements: vec![json!({"interfaces": ["eth7"]})], ..Topology::default() };
    let mut nodeless = local(&["n1"]);
    nodeless.slices[0].endpoints[0].node = None;
    vec![
        (
            "three causes",
            three_causes,
            ConditionStatus::False,
            "NoCandidateNode",
            &["of 3 nodes, 1 labeled exclude-from-external-load-balancers, 1 not selected by an \
               advertisement, 1 without eligible endpoint (externalTrafficPolicy Local). Endpoints \
               are on n1: `kubectl label node n1"],
        ),
        (
            "all nodes unreachable",
            unreachable,
            ConditionStatus::False,
            "NoCandidateNode",
            &["of 3 nodes, 3 out of service or without network: see `kubectl describe nodes`"],
        ),
        (
            "no selected interface",
            other_interface,
            ConditionStatus::False,
            "NoCandidateNode",
            &["3 without an active interface that an L2Advertisement selects (n1 has eth0): \
                 change spec.interfaces"],
        ),
        (
            "standby interfaces",
            with_interfaces(|interface| interface.standby = true),
            ConditionStatus::False,
            "NoCandidateNode",
            &["3 without an active interface"],
        ),
        (
            "endpoints on no node",
            nodeless,
            ConditionStatus::False,
            "NoCandidateNode",
            &["of 3 nodes, 3 without eligible endpoint (externalTrafficPolicy Local). The \
                 eligible endpoints have no nodeName, so"],
        ),
    ]
}

/// Returns cases of a Service whose IPv6 endpoint runs on another node than its IPv4 endpoint.
fn separate_families() -> Vec<ReasonCase> {
    let topology = || {
        let mut topology = local(&["n1"]);
        topology.services[0].families = vec![Family::V4, Family::V6];
        topology.slices.push(with_family(Family::V6, endpoint_slice("a", &["n2"])));
        topology.speakers =
            vec![speaker("n1", &["10.0.0.0"]), speaker("n2", &["fd00::1"]), speaker("n3", &[])];
        topology
    };
    let mut without_speaker = topology();
    without_speaker.speakers.remove(1);
    vec![
        (
            "families on different nodes",
            topology(),
            ConditionStatus::True,
            "Announced",
            &["10.0.0.0 from n1 (eth0); fd00::1 from n2 (eth0)"],
        ),
        (
            "families on different nodes, one of them without speaker",
            without_speaker,
            ConditionStatus::False,
            "NoSpeaker",
            &[
                "fd00::1 not announced: no speaker runs on an eligible node (n2)",
                "; 10.0.0.0 from n1 (eth0)",
            ],
        ),
    ]
}

fn speakers() -> Vec<ReasonCase> {
    vec![
        (
            "isolated speakers",
            with_interfaces(|interface| interface.isolated = true),
            ConditionStatus::False,
            "SpeakersIsolated",
            &["(n1, n2, n3) receive nothing", "Check cables"],
        ),
        (
            "no speaker",
            Topology { speakers: vec![], ..Topology::default() },
            ConditionStatus::False,
            "NoSpeaker",
            &["n1, n2, n3"],
        ),
    ]
}

/// Returns cases with an issue that a speaker reports.
fn issues() -> Vec<ReasonCase> {
    vec![
        (
            "a foreign host",
            with_issue(&[ADDRESS], InterfaceIssueReason::AddressConflict, None),
            ConditionStatus::False,
            "AddressConflict",
            &["IP conflict: 02:00:00:00:00:99 replies for 10.0.0.1 (seen by n2), announced from \
                 n2 (eth0)"],
        ),
        (
            "the kernel of a node",
            with_issue(&[], InterfaceIssueReason::KernelAnswers, Some("n3")),
            ConditionStatus::False,
            "KernelAnswers",
            &[
                "node n3 (02:00:00:00:00:99) replies for 10.0.0.1, and no node announces it",
                "strictARP",
            ],
        ),
        (
            "a stale neighbor proxy",
            with_issue(&[ADDRESS], InterfaceIssueReason::StaleNeighborProxy, None),
            ConditionStatus::True,
            "Announced",
            &["from n2 (eth0); 02:00:00:00:00:99 still replies"],
        ),
        (
            "a failed multicast join",
            with_issue(&[ADDRESS], InterfaceIssueReason::MulticastJoinFailed, None),
            ConditionStatus::True,
            "Announced",
            &["from n2 (eth0); n2 could not join multicast group 02:00:00:00:00:99"],
        ),
    ]
}

/// Returns cases in which hellos between the owner and another node do not arrive.
fn filtered_hellos() -> Vec<ReasonCase> {
    vec![
        (
            "an owner whose hellos do not arrive, without a second path",
            with_issue(&[ADDRESS], InterfaceIssueReason::HellosFiltered, Some("n3")),
            ConditionStatus::True,
            "Announced",
            &[
                "EtherType 0x88B5 from n3 do not arrive at n2 (eth0, HellosFiltered)",
                "the UDP port of --challenge-port",
            ],
        ),
        (
            "an owner that another node has never heard",
            with_unknown_owner(),
            ConditionStatus::True,
            "Announced",
            &["from n2 (eth0); frames of EtherType 0x88B5 from n2 do not arrive at n1 (eth0, \
                 HellosFiltered)"],
        ),
        (
            "an owner whose hellos do not arrive",
            with_unheard(0, "n2"),
            ConditionStatus::True,
            "Announced",
            &["from n2 (eth0); frames of EtherType 0x88B5 from n2 do not arrive at n1 (eth0, \
                 HellosFiltered)"],
        ),
        (
            "an owner at which hellos do not arrive",
            with_unheard(1, "n3"),
            ConditionStatus::True,
            "Announced",
            &["from n2 (eth0); frames of EtherType 0x88B5 from n3 do not arrive at n2 (eth0, \
                 HellosFiltered)"],
        ),
    ]
}

/// Returns cases in which FerroLB must not announce the address, or cannot observe its owner.
fn modes() -> Vec<ReasonCase> {
    let mut proxy = Topology::default();
    proxy.services[0].demand.request.ip_mode = Some(IpMode::Proxy);
    vec![
        (
            "ipMode Proxy",
            proxy,
            ConditionStatus::False,
            "NotAnnouncedIPModeProxy",
            &["Proxy,announce"],
        ),
        (
            "another API group",
            Topology { group: "metallb.io", ..Topology::default() },
            ConditionStatus::Unknown,
            "Unobservable",
            &["(eligible nodes: n1, n2, n3)"],
        ),
        (
            "another API group, no endpoint",
            Topology { group: "metallb.io", slices: vec![], ..Topology::default() },
            ConditionStatus::False,
            "NoEndpoints",
            &["pods"],
        ),
    ]
}

#[test]
fn every_reason_has_its_message() {
    let cases = [
        owners(),
        endpoints(),
        advertisements(),
        candidates(),
        separate_families(),
        speakers(),
        issues(),
        filtered_hellos(),
        modes(),
    ];
    for (case, mut topology, status, reason, words) in cases.into_iter().flatten() {
        // IPv4 cases expect `ADDRESS`. The pool assigns 10.0.0.0 first, so request `ADDRESS`.
        if topology.services[0].families == [Family::V4] {
            topology.services[0].demand.request.addresses = vec![ADDRESS.parse().unwrap()];
        }
        let cluster = topology.settled_cluster();
        let is = announced_condition(&cluster, "a")
            .unwrap_or_else(|| panic!("{case}: the Service has no condition Announced"));
        assert_eq!((is.status, &*is.reason), (status, reason), "{case}: {}", is.message);
        words
            .iter()
            .for_each(|word| assert!(is.message.contains(word), "{case}: {:?}", is.message));
    }
}
