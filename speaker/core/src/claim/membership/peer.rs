//! State of one peer. Part of the membership of one interface.

use std::collections::VecDeque;
use std::time::Duration;

use ferrolb_proto::Instant;
use ferrolb_proto::wire::Mac;
use ferrolb_proto::wire::hello::{Body, Flags, Frame};

use super::EarlierEpoch;
use super::failure_detection::Liveness;
use super::newcomers::accepted;
use super::second_path::{Intervals, SecondPath};
use super::self_check::MinimumOffset;

/// Age up to which an overtaken list request or release is executed, measured by the clock of the
/// peer. An older one may be a recording.
const OVERTAKEN_MAX: Duration = Duration::from_millis(20);
/// Maximum number of stored hardware addresses of one peer.
const MACS_MAX: usize = 8;

/// Another speaker on the segment that has responded to a challenge.
#[derive(Debug)]
pub(super) struct Peer {
    mac: Mac,
    /// Hardware addresses from which frames of the peer came, oldest first, at most [`MACS_MAX`].
    macs: VecDeque<Mac>,
    flags: Flags,
    epoch: u64,
    clock: u64,
    /// True if the peer owns an address, by its own account.
    is_owner: bool,
    /// True if the peer's frames carry a detection time. Such a peer also waits for that of others.
    states_detection_time: bool,
    /// IDs of the keys that the peer accepts; empty if not reported yet.
    accepts: Box<[u32]>,
    /// Comparison of this node's clock with the peer's clock.
    pub(super) min_clock_offset: MinimumOffset,
    pub(super) liveness: Liveness,
    pub(super) second_path: SecondPath,
}

impl Peer {
    /// Creates a peer from its first accepted frame. `before` is its earlier epoch, if any.
    pub(super) fn new(
        source: Mac,
        frame: &Frame,
        detection_time: Duration,
        accepts: Box<[u32]>,
        before: Option<&Self>,
        now: Instant,
    ) -> Self {
        let mut peer = Self {
            mac: source,
            macs: VecDeque::from([source]),
            flags: frame.flags,
            epoch: frame.epoch,
            clock: frame.clock,
            is_owner: frame.claim_set.count > 0,
            accepts,
            min_clock_offset: MinimumOffset::new(frame.clock, now),
            states_detection_time: frame.detection_time.is_some(),
            liveness: Liveness::new(detection_time, now),
            second_path: SecondPath::default(),
        };
        let macs = before.into_iter().flat_map(|before| &before.macs);
        macs.for_each(|mac| peer.add_mac(*mac));
        peer
    }

    /// Returns the latest hardware address.
    pub(super) const fn mac(&self) -> Mac {
        self.mac
    }

    pub(super) const fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Returns the clock value of the latest frame or accepted copy.
    pub(super) const fn clock(&self) -> u64 {
        self.clock
    }

    pub(super) const fn is_owner(&self) -> bool {
        self.is_owner
    }

    pub(super) const fn states_detection_time(&self) -> bool {
        self.states_detection_time
    }

    pub(super) const fn accepts(&self) -> &[u32] {
        &self.accepts
    }

    /// Returns the flags of the peer, unless it was declared failed.
    pub(super) fn live_flags(&self) -> Option<Flags> {
        (!self.liveness.has_failed()).then_some(self.flags)
    }

    /// Returns whether the peer has sent frames from this hardware address.
    pub(super) fn has_mac(&self, mac: Mac) -> bool {
        self.macs.contains(&mac)
    }

    /// Returns the state at the end of this epoch of the peer.
    pub(super) const fn earlier_epoch(&self) -> EarlierEpoch {
        EarlierEpoch { is_leaving: self.flags.leaving, failed: self.liveness.has_failed() }
    }

    /// Returns whether the frame is reordered or replayed: its clock value is not above the latest
    /// one. Clock values are unique per sender.
    pub(super) const fn is_stale(&self, frame: &Frame) -> bool {
        frame.clock <= self.clock
    }

    /// Returns whether the peer sent the frame shortly before its newest one.
    pub(super) const fn was_just_overtaken(&self, frame: &Frame) -> bool {
        self.clock - frame.clock < OVERTAKEN_MAX.as_nanos() as u64
    }

    /// Records a frame that is newer than all others of the peer. Returns whether the flags have
    /// changed.
    pub(super) fn on_frame(&mut self, source: Mac, frame: &Frame) -> bool {
        self.mac = source;
        self.add_mac(source);
        self.on_state(frame)
    }

    /// Records the copy of a frame that is newer than all others of the peer. Returns whether the
    /// flags have changed.
    pub(super) fn on_copy(
        &mut self,
        frame: &Frame,
        detection_time: Duration,
        now: Instant,
    ) -> bool {
        self.liveness.on_copy(detection_time, now);
        self.on_state(frame)
    }

    fn on_state(&mut self, frame: &Frame) -> bool {
        (self.clock, self.is_owner) = (frame.clock, frame.claim_set.count > 0);
        self.states_detection_time = frame.detection_time.is_some();
        std::mem::replace(&mut self.flags, frame.flags) != frame.flags
    }

    /// Stores the IDs of the keys that the peer accepts.
    pub(super) fn set_accepts(&mut self, accepts: &[u32]) {
        if *self.accepts != *accepts {
            self.accepts = accepted(accepts);
        }
    }

    /// Returns whether a copy of a frame with this body goes to the peer by the second path: this
    /// node or the peer misses the other one's frames.
    pub(super) fn takes_copy(&mut self, body: &Body, intervals: Intervals, now: Instant) -> bool {
        let is_used = || self.liveness.is_suspected() || self.second_path.is_answering(now);
        match body {
            // Challenges of the self-check concern the segment alone.
            Body::Challenge { nonce } => self.liveness.is_challenged_with(*nonce),
            Body::ChallengeReply { .. } | Body::NodeWatch(_) => false,
            Body::Hello { .. } => is_used() && self.second_path.takes_hello(intervals, now),
            Body::Claim(_)
            | Body::Release { .. }
            | Body::ListRequest
            | Body::List(_)
            | Body::Doubt(_)
            | Body::PathReport { .. } => is_used(),
        }
    }

    /// Adds a hardware address of the peer. A node may have several interfaces on a segment, of
    /// which one is active.
    fn add_mac(&mut self, mac: Mac) {
        if !self.macs.contains(&mac) {
            self.macs.push_back(mac);
        }
        if self.macs.len() > MACS_MAX {
            self.macs.pop_front();
        }
    }
}

/// State that only tests read or change.
#[cfg(test)]
impl Peer {
    pub(super) const fn macs(&self) -> &VecDeque<Mac> {
        &self.macs
    }

    pub(super) const fn set_leaving(&mut self) {
        self.flags.leaving = true;
    }
}
