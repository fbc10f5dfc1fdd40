//! Tests of the status writer against an API server that has one SpeakerStatus, or none.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use ferrolb_proto::Instant;
use ferrolb_proto::api::InterfaceStatus;
use ferrolb_proto::wire::hello::ClaimRank;
use ferrolb_speaker_core::claim::Owned;
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

/// SpeakerStatus in the API server: the uid of its owner, and the version in its status.
type Stored = Arc<Mutex<Option<(String, String)>>>;

/// Starts a server that reports each patch it accepts. If `rejects_owners` is true, the
/// server rejects owner references.
fn server(rejects_owners: bool) -> (Client, Stored, mpsc::Receiver<String>) {
    let stored = Stored::default();
    let object = Arc::clone(&stored);
    let (patches, received_patches) = mpsc::channel(16);
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
                    (404, "status without object".to_owned())
                }
                Some((_, version)) if parts.uri.path().ends_with("/status") => {
                    *version = body["status"]["version"].as_str().unwrap().to_owned();
                    (200, format!("status {version}"))
                }
                _ if rejects_owners && !owner.is_empty() => (403, format!("rejected {owner}")),
                object => {
                    object.get_or_insert_default().0.clone_from(&owner);
                    (200, format!("object of {owner:?}"))
                }
            };
            patches.send(patch).await.unwrap();
            let response =
                json!({"metadata": {"name": "n1"}, "spec": {}, "kind": "Status", "code": code});
            let response = Full::new(Bytes::from(response.to_string()));
            Ok::<_, Infallible>(Response::builder().status(code).body(response).unwrap())
        }
    });
    (Client::new(service, "default"), stored, received_patches)
}

#[test]
fn a_change_of_the_owned_addresses_alone_reaches_the_writer() {
    let (writer, mut statuses) = watch::channel(DesiredStatus::default());
    let interface = InterfaceStatus { name: "eth0".to_owned(), ..InterfaceStatus::default() };
    let status = SpeakerStatusStatus { interfaces: vec![interface], ..Default::default() }.into();
    let address = IpAddr::from([172, 30, 0, 200]);
    let owned = |addresses: &[IpAddr]| {
        let owned = Owned { since: Instant::ZERO, rank: ClaimRank::default() };
        let addresses = addresses.iter().map(|address| (*address, owned)).collect();
        OwnedAddresses::from([("eth0".into(), addresses)])
    };
    for (owned, changed, expect) in [
        (owned(&[]), true, vec![]),
        (owned(&[address]), true, vec![address]),
        (owned(&[address]), false, vec![address]),
    ] {
        publish(&writer, "uid1", &status, &owned);
        assert_eq!(statuses.has_changed().ok(), Some(changed), "{owned:?}");
        let wanted = statuses.borrow_and_update().clone();
        assert_eq!(wanted.with_addresses().interfaces[0].addresses, expect);
    }
}

/// A running status writer and its API server.
struct WriterFixture {
    wanted: watch::Sender<DesiredStatus>,
    stored: Stored,
    received_patches: mpsc::Receiver<String>,
    _task: JoinSet<()>,
}

impl WriterFixture {
    fn start(rejects_owners: bool) -> Self {
        let (client, stored, received_patches) = server(rejects_owners);
        let (wanted, statuses) = watch::channel(DesiredStatus::default());
        let mut task = JoinSet::new();
        let quick = Duration::from_millis(20);
        let writer = StatusWriter::new(client, "ferrolb-system", "n1");
        task.spawn(
            StatusWriter { interval_min: Duration::ZERO, restore_interval: quick, ..writer }
                .run(statuses),
        );
        Self { wanted, stored, received_patches, _task: task }
    }

    fn publish_status(&self, owner: &str, version: &str) {
        publish(
            &self.wanted,
            owner,
            &SpeakerStatusStatus { version: version.to_owned(), ..Default::default() }.into(),
            &OwnedAddresses::default(),
        );
    }

    /// Waits for these patches, one after the other.
    async fn expect_patches<const N: usize>(&mut self, patches: [&str; N]) {
        for patch in patches {
            let received = timeout(PATCH_TIMEOUT, self.received_patches.recv()).await.expect(patch);
            assert_eq!(received.unwrap(), patch);
        }
    }
}

#[tokio::test]
async fn a_deleted_or_changed_status_is_restored() {
    let mut fixture = WriterFixture::start(false);
    fixture.publish_status("uid1", "1");
    fixture.expect_patches(["object of \"uid1\"", "status 1", "status 1"]).await;
    *fixture.stored.lock().unwrap() = None;
    fixture.expect_patches(["status without object", "object of \"uid1\"", "status 1"]).await;
    fixture.stored.lock().unwrap().as_mut().unwrap().1 = "0".to_owned();
    fixture.expect_patches(["status 1"]).await;
    assert_eq!(*fixture.stored.lock().unwrap(), Some(("uid1".to_owned(), "1".to_owned())));
}

#[tokio::test]
async fn the_node_owns_the_status_and_is_required_for_a_write() {
    let mut fixture = WriterFixture::start(false);
    fixture.publish_status("", "1");
    fixture.publish_status("uid1", "2");
    fixture.expect_patches(["object of \"uid1\"", "status 2"]).await;
    fixture.publish_status("", "2");
    while let Ok(Some(patch)) =
        timeout(Duration::from_millis(100), fixture.received_patches.recv()).await
    {
        assert_eq!(patch, "status 2", "only a status that was already sent is sent again");
    }
    *fixture.stored.lock().unwrap() = None;
    fixture.publish_status("uid2", "2");
    fixture.expect_patches(["object of \"uid2\"", "status 2"]).await;
}

#[tokio::test]
async fn a_status_is_written_without_a_rejected_owner() {
    let mut fixture = WriterFixture::start(true);
    fixture.publish_status("uid1", "1");
    fixture.expect_patches(["rejected uid1", "object of \"\"", "status 1"]).await;
}

#[test]
fn a_rejection_names_the_remedy() {
    let cases = [
        (500, ".status.x: field not declared in schema", "Helm does not upgrade"),
        (500, "etcdserver: request timed out", "retrying"),
        (403, "forbidden", "RBAC"),
        (404, "not found", "does not have the kind"),
    ];
    for (code, message, expect) in cases {
        let status = Status { code, message: message.into(), ..Status::default() };
        assert!(remedy(&status).contains(expect), "{code} {message}");
    }
}
