//! The units of this node, and the selection of those that the ownership rule must evaluate again.
//! Part of the ownership of one interface.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::ops::Bound;
use std::sync::Arc;

use ferrolb_core::election::Unit;
use ferrolb_proto::Instant;

use super::moves::MOVES_WINDOW;
use super::unit::UnitState;
use super::{Ownership, View};
use crate::claim::claim_sets::SetCopy;

/// Maximum number of units that one call of the machine evaluates. The driver handles frames before
/// the next call.
pub(in crate::claim) const EVALUATIONS_PER_TURN_MAX: usize = 512;
/// Maximum number of peers with which one call of the machine compares this node, for all units
/// together: without an owner, the evaluation of a unit compares this node with each peer.
pub(in crate::claim) const COMPARISONS_PER_TURN_MAX: usize = 4_096;
/// If at least one in this number of units has a timer, all units are evaluated instead of only
/// those with a timer.
const TIMERS_SHARE: usize = 4;
/// If the number of new addresses is at least this part of a set, to build the set again takes less
/// time than to insert the addresses.
const APPEND_SHARE: usize = 8;
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

impl Ownership {
    /// Removes units. Their addresses must be released.
    pub(in crate::claim) fn remove_units(&mut self, removed: &[IpAddr]) {
        for address in removed {
            self.unowned.remove(address);
            let state = self.units.remove(address);
            if let Some(at) = state.and_then(|state| state.pending_claim?.timer) {
                self.timers.remove(&(at, *address));
            }
        }
    }

    /// Adds new and changed units. Only these units are evaluated again.
    pub(in crate::claim) fn update_units(&mut self, changed: Vec<Arc<Unit>>, view: View<'_>) {
        if self.units.is_empty() {
            self.dirty.all = true;
            // `collect` builds the map with full B-tree nodes; single inserts would leave them half
            // empty.
            let new = changed.into_iter().map(|unit| (unit.address, new_state(unit, view)));
            self.units = new.collect();
            return;
        }
        self.dirty.addresses.extend(changed.iter().map(|unit| unit.address));
        for unit in changed {
            if let Some(state) = self.units.get_mut(&unit.address) {
                state.set_unit(unit);
            } else {
                self.units.insert(unit.address, new_state(unit, view));
            }
        }
    }

    /// Marks all units.
    pub(in crate::claim) const fn mark_all(&mut self) {
        self.dirty.all = true;
    }

    /// Marks the units that a change of a peer affects. `copy` is the copy of its claim set.
    pub(in crate::claim) fn mark_affected(&mut self, copy: Option<&SetCopy>) {
        self.dirty.mark_affected(copy);
    }

    /// Handles what is due at this time, except the units' timers.
    pub(in crate::claim) fn expire(&mut self, view: View<'_>) {
        self.sweep_if_due(view);
        self.expire_conflicts(view.now);
        self.defend_later(view);
    }

    /// Evaluates all units again once per [`MOVES_WINDOW`], which drops the moves that are older.
    fn sweep_if_due(&mut self, view: View<'_>) {
        if view.now >= self.next_sweep {
            self.next_sweep = view.now + MOVES_WINDOW;
            self.dirty.all = true;
        }
    }

    /// Decides again on the units that are marked dirty or whose timer has expired, in the order of
    /// their addresses. If this is too much for one call, the next tick continues.
    ///
    /// Returns whether the work is complete.
    pub(in crate::claim) fn evaluate_dirty(&mut self, view: View<'_>) -> bool {
        self.mark_due(view);
        let mut units = std::mem::take(&mut self.units);
        let by_comparisons = COMPARISONS_PER_TURN_MAX / view.members.peers().count().max(1);
        for _ in 0..EVALUATIONS_PER_TURN_MAX.min(by_comparisons.max(1)) {
            let Some(address) = self.dirty.next() else { break };
            if let Some(state) = units.get_mut(&address) {
                self.evaluate(address, state, view);
            }
        }
        self.units = units;
        self.dirty.addresses.is_empty()
    }

    /// Marks the units whose timer has expired, and those that [`DirtyUnits`] does not name.
    fn mark_due(&mut self, view: View<'_>) {
        let all = std::mem::take(&mut self.dirty.all);
        let waiting = std::mem::take(&mut self.dirty.waiting);
        // The addresses of the timers are not sorted, so it takes longer to collect them.
        if all || (waiting && self.timers.len() * TIMERS_SHARE >= self.units.len()) {
            // `collect` of sorted addresses takes much less time than single inserts.
            self.dirty.addresses = self.units.keys().copied().collect();
            return;
        }
        let is_due = |(at, _): &&(Instant, IpAddr)| waiting || *at <= view.now;
        let due = self.timers.iter().take_while(is_due).map(|(_, address)| *address);
        // If more are due than one call evaluates, one of them remains, and the next tick
        // continues.
        let count = if waiting { usize::MAX } else { EVALUATIONS_PER_TURN_MAX + 1 };
        self.dirty.addresses.extend(due.take(count));
    }

    /// Updates the entry of a unit in [`Ownership::timers`] to the unit's next deadline.
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

/// Returns the state of a unit that has only now appeared on this node. A unit that a peer already
/// claims is proven. Taking such a unit counts as a move.
fn new_state(unit: Arc<Unit>, view: View<'_>) -> UnitState {
    let is_proven = view.owners(unit.address).next().is_some();
    UnitState { is_proven, ..UnitState::new(unit) }
}
