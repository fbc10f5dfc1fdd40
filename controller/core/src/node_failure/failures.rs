//! Failures: the state machine of the controller, which decides when the pods of a silent node are
//! marked as not Ready, and when they are restored. Each replica runs it, and it owns the state of
//! the silent nodes.
//!
//! A node must be silent for [`CONFIRMATION_TIME`] without a break. More than one node, and more
//! than a tenth of all nodes, never count as failed at the same time, because then the network has
//! failed, and not the nodes. They count again only after [`RECOVERY_TIME`] without that. A node
//! whose failure Kubernetes has detected itself no longer counts, nor does one whose silence
//! more speakers have contradicted for this time than report it.
//!
//! The kubelet of a node that replies again sets its pods Ready itself. The controller restores
//! those that are still marked after [`RESTORE_DELAY`]. The pods of a node are marked once, and not
//! again before [`MARK_INTERVAL_MIN`] has passed and the node has replied, so that evidence that is
//! wrong cannot outlast one synchronization of the kubelet. An attempt that has failed, or whose
//! evidence was lost for a moment, is repeated.

mod actions;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::str::FromStr;
use std::time::Duration;

use ferrolb_core::Machine;
use ferrolb_proto::Instant;

use super::evidence::{Confirmation, Evidence};
use actions::Pending;

pub use actions::{ActionKind, ActionResult, FailureAction};

/// Time for which all evidence must hold before the pods of a node are marked. Reports about other
/// nodes that fail for the same reason arrive meanwhile.
pub const CONFIRMATION_TIME: Duration = Duration::from_millis(150);
/// Time for which a node must reply before the controller restores its pods.
pub const RESTORE_DELAY: Duration = Duration::from_secs(30);
/// Minimum time between two times that the pods of one node are marked.
pub const MARK_INTERVAL_MIN: Duration = Duration::from_secs(60);
/// One of this many nodes may fail at the same time, and at least one node.
pub const NODES_PER_FAILURE: usize = 10;
/// Interval between two attempts to patch the pods of a node.
pub const RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// Maximum number of attempts to patch the pods of a node.
pub const ATTEMPTS_MAX: u32 = 10;
/// Time for which a node that replies again counts as one that fails: its kubelet sets its pods
/// Ready within this time. Also the time for which not too many nodes may be silent before an
/// ignored one counts again, and for which a contradicted report counts.
pub const RECOVERY_TIME: Duration = Duration::from_secs(10);

/// Value of the flag `--node-failure-endpoints`: whose pods on a failed node are marked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MarkScope {
    /// No pods.
    #[default]
    Off,
    /// The pods behind FerroLB's Services.
    Services,
    /// The pods behind all Services with a virtual IP address.
    All,
}

/// Error of a value that is no [`MarkScope`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be off, services or all")]
pub struct InvalidMarkScope;

impl FromStr for MarkScope {
    type Err = InvalidMarkScope;

    fn from_str(text: &str) -> Result<Self, InvalidMarkScope> {
        match text {
            "off" => Ok(Self::Off),
            "services" => Ok(Self::Services),
            "all" => Ok(Self::All),
            _ => Err(InvalidMarkScope),
        }
    }
}

/// An input of [`Failures`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FailuresInput {
    /// The evidence, or the Nodes, have changed.
    Evidence {
        /// The evidence.
        evidence: Evidence,
        /// All Nodes; true if the condition `Ready` of the Node is `True`.
        nodes: BTreeMap<Box<str>, bool>,
    },
    /// An action has ended.
    Ended {
        /// Number of the action.
        attempt: u64,
        /// The result.
        result: ActionResult,
    },
}

/// Report about a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FailuresOutput {
    /// Neither the speaker nor the kubelet of the node replies, so its pods are marked as not
    /// Ready.
    ///
    /// Action: Check the power and the network of the node.
    Failed(Box<str>),
    /// Too many nodes are silent at the same time, so no pods are marked.
    ///
    /// Action: Check the network between the nodes.
    TooMany {
        /// The silent nodes.
        nodes: Vec<Box<str>>,
        /// The number of nodes that may fail at the same time.
        limit: usize,
    },
    /// The node replies again.
    ///
    /// Action: None.
    Returned(Box<str>),
}

