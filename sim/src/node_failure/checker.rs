//! Checker: verifies that no living node is marked for long, and that a failed one is marked soon.

use super::kubernetes::SYNC_INTERVAL;
use crate::scenario::ms;
use ferrolb_controller_core::node_failure::failures::CONFIRMATION_TIME;
use ferrolb_proto::Instant;
use std::fmt;
use std::time::Duration;

/// Maximum time for which the pods of a living, reachable node are marked: one synchronization of
/// the kubelet, and a margin for requests in progress.
const MARKED_MAX: Duration = SYNC_INTERVAL.saturating_add(ms(500));
/// Window in which all times with marked pods count together.
const WINDOW: Duration = ms(60_000);
/// Time after the return of a node within which a mark is late, and not false: the report of the
/// return is on its way.
const LATE: Duration = ms(2_000);
/// Maximum time from the failure of a single node to the mark.
const TIME_TO_MARK_MAX: Duration = ms(2_000);
/// The same for a node that has stopped in order. The issue allows 4 s for connections, and
/// kube-proxy may need 1 s of them.
const TIME_TO_MARK_STOPPED_MAX: Duration = ms(3_000);
/// Maximum time from the start of an action to its request, with a margin.
const REQUEST_DELAY_MAX: Duration = ms(25);

/// A checked rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// The pods of a living, reachable node are never marked for longer than one synchronization of
    /// the kubelet, without a break.
    Long,
    /// The pods of a living, reachable node are never marked for longer than that in all times of
    /// one minute together. The times count since the node became reachable.
    Again,
    /// If a run has one fault and no lost packets, the pods of a node are never marked that is
    /// alive and reachable for 2 s or longer. Several faults may make a living node look like a
    /// failed one for a moment, such as dropped challenges and a short outage of the whole network.
    /// A controller that stood still or received nothing may act on an old report.
    Alive,
    /// At most a tenth of all nodes, and at least one, are marked before Kubernetes marks them. A
    /// node that has returned no longer counts.
    Limit,
    /// The pods of a single node without power are marked within 2 s, and within 3 s if the node
    /// has stopped in order.
    Slow,
    /// After a stated stop, no pods are marked if a speaker that watches the node is an old one.
    Versions,
    /// A replica that does not lead marks only the pods on the node of the leader.
    Standby,
    /// After a replica that does not lead has read a renewal of the lease, it marks no pods before
    /// all evidence has held again for the time of a confirmation.
    Renewal,
}

/// A violation of a rule.
#[derive(Clone, Debug)]
pub struct Violation {
    pub rule: Rule,
    pub at: Instant,
    pub node: usize,
    pub duration: Duration,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rule, at, node, duration } = self;
        let at = at.since(Instant::ZERO).as_secs_f64();
        write!(f, "{rule:?} at {at:.3} s, node {node}, {} ms", duration.as_millis())
    }
}

/// Result of a run.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Number of times that the pods of a node were marked.
    pub marks: u32,
    /// Marks of nodes that were alive and reachable for less than 2 s.
    pub late_marks: u32,
    /// Marks of nodes that were alive and reachable for 2 s or longer.
    pub false_marks: u32,
    /// Longest time for which the pods of a living, reachable node were marked.
    pub longest: Duration,
    /// Time from the failure of a single node to the mark.
    pub time_to_mark: Option<Duration>,
    /// Times that nothing was done because too many nodes were silent.
    pub too_many: u32,
    /// Times that pods were restored although their node had no power for 2 s or longer.
    pub wrong_restores: u32,
    pub violations: Vec<Violation>,
}

#[derive(Clone, Debug, Default)]
struct NodeCheck {
    alive_since: Option<Instant>,
    /// Time since which the node is not alive.
    failed_since: Option<Instant>,
    marked_since: Option<Instant>,
    /// Times in which the node was alive and its pods were marked, since it is alive.
    periods: Vec<(Instant, Instant)>,
}

pub(super) struct Checker {
    nodes: Vec<NodeCheck>,
    /// Node that fails as the only fault of the run, the time, and the maximum time to the mark.
    single_failure: Option<(usize, Instant, Duration)>,
    /// Node of which a mark violates a rule.
    pub(super) never_marked: Option<(usize, Rule)>,
    /// True if a mark of a living node is a violation.
    pub(super) reports_are_certain: bool,
    pub(super) outcome: Outcome,
}

impl Checker {
    pub(super) fn new(nodes: usize, now: Instant) -> Self {
        let node = NodeCheck { alive_since: Some(now), ..NodeCheck::default() };
        Self {
            nodes: vec![node; nodes],
            single_failure: None,
            never_marked: None,
            reports_are_certain: false,
            outcome: Outcome::default(),
        }
    }

