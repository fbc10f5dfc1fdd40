//! Effects of the peers' claims and releases: new owners, conflicts to settle, and announcements
//! that this node must repeat. Part of the claim machine of one interface.

use std::net::IpAddr;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use super::claim_sets::SetChanges;
use super::{ClaimMachine, Output};
use crate::Instant;
use crate::wire::hello::{Body, Claim};

/// Maximum duration of a handover. If a peer releases an address that this node has owned for
/// longer, there were two owners.
const HAND_OVER: Duration = Duration::from_millis(100);
/// Maximum number of addresses that one call of the machine announces again, and maximum number of
/// conflicts that it settles. The driver handles frames before the next call.
const ADDRESSES_PER_TURN_MAX: usize = 512;
/// Delay before an announcement of all owned addresses. Conflicts are settled first, because a node
/// that is about to release addresses must not announce them.
const REFRESH_ALL_AFTER: Duration = Duration::from_millis(60);
/// Minimum interval between announcements of all owned addresses. The interval doubles with each
/// announcement that follows soon, up to the maximum, because a peer may fail and return over and
/// over.
const REFRESH_ALL_EVERY: Duration = Duration::from_secs(1);
const REFRESH_ALL_EVERY_MAX: Duration = Duration::from_secs(8);

impl ClaimMachine {
    /// Handles the changes of a peer's claim set by one frame.
    pub(super) fn on_set_changes(
        &mut self,
        node: &str,
        body: &Body,
        changes: SetChanges,
        now: Instant,
    ) {
        let SetChanges { claimed, restated, released, unknown, missed, over_limit } = changes;
        self.counts.over_limit += over_limit;
        self.note_moves(&claimed, now);
        self.own.dirty.addresses.extend(restated);
        // The claims of unknown releases were lost.
        self.on_unclaimed(released.into_iter().chain(unknown), now);
        if missed {
            self.refresh_all(true, now);
        }
        self.on_claims(node, body.claims(), matches!(body, Body::Claim(_)), now);
        if self.sets.requests_list(node, now) {
            self.request_list(node, now);
        } else if matches!(body, Body::Hello { .. }) {
            self.check_conflicts(node);
        }
    }

    /// Handles the claims in a frame, which may repeat earlier ones. See
    /// [`Self::resolve_conflicts`] for `is_answer`.
    fn on_claims(&mut self, node: &str, claims: &[Claim], is_answer: bool, now: Instant) {
        let addresses = claims.iter().map(|claim| claim.address);
        let both: Vec<_> = addresses.filter(|address| self.owned().contains_key(address)).collect();
        self.resolve_conflicts(node, &both, is_answer, now);
    }

    /// Handles addresses that a peer no longer claims, for whatever reason.
    ///
    /// If this node owns such an address, too, there were two owners, perhaps on two sides of a
    /// healed partition. Clients of the other owner need a new announcement.
    pub(super) fn on_unclaimed(
        &mut self,
        addresses: impl IntoIterator<Item = IpAddr>,
        now: Instant,
    ) {
        let addresses: Vec<_> = addresses.into_iter().collect();
        self.own.dirty.mark(&addresses);
        for address in addresses {
            // The frame of a new owner may still be on its way, so the wait for it begins now.
            if let Some(state) = self.units.get_mut(&address) {
                state.restart_wait();
            }
            if self.owned().get(&address).is_some_and(|owned| now.since(owned.since) >= HAND_OVER) {
                self.outputs.push_back(Output::AnnounceSeries(address));
            }
        }
    }

    /// Schedules an announcement of all owned addresses, because a peer may have announced some of
    /// them unnoticed. `series` is true for the full series of announcements, false for one
    /// announcement per address.
    pub(super) fn refresh_all(&mut self, series: bool, now: Instant) {
        if self.owned().is_empty() {
            return;
        }
        let soonest = now + REFRESH_ALL_AFTER;
        let at = self.own.refreshed.map_or(soonest, |(last, pause)| soonest.max(last + pause));
        let (at, series) =
            self.own.refresh.map_or((at, series), |(due, other)| (due, series || other));
        self.own.refresh = Some((at, series));
    }

    /// Announces all owned addresses again if that is due. If this is too much for one call, the
    /// next tick continues.
    pub(super) fn refresh_if_due(&mut self, now: Instant) {
        if let Some((_, series)) = self.own.refresh.take_if(|(at, _)| now >= *at) {
            let recent = self.own.refreshed.filter(|(last, pause)| now < *last + *pause * 2);
            let pause = recent.map_or(REFRESH_ALL_EVERY, |(_, pause)| pause * 2);
            self.own.refreshed = Some((now, pause.min(REFRESH_ALL_EVERY_MAX)));
            self.own.refreshing = Some((None, series));
        }
        let Some((after, series)) = self.own.refreshing.take() else { return };
        let addresses = self.owned().after(after.as_ref()).map(|(address, _)| *address);
        let addresses: Vec<_> = addresses.take(ADDRESSES_PER_TURN_MAX).collect();
        let again = if series { Output::AnnounceSeries } else { Output::Defend };
        self.outputs.extend(addresses.iter().copied().map(again));
        if let (ADDRESSES_PER_TURN_MAX, Some(last)) = (addresses.len(), addresses.last()) {
            self.own.refreshing = Some((Some(*last), series));
            self.continue_soon(now);
        }
    }

    /// Settles the conflicts with the claims of the peers that [`Self::check_conflicts`] has named.
    /// If this is too much for one call, the next tick continues.
    pub(super) fn settle_conflicts(&mut self, now: Instant) {
        let mut room = ADDRESSES_PER_TURN_MAX;
        while let Some((name, after)) = self.conflict_checks.pop_first() {
            let Some(copy) = self.sets.copy(&name) else { continue };
            let next: Vec<_> =
                copy.shared().range((after, Bound::Unbounded)).take(room).copied().collect();
            room -= next.len();
            self.resolve_conflicts(&name, &next, false, now);
            if let (0, Some(last)) = (room, next.last()) {
                self.conflict_checks.insert(name, Bound::Excluded(*last));
                self.continue_soon(now);
                return;
            }
        }
    }

    /// Schedules the settlement of all conflicts with the claims of a peer, if its set is known.
    ///
    /// A conflict with an isolated peer is settled when a claim or a list of the peer arrives.
    fn check_conflicts(&mut self, node: &str) {
        let Some((name, peer)) = self.peers.get_key_value(node) else { return };
        let copy = self.sets.copy(node).filter(|copy| copy.is_complete());
        if copy.is_some_and(|copy| !copy.shared().is_empty()) && !peer.flags.isolated {
            self.conflict_checks.entry(Arc::clone(name)).or_insert(Bound::Unbounded);
        }
    }

    fn request_list(&mut self, node: &str, now: Instant) {
        let mac = self.peers.get(node).map(|peer| peer.mac);
        if mac.is_some() {
            self.send(mac, Body::ListRequest, now);
        }
    }
}
