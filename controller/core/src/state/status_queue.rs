//! Queue of the objects whose status must be compared with the desired one, and the writes in
//! flight. Plain values; owned by the state.
//!
//! The queue contains keys, by class and due time. The state computes a status when its key is due,
//! so that no outdated status waits for its write. At most [`WRITES_MAX`] writes are in flight: the
//! drivers execute them, and each result makes room for the next one.

pub(super) mod attempts;

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::num::NonZero;
use std::ops::Bound;
use std::time::Duration;

use ferrolb_core::rate::TokenBucket;
use ferrolb_proto::Instant;
use ferrolb_proto::facts::Key;

use super::RESOURCE_STATUS_INTERVAL;
use crate::desired::{Status, Target, WRITES_MAX, Write};
use crate::event::Outcome;
pub(super) use attempts::Attempts;

/// Maximum number of conditions `Announced` that are written per second. The limit keeps a failover
/// of thousands of addresses, or a first start, from flooding the API server, the kube-proxies and
/// the speakers, which all receive each write.
pub(super) const CONDITIONS_PER_SECOND_MAX: u32 = 100;
/// Maximum number of conditions that are written at once after a pause.
const CONDITIONS_AT_ONCE_MAX: u32 = 10;
/// Time between two writes of conditions at the maximum rate.
const CONDITION_SPACING: Duration = Duration::from_millis(1_000 / CONDITIONS_PER_SECOND_MAX as u64);
/// Minimum time between two repairs of records.
pub(super) const REPAIR_INTERVAL: Duration = Duration::from_millis(100);

/// Earliest time of an object in the queue.
const FIRST: Instant = Instant::from_nanos(1);
/// Number of writes in flight that Services leave to custom resources and the ConfigMap.
pub(super) const RESOURCE_ROOM: usize = 8;
/// Delay until the next pass of the main loop if objects are due that this pass has not served.
const NEXT_PASS_DELAY: Duration = Duration::from_millis(1);

/// The part of a status that is due, the most urgent first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Class {
    /// The addresses of a Service, its annotations and its condition `AddressAssigned`.
    Addresses,
    /// The condition `Announced` of a Service.
    Condition,
    /// The record of a Service, which another client has removed or changed.
    Record,
    /// The status of a custom resource, or the contents of the ConfigMap.
    Resource,
}

impl Class {
    const ALL: [Self; 4] = [Self::Addresses, Self::Condition, Self::Record, Self::Resource];

    /// Returns the class in which an object waits for its write.
    const fn of_write(target: &Target) -> Self {
        match target {
            Target::Service(_) => Self::Addresses,
            Target::CustomResource(..) | Target::AddressMemory => Self::Resource,
        }
    }
}

/// A round through all Services, which makes their conditions due without a key for each.
#[derive(Debug, Default)]
pub(super) struct Round {
    /// The Service that the round has reached. The next round begins after it.
    pub(super) reached: Key,
    /// Number of Services that are left.
    pub(super) left: usize,
}

/// Queue of keys, and the writes in flight. See the module documentation.
#[derive(Debug)]
pub(super) struct StatusQueue {
    due: BTreeSet<(Class, Instant, Target)>,
    /// The round of checks of the conditions `Announced`.
    pub(super) round: Round,
    /// The writes in flight by slot, in the order in which they began.
    in_flight: BTreeMap<u64, Write>,
    /// Attempts of the custom resources and the ConfigMap. Those of a Service are stored with the
    /// Service.
    resources: BTreeMap<Target, Attempts>,
    /// Number of the latest attempt for any object.
    latest: u64,
    /// Rate limit of the conditions that are written.
    pub(super) conditions: TokenBucket,
    /// Rate limit of the repairs of records.
    pub(super) records: TokenBucket,
}

impl Default for StatusQueue {
    fn default() -> Self {
        Self {
            due: BTreeSet::new(),
            round: Round::default(),
            in_flight: BTreeMap::new(),
            resources: BTreeMap::new(),
            latest: 0,
            conditions: TokenBucket::full(CONDITION_SPACING, CONDITIONS_AT_ONCE_MAX),
            records: TokenBucket::full(REPAIR_INTERVAL, 1),
        }
    }
}

