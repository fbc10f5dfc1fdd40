//! Tests of the rules of address assignment, and of the conditions and Events that report the
//! result.

use ferrolb_proto::facts::{
    AllocationDemand, FamilyPolicy, L2Advertisement, Node, Pool, Service, Speaker,
};

use super::*;

#[test]
fn services_get_the_lowest_addresses_and_a_condition() {
    let mut cluster = Cluster::new(vec![service("a")], vec![pool("lan", &["10.0.0.1-10.0.0.9"])]);
    cluster.apply(service("b"));
    cluster.settle();
    assert_eq!(cluster.statuses(), ["a=10.0.0.1", "b=10.0.0.2"]);
    assert_eq!(
        (cluster.reason("b"), cluster.message("b")),
        ("Assigned".into(), "10.0.0.2 from pool lan".into())
    );
    assert_eq!(cluster.services[&key("b")].pool_annotation.as_deref(), Some("lan"));
    assert_eq!(cluster.notices.len(), 2);
    let status = &cluster.pools["lan"].status;
    assert_eq!(
        (status.assigned_ipv4, status.available_ipv4, status.observed_generation),
        (2, Some(7), 1)
    );
    assert_eq!(cluster.state.metric_values().services, [("Assigned", 2)]);
}

#[test]
fn a_dual_stack_service_gets_both_addresses_from_one_pool() {
    let pools = vec![pool("a", &["10.0.0.1"]), pool("b", &["10.0.1.1", "fd00::1"])];
    let cluster = Cluster::new(vec![dual_stack_service("d")], pools);
    assert_eq!(cluster.statuses(), ["d=fd00::1,10.0.1.1"]);
    assert_eq!(cluster.message("d"), "fd00::1 and 10.0.1.1 from pool b");
}

#[test]
fn no_address_is_assigned_before_all_lists_of_the_term() {
    let mut cluster = Cluster::without_leader(vec![service("a")], vec![pool("lan", &["10.0.0.1"])]);
    cluster.list_all(Order::ByName);
    assert_eq!(
        plan(&cluster.state),
        crate::desired::Desired::default(),
        "a replica without the lease plans no write"
    );
    assert_eq!(cluster.state.never_listed(), Vec::<&str>::new());
    cluster.handle(Event::Lease(permanent_lease()));
    assert!(cluster.writes().is_empty(), "the lists are older than the lease");
    cluster.handle(Event::of::<Service>(Change::ResyncStarted));
    cluster.apply(service("a"));
    cluster.handle(Event::of::<Service>(Change::ResyncDone));
    assert!(cluster.writes().is_empty(), "the list of the pools is still older than the lease");
    cluster.list_all(Order::ByName);
    assert_eq!(cluster.writes().len(), 2, "the statuses of the Service and the pool are due");
    cluster.handle(Event::Lease(Leadership::Lost));
    assert_eq!(plan(&cluster.state), crate::desired::Desired::default());
}

#[test]
fn addresses_in_statuses_are_adopted_before_any_assignment() {
    let services = vec![
        service("a"),
        service_with_addresses("b", &["10.0.0.1"], "lan"),
        service_with_addresses("c", &["10.0.0.3"], "lan"),
    ];
    let cluster = Cluster::new(services, vec![pool("lan", &["10.0.0.1-10.0.0.9"])]);
    assert_eq!(cluster.statuses(), ["a=10.0.0.2", "b=10.0.0.1", "c=10.0.0.3"]);
}

#[test]
fn of_two_services_with_one_address_the_first_by_name_keeps_it() {
    let services = vec![
        service_with_addresses("b", &["10.0.0.1"], "lan"),
        service_with_addresses("a", &["10.0.0.1"], "lan"),
    ];
    let cluster = Cluster::new(services, vec![pool("lan", &["10.0.0.1-10.0.0.9"])]);
    assert_eq!(cluster.statuses(), ["a=10.0.0.1", "b=10.0.0.2"]);
    let events: Vec<_> =
        cluster.notices.iter().map(|notice| (notice.warning, &*notice.message)).collect();
    assert!(
        events.contains(&(
            true,
            "10.0.0.2 from pool lan; 10.0.0.1 was released: it is assigned to Service default/a"
        )),
        "{events:?}"
    );
}

