//! Self-check of a node by the frames that it receives. The check detects isolation, in which the
//! node receives nothing, and a stall of the node together with its clock, as in a paused virtual
//! machine. Part of the membership of one interface.
//!
//! A node that receives nothing cannot distinguish two cases: its own receive path has failed, or
//! all peers have failed. It keeps its addresses, and each of its frames carries the isolated flag.
//! If the peers are alive, they take over at once from an isolated owner. A second after the latest
//! frame, the node acts as if it were alone, and claims all addresses. If the peers are alive, they
//! keep theirs.

use std::collections::BTreeMap;
use std::time::Duration;

use ferrolb_proto::Instant;
use ferrolb_proto::wire::Mac;
use ferrolb_proto::wire::hello::{Body, Flags};

use super::{MemberEffect, Membership, Output};

/// Time without a frame of any kind after which this node challenges every peer.
const SILENCE: Duration = Duration::from_millis(300);
/// Interval at which the challenges are repeated.
const CHALLENGE_INTERVAL: Duration = Duration::from_millis(30);
/// Number of times that this node challenges all peers without receiving any frame, before it
/// declares itself isolated. The limit is a count and not a time, because a node that was stalled
/// must first send challenges and read the frames that have queued up.
const CHALLENGE_ROUNDS_MAX: u32 = 4;
/// Time after the latest frame from which an isolated node acts as if it were alone.
const ALONE_AFTER: Duration = Duration::from_secs(1);
/// Interval at which an isolated node asks its neighbors for a reply.
const ISOLATED_PROBE_INTERVAL: Duration = Duration::from_secs(1);
/// Length of the window in which the minimum offset of this node's clock to a peer's clock is
/// determined. Each minimum applies for one to two windows, so that slow clock drift does not add
/// up.
const OFFSET_WINDOW: Duration = Duration::from_secs(30);
/// Time for which one peer's evidence that this node has stalled remains valid, while the evidence
/// of a second peer is awaited. The time is longer than the hello interval of an idle node.
const VOTE_LIFETIME: Duration = Duration::from_millis(1500);
/// Number of peers whose clocks must show a stall of this node before it fences itself. If fewer
/// peers are live, the clocks of all of them must show the stall.
const VOTES_ENOUGH: usize = 2;

/// Minimum interval between searches for witnesses, however many peers are silent.
const WITNESS_PROBE_INTERVAL: Duration = Duration::from_millis(20);
/// Number of other peers that are challenged if one peer is silent.
const WITNESSES: usize = 3;

#[derive(Debug)]
pub(super) struct SelfCheck {
    /// Time at which the latest frame of any kind was received.
    last_frame: Instant,
    /// Time at which the peers are challenged next, if nothing is received until then.
    next_challenge: Instant,
    /// Number of times that all peers were challenged since the latest frame, plus one when this
    /// node has begun to act as if it were alone.
    challenge_rounds: u32,
    /// Earliest time of the next search for witnesses.
    next_witness_probe: Instant,
    /// Peers whose clock showed that this node's clock had stood still, each with the time at which
    /// that was detected.
    votes: BTreeMap<Box<str>, Instant>,
}

impl SelfCheck {
    pub(super) const fn new(now: Instant) -> Self {
        Self {
            last_frame: now,
            next_challenge: now,
            challenge_rounds: 0,
            next_witness_probe: now,
            votes: BTreeMap::new(),
        }
    }
}

/// Minimum offset of this node's clock to a peer's clock, in nanoseconds, in the current and in the
/// previous window. If an offset is far below the minimum, this node's clock stood still.
///
/// The minimum does not yet include frames that this node has just read. Frames that queued up
/// during a stall are read all at once, and must not lower the minimum with which they are
/// compared.
#[derive(Debug)]
pub(super) struct MinimumOffset {
    current: i128,
    previous: i128,
    since: Instant,
    /// Minimum offset of the frames that `current` does not include yet, and the time of the first
    /// of these frames.
    latest: (i128, Instant),
}

impl MinimumOffset {
    /// Creates the minimum from the clock value of a frame that has just arrived.
    pub(super) fn new(clock: u64, now: Instant) -> Self {
        let offset = clock_offset(clock, now);
        Self { current: offset, previous: offset, since: now, latest: (offset, now) }
    }

    /// Adds the clock value of a frame. Returns true if the offset has fallen by more than `most`:
    /// this node's clock stood still, or the peer's clock leapt forward.
    pub(super) fn has_fallen(&mut self, clock: u64, most: Duration, now: Instant) -> bool {
        let offset = clock_offset(clock, now);
        if now.since(self.latest.1) >= most {
            self.current = self.current.min(self.latest.0);
            self.latest = (offset, now);
        }
        let least = i128::try_from(most.as_nanos()).unwrap_or(i128::MAX);
        if offset < self.current.min(self.previous).saturating_sub(least) {
            *self = Self::new(clock, now);
            return true;
        }
        if now.since(self.since) >= OFFSET_WINDOW {
            (self.previous, self.current, self.since) = (self.current, offset, now);
        }
        self.latest.0 = self.latest.0.min(offset);
        false
    }
}

fn clock_offset(clock: u64, now: Instant) -> i128 {
    i128::from(now.as_nanos()) - i128::from(clock)
}

impl Membership {
    /// Records the arrival of a frame of any kind, which ends isolation. The frame itself is
    /// handled afterwards, so that a request for an address of this node gets a reply.
    pub(in crate::claim) fn frame_received(&mut self, now: Instant) {
        self.self_check.last_frame = now;
        self.self_check.next_challenge = now + SILENCE;
        self.self_check.challenge_rounds = 0;
        if self.own.flags.isolated {
            self.set_flags(Flags { isolated: false, ..self.own.flags }, now);
            // Peers that were alive all the time keep the addresses that they took over from this
            // node.
            self.start_preempt_delay(now);
        }
    }

