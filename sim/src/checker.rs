//! True state of a run, and the checks of this state: the owners of every unit, the times without
//! an owner or with two, and the rules that hold in every run.

use super::bounds::ScenarioBounds;
use super::world::SimWorld;
use ferrolb_proto::Instant;
use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

/// Window in which moves of one unit are counted.
const BURST_WINDOW: Duration = Duration::from_secs(5);
/// Minimum time from a node's last frame to the detection of its failure: three hellos may be
/// missing, and then two challenges are sent.
pub(super) const FAILURE_DETECTION_MIN: Duration = Duration::from_millis(180);
/// Time after a move within which clients have received an announcement, even if the first ones are
/// lost.
const ANNOUNCED_WITHIN: Duration = Duration::from_millis(500);
/// Minimum interval of defenses (RFC 5227 section 2.4).
const DEFEND_INTERVAL: Duration = Duration::from_secs(10);
/// Number of challenges without a reply before a failure detection.
const CHALLENGES_MIN: u32 = 2;
/// Maximum time without an owner if one node remains, in milliseconds. The remaining node must
/// first find out whether it is itself the one that receives nothing.
const UNOWNED_WITH_ONE_NODE_MAX: u64 = 1_300;
/// Time in milliseconds that the remaining node waits for each other member's turn, if it receives
/// clients' frames but no frame of a member. [`IDLE_FAILURE_MAX`] limits the total.
const TURN: u64 = 60;
/// Maximum time in milliseconds until a node has detected the failure of members without units:
/// these send a hello every second, and three may be missing.
const IDLE_FAILURE_MAX: u64 = 3_200;
/// Maximum number of violations that one run records; a defective machine would violate a rule
/// thousands of times.
const VIOLATIONS_MAX: usize = 20;

/// A rule that holds in every run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// A unit has an owner again within the bound, if a candidate receives its peers' frames.
    Unowned,
    /// At a handover, a unit has two owners for a short time at most.
    HandOver,
    /// After a split ends, a unit has two owners for no longer than the bound.
    Heal,
    /// A unit does not move back and forth: the number of its moves within five seconds stays below
    /// the bound.
    Livelock,
    /// A unit does not move without a reason: its moves in the whole run do not exceed the bound.
    Moves,
    /// If nothing but lost frames happens in a scenario, a node takes a unit only from a silent
    /// owner. The owner was silent for the time of a failure detection, and did not reply to
    /// challenges.
    Taken,
    /// A node to which a soft rule applies takes no unit from an owner that is at least as good by
    /// the soft rules.
    NeedlessMove,
    /// At the end of a run, no candidate is better than the owner.
    Best,
    /// No node fences itself without a reason: the number of fences does not exceed the bound.
    FalseFence,
    /// A node that was halted for longer than the failure detection time fences itself.
    Fence,
    /// A node that continues after a stop does not reply for units that another node has taken in
    /// the meantime.
    AnswerLease,
    /// No node claims before it has listened.
    Listen,
    /// At the end of a run, each unit has one owner, which owns all addresses of the unit.
    End,
    /// At the end of a run, every client's cache contains the owner.
    Cache,
    /// The number of frames in a run does not exceed the bound.
    Rate,
    /// An address is defended no more often than RFC 5227 allows.
    Defence,
    /// A machine starts to announce only addresses that it does not announce yet, stops only
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
    pub orphans: Vec<Duration>,
    /// Lengths of the periods in which a unit had two owners in one part of the segment.
    pub doubles: Vec<Duration>,
    pub moves: usize,
    /// Maximum number of moves of one unit within five seconds.
    pub burst: usize,
    pub fences: u64,
    pub frames: u64,
    /// Time from the start of the measurement to the end of the run.
    pub measured: Duration,
    pub violations: Vec<Violation>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ownership {
    Owned,
    Unowned,
    /// No owner, in a part of the segment with one remaining node.
    UnownedWithOneNode,
    DoubleOwner,
}

/// Reason why the state of a unit may have changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// A machine started or stopped announcing.
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
    move_count: usize,
    /// Most recent time at which a node started to announce the unit, also before the measurement.
    pub(super) taken: Instant,
    /// Time until which the unit should stay with its owner, according to the frames of its owners.
    pub(super) keep_until: Instant,
    /// Number of times that a node released the unit soon after it had taken it. Each of them
    /// starts a hold-down.
    pub(super) hold_downs: u32,
    defended: Option<Instant>,
}

/// State of all units as the checker observes it, and the results so far.
pub(super) struct Checker {
    pub(super) units: Vec<UnitState>,
    /// Time of the most recent change that may make another candidate the best one.
    pub(super) changed: Instant,
    /// Whether no unit may move.
    pub(super) moves_forbidden: bool,
    /// Start of the measurement, after the nodes have started. None: it has not begun.
    measure_from: Option<Instant>,
    pub(super) outcome: RunOutcome,
}

