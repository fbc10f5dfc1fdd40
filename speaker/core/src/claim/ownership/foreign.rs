//! Conflicts about addresses of this node's units: a foreign host, or the kernel of a peer, uses an
//! address that this node owns or probes. Part of the ownership of one interface.
//!
//! This node probes a new address before it claims the address. If a foreign host replies, this
//! node leaves the address to that host. An owned address is defended (RFC 5227 section 2.4 c), and
//! not released.

use std::net::IpAddr;
use std::time::Duration;

use ferrolb_proto::Instant;
use ferrolb_proto::wire::Mac;

use super::unit::UnitState;
use super::{AddressConflict, ConflictKind, Ownership, OwnershipEffect, View};
use crate::claim::Output;
use crate::claim::membership::Host;
use crate::claim::recent::RecentEvents;

/// Time for which an address is left to a foreign host before the address is probed again.
pub(super) const CONTEST_WAIT: Duration = Duration::from_secs(10);
/// Maximum random time that is added to [`CONTEST_WAIT`].
const CONTEST_SPREAD: Duration = Duration::from_secs(1);
/// Time after a move of an address in which frames of peers about the address are no conflict. The
/// former owner, or a peer that has just released its own claim, may still send such frames.
const MOVE_GRACE: Duration = Duration::from_secs(1);

impl Ownership {
    /// Returns the conflicts about addresses of this node's units, by address.
    pub(in crate::claim) fn conflicts(&self) -> impl Iterator<Item = AddressConflict> + '_ {
        self.conflicts.iter()
    }

    /// Handles a frame in which another host, with the hardware address `mac`, uses an address.
    /// `announced` is true if the frame is not a reply to a request of this node.
    pub(in crate::claim) fn on_foreign_frame(
        &mut self,
        address: IpAddr,
        mac: Mac,
        announced: bool,
        view: View<'_>,
    ) {
        let Some(state) = self.units.get(address) else { return };
        let is_probed = state.is_probed();
        let is_owned = view.owned().contains_key(&address);
        // An isolated peer cannot detect that this node owns the address, too. This node therefore
        // repeats its own announcement after each one of that peer. Otherwise the caches of clients
        // would keep the MAC of a node that receives nothing.
        let is_of_isolated =
            || view.members.peers().live_with_mac(mac).any(|(_, flags)| flags.isolated);
        if announced && is_owned && is_of_isolated() {
            self.output(Output::Defend(address));
            return;
        }
        if !is_owned && !is_probed {
            return;
        }
        if announced && is_owned {
            self.suspect_announcer(address, mac, view);
        }
        let Some(kind) = self.conflict_kind(address, mac, announced, view) else { return };
        if let ConflictKind::UnheardPeer(node) = &kind
            && is_owned
            && !self.may_be_second(address, view)
        {
            let node = (**node).into();
            self.effects.push_back(OwnershipEffect::CheckFailedPeer { node, mac, address });
            return;
        }
        self.record_conflict(address, mac, &kind, view.now);
        match kind {
            ConflictKind::ForeignHost => {
                self.counts.foreign_hosts += 1;
                if is_probed || self.may_be_second(address, view) {
                    self.contest(address, view.now);
                } else {
                    self.defend(address, view);
                }
            }
            ConflictKind::PeerKernel(_) => {
                self.counts.kernel_replies += 1;
                if announced {
                    self.defend(address, view);
                }
            }
            ConflictKind::UnheardPeer(_) if is_owned => self.contest(address, view.now),
            ConflictKind::UnheardPeer(_) => self.leave(address, view.now),
            ConflictKind::ProxyOfFailedPeer(_) => {}
        }
    }

    /// Returns the type of the host that sent a frame about an address; `None` if the frame is no
    /// conflict. The ownership protocol settles the claims of live peers, and frames of a former
    /// owner may still arrive for a moment.
    fn conflict_kind(
        &self,
        address: IpAddr,
        mac: Mac,
        announced: bool,
        view: View<'_>,
    ) -> Option<ConflictKind> {
        let owned_since = view.owned().get(&address).map(|owned| owned.since);
        let last_move =
            self.units.get(address).and_then(UnitState::moves).and_then(RecentEvents::last);
        let mut moves = owned_since.into_iter().chain(last_move);
        let moved_recently = moves.any(|at| view.now.since(at) < MOVE_GRACE);
        match view.members.host(mac, view.now) {
            Host::Foreign => Some(ConflictKind::ForeignHost),
            // Its claims follow when it has responded. If it never does, it does not receive the
            // challenge, and nothing but its ARP frames shows which addresses it uses. A node that
            // this node has known before probes the addresses itself.
            Host::Newcomer { node, is_silent } => {
                is_silent.then_some(ConflictKind::UnheardPeer(node))
            }
            // A device that acts for the failed peer only replies. Before this node takes an
            // unproven address, it leaves the address also to such a device.
            Host::FailedPeer(name) => {
                let name = (*name).into();
                let is_proven = self.units.get(address).is_some_and(|state| state.is_proven);
                if announced || !is_proven {
                    Some(ConflictKind::UnheardPeer(name))
                } else {
                    (!moved_recently).then_some(ConflictKind::ProxyOfFailedPeer(name))
                }
            }
            // A peer whose claim set is not known yet may have claimed the address, so this is no
            // conflict.
            Host::Peer(name) => {
                let is_explained =
                    view.sets.copy(&name).is_none_or(|copy| copy.may_contain(address));
                (!moved_recently && !is_explained).then(|| ConflictKind::PeerKernel((*name).into()))
            }
        }
    }

    pub(super) fn record_conflict(
        &mut self,
        address: IpAddr,
        mac: Mac,
        kind: &ConflictKind,
        now: Instant,
    ) {
        let is_recorded = self.conflicts.record(address, mac, kind, now);
        self.counts.over_limit += u64::from(!is_recorded);
    }

    /// Defends an address with an announcement, unless the previous one was too recent.
    pub(super) fn defend(&mut self, address: IpAddr, view: View<'_>) {
        if self.conflicts.defend(address, view.now) && view.owned().contains_key(&address) {
            self.output(Output::Defend(address));
        }
    }

    /// Corrects the conflicts with a peer whose frames turn out not to arrive since `since`.
    pub(in crate::claim) fn correct_conflicts(&mut self, node: &str, since: Instant) {
        self.conflicts.correct(node, since);
    }

    /// Leaves an address to a foreign host: no speaker announces the address until that host stops
    /// using it.
    pub(super) fn contest(&mut self, address: IpAddr, now: Instant) {
        self.leave(address, now);
        self.rule.contest(address);
    }

    /// Leaves an address to a host that only this node may see.
    fn leave(&mut self, address: IpAddr, now: Instant) {
        // If two nodes leave an address to each other, they do not probe it at the same time again.
        let spread = Duration::from_nanos(self.random.below(CONTEST_SPREAD.as_nanos() as u64));
        let Some(state) = self.units.get_mut(address) else { return };
        state.leave_to_foreign_host(now + CONTEST_WAIT + spread);
        self.units.mark(address);
    }

    /// Handles a peer's release of addresses that a foreign host uses.
    pub(in crate::claim) fn on_contested(&mut self, addresses: &[IpAddr], view: View<'_>) {
        for address in addresses {
            let is_owned = view.owned().contains_key(address);
            if !is_owned
                && view.owners(*address).next().is_none()
                && let Some(state) = self.units.get_mut(*address)
            {
                // The node that has found the host probes the address before the others do.
                state.leave_to_foreign_host(view.now + CONTEST_WAIT + CONTEST_SPREAD);
            }
        }
    }
}