/// State of one silent node.
#[derive(Debug)]
struct Failure {
    phase: Phase,
    /// Time at which the pods were last marked.
    marked_at: Option<Instant>,
    action: Option<Pending>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// All evidence holds since this time.
    Confirming(Instant),
    /// The controller probes the kubelet.
    Probing,
    /// Nothing is done: since this time, too many nodes are silent, or its kubelet has replied to
    /// the controller.
    Ignored(Instant),
    /// The pods are marked, and the node has not replied since.
    Failed {
        /// True if Kubernetes has detected the failure, too.
        was_not_ready: bool,
    },
    /// The node has replied again, and its pods may still be marked. It replies since this time;
    /// `None` while it does not.
    Returned(Option<Instant>),
    /// The pods need no restore, but must not be marked again yet.
    Quiet,
}

/// The state machine of the controller for silent nodes.
#[derive(Debug, Default)]
pub struct Failures {
    nodes: BTreeMap<Box<str>, Failure>,
    evidence: Evidence,
    /// The nodes of [`Evidence::contradicted`], each with the time at which it does not count as
    /// silent any more; `None` if that has passed.
    contradicted: BTreeMap<Box<str>, Option<Instant>>,
    /// Nodes whose condition `Ready` is `True`.
    ready_nodes: BTreeSet<Box<str>>,
    /// Number of nodes that may fail at the same time.
    limit: usize,
    /// Time since which too many nodes are silent.
    too_many_since: Option<Instant>,
    /// Time at which that last ended.
    too_many_end: Instant,
    /// True if an output has reported that.
    too_many_reported: bool,
    latest_attempt: u64,
    outputs: VecDeque<FailuresOutput>,
}

impl Failures {
    /// Returns the nodes whose pods are marked, and that have not replied since.
    pub fn failed(&self) -> impl Iterator<Item = &str> {
        self.nodes
            .iter()
            .filter(|(_, failure)| matches!(failure.phase, Phase::Failed { .. }))
            .map(|(node, _)| &**node)
    }

    /// Returns whether the machine must know if a node replies.
    #[must_use]
    pub fn concerns(&self, node: &str) -> bool {
        self.nodes.contains_key(node)
    }

