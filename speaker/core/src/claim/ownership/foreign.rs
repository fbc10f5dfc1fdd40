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

use super::moves::Moves;
use super::probes::PROBING_STAGGER;
use super::unit::{DEFEND_INTERVAL, DEFEND_INTERVALS_PEER, UnitState};
use super::{Ownership, OwnershipEffect, View};
use crate::claim::Output;
use crate::claim::claim_sets::SetCopy;
use crate::claim::membership::Host;

/// Time for which an address is left to a foreign host before the address is probed again.
pub(super) const CONTEST_WAIT: Duration = Duration::from_secs(10);
/// Maximum random time that is added to [`CONTEST_WAIT`].
const CONTEST_SPREAD: Duration = Duration::from_secs(1);
/// Time after a move of an address in which frames of peers about the address are no conflict. The
/// former owner, or a peer that has just released its own claim, may still send such frames.
const MOVE_GRACE: Duration = Duration::from_secs(1);
/// Minimum time for which the reported host of a conflict stays the same, even if several hosts use
/// the address.
const REPORTED_HOST_PERIOD: Duration = Duration::from_secs(1);
/// Time after which a conflict is dropped if no further frame shows it.
const ADDRESS_CONFLICT_LIFETIME: Duration = Duration::from_secs(300);
/// Maximum number of stored conflicts. Further ones only raise
/// [`ClaimCounters::over_limit`](crate::claim::ClaimCounters::over_limit).
const ADDRESS_CONFLICTS_MAX: usize = 1024;

/// A conflict: another host uses an address of this node's units.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressConflict {
    /// Address in conflict.
    pub address: IpAddr,
    /// Hardware address of the conflicting host.
    pub mac: Mac,
    /// Type of the host that has this hardware address.
    pub kind: ConflictKind,
}

/// Type of the host that uses an address in a conflict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConflictKind {
    /// A foreign host.
    ForeignHost,
    /// The peer with this name, which does not claim the address: its kernel replies.
    PeerKernel(Box<str>),
    /// The failed peer with this name: a device in the network still replies for its address.
    ProxyOfFailedPeer(Box<str>),
    /// The peer with this name: it uses the address or another one, but its frames do not arrive at
    /// this node, or those of this node do not arrive at the peer.
    UnheardPeer(Box<str>),
}

/// State of the conflict about one address.
#[derive(Debug)]
pub(super) struct ConflictState {
    mac: Mac,
    kind: ConflictKind,
    /// Time since which `mac` and `kind` are reported.
    since: Instant,
    at: Instant,
    /// Time of the latest defense, and minimum time from it to the next one.
    defended: Option<(Instant, Duration)>,
    /// Time of the postponed address defense, if any. Because of it, the final announcement on the
    /// segment is this node's.
    due: Option<Instant>,
}

impl ConflictState {
    /// Returns whether this node leaves the address to the host.
    const fn is_left(&self) -> bool {
        matches!(self.kind, ConflictKind::ForeignHost | ConflictKind::UnheardPeer(_))
    }
}

