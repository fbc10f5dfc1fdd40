//! Tests of the driver against an API server with two EndpointSlices and their pods.

use std::convert::Infallible;
use std::sync::Mutex;

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::{Request, Response};
use kube::client::Body;
use prometheus_client::registry::Registry;
use serde_json::{Value, from_slice};
use tower::service_fn;

use super::*;

/// Patches that the API server has received: path and body.
type Patches = Arc<Mutex<Vec<(String, Value)>>>;

fn endpoint(node: &str, pod: &str, ready: bool) -> Value {
    let target = json!({"kind": "Pod", "name": pod, "uid": format!("uid of {pod}")});
    json!({"addresses": ["10.1.0.1"], "nodeName": node, "conditions": {"ready": ready}, "targetRef": target})
}

/// Returns a pod whose condition `Ready` has this status and reason.
fn pod(name: &str, ready: &str, reason: Option<&str>, containers: &str) -> Value {
    json!({"metadata": {"name": name, "resourceVersion": "7"}, "status": {"conditions": [
        {"type": "Ready", "status": ready, "reason": reason}, {"type": "ContainersReady", "status": containers}]}})
}

/// Returns a driver whose API server rejects patches of the pod `refused`.
fn driver() -> (NodeFailureDriver, Patches, watch::Sender<Desired>) {
    let patches = Patches::default();
    let log = Arc::clone(&patches);
    let service = service_fn(move |request: Request<Body>| {
        let log = Arc::clone(&log);
        async move {
            let (parts, body) = request.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            let path = parts.uri.path().to_owned();
            let name = path.split('/').nth(6).unwrap_or_default().to_owned();
            let uri = parts.uri.to_string();
            let (code, json) = if path.ends_with("/endpointslices") {
                let ours = [
                    endpoint("n1", "other", true),
                    endpoint("n2", "web-1", true),
                    endpoint("n2", "web-2", false),
                    endpoint("n2", "web-3", false),
                ];
                let refused = [
                    endpoint("n1", "other", true),
                    endpoint("n2", "web-1", true),
                    endpoint("n2", "refused", true),
                ];
                let last = [
                    endpoint("n1", "other", false),
                    endpoint("n2", "only", true),
                    endpoint("n2", "web-4", true),
                ];
                let also = [endpoint("n1", "other", true), endpoint("n2", "web-4", true)];
                let service = uri.split("name%3D").nth(1).unwrap_or_default();
                let endpoints = match service.split('&').next().unwrap_or_default() {
                    "web" => json!(ours),
                    "refused" => json!(refused),
                    "last" => json!(last),
                    "also" => json!(also),
                    other => panic!("there is no Service {other}"),
                };
                (
                    200,
                    json!({"metadata": {}, "items": [{"metadata": {"name": "s"}, "addressType": "IPv4", "endpoints": endpoints}]}),
                )
            } else if parts.method == "GET" {
                let reason = (name == "web-2").then_some(NODE_SILENT);
                (200, pod(&name, "False", reason, "True"))
            } else if name == "refused" {
                (
                    403,
                    json!({"kind": "Status", "status": "Failure", "code": 403, "reason": "Forbidden", "message": "no"}),
                )
            } else {
                log.lock().unwrap().push((path, from_slice(&body).unwrap()));
                (200, pod(&name, "False", None, "True"))
            };
            let response = Full::new(Bytes::from(json.to_string()));
            Ok::<_, Infallible>(Response::builder().status(code).body(response).unwrap())
        }
    });
    let metrics = Arc::new(Metrics::new(&mut Registry::default()));
    let (sender, receiver) = watch::channel(Desired::default());
    (NodeFailureDriver::new(Client::new(service, "default"), metrics, receiver), patches, sender)
}

fn task(action: NodeAction) -> NodeTask {
    NodeTask { attempt: 1, node: "n2".into(), action, until: Instant::from_nanos(u64::MAX) }
}

/// Executes a task that is wanted.
async fn execute(
    driver: &NodeFailureDriver,
    desired: &watch::Sender<Desired>,
    task: NodeTask,
) -> ActionResult {
    desired.send_modify(|desired| desired.node_tasks = vec![task.clone()]);
    driver.execute(&task, false).await
}

fn services(names: &[&str]) -> ferrolb_controller_core::desired::ServiceKeys {
    ferrolb_controller_core::desired::ServiceKeys(
        names.iter().map(|name| Key::new("default", name)).collect(),
    )
}

#[tokio::test]
async fn only_ready_pods_of_the_node_are_marked() {
    let (driver, patches, desired) = driver();
    let mark = task(NodeAction::Mark(services(&["web"])));
    let result = execute(&driver, &desired, mark).await;
    assert_eq!((result, driver.metrics.pods_marked.get()), (ActionResult::Done, 1));
    let patches = patches.lock().unwrap();
    let [(path, body)] = patches.as_slice() else { panic!("{patches:?}") };
    assert_eq!(path, "/api/v1/namespaces/default/pods/web-1/status");
    assert_eq!(body["metadata"], json!({"uid": "uid of web-1"}));
    let condition = &body["status"]["conditions"][0];
    assert_eq!(
        (&condition["type"], &condition["status"], &condition["reason"]),
        (&json!("Ready"), &json!("False"), &json!("NodeSilent"))
    );
}

#[tokio::test]
async fn only_marked_pods_are_restored() {
    let (driver, patches, desired) = driver();
    let restore = task(NodeAction::Restore(services(&["web"])));
    let result = execute(&driver, &desired, restore).await;
    assert_eq!((result, driver.metrics.pods_restored.get()), (ActionResult::Done, 1));
    let patches = patches.lock().unwrap();
    let [(path, body)] = patches.as_slice() else { panic!("{patches:?}") };
    assert_eq!(path, "/api/v1/namespaces/default/pods/web-2/status");
    assert_eq!(body["metadata"]["resourceVersion"], "7");
    assert_eq!(body["status"]["conditions"][0]["status"], "True");
}

