//! Warnings in the condition `Announced`: their messages and order, and when they are written.

mod cases;

use ferrolb_proto::api::{KubeProxyState, KubeProxyStatus, UncheckedReason};
use ferrolb_proto::facts::{FailingHealthCheck, Node, ServiceObject, UncheckedHealthCheck};

use super::*;
use crate::state::announced::CONDITION_INTERVAL;

/// Returns a speaker with these addresses and failing health checks, each with its Service and its
/// cause. A cause that begins with a bracket names an IPv6 endpoint.
fn with_failing_checks(node: &str, addresses: &[&str], failing: &[(&str, &str)]) -> Speaker {
    let family = |why: &str| if why.starts_with('[') { Family::V6 } else { Family::V4 };
    let failing = failing.iter().map(|(name, why)| FailingHealthCheck {
        service: key(name),
        family: family(why),
        why: (*why).into(),
    });
    Speaker { failing: failing.collect(), ..speaker(node, addresses) }
}

/// Returns a speaker that announces nothing, with unchecked endpoints of Service `a`: for each
/// family an address, the reason, and the numbers of unchecked and of all endpoints.
fn with_unchecked(node: &str, families: &[(&str, UncheckedReason, [u64; 2])]) -> Speaker {
    let unchecked =
        families.iter().map(|(address, reason, [unchecked, endpoints])| UncheckedHealthCheck {
            service: key("a"),
            address: address.parse().unwrap(),
            reason: *reason,
            unchecked: *unchecked,
            endpoints: *endpoints,
        });
    Speaker { unchecked: unchecked.collect(), ..speaker(node, &[]) }
}

/// Returns the Service with a health check.
fn with_check(service: Service) -> Service {
    let object = json!({"metadata": {"annotations": {"ferrolb.io/health-check": "tcp:80"}}});
    let read = Service::read(serde_json::from_value::<ServiceObject>(object).unwrap(), api::GROUP);
    Service { health_check_annotation: read.health_check_annotation, ..service }
}

/// Returns a speaker with these addresses and an unhealthy kube-proxy.
fn with_unhealthy_kube_proxy(node: &str, addresses: &[&str], why: &str) -> Speaker {
    let path = KubeProxyStatus {
        state: KubeProxyState::Unhealthy,
        message: why.to_owned(),
        last_healthy: None,
    };
    Speaker { kube_proxy: Some(Box::new(path)), ..speaker(node, addresses) }
}

/// Returns a Service with an invalid annotation `ferrolb.io/endpoint-condition`.
fn with_invalid_annotation(name: &str) -> Service {
    let object = json!({"metadata": {"annotations": {"ferrolb.io/endpoint-condition": "Ready"}}});
    let read = Service::read(serde_json::from_value::<ServiceObject>(object).unwrap(), api::GROUP);
    Service { endpoint_condition_problem: read.endpoint_condition_problem, ..service(name) }
}

const INVALID_ANNOTATION: &str = "annotation ferrolb.io/endpoint-condition: \"Ready\" is not valid: write ready \
                    or serving, or remove it; until then only the readiness of endpoints counts";
const LABEL_IGNORED: &str = "every Node has the label \
                        node.kubernetes.io/exclude-from-external-load-balancers, so it is ignored: \
                        remove it from the nodes that should announce";

/// Returns the default topology with other speakers.
fn topology(speakers: Vec<Speaker>) -> Topology {
    Topology { speakers, ..Topology::default() }
}

fn excluded_nodes() -> Vec<Node> {
    ["n1", "n2", "n3"].map(|name| Node { excluded: true, ..ready_node(name) }).into()
}

/// Returns the warnings of Service `a`: the message without its first part, which names the owners.
fn warnings(cluster: &Cluster) -> String {
    let (reason, message) = reason_and_message(cluster, "a");
    assert_eq!(reason, "Announced", "{message}");
    message.split_once("; ").map(|(_, rest)| rest.to_owned()).unwrap_or_default()
}

