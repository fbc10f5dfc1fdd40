//! Tests of when the condition `Announced` is checked and written.

use super::*;
use crate::state::announced::CONDITION_INTERVAL;
use crate::state::status_queue::CONDITIONS_PER_SECOND_MAX;
use ferrolb_proto::facts::{EndpointSlice, L2Advertisement, Node, Speaker};

#[test]
fn after_a_restart_no_condition_is_written_in_any_list_order() {
    let topology = || Topology {
        services: ["a", "b", "c", "d"].map(service).into(),
        slices: vec![
            endpoint_slice("a", &["n1"]),
            endpoint_slice("b", &["n2"]),
            endpoint_slice("d", &["n3"]),
        ],
        speakers: vec![
            speaker("n1", &["10.0.0.0"]),
            speaker("n2", &[]),
            speaker("n3", &["10.0.0.3"]),
        ],
        ..Topology::default()
    };
    let mut cluster = topology().settled_cluster();
    let reasons =
        |cluster: &Cluster| ["a", "b", "c", "d"].map(|name| reason_and_message(cluster, name).0);
    assert_eq!(reasons(&cluster), ["Announced", "Pending", "NoEndpoints", "Announced"]);
    for seed in 0..50 {
        let order = if seed == 0 { Order::Reversed } else { Order::Shuffled(Random(seed)) };
        cluster.state = State::new(config());
        cluster.log.clear();
        topology().report_lists(&mut cluster, order);
        cluster.settle();
        assert_eq!(cluster.log, [""; 0], "seed {seed}");
    }
}

#[test]
fn conditions_of_a_large_failover_are_rate_limited() {
    const SERVICE_COUNT: usize = 250;
    let names: Vec<_> = (0..SERVICE_COUNT).map(|n| format!("s{n:03}")).collect();
    let addresses: Vec<_> = (0..SERVICE_COUNT).map(|n| format!("10.0.0.{n}")).collect();
    let addresses: Vec<_> = addresses.iter().map(String::as_str).collect();
    let mut cluster = Topology {
        services: names.iter().map(|name| service(name)).collect(),
        slices: names.iter().map(|name| endpoint_slice(name, &["n1"])).collect(),
        speakers: vec![speaker("n1", &addresses), speaker("n2", &[]), speaker("n3", &[])],
        ..Topology::default()
    }
    .settled_cluster();
    assert_eq!(reason_and_message(&cluster, "s249").1, "10.0.0.249 from n1 (eth0)");
    cluster.now = cluster.now + CONDITION_INTERVAL;
    let start = cluster.now;
    report_speaker(&mut cluster, speaker("n2", &addresses));
    report_speaker(&mut cluster, speaker("n1", &[]));
    // The status of a new Service precedes the conditions that wait for the rate limit.
    cluster.apply(service("new"));
    let position =
        cluster.writes().iter().position(|write| write.target() == Target::Service(key("new")));
    assert!(position.is_some_and(|position| position <= 10), "{position:?}");
    cluster.log.clear();
    let mut written = 0;
    while cluster.now.since(start) < Duration::from_secs(1) {
        for write in cluster.writes() {
            written += usize::from(matches!(write.target(), Target::Service(_)));
            cluster.write(&write);
        }
        let deadline = cluster.state.deadline(cluster.now).unwrap();
        cluster.now = deadline.max(cluster.now);
        cluster.handle(Event::Tick);
    }
    assert!(
        (90..=CONDITIONS_PER_SECOND_MAX as usize + 15).contains(&written),
        "{written} conditions are written in 1 s"
    );
    cluster.settle();
    assert!(
        names.iter().all(|name| reason_and_message(&cluster, name).1.ends_with("from n2 (eth0)"))
    );
}

#[test]
fn a_change_for_all_services_is_written_to_every_service() {
    let names: Vec<_> = (0..250).map(|n| format!("s{n:03}")).collect();
    let mut cluster = Topology {
        services: names.iter().map(|name| service(name)).collect(),
        slices: names.iter().map(|name| endpoint_slice(name, &["n1"])).collect(),
        advertisements: vec![],
        ..Topology::default()
    }
    .settled_cluster();
    for (change, reason) in [
        (Change::Apply(ad(0, &json!({}))), "Pending"),
        (Change::Delete(cluster_scoped_key("l2-0")), "NoAdvertisement"),
    ] {
        cluster.handle(Event::of::<L2Advertisement>(change));
        cluster.settle();
        assert!(
            names.iter().all(|name| reason_and_message(&cluster, name).0 == reason),
            "{reason}"
        );
    }
}

#[test]
fn a_removed_condition_is_restored_with_backoff() {
    let mut cluster = owned_by_n1();
    // A controller that has not written the condition itself restores it, too.
    cluster.state = State::new(config());
    let speakers = vec![speaker("n1", &["10.0.0.0"]), speaker("n2", &[]), speaker("n3", &[])];
    Topology { speakers, ..Topology::default() }.report_lists(&mut cluster, Order::ByName);
    cluster.settle();
    let mut waits = Vec::new();
    for _ in 0..4 {
        let start = cluster.now;
        cluster.change("a", |service| service.conditions = service.conditions[..1].into());
        cluster.settle();
        assert_eq!(reason_and_message(&cluster, "a").0, "Announced");
        waits.push(cluster.now.since(start).as_millis());
    }
    assert!(waits.is_sorted() && waits[3] >= 1_600, "{waits:?}");
}

