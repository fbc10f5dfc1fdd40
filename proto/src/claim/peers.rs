//! The other speakers on the wire: what they claim, whether they live. Death is suspected by missed hellos and confirmed
//! by challenges that stay unanswered.
//!
//! A node, or a new epoch of one, is believed only once it has answered a challenge: signed frames can be recorded and
//! played back, an answer to a new number cannot.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use super::{CLAIM_LIFETIME, CLAIMS_PER_PEER_MAX, Claims, Config, Output, PEERS_MAX};
use crate::Instant;
use crate::wire::Mac;
use crate::wire::hello::{Body, Flags, Frame};

/// A receiver that is behind asks for the full list, and is answered, at most this often; a stranger is challenged likewise.
const ASK_EVERY: Duration = Duration::from_millis(40);
/// How long the answer to a stranger's challenge is waited for.
const STRANGER_LIFETIME: Duration = Duration::from_secs(1);
/// How many strangers may be under challenge at once; more are counted and ignored.
const STRANGERS_MAX: usize = 256;
/// Between the two challenges of a suspicion.
const CHALLENGE_EVERY: Duration = Duration::from_millis(20);
/// How long after a suspicion silence means death.
const DEATH_AFTER: Duration = Duration::from_millis(40);
/// How long a peer that is silent, but whose address something still answers by ARP, is asked on.
const PROXY_PATIENCE: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Peer {
    pub(super) mac: Mac,
    pub(super) flags: Flags,
    pub(super) claims: BTreeSet<IpAddr>,
    /// Addresses it counts itself out for, and until when.
    pub(super) refused: BTreeMap<IpAddr, Instant>,
    /// Kept when dead, so that replayed frames of it stay stale.
    pub(super) dead: bool,
    epoch: u64,
    clock: u64,
    interval: Duration,
    heard: Instant,
    /// The generation of the claims we know; none: we know that we do not know them all.
    generation: Option<u32>,
    restated: Instant,
    suspicion: Option<Suspicion>,
    asked: Option<Instant>,
    told: Option<Instant>,
    parts: Option<Parts>,
}

/// A node, or a new epoch of a known one, that has yet to answer.
#[derive(Debug)]
pub(super) struct Stranger {
    nonce: u64,
    since: Instant,
    challenged: Instant,
}

#[derive(Debug)]
struct Suspicion {
    since: Instant,
    next: Instant,
    challenges: u32,
    answered_by_arp: bool,
}

/// A full list of which some parts have come.
#[derive(Debug)]
struct Parts {
    generation: u32,
    count: u16,
    seen: BTreeSet<u16>,
    addresses: BTreeSet<IpAddr>,
}

impl Peer {
    fn new(source: Mac, frame: &Frame, now: Instant) -> Self {
        Self {
            mac: source,
            flags: frame.flags,
            claims: BTreeSet::new(),
            refused: BTreeMap::new(),
            dead: false,
            epoch: frame.epoch,
            clock: frame.clock,
            interval: frame.interval,
            heard: now,
            generation: None,
            restated: now,
            suspicion: None,
            asked: None,
            told: None,
            parts: None,
        }
    }

    pub(super) fn deadline(&self, config: &Config) -> Option<Instant> {
        if self.dead {
            return None;
        }
        let suspicious = self.heard + self.interval * config.hello_misses;
        let suspicion = self.suspicion.as_ref().map_or(suspicious, |suspicion| suspicion.next);
        let restated = (!self.claims.is_empty()).then_some(self.restated + CLAIM_LIFETIME);
        restated.into_iter().chain(self.refused.values().copied()).chain([suspicion]).min()
    }

    /// Not newer than what was heard before: reordered or replayed. No two frames of a sender carry one clock.
    const fn is_stale(&self, frame: &Frame) -> bool {
        frame.clock <= self.clock
    }

    fn add(&mut self, addresses: &[IpAddr]) -> u64 {
        let room = CLAIMS_PER_PEER_MAX.saturating_sub(self.claims.len());
        self.claims.extend(addresses.iter().take(room));
        addresses.len().saturating_sub(room) as u64
    }

    /// Notes a change of the claim set; false if there is one before it that we missed.
    fn follow(&mut self, before: u32, generation: u32, now: Instant) -> bool {
        let known = self.generation == Some(before) || self.generation == Some(generation);
        if known {
            self.generation = Some(generation);
            self.restated = now;
        }
        known
    }
}

impl Claims {
    pub(super) fn receive(&mut self, source: Mac, frame: Frame, now: Instant) {
        if frame.node == self.config.node {
            self.counts.own_name += 1;
            return;
        }
        if !self.admit(source, &frame, now) {
            return;
        }
        let Frame { node, body, .. } = frame;
        match body {
            Body::Hello { generation, .. } => self.on_hello(&node, generation, now),
            Body::Claim { before, generation, addresses } => self.on_claim(&node, before, generation, &addresses, now),
            Body::Release { before, generation, addresses, refused } => {
                let until = refused.then_some(now + CLAIM_LIFETIME);
                self.on_release(&node, (before, generation), &addresses, until, now);
            }
            Body::Challenge { nonce } => self.send(Some(source), Body::Answer { nonce }, now),
            // Every frame that is not stale is a sign of life, this one too.
            Body::Answer { .. } => {}
            Body::Ask => self.on_ask(&node, now),
            Body::List { generation, part, parts, addresses } => {
                self.on_list(&node, generation, (part, parts), &addresses, now);
            }
        }
    }

