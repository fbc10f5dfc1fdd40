//! The schedule of endpoint health checks, and the state of each endpoint: passing or failing. Each
//! speaker has one [`Prober`], which its probe driver runs. The driver sends the probes of
//! [`ProberOutput::Start`] and reports each result.
//!
//! Each endpoint is probed at fixed times, one interval apart, with an offset from a hash of its
//! name. The probes of 5,000 endpoints that appear at once are therefore spread evenly over the
//! interval, also after a pause. An endpoint has at most one probe in flight. A probe ends with its
//! result, which the driver bounds by the check's timeout, or with [`ProberOutput::Stop`].

mod capacity;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ferrolb_core::Machine;
use ferrolb_core::shared_map::{Difference, SharedMap};
use ferrolb_proto::Instant;
use ferrolb_proto::facts::{CheckKind, HealthCheck, Key};

use super::hysteresis::Hysteresis;
use capacity::ServiceCapacities;

/// The maximum number of endpoints that one speaker checks. Further endpoints, in the order of
/// [`ProbeTarget`], are not checked.
pub const TARGETS_MAX: usize = 10_000;
/// The maximum number of probes in flight, each of which uses a socket.
pub const PROBES_MAX: usize = 256;
/// The maximum number of probes in flight of one Service, so that endpoints that never reply leave
/// capacity for other Services.
pub const PROBES_OF_SERVICE_MAX: usize = 32;
/// The timeout of a probe if the Service does not set one.
pub const TIMEOUT_DEFAULT: Duration = Duration::from_millis(500);

/// The identity of a checked endpoint: one endpoint of one Service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProbeTarget {
    /// The Service that requests the health check.
    pub service: Arc<Key>,
    /// The endpoint's address and port.
    pub endpoint: SocketAddr,
}

impl fmt::Display for ProbeTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.endpoint, self.service)
    }
}

/// The speaker's defaults for the settings that the health check of a Service may omit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckDefaults {
    /// The time between two probes of an endpoint (`--health-interval`).
    pub interval: Duration,
    /// The number of consecutive failures after which an endpoint fails (`--health-fall`).
    pub fall: u32,
    /// The number of consecutive successes after which an endpoint passes again (`--health-rise`).
    pub rise: u32,
}

/// The health check of an endpoint, with all settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeConfig {
    /// The kind of request: TCP or HTTP.
    pub kind: CheckKind,
    /// The time between two probes; above zero.
    pub interval: Duration,
    /// The time within which a reply must arrive.
    pub timeout: Duration,
    /// The number of consecutive failures after which a passing endpoint fails.
    pub fall: u32,
    /// The number of consecutive successes after which a failing endpoint passes.
    pub rise: u32,
}

impl ProbeConfig {
    /// Returns the health check of a Service, with defaults for the settings that it omits.
    #[must_use]
    pub fn new(check: &HealthCheck, defaults: &CheckDefaults) -> Self {
        Self {
            kind: check.kind.clone(),
            interval: check.interval.unwrap_or(defaults.interval),
            timeout: check.timeout.unwrap_or(TIMEOUT_DEFAULT),
            fall: check.fall.unwrap_or(defaults.fall),
            rise: check.rise.unwrap_or(defaults.rise),
        }
    }

    fn has_same_request(&self, other: &Self) -> bool {
        (&self.kind, self.timeout) == (&other.kind, other.timeout)
    }
}

/// All endpoints to check, each with its health check.
pub type ProbeTargets = SharedMap<ProbeTarget, Arc<ProbeConfig>>;

/// The unique identifier of a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProbeId(u64);

/// The inputs of [`Prober`].
#[derive(Clone, Debug)]
pub enum ProberInput {
    /// The complete set of endpoints to check from now on. An endpoint that remains in the set
    /// keeps its state, even if its check changes.
    Targets(ProbeTargets),
    /// A probe has ended. The result of a stopped probe is ignored.
    Result {
        /// The endpoint to which the probe belongs.
        id: ProbeTarget,
        /// The identifier of the probe.
        ticket: ProbeId,
        /// The result; for a failure, the reason as a text for people.
        outcome: Result<(), Box<str>>,
    },
}

/// The outputs of [`Prober`]: actions and reports for the probe driver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProberOutput {
    /// Start a probe now. Exactly one [`ProberInput::Result`] must follow, unless the probe is
    /// stopped before.
    Start {
        /// The endpoint to which the probe belongs.
        id: ProbeTarget,
        /// The identifier of the probe.
        ticket: ProbeId,
        /// The check, which defines the request and its timeout.
        check: Arc<ProbeConfig>,
    },
    /// Stop a probe: its result is no longer needed, and its socket must be closed.
    Stop(ProbeId),
    /// The state of an endpoint has changed, or a failing endpoint has also failed a new check that
    /// sends a different request.
    Changed {
        /// The endpoint whose state has changed.
        id: ProbeTarget,
        /// The reason why the endpoint fails, as a text for people; `None` if it passes.
        failing: Option<Box<str>>,
    },
    /// A failing endpoint was removed from the set, so it no longer counts as failing.
    Removed(ProbeTarget),
}

