//! The leader lease: which of several replicas may write. Compare-and-swap on one `coordination.k8s.io/v1` Lease.
//!
//! One machine per process, run by the controller's lease driver, which reads and replaces the Lease with the
//! `resourceVersion` that it last saw; the API server refuses the slower of two writers. A lease is over when *I* have not
//! seen its holder or renew time change for its duration by *my* monotonic clock: the texts in it are never compared with a
//! wall clock. The holder stops by itself `renew_deadline` after it *sent* the last renewal that worked, which is less than
//! the duration that the others wait from when they saw it: so two never write, whatever gets lost. A holder whose clock
//! stood still (a paused virtual machine) finds out at its next renewal.
//!
//! A Lease that is deleted is created again by its holder at once, and by others after its
//! duration: they cannot know whose it was last. Only a replica that has never seen a Lease creates
//! it at once. If the Lease is deleted while such a replica starts, two may write until the
//! holder's next renewal.

use std::collections::VecDeque;
use std::time::Duration;

use crate::{Instant, Machine};

/// How long a replica that leaves tries to give the lease back, before the others have to wait for its end.
pub const LEAVE_MAX: Duration = Duration::from_secs(2);

/// Stands for the holder of a Lease that was deleted; no process has this identity.
const UNKNOWN_HOLDER: &str = "?";

/// What a machine is made with. `retry < renew_deadline < duration`.
#[derive(Clone, Debug)]
pub struct Config {
    /// This process: unlike any other one, also than the same one before a restart.
    pub identity: Box<str>,
    /// How long the others wait for a renewal (`spec.leaseDurationSeconds`).
    pub duration: Duration,
    /// How long the holder goes on without one.
    pub renew_deadline: Duration,
    /// How often it is renewed, and looked at by the others.
    pub retry: Duration,
}

/// A Lease as it was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// `spec.holderIdentity`; empty when it was given back.
    pub holder: Box<str>,
    /// `spec.renewTime`, as written: only whether it changes counts.
    pub renewed: Box<str>,
    /// `spec.leaseDurationSeconds`; zero where there is none.
    pub duration: Duration,
    /// `spec.leaseTransitions`.
    pub transitions: u32,
    /// `metadata.resourceVersion`; empty: it was deleted since.
    pub version: Box<str>,
}

impl Record {
    /// True if the Lease does not exist any more.
    fn is_gone(&self) -> bool {
        self.version.is_empty()
    }
}

/// What can happen to the machine. Each [`Output::Read`] and [`Output::Write`] is answered by exactly one of the first four,
/// in bounded time.
#[derive(Clone, Debug)]
pub enum Input {
    /// The Lease was read; none: it does not exist.
    Found(Option<Record>),
    /// The Lease was written, and this is what it is now.
    Written(Record),
    /// The Lease is not the one that was to be replaced, or exists already.
    Conflict,
    /// No answer, or one that says nothing: a write may have happened or not.
    Failed,
    /// The process is about to stop.
    Leave,
}

/// A Lease as it is to become.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// The `resourceVersion` to replace; none: create it.
    pub version: Option<Box<str>>,
    /// `spec.holderIdentity`; empty to give it back.
    pub holder: Box<str>,
    /// `spec.leaseTransitions`.
    pub transitions: u32,
    /// Whether the holder changes with it, which sets `spec.acquireTime`.
    pub acquires: bool,
}

/// What the machine wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Read the Lease.
    Read,
    /// Replace or create the Lease; `spec.renewTime` is the wall clock's now.
    Write(Write),
    /// This replica may write until then; each renewal says later.
    Lead(Instant),
    /// This replica may no longer write: at once.
    Stop,
    /// The lease is given back or the time for it is over: the process may end.
    Left,
}

/// The last record, and since when its holder and renew time are the same by this process's clock.
#[derive(Clone, Debug)]
struct Seen {
    record: Record,
    since: Instant,
}

/// The machine. See the module's head.
#[derive(Debug)]
pub struct Lease {
    config: Config,
    seen: Option<Seen>,
    /// What was asked and when; nothing else is asked meanwhile.
    asked: Option<Instant>,
    /// When to ask next.
    next: Instant,
    /// Whether `seen` is what the API server has, so that a write may follow without a read.
    fresh: bool,
    /// While this replica leads: when the last renewal that worked was sent.
    renewed: Option<Instant>,
    /// Since the process is about to stop: until when it tries to give the lease back.
    leave_by: Option<Instant>,
    left: bool,
    outputs: VecDeque<Output>,
}

impl Lease {
    /// A machine that asks for the lease at its first tick.
    #[must_use]
    pub const fn new(config: Config, now: Instant) -> Self {
        Self {
            config,
            seen: None,
            asked: None,
            next: now,
            fresh: false,
            renewed: None,
            leave_by: None,
            left: false,
            outputs: VecDeque::new(),
        }
    }

    /// Whether this replica may write.
    #[must_use]
    pub const fn leads(&self) -> bool {
        self.renewed.is_some()
    }

