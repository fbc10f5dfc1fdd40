//! Tests of how this node can serve each address: counts, dump, and update after a change.

use ferrolb_proto::facts::{EndpointCondition, Service};

use super::*;

/// Returns a cluster with one Service, whose only endpoint is on node2.
fn endpoint_on_node2() -> Cluster {
    Cluster { slices: vec![slice("web", &["node2"])], ..Cluster::default() }
}

fn apply_service(state: &mut State, service: Service) -> Desired {
    let changes = state.handle(Event::of::<Service>(Change::Apply(service)), Instant::ZERO);
    assert!(!changes.is_empty(), "the change needs a plan");
    plan(state, Instant::ZERO)
}

fn names(desired: &Desired) -> Vec<String> {
    let unit = first_unit(desired, 2);
    unit.candidates.iter().map(|candidate| candidate.node.to_string()).collect()
}

fn counts(desired: &Desired) -> Vec<(&'static str, i64)> {
    desired.addresses.iter().map(|(name, count)| (*name, *count)).collect()
}

#[test]
fn a_changed_policy_changes_the_unit_at_once() {
    let mut state = endpoint_on_node2().state();
    assert_eq!(names(&plan(&state, Instant::ZERO)), ["node1", "node2"]);
    let web = service("web", &["172.30.0.200"]);
    let local = apply_service(&mut state, Service { policy: TrafficPolicy::Local, ..web.clone() });
    assert_eq!(
        (names(&local), counts(&local)),
        (vec!["node2".to_owned()], vec![("no_local_endpoint", 1)])
    );
    assert!(!first_unit(&local, 2).can_serve_here);
    let cluster = apply_service(&mut state, web);
    assert_eq!((names(&cluster).len(), counts(&cluster)), (2, vec![("ready", 1)]));
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
    for (condition, expect, name) in [
        (EndpointCondition::Ready, "node2", "no_local_endpoint"),
        (EndpointCondition::Serving, "node1", "terminating"),
    ] {
        let desired = apply_service(
            &mut state,
            Service { endpoint_condition: condition, ..cluster.services[0].clone() },
        );
        assert_eq!(
            (names(&desired), counts(&desired)),
            (vec![expect.to_owned()], vec![(name, 1)]),
            "{condition:?}"
        );
    }
}

#[test]
fn each_family_is_announced_where_its_endpoints_run() {
    let v6 = with_family(Family::V6, slice("web", &["node2"]));
    let services = vec![Service {
        policy: TrafficPolicy::Local,
        ..service("web", &["172.30.0.200", "fd30::c8"])
    }];
    let mut cluster =
        Cluster { services, slices: vec![slice("web", &["node1"]), v6], ..Cluster::default() };
    let candidates = |cluster: &Cluster| -> Vec<String> {
        let names = |unit: &Arc<Unit>| {
            let names = unit.candidates.iter().map(|candidate| &*candidate.node);
            names.collect::<Vec<_>>().join("+")
        };
        cluster.units().iter().map(names).collect()
    };
    assert_eq!(candidates(&cluster), ["node1", "node2"]);
    cluster.slices.pop();
    assert_eq!(candidates(&cluster), ["node1", ""]);
}

#[test]
fn every_address_of_a_service_is_counted() {
    let local = |name: &str, address: &str| Service {
        policy: TrafficPolicy::Local,
        ..service(name, &[address])
    };
    let cluster = Cluster {
        services: vec![
            service("anywhere", &["172.30.0.1", "fd30::1"]),
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
    let memo = &mut Memo::default();
    let desired = crate::plan::plan(&state, memo, Instant::ZERO);
    assert_eq!(counts(&desired), [("no_endpoint", 2), ("no_local_endpoint", 1), ("ready", 3)]);
    let expect = json!({"172.30.0.1": "ready", "172.30.0.2": "no_local_endpoint",
        "172.30.0.3": "ready", "172.30.0.4": "no_endpoint", "192.0.2.1": "ready",
        "fd30::1": "no_endpoint"});
    assert_eq!(desired.dump(&state, memo)["addresses"], expect);
    let mut waiting = State::new(state.config.clone());
    waiting.handle(
        Event::of::<Service>(Change::Apply(service("web", &["172.30.0.1"]))),
        Instant::ZERO,
    );
    let memo = &mut Memo::default();
    let early = crate::plan::plan(&waiting, memo, Instant::ZERO);
    assert_eq!(
        (counts(&early), &early.dump(&waiting, memo)["addresses"]),
        (vec![], &json!({})),
        "an incomplete list gives no result"
    );
}