#[test]
fn every_warning_is_in_the_condition() {
    for (case, topology, expect) in cases::all() {
        assert_eq!(warnings(&topology.settled_cluster()), expect, "{case}");
    }
}

#[test]
fn a_warning_names_at_most_three_nodes() {
    let names: Vec<_> = (1..=6).map(|n| format!("n{n}")).collect();
    let nodes: Vec<&str> = names.iter().map(String::as_str).collect();
    let speaker_of = |node: &&str| {
        let mut speaker = with_failing_checks(
            node,
            if *node == "n1" { &["10.0.0.0"] } else { &[] },
            &[("a", &"x".repeat(160))],
        );
        speaker.interfaces[0].hello_senders =
            nodes.iter().filter(|other| *other != node).map(|name| (*name).into()).collect();
        if *node == "n1" { Speaker { failing: Box::default(), ..speaker } } else { speaker }
    };
    let topology = Topology {
        nodes: nodes.iter().map(|name| ready_node(name)).collect(),
        slices: vec![endpoint_slice("a", &nodes)],
        speakers: nodes.iter().map(speaker_of).collect(),
        ..Topology::default()
    };
    let message = warnings(&topology.settled_cluster());
    assert!(
        message.starts_with("all endpoints on n2, n3, n4 and 2 more fail their health check (xxx"),
        "{message}"
    );
    assert!(
        message.ends_with("xxx and 2 more): check these pods") && message.len() < 600,
        "{message}"
    );
}

#[test]
fn the_label_warning_requires_that_every_node_has_the_label() {
    let excluded = |name| Node { excluded: true, ..ready_node(name) };
    let speakers = vec![speaker("n1", &[]), speaker("n2", &[]), speaker("n3", &["10.0.0.0"])];
    let mut cluster = Topology {
        nodes: vec![excluded("n1"), excluded("n2"), ready_node("n3")],
        ..topology(speakers)
    }
    .settled_cluster();
    let mut after_node_change = |change| {
        cluster.handle(Event::of::<Node>(change));
        cluster.settle();
        warnings(&cluster)
    };
    assert_eq!(
        after_node_change(Change::Apply(ready_node("n3"))),
        "",
        "n3 does not have the label"
    );
    assert_eq!(after_node_change(Change::Apply(excluded("n3"))), LABEL_IGNORED);
    assert_eq!(
        after_node_change(Change::Apply(ready_node("n4"))),
        "",
        "the new node n4 does not have the label"
    );
    assert_eq!(
        after_node_change(Change::Delete(Key::new("", "n4"))),
        LABEL_IGNORED,
        "n4 is deleted"
    );
    let mut alone = speaker("n1", &["10.0.0.0"]);
    alone.interfaces[0].hello_senders = Box::default();
    let alone = Topology { nodes: vec![excluded("n1")], ..topology(vec![alone]) };
    assert_eq!(
        warnings(&alone.settled_cluster()),
        "",
        "another node could not be better than the only one of a cluster"
    );
}

#[test]
fn only_the_annotation_warning_applies_to_unannounced_services() {
    let topology = Topology {
        nodes: excluded_nodes(),
        services: vec![with_invalid_annotation("a")],
        slices: vec![],
        speakers: vec![
            with_unhealthy_kube_proxy("n1", &[], "x"),
            with_failing_checks("n2", &[], &[("a", "x")]),
            speaker("n3", &[]),
        ],
        ..Topology::default()
    };
    let (reason, message) = reason_and_message(&topology.settled_cluster(), "a");
    let rest = message.split_once(": check its pods and spec.selector; ").map(|(_, rest)| rest);
    assert_eq!((&*reason, rest), ("NoEndpoints", Some(INVALID_ANNOTATION)));
}

/// Returns the Services whose statuses are due.
fn due_services(cluster: &Cluster) -> Vec<Target> {
    let writes = cluster.writes().into_iter().map(|write| write.target());
    writes.filter(|target| matches!(target, Target::Service(_))).collect()
}

