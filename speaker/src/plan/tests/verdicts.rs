//! Tests of the verdicts on this node: their counts, their dump, and their update after a change.

use ferrolb_proto::facts::EndpointCondition;
use ferrolb_proto::verdict::Verdict;

use super::*;

/// Returns a cluster with one Service, whose only endpoint is on node2.
fn endpoint_on_node2() -> Cluster {
    Cluster { slices: vec![slice("web", &["node2"])], ..Cluster::default() }
}

fn apply_service(state: &mut State, service: Service) -> Desired {
    assert!(
        state.handle(Event::Service(Change::Apply(service)), Instant::ZERO),
        "the change needs a plan"
    );
    plan(state, Instant::ZERO)
}

fn names(desired: &Desired) -> Vec<String> {
    let unit = &desired.links[&2].config.units[0];
    unit.candidates.iter().map(|candidate| candidate.node.to_string()).collect()
}

fn verdicts(desired: &Desired) -> Vec<(Verdict, i64)> {
    desired.verdicts.iter().map(|(verdict, count)| (*verdict, *count)).collect()
}

#[test]
fn a_changed_policy_changes_the_unit_at_once() {
    let mut state = endpoint_on_node2().state();
    assert_eq!(names(&plan(&state, Instant::ZERO)), ["node1", "node2"]);
    let web = service("web", &["172.30.0.200"]);
    let local = apply_service(&mut state, Service { policy: TrafficPolicy::Local, ..web.clone() });
    assert_eq!(
        (names(&local), verdicts(&local)),
        (vec!["node2".to_owned()], vec![(Verdict::NoLocalEndpoint, 1)])
    );
    assert!(!local.links[&2].config.units[0].can_serve_here);
    let cluster = apply_service(&mut state, web);
    assert_eq!((names(&cluster).len(), verdicts(&cluster)), (2, vec![(Verdict::Ready, 1)]));
}

#[test]
fn a_changed_endpoint_condition_applies_at_once() {
    let mut cluster = Cluster::default();
    cluster.services[0].policy = TrafficPolicy::Local;
    let [first, second] = &mut cluster.slices[0].endpoints[..] else { panic!("two endpoints") };
    *first = Endpoint { ready: false, terminating: true, ..first.clone() };
    // This is the endpoint of a Pod that is not ready, in a Service with publishNotReadyAddresses.
    *second = Endpoint { serving: false, ..second.clone() };
    let mut state = cluster.state();
    assert_eq!(names(&plan(&state, Instant::ZERO)), ["node1", "node2"]);
    for (condition, expect, verdict) in [
        (EndpointCondition::Ready, "node2", Verdict::NoLocalEndpoint),
        (EndpointCondition::Serving, "node1", Verdict::Terminating),
    ] {
        let desired = apply_service(
            &mut state,
            Service { endpoint_condition: condition, ..cluster.services[0].clone() },
        );
        assert_eq!(
            (names(&desired), verdicts(&desired)),
            (vec![expect.to_owned()], vec![(verdict, 1)]),
            "{condition:?}"
        );
    }
}

#[test]
fn a_dual_stack_local_service_needs_endpoints_of_both_families() {
    let v6 = with_family(Family::V6, slice("web", &["node2"]));
    let services = vec![Service {
        policy: TrafficPolicy::Local,
        ..service("web", &["172.30.0.200", "fd30::c8"])
    }];
    let mut cluster = Cluster {
        services,
        slices: vec![slice("web", &["node1", "node2"]), v6],
        ..Cluster::default()
    };
    assert_eq!(cluster.candidates(), ["node2"]);
    cluster.slices.pop();
    assert_eq!(
        cluster.candidates(),
        ["node1", "node2"],
        "a family without endpoints excludes no node"
    );
}

#[test]
fn every_service_with_an_address_is_counted_by_verdict() {
    let local = |name: &str, address: &str| Service {
        policy: TrafficPolicy::Local,
        ..service(name, &[address])
    };
    let cluster = Cluster {
        services: vec![
            service("anywhere", &["172.30.0.1"]),
            local("away", "172.30.0.2"),
            local("here", "172.30.0.3"),
            service("nowhere", &["172.30.0.4"]),
            // This Service shares an address, and has no endpoint of its own.
            service("sharing", &["172.30.0.3"]),
            // No advertisement selects this Service.
            service("unselected", &["192.0.2.1"]),
        ],
        slices: ["anywhere", "away", "here", "unselected"]
            .map(|name| slice(name, if name == "here" { &["node1"] } else { &["node2"] }))
            .into(),
        ..Cluster::default()
    };
    let state = cluster.state();
    let desired = plan(&state, Instant::ZERO);
    assert_eq!(
        verdicts(&desired),
        [(Verdict::Ready, 3), (Verdict::NoLocalEndpoint, 1), (Verdict::NoEndpoint, 2)]
    );
    let expect = json!({"default/anywhere": "ready", "default/away": "no_local_endpoint", "default/here": "ready",
        "default/nowhere": "no_endpoint", "default/sharing": "no_endpoint", "default/unselected": "ready"});
    assert_eq!(desired.dump(&state)["verdicts"], expect);
    let mut waiting = State::new(state.config.clone());
    waiting.handle(Event::Service(Change::Apply(service("web", &["172.30.0.1"]))), Instant::ZERO);
    let early = plan(&waiting, Instant::ZERO);
    assert_eq!(
        (verdicts(&early), &early.dump(&waiting)["verdicts"]),
        (vec![], &json!({})),
        "an incomplete list gives no verdict"
    );
}
