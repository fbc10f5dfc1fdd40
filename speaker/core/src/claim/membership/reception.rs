//! Received frames and datagrams: which of them are accepted, and how this node replies. Part of
//! the membership of one interface.

use std::sync::Arc;
use std::time::Duration;

use ferrolb_proto::Instant;
use ferrolb_proto::wire::Mac;
use ferrolb_proto::wire::hello::{Body, Frame, PathReport};

use super::peer::Peer;
use super::second_path::JUST_REPLIED;
use super::{MemberEffect, Membership};
use crate::claim::Output;

/// Time after a fence in which this node reads the frames that have queued up.
const QUEUE_TIME: Duration = Duration::from_millis(25);

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

impl Membership {
    /// Checks a frame of the segment. If its sender is accepted, records the sender as alive.
    pub(in crate::claim) fn admit(
        &mut self,
        source: Mac,
        frame: &Frame,
        now: Instant,
    ) -> Admission {
        if *frame.node == *self.own.config().node {
            self.counts.own_name_frames += 1;
            return Admission::Dropped;
        }
        if matches!(frame.body, Body::PathReport { .. } | Body::NodeWatch(_)) {
            // Such a frame goes by the second path, so another host has copied this one.
            self.counts.stale_frames += 1;
            return Admission::Dropped;
        }
        let all_failed = self.peers.all_failed();
        let detection_time = self.own.detection_time_of(frame);
        let Some(peer) = self.peers.sender(frame) else {
            let is_admitted = self.admit_newcomer(source, frame, now);
            let newest = Admission::Newest { has_returned: false };
            return if is_admitted { newest } else { Admission::Dropped };
        };
        if peer.is_stale(frame) {
            // The flags and the times in an overtaken frame are outdated, so only its body is
            // used.
            return Admission::Late { is_recent: peer.was_just_overtaken(frame) };
        }
        let has_returned = peer.liveness.has_failed();
        self.counts.refuted += u64::from(peer.liveness.on_frame(detection_time, now));
        if peer.on_frame(source, frame) || has_returned {
            self.effects.push_back(MemberEffect::PeerChanged((*frame.node).into()));
        }
        self.peers.update_due(&frame.node);
        self.compare_clocks(&frame.node, frame.clock, now);
        self.end_listen_phase_if_heard(now);
        if has_returned && all_failed {
            self.start_preempt_delay(now);
        }
        Admission::Newest { has_returned }
    }

    /// Ends the listen phase after a fence once this node has heard every live peer, and therefore
    /// knows what they have claimed. A frame that arrives right after the fence may be older: it
    /// has queued up while this node stood still.
    fn end_listen_phase_if_heard(&mut self, now: Instant) {
        let Some(fence) = self.own.listens_after_fence(now) else { return };
        let is_heard = |peer: &Peer| peer.liveness.last_seen() >= fence + QUEUE_TIME;
        if self.peers.live_peers().all(|(_, peer)| is_heard(peer)) {
            self.own.end_listen_phase();
        }
    }

    /// Compares this node's clock with a peer's clock. If the peer's clock went on while this
    /// node's clock stood still, this node has stalled without any trace in its own clock.
    fn compare_clocks(&mut self, node: &str, clock: u64, now: Instant) {
        let most = self.own.hellos().patience();
        let Some(peer) = self.peers.get_mut(node) else { return };
        if !peer.min_clock_offset.has_fallen(clock, most, now) || self.own.owns_nothing() {
            return;
        }
        let heard = || self.peers.live_peers().filter(|(_, peer)| !peer.liveness.is_unheard());
        if self.self_check.vote(node, heard().count(), now) {
            self.fence(now);
            return;
        }
        let others = heard().filter(|(name, _)| !self.self_check.has_vote(name));
        let others: Vec<_> = others.map(|(_, peer)| peer.mac()).collect();
        self.challenge(&others, now);
    }

    /// Challenges an unknown sender, and admits it as a peer once it has responded; returns true in
    /// that case. Other frames of the sender are dropped until then, because they may be
    /// recordings.
    fn admit_newcomer(&mut self, source: Mac, frame: &Frame, now: Instant) -> bool {
        self.newcomers.expire(now);
        if !self.newcomers.is_response(frame, now) {
            self.counts.unchallenged += 1;
            let nonce = self.random.nonce();
            if self.newcomers.is_full_for(&frame.node) {
                self.counts.over_limit += 1;
            } else if let Some(nonce) = self.newcomers.receive(source, frame, nonce, now) {
                self.send(Some(source), Body::Challenge { nonce }, now);
            }
            if let Body::Challenge { nonce } = frame.body {
                // Two nodes may be newcomers to each other, so each must respond before it has
                // admitted the other one. A response discloses nothing.
                self.send(Some(source), Body::ChallengeReply { nonce }, now);
            }
            return false;
        }
        let accepts = self.newcomers.remove(&frame.node);
        if self.peers.is_full_for(&frame.node) {
            let Some(failed) = self.peers.longest_failed() else {
                self.counts.over_limit += 1;
                return false;
            };
            self.remove_peer(failed);
        }
        let detection_time = self.own.detection_time_of(frame);
        // In its first preempt delay, a node does not restart the delay when its first peer
        // appears. Otherwise nodes that start together would all take their addresses in the same
        // moment.
        let is_first_delay = self.peers.count() == 0 && self.own.delay_ends();
        let starts_delay = self.peers.all_failed() && !is_first_delay;
        let (node, before) = self.peers.join(source, frame, detection_time, accepts, now);
        self.effects.push_back(MemberEffect::Joined { node, epoch: frame.epoch, before });
        if starts_delay {
            self.start_preempt_delay(now);
        }
        true
    }

