//! Tests of the kube-proxy health check: its targets, and how this node reports the result and a
//! drain.

use std::net::SocketAddr;

use ferrolb_proto::api::KubeProxyState;
use ferrolb_proto::facts::{DrainReason, Node, Service};

use super::*;
use crate::health::kube_proxy::{Families, KubeProxyHealth};

fn node_at(internal: &[&str], drain: Option<DrainReason>) -> Node {
    Node { internal_addresses: addresses(internal).into(), drain, ..node("node1") }
}

/// Returns a cluster with this Node, and another Node that drains.
fn cluster_with(own: Node) -> Cluster {
    let other = Node { drain: Some(DrainReason::Annotation), ..node("node2") };
    Cluster { nodes: vec![own, other], ..Cluster::default() }
}

fn local(name: &str, address: &str, port: u16) -> Service {
    Service {
        policy: TrafficPolicy::Local,
        health_check_node_port: port,
        ..service(name, &[address])
    }
}

fn sockets(texts: &[&str]) -> Vec<SocketAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn proxy_health_event(state: KubeProxyState, ineligible: bool) -> Event {
    Event::ProxyHealth(KubeProxyHealth {
        state,
        message: "why".into(),
        ineligible,
        ..KubeProxyHealth::default()
    })
}

#[test]
fn kube_proxy_is_checked_at_the_internal_ip_then_loopback() {
    let servers = |cluster: &Cluster| cluster.plan().proxy_targets.servers.into_vec();
    let cases = [
        (vec!["10.0.0.1", "fd00::1"], vec!["10.0.0.1:10256", "127.0.0.1:10256"]),
        (vec!["fd00::1"], vec!["[fd00::1]:10256", "[::1]:10256"]),
        (vec![], vec!["127.0.0.1:10256"]),
    ];
    for (internal, expect) in cases {
        assert_eq!(servers(&cluster_with(node_at(&internal, None))), sockets(&expect));
    }
    let unknown = Cluster { nodes: vec![node("node2")], ..Cluster::default() };
    assert_eq!(servers(&unknown), [], "no server is known before the Node is known");
    let mut state = unknown.state();
    state.config.kube_proxy_address = Some("192.0.2.1:1".parse().unwrap());
    assert_eq!(
        plan(&state, Instant::ZERO).proxy_targets.servers.into_vec(),
        sockets(&["192.0.2.1:1"])
    );
}

#[test]
fn health_check_node_ports_use_the_family_of_the_service() {
    let services = vec![
        local("a", "172.30.0.1", 31001),
        local("b", "fd30::1", 31002),
        Service { policy: TrafficPolicy::Cluster, ..local("c", "172.30.0.3", 0) },
    ];
    let node_ports = |internal: &[&str], services: &[Service]| {
        let cluster =
            Cluster { services: services.to_vec(), ..cluster_with(node_at(internal, None)) };
        cluster.plan().proxy_targets.health_check_node_ports.into_vec()
    };
    let both = ["10.0.0.1", "fd00::1"];
    assert_eq!(node_ports(&both, &services), sockets(&["10.0.0.1:31001", "[fd00::1]:31002"]));
    assert_eq!(node_ports(&["10.0.0.1"], &services), sockets(&["10.0.0.1:31001"]));
    assert_eq!(node_ports(&[], &services), []);
    let many: Vec<_> =
        (1..=40).map(|n| local(&format!("s{n:02}"), "172.30.0.1", 31_000 + n)).collect();
    let checked_ports = node_ports(&both, &many);
    assert_eq!(
        (checked_ports.len(), checked_ports[15]),
        (16, "10.0.0.1:31016".parse().unwrap()),
        "at most 16 ports are checked"
    );
}

#[test]
fn the_context_has_the_node_other_nodes_and_families() {
    let context = |state: &State| plan(state, Instant::ZERO).proxy_targets.context;
    let mut state =
        Cluster { services: vec![service("a", &["fd30::1"])], ..Cluster::default() }.state();
    let now = context(&state);
    assert_eq!(
        (now.ready, now.healthy_elsewhere, now.needed),
        (true, false, Families { v4: false, v6: true })
    );
    let report = LinkReport { proxy_healthy_elsewhere: true, ..LinkReport::default() };
    state.handle(Event::Report { link: 2, report }, Instant::ZERO);
    apply_resync(
        &mut state,
        &[service("a", &["fd30::1"]), service("b", &["172.30.0.1"])],
        Event::of::<Service>,
    );
    apply_resync(
        &mut state,
        &[Node { ready: false, ..node("node1") }, node("node2")],
        Event::of::<Node>,
    );
    let now = context(&state);
    assert_eq!(
        (now.ready, now.healthy_elsewhere, now.needed),
        (false, true, Families { v4: true, v6: true })
    );
    state.handle(Event::Report { link: 2, report: LinkReport::default() }, Instant::ZERO);
    assert!(!context(&state).healthy_elsewhere);
    // A node may share no segment with the nodes that it watches.
    state.handle(Event::KubeProxyWorksElsewhere(true), Instant::ZERO);
    assert!(context(&state).healthy_elsewhere);
}

#[test]
fn a_judgement_is_sent_to_other_nodes_and_written_to_the_status() {
    let mut state = Cluster::default().state();
    let cases = [
        (None, KubeProxyState::Unknown, true, false),
        (Some(KubeProxyState::Healthy), KubeProxyState::Healthy, false, true),
        (Some(KubeProxyState::Unhealthy), KubeProxyState::Unhealthy, true, false),
        (Some(KubeProxyState::NotChecked), KubeProxyState::NotChecked, false, false),
    ];
    for (judgement, expect, unhealthy, checked) in cases {
        if let Some(judgement) = judgement {
            let changes = state.handle(proxy_health_event(judgement, false), Instant::ZERO);
            assert!(!changes.is_empty(), "a new judgement needs a plan");
        }
        let desired = plan(&state, Instant::ZERO);
        assert_eq!(
            desired.links[&2].config.node_flags,
            NodeState { draining: false, unhealthy, health_checked: checked }
        );
        let status = desired.status.data_path.clone().unwrap();
        assert_eq!(
            (status.state, &*status.message),
            (expect, if judgement.is_some() { "why" } else { "" })
        );
    }
}

#[test]
fn a_node_drains_by_annotation_taint_or_kube_proxy() {
    let drains = |state: &State| {
        let desired = plan(state, Instant::ZERO);
        let draining = desired.links[&2].config.node_flags.draining;
        assert_eq!(
            (draining, desired.status.draining),
            (desired.drain_reason.is_some(), desired.drain_reason.is_some())
        );
        assert!(!desired.links[&2].config.leaving && !desired.links[&2].config.units.is_empty());
        desired.drain_reason
    };
    assert_eq!(
        drains(&cluster_with(node("node1")).state()),
        None,
        "the drain of another node has no effect"
    );
    for (reason, text) in [
        (DrainReason::Annotation, "ferrolb.io/drain"),
        (DrainReason::Autoscaler, "ToBeDeletedByClusterAutoscaler"),
    ] {
        let why = drains(&cluster_with(node_at(&[], Some(reason))).state()).unwrap();
        assert!(why.contains(text), "{why}");
    }
    let mut state = cluster_with(node("node1")).state();
    state.handle(proxy_health_event(KubeProxyState::Healthy, true), Instant::ZERO);
    assert!(drains(&state).is_some_and(|why| why.contains("kube-proxy")));
    state.handle(proxy_health_event(KubeProxyState::Healthy, false), Instant::ZERO);
    assert_eq!(drains(&state), None);
}
