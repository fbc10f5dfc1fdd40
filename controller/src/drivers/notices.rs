//! Events about Services (`events.k8s.io/v1`), for `kubectl describe`. One task that sends them one after the other, so that
//! they never keep an address waiting; it owns its queue. One that finds the queue full is dropped and counted.

use std::sync::Arc;
use std::time::Duration;

use ferrolb_proto::facts::Key;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use tokio::sync::mpsc;
use tracing::{debug, info};

use crate::desired::Notice;
use crate::metrics::Metrics;

/// Events that may wait to be sent.
pub const NOTICES_WAITING_MAX: usize = 2_048;
/// How long the API server may take for one.
pub const NOTICE_TIMEOUT: Duration = Duration::from_secs(5);
/// `reportingController` of our events.
pub const REPORTING_CONTROLLER: &str = "ferrolb.io/controller";

type Told = (Key, Box<str>, Notice);

/// The sender's end.
#[derive(Clone, Debug)]
pub struct Notices {
    queue: mpsc::Sender<Told>,
    metrics: Arc<Metrics>,
}

impl Notices {
    /// The queue, and what [`send`] reads.
    #[must_use]
    pub fn new(metrics: Arc<Metrics>) -> (Self, mpsc::Receiver<Told>) {
        let (queue, waiting) = mpsc::channel(NOTICES_WAITING_MAX);
        (Self { queue, metrics }, waiting)
    }

    /// Tells something about a Service: the log at once, the API server some time soon.
    pub fn tell(&self, key: &Key, uid: &str, notice: &Notice) {
        info!(service = %key, reason = &*notice.reason, "{}", notice.message);
        if self.queue.try_send((key.clone(), uid.into(), notice.clone())).is_err() {
            self.metrics.notices_dropped.inc();
        }
    }
}

/// Sends what is told, as `instance` (`reportingInstance`), until nobody can tell anything more.
pub async fn send(client: Client, instance: String, mut waiting: mpsc::Receiver<Told>, metrics: Arc<Metrics>) {
    while let Some((key, uid, notice)) = waiting.recv().await {
        let events: Api<Event> = Api::namespaced(client.clone(), &key.namespace);
        let event = event(&key, &uid, &notice, &instance, Timestamp::now());
        let params = PostParams::default();
        let sent = tokio::time::timeout(NOTICE_TIMEOUT, events.create(&params, &event)).await;
        if !matches!(sent, Ok(Ok(_))) {
            metrics.notices_dropped.inc();
            debug!(service = %key, ?sent, "an event was not sent");
        }
    }
}

fn event(key: &Key, uid: &str, notice: &Notice, instance: &str, now: Timestamp) -> Event {
    Event {
        metadata: ObjectMeta {
            namespace: Some(key.namespace.to_string()),
            // What client-go does: the object's name, and the time in nanoseconds to make it unlike any other.
            name: Some(format!("{}.{:x}", key.name, now.as_nanosecond())),
            ..ObjectMeta::default()
        },
        type_: Some(if notice.warning { "Warning" } else { "Normal" }.to_owned()),
        reason: Some(notice.reason.clone().into_owned()),
        note: Some(notice.message.chars().take(NOTE_MAX).collect()),
        action: Some(format!("{:?}", notice.action)),
        regarding: Some(ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Service".to_owned()),
            namespace: Some(key.namespace.to_string()),
            name: Some(key.name.to_string()),
            uid: Some(uid.to_owned()),
            ..ObjectReference::default()
        }),
        event_time: Some(MicroTime(now)),
        reporting_controller: Some(REPORTING_CONTROLLER.to_owned()),
        reporting_instance: Some(instance.chars().take(INSTANCE_MAX).collect()),
        ..Event::default()
    }
}

/// Characters of `note` that the API server takes (`events.k8s.io/v1`: 1 kB).
const NOTE_MAX: usize = 250;
/// Characters of `reportingInstance` that the API server takes.
const INSTANCE_MAX: usize = 128;