/// The check of one endpoint, with its state and schedule.
#[derive(Debug)]
struct TargetState {
    check: Arc<ProbeConfig>,
    verdict: Hysteresis,
    /// The probe in flight, if any.
    probe: Option<ProbeId>,
    /// The time at which the next probe is due; while a probe is in flight, the time at which that
    /// probe started.
    due: Instant,
    /// True if the endpoint fails, and the reported reason is from an earlier check with a
    /// different request.
    reason_is_stale: bool,
}

/// The state machine of all endpoint health checks; see the module's documentation.
#[derive(Debug)]
pub struct Prober {
    targets_max: usize,
    probes_max: usize,
    /// The first `targets_max` of the latest [`ProberInput::Targets`].
    checked: ProbeTargets,
    /// The number of the others.
    over_limit: usize,
    /// The state of each endpoint in `checked`.
    targets: BTreeMap<ProbeTarget, TargetState>,
    /// The endpoints with the times of their next probes. Endpoints with a probe in flight, and
    /// those that wait for capacity of their Service, are not in the set.
    due: BTreeSet<(Instant, ProbeTarget)>,
    in_flight: usize,
    capacities: ServiceCapacities,
    failing: usize,
    tickets: u64,
    outputs: VecDeque<ProberOutput>,
}

impl Default for Prober {
    fn default() -> Self {
        Self::bounded(TARGETS_MAX, PROBES_MAX, PROBES_OF_SERVICE_MAX)
    }
}

impl Prober {
    fn bounded(targets_max: usize, probes_max: usize, of_service_max: usize) -> Self {
        Self {
            targets_max,
            probes_max,
            checked: ProbeTargets::default(),
            over_limit: 0,
            targets: BTreeMap::new(),
            due: BTreeSet::new(),
            in_flight: 0,
            capacities: ServiceCapacities::new(of_service_max),
            failing: 0,
            tickets: 0,
            outputs: VecDeque::new(),
        }
    }

    /// Returns the number of endpoints that are checked.
    #[must_use]
    pub fn targets(&self) -> usize {
        self.targets.len()
    }

    /// Returns the number of endpoints that fail.
    #[must_use]
    pub const fn failing(&self) -> usize {
        self.failing
    }

    /// Returns the number of endpoints that are not checked because of [`TARGETS_MAX`].
    #[must_use]
    pub const fn over_limit(&self) -> usize {
        self.over_limit
    }

    fn set_targets(&mut self, wanted: ProbeTargets, now: Instant) {
        self.over_limit = wanted.len().saturating_sub(self.targets_max);
        let mut checked = wanted;
        if self.over_limit > 0 {
            let first = checked.iter().take(self.targets_max);
            checked = first.map(|(id, check)| (id.clone(), Arc::clone(check))).collect();
        }
        let before = std::mem::replace(&mut self.checked, checked.clone());
        for Difference { key: id, now: check, .. } in checked.differences(&before) {
            match (check, self.targets.contains_key(id)) {
                (None, _) => self.remove(id.clone()),
                (Some(check), true) => self.change(id, Arc::clone(check), now),
                (Some(check), false) => self.add(id.clone(), Arc::clone(check), now),
            }
        }
    }

    fn add(&mut self, id: ProbeTarget, check: Arc<ProbeConfig>, now: Instant) {
        let due = next_probe(&id, check.interval, now);
        self.due.insert((due, id.clone()));
        let verdict = Hysteresis::default();
        let state = TargetState { check, verdict, probe: None, due, reason_is_stale: false };
        self.targets.insert(id, state);
    }

    fn remove(&mut self, id: ProbeTarget) {
        let Some(state) = self.targets.remove(&id) else { return };
        match state.probe {
            Some(ticket) => self.stop_probe(&id, ticket),
            None => self.unschedule(state.due, &id),
        }
        if state.verdict.is_failing() {
            self.failing -= 1;
            self.outputs.push_back(ProberOutput::Removed(id));
        }
    }

