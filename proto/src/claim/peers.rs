//! State of the other speakers on the segment (the peers), and the check whether their frames are
//! accepted. Owned by the claim machine of one interface.
//!
//! A node, or a new epoch of a node, is accepted as a peer only after it has responded to a
//! challenge. Signed frames can be recorded and replayed; a response to a new random number cannot.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::Duration;

use super::claim_sets::SetChanges;
use super::failure_detection::{PROXY_PATIENCE, PROXY_PATIENCE_MAX, Suspicion};
use super::self_check::MinimumOffset;
use super::{ClaimConfig, ClaimMachine, PEERS_MAX};
use crate::Instant;
use crate::wire::Mac;
use crate::wire::hello::{Body, Flags, Frame};

/// Maximum number of key IDs that are stored as accepted by a peer. No speaker accepts more than
/// two at a time.
const ACCEPTS_MAX: usize = 4;
/// Time for which the state of a failed peer is kept, counted from the peer's latest frame.
const FAILED_PEER_LIFETIME: Duration = Duration::from_secs(3_600);
/// Age up to which an overtaken list request or release is executed, measured by the clock of the
/// peer. An older one may be a recording.
const OVERTAKEN_MAX: Duration = Duration::from_millis(20);
/// Maximum number of stored hardware addresses of one peer.
const MACS_MAX: usize = 8;

#[derive(Debug)]
pub(super) struct Peer {
    pub(super) mac: Mac,
    /// Hardware addresses from which frames of the peer came, oldest first, at most [`MACS_MAX`].
    pub(super) macs: VecDeque<Mac>,
    pub(super) flags: Flags,
    /// True if the peer was declared failed. Its state is kept, so that replayed frames of the peer
    /// are detected as stale.
    pub(super) failed: bool,
    pub(super) epoch: u64,
    pub(super) clock: u64,
    pub(super) interval: Duration,
    pub(super) last_frame: Instant,
    pub(super) suspicion: Option<Suspicion>,
    /// IDs of the keys that the peer accepts; empty if not reported yet.
    pub(super) accepts: Box<[u32]>,
    /// Comparison of this node's clock with the peer's clock.
    pub(super) min_clock_offset: MinimumOffset,
    /// True if `patience` has already been doubled since the peer was declared failed.
    pub(super) patience_doubled: bool,
    /// True if the peer was declared failed although a device replied to ARP for it.
    pub(super) proxied: bool,
    /// Time for which the silent peer is challenged before it is declared failed, while a device
    /// replies to ARP for it.
    pub(super) patience: Duration,
}

impl Peer {
    pub(super) fn new(source: Mac, frame: &Frame, now: Instant) -> Self {
        Self {
            mac: source,
            macs: VecDeque::from([source]),
            flags: frame.flags,
            failed: false,
            epoch: frame.epoch,
            clock: frame.clock,
            interval: frame.interval,
            last_frame: now,
            suspicion: None,
            accepts: Box::default(),
            min_clock_offset: MinimumOffset::new(frame.clock, now),
            patience_doubled: false,
            proxied: false,
            patience: PROXY_PATIENCE,
        }
    }

    pub(super) fn deadline(&self, config: &ClaimConfig) -> Option<Instant> {
        if self.failed {
            return Some(self.forgotten_at());
        }
        let silence_deadline = self.last_frame + self.interval * config.hello_misses;
        Some(self.suspicion.as_ref().map_or(silence_deadline, |suspicion| suspicion.next))
    }

    /// Returns the time at which the state of a failed peer is removed. If the peer returns later,
    /// it must pass a challenge, like a newcomer.
    pub(super) fn forgotten_at(&self) -> Instant {
        self.last_frame + FAILED_PEER_LIFETIME
    }

    /// Returns whether the frame is reordered or replayed: its clock value is not above the latest
    /// one. Clock values are unique per sender.
    const fn is_stale(&self, frame: &Frame) -> bool {
        frame.clock <= self.clock
    }

    /// Returns whether the peer sent the frame shortly before its newest one.
    const fn was_just_overtaken(&self, frame: &Frame) -> bool {
        self.clock - frame.clock < OVERTAKEN_MAX.as_nanos() as u64
    }

    /// Adds a hardware address of the peer. A node may have several interfaces on a segment, of
    /// which one is active.
    pub(super) fn add_mac(&mut self, mac: Mac) {
        if !self.macs.contains(&mac) {
            self.macs.push_back(mac);
        }
        if self.macs.len() > MACS_MAX {
            self.macs.pop_front();
        }
    }

    /// Doubles `patience`, because the peer was declared failed by mistake; at most once for each
    /// time it was declared failed.
    pub(super) fn double_patience(&mut self) {
        if !std::mem::replace(&mut self.patience_doubled, true) {
            self.patience = (self.patience * 2).min(PROXY_PATIENCE_MAX);
        }
    }
}

pub(super) fn accepted(keys: &[u32]) -> Box<[u32]> {
    keys.iter().take(ACCEPTS_MAX).copied().collect()
}

