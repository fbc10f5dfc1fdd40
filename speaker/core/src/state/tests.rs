//! Tests of the state: resync after a list, selection of Services, and recovery from invalid
//! objects.

use ferrolb_proto::wire::hello::HelloKeyRing;
use std::net::IpAddr;

use ferrolb_proto::api::{IpMode, L2AdvertisementObject};
use ferrolb_proto::facts::{
    AssignedAddress, Endpoint, EndpointSlice, L2Advertisement, Node, Pool, Service, TrafficPolicy,
};
use ferrolb_proto::range::Family;
use ferrolb_proto::wire::hello::{HelloKey, KEY_LENGTH};

use super::*;

pub(super) fn state() -> State {
    State::new(StateConfig {
        node: "node1".into(),
        classes: vec!["ferrolb.io/ferrolb".to_owned()],
        default_implementation: true,
        pool_grace: Duration::from_secs(60),
        ignore_exclude_label: false,
        exclude_interfaces: Vec::new(),
        kube_proxy_address: None,
        gobgp: false,
        health_check_defaults: CheckDefaults { interval: Duration::from_secs(1), fall: 2, rise: 3 },
        checked_ranges: Some(Vec::new()),
    })
}

pub(super) fn service(name: &str) -> Service {
    let address = IpAddr::from([172, 30, 0, 200]);
    Service {
        key: Key::new("default", name),
        load_balancer: true,
        assigned: vec![AssignedAddress { address, mode: Some(IpMode::Vip) }],
        uid: "u".into(),
        policy: TrafficPolicy::Local,
        ..Service::default()
    }
}

fn names(state: &State) -> Vec<String> {
    state.services.iter().map(|(key, _)| key.to_string()).collect()
}

fn feed(state: &mut State, events: impl IntoIterator<Item = Change<Service>>) {
    for change in events {
        state.handle(Event::of::<Service>(change), Instant::ZERO);
    }
}

#[test]
fn only_a_complete_list_removes_missing_objects() {
    let mut state = state();
    assert_eq!(state.missing_input(), Some("Services"));
    feed(
        &mut state,
        [
            Change::ResyncStarted,
            Change::Apply(service("a")),
            Change::Apply(service("b")),
            Change::ResyncDone,
        ],
    );
    assert_eq!(state.missing_input(), Some("EndpointSlices"));
    feed(&mut state, [Change::ResyncStarted, Change::Apply(service("c"))]);
    assert_eq!(
        names(&state),
        ["default/a", "default/b", "default/c"],
        "known objects stay until the list is complete"
    );
    feed(
        &mut state,
        [
            Change::ResyncStarted,
            Change::Apply(service("a")),
            Change::Apply(service("d")),
            Change::ResyncDone,
        ],
    );
    assert_eq!(names(&state), ["default/a", "default/d"]);
    feed(&mut state, [Change::Delete(Key::new("default", "a"))]);
    feed(
        &mut state,
        [Change::Unreadable { key: Key::new("default", "d"), why: "spec".to_owned() }],
    );
    assert_eq!(names(&state), [""; 0]);
}

#[test]
fn only_relevant_changes_need_a_plan() {
    let mut state = state();
    let pending = Service { assigned: Vec::new(), ..service("b") };
    let steps = [
        (Change::ResyncStarted, false),
        (Change::Apply(service("a")), true),
        (Change::ResyncDone, true),
        (Change::Apply(Service { uid: "other".into(), ..service("a") }), false),
        (Change::Apply(pending), false),
        (Change::Apply(Service { policy: TrafficPolicy::Cluster, ..service("a") }), true),
        (Change::ResyncStarted, false),
        (Change::Apply(Service { policy: TrafficPolicy::Cluster, ..service("a") }), false),
        (Change::ResyncDone, false),
        (Change::Delete(Key::new("default", "b")), false),
        (Change::ResyncStarted, false),
        (Change::ResyncDone, true),
    ];
    for (i, (change, expect)) in steps.into_iter().enumerate() {
        let changes = state.handle(Event::of::<Service>(change), Instant::ZERO);
        assert_eq!(!changes.is_empty(), expect, "step {i}");
    }
}

#[test]
fn services_of_others_or_without_an_address_are_not_stored() {
    let foreign = Service { class: Some("other.io/lb".into()), ..service("a") };
    let pending = Service { assigned: Vec::new(), ..service("a") };
    let cluster_ip = Service { load_balancer: false, ..service("a") };
    for changed in [foreign, pending, cluster_ip] {
        let mut state = state();
        feed(&mut state, [Change::Apply(service("a"))]);
        let (_, stored) = state.services.iter().next().unwrap();
        assert_eq!((stored.policy, stored.assigned.len()), (TrafficPolicy::Local, 1));
        feed(&mut state, [Change::Apply(changed)]);
        assert_eq!(names(&state), [""; 0]);
    }
}

