//! Effects of the peers' claims and releases: new owners, conflicts to settle, and announcements
//! that this node must repeat. Part of the ownership of one interface.

use std::net::IpAddr;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use ferrolb_proto::Instant;
use ferrolb_proto::wire::Mac;
use ferrolb_proto::wire::hello::{Body, Claim};

use super::{Ownership, View};
use crate::claim::Output;
use crate::claim::claim_sets::SetChanges;
use crate::claim::membership::EarlierEpoch;

/// Maximum duration of a handover. If a peer releases an address that this node has owned for
/// longer, there were two owners.
const HAND_OVER: Duration = Duration::from_millis(100);
/// Maximum number of addresses that one call of the machine announces again, and maximum number of
/// conflicts that it settles. The driver handles frames before the next call.
pub(super) const ADDRESSES_PER_TURN_MAX: usize = 512;
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
        self.dirty.addresses.extend(restated);
        // The claims of unknown releases were lost.
        self.on_unclaimed(released.into_iter().chain(unknown), view);
        if missed {
            self.announce_all(true, view);
        }
        self.on_claims(node, body.claims(), matches!(body, Body::Claim(_)), view);
    }

    /// Handles a new peer, or a new epoch of a peer. `before` is the state of its earlier epoch,
    /// and `claims` are the addresses that it claimed then.
    pub(in crate::claim) fn on_join(
        &mut self,
        before: Option<EarlierEpoch>,
        claims: Vec<IpAddr>,
        view: View<'_>,
    ) {
        self.dirty.waiting = true;
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
        self.dirty.waiting = true;
        self.correct_conflicts(node, last_frame);
        let copy = view.sets.copy(node).into_iter();
        let claims: Vec<_> = copy.flat_map(|copy| copy.claims().keys()).copied().collect();
        if let Some(mac) = proxy.filter(|_| !claims.is_empty()) {
            self.counts.proxied_failures += 1;
            self.note_proxied(node, mac, &claims, view.now);
        }
        let known = claims.iter().filter(|address| self.units.contains_key(*address));
        // `append` of sorted addresses takes much less time than single inserts.
        let owner: Arc<str> = node.into();
        let entry = |address: &IpAddr| (*address, (Arc::clone(&owner), last_frame));
        self.unowned.append(&mut known.map(entry).collect());
        self.on_unclaimed(claims, view);
    }

    /// Handles the claims in a frame, which may repeat earlier ones. See
    /// [`Self::resolve_conflicts`] for `is_answer`.
    fn on_claims(&mut self, node: &str, claims: &[Claim], is_answer: bool, view: View<'_>) {
        let addresses = claims.iter().map(|claim| claim.address);
        let both: Vec<_> = addresses.filter(|address| view.owned().contains_key(address)).collect();
        self.resolve_conflicts(node, &both, is_answer, view);
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
        self.dirty.mark(&addresses);
        for address in addresses {
            // The frame of a new owner may still be on its way, so the wait for it begins now.
            if let Some(state) = self.units.get_mut(&address) {
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
}