impl Ownership {
    /// Returns the conflicts about addresses of this node's units, by address.
    pub(in crate::claim) fn conflicts(&self) -> impl Iterator<Item = AddressConflict> + '_ {
        self.address_conflicts.iter().map(|(address, seen)| AddressConflict {
            address: *address,
            mac: seen.mac,
            kind: seen.kind.clone(),
        })
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
        let Some(state) = self.units.get(&address) else { return };
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
        match kind {
            ConflictKind::ForeignHost => {
                self.counts.foreign_hosts += 1;
                self.record_conflict(address, mac, kind, view.now);
                if is_probed || self.may_be_second(address, view) {
                    self.contest(address, view.now);
                } else {
                    self.defend(address, view);
                }
            }
            ConflictKind::PeerKernel(_) => {
                self.counts.kernel_replies += 1;
                self.record_conflict(address, mac, kind, view.now);
                if announced {
                    self.defend(address, view);
                }
            }
            ConflictKind::UnheardPeer(node) if is_owned && !self.may_be_second(address, view) => {
                let node = (*node).into();
                self.effects.push_back(OwnershipEffect::CheckFailedPeer { node, mac, address });
            }
            ConflictKind::UnheardPeer(_) => {
                self.record_conflict(address, mac, kind, view.now);
                if is_owned {
                    self.contest(address, view.now);
                } else {
                    self.leave(address, view.now);
                }
            }
            ConflictKind::ProxyOfFailedPeer(_) => {
                self.record_conflict(address, mac, kind, view.now);
            }
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
        let owned = view.owned().get(&address);
        let moved_recently = owned.is_some_and(|it| view.now.since(it.since) < MOVE_GRACE)
            || self.moved_recently_at(address, view.now);
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
                let is_proven = self.units.get(&address).is_some_and(|state| state.is_proven);
                if announced || !is_proven {
                    Some(ConflictKind::UnheardPeer(name))
                } else {
                    (!moved_recently).then_some(ConflictKind::ProxyOfFailedPeer(name))
                }
            }
            // A peer whose claim set is not known yet may have claimed the address, so this is no
            // conflict.
            Host::Peer(name) => {
                let may_claim =
                    |copy: &SetCopy| !copy.is_complete() || copy.claims().contains_key(&address);
                let is_explained = view.sets.copy(&name).is_none_or(may_claim);
                (!moved_recently && !is_explained).then(|| ConflictKind::PeerKernel((*name).into()))
            }
        }
    }

    fn moved_recently_at(&self, address: IpAddr, now: Instant) -> bool {
        let moves = self.units.get(&address).and_then(UnitState::moves);
        moves.and_then(Moves::last).is_some_and(|at| now.since(at) < MOVE_GRACE)
    }

    pub(super) fn record_conflict(
        &mut self,
        address: IpAddr,
        mac: Mac,
        kind: ConflictKind,
        now: Instant,
    ) {
        if self.address_conflicts.len() >= ADDRESS_CONFLICTS_MAX
            && !self.address_conflicts.contains_key(&address)
        {
            self.counts.over_limit += 1;
            return;
        }
        let seen = self.address_conflicts.entry(address).or_insert_with(|| ConflictState {
            mac,
            kind: kind.clone(),
            since: now,
            at: now,
            defended: None,
            due: None,
        });
        seen.at = now;
        // A host that uses many hardware addresses must not cause a new report for each of them.
        if (seen.mac, &seen.kind) != (mac, &kind) && now.since(seen.since) >= REPORTED_HOST_PERIOD {
            (seen.mac, seen.kind, seen.since) = (mac, kind, now);
        }
    }

    /// Defends an address with an announcement. The interval between two defenses is limited, so
    /// that two hosts that both defend an address do not flood the segment. A defense that would be
    /// too early is postponed.
    pub(super) fn defend(&mut self, address: IpAddr, view: View<'_>) {
        let Some(seen) = self.address_conflicts.get_mut(&address) else { return };
        let due = seen.defended.map_or(view.now, |(at, interval)| at + interval);
        if due > view.now {
            seen.due = Some(due);
            self.defense_due = self.defense_due.into_iter().chain([due]).min();
            return;
        }
        let interval = match (&seen.kind, seen.defended) {
            (ConflictKind::ForeignHost, _) => DEFEND_INTERVAL,
            (_, before) => DEFEND_INTERVALS_PEER.next(before.map(|(_, interval)| interval)),
        };
        (seen.defended, seen.due) = (Some((view.now, interval)), None);
        if view.owned().contains_key(&address) {
            self.output(Output::Defend(address));
        }
    }

    /// Sends the postponed defenses that are due.
    pub(super) fn defend_later(&mut self, view: View<'_>) {
        if self.defense_due.is_none_or(|at| view.now < at) {
            return;
        }
        let is_due =
            |(_, seen): &(&IpAddr, &ConflictState)| seen.due.is_some_and(|at| view.now >= at);
        let due: Vec<_> =
            self.address_conflicts.iter().filter(is_due).map(|(address, _)| *address).collect();
        for address in due {
            self.defend(address, view);
        }
        self.defense_due = self.address_conflicts.values().filter_map(|seen| seen.due).min();
    }

    /// Leaves an address to a foreign host: no speaker announces the address until that host stops
    /// using it.
    pub(super) fn contest(&mut self, address: IpAddr, now: Instant) {
        self.leave(address, now);
        self.decided.contest.push(address);
    }

    /// Leaves an address to a host that only this node may see.
    fn leave(&mut self, address: IpAddr, now: Instant) {
        // If two nodes leave an address to each other, they do not probe it at the same time again.
        let spread = Duration::from_nanos(self.random.below(CONTEST_SPREAD.as_nanos() as u64));
        let Some(state) = self.units.get_mut(&address) else { return };
        state.leave_to_foreign_host(now + CONTEST_WAIT + spread);
        self.dirty.addresses.insert(address);
    }

    /// Handles a peer's release of addresses that a foreign host uses.
    pub(in crate::claim) fn on_contested(&mut self, addresses: &[IpAddr], view: View<'_>) {
        for address in addresses {
            let is_owned = view.owned().contains_key(address);
            if !is_owned
                && view.owners(*address).next().is_none()
                && let Some(state) = self.units.get_mut(address)
            {
                // The node that has found the host probes the address before the others do.
                state.leave_to_foreign_host(view.now + CONTEST_WAIT + CONTEST_SPREAD);
            }
        }
    }

    /// Corrects the conflicts with a peer whose frames turn out not to arrive. Since its latest
    /// frame, at `since`, its speaker may have claimed the addresses, so nothing shows that its
    /// kernel replies.
    pub(in crate::claim) fn correct_conflicts(&mut self, node: &str, since: Instant) {
        let is_kernel =
            |kind: &ConflictKind| matches!(kind, ConflictKind::PeerKernel(name) if **name == *node);
        for seen in self.address_conflicts.values_mut() {
            if is_kernel(&seen.kind) && seen.at >= since {
                seen.kind = ConflictKind::UnheardPeer(node.into());
            }
        }
    }

    /// Returns whether a foreign host has used an unproven address since the probes of a peer began
    /// that claims the address now.
    pub(super) fn has_newer_answer(&self, address: IpAddr, now: Instant) -> bool {
        let is_newer = |seen: &ConflictState| {
            seen.kind == ConflictKind::ForeignHost && now.since(seen.at) < PROBING_STAGGER
        };
        self.address_conflicts.get(&address).is_some_and(is_newer)
    }

    /// Ends the conflict about an address, because a peer has claimed it: the peer has probed the
    /// address and found it free, or the address was proven before.
    pub(super) fn end_contest(&mut self, address: IpAddr) {
        self.address_conflicts.remove(&address);
        let state = self.units.get_mut(&address);
        if let Some(pending_claim) = state.and_then(|state| state.pending_claim.as_mut()) {
            pending_claim.conflict_hold_down_until = None;
        }
    }

    /// Ends the conflict about an address that this node has left to a host, because the host does
    /// not reply any more. A kernel of a peer remains reported.
    pub(super) fn end_left_conflict(&mut self, address: IpAddr) {
        if self.address_conflicts.get(&address).is_some_and(ConflictState::is_left) {
            self.address_conflicts.remove(&address);
        }
    }

    pub(super) fn expire_conflicts(&mut self, now: Instant) {
        let Self { address_conflicts, units, .. } = self;
        address_conflicts.retain(|address, seen| {
            now.since(seen.at) < ADDRESS_CONFLICT_LIFETIME && units.contains_key(address)
        });
    }

    /// Records a conflict for each address of a failed peer for which a device still replies.
    /// Traffic for such an address may therefore not reach the new owner.
    pub(super) fn note_proxied(
        &mut self,
        node: &str,
        mac: Mac,
        addresses: &[IpAddr],
        now: Instant,
    ) {
        for address in addresses {
            self.record_conflict(*address, mac, ConflictKind::ProxyOfFailedPeer(node.into()), now);
        }
    }
}

impl UnitState {
    fn leave_to_foreign_host(&mut self, until: Instant) {
        self.is_proven = false;
        let pending_claim = self.pending_claim();
        (pending_claim.probes, pending_claim.pending, pending_claim.conflict_hold_down_until) =
            (None, None, Some(until));
    }
}