#[test]
fn a_released_address_goes_to_the_first_waiting_service() {
    let services = vec![service("a"), service("c"), service("b")];
    let mut cluster = Cluster::new(services, vec![pool("lan", &["10.0.0.1"])]);
    assert_eq!(cluster.statuses(), ["a=10.0.0.1", "b=", "c="]);
    assert_eq!(cluster.reason("b"), "PoolExhausted");
    assert_eq!(cluster.state.metric_values().services, [("Assigned", 1), ("PoolExhausted", 2)]);
    cluster.delete("a");
    assert!(
        cluster.writes().iter().any(|write| write.target() == Target::Service(key("b"))),
        "the waiting Service b gets the address at once"
    );
    cluster.settle();
    assert_eq!(cluster.statuses(), ["b=10.0.0.1", "c="]);
    cluster.apply_pool(pool("more", &["10.0.1.1"]));
    cluster.settle();
    assert_eq!(cluster.statuses(), ["b=10.0.0.1", "c=10.0.1.1"]);
    assert_eq!(cluster.state.metric_values().services, [("Assigned", 2), ("PoolExhausted", 0)]);
}

#[test]
fn waiting_services_are_retried_after_the_retry_interval() {
    let mut cluster =
        Cluster::new(vec![service("a"), service("b")], vec![pool("lan", &["10.0.0.1"])]);
    assert_eq!(cluster.statuses(), ["a=10.0.0.1", "b="]);
    // Free an address without the flag that causes a retry. Only a bug could do that.
    cluster.state.allocator.release("10.0.0.1".parse().unwrap(), &key("a"));
    assert!(cluster.state.allocator.take_freed());
    let due = cluster.state.deadline(cluster.now).expect("Service b waits for an address");
    assert!(due.since(cluster.now) <= crate::state::RETRY_INTERVAL);
    cluster.now = due;
    assert_eq!(cluster.writes(), []);
    cluster.handle(Event::Tick);
    assert!(cluster.writes().iter().any(|write| write.target() == Target::Service(key("b"))));
}

#[test]
fn the_condition_reports_why_no_address_is_assigned() {
    let cases: [(Vec<Pool>, Service, &str, &str); 4] = [
        (vec![], service("s"), "NoPoolMatches", "no IPAddressPool exists"),
        (
            vec![Pool { auto_assign: false, ..pool("p", &["10.0.0.1"]) }],
            service("s"),
            "NoPoolMatches",
            "p (spec.autoAssign is false)",
        ),
        (
            vec![pool("p", &["10.0.0.1"])],
            dual_stack_service("s"),
            "FamilyMissing",
            "no IPAddressPool has IPv6 and IPv4 addresses",
        ),
        (
            vec![pool("p", &[]), pool("q", &["fd00::1"])],
            service("s"),
            "FamilyMissing",
            "no IPAddressPool has IPv4 addresses",
        ),
    ];
    for (pools, service, reason, message) in cases {
        let cluster = Cluster::new(vec![service], pools);
        assert_eq!(cluster.statuses(), ["s="]);
        assert_eq!(cluster.reason("s"), reason);
        assert!(cluster.message("s").contains(message), "{}", cluster.message("s"));
        assert!(cluster.notices[0].warning);
    }
}

#[test]
fn foreign_services_are_never_written() {
    let foreign = Service {
        class: Some("other.io/lb".into()),
        ..service_with_addresses("foreign", &["10.0.0.1"], "lan")
    };
    let cluster_ip = Service { load_balancer: false, ..service("plain") };
    let changed_type = Service {
        load_balancer: false,
        pool_annotation: None,
        ..service_with_addresses("lingering", &["10.0.0.2"], "lan")
    };
    let deleting = Service { deleting: true, ..service("leaving") };
    let cluster = Cluster::new(
        vec![foreign, cluster_ip, changed_type, deleting],
        vec![pool("lan", &["10.0.0.1-10.0.0.9"])],
    );
    assert_eq!(cluster.log, Vec::<String>::new());
}

#[test]
fn a_changed_service_type_releases_the_address() {
    let mut cluster = Cluster::new(vec![service("a")], vec![pool("lan", &["10.0.0.1"])]);
    cluster.change("a", |service| service.load_balancer = false);
    cluster.settle();
    assert_eq!(cluster.statuses(), ["a="]);
    assert_eq!(cluster.services[&key("a")].pool_annotation, None);
    assert_eq!(*cluster.services[&key("a")].conditions, []);
    cluster.apply(service("b"));
    cluster.settle();
    assert_eq!(cluster.statuses(), ["a=", "b=10.0.0.1"]);
}