#[test]
fn deletions_are_matched_by_name() {
    let mut state = state();
    let pool = Pool { name: "lan".into(), ..Pool::default() };
    state.handle(Event::of::<Pool>(Change::Apply(pool)), Instant::ZERO);
    state.handle(
        Event::of::<Pool>(Change::Delete(Key::new("ferrolb-system", "other"))),
        Instant::ZERO,
    );
    assert!(state.deleted_pools.is_empty());
    state.handle(
        Event::of::<Pool>(Change::Delete(Key::new("ferrolb-system", "lan"))),
        Instant::ZERO,
    );
    assert_eq!(state.deleted_pools, [Box::from("lan")]);
    let node = Node { name: "node1".into(), ..Node::default() };
    state.handle(Event::of::<Node>(Change::Apply(node)), Instant::ZERO);
    assert!(state.own_node().is_some());
    state.handle(Event::of::<Node>(Change::Delete(Key::new("", "node1"))), Instant::ZERO);
    assert!(state.own_node().is_none());
}

#[test]
fn deleted_pools_are_kept_and_their_number_is_limited() {
    let pool = |n: usize| Pool { name: format!("p{n:02}").into(), ..Pool::default() };
    let delete = |n: usize| Change::Delete(Key::new("ferrolb-system", &pool(n).name));
    let mut state = state();
    let mut handle = |change| state.handle(Event::of::<Pool>(change), Instant::ZERO).is_empty();
    handle(Change::ResyncStarted);
    assert!((0..=DELETED_POOLS_MAX).all(|n| !handle(Change::Apply(pool(n)))));
    handle(Change::ResyncDone);
    assert!(!handle(delete(0)), "the pool does not exist any more");
    assert!(handle(delete(0)) && !handle(Change::Apply(pool(0))));
    handle(Change::ResyncStarted);
    assert!(!handle(Change::ResyncDone), "as many as possible are kept");
    handle(Change::ResyncStarted);
    assert!(handle(Change::ResyncDone), "another list changes nothing");
    assert_eq!(state.deadline(), None, "the controller decides");
    let first = state.pools.keys().next().map(|name| &**name);
    assert_eq!((state.pools.len(), first), (DELETED_POOLS_MAX, Some("p01")));
    assert_eq!(state.existing_pools().count(), 0);
    // A pool that returns makes room for another one.
    state.handle(Event::of::<Pool>(Change::Apply(pool(5))), Instant::ZERO);
    assert_eq!(state.existing_pools().count(), 1);
    state.handle(Event::of::<Pool>(Change::Apply(pool(0))), Instant::ZERO);
    state.handle(Event::of::<Pool>(delete(0)), Instant::ZERO);
    assert_eq!(state.pools.len(), DELETED_POOLS_MAX + 1);
}

#[test]
fn hello_keys_survive_the_deletion_of_their_secret() {
    let ring = |byte| HelloKeyRing::new(vec![HelloKey::new([byte; KEY_LENGTH])]);
    let mut state = state();
    let mut feed = |change| {
        state.handle(Event::of::<HelloKeyRing>(change), Instant::ZERO);
        state.keys.clone()
    };
    assert_eq!(feed(Change::Apply(ring(1))), ring(1));
    assert_eq!(feed(Change::Delete(Key::new("ferrolb-system", "ferrolb-hello"))), ring(1));
    assert_eq!(feed(Change::Apply(HelloKeyRing::default())), ring(1));
    assert_eq!(feed(Change::Apply(ring(2))), ring(2));
}

#[test]
fn the_retry_delay_of_an_interface_doubles_until_it_was_down() {
    let link = |up| Event::Links(vec![Link { index: 2, up, ..Link::default() }]);
    let mut state = state();
    state.handle(link(true), Instant::ZERO);
    let mut now = Instant::from_millis(1_000_000);
    let mut retry_delays = Vec::new();
    for _ in 0..7 {
        state.handle(Event::LinkFailed { link: 2, why: "why".into() }, now);
        let retry_at = state.link_failures[&2].retry_at();
        retry_delays.push(retry_at.since(now).as_secs());
        now = retry_at;
    }
    assert_eq!(retry_delays, [1, 2, 4, 8, 16, 30, 30]);
    state.handle(Event::LinkFailed { link: 2, why: "why".into() }, now + LINK_RETRY_FORGET_AFTER);
    assert_eq!(state.link_failures[&2].count, 1, "a minute without a failure resets the count");
    state.handle(Event::Report { link: 2, report: LinkReport::default() }, now);
    state.handle(link(true), now);
    assert!(state.link_failures.contains_key(&2) && state.reports.contains_key(&2));
    state.handle(link(false), now);
    assert!(state.link_failures.is_empty() && state.reports.is_empty());
}

#[test]
fn an_address_in_mode_proxy_is_announced_only_on_request() {
    let proxy = |announce| {
        let mut service = service("a");
        service.assigned[0].mode = Some(IpMode::Proxy);
        service.demand.request.announce_in_proxy_mode = announce;
        service
    };
    for (service, announced) in [(service("a"), 1), (proxy(false), 0), (proxy(true), 1)] {
        let mut state = state();
        feed(&mut state, [Change::Apply(service)]);
        assert_eq!(state.services.addresses().count(), announced);
    }
}