impl Checker {
    pub(super) fn new(units: usize) -> Self {
        let watch = || UnitState {
            state: Ownership::Owned,
            since: Instant::ZERO,
            cause: Cause::World,
            moves: VecDeque::new(),
            move_count: 0,
            taken: Instant::ZERO,
            keep_until: Instant::ZERO,
            hold_downs: 0,
            defended: None,
        };
        Self {
            units: (0..units).map(|_| watch()).collect(),
            changed: Instant::ZERO,
            moves_forbidden: false,
            measure_from: None,
            outcome: RunOutcome::default(),
        }
    }

    pub(super) const fn measures(&self) -> bool {
        self.measure_from.is_some()
    }

    pub(super) fn measure(&mut self, now: Instant) {
        self.measure_from = Some(now);
        for unit in &mut self.units {
            unit.since = now;
        }
    }
}

impl SimWorld {
    pub(super) fn violate(&mut self, rule: Rule, what: String) {
        let at = self.now.since(Instant::ZERO);
        self.log(|| format!("!!!!! {rule:?}: {what}"));
        let violations = &mut self.truth.outcome.violations;
        if violations.len() < VIOLATIONS_MAX {
            violations.push(Violation { rule, at, what });
        }
    }

    pub(super) fn account_all(&mut self, cause: Cause) {
        self.truth.record_change(self.now);
        for unit in 0..self.units() {
            self.account(unit, cause);
        }
    }

    /// Updates the state of a unit from its current owners.
    pub(super) fn account(&mut self, unit: usize, cause: Cause) {
        let state = self.state(unit);
        let watch = &mut self.truth.units[unit];
        if state != watch.state {
            let (old, since, began_by) = (watch.state, watch.since, watch.cause);
            (watch.state, watch.since, watch.cause) = (state, self.now, cause);
            self.judge(unit, old, since, began_by);
        }
    }