#[tokio::test]
async fn a_rejected_patch_fails_and_the_others_are_sent() {
    let (driver, patches, desired) = driver();
    let both = task(NodeAction::Mark(services(&["web", "refused"])));
    assert_eq!(execute(&driver, &desired, both).await, ActionResult::Failed);
    assert_eq!(patches.lock().unwrap().len(), 1, "web-1 is a pod of both Services");
}

#[tokio::test]
async fn the_last_ready_endpoints_of_a_service_are_not_marked() {
    let (driver, patches, desired) = driver();
    let all = task(NodeAction::Mark(services(&["last", "also"])));
    assert_eq!(execute(&driver, &desired, all).await, ActionResult::Done);
    assert!(patches.lock().unwrap().is_empty(), "web-4 is one of the last pods of a Service");
    let also = task(NodeAction::Mark(services(&["also"])));
    execute(&driver, &desired, also).await;
    assert_eq!(patches.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn after_the_time_of_a_task_or_its_end_nothing_is_patched() {
    let (driver, patches, desired) = driver();
    let mark = task(NodeAction::Mark(services(&["web"])));
    let late = NodeTask { until: Clock::now(), ..mark.clone() };
    assert_eq!(execute(&driver, &desired, late.clone()).await, ActionResult::Failed);
    let another = NodeTask { attempt: 2, ..mark.clone() };
    desired.send_modify(|desired| desired.node_tasks = vec![late, another.clone()]);
    assert_eq!(driver.execute(&mark, false).await, ActionResult::Failed, "its own time counts");
    desired.send_modify(|desired| desired.node_tasks = vec![another]);
    assert_eq!(driver.execute(&mark, false).await, ActionResult::Failed, "it is not wanted");
    assert_eq!(patches.lock().unwrap().len(), 0);
    assert_eq!(execute(&driver, &desired, mark).await, ActionResult::Done);
}

#[tokio::test(start_paused = true)]
async fn a_task_that_is_no_longer_wanted_ends() {
    let service = service_fn(|_request: Request<Body>| async {
        std::future::pending::<Result<Response<Full<Bytes>>, Infallible>>().await
    });
    let metrics = Arc::new(Metrics::new(&mut Registry::default()));
    let wanted = Desired {
        term: Some(1),
        node_tasks: vec![task(NodeAction::Mark(services(&["web"])))],
        ..Desired::default()
    };
    let (desired, receiver) = watch::channel(wanted.clone());
    let driver = NodeFailureDriver::new(Client::new(service, "default"), metrics, receiver);
    let (events, mut results) = mpsc::channel(1);
    let mut running = JoinSet::new();
    running.spawn(driver.run(events));
    tokio::time::sleep(REQUEST_TIMEOUT / 2).await;
    desired.send_replace(Desired { node_tasks: Vec::new(), ..wanted });
    let result = timeout(REQUEST_TIMEOUT * 2, results.recv()).await;
    assert!(result.is_err(), "the task has ended with a result: {result:?}");
}

#[test]
fn a_pod_is_restorable_if_it_is_marked_and_its_containers_are_ready() {
    let restorable = |ready, reason, containers| {
        let pod = pod("web", ready, reason, containers);
        is_restorable(&serde_json::from_value(pod).unwrap())
    };
    assert!(restorable("False", Some(NODE_SILENT), "True"));
    assert!(!restorable("True", Some(NODE_SILENT), "True"));
    assert!(!restorable("False", Some("ContainersNotReady"), "True"));
    assert!(!restorable("False", None, "True"));
    assert!(!restorable("False", Some(NODE_SILENT), "False"));
    let with_gate = |status: &str| {
        let mut pod = pod("web", "False", Some(NODE_SILENT), "True");
        pod["spec"] =
            json!({"containers": [], "readinessGates": [{"conditionType": "example.com/gate"}]});
        let gate = json!({"type": "example.com/gate", "status": status});
        pod["status"]["conditions"].as_array_mut().unwrap().push(gate);
        is_restorable(&serde_json::from_value(pod).unwrap())
    };
    assert_eq!(["True", "False"].map(with_gate), [true, false]);
}

#[tokio::test]
async fn a_kubelet_without_an_address_counts_as_replying() {
    let (driver, _, _desired) = driver();
    let result = driver.execute(&task(NodeAction::ProbeKubelet(None)), true).await;
    assert_eq!(result, ActionResult::KubeletReplied);
}

#[tokio::test]
async fn a_kubelet_that_has_replied_is_known_after_one_of_two_speakers_has_stopped() {
    // The kernel accepts connections without this program.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let kubelet = listener.local_addr().unwrap();
    let (driver, _, desired) = driver();
    let (events, mut results) = mpsc::channel(1);
    let mut running = JoinSet::new();
    running.spawn(driver.run(events));
    let pause = || tokio::time::sleep(Duration::from_millis(100));
    desired.send_modify(|desired| desired.kubelets = vec![kubelet]);
    pause().await;
    assert!(listener.accept().is_ok(), "it is probed");
    desired.send_modify(|desired| desired.kubelets = Vec::new());
    pause().await;
    assert!(listener.accept().is_err(), "it is not probed any more");
    let probe = task(NodeAction::ProbeKubelet(Some(kubelet)));
    desired.send_modify(|desired| desired.node_tasks = vec![probe]);
    assert!(results.recv().await.is_some());
    assert!(listener.accept().is_ok(), "the driver has not connected");
}
