//! Leader lease: decides which of several replicas may write, by compare-and-swap on one
//! `coordination.k8s.io/v1` Lease.
//!
//! Each process has one state machine, which the controller's lease driver runs. The driver reads
//! the Lease, and replaces it with the `resourceVersion` that it read, so the API server rejects
//! the slower of two writers.
//!
//! A replica regards a lease as expired if its holder and renew time have not changed for the
//! lease's duration, measured by the replica's own monotonic clock. The times in the Lease are
//! never compared with a wall clock. The leader stops by itself `renew_deadline` after it *sent*
//! its latest successful renewal. The other replicas wait longer: the lease's duration, from the
//! time at which they read that renewal. So two replicas never write at once, whatever messages are
//! lost. A leader whose clock stood still (a paused virtual machine) detects the new leader at its
//! next renewal.
//!
//! If the Lease is deleted, the leader creates it again at once. Other replicas first wait for the
//! lease's duration, because the deleted Lease may have had another leader than the one that they
//! read. A replica that has never read a Lease does not wait. If the Lease is deleted while such a
//! replica starts, two replicas may write until the leader's next renewal.

use std::collections::VecDeque;
use std::time::Duration;

use ferrolb_core::Machine;
use ferrolb_proto::Instant;

/// Longest time for which a stopping replica tries to release the lease. If that fails, the other
/// replicas must wait until the lease expires.
pub const RELEASE_TIMEOUT: Duration = Duration::from_secs(2);

/// Placeholder for the unknown holder of a Lease that was deleted. No process has this identity.
const UNKNOWN_HOLDER: &str = "?";

/// Parameters of a [`LeaderLease`]. Each process must set `retry < renew_deadline < duration`.
#[derive(Clone, Debug)]
pub struct LeaseConfig {
    /// Identity of this process. No other process has the same one, and a restarted process has a
    /// new one.
    pub identity: Box<str>,
    /// Time without a renewal after which the other replicas regard the lease as expired
    /// (`spec.leaseDurationSeconds`).
    pub duration: Duration,
    /// Time without a successful renewal after which the leader stops writing.
    pub renew_deadline: Duration,
    /// Interval of the leader's renewals, and of the other replicas' reads.
    pub retry: Duration,
}

/// A Lease as read from the API server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeaseRecord {
    /// `spec.holderIdentity`; empty if released.
    pub holder: Box<str>,
    /// `spec.renewTime` as text. [`LeaderLease`] only checks whether the text has changed.
    pub renew_time: Box<str>,
    /// `spec.leaseDurationSeconds`; zero if absent.
    pub duration: Duration,
    /// `spec.leaseTransitions`.
    pub transitions: u32,
    /// `metadata.resourceVersion`; empty if a later read found that the Lease was deleted.
    pub version: Box<str>,
}

impl LeaseRecord {
    /// Returns whether a later read found that the Lease was deleted.
    fn is_deleted(&self) -> bool {
        self.version.is_empty()
    }
}

/// Inputs of [`LeaderLease`]. The driver responds to each [`LeaseOutput::Read`] and
/// [`LeaseOutput::Write`] with exactly one of the first four inputs, in bounded time.
#[derive(Clone, Debug)]
pub enum LeaseInput {
    /// The Lease was read; `None` if it does not exist.
    Read(Option<LeaseRecord>),
    /// The Lease was written; this is its new state.
    Written(LeaseRecord),
    /// The API server rejected the write: the Lease was changed or deleted after it was read, or it
    /// already exists.
    Conflict,
    /// The request failed or received no response. A write may have taken effect or not.
    Failed,
    /// The process is about to stop.
    Stopping,
}

/// A Lease to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseWrite {
    /// The `resourceVersion` of the Lease to replace; `None` to create the Lease.
    pub version: Option<Box<str>>,
    /// `spec.holderIdentity`; empty to release the lease.
    pub holder: Box<str>,
    /// `spec.leaseTransitions`.
    pub transitions: u32,
    /// True if this write makes this replica the holder, so that the driver must set
    /// `spec.acquireTime`.
    pub sets_acquire_time: bool,
}