    /// Notes who sent a frame and that it lives; false if the frame must be dropped.
    fn admit(&mut self, source: Mac, frame: &Frame, now: Instant) -> bool {
        if self.peers.get(&frame.node).is_none_or(|peer| peer.epoch != frame.epoch) {
            return self.admit_stranger(source, frame, now);
        }
        let alone = self.peers.values().all(|peer| peer.dead);
        let Some(peer) = self.peers.get_mut(&frame.node) else { return false };
        if peer.is_stale(frame) {
            self.counts.stale_frames += 1;
            return false;
        }
        let back = std::mem::take(&mut peer.dead);
        self.counts.refuted += u64::from(peer.suspicion.take().is_some());
        self.own.dirty.all |= back || peer.flags != frame.flags;
        peer.mac = source;
        peer.flags = frame.flags;
        peer.interval = frame.interval;
        peer.clock = frame.clock;
        peer.heard = now;
        if back {
            self.newly_heard(alone, now);
        }
        true
    }

    /// Challenges who is not known; adopts who answers. Its other frames are dropped until then: they may be old.
    fn admit_stranger(&mut self, source: Mac, frame: &Frame, now: Instant) -> bool {
        self.strangers.retain(|_, stranger| now.since(stranger.since) < STRANGER_LIFETIME);
        let proof = self.strangers.get(&frame.node).map(|stranger| Body::Answer { nonce: stranger.nonce });
        if proof.is_none_or(|proof| proof != frame.body) {
            self.counts.unproven += 1;
            self.challenge_stranger(source, &frame.node, now);
            if let Body::Challenge { nonce } = frame.body {
                // Two that are strangers to each other: one must begin to answer, and an answer gives nothing away.
                self.send(Some(source), Body::Answer { nonce }, now);
            }
            return false;
        }
        self.strangers.remove(&frame.node);
        if !self.peers.contains_key(&frame.node) && !self.make_room() {
            self.counts.over_limit += 1;
            return false;
        }
        let alone = !self.peers.is_empty() && self.peers.values().all(|peer| peer.dead);
        // A new start voids the claims and refusals of the one before.
        self.peers.insert(frame.node.clone(), Peer::new(source, frame, now));
        self.own.dirty.all = true;
        self.newly_heard(alone, now);
        self.ask(&frame.node, now);
        true
    }

    fn challenge_stranger(&mut self, source: Mac, node: &str, now: Instant) {
        let nonce = self.random(u64::MAX);
        if !self.strangers.contains_key(node) {
            if self.strangers.len() >= STRANGERS_MAX {
                self.counts.over_limit += 1;
                return;
            }
            self.strangers.insert(node.into(), Stranger { nonce, since: now, challenged: now });
        } else if let Some(stranger) = self.strangers.get_mut(node) {
            // The number stays while it is open, so that an old frame in between cannot void the true answer.
            if now.since(stranger.challenged) < ASK_EVERY {
                return;
            }
            stranger.challenged = now;
        }
        if let Some(nonce) = self.strangers.get(node).map(|stranger| stranger.nonce) {
            self.send(Some(source), Body::Challenge { nonce }, now);
        }
    }

    fn newly_heard(&mut self, alone: bool, now: Instant) {
        self.greet(now);
        if alone {
            self.become_fresh(now);
        }
    }

    /// Whether one more peer fits, if need be in the place of a dead one.
    fn make_room(&mut self) -> bool {
        if self.peers.len() < PEERS_MAX {
            return true;
        }
        let longest_dead = self.peers.iter().filter(|(_, peer)| peer.dead).min_by_key(|(_, peer)| peer.heard);
        let Some(name) = longest_dead.map(|(name, _)| name.clone()) else { return false };
        self.peers.remove(&name);
        true
    }

    /// A hello of the known generation restates all claims.
    fn on_hello(&mut self, node: &str, generation: u32, now: Instant) {
        let Some(peer) = self.peers.get_mut(node) else { return };
        if generation == 0 && peer.generation != Some(0) {
            self.own.dirty.addresses.append(&mut peer.claims);
            peer.generation = Some(0);
        }
        if peer.generation != Some(generation) {
            self.ask(node, now);
            return;
        }
        peer.restated = now;
        if !self.own.held.is_empty() {
            let both: Vec<_> = peer.claims.iter().copied().filter(|a| self.own.held.contains_key(a)).collect();
            self.conflict(node, &both, now);
        }
    }

