//! Tests of health checks in the plan: the endpoints that are checked, and the effect of failures.

use ferrolb_proto::facts::{CheckKind, EndpointCondition, EndpointSliceObject, ServiceObject};
use ferrolb_proto::health::prober::ProbeTarget;
use serde_json::Value;

use super::*;
use crate::plan::FAILING_SERVICES_MAX;

/// Service with a health check and two ports, of which `web` is the first with TCP.
fn checked(name: &str, policy: &str, annotation: &str) -> Service {
    let object = json!({
        "metadata": {"namespace": "default", "name": name, "annotations": {"ferrolb.io/health-check": annotation}},
        "spec": {"type": "LoadBalancer", "clusterIPs": ["10.96.0.1"], "externalTrafficPolicy": policy,
            "ports": [{"name": "dns", "protocol": "UDP", "port": 53}, {"name": "web", "port": 80}, {"name": "adm", "port": 81}]},
        "status": {"loadBalancer": {"ingress": [{"ip": "172.30.0.200", "ipMode": "VIP"}]}}
    });
    Service::read(serde_json::from_value::<ServiceObject>(object).unwrap(), api::GROUP)
}

/// Slice of `web` with named ports and endpoints in JSON.
fn slice_of(name: &str, family: &str, ports: &[(&str, u16)], endpoints: Value) -> EndpointSlice {
    let ports: Vec<_> = ports
        .iter()
        .map(|(name, port)| json!({"name": name, "protocol": "TCP", "port": port}))
        .collect();
    let metadata = json!({"namespace": "default", "name": name, "labels": {"kubernetes.io/service-name": "web"}});
    let object = json!({"metadata": metadata, "addressType": family, "ports": ports, "endpoints": endpoints});
    serde_json::from_value::<EndpointSliceObject>(object).unwrap().into()
}

fn on(node: &str, address: &str) -> Value {
    json!({"addresses": [address], "nodeName": node, "conditions": {"ready": true}})
}

/// Service `web` with this policy and check, two endpoints on this node and one on the other.
fn cluster(policy: &str, annotation: &str) -> Cluster {
    let endpoints =
        json!([on("node1", "10.244.1.1"), on("node1", "10.244.1.2"), on("node2", "10.244.2.1")]);
    Cluster {
        services: vec![checked("web", policy, annotation)],
        slices: vec![slice_of("web-1", "IPv4", &[("web", 8080)], endpoints)],
        ..Cluster::default()
    }
}

fn targets(desired: &Desired) -> Vec<String> {
    desired.probes.targets.keys().map(|id| id.endpoint.to_string()).collect()
}

/// Reports that an endpoint of `web` started or stopped failing. Returns whether this needs a new
/// plan.
fn report(state: &mut State, endpoint: &str, failing: Option<&str>) -> bool {
    let id = ProbeTarget {
        service: Key::new("default", "web").into(),
        endpoint: endpoint.parse().unwrap(),
    };
    state.handle(Event::EndpointHealth { id, failing: failing.map(Into::into) }, Instant::ZERO)
}

/// Returns whether any address of the unit fails here, and the status messages.
fn judged(state: &State) -> (bool, Vec<String>) {
    let (failing, said) = failing(state);
    (!failing.is_empty(), said)
}

/// Returns the addresses of the unit that fail here, and the status messages.
fn failing(state: &State) -> (Vec<String>, Vec<String>) {
    let desired = plan(state, Instant::ZERO);
    let said = desired.status.failing_health_checks.iter();
    let said = said
        .map(|it| format!("{}/{} {} {}", it.namespace, it.name, it.endpoint, it.message))
        .collect();
    (desired.links[&2].config.units[0].failing.iter().map(ToString::to_string).collect(), said)
}

