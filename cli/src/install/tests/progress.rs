//! The progress of workloads and reports, also with nodes that are not Ready.

use ferrolb_proto::api::SpeakerStatusObject;
use ferrolb_proto::facts::Node;
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use crate::install::progress::{DaemonPods, Progress};

#[test]
fn pods_are_counted_as_by_kubectl_rollout_status() {
    let of = |status: &Value| {
        let object = json!({"metadata": {"generation": 2}, "spec": {"replicas": 3, "selector": {},
            "template": {}}, "status": status});
        Progress::from(&serde_json::from_value::<Deployment>(object).unwrap())
    };
    let done = json!({"observedGeneration": 2, "replicas": 3, "updatedReplicas": 3,
        "availableReplicas": 3});
    let with = |field: &str, value: i32| {
        let mut status = done.clone();
        status[field] = json!(value);
        of(&status)
    };
    let progress = Progress::new;
    assert_eq!(of(&done), progress(3, 3));
    assert_eq!(with("observedGeneration", 1), progress(0, 3), "the change is not read yet");
    assert_eq!(with("replicas", 4), progress(3, 4), "a replaced pod still runs");
    assert_eq!(with("updatedReplicas", 1), progress(1, 3));
    assert_eq!(with("availableReplicas", 2), progress(2, 3));
    assert_eq!(of(&Value::Null), progress(0, 3));
    let of = |observed, updated, available| {
        DaemonPods::default().progress(&daemon_set(observed, 3, updated, available))
    };
    assert_eq!([(2, 3), (3, 2)].map(|(a, b)| of(2, a, b)), [(); 2].map(|()| progress(2, 3)));
    assert_eq!(of(1, 3, 3), progress(0, 3));
    let new = serde_json::from_value(json!({"metadata": {"generation": 2}})).unwrap();
    assert_eq!(DaemonPods::default().progress(&new), progress(0, 1), "the DaemonSet is new");
}

fn daemon_set(observed: i32, desired: i32, updated: i32, available: i32) -> DaemonSet {
    let status = json!({"observedGeneration": observed, "desiredNumberScheduled": desired,
        "numberMisscheduled": 0, "currentNumberScheduled": desired, "numberReady": available,
        "updatedNumberScheduled": updated, "numberAvailable": available});
    serde_json::from_value(json!({"metadata": {"generation": 2}, "status": status})).unwrap()
}

fn node(name: &str, ready: bool) -> Node {
    Node { name: name.into(), ready, ..Node::default() }
}

fn pod(node: &str, ready: &str) -> Pod {
    let conditions = json!([{"type": "Initialized", "status": "True"},
        {"type": "Ready", "status": ready}]);
    let object = json!({"metadata": {}, "spec": {"nodeName": node, "containers": []},
        "status": {"conditions": conditions}});
    serde_json::from_value(object).unwrap()
}

/// Returns a pod that Kubernetes deletes, but that a failed node still has.
fn deleted(node: &str) -> Pod {
    let mut pod = pod(node, "False");
    let time = serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap();
    pod.metadata.deletion_timestamp = Some(time);
    pod
}

/// Returns pods on `n1`, `n2` and the failed node `n3`.
fn with_failed(third: Pod) -> DaemonPods {
    let nodes = [node("n1", true), node("n2", true), node("n3", false), node("n4", false)];
    let unscheduled = serde_json::from_value(json!({"spec": {"containers": []}})).unwrap();
    DaemonPods::new(&[pod("n1", "True"), pod("n2", "False"), third, unscheduled], &nodes)
}

#[test]
fn pods_of_nodes_that_are_not_ready_do_not_count() {
    let text = |pods: &DaemonPods, updated, available| {
        let progress = pods.progress(&daemon_set(2, 3, updated, available));
        (progress.to_string(), progress.is_complete())
    };
    let with = |counts: &str| format!("{counts} (left out until they are Ready: n3)");
    let failed = with_failed(pod("n3", "False"));
    assert_eq!(text(&failed, 3, 2), (with("2 of 2"), true));
    assert_eq!(text(&failed, 3, 1), (with("1 of 2"), false), "n2 is Ready, so its pod counts");
    assert_eq!(text(&failed, 2, 2), (with("1 of 2"), false), "n2 has an old pod, which is ready");
    let replaced = with_failed(deleted("n3"));
    assert_eq!(text(&replaced, 2, 2), (with("2 of 2"), true), "n3 has an old pod");
    assert_eq!(text(&replaced, 1, 2), (with("1 of 2"), false), "n2 has an old pod, too");
    let ready = with_failed(pod("n3", "True"));
    assert_eq!(text(&ready, 3, 3), ("3 of 3".to_owned(), true), "the pod runs nevertheless");
}

#[test]
fn without_a_ready_node_the_pods_of_all_count() {
    let pods = DaemonPods::new(&[pod("n1", "False")], &[node("n1", false)]);
    let progress = pods.progress(&daemon_set(2, 1, 1, 0));
    assert_eq!((progress.to_string(), progress.is_complete()), ("0 of 1".to_owned(), false));
    assert_eq!(pods.reports(&[]).to_string(), "0 of 1");
}

#[test]
fn reports_count_on_nodes_with_a_speaker() {
    let status = |node: &str, interfaces: Value| -> SpeakerStatusObject {
        let object = json!({"apiVersion": "ferrolb.io/v1beta1", "kind": "SpeakerStatus",
            "metadata": {"name": node}, "status": {"interfaces": interfaces}});
        serde_json::from_value(object).unwrap()
    };
    let eth0 = json!([{"name": "eth0", "mac": "", "up": true}]);
    let of = |nodes: &[&str]| {
        let statuses: Vec<_> = nodes.iter().map(|it| status(it, eth0.clone())).collect();
        with_failed(pod("n3", "False")).reports(&statuses).to_string()
    };
    let with = |counts: &str| format!("{counts} (left out until they are Ready: n3)");
    assert_eq!(of(&["n1", "n2"]), with("2 of 2"));
    assert_eq!(of(&["n1", "removed"]), with("1 of 2"), "the Node was removed");
    assert_eq!(of(&["n1", "n3"]), with("1 of 2"), "n3 reported before it failed");
    let without = [status("n1", json!([])), status("n2", eth0.clone())];
    assert_eq!(with_failed(pod("n3", "True")).reports(&without).to_string(), "1 of 3");
}
