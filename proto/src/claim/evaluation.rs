//! The units of this node, and the selection of those that the ownership rule must evaluate again.
//! Part of the claim machine of one interface.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use super::ClaimMachine;
use super::claim_sets::SetCopy;
use super::moves::MOVES_WINDOW;
use super::unit::UnitState;
use crate::Instant;
use crate::election::Unit;

/// Maximum number of units that one call of the machine evaluates. The driver handles frames before
/// the next call.
pub(super) const EVALUATIONS_PER_TURN_MAX: usize = 512;
/// Maximum number of peers with which one call of the machine compares this node, for all units
/// together: without an owner, the evaluation of a unit compares this node with each peer.
pub(super) const COMPARISONS_PER_TURN_MAX: usize = 4_096;
/// If at least one in this number of units has a timer, all units are evaluated instead of only
/// those with a timer.
const TIMERS_SHARE: usize = 4;
/// If the number of new addresses is at least this part of a set, to build the set again takes less
/// time than to insert the addresses.
const APPEND_SHARE: usize = 8;
/// Delay until the machine continues work that was too much for one call: the driver must handle
/// frames meanwhile, and a deadline is always in the future.
const CONTINUE_DELAY: Duration = Duration::from_micros(1);

/// Units that must be evaluated again, because something that affects their ownership has changed.
#[derive(Debug, Default)]
pub(super) struct DirtyUnits {
    pub(super) all: bool,
    /// True if all units with a timer must be evaluated, because the rank of a peer has changed,
    /// and with it perhaps the position of this node among the candidates.
    pub(super) waiting: bool,
    /// Addresses whose units must be evaluated.
    pub(super) addresses: BTreeSet<IpAddr>,
    /// Address that was evaluated last, if others remain. The next turn continues after it.
    last: Option<IpAddr>,
}

impl DirtyUnits {
    /// Marks the units that a change of a peer affects: the units that the peer claims, and all
    /// units with a timer.
    pub(super) fn mark_affected(&mut self, copy: Option<&SetCopy>) {
        self.waiting = true;
        self.addresses.extend(copy.into_iter().flat_map(|copy| copy.claims().keys()));
    }

    /// Marks the units of these addresses.
    pub(super) fn mark(&mut self, addresses: &[IpAddr]) {
        if addresses.len() < self.addresses.len() / APPEND_SHARE {
            self.addresses.extend(addresses);
        } else {
            self.addresses.append(&mut addresses.iter().copied().collect());
        }
    }

    /// Removes and returns the next address, in ascending order. After the last address follows the
    /// first one.
    fn next(&mut self) -> Option<IpAddr> {
        let after = self.last.map_or(Bound::Unbounded, Bound::Excluded);
        let next = self.addresses.range((after, Bound::Unbounded)).next();
        self.last = next.or_else(|| self.addresses.first()).copied();
        self.last.inspect(|next| {
            self.addresses.remove(next);
        })
    }
}

impl ClaimMachine {
    /// Applies a change of the units. Only the changed units are evaluated again.
    pub(super) fn update_units(
        &mut self,
        changed: Vec<Arc<Unit>>,
        removed: &[IpAddr],
        now: Instant,
    ) {
        for address in removed {
            self.unowned.remove(address);
            let state = self.units.remove(address);
            if let Some(at) = state.and_then(|state| state.pending_claim?.timer) {
                self.timers.remove(&(at, *address));
            }
        }
        self.release(removed, false, now);
        if self.units.is_empty() {
            self.own.dirty.all = true;
            // `collect` builds the map with full B-tree nodes; single inserts would leave them half
            // empty.
            let new = changed.into_iter().map(|unit| (unit.address, self.new_state(unit)));
            self.units = new.collect();
            return;
        }
        self.own.dirty.addresses.extend(changed.iter().map(|unit| unit.address));
        for unit in changed {
            if let Some(state) = self.units.get_mut(&unit.address) {
                state.set_unit(unit);
            } else {
                self.units.insert(unit.address, self.new_state(unit));
            }
        }
    }

    /// Returns the state of a unit that has only now appeared on this node. An address that a peer
    /// already claims has an owner. Taking such a unit counts as a move.
    fn new_state(&self, unit: Arc<Unit>) -> UnitState {
        let address = unit.address;
        let was_owned = self.owners(address).next().is_some();
        UnitState { was_owned, ..UnitState::new(unit) }
    }

    /// Evaluates all units again once per [`MOVES_WINDOW`], which drops the moves that are older.
    pub(super) fn sweep_if_due(&mut self, now: Instant) {
        if now >= self.next_sweep {
            self.next_sweep = now + MOVES_WINDOW;
            self.own.dirty.all = true;
        }
    }

    /// Decides again on the units that are marked dirty or whose timer has expired, in the order of
    /// their addresses. If this is too much for one call, the next tick continues.
    pub(super) fn evaluate_dirty(&mut self, now: Instant) {
        self.mark_due(now);
        let mut units = std::mem::take(&mut self.units);
        let by_comparisons = COMPARISONS_PER_TURN_MAX / self.peers.len().max(1);
        for _ in 0..EVALUATIONS_PER_TURN_MAX.min(by_comparisons.max(1)) {
            let Some(address) = self.own.dirty.next() else { break };
            if let Some(state) = units.get_mut(&address) {
                self.evaluate(address, state, now);
            }
        }
        self.units = units;
        if !self.own.dirty.addresses.is_empty() {
            self.continue_soon(now);
        }
    }

    /// Marks the units whose timer has expired, and those that [`DirtyUnits`] does not name.
    fn mark_due(&mut self, now: Instant) {
        let all = std::mem::take(&mut self.own.dirty.all);
        let waiting = std::mem::take(&mut self.own.dirty.waiting);
        // The addresses of the timers are not sorted, so it takes longer to collect them.
        if all || (waiting && self.timers.len() * TIMERS_SHARE >= self.units.len()) {
            // `collect` of sorted addresses takes much less time than single inserts.
            self.own.dirty.addresses = self.units.keys().copied().collect();
            return;
        }
        let is_due = |(at, _): &&(Instant, IpAddr)| waiting || *at <= now;
        let due = self.timers.iter().take_while(is_due).map(|(_, address)| *address);
        // If more are due than one call evaluates, one of them remains, and the next tick
        // continues.
        let count = if waiting { usize::MAX } else { EVALUATIONS_PER_TURN_MAX + 1 };
        self.own.dirty.addresses.extend(due.take(count));
    }

    /// Requests a tick for work that was too much for this call.
    pub(super) fn continue_soon(&mut self, now: Instant) {
        self.continue_at = Some(now + CONTINUE_DELAY);
    }

    /// Updates the entry of a unit in [`ClaimMachine::timers`] to the unit's next deadline.
    pub(super) fn set_timer(&mut self, address: IpAddr, state: &mut UnitState) {
        let Some(pending_claim) = &mut state.pending_claim else { return };
        let timer = pending_claim.deadline();
        if timer != pending_claim.timer {
            self.timers.extend(timer.map(|at| (at, address)));
            if let Some(before) = std::mem::replace(&mut pending_claim.timer, timer) {
                self.timers.remove(&(before, address));
            }
        }
    }
}
