//! Failback that waits longer each time: every move of an address resets established connections, so a unit that moved often of
//! late stays where it is for longer, although a better node is back.
//!
//! The holder says with its claims how long they are best left alone; that is common knowledge, and a node that has just started
//! knows it as well. It holds back only takings that nothing but order (or preference) asks for.

use std::net::IpAddr;
use std::time::Duration;

use super::Claims;
use super::unit::{Story, UnitState};
use crate::Instant;

/// Moves further back than this count no longer. It is also the longest that a unit is left alone.
const MOVES_WINDOW: Duration = Duration::from_secs(600);
/// How many moves of one unit are remembered: one more changes nothing, as the wait has reached its end.
const MOVES_MAX: usize = 8;

impl Story {
    fn moved(&mut self, now: Instant) {
        self.forget_moves(now);
        if self.moves.len() == MOVES_MAX {
            self.moves.remove(0);
        }
        self.moves.push(now);
    }

    /// Drops the moves that are too far back.
    pub(super) fn forget_moves(&mut self, now: Instant) {
        self.moves.retain(|at| now.since(*at) < MOVES_WINDOW);
    }
}

impl UnitState {
    /// Another one holds it from now on; the first holder is no move.
    fn is_others(&mut self, now: Instant) {
        self.ours = false;
        if std::mem::replace(&mut self.was_held, true) {
            self.story().moved(now);
        }
    }

    /// We hold it from now on; it is no move if nobody had it after us.
    pub(super) fn is_ours(&mut self, now: Instant) {
        if std::mem::replace(&mut self.was_held, true) && !self.ours {
            self.story().moved(now);
        }
        self.ours = true;
    }

    /// Until when it is best left with its holder: after the first move for the failback delay, after each further one within
    /// ten minutes twice as long.
    fn keep_until(&self, delay: Duration) -> Option<Instant> {
        let moves = &self.story.as_ref()?.moves;
        let (last, count) = (moves.last()?, u32::try_from(moves.len()).unwrap_or(u32::MAX));
        let wait = delay.saturating_mul(2_u32.saturating_pow(count - 1));
        Some(*last + wait.min(MOVES_WINDOW))
    }
}

impl Claims {
    /// How long each of these addresses is best left with us; nothing if all are free to go.
    pub(super) fn keeps(&self, addresses: &[IpAddr], now: Instant) -> Vec<Duration> {
        let keeps: Vec<_> = addresses.iter().map(|address| self.keep(*address, now)).collect();
        if keeps.iter().all(Duration::is_zero) { Vec::new() } else { keeps }
    }

    fn keep(&self, address: IpAddr, now: Instant) -> Duration {
        let state = self.unit_of.get(&address).and_then(|first| self.units.get(first));
        let until = state.zip(self.config.failback_delay).and_then(|(state, delay)| state.keep_until(delay));
        until.map_or(Duration::ZERO, |until| until.since(now))
    }

    /// A peer claims these, which it did not before.
    pub(super) fn note_moves(&mut self, node: &str, addresses: &[IpAddr], now: Instant) {
        for address in addresses {
            self.orphans.remove(address);
            self.end_contest(*address);
            self.own.dirty.addresses.insert(*address);
            let Some(state) = self.unit_of.get(address).and_then(|first| self.units.get_mut(first)) else { continue };
            let others = state.unit.addresses.iter().filter(|other| *other != address);
            // The rest of a unit that it holds in part comes with no move.
            let holds =
                self.peers.get(node).is_some_and(|peer| others.clone().any(|other| peer.claims.contains(other)));
            if !holds {
                state.is_others(now);
            }
        }
    }

    /// Until when the claims of a peer for these addresses are best left with it.
    pub(super) fn kept_until(&self, node: &str, addresses: &[IpAddr]) -> Option<Instant> {
        let keeps = &self.peers.get(node)?.keeps;
        addresses.iter().filter_map(|address| keeps.get(address).copied()).max()
    }
}
