//! State of this node, and the frames that it sends. Part of the membership of one interface.

use std::collections::VecDeque;
use std::time::Duration;

use ferrolb_proto::Instant;
use ferrolb_proto::wire::Mac;
use ferrolb_proto::wire::hello::{Body, ClaimSetSummary, Flags, Frame};

use super::hello::HelloInterval;
use super::{ClaimConfig, Membership, Output};

/// Delay from a claim or release to the hello that follows, and from that one to the next. By these
/// hellos, peers detect that the claim or release was lost.
pub(super) const HELLO_AFTER_CLAIM: Duration = Duration::from_millis(25);
#[derive(Debug)]
pub(super) struct OwnState {
    /// IDs of the keys with which this node can verify frames, newest first. Without a key, this
    /// node neither sends nor claims.
    pub(super) keys: Vec<u32>,
    pub(super) flags: Flags,
    pub(super) last_hello: Instant,
    /// Time of this node's latest claim or release.
    pub(super) last_claim: Instant,
    /// Summary of this node's claim set, which each frame carries.
    pub(super) claim_set: ClaimSetSummary,
    /// Clock value of the latest frame that this node sent, in nanoseconds.
    pub(super) clock: u64,
    pub(super) next_hello: Instant,
    pub(super) hello_interval: HelloInterval,
    /// End of the current listen phase; `None` outside of one.
    pub(super) listen_until: Option<Instant>,
    /// End of this node's preempt delay; `None` after the end, or if the delay never ends.
    pub(super) preempt_delay_until: Option<Instant>,
    /// End of the standby period of this interface; `None` if no other interface of this node is
    /// active on the segment.
    pub(super) standby_until: Option<Instant>,
    pub(super) leave_until: Option<Instant>,
    /// Times of this node's latest fences, at most [`super::hello::FENCES_FLAPPING`] of them,
    /// ascending.
    pub(super) fences: VecDeque<Instant>,
}

impl OwnState {
    pub(super) fn new(config: &ClaimConfig, now: Instant) -> Self {
        Self {
            keys: Vec::new(),
            flags: Flags { in_preempt_delay: true, ..Flags::default() },
            last_hello: now,
            last_claim: now,
            claim_set: ClaimSetSummary::default(),
            clock: 0,
            next_hello: now,
            hello_interval: HelloInterval::new(config.hello_interval),
            listen_until: None,
            preempt_delay_until: config.failback_delay.map(|delay| now + delay),
            standby_until: None,
            leave_until: None,
            fences: VecDeque::new(),
        }
    }

    /// Returns whether this node may claim any address now.
    pub(super) fn claims(&self) -> bool {
        let is_silent =
            self.keys.is_empty() || self.listen_until.is_some() || self.standby_until.is_some();
        !(is_silent || self.flags.leaving)
    }
}

impl Membership {
    /// Stores the new summary of this node's claim set.
    pub(in crate::claim) const fn set_claim_set(&mut self, summary: ClaimSetSummary) {
        self.own.claim_set = summary;
    }

    /// Returns whether this node owns no address.
    pub(super) const fn owns_nothing(&self) -> bool {
        self.own.claim_set.count == 0
    }

    /// Sends a frame with this body to `to`, or to all speakers if `to` is `None`.
    pub(in crate::claim) fn send(&mut self, to: Option<Mac>, body: Body, now: Instant) {
        let is_change = matches!(body, Body::Claim(_) | Body::Release { .. });
        let Some((key, frame)) = self.frame(body, now) else { return };
        if is_change {
            // A claim or release has the effect of a hello, also on the answer lease. A real hello
            // right behind the claim or release could overtake it, and make it a stale frame.
            self.own.last_hello = now;
            self.own.last_claim = now;
            self.own.next_hello = now + HELLO_AFTER_CLAIM;
        }
        self.send_copies(to, key, &frame, now);
        self.output(Output::Send { to, key, frame });
    }

    /// Returns a frame of this node and its signing key; `None` if this node must not send.
    pub(super) fn frame(&mut self, body: Body, now: Instant) -> Option<(u32, Frame)> {
        let key = self.signing_key().filter(|_| self.own.standby_until.is_none())?;
        // Clock values are unique per sender, so a receiver can order any two frames.
        self.own.clock = now.as_nanos().max(self.own.clock + 1);
        let frame = Frame {
            node: (*self.config.node).into(),
            epoch: self.config.epoch,
            clock: self.own.clock,
            claim_set: self.own.claim_set,
            interval: self.own.hello_interval.promised,
            flags: self.own.flags,
            body,
        };
        Some((key, frame))
    }
}