    /// Records that a node loses its power, and that its pods must be marked soon.
    pub(super) fn expect_mark(&mut self, node: usize, now: Instant) {
        self.single_failure = Some((node, now, TIME_TO_MARK_MAX));
    }

    /// Records that a node that has stopped in order loses its power, and that its pods must be
    /// marked soon.
    pub(super) fn expect_mark_of_stopped(&mut self, node: usize, now: Instant) {
        self.single_failure = Some((node, now, TIME_TO_MARK_STOPPED_MAX));
    }

    fn violation(&mut self, rule: Rule, node: usize, at: Instant, duration: Duration) {
        self.outcome.violations.push(Violation { rule, at, node, duration });
    }

    /// Records whether a node is alive, and whether its pods are marked.
    pub(super) fn update(&mut self, node: usize, is_alive: bool, is_marked: bool, now: Instant) {
        let check = &mut self.nodes[node];
        let ends = !(is_alive && is_marked);
        let mut long = None;
        if let (Some(alive), Some(marked), true) = (check.alive_since, check.marked_since, ends) {
            check.periods.push((alive.max(marked), now));
            long = Some(now.since(alive.max(marked)));
        }
        let start = |holds: bool, since: Option<Instant>| holds.then(|| since.unwrap_or(now));
        check.alive_since = start(is_alive, check.alive_since);
        check.failed_since = start(!is_alive, check.failed_since);
        check.marked_since = start(is_marked, check.marked_since);
        let Some(long) = long else { return };
        let in_window = |(start, end): &(Instant, Instant)| {
            let age = now.since(*start).min(WINDOW);
            age.saturating_sub(now.since(*end))
        };
        let together: Duration = check.periods.iter().map(in_window).sum();
        if !is_alive {
            check.periods.clear();
        }
        self.outcome.longest = self.outcome.longest.max(long);
        if long > MARKED_MAX {
            self.violation(Rule::Long, node, now, long);
        } else if together > MARKED_MAX {
            self.violation(Rule::Again, node, now, together);
        }
    }

    /// Records that the pods of a node are marked.
    pub(super) fn marked(&mut self, node: usize, now: Instant) {
        self.outcome.marks += 1;
        if let Some(since) = self.nodes[node].alive_since {
            if now.since(since) < LATE {
                self.outcome.late_marks += 1;
            } else {
                self.outcome.false_marks += 1;
                if self.reports_are_certain {
                    self.violation(Rule::Alive, node, now, now.since(since));
                }
            }
        }
        if let Some((_, rule)) = self.never_marked.filter(|(it, _)| *it == node) {
            self.violation(rule, node, now, Duration::ZERO);
        }
        if let Some((_, failed, _)) = self.single_failure.filter(|(it, ..)| *it == node) {
            self.outcome.time_to_mark.get_or_insert(now.since(failed));
        }
    }

    /// Records that a replica that does not lead marks the pods of another node than the leader's.
    pub(super) fn marked_by_standby(&mut self, node: usize, now: Instant) {
        self.violation(Rule::Standby, node, now, Duration::ZERO);
    }

    /// Records that a replica that does not lead marks the pods of the leader's node this time
    /// after it has read a renewal of the lease.
    pub(super) fn marked_after_renewal(&mut self, node: usize, since: Duration, now: Instant) {
        if since > REQUEST_DELAY_MAX && since < CONFIRMATION_TIME {
            self.violation(Rule::Renewal, node, now, since);
        }
    }

    /// Records that the pods of a node without power are restored.
    pub(super) fn restored_without_power(&mut self, node: usize, now: Instant) {
        if self.nodes[node].failed_since.is_some_and(|since| now.since(since) >= LATE) {
            self.outcome.wrong_restores += 1;
        }
    }

    /// Records how many nodes are marked before Kubernetes marks them.
    pub(super) fn check_limit(&mut self, marked: usize, limit: usize, now: Instant) {
        if marked > limit {
            self.violation(Rule::Limit, marked, now, Duration::ZERO);
        }
    }

    /// Ends the run.
    pub(super) fn conclude(mut self, now: Instant) -> Outcome {
        for node in 0..self.nodes.len() {
            self.update(node, false, false, now);
        }
        if let Some((node, failed, longest)) = self.single_failure {
            let time = self.outcome.time_to_mark.unwrap_or(now.since(failed));
            if time > longest {
                self.violation(Rule::Slow, node, failed + time, time);
            }
        }
        self.outcome
    }
}
