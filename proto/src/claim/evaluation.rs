//! The units of this node, and the selection of those that the ownership rule must evaluate again.
//! Part of the claim machine of one interface.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use super::ClaimMachine;
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
        self.addresses.extend(&peer.claims);
        self.addresses.extend(peer.refused.keys());
    }
}

impl ClaimMachine {
    pub(super) fn set_units(&mut self, units: Vec<Arc<Unit>>, now: Instant) {
        let mut old = std::mem::take(&mut self.units);
        let state = |unit: Arc<Unit>| {
            let address = unit.address;
            let before = old.remove(&address);
            let before = before.unwrap_or_else(|| UnitState::new(Arc::clone(&unit)));
            // An address that a peer already claims has an owner, even if the unit has only now
            // appeared on this node. Taking such a unit counts as a move.
            let claims = |peer: &Peer| peer.claims.contains(&address);
            let was_owned = before.was_owned || self.peers.values().any(claims);
            (address, UnitState { unit, was_owned, ..before })
        };
        // `collect` builds the map with full B-tree nodes; single inserts would leave them half
        // empty.
        self.units = units.into_iter().map(state).collect();
        let timer = |(address, state): (&IpAddr, &UnitState)| {
            Some((state.pending_claim.as_ref()?.timer?, *address))
        };
        self.timers = self.units.iter().filter_map(timer).collect();
        let has_no_unit = |address: &&IpAddr| !self.units.contains_key(*address);
        let without_unit: Vec<_> = self.own.owned.keys().filter(has_no_unit).copied().collect();
        self.release(&without_unit, ReleaseReason::HandedOver, now);
        self.unowned.retain(|address, _| self.units.contains_key(address));
        self.own.dirty.all = true;
        self.update_failing(now);
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
