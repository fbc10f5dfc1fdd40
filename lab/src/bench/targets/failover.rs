//! Measures of L2 failover, one row per kind of event at the owner of an address.

use super::Unit::{Count, Milliseconds};
use super::{METALLB, MeasureSpec, without_target};

/// Target of a client's longest gap after a node failure, in milliseconds.
const GAP: Option<f64> = Some(300.0);
/// A planned change costs no connection.
const NONE: Option<f64> = Some(0.0);

/// Measures of one row for one family or transport: median and maximum of the longest gap of each
/// run, and the maximum of lost connections in a run.
#[derive(Debug)]
pub struct OutageMeasures {
    pub median: MeasureSpec,
    pub worst: MeasureSpec,
    pub lost: MeasureSpec,
    /// Id and description of the outcome of one long-lived connection.
    pub outcome: (&'static str, &'static str),
}

/// Builds a row from the prefix of its ids, the description, and the targets of the median gap and
/// of lost connections.
macro_rules! outage {
    ($id:literal, $words:literal, gap: $gap:expr, lost: $lost:expr) => {
        OutageMeasures {
            median: MeasureSpec {
                target: $gap,
                ..without_target(
                    concat!($id, ".gap.median"),
                    concat!($words, ": longest gap, median of the runs"),
                    Milliseconds,
                )
            },
            worst: without_target(
                concat!($id, ".gap.max"),
                concat!($words, ": longest gap, worst run"),
                Milliseconds,
            ),
            lost: MeasureSpec {
                target: $lost,
                ..without_target(
                    concat!($id, ".lost.max"),
                    concat!($words, ": connections lost, worst run"),
                    Count,
                )
            },
            outcome: (concat!($id, ".fate"), concat!($words, ": a long-lived connection")),
        }
    };
}

/// Builds the time until another node announces an address, from the prefix of the ids and the
/// description.
macro_rules! taken {
    ($id:literal, $words:literal) => {
        [
            MeasureSpec {
                target: GAP,
                ..without_target(
                    concat!($id, ".taken.median"),
                    concat!($words, ": announced by another, median"),
                    Milliseconds,
                )
            },
            without_target(
                concat!($id, ".taken.max"),
                concat!($words, ": announced by another, worst run"),
                Milliseconds,
            ),
        ]
    };
}

/// Builds the row of a number of addresses from the prefix and the end of the ids, the description
/// and the target of the median.
macro_rules! many {
    ($id:literal, $count:literal, $words:literal, $target:expr) => {
        [
            MeasureSpec {
                target: $target,
                ..without_target(
                    concat!($id, ".median.", $count),
                    concat!("owner of ", $words, " fails: all announced again, median"),
                    Milliseconds,
                )
            },
            without_target(
                concat!($id, ".max.", $count),
                concat!("owner of ", $words, " fails: all announced again, worst run"),
                Milliseconds,
            ),
        ]
    };
}