#[test]
fn a_service_keeps_its_address_until_it_is_deleted() {
    let mut cluster = Cluster::new(vec![service("a")], vec![pool("lan", &["10.0.0.1"])]);
    cluster.change("a", |service| service.deleting = true);
    cluster.apply(service("b"));
    cluster.settle();
    assert_eq!(cluster.statuses(), ["a=10.0.0.1", "b="]);
    cluster.delete("a");
    cluster.settle();
    assert_eq!(cluster.statuses(), ["b=10.0.0.1"]);
}

#[test]
fn an_address_outside_all_pools_is_replaced_with_an_event() {
    let mut cluster = Cluster::new(vec![service("a")], vec![pool("lan", &["10.0.0.1-10.0.0.9"])]);
    cluster.apply_pool(pool("lan", &["10.0.0.5-10.0.0.9"]));
    cluster.settle();
    assert_eq!(cluster.statuses(), ["a=10.0.0.5"]);
    let message = &cluster.notices.last().unwrap().message;
    assert_eq!(
        &**message,
        "10.0.0.5 from pool lan; 10.0.0.1 was released: no IPAddressPool contains it any more"
    );
    cluster.delete_pool("lan");
    cluster.settle();
    assert_eq!(
        (cluster.statuses(), cluster.reason("a")),
        (vec!["a=".to_owned()], "NoPoolMatches".to_owned())
    );
}

#[test]
fn an_address_moves_to_the_new_pool_that_contains_it() {
    let mut cluster = Cluster::new(vec![service("a")], vec![pool("lan", &["10.0.0.1-10.0.0.9"])]);
    cluster.pools.insert("new".into(), pool("new", &["10.0.0.1-10.0.0.9"]));
    cluster.handle(Event::of::<Pool>(Change::Apply(pool("new", &["10.0.0.1-10.0.0.9"]))));
    cluster.delete_pool("lan");
    cluster.settle();
    assert_eq!(cluster.message("a"), "10.0.0.1 from pool new");
}

#[test]
fn an_invalid_pool_assigns_and_releases_nothing() {
    let mut cluster = Cluster::new(vec![service("a")], vec![pool("lan", &["10.0.0.1-10.0.0.9"])]);
    let problem = "10.0.0.9-10.0.0.1".parse::<ferrolb_proto::range::AddressRange>().unwrap_err();
    let problem = Some(ferrolb_proto::facts::PoolProblem::Addresses(problem));
    cluster.apply_pool(Pool { ranges: vec![], problem, ..pool("lan", &[]) });
    cluster.apply(service("b"));
    cluster.settle();
    assert_eq!(cluster.statuses(), ["a=10.0.0.1", "b="]);
    assert_eq!(cluster.reason("b"), "NoPoolMatches");
    let condition = &cluster.pools["lan"].status.conditions[0];
    assert_eq!((condition.status.as_str(), condition.reason.as_str()), ("False", "BadAddresses"));
    assert!(condition.message.contains("ends before it starts"), "{}", condition.message);
    cluster.restart();
    cluster.settle();
    assert_eq!(
        cluster.statuses(),
        ["a=10.0.0.1", "b="],
        "a restart releases no address of an invalid pool"
    );
    cluster.apply_pool(pool("lan", &["10.0.0.1-10.0.0.9"]));
    cluster.settle();
    assert_eq!(cluster.statuses(), ["a=10.0.0.1", "b=10.0.0.2"]);
}

#[test]
fn of_two_overlapping_pools_the_first_by_name_stays_valid() {
    let pools = vec![pool("a", &["10.0.0.1-10.0.0.2"]), pool("b", &["10.0.0.2-10.0.0.9"])];
    let cluster = Cluster::new(vec![service("x"), service("y"), service("z")], pools);
    assert_eq!(cluster.statuses(), ["x=10.0.0.1", "y=10.0.0.2", "z="]);
    assert_eq!(cluster.pools["a"].status.conditions[0].status, "True");
    assert_eq!(cluster.pools["b"].status.conditions[0].reason, "Overlap");
}

