//! Every reason of `Announced`, with its message.

use super::*;

/// The name of the case, its cluster, and the status, the reason and parts of the message.
type Case = (&'static str, Cast, ConditionStatus, &'static str, &'static [&'static str]);

/// Returns a cluster with policy Local and endpoints on these nodes.
fn local(nodes: &[&str]) -> Cast {
    Cast {
        services: vec![Service { policy: TrafficPolicy::Local, ..service("a") }],
        slices: vec![slice("a", nodes)],
        ..Cast::default()
    }
}

/// Returns a cluster whose speakers have this change in their interface.
fn with_interfaces(change: fn(&mut SpeakerInterface)) -> Cast {
    let mut cast = Cast::default();
    cast.speakers.iter_mut().for_each(|speaker| change(&mut speaker.interfaces[0]));
    cast
}

/// Returns a cluster in which n2 announces these addresses and reports an issue.
fn with_issue(addresses: &[&str], reason: InterfaceIssueReason, node: Option<&str>) -> Cast {
    let mut cast = Cast::default();
    cast.speakers[1] = speaker("n2", addresses);
    cast.speakers[1].interfaces[0].issues = [trouble(reason, node)].into();
    cast
}

/// Returns a cluster whose only endpoint terminates, and whose Service has this endpoint condition.
fn terminating(endpoint_condition: EndpointCondition) -> Cast {
    let mut slice = slice("a", &["n1"]);
    slice
        .endpoints
        .iter_mut()
        .for_each(|endpoint| (endpoint.ready, endpoint.terminating) = (false, true));
    Cast {
        services: vec![Service { endpoint_condition, ..service("a") }],
        slices: vec![slice],
        ..Cast::default()
    }
}

fn owners() -> Vec<Case> {
    let alone = |node| {
        let mut speaker = speaker(node, &[ADDRESS]);
        speaker.interfaces[0].hello_senders = Box::default();
        speaker
    };
    let seven = ["n1", "n2", "n3", "n4", "n5", "n6", "n7"];
    vec![
        (
            "owner",
            Cast {
                speakers: vec![speaker("n1", &[]), speaker("n2", &[ADDRESS]), speaker("n3", &[])],
                ..Cast::default()
            },
            ConditionStatus::True,
            "Announced",
            &["10.0.0.1 from n2 (eth0)"],
        ),
        (
            "seven owners, each alone on its segment",
            Cast {
                nodes: seven.map(ready).into(),
                speakers: seven.map(alone).into(),
                ..Cast::default()
            },
            ConditionStatus::True,
            "Announced",
            &["from n1 (eth0) and n2 (eth0) and n3 (eth0) and n4 (eth0) and n5 (eth0) and 2 more"],
        ),
        (
            "nobody yet",
            local(&["n2"]),
            ConditionStatus::False,
            "Pending",
            &["no speaker has claimed the address yet (eligible: n2)"],
        ),
        (
            "both families",
            Cast {
                services: vec![dual("a")],
                speakers: vec![
                    speaker("n1", &["10.0.0.0"]),
                    speaker("n2", &[]),
                    speaker("n3", &[]),
                ],
                ..Cast::default()
            },
            ConditionStatus::False,
            "Pending",
            &["fd00::1 not announced", "; 10.0.0.0 from n1 (eth0)"],
        ),
    ]
}

fn endpoints() -> Vec<Case> {
    vec![
        (
            "no pod",
            Cast { slices: vec![slice("a", &[])], ..Cast::default() },
            ConditionStatus::False,
            "NoEndpoints",
            &["10.0.0.1 not announced: no endpoint"],
        ),
        (
            "no slice",
            Cast { slices: vec![], ..Cast::default() },
            ConditionStatus::False,
            "NoEndpoints",
            &["its pods"],
        ),
        (
            "IPv6",
            Cast {
                services: vec![Service { families: vec![Family::V6], ..service("a") }],
                slices: vec![of(Family::V6, slice("a", &["n1", "n2", "n3"]))],
                ..Cast::default()
            },
            ConditionStatus::False,
            "Pending",
            &["fd00::1 not announced", "(eligible: n1, n2, n3)"],
        ),
        (
            "IPv6, and endpoints of IPv4",
            Cast {
                services: vec![Service { families: vec![Family::V6], ..service("a") }],
                ..Cast::default()
            },
            ConditionStatus::False,
            "NoEndpoints",
            &["no IPv6 endpoint of the Service is ready, or serving while terminating:"],
        ),
        (
            "asks for ready ones",
            terminating(EndpointCondition::Ready),
            ConditionStatus::False,
            "NoEndpoints",
            &["no endpoint of the Service is ready, as annotation ferrolb.io/endpoint-condition \
                 requires:"],
        ),
        (
            "asks for serving ones",
            Cast { slices: vec![], ..terminating(EndpointCondition::Serving) },
            ConditionStatus::False,
            "NoEndpoints",
            &["no endpoint of the Service is serving, as annotation \
                 ferrolb.io/endpoint-condition requires:"],
        ),
    ]
}

fn advertisements() -> Vec<Case> {
    vec![
        (
            "no advertisement",
            Cast { ads: vec![], ..Cast::default() },
            ConditionStatus::False,
            "NoAdvertisement",
            &["selects IPAddressPool lan and this Service: create one"],
        ),
        (
            "another pool's",
            Cast { ads: vec![json!({"ipAddressPools": ["wan"]})], ..Cast::default() },
            ConditionStatus::False,
            "NoAdvertisement",
            &["IPAddressPool lan"],
        ),
        (
            "another Service's",
            Cast {
                ads: vec![json!({"serviceSelectors": [{"matchLabels": {"a": "b"}}]})],
                ..Cast::default()
            },
            ConditionStatus::False,
            "NoAdvertisement",
            &["IPAddressPool lan"],
        ),
    ]
}

