//! Replication of the peers' claim sets: handles their hellos, claims, releases and lists. Part of
//! the claim machine of one interface.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use super::peers::LIST_REQUEST_INTERVAL;
use super::{CLAIMS_PER_PEER_MAX, ClaimMachine, Output};
use crate::Instant;
use crate::wire::hello::Body;

/// Minimum time for which this node must have owned an address before a peer's release of the
/// address means that there were two owners. After a shorter time, the release belongs to the
/// handover to this node.
const HAND_OVER: Duration = Duration::from_millis(100);

/// Maximum number of addresses that one call of the machine announces again, and maximum number of
/// conflicts that it settles. The driver handles frames before the next call.
const ADDRESSES_PER_TURN_MAX: usize = 512;

/// Parts of a peer's claim list that have arrived, until the list is complete.
#[derive(Debug)]
pub(super) struct Parts {
    generation: u32,
    count: u16,
    seen: BTreeSet<u16>,
    addresses: BTreeSet<IpAddr>,
}

/// Delay before an announcement of all owned addresses. Conflicts are settled first, because a node
/// that is about to yield must not announce.
const REFRESH_ALL_AFTER: Duration = Duration::from_millis(60);
/// Minimum interval between announcements of all owned addresses, however many peers return.
const REFRESH_ALL_EVERY: Duration = Duration::from_secs(1);

impl ClaimMachine {
    /// Handles a peer's hello. A hello with the generation that this node knows confirms all claims
    /// of the peer.
    pub(super) fn on_hello(&mut self, node: &str, generation: u32, now: Instant) {
        let Some(peer) = self.peers.get_mut(node) else { return };
        if generation == 0 && peer.generation != Some(0) {
            self.on_empty_set(node, now);
        }
        let Some(peer) = self.peers.get_mut(node) else { return };
        if peer.generation != Some(generation) {
            peer.missed |= peer.generation.is_some();
            self.request_list(node, now);
            return;
        }
        peer.confirmed_at = now;
        if std::mem::take(&mut peer.missed) {
            // The peer claimed and released an address, and this node missed both frames. The
            // generation does not show this, because every empty set has generation 0.
            self.refresh_all(true, now);
        }
        let Some(peer) = self.peers.get(node) else { return };
        // A conflict with an isolated peer was settled when its claim arrived, and is settled again
        // with each list that it sends.
        if !peer.owned_by_both.is_empty() && !peer.flags.isolated {
            self.check_conflicts(node);
        }
    }

    /// Clears the claims of a peer whose set is empty, or was empty just before the current change.
    fn on_empty_set(&mut self, node: &str, now: Instant) {
        let Some(peer) = self.peers.get_mut(node) else { return };
        peer.generation = Some(0);
        peer.claims.drop_saved(&mut self.claimants);
        let released = peer.claims.clear(&mut self.claimants);
        self.on_unclaimed(node, released, now);
    }

    /// Handles addresses that a peer no longer claims, for whatever reason.
    ///
    /// If this node owns such an address, too, there were two owners, perhaps on two sides of a
    /// healed partition. Clients of the other owner need a new announcement.
    pub(super) fn on_unclaimed(
        &mut self,
        node: &str,
        addresses: impl IntoIterator<Item = IpAddr>,
        now: Instant,
    ) {
        let addresses: Vec<_> = addresses.into_iter().collect();
        self.own.dirty.mark(&addresses);
        for address in addresses {
            self.forget_conflicts_won(node, address);
            if self.own.owned.get(&address).is_some_and(|since| now.since(*since) >= HAND_OVER) {
                self.outputs.push_back(Output::AnnounceSeries(address));
            }
        }
    }

    /// Applies a change of a peer's claim set from generation `before` to `generation`.
    ///
    /// If this node missed an earlier change, it requests the whole set. The missed claims may have
    /// diverted clients from this node, so it also announces its addresses again.
    fn apply_change(&mut self, node: &str, before: u32, generation: u32, now: Instant) {
        let Some(peer) = self.peers.get_mut(node) else { return };
        if peer.apply_change(before, generation, now) {
            return;
        }
        if peer.generation.is_some() {
            self.refresh_all(true, now);
        }
        self.request_list(node, now);
    }

