//! The driver of the links' threads: compares the links that are wanted with those that run. Owned by the main loop; what
//! the threads do comes back as events, forwarded by one small task a link.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ferrolb_proto::claim;
use ferrolb_proto::wire::Mac;
use ferrolb_runtime::vitals::Vitals;
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use tracing::info;

use super::groups::{self, Wanted};
use super::{LinkHandle, Progress, Setup, Siblings};
use crate::event::Event;
use crate::metrics::Metrics;
use crate::plan::{LinkOrder, Order};

/// The settings that every link's claim machine has.
#[derive(Clone, Debug)]
pub struct Protocol {
    /// This node's name.
    pub node: Box<str>,
    /// How often a holder says hello.
    pub hello_interval: Duration,
    /// How many hellos may be missing.
    pub hello_misses: u32,
    /// How long this node is fresh; none: as long as it runs.
    pub failback_delay: Option<Duration>,
    /// How long after the last announcement of an address it is announced again; none: not before it is taken anew.
    pub gratuitous_interval: Option<Duration>,
}

/// All threads that run.
#[derive(Debug)]
pub struct LinkSet {
    protocol: Protocol,
    metrics: Metrics,
    vitals: Arc<Vitals>,
    siblings: Arc<Siblings>,
    events: mpsc::Sender<Event>,
    running: BTreeMap<u32, Running>,
    /// For each link one that sends its reports, and one that keeps its groups.
    tasks: JoinSet<()>,
}

#[derive(Debug)]
struct Running {
    name: Box<str>,
    mac: Mac,
    order: Arc<Order>,
    /// None where no thread was to be had; that is reported like any other failure.
    handle: Option<LinkHandle>,
    wanted: watch::Sender<Wanted>,
    forwarder: AbortHandle,
    keeper: AbortHandle,
}

impl LinkSet {
    /// No thread runs yet; what they do will be sent to `events`.
    #[must_use]
    pub fn new(protocol: Protocol, metrics: Metrics, vitals: Arc<Vitals>, events: mpsc::Sender<Event>) -> Self {
        let siblings = Arc::default();
        Self { protocol, metrics, vitals, siblings, events, running: BTreeMap::new(), tasks: JoinSet::new() }
    }

    /// Makes what runs what is wanted: ends, starts and orders threads. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// When the kernel has no random numbers.
    pub fn apply(&mut self, wanted: &BTreeMap<u32, LinkOrder>) -> Result<(), getrandom::Error> {
        while let Some(ended) = self.tasks.try_join_next() {
            // A task that was aborted is no bug.
            if let Err(error) = ended
                && error.is_panic()
            {
                std::panic::resume_unwind(error.into_panic());
            }
        }
        let over = |index: &u32, running: &mut Running| {
            !wanted.get(index).is_some_and(|link| link.name == running.name && link.mac == running.mac)
        };
        for (index, running) in self.running.extract_if(.., over) {
            info!(index, link = %running.name, "no longer speaking on this link");
            running.forwarder.abort();
            running.keeper.abort();
            if let Some(handle) = running.handle {
                handle.hand_over();
            }
            self.siblings.remove(index);
            if !wanted.values().any(|link| link.name == running.name) {
                self.metrics.forget(&running.name);
            }
        }
        for (&index, link) in wanted {
            match self.running.get_mut(&index) {
                None => self.start(index, link)?,
                Some(running) if running.order != link.order => {
                    running.order = Arc::clone(&link.order);
                    if let Some(handle) = &running.handle {
                        handle.order(Arc::clone(&link.order));
                    }
                }
                Some(_) => {}
            }
            self.siblings.select(index, link.selected);
            if let Some(running) = self.running.get_mut(&index) {
                running.listen_for(link);
            }
        }
        Ok(())
    }

    fn start(&mut self, index: u32, link: &LinkOrder) -> Result<(), getrandom::Error> {
        info!(index, link = %link.name, "speaking on this link");
        let Protocol { node, hello_interval, hello_misses, failback_delay, gratuitous_interval } =
            self.protocol.clone();
        let epoch = getrandom::u64()?;
        let claims = claim::Config { node, epoch, hello_interval, hello_misses, failback_delay };
        let metrics = self.metrics.link(&link.name);
        let (vitals, siblings) = (Arc::clone(&self.vitals), Arc::clone(&self.siblings));
        siblings.add(index, epoch, link.selected);
        let (name, mac) = (link.name.clone(), link.mac);
        let setup = Setup { index, name, mac, claims, gratuitous_interval, metrics, vitals, siblings };
        let (handle, progress) = match LinkHandle::spawn(setup, Arc::clone(&link.order)) {
            Ok((handle, progress)) => (Some(handle), progress),
            Err(error) => (None, watch::channel(Err(format!("no thread for it: {error}").into())).1),
        };
        let forwarder = self.tasks.spawn(forward(index, progress, self.events.clone()));
        let (name, order) = (link.name.clone(), Arc::clone(&link.order));
        let (wanted, wants) = watch::channel(Wanted::default());
        let keeper = self.tasks.spawn(groups::keep(index, name.clone(), wants, self.events.clone()));
        self.running.insert(index, Running { name, mac: link.mac, order, handle, wanted, forwarder, keeper });
        Ok(())
    }
}

impl Running {
    fn listen_for(&self, link: &LinkOrder) {
        self.wanted.send_if_modified(|wanted| {
            let same = wanted.addresses == link.listened_for && wanted.source == link.order.source_v6;
            if !same {
                *wanted = Wanted { addresses: Arc::clone(&link.listened_for), source: link.order.source_v6 };
            }
            !same
        });
    }
}

/// Sends each report of a thread as an event, and its end as the last one.
async fn forward(link: u32, mut progress: watch::Receiver<Progress>, events: mpsc::Sender<Event>) {
    loop {
        let latest = progress.borrow_and_update().clone();
        let event = match latest {
            Ok(report) => Event::Report { link, report },
            Err(why) => {
                // Nobody listens when the process ends: no matter then.
                let _ = events.send(Event::LinkFailed { link, why }).await;
                return;
            }
        };
        if events.send(event).await.is_err() {
            return;
        }
        if progress.changed().await.is_err() {
            let why = "its thread crashed".into();
            let _ = events.send(Event::LinkFailed { link, why }).await;
            return;
        }
    }
}
