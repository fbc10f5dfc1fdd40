//! Recent events that lengthen a preempt delay: moves of a unit, and fences of this node. Each of
//! them resets established connections, so each recent one doubles the delay. A unit that moved
//! often therefore stays longer with its owner, although a better node is back, and a node that
//! was fenced often takes units by preference or order later.
//!
//! The owner sends the remaining delay of a unit with its claims, so that every node knows the
//! delay, even a node that has just started.

use std::time::Duration;

use ferrolb_core::rate::Doubling;
use ferrolb_proto::Instant;

/// Time for which an event lengthens a preempt delay. Also the maximum preempt delay.
pub(super) const RECENT: Duration = Duration::from_secs(600);
/// Maximum number of stored events. Further ones make no difference, because the preempt delay has
/// then reached its maximum.
const EVENTS_MAX: usize = 8;

/// Times of the recent events, ascending.
#[derive(Debug, Default)]
pub(super) struct RecentEvents(Vec<Instant>);

impl RecentEvents {
    pub(super) fn add(&mut self, now: Instant) {
        self.forget(now);
        if self.0.len() == EVENTS_MAX {
            self.0.remove(0);
        }
        self.0.push(now);
    }

    fn forget(&mut self, now: Instant) {
        self.0.retain(|at| now.since(*at) < RECENT);
    }

    /// Forgets the events that are older than [`RECENT`]. Returns whether no other remains.
    pub(super) fn are_over(&mut self, now: Instant) -> bool {
        self.forget(now);
        self.0.is_empty()
    }

    /// Returns `delay`, doubled with each event but the first, at most [`RECENT`].
    pub(super) fn lengthen(&self, delay: Duration) -> Duration {
        let count = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
        Doubling::new(delay, RECENT).delay(count.saturating_sub(1))
    }

    /// Returns the time of the latest event.
    pub(super) fn last(&self) -> Option<Instant> {
        self.0.last().copied()
    }
}