#[test]
fn a_failing_check_changes_one_condition_and_sends_no_event() {
    let slices = vec![endpoint_slice("a", &["n1", "n2"]), endpoint_slice("b", &["n1", "n2"])];
    let speakers =
        || vec![speaker("n1", &["10.0.0.0", "10.0.0.1"]), speaker("n2", &[]), speaker("n3", &[])];
    let services = vec![service("a"), service("b")];
    let mut cluster = Topology { services, slices, ..topology(speakers()) }.settled_cluster();
    let events = cluster.notices.len();
    cluster.now = cluster.now + CONDITION_INTERVAL;
    report_speaker(
        &mut cluster,
        with_failing_checks("n1", &["10.0.0.0", "10.0.0.1"], &[("b", "10.1.2.3:80: timeout")]),
    );
    assert_eq!(due_services(&cluster), [Target::Service(key("b"))]);
    cluster.settle();
    let warning =
        "all endpoints on n1 fail their health check (10.1.2.3:80: timeout): check these pods";
    assert_eq!(reason_and_message(&cluster, "b").1, format!("10.0.0.1 from n1 (eth0); {warning}"));
    // The address moves to the node whose health check passes.
    report_speaker(
        &mut cluster,
        with_failing_checks("n1", &["10.0.0.0"], &[("b", "10.1.2.3:80: timeout")]),
    );
    report_speaker(&mut cluster, speaker("n2", &["10.0.0.1"]));
    cluster.settle();
    assert_eq!(reason_and_message(&cluster, "b").1, format!("10.0.0.1 from n2 (eth0); {warning}"));
    report_speaker(&mut cluster, speaker("n1", &["10.0.0.0"]));
    cluster.settle();
    assert_eq!(reason_and_message(&cluster, "b").1, "10.0.0.1 from n2 (eth0)");
    assert_eq!(cluster.notices.len(), events, "{:?}", cluster.notices);
}

#[test]
fn a_flapping_check_is_written_at_most_once_per_second() {
    let mut cluster = owned_by_n1();
    let (events, written, start) = (cluster.notices.len(), cluster.log.len(), cluster.now);
    for round in 0..200_u64 {
        let failing_check = [("a", "10.1.2.3:80: timeout")];
        report_speaker(
            &mut cluster,
            with_failing_checks("n2", &[], if round % 2 == 0 { &failing_check } else { &[] }),
        );
        for write in cluster.writes() {
            cluster.write(&write);
        }
        cluster.now =
            cluster.now.max(start + Duration::from_millis(50) * u32::try_from(round).unwrap());
        cluster.handle(Event::Tick);
    }
    let seconds = usize::try_from(cluster.now.since(start).as_secs()).unwrap();
    let writes = cluster.log.len() - written;
    assert!((5..=seconds + 1).contains(&writes), "{writes} writes occur in {seconds} s");
    assert_eq!(CONDITION_INTERVAL, Duration::from_secs(1));
    cluster.settle();
    assert_eq!((warnings(&cluster), cluster.notices.len()), (String::new(), events));
}

#[test]
fn a_move_because_of_a_failing_check_is_written_once() {
    let speakers = vec![speaker("n1", &["10.0.0.0"]), speaker("n2", &[]), speaker("n3", &[])];
    let services = vec![Service { policy: TrafficPolicy::Local, ..service("a") }];
    let mut cluster = Topology { services, ..topology(speakers) }.settled_cluster();
    let (before, events) = (cluster.log.len(), cluster.notices.len());
    cluster.now = cluster.now + CONDITION_INTERVAL;
    report_speaker(&mut cluster, with_failing_checks("n1", &["10.0.0.0"], &[("a", "x")]));
    assert_eq!(due_services(&cluster), []);
    report_speaker(&mut cluster, with_failing_checks("n1", &[], &[("a", "x")]));
    report_speaker(&mut cluster, speaker("n2", &["10.0.0.0"]));
    cluster.settle();
    assert_eq!(
        reason_and_message(&cluster, "a").1,
        "10.0.0.0 from n2 (eth0); all endpoints on n1 fail their health check (x): check these pods"
    );
    assert_eq!((cluster.log.len() - before, cluster.notices.len()), (1, events));
}

