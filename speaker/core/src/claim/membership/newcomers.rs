//! Admission of newcomers: a newcomer (a node, or a new epoch of a node) is accepted as a peer only
//! after it has responded to a challenge. Signed frames can be recorded and replayed; a response to
//! a new random number cannot. Part of the membership of one interface.

use std::sync::Arc;
use std::time::Duration;

use ferrolb_proto::Instant;
use ferrolb_proto::wire::Mac;
use ferrolb_proto::wire::hello::{Body, Frame};

use super::peers::{Peer, accepted};
use super::{EarlierEpoch, MemberEffect, Membership};

/// Time for which a response to a challenge is accepted, and for which the state of a silent
/// newcomer is kept.
const NEWCOMER_LIFETIME: Duration = Duration::from_secs(1);
/// Delay before the second challenge to a newcomer.
const CHALLENGE_INTERVAL: Duration = Duration::from_millis(40);
/// Time without a response after which a newcomer counts as a node that does not receive the frames
/// of this node.
const RESPONSE_MAX: Duration = Duration::from_millis(500);
/// Maximum number of newcomers under challenge at once. Frames of further newcomers are ignored,
/// and counted in [`ClaimCounters::over_limit`](crate::claim::ClaimCounters::over_limit).
const NEWCOMERS_MAX: usize = 256;

/// A node, or a new epoch of a known node, that has not yet responded to a challenge.
#[derive(Debug)]
pub(super) struct Newcomer {
    /// Time of its first frame.
    first_frame: Instant,
    /// True if the newcomer states that it is isolated.
    isolated: bool,
    nonce: u64,
    /// Time at which the nonce was chosen.
    since: Instant,
    challenged: Instant,
    last_frame: Instant,
    /// Minimum time between two challenges. The time doubles with each repeated challenge, because
    /// the newcomer may not receive this node's frames.
    wait: Duration,
    /// Source MAC of the newcomer's frames. Their signatures are valid, so the host with this MAC
    /// is no foreign host.
    pub(super) mac: Mac,
    /// See [`Peer::accepts`].
    pub(super) accepts: Box<[u32]>,
}

impl Newcomer {
    /// Returns whether the newcomer has not responded although it had the time. An isolated one has
    /// the worst rank, so it makes no difference what it owns.
    fn does_not_respond(&self, now: Instant) -> bool {
        !self.isolated && now.since(self.first_frame) >= RESPONSE_MAX
    }

    /// Returns whether a response with the current nonce would come too late.
    fn is_over(&self, now: Instant) -> bool {
        now.since(self.since) >= NEWCOMER_LIFETIME
    }
}

impl Membership {
    /// Returns whether this node knows no epoch of a newcomer that does not respond.
    pub(super) fn is_silent_newcomer(&self, node: &str, newcomer: &Newcomer, now: Instant) -> bool {
        newcomer.does_not_respond(now) && !self.peers.contains_key(node)
    }

