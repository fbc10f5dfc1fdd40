//! The units of this node, and the selection of those that the ownership rule must evaluate again.
//! Part of the claim machine of one interface.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use super::ClaimMachine;
use super::moves::MOVES_WINDOW;
use super::peers::Peer;
use super::unit::UnitState;
use crate::Instant;
use crate::election::Unit;
use crate::wire::hello::ReleaseReason;

/// Units that must be evaluated again, because something that affects their ownership has changed.
#[derive(Debug, Default)]
pub(super) struct DirtyUnits {
    pub(super) all: bool,
    /// True if all units with a timer must be evaluated, because the rank of a peer has changed,
    /// and with it perhaps the position of this node among the candidates.
    pub(super) waiting: bool,
    /// Addresses whose units must be evaluated.
    pub(super) addresses: BTreeSet<IpAddr>,
}

impl DirtyUnits {
    /// Marks the units that a change of a peer affects: the units that the peer claims or has
    /// refused, and all units with a timer.
    pub(super) fn mark_affected(&mut self, peer: &Peer) {
        self.waiting = true;
        self.addresses.extend(&*peer.claims);
        self.addresses.extend(peer.refused.keys());
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
        self.release(removed, ReleaseReason::HandedOver, now);
        self.update_failing(&changed, removed, now);
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
                state.unit = unit;
            } else {
                self.units.insert(unit.address, self.new_state(unit));
            }
        }
    }

    /// Returns the state of a unit that has only now appeared on this node. An address that a peer
    /// already claims has an owner. Taking such a unit counts as a move.
    fn new_state(&self, unit: Arc<Unit>) -> UnitState {
        let address = unit.address;
        let was_owned = self.claimants(address).any(|(_, peer)| peer.claims.contains(&address));
        UnitState { was_owned, ..UnitState::new(unit) }
    }

    /// Evaluates all units again once per [`MOVES_WINDOW`], which drops the moves that are older.
    pub(super) fn sweep_if_due(&mut self, now: Instant) {
        if now >= self.next_sweep {
            self.next_sweep = now + MOVES_WINDOW;
            self.own.dirty.all = true;
        }
    }

    /// Decides again on every unit that is marked dirty or whose timer has expired.
    pub(super) fn evaluate_all(&mut self, now: Instant) {
        let dirty = std::mem::take(&mut self.own.dirty);
        let mut units = std::mem::take(&mut self.units);
        if dirty.all {
            for (address, state) in &mut units {
                self.evaluate(*address, state, now);
            }
        } else {
            let due = self
                .timers
                .iter()
                .take_while(|(at, _)| dirty.waiting || *at <= now)
                .map(|(_, address)| *address);
            for address in due.chain(dirty.addresses).collect::<BTreeSet<_>>() {
                if let Some(state) = units.get_mut(&address) {
                    self.evaluate(address, state, now);
                }
            }
        }
        self.units = units;
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
