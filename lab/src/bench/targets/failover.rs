//! Measures of L2 failover, one row per kind of event at the owner of an address.

use super::Unit::{Count, Milliseconds};
use super::{METALLB, MeasureSpec, without_target};

/// Target of a client's longest gap after a node failure, in milliseconds.
const GAP_TARGET: Option<f64> = Some(300.0);
/// Target of lost connections at a planned change.
const NO_LOSS_TARGET: Option<f64> = Some(0.0);

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
macro_rules! outage_measures {
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
macro_rules! announcement_measures {
    ($id:literal, $words:literal) => {
        [
            MeasureSpec {
                target: GAP_TARGET,
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

/// Builds the measures of an owner of many addresses from the prefix and the end of the ids, the
/// description and the target of the median.
macro_rules! many_addresses_measures {
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
pub static FAILOVER_BEST_RUN: [MeasureSpec; 2] = [
    without_target("failover.gap.min", "owner fails: longest gap, best run", Milliseconds),
    without_target("failover.v6.gap.min", "owner fails, IPv6: longest gap, best run", Milliseconds),
];
pub static FAILOVER_NODE_FAILURE: [OutageMeasures; 2] = [
    OutageMeasures {
        median: MeasureSpec {
            peers: &[
                (METALLB, 5900.0),
                ("keepalived", 2600.0),
                ("keepalived at 100 ms adverts", 286.0),
                ("keepalived at 20 ms adverts", 60.0),
            ],
            ..outage_measures!("failover", "owner fails", gap: GAP_TARGET, lost: None).median
        },
        ..outage_measures!("failover", "owner fails", gap: GAP_TARGET, lost: None)
    },
    outage_measures!("failover.v6", "owner fails, IPv6", gap: GAP_TARGET, lost: None),
];
pub static FAILOVER_RETURN: [OutageMeasures; 2] = [
    outage_measures!("failover.back", "node returns and retakes its address", gap: None, lost: NO_LOSS_TARGET),
    outage_measures!("failover.v6.back", "node returns and retakes its address, IPv6", gap: None, lost: NO_LOSS_TARGET),
];
pub static FAILOVER_INTERFACE_DOWN: [OutageMeasures; 2] = [
    outage_measures!("failover.link", "owner's interface goes down", gap: GAP_TARGET, lost: None),
    outage_measures!("failover.v6.link", "owner's interface goes down, IPv6", gap: GAP_TARGET, lost: None),
];
pub static FAILOVER_KILLED: [OutageMeasures; 2] = [
    outage_measures!("failover.killed", "owner's speaker is killed", gap: GAP_TARGET, lost: None),
    outage_measures!("failover.v6.killed", "owner's speaker is killed, IPv6", gap: GAP_TARGET, lost: None),
];
/// Time from the kill until another node announces the address: median and maximum of the runs.
pub static FAILOVER_KILLED_ANNOUNCED: [[MeasureSpec; 2]; 2] = [
    announcement_measures!("failover.killed", "owner's speaker is killed"),
    announcement_measures!("failover.v6.killed", "owner's speaker is killed, IPv6"),
];
pub static FAILOVER_STOPPED: [OutageMeasures; 2] = [
    outage_measures!("failover.stopped", "owner's speaker is stopped", gap: None, lost: NO_LOSS_TARGET),
    outage_measures!("failover.v6.stopped", "owner's speaker is stopped, IPv6", gap: None, lost: NO_LOSS_TARGET),
];
pub static FAILOVER_ROLLING: [OutageMeasures; 2] = [
    outage_measures!("failover.rolling", "all speakers restart, one by one", gap: None, lost: NO_LOSS_TARGET),
    outage_measures!("failover.v6.rolling", "all speakers restart, one by one, IPv6", gap: None, lost: NO_LOSS_TARGET),
];
/// Name server: each transport over IPv4, then each over IPv6.
pub static FAILOVER_NAME_SERVER: [OutageMeasures; 4] = [
    outage_measures!("failover.dns.tcp", "owner of a name server's address fails: TCP", gap: GAP_TARGET, lost: None),
    outage_measures!("failover.dns.udp", "owner of a name server's address fails: UDP", gap: GAP_TARGET, lost: None),
    outage_measures!("failover.v6.dns.tcp", "owner of a name server's address fails, IPv6: TCP", gap: GAP_TARGET, lost: None),
    outage_measures!("failover.v6.dns.udp", "owner of a name server's address fails, IPv6: UDP", gap: GAP_TARGET, lost: None),
];
pub static FAILOVER_HELLO_20: [OutageMeasures; 2] = [
    outage_measures!("failover.hello20", "owner fails, hellos every 20 ms", gap: None, lost: None),
    outage_measures!("failover.v6.hello20", "owner fails, hellos every 20 ms, IPv6", gap: None, lost: None),
];
/// Keepalived has an IPv4 address only.
pub static FAILOVER_KEEPALIVED: [OutageMeasures; 1] = [
    outage_measures!("failover.keepalived", "keepalived, adverts every 100 ms: owner fails", gap: None, lost: None),
];

/// Time from the power failure until another node has announced the last address of the failed
/// node: median and maximum of the runs.
pub static FAILOVER_100: [MeasureSpec; 2] =
    many_addresses_measures!("failover.many", "100", "100 addresses", None);
pub static FAILOVER_1000: [MeasureSpec; 2] =
    many_addresses_measures!("failover.many", "1000", "1,000 addresses", Some(1000.0));
pub static FAILOVER_V6_1000: [MeasureSpec; 2] =
    many_addresses_measures!("failover.v6.many", "1000", "1,000 IPv6 addresses", Some(1000.0));
pub static V6_FIRST_REPLY: MeasureSpec = without_target(
    "failover.v6.10000.answered",
    "10,000 IPv6 addresses: speakers' start to the last one's first reply",
    Milliseconds,
);
pub static V6_GROUPS_JOINED: MeasureSpec = without_target(
    "failover.v6.10000.joined",
    "10,000 IPv6 addresses: speakers' start until all nodes are in all groups",
    Milliseconds,
);
pub static FAILOVER_V6_10000: [MeasureSpec; 2] =
    many_addresses_measures!("failover.v6.many", "10000", "10,000 IPv6 addresses", None);