impl ClaimMachine {
    pub(super) fn receive(&mut self, source: Mac, frame: Frame, now: Instant) {
        if *frame.node == *self.config.node {
            self.counts.own_name_frames += 1;
            return;
        }
        let Some(changes) = self.admit(source, &frame, now) else { return };
        let Frame { node, body, .. } = frame;
        self.on_set_changes(&node, &body, changes, now);
        match body {
            Body::Hello { accepted_keys } => self.on_accepts(&node, &accepted_keys),
            Body::Release { addresses, contested: true } => self.on_contested(&addresses, now),
            Body::Challenge { nonce } => {
                self.send(Some(source), Body::ChallengeReply { nonce }, now)
            }
            Body::ListRequest => self.sets.own_mut().start_list(now),
            Body::Doubt(addresses) => self.on_doubts(&addresses, now),
            // A challenge response needs no action: `admit` has recorded it as a sign of life, like
            // every frame that is not stale.
            Body::ChallengeReply { .. }
            | Body::Claim(_)
            | Body::Release { contested: false, .. }
            | Body::List(_) => {}
        }
        self.update_peers_due(&node);
    }

    /// Records the sender of a frame as alive, and applies the claims in the frame. Returns `None`
    /// if the frame must be dropped.
    fn admit(&mut self, source: Mac, frame: &Frame, now: Instant) -> Option<SetChanges> {
        let node = &*frame.node;
        let peer = self.peers.get_mut(node).filter(|peer| peer.epoch == frame.epoch);
        let Some(peer) = peer else {
            let is_admitted = self.admit_newcomer(source, frame, now);
            return is_admitted.then(|| self.sets.receive(node, frame, now));
        };
        if peer.is_stale(frame) {
            // The flags and the interval in an overtaken frame are outdated, so only its body is
            // used.
            let is_recent = peer.was_just_overtaken(frame);
            let changes = self.sets.receive_late(node, frame, is_recent, now);
            self.counts.stale_frames += u64::from(changes.is_none());
            return changes;
        }
        let has_returned = peer.failed;
        let starts_delay = has_returned && self.peers.values().all(|peer| peer.failed);
        self.on_sign_of_life(source, frame, now);
        self.compare_clocks(node, frame.clock, now);
        let changes = self.sets.receive(node, frame, now);
        if has_returned {
            self.on_return(node, &changes.claimed, starts_delay, now);
        }
        Some(changes)
    }

    /// Stores the state of the peer in a frame that is newer than all others of the peer.
    fn on_sign_of_life(&mut self, source: Mac, frame: &Frame, now: Instant) {
        let Some(peer) = self.peers.get_mut(&*frame.node) else { return };
        let has_returned = std::mem::take(&mut peer.failed);
        self.counts.refuted += u64::from(peer.suspicion.take().is_some());
        if has_returned || peer.flags != frame.flags {
            self.own.dirty.mark_affected(self.sets.copy(&frame.node));
        }
        peer.mac = source;
        peer.add_mac(source);
        peer.flags = frame.flags;
        peer.interval = frame.interval;
        peer.clock = frame.clock;
        peer.last_frame = now;
        if has_returned && std::mem::take(&mut peer.proxied) {
            // The peer was alive all the time, and the ARP replies were its own, so it was declared
            // failed by mistake.
            peer.double_patience();
        }
    }

    /// Handles the return of a peer that was declared failed. The peer may never have stopped
    /// announcing its addresses, so it counts as their owner again. `claimed` are those that its
    /// frame has added.
    fn on_return(&mut self, node: &str, claimed: &[IpAddr], starts_delay: bool, now: Instant) {
        let claims: Vec<_> = self
            .sets
            .copy(node)
            .into_iter()
            .flat_map(|copy| copy.claims().keys())
            .filter(|address| !claimed.contains(address))
            .copied()
            .collect();
        self.note_moves(&claims, now);
        self.end_hold_downs(node, &claims);
        if starts_delay {
            self.start_preempt_delay(now);
        }
    }

    fn on_accepts(&mut self, node: &str, accepts: &[u32]) {
        if let Some(peer) = self.peers.get_mut(node).filter(|peer| *peer.accepts != *accepts) {
            peer.accepts = accepted(accepts);
        }
    }

    /// Removes a peer from the table. Returns it with the addresses that it claimed.
    pub(super) fn remove_peer(&mut self, name: &str) -> Option<(Peer, Vec<IpAddr>)> {
        let peer = self.peers.remove(name)?;
        Some((peer, self.sets.remove_peer(name)))
    }

    /// Returns whether one more peer fits into the table. If necessary, removes the failed peer
    /// that has been silent for longest.
    pub(super) fn make_room(&mut self) -> bool {
        if self.peers.len() < PEERS_MAX {
            return true;
        }
        let longest_failed = self
            .peers
            .iter()
            .filter(|(_, peer)| peer.failed)
            .min_by_key(|(_, peer)| peer.last_frame);
        let Some(name) = longest_failed.map(|(name, _)| name.clone()) else { return false };
        self.remove_peer(&name);
        true
    }
}
