//! Silent nodes: which pods the controller marks, and what it reports.

mod standby;

use ferrolb_proto::api::{WatchedNode, WatchedNodeState};
use ferrolb_proto::facts::{EndpointSlice, Node, Speaker};

use super::*;
use crate::desired::{NodeAction, NodeTask, ServiceKeys};
use crate::node_failure::failures::{ActionResult, CONFIRMATION_TIME, RESTORE_DELAY};
use crate::state::node_failure::EVALUATION_INTERVAL_MIN;
use crate::state::tests::announced::{
    endpoint_slice, ready_node, reason_and_message, report_running, speaker,
};
use WatchedNodeState::{Leaving, Replies, Silent};

/// Returns a speaker that watches both other nodes of a cluster of three.
fn watching(node: &str, states: [(&str, WatchedNodeState); 2], addresses: &[&str]) -> Speaker {
    let watched = states.map(|(node, state)| WatchedNode {
        node: node.to_owned(),
        state,
        silent: state == Leaving,
    });
    let watched = watched.to_vec();
    let mut speaker = speaker(node, addresses);
    let silent = watched.iter().filter(|it| it.state != Replies).map(|it| it.node.clone());
    let silent: Vec<_> = silent.collect();
    let heard = &mut speaker.interfaces[0].hello_senders;
    *heard = heard.iter().filter(|name| !silent.contains(&name.to_string())).cloned().collect();
    Speaker { watched: watched.into(), ..speaker }
}

fn slice_on(service: &str, nodes: &[&str]) -> Event {
    Event::of::<EndpointSlice>(Change::Apply(EndpointSlice { ..endpoint_slice(service, nodes) }))
}

/// Returns a cluster of three nodes with Service `a` of FerroLB and Service `b` of type ClusterIP,
/// which have endpoints on all nodes.
fn cluster(scope: MarkScope) -> Cluster {
    let internal = Service { load_balancer: false, ..service("b") };
    let mut cluster =
        Cluster::without_leader(vec![service("a"), internal], vec![pool("lan", &["10.0.0.0/24"])]);
    cluster.state = State::new(Config { node_failure_endpoints: scope, ..config() });
    let nodes = ["n1", "n2", "n3"];
    cluster.nodes = nodes.map(|node| (node.into(), ready_node(node))).into();
    cluster.become_leader();
    cluster.handle(Event::of::<EndpointSlice>(Change::ResyncStarted));
    cluster.handle(slice_on("a", &nodes));
    cluster.handle(slice_on("b", &nodes));
    cluster.handle(Event::of::<EndpointSlice>(Change::ResyncDone));
    cluster.handle(Event::of::<Speaker>(Change::ResyncStarted));
    for (node, others, addresses) in [
        ("n1", ["n2", "n3"], &["10.0.0.0"][..]),
        ("n2", ["n1", "n3"], &[]),
        ("n3", ["n1", "n2"], &[]),
    ] {
        let speaker = watching(node, others.map(|other| (other, Replies)), addresses);
        cluster.handle(Event::of::<Speaker>(Change::Apply(speaker)));
    }
    cluster.handle(Event::of::<Speaker>(Change::ResyncDone));
    cluster.settle();
    cluster
}

/// Reports the state of n3 from the speakers of n1 and n2.
fn report(cluster: &mut Cluster, state: WatchedNodeState) {
    for (node, other, addresses) in [("n1", "n2", &["10.0.0.0"][..]), ("n2", "n1", &[])] {
        let speaker = watching(node, [(other, Replies), ("n3", state)], addresses);
        cluster.handle(Event::of::<Speaker>(Change::Apply(speaker)));
    }
}

fn wait(cluster: &mut Cluster, time: Duration) {
    cluster.now = cluster.now + time;
    cluster.handle(Event::Tick);
}

/// Lets the time pass after which a silent node counts as failed, and that until the evidence is
/// evaluated.
fn pass_confirmation(cluster: &mut Cluster) {
    wait(cluster, EVALUATION_INTERVAL_MIN);
    wait(cluster, CONFIRMATION_TIME);
}

fn services(names: &[&str]) -> ServiceKeys {
    ServiceKeys(names.iter().map(|name| key(name)).collect())
}

fn notices(cluster: &mut Cluster) -> Vec<(String, String)> {
    std::iter::from_fn(|| cluster.state.next_node_notice())
        .map(|notice| (notice.node.to_string(), notice.notice.reason.to_string()))
        .collect()
}

#[test]
fn the_pods_of_the_own_services_on_a_silent_node_are_marked() {
    for (scope, marked) in [
        (MarkScope::Off, None),
        (MarkScope::Services, Some(services(&["a"]))),
        (MarkScope::All, Some(services(&["a", "b"]))),
    ] {
        let mut cluster = cluster(scope);
        report(&mut cluster, Silent);
        assert_eq!(cluster.state.node_tasks(), []);
        pass_confirmation(&mut cluster);
        let expect = marked.map(NodeAction::Mark);
        let actions: Vec<_> = cluster.state.node_tasks().iter().map(|it| &it.action).collect();
        assert_eq!(actions, expect.iter().collect::<Vec<_>>());
        let planned = plan(&cluster.state).node_tasks;
        assert_eq!(planned, cluster.state.node_tasks());
    }
}

#[test]
fn the_leader_marks_pods_while_it_has_the_lease() {
    let mut cluster = cluster(MarkScope::Services);
    report(&mut cluster, Silent);
    pass_confirmation(&mut cluster);
    for seconds in [10, 12] {
        let expiry = cluster.now + Duration::from_secs(seconds);
        cluster.handle(Event::Lease(Leadership::Held(expiry)));
        assert_eq!(plan(&cluster.state).node_tasks[0].until, expiry);
    }
}

