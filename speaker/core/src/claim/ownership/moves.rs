//! Moves of units: their causes, and the preempt delay that follows from them. Each move of an
//! address resets established connections, so the delay grows with each recent move. A unit that
//! moved often therefore stays longer with its owner, although a better node is back.
//!
//! The owner sends the remaining delay with its claims, so that every node knows the delay, even a
//! node that has just started. The delay prevents only moves for which the order or the preference
//! is the only reason.

use std::net::IpAddr;
use std::time::Duration;

use ferrolb_core::rate::Doubling;
use ferrolb_proto::Instant;

use super::Ownership;
use super::unit::UnitState;
use crate::claim::DOUBT_LIFETIME;

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
    fn add(&mut self, now: Instant) {
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
    fn lengthen(&self, delay: Duration) -> Duration {
        let count = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
        Doubling::new(delay, MOVES_WINDOW).delay(count.saturating_sub(1))
    }

    /// Returns the time of the latest move.
    pub(super) fn last(&self) -> Option<Instant> {
        self.0.last().copied()
    }
}

impl UnitState {
    fn moved(&mut self, now: Instant) {
        self.pending_claim().moves.get_or_insert_default().add(now);
    }

    /// Returns the recent moves of the unit, if there are any.
    pub(super) fn moves(&self) -> Option<&Moves> {
        self.pending_claim.as_ref()?.moves.as_deref()
    }

    /// Returns the time for which this node respects a doubt about the unit. The time doubles with
    /// each recent move, because the views of two nodes may differ for long.
    pub(super) fn doubt_lifetime(&self) -> Duration {
        self.moves().map_or(DOUBT_LIFETIME, |moves| moves.lengthen(DOUBT_LIFETIME))
    }

    /// Records that another node owns the unit from now on. The first claim of an unproven unit
    /// does not count as a move.
    pub(super) fn record_other_owner(&mut self, now: Instant) {
        self.owned_last = false;
        if std::mem::replace(&mut self.is_proven, true) {
            self.moved(now);
        }
    }

    /// Records that this node owns the unit from now on. Taking back a unit that no other node has
    /// owned in between does not count as a move.
    pub(super) fn record_own(&mut self, now: Instant) {
        if std::mem::replace(&mut self.is_proven, true) && !self.owned_last {
            self.moved(now);
        }
        self.owned_last = true;
    }

    /// Returns the end of the unit's preempt delay; `None` if the unit has not moved. The delay is
    /// `delay` after the first move, and doubles with each further move within ten minutes.
    fn preempt_delay_end(&self, delay: Duration) -> Option<Instant> {
        let moves = self.moves()?;
        Some(moves.last()? + moves.lengthen(delay))
    }
}

impl Ownership {
    /// Returns the remaining preempt delay of an address of this node.
    pub(in crate::claim) fn preempt_delay(&self, address: IpAddr, now: Instant) -> Duration {
        let state = self.units.get(&address);
        let until = state
            .zip(self.config.failback_delay)
            .and_then(|(state, delay)| state.preempt_delay_end(delay));
        until.map_or(Duration::ZERO, |until| until.since(now))
    }

    /// Records that a peer claims addresses that it did not claim before.
    pub(in crate::claim) fn note_moves(&mut self, addresses: &[IpAddr], now: Instant) {
        for address in addresses {
            self.unowned.remove(address);
            self.dirty.addresses.insert(*address);
            let was_proven = self.units.get(address).is_some_and(|state| state.is_proven);
            let is_proven = was_proven || !self.has_newer_answer(*address, now);
            if is_proven {
                self.end_contest(*address);
            }
            if let Some(state) = self.units.get_mut(address) {
                state.record_other_owner(now);
                state.is_proven = is_proven;
            }
        }
    }
}
