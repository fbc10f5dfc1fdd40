//! Tests of a watch with a scripted API server, which sends the given responses in turn and then
//! none.

use std::collections::BTreeMap;
use std::convert::Infallible;

use ferrolb_proto::Instant;
use futures::stream::{self, StreamExt};
use http_body_util::StreamBody;
use hyper::body::{Bytes, Frame};
use hyper::{Request, Response};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::client::Body;
use kube::core::Status;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tower::service_fn;

use super::watch_errors::refusal;
use super::*;
use crate::backoff::{RETRY_DELAY_MAX, RETRY_DELAY_MIN};
use crate::logs::captured::logged;
use crate::watchdog::REFUSAL_LOG_INTERVAL;

#[derive(Deserialize)]
struct DecodedObject {
    metadata: ObjectMeta,
    #[serde(default)]
    data: BTreeMap<String, u32>,
}

/// A response of the API server: its status code and its JSON lines. A number instead of a line is
/// a pause in seconds.
type ScriptedResponse = (u16, Vec<Value>);

/// Returns a client of a server that sends these responses in turn, and then none.
fn scripted(responses: Vec<ScriptedResponse>) -> Client {
    let mut responses = responses.into_iter();
    let service = service_fn(move |_: Request<Body>| {
        let response = responses.next();
        async move {
            let Some((code, lines)) = response else { return std::future::pending().await };
            let frames = stream::iter(lines).then(async |line| {
                let pause = line.as_u64();
                tokio::time::sleep(Duration::from_secs(pause.unwrap_or_default())).await;
                let text = if pause.is_none() { format!("{line}\n") } else { String::new() };
                Ok::<_, Infallible>(Frame::data(Bytes::from(text)))
            });
            let body = StreamBody::new(Box::pin(frames));
            Ok::<_, Infallible>(Response::builder().status(code).body(body).unwrap())
        }
    });
    Client::new(service, "default")
}

fn object(name: &str, version: u32, value: Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "ConfigMap", "data": {"value": value},
        "metadata": {"namespace": "ns", "name": name, "resourceVersion": version.to_string()},
    })
}

fn list(items: &[Value]) -> ScriptedResponse {
    (
        200,
        vec![
            json!({"apiVersion": "v1", "kind": "ConfigMapList", "metadata": {"resourceVersion": "10"}, "items": items}),
        ],
    )
}

fn refused(code: u16) -> ScriptedResponse {
    (
        code,
        vec![
            json!({"apiVersion": "v1", "kind": "Status", "status": "Failure", "code": code, "message": "no"}),
        ],
    )
}

const CONNECTED: &str = "connected";
const INTERRUPTED: &str = "interrupted";

/// Returns the first `count` changes of objects and lists that the watch sends for this script,
/// each as a short text.
async fn changes(script: Vec<ScriptedResponse>, count: usize) -> Vec<String> {
    timed_changes(script, count).await.0
}

/// Returns the same changes as [`changes`], with the time from the start to each change.
async fn timed_changes(
    script: Vec<ScriptedResponse>,
    count: usize,
) -> (Vec<String>, Vec<Duration>) {
    recorded(script, count, false).await
}

/// Returns the same as [`timed_changes`], and `with_connection` also changes of the connection.
async fn recorded(
    script: Vec<ScriptedResponse>,
    count: usize,
    with_connection: bool,
) -> (Vec<String>, Vec<Duration>) {
    let start = tokio::time::Instant::now();
    let (events, mut queue) = mpsc::channel(1);
    let place = (scripted(script), "/api/v1/namespaces/ns/configmaps");
    let watch = Watch::new("ConfigMaps", place, |object: DecodedObject| {
        (Key::of(&object.metadata), object.data["value"])
    });
    let mut tasks = JoinSet::new();
    tasks.spawn(watch.run(
        events,
        |change| match change {
            Change::ResyncStarted => "started".to_owned(),
            Change::Apply((key, value)) => format!("{key}={value}"),
            Change::Unreadable { key, why } => format!("{key} unreadable: {why}"),
            Change::Delete(key) => format!("{key} deleted"),
            Change::ResyncDone => "done".to_owned(),
            Change::Connected(true) => CONNECTED.to_owned(),
            Change::Connected(false) => INTERRUPTED.to_owned(),
        },
        Arc::new(Watchdog::new(Instant::ZERO)),
    ));
    let (mut sent, mut times) = (Vec::new(), Vec::new());
    while sent.len() < count {
        let change = queue.recv().await.unwrap();
        if with_connection || ![CONNECTED, INTERRUPTED].contains(&&*change) {
            sent.push(change);
            times.push(start.elapsed());
        }
    }
    (sent, times)
}

