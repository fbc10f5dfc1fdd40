//! Clusters, and the warnings in the `Announced` condition of their Service.

use ferrolb_proto::facts::ServicePort;

use super::*;

/// The name of the case, its cluster, and the warnings.
type Case = (&'static str, Cast, String);

const IPV4: [&str; 1] = ["10.0.0.0"];
const BOTH: [&str; 2] = ["10.0.0.0", "fd00::1"];
const REFUSED: &str = "(10.1.2.3:8080: connection refused)";
const ALONE: &str = "so readiness alone selects the node";
const CHECK: &str = "check the pods, and the annotation ferrolb.io/health-check";

pub(super) fn all() -> impl Iterator<Item = Case> {
    [no_warnings(), health_checks(), owners(), families(), others()].into_iter().flatten()
}

fn healthy(node: &str) -> Speaker {
    speaker(node, &[])
}

/// Speaker that announces nothing and whose endpoints fail their health check.
fn fails(node: &str) -> Speaker {
    failing(node, &[], &[("a", "10.1.2.3:8080: connection refused")])
}

fn n1() -> Speaker {
    speaker("n1", &IPV4)
}

/// Cluster in which n2 and n3 are healthy and announce nothing.
fn with_n1(n1: Speaker) -> Cast {
    cast(vec![n1, healthy("n2"), healthy("n3")])
}

fn local(service: Service) -> Service {
    Service { policy: TrafficPolicy::Local, ..service }
}

/// Service that shares its address under key `k`, with policy Local.
fn sharing(name: &str, port: u16) -> Service {
    let mut service = local(service(name));
    service.demand.request.sharing_key = Some("k".into());
    service.demand.ports = [ServicePort { protocol: "TCP".into(), port }].into();
    service
}

/// Slices of both families, with endpoints on these nodes.
fn both_slices(ipv4: &[&str], ipv6: &[&str]) -> Vec<EndpointSlice> {
    vec![slice("a", ipv4), of(Family::V6, slice("a", ipv6))]
}

/// Slice with an endpoint on n2 and one that is on no node.
fn nodeless() -> EndpointSlice {
    let mut slice = slice("a", &["n2", "n3"]);
    slice.endpoints[1].node = None;
    slice
}

fn no_warnings() -> Vec<Case> {
    let mut gone = vec![n1(), fails("n2"), healthy("n3")];
    gone[0].interfaces[0].hello_senders = ["n3".into()].into();
    gone[2].interfaces[0].hello_senders = ["n1".into()].into();
    let cases = [
        ("nothing", with_n1(n1())),
        (
            "what fails is gone",
            Cast {
                slices: vec![slice("a", &["n1"])],
                ..cast(vec![n1(), fails("n2"), healthy("n3")])
            },
        ),
        ("who says so is gone", cast(gone)),
        ("another Service", cast(vec![n1(), failing("n2", &[], &[("b", "x")]), healthy("n3")])),
        (
            "a family of which it has no address",
            Cast {
                slices: both_slices(&["n1", "n2"], &["n1", "n2"]),
                ..with_n1(failing("n1", &IPV4, &[("a", "[fd00::1]:80: x")]))
            },
        ),
    ];
    cases.map(|(name, cast)| (name, cast, String::new())).into()
}

/// Returns cases of failed health checks on nodes that do not announce the address, and of all
/// endpoints.
fn health_checks() -> Vec<Case> {
    let one_fails = || cast(vec![n1(), fails("n2"), healthy("n3")]);
    vec![
        (
            "one node fails",
            one_fails(),
            format!("all endpoints on n2 fail their health check {REFUSED}: check these pods"),
        ),
        (
            "two fail",
            Cast {
                services: vec![local(service("a"))],
                ..cast(vec![n1(), fails("n2"), failing("n3", &[], &[("a", "x"), ("b", "y")])])
            },
            "all endpoints on n2, n3 fail their health check (10.1.2.3:8080: connection refused, \
             x): check these pods"
                .to_owned(),
        ),
        (
            "all that have endpoints fail",
            Cast { slices: vec![slice("a", &["n2"])], ..one_fails() },
            format!("all endpoints fail their health check {REFUSED}: {CHECK}"),
        ),
        (
            "nobody checks an endpoint on no node",
            Cast { slices: vec![nodeless()], ..one_fails() },
            format!("all endpoints on n2 fail their health check {REFUSED}: check these pods"),
        ),
        (
            "and with Local nobody is sent there",
            Cast {
                slices: vec![nodeless()],
                services: vec![local(service("a"))],
                ..cast(vec![
                    healthy("n1"),
                    failing("n2", &IPV4, &[("a", "10.1.2.3:8080: connection refused")]),
                    healthy("n3"),
                ])
            },
            format!("all endpoints fail their health check {REFUSED}, {ALONE}: {CHECK}"),
        ),
    ]
}

/// Returns cases in which the owner is not healthy.
fn owners() -> Vec<Case> {
    vec![
        (
            "the data path",
            with_n1(broken("n1", &IPV4, "kube-proxy says 503")),
            "n1 announces it although its kube-proxy is unhealthy (kube-proxy says 503): no \
             healthier node is eligible"
                .to_owned(),
        ),
        (
            "the data path, without words",
            cast(vec![broken("n1", &IPV4, ""), broken("n2", &[], "x"), healthy("n3")]),
            "n1 announces it although its kube-proxy is unhealthy: no healthier node is eligible"
                .to_owned(),
        ),
        (
            "a node that fails",
            Cast {
                services: vec![local(service("a"))],
                ..with_n1(failing("n1", &IPV4, &[("a", "x")]))
            },
            "all endpoints on n1 fail their health check (x): check these pods; n1 announces it \
             although endpoints on it fail their health check: no healthier node is eligible"
                .to_owned(),
        ),
        (
            "a node where what it shares with fails",
            Cast {
                services: vec![sharing("a", 80), sharing("b", 81)],
                slices: vec![slice("a", &["n1", "n2"]), slice("b", &["n1", "n2"])],
                ..with_n1(failing("n1", &IPV4, &[("b", "x")]))
            },
            "n1 announces it although endpoints on it fail their health check: no healthier node \
             is eligible"
                .to_owned(),
        ),
        (
            "draining",
            with_n1(Speaker { draining: true, ..n1() }),
            "n1 announces it although it is draining: no healthier node is eligible".to_owned(),
        ),
    ]
}

fn families() -> Vec<Case> {
    vec![
        (
            "a family without endpoints",
            Cast { services: vec![dual("a")], ..with_n1(speaker("n1", &BOTH)) },
            "fd00::1: no IPv6 endpoint is eligible. Add IPv6 to the pods, or set \
             spec.ipFamilyPolicy to SingleStack"
                .to_owned(),
        ),
        (
            "one family of two",
            Cast {
                services: vec![local(dual("a"))],
                slices: both_slices(&["n1", "n2"], &["n1", "n2"]),
                ..with_n1(failing("n1", &BOTH, &[("a", "[fd00::1]:80: x")]))
            },
            "all IPv6 endpoints on n1 fail their health check ([fd00::1]:80: x): check these pods; \
             n1 announces it although endpoints on it fail their health check: no healthier node \
             is eligible"
                .to_owned(),
        ),
        (
            "all of one family, and some of the other",
            Cast {
                services: vec![local(dual("a"))],
                slices: both_slices(&["n1", "n2"], &["n1"]),
                ..with_n1(failing("n1", &BOTH, &[("a", "x"), ("a", "[fd00::1]:80: y")]))
            },
            format!(
                "all IPv4 endpoints on n1 fail their health check (x): check these pods; all IPv6 \
                 endpoints fail their health check ([fd00::1]:80: y), {ALONE}: {CHECK}; n1 \
                 announces it although endpoints on it fail their health check: no healthier node \
                 is eligible"
            ),
        ),
    ]
}

fn others() -> Vec<Case> {
    vec![
        ("a slip", Cast { services: vec![slip("a")], ..with_n1(n1()) }, SLIP.to_owned()),
        ("labels", Cast { nodes: excluded(), ..with_n1(n1()) }, LABELLED.to_owned()),
        (
            "all at once, in their order",
            Cast {
                nodes: excluded(),
                services: vec![Service { families: vec![Family::V4, Family::V6], ..slip("a") }],
                ..cast(vec![broken("n1", &BOTH, "x"), fails("n2"), healthy("n3")])
            },
            format!(
                "all IPv4 endpoints on n2 fail their health check {REFUSED}: check these pods; \
                 fd00::1: no IPv6 endpoint is eligible. Add IPv6 to the pods, or set \
                 spec.ipFamilyPolicy to SingleStack; {SLIP}; n1 announces it although its \
                 kube-proxy is unhealthy (x): no healthier node is eligible; {LABELLED}"
            ),
        ),
    ]
}