    /// Returns whether there is no silent node, and none that has recently returned.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.nodes.is_empty() && self.too_many_since.is_none()
    }

    /// Returns the actions in progress.
    pub fn actions(&self) -> impl Iterator<Item = FailureAction> {
        self.nodes.iter().filter_map(|(node, failure)| {
            let action = failure.action.as_ref().filter(|action| action.retry_at.is_none())?;
            Some(FailureAction { attempt: action.attempt, node: node.clone(), kind: action.kind })
        })
    }

    fn start(&mut self, node: &str, kind: ActionKind) {
        self.latest_attempt += 1;
        let attempt = self.latest_attempt;
        if let Some(failure) = self.nodes.get_mut(node) {
            failure.action = Some(Pending { kind, attempt, attempts: 1, retry_at: None });
        }
    }

    fn update(&mut self, now: Instant) {
        for until in self.contradicted.values_mut() {
            *until = until.filter(|at| now < *at);
        }
        let candidates =
            self.evidence.silent.keys().filter(|node| self.ready_nodes.contains(*node));
        for node in candidates {
            let phase = Phase::Confirming(now);
            let new = Failure { phase, marked_at: None, action: None };
            self.nodes.entry(node.clone()).or_insert(new);
        }
        self.report_too_many(now);
        for node in self.nodes.keys().cloned().collect::<Vec<_>>() {
            self.update_node(&node, now);
        }
    }

    /// Returns the nodes that are silent at the same time.
    fn silent_at_once(&self) -> BTreeSet<&str> {
        let counts = |node: &&str| self.contradicted.get(*node) != Some(&None);
        let suspected = self.evidence.suspected.iter().map(|node| &**node).filter(counts);
        let all = self.failed().chain(suspected);
        all.filter(|node| self.ready_nodes.contains(*node)).collect()
    }

    /// Returns the nodes that have recently returned, so that their pods may still be marked.
    fn recovering(&self, now: Instant) -> impl Iterator<Item = &str> {
        let recovers = move |failure: &Failure| {
            let Phase::Returned(since) = failure.phase else { return false };
            since.or(failure.marked_at).is_some_and(|at| now.since(at) < RECOVERY_TIME)
        };
        self.nodes.iter().filter(move |(_, failure)| recovers(failure)).map(|(node, _)| &**node)
    }

    /// Reports once that too many nodes are silent, also if one report for each is all evidence.
    fn report_too_many(&mut self, now: Instant) {
        let nodes: Vec<Box<str>> = self.silent_at_once().into_iter().map(Into::into).collect();
        if nodes.len() <= self.limit {
            if self.too_many_since.take().is_some() {
                (self.too_many_end, self.too_many_reported) = (now, false);
            }
            return;
        }
        let since = *self.too_many_since.get_or_insert(now);
        if now.since(since) >= CONFIRMATION_TIME && !self.too_many_reported {
            self.too_many_reported = true;
            self.outputs.push_back(FailuresOutput::TooMany { nodes, limit: self.limit });
        }
    }

    /// Moves a node to its next phase, and starts the action that is due.
    fn update_node(&mut self, node: &str, now: Instant) {
        let confirmation = self.evidence.silent.get(node).copied();
        let is_ready = self.ready_nodes.contains(node);
        let is_candidate = confirmation.is_some() && is_ready;
        let works_since = self.network_works_since();
        let replies = self.evidence.replying.contains(node);
        let Some(failure) = self.nodes.get_mut(node) else { return };
        let latest_attempt = &mut self.latest_attempt;
        failure.action.take_if(|action| !action.update(is_candidate, latest_attempt, now));
        let may_mark = failure.marked_at.is_none_or(|at| now.since(at) >= MARK_INTERVAL_MIN);
        match failure.phase {
            Phase::Confirming(_) | Phase::Probing | Phase::Ignored(_) if !is_candidate => {
                // The pods that were marked earlier may still be marked.
                failure.phase = Phase::Returned(replies.then_some(now));
                if failure.marked_at.is_none() {
                    self.nodes.remove(node);
                }
            }
            Phase::Confirming(since) if now.since(since) >= CONFIRMATION_TIME => {
                if confirmation == Some(Confirmation::ByController) {
                    failure.phase = Phase::Probing;
                    self.start(node, ActionKind::ProbeKubelet);
                } else {
                    self.decide(node, now);
                }
            }
            Phase::Failed { .. } if replies => {
                (failure.phase, failure.action) = (Phase::Returned(Some(now)), None);
                self.outputs.push_back(FailuresOutput::Returned(node.into()));
            }
            // A node may return without a speaker. Its kubelet reports to Kubernetes, and sets its
            // pods Ready.
            Phase::Failed { was_not_ready: true } if is_ready && !is_candidate => {
                (failure.phase, failure.action) = (Phase::Quiet, None);
                if may_mark {
                    self.nodes.remove(node);
                }
                self.outputs.push_back(FailuresOutput::Returned(node.into()));
            }
            Phase::Failed { .. } if !is_ready => {
                failure.phase = Phase::Failed { was_not_ready: true };
            }
            Phase::Ignored(since)
                if works_since.is_some_and(|at| now >= at.max(since) + RECOVERY_TIME) =>
            {
                failure.phase = Phase::Confirming(now);
            }
            Phase::Returned(_) | Phase::Quiet if is_candidate && may_mark => {
                (failure.phase, failure.action) = (Phase::Confirming(now), None);
            }
            Phase::Returned(since) if since.is_some() != replies => {
                failure.phase = Phase::Returned(replies.then_some(now));
            }
            Phase::Returned(Some(since))
                if failure.action.is_none() && now.since(since) >= RESTORE_DELAY =>
            {
                self.start(node, ActionKind::Restore);
            }
            Phase::Quiet if may_mark => drop(self.nodes.remove(node)),
            Phase::Confirming(_)
            | Phase::Probing
            | Phase::Ignored(_)
            | Phase::Failed { .. }
            | Phase::Returned(_)
            | Phase::Quiet => {}
        }
    }

    /// Returns the time since which not too many nodes are silent; `None` if too many are.
    fn network_works_since(&self) -> Option<Instant> {
        self.too_many_since.is_none().then_some(self.too_many_end)
    }

    /// Marks the pods of a silent node, unless too many nodes are silent. Waits while the pods of
    /// other nodes may still be marked, and too many nodes would be marked at once.
    fn decide(&mut self, node: &str, now: Instant) {
        let mut nodes = self.silent_at_once();
        let is_too_many = nodes.len() > self.limit;
        nodes.extend(self.recovering(now));
        let must_wait = nodes.len() > self.limit;
        let Some(failure) = self.nodes.get_mut(node) else { return };
        if must_wait {
            failure.phase = if is_too_many { Phase::Ignored(now) } else { Phase::Confirming(now) };
            return;
        }
        failure.phase = Phase::Failed { was_not_ready: false };
        failure.marked_at = Some(now);
        self.outputs.push_back(FailuresOutput::Failed(node.into()));
        self.start(node, ActionKind::Mark);
    }

    fn on_ended(&mut self, attempt: u64, result: ActionResult, now: Instant) {
        let is_of = |failure: &&mut Failure| {
            failure.action.as_ref().is_some_and(|action| action.attempt == attempt)
        };
        let found = self.nodes.iter_mut().find(|(_, failure)| is_of(failure));
        let Some((node, failure)) = found else { return };
        let Some(action) = &mut failure.action else { return };
        match (action.kind, result) {
            (ActionKind::ProbeKubelet, ActionResult::Done) => {
                failure.action = None;
                let node = node.clone();
                if self.evidence.silent.contains_key(&node) {
                    self.decide(&node, now);
                }
            }
            (ActionKind::ProbeKubelet, _) => {
                (failure.phase, failure.action) = (Phase::Ignored(now), None);
            }
            (_, ActionResult::Failed) if action.attempts < ATTEMPTS_MAX => {
                action.retry_at.get_or_insert(now + RETRY_INTERVAL);
            }
            (ActionKind::Mark, _) => failure.action = None,
            (ActionKind::Restore, _) => (failure.phase, failure.action) = (Phase::Quiet, None),
        }
    }
}

