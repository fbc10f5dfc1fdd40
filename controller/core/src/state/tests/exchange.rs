//! Tests of status writes: attempts, failures, conflicts with other writers, and restarts.

use super::*;
use crate::state::RESOURCE_STATUS_INTERVAL;
use crate::state::service::ServiceEntry;
use crate::state::service_addresses::Assignment;
use crate::state::status_queue::RESOURCE_ROOM;

fn first_write(cluster: &Cluster) -> Write {
    cluster.writes().into_iter().next().expect("a write is due")
}

fn complete_write(cluster: &mut Cluster, write: &Write, outcome: Outcome) {
    cluster.handle(Event::Written { target: write.target(), attempt: write.attempt, outcome });
}

#[test]
fn no_status_is_written_after_a_restart() {
    let services = vec![service("a"), dual_stack_service("b"), service("c")];
    let mut cluster = Cluster::new(services, vec![pool("lan", &["10.0.0.1-10.0.0.2", "fd00::1"])]);
    assert_eq!(cluster.statuses(), ["a=10.0.0.1", "b=fd00::1,10.0.0.2", "c="]);
    cluster.log.clear();
    cluster.restart();
    assert_eq!(cluster.writes(), []);
    let next = cluster.state.deadline(cluster.now).expect("Service c waits for an address");
    assert_eq!(
        next.since(cluster.now),
        crate::state::RETRY_INTERVAL,
        "the next deadline is the retry for Service c"
    );
    cluster.settle();
    assert_eq!(cluster.log, Vec::<String>::new());
}

/// Returns the reason and the addresses of Service `a` after this time.
fn state_after(cluster: &mut Cluster, time: Duration) -> (String, String) {
    cluster.advance(time);
    cluster.writes().iter().for_each(|write| cluster.write(write));
    (cluster.reason("a"), cluster.statuses()[0].clone())
}

#[test]
fn a_service_keeps_the_address_of_a_missing_pool_for_the_grace() {
    let assigned = |reason: &str| (reason.to_owned(), "a=10.0.0.2".to_owned());
    let lan = || pool("lan", &["10.0.0.1-10.0.0.2"]);
    let condition = ServiceCondition {
        kind: ServiceConditionType::AddressAssigned,
        status: api::ConditionStatus::True,
        reason: "Assigned".into(),
        message: api::ConditionMessage::default(),
        since: Some(1),
    };
    let has = || Service {
        conditions: [condition.clone()].into(),
        ..service_with_addresses("a", &["10.0.0.2"], "lan")
    };
    // The pool is deleted, or it is missing when the controller starts.
    for is_deleted in [true, false] {
        let pools = if is_deleted { vec![lan()] } else { vec![] };
        let mut cluster = Cluster::without_leader(vec![has()], pools);
        cluster.become_leader();
        if is_deleted {
            assert_eq!(state_after(&mut cluster, Duration::ZERO), assigned("Assigned"));
            cluster.delete_pool("lan");
        }
        assert_eq!(state_after(&mut cluster, Duration::ZERO), assigned("PoolMissing"));
        let message = cluster.message("a");
        assert!(message.contains("IPAddressPool lan does not exist: create it again within 60 s"));
        assert_eq!(state_after(&mut cluster, Duration::from_secs(58)), assigned("PoolMissing"));
        let services = cluster.services.values().cloned().collect();
        let mut returns = Cluster::without_leader(services, vec![]);
        returns.become_leader();
        assert_eq!(returns.writes(), [], "a restart changes nothing");
        returns.apply_pool(lan());
        assert_eq!(state_after(&mut returns, Duration::ZERO), assigned("Assigned"));
        cluster.apply(service("b"));
        let (reason, address) = state_after(&mut cluster, Duration::from_secs(2));
        assert_eq!((&*reason, &*address), ("NoPoolMatches", "a="));
        // After the grace, the Service gets its former address before others.
        cluster.apply_pool(lan());
        cluster.settle();
        assert_eq!(cluster.statuses(), ["a=10.0.0.2", "b=10.0.0.1"]);
    }
}

#[test]
fn an_address_that_another_controller_wrote_has_no_grace() {
    let has = service_with_addresses("a", &["10.0.0.2"], "other");
    let mut cluster = Cluster::without_leader(vec![has], vec![pool("lan", &["10.0.0.1"])]);
    cluster.become_leader();
    let state = state_after(&mut cluster, Duration::ZERO);
    assert_eq!((&*state.0, &*state.1), ("Assigned", "a=10.0.0.1"));
}

