//! Effects of the peers' claims and releases: new owners, conflicts to settle, and announcements
//! that this node must repeat, and doubts. Part of the ownership of one interface.

use std::net::IpAddr;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use ferrolb_proto::Instant;
use ferrolb_proto::wire::Mac;
use ferrolb_proto::wire::hello::Body;

use super::{ADDRESSES_PER_TURN_MAX, ConflictKind, Ownership, View};
use crate::claim::Output;
use crate::claim::claim_sets::SetChanges;
use crate::claim::membership::EarlierEpoch;

/// Maximum duration of a handover. If a peer releases an address that this node has owned for
/// longer, there were two owners.
const HAND_OVER: Duration = Duration::from_millis(100);
impl Ownership {
    /// Handles the changes of a peer's claim set by one frame.
    pub(in crate::claim) fn on_set_changes(
        &mut self,
        node: &str,
        body: &Body,
        changes: SetChanges,
        view: View<'_>,
    ) {
        let SetChanges { claimed, restated, released, unknown, missed, over_limit } = changes;
        self.counts.over_limit += over_limit;
        self.note_moves(&claimed, view.now);
        restated.into_iter().for_each(|address| self.units.mark(address));
        // The claims of unknown releases were lost.
        self.on_unclaimed(released.into_iter().chain(unknown), view);
        if missed {
            self.announce_all(true, view);
        }
        let addresses = body.claims().iter().map(|claim| claim.address);
        let both: Vec<_> = addresses.filter(|address| view.owned().contains_key(address)).collect();
        self.resolve_conflicts(node, &both, matches!(body, Body::Claim(_)), view);
    }

    /// Handles a new peer, or a new epoch of a peer. `before` is the state of its earlier epoch,
    /// and `claims` are the addresses that it claimed then.
    pub(in crate::claim) fn on_join(
        &mut self,
        before: Option<EarlierEpoch>,
        claims: Vec<IpAddr>,
        view: View<'_>,
    ) {
        self.units.mark_waiting();
        let Some(before) = before else { return };
        if !before.is_leaving {
            // In its previous epoch, the peer may have been cut off from this node, have announced
            // some of this node's addresses, and then have failed.
            self.announce_all(false, view);
        }
        if !before.failed {
            self.on_unclaimed(claims, view);
        }
    }

    /// Handles the failure of a peer, whose latest frame arrived at `last_frame`. `proxy` is its
    /// hardware address if a device has replied to ARP for it.
    pub(in crate::claim) fn on_failure(
        &mut self,
        node: &str,
        last_frame: Instant,
        proxy: Option<Mac>,
        view: View<'_>,
    ) {
        self.units.mark_waiting();
        self.correct_conflicts(node, last_frame);
        let copy = view.sets.copy(node).into_iter();
        let claims: Vec<_> = copy.flat_map(|copy| copy.claims().keys()).copied().collect();
        if let Some(mac) = proxy.filter(|_| !claims.is_empty()) {
            self.counts.proxied_failures += 1;
            // Traffic for these addresses may not reach the new owners.
            let kind = ConflictKind::ProxyOfFailedPeer(node.into());
            for address in &claims {
                self.record_conflict(*address, mac, &kind, view.now);
            }
        }
        let known = claims.iter().copied().filter(|address| self.units.contain(*address));
        self.rule.owner_failed(&node.into(), known, last_frame);
        self.on_unclaimed(claims, view);
    }

    /// Handles addresses that a peer no longer claims, for whatever reason.
    ///
    /// If this node owns such an address, too, there were two owners, perhaps on two sides of a
    /// healed partition. Clients of the other owner need a new announcement.
    pub(in crate::claim) fn on_unclaimed(
        &mut self,
        addresses: impl IntoIterator<Item = IpAddr>,
        view: View<'_>,
    ) {
        let addresses: Vec<_> = addresses.into_iter().collect();
        self.units.mark_each(&addresses);
        for address in addresses {
            // The frame of a new owner may still be on its way, so the wait for it begins now.
            if let Some(state) = self.units.get_mut(address) {
                state.restart_wait();
            }
            if view
                .owned()
                .get(&address)
                .is_some_and(|owned| view.now.since(owned.since) >= HAND_OVER)
            {
                self.output(Output::AnnounceSeries(address));
            }
        }
    }

