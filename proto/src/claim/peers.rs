//! The other speakers on the wire: what is kept of each, and whose frames are let in.
//!
//! A node, or a new epoch of one, is believed only once it has answered a challenge: signed frames can be recorded and
//! played back, an answer to a new number cannot.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use super::death::{PROXY_PATIENCE, PROXY_PATIENCE_MAX, Suspicion};
use super::senses::Floor;
use super::words::Parts;
use super::{CLAIM_LIFETIME, CLAIMS_PER_PEER_MAX, Claims, Config, PEERS_MAX};
use crate::Instant;
use crate::wire::Mac;
use crate::wire::hello::{Body, Flags, Frame, Release};

/// A receiver that is behind asks for the full list, and is answered, at most this often; a newcomer is challenged likewise,
/// the first time.
pub(super) const ASK_EVERY: Duration = Duration::from_millis(40);
/// How long who was found dead, and was not, has to say what it still holds before that is taken from it.
const TELL_MAX: Duration = Duration::from_secs(1);
/// A peer whose claims nothing restates is asked for them this often.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// How long the answer to a newcomer's challenge is waited for, and how long one is known that is not heard.
const NEWCOMER_LIFETIME: Duration = Duration::from_secs(1);
/// How many newcomers may be under challenge at once; more are counted and ignored.
const NEWCOMERS_MAX: usize = 256;
/// How many keys that a peer says it accepts are kept; nobody has more than two at a time.
const ACCEPTS_MAX: usize = 4;
/// How long after its last frame a dead peer is still known.
const DEAD_LIFETIME: Duration = Duration::from_secs(3_600);
/// How many hardware addresses of one peer are kept.
const MACS_MAX: usize = 8;

#[derive(Debug)]
pub(super) struct Peer {
    pub(super) mac: Mac,
    /// All hardware addresses that it was heard with.
    pub(super) macs: VecDeque<Mac>,
    pub(super) flags: Flags,
    pub(super) claims: BTreeSet<IpAddr>,
    /// Claims that are best left with it, and until when.
    pub(super) keeps: BTreeMap<IpAddr, Instant>,
    /// Addresses it counts itself out for, and until when.
    pub(super) refused: BTreeMap<IpAddr, Instant>,
    /// Kept when dead, so that replayed frames of it stay stale.
    pub(super) dead: bool,
    pub(super) epoch: u64,
    pub(super) clock: u64,
    pub(super) interval: Duration,
    pub(super) heard: Instant,
    /// The generation of the claims we know; none: we know that we do not know them all.
    pub(super) generation: Option<u32>,
    /// A hello spoke of a set that we do not know: it may come and go without our hearing of it.
    pub(super) missed: bool,
    /// The generation that its latest release made, if we know all before it: releases are said twice.
    pub(super) released: Option<u32>,
    /// The generation that the newest frame spoke of.
    stated: Option<u32>,
    pub(super) restated: Instant,
    pub(super) suspicion: Option<Suspicion>,
    pub(super) asked: Option<Instant>,
    pub(super) told: Option<Instant>,
    pub(super) parts: Option<Parts>,
    /// Ids of the keys that it accepts; empty: not said yet.
    pub(super) accepts: Box<[u32]>,
    /// What it fails for, by its hellos: of any of a unit's addresses, at most [`CLAIMS_PER_PEER_MAX`].
    pub(super) failing: BTreeSet<IpAddr>,
    /// How our clock and its clock compare.
    pub(super) floor: Floor,
    /// What it held when it was found dead.
    pub(super) buried: BTreeSet<IpAddr>,
    /// When it was heard again after that.
    back: Option<Instant>,
    /// Its patience has been doubled since.
    forgiven: bool,
    /// What it held when it was found dead although something answered for it by ARP.
    pub(super) proxied: BTreeSet<IpAddr>,
    /// How long it is asked on while something answers for it by ARP.
    pub(super) patience: Duration,
}