#[test]
fn changes_of_other_objects_are_written_to_the_condition() {
    let mut cluster = owned_by_n1();
    let reason_after = |cluster: &mut Cluster, event: Event| {
        cluster.handle(event);
        cluster.settle();
        reason_and_message(cluster, "a").0
    };
    report_speaker(&mut cluster, speaker("n1", &[]));
    assert_eq!(
        reason_after(
            &mut cluster,
            Event::of::<L2Advertisement>(Change::Delete(cluster_scoped_key("l2-0")))
        ),
        "NoAdvertisement"
    );
    assert_eq!(
        reason_after(
            &mut cluster,
            Event::of::<L2Advertisement>(Change::Apply(ad(1, &node_selector("n2"))))
        ),
        "Pending"
    );
    let excluded = Node { excluded: true, ..ready_node("n2") };
    assert_eq!(
        reason_after(&mut cluster, Event::of::<Node>(Change::Apply(excluded))),
        "NoCandidateNode"
    );
    assert_eq!(
        reason_after(&mut cluster, Event::of::<Node>(Change::Apply(ready_node("n2")))),
        "Pending"
    );
    assert_eq!(
        reason_after(&mut cluster, Event::of::<Node>(Change::Delete(cluster_scoped_key("n2")))),
        "NoCandidateNode"
    );
    assert_eq!(
        reason_after(
            &mut cluster,
            Event::of::<Speaker>(Change::Apply(speaker("n1", &["10.0.0.0"])))
        ),
        "Announced"
    );
    let lost = Node { ready_unknown: true, ..ready_node("n1") };
    assert_eq!(
        reason_after(&mut cluster, Event::of::<Node>(Change::Apply(lost))),
        "Announced",
        "only the kubelet has failed, because n3 receives the hellos of n1"
    );
    let last = without_hellos_of("n1", speaker("n3", &[]));
    assert_eq!(
        reason_after(&mut cluster, Event::of::<Speaker>(Change::Apply(last))),
        "NoCandidateNode",
        "n1 has stopped, and the advertisement does not select it"
    );
}

#[test]
fn changes_of_the_service_are_written_to_the_condition() {
    type TimingCase = (&'static str, serde_json::Value, fn(&mut Service), &'static str);
    let cases: [TimingCase; 3] = [
        ("policy", json!({}), |service| service.policy = TrafficPolicy::Local, "(eligible: n2)"),
        (
            "labels",
            json!({"serviceSelectors": [{"matchLabels": {"a": "b"}}]}),
            |service| service.demand.labels = [("a".into(), "b".into())].into(),
            "(eligible: n1, n2, n3)",
        ),
        (
            "mode",
            json!({}),
            |service| service.demand.request.announce_in_proxy_mode = true,
            "(eligible: n1, n2, n3)",
        ),
    ];
    for (case, ad, change, expect) in cases {
        let mut topology = Topology {
            slices: vec![endpoint_slice("a", &["n2"])],
            advertisements: vec![ad],
            ..Topology::default()
        };
        if case == "mode" {
            topology.services[0].demand.request.ip_mode = Some(IpMode::Proxy);
        }
        let mut cluster = topology.settled_cluster();
        assert!(!reason_and_message(&cluster, "a").1.contains(expect), "{case}");
        cluster.change("a", change);
        cluster.settle();
        assert!(
            reason_and_message(&cluster, "a").1.contains(expect),
            "{case}: {:?}",
            reason_and_message(&cluster, "a")
        );
    }
}

#[test]
fn a_new_service_that_shares_the_address_is_considered() {
    let sharing = |name: &str, port| {
        let mut service = service(name);
        service.demand.request.sharing_key = Some("k".into());
        service.demand.request.addresses = vec![ADDRESS.parse().unwrap()];
        service.demand.ports =
            [ferrolb_proto::facts::ServicePort { protocol: "TCP".into(), port }].into();
        service
    };
    let slices = vec![endpoint_slice("b", &["n1"])];
    let mut cluster = Topology { services: vec![sharing("a", 80)], slices, ..Topology::default() }
        .settled_cluster();
    assert_eq!(reason_and_message(&cluster, "a").0, "NoEndpoints");
    cluster.apply(sharing("b", 81));
    cluster.settle();
    assert_eq!(
        (reason_and_message(&cluster, "a").0, reason_and_message(&cluster, "b").0),
        ("Pending".into(), "Pending".into())
    );
}