    /// Settles the conflicts with the claims of the peers that [`Self::check_conflicts`] has named.
    /// If this is too much for one call, the next tick continues.
    ///
    /// Returns whether the work is complete.
    pub(in crate::claim) fn settle_conflicts(&mut self, view: View<'_>) -> bool {
        let mut room = ADDRESSES_PER_TURN_MAX;
        while let Some((name, after)) = self.conflict_checks.pop_first() {
            let Some(copy) = view.sets.copy(&name) else { continue };
            let next: Vec<_> =
                copy.shared().range((after, Bound::Unbounded)).take(room).copied().collect();
            room -= next.len();
            self.resolve_conflicts(&name, &next, false, view);
            if let (0, Some(last)) = (room, next.last()) {
                self.conflict_checks.insert(name, Bound::Excluded(*last));
                return false;
            }
        }
        true
    }

    /// Schedules the settlement of all conflicts with the claims of a peer, if its set is known.
    ///
    /// A conflict with an isolated peer is settled when a claim or a list of the peer arrives.
    pub(in crate::claim) fn check_conflicts(&mut self, node: &str, view: View<'_>) {
        let Some((name, flags)) = view.members.peers().get_live(node) else { return };
        let copy = view.sets.copy(node).filter(|copy| copy.is_complete());
        if copy.is_some_and(|copy| !copy.shared().is_empty()) && !flags.isolated {
            self.conflict_checks.entry(Arc::clone(name)).or_insert(Bound::Unbounded);
        }
    }

    /// Handles a peer's claim for addresses that this node owns, too: the node with the better
    /// stated rank keeps the addresses.
    ///
    /// `is_answer` is true if the peer has just sent a CLAIM for the addresses. Without that, this
    /// node releases no address that it has just taken: the peer may have released it meanwhile.
    fn resolve_conflicts(
        &mut self,
        peer: &str,
        addresses: &[IpAddr],
        is_answer: bool,
        view: View<'_>,
    ) {
        for address in addresses {
            let Some(state) = self.units.get_mut(*address) else { continue };
            self.counts.conflicts += 1;
            if self.rule.settle_conflict(peer, state, is_answer, view) {
                self.output(Output::AnnounceSeries(*address));
            }
            self.units.mark_changed(*address);
        }
    }

    /// Handles the doubts of a peer about addresses that this node owns. Until this node's view of
    /// a unit changes, the node states a rank with which any candidate may take the unit. A peer
    /// whose own view was outdated has the current one long before the doubt ends.
    pub(in crate::claim) fn on_doubts(&mut self, addresses: &[IpAddr], view: View<'_>) {
        for address in addresses.iter().filter(|address| view.owned().contains_key(*address)) {
            if let Some(state) = self.units.get_mut(*address) {
                let until = view.now + state.doubt_lifetime();
                state.pending_claim().doubted_until = Some(until);
                self.units.mark(*address);
            }
        }
    }

    /// Records that a peer claims addresses that it did not claim before.
    pub(in crate::claim) fn note_moves(&mut self, addresses: &[IpAddr], now: Instant) {
        for address in addresses {
            self.rule.forget_failed_owner(*address);
            self.units.mark(*address);
            let state = self.units.get_mut(*address);
            // The peer has probed the address and found it free, or the address was proven before.
            let is_proven = state.as_ref().is_some_and(|state| state.is_proven)
                || !self.conflicts.have_newer_answer(*address, now);
            if is_proven {
                self.conflicts.end(*address);
            }
            if let Some(state) = state {
                if is_proven {
                    state.end_hold_down();
                }
                state.record_other_owner(now);
                state.is_proven = is_proven;
            }
        }
    }
}
