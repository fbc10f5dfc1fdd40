//! Watch of all SpeakerStatuses while this node drains. The main loop's `JoinSet` owns the task;
//! cancelling the task is safe. The main loop's state stores the SpeakerStatuses, and
//! [`Event::SpeakersUnknown`] reports that the stored ones are no longer current.
//!
//! Only draining nodes watch all SpeakerStatuses, because few nodes drain at a time. If every node
//! watched them, the load would grow with the square of the number of nodes.

use std::sync::Arc;
use std::time::Duration;

use ferrolb_proto::api::{self, CustomResourceKind, resource};
use ferrolb_runtime::api_health::ApiHealth;
use ferrolb_runtime::watch::Watch;
use ferrolb_runtime::watchdog::Watchdog;
use kube::{Api, Client};
use tokio::sync::{mpsc, watch};

use crate::event::Event;

/// Interval at which the task checks whether the API server is available. Without the API server,
/// the stored SpeakerStatuses may be outdated.
const API_HEALTH_INTERVAL: Duration = Duration::from_secs(1);

/// Watches all SpeakerStatuses while `wanted` is true and the API server is available. Ends when
/// the sender of `wanted` or the receiver of `events` is dropped.
pub async fn run(
    (client, namespace): (Client, String),
    (health, watchdog): (Arc<ApiHealth>, Arc<Watchdog>),
    mut wanted: watch::Receiver<bool>,
    events: mpsc::Sender<Event>,
) {
    loop {
        if wanted.wait_for(|wanted| *wanted).await.is_err() {
            return;
        }
        let api = Api::namespaced_with(
            client.clone(),
            &namespace,
            &resource(CustomResourceKind::SpeakerStatus, api::GROUP),
        );
        let watch =
            Watch::new("SpeakerStatuses", api, |object: api::SpeakerStatusObject| object.into());
        tokio::select! {
            () = watch.run(events.clone(), Event::Speaker, Arc::clone(&watchdog)) => {}
            _ = wanted.wait_for(|wanted| !*wanted) => {}
            () = api_server_lost(&health) => {}
        }
        if events.send(Event::SpeakersUnknown).await.is_err() {
            return;
        }
        tokio::time::sleep(API_HEALTH_INTERVAL).await;
    }
}

/// Waits until the API server is unavailable.
async fn api_server_lost(health: &ApiHealth) {
    while !health.is_unavailable() {
        tokio::time::sleep(API_HEALTH_INTERVAL).await;
    }
}
