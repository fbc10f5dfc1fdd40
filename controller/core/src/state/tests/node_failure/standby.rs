//! A replica that does not lead marks the pods on the node of the leader, and nothing else. The
//! leader runs on n3, this replica on n2.

use ferrolb_proto::facts::{Component, Pod};

use super::*;
use crate::desired::Desired;
use crate::state::tests::announced::pod;

/// Time after which a request of a replica that does not lead is late.
const LATE: Duration = Duration::from_millis(2_001);

fn standby() -> Cluster {
    let mut cluster = cluster(MarkScope::Services);
    cluster.state.config.node = "n2".into();
    report_running(&mut cluster, &["n1", "n2", "n3"]);
    let leader = pod(Component::Controller, "n3", true);
    cluster.handle(Event::of::<Pod>(Change::Apply(leader)));
    cluster.handle(Event::of::<Pod>(Change::Connected(true)));
    cluster.handle(Event::Lease(Leadership::Lost));
    renew(&mut cluster, "n3");
    cluster
}

/// The replica reads that the replica on a node has renewed the lease.
fn renew(cluster: &mut Cluster, node: &str) {
    let identity = format!("Controller-{node}_0123456789abcdef");
    cluster.handle(Event::Lease(Leadership::Other(identity.into())));
}

fn actions(cluster: &Cluster) -> Vec<NodeAction> {
    cluster.state.node_tasks().iter().map(|it| it.action.clone()).collect()
}

#[test]
fn the_pods_on_the_node_of_the_leader_are_marked_for_two_seconds() {
    let mut cluster = standby();
    report(&mut cluster, Silent);
    pass_confirmation(&mut cluster);
    assert_eq!(actions(&cluster), [NodeAction::Mark(services(&["a"]))]);
    assert_eq!(notices(&mut cluster), [("n3".into(), "NodeSilent".into())]);
    let Desired { term, until, writes, node_tasks, .. } = plan(&cluster.state);
    assert_eq!((term, writes.len(), node_tasks.len()), (None, 0, 1));
    assert_eq!(until, Instant::ZERO, "no other write may start");
    assert!(cluster.now < node_tasks[0].until && node_tasks[0].until < cluster.now + LATE);
}

#[test]
fn no_other_node_is_marked() {
    let mut cluster = standby();
    renew(&mut cluster, "n1");
    report(&mut cluster, Silent);
    pass_confirmation(&mut cluster);
    assert_eq!(actions(&cluster), [], "n1 leads, or its pod is not known");
    let leader = pod(Component::Controller, "n1", true);
    cluster.handle(Event::of::<Pod>(Change::Apply(leader)));
    pass_confirmation(&mut cluster);
    assert_eq!(actions(&cluster), [], "n1 leads");
    renew(&mut cluster, "n2");
    pass_confirmation(&mut cluster);
    assert_eq!(actions(&cluster), [], "the pod of n2 is not known");
    assert_eq!(notices(&mut cluster), []);
}

#[test]
fn a_standby_reports_no_failed_network() {
    let mut cluster = standby();
    let silent = watching("n1", [("n2", Silent), ("n3", Silent)], &["10.0.0.0"]);
    cluster.handle(Event::of::<Speaker>(Change::Apply(silent)));
    pass_confirmation(&mut cluster);
    wait(&mut cluster, CONFIRMATION_TIME);
    assert_eq!(notices(&mut cluster), []);
}

#[test]
fn a_renewal_of_the_lease_refutes_the_silence_before_it() {
    let mut cluster = standby();
    report(&mut cluster, Silent);
    wait(&mut cluster, EVALUATION_INTERVAL_MIN);
    wait(&mut cluster, CONFIRMATION_TIME - EVALUATION_INTERVAL_MIN);
    renew(&mut cluster, "n3");
    wait(&mut cluster, EVALUATION_INTERVAL_MIN);
    assert_eq!(actions(&cluster), []);
    pass_confirmation(&mut cluster);
    assert_eq!(actions(&cluster), [NodeAction::Mark(services(&["a"]))], "it is silent since then");
}

