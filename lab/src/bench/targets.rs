//! Every measure that a benchmark prints: its stable id, description, target, and the values of
//! other products. Those values were measured earlier on the same lab; a run does not measure them
//! again.

mod answers;
mod bgp;
mod bgp_failover;
mod busy;
mod failover;
mod health;
mod large;
mod power_off;

pub use answers::*;
pub use bgp::*;
pub use bgp_failover::*;
pub use busy::*;
pub use failover::*;
pub use health::*;
pub use large::*;
pub use power_off::*;

use Unit::{Count, Megabytes, Milliseconds};

/// Unit of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub enum Unit {
    #[serde(rename = "us")]
    Microseconds,
    #[serde(rename = "ms")]
    Milliseconds,
    /// Thousands of bytes.
    #[serde(rename = "kB")]
    Kilobytes,
    /// Millions of bytes.
    #[serde(rename = "MB")]
    Megabytes,
    /// Ratio to another value.
    #[serde(rename = "x")]
    Times,
    /// Number of objects or events.
    #[serde(rename = "count")]
    Count,
}

/// One measure. A change of the id breaks the comparison with earlier runs.
#[derive(Debug)]
pub struct MeasureSpec {
    pub id: &'static str,
    pub what: &'static str,
    pub unit: Unit,
    pub target: Option<f64>,
    /// Values of other products by name, in the same unit.
    pub peers: &'static [(&'static str, f64)],
}

/// Measures of Services that were created together, each as median and 99th percentile.
#[derive(Debug)]
pub struct CreateMeasures {
    pub api: [MeasureSpec; 2],
    pub address: [MeasureSpec; 2],
    pub announcement: [MeasureSpec; 2],
}

/// Measures of the memory of one component at one number of Services.
#[derive(Debug)]
pub struct MemoryMeasures {
    pub rss: MeasureSpec,
    pub pss: MeasureSpec,
    pub anonymous: MeasureSpec,
}

/// Builds a measure without a target.
const fn without_target(id: &'static str, what: &'static str, unit: Unit) -> MeasureSpec {
    MeasureSpec { id, what, unit, target: None, peers: &[] }
}

const fn with_target(
    id: &'static str,
    what: &'static str,
    unit: Unit,
    target: f64,
    peers: &'static [(&'static str, f64)],
) -> MeasureSpec {
    MeasureSpec { id, what, unit, target: Some(target), peers }
}

const METALLB: &str = "MetalLB";

/// Builds the measures for a number of Services that are created together. The arguments are the
/// end of the ids, the description, the targets and MetalLB's values.
macro_rules! create_measures {
    ($count:literal, $words:literal, address: $address:literal, $peers:expr, announcement: $announcement:literal) => {{
        let [others_p50, others_p99]: [&[(&str, f64)]; 2] = $peers;
        CreateMeasures {
            api: [
                without_target(
                    concat!("create.api.p50.", $count),
                    concat!("API server's own reply, ", $words, ", p50"),
                    Milliseconds,
                ),
                without_target(
                    concat!("create.api.p99.", $count),
                    concat!("API server's own reply, ", $words, ", p99"),
                    Milliseconds,
                ),
            ],
            address: [
                MeasureSpec {
                    peers: others_p50,
                    ..without_target(
                        concat!("create.address.p50.", $count),
                        concat!("create to address, ", $words, ", p50"),
                        Milliseconds,
                    )
                },
                with_target(
                    concat!("create.address.p99.", $count),
                    concat!("create to address, ", $words, ", p99"),
                    Milliseconds,
                    $address,
                    others_p99,
                ),
            ],
            announcement: [
                without_target(
                    concat!("create.wire.p50.", $count),
                    concat!("create to announcement, ", $words, ", p50"),
                    Milliseconds,
                ),
                with_target(
                    concat!("create.wire.p99.", $count),
                    concat!("create to announcement, ", $words, ", p99"),
                    Milliseconds,
                    $announcement,
                    &[],
                ),
            ],
        }
    }};
}

pub const CREATED_1: CreateMeasures =
    create_measures!("1", "one at a time", address: 100.0, [&[], &[]], announcement: 600.0);
pub const CREATED_100: CreateMeasures = create_measures!("100", "100 by 8 creators", address: 100.0, [&[(METALLB, 250.0)], &[(METALLB, 380.0)]], announcement: 600.0);
pub const CREATED_1000: CreateMeasures = create_measures!("1000", "1,000 by 8 creators", address: 250.0, [&[(METALLB, 2700.0)], &[(METALLB, 4200.0)]], announcement: 900.0);