impl StatusQueue {
    /// Removes all objects and writes. The numbers of attempts stay unique.
    pub(super) fn clear(&mut self) {
        *self = Self { latest: self.latest, ..Self::default() };
    }

    /// Queues an object, unless it is queued in this class for an earlier time.
    pub(super) fn queue(
        &mut self,
        attempts: &mut Attempts,
        class: Class,
        target: Target,
        at: Instant,
    ) {
        let at = at.max(FIRST);
        if attempts.queued_at(class).is_none_or(|queued| at < queued) {
            self.remove(attempts, class, &target);
            attempts.set_queued_at(class, Some(at));
            self.due.insert((class, at, target));
        }
    }

    /// Removes an object from a class of the queue. Returns the time at which it was due.
    pub(super) fn remove(
        &mut self,
        attempts: &mut Attempts,
        class: Class,
        target: &Target,
    ) -> Option<Instant> {
        let at = attempts.set_queued_at(class, None)?;
        self.due.remove(&(class, at, target.clone()));
        Some(at)
    }

    /// Removes a deleted object, and its write in flight.
    pub(super) fn forget(&mut self, attempts: &mut Attempts, target: &Target) {
        for class in Class::ALL {
            self.remove(attempts, class, target);
        }
        self.end_write(attempts);
    }

    /// Removes the write of an object that is in flight, and returns it.
    fn end_write(&mut self, attempts: &mut Attempts) -> Option<Write> {
        self.in_flight.remove(&attempts.slot.take()?.get())
    }

    /// Returns the number of writes of a class that may begin.
    pub(super) fn room(&self, class: Class) -> usize {
        let left_to_others = if class == Class::Resource { 0 } else { RESOURCE_ROOM };
        WRITES_MAX.saturating_sub(self.in_flight.len() + left_to_others)
    }

    /// Returns the objects that are due in a class, the longest overdue first.
    pub(super) fn due(&self, class: Class, now: Instant) -> impl Iterator<Item = &Target> {
        let first = (class, Instant::ZERO, Target::Service(Key::default()));
        self.due.range(first..=(class, now, Target::AddressMemory)).map(|(.., target)| target)
    }

    /// Returns the objects that are due in a class, as far as their writes have room.
    pub(super) fn due_with_room(&self, class: Class, now: Instant) -> Vec<Target> {
        self.due(class, now).take(self.room(class)).cloned().collect()
    }

    /// Returns the time of the first object of a class that is due after `after`.
    pub(super) fn next(&self, class: Class, after: Instant) -> Option<Instant> {
        let after = Bound::Excluded((class, after, Target::AddressMemory));
        let (next, at, _) = self.due.range((after, Bound::Unbounded)).next()?;
        (*next == class).then_some(*at)
    }

    /// Returns the time after `now` at which the next write may begin. Without room, an object that
    /// is due waits for the result of a write.
    pub(super) fn deadline(&self, now: Instant) -> Option<Instant> {
        let overdue = |class, delay| {
            let waits = self.room(class) > 0 && self.due(class, now).next().is_some();
            waits.then_some(now + delay)
        };
        let overdue = [
            overdue(Class::Addresses, NEXT_PASS_DELAY),
            overdue(Class::Resource, RESOURCE_STATUS_INTERVAL),
            overdue(Class::Record, NEXT_PASS_DELAY).map(|at| at.max(self.records.ready_at())),
        ];
        let classes = [Class::Addresses, Class::Resource, Class::Record];
        let later = classes.map(|class| self.next(class, now));
        overdue.into_iter().chain(later).flatten().min()
    }

