//! Moves of a unit, and the preempt delay that follows from them. Each move of an
//! address resets established connections, so the delay grows with each recent move. A unit that
//! moved often therefore stays longer with its owner, although a better node is back.
//!
//! The owner sends the remaining delay with its claims, so that every node knows the delay, even a
//! node that has just started. The delay prevents only moves for which the order or the preference
//! is the only reason.

use std::time::Duration;

use ferrolb_core::rate::Doubling;
use ferrolb_proto::Instant;

/// Time for which a move lengthens the preempt delay of its unit. Also the maximum preempt delay of
/// a unit.
pub(super) const MOVES_WINDOW: Duration = Duration::from_secs(600);
/// Maximum number of stored moves of one unit. Further moves make no difference, because the
/// preempt delay has then reached its maximum.
const MOVES_MAX: usize = 8;

/// Times of the recent moves of a unit, ascending.
#[derive(Debug, Default)]
pub(super) struct Moves(Vec<Instant>);

impl Moves {
    pub(super) fn add(&mut self, now: Instant) {
        self.forget(now);
        if self.0.len() == MOVES_MAX {
            self.0.remove(0);
        }
        self.0.push(now);
    }

    fn forget(&mut self, now: Instant) {
        self.0.retain(|at| now.since(*at) < MOVES_WINDOW);
    }

    /// Forgets the moves that are older than [`MOVES_WINDOW`]. Returns whether no other remains.
    pub(super) fn are_over(&mut self, now: Instant) -> bool {
        self.forget(now);
        self.0.is_empty()
    }

    /// Returns `delay`, doubled with each move but the first, at most [`MOVES_WINDOW`].
    pub(super) fn lengthen(&self, delay: Duration) -> Duration {
        let count = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
        Doubling::new(delay, MOVES_WINDOW).delay(count.saturating_sub(1))
    }

    /// Returns the time of the latest move.
    pub(super) fn last(&self) -> Option<Instant> {
        self.0.last().copied()
    }
}