    /// Returns whether any received frame is needed as evidence that this node receives: a peer is
    /// suspected, or no frame was received although all peers were challenged, or this node is
    /// isolated. A silence that the first challenge ends is no reason: it is frequent if this node
    /// is the only owner, and the hellos of the others are further apart.
    #[must_use]
    pub fn needs_evidence(&self) -> bool {
        self.own.flags.isolated || self.self_check.challenge_rounds > 1 || self.has_suspicion()
    }

    /// Returns the time at which to check for silence; `None` if this node does not send, or never
    /// received a frame of a peer. In the latter case, this node cannot distinguish isolation from
    /// a segment without peers.
    pub(super) fn self_check_deadline(&self) -> Option<Instant> {
        let is_silent = self.own.keys.is_empty() || self.own.standby_until.is_some();
        let listens = !is_silent && (self.own.flags.isolated || !self.peers.is_empty());
        listens.then_some(self.self_check.next_challenge)
    }

    /// Challenges all peers if no frame is received. Declares this node isolated if
    /// [`CHALLENGE_ROUNDS_MAX`] such attempts bring no frame.
    pub(in crate::claim) fn check_silence(&mut self, now: Instant) {
        if self.self_check_deadline().is_none_or(|at| now < at) {
            return;
        }
        let alone_at = self.self_check.last_frame + ALONE_AFTER;
        if self.own.flags.isolated {
            self.self_check.next_challenge = now + ISOLATED_PROBE_INTERVAL;
            if now >= alone_at && self.self_check.challenge_rounds == CHALLENGE_ROUNDS_MAX {
                self.self_check.challenge_rounds += 1;
                self.effects.push_back(MemberEffect::OwnStateChanged);
                self.declare_all_failed(now);
            }
        } else if self.self_check.challenge_rounds == CHALLENGE_ROUNDS_MAX {
            self.counts.isolations += 1;
            self.self_check.next_challenge = alone_at.max(now + CHALLENGE_INTERVAL);
            self.set_flags(Flags { isolated: true, ..self.own.flags }, now);
        } else {
            self.self_check.next_challenge = now + CHALLENGE_INTERVAL;
            self.self_check.challenge_rounds += 1;
            if self.self_check.challenge_rounds == 1 {
                let live = self.peers.values().filter(|peer| !peer.failed);
                let members: Vec<_> = live.map(|peer| peer.mac).collect();
                self.challenge(&members, now);
            } else {
                // A suspicion also requests replies by ARP and by the second path.
                self.suspect_all(now);
            }
        }
        self.output(Output::ProbeNeighbors);
    }

    fn challenge(&mut self, members: &[Mac], now: Instant) {
        for mac in members {
            let nonce = self.random.nonce();
            self.send(Some(*mac), Body::Challenge { nonce }, now);
        }
    }

    /// Returns whether no frame at all was received since `then`.
    pub(super) fn received_nothing_since(&self, then: Instant) -> bool {
        self.self_check.last_frame < then
    }

    /// Returns whether this node acts as if it were alone, because it has received nothing for
    /// [`ALONE_AFTER`]. Before that, a silence of all hosts proves nothing, because this node may
    /// be unable to receive.
    pub(in crate::claim) fn may_be_alone(&self, now: Instant) -> bool {
        self.own.flags.isolated && now >= self.self_check.last_frame + ALONE_AFTER
    }

    /// Challenges peers that should be alive, and requests replies from other hosts. Any reply
    /// proves that this node receives frames.
    pub(super) fn probe_witnesses(&mut self, now: Instant) {
        if now < self.self_check.next_witness_probe {
            return;
        }
        self.self_check.next_witness_probe = now + WITNESS_PROBE_INTERVAL;
        let live = self.peers.values().filter(|peer| !peer.failed && peer.suspicion.is_none());
        let witnesses: Vec<_> = live.take(WITNESSES).map(|peer| peer.mac).collect();
        self.challenge(&witnesses, now);
        self.output(Output::ProbeNeighbors);
    }

    /// Compares this node's clock with a peer's clock. If the peer's clock went on while this
    /// node's clock stood still, this node has stalled without any trace in its own clock.
    ///
    /// If this node has two live peers or more, two must show the stall, because the clock of one
    /// peer may leap.
    pub(super) fn compare_clocks(&mut self, node: &str, clock: u64, now: Instant) {
        let most = self.own.hello_interval.current * self.config.hello_misses;
        let Some(peer) = self.peers.get_mut(node) else { return };
        if !peer.min_clock_offset.has_fallen(clock, most, now) || self.owns_nothing() {
            return;
        }
        self.self_check.votes.retain(|_, at| now.since(*at) < VOTE_LIFETIME);
        self.self_check.votes.insert(node.into(), now);
        let live = || self.peers.iter().filter(|(_, peer)| !peer.failed && !peer.unheard);
        if self.self_check.votes.len() >= VOTES_ENOUGH.min(live().count()) {
            self.fence(now);
            return;
        }
        let others: Vec<_> = live()
            .filter(|(name, _)| !self.self_check.votes.contains_key(&***name))
            .map(|(_, peer)| peer.mac)
            .collect();
        self.challenge(&others, now);
    }

    /// Drops the evidence of a stall, because a new comparison of the clocks begins after a fence.
    pub(super) fn forget_votes(&mut self) {
        self.self_check.votes.clear();
    }
}
