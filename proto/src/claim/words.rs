//! What the other speakers' claims, releases and lists change in our picture of what they hold.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use super::peers::ASK_EVERY;
use super::{CLAIMS_PER_PEER_MAX, Claims, Output};
use crate::Instant;
use crate::wire::hello::Body;

/// Who has held an address for so long did not get it by the hand-over that is just being heard of.
const HAND_OVER: Duration = Duration::from_millis(100);

/// A full list of which some parts have come.
#[derive(Debug)]
pub(super) struct Parts {
    generation: u32,
    count: u16,
    seen: BTreeSet<u16>,
    addresses: BTreeSet<IpAddr>,
}

/// First it is settled who keeps what: whoever is about to yield had better not announce anything.
const REFRESH_ALL_AFTER: Duration = Duration::from_millis(60);
/// All that is held is announced again at most this often, however many come back.
const REFRESH_ALL_EVERY: Duration = Duration::from_secs(1);

impl Claims {
    /// A hello of the known generation restates all claims.
    pub(super) fn on_hello(&mut self, node: &str, generation: u32, now: Instant) {
        let Some(peer) = self.peers.get_mut(node) else { return };
        if generation == 0 && peer.generation != Some(0) {
            self.on_empty_set(node, now);
        }
        let Some(peer) = self.peers.get_mut(node) else { return };
        if peer.generation != Some(generation) {
            peer.missed |= peer.generation.is_some();
            self.ask(node, now);
            return;
        }
        peer.restated = now;
        if std::mem::take(&mut peer.missed) {
            // All empty sets look alike: it took something and gave it up, and we heard of neither.
            self.refresh_all(true, now);
        }
        let Some(peer) = self.peers.get(node) else { return };
        // The claim of a deaf node beside ours was settled when it came, and is each time that
        // it lists it.
        if !self.own.held.is_empty() && !peer.flags.deaf {
            let both: Vec<_> = peer.claims.iter().copied().filter(|a| self.own.held.contains_key(a)).collect();
            self.conflict(node, &both, now);
        }
    }

    /// A peer's claim set is, or a moment ago was, empty.
    fn on_empty_set(&mut self, node: &str, now: Instant) {
        let Some(peer) = self.peers.get_mut(node) else { return };
        peer.generation = Some(0);
        peer.exhume();
        let gone = std::mem::take(&mut peer.claims);
        self.unclaimed(node, gone, now);
    }

    /// A peer no longer claims what it claimed, for whatever reason. If we hold it too, there were two of us, perhaps on two
    /// sides of something that has healed: who asked the other one has to be told.
    pub(super) fn unclaimed(&mut self, node: &str, addresses: impl IntoIterator<Item = IpAddr>, now: Instant) {
        for address in addresses {
            self.own.dirty.addresses.insert(address);
            self.forget_insistence(node, address);
            if self.own.held.get(&address).is_some_and(|since| now.since(*since) >= HAND_OVER) {
                self.outputs.push_back(Output::Refresh(address));
            }
        }
    }

    /// Notes a change of a peer's claim set. If there was one before it that we missed, the whole set is asked for; and what came
    /// and went unheard may have turned clients away from us.
    fn follow(&mut self, node: &str, before: u32, generation: u32, now: Instant) {
        let Some(peer) = self.peers.get_mut(node) else { return };
        if peer.follow(before, generation, now) {
            return;
        }
        if peer.generation.is_some() {
            self.refresh_all(true, now);
        }
        self.ask(node, now);
    }

    /// All that is held is announced again soon: someone may have answered for some of it, and we did not hear them. With the whole
    /// series of announcements, or once.
    pub(super) fn refresh_all(&mut self, series: bool, now: Instant) {
        if self.own.held.is_empty() {
            return;
        }
        let soonest = now + REFRESH_ALL_AFTER;
        let at = self.own.refreshed.map_or(soonest, |last| soonest.max(last + REFRESH_ALL_EVERY));
        let (at, series) = self.own.refresh.map_or((at, series), |(due, other)| (due, series || other));
        self.own.refresh = Some((at, series));
    }

    pub(super) fn refresh_if_due(&mut self, now: Instant) {
        if let Some((_, series)) = self.own.refresh.take_if(|(at, _)| now >= *at) {
            self.own.refreshed = Some(now);
            let held = self.own.held.keys().copied();
            self.outputs.extend(held.map(if series { Output::Refresh } else { Output::Defend }));
        }
    }