    fn is_mine(&self) -> bool {
        self.seen.as_ref().is_some_and(|seen| seen.record.holder == self.config.identity)
    }

    fn observe(&mut self, record: Record, now: Instant) {
        let same = |seen: &&Seen| seen.record.holder == record.holder && seen.record.renewed == record.renewed;
        let since = self.seen.as_ref().filter(same).map_or(now, |seen| seen.since);
        self.seen = Some(Seen { record, since });
        self.fresh = true;
    }

    /// The Lease does not exist. A replica that does not lead waits from now on as if somebody had
    /// just renewed it.
    fn observe_none(&mut self, now: Instant) {
        let leads = self.leads();
        let Some(seen) = &mut self.seen else { return };
        if !leads && !seen.record.is_gone() {
            (seen.since, seen.record.holder) = (now, UNKNOWN_HOLDER.into());
        }
        seen.record.version = "".into();
    }

    /// When the lease of somebody else is over.
    fn over_at(&self, seen: &Seen) -> Instant {
        let duration = if seen.record.duration.is_zero() { self.config.duration } else { seen.record.duration };
        seen.since + duration
    }

    fn stop(&mut self) {
        if self.renewed.take().is_some() {
            self.outputs.push_back(Output::Stop);
        }
    }

    fn read(&mut self, now: Instant) {
        self.asked = Some(now);
        self.outputs.push_back(Output::Read);
    }

    fn write(&mut self, holder: Box<str>, now: Instant) {
        self.asked = Some(now);
        let before = self.seen.as_ref().map(|seen| &seen.record);
        let acquires = !holder.is_empty() && before.is_none_or(|record| record.holder != holder);
        let transitions = before.map_or(0, |record| record.transitions + u32::from(acquires));
        let version = before.filter(|record| !record.is_gone()).map(|record| record.version.clone());
        self.outputs.push_back(Output::Write(Write { version, holder, transitions, acquires }));
    }

    /// Takes or renews the lease if it is free, over or mine; otherwise looks again later.
    fn consider(&mut self, now: Instant) {
        if self.leave_by.is_some() {
            self.give_back(now);
            return;
        }
        match &self.seen {
            Some(seen) if !seen.record.holder.is_empty() && !self.is_mine() && now < self.over_at(seen) => {
                self.next = self.over_at(seen).min(now + self.config.retry);
                self.stop();
            }
            Some(_) | None => {
                if !self.is_mine() {
                    self.stop();
                }
                self.write(self.config.identity.clone(), now);
            }
        }
    }

    /// The last steps of a process that is about to stop.
    fn give_back(&mut self, now: Instant) {
        if self.asked.is_some() {
            return;
        }
        match (self.is_mine(), self.fresh) {
            (true, true) => self.write("".into(), now),
            (true, false) => self.read(now),
            (false, _) => self.leave(),
        }
    }

    fn leave(&mut self) {
        if !self.left {
            self.left = true;
            self.outputs.push_back(Output::Left);
        }
    }

    fn written(&mut self, record: Record, sent: Instant, now: Instant) {
        self.observe(record, now);
        if self.leave_by.is_some() {
            self.give_back(now);
            return;
        }
        self.next = now.max(sent + self.config.retry);
        if now < sent + self.config.renew_deadline {
            self.renewed = Some(sent);
            self.outputs.push_back(Output::Lead(sent + self.config.renew_deadline));
        } else {
            self.stop();
        }
    }
}

impl Machine for Lease {
    type Input = Input;
    type Output = Output;

    fn handle(&mut self, input: Input, now: Instant) {
        if matches!(input, Input::Leave) {
            self.leave_by = Some(now + LEAVE_MAX);
            self.stop();
            self.give_back(now);
            return;
        }
        let Some(sent) = self.asked.take() else { return };
        match input {
            Input::Found(found) => {
                match found {
                    Some(record) => self.observe(record, now),
                    None => self.observe_none(now),
                }
                self.consider(now);
            }
            Input::Written(record) => self.written(record, sent, now),
            Input::Conflict => {
                self.fresh = false;
                self.read(now);
            }
            Input::Failed => {
                self.fresh = false;
                self.next = now + self.config.retry;
                if self.leave_by.is_some() {
                    self.leave();
                }
            }
            Input::Leave => {}
        }
        self.tick(now);
    }

    fn tick(&mut self, now: Instant) {
        if self.renewed.is_some_and(|renewed| now >= renewed + self.config.renew_deadline) {
            self.stop();
        }
        if let Some(leave_by) = self.leave_by {
            if now >= leave_by {
                self.leave();
            }
        } else if self.asked.is_none() && now >= self.next {
            if self.fresh && self.leads() { self.consider(now) } else { self.read(now) }
        }
    }

    fn poll(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn deadline(&self) -> Option<Instant> {
        if self.left {
            return None;
        }
        let ask = (self.asked.is_none() && self.leave_by.is_none()).then_some(self.next);
        let stop = self.renewed.map(|renewed| renewed + self.config.renew_deadline);
        [ask, stop, self.leave_by].into_iter().flatten().min()
    }
}

#[cfg(test)]
mod tests;
