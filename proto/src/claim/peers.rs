//! State of the other speakers on the segment (the peers), and the check whether their frames are
//! accepted. Owned by the claim machine of one interface.
//!
//! A node, or a new epoch of a node, is accepted as a peer only after it has responded to a
//! challenge. Signed frames can be recorded and replayed; a response to a new random number cannot.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::Duration;

use super::claim_sets::SetChanges;
use super::failure_detection::Suspicion;
use super::second_path::SecondPath;
use super::self_check::MinimumOffset;
use super::{ClaimConfig, ClaimMachine, PEERS_MAX};
use crate::Instant;
use crate::wire::Mac;
use crate::wire::hello::{Body, Flags, Frame};

/// Maximum number of key IDs that are stored as accepted by a peer. No speaker accepts more than
/// two at a time.
const ACCEPTS_MAX: usize = 4;
/// Time for which the state of a failed peer is kept, counted from the latest sign of life.
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
    /// Time of the latest frame of the peer on the segment.
    pub(super) last_frame: Instant,
    /// Time of the latest frame, accepted copy of a frame, or proof that the peer is unheard.
    pub(super) last_seen: Instant,
    pub(super) suspicion: Option<Suspicion>,
    /// IDs of the keys that the peer accepts; empty if not reported yet.
    pub(super) accepts: Box<[u32]>,
    /// Comparison of this node's clock with the peer's clock.
    pub(super) min_clock_offset: MinimumOffset,
    /// True if the peer is alive, but its frames do not arrive on the segment (see
    /// [`super::second_path`]). Then it is not `failed`, and under suspicion.
    pub(super) unheard: bool,
    /// Time at which the failed peer did not reply to challenges that its announcement had caused.
    pub(super) silent_at: Option<Instant>,
    pub(super) second_path: SecondPath,
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
            last_seen: now,
            suspicion: None,
            accepts: Box::default(),
            min_clock_offset: MinimumOffset::new(frame.clock, now),
            unheard: false,
            silent_at: None,
            second_path: SecondPath::default(),
        }
    }

    pub(super) fn deadline(&self, config: &ClaimConfig) -> Option<Instant> {
        if let Some(suspicion) = &self.suspicion {
            return Some(suspicion.next);
        }
        let silence_deadline = self.last_frame + self.interval * config.hello_misses;
        Some(if self.failed { self.forgotten_at() } else { silence_deadline })
    }

    /// Returns the time at which the state of a failed peer is removed. If the peer returns later,
    /// it must pass a challenge, like a newcomer.
    pub(super) fn forgotten_at(&self) -> Instant {
        self.last_seen + FAILED_PEER_LIFETIME
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
        if matches!(frame.body, Body::PathReport { .. }) {
            // A report goes by the second path, so another host has copied this one.
            self.counts.stale_frames += 1;
            return;
        }
        let Some(changes) = self.admit(source, &frame, now) else { return };
        let Frame { node, body, .. } = frame;
        match body {
            Body::Challenge { nonce } => {
                self.send(Some(source), Body::ChallengeReply { nonce }, now)
            }
            Body::ChallengeReply { .. } => self.on_reply(now),
            Body::Hello { .. }
            | Body::Claim(_)
            | Body::Release { .. }
            | Body::ListRequest
            | Body::List(_)
            | Body::Doubt(_)
            | Body::PathReport { .. } => {}
        }
        self.on_frame_of(&node, now);
        self.on_body(&node, body, changes, now);
        self.update_peers_due(&node);
    }

    /// Handles the body of a frame that has arrived by either path, except challenges and their
    /// responses. `changes` are those of the peer's claim set by the frame.
    pub(super) fn on_body(&mut self, node: &str, body: Body, changes: SetChanges, now: Instant) {
        self.on_set_changes(node, &body, changes, now);
        match body {
            Body::Hello { accepted_keys } => self.on_accepts(node, &accepted_keys),
            Body::Release { addresses, contested: true } => self.on_contested(&addresses, now),
            Body::ListRequest => self.sets.own_mut().start_list(now),
            Body::Doubt(addresses) => self.on_doubts(&addresses, now),
            Body::Challenge { .. }
            | Body::ChallengeReply { .. }
            | Body::PathReport { .. }
            | Body::Claim(_)
            | Body::Release { contested: false, .. }
            | Body::List(_) => {}
        }
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
        self.set_peer_flags(&frame.node, frame.flags);
        let Some(peer) = self.peers.get_mut(&*frame.node) else { return };
        if std::mem::take(&mut peer.failed) {
            self.own.dirty.mark_affected(self.sets.copy(&frame.node));
        }
        peer.unheard = false;
        let was_suspected = peer.suspicion.take().is_some_and(|suspicion| suspicion.is_open());
        self.counts.refuted += u64::from(was_suspected);
        peer.mac = source;
        peer.add_mac(source);
        peer.interval = frame.interval;
        peer.clock = frame.clock;
        (peer.last_frame, peer.last_seen) = (now, now);
    }

    pub(super) fn set_peer_flags(&mut self, node: &str, flags: Flags) {
        let Some(peer) = self.peers.get_mut(node) else { return };
        if std::mem::replace(&mut peer.flags, flags) != flags {
            self.own.dirty.mark_affected(self.sets.copy(node));
        }
    }

    /// Handles the return of a peer that was declared failed. The peer may never have stopped
    /// announcing its addresses, so it counts as their owner again. `claimed` are those that its
    /// frame has added.
    pub(super) fn on_return(
        &mut self,
        node: &str,
        claimed: &[IpAddr],
        starts_delay: bool,
        now: Instant,
    ) {
        let claims: Vec<_> = self
            .sets
            .copy(node)
            .into_iter()
            .flat_map(|copy| copy.claims().keys())
            .filter(|address| !claimed.contains(address))
            .copied()
            .collect();
        self.note_moves(&claims, now);
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
            .min_by_key(|(_, peer)| peer.last_seen);
        let Some(name) = longest_failed.map(|(name, _)| name.clone()) else { return false };
        self.remove_peer(&name);
        true
    }
}
