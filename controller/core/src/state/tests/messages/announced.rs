//! Messages of the condition `ferrolb.io/Announced`.

use ferrolb_core::eligibility::Ineligible;
use ferrolb_proto::api::UncheckedReason;
use ferrolb_proto::facts::{
    EndpointCondition, EndpointConditionProblem, EndpointProblem, HealthCheckProblem, TrafficPolicy,
};

use super::*;
use crate::state::messages::announced::{
    Depreferred, Diagnosis, Finding, Owner, OwnerIssue, Reporter, Senders,
};
use crate::state::messages::cause::{Causes, LocalEndpoints};
use crate::state::messages::warning::{Flaw, FlawedOwner, UncheckedEndpoints, Warning};

const MAC: &str = "02:00:00:00:00:99";

fn owners() -> Vec<Owner<'static>> {
    vec![Owner { node: "n1", interfaces: vec!["eth0", "eth1"] }]
}

fn render<'a>(first: &Finding<'a>, second: Option<Finding<'a>>) -> (String, String) {
    render_with(&default_names(), first, second)
}

fn render_with<'a>(
    names: &Names,
    first: &Finding<'a>,
    second: Option<Finding<'a>>,
) -> (String, String) {
    let diagnosis = Diagnosis { first: first.clone(), second };
    let address = IpAddr::from([192, 0, 2, 7]);
    let texts = [vec![diagnosis.text(&[address], names)], diagnosis.warnings(&[address])].concat();
    (diagnosis.reason().name().to_owned(), texts.join("; "))
}

fn causes(cause: Ineligible) -> Causes<'static> {
    let interfaces = Some(("n1", vec!["eth0", "eth1"]));
    let mut causes = Causes { policy: TrafficPolicy::Local, interfaces, ..Causes::default() };
    causes.count(cause);
    causes
}

