//! Tests of new addresses for which another host replies: the Service gets another one.

use ferrolb_proto::facts::{AddressRequestProblem, ServicePort};

use super::*;

/// The address that a Service gets first.
const FIRST: &str = "10.0.0.0";

/// Returns a speaker that reports another host with these addresses.
fn reporter(addresses: &[&str]) -> Speaker {
    let mut reporter = speaker("n2", &[]);
    let issue = |text: &&str| InterfaceIssue {
        address: text.parse().unwrap(),
        ..interface_issue(InterfaceIssueReason::AddressConflict, None)
    };
    reporter.interfaces[0].issues = addresses.iter().map(issue).collect();
    reporter
}

/// Returns a cluster with one Service without an owner, in which n2 reports other hosts.
fn with_hosts(service: Service, foreign: &[&str]) -> Cluster {
    Topology {
        services: vec![service],
        speakers: vec![speaker("n1", &[]), reporter(foreign), speaker("n3", &[])],
        ..Topology::default()
    }
    .settled_cluster()
}

fn sharing(name: &str, port: u16) -> Service {
    let mut service = service(name);
    service.demand.request.sharing_key = Some("k".into());
    service.demand.ports = vec![ServicePort { protocol: "TCP".into(), port }].into();
    service
}

fn first_requested() -> Service {
    let mut requesting = service("a");
    requesting.demand.request.addresses = vec![FIRST.parse().unwrap()];
    requesting
}

#[test]
fn a_new_address_of_another_host_is_replaced_and_no_service_gets_it() {
    let mut cluster = with_hosts(service("a"), &["10.0.0.0", "10.0.0.1"]);
    cluster.apply(service("b"));
    cluster.settle();
    assert_eq!(cluster.statuses(), ["a=10.0.0.2", "b=10.0.0.3"]);
    let released =
        "10.0.0.1 was released: another host replied for it before any node announced it";
    let notices: Vec<_> = cluster.notices.iter().map(|it| it.message.to_string()).collect();
    assert!(notices.iter().any(|it| it.ends_with(released)), "{notices:#?}");
    let conflict = notices.iter().find(|it| it.starts_with("IP conflict"));
    assert_eq!(conflict, None, "no Event is about an address that the Service has left");
    let valid = cluster.pools["lan"].status.conditions[0].message.to_string();
    let named =
        "except 10.0.0.0 (in use by another host, as Service default/a has found), 10.0.0.1";
    assert!(valid.contains(named), "{valid}");
    // The deleted Service proves nothing any more.
    cluster.delete("a");
    cluster.settle();
    let valid = cluster.pools["lan"].status.conditions[0].message.to_string();
    assert!(!valid.contains("another host"), "{valid}");
}

#[test]
fn a_requested_address_is_not_replaced() {
    let cluster = with_hosts(first_requested(), &[FIRST]);
    assert_eq!(cluster.statuses(), ["a=10.0.0.0"]);
    assert_eq!(reason_and_message(&cluster, "a").0, "AddressConflict");
}

#[test]
fn an_address_that_a_node_has_announced_is_not_replaced() {
    let mut cluster = owned_by_n1();
    report_speaker(&mut cluster, speaker("n1", &[]));
    report_speaker(&mut cluster, reporter(&[FIRST]));
    cluster.settle();
    assert_eq!(cluster.statuses(), ["a=10.0.0.0"]);
    assert_eq!(reason_and_message(&cluster, "a").0, "AddressConflict");
}

#[test]
fn an_address_is_not_replaced_by_a_later_leader() {
    let mut cluster = with_hosts(service("a"), &[]);
    let topology = Topology {
        speakers: vec![speaker("n1", &[]), reporter(&[FIRST]), speaker("n3", &[])],
        ..Topology::default()
    };
    cluster.state = State::new(config());
    topology.report_lists(&mut cluster, Order::ByName);
    cluster.settle();
    assert_eq!(cluster.statuses(), ["a=10.0.0.0"]);
}

#[test]
fn a_service_leaves_a_few_addresses_at_most() {
    let all: Vec<_> = (0..20).map(|n| format!("10.0.0.{n}")).collect();
    let all: Vec<_> = all.iter().map(String::as_str).collect();
    let cluster = with_hosts(service("a"), &all);
    assert_eq!(cluster.statuses(), ["a=10.0.0.3"]);
    assert_eq!(reason_and_message(&cluster, "a").0, "AddressConflict");
}

