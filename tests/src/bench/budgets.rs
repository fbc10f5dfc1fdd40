//! Every measure that a benchmark prints: its stable id, its words, its budget, and what other products came to. Those figures were measured
//! earlier, on the same lab; no run measures them again.

mod answers;
mod bgp;
mod bgp_failover;
mod failover;
mod health;
mod power_off;

pub use answers::*;
pub use bgp::*;
pub use bgp_failover::*;
pub use failover::*;
pub use health::*;
pub use power_off::*;

use Unit::{Count, Megabytes, Milliseconds, Nanoseconds, Times};

/// What a value is counted in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub enum Unit {
    #[serde(rename = "ns")]
    Nanoseconds,
    #[serde(rename = "us")]
    Microseconds,
    #[serde(rename = "ms")]
    Milliseconds,
    /// Millions of bytes.
    #[serde(rename = "MB")]
    Megabytes,
    /// So many times something else.
    #[serde(rename = "x")]
    Times,
    /// So many things.
    #[serde(rename = "count")]
    Count,
}

/// One measure. A change of the id breaks the comparison with earlier runs.
#[derive(Debug)]
pub struct Known {
    pub id: &'static str,
    pub what: &'static str,
    pub unit: Unit,
    pub budget: Option<f64>,
    /// Other products, by name, in the same unit.
    pub peers: &'static [(&'static str, f64)],
}

/// The figures of Services that were created together, each as median and 99th percentile.
#[derive(Debug)]
pub struct Created {
    pub api: [Known; 2],
    pub address: [Known; 2],
    pub wire: [Known; 2],
}

/// The figures of one program's memory at one number of Services.
#[derive(Debug)]
pub struct Held {
    pub rss: Known,
    pub pss: Known,
    pub anonymous: Known,
}

/// The peak memory of the programs since their start, and the time until the speakers own all
/// addresses.
#[derive(Debug)]
pub struct Peaks {
    pub controller: Known,
    pub speaker: Known,
    pub owned: Known,
}

/// A measure that only explains others: nothing is promised of it.
const fn plain(id: &'static str, what: &'static str, unit: Unit) -> Known {
    Known { id, what, unit, budget: None, peers: &[] }
}

const fn budgeted(
    id: &'static str,
    what: &'static str,
    unit: Unit,
    budget: f64,
    peers: &'static [(&'static str, f64)],
) -> Known {
    Known { id, what, unit, budget: Some(budget), peers }
}

const METALLB: &str = "MetalLB";

/// The measures of one number of Services created together: its ids' end, its words, then budget and MetalLB's figures.
macro_rules! created {
    ($count:literal, $words:literal, address: $address:literal, $peers:expr, wire: $wire:literal) => {{
        let [peers_p50, peers_p99]: [&[(&str, f64)]; 2] = $peers;
        Created {
            api: [
                plain(
                    concat!("create.api.p50.", $count),
                    concat!("API server's own answer, ", $words, ", p50"),
                    Milliseconds,
                ),
                plain(
                    concat!("create.api.p99.", $count),
                    concat!("API server's own answer, ", $words, ", p99"),
                    Milliseconds,
                ),
            ],
            address: [
                Known {
                    peers: peers_p50,
                    ..plain(
                        concat!("create.address.p50.", $count),
                        concat!("create to address, ", $words, ", p50"),
                        Milliseconds,
                    )
                },
                budgeted(
                    concat!("create.address.p99.", $count),
                    concat!("create to address, ", $words, ", p99"),
                    Milliseconds,
                    $address,
                    peers_p99,
                ),
            ],
            wire: [
                plain(
                    concat!("create.wire.p50.", $count),
                    concat!("create to announcement, ", $words, ", p50"),
                    Milliseconds,
                ),
                budgeted(
                    concat!("create.wire.p99.", $count),
                    concat!("create to announcement, ", $words, ", p99"),
                    Milliseconds,
                    $wire,
                    &[],
                ),
            ],
        }
    }};
}

pub const CREATED_1: Created = created!("1", "one at a time", address: 100.0, [&[], &[]], wire: 300.0);
pub const CREATED_100: Created =
    created!("100", "100 by 8 creators", address: 100.0, [&[(METALLB, 250.0)], &[(METALLB, 380.0)]], wire: 300.0);
pub const CREATED_1000: Created =
    created!("1000", "1,000 by 8 creators", address: 250.0, [&[(METALLB, 2700.0)], &[(METALLB, 4200.0)]], wire: 500.0);

