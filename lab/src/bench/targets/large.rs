//! Measures of large objects, many Nodes, and a large cluster.

use super::Unit::{Count, Kilobytes, Megabytes, Milliseconds};
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

/// Memory of the components: resident, and peak since their start.
#[derive(Debug)]
pub struct ClusterMemory {
    pub controller: [MeasureSpec; 2],
    pub speaker: [MeasureSpec; 2],
}

/// Builds the memory measures of the components. The arguments are a part of the ids and the
/// description.
macro_rules! cluster_memory {
    ($id:literal, $words:literal) => {
        ClusterMemory {
            controller: [
                with_target(
                    concat!("large.cluster.", $id, ".controller.rss"),
                    concat!("large cluster, ", $words, ": controller, resident"),
                    Megabytes,
                    100.0,
                    &[],
                ),
                with_target(
                    concat!("large.cluster.", $id, ".controller.peak"),
                    concat!("large cluster, ", $words, ": controller, peak"),
                    Megabytes,
                    100.0,
                    &[],
                ),
            ],
            speaker: [
                with_target(
                    concat!("large.cluster.", $id, ".speaker.rss"),
                    concat!("large cluster, ", $words, ": speaker, resident"),
                    Megabytes,
                    60.0,
                    &[],
                ),
                with_target(
                    concat!("large.cluster.", $id, ".speaker.peak"),
                    concat!("large cluster, ", $words, ": speaker, peak"),
                    Megabytes,
                    60.0,
                    &[],
                ),
            ],
        }
    };
}

pub const CLUSTER_CREATED: MeasureSpec = without_target(
    "large.cluster.created",
    "large cluster: creation of 1,000 Nodes, 10,000 Services, 50,000 endpoints",
    Milliseconds,
);
pub const CLUSTER_OWNED: MeasureSpec = without_target(
    "large.cluster.owned",
    "large cluster: last creation to all addresses owned",
    Milliseconds,
);
pub const CLUSTER_MEMORY: ClusterMemory = cluster_memory!("created", "after the creation");
pub const CLUSTER_RESTART_OWNED: MeasureSpec = without_target(
    "large.cluster.restart.owned",
    "large cluster: restart to all addresses owned",
    Milliseconds,
);
pub const CLUSTER_RESTART_MEMORY: ClusterMemory = cluster_memory!("restart", "after a restart");

/// Requests per minute and open watches of the controller and of one speaker.
pub const CLUSTER_CONTROLLER_REQUESTS: [MeasureSpec; 2] = [
    without_target(
        "large.cluster.requests.controller",
        "large cluster at rest: requests of the controller per minute",
        Count,
    ),
    without_target(
        "large.cluster.watches.controller",
        "large cluster at rest: open watches of the controller",
        Count,
    ),
];
pub const CLUSTER_SPEAKER_REQUESTS: [MeasureSpec; 2] = [
    without_target(
        "large.cluster.requests.speaker",
        "large cluster at rest: requests of a speaker per minute",
        Count,
    ),
    without_target(
        "large.cluster.watches.speaker",
        "large cluster at rest: open watches of a speaker",
        Count,
    ),
];

pub const CLUSTER_CHANGE_RATE: MeasureSpec =
    without_target("large.cluster.changes", "large cluster: endpoint changes per second", Count);
pub const CLUSTER_CHANGES_CONTROLLER_CPU: MeasureSpec = without_target(
    "large.cluster.changes.cpu.controller",
    "the same: processor time per second of the controller",
    Milliseconds,
);
pub const CLUSTER_CHANGES_SPEAKER_CPU: MeasureSpec = without_target(
    "large.cluster.changes.cpu.speaker",
    "the same: processor time per second of the busiest speaker",
    Milliseconds,
);
pub const CLUSTER_CHANGES_PLAN: [MeasureSpec; 2] = [
    without_target(
        "large.cluster.changes.plan.p50",
        "the same: planning time of the speakers, p50",
        Milliseconds,
    ),
    without_target(
        "large.cluster.changes.plan.p99",
        "the same: planning time of the speakers, p99",
        Milliseconds,
    ),
];
pub const CLUSTER_CHANGES_RECEIVED: MeasureSpec = without_target(
    "large.cluster.changes.received",
    "the same: bytes per second from the API server to a speaker",
    Kilobytes,
);
