//! Tests of the record of addresses on a Service: which addresses come back, and for whom.

mod histories;

use ferrolb_proto::facts::{AddressRecord, AddressRequestProblem, ServiceRestriction};

use super::*;
use crate::state::record_repair::REPAIR_DELAY;
use crate::state::status_queue::{Class, REPAIR_INTERVAL};

/// A pool without a memory of released addresses.
fn lan() -> Vec<Pool> {
    vec![pool("lan", &["10.0.0.1-10.0.0.9"])]
}

fn record(addresses: &[&str]) -> Option<Box<AddressRecord>> {
    let addresses = addresses.iter().map(|text| text.parse().unwrap()).collect();
    Some(Box::new(AddressRecord { addresses, sharing: None }))
}

/// Returns the Service as a backup has it: with annotations, without a status.
fn from_backup(service: &Service) -> Service {
    Service {
        uid: format!("new {}", service.uid).into(),
        assigned: Vec::new(),
        conditions: Box::default(),
        has_own_fields: false,
        ..service.clone()
    }
}

/// Returns a cluster in which `b` has the second address of its pool, and the first one is free.
fn second_address() -> Cluster {
    let mut cluster = Cluster::new(vec![service("a"), service("b")], lan());
    cluster.delete("a");
    cluster.settle();
    assert_eq!(cluster.statuses(), ["b=10.0.0.2"]);
    cluster
}

#[test]
fn a_cleared_status_survives_a_change_of_the_leader() {
    let mut cluster = second_address();
    cluster.clear_status("b");
    cluster.restart();
    cluster.apply(service("c"));
    cluster.settle();
    assert_eq!(cluster.statuses(), ["b=10.0.0.2", "c=10.0.0.1"]);
}

#[test]
fn a_record_comes_before_new_requests_and_after_statuses() {
    let requests = |name: &str| {
        let mut service = service(name);
        service.demand.request.addresses = vec![[10, 0, 0, 2].into()];
        service
    };
    let mut cluster = second_address();
    cluster.clear_status("b");
    cluster.state = State::new(config());
    cluster.apply(requests("a"));
    cluster.restart();
    cluster.settle();
    assert_eq!(cluster.statuses(), ["a=", "b=10.0.0.2"]);
    // A forged record of an address that a status has.
    let forged = Service { record: record(&["10.0.0.2"]), ..service("0") };
    cluster.delete("a");
    cluster.apply(forged);
    cluster.restart();
    cluster.settle();
    assert_eq!(cluster.statuses(), ["0=10.0.0.1", "b=10.0.0.2"]);
}

#[test]
fn the_record_of_a_service_with_a_request_comes_before_others_with_the_same_address() {
    let mut requesting = service("b");
    requesting.demand.request.addresses = vec![[10, 0, 0, 2].into()];
    let mut cluster = Cluster::new(vec![requesting.clone()], lan());
    assert_eq!(cluster.statuses(), ["b=10.0.0.2"]);
    cluster.clear_status("b");
    cluster.state = State::new(config());
    cluster.apply(Service { record: record(&["10.0.0.2"]), ..service("0") });
    cluster.apply(Service { key: key("a"), uid: "other".into(), ..requesting });
    cluster.restart();
    cluster.settle();
    assert_eq!(cluster.statuses(), ["0=10.0.0.1", "a=", "b=10.0.0.2"]);
}

#[test]
fn an_invalid_request_does_not_hide_the_record() {
    let mut cluster = second_address();
    cluster.change("b", |service| {
        let problem = AddressRequestProblem::Mode("vip".into());
        service.demand.request.problem = Some(Box::new(problem));
    });
    cluster.settle();
    cluster.clear_status("b");
    cluster.restart();
    cluster.settle();
    assert_eq!(cluster.statuses(), ["b=10.0.0.2"]);
}

#[test]
fn a_record_counts_no_more_than_a_request() {
    let mut of_others = pool("others", &["10.0.1.1"]);
    let mut allocation = ServiceRestriction::default();
    allocation.namespaces = ["other".into()].into();
    of_others.allocation = Some(allocation);
    let pools = vec![of_others, pool("lan", &["10.0.0.1-10.0.0.9"]), pool("x", &["10.0.2.1"])];
    let mut blocking = Service { load_balancer: false, ..service("blocking") };
    blocking.demand.external_ips = [[10, 0, 0, 5].into()].into();
    for recorded in ["10.0.1.1", "192.0.2.7", "10.0.0.5", "fd00::1"] {
        let forged = Service { record: record(&[recorded]), ..service("a") };
        let cluster = Cluster::new(vec![forged, blocking.clone()], pools.clone());
        assert_eq!(cluster.statuses()[0], "a=10.0.0.1", "{recorded}");
    }
    let mut forged = Service { record: record(&["10.0.0.3"]), ..service("a") };
    forged.demand.request.pool = Some("x".into());
    let cluster = Cluster::new(vec![forged], pools);
    assert_eq!(cluster.statuses(), ["a=10.0.2.1"]);
}