/// A node, or a new epoch of a known one, that has yet to answer.
#[derive(Debug)]
pub(super) struct Newcomer {
    nonce: u64,
    /// When the number was chosen.
    since: Instant,
    challenged: Instant,
    heard: Instant,
    /// Until it is challenged again; twice as long each time, as it may not hear us.
    wait: Duration,
    /// Its frames carry a signature of ours: it is no stranger.
    pub(super) mac: Mac,
    /// As of [`Peer::accepts`].
    pub(super) accepts: Box<[u32]>,
}

impl Newcomer {
    /// Its number is not to be answered any more.
    fn is_over(&self, now: Instant) -> bool {
        now.since(self.since) >= NEWCOMER_LIFETIME
    }
}

impl Peer {
    fn new(source: Mac, frame: &Frame, now: Instant) -> Self {
        Self {
            mac: source,
            macs: VecDeque::from([source]),
            flags: frame.flags,
            claims: BTreeSet::new(),
            keeps: BTreeMap::new(),
            refused: BTreeMap::new(),
            dead: false,
            epoch: frame.epoch,
            clock: frame.clock,
            interval: frame.interval,
            heard: now,
            generation: None,
            missed: false,
            released: None,
            stated: None,
            restated: now,
            suspicion: None,
            asked: None,
            told: None,
            parts: None,
            accepts: Box::default(),
            failing: BTreeSet::new(),
            floor: Floor::new(frame.clock, now),
            buried: BTreeSet::new(),
            back: None,
            forgiven: false,
            proxied: BTreeSet::new(),
            patience: PROXY_PATIENCE,
        }
    }

    pub(super) fn deadline(&self, config: &Config) -> Option<Instant> {
        if self.dead {
            return Some(self.forgotten_at());
        }
        let suspicious = self.heard + self.interval * config.hello_misses;
        let suspicion = self.suspicion.as_ref().map_or(suspicious, |suspicion| suspicion.next);
        let ends = self.restated + CLAIM_LIFETIME;
        let restated = (!self.claims.is_empty()).then(|| ends.min(self.ask_again_at()));
        let untold = self.ask_back_at();
        restated.into_iter().chain(untold).chain(self.refused.values().copied()).chain([suspicion]).min()
    }

    /// When it is known no longer, if it stays dead: a later frame of it has to answer a challenge,
    /// as a newcomer's.
    pub(super) fn forgotten_at(&self) -> Instant {
        self.heard + DEAD_LIFETIME
    }

    /// It was found dead with these claims.
    pub(super) fn bury(&mut self, claims: BTreeSet<IpAddr>) {
        self.buried = claims;
        self.back = None;
        self.forgiven = false;
    }

    /// It has said what it holds, so what it held no longer matters.
    pub(super) fn exhume(&mut self) {
        self.buried.clear();
    }

    /// Until when what it held is left with it: it is heard again, and has not yet said what it holds. It may never have been dead.
    fn untold_until(&self) -> Option<Instant> {
        let is_untold = !self.dead && self.generation.is_none() && !self.buried.is_empty();
        self.back.filter(|_| is_untold).map(|back| back + TELL_MAX)
    }

    pub(super) fn may_still_hold(&self, addresses: &[IpAddr], now: Instant) -> bool {
        let lately = self.untold_until().is_some_and(|until| now < until);
        lately && addresses.iter().any(|address| self.buried.contains(address))
    }

    /// When it has to be asked what it holds, as it has not greeted us with that, and nobody takes what it held meanwhile.
    pub(super) fn ask_back_at(&self) -> Option<Instant> {
        let (since, until) = self.asked.max(self.back).zip(self.untold_until())?;
        Some(since + ASK_EVERY).filter(|at| *at < until)
    }

    /// When it has to be asked for its claims because nothing has restated them: its hellos may be lost, and its answers not.
    pub(super) fn ask_again_at(&self) -> Instant {
        let doubtful = self.restated + CLAIM_LIFETIME / 2;
        self.asked.map_or(doubtful, |asked| doubtful.max(asked + ASK_AGAIN))
    }