    /// Schedules an announcement of all owned addresses, because a peer may have announced some of
    /// them unnoticed. `series` is true for the full series of announcements, false for one
    /// announcement per address.
    pub(super) fn refresh_all(&mut self, series: bool, now: Instant) {
        if self.own.owned.is_empty() {
            return;
        }
        let soonest = now + REFRESH_ALL_AFTER;
        let at = self.own.refreshed.map_or(soonest, |last| soonest.max(last + REFRESH_ALL_EVERY));
        let (at, series) =
            self.own.refresh.map_or((at, series), |(due, other)| (due, series || other));
        self.own.refresh = Some((at, series));
    }

    /// Announces all owned addresses again if that is due. If this is too much for one call, the
    /// next tick continues.
    pub(super) fn refresh_if_due(&mut self, now: Instant) {
        if let Some((_, series)) = self.own.refresh.take_if(|(at, _)| now >= *at) {
            self.own.refreshed = Some(now);
            self.own.refreshing = Some((None, series));
        }
        let Some((after, series)) = self.own.refreshing.take() else { return };
        let addresses = self.own.owned.after(after.as_ref()).map(|(address, _)| *address);
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
            let Some(peer) = self.peers.get_mut(&name) else { continue };
            let next: Vec<_> =
                peer.owned_by_both.range((after, Bound::Unbounded)).take(room).copied().collect();
            let (both, others): (Vec<_>, Vec<_>) = next.iter().partition(|address| {
                peer.claims.contains(address) && self.own.owned.contains_key(address)
            });
            for address in others {
                peer.owned_by_both.remove(&address);
            }
            room -= next.len();
            self.resolve_conflicts(&name, &both, now);
            if let (0, Some(last)) = (room, next.last()) {
                self.conflict_checks.insert(name, Bound::Excluded(*last));
                self.continue_soon(now);
                return;
            }
        }
    }

    /// Records in [`Peer::owned_by_both`] that this node now owns an address.
    ///
    /// [`Peer::owned_by_both`]: super::peers::Peer::owned_by_both
    pub(super) fn note_owned_by_both(&mut self, address: IpAddr) {
        for name in self.claimants.of(address) {
            let peer = self.peers.get_mut(name);
            if let Some(peer) = peer.filter(|peer| peer.claims.contains(&address)) {
                peer.owned_by_both.insert(address);
            }
        }
    }

    /// Schedules the settlement of all conflicts with the claims of a peer.
    fn check_conflicts(&mut self, node: &str) {
        if let Some((name, _)) = self.peers.get_key_value(node) {
            self.conflict_checks.entry(Arc::clone(name)).or_insert(Bound::Unbounded);
        }
    }

    pub(super) fn on_claim(
        &mut self,
        node: &str,
        (before, generation): (u32, u32),
        addresses: &[IpAddr],
        preempt_delays: &[Duration],
        now: Instant,
    ) {
        let Some(peer) = self.peers.get_mut(node) else { return };
        if before == 0
            && peer.generation != Some(generation)
            && !peer.has_newer_generation(generation)
        {
            self.on_empty_set(node, now);
        }
        let Some(peer) = self.peers.get(node) else { return };
        let new: Vec<_> =
            addresses.iter().copied().filter(|address| !peer.claims.contains(address)).collect();
        self.note_moves(&new, now);
        let Some(peer) = self.peers.get_mut(node) else { return };
        if peer.released == Some(before) {
            // This node knows the release before this claim, so a repeat of that release is
            // redundant.
            peer.released = Some(generation);
        }
        self.counts.over_limit += peer.add(addresses, &self.own.owned, &mut self.claimants);
        let changed = peer.set_preempt_delays(addresses, preempt_delays, now);
        self.own.dirty.addresses.extend(changed);
        for address in addresses {
            peer.refused.remove(address);
        }
        self.apply_change(node, before, generation, now);
        let both: Vec<_> =
            addresses.iter().copied().filter(|a| self.own.owned.contains_key(a)).collect();
        self.resolve_conflicts(node, &both, now);
    }

    pub(super) fn on_release(
        &mut self,
        node: &str,
        (before, generation): (u32, u32),
        addresses: &[IpAddr],
        refused_until: Option<Instant>,
        now: Instant,
    ) {
        let Some(peer) = self.peers.get_mut(node) else { return };
        if before != generation {
            // The repeat of a release contains all recent releases. The repeat is redundant only if
            // this node missed no release before this one.
            let follows = peer.generation == Some(before) || peer.released == Some(before);
            peer.released = follows.then_some(generation);
        } else if peer.released == Some(generation) {
            return;
        }
        let (mut released, mut missed_claim) = (Vec::new(), false);
        for address in addresses {
            peer.preempt_delays.remove(address);
            if peer.claims.remove(*address, &mut self.claimants) {
                released.push(*address);
            } else {
                // This node never received the peer's claim for this address.
                missed_claim |= self.own.owned.contains_key(address);
                self.own.dirty.addresses.insert(*address);
            }
        }
        if let Some(until) = refused_until {
            let room = CLAIMS_PER_PEER_MAX.saturating_sub(peer.refused.len());
            peer.refused.extend(addresses.iter().take(room).map(|address| (*address, until)));
        }
        self.apply_change(node, before, generation, now);
        self.on_unclaimed(node, released, now);
        if missed_claim {
            self.refresh_all(true, now);
        }
    }

    /// Requests a peer's whole claim set, unless the latest request is less than
    /// [`LIST_REQUEST_INTERVAL`] old. In that case, the next hello causes a new request.
    pub(super) fn request_list(&mut self, node: &str, now: Instant) {
        let Some(peer) = self.peers.get_mut(node) else { return };
        if peer.list_requested_at.is_none_or(|at| now.since(at) >= LIST_REQUEST_INTERVAL) {
            peer.list_requested_at = Some(now);
            let mac = peer.mac;
            self.send(Some(mac), Body::ListRequest, now);
        }
    }

    pub(super) fn on_list_request(&mut self, node: &str, now: Instant) {
        let Some(peer) = self.peers.get_mut(node) else { return };
        if peer.list_sent_at.is_none_or(|at| now.since(at) >= LIST_REQUEST_INTERVAL) {
            peer.list_sent_at = Some(now);
            let mac = peer.mac;
            self.send_list(Some(mac), now);
        }
    }

    pub(super) fn on_list(
        &mut self,
        node: &str,
        generation: u32,
        (part, count): (u16, u16),
        addresses: &[IpAddr],
        preempt_delays: &[Duration],
        now: Instant,
    ) {
        let Some(peer) = self.peers.get_mut(node) else { return };
        let changed = peer.set_preempt_delays(addresses, preempt_delays, now);
        self.own.dirty.addresses.extend(changed);
        // The claims count before the list is complete, so that each part is little work.
        let is_new = |address: &&IpAddr| !peer.claims.contains(*address);
        let new: Vec<_> = addresses.iter().filter(is_new).copied().collect();
        self.counts.over_limit += peer.add(&new, &self.own.owned, &mut self.claimants);
        let new_parts =
            || Parts { generation, count, seen: BTreeSet::new(), addresses: BTreeSet::new() };
        let same = peer
            .parts
            .take()
            .filter(|parts| (parts.generation, parts.count) == (generation, count));
        let mut parts = same.unwrap_or_else(new_parts);
        let room = CLAIMS_PER_PEER_MAX.saturating_sub(parts.addresses.len());
        parts.addresses.extend(addresses.iter().take(room));
        parts.seen.insert(part);
        let is_complete = parts.seen.len() >= usize::from(count);
        peer.parts = Some(parts);
        self.note_moves(&new, now);
        if is_complete {
            self.on_complete_list(node, now);
            self.check_conflicts(node);
        }
    }

    /// Handles the last part of a peer's claim list: the peer has released every address that is in
    /// none of the parts.
    fn on_complete_list(&mut self, node: &str, now: Instant) {
        let Some(peer) = self.peers.get_mut(node) else { return };
        let Some(Parts { generation, addresses, .. }) = peer.parts.take() else { return };
        let released = peer.claims.remove_others(&addresses, &mut self.claimants);
        // This node missed more than one change, perhaps a claim and its release.
        let missed = peer.generation.is_some_and(|known| generation.wrapping_sub(known) > 1);
        // If released claims took the room of others, the next hello requests the list again.
        peer.generation = (peer.claims.len() == addresses.len()).then_some(generation);
        peer.claims.drop_saved(&mut self.claimants);
        peer.missed = false;
        peer.confirmed_at = now;
        peer.refused.retain(|address, _| !peer.claims.contains(address));
        peer.preempt_delays.retain(|address, _| peer.claims.contains(address));
        self.on_unclaimed(node, released, now);
        if missed {
            self.refresh_all(true, now);
        }
    }
}
