//! Which endpoint is asked when, and what its answers make of it: the machine behind the health checks of endpoints. One per speaker,
//! run by its probe driver, which asks what [`Output::Start`] says and reports each answer.
//!
//! Each target is asked at its own places in time, an interval apart, that a hash of its name chose: five thousand that are there at
//! once are asked evenly over the interval, and again so after a pause. One is never asked twice at once: a question is over when its
//! answer comes, which the driver bounds by the check's timeout, or when it is withdrawn by [`Output::Stop`].

mod shares;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use shares::Shares;

use super::hysteresis::Hysteresis;
use crate::facts::{CheckKind, HealthCheck, Key};
use crate::{Instant, Machine};

/// The most targets. Those beyond, by name, are not checked.
pub const TARGETS_MAX: usize = 10_000;
/// The most questions that wait for their answers at once: each is a socket.
pub const QUESTIONS_MAX: usize = 256;
/// The most of them about one Service: what one has that never answers leaves room for the others.
pub const QUESTIONS_OF_SERVICE_MAX: usize = 32;
/// How long an answer is waited for where the Service does not say.
pub const TIMEOUT_DEFAULT: Duration = Duration::from_millis(500);

/// What is checked: one endpoint as one Service sees it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TargetId {
    /// The Service.
    pub service: Arc<Key>,
    /// The endpoint's address and port.
    pub endpoint: SocketAddr,
}

impl fmt::Display for TargetId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.endpoint, self.service)
    }
}

/// What a Service's check may leave open: the speaker's flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Defaults {
    /// `--health-interval`.
    pub interval: Duration,
    /// `--health-fall`.
    pub fall: u32,
    /// `--health-rise`.
    pub rise: u32,
}

/// How a target is asked, and how its answers are weighed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// What is asked.
    pub kind: CheckKind,
    /// How often; above zero.
    pub interval: Duration,
    /// How long an answer is waited for.
    pub timeout: Duration,
    /// So many failures in a row, and it fails.
    pub fall: u32,
    /// So many successes in a row, and it passes again.
    pub rise: u32,
}

impl Check {
    /// What a Service asks for, made complete.
    #[must_use]
    pub fn new(check: &HealthCheck, defaults: &Defaults) -> Self {
        Self {
            kind: check.kind.clone(),
            interval: check.interval.unwrap_or(defaults.interval),
            timeout: check.timeout.unwrap_or(TIMEOUT_DEFAULT),
            fall: check.fall.unwrap_or(defaults.fall),
            rise: check.rise.unwrap_or(defaults.rise),
        }
    }

    fn asks_the_same(&self, other: &Self) -> bool {
        (&self.kind, self.timeout) == (&other.kind, other.timeout)
    }
}

/// All that is to be checked.
pub type Targets = BTreeMap<TargetId, Arc<Check>>;

/// One question; no two have the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(u64);

/// What can happen to the machine.
#[derive(Clone, Debug)]
pub enum Input {
    /// This is all that is to be checked from now on. What stays keeps its verdict, whatever else changes about it.
    Targets(Arc<Targets>),
    /// A question was answered. The answer to one that was withdrawn is ignored.
    Result {
        /// Whom it was about.
        id: TargetId,
        /// Which question.
        ticket: Ticket,
        /// What came of it; if it failed, why, for a person.
        outcome: Result<(), Box<str>>,
    },
}

/// What the machine wants done or known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Ask now; answered by exactly one [`Input::Result`], unless it is withdrawn before.
    Start {
        /// Whom.
        id: TargetId,
        /// Which question this is.
        ticket: Ticket,
        /// What.
        check: Arc<Check>,
    },
    /// A question is withdrawn: nobody waits for its answer, and its socket is to go.
    Stop(Ticket),
    /// A target passes no longer, or again; or it fails by what it is asked now, and not only by what it was asked before.
    Changed {
        /// Which.
        id: TargetId,
        /// Why it fails, for a person; none: it passes.
        failing: Option<Box<str>>,
    },
    /// A target that failed is checked no more: there is nothing to be said of it.
    Forgotten(TargetId),
}

