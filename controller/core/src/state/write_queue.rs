//! Queue of the pending writes, in the order in which they became due. Owned by the state.
//!
//! If a write fails, or another writer undoes it, the next attempt waits longer each time. The
//! driver has no clock, so the queue passes a write to the driver only when the write is due.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use ferrolb_core::rate::Doubling;
use ferrolb_proto::Instant;

use super::{ADDRESS_MEMORY_INTERVAL, RESOURCE_STATUS_INTERVAL};
use crate::desired::{Status, Target, Write};
use crate::event::Outcome;

/// Delays of the next attempt after failures.
const RETRY_DELAYS: Doubling = Doubling::new(Duration::from_millis(200), Duration::from_secs(10));
/// Number of rejections by the API server, without a success between them, after which the failure
/// is reported. Fewer rejections usually end without intervention, like conflicts with other
/// writers.
pub(super) const REJECTIONS_UNTIL_REPORT: u32 = 3;
/// Minimum time between two writes of a Service's status that another client repeatedly clears.
pub(super) const RESTORE_INTERVAL: Duration = Duration::from_secs(1);
/// If the same status must be written again within this time after its write, another writer has
/// undone it. The next write is then delayed, so that the two writers do not overwrite each other
/// at full speed.
const CONFLICT_WINDOW: Duration = Duration::from_secs(60);

/// Write queue: the pending writes by due time, then by arrival.
#[derive(Debug, Default)]
pub(super) struct WriteQueue {
    /// The pending writes by slot: the due time and a sequence number. Writes are boxed to save
    /// memory, because the nodes of a `BTreeMap` are about half empty.
    due: BTreeMap<(Instant, u64), Box<Write>>,
    /// Pending statuses of the custom resources, and the pending contents of the ConfigMap. The
    /// pending status of a Service is stored with the Service.
    resources: BTreeMap<Target, PendingStatus>,
    /// Counter of slots and attempts, so that the number of each is unique.
    sequence: u64,
}

/// The slot of an object's pending write, and the history of the object's writes.
#[derive(Debug, Default)]
pub(super) struct PendingStatus {
    /// The slot of the pending write in the queue. `None`: the object is up to date, or was written
    /// and the watch has not returned it yet.
    slot: Option<(Instant, u64)>,
    attempt: u64,
    failures: u32,
    /// Number of rejections by the API server since the latest success. Other failures do not reset
    /// the number.
    refusals: u32,
    /// Time of the latest successful write; `None` after [`Self::reset_delay`].
    done_at: Option<Instant>,
    /// Hash of the status that was most recently passed to [`WriteQueue::set`].
    desired_digest: u64,
    not_before: Instant,
    /// Earliest time of the next write to a custom resource or the ConfigMap, because of their
    /// minimum interval; zero for a Service.
    quiet_until: Instant,
}

impl PendingStatus {
    /// Returns whether a write is pending.
    pub(super) const fn is_pending(&self) -> bool {
        self.slot.is_some()
    }

    /// Returns whether no attempt has replaced this one.
    pub(super) const fn is_latest(&self, attempt: u64) -> bool {
        self.attempt == attempt
    }

    /// Returns whether the API server has rejected the write so often that the failure was
    /// reported.
    pub(super) const fn is_refused(&self) -> bool {
        self.refusals >= REJECTIONS_UNTIL_REPORT
    }

    /// Removes the delay after failures, because the controller has made a new decision: the next
    /// write does not mean that another writer has undone the latest one. The minimum interval
    /// between two writes remains.
    pub(super) const fn reset_delay(&mut self) {
        (self.done_at, self.not_before) = (None, self.quiet_until);
    }

    /// Makes the next write due [`RESTORE_INTERVAL`] after the latest one, because another client
    /// repeatedly clears the status. The two clients then do not overwrite each other at full
    /// speed.
    pub(super) fn limit_rate(&mut self) {
        let latest = self.done_at;
        self.reset_delay();
        self.not_before = self.not_before.max(latest.unwrap_or_default() + RESTORE_INTERVAL);
    }

    /// Returns the time of the latest successful write, if known.
    pub(super) const fn done_at(&self) -> Option<Instant> {
        self.done_at
    }

    fn record_failure(&mut self, now: Instant) {
        let delay = RETRY_DELAYS.delay(self.failures);
        self.failures += 1;
        self.not_before = self.not_before.max(now + delay);
    }
}