#[tokio::test]
async fn an_unreadable_object_does_not_affect_a_list_or_a_watch() {
    let added = json!({"type": "ADDED", "object": object("c", 11, json!(3))});
    let broken = json!({"type": "MODIFIED", "object": object("c", 12, json!("three"))});
    let deleted = json!({"type": "DELETED", "object": object("a", 13, json!(1))});
    let objects =
        [object("a", 1, json!(1)), object("bad", 2, json!("two")), object("b", 3, json!(2))];
    let sent = changes(vec![list(&objects), (200, vec![added, broken, deleted])], 8).await;
    let why = r#"data.value: invalid type: string "two", expected u32"#;
    assert_eq!(
        sent[..5],
        ["started", "ns/a=1", &format!("ns/bad unreadable: {why}"), "ns/b=2", "done"]
    );
    assert_eq!(sent[5], "ns/c=3");
    assert!(sent[6].starts_with("ns/c unreadable: "), "the change is {:?}", sent[6]);
    assert_eq!(sent[7], "ns/a deleted");
}

#[tokio::test]
async fn the_pages_of_a_list_are_one_list() {
    let mut first = list(&[object("a", 1, json!(1)), object("b", 2, json!(2))]);
    first.1[0]["metadata"]["continue"] = json!("next");
    let script = vec![first, list(&[object("c", 3, json!(3))])];
    assert_eq!(changes(script, 5).await, ["started", "ns/a=1", "ns/b=2", "ns/c=3", "done"]);
}

#[tokio::test(start_paused = true)]
async fn an_interrupted_list_begins_again() {
    let mut broken = list(&[object("a", 1, json!(1))]);
    broken.1[0]["metadata"] = json!({"continue": "next"});
    let script = vec![broken, refused(410), list(&[object("b", 2, json!(2))])];
    assert_eq!(changes(script, 5).await, ["started", "ns/a=1", "started", "ns/b=2", "done"]);
}

#[tokio::test(start_paused = true)]
async fn a_refused_list_is_retried_and_sends_no_change() {
    let sent =
        changes(vec![refused(403), refused(404), list(&[object("a", 1, json!(1))])], 3).await;
    assert_eq!(sent, ["started", "ns/a=1", "done"]);
}

#[tokio::test(start_paused = true)]
async fn a_refused_watch_after_a_delayed_list_is_retried_soon() {
    let added = json!({"type": "ADDED", "object": object("c", 11, json!(3))});
    let mut script: Vec<ScriptedResponse> = (0..8).map(|_| refused(503)).collect();
    script.extend([list(&[]), refused(429), (200, vec![added])]);
    let (changes, times) = timed_changes(script, 3).await;
    assert_eq!(changes, ["started", "done", "ns/c=3"]);
    assert!(times[1] >= RETRY_DELAY_MAX, "the backoff delays the list: {times:?}");
    assert!(times[2] - times[1] <= RETRY_DELAY_MIN * 3, "the times of the changes are {times:?}");
}

#[tokio::test(start_paused = true)]
async fn lists_are_delayed_if_every_watch_is_refused() {
    let script = (0..12).flat_map(|_| [list(&[]), refused(410)]).collect();
    let (_, times) = timed_changes(script, 20).await;
    assert!(times[19] >= RETRY_DELAY_MAX * 3, "the times of the changes are {times:?}");
}

#[tokio::test(start_paused = true)]
async fn an_expired_resource_version_causes_a_new_list() {
    let expired = json!({"type": "ERROR", "object": {"kind": "Status", "status": "Failure", "code": 410, "message": "too old"}});
    let unknown = json!({"type": "NEWS", "object": {}});
    for response in [(200, vec![expired]), refused(410), (200, vec![unknown])] {
        let script =
            vec![list(&[object("a", 1, json!(1))]), response, list(&[object("b", 20, json!(2))])];
        assert_eq!(
            changes(script, 6).await,
            ["started", "ns/a=1", "done", "started", "ns/b=2", "done"]
        );
    }
}

