//! Failure detection: a peer is suspected after missed hellos, and declared failed after challenges
//! without a response. Part of the claim machine of one interface.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::peers::Peer;
use super::{ClaimMachine, Output};
use crate::Instant;
use crate::wire::Mac;
use crate::wire::hello::Body;

/// Interval between the challenges to a suspected peer.
const CHALLENGE_EVERY: Duration = Duration::from_millis(20);
/// Time after the start of a suspicion during which a loss of frames in the kernel restarts the
/// suspicion.
const DROPPED_FRAMES_WINDOW: Duration = Duration::from_secs(1);
/// Time from the start of a suspicion until the peer is declared failed, if no frame of the peer
/// arrives.
const FAILURE_DELAY: Duration = Duration::from_millis(40);
/// Initial value of [`Peer::patience`]: the time for which a silent peer is challenged if a device
/// replies to ARP for it.
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
    arp_replied: bool,
}

impl ClaimMachine {
    pub(super) fn on_arp_reply(&mut self, mac: Mac) {
        for peer in self.peers.values_mut().filter(|peer| peer.mac == mac) {
            if let Some(suspicion) = &mut peer.suspicion {
                suspicion.arp_replied = true;
            }
        }
    }

    /// Restarts every suspicion, because the kernel dropped frames that may have come from the
    /// suspected peers. A suspicion older than [`DROPPED_FRAMES_WINDOW`] continues, so that a flood
    /// cannot hide the failure of a peer.
    pub(super) fn on_frames_dropped(&mut self, now: Instant) {
        for suspicion in self.peers.values_mut().filter_map(|peer| peer.suspicion.as_mut()) {
            if now.since(suspicion.began) < DROPPED_FRAMES_WINDOW {
                (suspicion.since, suspicion.next, suspicion.challenges) = (now, now, 0);
                self.peers_due = Some(now);
            }
        }
    }

    /// Declares all peers failed: this node is isolated, and no peer has responded to a challenge.
    pub(super) fn declare_all_failed(&mut self, now: Instant) {
        let live: Vec<_> = self
            .peers
            .iter()
            .filter(|(_, peer)| !peer.failed)
            .map(|(name, _)| name.clone())
            .collect();
        for name in live {
            self.declare_failed(&name, now);
        }
    }

    /// Handles the deadlines of peers: missing hellos, suspicions, and the removal of failed peers.
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
        for name in due {
            let Some(peer) = self.peers.get_mut(&name) else { continue };
            if peer.failed {
                self.remove_peer(&name);
                continue;
            }
            if now >= peer.last_frame + peer.interval * self.config.hello_misses {
                self.suspect(&name, now);
            }
        }
        self.peers_due = self.peers.values().filter_map(|peer| peer.deadline(&self.config)).min();
    }

    /// Updates the time of the next check of the peers, after a frame has changed the deadline of
    /// its sender.
    pub(super) fn update_peers_due(&mut self, name: &str) {
        let due = self.peers.get(name).and_then(|peer| peer.deadline(&self.config));
        self.peers_due = self.peers_due.into_iter().chain(due).min();
    }

    fn suspect(&mut self, name: &str, now: Instant) {
        let nonce = self.random(u64::MAX);
        let Some(peer) = self.peers.get_mut(name) else { return };
        let mac = peer.mac;
        let suspicion = peer.suspicion.get_or_insert_with(|| {
            self.counts.suspicions += 1;
            Suspicion { began: now, since: now, next: now, challenges: 0, arp_replied: false }
        });
        if now < suspicion.next {
            return;
        }
        let patience = if suspicion.arp_replied { peer.patience } else { FAILURE_DELAY };
        let (over, since) = (now >= suspicion.since + patience, suspicion.since);
        let first = suspicion.challenges == 0;
        suspicion.challenges += 1;
        suspicion.next =
            now + if over || suspicion.arp_replied { FAILURE_DELAY } else { CHALLENGE_EVERY };
        let claimed = self.sets.copy(name).and_then(|copy| copy.claims().keys().next()).copied();
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
            self.probe_witnesses(now);
        }
    }

    fn declare_failed(&mut self, name: &str, now: Instant) {
        let Some(peer) = self.peers.get_mut(name) else { return };
        self.counts.peer_failures += 1;
        self.own.dirty.waiting = true;
        peer.failed = true;
        peer.patience_doubled = false;
        let last_frame = peer.last_frame;
        peer.proxied = peer.suspicion.take().is_some_and(|suspicion| suspicion.arp_replied);
        let is_proxied = peer.proxied;
        let claims: Vec<_> = self
            .sets
            .copy(name)
            .into_iter()
            .flat_map(|copy| copy.claims().keys())
            .copied()
            .collect();
        if is_proxied {
            self.counts.proxied_failures += 1;
            self.note_proxied(name, &claims, now);
        }
        let known = claims.iter().filter(|address| self.units.contains_key(*address));
        // `append` of sorted addresses takes much less time than single inserts.
        let owner: Arc<str> = name.into();
        let entry = |address: &IpAddr| (*address, (Arc::clone(&owner), last_frame));
        self.unowned.append(&mut known.map(entry).collect());
        self.on_unclaimed(claims, now);
        if self.peers.values().all(|peer| peer.failed) {
            self.start_preempt_delay(now);
        }
    }
}
