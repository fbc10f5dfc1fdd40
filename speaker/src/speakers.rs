//! The watch of all SpeakerStatuses while this node drains. One task, owned by the main loop's `JoinSet`; cancelling it is safe. It owns nothing
//! else: what it reads goes to the state, which is told, too, when that is not known any more.
//!
//! Every node watching what every node says would be a load that grows with the square of the cluster; few drain at a time.

use std::sync::Arc;
use std::time::Duration;

use ferrolb_proto::api::{self, Kind, resource};
use ferrolb_runtime::api_health::ApiHealth;
use ferrolb_runtime::vitals::Vitals;
use ferrolb_runtime::watch::Watch;
use kube::{Api, Client};
use tokio::sync::{mpsc, watch};

use crate::event::Event;

/// How often it is looked whether the API server answers, without which what was read is worth nothing.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Watches while it is `wanted` and the API server answers. Ends when nobody wants or reads it any more.
pub async fn run(
    (client, namespace): (Client, String),
    (health, vitals): (Arc<ApiHealth>, Arc<Vitals>),
    mut wanted: watch::Receiver<bool>,
    events: mpsc::Sender<Event>,
) {
    loop {
        if wanted.wait_for(|wanted| *wanted).await.is_err() {
            return;
        }
        let api = Api::namespaced_with(client.clone(), &namespace, &resource(Kind::SpeakerStatus, api::GROUP));
        let watch = Watch::new("SpeakerStatuses", api, |object: api::Speaker| object.into());
        tokio::select! {
            () = watch.run(events.clone(), Event::Speaker, Arc::clone(&vitals)) => {}
            _ = wanted.wait_for(|wanted| !*wanted) => {}
            () = lost(&health) => {}
        }
        if events.send(Event::SpeakersUnknown).await.is_err() {
            return;
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

/// Waits until the API server does not answer.
async fn lost(health: &ApiHealth) {
    while !health.is_away() {
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}
