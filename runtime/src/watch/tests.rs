//! The watch against a scripted API server: one list, one watch, then no more data.

use std::collections::BTreeMap;
use std::convert::Infallible;

use ferrolb_proto::Instant;
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::{Request, Response};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Client;
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

#[derive(Resource, Deserialize, Clone, Debug)]
#[resource(inherit = k8s_openapi::api::core::v1::ConfigMap)]
struct Wire {
    metadata: ObjectMeta,
    #[serde(default)]
    data: BTreeMap<String, u32>,
}

/// A response of the API server: its status code and its JSON lines.
type Answer = (u16, Vec<Value>);

/// Returns a client of a server that sends these responses in turn, and then none.
fn scripted(answers: Vec<Answer>) -> Client {
    let mut answers = answers.into_iter();
    let service = service_fn(move |_: Request<Body>| {
        let answer = answers.next();
        async move {
            let Some((code, lines)) = answer else { return std::future::pending().await };
            let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
            let response =
                Response::builder().status(code).body(Full::new(Bytes::from(text))).unwrap();
            Ok::<_, Infallible>(response)
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

fn list(items: &[Value]) -> Answer {
    (
        200,
        vec![
            json!({"apiVersion": "v1", "kind": "ConfigMapList", "metadata": {"resourceVersion": "10"}, "items": items}),
        ],
    )
}

fn refused(code: u16) -> Answer {
    (
        code,
        vec![
            json!({"apiVersion": "v1", "kind": "Status", "status": "Failure", "code": code, "message": "no"}),
        ],
    )
}

/// Returns the first `count` changes that the watch sends for this script, each as a short text.
async fn changes(script: Vec<Answer>, count: usize) -> Vec<String> {
    timed(script, count).await.0
}

/// Returns the same changes, with the time from the start to each.
async fn timed(script: Vec<Answer>, count: usize) -> (Vec<String>, Vec<Duration>) {
    let start = tokio::time::Instant::now();
    let (events, mut queue) = mpsc::channel(1);
    let api = Api::namespaced(scripted(script), "ns");
    let watch =
        Watch::new("ConfigMaps", api, |wire: Wire| (Key::of(&wire.metadata), wire.data["value"]));
    let mut tasks = JoinSet::new();
    tasks.spawn(watch.run(
        events,
        |change| match change {
            Change::ResyncStarted => "started".to_owned(),
            Change::Apply((key, value)) => format!("{key}={value}"),
            Change::Unreadable { key, why } => format!("{key} unreadable: {why}"),
            Change::Delete(key) => format!("{key} gone"),
            Change::ResyncDone => "done".to_owned(),
        },
        Arc::new(Watchdog::new(Instant::ZERO)),
    ));
    let (mut seen, mut took) = (Vec::new(), Vec::new());
    while seen.len() < count {
        seen.push(queue.recv().await.unwrap());
        took.push(start.elapsed());
    }
    (seen, took)
}

#[tokio::test]
async fn a_list_and_a_watch_become_changes_and_one_bad_object_spoils_neither() {
    let added = json!({"type": "ADDED", "object": object("c", 11, json!(3))});
    let broken = json!({"type": "MODIFIED", "object": object("c", 12, json!("three"))});
    let deleted = json!({"type": "DELETED", "object": object("a", 13, json!(1))});
    let objects =
        [object("a", 1, json!(1)), object("bad", 2, json!("two")), object("b", 3, json!(2))];
    let seen = changes(vec![list(&objects), (200, vec![added, broken, deleted])], 8).await;
    let why = r#"data.value: invalid type: string "two", expected u32"#;
    assert_eq!(
        seen[..5],
        ["started", "ns/a=1", &format!("ns/bad unreadable: {why}"), "ns/b=2", "done"]
    );
    assert_eq!(seen[5], "ns/c=3");
    assert!(seen[6].starts_with("ns/c unreadable: "), "{}", seen[6]);
    assert_eq!(seen[7], "ns/a gone");
}

#[tokio::test]
async fn the_pages_of_a_list_are_one_list() {
    let mut first = list(&[object("a", 1, json!(1)), object("b", 2, json!(2))]);
    first.1[0]["metadata"]["continue"] = json!("next");
    let script = vec![first, list(&[object("c", 3, json!(3))])];
    assert_eq!(changes(script, 5).await, ["started", "ns/a=1", "ns/b=2", "ns/c=3", "done"]);
}

#[tokio::test(start_paused = true)]
async fn a_list_that_breaks_off_begins_again() {
    let mut broken = list(&[object("a", 1, json!(1))]);
    broken.1[0]["metadata"] = json!({"continue": "next"});
    let script = vec![broken, refused(410), list(&[object("b", 2, json!(2))])];
    assert_eq!(changes(script, 5).await, ["started", "ns/a=1", "started", "ns/b=2", "done"]);
}

#[tokio::test(start_paused = true)]
async fn a_refused_list_is_tried_again_and_announced_only_when_it_comes() {
    let seen =
        changes(vec![refused(403), refused(404), list(&[object("a", 1, json!(1))])], 3).await;
    assert_eq!(seen, ["started", "ns/a=1", "done"]);
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_is_refused_after_a_list_at_last_is_tried_again_soon() {
    let added = json!({"type": "ADDED", "object": object("c", 11, json!(3))});
    let mut script: Vec<Answer> = (0..8).map(|_| refused(503)).collect();
    script.extend([list(&[]), refused(429), (200, vec![added])]);
    let (changes, took) = timed(script, 3).await;
    assert_eq!(changes, ["started", "done", "ns/c=3"]);
    assert!(took[1] >= RETRY_DELAY_MAX, "the list was waited for: {took:?}");
    assert!(took[2] - took[1] <= RETRY_DELAY_MIN * 3, "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_lists_and_never_watches_is_not_asked_for_lists_at_full_speed() {
    let script = (0..12).flat_map(|_| [list(&[]), refused(410)]).collect();
    let (_, took) = timed(script, 20).await;
    assert!(took[19] >= RETRY_DELAY_MAX * 3, "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_forgot_where_we_were_is_listed_again() {
    let gone = json!({"type": "ERROR", "object": {"kind": "Status", "status": "Failure", "code": 410, "message": "too old"}});
    let unknown = json!({"type": "NEWS", "object": {}});
    for answer in [(200, vec![gone]), refused(410), (200, vec![unknown])] {
        let script =
            vec![list(&[object("a", 1, json!(1))]), answer, list(&[object("b", 20, json!(2))])];
        assert_eq!(
            changes(script, 6).await,
            ["started", "ns/a=1", "done", "started", "ns/b=2", "done"]
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_broke_off_goes_on_where_it_was() {
    let line =
        |name, version| json!({"type": "ADDED", "object": object(name, version, json!(version))});
    let script =
        vec![list(&[]), (200, vec![line("a", 11)]), refused(503), (200, vec![line("b", 12)])];
    assert_eq!(changes(script, 4).await, ["started", "done", "ns/a=11", "ns/b=12"]);
}

fn status(code: u16) -> Box<Status> {
    Box::new(serde_json::from_value(refused(code).1.remove(0)).unwrap())
}

#[test]
fn a_refusal_is_said_once_with_its_remedy_and_its_end_once() {
    let watchdog = Arc::new(Watchdog::new(Instant::ZERO));
    watchdog.not_ready("waiting");
    let lines = logged(|| {
        let mut trouble = WatchErrors::new("pools", Arc::clone(&watchdog));
        trouble.succeeded();
        let again = Instant::ZERO + REFUSAL_LOG_INTERVAL;
        for (code, at) in [
            (403, Instant::ZERO),
            (403, Instant::ZERO),
            (404, Instant::ZERO),
            (404, Instant::ZERO),
            (404, again),
        ] {
            trouble.failed(&kube::Error::Api(status(code)), at);
        }
        let why = watchdog.why_not_ready().unwrap();
        assert!(
            why.contains("pools: ")
                && why.contains("CustomResourceDefinitions")
                && !why.contains("RBAC"),
            "{why}"
        );
        // A new watch of the same kind.
        let mut trouble = WatchErrors::new("pools", Arc::clone(&watchdog));
        trouble.failed(&kube::Error::Api(status(404)), again);
        trouble.succeeded();
        trouble.succeeded();
        assert_eq!(watchdog.why_not_ready().as_deref(), Some("waiting"));
    });
    assert_eq!(lines.len(), 4, "{lines:#?}");
    assert!(lines[0].starts_with("WARN") && lines[0].contains("RBAC"), "{}", lines[0]);
    assert!(
        lines[1].starts_with("WARN") && lines[1].contains("CustomResourceDefinitions"),
        "{}",
        lines[1]
    );
    assert_eq!(lines[2], lines[1], "the same is said again after long");
    assert!(lines[3].starts_with("INFO") && lines[3].contains("pools"), "{}", lines[3]);
    watchdog.ready();
    watchdog.refused("pools", 403, "no".to_owned(), Instant::ZERO);
    assert_eq!(watchdog.why_not_ready(), None, "what works is ready, whatever is refused by then");
}

#[test]
fn only_refusals_that_a_person_can_mend_are_said() {
    for (code, expect) in [(403, true), (404, true), (400, true), (500, true)].into_iter().chain([
        (401, false),
        (410, false),
        (429, false),
        (503, false),
    ]) {
        assert_eq!(refusal(&kube::Error::Api(status(code))).is_some(), expect, "{code}");
    }
}
