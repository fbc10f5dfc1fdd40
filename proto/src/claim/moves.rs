//! Preempt delay of a unit. Each move of an address resets established connections, so the delay
//! grows with each recent move. A unit that moved often therefore stays longer with its owner,
//! although a better node is back.
//!
//! The owner sends the remaining delay with its claims, so that every node knows the delay, even a
//! node that has just started. The delay prevents only moves for which the order or the preference
//! is the only reason.

use std::net::IpAddr;
use std::time::Duration;

use super::ClaimMachine;
use super::unit::UnitState;
use crate::Instant;

/// Time for which a move lengthens the preempt delay of its unit. Also the maximum preempt delay of
/// a unit.
pub(super) const MOVES_WINDOW: Duration = Duration::from_secs(600);

impl UnitState {
    /// Records that another node owns the unit from now on. The first ownership of the unit does
    /// not count as a move.
    fn record_other_owner(&mut self, now: Instant) {
        self.owned_last = false;
        if std::mem::replace(&mut self.was_owned, true) {
            self.history_mut().moved(now);
        }
    }

    /// Records that this node owns the unit from now on. Taking back a unit that no other node has
    /// owned in between does not count as a move.
    pub(super) fn record_own(&mut self, now: Instant) {
        if std::mem::replace(&mut self.was_owned, true) && !self.owned_last {
            self.history_mut().moved(now);
        }
        self.owned_last = true;
    }

    /// Returns the end of the unit's preempt delay; `None` if the unit has not moved. The delay is
    /// `delay` after the first move, and doubles with each further move within ten minutes.
    fn preempt_delay_end(&self, delay: Duration) -> Option<Instant> {
        let moves = &self.history()?.moves;
        let (last, count) = (moves.last()?, u32::try_from(moves.len()).unwrap_or(u32::MAX));
        let wait = delay.saturating_mul(2_u32.saturating_pow(count - 1));
        Some(*last + wait.min(MOVES_WINDOW))
    }
}

impl ClaimMachine {
    /// Returns the remaining preempt delay of an address of this node.
    pub(super) fn preempt_delay(&self, address: IpAddr, now: Instant) -> Duration {
        let state = self.units.get(&address);
        let until = state
            .zip(self.config.failback_delay)
            .and_then(|(state, delay)| state.preempt_delay_end(delay));
        until.map_or(Duration::ZERO, |until| until.since(now))
    }

    /// Records that a peer claims addresses that it did not claim before.
    pub(super) fn note_moves(&mut self, addresses: &[IpAddr], now: Instant) {
        for address in addresses {
            self.unowned.remove(address);
            self.end_contest(*address);
            self.own.dirty.addresses.insert(*address);
            if let Some(state) = self.units.get_mut(address) {
                state.record_other_owner(now);
            }
        }
    }
}
