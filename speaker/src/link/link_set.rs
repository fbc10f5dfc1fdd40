//! Driver of the interfaces' threads: starts, configures and ends them so that they match the plan.
//! Owned by the main loop. For each interface, a small task sends the thread's reports to the main
//! loop as events.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ferrolb_proto::wire::Mac;
use ferrolb_runtime::watchdog::Watchdog;
use ferrolb_speaker_core::claim;
use ferrolb_speaker_core::event::Event;
use ferrolb_speaker_core::plan::{LinkConfig, LinkPlan};
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use tracing::info;

use super::groups::{self, DesiredGroups};
use super::{LinkHandle, LinkSetup, SecondPath, Siblings, ThreadState};
use crate::metrics::Metrics;

/// Settings shared by the claim machines of all interfaces.
#[derive(Clone, Debug)]
pub struct ClaimSettings {
    /// This node's name.
    pub node: Box<str>,
    /// Interval between hellos of an owner.
    pub hello_interval: Duration,
    /// Number of consecutive missing hellos after which a speaker is suspected of having failed.
    pub hello_misses_max: u32,
    /// Longest detection time that late hellos of this node cause.
    pub detection_time_max: Duration,
    /// Duration of this node's preempt delay. None: the delay never ends.
    pub preempt_delay: Option<Duration>,
    /// Interval of the periodic announcements of each owned address. None: there are no periodic
    /// announcements.
    pub gratuitous_interval: Option<Duration>,
}

/// Threads of all interfaces that the speaker uses.
#[derive(Debug)]
pub struct LinkSet {
    settings: ClaimSettings,
    metrics: Metrics,
    watchdog: Arc<Watchdog>,
    siblings: Arc<Siblings>,
    second_path: Option<Arc<SecondPath>>,
    events: mpsc::Sender<Event>,
    threads: BTreeMap<u32, RunningThread>,
    /// Two tasks per interface: one forwards reports, the other maintains multicast groups.
    tasks: JoinSet<()>,
}

#[derive(Debug)]
struct RunningThread {
    name: Box<str>,
    mac: Mac,
    config: Arc<LinkConfig>,
    /// None: the thread could not be started, which is reported as an event like any other failure.
    handle: Option<LinkHandle>,
    desired_groups: watch::Sender<DesiredGroups>,
    report_task: AbortHandle,
    group_task: AbortHandle,
}

impl LinkSet {
    /// Returns a set without threads. The set will send the reports of its threads to `events`.
    /// Without `second_path`, the threads use frames on their segments alone.
    #[must_use]
    pub fn new(
        settings: ClaimSettings,
        metrics: Metrics,
        watchdog: Arc<Watchdog>,
        second_path: Option<Arc<SecondPath>>,
        events: mpsc::Sender<Event>,
    ) -> Self {
        let siblings = Arc::default();
        Self {
            settings,
            metrics,
            watchdog,
            siblings,
            second_path,
            events,
            threads: BTreeMap::new(),
            tasks: JoinSet::new(),
        }
    }

    /// Starts, configures and ends threads so that they match `wanted`. Must be called inside a
    /// tokio runtime.
    ///
    /// # Errors
    /// If the kernel has no random numbers.
    pub fn apply(&mut self, wanted: &BTreeMap<u32, LinkPlan>) -> Result<(), getrandom::Error> {
        while let Some(ended) = self.tasks.try_join_next() {
            // An aborted task is no bug; a panic is, and ends the process.
            if let Err(error) = ended
                && error.is_panic()
            {
                std::panic::resume_unwind(error.into_panic());
            }
        }
        let obsolete = |index: &u32, running: &mut RunningThread| {
            !wanted
                .get(index)
                .is_some_and(|link| link.name == running.name && link.mac == running.mac)
        };
        for (index, running) in self.threads.extract_if(.., obsolete) {
            info!(index, link = %running.name, "interface no longer in use");
            running.report_task.abort();
            running.group_task.abort();
            if let Some(handle) = running.handle {
                handle.release_and_end();
            }
            self.siblings.remove(index);
            if let Some(second_path) = &self.second_path {
                second_path.remove_link(index);
            }
            if !wanted.values().any(|link| link.name == running.name) {
                self.metrics.remove_link(&running.name);
            }
        }
        for (&index, link) in wanted {
            match self.threads.get_mut(&index) {
                None => self.start(index, link)?,
                Some(running) if running.config != link.config => {
                    running.config = Arc::clone(&link.config);
                    if let Some(handle) = &running.handle {
                        handle.set_config(Arc::clone(&link.config));
                    }
                }
                Some(_) => {}
            }
            self.siblings.set_selected(index, link.selected);
            if let Some(running) = self.threads.get_mut(&index) {
                running.update_groups(link);
            }
        }
        Ok(())
    }