impl WriteQueue {
    /// Queues the status that the object should have. With `None`, removes the pending write: the
    /// object is up to date, or FerroLB does not manage it.
    pub(super) fn set(
        &mut self,
        pending: &mut PendingStatus,
        status: Option<Status>,
        now: Instant,
    ) {
        let Some(status) = status else {
            // The watch can return the written object before the response to the write arrives, so
            // the write counts as done.
            if pending.is_pending() {
                pending.done_at = Some(now);
            }
            self.remove_pending(pending);
            return;
        };
        let previous_digest = std::mem::replace(&mut pending.desired_digest, digest(&status));
        match pending.slot.and_then(|slot| self.due.get_mut(&slot)) {
            Some(write) if write.status == status => {}
            // The new status gets a new attempt number, so that the result of an attempt for the
            // old status has no effect.
            Some(write) => {
                self.sequence += 1;
                pending.attempt = self.sequence;
                (write.attempt, write.status) = (pending.attempt, status);
            }
            None => {
                match pending.done_at {
                    // The status equals the one that was written, so another writer has undone the
                    // write.
                    Some(at)
                        if now.since(at) < CONFLICT_WINDOW
                            && pending.desired_digest == previous_digest =>
                    {
                        pending.record_failure(now);
                    }
                    Some(_) | None => pending.failures = 0,
                }
                self.enqueue(pending, status, now);
            }
        }
    }

    fn enqueue(&mut self, pending: &mut PendingStatus, status: Status, now: Instant) {
        self.sequence += 1;
        pending.attempt = self.sequence;
        let slot = (pending.not_before.max(now), self.sequence);
        pending.slot = Some(slot);
        let reports_refusal = pending.refusals + 1 == REJECTIONS_UNTIL_REPORT;
        let write = Write { attempt: pending.attempt, reports_refusal, status };
        self.due.insert(slot, Box::new(write));
    }

    /// Removes the pending write of the object, and returns its status.
    pub(super) fn remove_pending(&mut self, pending: &mut PendingStatus) -> Option<Status> {
        pending.refusals = 0;
        let write = self.due.remove(&pending.slot.take()?)?;
        Some(write.status)
    }

    /// Handles the outcome of an attempt. Returns the written status after a success.
    ///
    /// After a success, the object counts as up to date until the watch returns it. After a
    /// failure, another attempt follows later, if the object still needs it. The outcome of an
    /// attempt that a newer attempt has replaced has no effect.
    pub(super) fn complete_attempt(
        &mut self,
        pending: &mut PendingStatus,
        attempt: u64,
        outcome: Outcome,
        now: Instant,
    ) -> Option<Status> {
        if attempt != pending.attempt {
            return None;
        }
        if outcome == Outcome::Done {
            pending.done_at = Some(now);
            return self.remove_pending(pending);
        }
        pending.refusals = pending.refusals.saturating_add(u32::from(outcome == Outcome::Refused));
        if let Some(write) = pending.slot.take().and_then(|slot| self.due.remove(&slot)) {
            pending.record_failure(now);
            self.enqueue(pending, write.status, now);
        }
        None
    }

    /// Queues the status that a custom resource should have, or the contents of the ConfigMap, like
    /// [`Self::set`].
    ///
    /// They depend on other objects: the counts of a pool change with every Service. A repeated
    /// status therefore does not indicate a conflict with another writer. Instead, a minimum
    /// interval limits how often it is written.
    pub(super) fn set_resource(&mut self, target: Target, status: Option<Status>, now: Instant) {
        let mut pending = self.resources.remove(&target).unwrap_or_default();
        pending.reset_delay();
        self.set(&mut pending, status, now);
        self.resources.insert(target, pending);
    }

    /// Handles the outcome of a write to a custom resource or the ConfigMap, like
    /// [`Self::complete_attempt`].
    pub(super) fn complete_resource_attempt(
        &mut self,
        target: &Target,
        attempt: u64,
        outcome: Outcome,
        now: Instant,
    ) -> Option<Status> {
        let (target, mut pending) = self.resources.remove_entry(target)?;
        pending.quiet_until = now + interval(&target);
        let written = self.complete_attempt(&mut pending, attempt, outcome, now);
        self.resources.insert(target, pending);
        written
    }

    /// Removes the pending status of a deleted custom resource, and its pending write.
    pub(super) fn remove_resource(&mut self, target: &Target) {
        if let Some(mut pending) = self.resources.remove(target) {
            self.remove_pending(&mut pending);
        }
    }

    /// Removes the pending statuses of all custom resources and of the ConfigMap, and their pending
    /// writes.
    pub(super) fn remove_all_resources(&mut self) {
        for mut pending in std::mem::take(&mut self.resources).into_values() {
            self.remove_pending(&mut pending);
        }
    }

    /// Returns whether a write to this custom resource, or to the ConfigMap, is due at `now`.
    pub(super) fn is_due(&self, target: &Target, now: Instant) -> bool {
        let slot = self.resources.get(target).and_then(|pending| pending.slot);
        slot.is_some_and(|(at, _)| at <= now)
    }

    /// Returns the writes that are due at `now`, the longest overdue first.
    pub(super) fn due(&self, now: Instant) -> impl Iterator<Item = &Write> {
        self.due.range(..=(now, u64::MAX)).map(|(_, write)| &**write)
    }

    /// Returns the time after `now` at which the next write becomes due.
    pub(super) fn deadline(&self, now: Instant) -> Option<Instant> {
        self.due.range((now, u64::MAX)..).next().map(|((at, _), _)| *at)
    }
}