/// Outputs of [`LeaderLease`] for the lease driver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeaseOutput {
    /// Read the Lease.
    Read,
    /// Replace or create the Lease, and set `spec.renewTime` to the current wall clock time.
    Write(LeaseWrite),
    /// This replica may write until this time; each renewal extends it.
    Lead(Instant),
    /// This replica must stop writing at once.
    Stop,
    /// This replica has just read that another one, with this identity, has taken or renewed the
    /// lease.
    Follow(Box<str>),
    /// The process may end: it has released the lease, did not hold it, or could not release it.
    Released,
}

/// The latest record, and the time on this process's clock since which its holder and renew time
/// are unchanged.
#[derive(Clone, Debug)]
struct ObservedRecord {
    record: LeaseRecord,
    since: Instant,
}

/// State machine that decides whether this process may write; see the module documentation.
#[derive(Debug)]
pub struct LeaderLease {
    config: LeaseConfig,
    observed: Option<ObservedRecord>,
    /// Time at which the pending request was sent. At most one request is pending.
    requested_at: Option<Instant>,
    /// Time at which the next request is due.
    next_request: Instant,
    /// True if no request has failed since `observed` was read or written, so that a write may
    /// follow without another read.
    is_current: bool,
    /// While this replica leads: time at which the latest successful renewal was sent.
    renewed_at: Option<Instant>,
    /// While the process stops: time until which it tries to release the lease.
    release_by: Option<Instant>,
    finished: bool,
    outputs: VecDeque<LeaseOutput>,
}

impl LeaderLease {
    /// Creates a state machine that requests a read of the Lease at its first tick.
    #[must_use]
    pub const fn new(config: LeaseConfig, now: Instant) -> Self {
        Self {
            config,
            observed: None,
            requested_at: None,
            next_request: now,
            is_current: false,
            renewed_at: None,
            release_by: None,
            finished: false,
            outputs: VecDeque::new(),
        }
    }

    /// Returns whether this replica may write.
    #[must_use]
    pub const fn is_leader(&self) -> bool {
        self.renewed_at.is_some()
    }

    fn is_own(&self) -> bool {
        self.observed
            .as_ref()
            .is_some_and(|observed| observed.record.holder == self.config.identity)
    }

    fn observe(&mut self, record: LeaseRecord, now: Instant) {
        let is_unchanged = |observed_record: &&ObservedRecord| {
            observed_record.record.holder == record.holder
                && observed_record.record.renew_time == record.renew_time
        };
        let unchanged = self.observed.as_ref().filter(is_unchanged);
        let since = unchanged.map_or(now, |observed_record| observed_record.since);
        let holder = &record.holder;
        if unchanged.is_none() && !holder.is_empty() && *holder != self.config.identity {
            self.outputs.push_back(LeaseOutput::Follow(holder.clone()));
        }
        self.observed = Some(ObservedRecord { record, since });
        self.is_current = true;
    }

    /// Handles a read that found no Lease. If this replica has read the Lease before and does not
    /// lead, it waits as if another replica had just renewed the lease.
    fn observe_missing(&mut self, now: Instant) {
        let leads = self.is_leader();
        let Some(observed_record) = &mut self.observed else { return };
        if !leads && !observed_record.record.is_deleted() {
            (observed_record.since, observed_record.record.holder) = (now, UNKNOWN_HOLDER.into());
        }
        observed_record.record.version = "".into();
    }

    /// Returns the time at which the lease of another replica expires.
    fn expires_at(&self, observed_record: &ObservedRecord) -> Instant {
        let duration = if observed_record.record.duration.is_zero() {
            self.config.duration
        } else {
            observed_record.record.duration
        };
        observed_record.since + duration
    }

    fn stop(&mut self) {
        if self.renewed_at.take().is_some() {
            self.outputs.push_back(LeaseOutput::Stop);
        }
    }

    fn read(&mut self, now: Instant) {
        self.requested_at = Some(now);
        self.outputs.push_back(LeaseOutput::Read);
    }

