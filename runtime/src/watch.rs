//! A Kubernetes watch as a few kinds of [`Change`] in the program's own event queue. One task a kind, owned by the program's
//! `JoinSet`; it owns its connection and the queue's sender, keeps no object, and cancelling it at any point is safe.
//!
//! ```text
//!  API server --list, watch--> K (only the fields we use) --project--> F (a fact) --wrap--> E (the program's event) --> queue
//! ```
//!
//! A list is not buffered: its objects follow each other between [`Change::ResyncStarted`] and [`Change::ResyncDone`], and the
//! state sweeps at the end what it has not seen in between. Each object is decoded when its last
//! byte is there, so that memory stays that of the facts and of one object, however large the
//! objects of a page are.

mod complaints;
mod decode;
mod items;
mod source;
mod trouble;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use ferrolb_proto::facts::Key;
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;

use crate::backoff::Backoff;
use crate::clock::Clock;
use crate::vitals::Vitals;
use decode::{Event, Place};
use source::Source;
use trouble::Trouble;

pub use complaints::{COMPLAINTS_MAX, Complaints};

/// Events that may wait in a program's queue. A full queue holds the watches back, and through TCP the API server; nothing
/// is dropped.
pub const EVENT_QUEUE_MAX: usize = 1_024;
/// How long the API server keeps one watch request open: also the time in which a silent death of the connection shows (and
/// 5 s more).
pub const WATCH_TIMEOUT: Duration = Duration::from_secs(40);
/// An answer of which nothing arrives for so long has failed.
const SILENCE_MAX: Duration = Duration::from_secs(WATCH_TIMEOUT.as_secs() + 5);
/// A watch that ends sooner has failed, even if the API server ended it in good order.
const WATCH_SHORTEST: Duration = Duration::from_secs(1);
/// The HTTP status of a version that the API server does not know any more.
const GONE: u16 = 410;
/// Objects in one page of a list. A page is never in memory as a whole.
pub const LIST_PAGE_OBJECTS: u32 = 500;
/// The largest object that is read, in bytes of JSON. etcd takes 1.5 MiB (`--max-request-bytes`),
/// which JSON may write six times as long.
pub const OBJECT_BYTES_MAX: usize = 16 * 1024 * 1024;

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
/// `K` is decoded off the wire: a struct with only the fields we use. The `api` says where:
/// `Api::all`, `Api::namespaced`, or for our own kinds `Api::namespaced_with` and
/// [`ferrolb_proto::api::resource`].
pub struct Watch<F> {
    what: &'static str,
    source: Source,
    read: Box<Read<F>>,
}

/// Decodes an object and makes it a fact, or says why it cannot be read.
type Read<F> = dyn Fn(&[u8], Place) -> Result<F, String> + Send + Sync;

/// Why a list or a watch ended.
enum End {
    /// Nobody reads the events any more.
    Unread,
    /// It is tried again.
    Failed(kube::Error),
}

impl From<kube::Error> for End {
    fn from(error: kube::Error) -> Self {
        Self::Failed(error)
    }
}

impl From<serde_json::Error> for End {
    fn from(error: serde_json::Error) -> Self {
        Self::Failed(kube::Error::SerdeError(error))
    }
}

/// The program's queue, and how a change becomes an event in it.
struct Queue<E, F> {
    events: mpsc::Sender<E>,
    wrap: fn(Change<F>) -> E,
}

impl<E, F> Queue<E, F> {
    async fn send(&self, change: Change<F>) -> Result<(), End> {
        self.events.send((self.wrap)(change)).await.map_err(|_| End::Unread)
    }
}

impl<F> Watch<F> {
    /// A watch of all objects of `api`. `what` is the kind's plural, for logs: "Services".
    #[must_use]
    pub fn new<K>(what: &'static str, api: Api<K>, project: impl Fn(K) -> F + Send + Sync + 'static) -> Self
    where
        K: Resource + DeserializeOwned,
    {
        let read = move |text: &[u8], place| decode::object(text, place).map(&project);
        Self { what, source: Source::new(api), read: Box::new(read) }
    }

