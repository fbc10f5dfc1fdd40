//! Conflicts between two owners of a unit, and doubts about an owner. Part of the ownership of one
//! interface.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ferrolb_core::election::Rank;

use super::unit::UnitState;
use super::{Ownership, View};
use crate::claim::{Move, MoveCause, Output};

/// Time after a claim in which a peer may still send a frame without knowing of the claim.
const CROSSING_MAX: Duration = Duration::from_millis(20);

impl Ownership {
    /// Handles a peer's claim for addresses that this node owns, too: the node with the better
    /// stated rank keeps the addresses.
    ///
    /// `is_answer` is true if the peer has just sent a CLAIM for the addresses. Without that, this
    /// node releases no address that it has just taken: the peer may have released it meanwhile.
    pub(super) fn resolve_conflicts(
        &mut self,
        peer: &str,
        addresses: &[IpAddr],
        is_answer: bool,
        view: View<'_>,
    ) {
        for address in addresses {
            if let Some(mut state) = self.units.remove(address) {
                self.counts.conflicts += 1;
                self.settle_conflict(peer, &mut state, is_answer, view);
                self.set_timer(*address, &mut state);
                self.units.insert(*address, state);
                self.dirty.addresses.insert(*address);
            }
        }
    }

    fn settle_conflict(
        &mut self,
        peer: &str,
        state: &mut UnitState,
        is_answer: bool,
        view: View<'_>,
    ) {
        let address = state.unit.address;
        let Some(owned) = view.owned().get(&address).copied() else { return };
        let own = Rank::stated(&self.config.node, view.members.own().flags(), owned.rank);
        let better = view.owners(address).find(|(rank, _)| *rank.node == *peer && *rank < own);
        if let Some(cause) = better.map(|(rank, _)| MoveCause::between(&own, &rank)) {
            // A frame may name an address twice.
            let is_decided = self.decided.hand_over.contains(&address);
            if !is_decided && (is_answer || view.now.since(owned.since) >= CROSSING_MAX) {
                let (from, to) = (Some(Arc::clone(&self.config.node)), peer.into());
                self.decided.hand_over.push(address);
                self.decided.moves.push(Move { address, from, to, cause, silence: None });
            }
            return;
        }
        // The peer's claim has recorded the peer as the owner, but this node keeps the unit.
        state.owned_last = true;
        if state.repeats_claim(view.now) {
            self.output(Output::AnnounceSeries(address));
            self.decided.restate.push((address, owned.rank));
        }
    }

    /// Handles the doubts of a peer about addresses that this node owns. Until this node's view of
    /// a unit changes, the node states a rank with which any candidate may take the unit. A peer
    /// whose own view was outdated has the current one long before the doubt ends.
    pub(in crate::claim) fn on_doubts(&mut self, addresses: &[IpAddr], view: View<'_>) {
        for address in addresses.iter().filter(|address| view.owned().contains_key(*address)) {
            if let Some(state) = self.units.get_mut(address) {
                let until = view.now + state.doubt_lifetime();
                state.pending_claim().doubted_until = Some(until);
                self.dirty.addresses.insert(*address);
            }
        }
    }
}
