//! Second path to a peer: UDP to the address of its node. It is used only while the frames of a
//! peer are missing on the segment. Part of the membership of one interface.
//!
//! A node challenges a suspected peer by both paths. The peer reports by the second path whether it
//! still exchanges frames with the segment. If it does, only the frames of the ownership protocol
//! are lost, for example in a packet filter: the peer is unheard, keeps its addresses, and is
//! challenged again each second. While a node is unheard, it sends a copy of its frames by the
//! second path.
//!
//! The second path proves nothing by itself, because it may lead through another network.

use std::sync::Arc;
use std::time::Duration;

use ferrolb_proto::Instant;
use ferrolb_proto::wire::Mac;
use ferrolb_proto::wire::hello::{Body, Frame, PathReport};

use super::peers::Peer;
use super::{MemberEffect, Membership, Output};

/// Maximum age of a frame of the challenger that a path report still counts as just received. The
/// challenger sends the challenge by both paths at the same time.
const JUST_RECEIVED: Duration = Duration::from_millis(15);
/// Time by which a request may be older than the latest frame, in nanoseconds of the peer's clock.
const OVERTAKEN_MAX: u64 = 20_000_000;
/// Maximum age of a reply to this node that a path report counts. An earlier challenge of the same
/// round may have been lost.
const JUST_REPLIED: Duration = Duration::from_millis(40);
/// Time after a challenge by the second path for which this node sends copies of its frames to the
/// challenger, on a small segment: three intervals of the challenges to an unheard peer.
const COPIES_TIME: Duration = Duration::from_secs(3);
/// Minimum interval between two hellos to one peer by the second path, on a small segment.
const HELLO_COPY_INTERVAL: Duration = Duration::from_millis(250);
/// Number of peers up to which a segment is small. On larger ones, the intervals grow with the
/// number of peers, so that the number of datagrams of each node does not.
const PEERS_SMALL: usize = 40;

/// A datagram that the rest of the claim machine must handle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::claim) enum Received {
    /// The copy of a frame of an unheard peer, newer than all others of the peer.
    Copy(Frame),
    /// A request for the list of this node.
    ListRequest,
}

/// State of the second path to one peer.
#[derive(Debug, Default)]
pub(super) struct SecondPath {
    /// Clock value of the peer's latest frame of which a copy has arrived by the second path.
    clock: u64,
    /// Answer of this node to the peer's latest challenge by the second path.
    answer: Option<Answer>,
    /// Time of the latest hello that this node sent to the peer by the second path.
    last_hello: Option<Instant>,
}

#[derive(Debug)]
struct Answer {
    nonce: u64,
    report: PathReport,
    /// Time until which copies are sent.
    until: Instant,
}

impl Peer {
    /// Returns the answer that this node is giving to the peer by the second path.
    fn answer(&self, now: Instant) -> Option<&Answer> {
        self.second_path.answer.as_ref().filter(|answer| now < answer.until)
    }

    /// Returns whether frames to the peer go by the second path, too: this node or the peer misses
    /// the other one's frames.
    fn uses_second_path(&self, now: Instant) -> bool {
        self.suspicion.is_some() || self.answer(now).is_some()
    }
}

impl Membership {
    /// Returns whether a path report of this node may still have to state that this node has
    /// replied to a request from `mac`.
    #[must_use]
    pub fn awaits_request_from(&self, mac: Mac, now: Instant) -> bool {
        now < self.answers_end
            && self.peers.values().any(|peer| peer.mac == mac && peer.answer(now).is_some())
    }

    /// Handles a datagram of the second path. Datagrams of unknown peers are dropped: a node sends
    /// them to all interfaces of a peer, and one of these is on this segment.
    pub(in crate::claim) fn receive_datagram(
        &mut self,
        frame: Frame,
        now: Instant,
    ) -> Option<Received> {
        let peer = self.peers.get_mut(&*frame.node).filter(|peer| peer.epoch == frame.epoch)?;
        if let Body::PathReport { nonce, report } = frame.body {
            self.on_path_report(&frame.node, nonce, report, now);
            return None;
        }
        let before = peer.second_path.clock;
        peer.second_path.clock = before.max(frame.clock);
        if before > peer.clock {
            // The frame of an earlier copy has not arrived on the segment.
            self.suspect_heard(&frame.node, now);
        }
        let latest = before.max(self.peers.get(&*frame.node).map_or(0, |peer| peer.clock));
        let is_old = frame.clock.saturating_add(OVERTAKEN_MAX) <= latest;
        match frame.body {
            // Datagrams overtake each other. A recording of an old one has no effect.
            Body::Challenge { .. } | Body::ListRequest if is_old => self.counts.stale_frames += 1,
            Body::Challenge { nonce } => self.answer_challenge(&frame.node, nonce, now),
            Body::ListRequest => return Some(Received::ListRequest),
            Body::Hello { .. }
            | Body::Claim(_)
            | Body::Release { .. }
            | Body::List(_)
            | Body::Doubt(_) => {
                return self.admit_copy(&frame, now).then_some(Received::Copy(frame));
            }
            Body::ChallengeReply { .. } | Body::PathReport { .. } | Body::NodeWatch(_) => {}
        }
        None
    }