#[test]
fn a_node_excludes_its_addresses_from_new_assignments_only() {
    let mut cluster = Cluster::new(vec![service("a")], vec![pool("lan", &["10.0.0.1-10.0.0.9"])]);
    let written = cluster.log.len();
    cluster.handle(Event::of::<Node>(Change::Apply(node("n2", "10.0.0.1"))));
    cluster.handle(Event::of::<Node>(Change::Apply(node("n3", "10.0.0.2"))));
    cluster.settle();
    cluster.apply(service("b"));
    cluster.settle();
    assert_eq!(cluster.statuses(), ["a=10.0.0.1", "b=10.0.0.3"]);
    assert!(cluster.message("a").contains("also an address of Node n2"));
    cluster.handle(Event::of::<Node>(Change::Delete(Key::new("", "n2"))));
    cluster.handle(Event::of::<Node>(Change::Delete(Key::new("", "n3"))));
    cluster.apply(service("c"));
    cluster.settle();
    assert_eq!(cluster.statuses(), ["a=10.0.0.1", "b=10.0.0.3", "c=10.0.0.2"]);
    assert_eq!(cluster.message("a"), "10.0.0.1 from pool lan");
    // Only Services that have, or get, an address are written.
    let written = &cluster.log[written..];
    assert_eq!(written, ["a 10.0.0.1", "b 10.0.0.3", "a 10.0.0.1", "c 10.0.0.2"]);
}

#[test]
fn a_second_family_is_assigned_from_the_same_pool_or_not_at_all() {
    let pools = vec![pool("a", &["10.0.0.1"]), pool("b", &["10.0.1.1", "fd00::1"])];
    let mut cluster = Cluster::new(vec![service("one"), service("two")], pools);
    assert_eq!(cluster.statuses(), ["one=10.0.0.1", "two=10.0.1.1"]);
    for name in ["one", "two"] {
        cluster.change(name, |service| service.families = vec![Family::V4, Family::V6]);
    }
    cluster.settle();
    assert_eq!(cluster.statuses(), ["one=10.0.0.1", "two=10.0.1.1,fd00::1"]);
    assert_eq!(cluster.reason("one"), "FamilyMissing");
    let message = cluster.message("one");
    assert!(
        message.starts_with("IPAddressPool a has no IPv6 addresses: add a range to it")
            && message.ends_with("; still assigned: 10.0.0.1 from pool a"),
        "{message}"
    );
    cluster.change("two", |service| service.families = vec![Family::V6]);
    cluster.settle();
    assert_eq!(cluster.statuses(), ["one=10.0.0.1", "two=fd00::1"]);
}

#[test]
fn a_second_address_is_written_once_in_the_order_of_families() {
    let prefers_dual_stack = Service {
        demand: AllocationDemand {
            family_policy: FamilyPolicy::Prefer,
            ..AllocationDemand::default()
        },
        ..dual_stack_service("d")
    };
    let mut cluster = Cluster::new(vec![prefers_dual_stack], vec![pool("lan", &["10.0.0.1"])]);
    cluster.apply_pool(pool("lan", &["10.0.0.1", "fd00::1"]));
    cluster.settle();
    assert_eq!(cluster.log, ["d 10.0.0.1", "d fd00::1,10.0.0.1"]);
}

#[test]
fn an_assignment_latency_is_recorded_once() {
    for echo_first in [true, false] {
        let mut cluster = Cluster::new(vec![], vec![pool("lan", &["10.0.0.1"])]);
        cluster.apply(service("a"));
        let write = cluster.writes().into_iter().next().unwrap();
        let Status::Service(_, status) = &write.status else { panic!("{write:?}") };
        let mut written = service("a");
        store(&mut written, status);
        cluster.now = cluster.now + Duration::from_millis(9);
        let done = Event::Written {
            target: write.target(),
            attempt: write.attempt,
            outcome: Outcome::Done,
        };
        let echo = Event::of::<Service>(Change::Apply(written));
        let events = if echo_first { [echo, done] } else { [done, echo] };
        events.into_iter().for_each(|event| cluster.handle(event));
        assert_eq!(
            cluster.state.take_latencies(),
            [Duration::from_millis(10)],
            "the latency is 10 ms if echo_first is {echo_first}"
        );
    }
}

#[test]
fn a_removed_ip_mode_is_restored() {
    let mut cluster = Cluster::new(vec![service("a")], vec![pool("lan", &["10.0.0.1"])]);
    cluster.change("a", |service| service.assigned[0].mode = None);
    cluster.settle();
    assert_eq!(cluster.services[&key("a")].assigned[0].mode, Some(IpMode::Vip));
}

