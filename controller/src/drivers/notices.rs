//! Kubernetes Events about Services and Nodes (`events.k8s.io/v1`), which `kubectl describe` shows.
//! One task sends the Events and owns their queue.
//!
//! The task sends Events one after the other, separately from the status writes, so that an Event
//! never delays an address. An Event is dropped and counted in a metric if the queue is full, or if
//! its object had too many Events.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ferrolb_controller_core::desired::Notice;
use ferrolb_core::rate::TokenBucket;
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

use crate::metrics::Metrics;

/// Maximum number of Events in the queue.
pub const EVENTS_WAITING_MAX: usize = 2_048;
/// Maximum number of Events in a burst about one Service, as in client-go.
const EVENT_BURST_MAX: u32 = 25;
/// Interval between two Events about the same Service after a burst.
const EVENT_INTERVAL: Duration = Duration::from_secs(300);
/// Maximum number of Services that [`EventRateLimit`] stores. If there are more, the Service whose
/// full burst is the first to be available again is removed.
const RATE_LIMITED_SERVICES_MAX: usize = 16_384;
/// Timeout of one request to the API server.
pub const NOTICE_TIMEOUT: Duration = Duration::from_secs(5);
/// `reportingController` of the controller's Events.
pub const REPORTING_CONTROLLER: &str = "ferrolb.io/controller";

/// Namespace of Events about Nodes, as Kubernetes' own.
const NODE_EVENT_NAMESPACE: &str = "default";

/// The object of an Event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EventObject {
    /// A Service.
    Service(Key),
    /// The Node with this name.
    Node(Box<str>),
}

impl EventObject {
    const fn kind(&self) -> &'static str {
        match self {
            Self::Service(_) => "Service",
            Self::Node(_) => "Node",
        }
    }

    fn name(&self) -> &str {
        match self {
            Self::Service(key) => key.name(),
            Self::Node(name) => name,
        }
    }

    /// Returns the namespace of the object; `None`: it has none.
    fn namespace(&self) -> Option<&str> {
        match self {
            Self::Service(key) => Some(key.namespace()),
            Self::Node(_) => None,
        }
    }
}

impl fmt::Display for EventObject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Service(key) => key.fmt(f),
            Self::Node(name) => f.write_str(name),
        }
    }
}

type QueuedEvent = (EventObject, Box<str>, Notice);

/// Sending end of the queue of Events, with a rate limit for each object.
#[derive(Debug)]
pub struct Notices {
    queue: mpsc::Sender<QueuedEvent>,
    limit: EventRateLimit,
    metrics: Arc<Metrics>,
}

/// Rate limit of the Events about each Service.
#[derive(Debug, Default)]
struct EventRateLimit {
    /// The Events that are allowed, by the UID of each Service.
    allowed: BTreeMap<Box<str>, TokenBucket>,
}

impl EventRateLimit {
    /// Returns whether an Event about the Service may be sent now. If so, counts the Event.
    fn admits(&mut self, uid: &str, now: Instant) -> bool {
        let full = || TokenBucket::full(EVENT_INTERVAL, EVENT_BURST_MAX);
        let allowed = self.allowed.entry(uid.into()).or_insert_with(full);
        if allowed.tokens(now) == 0 {
            return false;
        }
        allowed.take(now);
        if self.allowed.len() > RATE_LIMITED_SERVICES_MAX {
            self.allowed.retain(|_, allowed| allowed.full_at() > now);
        }
        if self.allowed.len() > RATE_LIMITED_SERVICES_MAX
            && let Some(soonest) = self
                .allowed
                .iter()
                .min_by_key(|(_, allowed)| allowed.full_at())
                .map(|(uid, _)| uid.clone())
        {
            self.allowed.remove(&soonest);
        }
        true
    }
}

impl Notices {
    /// Returns the sending end of a new queue, and the receiving end for [`send`].
    #[must_use]
    pub fn new(metrics: Arc<Metrics>) -> (Self, mpsc::Receiver<QueuedEvent>) {
        let (queue, queued) = mpsc::channel(EVENTS_WAITING_MAX);
        (Self { queue, limit: EventRateLimit::default(), metrics }, queued)
    }

    /// Returns a sending end of the same queue with its own rate limit.
    #[must_use]
    pub fn another(&self) -> Self {
        let (queue, metrics) = (self.queue.clone(), Arc::clone(&self.metrics));
        Self { queue, limit: EventRateLimit::default(), metrics }
    }