fn routed(depreferred: Depreferred<'static>) -> Finding<'static> {
    let from = Senders::Nodes(vec!["n1", "n2"]);
    Finding::Routed { from, to: vec!["tor1", "tor2"], depreferred, overridden: vec![] }
}

#[test]
fn every_finding_has_its_message() {
    let (seen_by, mac) = ("n2", MAC);
    let nodes = || vec!["n1", "n2"];
    table!(Finding<'static>, |finding| render(finding, None);
        Finding::Owned { .. } => [
            (Finding::Owned { owners: owners(), partitioned: false, issue: None }, "Announced", "192.0.2.7 from n1 (eth0, eth1)"),
            (Finding::Owned { owners: owners(), partitioned: false, issue: Some(OwnerIssue::NodeHasAddress { node: "n2", mac }) }, "Announced", "192.0.2.7 from n1 (eth0, eth1); n2 (02:00:00:00:00:99) also replies for 192.0.2.7, because an interface of it has the address: remove it there"),
            (Finding::Owned { owners: [owners(), owners()].concat(), partitioned: true, issue: None }, "Announced", "192.0.2.7 from n1 (eth0, eth1) and n1 (eth0, eth1); the speakers of n1, n1 do not receive each other's hellos: check the network between them"),
            (
                Finding::Owned {
                    owners: owners(),
                    partitioned: false,
                    issue: Some(OwnerIssue::MulticastJoinFailed { node: "n1", group: MAC }),
                },
                "Announced",
                "192.0.2.7 from n1 (eth0, eth1); n1 could not join multicast group 02:00:00:00:00:99, so neighbor solicitations may not reach it: see its speaker log"
            ),
            (
                Finding::Owned {
                    owners: owners(),
                    partitioned: false,
                    issue: Some(OwnerIssue::StaleNeighborProxy { mac: MAC }),
                },
                "Announced",
                "192.0.2.7 from n1 (eth0, eth1); 02:00:00:00:00:99 still replies for 192.0.2.7 of the failed owner: clear the neighbor table of that device, or disable its proxy"
            ),
        ],
        Finding::Conflict { .. } => [
            (Finding::Conflict { mac, seen_by, owners: owners() }, "AddressConflict", "IP conflict: 02:00:00:00:00:99 replies for 192.0.2.7 (seen by n2), announced from n1 (eth0, eth1). Remove the address from that host, or exclude it from the pool"),
            (Finding::Conflict { mac, seen_by, owners: vec![] }, "AddressConflict", "IP conflict: 02:00:00:00:00:99 replies for 192.0.2.7 (seen by n2), and no node announces it. Remove the address from that host, or exclude it from the pool"),
        ],
        Finding::KernelReplies { .. } => [(Finding::KernelReplies { node: "n3", mac, owners: owners() }, "KernelAnswers", "IP conflict: node n3 (02:00:00:00:00:99) replies for 192.0.2.7, announced from n1 (eth0, eth1). Candidates: a load balancer there, such as Cilium (see `kubectl ferrolb why`), kube-proxy in IPVS mode without strictARP, an interface with the address")],
        Finding::ProxyMode => [(Finding::ProxyMode, "NotAnnouncedIPModeProxy", "192.0.2.7 not announced: ipMode is Proxy, so no node's kube-proxy accepts traffic for the address. If another component does, set the annotation ferrolb.io/ip-mode to Proxy,announce")],
        Finding::NoEndpoint { .. } => [
            (Finding::NoEndpoint { family: None, endpoint_condition: EndpointCondition::ReadyOrTerminating }, "NoEndpoints", "192.0.2.7 not announced: no endpoint of the Service is ready, or serving while terminating: check its pods and spec.selector"),
            (Finding::NoEndpoint { family: Some(Family::V6), endpoint_condition: EndpointCondition::Ready }, "NoEndpoints", "192.0.2.7 not announced: no IPv6 endpoint of the Service is ready, as annotation ferrolb.io/endpoint-condition requires: add IPv6 to its pods, or set spec.ipFamilyPolicy to SingleStack"),
            (Finding::NoEndpoint { family: None, endpoint_condition: EndpointCondition::Serving }, "NoEndpoints", "192.0.2.7 not announced: no endpoint of the Service is serving, as annotation ferrolb.io/endpoint-condition requires: check its pods and spec.selector"),
        ],
        Finding::NoAdvertisement { .. } => [(Finding::NoAdvertisement { pool: "lan" }, "NoAdvertisement", "192.0.2.7 not announced: no valid L2Advertisement or BGPAdvertisement selects IPAddressPool lan and this Service: create one, or change the selectors of one")],
        Finding::NoPool => [(Finding::NoPool, "NoAdvertisement", "192.0.2.7 not announced: no IPAddressPool contains the address any more: add it to spec.addresses of one")],
        Finding::NoNode(_) => [(Finding::NoNode(causes(Ineligible::NotSelected)), "NoCandidateNode", "192.0.2.7 not announced: no node is eligible; of 1 node, 1 not selected by an advertisement: change spec.nodeSelectors of an advertisement")],
        Finding::NotRunning { .. } => [
            (Finding::NotRunning { nodes: nodes(), bgp: false }, "SpeakersNotRunning", "192.0.2.7 announcement unknown: the speakers that announced it do not run (n1, n2). See `kubectl -n ferrolb-system describe daemonset speaker`"),
            (Finding::NotRunning { nodes: nodes(), bgp: true }, "SpeakersNotRunning", "192.0.2.7 announcement unknown: the speakers that announced it do not run (n1, n2). See `kubectl -n ferrolb-system describe daemonset speaker`"),
        ],
        Finding::NoSpeaker { .. } => [(Finding::NoSpeaker { nodes: nodes() }, "NoSpeaker", "192.0.2.7 not announced: no speaker runs on an eligible node (n1, n2). See `kubectl -n ferrolb-system describe daemonset speaker`")],
        Finding::Isolated { .. } => [(Finding::Isolated { nodes: nodes() }, "SpeakersIsolated", "192.0.2.7 not announced: the speakers of all eligible nodes (n1, n2) receive nothing on their interfaces. Check cables, switch ports and VLANs")],
        Finding::Unclaimed { .. } => [(Finding::Unclaimed { nodes: nodes() }, "Pending", "192.0.2.7 not announced: no speaker has claimed the address yet (eligible: n1, n2). If this persists, see `kubectl -n ferrolb-system logs daemonset/speaker`")],
        Finding::OwnerUnknown { .. } => [(Finding::OwnerUnknown { nodes: nodes() }, "Unobservable", "192.0.2.7 owner unknown: with this --api-group, speakers report no owner in a SpeakerStatus (eligible nodes: n1, n2). See `curl -s http://127.0.0.1:7472/state` on a node")],
        Finding::Routed { .. } => [
            (routed(Depreferred::None), "Announced", "192.0.2.7 by BGP from n1, n2 to tor1, tor2"),
            (routed(Depreferred::All), "Announced", "192.0.2.7 by BGP from n1, n2 to tor1, tor2, de-preferred (RFC 8326)"),
            (routed(Depreferred::Also(vec!["n3"])), "Announced", "192.0.2.7 by BGP from n1, n2 to tor1, tor2, and de-preferred (RFC 8326) from n3"),
            (
                Finding::Routed {
                    from: Senders::Every,
                    to: vec!["tor1"],
                    depreferred: Depreferred::None,
                    overridden: vec!["young"],
                },
                "Announced",
                "192.0.2.7 by BGP from every eligible node with a session to tor1 (BGPAdvertisement young is overridden by an older one with another localPref, med or asPathPrepend)"
            ),
        ],
        Finding::NoSession { .. } => [(Finding::NoSession { nodes: nodes(), peers: vec!["tor1", "tor2"] }, "NoSession", "192.0.2.7 not announced by BGP: no session from n1, n2 to tor1, tor2. See `kubectl -n ferrolb-system describe bgppeers.ferrolb.io tor1 tor2`")],
        Finding::NoRoute(_) => [(Finding::NoRoute(causes(Ineligible::NoGobgpd)), "NoCandidateNode", "192.0.2.7 not announced by BGP: no node is eligible; of 1 node, 1 whose speaker has no --gobgp: install gobgpd with deploy/install-bgp.yaml or the Helm value bgp.enabled=true")],
        Finding::RouteUnknown => [(Finding::RouteUnknown, "Unobservable", "192.0.2.7 BGP state unknown: with this --api-group, speakers report no sessions in a SpeakerStatus. See `curl -s http://127.0.0.1:7472/state` on a node")],
    );
}

#[test]
fn filtered_hellos_are_reported_with_the_next_step() {
    let start = "192.0.2.7 from n1 (eth0, eth1); frames of EtherType 0x88B5 from n1 do not \
                 arrive at n2 (eth0, HellosFiltered): let packet filters, host firewalls of \
                 network plugins and switches pass them";
    let port = ", and the UDP port of --challenge-port (default 7473), by which speakers detect \
                this loss";
    for (has_second_path, end) in [(true, ""), (false, port)] {
        let at = Reporter { node: "n2", interface: "eth0" };
        let issue = Some(OwnerIssue::HellosFiltered { at, from: "n1", has_second_path });
        let finding = Finding::Owned { owners: owners(), partitioned: false, issue };
        assert_eq!(render(&finding, None), ("Announced".to_owned(), format!("{start}{end}")));
    }
}

#[test]
fn commands_contain_the_namespace_and_the_group_of_the_flags() {
    let names = Names { namespace: "lb".to_owned(), group: "metallb.io".to_owned() };
    let (nodes, peers) = (|| vec!["n1"], vec!["tor1"]);
    let cases = [
        (
            Finding::NoSpeaker { nodes: nodes() },
            (
                "NoSpeaker",
                "192.0.2.7 not announced: no speaker runs on an eligible node (n1). See `kubectl -n lb describe daemonset speaker`",
            ),
        ),
        (
            Finding::Unclaimed { nodes: nodes() },
            (
                "Pending",
                "192.0.2.7 not announced: no speaker has claimed the address yet (eligible: n1). If this persists, see `kubectl -n lb logs daemonset/speaker`",
            ),
        ),
        (
            Finding::NoSession { nodes: nodes(), peers },
            (
                "NoSession",
                "192.0.2.7 not announced by BGP: no session from n1 to tor1. See `kubectl -n lb describe bgppeers.metallb.io tor1`",
            ),
        ),
        (
            Finding::NoNode(causes(Ineligible::NoSpeaker)),
            (
                "NoCandidateNode",
                "192.0.2.7 not announced: no node is eligible; of 1 node, 1 without a live speaker: see `kubectl -n lb describe daemonset speaker`",
            ),
        ),
    ];
    for (finding, expect) in cases {
        check(render_with(&names, &finding, None), expect);
    }
}

#[test]
fn one_message_covers_layer_2_and_bgp() {
    let owned = Finding::Owned { owners: owners(), partitioned: false, issue: None };
    let conflict = Finding::Conflict { mac: MAC, seen_by: "n2", owners: vec![] };
    let unclaimed = Finding::Unclaimed { nodes: vec!["n1"] };
    let no_session = Finding::NoSession { nodes: vec!["n1"], peers: vec!["tor1"] };
    let routed = routed(Depreferred::None);
    let unknown = Finding::OwnerUnknown { nodes: vec!["n1"] };
    let cases = [
        (
            &owned,
            &routed,
            ("Announced", "192.0.2.7 from n1 (eth0, eth1), and by BGP from n1, n2 to tor1, tor2"),
        ),
        (
            &owned,
            &no_session,
            (
                "Announced",
                "192.0.2.7 from n1 (eth0, eth1); not announced by BGP: no session from n1 to tor1. See `kubectl -n ferrolb-system describe bgppeers.ferrolb.io tor1`",
            ),
        ),
        (
            &routed,
            &unclaimed,
            (
                "Announced",
                "192.0.2.7 by BGP from n1, n2 to tor1, tor2; not announced on layer 2: no speaker has claimed the address yet (eligible: n1). If this persists, see `kubectl -n ferrolb-system logs daemonset/speaker`",
            ),
        ),
        (
            &conflict,
            &routed,
            (
                "AddressConflict",
                "IP conflict: 02:00:00:00:00:99 replies for 192.0.2.7 (seen by n2), and no node announces it. Remove the address from that host, or exclude it from the pool; announced by BGP from n1, n2 to tor1, tor2",
            ),
        ),
        (
            &routed,
            &unknown,
            (
                "Announced",
                "192.0.2.7 by BGP from n1, n2 to tor1, tor2; owner unknown: with this --api-group, speakers report no owner in a SpeakerStatus (eligible nodes: n1). See `curl -s http://127.0.0.1:7472/state` on a node",
            ),
        ),
        (
            &owned,
            &Finding::RouteUnknown,
            (
                "Announced",
                "192.0.2.7 from n1 (eth0, eth1); BGP state unknown: with this --api-group, speakers report no sessions in a SpeakerStatus. See `curl -s http://127.0.0.1:7472/state` on a node",
            ),
        ),
    ];
    for (first, second, expect) in cases {
        check(render(first, Some(second.clone())), expect);
    }
}

fn cause(cause: &Ineligible) -> (String, String) {
    (String::new(), causes(*cause).text(&default_names()))
}

#[test]
fn every_cause_has_its_text_and_its_remedy() {
    table!(Ineligible, cause;
        Ineligible::Unreachable => [(Ineligible::Unreachable, "", "of 1 node, 1 out of service or without network: see `kubectl describe nodes`")],
        Ineligible::Excluded => [(Ineligible::Excluded, "", "of 1 node, 1 labeled exclude-from-external-load-balancers: `kubectl label node NODE node.kubernetes.io/exclude-from-external-load-balancers-` removes the label")],
        Ineligible::NotSelected => [(Ineligible::NotSelected, "", "of 1 node, 1 not selected by an advertisement: change spec.nodeSelectors of an advertisement")],
        Ineligible::NoLocalEndpoint => [(Ineligible::NoLocalEndpoint, "", "of 1 node, 1 without eligible endpoint (externalTrafficPolicy Local): run pods there, or set spec.externalTrafficPolicy to Cluster")],
        Ineligible::NoEndpoint => [(Ineligible::NoEndpoint, "", "of 1 node, 1 without eligible endpoint: check the endpoints of the Service")],
        Ineligible::NoInterface => [(Ineligible::NoInterface, "", "of 1 node, 1 without an active interface that an L2Advertisement selects (n1 has eth0, eth1): change spec.interfaces of the L2Advertisement")],
        Ineligible::NoIpv6 => [(Ineligible::NoIpv6, "", "of 1 node, 1 without an IPv6 address on the interface: set the sysctl net.ipv6.conf.INTERFACE.disable_ipv6 to 0 there")],
        Ineligible::NoRouter => [(Ineligible::NoRouter, "", "of 1 node, 1 without a BGPPeer that the BGPAdvertisement selects: change spec.nodeSelectors of a BGPPeer, or spec.peers of the BGPAdvertisement")],
        Ineligible::TooManyCommunities => [(Ineligible::TooManyCommunities, "", "of 1 node, 1 with more communities than a route can carry, from all advertisements together: remove some from spec.communities")],
        Ineligible::NoSpeaker => [(Ineligible::NoSpeaker, "", "of 1 node, 1 without a live speaker: see `kubectl -n ferrolb-system describe daemonset speaker`")],
        Ineligible::NoGobgpd => [(Ineligible::NoGobgpd, "", "of 1 node, 1 whose speaker has no --gobgp: install gobgpd with deploy/install-bgp.yaml or the Helm value bgp.enabled=true")],
    );
    let shared = Causes { policy: TrafficPolicy::Cluster, ..causes(Ineligible::NoLocalEndpoint) };
    check(
        (String::new(), shared.text(&default_names())),
        (
            "",
            "of 1 node, 1 without eligible endpoint of a Service that shares the address: check the endpoints of all Services that share the address",
        ),
    );
    let several = Causes {
        counts: [
            (Ineligible::Excluded, 1),
            (Ineligible::NotSelected, 2),
            (Ineligible::NoSpeaker, 2),
        ]
        .into(),
        ..Causes::default()
    };
    check(
        (String::new(), several.text(&default_names())),
        (
            "",
            "of 5 nodes, 1 labeled exclude-from-external-load-balancers, 2 not selected by an advertisement, 2 without a live speaker: change spec.nodeSelectors of an advertisement",
        ),
    );
    let on_node = Causes {
        counts: [(Ineligible::Excluded, 1), (Ineligible::NoLocalEndpoint, 2)].into(),
        policy: TrafficPolicy::Local,
        endpoints: Some(LocalEndpoints::On("n1", Ineligible::Excluded)),
        ..Causes::default()
    };
    check(
        (String::new(), on_node.text(&default_names())),
        (
            "",
            "of 3 nodes, 1 labeled exclude-from-external-load-balancers, 2 without eligible endpoint (externalTrafficPolicy Local). Endpoints are on n1: `kubectl label node n1 node.kubernetes.io/exclude-from-external-load-balancers-` removes the label",
        ),
    );
    let without_node_names = Causes {
        endpoints: Some(LocalEndpoints::WithoutNodeName),
        ..causes(Ineligible::NoLocalEndpoint)
    };
    check(
        (String::new(), without_node_names.text(&default_names())),
        (
            "",
            "of 1 node, 1 without eligible endpoint (externalTrafficPolicy Local). The eligible endpoints have no nodeName, so they are on no node",
        ),
    );
}

fn warning(warning: &Warning<'static>) -> (String, String) {
    (String::new(), warning.to_string())
}

#[test]
fn every_warning_has_its_message() {
    let why = || vec!["10.1.2.3:8080: connection refused"];
    let flawed = |flaw| FlawedOwner { node: "n1", flaw };
    let unchecked = |reason| {
        let examples = vec![IpAddr::from([10, 0, 0, 9])];
        Warning::Unchecked(UncheckedEndpoints {
            count: [1, 2],
            nodes: vec!["n1"],
            reason,
            examples,
        })
    };
    table!(Warning<'static>, warning;
        Warning::NodesFail { .. } => [
            (Warning::NodesFail { family: None, nodes: vec!["n1", "n2"], why: why() }, "", "all endpoints on n1, n2 fail their health check (10.1.2.3:8080: connection refused): check these pods"),
            (Warning::NodesFail { family: Some(Family::V6), nodes: vec!["n1"], why: why() }, "", "all IPv6 endpoints on n1 fail their health check (10.1.2.3:8080: connection refused): check these pods"),
        ],
        Warning::AllFail { .. } => [
            (Warning::AllFail { family: None, why: why(), local: false }, "", "all endpoints fail their health check (10.1.2.3:8080: connection refused): check the pods, and the annotation ferrolb.io/health-check"),
            (Warning::AllFail { family: Some(Family::V4), why: why(), local: true }, "", "all IPv4 endpoints fail their health check (10.1.2.3:8080: connection refused), so readiness alone selects the node: check the pods, and the annotation ferrolb.io/health-check"),
        ],
        Warning::Unchecked(UncheckedEndpoints { reason: UncheckedReason::Off, .. }) => [(unchecked(UncheckedReason::Off), "", "1 of 2 endpoints on n1 are not checked (10.0.0.9), so only readiness counts: --health-checks of the speakers is off. Set it to node, or remove the annotation ferrolb.io/health-check")],
        Warning::Unchecked(UncheckedEndpoints { reason: UncheckedReason::OutsideRanges, .. }) => [(
            Warning::Unchecked(UncheckedEndpoints {
                count: [5, 9],
                nodes: vec!["n1", "n2", "n3", "n4"],
                reason: UncheckedReason::OutsideRanges,
                examples: vec![IpAddr::from([10, 0, 0, 9]), "fd00::9".parse().unwrap()],
            }),
            "",
            "5 of 9 endpoints on n1, n2, n3 and 1 more are not checked (10.0.0.9 and fd00::9), so only readiness counts: the speakers may not contact these addresses. Add the pods' range of each family to --health-checks (chart: speaker.extraArgs)"
        )],
        Warning::Unchecked(UncheckedEndpoints { reason: UncheckedReason::Excluded, .. }) => [(unchecked(UncheckedReason::Excluded), "", "1 of 2 endpoints on n1 are not checked (10.0.0.9), so only readiness counts: speakers never contact addresses of Nodes, API servers and link-local ones. Correct the EndpointSlices, or remove the annotation ferrolb.io/health-check")],
        Warning::Unchecked(UncheckedEndpoints { reason: UncheckedReason::NoPort, .. }) => [(unchecked(UncheckedReason::NoPort), "", "1 of 2 endpoints on n1 are not checked (10.0.0.9), so only readiness counts: their EndpointSlices lack the port. Write its number into the annotation ferrolb.io/health-check, as in tcp:8080")],
        Warning::Unchecked(UncheckedEndpoints { reason: UncheckedReason::TooMany, .. }) => [(unchecked(UncheckedReason::TooMany), "", "1 of 2 endpoints on n1 are not checked (10.0.0.9), so only readiness counts: the speaker checks its maximum number of endpoints. Remove the annotation ferrolb.io/health-check from other Services")],
        Warning::UncheckedWithoutNode => [(Warning::UncheckedWithoutNode, "", "endpoints without nodeName are not checked: write nodeName into the EndpointSlices, or remove the annotation ferrolb.io/health-check")],
        Warning::Annotation(EndpointProblem::Condition(_)) => [(
            Warning::Annotation(EndpointProblem::Condition(Box::leak(Box::new(EndpointConditionProblem("Ready".to_owned()))))),
            "",
            "annotation ferrolb.io/endpoint-condition: \"Ready\" is not valid: write ready or serving, or remove it"
        )],
        Warning::Annotation(EndpointProblem::HealthCheck(_)) => [(Warning::Annotation(EndpointProblem::HealthCheck(&HealthCheckProblem::NoPort)), "", "annotation ferrolb.io/health-check: the Service has no TCP port: write a port, as in tcp:8080")],
        Warning::ReadinessOnly => [(Warning::ReadinessOnly, "", "until then only the readiness of endpoints counts")],
        Warning::Flawed(_) => [
            (Warning::Flawed(vec![flawed(Flaw::EndpointsFail)]), "", "n1 announces it although endpoints on it fail their health check: no healthier node is eligible. Check that node, or make another one eligible"),
            (Warning::Flawed(vec![flawed(Flaw::Draining)]), "", "n1 announces it although it is draining: no healthier node is eligible. Check that node, or make another one eligible"),
            (Warning::Flawed(vec![flawed(Flaw::KubeProxy(""))]), "", "n1 announces it although its kube-proxy is unhealthy: no healthier node is eligible. Check that node, or make another one eligible"),
            (Warning::Flawed(vec![flawed(Flaw::KubeProxy("connection refused")), flawed(Flaw::Draining)]), "", "n1 announces it although its kube-proxy is unhealthy (connection refused), n1 announces it although it is draining: no healthier node is eligible. Check that node, or make another one eligible"),
        ],
        Warning::OutsideSubnets { .. } => [(
            Warning::OutsideSubnets {
                addresses: vec![IpAddr::from([192, 0, 2, 7])],
                pool: "lan",
                subnets: vec!["10.0.0.0-10.0.0.255".to_owned()],
            },
            "",
            "no interface that announces 192.0.2.7 has a subnet with it (10.0.0.0-10.0.0.255): correct spec.addresses of IPAddressPool lan, or set its spec.routed to true if a router has a route"
        ), (
            Warning::OutsideSubnets { addresses: vec![IpAddr::from([192, 0, 2, 7])], pool: "lan", subnets: vec![] },
            "",
            "no interface that announces 192.0.2.7 has a subnet of this family, so the nodes have no route back to clients there: give the interface an address, or set spec.routed of IPAddressPool lan to true if the nodes have a route"
        )],
        Warning::SilentNodes(_) => [(Warning::SilentNodes(vec!["n1", "n2"]), "", "n1, n2 failed: the endpoints there serve no request until the node replies")],
        Warning::FormerRouters { .. } => [(
            Warning::FormerRouters { addresses: vec![IpAddr::from([192, 0, 2, 7])], nodes: vec!["n2"] },
            "",
            "n2 may still advertise 192.0.2.7, which another Service had before: no speaker runs there. Start it, or stop gobgpd there"
        )],
        Warning::LabelIgnored => [(Warning::LabelIgnored, "", "every Node has the label node.kubernetes.io/exclude-from-external-load-balancers, so it is ignored: remove it from the nodes that should announce")],
    );
}

#[test]
fn every_problem_of_a_health_check_has_its_message() {
    use HealthCheckProblem as Problem;
    let text = |text: &str| text.to_owned();
    let second = Duration::from_secs(1);
    table!(Problem, |problem| (String::new(), problem.to_string());
        Problem::Kind(_) => [(Problem::Kind(text("ping")), "", "annotation ferrolb.io/health-check: \"ping\" is not a type of check: write tcp or http")],
        Problem::Port(_) => [(Problem::Port(text("http")), "", "annotation ferrolb.io/health-check: \"http\" is not a port: write a number from 1 to 65535")],
        Problem::NoPort => [(Problem::NoPort, "", "annotation ferrolb.io/health-check: the Service has no TCP port: write a port, as in tcp:8080")],
        Problem::TcpPath(_) => [(Problem::TcpPath(text("/x")), "", "annotation ferrolb.io/health-check: a tcp check has no path: write http, or remove \"/x\"")],
        Problem::LongPath => [(Problem::LongPath, "", "annotation ferrolb.io/health-check: the path is longer than 1024 bytes: shorten it")],
        Problem::Path(_) => [(Problem::Path('ä'), "", "annotation ferrolb.io/health-check: 'ä' is not allowed in the path: write it as % and two hexadecimal digits")],
        Problem::Setting(_) => [(Problem::Setting(text("every=1s")), "", "annotation ferrolb.io/health-check: \"every=1s\" is not a setting: write interval=, timeout=, fall= or rise= and its value")],
        Problem::DuplicateSetting(_) => [(Problem::DuplicateSetting("fall"), "", "annotation ferrolb.io/health-check: fall is set twice: remove one")],
        Problem::Time { .. } => [(Problem::Time { name: "interval", text: text("1"), min: second, max: 60 * second }, "", "annotation ferrolb.io/health-check: interval=\"1\": write a time from 1s to 60s, such as 1s")],
        Problem::Count { .. } => [(Problem::Count { name: "fall", text: text("0") }, "", "annotation ferrolb.io/health-check: fall=\"0\": write a number from 1 to 100")],
    );
}
