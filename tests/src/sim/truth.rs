//! What really happens, and whether it may: who answers for every unit, how long nobody did or two did, and the rules that a
//! run must keep.

use super::bounds::Bounds;
use super::world::World;
use ferrolb_proto::Instant;
use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

/// The window in which moves of one unit are counted.
const BURST_WINDOW: Duration = Duration::from_secs(5);
/// A death cannot be known sooner after the last frame than this: three hellos may be missing, and two questions are asked.
pub(super) const DEATH_MIN: Duration = Duration::from_millis(180);
/// The first announcements of a move have come within this time, with the repeats of those that were lost.
const TOLD_WITHIN: Duration = Duration::from_millis(500);
/// RFC 5227 section 2.4.
const DEFEND_INTERVAL: Duration = Duration::from_secs(10);
/// The questions that stay unanswered before a death.
const ASKED_MIN: u32 = 2;
/// How long nobody may answer where one node is left, in milliseconds: it may be the one that hears
/// nothing.
const LAST_MAX: u64 = 1_300;
/// A node that hears clients, but none of its members, waits so long for each before it...
const TURN: u64 = 60;
/// ...until it has found those dead that hold nothing: their hellos come every second, and three
/// may be missing.
const IDLE_DEATH_MAX: u64 = 3_200;
/// Violations that one run keeps; a broken machine breaks a rule all the time.
const VIOLATIONS_MAX: usize = 20;

/// A rule that every run must keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// A candidate that hears its peers leaves no unit unanswered longer than the bound.
    Orphan,
    /// At a hand-over two answer for a moment at most.
    HandOver,
    /// When the wire heals, two answer no longer than the bound.
    Heal,
    /// A unit does not move to and fro.
    Livelock,
    /// What works is not moved without need.
    Moves,
    /// Where nothing changes, an address is taken only from who was not heard for as long as a death takes, and asked in vain.
    Taken,
    /// Whom something speaks against takes nothing by order alone.
    Wander,
    /// At the end no candidate is better than the owner.
    Best,
    /// Nobody gives up everything without need.
    FalseFence,
    /// Who was frozen beyond the others' patience gives up all it had.
    Fence,
    /// Who was stopped does not answer for what another took meanwhile.
    Gate,
    /// Nobody claims before it has listened.
    Listen,
    /// At the end each unit has one owner, with all its addresses.
    End,
    /// Every client's cache leads to the owner.
    Cache,
    /// The wire is not flooded.
    Rate,
    /// An address is defended no oftener than RFC 5227 says.
    Defence,
    /// Start what is not held, stop what is; ask for no time that has passed.
    Contract,
}

/// A rule that was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    pub rule: Rule,
    /// Since the start of the run.
    pub at: Duration,
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} at {:.1} ms: {}", self.rule, self.at.as_secs_f64() * 1e3, self.what)
    }
}

/// What one run showed.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Times in which nobody answered for a unit although somebody could.
    pub orphans: Vec<Duration>,
    /// Times in which two answered for a unit in one part of the wire.
    pub doubles: Vec<Duration>,
    pub moves: usize,
    /// The most moves of one unit within five seconds.
    pub burst: usize,
    pub fences: u64,
    pub frames: u64,
    /// How long was measured.
    pub measured: Duration,
    pub violations: Vec<Violation>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Answered,
    Orphan,
    /// The same on a part of the wire where one node is left.
    OrphanOfLast,
    Double,
}

/// Why the state of a unit may have changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// A machine started or stopped to answer.
    Machine,
    /// A fault, or the end of one.
    World,
}

pub(super) struct Watch {
    state: State,
    since: Instant,
    cause: Cause,
    /// When it moved of late.
    pub(super) moves: VecDeque<Instant>,
    moved: usize,
    /// When someone last began to answer for it, in the whole run.
    pub(super) taken: Instant,
    /// Until when someone said that it is best left with it.
    pub(super) kept_until: Instant,
    /// How often someone gave it up soon after taking it, and backs off.
    pub(super) backed_off: u32,
    defended: Option<Instant>,
}

/// The watch over all units.
pub(super) struct Truth {
    pub(super) units: Vec<Watch>,
    /// When anything last changed that may change who is the best.
    pub(super) changed: Instant,
    /// From then on nothing may move.
    pub(super) still: bool,
    /// From when on it counts; before that the nodes come up.
    measure_from: Option<Instant>,
    pub(super) outcome: Outcome,
}