/// What is known of a target.
#[derive(Debug)]
struct State {
    check: Arc<Check>,
    verdict: Hysteresis,
    /// The question that waits for its answer.
    asked: Option<Ticket>,
    /// When it is asked next; not while a question waits.
    due: Instant,
    /// It fails, but said so of another question than it is asked now.
    reason_is_old: bool,
}

/// The machine. See the module's head.
#[derive(Debug)]
pub struct Prober {
    targets_max: usize,
    questions_max: usize,
    targets: BTreeMap<TargetId, State>,
    over_limit: usize,
    /// Who is asked when: those of whom no question waits, and who do not wait for their Service's share.
    due: BTreeSet<(Instant, TargetId)>,
    asked: usize,
    shares: Shares,
    failing: usize,
    tickets: u64,
    outputs: VecDeque<Output>,
}

impl Default for Prober {
    fn default() -> Self {
        Self::bounded(TARGETS_MAX, QUESTIONS_MAX, QUESTIONS_OF_SERVICE_MAX)
    }
}

impl Prober {
    const fn bounded(targets_max: usize, questions_max: usize, of_service_max: usize) -> Self {
        Self {
            targets_max,
            questions_max,
            targets: BTreeMap::new(),
            over_limit: 0,
            due: BTreeSet::new(),
            asked: 0,
            shares: Shares::new(of_service_max),
            failing: 0,
            tickets: 0,
            outputs: VecDeque::new(),
        }
    }

    /// How many targets are checked.
    #[must_use]
    pub fn targets(&self) -> usize {
        self.targets.len()
    }

    /// How many of them fail.
    #[must_use]
    pub const fn failing(&self) -> usize {
        self.failing
    }

    /// How many are not checked because there are too many.
    #[must_use]
    pub const fn over_limit(&self) -> usize {
        self.over_limit
    }

    fn set_targets(&mut self, wanted: &Targets, now: Instant) {
        self.over_limit = wanted.len().saturating_sub(self.targets_max);
        let bounded: Targets =
            wanted.iter().take(self.targets_max).map(|(id, check)| (id.clone(), Arc::clone(check))).collect();
        let gone: Vec<_> = self.targets.keys().filter(|id| !bounded.contains_key(*id)).cloned().collect();
        gone.into_iter().for_each(|id| self.remove(id));
        for (id, check) in bounded {
            match self.targets.get(&id) {
                None => {
                    let due = next_turn(&id, check.interval, now);
                    self.due.insert((due, id.clone()));
                    let verdict = Hysteresis::default();
                    self.targets.insert(id, State { check, verdict, asked: None, due, reason_is_old: false });
                }
                Some(state) if state.check != check => self.change(&id, check, now),
                Some(_) => {}
            }
        }
    }

    fn remove(&mut self, id: TargetId) {
        let Some(state) = self.targets.remove(&id) else { return };
        match state.asked {
            Some(ticket) => self.withdraw(&id, ticket),
            None => self.unschedule(state.due, &id),
        }
        if state.verdict.is_failing() {
            self.failing -= 1;
            self.outputs.push_back(Output::Forgotten(id));
        }
    }

    /// The target is asked otherwise from now on. A new question is news, so it is asked at once; a new pace is none.
    fn change(&mut self, id: &TargetId, check: Arc<Check>, now: Instant) {
        let Some(state) = self.targets.get_mut(id) else { return };
        let before = std::mem::replace(&mut state.check, check);
        let same_question = before.asks_the_same(&state.check);
        if !same_question {
            state.reason_is_old = state.verdict.is_failing();
        }
        let withdrawn = if same_question { None } else { state.asked.take() };
        if state.asked.is_some() {
            return;
        }
        let due_before = state.due;
        state.due = if same_question { next_turn(id, state.check.interval, now) } else { now };
        let due = (state.due, id.clone());
        match withdrawn {
            Some(ticket) => self.withdraw(id, ticket),
            None => self.unschedule(due_before, id),
        }
        self.due.insert(due);
    }