    fn on_claim(&mut self, node: &str, before: u32, generation: u32, addresses: &[IpAddr], now: Instant) {
        let Some(peer) = self.peers.get_mut(node) else { return };
        if before == 0 {
            self.own.dirty.addresses.append(&mut peer.claims);
            peer.generation = Some(0);
        }
        self.counts.over_limit += peer.add(addresses);
        peer.refused.retain(|address, _| !addresses.contains(address));
        self.own.dirty.addresses.extend(addresses);
        if !peer.follow(before, generation, now) {
            self.ask(node, now);
        }
        let both: Vec<_> = addresses.iter().copied().filter(|a| self.own.held.contains_key(a)).collect();
        self.conflict(node, &both, now);
    }

    fn on_release(
        &mut self,
        node: &str,
        (before, generation): (u32, u32),
        addresses: &[IpAddr],
        refused_until: Option<Instant>,
        now: Instant,
    ) {
        let Some(peer) = self.peers.get_mut(node) else { return };
        peer.claims.retain(|address| !addresses.contains(address));
        if let Some(until) = refused_until {
            let room = CLAIMS_PER_PEER_MAX.saturating_sub(peer.refused.len());
            peer.refused.extend(addresses.iter().take(room).map(|address| (*address, until)));
        }
        self.own.dirty.addresses.extend(addresses);
        if !peer.follow(before, generation, now) {
            self.ask(node, now);
        }
        self.forget_insistence(node, addresses);
    }

    /// Asks a peer for its whole claim set, unless it was asked a moment ago; its next hello asks again.
    fn ask(&mut self, node: &str, now: Instant) {
        let Some(peer) = self.peers.get_mut(node) else { return };
        if peer.asked.is_none_or(|at| now.since(at) >= ASK_EVERY) {
            peer.asked = Some(now);
            let mac = peer.mac;
            self.send(Some(mac), Body::Ask, now);
        }
    }

    fn on_ask(&mut self, node: &str, now: Instant) {
        let Some(peer) = self.peers.get_mut(node) else { return };
        if peer.told.is_none_or(|at| now.since(at) >= ASK_EVERY) {
            peer.told = Some(now);
            let mac = peer.mac;
            self.list(Some(mac), now);
        }
    }

    fn on_list(&mut self, node: &str, generation: u32, (part, count): (u16, u16), addresses: &[IpAddr], now: Instant) {
        let Some(peer) = self.peers.get_mut(node) else { return };
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
        self.own.dirty.addresses.extend(peer.claims.symmetric_difference(&parts.addresses));
        peer.claims = parts.addresses;
        peer.generation = Some(generation);
        peer.restated = now;
        peer.refused.retain(|address, _| !peer.claims.contains(address));
        let both: Vec<_> = peer.claims.iter().copied().filter(|a| self.own.held.contains_key(a)).collect();
        self.conflict(node, &both, now);
    }

    pub(super) fn arp_answer(&mut self, mac: Mac) {
        for peer in self.peers.values_mut().filter(|peer| peer.mac == mac) {
            if let Some(suspicion) = &mut peer.suspicion {
                suspicion.answered_by_arp = true;
            }
        }
    }

    /// Lets time pass for all peers: claims that were not restated, refusals, suspicion, death.
    pub(super) fn check_peers(&mut self, now: Instant) {
        let is_due = |peer: &Peer| peer.deadline(&self.config).is_some_and(|at| now >= at);
        let due: Vec<_> = self.peers.iter().filter(|(_, peer)| is_due(peer)).map(|(name, _)| name.clone()).collect();
        for name in due {
            let Some(peer) = self.peers.get_mut(&name) else { continue };
            self.own.dirty.all = true;
            peer.refused.retain(|_, until| now < *until);
            if now >= peer.restated + CLAIM_LIFETIME {
                peer.claims.clear();
                peer.generation = None;
            }
            if now >= peer.heard + peer.interval * self.config.hello_misses {
                self.suspect(&name, now);
            }
        }
    }

    fn suspect(&mut self, name: &str, now: Instant) {
        let nonce = self.random(u64::MAX);
        let Some(peer) = self.peers.get_mut(name) else { return };
        let mac = peer.mac;
        let suspicion = peer.suspicion.get_or_insert_with(|| {
            self.counts.suspicions += 1;
            Suspicion { since: now, next: now, challenges: 0, answered_by_arp: false }
        });
        if now < suspicion.next {
            return;
        }
        let patience = if suspicion.answered_by_arp { PROXY_PATIENCE } else { DEATH_AFTER };
        if now >= suspicion.since + patience {
            peer.suspicion = None;
            peer.dead = true;
            peer.claims.clear();
            peer.generation = None;
            peer.refused.clear();
            self.counts.deaths += 1;
            return;
        }
        let first = suspicion.challenges == 0;
        suspicion.challenges += 1;
        suspicion.next = now + if suspicion.answered_by_arp { DEATH_AFTER } else { CHALLENGE_EVERY };
        let claimed = peer.claims.first().copied();
        self.send(Some(mac), Body::Challenge { nonce }, now);
        if let (true, Some(address)) = (first, claimed) {
            self.outputs.push_back(Output::Probe { address, mac });
        }
    }
}