#[test]
fn no_condition_is_written_before_all_lists_are_complete() {
    let slices = |cluster: &mut Cluster| {
        report_list(
            cluster,
            [Change::Apply(endpoint_slice("a", &["n2"]))].into_iter(),
            Event::of::<EndpointSlice>,
        )
    };
    let speakers = |cluster: &mut Cluster| {
        let all = [speaker("n1", &[]), speaker("n2", &["10.0.0.0"])];
        report_list(cluster, all.into_iter().map(Change::Apply), Event::of::<Speaker>);
    };
    for slices_first in [true, false] {
        let report = |cluster: &mut Cluster, first: bool| {
            if first == slices_first { slices(cluster) } else { speakers(cluster) }
        };
        let mut cluster = Cluster::without_leader(
            vec![service_with_addresses("a", &["10.0.0.0"], "lan")],
            vec![pool("lan", &["10.0.0.0/24"])],
        );
        cluster.nodes = ["n1", "n2"].map(|name| (name.into(), ready_node(name))).into();
        cluster.become_leader();
        report_list(
            &mut cluster,
            [Change::Apply(ad(0, &json!({})))].into_iter(),
            Event::of::<L2Advertisement>,
        );
        report(&mut cluster, true);
        cluster.settle();
        assert_eq!(reason_and_message(&cluster, "a").0, "");
        report(&mut cluster, false);
        cluster.settle();
        assert_eq!(
            reason_and_message(&cluster, "a"),
            ("Announced".into(), "10.0.0.0 from n2 (eth0)".into())
        );
    }
}

#[test]
fn no_condition_is_written_to_a_service_that_is_being_deleted() {
    let mut cluster = owned_by_n1();
    cluster.change("a", |service| service.deleting = true);
    report_speaker(&mut cluster, speaker("n1", &[]));
    cluster.settle();
    assert_eq!(reason_and_message(&cluster, "a").0, "Announced");
}

#[test]
fn a_replica_that_does_not_lead_checks_no_service() {
    let mut cluster = Cluster::without_leader(
        vec![service_with_addresses("a", &["10.0.0.0"], "lan")],
        vec![pool("lan", &["10.0.0.0/24"])],
    );
    cluster.list_all(Order::ByName);
    report_list(
        &mut cluster,
        [Change::Apply(endpoint_slice("a", &["n1"]))].into_iter(),
        Event::of::<EndpointSlice>,
    );
    report_list(
        &mut cluster,
        [Change::Apply(speaker("n1", &[]))].into_iter(),
        Event::of::<Speaker>,
    );
    assert_eq!(cluster.state.deadline(cluster.now), None);
}

/// Moves the address from n1 to n2.
fn move_to_n2(cluster: &mut Cluster) {
    report_speaker(cluster, speaker("n2", &["10.0.0.0"]));
    report_speaker(cluster, speaker("n1", &[]));
}

fn tick_after(cluster: &mut Cluster, time: Duration) {
    cluster.now = cluster.now + time;
    cluster.handle(Event::Tick);
}

#[test]
fn a_change_during_a_write_is_written_after_it() {
    let mut cluster = owned_by_n1();
    tick_after(&mut cluster, CONDITION_INTERVAL);
    move_to_n2(&mut cluster);
    let attempt = |cluster: &Cluster| cluster.writes().first().map(|write| write.attempt);
    let first = attempt(&cluster).expect("a write is due");
    // The API server is slow, and the owner changes again.
    report_speaker(&mut cluster, speaker("n3", &["10.0.0.0"]));
    report_speaker(&mut cluster, speaker("n2", &[]));
    tick_after(&mut cluster, CONDITION_INTERVAL);
    assert_eq!(attempt(&cluster), Some(first), "the attempt in progress is not replaced");
    cluster.settle();
    assert_eq!(reason_and_message(&cluster, "a").1, "10.0.0.0 from n3 (eth0)");
}

#[test]
fn a_frequently_changing_owner_is_written_once_per_second() {
    let mut cluster = owned_by_n1();
    tick_after(&mut cluster, CONDITION_INTERVAL);
    move_to_n2(&mut cluster);
    let write = cluster.writes().remove(0);
    cluster.write(&write);
    report_speaker(&mut cluster, speaker("n1", &["10.0.0.0"]));
    report_speaker(&mut cluster, speaker("n2", &[]));
    assert_eq!(cluster.writes(), []);
    tick_after(&mut cluster, CONDITION_INTERVAL);
    assert_eq!(cluster.writes().len(), 1);
}

#[test]
fn isolated_and_deleted_speakers_change_the_condition() {
    let mut cluster = Topology::default().settled_cluster();
    assert_eq!(reason_and_message(&cluster, "a").0, "Pending");
    for node in ["n1", "n2", "n3"] {
        let mut isolated = speaker(node, &[]);
        isolated.interfaces[0].isolated = true;
        report_speaker(&mut cluster, isolated);
    }
    cluster.settle();
    assert_eq!(reason_and_message(&cluster, "a").0, "SpeakersIsolated");
    for node in ["n1", "n2", "n3"] {
        cluster.handle(Event::of::<Speaker>(Change::Delete(cluster_scoped_key(node))));
    }
    cluster.settle();
    assert_eq!(reason_and_message(&cluster, "a").0, "NoSpeaker");
}
