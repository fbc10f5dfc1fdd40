//! Tests of health checks in the plan: the endpoints that are checked, and the effect of failures.

use ferrolb_proto::api::UncheckedService;
use ferrolb_proto::facts::{
    CheckKind, EndpointCondition, EndpointSlice, EndpointSliceObject, ServiceObject,
};
use serde_json::Value;

use super::*;
use crate::health::prober::ProbeTarget;
use crate::plan::REPORTED_SERVICES_MAX;

/// Returns a Service with a health check and three ports; `web` is the first TCP port.
pub(super) fn checked(name: &str, policy: &str, annotation: &str) -> Service {
    let object = json!({
        "metadata": {"namespace": "default", "name": name, "annotations": {"ferrolb.io/health-check": annotation}},
        "spec": {"type": "LoadBalancer", "clusterIPs": ["10.96.0.1"], "externalTrafficPolicy": policy,
            "ports": [{"name": "dns", "protocol": "UDP", "port": 53}, {"name": "web", "port": 80}, {"name": "adm", "port": 81}]},
        "status": {"loadBalancer": {"ingress": [{"ip": "172.30.0.200", "ipMode": "VIP"}]}}
    });
    Service::read(serde_json::from_value::<ServiceObject>(object).unwrap(), api::GROUP)
}

/// Returns an EndpointSlice of the Service `web` with named ports, and endpoints in JSON.
pub(super) fn slice_of(
    name: &str,
    family: &str,
    ports: &[(&str, u16)],
    endpoints: Value,
) -> EndpointSlice {
    let ports: Vec<_> = ports
        .iter()
        .map(|(name, port)| json!({"name": name, "protocol": "TCP", "port": port}))
        .collect();
    let metadata = json!({"namespace": "default", "name": name, "labels": {"kubernetes.io/service-name": "web"}});
    let object = json!({"metadata": metadata, "addressType": family, "ports": ports, "endpoints": endpoints});
    serde_json::from_value::<EndpointSliceObject>(object).unwrap().into()
}

pub(super) fn endpoint_on(node: &str, address: &str) -> Value {
    json!({"addresses": [address], "nodeName": node, "conditions": {"ready": true}})
}

/// Returns a cluster with the Service `web`, which has this traffic policy and health check, two
/// endpoints on node1 and one endpoint on node2.
fn cluster(policy: &str, annotation: &str) -> Cluster {
    let endpoints = json!([
        endpoint_on("node1", "10.244.1.1"),
        endpoint_on("node1", "10.244.1.2"),
        endpoint_on("node2", "10.244.2.1")
    ]);
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
    let event = Event::EndpointHealth { id, failing: failing.map(Into::into) };
    !state.handle(event, Instant::ZERO).is_empty()
}

/// Returns whether any address fails here, and the status messages.
fn fails_with_messages(state: &State) -> (bool, Vec<String>) {
    let (failing, messages) = failing(state);
    (!failing.is_empty(), messages)
}

/// Returns the addresses that fail here, and the status messages.
fn failing(state: &State) -> (Vec<String>, Vec<String>) {
    let desired = plan(state, Instant::ZERO);
    let messages = desired.status.failing_health_checks.iter();
    let messages = messages
        .map(|service| {
            format!(
                "{}/{} {} {}",
                service.namespace, service.name, service.endpoint, service.message
            )
        })
        .collect();
    let units = desired.links[&2].config.units.values().filter(|unit| unit.failing);
    (units.map(|unit| unit.address.to_string()).collect(), messages)
}

/// Returns the endpoints that are not checked, as the status reports them.
pub(super) fn unchecked(desired: &Desired) -> Vec<String> {
    let entry = |it: &UncheckedService| {
        let UncheckedService { namespace, name, address, reason, unchecked, endpoints } = it;
        format!("{namespace}/{name} {unchecked} of {endpoints} {address} {reason:?}")
    };
    desired.status.unchecked_health_checks.iter().map(entry).collect()
}

