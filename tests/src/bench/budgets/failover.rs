//! The measures of failover, a row for each thing that can happen to the owner of an address.

use super::Unit::{Count, Milliseconds};
use super::{Known, METALLB, plain};

/// The longest gap that a client may see when a node dies, in milliseconds.
const GAP: Option<f64> = Some(300.0);
/// What is planned costs no connection.
const NONE: Option<f64> = Some(0.0);

/// The figures of one row, seen over one family or by one transport: of the longest gap of each run the median and the largest, and the most connections that any run lost.
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

/// The time until another node announced an address: the ids' beginning, its words.
macro_rules! taken {
    ($id:literal, $words:literal) => {
        [
            Known {
                budget: GAP,
                ..plain(concat!($id, ".taken.median"), concat!($words, ": announced by another, median"), Milliseconds)
            },
            plain(concat!($id, ".taken.max"), concat!($words, ": announced by another, worst run"), Milliseconds),
        ]
    };
}

/// The row of so many addresses: the ids' beginning and end, its words, the budget of the median.
macro_rules! many {
    ($id:literal, $count:literal, $words:literal, $budget:expr) => {
        [
            Known {
                budget: $budget,
                ..plain(
                    concat!($id, ".median.", $count),
                    concat!("owner of ", $words, " dies: all announced anew, median"),
                    Milliseconds,
                )
            },
            plain(
                concat!($id, ".max.", $count),
                concat!("owner of ", $words, " dies: all announced anew, worst run"),
                Milliseconds,
            ),
        ]
    };
}

/// The best of all runs, over IPv4 and over IPv6, as all of a row are.
pub static FAILOVER_MIN: [Known; 2] = [
    plain("failover.gap.min", "owner dies: longest gap, best run", Milliseconds),
    plain("failover.v6.gap.min", "owner dies, IPv6: longest gap, best run", Milliseconds),
];
pub static FAILOVER_DIES: [Outage; 2] = [
    Outage {
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
    },
    outage!("failover.v6", "owner dies, IPv6", gap: GAP, lost: None),
];
pub static FAILOVER_BACK: [Outage; 2] = [
    outage!("failover.back", "node is back, takes its address again", gap: None, lost: NONE),
    outage!("failover.v6.back", "node is back, takes its address again, IPv6", gap: None, lost: NONE),
];
pub static FAILOVER_LINK: [Outage; 2] = [
    outage!("failover.link", "owner's link goes down", gap: GAP, lost: None),
    outage!("failover.v6.link", "owner's link goes down, IPv6", gap: GAP, lost: None),
];
pub static FAILOVER_KILLED: [Outage; 2] = [
    outage!("failover.killed", "owner's speaker is killed", gap: GAP, lost: None),
    outage!("failover.v6.killed", "owner's speaker is killed, IPv6", gap: GAP, lost: None),
];
/// From the kill until another node announced the address: median and largest of the runs.
pub static FAILOVER_TAKEN: [[Known; 2]; 2] = [
    taken!("failover.killed", "owner's speaker is killed"),
    taken!("failover.v6.killed", "owner's speaker is killed, IPv6"),
];
pub static FAILOVER_STOPPED: [Outage; 2] = [
    outage!("failover.stopped", "owner's speaker is told to stop", gap: None, lost: NONE),
    outage!("failover.v6.stopped", "owner's speaker is told to stop, IPv6", gap: None, lost: NONE),
];
pub static FAILOVER_ROLLING: [Outage; 2] = [
    outage!("failover.rolling", "all speakers restart, one by one", gap: None, lost: NONE),
    outage!("failover.v6.rolling", "all speakers restart, one by one, IPv6", gap: None, lost: NONE),
];
/// Each transport over IPv4, then each over IPv6.
pub static FAILOVER_NAMES: [Outage; 4] = [
    outage!("failover.dns.tcp", "owner of a name server's address dies: TCP", gap: GAP, lost: None),
    outage!("failover.dns.udp", "owner of a name server's address dies: UDP", gap: GAP, lost: None),
    outage!("failover.v6.dns.tcp", "owner of a name server's address dies, IPv6: TCP", gap: GAP, lost: None),
    outage!("failover.v6.dns.udp", "owner of a name server's address dies, IPv6: UDP", gap: GAP, lost: None),
];
pub static FAILOVER_HELLO_20: [Outage; 2] = [
    outage!("failover.hello20", "owner dies, hellos every 20 ms", gap: None, lost: None),
    outage!("failover.v6.hello20", "owner dies, hellos every 20 ms, IPv6", gap: None, lost: None),
];
/// The yardstick has an address of IPv4 alone.
pub static FAILOVER_KEEPALIVED: [Outage; 1] =
    [outage!("failover.keepalived", "keepalived, adverts every 100 ms: owner dies", gap: None, lost: None)];

/// From the power cut until the last of the dead node's addresses was announced by another: median and largest of the runs.
pub static FAILOVER_100: [Known; 2] = many!("failover.many", "100", "100 addresses", None);
pub static FAILOVER_1000: [Known; 2] = many!("failover.many", "1000", "1,000 addresses", Some(1000.0));
pub static FAILOVER_V6_1000: [Known; 2] = many!("failover.v6.many", "1000", "1,000 IPv6 addresses", Some(1000.0));
pub static V6_ANSWERED: Known = plain(
    "failover.v6.10000.answered",
    "10,000 IPv6 addresses: speakers' start to the last one's first answer",
    Milliseconds,
);
pub static V6_JOINED: Known = plain(
    "failover.v6.10000.joined",
    "10,000 IPv6 addresses: speakers' start until all nodes are in all groups",
    Milliseconds,
);
pub static FAILOVER_V6_10000: [Known; 2] = many!("failover.v6.many", "10000", "10,000 IPv6 addresses", None);
