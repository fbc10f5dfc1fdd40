//! Admission of newcomers: a newcomer (a node, or a new epoch of a node) is accepted as a peer only
//! after it has responded to a challenge. Signed frames can be recorded and replayed; a response to
//! a new random number cannot. Part of the membership of one interface.

use std::collections::BTreeMap;
use std::time::Duration;

use ferrolb_proto::Instant;
use ferrolb_proto::wire::Mac;
use ferrolb_proto::wire::hello::{Body, Frame};

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
/// Maximum number of key IDs that are stored as accepted by a node. No speaker accepts more than
/// two at a time.
const ACCEPTS_MAX: usize = 4;

/// The key IDs that a node accepts, as far as they are stored.
pub(super) fn accepted(keys: &[u32]) -> Box<[u32]> {
    keys.iter().take(ACCEPTS_MAX).copied().collect()
}

/// A node, or a new epoch of a known node, that has not yet responded to a challenge.
#[derive(Debug)]
struct Newcomer {
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
    mac: Mac,
    /// IDs of the keys that the newcomer accepts; empty if not reported yet.
    accepts: Box<[u32]>,
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

    /// Returns the nonce of a challenge to the newcomer, if one is due. `is_new` is true for the
    /// first challenge with its nonce.
    fn challenge(&mut self, is_new: bool, now: Instant) -> Option<u64> {
        let again = now.since(self.challenged) >= self.wait;
        if !(is_new || again) {
            return None;
        }
        self.challenged = now;
        self.wait *= 1 + u32::from(again);
        Some(self.nonce)
    }
}

/// The newcomers under challenge.
#[derive(Debug)]
pub(super) struct Newcomers {
    table: BTreeMap<Box<str>, Newcomer>,
    /// Time before which no entry of `table` expires.
    due: Instant,
}

impl Newcomers {
    pub(super) const fn new(now: Instant) -> Self {
        Self { table: BTreeMap::new(), due: now }
    }

    /// Drops the newcomers that have become silent.
    pub(super) fn expire(&mut self, now: Instant) {
        if now < self.due {
            return;
        }
        self.table.retain(|_, newcomer| now.since(newcomer.last_frame) < NEWCOMER_LIFETIME);
        let oldest = self.table.values().map(|newcomer| newcomer.last_frame).min();
        self.due = oldest.unwrap_or(now) + NEWCOMER_LIFETIME;
    }

    /// Returns whether a frame is the response to the latest challenge of its sender.
    pub(super) fn is_response(&self, frame: &Frame, now: Instant) -> bool {
        let challenged = self.table.get(&frame.node).filter(|newcomer| !newcomer.is_over(now));
        challenged.is_some_and(|it| frame.body == Body::ChallengeReply { nonce: it.nonce })
    }

    /// Removes a newcomer. Returns the IDs of the keys that it accepts.
    pub(super) fn remove(&mut self, node: &str) -> Box<[u32]> {
        self.table.remove(node).map(|newcomer| newcomer.accepts).unwrap_or_default()
    }

    /// Returns whether a frame of this node cannot be stored, because there are too many newcomers.
    pub(super) fn is_full_for(&self, node: &str) -> bool {
        self.table.len() >= NEWCOMERS_MAX && !self.table.contains_key(node)
    }

    /// Records the frame of a newcomer. `nonce` is the one of its first challenge. Returns the
    /// nonce of the challenge to send, if one is due.
    pub(super) fn receive(
        &mut self,
        source: Mac,
        frame: &Frame,
        nonce: u64,
        now: Instant,
    ) -> Option<u64> {
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
        let is_new = self.table.get(&frame.node).is_none_or(|newcomer| newcomer.is_over(now));
        let newcomer = self
            .table
            .entry(frame.node.clone())
            .or_insert_with(|| new_newcomer(now, Box::default()));
        if is_new {
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
        newcomer.challenge(is_new, now)
    }

    /// Returns the keys that each newcomer accepts; empty if not reported yet.
    pub(super) fn accepts(&self) -> impl Iterator<Item = &[u32]> + Clone {
        self.table.values().map(|newcomer| &*newcomer.accepts)
    }

    /// Returns the newcomer that has a hardware address, and whether it has not responded although
    /// it had the time.
    pub(super) fn with_mac(&self, mac: Mac, now: Instant) -> Option<(&str, bool)> {
        let (node, newcomer) = self.table.iter().find(|(_, newcomer)| newcomer.mac == mac)?;
        Some((node, newcomer.does_not_respond(now)))
    }

    /// Returns whether a newcomer has sent frames from this hardware address.
    pub(super) fn have_mac(&self, mac: Mac) -> bool {
        self.table.values().any(|newcomer| newcomer.mac == mac)
    }

    /// Returns the newcomers that have not responded although they had the time.
    pub(super) fn silent(&self, now: Instant) -> impl Iterator<Item = &str> {
        let silent = self.table.iter().filter(move |(_, it)| it.does_not_respond(now));
        silent.map(|(node, _)| &**node)
    }
}

/// State that only tests read.
#[cfg(any(test, feature = "fuzz"))]
impl Newcomers {
    /// Returns the nonce of the latest challenge to a newcomer.
    pub(super) fn nonce_of(&self, node: &str) -> Option<u64> {
        self.table.get(node).map(|newcomer| newcomer.nonce)
    }
}