    /// Only the objects that this label selector matches, in Kubernetes' syntax: `!service.kubernetes.io/headless`.
    #[must_use]
    pub fn labels(mut self, selector: &str) -> Self {
        self.source.labels = Some(selector.to_owned());
        self
    }

    /// Only the objects that this field selector matches: `metadata.name=ferrolb-hello`.
    #[must_use]
    pub fn fields(mut self, selector: &str) -> Self {
        self.source.fields = Some(selector.to_owned());
        self
    }

    /// Watches for ever, whatever fails, and sends each change as `wrap` makes it an event (an enum variant is a function).
    /// `vitals` are told while the API server refuses it. Ends only when nobody reads `events` any more.
    pub async fn run<E>(self, events: mpsc::Sender<E>, wrap: fn(Change<F>) -> E, vitals: Arc<Vitals>) {
        let queue = Queue { events, wrap };
        let mut trouble = Trouble::new(self.what, vitals);
        // An API server that has just started accepts lists before watches (429). With one backoff
        // for both, the first watch would wait as long as the last list.
        let (mut list_backoff, mut watch_backoff) = (Backoff::default(), Backoff::default());
        // Where the watch goes on; none: it begins with a list.
        let mut version = None;
        loop {
            let backoff = if version.is_none() { &mut list_backoff } else { &mut watch_backoff };
            let ended = match version.take() {
                None => self.list(&queue).await.map(|listed| version = Some(listed)),
                Some(from) => self.follow(from, &mut version, &queue, &mut trouble).await,
            };
            match ended {
                Ok(()) => trouble.over(),
                Err(End::Unread) => return,
                Err(End::Failed(error)) => {
                    trouble.met(&error, Clock::now());
                    tokio::time::sleep(backoff.next_delay(Clock::now())).await;
                }
            }
        }
    }

    /// Sends every object; returns the version of the list.
    async fn list<E>(&self, queue: &Queue<E, F>) -> Result<String, End> {
        let mut token = None;
        loop {
            let first = token.is_none();
            let mut page = self.source.page(token).await?;
            // A list begins when its first page is there, not at each try of an absent server.
            if first {
                queue.send(Change::ResyncStarted).await?;
            }
            while let Some(object) = page.object().await? {
                queue
                    .send(self.change(&object, Place::Whole, || decode::head(&object).map(|metadata| metadata.key()))?)
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

    /// Sends the changes after the version `from`. Leaves in `next` the version to go on from,
    /// unless the API server does not know it any more.
    async fn follow<E>(
        &self,
        from: String,
        next: &mut Option<String>,
        queue: &Queue<E, F>,
        trouble: &mut Trouble,
    ) -> Result<(), End> {
        let begun = Clock::now();
        let changes = self.source.changes(&from).await;
        if !matches!(&changes, Err(kube::Error::Api(status)) if status.code == GONE) {
            *next = Some(from);
        }
        let mut changes = changes?;
        trouble.over();
        while let Some(line) = changes.line().await? {
            // A line that cannot be read would come again: only a list leads past it.
            let event = decode::event(&line).inspect_err(|_| *next = None)?;
            let change = match event {
                Event::Applied(metadata) => {
                    let change = self.change(&line, Place::Line, || Ok(metadata.key()))?;
                    *next = Some(metadata.version()?);
                    change
                }
                Event::Deleted(metadata) => {
                    let change = Change::Delete(metadata.key());
                    *next = Some(metadata.version()?);
                    change
                }
                Event::Bookmark(metadata) => {
                    *next = Some(metadata.version()?);
                    continue;
                }
                Event::Failed(status) => {
                    *next = None;
                    return Err(End::Failed(kube::Error::Api(status)));
                }
            };
            queue.send(change).await?;
        }
        if Clock::now().since(begun) < WATCH_SHORTEST {
            return Err(End::Failed(kube::Error::ReadEvents(io::ErrorKind::UnexpectedEof.into())));
        }
        Ok(())
    }

    fn change(
        &self,
        text: &[u8],
        place: Place,
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
