//! Writer: one task that writes the desired statuses to the API server. The task owns only the
//! requests in progress; if the task is canceled, these requests are aborted.
//!
//! The task makes each attempt once, with one write per object at a time and
//! [`CONCURRENT_WRITES_MAX`] writes in total. It reports each result as an event; the state decides
//! when to retry. Requests in progress are aborted when the lease is lost.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ferrolb_controller_core::desired::{Desired, Notice, RejectedStatus, Status, Target, Write};
use ferrolb_controller_core::event::{Event, Outcome};
use ferrolb_proto::facts::Key;
use ferrolb_runtime::refusal::{CRDS_ARE_OLDER, lacks_field};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tracing::{debug, warn};

use super::apply::{Applier, WriteFailure};
use super::notices::{EventObject, Notices};
use crate::metrics::Metrics;

/// Maximum number of writes that are in progress at the same time.
pub const CONCURRENT_WRITES_MAX: usize = 16;

/// Writer task. See the module documentation.
#[derive(Debug)]
pub struct Writer {
    /// Executes each single write.
    pub applier: Applier,
    /// The latest [`Desired`], with the writes to execute.
    pub desired: watch::Receiver<Desired>,
    /// Event queue of the main loop, to which the task sends the result of every write.
    pub events: mpsc::Sender<Event>,
    /// Queue of Kubernetes Events about Services.
    pub notices: Notices,
    /// Counts of writes and write errors.
    pub metrics: Arc<Metrics>,
}

/// A write and its result, as the task that executed the write returns them.
type WriteResult = (Write, Result<(), WriteFailure>);

impl Writer {
    /// Executes the desired writes. Ends when the main loop drops `desired` or the receiver of
    /// `events`.
    pub async fn run(mut self) {
        let mut tasks: JoinSet<WriteResult> = JoinSet::new();
        // For each object that is written: the number of its latest attempt, and whether that
        // attempt is still in progress.
        let mut started: BTreeMap<Target, (u64, bool)> = BTreeMap::new();
        let mut term = None;
        loop {
            if self.desired.borrow().term != term {
                tasks.shutdown().await;
                started.clear();
            }
            term = self.start(&mut tasks, &mut started);
            let finished = tokio::select! {
                changed = self.desired.changed() => match changed {
                    Ok(()) => continue,
                    Err(_) => return,
                },
                Some(finished) = tasks.join_next() => finished,
            };
            let (write, result) = match finished {
                Ok(finished) => finished,
                Err(error) => std::panic::resume_unwind(error.into_panic()),
            };
            let target = write.target();
            started.insert(target.clone(), (write.attempt, false));
            let outcome = self.report_result(&write, result);
            if self
                .events
                .send(Event::Written { target, attempt: write.attempt, outcome })
                .await
                .is_err()
            {
                return;
            }
        }
    }

    /// Starts the desired writes that have not been attempted, up to the limit. Returns the
    /// leadership term to which they belong.
    fn start(
        &mut self,
        tasks: &mut JoinSet<WriteResult>,
        started: &mut BTreeMap<Target, (u64, bool)>,
    ) -> Option<u32> {
        let desired = self.desired.borrow_and_update();
        let wanted: BTreeSet<_> = desired.writes.iter().map(Write::target).collect();
        started.retain(|target, (_, in_progress)| *in_progress || wanted.contains(target));
        for write in &desired.writes {
            if tasks.len() >= CONCURRENT_WRITES_MAX {
                break;
            }
            let is_attempted =
                |(attempt, in_progress): &(u64, bool)| *in_progress || *attempt == write.attempt;
            let target = write.target();
            if started.get(&target).is_some_and(is_attempted) {
                continue;
            }
            started.insert(target, (write.attempt, true));
            self.metrics.writes.inc();
            let (applier, write) = (self.applier.clone(), write.clone());
            tasks.spawn(async move {
                let result = applier.write(&write).await;
                (write, result)
            });
        }
        desired.term
    }

    fn report_result(&mut self, write: &Write, result: Result<(), WriteFailure>) -> Outcome {
        let target = write.target();
        let Err(failure) = result else {
            debug!(%target, "written");
            if let Status::Service(key, status) = &write.status {
                status.notices.iter().for_each(|notice| self.publish(key, &status.uid, notice));
            }
            return Outcome::Done;
        };
        self.metrics.write_errors.inc();
        let Some(why) = failure.refusal() else {
            debug!(%target, ?failure, "not written");
            return Outcome::Failed;
        };
        if write.reports_refusal {
            warn!(%target, why, "status update rejected, retrying: {}", remedy(&failure));
            if let Status::Service(key, status) = &write.status {
                self.publish(key, &status.uid, &RejectedStatus { reply: &why }.notice());
            }
        } else {
            debug!(%target, why, "status update rejected");
        }
        Outcome::Refused
    }

    fn publish(&mut self, service: &Key, uid: &str, notice: &Notice) {
        self.notices.publish(EventObject::Service(service.clone()), uid, notice);
    }
}

fn remedy(failure: &WriteFailure) -> &'static str {
    if let WriteFailure::Refused(status) = failure
        && lacks_field(status)
    {
        return CRDS_ARE_OLDER;
    }
    "if permissions are missing, apply FerroLB's RBAC rules, as in deploy/install.yaml or the Helm chart"
}

#[cfg(test)]
mod tests;