#[test]
fn a_recreated_service_is_a_new_service() {
    let mut cluster = Cluster::new(vec![service("a")], vec![pool("lan", &["10.0.0.1-10.0.0.9"])]);
    cluster.apply(Service { uid: "new".into(), ..service("a") });
    let writes = cluster.writes();
    let Status::Service(_, status) = &writes[0].status else { panic!("{writes:?}") };
    assert_eq!((&*status.uid, joined(&status.addresses)), ("new", "10.0.0.1".to_owned()));
}

#[test]
fn an_unreadable_object_changes_no_assignment() {
    let mut cluster = Cluster::new(vec![service("a")], vec![pool("lan", &["10.0.0.1-10.0.0.9"])]);
    let why = || "spec.ports: missing".to_owned();
    cluster.handle(Event::of::<Service>(Change::ResyncStarted));
    cluster.handle(Event::of::<Service>(Change::Unreadable { key: key("a"), why: why() }));
    cluster.handle(Event::of::<Service>(Change::ResyncDone));
    cluster.apply(service("b"));
    cluster.settle();
    assert_eq!(cluster.statuses(), ["a=10.0.0.1", "b=10.0.0.2"]);
    let lan = Key::new(api::NAMESPACE, "lan");
    cluster.now = cluster.now + crate::state::RESOURCE_STATUS_INTERVAL;
    cluster.handle(Event::of::<Pool>(Change::Unreadable { key: lan.clone(), why: why() }));
    let writes = cluster.writes();
    let Status::CustomResource(_, CustomResourceStatus::Pool(status)) = &writes[0].status else {
        panic!("{writes:?}")
    };
    assert_eq!((&*status.valid.condition.reason, writes.len()), ("Unreadable", 1));
    let (target, attempt) = (writes[0].target(), writes[0].attempt);
    cluster.handle(Event::Written { target, attempt, outcome: Outcome::Done });
    cluster.handle(Event::of::<Pool>(Change::Unreadable { key: lan, why: why() }));
    assert_eq!(
        cluster.state.deadline(cluster.now),
        None,
        "Unreadable is written once, although the pool's status cannot be read"
    );
}

#[test]
fn custom_resources_of_another_product_get_no_status() {
    let mut cluster = Cluster::without_leader(vec![service("a")], vec![pool("lan", &["10.0.0.1"])]);
    cluster.state = State::new(Config { foreign_custom_resources: true, ..config() });
    cluster.become_leader();
    let mut ad = L2Advertisement::default();
    (ad.name, ad.selectors.pools) = ("l2".into(), vec!["wan".into()]);
    cluster.handle(Event::of::<L2Advertisement>(Change::Apply(ad)));
    let is_service = |write: &Write| matches!(write.status, Status::Service(..));
    assert!(cluster.writes().iter().all(is_service), "{:?}", cluster.writes());
    cluster.settle();
    assert_eq!(cluster.statuses(), ["a=10.0.0.1"]);
    assert!(cluster.writes().is_empty(), "{:?}", cluster.writes());
}

#[test]
fn an_advertisement_is_validated_against_the_existing_pools() {
    let mut cluster = Cluster::new(vec![], vec![]);
    let speakers = [Change::ResyncStarted, Change::ResyncDone];
    speakers.into_iter().for_each(|change| cluster.handle(Event::of::<Speaker>(change)));
    let mut ad = L2Advertisement::default();
    (ad.name, ad.selectors.pools) = ("l2".into(), vec!["lan".into()]);
    cluster.handle(Event::of::<L2Advertisement>(Change::Apply(ad)));
    let reason = |cluster: &Cluster| {
        let writes = cluster.writes();
        let status = writes
            .iter()
            .find(|write| {
                matches!(
                    write.target(),
                    Target::CustomResource(CustomResourceKind::L2Advertisement, _)
                )
            })
            .map(|write| write.status.clone());
        let Some(Status::CustomResource(_, CustomResourceStatus::Valid(_, status))) = status else {
            panic!("{writes:?}")
        };
        status.condition.reason
    };
    assert_eq!(reason(&cluster), "UnknownPool");
    cluster.apply_pool(pool("lan", &["10.0.0.1"]));
    assert_eq!(reason(&cluster), "Valid");
    cluster.handle(Event::of::<L2Advertisement>(Change::Delete(Key::new(api::NAMESPACE, "l2"))));
    assert!(cluster.writes().iter().all(|write| matches!(
        write.target(),
        Target::CustomResource(CustomResourceKind::IPAddressPool, _)
    )));
}