    fn write(&mut self, holder: Box<str>, now: Instant) {
        self.requested_at = Some(now);
        let before = self.observed.as_ref().map(|observed_record| &observed_record.record);
        let acquires = !holder.is_empty() && before.is_none_or(|record| record.holder != holder);
        let transitions = before.map_or(0, |record| record.transitions + u32::from(acquires));
        let version =
            before.filter(|record| !record.is_deleted()).map(|record| record.version.clone());
        self.outputs.push_back(LeaseOutput::Write(LeaseWrite {
            version,
            holder,
            transitions,
            sets_acquire_time: acquires,
        }));
    }

    /// Takes or renews the lease if it is free, expired or this replica's; otherwise schedules
    /// another read.
    fn acquire_or_renew(&mut self, now: Instant) {
        if self.release_by.is_some() {
            self.release(now);
            return;
        }
        match &self.observed {
            Some(observed_record)
                if !observed_record.record.holder.is_empty()
                    && !self.is_own()
                    && now < self.expires_at(observed_record) =>
            {
                self.next_request = self.expires_at(observed_record).min(now + self.config.retry);
                self.stop();
            }
            Some(_) | None => {
                if !self.is_own() {
                    self.stop();
                }
                self.write(self.config.identity.clone(), now);
            }
        }
    }

    /// Continues the release of the lease while the process stops: reads the Lease if necessary,
    /// writes it without a holder, and then outputs [`LeaseOutput::Released`].
    fn release(&mut self, now: Instant) {
        if self.requested_at.is_some() {
            return;
        }
        match (self.is_own(), self.is_current) {
            (true, true) => self.write("".into(), now),
            (true, false) => self.read(now),
            (false, _) => self.finish(),
        }
    }

    fn finish(&mut self) {
        if !self.finished {
            self.finished = true;
            self.outputs.push_back(LeaseOutput::Released);
        }
    }

    fn on_written(&mut self, record: LeaseRecord, sent: Instant, now: Instant) {
        self.observe(record, now);
        if self.release_by.is_some() {
            self.release(now);
            return;
        }
        self.next_request = now.max(sent + self.config.retry);
        if now < sent + self.config.renew_deadline {
            self.renewed_at = Some(sent);
            self.outputs.push_back(LeaseOutput::Lead(sent + self.config.renew_deadline));
        } else {
            self.stop();
        }
    }
}

impl Machine for LeaderLease {
    type Input = LeaseInput;
    type Output = LeaseOutput;

    fn handle(&mut self, input: LeaseInput, now: Instant) {
        if matches!(input, LeaseInput::Stopping) {
            self.release_by = Some(now + RELEASE_TIMEOUT);
            self.stop();
            self.release(now);
            return;
        }
        let Some(sent) = self.requested_at.take() else { return };
        match input {
            LeaseInput::Read(found) => {
                match found {
                    Some(record) => self.observe(record, now),
                    None => self.observe_missing(now),
                }
                self.acquire_or_renew(now);
            }
            LeaseInput::Written(record) => self.on_written(record, sent, now),
            LeaseInput::Conflict => {
                self.is_current = false;
                self.read(now);
            }
            LeaseInput::Failed => {
                self.is_current = false;
                self.next_request = now + self.config.retry;
                if self.release_by.is_some() {
                    self.finish();
                }
            }
            LeaseInput::Stopping => {}
        }
        self.tick(now);
    }

    fn tick(&mut self, now: Instant) {
        if self.renewed_at.is_some_and(|renewed| now >= renewed + self.config.renew_deadline) {
            self.stop();
        }
        if let Some(leave_by) = self.release_by {
            if now >= leave_by {
                self.finish();
            }
        } else if self.requested_at.is_none() && now >= self.next_request {
            if self.is_current && self.is_leader() {
                self.acquire_or_renew(now)
            } else {
                self.read(now)
            }
        }
    }

    fn poll(&mut self) -> Option<LeaseOutput> {
        self.outputs.pop_front()
    }

    fn deadline(&self) -> Option<Instant> {
        if self.finished {
            return None;
        }
        let request =
            (self.requested_at.is_none() && self.release_by.is_none()).then_some(self.next_request);
        let stop = self.renewed_at.map(|renewed| renewed + self.config.renew_deadline);
        [request, stop, self.release_by].into_iter().flatten().min()
    }
}

#[cfg(test)]
mod tests;