    /// Checks the copy of a frame. It counts only if its sender is unheard: otherwise the frame
    /// itself arrives on the segment, or the sender has failed there.
    fn admit_copy(&mut self, frame: &Frame, now: Instant) -> bool {
        let Some(peer) = self.peers.get_mut(&*frame.node).filter(|peer| peer.unheard) else {
            return false;
        };
        if frame.clock <= peer.clock {
            self.counts.stale_frames += 1;
            return false;
        }
        (peer.clock, peer.last_seen) = (frame.clock, now);
        peer.is_owner = frame.claim_set.count > 0;
        self.set_peer_flags(&frame.node, frame.flags);
        true
    }

    /// Returns by how much the intervals of the second path are longer than on a small segment.
    pub(super) fn second_path_factor(&self) -> u32 {
        u32::try_from(1 + self.peers.len() / PEERS_SMALL).unwrap_or(u32::MAX)
    }

    fn answer_challenge(&mut self, node: &str, nonce: u64, now: Instant) {
        let until = now + COPIES_TIME * self.second_path_factor();
        let Some(peer) = self.peers.get_mut(node) else { return };
        let before = peer.second_path.answer.take().filter(|answer| answer.nonce == nonce);
        let mut report = before.map_or_else(PathReport::default, |answer| answer.report);
        report.receives |= now.since(peer.last_frame) <= JUST_RECEIVED;
        report.is_received |= now.since(self.last_reply) <= JUST_REPLIED;
        peer.second_path.answer = Some(Answer { nonce, report, until });
        self.answers_end = until;
        self.send_report(node, now);
        if !report.is_received {
            self.probe_witnesses(now);
        }
    }

    /// Handles the proof that frames of this node arrive on the segment: a reply to one of them.
    pub(in crate::claim) fn on_reply(&mut self, now: Instant) {
        self.last_reply = now;
        self.add_to_reports(|_, _| true, |report| report.is_received = true, now);
    }

    /// Handles a frame of a peer on the segment, which the peer may have sent with a challenge.
    pub(super) fn on_frame_of(&mut self, node: &str, now: Instant) {
        self.add_to_reports(|name, _| name == node, |report| report.receives = true, now);
    }

    /// Handles an ARP request or neighbor solicitation to which this node has replied.
    pub(in crate::claim) fn on_request(&mut self, mac: Mac, now: Instant) {
        self.add_to_reports(|_, peer| peer.mac == mac, |report| report.has_replied = true, now);
    }

    /// Adds what has just become known to the reports for the peers that `concerns` selects, and
    /// sends those that have changed.
    fn add_to_reports(
        &mut self,
        concerns: impl Fn(&str, &Peer) -> bool,
        add: fn(&mut PathReport),
        now: Instant,
    ) {
        if now >= self.answers_end {
            return;
        }
        let mut changed = Vec::new();
        for (name, peer) in &mut self.peers {
            if peer.answer(now).is_none() || !concerns(name, peer) {
                continue;
            }
            let Some(answer) = &mut peer.second_path.answer else { continue };
            let before = answer.report;
            add(&mut answer.report);
            if answer.report != before {
                changed.push(Arc::clone(name));
            }
        }
        for name in changed {
            self.send_report(&name, now);
        }
    }

    fn send_report(&mut self, node: &str, now: Instant) {
        let answer = self.peers.get(node).and_then(|peer| peer.second_path.answer.as_ref());
        let Some(&Answer { nonce, report, .. }) = answer else { return };
        let Some((key, frame)) = self.frame(Body::PathReport { nonce, report }, now) else {
            return;
        };
        self.output(Output::SendDatagram { to: node.into(), key, frame });
    }

    /// Sends copies of a frame by the second path to the peers that use it. `to` is the destination
    /// of the frame on the segment.
    pub(super) fn send_copies(&mut self, to: Option<Mac>, key: u32, frame: &Frame, now: Instant) {
        let is_hello = matches!(frame.body, Body::Hello { .. });
        let hello_interval = HELLO_COPY_INTERVAL * self.second_path_factor();
        for (name, peer) in &mut self.peers {
            let is_needed = match frame.body {
                // Challenges of the self-check concern the segment alone.
                Body::Challenge { nonce } => peer.is_challenged_with(nonce),
                Body::ChallengeReply { .. } | Body::NodeWatch(_) => false,
                Body::Hello { .. }
                | Body::Claim(_)
                | Body::Release { .. }
                | Body::ListRequest
                | Body::List(_)
                | Body::Doubt(_)
                | Body::PathReport { .. } => peer.uses_second_path(now),
            };
            if !is_needed || to.is_some_and(|mac| mac != peer.mac) {
                continue;
            }
            if is_hello {
                let last = peer.second_path.last_hello;
                if last.is_some_and(|at| now.since(at) < hello_interval) {
                    continue;
                }
                peer.second_path.last_hello = Some(now);
            }
            let (to, frame) = (Arc::clone(name), frame.clone());
            let datagram = Output::SendDatagram { to, key, frame };
            self.effects.push_back(MemberEffect::Output(datagram));
        }
    }
}