    pub(super) fn on_claim(
        &mut self,
        node: &str,
        (before, generation): (u32, u32),
        addresses: &[IpAddr],
        keeps: &[Duration],
        now: Instant,
    ) {
        let Some(peer) = self.peers.get_mut(node) else { return };
        if before == 0 && peer.generation != Some(generation) && !peer.has_gone_on(generation) {
            self.on_empty_set(node, now);
        }
        let Some(peer) = self.peers.get(node) else { return };
        let new: Vec<_> = addresses.iter().copied().filter(|address| !peer.claims.contains(address)).collect();
        self.note_moves(node, &new, now);
        let Some(peer) = self.peers.get_mut(node) else { return };
        if peer.released == Some(before) {
            // The release before this is known, so its repeat is none.
            peer.released = Some(generation);
        }
        self.counts.over_limit += peer.add(addresses);
        peer.keep(addresses, keeps, now);
        for address in addresses {
            peer.refused.remove(address);
        }
        self.follow(node, before, generation, now);
        let both: Vec<_> = addresses.iter().copied().filter(|a| self.own.held.contains_key(a)).collect();
        self.conflict(node, &both, now);
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
            // The repeat says all that was released of late: it is none where we may have missed a release before this one.
            let follows = peer.generation == Some(before) || peer.released == Some(before);
            peer.released = follows.then_some(generation);
        } else if peer.released == Some(generation) {
            return;
        }
        let (mut gone, mut unheard) = (Vec::new(), false);
        for address in addresses {
            peer.keeps.remove(address);
            if peer.claims.remove(address) {
                gone.push(*address);
            } else {
                // We never heard that it claimed this.
                unheard |= self.own.held.contains_key(address);
                self.own.dirty.addresses.insert(*address);
            }
        }
        if let Some(until) = refused_until {
            let room = CLAIMS_PER_PEER_MAX.saturating_sub(peer.refused.len());
            peer.refused.extend(addresses.iter().take(room).map(|address| (*address, until)));
        }
        self.follow(node, before, generation, now);
        self.unclaimed(node, gone, now);
        if unheard {
            self.refresh_all(true, now);
        }
    }

    /// Asks a peer for its whole claim set, unless it was asked a moment ago; its next hello asks again.
    pub(super) fn ask(&mut self, node: &str, now: Instant) {
        let Some(peer) = self.peers.get_mut(node) else { return };
        if peer.asked.is_none_or(|at| now.since(at) >= ASK_EVERY) {
            peer.asked = Some(now);
            let mac = peer.mac;
            self.send(Some(mac), Body::Ask, now);
        }
    }

    pub(super) fn on_ask(&mut self, node: &str, now: Instant) {
        let Some(peer) = self.peers.get_mut(node) else { return };
        if peer.told.is_none_or(|at| now.since(at) >= ASK_EVERY) {
            peer.told = Some(now);
            let mac = peer.mac;
            self.list(Some(mac), now);
        }
    }

    pub(super) fn on_list(
        &mut self,
        node: &str,
        generation: u32,
        (part, count): (u16, u16),
        addresses: &[IpAddr],
        keeps: &[Duration],
        now: Instant,
    ) {
        let Some(peer) = self.peers.get_mut(node) else { return };
        peer.keep(addresses, keeps, now);
        let fresh = || Parts { generation, count, seen: BTreeSet::new(), addresses: BTreeSet::new() };
        let same = peer.parts.take().filter(|parts| (parts.generation, parts.count) == (generation, count));
        let mut parts = same.unwrap_or_else(fresh);
        let room = CLAIMS_PER_PEER_MAX.saturating_sub(parts.addresses.len());
        self.counts.over_limit += addresses.len().saturating_sub(room) as u64;
        parts.addresses.extend(addresses.iter().take(room));
        parts.seen.insert(part);
        if parts.seen.len() < usize::from(count) {
            peer.parts = Some(parts);
            return;
        }
        // What is in no part is released.
        let new: Vec<_> = parts.addresses.difference(&peer.claims).copied().collect();
        self.note_moves(node, &new, now);
        let Some(peer) = self.peers.get_mut(node) else { return };
        let before = std::mem::replace(&mut peer.claims, parts.addresses);
        let gone: Vec<_> = before.difference(&peer.claims).copied().collect();
        // More than one change was missed: a claim and its release may be among them.
        let missed = peer.generation.is_some_and(|known| generation.wrapping_sub(known) > 1);
        peer.generation = Some(generation);
        peer.exhume();
        peer.missed = false;
        peer.restated = now;
        peer.refused.retain(|address, _| !peer.claims.contains(address));
        peer.keeps.retain(|address, _| peer.claims.contains(address));
        let both: Vec<_> = peer.claims.iter().copied().filter(|a| self.own.held.contains_key(a)).collect();
        self.unclaimed(node, gone, now);
        if missed {
            self.refresh_all(true, now);
        }
        self.conflict(node, &both, now);
    }
}