#[test]
fn a_renewal_of_the_lease_or_a_reply_ends_a_mark_in_progress() {
    let marking = || {
        let mut cluster = standby();
        report(&mut cluster, Silent);
        pass_confirmation(&mut cluster);
        let [NodeTask { attempt, until, .. }] = *cluster.state.node_tasks() else {
            panic!("one task")
        };
        (cluster, attempt, until)
    };
    let (mut cluster, attempt, until) = marking();
    renew(&mut cluster, "n3");
    assert_eq!(plan(&cluster.state).node_tasks, []);
    pass_confirmation(&mut cluster);
    let [next] = cluster.state.node_tasks() else { panic!("it is silent since then") };
    assert_ne!(next.attempt, attempt);
    assert!(until < next.until && next.until < cluster.now + LATE);

    let (mut cluster, ..) = marking();
    let replies = watching("n1", [("n2", Replies), ("n3", Replies)], &["10.0.0.0"]);
    cluster.handle(Event::of::<Speaker>(Change::Apply(replies)));
    assert_eq!(actions(&cluster), [], "n1 receives a reply of n3");
    pass_confirmation(&mut cluster);
    assert_eq!(actions(&cluster), []);
}

#[test]
fn a_mark_ends_if_another_replica_leads() {
    // The pod of n2 is not known.
    for leader in ["n1", "n2"] {
        let mut cluster = standby();
        report(&mut cluster, Silent);
        pass_confirmation(&mut cluster);
        assert_eq!(actions(&cluster).len(), 1);
        renew(&mut cluster, leader);
        assert_eq!(plan(&cluster.state).node_tasks, [], "{leader} leads");
    }
}

#[test]
fn a_standby_restores_the_pods_that_it_marked_and_each_task_has_its_own_time() {
    let mut cluster = standby();
    report(&mut cluster, Silent);
    pass_confirmation(&mut cluster);
    let attempt = cluster.state.node_tasks()[0].attempt;
    cluster.handle(Event::NodeActionEnded { attempt, result: ActionResult::Done });
    report(&mut cluster, Replies);
    wait(&mut cluster, EVALUATION_INTERVAL_MIN);
    wait(&mut cluster, RESTORE_DELAY);
    assert_eq!(actions(&cluster), [NodeAction::Restore(services(&["a"]))]);
    let until = cluster.state.node_tasks()[0].until;
    assert!(cluster.now < until && until < cluster.now + LATE);
    // Before that ends, n1 leads and fails.
    renew(&mut cluster, "n1");
    for (node, other) in [("n2", "n3"), ("n3", "n2")] {
        let silent = watching(node, [(other, Replies), ("n1", Silent)], &[]);
        cluster.handle(Event::of::<Speaker>(Change::Apply(silent)));
    }
    pass_confirmation(&mut cluster);
    let tasks = cluster.state.node_tasks().iter();
    let tasks: Vec<_> = tasks.map(|it| (&*it.node, it.until == until)).collect();
    assert_eq!(tasks, [("n3", true), ("n1", false)]);
}

#[test]
fn of_two_speakers_a_standby_probes_the_kubelet_of_a_silent_or_stopped_node() {
    let kubelet = "10.1.0.3:10250".parse().unwrap();
    for (state, is_ready) in [(Silent, true), (Leaving, true), (Leaving, false)] {
        for result in [ActionResult::Done, ActionResult::KubeletReplied] {
            let mut cluster = standby();
            report_running(&mut cluster, &["n2", "n3"]);
            let leader = pod(Component::Controller, "n3", true);
            cluster.handle(Event::of::<Pod>(Change::Apply(leader)));
            let node = Node {
                internal_addresses: ["10.1.0.3".parse().unwrap()].into(),
                ..ready_node("n3")
            };
            cluster.handle(Event::of::<Node>(Change::Apply(node)));
            if state == Leaving {
                report_stop(&mut cluster);
            }
            let own = Pod { ready: is_ready, ..pod(Component::Speaker, "n3", true) };
            cluster.handle(Event::of::<Pod>(Change::Apply(own)));
            report(&mut cluster, state);
            pass_confirmation(&mut cluster);
            assert_eq!(actions(&cluster), [NodeAction::ProbeKubelet(Some(kubelet))]);
            let attempt = cluster.state.node_tasks()[0].attempt;
            cluster.handle(Event::NodeActionEnded { attempt, result });
            let marked = (result == ActionResult::Done).then(|| NodeAction::Mark(services(&["a"])));
            assert_eq!(actions(&cluster), marked.into_iter().collect::<Vec<_>>(), "{state:?}");
        }
    }
}

