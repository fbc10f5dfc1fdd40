//! Watches all objects of one kind and sends each [`Change`] to the program's own event queue. Each
//! watch is one task in the program's `JoinSet`. The task owns its connection and the queue's
//! sender, stores no object, and can be canceled at any point.
//!
//! ```text
//!  API server --list, watch--> object (only the fields that FerroLB uses)
//!      --Kind::read--> fact --> event of the program --> queue
//! ```
//!
//! A list is not buffered. The task sends its objects between [`Change::ResyncStarted`] and
//! [`Change::ResyncDone`], and the program's store then removes the objects that the list did not
//! contain. Each object is decoded when its last byte has arrived. A watch therefore needs memory
//! only for the facts and one object, however large a page is.

mod decode;
mod decode_errors;
mod items;
mod source;
mod starter;
mod watch_errors;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use ferrolb_core::store::Change;
use ferrolb_proto::facts::{Key, Kind, ReadContext};
use kube::Client;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;

use crate::backoff::Backoff;
use crate::clock::Clock;
use crate::watchdog::Watchdog;
use decode::{ObjectPlace, WatchEvent};
use source::WatchSource;
use watch_errors::WatchErrors;

pub use decode_errors::{DECODE_ERRORS_MAX, DecodeErrorLog};
pub use starter::WatchStarter;

/// The maximum number of events in a program's queue. A full queue delays the watches and, through
/// TCP, the API server. No event is dropped.
pub const EVENT_QUEUE_MAX: usize = 1_024;
/// The time for which the API server keeps one watch request open. kube accepts less than 295 s.
const WATCH_TIMEOUT: Duration = Duration::from_secs(290);
/// The time without data after which a response counts as failed. The API server sends a bookmark
/// in each watch once per minute, so this time detects an API server that hangs.
pub const RESPONSE_IDLE_MAX: Duration = Duration::from_secs(90);
/// The shortest duration of a watch. A watch that ends sooner counts as failed, even if the API
/// server reports no error, so that the next one waits for the backoff.
const WATCH_DURATION_MIN: Duration = Duration::from_secs(1);
/// The HTTP status with which the API server rejects a resource version that it no longer stores.
const HTTP_GONE: u16 = 410;
/// The number of objects in one page of a list. A page is never in memory as a whole.
pub const LIST_PAGE_OBJECTS: u32 = 500;
/// The largest object that is read, in bytes of JSON. etcd accepts 1.5 MiB (`--max-request-bytes`),
/// and JSON escape sequences make that up to six times as long.
pub const OBJECT_BYTES_MAX: usize = 16 * 1024 * 1024;

/// The objects to watch, and the function that decodes them.
pub struct Watch<F> {
    what: &'static str,
    source: WatchSource,
    read: Box<DecodeFn<F>>,
}

/// Function that decodes an object and converts it to a fact, or returns why the object cannot be
/// read.
type DecodeFn<F> = dyn Fn(&[u8], ObjectPlace) -> Result<F, String> + Send + Sync;

/// Reason why a list or a watch ended.
enum WatchEnd {
    /// The receiver of the event queue is closed, so the watch ends.
    ReceiverClosed,
    /// The request failed; the watch retries.
    Failed(kube::Error),
}

impl From<kube::Error> for WatchEnd {
    fn from(error: kube::Error) -> Self {
        Self::Failed(error)
    }
}

impl From<serde_json::Error> for WatchEnd {
    fn from(error: serde_json::Error) -> Self {
        Self::Failed(kube::Error::SerdeError(error))
    }
}

/// The program's event queue, and the function that converts a change to one of its events.
struct EventQueue<E, F> {
    events: mpsc::Sender<E>,
    wrap: fn(Change<F>) -> E,
}

impl<E, F> EventQueue<E, F> {
    async fn send(&self, change: Change<F>) -> Result<(), WatchEnd> {
        self.events.send((self.wrap)(change)).await.map_err(|_| WatchEnd::ReceiverClosed)
    }
}

impl<F> Watch<F> {
    /// Creates a watch of all objects of a path in the API. `what` is the plural of the kind for
    /// logs, such as "Services". `K` is the decoded form of an object: a struct with only the
    /// fields that FerroLB uses.
    #[must_use]
    pub fn new<K: DeserializeOwned>(
        what: &'static str,
        (client, path): (Client, &str),
        project: impl Fn(K) -> F + Send + Sync + 'static,
    ) -> Self {
        let read = move |text: &[u8], place| decode::object(text, place).map(&project);
        Self { what, source: WatchSource::new(client, path), read: Box::new(read) }
    }

    /// Creates a watch of the objects of a kind that an installation reads.
    #[must_use]
    pub fn of(client: Client, context: ReadContext) -> Self
    where
        F: Kind,
    {
        let path = F::path(&context);
        let read = move |object| F::read(object, &context);
        let mut watch = Self::new(F::PLURAL, (client, &path), read);
        watch.source.labels = F::LABELS;
        watch.source.fields = F::FIELDS;
        watch
    }

