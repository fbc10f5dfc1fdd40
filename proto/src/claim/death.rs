//! Whether another speaker lives: suspected by missed hellos, confirmed by challenges that stay unanswered.

use std::time::Duration;

use super::peers::Peer;
use super::{CLAIM_LIFETIME, Claims, Output};
use crate::Instant;
use crate::wire::Mac;
use crate::wire::hello::Body;

/// Between the two challenges of a suspicion.
const CHALLENGE_EVERY: Duration = Duration::from_millis(20);
/// How long lost frames can put off a verdict.
const LOST_PATIENCE: Duration = Duration::from_secs(1);
/// How long after a suspicion silence means death.
const DEATH_AFTER: Duration = Duration::from_millis(40);
/// How long a peer that is silent, but whose address something still answers by ARP, is asked on, the first time.
pub(super) const PROXY_PATIENCE: Duration = Duration::from_secs(1);
/// What that doubles up to, for a peer that proved alive after all.
pub(super) const PROXY_PATIENCE_MAX: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(super) struct Suspicion {
    /// When it began, and when it last began anew.
    began: Instant,
    since: Instant,
    pub(super) next: Instant,
    challenges: u32,
    answered_by_arp: bool,
}

impl Claims {
    pub(super) fn arp_answer(&mut self, mac: Mac) {
        for peer in self.peers.values_mut().filter(|peer| peer.mac == mac) {
            if let Some(suspicion) = &mut peer.suspicion {
                suspicion.answered_by_arp = true;
            }
        }
    }

    /// Begins every suspicion anew, for as long as that may go on: a flood must not keep the dead alive.
    pub(super) fn frames_lost(&mut self, now: Instant) {
        for suspicion in self.peers.values_mut().filter_map(|peer| peer.suspicion.as_mut()) {
            if now.since(suspicion.began) < LOST_PATIENCE {
                (suspicion.since, suspicion.next, suspicion.challenges) = (now, now, 0);
                self.peers_due = Some(now);
            }
        }
    }

    /// This node is deaf: every member was challenged, and none has answered.
    pub(super) fn find_all_dead(&mut self, now: Instant) {
        let living: Vec<_> = self.peers.iter().filter(|(_, peer)| !peer.dead).map(|(name, _)| name.clone()).collect();
        for name in living {
            self.found_dead(&name, now);
        }
    }

    /// Lets time pass for all peers: claims that were not restated, refusals, suspicion, death.
    pub(super) fn check_peers(&mut self, now: Instant) {
        if self.peers_due.is_none_or(|at| now < at) {
            return;
        }
        let is_due = |peer: &Peer| peer.deadline(&self.config).is_some_and(|at| now >= at);
        let due: Vec<_> = self.peers.iter().filter(|(_, peer)| is_due(peer)).map(|(name, _)| name.clone()).collect();
        self.peers.retain(|_, peer| !peer.dead || now < peer.forgotten_at());
        for name in due {
            let Some(peer) = self.peers.get_mut(&name) else { continue };
            self.own.dirty.concerns(peer);
            peer.refused.retain(|_, until| now < *until);
            let doubtful = (!peer.claims.is_empty() && now >= peer.ask_again_at())
                || peer.ask_back_at().is_some_and(|at| now >= at);
            let silent = now >= peer.heard + peer.interval * self.config.hello_misses;
            if now >= peer.restated + CLAIM_LIFETIME {
                peer.generation = None;
                let gone = std::mem::take(&mut peer.claims);
                self.unclaimed(&name, gone, now);
            }
            if silent {
                self.suspect(&name, now);
            }
            if doubtful {
                self.ask(&name, now);
            }
        }
        self.peers_due = self.peers.values().filter_map(|peer| peer.deadline(&self.config)).min();
    }

    /// A peer was heard, which may have brought forward when it has to be looked at.
    pub(super) fn look_at(&mut self, name: &str) {
        let due = self.peers.get(name).and_then(|peer| peer.deadline(&self.config));
        self.peers_due = self.peers_due.into_iter().chain(due).min();
    }

    fn suspect(&mut self, name: &str, now: Instant) {
        let nonce = self.random(u64::MAX);
        let Some(peer) = self.peers.get_mut(name) else { return };
        let mac = peer.mac;
        let suspicion = peer.suspicion.get_or_insert_with(|| {
            self.counts.suspicions += 1;
            Suspicion { began: now, since: now, next: now, challenges: 0, answered_by_arp: false }
        });
        if now < suspicion.next {
            return;
        }
        let patience = if suspicion.answered_by_arp { peer.patience } else { DEATH_AFTER };
        let (over, since) = (now >= suspicion.since + patience, suspicion.since);
        let first = suspicion.challenges == 0;
        suspicion.challenges += 1;
        suspicion.next = now + if over || suspicion.answered_by_arp { DEATH_AFTER } else { CHALLENGE_EVERY };
        let claimed = peer.claims.first().copied();
        // Where nothing at all is heard, it may be us: then nobody is found dead until we call
        // ourselves deaf.
        if over && !self.hears_nothing_since(since) {
            self.found_dead(name, now);
            return;
        }
        self.send(Some(mac), Body::Challenge { nonce }, now);
        if let (true, Some(address)) = (first, claimed) {
            self.outputs.push_back(Output::Probe { address, mac });
        }
        if self.hears_nothing_since(since) {
            self.call_witnesses(now);
        }
    }

    fn found_dead(&mut self, name: &str, now: Instant) {
        let Some(peer) = self.peers.get_mut(name) else { return };
        self.counts.deaths += 1;
        peer.dead = true;
        peer.generation = None;
        peer.missed = false;
        peer.refused.clear();
        let (claims, heard) = (std::mem::take(&mut peer.claims), peer.heard);
        peer.bury(claims.clone());
        if peer.suspicion.take().is_some_and(|suspicion| suspicion.answered_by_arp) {
            self.counts.proxied += 1;
            peer.proxied.clone_from(&claims);
            self.note_proxied(name, now);
        }
        let known = claims.iter().filter(|address| self.unit_of.contains_key(*address));
        self.orphans.extend(known.map(|address| (*address, heard)));
        self.unclaimed(name, claims, now);
    }
}