#[test]
fn a_silent_node_has_an_event_a_warning_and_a_restore() {
    let mut cluster = cluster(MarkScope::Services);
    report(&mut cluster, Silent);
    pass_confirmation(&mut cluster);
    assert_eq!(notices(&mut cluster), [("n3".into(), "NodeSilent".into())]);
    let [NodeTask { attempt, .. }] = *cluster.state.node_tasks() else { panic!("one task") };
    cluster.handle(Event::NodeActionEnded { attempt, result: ActionResult::Done });
    assert_eq!(cluster.state.node_tasks(), []);
    assert_eq!(cluster.state.metric_values().failed_nodes, 1);
    cluster.settle();
    let (reason, message) = reason_and_message(&cluster, "a");
    assert_eq!(reason, "Announced");
    assert!(
        message
            .ends_with("; n3 failed: the endpoints there serve no request until the node replies")
    );
    report(&mut cluster, Replies);
    assert_eq!(notices(&mut cluster), [], "n2 still reports silence");
    wait(&mut cluster, EVALUATION_INTERVAL_MIN);
    assert_eq!(notices(&mut cluster), [("n3".into(), "NodeReplies".into())]);
    wait(&mut cluster, RESTORE_DELAY);
    let actions: Vec<_> = cluster.state.node_tasks().iter().map(|it| &it.action).collect();
    assert_eq!(actions, [&NodeAction::Restore(services(&["a"]))]);
    cluster.settle();
    assert_eq!(reason_and_message(&cluster, "a").1, "10.0.0.0 from n1 (eth0)");
}

#[test]
fn a_replica_that_loses_the_lease_marks_nothing() {
    let mut cluster = cluster(MarkScope::Services);
    report(&mut cluster, Silent);
    cluster.handle(Event::Lease(Leadership::Lost));
    pass_confirmation(&mut cluster);
    assert_eq!(cluster.state.node_tasks(), []);
    cluster.become_leader();
    pass_confirmation(&mut cluster);
    assert_eq!(cluster.state.node_tasks(), [], "the SpeakerStatuses are not listed yet");
}

#[test]
fn two_silent_nodes_of_three_have_one_event() {
    let mut cluster = cluster(MarkScope::Services);
    let silent = watching("n1", [("n2", Silent), ("n3", Silent)], &["10.0.0.0"]);
    cluster.handle(Event::of::<Speaker>(Change::Apply(silent)));
    assert_eq!(notices(&mut cluster), []);
    pass_confirmation(&mut cluster);
    wait(&mut cluster, Duration::from_secs(40));
    assert_eq!(cluster.state.node_tasks(), []);
    assert_eq!(notices(&mut cluster), [("n2".into(), "TooManyNodesSilent".into())]);
}

#[test]
fn the_node_of_the_controller_is_not_marked() {
    let mut cluster = cluster(MarkScope::Services);
    cluster.state.config.node = "n3".into();
    report(&mut cluster, Silent);
    pass_confirmation(&mut cluster);
    assert_eq!(cluster.state.node_tasks(), []);
}

#[test]
fn a_status_of_a_node_that_is_not_ready_proves_nothing() {
    let mut cluster = cluster(MarkScope::Services);
    // n1 was powered off long ago, and its SpeakerStatus still lists the hellos of n3.
    let gone = Node { ready: false, ready_unknown: true, ..ready_node("n1") };
    cluster.handle(Event::of::<Node>(Change::Apply(gone)));
    let silent = watching("n2", [("n1", Silent), ("n3", Silent)], &[]);
    cluster.handle(Event::of::<Speaker>(Change::Apply(silent)));
    pass_confirmation(&mut cluster);
    let kinds: Vec<_> = cluster.state.node_tasks().iter().map(|it| &it.action).collect();
    assert_eq!(kinds, [&NodeAction::ProbeKubelet(None)], "one of two speakers remains");
}

#[test]
fn a_status_of_a_speaker_that_does_not_run_proves_nothing() {
    let reported = |running: &[&str]| {
        let mut cluster = cluster(MarkScope::Services);
        // n1 still receives others, so only its pod shows that its speaker has stopped.
        report_running(&mut cluster, running);
        report(&mut cluster, Silent);
        pass_confirmation(&mut cluster);
        let kinds: Vec<_> = cluster.state.node_tasks().iter().map(|it| &it.action).collect();
        kinds == [&NodeAction::ProbeKubelet(None)]
    };
    assert!(!reported(&["n1", "n2", "n3"]), "two speakers report n3");
    assert!(reported(&["n2", "n3"]), "n2 alone reports n3");
}

#[test]
fn both_replicas_probe_the_kubelets_of_a_cluster_with_two_reporting_speakers() {
    let address = |node: &str| Node {
        internal_addresses: ["10.1.0.1".parse().unwrap()].into(),
        ..ready_node(node)
    };
    let mut cluster = cluster(MarkScope::Services);
    for node in ["n2", "n3"] {
        cluster.handle(Event::of::<Node>(Change::Apply(address(node))));
    }
    assert_eq!(cluster.state.kubelets(), [], "three speakers report");
    let gone = Node { ready: false, ready_unknown: true, ..ready_node("n1") };
    cluster.handle(Event::of::<Node>(Change::Apply(gone)));
    let kubelets = cluster.state.kubelets();
    assert_eq!(kubelets.len(), 2);
    cluster.handle(Event::Lease(Leadership::Lost));
    assert_eq!(plan(&cluster.state).kubelets, kubelets);
}
