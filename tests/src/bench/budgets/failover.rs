//! The measures of failover, a row for each thing that can happen to the owner of an address.

use super::Unit::{Count, Milliseconds};
use super::{Known, METALLB, budgeted, plain};

/// The longest gap that a client may see when a node dies, in milliseconds.
const GAP: Option<f64> = Some(300.0);
/// What is planned costs no connection.
const NONE: Option<f64> = Some(0.0);

/// The figures of one row: of the longest gap of each run the median and the largest, and the most connections that any run lost.
#[derive(Debug)]
pub struct Outage {
    pub median: Known,
    pub worst: Known,
    pub lost: Known,
    /// The id and the words of what became of one connection that lasted.
    pub fate: (&'static str, &'static str),
}

/// A row: its ids' beginning, its words, and the budgets of the median gap and of the connections lost.
macro_rules! outage {
    ($id:literal, $words:literal, gap: $gap:expr, lost: $lost:expr) => {
        Outage {
            median: Known {
                budget: $gap,
                ..plain(concat!($id, ".gap.median"), concat!($words, ": longest gap, median of the runs"), Milliseconds)
            },
            worst: plain(concat!($id, ".gap.max"), concat!($words, ": longest gap, worst run"), Milliseconds),
            lost: Known {
                budget: $lost,
                ..plain(concat!($id, ".lost.max"), concat!($words, ": connections lost, worst run"), Count)
            },
            fate: (concat!($id, ".fate"), concat!($words, ": a connection that lasted")),
        }
    };
}

pub const FAILOVER_MIN: Known = plain("failover.gap.min", "owner dies: longest gap, best run", Milliseconds);
pub const FAILOVER_DIES: Outage = Outage {
    median: Known {
        peers: &[
            (METALLB, 5900.0),
            ("keepalived", 2600.0),
            ("keepalived at 100 ms adverts", 286.0),
            ("keepalived at 20 ms adverts", 60.0),
        ],
        ..outage!("failover", "owner dies", gap: GAP, lost: None).median
    },
    ..outage!("failover", "owner dies", gap: GAP, lost: None)
};
pub const FAILOVER_BACK: Outage =
    outage!("failover.back", "node is back, takes its address again", gap: None, lost: NONE);
pub const FAILOVER_LINK: Outage = outage!("failover.link", "owner's link goes down", gap: GAP, lost: None);
pub const FAILOVER_KILLED: Outage = outage!("failover.killed", "owner's speaker is killed", gap: GAP, lost: None);
/// From the kill until another node announced the address: median and largest of the runs.
pub const FAILOVER_TAKEN: [Known; 2] = [
    Known {
        budget: GAP,
        ..plain("failover.killed.taken.median", "owner's speaker is killed: announced by another, median", Milliseconds)
    },
    plain("failover.killed.taken.max", "owner's speaker is killed: announced by another, worst run", Milliseconds),
];
pub const FAILOVER_STOPPED: Outage =
    outage!("failover.stopped", "owner's speaker is told to stop", gap: None, lost: NONE);
pub const FAILOVER_ROLLING: Outage =
    outage!("failover.rolling", "all speakers restart, one by one", gap: None, lost: NONE);
pub const FAILOVER_TCP: Outage =
    outage!("failover.dns.tcp", "owner of a name server's address dies: TCP", gap: GAP, lost: None);
pub const FAILOVER_UDP: Outage =
    outage!("failover.dns.udp", "owner of a name server's address dies: UDP", gap: GAP, lost: None);
pub const FAILOVER_HELLO_20: Outage =
    outage!("failover.hello20", "owner dies, hellos every 20 ms", gap: None, lost: None);
pub const FAILOVER_KEEPALIVED: Outage =
    outage!("failover.keepalived", "keepalived, adverts every 100 ms: owner dies", gap: None, lost: None);

/// From the power cut until the last of the dead node's addresses was announced by another: median and largest of the runs.
pub const FAILOVER_100: [Known; 2] = [
    plain("failover.many.median.100", "owner of 100 addresses dies: all announced anew, median", Milliseconds),
    plain("failover.many.max.100", "owner of 100 addresses dies: all announced anew, worst run", Milliseconds),
];
pub const FAILOVER_1000: [Known; 2] = [
    budgeted(
        "failover.many.median.1000",
        "owner of 1,000 addresses dies: all announced anew, median",
        Milliseconds,
        1000.0,
        &[],
    ),
    plain("failover.many.max.1000", "owner of 1,000 addresses dies: all announced anew, worst run", Milliseconds),
];