#[test]
fn an_edited_pool_has_no_grace() {
    let has = service_with_addresses("a", &["10.0.0.2"], "lan");
    let mut cluster = Cluster::new(vec![has], vec![pool("lan", &["10.0.0.1-10.0.0.2"])]);
    cluster.apply_pool(pool("lan", &["10.0.0.1"]));
    let (_, address) = state_after(&mut cluster, Duration::ZERO);
    assert_eq!(address, "a=10.0.0.1");
}

#[test]
fn an_address_is_reserved_before_it_is_written() {
    let mut cluster = Cluster::new(vec![], vec![pool("lan", &["10.0.0.1-10.0.0.9"])]);
    cluster.apply(service("b"));
    let write = first_write(&cluster);
    complete_write(&mut cluster, &write, Outcome::Failed);
    cluster.apply(service("a"));
    cluster.settle();
    assert_eq!(cluster.statuses(), ["a=10.0.0.2", "b=10.0.0.1"]);
}

#[test]
fn a_failed_write_is_retried_without_delaying_others() {
    let mut cluster = Cluster::new(vec![], vec![pool("lan", &["10.0.0.1-10.0.0.9"])]);
    cluster.apply(service("a"));
    let failed = first_write(&cluster);
    complete_write(&mut cluster, &failed, Outcome::Failed);
    cluster.apply(service("b"));
    let targets = |cluster: &Cluster| {
        cluster.writes().iter().map(|write| write.target().to_string()).collect::<Vec<_>>()
    };
    assert!(!targets(&cluster).contains(&failed.target().to_string()));
    assert!(targets(&cluster).contains(&"Service default/b".to_owned()));
    cluster.advance(Duration::from_millis(200));
    let retry =
        cluster.writes().into_iter().find(|write| write.target() == failed.target()).unwrap();
    assert_ne!(retry.attempt, failed.attempt);
    assert_eq!(retry.status, failed.status);
}

#[test]
fn a_repeated_refusal_is_reported_once_and_counted() {
    let mut cluster = Cluster::new(vec![], vec![pool("lan", &["10.0.0.1"])]);
    cluster.apply(service("a"));
    let complete_with = |cluster: &mut Cluster, outcome| {
        cluster.advance(Duration::from_secs(10));
        let write = cluster
            .writes()
            .into_iter()
            .find(|write| write.target() == Target::Service(key("a")))
            .expect("a write to Service a is due");
        complete_write(cluster, &write, outcome);
        (write.reports_refusal, cluster.state.metric_values().services)
    };
    use Outcome::{Done, Failed, Refused};
    let cases = [
        (Refused, false),
        (Failed, false),
        (Refused, false),
        (Refused, true),
        (Refused, false),
        (Done, false),
    ];
    for (n, (outcome, reports)) in cases.into_iter().enumerate() {
        let (reported, counted) = complete_with(&mut cluster, outcome);
        assert_eq!(reported, reports, "attempt {n} reports its refusal");
        let nonzero: Vec<_> = counted.into_iter().filter(|(_, count)| *count > 0).collect();
        assert_eq!(nonzero, [(if n == 3 || n == 4 { "NotWritten" } else { "Assigned" }, 1)], "{n}");
    }
}

#[test]
fn the_echo_of_a_write_causes_no_other_write() {
    for echo_first in [true, false] {
        let mut cluster = Cluster::new(vec![], vec![pool("lan", &["10.0.0.1-10.0.0.9"])]);
        cluster.apply(service("a"));
        let write = first_write(&cluster);
        let Status::Service(_, status) = &write.status else { panic!("{write:?}") };
        let mut written = service("a");
        store(&mut written, status);
        if echo_first {
            cluster.apply(written.clone());
            assert!(cluster.writes().iter().all(|due| due.target() != write.target()));
        }
        complete_write(&mut cluster, &write, Outcome::Done);
        assert!(
            cluster.writes().iter().all(|due| due.target() != write.target()),
            "the successful result completes the write before the watch reports it"
        );
        if !echo_first {
            cluster.apply(written);
        }
        assert!(cluster.writes().iter().all(|due| due.target() != write.target()));
    }
}