impl Truth {
    pub(super) fn new(units: usize) -> Self {
        let watch = || Watch {
            state: State::Answered,
            since: Instant::ZERO,
            cause: Cause::World,
            moves: VecDeque::new(),
            moved: 0,
            taken: Instant::ZERO,
            kept_until: Instant::ZERO,
            backed_off: 0,
            defended: None,
        };
        Self {
            units: (0..units).map(|_| watch()).collect(),
            changed: Instant::ZERO,
            still: false,
            measure_from: None,
            outcome: Outcome::default(),
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

impl World {
    pub(super) fn violate(&mut self, rule: Rule, what: String) {
        let at = self.now.since(Instant::ZERO);
        self.log(|| format!("!!!!! {rule:?}: {what}"));
        let violations = &mut self.truth.outcome.violations;
        if violations.len() < VIOLATIONS_MAX {
            violations.push(Violation { rule, at, what });
        }
    }

    pub(super) fn account_all(&mut self, cause: Cause) {
        self.truth.note_change(self.now);
        for unit in 0..self.units() {
            self.account(unit, cause);
        }
    }

    /// Looks who answers for a unit now.
    pub(super) fn account(&mut self, unit: usize, cause: Cause) {
        let state = self.state(unit);
        let watch = &mut self.truth.units[unit];
        if state != watch.state {
            let (old, since, began_by) = (watch.state, watch.since, watch.cause);
            (watch.state, watch.since, watch.cause) = (state, self.now, cause);
            self.judge(unit, old, since, began_by);
        }
    }

    fn state(&self, unit: usize) -> State {
        let mut state = State::Answered;
        if self.strangers.contains_key(&unit) {
            return state;
        }
        for part in 0..self.parts {
            let on_it = || self.nodes.iter().enumerate().filter(|(_, node)| node.part == part);
            match on_it().filter(|(_, node)| node.answers_for(unit)).count() {
                0 => {
                    let working = on_it().filter(|(_, node)| node.works()).count();
                    let able = |(index, node): (usize, &super::node::Node)| {
                        node.works()
                            && !node.leaving
                            && self.api.candidates[unit][index]
                            && node.view.candidates[unit][index]
                            && self.now.since(node.started) >= ferrolb_proto::claim::LISTEN
                    };
                    let clients = self.clients.iter().any(|client| client.part == part);
                    if on_it().any(able) && (working > 1 || clients) {
                        state = if working > 1 { State::Orphan } else { State::OrphanOfLast };
                    }
                }
                1 => {}
                _ if self.is_one_way() => {}
                _ => state = State::Double,
            }
        }
        state
    }

    /// Whether what lasted until now was within its bound.
    fn judge(&mut self, unit: usize, state: State, since: Instant, cause: Cause) {
        let lasted = self.now.since(since);
        if state == State::Answered || self.truth.measure_from.is_none_or(|from| since < from) || lasted.is_zero() {
            return;
        }
        let millis = lasted.as_secs_f64() * 1e3;
        self.log(|| format!("      unit {unit}: {state:?} for {millis:.1} ms"));
        let Bounds { orphan, hand_over, heal, .. } = self.bounds;
        let (rule, bound, list) = match (state, cause) {
            (State::Orphan, _) => (Rule::Orphan, orphan, &mut self.truth.outcome.orphans),
            (State::OrphanOfLast, _) => {
                (Rule::Orphan, orphan.max(last_max(self.nodes.len())), &mut self.truth.outcome.orphans)
            }
            (_, Cause::Machine) => (Rule::HandOver, hand_over, &mut self.truth.outcome.doubles),
            (_, Cause::World) => (Rule::Heal, heal, &mut self.truth.outcome.doubles),
        };
        list.push(lasted);
        if lasted > Duration::from_millis(bound) {
            let who = if state == State::Double { "two answer" } else { "nobody answers" };
            self.violate(rule, format!("unit {unit}: {who} for {millis:.1} ms, the bound is {bound} ms"));
        }
    }

    /// Notes that a node began to answer for a unit.
    pub(super) fn note_move(&mut self, unit: usize) {
        let now = self.now;
        self.truth.units[unit].taken = now;
        if !self.truth.measures() {
            return;
        }
        self.truth.outcome.moves += 1;
        let watch = &mut self.truth.units[unit];
        watch.moved += 1;
        watch.moves.push_back(now);
        while watch.moves.front().is_some_and(|first| now.since(*first) >= BURST_WINDOW) {
            watch.moves.pop_front();
        }
        let burst = watch.moves.len();
        self.truth.outcome.burst = self.truth.outcome.burst.max(burst);
        if burst == self.bounds.burst + 1 {
            self.violate(Rule::Livelock, format!("unit {unit}: {burst} moves within {BURST_WINDOW:?}"));
        }
        if self.truth.still {
            self.violate(Rule::Moves, format!("unit {unit} moves, and nothing has happened"));
        }
    }

    /// Where nothing changes but what is lost, nobody takes from an owner that it has just heard.
    pub(super) fn check_taking(&mut self, taker: usize, unit: usize) {
        if !self.bounds.no_taking || !self.truth.measures() {
            return;
        }
        for owner in self.owners(self.nodes[taker].part, unit) {
            let silence = self.nodes[taker].heard.get(owner).map(|heard| self.now.since(*heard));
            let asked = self.nodes[taker].asked.get(owner).copied().unwrap_or(0);
            if let Some(silence) =
                silence.filter(|silence| owner != taker && (*silence < DEATH_MIN || asked < ASKED_MIN))
            {
                self.violate(
                    Rule::Taken,
                    format!("n{taker} takes unit {unit} from n{owner}, heard {silence:.1?} ago, asked {asked} times"),
                );
            }
        }
    }

    /// Against a stranger an address is defended once in a while only: two that insist would fill the wire.
    pub(super) fn check_defence(&mut self, index: usize, unit: usize) {
        if !self.bounds.rival || !self.truth.measures() {
            return;
        }
        let before = self.truth.units[unit].defended.replace(self.now);
        if let Some(ago) = before.map(|before| self.now.since(before)).filter(|ago| *ago < DEFEND_INTERVAL) {
            self.violate(Rule::Defence, format!("n{index} defends unit {unit} again after {ago:.1?}"));
        }
    }

    /// The last look: what goes on is judged as it stands, and what must be true of the whole run is.
    pub(super) fn conclude(&mut self) -> Outcome {
        for unit in 0..self.units() {
            let Watch { state, since, cause, moved, .. } = self.truth.units[unit];
            self.judge(unit, state, since, cause);
            // A hand-over that the end cuts off is judged by its bound.
            let hand_over = Duration::from_millis(self.bounds.hand_over);
            let cut_off = state == State::Double && self.now.since(since) <= hand_over;
            if state != State::Answered && !cut_off {
                self.violate(
                    Rule::End,
                    format!("unit {unit}: {state:?} at the end, since {:?}", since.since(Instant::ZERO)),
                );
            }
            if let Some(bound) = self.bounds.moves.filter(|bound| moved > *bound) {
                self.violate(Rule::Moves, format!("unit {unit}: {moved} moves in the run, the bound is {bound}"));
            }
            self.check_addresses(unit);
            self.check_best(unit);
            // The clients are still being told of a move a moment ago.
            let moved_at = self.truth.units[unit].moves.back().copied();
            if moved_at.is_none_or(|at| self.now.since(at) >= TOLD_WITHIN) {
                self.check_caches(unit);
            }
        }
        let from = self.truth.measure_from.unwrap_or(self.now);
        self.truth.outcome.measured = self.now.since(from);
        self.check_fences();
        self.check_rate();
        std::mem::take(&mut self.truth.outcome)
    }

    /// Who answers for a unit's first address answers for all of them, and nobody else does.
    fn check_addresses(&mut self, unit: usize) {
        let addresses = self.catalogue.addresses(unit);
        let torn = |node: &&super::node::Node| {
            let held = addresses.iter().filter(|address| node.answers.contains(*address)).count();
            node.works() && held != 0 && held != addresses.len()
        };
        if let Some(name) = self.nodes.iter().find(torn).map(|node| node.name.clone()) {
            self.violate(Rule::End, format!("unit {unit}: {name} holds a part of its addresses"));
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
        let bound = super::bounds::frames(self.nodes.len(), self.units(), self.bounds.meetings, seconds);
        if outcome.frames as f64 > bound {
            self.violate(Rule::Rate, format!("{} frames in {seconds:.0} s, the bound is {bound:.0}", outcome.frames));
        }
    }
}

/// How long nobody may answer where one of so many nodes is left.
fn last_max(nodes: usize) -> u64 {
    LAST_MAX.max((TURN * nodes as u64).min(IDLE_DEATH_MAX))
}