#[tokio::test(start_paused = true)]
async fn an_interrupted_watch_continues_from_its_version() {
    let line =
        |name, version| json!({"type": "ADDED", "object": object(name, version, json!(version))});
    let script =
        vec![list(&[]), (200, vec![line("a", 11)]), refused(503), (200, vec![line("b", 12)])];
    let (sent, _) = recorded(script, 7, true).await;
    let first = ["started", "done", CONNECTED, "ns/a=11", INTERRUPTED, CONNECTED, "ns/b=12"];
    assert_eq!(sent, first);
}

#[tokio::test(start_paused = true)]
async fn bookmarks_keep_an_idle_watch_open_and_silence_ends_it() {
    let bookmark = || json!({"type": "BOOKMARK", "object": object("", 11, json!(0))});
    let idle = vec![json!(60), bookmark(), json!(60), bookmark(), json!(1_000)];
    let line = json!({"type": "ADDED", "object": object("a", 12, json!(12))});
    let (sent, times) = timed_changes(vec![list(&[]), (200, idle), (200, vec![line])], 3).await;
    assert_eq!(sent, ["started", "done", "ns/a=12"]);
    let end = Duration::from_secs(60 + 60) + RESPONSE_IDLE_MAX;
    assert!((end..end + RETRY_DELAY_MAX).contains(&times[2]), "{times:?}");
}

fn status(code: u16) -> Box<Status> {
    Box::new(serde_json::from_value(refused(code).1.remove(0)).unwrap())
}

#[test]
fn a_refusal_and_its_end_are_logged_once_each() {
    let watchdog = Arc::new(Watchdog::new(Instant::ZERO));
    watchdog.not_ready("waiting");
    let lines = logged(|| {
        let mut watch_errors = WatchErrors::new("pools", Arc::clone(&watchdog));
        watch_errors.record_success();
        let later = Instant::ZERO + REFUSAL_LOG_INTERVAL;
        for (code, at) in [
            (403, Instant::ZERO),
            (403, Instant::ZERO),
            (404, Instant::ZERO),
            (404, Instant::ZERO),
            (404, later),
        ] {
            watch_errors.record_failure(&kube::Error::Api(status(code)), at);
        }
        let why = watchdog.why_not_ready().unwrap();
        assert!(
            why.contains("pools: ")
                && why.contains("CustomResourceDefinitions")
                && !why.contains("RBAC"),
            "the reason is {why}"
        );
        // A new watch of the same kind.
        let mut watch_errors = WatchErrors::new("pools", Arc::clone(&watchdog));
        watch_errors.record_failure(&kube::Error::Api(status(404)), later);
        watch_errors.record_success();
        watch_errors.record_success();
        assert_eq!(watchdog.why_not_ready().as_deref(), Some("waiting"));
    });
    assert_eq!(lines.len(), 4, "the log is {lines:#?}");
    assert!(
        lines[0].starts_with("WARN") && lines[0].contains("RBAC"),
        "the first log line is {}",
        lines[0]
    );
    assert!(
        lines[1].starts_with("WARN") && lines[1].contains("CustomResourceDefinitions"),
        "the second log line is {}",
        lines[1]
    );
    assert_eq!(lines[2], lines[1], "the same refusal is logged again after REFUSAL_LOG_INTERVAL");
    assert!(
        lines[3].starts_with("INFO") && lines[3].contains("pools"),
        "the last log line is {}",
        lines[3]
    );
    watchdog.ready();
    watchdog.refused("pools", 403, "no".to_owned(), Instant::ZERO);
    assert_eq!(
        watchdog.why_not_ready(),
        None,
        "a ready program stays ready despite a later refusal"
    );
}

#[test]
fn only_refusals_that_an_operator_can_fix_are_logged() {
    for (code, expect) in [(403, true), (404, true), (400, true), (500, true)].into_iter().chain([
        (401, false),
        (410, false),
        (429, false),
        (503, false),
    ]) {
        assert_eq!(
            refusal(&kube::Error::Api(status(code))).is_some(),
            expect,
            "the status code is {code}"
        );
    }
}
