//! A Kubernetes watch as a few kinds of [`Change`] in the program's own event queue. One task a kind, owned by the program's
//! `JoinSet`; it owns its connection and the queue's sender, keeps no object, and cancelling it at any point is safe.
//!
//! ```text
//!  API server --list, watch--> K (only the fields we use) --project--> F (a fact) --wrap--> E (the program's event) --> queue
//! ```
//!
//! A list is not buffered: its objects follow each other between [`Change::ResyncStarted`] and [`Change::ResyncDone`], and the
//! state sweeps at the end what it has not seen in between. So memory stays that of the facts.

mod complaints;
mod guarded;
mod trouble;

use std::fmt::Debug;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use ferrolb_proto::facts::Key;
use futures::StreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;

use crate::backoff::Backoff;
use crate::clock::Clock;
use crate::vitals::Vitals;
use trouble::Trouble;

pub use complaints::{COMPLAINTS_MAX, Complaints};
pub use guarded::{Guarded, Unreadable};

/// Events that may wait in a program's queue. A full queue holds the watches back, and through TCP the API server; nothing
/// is dropped.
pub const EVENT_QUEUE_MAX: usize = 1_024;
/// How long the API server keeps one watch request open: also the time in which a silent death of the connection shows (and
/// 5 s more).
pub const WATCH_TIMEOUT: Duration = Duration::from_secs(40);
/// Objects in one page of a list.
pub const LIST_PAGE_OBJECTS: u32 = 500;

/// What a watch tells the state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change<F> {
    /// A list begins: every object that is there follows, then [`Change::ResyncDone`]. Coming again before that, the list broke
    /// off and begins anew. What is known stays valid meanwhile.
    ResyncStarted,
    /// This object is there, and this is all we use of it.
    Apply(F),
    /// This object is there and cannot be read; `why` names the field. The others are not affected.
    Unreadable {
        /// Which object.
        key: Key,
        /// What the decoder said.
        why: String,
    },
    /// This object is gone.
    Delete(Key),
    /// The list is complete: what was neither applied nor unreadable since the last [`Change::ResyncStarted`] is gone.
    ResyncDone,
}

/// What to watch and how to read it.
///
/// `K` is decoded off the wire: a struct with `metadata` (names and `resourceVersion` are needed) and only the fields we use.
/// The `api` says where: `Api::all`, `Api::namespaced`, or for our own kinds `Api::namespaced_with` and
/// [`ferrolb_proto::api::resource`].
pub struct Watch<K, F> {
    what: &'static str,
    api: Api<Guarded<K>>,
    project: Box<dyn Fn(K) -> F + Send + Sync>,
    config: watcher::Config,
}

impl<K, F> Watch<K, F>
where
    K: Resource + Clone + Debug + DeserializeOwned + Send + 'static,
{
    /// A watch of all objects of `api`. `what` is the kind's plural, for logs: "Services".
    #[must_use]
    pub fn new(what: &'static str, api: Api<Guarded<K>>, project: impl Fn(K) -> F + Send + Sync + 'static) -> Self {
        let timeout_seconds = u32::try_from(WATCH_TIMEOUT.as_secs()).unwrap_or(u32::MAX);
        let config = watcher::Config::default().timeout(timeout_seconds).page_size(LIST_PAGE_OBJECTS);
        Self { what, api, project: Box::new(project), config }
    }

    /// Only the objects that this label selector matches, in Kubernetes' syntax: `!service.kubernetes.io/headless`.
    #[must_use]
    pub fn labels(mut self, selector: &str) -> Self {
        self.config = self.config.labels(selector);
        self
    }

    /// Only the objects that this field selector matches: `metadata.name=ferrolb-hello`.
    #[must_use]
    pub fn fields(mut self, selector: &str) -> Self {
        self.config = self.config.fields(selector);
        self
    }

    /// Watches for ever, whatever fails, and sends each change as `wrap` makes it an event (an enum variant is a function).
    /// `vitals` are told while the API server refuses it. Ends only when nobody reads `events` any more.
    pub async fn run<E>(self, events: mpsc::Sender<E>, wrap: fn(Change<F>) -> E, vitals: Arc<Vitals>) {
        let mut stream = pin!(watcher(self.api, self.config));
        let mut trouble = Trouble::new(self.what, vitals);
        let mut backoff = Backoff::default();
        // A list is announced when its first page is there, not at each try of an absent server.
        let mut list_begins = false;
        while let Some(step) = stream.next().await {
            let event = match step {
                Ok(event) => event,
                Err(error) => {
                    trouble.met(&error, Clock::now());
                    tokio::time::sleep(backoff.next_delay(Clock::now())).await;
                    continue;
                }
            };
            if matches!(event, Event::Init) {
                list_begins = true;
                continue;
            }
            trouble.over();
            if std::mem::take(&mut list_begins) && events.send(wrap(Change::ResyncStarted)).await.is_err() {
                return;
            }
            if let Some(change) = change(event, &self.project)
                && events.send(wrap(change)).await.is_err()
            {
                return;
            }
        }
    }
}

fn change<K: Resource, F>(event: Event<Guarded<K>>, project: impl Fn(K) -> F) -> Option<Change<F>> {
    match event {
        Event::Init => None,
        Event::InitDone => Some(Change::ResyncDone),
        Event::Delete(object) => Some(Change::Delete(Key::of(object.meta()))),
        Event::Apply(Guarded(object)) | Event::InitApply(Guarded(object)) => Some(match object {
            Ok(object) => Change::Apply(project(object)),
            Err(unreadable) => Change::Unreadable { key: Key::of(&unreadable.metadata), why: unreadable.why },
        }),
    }
}

#[cfg(test)]
mod tests;