    fn unschedule(&mut self, due: Instant, id: &TargetId) {
        if self.due.remove(&(due, id.clone())) {
            // It may have been the one that was to have its Service's room.
            self.due.extend(self.shares.next(&id.service));
        } else {
            self.shares.forget(due, id);
        }
    }

    fn withdraw(&mut self, id: &TargetId, ticket: Ticket) {
        self.is_over(id);
        self.outputs.push_back(Output::Stop(ticket));
    }

    /// A question is: there is room for another.
    fn is_over(&mut self, id: &TargetId) {
        self.asked -= 1;
        self.due.extend(self.shares.give_back(&id.service));
    }

    fn take(&mut self, id: TargetId, ticket: Ticket, outcome: Result<(), Box<str>>) {
        let Some(state) = self.targets.get_mut(&id).filter(|state| state.asked == Some(ticket)) else { return };
        state.asked = None;
        // It was asked at `due`: who takes longer than an interval to answer is asked again at once.
        state.due = next_turn(&id, state.check.interval, state.due);
        self.due.insert((state.due, id.clone()));
        let changed = state.verdict.take(outcome.is_ok(), state.check.fall, state.check.rise);
        let failing = state.verdict.is_failing();
        if changed {
            self.failing = if failing { self.failing + 1 } else { self.failing - 1 };
        }
        let told_anew = state.reason_is_old && failing && outcome.is_err();
        state.reason_is_old &= !(changed || told_anew);
        self.is_over(&id);
        if changed || told_anew {
            self.outputs.push_back(Output::Changed { id, failing: outcome.err() });
        }
    }

    /// Asks those whose time has come, the one that waits longest first.
    fn ask(&mut self, now: Instant) {
        while self.asked < self.questions_max && self.due.first().is_some_and(|(due, _)| *due <= now) {
            let Some((due, id)) = self.due.pop_first() else { return };
            let Some(state) = self.targets.get_mut(&id).filter(|_| self.shares.take(due, &id)) else { continue };
            self.tickets += 1;
            self.asked += 1;
            let ticket = Ticket(self.tickets);
            (state.asked, state.due) = (Some(ticket), now);
            self.outputs.push_back(Output::Start { id, ticket, check: Arc::clone(&state.check) });
        }
    }
}

/// The first turn of a target after `after`: its turns are an interval apart, since the start of the clock.
fn next_turn(id: &TargetId, interval: Duration, after: Instant) -> Instant {
    let mut hasher = DefaultHasher::new();
    id.hash(&mut hasher);
    let interval = u64::try_from(interval.as_nanos()).unwrap_or(u64::MAX).max(1);
    let (phase, passed) = (hasher.finish() % interval, after.as_nanos() % interval);
    let since = if passed >= phase { passed - phase } else { interval - (phase - passed) };
    after + Duration::from_nanos(interval - since)
}

impl Machine for Prober {
    type Input = Input;
    type Output = Output;

    fn handle(&mut self, input: Input, now: Instant) {
        match input {
            Input::Targets(targets) => self.set_targets(&targets, now),
            Input::Result { id, ticket, outcome } => self.take(id, ticket, outcome),
        }
        self.ask(now);
    }

    fn tick(&mut self, now: Instant) {
        self.ask(now);
    }

    fn poll(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// None while all questions that may be asked at once wait for their answers: one of these is what comes next.
    fn deadline(&self) -> Option<Instant> {
        self.due.first().map(|(due, _)| *due).filter(|_| self.asked < self.questions_max)
    }
}

#[cfg(test)]
mod tests;