#[test]
fn the_usable_endpoints_of_this_node_are_asked_at_the_port_of_their_slice() {
    let leaving = json!({"ready": false, "serving": true, "terminating": true});
    let slices = vec![
        slice_of(
            "web-a",
            "IPv4",
            &[("web", 8080), ("adm", 9)],
            json!([on("node1", "10.244.1.1"), on("node2", "10.244.2.1")]),
        ),
        slice_of("web-b", "IPv4", &[("adm", 9), ("web", 8081)], json!([on("node1", "10.244.1.2")])),
        slice_of(
            "web-c",
            "IPv6",
            &[("web", 8080)],
            json!([on("node1", "fd00::1"), {"addresses": ["fd00::2"]}]),
        ),
        slice_of("web-d", "FQDN", &[("web", 8080)], json!([on("node1", "a.example")])),
        slice_of(
            "web-e",
            "IPv4",
            &[("web", 8080)],
            json!([
                {"addresses": ["10.244.1.3"], "nodeName": "node1", "conditions": {"ready": false}},
                {"addresses": ["10.244.1.4"], "nodeName": "node1", "conditions": leaving}
            ]),
        ),
        slice_of("web-f", "IPv4", &[("other", 8080)], json!([on("node1", "10.244.1.5")])),
    ];
    let with = |annotation: &str| {
        Cluster {
            services: vec![checked("web", "Cluster", annotation)],
            slices: slices.clone(),
            ..Cluster::default()
        }
        .plan()
    };
    let named = ["10.244.1.1:8080", "10.244.1.2:8081", "10.244.1.4:8080"];
    assert_eq!(targets(&with("tcp")), named, "it has no IPv6 address");
    let numbered = ["10.244.1.1:9", "10.244.1.2:9", "10.244.1.4:9", "10.244.1.5:9"];
    assert_eq!(targets(&with("tcp:9")), numbered, "a number is the same everywhere");
    for none in ["", "udp", "tcp;fall=0"] {
        assert_eq!(targets(&with(none)), [""; 0], "{none:?}");
    }
    let desired = with("http/x;timeout=2s;fall=5");
    let check = desired.probes.targets.values().next().unwrap();
    assert_eq!(check.kind, CheckKind::Http { path: "/x".into() });
    assert_eq!((check.interval, check.timeout), (Duration::from_secs(1), Duration::from_secs(2)));
    assert_eq!((check.fall, check.rise), (5, 3), "what is not written comes from the flags");
}

#[test]
fn with_usable_ready_a_terminating_endpoint_is_not_asked_and_does_not_vouch_for_its_node() {
    let conditions = json!({"ready": false, "serving": true, "terminating": true});
    let leaving =
        json!({"addresses": ["10.244.1.2"], "nodeName": "node1", "conditions": conditions});
    let both = ["10.244.1.1:8080", "10.244.1.2:8080"];
    for (usable, asked, failing) in [
        (EndpointCondition::ReadyOrTerminating, &both[..], false),
        (EndpointCondition::Ready, &both[..1], true),
    ] {
        let mut cluster = cluster("Local", "tcp");
        cluster.services[0].endpoint_condition = usable;
        cluster.slices = vec![slice_of(
            "web-1",
            "IPv4",
            &[("web", 8080)],
            json!([on("node1", "10.244.1.1"), leaving]),
        )];
        let mut state = cluster.state();
        assert_eq!(targets(&plan(&state, Instant::ZERO)), asked, "{usable:?}");
        report(&mut state, both[0], Some("why"));
        assert_eq!(judged(&state).0, failing, "{usable:?}");
    }
}

#[test]
fn each_service_has_its_own_targets_and_what_is_not_ours_has_none() {
    let mut cluster = cluster("Local", "tcp");
    let other =
        EndpointSlice { service: Some(Key::new("other", "web")), ..cluster.slices[0].clone() };
    cluster.slices.push(EndpointSlice { key: Key::new("other", "web-1"), ..other });
    assert_eq!(cluster.plan().probes.targets.len(), 2, "the same name in another namespace");
    cluster.services.push(Service { key: Key::new("other", "web"), ..cluster.services[0].clone() });
    let both: Vec<_> = cluster.plan().probes.targets.keys().map(ToString::to_string).collect();
    let expect = ["10.244.1.1:8080 of default/web", "10.244.1.2:8080 of default/web"];
    assert_eq!((both.len(), &both[..2]), (4, &expect.map(str::to_owned)[..]));
    cluster.services[0].class = Some("other.io/lb".into());
    cluster.services[1].assigned.clear();
    assert_eq!(targets(&cluster.plan()), [""; 0]);
}

