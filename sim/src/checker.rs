//! True state of a run, and the checks of this state: the owners of every unit, the times without
//! an owner or with two, and the rules that hold in every run.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use ferrolb_proto::Instant;
use ferrolb_speaker_core::claim::MoveCause;

use super::bounds::ScenarioBounds;
use super::node::SimNode;
use super::world::SimWorld;

/// Window in which moves of one unit are counted.
const BURST_WINDOW: Duration = Duration::from_secs(5);
/// Minimum time from a node's last frame to the detection of its failure: three hellos may be
/// missing, and then two challenges are sent.
const FAILURE_DETECTION_MIN: Duration = Duration::from_millis(180);
/// Time from a move until all clients have received an announcement, even if the first
/// announcements are lost.
const ANNOUNCED_WITHIN: Duration = Duration::from_millis(500);
/// Minimum time between two defenses of an address (RFC 5227 section 2.4).
const DEFENSE_INTERVAL_MIN: Duration = Duration::from_secs(10);
/// Minimum number of challenges without a response before a node detects a failure.
const CHALLENGES_MIN: u32 = 2;
/// Maximum time in milliseconds for which a unit has no owner if one node remains. This node must
/// first find out whether the other nodes have failed or it receives no frames itself.
const UNOWNED_WITH_ONE_NODE_MAX_MS: u64 = 1_300;
/// The same if the node has started within the last [`ALONE_START`]. A node that has heard no other
/// probes each address before it takes the address.
const STARTED_ALONE_MAX_MS: u64 = 2_000;
const ALONE_START: Duration = Duration::from_secs(4);
/// Maximum number of violations that one run records; a defective machine would violate a rule
/// thousands of times.
const VIOLATIONS_MAX: usize = 20;

/// A rule that holds in every run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// A unit without an owner has one again within the bound, if a candidate receives its peers'
    /// frames.
    Unowned,
    /// At a handover, a unit has two owners for no longer than the bound.
    HandOver,
    /// After a split ends, a unit has two owners for no longer than the bound.
    Heal,
    /// A unit does not move back and forth: the number of its moves within five seconds stays below
    /// the bound.
    Livelock,
    /// A unit does not move without a reason: its moves in the whole run do not exceed the bound.
    Moves,
    /// In a scenario whose only faults are lost frames, a node takes a unit only from a silent
    /// owner: the owner was silent for the time of a failure detection, and did not reply to
    /// challenges.
    Taken,
    /// A node to which a soft rule applies takes no unit from an owner that is at least as good by
    /// the soft rules.
    NeedlessMove,
    /// At the end of a run, no candidate is better than the owner.
    Best,
    /// Unhealthy nodes own a unit for no longer than the bound while a healthy candidate works.
    UnhealthyOwner,
    /// No node fences itself without a reason: the number of fences does not exceed the bound.
    FalseFence,
    /// A node that was halted for longer than the failure detection time fences itself.
    Fence,
    /// A node whose process was stopped and continues does not reply for units that another node
    /// has taken in the meantime.
    AnswerLease,
    /// No node claims an address before its listen phase after the start has ended.
    Listen,
    /// At the end of a run, each unit has one owner, which owns all addresses of the unit.
    End,
    /// At the end of a run, every client's neighbor cache contains the owner of each unit.
    Cache,
    /// The number of frames in a run does not exceed the bound.
    Rate,
    /// No node takes a unit if a foreign host has answered its probes. If no frame is lost, the
    /// same applies to the probes of all nodes.
    ForeignHost,
    /// An address is defended no more often than RFC 5227 allows.
    Defense,
    /// A claim machine starts to announce only addresses that it does not announce yet, stops only
    /// addresses that it announces, and requests no past deadline.
    Contract,
}

/// One violation of a rule in a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    pub rule: Rule,
    /// Time since the start of the run.
    pub at: Duration,
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} at {:.1} ms: {}", self.rule, self.at.as_secs_f64() * 1e3, self.what)
    }
}

/// Results of one run.
#[derive(Clone, Debug, Default)]
pub struct RunOutcome {
    /// Lengths of the periods in which a unit had no owner although a candidate could serve it.
    pub unowned_times: Vec<Duration>,
    /// Lengths of the periods in which a unit had two owners in one part of the segment.
    pub double_owner_times: Vec<Duration>,
    pub moves: usize,
    /// Maximum number of moves of one unit within five seconds.
    pub burst: usize,
    pub fences: u64,
    /// Number of times that a node declared another one failed.
    pub failures: u64,
    pub frames: u64,
    /// Time from the start of the measurement to the end of the run.
    pub measured: Duration,
    pub violations: Vec<Violation>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ownership {
    Owned,
    Unowned,
    /// The unit has no owner in a part of the segment with one remaining node.
    UnownedWithOneNode,
    DoubleOwner,
}

/// Reason why the ownership state of a unit may have changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// A claim machine started or stopped announcing, or an answer lease began or expired.
    Machine,
    /// A fault started or ended.
    World,
}