#[test]
fn a_service_without_another_address_keeps_its_own() {
    let mut cluster = with_hosts(sharing("a", 80), &[]);
    cluster.apply_pool(pool("lan", &["10.0.0.0"]));
    report_speaker(&mut cluster, reporter(&[FIRST]));
    cluster.settle();
    assert_eq!(cluster.statuses(), ["a=10.0.0.0"]);
    // The other host is gone, so the address can be shared.
    report_speaker(&mut cluster, reporter(&[]));
    cluster.apply(sharing("b", 81));
    cluster.settle();
    assert_eq!(cluster.statuses(), ["a=10.0.0.0", "b=10.0.0.0"]);
}

#[test]
fn an_address_of_a_service_with_an_invalid_request_or_that_is_being_deleted_is_not_replaced() {
    let changes: [fn(&mut Service); 2] = [
        |service| {
            service.demand.request.problem = Some(AddressRequestProblem::Mode("vip".into()).into());
        },
        |service| service.deleting = true,
    ];
    for change in changes {
        let mut cluster = with_hosts(service("a"), &[]);
        cluster.change("a", change);
        report_speaker(&mut cluster, reporter(&[FIRST]));
        cluster.settle();
        assert_eq!(cluster.statuses(), ["a=10.0.0.0"]);
    }
}

#[test]
fn an_announced_address_stays_also_if_its_status_was_cleared_or_its_service_recreated() {
    let changes: [fn(&mut Cluster); 3] = [
        |cluster| cluster.clear_status("a"),
        |cluster| {
            cluster.delete("a");
            cluster.settle();
            cluster.apply(Service { uid: "new".into(), ..service("a") });
        },
        |cluster| {
            cluster.clear_status("a");
            cluster.restart_with_speakers();
        },
    ];
    for change in changes {
        let mut cluster = owned_by_n1();
        cluster.apply_pool(Pool {
            sticky_for: Duration::from_secs(60),
            ..pool("lan", &["10.0.0.0/24"])
        });
        cluster.settle();
        change(&mut cluster);
        cluster.settle();
        report_speaker(&mut cluster, speaker("n1", &[]));
        report_speaker(&mut cluster, reporter(&[FIRST]));
        cluster.settle();
        assert_eq!(cluster.statuses(), ["a=10.0.0.0"]);
        assert_eq!(reason_and_message(&cluster, "a").0, "AddressConflict");
    }
}

#[test]
fn a_conflict_of_one_family_is_found_although_the_other_one_is_announced() {
    let cluster = Topology {
        services: vec![dual_stack_service("a")],
        slices: [Family::V4, Family::V6]
            .map(|family| with_family(family, endpoint_slice("a", &["n1", "n2", "n3"])))
            .into(),
        speakers: vec![speaker("n1", &[FIRST]), reporter(&["fd00::1"]), speaker("n3", &[])],
        ..Topology::default()
    }
    .settled_cluster();
    assert_eq!(cluster.statuses(), ["a=fd00::2,10.0.0.0"]);
}

impl Cluster {
    /// Replaces the controller; the speakers report what they reported.
    fn restart_with_speakers(&mut self) {
        self.state = State::new(config());
        let speakers = vec![speaker("n1", &[FIRST]), speaker("n2", &[]), speaker("n3", &[])];
        Topology { speakers, ..Topology::default() }.report_lists(self, Order::ByName);
    }
}

#[test]
fn the_address_of_the_other_family_stays() {
    let cluster = with_hosts(dual_stack_service("a"), &["fd00::1"]);
    assert_eq!(cluster.statuses(), ["a=fd00::2,10.0.0.0"]);
}

#[test]
fn services_with_a_sharing_key_meet_at_another_address() {
    let cluster = Topology {
        services: vec![sharing("a", 80), sharing("b", 81)],
        speakers: vec![speaker("n1", &[]), reporter(&[FIRST]), speaker("n3", &[])],
        ..Topology::default()
    }
    .settled_cluster();
    assert_eq!(cluster.statuses(), ["a=10.0.0.1", "b=10.0.0.1"]);
}