#[test]
fn a_request_that_cannot_be_met_leaves_the_record_for_later() {
    let mut cluster = second_address();
    cluster.change("b", |service| {
        service.demand.request.addresses = vec![[192, 0, 2, 1].into()];
    });
    cluster.settle();
    assert_eq!(cluster.statuses(), ["b="]);
    cluster.restart();
    cluster.settle();
    assert_eq!(cluster.statuses(), ["b="], "the record does not replace the request");
    cluster.change("b", |service| service.demand.request.addresses.clear());
    cluster.settle();
    assert_eq!(cluster.statuses(), ["b=10.0.0.2"]);
    cluster.change("b", |service| {
        service.demand.request.addresses = vec![[10, 0, 0, 7].into()];
    });
    cluster.settle();
    assert_eq!(cluster.services[&key("b")].record, record(&["10.0.0.7"]));
}

#[test]
fn the_record_outlives_a_change_of_the_type_and_ends_with_the_class() {
    let mut cluster = second_address();
    for is_load_balancer in [false, true] {
        cluster.change("b", |service| service.load_balancer = is_load_balancer);
        cluster.settle();
        let written = cluster.log.len();
        cluster.restart();
        cluster.settle();
        assert_eq!(cluster.log.len(), written, "a restart writes nothing");
    }
    assert_eq!(cluster.statuses(), ["b=10.0.0.2"]);
    // The API server accepts another class only together with a change of the type.
    cluster.change("b", |service| service.load_balancer = false);
    cluster.settle();
    cluster.change("b", |service| {
        service.class = Some("other.example/lb".into());
        (service.load_balancer, service.has_own_fields) = (true, true);
    });
    cluster.settle();
    assert_eq!(cluster.services[&key("b")].record, None);
}

#[test]
fn a_restored_namespace_gets_its_addresses_in_any_order() {
    let all: Vec<_> = (0..9).map(|n| service(&format!("s{n}"))).collect();
    let mut cluster = Cluster::new(all, lan());
    let before = cluster.statuses();
    let mut backup: Vec<_> = cluster.services.values().map(from_backup).collect();
    for order in 0..8 {
        backup.iter().for_each(|service| cluster.delete(service.key.name()));
        cluster.settle();
        Random(7 + order).shuffle(&mut backup);
        cluster.restart();
        backup.iter().for_each(|service| cluster.apply(service.clone()));
        cluster.settle();
        assert_eq!(cluster.statuses(), before);
    }
}

#[test]
fn a_pool_that_returns_after_a_restart_gives_the_same_addresses() {
    let mut cluster = second_address();
    cluster.delete_pool("lan");
    cluster.now = cluster.now + Duration::from_secs(70);
    cluster.handle(Event::Tick);
    cluster.settle();
    assert_eq!(cluster.statuses(), ["b="]);
    cluster.restart();
    cluster.apply(service("a"));
    cluster.apply_pool(lan().remove(0));
    cluster.settle();
    assert_eq!(cluster.statuses(), ["a=10.0.0.1", "b=10.0.0.2"]);
}

#[test]
fn a_removed_record_is_written_again_after_a_time_and_a_stripping_client_causes_no_circle() {
    let mut cluster = second_address();
    let strip = |cluster: &mut Cluster| {
        cluster.change("b", |service| service.record = None);
        let (start, written) = (cluster.now, cluster.log.len());
        while cluster.services[&key("b")].record.is_none() {
            let deadline = cluster.state.deadline(cluster.now).unwrap();
            cluster.now = cluster.now.max(deadline);
            cluster.handle(Event::Tick);
            cluster.writes().iter().for_each(|write| cluster.write(write));
        }
        assert_eq!(cluster.log.len(), written + 1);
        cluster.now.since(start)
    };
    for _ in 0..3 {
        let after = strip(&mut cluster);
        assert!((REPAIR_DELAY..REPAIR_DELAY + REPAIR_INTERVAL).contains(&after), "{after:?}");
    }
    // A write for another reason includes the record.
    cluster.change("b", |service| service.record = None);
    cluster.change("b", |service| service.demand.request.ip_mode = Some(IpMode::Proxy));
    cluster.writes().iter().for_each(|write| cluster.write(write));
    assert_eq!(cluster.services[&key("b")].record, record(&["10.0.0.2"]));
    assert_eq!(cluster.state.status_queue.next(Class::Record, Instant::ZERO), None);
    cluster.change("b", |service| service.record = None);
    cluster.delete("b");
    assert_eq!(cluster.state.status_queue.next(Class::Record, Instant::ZERO), None);
}

#[test]
fn existing_services_get_their_records_at_a_limited_rate_and_a_restart_writes_nothing() {
    let all = (0..9).map(|n| service(&format!("s{n}"))).collect();
    let mut cluster = Cluster::new(all, lan());
    cluster.services.values_mut().for_each(|service| service.record = None);
    cluster.restart();
    let (start, written) = (cluster.now, cluster.log.len());
    let mut times = Vec::new();
    while cluster.services.values().any(|service| service.record.is_none()) {
        let deadline = cluster.state.deadline(cluster.now).unwrap();
        cluster.now = cluster.now.max(deadline);
        cluster.handle(Event::Tick);
        for write in cluster.writes() {
            times.push(cluster.now);
            cluster.write(&write);
        }
    }
    assert!(times[0].since(start) >= REPAIR_DELAY, "{times:?}");
    assert!(times.windows(2).all(|it| it[1].since(it[0]) >= REPAIR_INTERVAL), "{times:?}");
    assert_eq!(cluster.log.len(), written + 9);
    cluster.restart();
    cluster.settle();
    assert_eq!(cluster.log.len(), written + 9, "a restart writes nothing");
}