/// Returns an EndpointSlice of a Service with one ready endpoint on node1.
fn slice(service: &str) -> EndpointSlice {
    let (family, ready, serving, terminating) = (Family::V4, true, true, false);
    let node = Some("node1".into());
    EndpointSlice {
        key: Key::new("default", &format!("{service}-1")),
        service: Some(Key::new("default", service)),
        endpoints: vec![Endpoint { node, family, ready, serving, terminating }],
        ..EndpointSlice::default()
    }
}

#[test]
fn an_endpoint_slice_changes_only_its_service() {
    let mut state = state();
    feed(&mut state, [Change::Apply(service("a"))]);
    let mut handle =
        |slice| state.handle(Event::of::<EndpointSlice>(Change::Apply(slice)), Instant::ZERO);
    let expect = Changes {
        addresses: [IpAddr::from([172, 30, 0, 200])].into(),
        services: [Arc::new(Key::new("default", "a"))].into(),
        ..Changes::default()
    };
    assert_eq!(handle(slice("a")), expect);
    assert_eq!(handle(slice("a")), Changes::default(), "nothing has changed");
    assert_eq!(handle(slice("cluster-ip")), Changes::default(), "not a Service of FerroLB");
    let moved = EndpointSlice { service: Some(Key::new("default", "other")), ..slice("a") };
    assert_eq!(handle(moved), expect, "the EndpointSlice left the Service");
}

#[test]
fn a_repeated_endpoint_slice_is_in_the_index_once() {
    let mut state = state();
    let key = Arc::new(Key::new("default", "a"));
    let mut endpoints = |change| {
        state.handle(Event::of::<EndpointSlice>(change), Instant::ZERO);
        let slices = state.services.slices_of(&key);
        slices.map(|slice| slice.endpoints.len()).sum::<usize>()
    };
    let first = slice("a");
    let endpoint = Endpoint { terminating: true, ..first.endpoints[0].clone() };
    let changed = EndpointSlice { endpoints: vec![endpoint], ..first.clone() };
    assert_eq!(endpoints(Change::Apply(first.clone())), 1);
    assert_eq!(endpoints(Change::Apply(first)), 1);
    assert_eq!(endpoints(Change::Apply(changed)), 1);
    assert_eq!(endpoints(Change::Delete(Key::new("default", "a-1"))), 0);
}

#[test]
fn statuses_and_interfaces_of_pods_need_no_plan() {
    let mut state = state();
    let mut is_empty = |event| state.handle(event, Instant::ZERO).is_empty();
    let advertisement = |generation: i64, status: &str| -> L2Advertisement {
        let object = serde_json::json!({
            "metadata": {"name": "all", "generation": generation},
            "spec": {"ipAddressPools": [format!("pool{generation}")]},
            "status": {"conditions": [{"type": "Valid", "status": status, "reason": "Valid",
                "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}]},
        });
        serde_json::from_value::<L2AdvertisementObject>(object).unwrap().into()
    };
    let apply = |generation, status| {
        Event::of::<L2Advertisement>(Change::Apply(advertisement(generation, status)))
    };
    assert!(!is_empty(apply(1, "False")));
    assert!(is_empty(apply(1, "True")), "only the status has changed");
    assert!(!is_empty(apply(2, "True")));
    let eth0 = Link { index: 2, name: "eth0".into(), ..Link::default() };
    let veth = |index, address: &str| Link {
        index,
        into_namespace: true,
        addresses: vec![address.parse().unwrap()],
        ..Link::default()
    };
    let links = |pods: &[Link]| Event::Links([std::slice::from_ref(&eth0), pods].concat());
    assert!(!is_empty(links(&[])));
    assert!(!is_empty(links(&[veth(7, "169.254.1.1")])), "a new address of this node");
    assert!(is_empty(links(&[veth(7, "169.254.1.1"), veth(8, "169.254.1.1")])));
    assert!(is_empty(links(&[veth(9, "169.254.1.1")])));
}

/// The EndpointSlices of many Services arrive before the Services, and those of a first batch are
/// deleted.
#[test]
fn endpoint_slices_that_precede_their_services_are_found() {
    let mut state = state();
    for (batch, count) in [("many", 100), ("more", 1_000)] {
        let names: Vec<_> = (0..count).map(|n| format!("{batch}-{n}")).collect();
        for name in &names {
            state.handle(Event::of::<EndpointSlice>(Change::Apply(slice(name))), Instant::ZERO);
        }
        feed(&mut state, names.iter().map(|name| Change::Apply(service(name))));
        for name in &names {
            let key = Arc::new(Key::new("default", name));
            assert_eq!(state.services.slices_of(&key).count(), 1, "{name}");
        }
        feed(&mut state, names.iter().map(|name| Change::Delete(Key::new("default", name))));
        for name in &names {
            let key = Key::new("default", &format!("{name}-1"));
            state.handle(Event::of::<EndpointSlice>(Change::Delete(key)), Instant::ZERO);
        }
        assert_eq!(state.services.slice_count(), 0);
    }
}