    /// Logs an Event at once, and queues it for the API server. Drops the Event instead of queuing
    /// it if the object had too many Events or the queue is full.
    pub fn publish(&mut self, object: EventObject, uid: &str, notice: &Notice) {
        let reason = &*notice.reason;
        match &object {
            EventObject::Service(service) => info!(%service, reason, "{}", notice.message),
            EventObject::Node(node) => info!(%node, reason, "{}", notice.message),
        }
        if !self.limit.admits(uid, Clock::now()) {
            debug!(%object, reason, "too many events for this object");
            self.metrics.notices_dropped.inc();
            return;
        }
        if self.queue.try_send((object, uid.into(), notice.clone())).is_err() {
            self.metrics.notices_dropped.inc();
        }
    }
}

/// Sends queued Events, with `instance` as `reportingInstance`. Ends when the sending end of the
/// queue is dropped.
pub async fn send(
    client: Client,
    instance: String,
    mut queued: mpsc::Receiver<QueuedEvent>,
    metrics: Arc<Metrics>,
) {
    while let Some((object, uid, notice)) = queued.recv().await {
        let namespace = object.namespace().unwrap_or(NODE_EVENT_NAMESPACE);
        let events: Api<Event> = Api::namespaced(client.clone(), namespace);
        let event = event(&object, &uid, &notice, &instance, Timestamp::now());
        let params = PostParams::default();
        let sent = tokio::time::timeout(NOTICE_TIMEOUT, events.create(&params, &event)).await;
        if !matches!(sent, Ok(Ok(_))) {
            metrics.notices_dropped.inc();
            debug!(%object, ?sent, "event not sent");
        }
    }
}

fn event(
    object: &EventObject,
    uid: &str,
    notice: &Notice,
    instance: &str,
    now: Timestamp,
) -> Event {
    Event {
        metadata: ObjectMeta {
            namespace: Some(object.namespace().unwrap_or(NODE_EVENT_NAMESPACE).to_owned()),
            // As in client-go: the object's name, and the time in nanoseconds for uniqueness.
            name: Some(format!("{}.{:x}", object.name(), now.as_nanosecond())),
            ..ObjectMeta::default()
        },
        type_: Some(if notice.warning { "Warning" } else { "Normal" }.to_owned()),
        reason: Some(notice.reason.clone().into_owned()),
        note: Some(notice.message.chars().take(NOTE_LENGTH_MAX).collect()),
        action: Some(format!("{:?}", notice.action)),
        regarding: Some(ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some(object.kind().to_owned()),
            namespace: object.namespace().map(ToOwned::to_owned),
            name: Some(object.name().to_owned()),
            uid: Some(uid.to_owned()),
            ..ObjectReference::default()
        }),
        event_time: Some(MicroTime(now)),
        reporting_controller: Some(REPORTING_CONTROLLER.to_owned()),
        reporting_instance: Some(instance.chars().take(INSTANCE_LENGTH_MAX).collect()),
        ..Event::default()
    }
}

/// Maximum number of characters sent in `note`, which `events.k8s.io/v1` limits to 1 kB.
const NOTE_LENGTH_MAX: usize = 250;
/// Maximum length of `reportingInstance` that the API server accepts.
const INSTANCE_LENGTH_MAX: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flapping_service_has_a_burst_then_one_event_per_interval() {
        let mut limit = EventRateLimit::default();
        let mut sent = 0;
        for second in (0..3_600).step_by(5) {
            sent += u32::from(limit.admits("flapping", Instant::from_millis(second * 1_000)));
        }
        assert_eq!(sent, 25 + 11, "a burst of 25 and 11 single Events are sent within an hour");
        assert!(limit.admits("another", Instant::from_millis(3_600_000)));
        let next_day = Instant::from_millis(86_400_000);
        assert_eq!((0..100).filter(|_| limit.admits("flapping", next_day)).count(), 25);
    }

    #[test]
    fn the_rate_limit_forgets_services_with_few_events_first() {
        let mut limit = EventRateLimit::default();
        let now = Instant::from_millis(1);
        assert_eq!((0..100).filter(|_| limit.admits("flapping", now)).count(), 25);
        for n in 0..RATE_LIMITED_SERVICES_MAX + 99 {
            assert!(limit.admits(&n.to_string(), now));
        }
        assert_eq!(limit.allowed.len(), RATE_LIMITED_SERVICES_MAX);
        assert!(!limit.admits("flapping", now));
        limit.admits("later", now + EVENT_INTERVAL + EVENT_INTERVAL);
        assert_eq!(limit.allowed.len(), 2, "Services whose full burst is available are removed");
    }
}