    /// Replaces the check of an endpoint. A changed request is sent at once, because its result may
    /// differ. A changed interval takes effect with the next probe.
    fn change(&mut self, id: &ProbeTarget, check: Arc<ProbeConfig>, now: Instant) {
        let Some(state) = self.targets.get_mut(id) else { return };
        let before = std::mem::replace(&mut state.check, check);
        let same_request = before.has_same_request(&state.check);
        if !same_request {
            state.reason_is_stale = state.verdict.is_failing();
        }
        let stopped = if same_request { None } else { state.probe.take() };
        if state.probe.is_some() {
            return;
        }
        let due_before = state.due;
        state.due = if same_request { next_probe(id, state.check.interval, now) } else { now };
        let due = (state.due, id.clone());
        match stopped {
            Some(ticket) => self.stop_probe(id, ticket),
            None => self.unschedule(due_before, id),
        }
        self.due.insert(due);
    }

    fn unschedule(&mut self, due: Instant, id: &ProbeTarget) {
        if self.due.remove(&(due, id.clone())) {
            // Part of the Service's free capacity may have been reserved for this endpoint, so the
            // next waiting endpoint receives that part.
            self.due.extend(self.capacities.take_waiting(&id.service));
        } else {
            self.capacities.remove_waiting(due, id);
        }
    }

    fn stop_probe(&mut self, id: &ProbeTarget, ticket: ProbeId) {
        self.release(id);
        self.outputs.push_back(ProberOutput::Stop(ticket));
    }

    /// Releases the capacity of a probe that has ended, so that the next endpoint can be probed.
    fn release(&mut self, id: &ProbeTarget) {
        self.in_flight -= 1;
        self.due.extend(self.capacities.release(&id.service));
    }

    fn handle_result(&mut self, id: ProbeTarget, ticket: ProbeId, outcome: Result<(), Box<str>>) {
        let Some(state) = self.targets.get_mut(&id).filter(|state| state.probe == Some(ticket))
        else {
            return;
        };
        state.probe = None;
        // The probe that has ended started at `due`. An endpoint whose reply takes longer than an
        // interval is probed again at once.
        state.due = next_probe(&id, state.check.interval, state.due);
        self.due.insert((state.due, id.clone()));
        let changed = state.verdict.count(outcome.is_ok(), state.check.fall, state.check.rise);
        let failing = state.verdict.is_failing();
        if changed {
            self.failing = if failing { self.failing + 1 } else { self.failing - 1 };
        }
        let has_new_reason = state.reason_is_stale && failing && outcome.is_err();
        state.reason_is_stale &= !(changed || has_new_reason);
        self.release(&id);
        if changed || has_new_reason {
            self.outputs.push_back(ProberOutput::Changed { id, failing: outcome.err() });
        }
    }

    /// Starts the probes that are due, within the limits. The probe that is due for the longest
    /// time starts first.
    fn start_due(&mut self, now: Instant) {
        while self.in_flight < self.probes_max
            && self.due.first().is_some_and(|(due, _)| *due <= now)
        {
            let Some((due, id)) = self.due.pop_first() else { return };
            let Some(state) = self.targets.get_mut(&id).filter(|_| self.capacities.take(due, &id))
            else {
                continue;
            };
            self.tickets += 1;
            self.in_flight += 1;
            let ticket = ProbeId(self.tickets);
            (state.probe, state.due) = (Some(ticket), now);
            self.outputs.push_back(ProberOutput::Start {
                id,
                ticket,
                check: Arc::clone(&state.check),
            });
        }
    }
}

/// Returns the first time after `after` at which an endpoint is probed. These times are one
/// interval apart, and their offset from the start of the clock follows from a hash of `id`.
fn next_probe(id: &ProbeTarget, interval: Duration, after: Instant) -> Instant {
    let mut hasher = DefaultHasher::new();
    id.hash(&mut hasher);
    let interval = u64::try_from(interval.as_nanos()).unwrap_or(u64::MAX).max(1);
    let (phase, passed) = (hasher.finish() % interval, after.as_nanos() % interval);
    let since = if passed >= phase { passed - phase } else { interval - (phase - passed) };
    after + Duration::from_nanos(interval - since)
}

impl Machine for Prober {
    type Input = ProberInput;
    type Output = ProberOutput;

    fn handle(&mut self, input: ProberInput, now: Instant) {
        match input {
            ProberInput::Targets(targets) => self.set_targets(targets, now),
            ProberInput::Result { id, ticket, outcome } => self.handle_result(id, ticket, outcome),
        }
        self.start_due(now);
    }

    fn tick(&mut self, now: Instant) {
        self.start_due(now);
    }

    fn poll(&mut self) -> Option<ProberOutput> {
        self.outputs.pop_front()
    }

    /// Returns `None` while the maximum number of probes is in flight, because the next event is
    /// then the result of one of them.
    fn deadline(&self) -> Option<Instant> {
        self.due.first().map(|(due, _)| *due).filter(|_| self.in_flight < self.probes_max)
    }
}

#[cfg(test)]
mod tests;