#[test]
fn eligible_endpoints_are_checked_at_the_port_of_their_slice() {
    let terminating = json!({"ready": false, "serving": true, "terminating": true});
    let slices = vec![
        slice_of(
            "web-a",
            "IPv4",
            &[("web", 8080), ("adm", 9)],
            json!([endpoint_on("node1", "10.244.1.1"), endpoint_on("node2", "10.244.2.1")]),
        ),
        slice_of(
            "web-b",
            "IPv4",
            &[("adm", 9), ("web", 8081)],
            json!([endpoint_on("node1", "10.244.1.2")]),
        ),
        slice_of(
            "web-c",
            "IPv6",
            &[("web", 8080)],
            json!([endpoint_on("node1", "fd00::1"), {"addresses": ["fd00::2"]}]),
        ),
        slice_of("web-d", "FQDN", &[("web", 8080)], json!([endpoint_on("node1", "a.example")])),
        slice_of(
            "web-e",
            "IPv4",
            &[("web", 8080)],
            json!([
                {"addresses": ["10.244.1.3"], "nodeName": "node1", "conditions": {"ready": false}},
                {"addresses": ["10.244.1.4"], "nodeName": "node1", "conditions": terminating}
            ]),
        ),
        slice_of("web-f", "IPv4", &[("other", 8080)], json!([endpoint_on("node1", "10.244.1.5")])),
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
    assert_eq!(targets(&with("tcp")), named, "the Service has no IPv6 address");
    let numbered = ["10.244.1.1:9", "10.244.1.2:9", "10.244.1.4:9", "10.244.1.5:9"];
    assert_eq!(targets(&with("tcp:9")), numbered, "a port number applies to all slices");
    for none in ["", "udp", "tcp;fall=0"] {
        assert_eq!(targets(&with(none)), [""; 0], "{none:?}");
    }
    let desired = with("http/x;timeout=2s;fall=5");
    let check = desired.probes.targets.values().next().unwrap();
    assert_eq!(check.kind, CheckKind::Http { path: "/x".into() });
    assert_eq!((check.interval, check.timeout), (Duration::from_secs(1), Duration::from_secs(2)));
    assert_eq!((check.fall, check.rise), (5, 3), "omitted values come from the flags");
}

#[test]
fn with_condition_ready_a_terminating_endpoint_is_not_checked() {
    let conditions = json!({"ready": false, "serving": true, "terminating": true});
    let terminating =
        json!({"addresses": ["10.244.1.2"], "nodeName": "node1", "conditions": conditions});
    let both = ["10.244.1.1:8080", "10.244.1.2:8080"];
    for (condition, expected_targets, failing) in [
        (EndpointCondition::ReadyOrTerminating, &both[..], false),
        (EndpointCondition::Ready, &both[..1], true),
    ] {
        let mut cluster = cluster("Local", "tcp");
        cluster.services[0].endpoint_condition = condition;
        cluster.slices = vec![slice_of(
            "web-1",
            "IPv4",
            &[("web", 8080)],
            json!([endpoint_on("node1", "10.244.1.1"), terminating]),
        )];
        let mut state = cluster.state();
        assert_eq!(targets(&plan(&state, Instant::ZERO)), expected_targets, "{condition:?}");
        report(&mut state, both[0], Some("why"));
        assert_eq!(fails_with_messages(&state).0, failing, "{condition:?}");
    }
}

#[test]
fn each_service_has_its_own_targets() {
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
fn a_service_fails_if_all_its_eligible_endpoints_here_fail() {
    let mut state = cluster("Local", "tcp").state();
    assert_eq!(fails_with_messages(&state), (false, vec![]));
    assert!(report(&mut state, "10.244.1.2:8080", Some("connection refused")));
    assert_eq!(fails_with_messages(&state), (false, vec![]), "one of the two endpoints passes");
    assert!(report(&mut state, "10.244.1.1:8080", Some("HTTP status 503")));
    let failing = (true, vec!["default/web 10.244.1.1:8080 HTTP status 503".to_owned()]);
    assert_eq!(fails_with_messages(&state), failing);
    assert!(
        !report(&mut state, "10.244.1.1:8080", Some("HTTP status 503")),
        "a repeated result needs no plan"
    );
    assert_eq!(
        first_unit(&plan(&state, Instant::ZERO), 2).candidates.len(),
        2,
        "a failing health check removes no candidate"
    );
    assert_eq!(state.dump()["failing"][0]["why"], "HTTP status 503");
    let ready = |ready: bool| json!({"addresses": ["10.244.1.2"], "nodeName": "node1", "conditions": {"ready": ready}});
    for (is_ready, expect) in [(true, false), (false, true)] {
        let endpoints = json!([endpoint_on("node1", "10.244.1.1"), ready(is_ready)]);
        let slice = slice_of("web-1", "IPv4", &[("web", 8080)], endpoints);
        state.handle(Event::of::<EndpointSlice>(Change::Apply(slice)), Instant::ZERO);
        report(&mut state, "10.244.1.2:8080", None);
        assert_eq!(fails_with_messages(&state).0, expect, "only eligible endpoints count");
    }
    assert!(
        report(&mut state, "10.244.1.1:8080", None) && !report(&mut state, "10.244.1.1:8080", None)
    );
    assert_eq!(fails_with_messages(&state), (false, vec![]));
}

#[test]
fn for_policy_cluster_a_failure_is_only_reported() {
    let mut state = cluster("Cluster", "http/x").state();
    for endpoint in ["10.244.1.1:8080", "10.244.1.2:8080"] {
        report(&mut state, endpoint, Some("HTTP status 404"));
    }
    assert_eq!(
        fails_with_messages(&state),
        (false, vec!["default/web 10.244.1.1:8080 HTTP status 404".to_owned()])
    );
}

#[test]
fn readiness_decides_if_an_endpoint_cannot_be_checked() {
    let fails_with_slices = |annotation: &str, slices: Vec<EndpointSlice>| {
        let mut state = Cluster { slices, ..cluster("Local", annotation) }.state();
        report(&mut state, "10.244.1.1:8080", Some("why"));
        let desired = plan(&state, Instant::ZERO);
        (fails_with_messages(&state).0, desired.probes.disallowed, targets(&desired).len())
    };
    let first =
        || slice_of("web-a", "IPv4", &[("web", 8080)], json!([endpoint_on("node1", "10.244.1.1")]));
    let second = |ports: &[(&str, u16)], address: &str| {
        let endpoint = endpoint_on("node1", address);
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
    assert_eq!(fails_with_slices("tcp", vec![first()]), (true, 0, 1));
    assert_eq!(fails_with_slices("tcp", second(&[("web", 8080)], "10.244.1.2")), (false, 0, 2));
    assert_eq!(
        fails_with_slices("tcp", second(&[], "10.244.1.2")),
        (false, 0, 1),
        "the slice of the second endpoint has no such port"
    );
    for address in ["127.0.0.1", "169.254.169.254"] {
        assert_eq!(
            fails_with_slices("tcp", second(&[("web", 8080)], address)),
            (false, 1, 1),
            "{address}"
        );
    }
    assert_eq!(
        fails_with_slices("tcp;fall=no", vec![first()]),
        (false, 0, 0),
        "an invalid annotation causes no health check"
    );
    let on_other_node =
        slice_of("web-b", "IPv4", &[("web", 8080)], json!([endpoint_on("node2", "10.244.2.1")]));
    assert_eq!(
        fails_with_slices("tcp", vec![first(), on_other_node.clone()]),
        (true, 0, 1),
        "endpoints on other nodes do not count"
    );
    assert_eq!(
        fails_with_slices("tcp", vec![on_other_node]),
        (false, 0, 0),
        "a Service without endpoints on this node does not fail here"
    );
}

#[test]
fn each_family_fails_separately() {
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
                json!([endpoint_on("node1", address)]),
            )
        };
        vec![of("IPv4", "10.244.1.1"), of("IPv6", v6)]
    };
    let state = |v6| {
        Cluster { services: vec![service.clone()], slices: slices(v6), ..Cluster::default() }
            .state()
    };
    let mut dual_stack = state("fd00::1");
    assert_eq!(targets(&plan(&dual_stack, Instant::ZERO)), ["10.244.1.1:8080", "[fd00::1]:8080"]);
    report(&mut dual_stack, "[fd00::1]:8080", Some("HTTP status 503"));
    let v6_fails = "default/web [fd00::1]:8080 HTTP status 503".to_owned();
    let (v4, v6) = ("172.30.0.200".to_owned(), "fd30::200".to_owned());
    let only_v6 = (vec![v6.clone()], vec![v6_fails.clone()]);
    assert_eq!(failing(&dual_stack), only_v6, "a passing IPv4 endpoint does not count for IPv6");
    report(&mut dual_stack, "10.244.1.1:8080", Some("timeout"));
    let both = (vec![v4, v6], vec!["default/web 10.244.1.1:8080 timeout".to_owned(), v6_fails]);
    assert_eq!(failing(&dual_stack), both);
    // The endpoint that cannot be checked has an IPv6 address here, so it does not affect endpoints
    // of IPv4.
    let mut with_disallowed = state("fe80::1");
    assert_eq!(plan(&with_disallowed, Instant::ZERO).probes.disallowed, 1);
    assert!(!fails_with_messages(&with_disallowed).0);
    report(&mut with_disallowed, "10.244.1.1:8080", Some("timeout"));
    assert!(fails_with_messages(&with_disallowed).0);
}

