//! Addresses of nodes whose claims do not arrive: which of them this node leaves to such a node,
//! and when it probes an address first. Part of the ownership of one interface.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use ferrolb_proto::wire::Mac;

use super::foreign::CONTEST_WAIT;
use super::{ConflictKind, Ownership, OwnershipEffect, View};
use crate::claim::claim_sets::{Owned, SetCopy};

impl Ownership {
    /// Suspects a peer that announces an address which this node owns, and which the peer does not
    /// claim: the claim may not have arrived.
    pub(super) fn suspect_announcer(&mut self, address: IpAddr, mac: Mac, view: View<'_>) {
        let is_explained =
            |name: &str| view.sets.copy(name).is_some_and(|copy| copy.may_contain(address));
        let mut announcers = view.members.peers().live_with_mac(mac);
        if let Some((name, _)) = announcers.find(|(name, _)| !is_explained(name)) {
            self.effects.push_back(OwnershipEffect::Suspect(Arc::clone(name)));
        }
    }

    /// Returns whether this node leaves an owned address to a failed peer that announces it.
    ///
    /// If the peer owned the address when its latest frame arrived, this node has taken the address
    /// by mistake. If this node owned the address at that time, the peer knows of that claim. If
    /// both have claimed the address since, the order decides.
    pub(in crate::claim) fn yields_to(&self, node: &str, address: IpAddr, view: View<'_>) -> bool {
        let (Some(last_seen), Some(state)) =
            (view.members.peers().last_seen(node), self.units.get(address))
        else {
            return false;
        };
        let copy = view.sets.copy(node);
        if copy.is_some_and(|copy| copy.claims().contains_key(&address)) {
            return true;
        }
        let own = self.rule.node();
        let is_new = |owned: &Owned| owned.since >= last_seen;
        let is_better = (state.unit.order(node), node) < (state.unit.order(own), own);
        view.owned().get(&address).is_some_and(is_new) && is_better
    }

    /// Leaves addresses to a failed peer that replies to requests and has announced an address:
    /// those that this node has taken from the peer, and perhaps the announced one. From now on,
    /// the peer is treated like a foreign host that uses the addresses.
    pub(in crate::claim) fn leave_to_failed_peer(
        &mut self,
        node: &str,
        mac: Mac,
        announced: Option<IpAddr>,
        view: View<'_>,
    ) {
        let announced = announced.filter(|address| self.yields_to(node, *address, view));
        let taken = view.sets.copy(node).into_iter().flat_map(SetCopy::shared).copied();
        let kind = ConflictKind::UnheardPeer(node.into());
        for address in taken.chain(announced).collect::<BTreeSet<_>>() {
            self.record_conflict(address, mac, &kind, view.now);
            self.contest(address, view.now);
        }
    }

    /// Defends an address against announcements with the MAC of a failed peer.
    pub(in crate::claim) fn defend_against(
        &mut self,
        node: &str,
        mac: Mac,
        address: IpAddr,
        view: View<'_>,
    ) {
        self.record_conflict(address, mac, &ConflictKind::UnheardPeer(node.into()), view.now);
        self.defend(address, view);
    }

    /// Returns whether this node has just taken an address although another candidate may have
    /// owned it.
    pub(super) fn may_be_second(&self, address: IpAddr, view: View<'_>) -> bool {
        let is_new = |owned: &Owned| view.now.since(owned.since) < CONTEST_WAIT;
        view.owned().get(&address).is_some_and(is_new)
            && self.units.get(address).is_some_and(|state| view.may_miss_owner(&state.unit))
    }
}