#[test]
fn the_next_leader_restores_the_pods_that_it_marked_before() {
    let mut cluster = standby();
    report(&mut cluster, Silent);
    pass_confirmation(&mut cluster);
    let attempt = cluster.state.node_tasks()[0].attempt;
    cluster.handle(Event::NodeActionEnded { attempt, result: ActionResult::Done });
    assert_eq!(actions(&cluster), []);
    cluster.handle(Event::Lease(permanent_lease()));
    cluster.list_all(Order::ByName);
    list_own(&mut cluster);
    report(&mut cluster, Replies);
    wait(&mut cluster, EVALUATION_INTERVAL_MIN);
    wait(&mut cluster, RESTORE_DELAY);
    assert_eq!(actions(&cluster), [NodeAction::Restore(services(&["a"]))]);
}

/// Lists the objects that [`Cluster`] does not store.
fn list_own(cluster: &mut Cluster) {
    cluster.handle(Event::of::<EndpointSlice>(Change::ResyncStarted));
    cluster.handle(slice_on("a", &["n1", "n2", "n3"]));
    cluster.handle(Event::of::<EndpointSlice>(Change::ResyncDone));
    cluster.handle(Event::of::<Speaker>(Change::ResyncStarted));
    report(cluster, Silent);
    let third = watching("n3", [("n1", Replies), ("n2", Replies)], &[]);
    cluster.handle(Event::of::<Speaker>(Change::Apply(third)));
    cluster.handle(Event::of::<Speaker>(Change::ResyncDone));
    report_running(cluster, &["n1", "n2", "n3"]);
}

/// n1 and n2 report that the speaker of n3 stops, while its node still replies.
fn report_stop(cluster: &mut Cluster) {
    for (node, other, addresses) in [("n1", "n2", &["10.0.0.0"][..]), ("n2", "n1", &[])] {
        let mut speaker = watching(node, [(other, Replies), ("n3", Leaving)], addresses);
        speaker.watched[1].silent = false;
        cluster.handle(Event::of::<Speaker>(Change::Apply(speaker)));
    }
    wait(cluster, EVALUATION_INTERVAL_MIN);
}

#[test]
fn a_stopped_node_is_marked_while_its_pod_is_known_to_exist() {
    let marked_after = |is_seen: bool, change: &dyn Fn(&mut Cluster)| {
        let mut cluster = standby();
        if is_seen {
            report_stop(&mut cluster);
        }
        change(&mut cluster);
        report(&mut cluster, Leaving);
        pass_confirmation(&mut cluster);
        actions(&cluster).len()
    };
    let apply = |pod: Pod| {
        move |cluster: &mut Cluster| {
            cluster.handle(Event::of::<Pod>(Change::Apply(pod.clone())));
        }
    };
    let own = || pod(Component::Speaker, "n3", true);
    let marked = |change: &dyn Fn(&mut Cluster)| marked_after(true, change);
    assert_eq!(marked(&|_| {}), 1);
    assert_eq!(marked_after(false, &|_| {}), 0, "the stop may be that of an earlier pod");
    assert_eq!(marked(&apply(Pod { ready: false, ..own() })), 1, "its kubelet saw it end");
    assert_eq!(marked(&apply(Pod { is_wanted: false, ..own() })), 0, "it has a deletion time");
    assert_eq!(marked(&apply(Pod { uid: "other".into(), ..own() })), 0, "it is another pod");
    let delete = |cluster: &mut Cluster| {
        cluster.handle(Event::of::<Pod>(Change::Delete(own().key)));
    };
    assert_eq!(marked(&delete), 0);
    let replace = |cluster: &mut Cluster| {
        delete(cluster);
        let next = Pod { key: Key::new("ferrolb-system", "next"), uid: "next".into(), ..own() };
        cluster.handle(Event::of::<Pod>(Change::Apply(next)));
    };
    assert_eq!(marked(&replace), 0, "the next speaker has not stated a stop");
    let interrupt = |cluster: &mut Cluster| {
        cluster.handle(Event::of::<Pod>(Change::Connected(false)));
    };
    assert_eq!(marked(&interrupt), 0, "it may be deleted meanwhile");
    let resume = |cluster: &mut Cluster| {
        interrupt(cluster);
        report(cluster, Leaving);
        pass_confirmation(cluster);
        cluster.handle(Event::of::<Pod>(Change::Connected(true)));
    };
    assert_eq!(marked(&resume), 1);
}
