//! Speakers that do not run any more, as their pods show.

use ferrolb_proto::api::{WatchedNode, WatchedNodeState};
use ferrolb_proto::facts::{Component, Node, Pod};

use super::*;
use crate::state::announced::RESTART_DELAY;

/// Maximum time until the condition reports that no speaker runs.
const REPORTED_MAX: Duration = Duration::from_secs(30);

/// A case: its name, and the change that stops all speakers.
type StopCase = (&'static str, fn(&mut Cluster));

pub(in crate::state::tests) fn pod(component: Component, node: &str, ready: bool) -> Pod {
    let key = Key::new("ferrolb-system", &format!("{component:?}-{node}"));
    let uid = format!("uid of {key}").into();
    Pod { key, component: Some(component), node: node.into(), ready, uid, is_wanted: true }
}

/// Reports a Ready controller, and a Ready speaker on each of these nodes, as the list of all pods.
pub(in crate::state::tests) fn report_running(cluster: &mut Cluster, nodes: &[&str]) {
    let speakers = nodes.iter().map(|node| pod(Component::Speaker, node, true));
    let pods = speakers.chain([pod(Component::Controller, "n1", true)]);
    report_list(cluster, pods.map(Change::Apply), Event::of::<Pod>);
}

/// Returns a cluster in which pods run on all nodes, and n1 owns the address of the Service.
fn running() -> Cluster {
    let mut cluster = owned_by_n1();
    report_running(&mut cluster, &["n1", "n2", "n3"]);
    cluster.settle();
    assert_eq!(reason_and_message(&cluster, "a").0, "Announced");
    cluster
}

/// Returns the reason and the message of the condition once the controller has settled, and the
/// time until then.
fn settled(cluster: &mut Cluster) -> (String, String, Duration) {
    let start = cluster.now;
    cluster.settle();
    let (reason, message) = reason_and_message(cluster, "a");
    (reason, message, cluster.now.since(start))
}

#[test]
fn without_any_running_speaker_the_announcement_is_unknown() {
    let stopped: [StopCase; 3] = [
        ("the DaemonSet has no pods", |cluster| report_running(cluster, &[])),
        ("no pod is Ready", |cluster| {
            for node in ["n1", "n2", "n3"] {
                let pod = pod(Component::Speaker, node, false);
                cluster.handle(Event::of::<Pod>(Change::Apply(pod)));
            }
        }),
        ("the pods are deleted one after the other", |cluster| {
            for node in ["n1", "n2", "n3"] {
                let key = pod(Component::Speaker, node, true).key;
                cluster.handle(Event::of::<Pod>(Change::Delete(key)));
            }
        }),
    ];
    for (case, stop) in stopped {
        let mut cluster = running();
        stop(&mut cluster);
        let (reason, message, after) = settled(&mut cluster);
        assert_eq!(reason, "SpeakersNotRunning", "{case}");
        assert!(message.contains("the speakers that announced it do not run (n1)"), "{message}");
        let condition = cluster.services[&key("a")].condition(ServiceConditionType::Announced);
        assert_eq!(condition.unwrap().status, ConditionStatus::Unknown, "{case}");
        assert!((RESTART_DELAY..=REPORTED_MAX).contains(&after), "{case}: after {after:?}");
        assert_eq!(cluster.state.stale().len(), 3, "{case}");
        report_running(&mut cluster, &["n1", "n2", "n3"]);
        assert_eq!(settled(&mut cluster).0, "Announced", "{case}");
    }
}

#[test]
fn on_the_only_node_a_stopped_speaker_is_reported_and_a_restart_is_not() {
    let alone = |addresses: &[&str]| {
        let mut speaker = speaker("n1", addresses);
        speaker.interfaces[0].hello_senders = Box::default();
        speaker
    };
    let mut cluster = Topology {
        nodes: vec![ready_node("n1")],
        speakers: vec![alone(&["10.0.0.0"])],
        ..Topology::default()
    }
    .settled_cluster();
    report_running(&mut cluster, &["n1"]);
    assert_eq!(settled(&mut cluster).0, "Announced");
    let written = cluster.log.len();
    report_running(&mut cluster, &[]);
    cluster.now = cluster.now + RESTART_DELAY / 2;
    cluster.handle(Event::Tick);
    report_running(&mut cluster, &["n1"]);
    assert_eq!(settled(&mut cluster).0, "Announced");
    assert_eq!(cluster.log.len(), written, "a restart writes nothing");
    report_running(&mut cluster, &[]);
    assert_eq!(settled(&mut cluster).0, "SpeakersNotRunning");
}

#[test]
fn a_speaker_that_another_one_receives_runs_whatever_its_pod_and_node_report() {
    let unknown = Node { ready_unknown: true, ready: false, ..ready_node("n1") };
    let mut cluster = running();
    cluster.handle(Event::of::<Node>(Change::Apply(unknown.clone())));
    report_running(&mut cluster, &["n2", "n3"]);
    assert_eq!(settled(&mut cluster).0, "Announced", "n2 and n3 receive its hellos");
    let without_n1 = |node: &str, replies: bool| {
        let watched =
            WatchedNode { node: "n1".to_owned(), state: WatchedNodeState::Replies, silent: false };
        let watched = replies.then_some(watched).into_iter().collect();
        Speaker { watched, ..without_hellos_of("n1", speaker(node, &[])) }
    };
    // With hellos of nobody, n1 is stale only because of its pod.
    let mut isolated = speaker("n1", &["10.0.0.0"]);
    isolated.interfaces[0].hello_senders = Box::default();
    report_speaker(&mut cluster, isolated);
    report_speaker(&mut cluster, without_n1("n2", false));
    report_speaker(&mut cluster, without_n1("n3", true));
    assert_eq!(settled(&mut cluster).0, "Announced", "n3 receives its replies by UDP");
    report_running(&mut cluster, &["n2"]);
    report_speaker(&mut cluster, without_n1("n3", true));
    assert_eq!(settled(&mut cluster).0, "Announced", "n2 confirms n3, which confirms n1");
    report_speaker(&mut cluster, without_n1("n3", false));
    assert_eq!(settled(&mut cluster).0, "SpeakersNotRunning", "nobody confirms n1");
}

#[test]
fn without_a_pod_of_the_controller_the_pods_are_no_evidence() {
    let mut cluster = owned_by_n1();
    report_list(&mut cluster, [].into_iter(), Event::of::<Pod>);
    assert_eq!(settled(&mut cluster).0, "Announced", "FerroLB does not run in pods");
    let speaker = pod(Component::Speaker, "n1", false);
    report_list(&mut cluster, [Change::Apply(speaker)].into_iter(), Event::of::<Pod>);
    assert_eq!(settled(&mut cluster).0, "Announced", "the pods are incomplete");
    let controller = pod(Component::Controller, "n2", false);
    cluster.handle(Event::of::<Pod>(Change::Apply(controller)));
    for node in ["n2", "n3"] {
        let speaker = pod(Component::Speaker, node, false);
        cluster.handle(Event::of::<Pod>(Change::Apply(speaker)));
    }
    assert_eq!(settled(&mut cluster).0, "SpeakersNotRunning");
}

#[test]
fn stopped_speakers_confirm_nobody() {
    let mut cluster = running();
    // n1 and n2 are lost at the same time: their old SpeakerStatuses list each other.
    let mut last = speaker("n3", &[]);
    last.interfaces[0].hello_senders = Box::default();
    report_speaker(&mut cluster, last);
    report_running(&mut cluster, &["n3"]);
    assert_eq!(settled(&mut cluster).0, "SpeakersNotRunning");
    assert_eq!(cluster.state.stale(), ["n1".into(), "n2".into()].into());
    report_speaker(&mut cluster, speaker("n3", &["10.0.0.0"]));
    let mut last = speaker("n3", &["10.0.0.0"]);
    last.interfaces[0].hello_senders = Box::default();
    report_speaker(&mut cluster, last);
    assert_eq!(settled(&mut cluster).1, "10.0.0.0 from n3 (eth0)");
}

#[test]
fn a_new_leader_reports_no_stopped_speaker_as_announcing() {
    let mut cluster = running();
    report_running(&mut cluster, &[]);
    assert_eq!(settled(&mut cluster).0, "SpeakersNotRunning");
    let warning = cluster.notices.last().map(|notice| (&*notice.reason, notice.warning));
    assert_eq!(warning, Some(("SpeakersNotRunning", true)), "there is an Event");
    cluster.state = State::new(config());
    let written = cluster.log.len();
    let speakers = vec![speaker("n1", &["10.0.0.0"]), speaker("n2", &[]), speaker("n3", &[])];
    Topology { speakers, ..Topology::default() }.report_lists(&mut cluster, Order::ByName);
    // The list of pods arrives last. Without it, the old SpeakerStatuses confirm each other.
    for write in cluster.writes() {
        cluster.write(&write);
    }
    report_running(&mut cluster, &[]);
    assert_eq!(settled(&mut cluster).0, "SpeakersNotRunning");
    assert_eq!(cluster.log.len(), written, "the Service is not written");
}