    /// Begins the write of the status that an object should have. If the write must wait, has no
    /// room, or would overtake a Service that is due, queues the object. A write in flight gets the
    /// new status. That to the ConfigMap ends first, because the minimum interval follows it.
    ///
    /// With `None`, ends the write: the object is up to date, or FerroLB does not manage it.
    pub(super) fn write(
        &mut self,
        attempts: &mut Attempts,
        target: &Target,
        status: Option<Status>,
        now: Instant,
    ) {
        let class = Class::of_write(target);
        let was_due = self.remove(attempts, class, target);
        let Some(status) = status else {
            self.end_write(attempts);
            return attempts.end(now);
        };
        attempts.want(digest(&status), now);
        let in_flight = attempts.slot.and_then(|slot| self.in_flight.get_mut(&slot.get()));
        if in_flight.as_ref().is_some_and(|write| write.status == status) {
            return;
        }
        if in_flight.is_some() && *target == Target::AddressMemory {
            return self.queue(attempts, class, target.clone(), now);
        }
        // From here on, the result of an earlier attempt has no effect.
        self.latest += 1;
        attempts.latest = self.latest;
        if let Some(write) = in_flight {
            (write.attempt, write.status) = (self.latest, status);
            return;
        }
        let at = attempts.not_before.max(was_due.map_or(now, |at| at.min(now)));
        let overtakes =
            class == Class::Addresses && was_due.is_none() && self.due(class, now).next().is_some();
        if at > now || overtakes || self.room(class) == 0 {
            return self.queue(attempts, class, target.clone(), at);
        }
        let (attempt, reports_refusal) = (self.latest, attempts.is_last_before_report());
        attempts.slot = NonZero::new(attempt);
        self.in_flight.insert(attempt, Write { attempt, reports_refusal, status });
    }

    /// Handles the outcome of an attempt. Returns the written status after a success.
    ///
    /// After a success, the object counts as up to date until the watch returns it. After a
    /// failure, another attempt follows later, if the object still needs it. The outcome of an
    /// attempt that a newer attempt has replaced has no effect.
    pub(super) fn end_attempt(
        &mut self,
        attempts: &mut Attempts,
        (attempt, outcome): (u64, Outcome),
        now: Instant,
    ) -> Option<Status> {
        if attempt != attempts.latest {
            return None;
        }
        let write = self.end_write(attempts)?;
        if outcome == Outcome::Done {
            attempts.end(now);
            return Some(write.status);
        }
        attempts.fail(outcome, now);
        let target = write.target();
        self.queue(attempts, Class::of_write(&target), target, attempts.not_before);
        None
    }

    /// Begins the write of the status that a custom resource should have, or of the contents of the
    /// ConfigMap, like [`Self::write`].
    ///
    /// They depend on other objects: the counts of a pool change with every Service. A repeated
    /// status therefore does not indicate a conflict with another writer. Instead, a minimum
    /// interval limits how often it is written.
    pub(super) fn write_resource(&mut self, target: Target, status: Option<Status>, now: Instant) {
        let mut attempts = self.resources.remove(&target).unwrap_or_default();
        attempts.reset_delay();
        self.write(&mut attempts, &target, status, now);
        self.resources.insert(target, attempts);
    }

    /// Handles the outcome of a write to a custom resource or the ConfigMap, like
    /// [`Self::end_attempt`].
    pub(super) fn end_resource_attempt(
        &mut self,
        target: &Target,
        attempt: (u64, Outcome),
        now: Instant,
    ) -> Option<Status> {
        let (target, mut attempts) = self.resources.remove_entry(target)?;
        attempts.keep_interval(&target, now);
        let written = self.end_attempt(&mut attempts, attempt, now);
        self.resources.insert(target, attempts);
        written
    }

    /// Removes a deleted custom resource.
    pub(super) fn remove_resource(&mut self, target: &Target) {
        if let Some(mut attempts) = self.resources.remove(target) {
            self.forget(&mut attempts, target);
        }
    }

    /// Returns the writes in flight, in the order in which they began.
    pub(super) fn in_flight(&self) -> impl Iterator<Item = &Write> {
        self.in_flight.values()
    }
}

/// Returns a hash of a status. The hash needs less memory than a copy of the status.
fn digest(status: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    status.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests;