#[test]
fn an_unhealthy_owner_is_a_warning_after_a_delay() {
    let mut cluster = owned_by_n1();
    let start = cluster.now;
    report_speaker(&mut cluster, Speaker { draining: true, ..speaker("n1", &["10.0.0.0"]) });
    assert_eq!(due_services(&cluster), []);
    // The drain hands the address over. The condition is written only with the new owner.
    report_speaker(&mut cluster, Speaker { draining: true, ..speaker("n1", &[]) });
    report_speaker(&mut cluster, speaker("n2", &["10.0.0.0"]));
    let before = cluster.log.len();
    cluster.settle();
    assert_eq!(
        (reason_and_message(&cluster, "a").1, cluster.log.len() - before),
        ("10.0.0.0 from n2 (eth0)".into(), 1)
    );
    report_speaker(&mut cluster, with_unhealthy_kube_proxy("n2", &["10.0.0.0"], "x"));
    cluster.settle();
    assert!(warnings(&cluster).starts_with("n2 announces it although"), "{}", warnings(&cluster));
    assert!(cluster.now.since(start) >= CONDITION_DELAY);
    report_speaker(&mut cluster, speaker("n2", &["10.0.0.0"]));
    cluster.settle();
    assert_eq!(warnings(&cluster), "");
}

#[test]
fn a_fixed_annotation_removes_the_warning() {
    let speakers = || {
        vec![
            with_unhealthy_kube_proxy("n1", &["10.0.0.0"], "x"),
            with_failing_checks("n2", &[], &[("a", "y")]),
            speaker("n3", &[]),
        ]
    };
    let mut cluster =
        Topology { services: vec![with_invalid_annotation("a")], ..topology(speakers()) }
            .settled_cluster();
    assert!(warnings(&cluster).contains(INVALID_ANNOTATION));
    for seed in 0..20 {
        cluster.state = State::new(config());
        cluster.log.clear();
        Topology { services: vec![with_invalid_annotation("a")], ..topology(speakers()) }
            .report_lists(&mut cluster, Order::Shuffled(Random(seed + 1)));
        cluster.settle();
        assert_eq!(cluster.log, [""; 0], "seed {seed}");
    }
    cluster.change("a", |service| service.endpoint_condition_problem = None);
    cluster.settle();
    assert!(!warnings(&cluster).contains("annotation"), "{}", warnings(&cluster));
}

#[test]
fn a_changed_endpoint_condition_changes_the_announced_condition() {
    let mut terminating = endpoint_slice("a", &["n1"]);
    (terminating.endpoints[0].ready, terminating.endpoints[0].terminating) = (false, true);
    let mut cluster =
        Topology { slices: vec![terminating], ..Topology::default() }.settled_cluster();
    assert_eq!(reason_and_message(&cluster, "a").0, "Pending");
    cluster.change("a", |service| service.endpoint_condition = EndpointCondition::Ready);
    cluster.settle();
    assert_eq!(reason_and_message(&cluster, "a").0, "NoEndpoints");
}

/// Returns the number of Services by reason, as in the metrics.
fn reason_counts(cluster: &Cluster) -> Vec<String> {
    let all = cluster.state.metric_values().announced.into_iter().filter(|(_, count)| *count != 0);
    all.map(|(reason, count)| format!("{reason} {count}")).collect()
}

/// Checks that the counters match a recount of the conditions.
fn check_counts(cluster: &Cluster) {
    let reasons = cluster
        .services
        .values()
        .filter_map(|service| service.condition(ServiceConditionType::Announced));
    let mut recount = BTreeMap::<&str, i64>::new();
    reasons.for_each(|condition| *recount.entry(&condition.reason).or_default() += 1);
    let mut recount: Vec<_> =
        recount.iter().map(|(reason, count)| format!("{reason} {count}")).collect();
    let mut is = reason_counts(cluster);
    recount.sort();
    is.sort();
    assert_eq!(is, recount);
}