/// Builds the memory measures of one component at one number of Services. The arguments are the
/// component, the end of the ids, the description, the target and the value of MetalLB's component.
macro_rules! memory_measures {
    ($component:literal, $count:literal, $words:literal, $target:literal, $peers:expr) => {
        MemoryMeasures {
            rss: with_target(
                concat!("memory.", $component, ".rss.", $count),
                concat!($component, ", ", $words, ": resident"),
                Megabytes,
                $target,
                $peers,
            ),
            pss: without_target(
                concat!("memory.", $component, ".pss.", $count),
                concat!($component, ", ", $words, ": its share (PSS)"),
                Megabytes,
            ),
            anonymous: without_target(
                concat!("memory.", $component, ".anonymous.", $count),
                concat!($component, ", ", $words, ": anonymous"),
                Megabytes,
            ),
        }
    };
}

pub const CONTROLLER_1: MemoryMeasures =
    memory_measures!("controller", "1", "1 Service", 12.0, &[(METALLB, 61.0)]);
pub const CONTROLLER_100: MemoryMeasures =
    memory_measures!("controller", "100", "100 Services", 12.0, &[]);
pub const CONTROLLER_1000: MemoryMeasures =
    memory_measures!("controller", "1000", "1,000 Services", 15.0, &[(METALLB, 80.0)]);
pub const SPEAKER_1: MemoryMeasures =
    memory_measures!("speaker", "1", "1 Service", 12.0, &[(METALLB, 63.0)]);
pub const SPEAKER_100: MemoryMeasures =
    memory_measures!("speaker", "100", "100 Services", 12.0, &[]);
pub const SPEAKER_1000: MemoryMeasures =
    memory_measures!("speaker", "1000", "1,000 Services", 15.0, &[(METALLB, 83.0)]);

pub const CONTROLLER_10000: MemoryMeasures =
    memory_measures!("controller", "10000", "10,000 Services", 40.0, &[]);
pub const SPEAKER_10000: MemoryMeasures =
    memory_measures!("speaker", "10000", "10,000 Services", 25.0, &[]);

pub const SPEAKER_V6_10000: MemoryMeasures =
    memory_measures!("speaker", "v6.10000", "10,000 IPv6 Services", 25.0, &[]);

pub const SCALE_API: [MeasureSpec; 2] = [
    without_target(
        "scale.api.p50",
        "API server's own reply, 10,000 by 8 creators, no kube-proxy, p50",
        Milliseconds,
    ),
    without_target(
        "scale.api.p99",
        "API server's own reply, 10,000 by 8 creators, no kube-proxy, p99",
        Milliseconds,
    ),
];
pub const SCALE_ADDRESS: [MeasureSpec; 2] = [
    without_target(
        "scale.address.p50",
        "create to address, 10,000 by 8 creators, no kube-proxy, p50",
        Milliseconds,
    ),
    without_target(
        "scale.address.p99",
        "create to address, 10,000 by 8 creators, no kube-proxy, p99",
        Milliseconds,
    ),
];
pub const SCALE_CPU: MeasureSpec =
    without_target("scale.cpu", "controller: processor time for 1,000 addresses", Milliseconds);
pub const RESTART_READY: MeasureSpec =
    without_target("scale.restart.ready", "restart with 10,000: start to ready", Milliseconds);
pub const RESTART_LEADING: MeasureSpec =
    without_target("scale.restart.leading", "restart with 10,000: start to leading", Milliseconds);
pub const RESTART_DECIDED: MeasureSpec = without_target(
    "scale.restart.decided",
    "restart with 10,000: start to all addresses restored",
    Milliseconds,
);
pub const RESTART_WRITES: MeasureSpec =
    with_target("scale.restart.writes", "restart with 10,000: writes", Count, 0.0, &[]);
pub const CLI_STATUS: MeasureSpec = with_target(
    "scale.cli.status",
    "kubectl ferrolb status with 10,000",
    Milliseconds,
    1_000.0,
    &[],
);
pub const CLI_WHY: MeasureSpec =
    with_target("scale.cli.why", "kubectl ferrolb why with 10,000", Milliseconds, 1_000.0, &[]);
pub const CLI_PLAN: MeasureSpec = with_target(
    "scale.cli.plan",
    "kubectl ferrolb plan with 10,000, 256 addresses move",
    Milliseconds,
    1_000.0,
    &[],
);
