//! Measures of BGP failover at FRR, BIRD and GoBGP, with a client behind the first two.

use super::Unit::{Count, Milliseconds};
use super::{METALLB, MeasureSpec, without_target};

/// Node failure: time until the router stops using the node, and the client's longest gap, each as
/// median and worst run.
#[derive(Debug)]
pub struct NodeFailureMeasures {
    pub unused: [MeasureSpec; 2],
    pub gap: [MeasureSpec; 2],
}

/// Planned change of a node: maximum of lost connections in a run, at FRR and at BIRD.
pub type PlannedMeasures = [MeasureSpec; 2];

macro_rules! node_failure_measures {
    ($id:literal, $words:literal) => {
        NodeFailureMeasures {
            unused: [
                without_target(
                    concat!("bgp-failover.", $id, ".unused.median"),
                    concat!("node fails, ", $words, ": the router stops using it, median"),
                    Milliseconds,
                ),
                without_target(
                    concat!("bgp-failover.", $id, ".unused.max"),
                    concat!("node fails, ", $words, ": the router stops using it, worst run"),
                    Milliseconds,
                ),
            ],
            gap: [
                without_target(
                    concat!("bgp-failover.", $id, ".gap.median"),
                    concat!("node fails, ", $words, ": the client's longest gap, median"),
                    Milliseconds,
                ),
                without_target(
                    concat!("bgp-failover.", $id, ".gap.max"),
                    concat!("node fails, ", $words, ": the client's longest gap, worst run"),
                    Milliseconds,
                ),
            ],
        }
    };
}

/// Builds the measures of a node failure; the median time until the router stops using the node has
/// a target.
macro_rules! node_failure_with_target {
    ($id:literal, $words:literal, $target:expr, $peers:expr) => {{
        let NodeFailureMeasures { unused: [median, max], gap } =
            node_failure_measures!($id, $words);
        NodeFailureMeasures {
            unused: [MeasureSpec { target: $target, peers: $peers, ..median }, max],
            gap,
        }
    }};
}

macro_rules! planned_measures {
    ($id:literal, $words:literal, $target:expr) => {
        [
            MeasureSpec {
                target: $target,
                ..without_target(
                    concat!("bgp-failover.", $id, ".frr.lost.max"),
                    concat!($words, ", at FRR: connections lost, most in a run"),
                    Count,
                )
            },
            MeasureSpec {
                target: $target,
                ..without_target(
                    concat!("bgp-failover.", $id, ".bird.lost.max"),
                    concat!($words, ", at BIRD: connections lost, most in a run"),
                    Count,
                )
            },
        ]
    };
}

pub static BGP_NODE_FAILURE_FRR_100: NodeFailureMeasures =
    node_failure_with_target!("frr.bfd100", "FRR, BFD 100 ms x 3", Some(350.0), &[]);
/// MetalLB's value is from FRR's default timers, which are the same.
pub static BGP_NODE_FAILURE_FRR_300: NodeFailureMeasures =
    node_failure_with_target!("frr.bfd300", "FRR, BFD 300 ms x 3", None, &[(METALLB, 900.0)]);
pub static BGP_NODE_FAILURE_FRR_HOLD: NodeFailureMeasures =
    node_failure_measures!("frr.hold", "FRR, hold time 3 s");
pub static BGP_NODE_FAILURE_BIRD_100: NodeFailureMeasures =
    node_failure_with_target!("bird.bfd100", "BIRD, BFD 100 ms x 3", Some(350.0), &[]);
pub static BGP_NODE_FAILURE_BIRD_300: NodeFailureMeasures =
    node_failure_measures!("bird.bfd300", "BIRD, BFD 300 ms x 3");
pub static BGP_NODE_FAILURE_BIRD_HOLD: NodeFailureMeasures =
    node_failure_measures!("bird.hold", "BIRD, hold time 3 s");
pub static BGP_NODE_FAILURE_FRR_BOTH: NodeFailureMeasures =
    node_failure_measures!("frr.both", "FRR, BFD 100 ms x 3 and graceful restart");
pub static BGP_NODE_FAILURE_BIRD_BOTH: NodeFailureMeasures =
    node_failure_measures!("bird.both", "BIRD, BFD 100 ms x 3 and graceful restart");
pub static BGP_NODE_FAILURE_GOBGP_BOTH: NodeFailureMeasures =
    node_failure_measures!("gobgp.both", "GoBGP, BFD 100 ms x 3 and graceful restart");

pub static BGP_DRAINED: PlannedMeasures =
    planned_measures!("drained", "node is cordoned", Some(0.0));
pub static BGP_SPEAKER_RESTARTED: PlannedMeasures =
    planned_measures!("speaker", "speaker is stopped and restarted", Some(0.0));
pub static BGP_GOBGPD_CRASHED: PlannedMeasures = planned_measures!(
    "crashed",
    "gobgpd is killed under graceful restart and restarted",
    Some(0.0)
);
pub static BGP_GOBGPD_UPGRADED: PlannedMeasures =
    planned_measures!("upgraded", "gobgpd is replaced under graceful restart", Some(0.0));
/// Graceful restart together with BFD; the combination has no target.
pub static BGP_GOBGPD_CRASHED_BOTH: PlannedMeasures = planned_measures!(
    "crashed.both",
    "gobgpd is killed under graceful restart and BFD and restarted",
    None
);
pub static BGP_GOBGPD_UPGRADED_BOTH: PlannedMeasures =
    planned_measures!("upgraded.both", "gobgpd is replaced under graceful restart and BFD", None);
/// 1 if the router keeps using the node, otherwise 0. Lost connections do not show this, because
/// other nodes may serve the client.
pub static BGP_NODE_STILL_USED_BOTH: PlannedMeasures = [
    without_target(
        "bgp-failover.kept.both.frr",
        "gobgpd is killed under graceful restart and BFD: FRR uses the node 2 s later (1) or not (0)",
        Count,
    ),
    without_target(
        "bgp-failover.kept.both.bird",
        "gobgpd is killed under graceful restart and BFD: BIRD uses the node 2 s later (1) or not (0)",
        Count,
    ),
];