    /// Challenges an unknown sender, and admits it as a peer once it has responded; returns true in
    /// that case. Other frames of the sender are dropped until then, because they may be
    /// recordings.
    pub(super) fn admit_newcomer(&mut self, source: Mac, frame: &Frame, now: Instant) -> bool {
        if now >= self.newcomers_due {
            self.newcomers.retain(|_, newcomer| now.since(newcomer.last_frame) < NEWCOMER_LIFETIME);
            let oldest = self.newcomers.values().map(|newcomer| newcomer.last_frame).min();
            self.newcomers_due = oldest.unwrap_or(now) + NEWCOMER_LIFETIME;
        }
        let challenged = self.newcomers.get(&frame.node).filter(|newcomer| !newcomer.is_over(now));
        let expected = challenged.map(|newcomer| Body::ChallengeReply { nonce: newcomer.nonce });
        if expected.is_none_or(|expected| expected != frame.body) {
            self.counts.unchallenged += 1;
            self.challenge_newcomer(source, frame, now);
            if let Body::Challenge { nonce } = frame.body {
                // Two nodes may be newcomers to each other, so each must respond before it has
                // admitted the other one. A response discloses nothing.
                self.send(Some(source), Body::ChallengeReply { nonce }, now);
            }
            return false;
        }
        let accepts =
            self.newcomers.remove(&frame.node).map(|newcomer| newcomer.accepts).unwrap_or_default();
        if !self.peers.contains_key(&*frame.node) && !self.make_room() {
            self.counts.over_limit += 1;
            return false;
        }
        let is_alone = self.is_alone();
        // In its first preempt delay, a node does not restart the delay when its first peer
        // appears. Otherwise nodes that start together would all take their addresses in the same
        // moment.
        let is_first_delay = self.peers.is_empty() && self.own.preempt_delay_until.is_some();
        let starts_delay = is_alone && !is_first_delay;
        // The new epoch of a node voids the claims of its previous epoch.
        let name: Arc<str> = (*frame.node).into();
        let mut peer = Peer::new(source, frame, now);
        peer.accepts = accepts;
        let before = self.peers.remove(&name);
        if let Some(before) = &before {
            before.macs.iter().for_each(|mac| peer.add_mac(*mac));
        }
        let before = before
            .map(|before| EarlierEpoch { is_leaving: before.flags.leaving, failed: before.failed });
        let (node, epoch) = (Arc::clone(&name), frame.epoch);
        self.effects.push_back(MemberEffect::Joined { node, epoch, before });
        self.peers.insert(name, peer);
        self.update_peers_due(&frame.node);
        if starts_delay {
            self.start_preempt_delay(now);
        }
        true
    }

    fn challenge_newcomer(&mut self, source: Mac, frame: &Frame, now: Instant) {
        let (nonce, node) = (self.random.nonce(), &frame.node);
        let is_full = self.newcomers.len() >= NEWCOMERS_MAX && !self.newcomers.contains_key(node);
        if is_full {
            self.counts.over_limit += 1;
            return;
        }
        let new_newcomer = |first_frame, accepts| Newcomer {
            first_frame,
            isolated: frame.flags.isolated,
            nonce,
            since: now,
            challenged: now,
            last_frame: now,
            wait: CHALLENGE_INTERVAL,
            mac: source,
            accepts,
        };
        // The nonce stays the same while it is valid, so that a replayed old frame between
        // challenge and response cannot void the response.
        let first = self.newcomers.get(node).is_none_or(|newcomer| newcomer.is_over(now));
        let newcomer =
            self.newcomers.entry(node.clone()).or_insert_with(|| new_newcomer(now, Box::default()));
        if first {
            // The expired challenge is replaced in the same entry. Without the entry, the newcomer
            // would count as a foreign host.
            *newcomer = new_newcomer(newcomer.first_frame, std::mem::take(&mut newcomer.accepts));
        }
        (newcomer.last_frame, newcomer.isolated) = (now, frame.flags.isolated);
        if let Body::Hello { accepted_keys: accepts } = &frame.body {
            newcomer.accepts = accepted(accepts);
        }
        if let Body::Challenge { .. } | Body::ListRequest = frame.body {
            // A node that sends a request to this node also receives this node's frames, so the
            // time between two challenges need not grow.
            newcomer.wait = CHALLENGE_INTERVAL;
        }
        let again = now.since(newcomer.challenged) >= newcomer.wait;
        if first || again {
            newcomer.challenged = now;
            newcomer.wait *= 1 + u32::from(again);
            let nonce = newcomer.nonce;
            self.send(Some(source), Body::Challenge { nonce }, now);
        }
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
        Frame { node, epoch: 7, clock, claim_set, interval, flags, body }
    };
    membership.admit(source, &frame(1, Body::Hello { accepted_keys: vec![] }), now);
    let nonce = membership.newcomers.get(node).map_or(0, |newcomer| newcomer.nonce);
    membership.admit(source, &frame(2, Body::ChallengeReply { nonce }), now);
}
