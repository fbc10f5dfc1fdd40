//! State of the other speakers on the segment (the peers), and the check whether their frames are
//! accepted. Part of the membership of one interface.
//!
//! A node, or a new epoch of a node, is accepted as a peer only after it has responded to a
//! challenge. Signed frames can be recorded and replayed; a response to a new random number cannot.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use ferrolb_proto::Instant;
use ferrolb_proto::wire::Mac;
use ferrolb_proto::wire::hello::{Body, Flags, Frame, PEERS_MAX};

use super::failure_detection::Suspicion;
use super::second_path::SecondPath;
use super::self_check::MinimumOffset;
use super::{MemberEffect, Membership};
use crate::claim::ClaimConfig;

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

/// Result of the check of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::claim) enum Admission {
    /// The frame must be dropped.
    Dropped,
    /// The frame is newer than all others of the peer.
    Newest {
        /// True if the peer was declared failed before.
        has_returned: bool,
    },
    /// A newer frame has overtaken this one. `is_recent` is false if the frame is so old that it
    /// may be a recording.
    Late { is_recent: bool },
}

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
    /// True if the peer owns an address, by its own account.
    pub(super) is_owner: bool,
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
            is_owner: frame.claim_set.count > 0,
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

impl Membership {
    /// Checks a frame of the segment. If its sender is accepted, records the sender as alive.
    pub(in crate::claim) fn admit(
        &mut self,
        source: Mac,
        frame: &Frame,
        now: Instant,
    ) -> Admission {
        let node = &*frame.node;
        if *node == *self.config.node {
            self.counts.own_name_frames += 1;
            return Admission::Dropped;
        }
        if matches!(frame.body, Body::PathReport { .. } | Body::NodeWatch(_)) {
            // Such a frame goes by the second path, so another host has copied this one.
            self.counts.stale_frames += 1;
            return Admission::Dropped;
        }
        let Some(peer) = self.peers.get(node).filter(|peer| peer.epoch == frame.epoch) else {
            let is_admitted = self.admit_newcomer(source, frame, now);
            let newest = Admission::Newest { has_returned: false };
            return if is_admitted { newest } else { Admission::Dropped };
        };
        if peer.is_stale(frame) {
            // The flags and the interval in an overtaken frame are outdated, so only its body is
            // used.
            return Admission::Late { is_recent: peer.was_just_overtaken(frame) };
        }
        let has_returned = peer.failed;
        let starts_delay = has_returned && self.is_alone();
        self.on_sign_of_life(source, frame, now);
        self.compare_clocks(node, frame.clock, now);
        if starts_delay {
            self.start_preempt_delay(now);
        }
        Admission::Newest { has_returned }
    }

    /// Stores the state of the peer in a frame that is newer than all others of the peer.
    fn on_sign_of_life(&mut self, source: Mac, frame: &Frame, now: Instant) {
        self.set_peer_flags(&frame.node, frame.flags);
        let Some(peer) = self.peers.get_mut(&*frame.node) else { return };
        if std::mem::take(&mut peer.failed) {
            self.effects.push_back(MemberEffect::PeerChanged((*frame.node).into()));
        }
        peer.unheard = false;
        let was_suspected = peer.suspicion.take().is_some_and(|suspicion| suspicion.is_open());
        self.counts.refuted += u64::from(was_suspected);
        peer.mac = source;
        peer.add_mac(source);
        peer.interval = frame.interval;
        peer.clock = frame.clock;
        peer.is_owner = frame.claim_set.count > 0;
        (peer.last_frame, peer.last_seen) = (now, now);
        self.update_peers_due(&frame.node);
    }

    /// Handles the body of an accepted frame of the segment, as far as it concerns the membership.
    pub(in crate::claim) fn on_segment_frame(
        &mut self,
        source: Mac,
        node: &str,
        body: &Body,
        now: Instant,
    ) {
        match body {
            Body::Challenge { nonce } => {
                self.send(Some(source), Body::ChallengeReply { nonce: *nonce }, now)
            }
            Body::ChallengeReply { .. } => self.on_reply(now),
            Body::Hello { .. }
            | Body::Claim(_)
            | Body::Release { .. }
            | Body::ListRequest
            | Body::List(_)
            | Body::Doubt(_)
            | Body::PathReport { .. }
            | Body::NodeWatch(_) => {}
        }
        self.on_frame_of(node, now);
    }

    /// Stores the IDs of the keys that a peer accepts.
    pub(in crate::claim) fn on_accepts(&mut self, node: &str, accepts: &[u32]) {
        if let Some(peer) = self.peers.get_mut(node).filter(|peer| *peer.accepts != *accepts) {
            peer.accepts = accepted(accepts);
        }
    }

    /// Counts a frame that was dropped because it is outdated.
    pub(in crate::claim) const fn count_stale(&mut self) {
        self.counts.stale_frames += 1;
    }

    /// Returns whether all known peers were declared failed. Also true without peers.
    pub(super) fn is_alone(&self) -> bool {
        self.peers.values().all(|peer| peer.failed)
    }

    pub(super) fn set_peer_flags(&mut self, node: &str, flags: Flags) {
        let Some(peer) = self.peers.get_mut(node) else { return };
        if std::mem::replace(&mut peer.flags, flags) != flags {
            self.effects.push_back(MemberEffect::PeerChanged(node.into()));
        }
    }

    /// Removes a failed peer from the table.
    pub(super) fn remove_peer(&mut self, name: &Arc<str>) {
        self.peers.remove(name);
        self.effects.push_back(MemberEffect::Removed(Arc::clone(name)));
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