/// The memory measures of one program at one number of Services, in the order id, words, budget, MetalLB's program.
macro_rules! held {
    ($program:literal, $count:literal, $words:literal, $budget:literal, $peers:expr) => {
        Held {
            rss: budgeted(
                concat!("memory.", $program, ".rss.", $count),
                concat!($program, ", ", $words, ": resident"),
                Megabytes,
                $budget,
                $peers,
            ),
            pss: plain(
                concat!("memory.", $program, ".pss.", $count),
                concat!($program, ", ", $words, ": its share (PSS)"),
                Megabytes,
            ),
            anonymous: plain(
                concat!("memory.", $program, ".anonymous.", $count),
                concat!($program, ", ", $words, ": anonymous"),
                Megabytes,
            ),
        }
    };
}

pub const CONTROLLER_1: Held = held!("controller", "1", "1 Service", 12.0, &[(METALLB, 61.0)]);
pub const CONTROLLER_100: Held = held!("controller", "100", "100 Services", 12.0, &[]);
pub const CONTROLLER_1000: Held = held!("controller", "1000", "1,000 Services", 15.0, &[(METALLB, 80.0)]);
pub const SPEAKER_1: Held = held!("speaker", "1", "1 Service", 12.0, &[(METALLB, 63.0)]);
pub const SPEAKER_100: Held = held!("speaker", "100", "100 Services", 12.0, &[]);
pub const SPEAKER_1000: Held = held!("speaker", "1000", "1,000 Services", 15.0, &[(METALLB, 83.0)]);

pub const CONTROLLER_10000: Held = held!("controller", "10000", "10,000 Services", 40.0, &[]);
pub const SPEAKER_10000: Held = held!("speaker", "10000", "10,000 Services", 25.0, &[]);

pub const SPEAKER_V6_10000: Held = held!("speaker", "v6.10000", "10,000 Services of IPv6", 25.0, &[]);

pub const SCALE_API: [Known; 2] = [
    plain("scale.api.p50", "API server's own answer, 10,000 by 8 creators, no kube-proxy, p50", Milliseconds),
    plain("scale.api.p99", "API server's own answer, 10,000 by 8 creators, no kube-proxy, p99", Milliseconds),
];
pub const SCALE_ADDRESS: [Known; 2] = [
    plain("scale.address.p50", "create to address, 10,000 by 8 creators, no kube-proxy, p50", Milliseconds),
    plain("scale.address.p99", "create to address, 10,000 by 8 creators, no kube-proxy, p99", Milliseconds),
];
pub const SCALE_CPU: Known = plain("scale.cpu", "controller: processor time for 1,000 addresses", Milliseconds);
pub const RESTART_READY: Known = plain("scale.restart.ready", "restart with 10,000: start to ready", Milliseconds);
pub const RESTART_LEADING: Known =
    plain("scale.restart.leading", "restart with 10,000: start to leading", Milliseconds);
pub const RESTART_DECIDED: Known =
    plain("scale.restart.decided", "restart with 10,000: start to all addresses taken as given", Milliseconds);
pub const RESTART_WRITES: Known = budgeted("scale.restart.writes", "restart with 10,000: writes", Count, 0.0, &[]);

pub const LARGE: Peaks = Peaks {
    controller: budgeted("large.controller", "1,000 Services of 255 KiB: controller, at most", Megabytes, 64.0, &[]),
    speaker: budgeted("large.speaker", "1,000 Services of 255 KiB: speaker, at most", Megabytes, 64.0, &[]),
    owned: plain("large.owned", "1,000 Services of 255 KiB: start to all addresses owned", Milliseconds),
};
pub const LARGE_NODES: Peaks = Peaks {
    controller: budgeted(
        "large.nodes.controller",
        "the same and 3,000 Nodes: controller, at most",
        Megabytes,
        64.0,
        &[],
    ),
    speaker: budgeted("large.nodes.speaker", "the same and 3,000 Nodes: speaker, at most", Megabytes, 64.0, &[]),
    owned: plain("large.nodes.owned", "the same and 3,000 Nodes: start to all addresses owned", Milliseconds),
};

pub const ALLOCATE_28: Known = plain("allocate.28", "one of 14 addresses: of a /28", Nanoseconds);
pub const ALLOCATE_V4_8: Known =
    budgeted("allocate.v4.8.ratio", "one of 14 addresses: of a /8, against the /28", Times, 1.5, &[]);
pub const ALLOCATE_V6_64: Known =
    budgeted("allocate.v6.64.ratio", "one of 14 addresses: of a v6 /64, against the /28", Times, 1.5, &[]);
pub const ALLOCATE_MANY_V4_8: Known =
    budgeted("allocate.v4.8.ratio.10000", "one of 10,000 addresses: of a /8, against the /28", Times, 3.0, &[]);
pub const ALLOCATE_MANY_V6_64: Known =
    budgeted("allocate.v6.64.ratio.10000", "one of 10,000 addresses: of a v6 /64, against the /28", Times, 3.0, &[]);