/// Returns the minimum time between two writes of an object.
const fn interval(target: &Target) -> Duration {
    match target {
        Target::AddressMemory => ADDRESS_MEMORY_INTERVAL,
        Target::Service(_) | Target::CustomResource(..) => RESOURCE_STATUS_INTERVAL,
    }
}

/// Returns a hash of a status. The hash needs less memory than a copy of the status.
fn digest(status: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    status.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use ferrolb_proto::api::{ConditionMessage, ConditionStatus, CustomResourceKind};

    use super::*;
    use crate::desired::{Condition, CustomResourceStatus, ValidStatus};

    fn at(millis: u64) -> Instant {
        Instant::from_millis(millis)
    }

    /// Returns a status of the Community with this name; each generation is a different status.
    fn status(name: &str, generation: i64) -> Option<Status> {
        let (reason, message) = ("Valid".into(), ConditionMessage::default());
        let condition = Condition { status: ConditionStatus::True, reason, message, since: None };
        let valid = ValidStatus { condition, generation };
        let status = CustomResourceStatus::Valid(CustomResourceKind::Community, valid);
        Some(Status::CustomResource(name.into(), status))
    }

    /// Returns the objects whose writes are due.
    fn due(queue: &WriteQueue, millis: u64) -> Vec<String> {
        queue.due(at(millis)).map(|write| write.target().to_string()).collect()
    }

    #[test]
    fn writes_are_due_in_order_of_arrival_and_can_be_removed() {
        let (mut queue, mut a, mut b) =
            (WriteQueue::default(), PendingStatus::default(), PendingStatus::default());
        queue.set(&mut b, status("b", 1), at(1));
        queue.set(&mut a, status("a", 1), at(1));
        queue.set(&mut b, status("b", 1), at(2));
        assert_eq!(due(&queue, 1), ["Community b", "Community a"]);
        queue.set(&mut b, None, at(2));
        assert_eq!(due(&queue, 2), ["Community a"]);
    }

    #[test]
    fn the_outcome_of_a_replaced_attempt_has_no_effect() {
        let (mut queue, mut a) = (WriteQueue::default(), PendingStatus::default());
        queue.set(&mut a, status("a", 1), at(0));
        let first = a.attempt;
        queue.set(&mut a, status("a", 1), at(0));
        assert_eq!(a.attempt, first, "an unchanged status keeps its attempt number");
        queue.set(&mut a, status("a", 2), at(0));
        assert_eq!(queue.complete_attempt(&mut a, first, Outcome::Done, at(1)), None);
        assert_eq!(queue.complete_attempt(&mut a, first, Outcome::Failed, at(1)), None);
        assert_eq!(queue.due(at(1)).count(), 1, "the write of the new status is still due");
        let second = a.attempt;
        assert_eq!(queue.complete_attempt(&mut a, second, Outcome::Done, at(1)), status("a", 2));
        assert_eq!(queue.due(at(1)).count(), 0);
    }

    #[test]
    fn a_write_is_done_when_the_watch_returns_the_status() {
        let (mut queue, mut a) = (WriteQueue::default(), PendingStatus::default());
        queue.set(&mut a, None, at(0));
        assert_eq!(a.done_at(), None, "no write was pending");
        queue.set(&mut a, status("a", 1), at(1));
        queue.set(&mut a, None, at(2));
        assert_eq!((a.done_at(), queue.due(at(2)).count()), (Some(at(2)), 0));
    }

    #[test]
    fn the_delay_after_failures_doubles_up_to_the_limit() {
        let (mut queue, mut a) = (WriteQueue::default(), PendingStatus::default());
        queue.set(&mut a, status("a", 1), at(0));
        let mut now = at(0);
        for delay in [200, 400, 800, 1_600, 3_200, 6_400, 10_000, 10_000] {
            let attempt = a.attempt;
            queue.complete_attempt(&mut a, attempt, Outcome::Failed, now);
            assert_eq!(queue.due(now).count(), 0);
            assert_eq!(queue.deadline(now), Some(now + Duration::from_millis(delay)));
            now = now + Duration::from_millis(delay);
            assert_eq!(queue.due(now).count(), 1);
        }
    }

    #[test]
    fn a_write_that_another_writer_undoes_is_repeated_with_backoff() {
        let (mut queue, mut a) = (WriteQueue::default(), PendingStatus::default());
        let mut now = at(0);
        for delay in [0, 200, 400, 800] {
            queue.set(&mut a, status("a", 1), now);
            let due = now + Duration::from_millis(delay);
            assert_eq!(queue.due(due).count(), 1, "the write is due after {delay} ms");
            assert_eq!(queue.deadline(now), (delay > 0).then_some(due));
            let attempt = a.attempt;
            assert_eq!(queue.complete_attempt(&mut a, attempt, Outcome::Done, due), status("a", 1));
            now = due;
        }
        a.reset_delay();
        queue.set(&mut a, status("a", 2), now);
        assert_eq!(queue.due(now).count(), 1, "after a new decision the write is due at once");
    }
}