    /// Lists and watches the objects, and retries after every failure. Sends each change as an
    /// event that `wrap` creates, such as the constructor of an enum variant. Records in `watchdog`
    /// when the API server refuses the watch. Ends only when the receiver of `events` is closed.
    pub async fn run<E>(
        self,
        events: mpsc::Sender<E>,
        wrap: fn(Change<F>) -> E,
        watchdog: Arc<Watchdog>,
    ) {
        let queue = EventQueue { events, wrap };
        let mut watch_errors = WatchErrors::new(self.what, watchdog);
        // An API server that has just started accepts lists earlier than watches, which it rejects
        // with 429. With one backoff for both, the failures of lists would also delay the first
        // watch.
        let (mut list_backoff, mut watch_backoff) = (Backoff::default(), Backoff::default());
        // The resource version from which the watch continues; `None`: begin with a list.
        let mut version = None;
        let mut connected = false;
        loop {
            let backoff = if version.is_none() { &mut list_backoff } else { &mut watch_backoff };
            let result = match version.take() {
                None => self.list(&queue).await.map(|listed| version = Some(listed)),
                Some(from) => {
                    let state = (&mut version, &mut connected);
                    self.follow(from, state, &queue, &mut watch_errors).await
                }
            };
            match result {
                Ok(()) => watch_errors.record_success(),
                Err(WatchEnd::ReceiverClosed) => return,
                Err(WatchEnd::Failed(error)) => {
                    if std::mem::take(&mut connected)
                        && queue.send(Change::Connected(false)).await.is_err()
                    {
                        return;
                    }
                    watch_errors.record_failure(&error, Clock::now());
                    tokio::time::sleep(backoff.next_delay(Clock::now())).await;
                }
            }
        }
    }

    /// Lists all objects and sends each one to the queue. Returns the resource version of the list.
    async fn list<E>(&self, queue: &EventQueue<E, F>) -> Result<String, WatchEnd> {
        let mut token = None;
        loop {
            let first = token.is_none();
            let mut page = self.source.page(token).await?;
            // Send `ResyncStarted` only when the first page has arrived, so that attempts without
            // an API server send nothing.
            if first {
                queue.send(Change::ResyncStarted).await?;
            }
            while let Some(object) = page.object().await? {
                queue
                    .send(self.change(&object, ObjectPlace::Whole, || {
                        decode::head(&object).map(|metadata| metadata.key())
                    })?)
                    .await?;
            }
            let mut metadata = decode::head(page.envelope())?;
            token = metadata.next_page();
            if token.is_none() {
                let version = metadata.version()?;
                queue.send(Change::ResyncDone).await?;
                return Ok(version);
            }
        }
    }

    /// Watches from the resource version `from` and sends each change. Sets `next` to the version
    /// from which the next watch continues, or to `None` if a new list is necessary, and
    /// `connected` once the API server has accepted the watch.
    async fn follow<E>(
        &self,
        from: String,
        (next, connected): (&mut Option<String>, &mut bool),
        queue: &EventQueue<E, F>,
        watch_errors: &mut WatchErrors,
    ) -> Result<(), WatchEnd> {
        let start = Clock::now();
        let changes = self.source.changes(&from).await;
        if !matches!(&changes, Err(kube::Error::Api(status)) if status.code == HTTP_GONE) {
            *next = Some(from);
        }
        let mut changes = changes?;
        watch_errors.record_success();
        if !std::mem::replace(connected, true) {
            queue.send(Change::Connected(true)).await?;
        }
        while let Some(line) = changes.line().await? {
            // After a retry from the same version, the API server would send the same unreadable
            // line again. Therefore continue with a list.
            let event = decode::event(&line).inspect_err(|_| *next = None)?;
            let change = match event {
                WatchEvent::Applied(metadata) => {
                    let change = self.change(&line, ObjectPlace::Line, || Ok(metadata.key()))?;
                    *next = Some(metadata.version()?);
                    change
                }
                WatchEvent::Deleted(metadata) => {
                    let change = Change::Delete(metadata.key());
                    *next = Some(metadata.version()?);
                    change
                }
                WatchEvent::Bookmark(metadata) => {
                    *next = Some(metadata.version()?);
                    continue;
                }
                WatchEvent::Failed(status) => {
                    *next = None;
                    return Err(WatchEnd::Failed(kube::Error::Api(status)));
                }
            };
            queue.send(change).await?;
        }
        if Clock::now().since(start) < WATCH_DURATION_MIN {
            return Err(WatchEnd::Failed(kube::Error::ReadEvents(
                io::ErrorKind::UnexpectedEof.into(),
            )));
        }
        Ok(())
    }

    fn change(
        &self,
        text: &[u8],
        place: ObjectPlace,
        key: impl Fn() -> Result<Key, serde_json::Error>,
    ) -> Result<Change<F>, serde_json::Error> {
        Ok(match (self.read)(text, place) {
            Ok(fact) => Change::Apply(fact),
            Err(why) => Change::Unreadable { key: key()?, why },
        })
    }
}

#[cfg(test)]
mod tests;