#[test]
fn a_change_during_a_write_is_written_again() {
    let mut cluster = Cluster::new(vec![], vec![pool("lan", &["10.0.0.1-10.0.0.9"])]);
    cluster.apply(service("a"));
    let stale = first_write(&cluster);
    cluster.apply_pool(pool("lan", &["10.0.0.5-10.0.0.9"]));
    complete_write(&mut cluster, &stale, Outcome::Done);
    let due = cluster.writes().into_iter().find(|write| write.target() == stale.target()).unwrap();
    let Status::Service(_, status) = &due.status else { panic!("{due:?}") };
    assert_eq!(joined(&status.addresses), "10.0.0.5");
}

#[test]
fn the_counts_of_a_pool_are_written_at_most_once_per_interval() {
    let mut cluster = Cluster::new(vec![], vec![pool("lan", &["10.0.0.1-10.0.0.99"])]);
    cluster.now = cluster.now + RESOURCE_STATUS_INTERVAL;
    let pool_writes = |cluster: &Cluster| {
        cluster
            .writes()
            .iter()
            .filter(|write| {
                matches!(
                    write.target(),
                    Target::CustomResource(CustomResourceKind::IPAddressPool, _)
                )
            })
            .count()
    };
    cluster.apply(service("a"));
    assert_eq!(pool_writes(&cluster), 1);
    for write in cluster.writes() {
        cluster.write(&write);
    }
    cluster.apply(service("b"));
    assert_eq!(pool_writes(&cluster), 0);
    cluster.advance(RESOURCE_STATUS_INTERVAL);
    assert_eq!(pool_writes(&cluster), 1);
}

#[test]
fn planned_writes_are_limited_and_the_longest_due_come_first() {
    let mut cluster = Cluster::new(vec![], vec![pool("lan", &["10.0.0.0/16"])]);
    for n in (0..200).rev() {
        cluster.apply(service(&format!("s{n:03}")));
    }
    let writes = cluster.writes();
    let of_services: Vec<_> =
        writes.iter().filter_map(|it| it.target().service().cloned()).collect();
    assert_eq!(of_services.len(), crate::desired::WRITES_MAX - RESOURCE_ROOM);
    assert_eq!(of_services[0], key("s199"));
    cluster.settle();
    assert_eq!(
        cluster.services.values().filter(|service| service.assigned.len() == 1).count(),
        200
    );
}

#[test]
fn a_new_leader_adopts_the_statuses_of_the_previous_leader() {
    let mut cluster = Cluster::new(vec![service("a")], vec![pool("lan", &["10.0.0.1-10.0.0.9"])]);
    cluster.handle(Event::Lease(Leadership::Lost));
    // The other replica assigned an address to b and changed the address of a.
    cluster.change("a", |service| service.assigned[0].address = "10.0.0.2".parse().unwrap());
    cluster.apply(service_with_addresses("b", &["10.0.0.1"], "lan"));
    cluster.apply(service("c"));
    assert_eq!(cluster.writes(), []);
    cluster.become_leader();
    cluster.settle();
    assert_eq!(cluster.statuses(), ["a=10.0.0.2", "b=10.0.0.1", "c=10.0.0.3"]);
}

#[test]
fn a_renewed_lease_extends_the_same_term() {
    let mut cluster = Cluster::new(vec![service("a")], vec![pool("lan", &["10.0.0.1"])]);
    let term = plan(&cluster.state).term;
    let until = Instant::from_millis(5_000);
    cluster.handle(Event::Lease(Leadership::Held(until)));
    let desired = plan(&cluster.state);
    assert_eq!((desired.term, desired.until), (term, until));
    cluster.apply(service("b"));
    assert!(!cluster.writes().is_empty(), "the leader continues without new lists");
    cluster.handle(Event::Lease(Leadership::Lost));
    assert_eq!(plan(&cluster.state), crate::desired::Desired::default());
}

#[test]
fn a_service_blocks_a_limited_number_of_addresses_of_queued_writes() {
    let mut entry = ServiceEntry::default();
    let address = |last| IpAddr::from([10, 0, 0, last]);
    (0..20).for_each(|last| entry.record_sent(&[address(last)]));
    entry.record_sent(&[address(19)]);
    entry.assignment = Some(Assignment::default());
    assert!(entry.outdated_addresses().eq((12..20).map(address)));
}