#[test]
fn a_service_fails_here_when_all_its_usable_endpoints_here_do() {
    let mut state = cluster("Local", "tcp").state();
    assert_eq!(judged(&state), (false, vec![]));
    assert!(report(&mut state, "10.244.1.2:8080", Some("connection refused")));
    assert_eq!(judged(&state), (false, vec![]), "one of two passes");
    assert!(report(&mut state, "10.244.1.1:8080", Some("HTTP status 503")));
    let failing = (true, vec!["default/web 10.244.1.1:8080 HTTP status 503".to_owned()]);
    assert_eq!(judged(&state), failing);
    assert!(!report(&mut state, "10.244.1.1:8080", Some("HTTP status 503")), "no news");
    assert_eq!(
        plan(&state, Instant::ZERO).links[&2].config.units[0].candidates.len(),
        2,
        "it is only worse"
    );
    assert_eq!(state.dump()["failing"][0]["why"], "HTTP status 503");
    let ready = |ready: bool| json!({"addresses": ["10.244.1.2"], "nodeName": "node1", "conditions": {"ready": ready}});
    for (is_ready, expect) in [(true, false), (false, true)] {
        let endpoints = json!([on("node1", "10.244.1.1"), ready(is_ready)]);
        let slice = slice_of("web-1", "IPv4", &[("web", 8080)], endpoints);
        state.handle(Event::Slice(Change::Apply(slice)), Instant::ZERO);
        report(&mut state, "10.244.1.2:8080", None);
        assert_eq!(judged(&state).0, expect, "what is not usable counts for nothing");
    }
    assert!(
        report(&mut state, "10.244.1.1:8080", None) && !report(&mut state, "10.244.1.1:8080", None)
    );
    assert_eq!(judged(&state), (false, vec![]));
}

#[test]
fn for_policy_cluster_a_failure_is_only_reported() {
    let mut state = cluster("Cluster", "http/x").state();
    for endpoint in ["10.244.1.1:8080", "10.244.1.2:8080"] {
        report(&mut state, endpoint, Some("HTTP status 404"));
    }
    assert_eq!(
        judged(&state),
        (false, vec!["default/web 10.244.1.1:8080 HTTP status 404".to_owned()])
    );
}

#[test]
fn where_an_endpoint_cannot_be_asked_readiness_alone_decides() {
    let fails = |annotation: &str, slices: Vec<EndpointSlice>| {
        let mut state = Cluster { slices, ..cluster("Local", annotation) }.state();
        report(&mut state, "10.244.1.1:8080", Some("why"));
        let desired = plan(&state, Instant::ZERO);
        (judged(&state).0, desired.probes.disallowed, targets(&desired).len())
    };
    let first = || slice_of("web-a", "IPv4", &[("web", 8080)], json!([on("node1", "10.244.1.1")]));
    let second = |ports: &[(&str, u16)], address: &str| {
        let endpoint = on("node1", address);
        vec![
            first(),
            slice_of(
                "web-b",
                if address.contains(':') { "IPv6" } else { "IPv4" },
                ports,
                json!([endpoint]),
            ),
        ]
    };
    assert_eq!(fails("tcp", vec![first()]), (true, 0, 1));
    assert_eq!(fails("tcp", second(&[("web", 8080)], "10.244.1.2")), (false, 0, 2));
    assert_eq!(
        fails("tcp", second(&[], "10.244.1.2")),
        (false, 0, 1),
        "its slice has no such port"
    );
    for address in ["127.0.0.1", "169.254.169.254"] {
        assert_eq!(fails("tcp", second(&[("web", 8080)], address)), (false, 1, 1), "{address}");
    }
    assert_eq!(
        fails("tcp;fall=no", vec![first()]),
        (false, 0, 0),
        "an annotation that cannot be understood"
    );
    let elsewhere = slice_of("web-b", "IPv4", &[("web", 8080)], json!([on("node2", "10.244.2.1")]));
    assert_eq!(
        fails("tcp", vec![first(), elsewhere.clone()]),
        (true, 0, 1),
        "others judge for themselves"
    );
    assert_eq!(fails("tcp", vec![elsewhere]), (false, 0, 0), "what is not here cannot fail here");
}

