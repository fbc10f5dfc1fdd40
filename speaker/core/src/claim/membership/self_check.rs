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

use super::failure_detection::Reception;

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
pub(super) const WITNESSES: usize = 3;

/// Step of this node while no frame is received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SilenceStep {
    /// Challenge all live peers.
    ChallengePeers,
    /// Suspect all live peers.
    SuspectPeers,
    /// Become isolated.
    Isolate,
    /// Act as if this node were alone.
    ActAlone,
    /// Remain isolated.
    Wait,
}

/// Evidence that this node exchanges frames with the segment, and that its clock runs.
#[derive(Debug)]
pub(super) struct SelfCheck {
    /// Time at which the latest frame of any kind was received.
    last_frame: Instant,
    /// Time of the latest reply to a frame of this node.
    last_reply: Instant,
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
            last_reply: Instant::ZERO,
            next_challenge: now,
            challenge_rounds: 0,
            next_witness_probe: now,
            votes: BTreeMap::new(),
        }
    }

    /// Records the arrival of a frame of any kind.
    pub(super) fn on_frame(&mut self, now: Instant) {
        self.last_frame = now;
        self.next_challenge = now + SILENCE;
        self.challenge_rounds = 0;
    }

    /// Records a reply to a frame of this node.
    pub(super) const fn on_reply(&mut self, now: Instant) {
        self.last_reply = now;
    }

    pub(super) const fn last_reply(&self) -> Instant {
        self.last_reply
    }

    /// Returns the time at which to check for silence.
    pub(super) const fn deadline(&self) -> Instant {
        self.next_challenge
    }

    /// Returns whether no frame was received although all peers were challenged. A silence that the
    /// first challenge ends does not count: it is frequent if this node is the only owner, and the
    /// hellos of the others are further apart.
    pub(super) const fn is_silent(&self) -> bool {
        self.challenge_rounds > 1
    }

    /// Returns the evidence that this node receives frames. An isolated node acts as if it were
    /// alone after [`ALONE_AFTER`]. Before that, a silence of all hosts proves nothing, because
    /// this node may be unable to receive.
    pub(super) fn reception(&self, is_isolated: bool, now: Instant) -> Reception {
        let may_be_alone = is_isolated && now >= self.last_frame + ALONE_AFTER;
        Reception { last_frame: self.last_frame, may_be_alone }
    }

    /// Returns the next step in a silence, which is due. This node becomes isolated if
    /// [`CHALLENGE_ROUNDS_MAX`] challenges of all peers bring no frame.
    pub(super) fn next_step(&mut self, is_isolated: bool, now: Instant) -> SilenceStep {
        let alone_at = self.last_frame + ALONE_AFTER;
        let is_last = self.challenge_rounds == CHALLENGE_ROUNDS_MAX;
        if is_isolated {
            self.next_challenge = now + ISOLATED_PROBE_INTERVAL;
            if now >= alone_at && is_last {
                self.challenge_rounds += 1;
                return SilenceStep::ActAlone;
            }
            return SilenceStep::Wait;
        }
        if is_last {
            self.next_challenge = alone_at.max(now + CHALLENGE_INTERVAL);
            return SilenceStep::Isolate;
        }
        self.next_challenge = now + CHALLENGE_INTERVAL;
        self.challenge_rounds += 1;
        if self.is_silent() { SilenceStep::SuspectPeers } else { SilenceStep::ChallengePeers }
    }

    /// Returns whether this node may search for witnesses now, and records the search in that case.
    pub(super) fn probes_witnesses(&mut self, now: Instant) -> bool {
        let is_due = now >= self.next_witness_probe;
        if is_due {
            self.next_witness_probe = now + WITNESS_PROBE_INTERVAL;
        }
        is_due
    }

    /// Records that the clock of a peer shows a stall of this node. Returns whether the evidence is
    /// enough with this number of live peers. If there are two or more, two must show the stall,
    /// because the clock of one peer may leap.
    pub(super) fn vote(&mut self, node: &str, live: usize, now: Instant) -> bool {
        self.votes.retain(|_, at| now.since(*at) < VOTE_LIFETIME);
        self.votes.insert(node.into(), now);
        self.votes.len() >= VOTES_ENOUGH.min(live)
    }

    /// Returns whether the clock of a peer has shown a stall of this node.
    pub(super) fn has_vote(&self, node: &str) -> bool {
        self.votes.contains_key(node)
    }

    /// Drops the evidence of a stall, because a new comparison of the clocks begins after a fence.
    pub(super) fn forget_votes(&mut self) {
        self.votes.clear();
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