pub(super) struct UnitState {
    state: Ownership,
    since: Instant,
    cause: Cause,
    /// Times of the unit's moves within [`BURST_WINDOW`].
    pub(super) moves: VecDeque<Instant>,
    pub(super) move_count: usize,
    /// True if a node has doubted an owner of the unit.
    pub(super) doubted: bool,
    /// Most recent time at which a node started to announce the unit, including the time before the
    /// measurement.
    pub(super) taken: Instant,
    /// Latest node that announced the unit and did not release it to an earlier owner.
    pub(super) latest_owner: Option<usize>,
    /// Time by which that node had stated more than a calm node when `state` began.
    allowance: Duration,
    /// Time since which unhealthy nodes own the unit although a healthy candidate works.
    pub(super) unhealthy_since: Option<Instant>,
    /// Cause of the latest move, if the new owner has reported one.
    pub(super) move_cause: Option<MoveCause>,
    /// Time until which the unit should stay with its owner, according to the frames of its owners.
    pub(super) keep_until: Instant,
    defended: Option<Instant>,
}

/// State of all units as the checker observes it, and the results so far.
pub(super) struct Checker {
    pub(super) units: Vec<UnitState>,
    /// Time of the most recent change that may make another candidate the best one.
    pub(super) changed: Instant,
    /// True if no unit may move.
    pub(super) moves_forbidden: bool,
    /// Start of the measurement, after the nodes have started. None before the measurement.
    measure_from: Option<Instant>,
    pub(super) outcome: RunOutcome,
}

impl Checker {
    pub(super) fn new(units: usize) -> Self {
        let new_unit = || UnitState {
            state: Ownership::Owned,
            since: Instant::ZERO,
            cause: Cause::World,
            moves: VecDeque::new(),
            move_count: 0,
            doubted: false,
            taken: Instant::ZERO,
            latest_owner: None,
            allowance: Duration::ZERO,
            unhealthy_since: None,
            move_cause: None,
            keep_until: Instant::ZERO,
            defended: None,
        };
        Self {
            units: (0..units).map(|_| new_unit()).collect(),
            changed: Instant::ZERO,
            moves_forbidden: false,
            measure_from: None,
            outcome: RunOutcome::default(),
        }
    }

    pub(super) const fn is_measuring(&self) -> bool {
        self.measure_from.is_some()
    }

    pub(super) fn start_measuring(&mut self, now: Instant) {
        self.measure_from = Some(now);
        for unit in &mut self.units {
            unit.since = now;
        }
    }
}

impl SimWorld {
    pub(super) fn report_violation(&mut self, rule: Rule, what: String) {
        let at = self.now.since(Instant::ZERO);
        self.log(|| format!("!!!!! {rule:?}: {what}"));
        let violations = &mut self.checker.outcome.violations;
        if violations.len() < VIOLATIONS_MAX {
            violations.push(Violation { rule, at, what });
        }
    }

    pub(super) fn update_all_states(&mut self, cause: Cause) {
        self.checker.record_change(self.now);
        for unit in 0..self.units() {
            self.update_state(unit, cause);
        }
    }

    /// Updates the ownership state of a unit from the nodes that announce it.
    pub(super) fn update_state(&mut self, unit: usize, cause: Cause) {
        let state = self.state(unit);
        let unit_state = &mut self.checker.units[unit];
        if state != unit_state.state {
            let (old, since, old_cause) = (unit_state.state, unit_state.since, unit_state.cause);
            (unit_state.state, unit_state.since, unit_state.cause) = (state, self.now, cause);
            self.check_duration(unit, old, since, old_cause);
            self.record_owner(unit);
            self.checker.units[unit].allowance = self.owner_allowance(unit);
        }
        self.check_unhealthy_owner(unit);
    }

    /// Corrects the latest owner after two nodes took the unit, and the first one kept it.
    fn record_owner(&mut self, unit: usize) {
        let unit_state = &mut self.checker.units[unit];
        let owns = |index: &usize| self.nodes[*index].owns[unit];
        if !unit_state.latest_owner.iter().any(owns) {
            let owner = (0..self.nodes.len()).find(owns);
            unit_state.latest_owner = owner.or(unit_state.latest_owner);
        }
    }

