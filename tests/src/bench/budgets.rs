//! Every measure that a benchmark prints: its stable id, its words, its budget, and what other products came to. Those figures were measured
//! earlier, on the same lab; no run measures them again.

use Unit::{Megabytes, Microseconds, Milliseconds, Times};

/// What a value is counted in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub enum Unit {
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

/// The four figures of Services that were created together.
#[derive(Debug)]
pub struct Created {
    pub address_p50: Known,
    pub address_p99: Known,
    pub wire_p50: Known,
    pub wire_p99: Known,
}

/// The figures of one way to ask, each as median and 99th percentile.
#[derive(Debug)]
pub struct Answered {
    pub address: [Known; 2],
    pub kernel: [Known; 2],
    pub ratio: [Known; 2],
}

/// The figures of one program's memory at one number of Services.
#[derive(Debug)]
pub struct Held {
    pub rss: Known,
    pub pss: Known,
    pub anonymous: Known,
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

pub const CREATED_1: Created = Created {
    address_p50: plain("create.address.p50.1", "create to address, one at a time, p50", Milliseconds),
    address_p99: budgeted("create.address.p99.1", "create to address, one at a time, p99", Milliseconds, 100.0, &[]),
    wire_p50: plain("create.wire.p50.1", "create to announcement, one at a time, p50", Milliseconds),
    wire_p99: budgeted("create.wire.p99.1", "create to announcement, one at a time, p99", Milliseconds, 300.0, &[]),
};

pub const CREATED_100: Created = Created {
    address_p50: Known {
        peers: &[(METALLB, 250.0)],
        ..plain("create.address.p50.100", "create to address, 100 by 8 creators, p50", Milliseconds)
    },
    address_p99: budgeted(
        "create.address.p99.100",
        "create to address, 100 by 8 creators, p99",
        Milliseconds,
        100.0,
        &[(METALLB, 380.0)],
    ),
    wire_p50: plain("create.wire.p50.100", "create to announcement, 100 by 8 creators, p50", Milliseconds),
    wire_p99: budgeted(
        "create.wire.p99.100",
        "create to announcement, 100 by 8 creators, p99",
        Milliseconds,
        300.0,
        &[],
    ),
};

pub const CREATED_1000: Created = Created {
    address_p50: Known {
        peers: &[(METALLB, 2700.0)],
        ..plain("create.address.p50.1000", "create to address, 1,000 by 8 creators, p50", Milliseconds)
    },
    address_p99: budgeted(
        "create.address.p99.1000",
        "create to address, 1,000 by 8 creators, p99",
        Milliseconds,
        250.0,
        &[(METALLB, 4200.0)],
    ),
    wire_p50: plain("create.wire.p50.1000", "create to announcement, 1,000 by 8 creators, p50", Milliseconds),
    wire_p99: budgeted(
        "create.wire.p99.1000",
        "create to announcement, 1,000 by 8 creators, p99",
        Milliseconds,
        500.0,
        &[],
    ),
};

/// A request to all hosts, as a client sends that knows nothing.
pub const ANSWERED_ALL: Answered = Answered {
    address: [
        plain("answers.address.p50", "ARP, asked of all: Service's address, p50", Microseconds),
        plain("answers.address.p99", "ARP, asked of all: Service's address, p99", Microseconds),
    ],
    kernel: [
        plain("answers.kernel.p50", "ARP, asked of all: kernel's own, p50", Microseconds),
        plain("answers.kernel.p99", "ARP, asked of all: kernel's own, p99", Microseconds),
    ],
    ratio: [
        budgeted("answers.ratio.p50", "ARP, asked of all: ratio, p50", Times, 1.8, &[(METALLB, 2.3)]),
        budgeted("answers.ratio.p99", "ARP, asked of all: ratio, p99", Times, 1.6, &[(METALLB, 1.8)]),
    ],
};

/// A request to the owner alone, as a client sends that makes sure of what it knows (RFC 1122 section 2.3.2.1).
pub const ANSWERED_ONE: Answered = Answered {
    address: [
        plain("answers.unicast.address.p50", "ARP, asked of the owner: Service's address, p50", Microseconds),
        plain("answers.unicast.address.p99", "ARP, asked of the owner: Service's address, p99", Microseconds),
    ],
    kernel: [
        plain("answers.unicast.kernel.p50", "ARP, asked of the owner: kernel's own, p50", Microseconds),
        plain("answers.unicast.kernel.p99", "ARP, asked of the owner: kernel's own, p99", Microseconds),
    ],
    ratio: [
        plain("answers.unicast.ratio.p50", "ARP, asked of the owner: ratio, p50", Times),
        plain("answers.unicast.ratio.p99", "ARP, asked of the owner: ratio, p99", Times),
    ],
};

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

pub const FAILOVER_MEDIAN: Known = budgeted(
    "failover.gap.median",
    "owner dies: longest gap, median of the runs",
    Milliseconds,
    300.0,
    &[
        (METALLB, 5900.0),
        ("keepalived", 2600.0),
        ("keepalived at 100 ms adverts", 286.0),
        ("keepalived at 20 ms adverts", 60.0),
    ],
);
pub const FAILOVER_MIN: Known = plain("failover.gap.min", "owner dies: longest gap, best run", Milliseconds);
pub const FAILOVER_MAX: Known = plain("failover.gap.max", "owner dies: longest gap, worst run", Milliseconds);