    /// Not newer than what was heard before: reordered or replayed. No two frames of a sender carry one clock.
    const fn is_stale(&self, frame: &Frame) -> bool {
        frame.clock <= self.clock
    }

    /// A frame that was overtaken still tells the truth about the claim set if it is the very next change of what we know, or a
    /// part of the list that newer frames speak of: a generation has one content, and is never used again.
    fn is_late(&self, body: &Body) -> bool {
        match body {
            Body::Claim { before, generation, .. } | Body::Release { before, generation, .. } => {
                before != generation && self.generation == Some(*before)
            }
            Body::List { generation, .. } => self.stated == Some(*generation) && self.generation != self.stated,
            Body::Hello { .. } | Body::Challenge { .. } | Body::Answer { .. } | Body::Ask => false,
        }
    }

    /// A newer frame spoke of a later set than this one: what it added to it is no part of this one, and is held all the same.
    pub(super) fn has_gone_on(&self, generation: u32) -> bool {
        self.stated.is_some_and(|stated| stated != generation)
    }

    /// Notes the generation that a frame speaks of, if any.
    fn note_generation(&mut self, body: &Body) {
        self.stated = generation(body).or(self.stated);
    }

    pub(super) fn add(&mut self, addresses: &[IpAddr]) -> u64 {
        let room = CLAIMS_PER_PEER_MAX.saturating_sub(self.claims.len());
        self.claims.extend(addresses.iter().take(room));
        addresses.len().saturating_sub(room) as u64
    }

    /// One node may have several links on a wire, of which one speaks.
    fn heard_with(&mut self, mac: Mac) {
        if !self.macs.contains(&mac) {
            self.macs.push_back(mac);
        }
        if self.macs.len() > MACS_MAX {
            self.macs.pop_front();
        }
    }

    /// It was found dead and was not: it is given twice the time from now on.
    pub(super) fn be_more_patient(&mut self) {
        if !std::mem::replace(&mut self.forgiven, true) {
            self.patience = (self.patience * 2).min(PROXY_PATIENCE_MAX);
        }
    }

    /// Notes until when some of its claims are best left with it.
    pub(super) fn keep(&mut self, addresses: &[IpAddr], keeps: &[Duration], now: Instant) {
        for address in addresses {
            self.keeps.remove(address);
        }
        let room = CLAIMS_PER_PEER_MAX.saturating_sub(self.keeps.len());
        let kept = addresses.iter().zip(keeps).filter(|(_, keep)| !keep.is_zero());
        self.keeps.extend(kept.take(room).map(|(address, keep)| (*address, now + *keep)));
    }

    /// Notes a change of the claim set; false if there is one before it that we missed.
    pub(super) fn follow(&mut self, before: u32, generation: u32, now: Instant) -> bool {
        let known = self.generation == Some(before) || self.generation == Some(generation);
        if known {
            self.generation = Some(generation);
            self.restated = now;
        }
        known
    }
}

/// The generation of the claim set that a frame speaks of, if any.
const fn generation(body: &Body) -> Option<u32> {
    match body {
        Body::Hello { generation, .. }
        | Body::Claim { generation, .. }
        | Body::Release { generation, .. }
        | Body::List { generation, .. } => Some(*generation),
        Body::Challenge { .. } | Body::Answer { .. } | Body::Ask => None,
    }
}

