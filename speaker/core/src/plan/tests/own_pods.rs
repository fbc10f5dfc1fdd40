//! Tests of the routes that permit health checks: those to pods of this node, and no others.

use ferrolb_proto::api::UncheckedReason::{self, Excluded, OutsideRanges};

use super::probes::{checked, endpoint_on, slice_of};
use super::*;
use crate::event::PodRoute;

/// Index of the interface of a route.
const LINK: u32 = 7;
/// The default gateway of the node.
const GATEWAY: &str = "192.168.1.1";

fn routes(to_pods: &[&str]) -> Event {
    let route = |to: &&str| PodRoute { range: to.parse().unwrap(), link: LINK };
    let to_pods = to_pods.iter().map(route).collect();
    Event::Routes(Routes { gateways: addresses(&[GATEWAY]), to_pods })
}

fn with_addresses(link: Link, texts: &[&str]) -> Link {
    Link { addresses: addresses(texts).into(), ..link }
}

/// Returns the host's end of a pod's veth pair, as Calico's `cali0123456789a`.
fn to_pod() -> Link {
    let link = Link { into_namespace: true, ..link(LINK, "cali0") };
    with_addresses(link, &["fe80::ecee:eeff:feee:eeee"])
}

/// Returns the interface of Cilium through which a node reaches all pods.
fn cilium_host() -> Link {
    with_addresses(link(LINK, "cilium_host"), &["10.0.1.13", "fd0c::113"])
}

/// Returns the state of a node with these routes by an interface, and an endpoint on it.
fn state(endpoint: &str, to_pods: &[&str], link_of_route: &Link) -> State {
    let own = Node {
        addresses: addresses(&["192.168.1.7"]).into(),
        internal_addresses: addresses(&["192.168.1.7"]).into(),
        ..node("node1")
    };
    let other = Node { addresses: addresses(&["172.30.0.2"]).into(), ..node("node2") };
    let mut service = checked("web", "Local", "tcp");
    let v6 = "fd30::200".parse().unwrap();
    service.assigned.push(AssignedAddress { address: v6, mode: Some(IpMode::Vip) });
    let family = if endpoint.contains(':') { "IPv6" } else { "IPv4" };
    let endpoints = json!([endpoint_on("node1", endpoint)]);
    let api_server = json!([endpoint_on("node3", "172.16.0.9")]);
    let cluster = Cluster {
        nodes: vec![own, other],
        services: vec![service],
        slices: vec![
            slice_of("web-1", family, &[("web", 8080)], endpoints),
            EndpointSlice {
                service: Some(Key::new("default", "kubernetes")),
                ..slice_of("kubernetes", "IPv4", &[("https", 8080)], api_server)
            },
        ],
        links: vec![link(2, "eth0"), link_of_route.clone()],
        ..Cluster::default()
    };
    let mut state = cluster.state();
    state.handle(routes(to_pods), Instant::ZERO);
    state
}

/// Returns why the only endpoint of a state is not checked; `None` if it is checked.
fn refusal(state: &State) -> Option<UncheckedReason> {
    let desired = plan(state, Instant::ZERO);
    let reason = desired.status.unchecked_health_checks.first().map(|it| it.reason);
    assert_eq!(desired.probes.targets.is_empty(), reason.is_some());
    reason
}

#[test]
fn only_routes_to_pods_of_this_node_permit_health_checks() {
    let down = |link| Link { up: false, ..link };
    // Routes of Cilium to the pods of this node.
    let cilium = ["10.0.1.0/24", "fd0c::100/120"];
    let other_link = |texts: &[&str]| with_addresses(link(LINK, "eth1"), texts);
    let outside = Some(OutsideRanges);
    let cases = [
        ("Calico", "10.9.9.9", &["10.9.9.9"][..], to_pod(), None),
        ("Calico, IPv6", "fd09::9", &["fd09::9"], to_pod(), None),
        ("another pod", "10.9.9.8", &["10.9.9.9"], to_pod(), outside),
        ("a pod that ends", "10.9.9.9", &["10.9.9.9"], down(to_pod()), outside),
        ("the interface is gone", "10.9.9.9", &["10.9.9.9"], link(9, "cali0"), outside),
        ("a range", "10.9.9.9", &["10.9.9.0/24"], to_pod(), outside),
        ("a neighbor of a node", "192.168.1.9", &["192.168.1.9"], other_link(&[]), outside),
        ("a peer of a VPN", "10.8.0.2", &["10.8.0.2"], other_link(&["10.8.0.1"]), outside),
        ("a node in a container: its gateway", GATEWAY, &[GATEWAY], to_pod(), outside),
        (
            "a node in a container: a neighbor",
            "192.168.1.9",
            &["192.168.1.9"],
            with_addresses(to_pod(), &["192.168.1.8"]),
            outside,
        ),
        ("another node", "172.30.0.2", &["172.30.0.2"], to_pod(), Some(Excluded)),
        ("this node", "192.168.1.7", &["192.168.1.7"], to_pod(), None),
        ("the API server", "172.16.0.9", &["172.16.0.9"], to_pod(), Some(Excluded)),
        ("metadata", "169.254.169.254", &["169.254.169.254"], to_pod(), Some(Excluded)),
        ("Cilium", "10.0.1.77", &cilium, cilium_host(), None),
        ("Cilium, IPv6", "fd0c::177", &cilium, cilium_host(), None),
        ("Cilium, other nodes", "10.0.2.77", &["10.0.2.0/24"], cilium_host(), outside),
        ("Cilium, other nodes, IPv6", "fd0c::277", &["fd0c::200/120"], cilium_host(), outside),
        ("Cilium's own address", "10.0.1.13", &cilium, cilium_host(), Some(Excluded)),
        ("Cilium is down", "10.0.1.77", &cilium, down(cilium_host()), outside),
        (
            "a subnet of the node",
            "192.168.2.9",
            &["192.168.2.0/24"],
            other_link(&["192.168.2.7"]),
            outside,
        ),
    ];
    for (what, endpoint, routes, link, expect) in cases {
        assert_eq!(refusal(&state(endpoint, routes, &link)), expect, "{what}: {endpoint}");
    }
}

#[test]
fn a_route_to_a_pod_changes_only_the_services_with_that_pod() {
    let mut state = state("10.9.9.9", &[], &to_pod());
    let mut memo = Memo::default();
    assert!(super::super::plan(&state, &mut memo, Instant::ZERO).probes.targets.is_empty());
    assert!(state.handle(routes(&["10.9.9.8"]), Instant::ZERO).is_empty(), "another pod");
    let changes = state.handle(routes(&["10.9.9.8", "10.9.9.9"]), Instant::ZERO);
    assert!(!changes.all && changes.services.len() == 1, "{changes:?}");
    memo.add(changes);
    let desired = super::super::plan(&state, &mut memo, Instant::ZERO);
    assert_eq!((desired.probes.targets.len(), desired.status.unchecked_services), (1, 0));
    let changes = state.handle(routes(&["10.9.9.8"]), Instant::ZERO);
    assert!(!changes.all && changes.services.len() == 1, "{changes:?}");
    memo.add(changes);
    let desired = super::super::plan(&state, &mut memo, Instant::ZERO);
    assert_eq!((desired.probes.targets.len(), desired.status.unchecked_services), (0, 1));
}