#[test]
fn the_status_lists_a_limited_number_of_failing_services() {
    let names: Vec<_> = (0..REPORTED_SERVICES_MAX + 20).map(|n| format!("s{n:04}")).collect();
    let slice = |name: &String| {
        let slice =
            slice_of(name, "IPv4", &[("web", 8080)], json!([endpoint_on("node1", "10.244.1.1")]));
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
    let listed: Vec<_> =
        desired.status.failing_health_checks.iter().map(|service| service.name.clone()).collect();
    assert_eq!(listed, names[..REPORTED_SERVICES_MAX]);
    assert_eq!(usize::try_from(desired.status.failing_services), Ok(names.len()));
}

#[test]
fn a_check_connects_only_to_the_own_node_and_its_pods() {
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
    let result = |address: &str, check: &str, ranges: &[&str]| {
        let endpoint =
            slice_of("web-1", "IPv4", &[("web", 8080)], json!([endpoint_on("node1", address)]));
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
        let is_checked = !desired.probes.targets.is_empty();
        let reported = unchecked(&desired);
        let first = reported.first().map(|text| text.rsplit_once(' ').unwrap().1.to_owned());
        let text = format!("default/web 1 of 1 {address}");
        assert_eq!(reported.iter().any(|it| it.starts_with(&text)), !is_checked, "{reported:?}");
        assert_eq!(desired.probes.disallowed == 1, !is_checked);
        first.unwrap_or_else(|| "checked".to_owned())
    };
    let cases = [
        ("10.244.1.9", "checked", "a pod of this node"),
        ("10.0.0.1", "checked", "a pod on the host's network"),
        ("192.0.2.1", "Excluded", "another address of this node"),
        ("10.244.1.1", "Excluded", "this node on a bridge of pods"),
        ("10.0.0.2", "Excluded", "another node"),
        ("10.244.1.250", "Excluded", "another node in this range"),
        ("10.244.2.9", "OutsideRanges", "a pod of another node"),
        ("10.244.1.200", "Excluded", "the API server"),
        ("10.96.0.1", "OutsideRanges", "a Service"),
        ("100.100.100.200", "OutsideRanges", "a cloud's metadata"),
    ];
    for (address, expect, what) in cases {
        assert_eq!(result(address, "tcp", &[]), expect, "{address} is {what}");
    }
    assert_eq!(result("10.244.1.200", "tcp:9", &[]), "checked", "another port may be checked");
    for (address, expect) in [
        ("192.168.7.3", "checked"),
        ("192.168.8.1", "OutsideRanges"),
        ("10.0.0.2", "Excluded"),
        ("169.254.169.254", "Excluded"),
    ] {
        let ranges = ["192.168.7.0/24", "10.0.0.0/24", "169.254.0.0/16"];
        assert_eq!(result(address, "tcp", &ranges), expect, "{address}");
    }
}

#[test]
fn no_endpoint_is_checked_while_checks_are_off() {
    let mut state = cluster("Local", "tcp").state();
    report(&mut state, "10.244.1.1:8080", Some("why"));
    report(&mut state, "10.244.1.2:8080", Some("why"));
    assert!(fails_with_messages(&state).0);
    state.config.checked_ranges = None;
    let desired = plan(&state, Instant::ZERO);
    assert_eq!((targets(&desired), fails_with_messages(&state)), (vec![], (false, vec![])));
    assert_eq!(unchecked(&desired), ["default/web 2 of 2 10.244.1.1 Off"]);
    let without_checks = Cluster::default().plan();
    assert_eq!(unchecked(&without_checks), [""; 0], "nothing without a health check");
}

#[test]
fn the_reason_for_an_endpoint_at_the_internal_ip_is_hidden() {
    let own = Node {
        addresses: addresses(&["10.0.0.1"]).into(),
        internal_addresses: addresses(&["10.0.0.1"]).into(),
        ..node("node1")
    };
    let slices = vec![slice_of(
        "web-1",
        "IPv4",
        &[("web", 8080)],
        json!([endpoint_on("node1", "10.0.0.1")]),
    )];
    let mut state = Cluster { nodes: vec![own], slices, ..cluster("Local", "tcp:10250") }.state();
    report(&mut state, "10.0.0.1:10250", Some("connection refused"));
    let messages =
        vec!["default/web 10.0.0.1:10250 the health check fails: see the speaker's log".to_owned()];
    assert_eq!(fails_with_messages(&state), (true, messages));
}

#[test]
fn a_service_gets_at_most_fifty_checks_per_second() {
    let interval_of = |count: u8, check: &str| {
        let endpoints: Vec<_> =
            (2..2 + count).map(|n| endpoint_on("node1", &format!("10.244.1.{n}"))).collect();
        let slices = vec![slice_of("web-1", "IPv4", &[("web", 8080)], json!(endpoints))];
        let desired = Cluster { slices, ..cluster("Local", check) }.plan();
        let check = desired.probes.targets.values().next().expect("a target");
        assert_eq!(desired.probes.targets.len(), usize::from(count));
        assert!(desired.probes.targets.values().all(|other| other == check));
        (u64::try_from(check.interval.as_millis()).unwrap(), desired.probes.slowed)
    };
    assert_eq!(interval_of(1, "tcp"), (1_000, 0));
    assert_eq!(interval_of(50, "tcp"), (1_000, 0));
    assert_eq!(interval_of(60, "tcp"), (1_200, 60));
    assert_eq!(interval_of(60, "tcp;interval=5s"), (5_000, 0));
    assert_eq!(interval_of(5, "tcp;interval=100ms"), (100, 0));
    assert_eq!(interval_of(6, "tcp;interval=100ms"), (120, 6));
}
