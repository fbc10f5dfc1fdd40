//! Measures of large objects and many Nodes.

use super::Unit::{Megabytes, Milliseconds};
use super::{MeasureSpec, with_target, without_target};

/// Peak memory of the components since their start, and the time until the speakers own all
/// addresses.
#[derive(Debug)]
pub struct PeakMeasures {
    pub controller: MeasureSpec,
    pub speaker: MeasureSpec,
    pub owned: MeasureSpec,
}

pub const LARGE_SERVICES: PeakMeasures = PeakMeasures {
    controller: with_target(
        "large.controller",
        "1,000 Services of 255 KiB: controller, peak",
        Megabytes,
        64.0,
        &[],
    ),
    speaker: with_target(
        "large.speaker",
        "1,000 Services of 255 KiB: speaker, peak",
        Megabytes,
        64.0,
        &[],
    ),
    owned: without_target(
        "large.owned",
        "1,000 Services of 255 KiB: start to all addresses owned",
        Milliseconds,
    ),
};
pub const LARGE_NODES: PeakMeasures = PeakMeasures {
    controller: with_target(
        "large.nodes.controller",
        "the same and 3,000 Nodes: controller, peak",
        Megabytes,
        64.0,
        &[],
    ),
    speaker: with_target(
        "large.nodes.speaker",
        "the same and 3,000 Nodes: speaker, peak",
        Megabytes,
        64.0,
        &[],
    ),
    owned: without_target(
        "large.nodes.owned",
        "the same and 3,000 Nodes: start to all addresses owned",
        Milliseconds,
    ),
};