    fn state(&self, unit: usize) -> Ownership {
        let mut state = Ownership::Owned;
        if self.foreign_hosts.contains_key(&unit) {
            return state;
        }
        for part in 0..self.parts {
            let nodes_in_part =
                || self.nodes.iter().enumerate().filter(|(_, node)| node.part == part);
            match nodes_in_part().filter(|(_, node)| node.announces(unit)).count() {
                0 => {
                    let working = nodes_in_part().filter(|(_, node)| node.works()).count();
                    let able = |(index, node): (usize, &SimNode)| {
                        node.works()
                            && !node.leaving
                            && self.api.is_candidate(unit, index)
                            && node.view.is_candidate(unit, index)
                            && self.now.since(node.started)
                                >= ferrolb_speaker_core::claim::LISTEN_PHASE
                    };
                    let clients = self.clients.iter().any(|client| client.part == part);
                    if nodes_in_part().any(able) && (working > 1 || clients) {
                        state = if working > 1 {
                            Ownership::Unowned
                        } else {
                            Ownership::UnownedWithOneNode
                        };
                    }
                }
                1 => {}
                _ if self.is_one_way() => {}
                _ => state = Ownership::DoubleOwner,
            }
        }
        state
    }

    /// Checks that a unit was in the ownership state `state`, which ends now, for no longer than
    /// the bound.
    fn check_duration(&mut self, unit: usize, state: Ownership, since: Instant, cause: Cause) {
        let lasted = self.now.since(since);
        if state == Ownership::Owned
            || self.checker.measure_from.is_none_or(|from| since < from)
            || lasted.is_zero()
        {
            return;
        }
        let millis = lasted.as_secs_f64() * 1e3;
        self.log(|| format!("      unit {unit}: {state:?} for {millis:.1} ms"));
        let ScenarioBounds { double_owner_after_take, double_owner_after_fault, .. } = self.bounds;
        let unowned = self.unowned_max(unit);
        let (rule, bound, list) = match (state, cause) {
            (Ownership::Unowned, _) => {
                (Rule::Unowned, unowned, &mut self.checker.outcome.unowned_times)
            }
            (Ownership::UnownedWithOneNode, _) => (
                Rule::Unowned,
                unowned.max(self.unowned_with_one_node_max()),
                &mut self.checker.outcome.unowned_times,
            ),
            (_, Cause::Machine) => (
                Rule::HandOver,
                double_owner_after_take,
                &mut self.checker.outcome.double_owner_times,
            ),
            (_, Cause::World) => {
                (Rule::Heal, double_owner_after_fault, &mut self.checker.outcome.double_owner_times)
            }
        };
        list.push(lasted);
        if lasted > Duration::from_millis(bound) {
            let owners = if state == Ownership::DoubleOwner { "two owners" } else { "no owner" };
            self.report_violation(
                rule,
                format!("unit {unit}: {owners} for {millis:.1} ms, the bound is {bound} ms"),
            );
        }
    }

    /// Returns the maximum time in milliseconds for which a unit may have been unowned until now.
    fn unowned_max(&self, unit: usize) -> u64 {
        let ScenarioBounds { unowned, waits_for_stated_time, .. } = self.bounds;
        let allowance = self.checker.units[unit].allowance.as_millis() as u64;
        if waits_for_stated_time { unowned + allowance } else { unowned }
    }

    /// Returns the maximum time in milliseconds for which a unit has no owner if one node remains.
    fn unowned_with_one_node_max(&self) -> u64 {
        let is_new = |node: &SimNode| node.is_up() && self.now.since(node.started) < ALONE_START;
        let started = if self.nodes.iter().any(is_new) { STARTED_ALONE_MAX_MS } else { 0 };
        UNOWNED_WITH_ONE_NODE_MAX_MS.max(started)
    }

    /// Records that a node started announcing a unit.
    pub(super) fn record_move(&mut self, index: usize, unit: usize) {
        let now = self.now;
        let unit_state = &mut self.checker.units[unit];
        (unit_state.taken, unit_state.move_cause) = (now, None);
        unit_state.latest_owner = Some(index);
        if !self.checker.is_measuring() {
            return;
        }
        self.checker.outcome.moves += 1;
        let unit_state = &mut self.checker.units[unit];
        unit_state.move_count += 1;
        unit_state.moves.push_back(now);
        while unit_state.moves.front().is_some_and(|oldest| now.since(*oldest) >= BURST_WINDOW) {
            unit_state.moves.pop_front();
        }
        let burst = unit_state.moves.len();
        self.checker.outcome.burst = self.checker.outcome.burst.max(burst);
        if burst == self.bounds.burst + 1 {
            self.report_violation(
                Rule::Livelock,
                format!("unit {unit}: {burst} moves within {BURST_WINDOW:?}"),
            );
        }
        if self.checker.moves_forbidden {
            self.report_violation(Rule::Moves, format!("unit {unit} moves without a reason"));
        }
    }

