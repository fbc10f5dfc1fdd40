//! Answer leases that follow from the latest detection times in the frames of one node. A claim
//! machine that shortens its lease too late uses them in place of its own.

use ferrolb_proto::Instant;
use ferrolb_proto::wire::hello::{Body, Frame};
use std::collections::VecDeque;
use std::time::Duration;

use super::detection_times::FAILURE_DELAY;
use super::faulty_machine::Defect;

/// Number of frames after which a machine with [`Defect::ShortensLeaseLate`] shortens its lease.
const LATE_FRAMES: usize = 4;

#[derive(Default)]
pub(super) struct StatedLeases {
    /// Lengths of the leases that the latest frames state, oldest first.
    lengths: VecDeque<Duration>,
    /// Time of the latest frame, by the clock of the node.
    latest: Instant,
}

impl StatedLeases {
    /// Records a frame of the node. Only a hello, claim or release begins a lease.
    pub(super) fn record(&mut self, frame: &Frame) {
        let begins =
            matches!(frame.body, Body::Hello { .. } | Body::Claim(_) | Body::Release { .. });
        if let Some(time) = frame.detection_time.filter(|_| begins) {
            self.lengths.push_back(time.saturating_sub(FAILURE_DELAY + frame.interval));
            if self.lengths.len() > LATE_FRAMES {
                self.lengths.pop_front();
            }
            self.latest = Instant::from_nanos(frame.clock);
        }
    }

    /// Returns the end of the lease with this defect, if it concerns the lease. `end` is the one
    /// without a defect.
    pub(super) fn end(&self, defect: Option<Defect>, end: Instant) -> Instant {
        let is_late = defect == Some(Defect::ShortensLeaseLate);
        let longest = self.lengths.iter().max().filter(|_| is_late);
        longest.map_or(end, |length| end.max(self.latest + *length))
    }
}