#[test]
fn each_family_fails_by_itself() {
    let v6 = |address: &str| AssignedAddress {
        address: address.parse().unwrap(),
        mode: Some(IpMode::Vip),
    };
    let mut service = checked("web", "Local", "tcp");
    service.assigned.push(v6("fd30::200"));
    let slices = |v6: &str| {
        let of = |family: &str, address: &str| {
            slice_of(
                &format!("web-{family}"),
                family,
                &[("web", 8080)],
                json!([on("node1", address)]),
            )
        };
        vec![of("IPv4", "10.244.1.1"), of("IPv6", v6)]
    };
    let state = |v6| {
        Cluster { services: vec![service.clone()], slices: slices(v6), ..Cluster::default() }
            .state()
    };
    let mut of_two = state("fd00::1");
    assert_eq!(targets(&plan(&of_two, Instant::ZERO)), ["10.244.1.1:8080", "[fd00::1]:8080"]);
    report(&mut of_two, "[fd00::1]:8080", Some("HTTP status 503"));
    let v6_fails = "default/web [fd00::1]:8080 HTTP status 503".to_owned();
    let (v4, v6) = ("172.30.0.200".to_owned(), "fd30::200".to_owned());
    let only_v6 = (vec![v6.clone()], vec![v6_fails.clone()]);
    assert_eq!(failing(&of_two), only_v6, "IPv4 that passes is no help to clients of IPv6");
    report(&mut of_two, "10.244.1.1:8080", Some("timeout"));
    let both = (vec![v4, v6], vec!["default/web 10.244.1.1:8080 timeout".to_owned(), v6_fails]);
    assert_eq!(failing(&of_two), both);
    // The endpoint that cannot be checked has an IPv6 address here, so it does not affect endpoints
    // of IPv4.
    let mut refused = state("fe80::1");
    assert_eq!(plan(&refused, Instant::ZERO).probes.disallowed, 1);
    assert!(!judged(&refused).0);
    report(&mut refused, "10.244.1.1:8080", Some("timeout"));
    assert!(judged(&refused).0);
}

#[test]
fn the_status_names_so_many_failing_services_by_name() {
    let names: Vec<_> = (0..FAILING_SERVICES_MAX + 20).map(|n| format!("s{n:04}")).collect();
    let slice = |name: &String| {
        let slice = slice_of(name, "IPv4", &[("web", 8080)], json!([on("node1", "10.244.1.1")]));
        EndpointSlice { service: Some(Key::new("default", name)), ..slice }
    };
    let cluster = Cluster {
        services: names.iter().map(|name| checked(name, "Local", "tcp")).collect(),
        slices: names.iter().map(slice).collect(),
        ..Cluster::default()
    };
    let mut state = cluster.state();
    for name in &names {
        let id = ProbeTarget {
            service: Key::new("default", name).into(),
            endpoint: "10.244.1.1:8080".parse().unwrap(),
        };
        state.handle(Event::EndpointHealth { id, failing: Some("why".into()) }, Instant::ZERO);
    }
    let desired = plan(&state, Instant::ZERO);
    let said: Vec<_> =
        desired.status.failing_health_checks.iter().map(|it| it.name.clone()).collect();
    assert_eq!(said, names[..FAILING_SERVICES_MAX]);
    assert_eq!(usize::try_from(desired.status.failing_services), Ok(names.len()));
    let mut same = plan(&state, Instant::ZERO);
    same.reuse_unchanged(&desired);
    assert!(Arc::ptr_eq(&same.probes.targets, &desired.probes.targets), "they are in memory once");
}