    pub(super) fn remove_peer(&mut self, name: Arc<str>) {
        self.peers.remove(&name);
        self.effects.push_back(MemberEffect::Removed(name));
    }

    /// Handles the body of an accepted frame of the segment, as far as it concerns the membership.
    pub(in crate::claim) fn on_segment_frame(
        &mut self,
        source: Mac,
        node: &str,
        body: &Body,
        now: Instant,
    ) {
        if let Body::Challenge { nonce } = *body {
            self.send(Some(source), Body::ChallengeReply { nonce }, now);
        } else if let Body::ChallengeReply { .. } = body {
            self.on_reply(now);
        }
        // The peer may have sent the frame with a challenge.
        self.add_to_reports(|name, _| name == node, |report| report.receives = true, now);
    }

    /// Stores the IDs of the keys that a peer accepts.
    pub(in crate::claim) fn on_accepts(&mut self, node: &str, accepts: &[u32]) {
        if let Some(peer) = self.peers.get_mut(node) {
            peer.set_accepts(accepts);
        }
    }

    /// Handles a datagram of the second path. Datagrams of unknown peers are dropped: a node sends
    /// them to all interfaces of a peer, and one of these is on this segment.
    ///
    /// Returns what the rest of the claim machine must handle: a request for the list of this node,
    /// or the copy of a frame of an unheard peer, which is newer than all others of the peer.
    pub(in crate::claim) fn receive_datagram(
        &mut self,
        frame: Frame,
        now: Instant,
    ) -> Option<Frame> {
        let peer = self.peers.sender(&frame)?;
        if let Body::PathReport { nonce, report } = frame.body {
            if peer.liveness.on_report(nonce, report, now) {
                self.peers.check_at(now);
            }
            return None;
        }
        let age = peer.second_path.receive(frame.clock, peer.clock());
        if age.misses_frame {
            self.suspect_heard(&frame.node, now);
        }
        match frame.body {
            Body::Challenge { .. } | Body::ListRequest if age.is_old => {
                self.counts.stale_frames += 1;
            }
            Body::Challenge { nonce } => self.answer_challenge(&frame.node, nonce, now),
            Body::ListRequest => return Some(frame),
            Body::Hello { .. }
            | Body::Claim(_)
            | Body::Release { .. }
            | Body::List(_)
            | Body::Doubt(_) => {
                return self.admit_copy(&frame, now).then_some(frame);
            }
            Body::ChallengeReply { .. } | Body::PathReport { .. } | Body::NodeWatch(_) => {}
        }
        None
    }

    /// Checks the copy of a frame. It counts only if its sender is unheard: otherwise the frame
    /// itself arrives on the segment, or the sender has failed there.
    fn admit_copy(&mut self, frame: &Frame, now: Instant) -> bool {
        let detection_time = self.own.detection_time_of(frame);
        let Some(peer) = self.peers.sender(frame).filter(|peer| peer.liveness.is_unheard()) else {
            return false;
        };
        if peer.is_stale(frame) {
            self.counts.stale_frames += 1;
            return false;
        }
        if peer.on_copy(frame, detection_time, now) {
            self.effects.push_back(MemberEffect::PeerChanged((*frame.node).into()));
        }
        true
    }

    fn answer_challenge(&mut self, node: &str, nonce: u64, now: Instant) {
        let is_received = now.since(self.self_check.last_reply()) <= JUST_REPLIED;
        let is_received = self.peers.answer_challenge(node, nonce, is_received, now);
        self.send_report(node, now);
        if !is_received {
            self.probe_witnesses(now);
        }
    }

    /// Handles the proof that frames of this node arrive on the segment: a reply to one of them.
    pub(in crate::claim) fn on_reply(&mut self, now: Instant) {
        self.self_check.on_reply(now);
        self.add_to_reports(|_, _| true, |report| report.is_received = true, now);
    }

    /// Handles an ARP request or neighbor solicitation to which this node has replied.
    pub(in crate::claim) fn on_request(&mut self, mac: Mac, now: Instant) {
        self.add_to_reports(|_, peer| peer.mac() == mac, |report| report.has_replied = true, now);
    }

    /// Adds what has just become known to the reports for the peers that `concerns` selects, and
    /// sends those that have changed.
    fn add_to_reports(
        &mut self,
        concerns: impl Fn(&str, &Peer) -> bool,
        add: fn(&mut PathReport),
        now: Instant,
    ) {
        for name in self.peers.add_to_reports(concerns, add, now) {
            self.send_report(&name, now);
        }
    }

    fn send_report(&mut self, node: &str, now: Instant) {
        let report = self.peers.get(node).and_then(|peer| peer.second_path.report());
        let Some((key, frame)) = report.and_then(|report| self.frame(report, now)) else { return };
        self.output(Output::SendDatagram { to: node.into(), key, frame });
    }
}

/// Admits a node as a peer: sends a hello, and responds to the challenge.
#[cfg(any(test, feature = "fuzz"))]
pub(in crate::claim) fn admit(
    membership: &mut Membership,
    node: &str,
    source: Mac,
    flags: ferrolb_proto::wire::hello::Flags,
    now: Instant,
) {
    let claim_set = ferrolb_proto::wire::hello::ClaimSetSummary::default();
    let interval = Duration::from_millis(50);
    let frame = |clock, body| {
        let node = node.into();
        let detection_time = None;
        Frame { node, epoch: 7, clock, claim_set, interval, detection_time, flags, body }
    };
    membership.admit(source, &frame(1, Body::Hello { accepted_keys: vec![] }), now);
    let nonce = membership.newcomers.nonce_of(node).unwrap_or(0);
    membership.admit(source, &frame(2, Body::ChallengeReply { nonce }), now);
}