    fn state(&self, unit: usize) -> Ownership {
        let mut state = Ownership::Owned;
        if self.foreign_hosts.contains_key(&unit) {
            return state;
        }
        for part in 0..self.parts {
            let on_it = || self.nodes.iter().enumerate().filter(|(_, node)| node.part == part);
            match on_it().filter(|(_, node)| node.announces(unit)).count() {
                0 => {
                    let working = on_it().filter(|(_, node)| node.works()).count();
                    let able = |(index, node): (usize, &super::node::SimNode)| {
                        node.works()
                            && !node.leaving
                            && self.api.candidates[unit][index]
                            && node.view.candidates[unit][index]
                            && self.now.since(node.started) >= ferrolb_proto::claim::LISTEN_PHASE
                    };
                    let clients = self.clients.iter().any(|client| client.part == part);
                    if on_it().any(able) && (working > 1 || clients) {
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

    /// Checks that a unit's state that has just ended was not longer than its bound.
    fn judge(&mut self, unit: usize, state: Ownership, since: Instant, cause: Cause) {
        let lasted = self.now.since(since);
        if state == Ownership::Owned
            || self.truth.measure_from.is_none_or(|from| since < from)
            || lasted.is_zero()
        {
            return;
        }
        let millis = lasted.as_secs_f64() * 1e3;
        self.log(|| format!("      unit {unit}: {state:?} for {millis:.1} ms"));
        let ScenarioBounds {
            unowned: orphan,
            double_owner_after_take: hand_over,
            double_owner_after_fault: heal,
            ..
        } = self.bounds;
        let (rule, bound, list) = match (state, cause) {
            (Ownership::Unowned, _) => (Rule::Unowned, orphan, &mut self.truth.outcome.orphans),
            (Ownership::UnownedWithOneNode, _) => (
                Rule::Unowned,
                orphan.max(unowned_with_one_node_max(self.nodes.len())),
                &mut self.truth.outcome.orphans,
            ),
            (_, Cause::Machine) => (Rule::HandOver, hand_over, &mut self.truth.outcome.doubles),
            (_, Cause::World) => (Rule::Heal, heal, &mut self.truth.outcome.doubles),
        };
        list.push(lasted);
        if lasted > Duration::from_millis(bound) {
            let who = if state == Ownership::DoubleOwner { "two owners" } else { "no owner" };
            self.violate(
                rule,
                format!("unit {unit}: {who} for {millis:.1} ms, the bound is {bound} ms"),
            );
        }
    }

    /// Records that a node started announcing a unit.
    pub(super) fn note_move(&mut self, unit: usize) {
        let now = self.now;
        self.truth.units[unit].taken = now;
        if !self.truth.measures() {
            return;
        }
        self.truth.outcome.moves += 1;
        let watch = &mut self.truth.units[unit];
        watch.move_count += 1;
        watch.moves.push_back(now);
        while watch.moves.front().is_some_and(|first| now.since(*first) >= BURST_WINDOW) {
            watch.moves.pop_front();
        }
        let burst = watch.moves.len();
        self.truth.outcome.burst = self.truth.outcome.burst.max(burst);
        if burst == self.bounds.burst + 1 {
            self.violate(
                Rule::Livelock,
                format!("unit {unit}: {burst} moves within {BURST_WINDOW:?}"),
            );
        }
        if self.truth.moves_forbidden {
            self.violate(Rule::Moves, format!("unit {unit} moves without a reason"));
        }
    }

    /// Checks that no node takes a unit from an owner whose frames it has just received, in
    /// scenarios in which nothing but lost frames happens.
    pub(super) fn check_taking(&mut self, taker: usize, unit: usize) {
        if !self.bounds.takes_only_after_failure || !self.truth.measures() {
            return;
        }
        for owner in self.owners(self.nodes[taker].part, unit) {
            let silence =
                self.nodes[taker].last_frame.get(owner).map(|heard| self.now.since(*heard));
            let asked = self.nodes[taker].challenges.get(owner).copied().unwrap_or(0);
            if let Some(silence) = silence.filter(|silence| {
                owner != taker && (*silence < FAILURE_DETECTION_MIN || asked < CHALLENGES_MIN)
            }) {
                self.violate(
                    Rule::Taken,
                    format!("n{taker} takes unit {unit} from n{owner}, last frame {silence:.1?} ago, {asked} challenges"),
                );
            }
        }
    }

    /// Checks the rate of defenses against a foreign host: two hosts that defend an address without
    /// a limit would flood the segment.
    pub(super) fn check_defence(&mut self, index: usize, unit: usize) {
        if !self.bounds.defenses || !self.truth.measures() {
            return;
        }
        let before = self.truth.units[unit].defended.replace(self.now);
        if let Some(ago) =
            before.map(|before| self.now.since(before)).filter(|ago| *ago < DEFEND_INTERVAL)
        {
            self.violate(
                Rule::Defence,
                format!("n{index} defends unit {unit} again after {ago:.1?}"),
            );
        }
    }

    /// Checks the states at the end and the rules of the whole run, and returns the results.
    pub(super) fn conclude(&mut self) -> RunOutcome {
        for unit in 0..self.units() {
            let UnitState { state, since, cause, move_count: moved, .. } = self.truth.units[unit];
            self.judge(unit, state, since, cause);
            // A handover that has not lasted longer than its bound when the run ends is no
            // violation.
            let hand_over = Duration::from_millis(self.bounds.double_owner_after_take);
            let cut_off = state == Ownership::DoubleOwner && self.now.since(since) <= hand_over;
            if state != Ownership::Owned && !cut_off {
                self.violate(
                    Rule::End,
                    format!(
                        "unit {unit}: {state:?} at the end, since {:?}",
                        since.since(Instant::ZERO)
                    ),
                );
            }
            if let Some(bound) = self.bounds.moves.filter(|bound| moved > *bound) {
                self.violate(
                    Rule::Moves,
                    format!("unit {unit}: {moved} moves in the run, the bound is {bound}"),
                );
            }
            self.check_addresses(unit);
            self.check_best(unit);
            // Announcements of a recent move may still be in transit.
            let moved_at = self.truth.units[unit].moves.back().copied();
            if moved_at.is_none_or(|at| self.now.since(at) >= ANNOUNCED_WITHIN) {
                self.check_caches(unit);
            }
        }
        let from = self.truth.measure_from.unwrap_or(self.now);
        self.truth.outcome.measured = self.now.since(from);
        self.check_fences();
        self.check_rate();
        std::mem::take(&mut self.truth.outcome)
    }

    /// Checks that every node announces either all addresses of a unit or none.
    fn check_addresses(&mut self, unit: usize) {
        let addresses = self.catalogue.addresses(unit);
        let torn = |node: &&super::node::SimNode| {
            let held = addresses.iter().filter(|address| node.announced.contains(*address)).count();
            node.works() && held != 0 && held != addresses.len()
        };
        if let Some(name) = self.nodes.iter().find(torn).map(|node| node.name.clone()) {
            self.violate(Rule::End, format!("unit {unit}: {name} owns a part of its addresses"));
        }
    }

    fn check_fences(&mut self) {
        let fences = self.truth.outcome.fences;
        if let Some(bound) = self.bounds.fences.filter(|bound| fences > *bound) {
            self.violate(Rule::FalseFence, format!("{fences} fences, the bound is {bound}"));
        }
    }

    fn check_rate(&mut self) {
        let outcome = &self.truth.outcome;
        let seconds = outcome.measured.as_secs_f64().max(1.0);
        let bound = super::bounds::frames(
            self.nodes.len(),
            self.units(),
            self.bounds.lost_and_found,
            seconds,
        );
        if outcome.frames as f64 > bound {
            self.violate(
                Rule::Rate,
                format!("{} frames in {seconds:.0} s, the bound is {bound:.0}", outcome.frames),
            );
        }
    }
}

/// Returns the maximum time without an owner, in milliseconds, if one of this many nodes remains.
fn unowned_with_one_node_max(nodes: usize) -> u64 {
    UNOWNED_WITH_ONE_NODE_MAX.max((TURN * nodes as u64).min(IDLE_FAILURE_MAX))
}