#[test]
fn services_are_counted_by_the_reason_of_their_condition() {
    let topology = || Topology {
        services: ["a", "b", "c", "d"].map(service).into(),
        slices: vec![
            endpoint_slice("a", &["n1"]),
            endpoint_slice("b", &["n2"]),
            endpoint_slice("d", &["n3"]),
        ],
        ..topology(vec![
            speaker("n1", &["10.0.0.0"]),
            speaker("n2", &[]),
            speaker("n3", &["10.0.0.3"]),
        ])
    };
    let mut cluster = topology().settled_cluster();
    assert_eq!(reason_counts(&cluster), ["NoEndpoints 1", "Pending 1", "Announced 2"]);
    report_speaker(&mut cluster, speaker("n3", &[]));
    cluster.settle();
    assert_eq!(reason_counts(&cluster), ["NoEndpoints 1", "Pending 2", "Announced 1"]);
    check_counts(&cluster);
    cluster.delete("c");
    cluster.change("d", |service| service.load_balancer = false);
    cluster.settle();
    assert_eq!(reason_counts(&cluster), ["Pending 1", "Announced 1"]);
    check_counts(&cluster);
    cluster.delete_pool("lan");
    cluster.settle();
    assert_eq!(reason_counts(&cluster), [""; 0], "Services without an address have no condition");
    check_counts(&cluster);
    // A controller that takes over counts the written conditions.
    let mut cluster = topology().settled_cluster();
    cluster.state = State::new(config());
    topology().report_lists(&mut cluster, Order::ByName);
    assert_eq!(reason_counts(&cluster), ["NoEndpoints 1", "Pending 1", "Announced 2"]);
    cluster.handle(Event::Lease(Leadership::Lost));
    assert_eq!(reason_counts(&cluster), [""; 0], "a replica that does not lead counts no Service");
}

#[test]
fn an_unwritten_reason_is_counted_until_the_address_is_released() {
    let mut cluster = owned_by_n1();
    report_speaker(&mut cluster, speaker("n1", &[]));
    for wait in [CONDITION_INTERVAL, CONDITION_DELAY] {
        cluster.now = cluster.now + wait;
        cluster.handle(Event::Tick);
    }
    assert_eq!(
        (reason_counts(&cluster), reason_and_message(&cluster, "a").0),
        (vec!["Pending 1".to_owned()], "Announced".to_owned())
    );
    cluster.delete_pool("lan");
    cluster.now = cluster.now + Duration::from_secs(60);
    cluster.handle(Event::Tick);
    let writes = cluster.writes();
    writes.iter().for_each(|write| cluster.write(write));
    assert_eq!(
        (reason_counts(&cluster), reason_and_message(&cluster, "a").0),
        (vec![], String::new())
    );
}

#[test]
fn a_report_of_unchecked_endpoints_reaches_the_condition_and_the_row() {
    let services = vec![with_check(service("a"))];
    let speakers = vec![speaker("n1", &["10.0.0.0"]), speaker("n2", &[]), speaker("n3", &[])];
    let mut cluster = Topology { services, ..topology(speakers) }.settled_cluster();
    assert_eq!(warnings(&cluster), "");
    let report = [("10.1.2.3", UncheckedReason::OutsideRanges, [1, 1])];
    let unchecked = with_unchecked("n1", &report).unchecked;
    report_speaker(&mut cluster, Speaker { unchecked, ..speaker("n1", &["10.0.0.0"]) });
    assert_eq!(due_services(&cluster), [], "the route to a new pod may arrive late");
    cluster.settle();
    let text = warnings(&cluster);
    assert!(text.starts_with("1 of 1 endpoints on n1 are not checked (10.1.2.3)"), "{text}");
    let rows = cluster.state.service_rows();
    assert_eq!((&rows[0].warnings, &rows[0].unchecked), (&vec![text.clone()], &Some(text)));
    report_speaker(&mut cluster, speaker("n1", &["10.0.0.0"]));
    cluster.settle();
    assert_eq!(warnings(&cluster), "");
}