    /// Checks that `taker` takes a unit only after the unit's owner was silent for the time of a
    /// failure detection and did not respond to challenges. Applies only to scenarios whose only
    /// faults are lost frames.
    pub(super) fn check_taking(&mut self, taker: usize, unit: usize) {
        if !self.bounds.takes_only_after_failure || !self.checker.is_measuring() {
            return;
        }
        for owner in self.owners(self.nodes[taker].part, unit) {
            let silence = self.nodes[taker]
                .last_frame
                .get(owner)
                .map(|received_at| self.now.since(*received_at));
            let challenges = self.nodes[taker].challenges.get(owner).copied().unwrap_or(0);
            if let Some(silence) = silence.filter(|silence| {
                owner != taker && (*silence < FAILURE_DETECTION_MIN || challenges < CHALLENGES_MIN)
            }) {
                self.report_violation(
                    Rule::Taken,
                    format!("n{taker} takes unit {unit} from n{owner}, last frame {silence:.1?} ago, {challenges} challenges"),
                );
            }
        }
    }

    /// Checks the rate of address defenses against a foreign host: two hosts that defend an address
    /// without a limit would flood the segment.
    pub(super) fn check_defense(&mut self, index: usize, unit: usize) {
        if !self.bounds.defenses || !self.checker.is_measuring() {
            return;
        }
        let before = self.checker.units[unit].defended.replace(self.now);
        if let Some(ago) =
            before.map(|before| self.now.since(before)).filter(|ago| *ago < DEFENSE_INTERVAL_MIN)
        {
            self.report_violation(
                Rule::Defense,
                format!("n{index} defends unit {unit} again after {ago:.1?}"),
            );
        }
    }

    /// Checks the final state of each unit and the rules for the whole run, and returns the
    /// results.
    pub(super) fn conclude(&mut self) -> RunOutcome {
        for unit in 0..self.units() {
            let UnitState { state, since, cause, move_count: moved, .. } = self.checker.units[unit];
            self.check_duration(unit, state, since, cause);
            // A handover that has not lasted longer than its bound when the run ends is no
            // violation.
            let handover_max = Duration::from_millis(self.bounds.double_owner_after_take);
            let cut_off = state == Ownership::DoubleOwner && self.now.since(since) <= handover_max;
            if state != Ownership::Owned && !cut_off {
                self.report_violation(
                    Rule::End,
                    format!(
                        "unit {unit}: {state:?} at the end, since {:?}",
                        since.since(Instant::ZERO)
                    ),
                );
            }
            if let Some(bound) = self.bounds.moves.filter(|bound| moved > *bound) {
                self.report_violation(
                    Rule::Moves,
                    format!("unit {unit}: {moved} moves in the run, the bound is {bound}"),
                );
            }
            self.check_best(unit);
            self.check_unhealthy_time(unit);
            // Announcements of a recent move may still be in transit.
            let moved_at = self.checker.units[unit].moves.back().copied();
            if moved_at.is_none_or(|at| self.now.since(at) >= ANNOUNCED_WITHIN) {
                self.check_caches(unit);
            }
        }
        let from = self.checker.measure_from.unwrap_or(self.now);
        self.checker.outcome.measured = self.now.since(from);
        self.check_fences();
        self.check_rate();
        std::mem::take(&mut self.checker.outcome)
    }

    fn check_fences(&mut self) {
        let fences = self.checker.outcome.fences;
        if let Some(bound) = self.bounds.fences.filter(|bound| fences > *bound) {
            self.report_violation(
                Rule::FalseFence,
                format!("{fences} fences, the bound is {bound}"),
            );
        }
    }

    fn check_rate(&mut self) {
        let outcome = &self.checker.outcome;
        let seconds = outcome.measured.as_secs_f64().max(1.0);
        let bound = super::bounds::frames_max(
            self.nodes.len(),
            self.units(),
            self.bounds.reunions,
            seconds,
        );
        if outcome.frames as f64 > bound {
            self.report_violation(
                Rule::Rate,
                format!("{} frames in {seconds:.0} s, the bound is {bound:.0}", outcome.frames),
            );
        }
    }
}