    fn start(&mut self, index: u32, link: &LinkPlan) -> Result<(), getrandom::Error> {
        info!(index, link = %link.name, "interface in use");
        let ClaimSettings {
            node,
            hello_interval,
            hello_misses_max: hello_misses,
            detection_time_max,
            preempt_delay: failback_delay,
            gratuitous_interval,
        } = self.settings.clone();
        let epoch = getrandom::u64()?;
        let claims = claim::ClaimConfig {
            node: node.into(),
            epoch,
            hello_interval,
            hello_misses,
            detection_time_max,
            failback_delay,
        };
        let metrics = self.metrics.link(&link.name);
        let (watchdog, siblings) = (Arc::clone(&self.watchdog), Arc::clone(&self.siblings));
        siblings.add(index, epoch, link.selected);
        let (name, mac) = (link.name.clone(), link.mac);
        let setup = LinkSetup {
            index,
            name,
            mac,
            claims,
            gratuitous_interval,
            metrics,
            watchdog,
            siblings,
            second_path: self.second_path.clone(),
        };
        let (handle, thread_state) = match LinkHandle::spawn(setup, Arc::clone(&link.config)) {
            Ok((handle, thread_state)) => (Some(handle), thread_state),
            Err(error) => {
                (None, watch::channel(Err(format!("cannot start its thread: {error}").into())).1)
            }
        };
        let report_task = self.tasks.spawn(forward(index, thread_state, self.events.clone()));
        let (name, config) = (link.name.clone(), Arc::clone(&link.config));
        let (desired_groups, receiver) = watch::channel(DesiredGroups::default());
        let group_task =
            self.tasks.spawn(groups::maintain(index, name.clone(), receiver, self.events.clone()));
        self.threads.insert(
            index,
            RunningThread {
                name,
                mac: link.mac,
                config,
                handle,
                desired_groups,
                report_task,
                group_task,
            },
        );
        Ok(())
    }
}

impl RunningThread {
    fn update_groups(&self, link: &LinkPlan) {
        self.desired_groups.send_if_modified(|wanted| {
            let same =
                wanted.addresses == link.ndp_addresses && wanted.source == link.config.source_v6;
            if !same {
                *wanted = DesiredGroups {
                    addresses: Arc::clone(&link.ndp_addresses),
                    source: link.config.source_v6,
                };
            }
            !same
        });
    }
}

/// Sends each report of a thread as an event, and finally an event with the reason for which the
/// thread has ended.
async fn forward(
    link: u32,
    mut thread_state: watch::Receiver<ThreadState>,
    events: mpsc::Sender<Event>,
) {
    loop {
        let latest = thread_state.borrow_and_update().clone();
        let event = match latest {
            Ok(report) => Event::Report { link, report },
            Err(why) => {
                // The receiver of `events` is dropped only when the process ends, so a lost event
                // does no harm.
                let _ = events.send(Event::LinkFailed { link, why }).await;
                return;
            }
        };
        if events.send(event).await.is_err() {
            return;
        }
        if thread_state.changed().await.is_err() {
            let why = "its thread panicked".into();
            let _ = events.send(Event::LinkFailed { link, why }).await;
            return;
        }
    }
}