#[test]
fn a_check_connects_to_the_own_node_and_its_pods_alone() {
    let own = Node {
        addresses: addresses(&["10.0.0.1", "192.0.2.1"]).into(),
        internal_addresses: addresses(&["10.0.0.1"]).into(),
        ..node("node1")
    };
    // A network plugin may give a Node an address in the pod range of another Node.
    let other =
        Node { addresses: addresses(&["10.0.0.2", "10.244.1.250"]).into(), ..node("node2") };
    let api_server = slice_of(
        "kubernetes",
        "IPv4",
        &[("https", 8080)],
        json!([{"addresses": ["10.244.1.200"]}]),
    );
    let api_server =
        EndpointSlice { service: Some(Key::new("default", "kubernetes")), ..api_server };
    let mut bridge = link(7, "cni0");
    bridge.addresses = addresses(&["10.244.1.1"]).into();
    let asked = |address: &str, check: &str, ranges: &[&str]| {
        let endpoint = slice_of("web-1", "IPv4", &[("web", 8080)], json!([on("node1", address)]));
        let cluster = Cluster {
            nodes: vec![own.clone(), other.clone()],
            services: vec![checked("web", "Local", check)],
            slices: vec![endpoint, api_server.clone()],
            links: vec![link(2, "eth0"), bridge.clone()],
            ..Cluster::default()
        };
        let mut state = cluster.state();
        state.config.checked_ranges =
            Some(ranges.iter().map(|range| range.parse().unwrap()).collect());
        let desired = plan(&state, Instant::ZERO);
        let is_said = desired.status.unchecked.contains(&format!("{address}:"))
            && desired.status.unchecked.contains("--health-checks");
        assert_eq!(
            (desired.probes.disallowed == 1, is_said),
            (desired.probes.targets.is_empty(), desired.probes.targets.is_empty())
        );
        !desired.probes.targets.is_empty()
    };
    let cases = [
        ("10.244.1.9", true, "a pod of this node"),
        ("10.0.0.1", true, "a pod on the host's network"),
        ("192.0.2.1", false, "another address of this node"),
        ("10.244.1.1", false, "this node on a bridge of pods"),
        ("10.0.0.2", false, "another node"),
        ("10.244.1.250", false, "another node in this range"),
        ("10.244.2.9", false, "a pod of another node"),
        ("10.244.1.200", false, "the API server"),
        ("10.96.0.1", false, "a Service"),
        ("100.100.100.200", false, "a cloud's metadata"),
    ];
    for (address, expect, what) in cases {
        assert_eq!(asked(address, "tcp", &[]), expect, "{what}");
    }
    assert!(asked("10.244.1.200", "tcp:9", &[]), "another port there");
    for (address, expect) in [
        ("192.168.7.3", true),
        ("192.168.8.1", false),
        ("10.0.0.2", false),
        ("169.254.169.254", false),
    ] {
        assert_eq!(
            asked(address, "tcp", &["192.168.7.0/24", "10.0.0.0/24", "169.254.0.0/16"]),
            expect,
            "{address}"
        );
    }
}

#[test]
fn no_endpoint_is_checked_where_checks_are_off() {
    let mut state = cluster("Local", "tcp").state();
    report(&mut state, "10.244.1.1:8080", Some("why"));
    report(&mut state, "10.244.1.2:8080", Some("why"));
    assert!(judged(&state).0);
    state.config.checked_ranges = None;
    let desired = plan(&state, Instant::ZERO);
    assert_eq!((targets(&desired), judged(&state)), (vec![], (false, vec![])));
    assert!(
        desired.status.unchecked.contains("--health-checks is off"),
        "{}",
        desired.status.unchecked
    );
    let nobody = Cluster::default().plan();
    assert_eq!(nobody.status.unchecked, "", "where no Service has a check nothing is said");
}

#[test]
fn of_an_endpoint_at_the_nodes_own_address_no_more_is_said_than_that_it_fails() {
    let own = Node {
        addresses: addresses(&["10.0.0.1"]).into(),
        internal_addresses: addresses(&["10.0.0.1"]).into(),
        ..node("node1")
    };
    let slices =
        vec![slice_of("web-1", "IPv4", &[("web", 8080)], json!([on("node1", "10.0.0.1")]))];
    let mut state = Cluster { nodes: vec![own], slices, ..cluster("Local", "tcp:10250") }.state();
    report(&mut state, "10.0.0.1:10250", Some("connection refused"));
    let said =
        vec!["default/web 10.0.0.1:10250 the health check fails: see the speaker's log".to_owned()];
    assert_eq!(judged(&state), (true, said));
}

#[test]
fn the_endpoints_of_a_service_are_asked_fifty_times_a_second_at_most() {
    let paced = |count: u8, check: &str| {
        let endpoints: Vec<_> =
            (2..2 + count).map(|n| on("node1", &format!("10.244.1.{n}"))).collect();
        let slices = vec![slice_of("web-1", "IPv4", &[("web", 8080)], json!(endpoints))];
        let desired = Cluster { slices, ..cluster("Local", check) }.plan();
        let check = desired.probes.targets.values().next().expect("a target");
        assert_eq!(desired.probes.targets.len(), usize::from(count));
        assert!(desired.probes.targets.values().all(|other| other == check));
        (u64::try_from(check.interval.as_millis()).unwrap(), desired.probes.slowed)
    };
    assert_eq!(paced(1, "tcp"), (1_000, 0));
    assert_eq!(paced(50, "tcp"), (1_000, 0));
    assert_eq!(paced(60, "tcp"), (1_200, 60));
    assert_eq!(paced(60, "tcp;interval=5s"), (5_000, 0));
    assert_eq!(paced(5, "tcp;interval=100ms"), (100, 0));
    assert_eq!(paced(6, "tcp;interval=100ms"), (120, 6));
}
