//! Failure detection: a peer is suspected after missed hellos, and declared failed after challenges
//! without a response. Part of the claim machine of one interface.

use std::time::Duration;

use super::peers::Peer;
use super::{CLAIM_LIFETIME, ClaimMachine, Output};
use crate::Instant;
use crate::wire::Mac;
use crate::wire::hello::Body;

/// Interval between the challenges to a suspected peer.
const CHALLENGE_EVERY: Duration = Duration::from_millis(20);
/// Time from the start of a suspicion in which a loss of frames in the kernel restarts the
/// suspicion.
const LOST_PATIENCE: Duration = Duration::from_secs(1);
/// Time from the start of a suspicion until the peer is declared failed, if no frame of the peer
/// arrives.
const DEATH_AFTER: Duration = Duration::from_millis(40);
/// Initial value of [`Peer::patience`]: how long a silent peer is challenged if a device replies to
/// ARP for its address.
pub(super) const PROXY_PATIENCE: Duration = Duration::from_secs(1);
/// Maximum of [`Peer::patience`], which doubles whenever the peer was declared failed by mistake.
pub(super) const PROXY_PATIENCE_MAX: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(super) struct Suspicion {
    /// Start of the suspicion.
    began: Instant,
    /// Start of the suspicion, or its latest restart because frames were dropped.
    since: Instant,
    pub(super) next: Instant,
    challenges: u32,
    answered_by_arp: bool,
}

impl ClaimMachine {
    pub(super) fn arp_answer(&mut self, mac: Mac) {
        for peer in self.peers.values_mut().filter(|peer| peer.mac == mac) {
            if let Some(suspicion) = &mut peer.suspicion {
                suspicion.answered_by_arp = true;
            }
        }
    }

    /// Restarts every suspicion, because the kernel dropped frames that may have come from the
    /// suspected peers. A suspicion older than [`LOST_PATIENCE`] continues, so that a flood cannot
    /// hide the failure of a peer.
    pub(super) fn frames_lost(&mut self, now: Instant) {
        for suspicion in self.peers.values_mut().filter_map(|peer| peer.suspicion.as_mut()) {
            if now.since(suspicion.began) < LOST_PATIENCE {
                (suspicion.since, suspicion.next, suspicion.challenges) = (now, now, 0);
                self.peers_due = Some(now);
            }
        }
    }

    /// Declares all peers failed: this node is isolated, and no peer has responded to a challenge.
    pub(super) fn declare_all_failed(&mut self, now: Instant) {
        let living: Vec<_> = self
            .peers
            .iter()
            .filter(|(_, peer)| !peer.dead)
            .map(|(name, _)| name.clone())
            .collect();
        for name in living {
            self.declare_failed(&name, now);
        }
    }

    /// Handles the deadlines of peers: claims without confirmation, the end of refusals, missing
    /// hellos, suspicions, and the removal of failed peers.
    pub(super) fn check_peers(&mut self, now: Instant) {
        if self.peers_due.is_none_or(|at| now < at) {
            return;
        }
        let is_due = |peer: &Peer| peer.deadline(&self.config).is_some_and(|at| now >= at);
        let due: Vec<_> = self
            .peers
            .iter()
            .filter(|(_, peer)| is_due(peer))
            .map(|(name, _)| name.clone())
            .collect();
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

    /// Updates the time of the next check after a frame of a peer has changed that peer's deadline.
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
        suspicion.next =
            now + if over || suspicion.answered_by_arp { DEATH_AFTER } else { CHALLENGE_EVERY };
        let claimed = peer.claims.first().copied();
        // If no frame at all arrives, the receive path of this node may have failed. Then no peer
        // is declared failed until this node declares itself isolated.
        if over && !self.received_nothing_since(since) {
            self.declare_failed(name, now);
            return;
        }
        self.send(Some(mac), Body::Challenge { nonce }, now);
        if let (true, Some(address)) = (first, claimed) {
            self.outputs.push_back(Output::LivenessProbe { address, mac });
        }
        if self.received_nothing_since(since) {
            self.call_witnesses(now);
        }
    }

    fn declare_failed(&mut self, name: &str, now: Instant) {
        let Some(peer) = self.peers.get_mut(name) else { return };
        self.counts.peer_failures += 1;
        peer.dead = true;
        peer.generation = None;
        peer.missed = false;
        peer.refused.clear();
        let (claims, heard) = (std::mem::take(&mut peer.claims), peer.heard);
        peer.save_claims(claims.clone());
        if peer.suspicion.take().is_some_and(|suspicion| suspicion.answered_by_arp) {
            self.counts.proxied_failures += 1;
            peer.proxied.clone_from(&claims);
            self.note_proxied(name, now);
        }
        let known = claims.iter().filter(|address| self.unit_of.contains_key(*address));
        self.orphans.extend(known.map(|address| (*address, heard)));
        self.unclaimed(name, claims, now);
    }
}
