//! Detection times that the nodes state in their frames: an owner that was late states a longer
//! one, and its units may have no owner for as long. Some scenarios lose the first frames that
//! state another time.

use ferrolb_proto::wire::hello::Frame;
use std::collections::BTreeMap;
use std::time::Duration;

use super::scenario::ms;
use super::world::{HELLO_MISSES, SimWorld};

/// Last part of each detection time, in which a node is challenged.
pub(super) const FAILURE_DELAY: Duration = ms(40);

/// Frames that a receiver may lose of the first four with another time: one bit for each, the first
/// frame in the lowest bit. The highest bit marks the end. No two frames in a row are lost, because
/// peers could then take over during the answer lease of a calm node, too, if it stalled right
/// after them.
const LOST_FRAMES: [u8; 5] = [0b1_0000, 0b1_0001, 0b1_0010, 0b1_0100, 0b1_0101];

/// Frames with a new detection time that do not arrive, by sender and receiver, as in
/// [`LOST_FRAMES`].
#[derive(Debug, Default)]
pub(super) struct LostFrames(BTreeMap<(usize, usize), u8>);

impl LostFrames {
    /// Returns whether the next frame between two nodes is lost.
    pub(super) fn lose(&mut self, from: usize, receiver: usize) -> bool {
        let Some(frames) = self.0.get_mut(&(from, receiver)) else { return false };
        let is_lost = *frames & 1 != 0;
        *frames >>= 1;
        if *frames == 1 {
            self.0.remove(&(from, receiver));
        }
        is_lost
    }
}

/// Returns the detection time that a frame would state if its sender had never been late.
pub(super) fn calm_time(frame: &Frame) -> Duration {
    frame.interval * HELLO_MISSES + FAILURE_DELAY
}

impl SimWorld {
    /// Records the detection time that a frame of a node states. If it is another one than before,
    /// the receivers may lose some frames from this one on, so they may still know the one before.
    pub(super) fn record_detection_time(&mut self, index: usize, frame: &Frame) {
        let calm = calm_time(frame);
        let stated = frame.detection_time.unwrap_or(calm);
        let node = &mut self.nodes[index];
        let before = std::mem::replace(&mut node.detection_time, stated);
        node.allowance = stated.max(before).saturating_sub(calm);
        if let Some(LostFrames(lost)) = &mut self.segment.lost_frames
            && !before.is_zero()
            && before != stated
        {
            for receiver in 0..self.nodes.len() {
                let frames = self.rng.pick(&LOST_FRAMES);
                lost.entry((index, receiver)).or_insert(frames);
            }
        }
    }

    /// Returns the time by which the latest owner of a unit has stated more than a calm node.
    pub(super) fn owner_allowance(&self, unit: usize) -> Duration {
        let owner = self.checker.units[unit].latest_owner;
        owner.map_or(Duration::ZERO, |owner| self.nodes[owner].allowance)
    }
}