fn accepted(keys: &[u32]) -> Box<[u32]> {
    keys.iter().take(ACCEPTS_MAX).copied().collect()
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
            Body::Hello { generation, accepts, failing } => {
                self.on_accepts(&node, &accepts);
                self.on_failing(&node, failing);
                self.on_hello(&node, generation, now);
            }
            Body::Claim { before, generation, addresses, keeps } => {
                self.on_claim(&node, (before, generation), &addresses, &keeps, now);
            }
            Body::Release { before, generation, addresses, why } => {
                let until = (why != Release::HandedOver).then_some(now + CLAIM_LIFETIME);
                if why == Release::Contested {
                    self.on_contested(&addresses, now);
                }
                self.on_release(&node, (before, generation), &addresses, until, now);
            }
            Body::Challenge { nonce } => self.send(Some(source), Body::Answer { nonce }, now),
            // Every frame that is not stale is a sign of life, this one too.
            Body::Answer { .. } => {}
            Body::Ask => self.on_ask(&node, now),
            Body::List { generation, part, parts, addresses, keeps } => {
                self.on_list(&node, generation, (part, parts), &addresses, &keeps, now);
            }
        }
        self.look_at(&node);
    }

    /// Notes who sent a frame and that it lives; false if the frame must be dropped.
    fn admit(&mut self, source: Mac, frame: &Frame, now: Instant) -> bool {
        if self.peers.get(&frame.node).is_none_or(|peer| peer.epoch != frame.epoch) {
            return self.admit_newcomer(source, frame, now);
        }
        let alone = self.peers.values().all(|peer| peer.dead);
        let Some(peer) = self.peers.get_mut(&frame.node) else { return false };
        if peer.is_stale(frame) {
            // Nothing of its head is news.
            let late = peer.is_late(&frame.body);
            self.counts.stale_frames += u64::from(!late);
            if late && generation(&frame.body) == peer.stated {
                // It was overtaken by a hello, and nothing is missed.
                peer.missed = false;
            }
            return late;
        }
        peer.note_generation(&frame.body);
        let back = std::mem::take(&mut peer.dead);
        if back {
            peer.back = Some(now);
            // What it claims from now on is not as old as what it claimed when it was last heard.
            peer.restated = now;
        }
        self.counts.refuted += u64::from(peer.suspicion.take().is_some());
        if back || peer.flags != frame.flags {
            self.own.dirty.concerns(peer);
        }
        peer.mac = source;
        peer.heard_with(source);
        peer.flags = frame.flags;
        peer.interval = frame.interval;
        peer.clock = frame.clock;
        peer.heard = now;
        if back && !std::mem::take(&mut peer.proxied).is_empty() {
            // It lived all the time, and what answered for it was itself.
            peer.be_more_patient();
        }
        self.compare_clocks(&frame.node, frame.clock, now);
        if back {
            // Something has healed, and the other side may have answered for what we hold.
            self.refresh_all(true, now);
            self.release_unheard(&frame.node, now);
            self.newly_heard(alone, now);
        }
        true
    }

    /// A peer that was found dead is back, and may have held all the time what we took from it. If we have given that up again
    /// where it could not hear us, it is told now; and what we left to it because it announced it is no special case any more.
    fn release_unheard(&mut self, node: &str, now: Instant) {
        let Some(peer) = self.peers.get(node) else { return };
        for first in peer.buried.iter().filter_map(|address| self.unit_of.get(address)) {
            let state = self.units.get_mut(first).filter(|state| !state.contested);
            if let Some(story) = state.and_then(|state| state.story.as_mut()) {
                story.shunned = None;
            }
        }
        let was_ours = |address: &&IpAddr| {
            let state = self.unit_of.get(*address).and_then(|first| self.units.get(first));
            !self.own.held.contains_key(*address) && state.is_some_and(|state| state.ours)
        };
        let unheard: Vec<_> = peer.buried.iter().filter(was_ours).copied().collect();
        if !unheard.is_empty() {
            self.own.yielded.extend(unheard.into_iter().map(|address| (address, Release::HandedOver)));
            self.own.next_hello = now;
        }
    }

    /// Challenges who is not known; adopts who answers. Its other frames are dropped until then: they may be old.
    fn admit_newcomer(&mut self, source: Mac, frame: &Frame, now: Instant) -> bool {
        if now >= self.newcomers_due {
            self.newcomers.retain(|_, newcomer| now.since(newcomer.heard) < NEWCOMER_LIFETIME);
            let oldest = self.newcomers.values().map(|newcomer| newcomer.heard).min();
            self.newcomers_due = oldest.unwrap_or(now) + NEWCOMER_LIFETIME;
        }
        let asked = self.newcomers.get(&frame.node).filter(|newcomer| !newcomer.is_over(now));
        let proof = asked.map(|newcomer| Body::Answer { nonce: newcomer.nonce });
        if proof.is_none_or(|proof| proof != frame.body) {
            self.counts.unproven += 1;
            self.challenge_newcomer(source, frame, now);
            if let Body::Challenge { nonce } = frame.body {
                // Two that are newcomers to each other: one must begin to answer, and an answer gives nothing away.
                self.send(Some(source), Body::Answer { nonce }, now);
            }
            return false;
        }
        let accepts = self.newcomers.remove(&frame.node).map(|newcomer| newcomer.accepts).unwrap_or_default();
        if !self.peers.contains_key(&frame.node) && !self.make_room() {
            self.counts.over_limit += 1;
            return false;
        }
        let hears_nobody = self.peers.values().all(|peer| peer.dead);
        // A node whose freshness has not ended since its start keeps its own end of it: nodes that
        // start together would all take their addresses in the same moment.
        let alone = hears_nobody && !(self.peers.is_empty() && self.own.flags.fresh);
        if hears_nobody {
            // As where something has healed: which of us was cut off from the rest, nobody knows.
            self.refresh_all(true, now);
        }
        // A new start voids the claims and refusals of the one before.
        let before = self.peers.insert(frame.node.clone(), Peer { accepts, ..Peer::new(source, frame, now) });
        if let Some((peer, before)) = self.peers.get_mut(&frame.node).zip(before.as_ref()) {
            before.macs.iter().for_each(|mac| peer.heard_with(*mac));
        }
        self.own.dirty.waiting = true;
        if let Some(before) = before {
            self.own.dirty.concerns(&before);
            if !before.flags.leaving {
                // It may have been cut off, have answered for some of it, and have died there.
                self.refresh_all(false, now);
            }
            self.unclaimed(&frame.node, before.claims, now);
        }
        self.newly_heard(alone, now);
        self.ask(&frame.node, now);
        true
    }

    fn challenge_newcomer(&mut self, source: Mac, frame: &Frame, now: Instant) {
        let (nonce, node) = (self.random(u64::MAX), &frame.node);
        let full = self.newcomers.len() >= NEWCOMERS_MAX && !self.newcomers.contains_key(node);
        if full {
            self.counts.over_limit += 1;
            return;
        }
        let fresh = |accepts| Newcomer {
            nonce,
            since: now,
            challenged: now,
            heard: now,
            wait: ASK_EVERY,
            mac: source,
            accepts,
        };
        let first = self.newcomers.get(node).is_none_or(|newcomer| newcomer.is_over(now));
        let newcomer = self.newcomers.entry(node.clone()).or_insert_with(|| fresh(Box::default()));
        if first {
            // It is no stranger meanwhile: only the number is another one.
            *newcomer = fresh(std::mem::take(&mut newcomer.accepts));
        }
        newcomer.heard = now;
        if let Body::Hello { accepts, .. } = &frame.body {
            newcomer.accepts = accepted(accepts);
        }
        // The number stays while it is open, so that an old frame in between cannot void the true answer.
        if let Body::Challenge { .. } | Body::Ask = frame.body {
            // Who asks us has heard us.
            newcomer.wait = ASK_EVERY;
        }
        let again = now.since(newcomer.challenged) >= newcomer.wait;
        if first || again {
            newcomer.challenged = now;
            newcomer.wait *= 1 + u32::from(again);
            let nonce = newcomer.nonce;
            self.send(Some(source), Body::Challenge { nonce }, now);
        }
    }

    fn on_accepts(&mut self, node: &str, accepts: &[u32]) {
        if let Some(peer) = self.peers.get_mut(node).filter(|peer| *peer.accepts != *accepts) {
            peer.accepts = accepted(accepts);
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
}