/// Returns cases without a candidate node.
fn candidates() -> Vec<Case> {
    let mut counted = local(&["n1"]);
    counted.nodes[0].excluded = true;
    counted.ads = vec![select("n1"), select("n3")];
    let mut away = Cast::default();
    away.nodes.iter_mut().for_each(|node| node.unreachable = true);
    let other_link = Cast { ads: vec![json!({"interfaces": ["eth7"]})], ..Cast::default() };
    let mut nodeless = local(&["n1"]);
    nodeless.slices[0].endpoints[0].node = None;
    let mut parted = local(&["n1"]);
    parted.services[0].families = vec![Family::V4, Family::V6];
    parted.slices.push(of(Family::V6, slice("a", &["n2"])));
    vec![
        (
            "counted",
            counted,
            ConditionStatus::False,
            "NoCandidateNode",
            &["of 3 nodes, 1 labeled exclude-from-external-load-balancers, 1 not selected by an \
               advertisement, 1 without eligible endpoint (externalTrafficPolicy Local): `kubectl \
               label node NODE"],
        ),
        (
            "all away",
            away,
            ConditionStatus::False,
            "NoCandidateNode",
            &["of 3 nodes, 3 out of service or without network: see `kubectl describe nodes`"],
        ),
        (
            "no such link",
            other_link,
            ConditionStatus::False,
            "NoCandidateNode",
            &["3 without an active interface that an L2Advertisement selects (n1 has eth0): \
                 change spec.interfaces"],
        ),
        (
            "muted",
            with_interfaces(|link| link.standby = true),
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
        (
            "families on different nodes",
            parted,
            ConditionStatus::False,
            "NoCandidateNode",
            &["of 3 nodes, 3 without eligible endpoints of both families (externalTrafficPolicy \
                 Local)"],
        ),
    ]
}

fn speakers() -> Vec<Case> {
    vec![
        (
            "deaf",
            with_interfaces(|link| link.isolated = true),
            ConditionStatus::False,
            "SpeakersIsolated",
            &["(n1, n2, n3) receive nothing", "Check cables"],
        ),
        (
            "no speaker",
            Cast { speakers: vec![], ..Cast::default() },
            ConditionStatus::False,
            "NoSpeaker",
            &["n1, n2, n3"],
        ),
    ]
}

/// Returns cases with an issue that a speaker reports.
fn issues() -> Vec<Case> {
    vec![
        (
            "a stranger",
            with_issue(&[ADDRESS], InterfaceIssueReason::AddressConflict, None),
            ConditionStatus::False,
            "AddressConflict",
            &["IP conflict: 02:00:00:00:00:99 replies for 10.0.0.1 (seen by n2), announced from \
                 n2 (eth0)"],
        ),
        (
            "a kernel",
            with_issue(&[], InterfaceIssueReason::KernelAnswers, Some("n3")),
            ConditionStatus::False,
            "KernelAnswers",
            &[
                "the kernel of n3 (02:00:00:00:00:99) replies for 10.0.0.1, and no node announces \
                 it",
                "strictARP",
            ],
        ),
        (
            "a proxy",
            with_issue(&[ADDRESS], InterfaceIssueReason::StaleNeighborProxy, None),
            ConditionStatus::True,
            "Announced",
            &["from n2 (eth0), but 02:00:00:00:00:99 still replies"],
        ),
        (
            "a group",
            with_issue(&[ADDRESS], InterfaceIssueReason::MulticastJoinFailed, None),
            ConditionStatus::True,
            "Announced",
            &["from n2 (eth0), but n2 could not join multicast group 02:00:00:00:00:99"],
        ),
    ]
}

/// Returns cases in which FerroLB must not announce, or cannot observe it.
fn modes() -> Vec<Case> {
    let mut proxy = Cast::default();
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
            "another group",
            Cast { group: "metallb.io", ..Cast::default() },
            ConditionStatus::Unknown,
            "Unobservable",
            &["(eligible nodes: n1, n2, n3)"],
        ),
        (
            "another group, no pod",
            Cast { group: "metallb.io", slices: vec![], ..Cast::default() },
            ConditionStatus::False,
            "NoEndpoints",
            &["pods"],
        ),
    ]
}

#[test]
fn every_reason_is_said_with_what_a_person_needs_to_know() {
    let cases =
        [owners(), endpoints(), advertisements(), candidates(), speakers(), issues(), modes()];
    for (what, mut cast, status, reason, words) in cases.into_iter().flatten() {
        // IPv4 cases expect `ADDRESS`. The pool assigns 10.0.0.0 first, so request `ADDRESS`.
        if cast.services[0].families == [Family::V4] {
            cast.services[0].demand.request.addresses = vec![ADDRESS.parse().unwrap()];
        }
        let world = cast.world();
        let is = announced(&world, "a").unwrap_or_else(|| panic!("{what}: nothing is said"));
        assert_eq!((is.status, &*is.reason), (status, reason), "{what}: {}", is.message);
        words
            .iter()
            .for_each(|word| assert!(is.message.contains(word), "{what}: {:?}", is.message));
    }
}
