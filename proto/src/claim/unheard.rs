//! Addresses of nodes whose claims do not arrive: which of them this node leaves to such a node,
//! and when it probes an address first. Part of the claim machine of one interface.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use super::claim_sets::{Owned, SetCopy};
use super::foreign::CONTEST_WAIT;
use super::unit::UnitState;
use super::{ClaimMachine, ConflictKind};
use crate::Instant;
use crate::election::Unit;
use crate::wire::Mac;

impl ClaimMachine {
    /// Suspects a peer that announces an address which this node owns, and which the peer does not
    /// claim: the claim may not have arrived.
    pub(super) fn suspect_announcer(&mut self, address: IpAddr, mac: Mac, now: Instant) {
        let is_claimed =
            |copy: &SetCopy| !copy.is_complete() || copy.claims().contains_key(&address);
        let announcer = self.peers.iter().find(|(name, peer)| {
            let is_explained = self.sets.copy(name).is_some_and(is_claimed);
            !peer.failed && peer.macs.contains(&mac) && !is_explained
        });
        if let Some((name, _)) = announcer {
            let name = Arc::clone(name);
            self.suspect_heard(&name, now);
        }
    }

    /// Returns whether this node leaves an owned address to a failed peer that announces it.
    ///
    /// If the peer owned the address when its latest frame arrived, this node has taken the address
    /// by mistake. If this node owned the address at that time, the peer knows of that claim. If
    /// both have claimed the address since, the order decides.
    pub(super) fn yields_to(&self, node: &str, address: IpAddr) -> bool {
        let (Some(peer), Some(state)) = (self.peers.get(node), self.units.get(&address)) else {
            return false;
        };
        let copy = self.sets.copy(node);
        if copy.is_some_and(|copy| copy.claims().contains_key(&address)) {
            return true;
        }
        let own = &*self.config.node;
        let is_new = |owned: &Owned| owned.since >= peer.last_seen;
        let is_better = (state.unit.order(node), node) < (state.unit.order(own), own);
        self.owned().get(&address).is_some_and(is_new) && is_better
    }

    /// Leaves addresses to a failed peer that replies to requests and has announced an address:
    /// those that this node has taken from the peer, and perhaps the announced one. From now on,
    /// the peer is treated like a foreign host that uses the addresses.
    pub(super) fn leave_to_failed_peer(
        &mut self,
        node: &str,
        announced: Option<IpAddr>,
        now: Instant,
    ) {
        let Some(mac) = self.peers.get(node).map(|peer| peer.mac) else { return };
        let announced = announced.filter(|address| self.yields_to(node, *address));
        let taken = self.sets.copy(node).into_iter().flat_map(SetCopy::shared).copied();
        for address in taken.chain(announced).collect::<BTreeSet<_>>() {
            self.record_conflict(address, mac, ConflictKind::UnheardPeer(node.into()), now);
            self.contest(address, now);
        }
    }

    /// Defends an address against announcements with the MAC of a failed peer.
    pub(super) fn defend_against(&mut self, node: &str, address: IpAddr, now: Instant) {
        let Some(mac) = self.peers.get(node).map(|peer| peer.mac) else { return };
        self.record_conflict(address, mac, ConflictKind::UnheardPeer(node.into()), now);
        self.defend(address, now);
    }

    /// Returns whether this node has just taken an address although another candidate may have
    /// owned it.
    pub(super) fn may_be_second(&self, address: IpAddr, now: Instant) -> bool {
        let is_new = |owned: &Owned| now.since(owned.since) < CONTEST_WAIT;
        self.owned().get(&address).is_some_and(is_new)
            && self.units.get(&address).is_some_and(|state| self.may_miss_owner(&state.unit, now))
    }

    /// Returns whether this node probes a unit before it takes the unit, because it may have an
    /// owner that this node does not hear.
    pub(super) fn probes_first(&self, state: &UnitState, now: Instant) -> bool {
        state.contested || self.may_miss_owner(&state.unit, now)
    }

    /// Returns whether a candidate may own a unit although this node has never received its claims:
    /// this node has heard no peer since its start, or a candidate does not respond to challenges.
    pub(super) fn may_miss_owner(&self, unit: &Unit, now: Instant) -> bool {
        let silent = self.newcomers.iter().filter(|(_, newcomer)| newcomer.does_not_respond(now));
        let mut unknown = silent.filter(|(name, _)| !self.peers.contains_key(&***name));
        (self.peers.is_empty() && unit.candidates.len() > 1)
            || unknown.any(|(name, _)| unit.candidate(name).is_some())
    }
}
