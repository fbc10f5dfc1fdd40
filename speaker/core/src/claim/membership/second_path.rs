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

use std::time::Duration;

use ferrolb_proto::Instant;
use ferrolb_proto::wire::hello::{Body, PathReport};

/// Maximum age of a frame of the challenger that a path report still counts as just received. The
/// challenger sends the challenge by both paths at the same time.
pub(super) const JUST_RECEIVED: Duration = Duration::from_millis(15);
/// Maximum age of a reply to this node that a path report counts. An earlier challenge of the same
/// round may have been lost.
pub(super) const JUST_REPLIED: Duration = Duration::from_millis(40);
/// Time by which a request may be older than the latest frame, in nanoseconds of the peer's clock.
const OVERTAKEN_MAX: u64 = 20_000_000;
/// Time after a challenge by the second path for which this node sends copies of its frames to the
/// challenger, on a small segment: three intervals of the challenges to an unheard peer.
const COPIES_TIME: Duration = Duration::from_secs(3);
/// Minimum interval between two hellos to one peer by the second path, on a small segment.
const HELLO_COPY_INTERVAL: Duration = Duration::from_millis(250);
/// Interval at which an unheard peer is challenged, on a small segment.
const UNHEARD_INTERVAL: Duration = Duration::from_secs(1);
/// Number of peers up to which a segment is small. On larger ones, the intervals grow with the
/// number of peers, so that the number of datagrams of each node does not.
const PEERS_SMALL: usize = 40;

/// Intervals of the second path on a segment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Intervals {
    pub(super) copies: Duration,
    hellos: Duration,
    pub(super) challenges: Duration,
}

impl Intervals {
    /// Returns the intervals on a segment with this number of peers.
    pub(super) fn with_peers(peers: usize) -> Self {
        let factor = u32::try_from(1 + peers / PEERS_SMALL).unwrap_or(u32::MAX);
        Self {
            copies: COPIES_TIME * factor,
            hellos: HELLO_COPY_INTERVAL * factor,
            challenges: UNHEARD_INTERVAL * factor,
        }
    }
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

/// Age of a datagram by the clock of its sender.
#[derive(Clone, Copy, Debug)]
pub(super) struct DatagramAge {
    /// True if the frame of an earlier copy has not arrived on the segment.
    pub(super) misses_frame: bool,
    /// True if the datagram is so old that it may be a recording. Datagrams overtake each other.
    pub(super) is_old: bool,
}

impl SecondPath {
    /// Records the clock value of a datagram. `latest` is the one of the peer's latest frame.
    pub(super) fn receive(&mut self, clock: u64, latest: u64) -> DatagramAge {
        let before = self.clock;
        self.clock = before.max(clock);
        DatagramAge {
            misses_frame: before > latest,
            is_old: clock.saturating_add(OVERTAKEN_MAX) <= before.max(latest),
        }
    }

    /// Returns whether this node answers a challenge of the peer by the second path.
    pub(super) fn is_answering(&self, now: Instant) -> bool {
        self.answer.as_ref().is_some_and(|answer| now < answer.until)
    }

    /// Begins the answer to a challenge. `report` is what this node knows at once. Returns whether
    /// the report states that frames of this node arrive on the segment.
    pub(super) fn answer(&mut self, nonce: u64, report: PathReport, until: Instant) -> bool {
        let before = self.answer.take().filter(|answer| answer.nonce == nonce);
        let report = before.map_or_else(PathReport::default, |it| it.report).merged_with(report);
        self.answer = Some(Answer { nonce, report, until });
        report.is_received
    }

    /// Adds what has just become known to the report. Returns whether the report has changed.
    pub(super) fn add_to_report(&mut self, add: fn(&mut PathReport), now: Instant) -> bool {
        let Some(answer) = self.answer.as_mut().filter(|answer| now < answer.until) else {
            return false;
        };
        let before = answer.report;
        add(&mut answer.report);
        answer.report != before
    }

    /// Returns the report of this node, if it has answered a challenge.
    pub(super) fn report(&self) -> Option<Body> {
        let Answer { nonce, report, .. } = self.answer.as_ref()?;
        Some(Body::PathReport { nonce: *nonce, report: *report })
    }

    /// Returns whether a hello may be sent to the peer now, and records it in that case.
    pub(super) fn takes_hello(&mut self, intervals: Intervals, now: Instant) -> bool {
        let is_due = self.last_hello.is_none_or(|at| now.since(at) >= intervals.hellos);
        if is_due {
            self.last_hello = Some(now);
        }
        is_due
    }
}
