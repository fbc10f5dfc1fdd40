//! Recent moves, conflicts and hold-downs of one election unit. Owned by the state of the unit.

use std::collections::BTreeMap;
use std::time::Duration;

use super::moves::MOVES_WINDOW;
use super::unit::{CONFLICT_INTERVAL, YieldSituation};
use crate::Instant;

/// Length of a first hold-down after yielding. Each further hold-down doubles the length.
const HOLD_DOWN_MIN: Duration = Duration::from_secs(10);
/// Maximum length of a hold-down after yielding.
const HOLD_DOWN_MAX: Duration = Duration::from_secs(300);
/// If a unit has had no hold-down for this time, its next hold-down has the length
/// [`HOLD_DOWN_MIN`].
const HOLD_DOWN_MEMORY: Duration = Duration::from_secs(600);
/// Maximum number of stored moves of one unit. Further moves make no difference, because the
/// preempt delay has then reached its maximum.
const MOVES_MAX: usize = 8;

/// Recent moves, conflicts and hold-downs of a unit.
#[derive(Debug, Default)]
pub(super) struct History {
    /// Number of conflicts won against each peer that claims the unit while this node owns it.
    pub(super) conflicts_won: BTreeMap<Box<str>, u8>,
    /// Time at which this node most recently announced the address because a peer claimed it.
    pub(super) defended: Option<Instant>,
    /// End of the hold-down after yielding to a live owner, and the situation in which this node
    /// yielded. A change of the situation ends the hold-down early.
    hold_down: Option<(Instant, YieldSituation)>,
    /// Start and length of the latest hold-down after yielding, from which the next length follows.
    latest_hold_down: Option<(Instant, Duration)>,
    /// Times of the unit's recent moves, ascending.
    pub(super) moves: Vec<Instant>,
}

impl History {
    /// Records that the unit has moved.
    pub(super) fn moved(&mut self, now: Instant) {
        self.forget(now);
        if self.moves.len() == MOVES_MAX {
            self.moves.remove(0);
        }
        self.moves.push(now);
    }

    /// Drops a hold-down that has ended, and the moves that are older than [`MOVES_WINDOW`].
    pub(super) fn forget(&mut self, now: Instant) {
        self.hold_down = self.hold_down.filter(|(until, _)| now < *until);
        self.moves.retain(|at| now.since(*at) < MOVES_WINDOW);
    }

    pub(super) fn start_hold_down(&mut self, yielded: YieldSituation, now: Instant) {
        let latest =
            self.latest_hold_down.filter(|(at, wait)| now.since(*at) < *wait + HOLD_DOWN_MEMORY);
        let wait = latest.map_or(HOLD_DOWN_MIN, |(_, wait)| (wait * 2).min(HOLD_DOWN_MAX));
        self.latest_hold_down = Some((now, wait));
        self.hold_down = Some((now + wait, yielded));
    }

    /// Returns the end of the current hold-down.
    pub(super) fn hold_down_end(&self) -> Option<Instant> {
        self.hold_down.map(|(until, _)| until)
    }

    /// Returns the situation in which the current hold-down began, and true if no other hold-down
    /// came shortly before it; `None` without a hold-down.
    pub(super) fn yielded(&self) -> Option<(YieldSituation, bool)> {
        let first = self.latest_hold_down.is_some_and(|(_, wait)| wait == HOLD_DOWN_MIN);
        self.hold_down.map(|(_, then)| (then, first))
    }

    /// Returns whether nothing in the history matters any more.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        let is_forgotten =
            |(at, wait): (Instant, Duration)| now.since(at) >= wait + HOLD_DOWN_MEMORY;
        self.hold_down.is_none()
            && self.conflicts_won.is_empty()
            && self.moves.is_empty()
            && self.defended.is_none_or(|at| now.since(at) >= CONFLICT_INTERVAL)
            && self.latest_hold_down.is_none_or(is_forgotten)
    }
}
