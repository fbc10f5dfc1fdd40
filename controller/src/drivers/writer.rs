//! The writer: one task that makes the statuses in the API server those of Desired. It owns the requests that are under way
//! and nothing else; cancelling it breaks them off.
//!
//! It makes each attempt of each write once, one at a time for one object, a limited number at once, and tells what came of
//! it as an event. When to try again is the state's to decide. When the lease is lost, what is under way is broken off.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ferrolb_runtime::refusal::{CRDS_ARE_OLDER, lacks_field};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tracing::{debug, warn};

use super::apply::{Applier, Failure};
use super::notices::Notices;
use crate::desired::{Action, Desired, NOT_WRITTEN, Notice, Status, Target, Write};
use crate::event::{Event, Outcome};
use crate::metrics::Metrics;

/// Requests that are under way at once.
pub const WRITES_UNDER_WAY_MAX: usize = 16;

/// The writer. See the module's head.
#[derive(Debug)]
pub struct Writer {
    /// Does a single write.
    pub applier: Applier,
    /// What is to be written.
    pub desired: watch::Receiver<Desired>,
    /// Where it tells what came of it.
    pub events: mpsc::Sender<Event>,
    /// Where events about Services go.
    pub notices: Notices,
    /// Where it counts.
    pub metrics: Arc<Metrics>,
}

/// What the task of one write answers.
type Answer = (Write, Result<(), Failure>);

impl Writer {
    /// Writes for ever; ends when nobody desires anything or listens any more.
    pub async fn run(mut self) {
        let mut tasks: JoinSet<Answer> = JoinSet::new();
        // By target: the attempt that was started last, and whether it is still under way.
        let mut started: BTreeMap<Target, (u64, bool)> = BTreeMap::new();
        let mut term = None;
        loop {
            if self.desired.borrow().term != term {
                tasks.shutdown().await;
                started.clear();
            }
            term = self.start(&mut tasks, &mut started);
            let answer = tokio::select! {
                changed = self.desired.changed() => match changed {
                    Ok(()) => continue,
                    Err(_) => return,
                },
                Some(answer) = tasks.join_next() => answer,
            };
            let (write, result) = match answer {
                Ok(answer) => answer,
                Err(error) => std::panic::resume_unwind(error.into_panic()),
            };
            started.insert(write.target.clone(), (write.attempt, false));
            let outcome = self.note(&write, result);
            if self.events.send(Event::Written { target: write.target, attempt: write.attempt, outcome }).await.is_err()
            {
                return;
            }
        }
    }

    /// Starts what is desired, has not been tried and has room; the answer is the term that this is for.
    fn start(&mut self, tasks: &mut JoinSet<Answer>, started: &mut BTreeMap<Target, (u64, bool)>) -> Option<u32> {
        let desired = self.desired.borrow_and_update();
        let wanted: BTreeSet<_> = desired.writes.iter().map(|write| &write.target).collect();
        started.retain(|target, (_, under_way)| *under_way || wanted.contains(target));
        for write in &desired.writes {
            if tasks.len() >= WRITES_UNDER_WAY_MAX {
                break;
            }
            let tried = |(attempt, under_way): &(u64, bool)| *under_way || *attempt == write.attempt;
            if started.get(&write.target).is_some_and(tried) {
                continue;
            }
            started.insert(write.target.clone(), (write.attempt, true));
            self.metrics.writes.inc();
            let (applier, write) = (self.applier.clone(), write.clone());
            tasks.spawn(async move {
                let result = applier.write(&write).await;
                (write, result)
            });
        }
        desired.term
    }

    fn note(&mut self, write: &Write, result: Result<(), Failure>) -> Outcome {
        let target = &write.target;
        let Err(failure) = result else {
            debug!(%target, "written");
            if let (Target::Service(key), Status::Service(status)) = (target, &write.status) {
                status.notices.iter().for_each(|notice| self.notices.tell(key, &status.uid, notice));
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
            if let (Target::Service(key), Status::Service(status)) = (target, &write.status) {
                self.notices.tell(key, &status.uid, &not_written(&why));
            }
        } else {
            debug!(%target, why, "status update rejected");
        }
        Outcome::Refused
    }
}

fn remedy(failure: &Failure) -> &'static str {
    if let Failure::Refused(status) = failure
        && lacks_field(status)
    {
        return CRDS_ARE_OLDER;
    }
    "if permissions are missing, apply FerroLB's RBAC rules, as in deploy/install.yaml or the Helm chart"
}

/// The event about a Service whose status the API server refuses.
fn not_written(why: &str) -> Notice {
    let message = format!("status update rejected, retrying: {why}").into();
    Notice { warning: true, action: Action::AssignAddress, reason: NOT_WRITTEN.into(), message }
}

#[cfg(test)]
mod tests;
