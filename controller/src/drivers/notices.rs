//! Events about Services (`events.k8s.io/v1`), for `kubectl describe`. One task that sends them one after the other, so that
//! they never keep an address waiting; it owns its queue. One that finds the queue full is dropped
//! and counted, and so is one about a Service that had too many.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ferrolb_proto::Instant;
use ferrolb_proto::facts::Key;
use ferrolb_runtime::clock::Clock;
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
/// Events about one Service that may follow each other at once, as client-go allows.
const BURST_MAX: u32 = 25;
/// After a burst, one event about the same Service in this time.
const INTERVAL: Duration = Duration::from_secs(300);
/// Services whose events are counted; beyond that, the one that may have a burst again soonest is
/// forgotten.
const SERVICES_COUNTED_MAX: usize = 16_384;
/// How long the API server may take for one.
pub const NOTICE_TIMEOUT: Duration = Duration::from_secs(5);
/// `reportingController` of our events.
pub const REPORTING_CONTROLLER: &str = "ferrolb.io/controller";

type Told = (Key, Box<str>, Notice);

/// The sender's end.
#[derive(Debug)]
pub struct Notices {
    queue: mpsc::Sender<Told>,
    limit: Limit,
    metrics: Arc<Metrics>,
}

/// How many events about each Service there were lately.
#[derive(Debug, Default)]
struct Limit {
    /// By uid: when all its events are forgotten. Each event moves that by one [`INTERVAL`].
    forgotten_at: BTreeMap<Box<str>, Instant>,
}

impl Limit {
    /// Counts an event, if there may be one now.
    fn admits(&mut self, uid: &str, now: Instant) -> bool {
        let at = self.forgotten_at.get(uid).copied().unwrap_or(now).max(now);
        if at.since(now) > INTERVAL * (BURST_MAX - 1) {
            return false;
        }
        self.forgotten_at.insert(uid.into(), at + INTERVAL);
        if self.forgotten_at.len() > SERVICES_COUNTED_MAX {
            self.forgotten_at.retain(|_, at| *at > now);
        }
        if self.forgotten_at.len() > SERVICES_COUNTED_MAX
            && let Some(soonest) = self.forgotten_at.iter().min_by_key(|(_, at)| **at).map(|(uid, _)| uid.clone())
        {
            self.forgotten_at.remove(&soonest);
        }
        true
    }
}

impl Notices {
    /// The queue, and what [`send`] reads.
    #[must_use]
    pub fn new(metrics: Arc<Metrics>) -> (Self, mpsc::Receiver<Told>) {
        let (queue, waiting) = mpsc::channel(NOTICES_WAITING_MAX);
        (Self { queue, limit: Limit::default(), metrics }, waiting)
    }

    /// Tells something about a Service: the log at once, the API server some time soon.
    pub fn tell(&mut self, key: &Key, uid: &str, notice: &Notice) {
        info!(service = %key, reason = &*notice.reason, "{}", notice.message);
        if !self.limit.admits(uid, Clock::now()) {
            debug!(service = %key, reason = &*notice.reason, "too many events about it");
            self.metrics.notices_dropped.inc();
            return;
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_that_flaps_has_a_burst_of_events_and_then_one_in_five_minutes() {
        let mut limit = Limit::default();
        let mut told = 0;
        for second in (0..3_600).step_by(5) {
            told += u32::from(limit.admits("flapping", Instant::from_millis(second * 1_000)));
        }
        assert_eq!(told, 25 + 11, "an hour");
        assert!(limit.admits("another", Instant::from_millis(3_600_000)));
        let next_day = Instant::from_millis(86_400_000);
        assert_eq!((0..100).filter(|_| limit.admits("flapping", next_day)).count(), 25);
    }

    #[test]
    fn the_services_that_are_counted_are_limited_and_those_with_most_events_stay() {
        let mut limit = Limit::default();
        let now = Instant::from_millis(1);
        assert_eq!((0..100).filter(|_| limit.admits("flapping", now)).count(), 25);
        for n in 0..SERVICES_COUNTED_MAX + 99 {
            assert!(limit.admits(&n.to_string(), now));
        }
        assert_eq!(limit.forgotten_at.len(), SERVICES_COUNTED_MAX);
        assert!(!limit.admits("flapping", now));
        limit.admits("later", now + INTERVAL + INTERVAL);
        assert_eq!(limit.forgotten_at.len(), 2, "what is over is forgotten first");
    }
}