impl Machine for Failures {
    type Input = FailuresInput;
    type Output = FailuresOutput;

    fn handle(&mut self, input: FailuresInput, now: Instant) {
        match input {
            FailuresInput::Evidence { evidence, nodes } => {
                self.limit = (nodes.len() / NODES_PER_FAILURE).max(1);
                self.nodes.retain(|node, _| nodes.contains_key(node));
                let ready = nodes.into_iter().filter(|(_, is_ready)| *is_ready);
                self.ready_nodes = ready.map(|(node, _)| node).collect();
                let since = |node: &str| match self.contradicted.get(node) {
                    Some(known) => *known,
                    None => Some(now + RECOVERY_TIME),
                };
                let contradicted =
                    evidence.contradicted.iter().map(|it| (it.clone(), since(it.as_ref())));
                self.contradicted = contradicted.collect();
                self.evidence = evidence;
            }
            FailuresInput::Ended { attempt, result } => self.on_ended(attempt, result, now),
        }
        self.update(now);
    }

    fn tick(&mut self, now: Instant) {
        if self.deadline().is_some_and(|at| at <= now) {
            self.update(now);
        }
    }

    fn poll(&mut self) -> Option<FailuresOutput> {
        self.outputs.pop_front()
    }

    fn deadline(&self) -> Option<Instant> {
        let works_since = self.network_works_since();
        let of_node = |(node, failure): (&str, &Failure)| {
            let marked = failure.marked_at.map(|at| at + MARK_INTERVAL_MIN);
            let phase = match failure.phase {
                Phase::Confirming(since) => Some(since + CONFIRMATION_TIME),
                Phase::Returned(Some(since)) => {
                    Some(since + RESTORE_DELAY).filter(|_| failure.action.is_none())
                }
                Phase::Returned(None) => marked.filter(|_| {
                    self.evidence.silent.contains_key(node) && self.ready_nodes.contains(node)
                }),
                Phase::Quiet => marked,
                Phase::Ignored(since) => works_since.map(|at| at.max(since) + RECOVERY_TIME),
                Phase::Probing | Phase::Failed { .. } => None,
            };
            let retry = failure.action.as_ref().and_then(|action| action.retry_at);
            phase.into_iter().chain(retry).min()
        };
        let too_many = self.too_many_since.filter(|_| !self.too_many_reported);
        let nodes = self.nodes.iter().filter_map(|(node, failure)| of_node((node, failure)));
        let contradicted = self.contradicted.values().filter_map(|until| *until);
        nodes.chain(too_many.map(|since| since + CONFIRMATION_TIME)).chain(contradicted).min()
    }
}

#[cfg(test)]
mod tests;
