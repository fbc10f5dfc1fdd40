//! Warning cases: topologies, and the expected warnings in the condition `Announced` of Service
//! `a`.

use ferrolb_proto::facts::ServicePort;

use super::*;

/// A case: its name, its topology, and the expected warnings.
type WarningCase = (&'static str, Topology, String);

const IPV4_ADDRESS: [&str; 1] = ["10.0.0.0"];
const BOTH_ADDRESSES: [&str; 2] = ["10.0.0.0", "fd00::1"];
const REFUSED_CAUSE: &str = "(10.1.2.3:8080: connection refused)";
const READINESS_EFFECT: &str = "so readiness alone selects the node";
const CHECK_REMEDY: &str = "check the pods, and the annotation ferrolb.io/health-check";

pub(super) fn all() -> impl Iterator<Item = WarningCase> {
    [no_warnings(), health_checks(), unchecked(), owners(), families(), others()]
        .into_iter()
        .flatten()
}

fn healthy(node: &str) -> Speaker {
    speaker(node, &[])
}

/// Returns a speaker that announces nothing and reports that the endpoints fail their health check.
fn with_failing_check(node: &str) -> Speaker {
    with_failing_checks(node, &[], &[("a", "10.1.2.3:8080: connection refused")])
}

/// Returns the speaker of n1, which owns the IPv4 address.
fn owner() -> Speaker {
    speaker("n1", &IPV4_ADDRESS)
}

/// Returns a topology with this speaker for n1. The nodes n2 and n3 are healthy and announce
/// nothing.
fn with_owner(owner: Speaker) -> Topology {
    topology(vec![owner, healthy("n2"), healthy("n3")])
}

fn local(service: Service) -> Service {
    Service { policy: TrafficPolicy::Local, ..service }
}

/// Returns a Service that shares its address under key `k`, with policy Local.
fn sharing(name: &str, port: u16) -> Service {
    let mut service = local(service(name));
    service.demand.request.sharing_key = Some("k".into());
    service.demand.ports = [ServicePort { protocol: "TCP".into(), port }].into();
    service
}

/// Returns slices of both families, with endpoints on these nodes.
fn dual_stack_slices(ipv4: &[&str], ipv6: &[&str]) -> Vec<EndpointSlice> {
    vec![endpoint_slice("a", ipv4), with_family(Family::V6, endpoint_slice("a", ipv6))]
}

/// Returns a slice with an endpoint on n2 and an endpoint without a node name.
fn slice_without_node() -> EndpointSlice {
    let mut slice = endpoint_slice("a", &["n2", "n3"]);
    slice.endpoints[1].node = None;
    slice
}

fn no_warnings() -> Vec<WarningCase> {
    let mut stale_report = vec![owner(), with_failing_check("n2"), healthy("n3")];
    stale_report[0].interfaces[0].hello_senders = ["n3".into()].into();
    stale_report[2].interfaces[0].hello_senders = ["n1".into()].into();
    let cases = [
        ("no problem", with_owner(owner())),
        (
            "a node that has lost its endpoints reports a failing check",
            Topology {
                slices: vec![endpoint_slice("a", &["n1"])],
                ..topology(vec![owner(), with_failing_check("n2"), healthy("n3")])
            },
        ),
        ("a failed speaker reports a failing check", topology(stale_report)),
        (
            "a failing check of another Service",
            topology(vec![owner(), with_failing_checks("n2", &[], &[("b", "x")]), healthy("n3")]),
        ),
        (
            "a failing check of a family without an address",
            Topology {
                slices: dual_stack_slices(&["n1", "n2"], &["n1", "n2"]),
                ..with_owner(with_failing_checks("n1", &IPV4_ADDRESS, &[("a", "[fd00::1]:80: x")]))
            },
        ),
    ];
    cases.map(|(name, topology)| (name, topology, String::new())).into()
}

/// Returns cases in which health checks fail on nodes that do not announce the address, or on all
/// nodes.
fn health_checks() -> Vec<WarningCase> {
    let one_fails = || topology(vec![owner(), with_failing_check("n2"), healthy("n3")]);
    vec![
        (
            "the check fails on one node",
            one_fails(),
            format!(
                "all endpoints on n2 fail their health check {REFUSED_CAUSE}: check these pods"
            ),
        ),
        (
            "the check fails on two nodes",
            Topology {
                services: vec![local(service("a"))],
                ..topology(vec![
                    owner(),
                    with_failing_check("n2"),
                    with_failing_checks("n3", &[], &[("a", "x"), ("b", "y")]),
                ])
            },
            "all endpoints on n2, n3 fail their health check (10.1.2.3:8080: connection refused, \
             x): check these pods"
                .to_owned(),
        ),
        (
            "the check fails on all nodes with endpoints",
            Topology { slices: vec![endpoint_slice("a", &["n2"])], ..one_fails() },
            format!("all endpoints fail their health check {REFUSED_CAUSE}: {CHECK_REMEDY}"),
        ),
        (
            "no speaker checks an endpoint without a node name",
            Topology { slices: vec![slice_without_node()], ..one_fails() },
            format!(
                "all endpoints on n2 fail their health check {REFUSED_CAUSE}: check these pods"
            ),
        ),
        (
            "with policy Local an endpoint without a node name does not count",
            Topology {
                slices: vec![slice_without_node()],
                services: vec![local(service("a"))],
                ..topology(vec![
                    healthy("n1"),
                    with_failing_checks(
                        "n2",
                        &IPV4_ADDRESS,
                        &[("a", "10.1.2.3:8080: connection refused")],
                    ),
                    healthy("n3"),
                ])
            },
            format!(
                "all endpoints fail their health check {REFUSED_CAUSE}, {READINESS_EFFECT}: {CHECK_REMEDY}"
            ),
        ),
    ]
}

/// Returns cases in which endpoints are not checked.
fn unchecked() -> Vec<WarningCase> {
    use UncheckedReason::{NoPort, Off, OutsideRanges};
    let report = |node, address| with_unchecked(node, &[(address, OutsideRanges, [1, 2])]);
    let with = |service: Service, n2: Speaker, n3: Speaker| Topology {
        services: vec![service],
        ..topology(vec![owner(), n2, n3])
    };
    let both = || dual_stack_slices(&["n2", "n3"], &["n2"]);
    let two = [("10.1.2.3", NoPort, [2, 2]), ("fd00::9", OutsideRanges, [1, 3])];
    let text = |endpoints, examples| {
        format!(
            "{endpoints} are not checked ({examples}), so only readiness counts: the \
             speakers may not contact these addresses. Add the pods' range of each family to \
             --health-checks (chart: speaker.extraArgs)"
        )
    };
    let without_node = "endpoints without nodeName are not checked: write nodeName into the \
                        EndpointSlices, or remove the annotation ferrolb.io/health-check";
    vec![
        (
            "endpoints of two nodes are not checked",
            with(with_check(service("a")), report("n2", "10.1.2.4"), report("n3", "10.1.2.3")),
            text("2 of 4 endpoints on n2, n3", "10.1.2.4"),
        ),
        (
            "one node has the worse reason",
            with(
                with_check(service("a")),
                with_unchecked("n2", &[("10.1.2.4", Off, [1, 1])]),
                report("n3", "10.1.2.3"),
            ),
            "2 of 3 endpoints on n2, n3 are not checked (10.1.2.4), so only readiness counts: \
             --health-checks of the speakers is off. Set it to node, or remove the annotation \
             ferrolb.io/health-check"
                .to_owned(),
        ),
        (
            "both families have unchecked endpoints",
            Topology {
                services: vec![with_check(dual_stack_service("a"))],
                slices: both(),
                ..topology(vec![
                    speaker("n1", &BOTH_ADDRESSES),
                    with_unchecked("n2", &two),
                    healthy("n3"),
                ])
            },
            text("3 of 5 endpoints on n2", "fd00::9"),
        ),
        (
            "a node reports a family of which it has no endpoint any more",
            Topology {
                slices: both(),
                ..with(with_check(service("a")), healthy("n2"), report("n3", "fd00::9"))
            },
            String::new(),
        ),
        (
            "a Service without a health check is still reported",
            with(service("a"), report("n2", "10.1.2.4"), healthy("n3")),
            String::new(),
        ),
        (
            "an endpoint has no node",
            Topology {
                slices: vec![slice_without_node()],
                ..with(with_check(service("a")), healthy("n2"), healthy("n3"))
            },
            without_node.to_owned(),
        ),
    ]
}

/// Returns cases in which the owner drains, or its kube-proxy or its endpoints are unhealthy.
fn owners() -> Vec<WarningCase> {
    vec![
        (
            "an unhealthy kube-proxy",
            with_owner(with_unhealthy_kube_proxy("n1", &IPV4_ADDRESS, "kube-proxy says 503")),
            "n1 announces it although its kube-proxy is unhealthy (kube-proxy says 503): no \
             healthier node is eligible. \
             Check that node, or make another one eligible"
                .to_owned(),
        ),
        (
            "an unhealthy kube-proxy without a cause",
            topology(vec![
                with_unhealthy_kube_proxy("n1", &IPV4_ADDRESS, ""),
                with_unhealthy_kube_proxy("n2", &[], "x"),
                healthy("n3"),
            ]),
            "n1 announces it although its kube-proxy is unhealthy: no healthier node is eligible. \
             Check that node, or make another one eligible"
                .to_owned(),
        ),
        (
            "the check fails on the owner",
            Topology {
                services: vec![local(service("a"))],
                ..with_owner(with_failing_checks("n1", &IPV4_ADDRESS, &[("a", "x")]))
            },
            "all endpoints on n1 fail their health check (x): check these pods; n1 announces it \
             although endpoints on it fail their health check: no healthier node is eligible. \
             Check that node, or make another one eligible"
                .to_owned(),
        ),
        (
            "the check of a sharing Service fails on the owner",
            Topology {
                services: vec![sharing("a", 80), sharing("b", 81)],
                slices: vec![
                    endpoint_slice("a", &["n1", "n2"]),
                    endpoint_slice("b", &["n1", "n2"]),
                ],
                ..with_owner(with_failing_checks("n1", &IPV4_ADDRESS, &[("b", "x")]))
            },
            "n1 announces it although endpoints on it fail their health check: no healthier node \
             is eligible. \
             Check that node, or make another one eligible"
                .to_owned(),
        ),
        (
            "a draining owner",
            with_owner(Speaker { draining: true, ..owner() }),
            "n1 announces it although it is draining: no healthier node is eligible. \
             Check that node, or make another one eligible"
                .to_owned(),
        ),
    ]
}

fn families() -> Vec<WarningCase> {
    vec![
        (
            "the check of one of two families fails on the owner",
            Topology {
                services: vec![local(dual_stack_service("a"))],
                slices: dual_stack_slices(&["n1", "n2"], &["n1", "n2"]),
                ..with_owner(with_failing_checks("n1", &BOTH_ADDRESSES, &[("a", "[fd00::1]:80: x")]))
            },
            "all IPv6 endpoints on n1 fail their health check ([fd00::1]:80: x): check these pods; \
             n1 announces it although endpoints on it fail their health check: no healthier node \
             is eligible. \
             Check that node, or make another one eligible"
                .to_owned(),
        ),
        (
            "all IPv6 endpoints fail, and some of the IPv4 endpoints",
            Topology {
                services: vec![local(dual_stack_service("a"))],
                slices: dual_stack_slices(&["n1", "n2"], &["n1"]),
                ..with_owner(with_failing_checks("n1", &BOTH_ADDRESSES, &[("a", "x"), ("a", "[fd00::1]:80: y")]))
            },
            format!(
                "all IPv4 endpoints on n1 fail their health check (x): check these pods; all IPv6 \
                 endpoints fail their health check ([fd00::1]:80: y), {READINESS_EFFECT}: {CHECK_REMEDY}; n1 \
                 announces it although endpoints on it fail their health check: no healthier node \
                 is eligible. \
             Check that node, or make another one eligible"
            ),
        ),
    ]
}

fn others() -> Vec<WarningCase> {
    vec![
        (
            "an invalid annotation",
            Topology { services: vec![with_invalid_annotation("a")], ..with_owner(owner()) },
            INVALID_ANNOTATION.to_owned(),
        ),
        (
            "the exclude label on every Node",
            Topology { nodes: excluded_nodes(), ..with_owner(owner()) },
            LABEL_IGNORED.to_owned(),
        ),
        (
            "all warnings in their order",
            Topology {
                nodes: excluded_nodes(),
                services: vec![Service {
                    families: vec![Family::V4, Family::V6],
                    ..with_invalid_annotation("a")
                }],
                ..topology(vec![
                    with_unhealthy_kube_proxy("n1", &BOTH_ADDRESSES, "x"),
                    with_failing_check("n2"),
                    healthy("n3"),
                ])
            },
            format!(
                "all IPv4 endpoints on n2 fail their health check {REFUSED_CAUSE}: check these pods; \
                 {INVALID_ANNOTATION}; n1 announces it although its \
                 kube-proxy is unhealthy (x): no healthier node is eligible. \
             Check that node, or make another one eligible; {LABEL_IGNORED}"
            ),
        ),
    ]
}
