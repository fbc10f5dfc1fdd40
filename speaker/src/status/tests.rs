//! Tests of the status writer against an API server that has one SpeakerStatus, or none.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::{Request, Response};
use kube::client::Body;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tower::service_fn;

use super::*;

/// Time limit for a patch to arrive.
const PATCH_TIMEOUT: Duration = Duration::from_secs(10);

/// Object in the API server: the owner's uid and the version in the status.
type Stored = Arc<Mutex<Option<(String, String)>>>;

/// Starts a server that reports each patch it accepts. With `guarded`, it rejects owner references.
fn server(guarded: bool) -> (Client, Stored, mpsc::Receiver<String>) {
    let stored = Stored::default();
    let object = Arc::clone(&stored);
    let (patches, taken) = mpsc::channel(16);
    let service = service_fn(move |request: Request<Body>| {
        let (object, patches) = (Arc::clone(&object), patches.clone());
        async move {
            let (parts, body) = request.into_parts();
            let body: Value =
                serde_json::from_slice(&body.collect().await.unwrap().to_bytes()).unwrap();
            let owner = body["metadata"]["ownerReferences"][0]["uid"]
                .as_str()
                .unwrap_or_default()
                .to_owned();
            let (code, patch) = match &mut *object.lock().unwrap() {
                None if parts.uri.path().ends_with("/status") => {
                    (404, "status of nothing".to_owned())
                }
                Some((_, version)) if parts.uri.path().ends_with("/status") => {
                    *version = body["status"]["version"].as_str().unwrap().to_owned();
                    (200, format!("status {version}"))
                }
                _ if guarded && !owner.is_empty() => (403, format!("refused {owner}")),
                object => {
                    object.get_or_insert_default().0.clone_from(&owner);
                    (200, format!("object of {owner:?}"))
                }
            };
            patches.send(patch).await.unwrap();
            let answer =
                json!({"metadata": {"name": "n1"}, "spec": {}, "kind": "Status", "code": code});
            let answer = Full::new(Bytes::from(answer.to_string()));
            Ok::<_, Infallible>(Response::builder().status(code).body(answer).unwrap())
        }
    });
    (Client::new(service, "default"), stored, taken)
}

struct WriterFixture {
    wanted: watch::Sender<DesiredStatus>,
    stored: Stored,
    taken: mpsc::Receiver<String>,
    _task: JoinSet<()>,
}

impl WriterFixture {
    fn begin(guarded: bool) -> Self {
        let (client, stored, taken) = server(guarded);
        let (wanted, statuses) = watch::channel(DesiredStatus::default());
        let mut task = JoinSet::new();
        let quick = Duration::from_millis(20);
        let writer = StatusWriter::new(client, "ferrolb-system", "n1");
        task.spawn(
            StatusWriter { interval_min: Duration::ZERO, restore_interval: quick, ..writer }
                .run(statuses),
        );
        Self { wanted, stored, taken, _task: task }
    }

    fn want(&self, owner: &str, version: &str) {
        publish(
            &self.wanted,
            owner,
            &SpeakerStatusStatus { version: version.to_owned(), ..Default::default() },
        );
    }

    /// Waits for these patches, one after the other.
    async fn expect_patches<const N: usize>(&mut self, patches: [&str; N]) {
        for patch in patches {
            let taken = timeout(PATCH_TIMEOUT, self.taken.recv()).await.expect(patch);
            assert_eq!(taken.unwrap(), patch);
        }
    }
}

#[tokio::test]
async fn a_status_that_was_deleted_or_replaced_is_written_again() {
    let mut scene = WriterFixture::begin(false);
    scene.want("uid1", "1");
    scene.expect_patches(["object of \"uid1\"", "status 1", "status 1"]).await;
    *scene.stored.lock().unwrap() = None;
    scene.expect_patches(["status of nothing", "object of \"uid1\"", "status 1"]).await;
    scene.stored.lock().unwrap().as_mut().unwrap().1 = "0".to_owned();
    scene.expect_patches(["status 1"]).await;
    assert_eq!(*scene.stored.lock().unwrap(), Some(("uid1".to_owned(), "1".to_owned())));
}

#[tokio::test]
async fn the_node_owns_the_status_and_without_a_node_nothing_is_written() {
    let mut scene = WriterFixture::begin(false);
    scene.want("", "1");
    scene.want("uid1", "2");
    scene.expect_patches(["object of \"uid1\"", "status 2"]).await;
    scene.want("", "2");
    while let Ok(Some(patch)) = timeout(Duration::from_millis(100), scene.taken.recv()).await {
        assert_eq!(patch, "status 2", "one that was under way");
    }
    *scene.stored.lock().unwrap() = None;
    scene.want("uid2", "2");
    scene.expect_patches(["object of \"uid2\"", "status 2"]).await;
}

#[tokio::test]
async fn where_an_owner_is_refused_the_status_is_written_without_one() {
    let mut scene = WriterFixture::begin(true);
    scene.want("uid1", "1");
    scene.expect_patches(["refused uid1", "object of \"\"", "status 1"]).await;
}

#[test]
fn a_refusal_names_what_to_apply() {
    let cases = [
        (500, ".status.x: field not declared in schema", "Helm does not upgrade"),
        (500, "etcdserver: request timed out", "retrying"),
        (403, "forbidden", "RBAC"),
        (404, "not found", "does not have the kind"),
    ];
    for (code, message, expect) in cases {
        let answer = Status { code, message: message.into(), ..Status::default() };
        assert!(remedy(&answer).contains(expect), "{code} {message}");
    }
}