/// Best run over IPv4 and over IPv6; all other measures of the row also have both.
pub static FAILOVER_MIN: [MeasureSpec; 2] = [
    without_target("failover.gap.min", "owner fails: longest gap, best run", Milliseconds),
    without_target("failover.v6.gap.min", "owner fails, IPv6: longest gap, best run", Milliseconds),
];
pub static FAILOVER_DIES: [OutageMeasures; 2] = [
    OutageMeasures {
        median: MeasureSpec {
            peers: &[
                (METALLB, 5900.0),
                ("keepalived", 2600.0),
                ("keepalived at 100 ms adverts", 286.0),
                ("keepalived at 20 ms adverts", 60.0),
            ],
            ..outage!("failover", "owner fails", gap: GAP, lost: None).median
        },
        ..outage!("failover", "owner fails", gap: GAP, lost: None)
    },
    outage!("failover.v6", "owner fails, IPv6", gap: GAP, lost: None),
];
pub static FAILOVER_BACK: [OutageMeasures; 2] = [
    outage!("failover.back", "node returns and retakes its address", gap: None, lost: NONE),
    outage!("failover.v6.back", "node returns and retakes its address, IPv6", gap: None, lost: NONE),
];
pub static FAILOVER_LINK: [OutageMeasures; 2] = [
    outage!("failover.link", "owner's interface goes down", gap: GAP, lost: None),
    outage!("failover.v6.link", "owner's interface goes down, IPv6", gap: GAP, lost: None),
];
pub static FAILOVER_KILLED: [OutageMeasures; 2] = [
    outage!("failover.killed", "owner's speaker is killed", gap: GAP, lost: None),
    outage!("failover.v6.killed", "owner's speaker is killed, IPv6", gap: GAP, lost: None),
];
/// Time from the kill until another node announces the address: median and maximum of the runs.
pub static FAILOVER_TAKEN: [[MeasureSpec; 2]; 2] = [
    taken!("failover.killed", "owner's speaker is killed"),
    taken!("failover.v6.killed", "owner's speaker is killed, IPv6"),
];
pub static FAILOVER_STOPPED: [OutageMeasures; 2] = [
    outage!("failover.stopped", "owner's speaker is stopped", gap: None, lost: NONE),
    outage!("failover.v6.stopped", "owner's speaker is stopped, IPv6", gap: None, lost: NONE),
];
pub static FAILOVER_ROLLING: [OutageMeasures; 2] = [
    outage!("failover.rolling", "all speakers restart, one by one", gap: None, lost: NONE),
    outage!("failover.v6.rolling", "all speakers restart, one by one, IPv6", gap: None, lost: NONE),
];
/// Each transport over IPv4, then each over IPv6.
pub static FAILOVER_NAMES: [OutageMeasures; 4] = [
    outage!("failover.dns.tcp", "owner of a name server's address fails: TCP", gap: GAP, lost: None),
    outage!("failover.dns.udp", "owner of a name server's address fails: UDP", gap: GAP, lost: None),
    outage!("failover.v6.dns.tcp", "owner of a name server's address fails, IPv6: TCP", gap: GAP, lost: None),
    outage!("failover.v6.dns.udp", "owner of a name server's address fails, IPv6: UDP", gap: GAP, lost: None),
];
pub static FAILOVER_HELLO_20: [OutageMeasures; 2] = [
    outage!("failover.hello20", "owner fails, hellos every 20 ms", gap: None, lost: None),
    outage!("failover.v6.hello20", "owner fails, hellos every 20 ms, IPv6", gap: None, lost: None),
];
/// Keepalived has an IPv4 address only.
pub static FAILOVER_KEEPALIVED: [OutageMeasures; 1] = [
    outage!("failover.keepalived", "keepalived, adverts every 100 ms: owner fails", gap: None, lost: None),
];

/// Time from the power failure until another node has announced the last address of the failed
/// node: median and maximum of the runs.
pub static FAILOVER_100: [MeasureSpec; 2] = many!("failover.many", "100", "100 addresses", None);
pub static FAILOVER_1000: [MeasureSpec; 2] =
    many!("failover.many", "1000", "1,000 addresses", Some(1000.0));
pub static FAILOVER_V6_1000: [MeasureSpec; 2] =
    many!("failover.v6.many", "1000", "1,000 IPv6 addresses", Some(1000.0));
pub static V6_ANSWERED: MeasureSpec = without_target(
    "failover.v6.10000.answered",
    "10,000 IPv6 addresses: speakers' start to the last one's first reply",
    Milliseconds,
);
pub static V6_JOINED: MeasureSpec = without_target(
    "failover.v6.10000.joined",
    "10,000 IPv6 addresses: speakers' start until all nodes are in all groups",
    Milliseconds,
);
pub static FAILOVER_V6_10000: [MeasureSpec; 2] =
    many!("failover.v6.many", "10000", "10,000 IPv6 addresses", None);
