//! The attempts to write the status of one object: when the next one may begin. Plain values; the
//! state owns one for each object.
//!
//! If a write fails, or another writer undoes it, the next attempt waits longer each time.

use std::num::NonZero;
use std::time::Duration;

use ferrolb_core::rate::Doubling;
use ferrolb_proto::Instant;

use super::Class;
use crate::desired::Target;
use crate::event::Outcome;
use crate::state::{ADDRESS_MEMORY_INTERVAL, RESOURCE_STATUS_INTERVAL};

/// Delays of the next attempt after failures.
const RETRY_DELAYS: Doubling = Doubling::new(Duration::from_millis(200), Duration::from_secs(10));
/// Number of rejections by the API server, without a success between them, after which the failure
/// is reported. Fewer rejections usually end without intervention, like conflicts with other
/// writers.
pub(super) const REJECTIONS_UNTIL_REPORT: u32 = 3;
/// Minimum time between two writes of a Service's status that another client repeatedly clears.
pub(in crate::state) const RESTORE_INTERVAL: Duration = Duration::from_secs(1);
/// If the same status must be written again within this time after its write, another writer has
/// undone it. The next write is then delayed, so that the two writers do not overwrite each other
/// at full speed.
const CONFLICT_WINDOW: Duration = Duration::from_secs(60);

/// The attempts to write the status of one object, and its places in the queue.
#[derive(Debug, Default)]
pub(in crate::state) struct Attempts {
    /// Times at which the object is due, by class; zero: the object is not queued.
    queued_at: [Instant; Class::ALL.len()],
    /// Number of the latest attempt, which may wait for its turn.
    pub(super) latest: u64,
    /// Slot of the write in flight.
    pub(super) slot: Option<NonZero<u64>>,
    /// True if the status must be written, or is in flight. False if the object is up to date, or
    /// was written and the watch has not returned it yet.
    pending: bool,
    /// Number of attempts in succession that failed, or that another writer has undone.
    failures: u32,
    /// Number of rejections by the API server since the latest success. Other failures do not reset
    /// the number.
    refusals: u32,
    /// Time of the latest successful write; `None` after [`Self::reset_delay`].
    done_at: Option<Instant>,
    /// Hash of the status that the object needed most recently.
    digest: u64,
    /// Earliest time of the next attempt.
    pub(super) not_before: Instant,
    /// Earliest time of the next write to a custom resource or the ConfigMap, because of their
    /// minimum interval; zero for a Service.
    quiet_until: Instant,
}

impl Attempts {
    /// Returns whether the object is due in a class.
    pub(in crate::state) fn is_due(&self, class: Class, now: Instant) -> bool {
        self.queued_at(class).is_some_and(|at| at <= now)
    }

    /// Returns the time at which the object is due in a class; `None` if it is not queued.
    pub(super) fn queued_at(&self, class: Class) -> Option<Instant> {
        Some(self.queued_at[class as usize]).filter(|at| *at > Instant::ZERO)
    }

    /// Sets the time at which the object is due in a class. Returns the time before.
    pub(super) fn set_queued_at(&mut self, class: Class, at: Option<Instant>) -> Option<Instant> {
        let before = self.queued_at(class);
        self.queued_at[class as usize] = at.unwrap_or_default();
        before
    }

    /// Returns whether the status must be written, or is in flight.
    pub(in crate::state) const fn is_pending(&self) -> bool {
        self.pending
    }

    /// Returns whether a write of the status is in flight.
    pub(in crate::state) const fn is_in_flight(&self) -> bool {
        self.slot.is_some()
    }

    /// Returns whether no other attempt has begun, or waits, since this one.
    pub(in crate::state) const fn is_latest(&self, attempt: u64) -> bool {
        self.latest == attempt
    }

    /// Returns whether the API server has rejected the write so often that the failure was
    /// reported.
    pub(in crate::state) const fn is_refused(&self) -> bool {
        self.refusals >= REJECTIONS_UNTIL_REPORT
    }

    /// Returns whether the next rejection is the one that is reported.
    pub(super) const fn is_last_before_report(&self) -> bool {
        self.refusals + 1 == REJECTIONS_UNTIL_REPORT
    }

    /// Returns the time of the latest successful write, if known.
    pub(in crate::state) const fn done_at(&self) -> Option<Instant> {
        self.done_at
    }

    /// Removes the delay after failures, because the controller has made a new decision: the next
    /// write does not mean that another writer has undone the latest one. The minimum interval
    /// between two writes remains, and so does the time of a pending write.
    pub(in crate::state) const fn reset_delay(&mut self) {
        self.done_at = None;
        if !self.pending {
            self.not_before = self.quiet_until;
        }
    }

    /// Makes the next write due [`RESTORE_INTERVAL`] after the latest one, because another client
    /// repeatedly clears the status. The two clients then do not overwrite each other at full
    /// speed.
    pub(in crate::state) fn limit_rate(&mut self) {
        let latest = self.done_at.unwrap_or_default();
        self.reset_delay();
        if !self.pending {
            self.not_before = self.not_before.max(latest + RESTORE_INTERVAL);
        }
    }

    /// Delays the next write to a custom resource, or to the ConfigMap, by the minimum interval.
    pub(super) fn keep_interval(&mut self, target: &Target, now: Instant) {
        let interval = match target {
            Target::AddressMemory => ADDRESS_MEMORY_INTERVAL,
            Target::Service(_) | Target::CustomResource(..) => RESOURCE_STATUS_INTERVAL,
        };
        self.quiet_until = now + interval;
        self.not_before = self.not_before.max(self.quiet_until);
    }

    /// Records that the object needs the status with this hash. If the status equals the one that
    /// was written, another writer has undone the write.
    pub(super) fn want(&mut self, digest: u64, now: Instant) {
        if !std::mem::replace(&mut self.pending, true) {
            match self.done_at {
                Some(at) if now.since(at) < CONFLICT_WINDOW && digest == self.digest => {
                    self.delay(now);
                }
                Some(_) | None => self.failures = 0,
            }
        }
        self.digest = digest;
    }

    /// Records that the object is up to date. The watch can return the written object before the
    /// response to the write arrives, so a pending write counts as done.
    pub(super) const fn end(&mut self, now: Instant) {
        if self.pending {
            self.done_at = Some(now);
        }
        (self.pending, self.refusals) = (false, 0);
    }

    pub(super) fn fail(&mut self, outcome: Outcome, now: Instant) {
        self.refusals = self.refusals.saturating_add(u32::from(outcome == Outcome::Refused));
        self.delay(now);
    }

    fn delay(&mut self, now: Instant) {
        self.not_before = self.not_before.max(now + RETRY_DELAYS.delay(self.failures));
        self.failures += 1;
    }
}
