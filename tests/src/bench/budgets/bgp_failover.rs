//! The measures of failover by BGP: at an FRR, a BIRD and a GoBGP, with a client behind the first two.

use super::Unit::{Count, Milliseconds};
use super::{Known, METALLB, plain};

/// A node dies: until the router uses it no more, and the client's longest gap, each as median and worst run.
#[derive(Debug)]
pub struct Death {
    pub unused: [Known; 2],
    pub gap: [Known; 2],
}

/// What is done to a node: the connections lost, most in a run; at FRR and at BIRD.
pub type Planned = [Known; 2];

macro_rules! death {
    ($id:literal, $words:literal) => {
        Death {
            unused: [
                plain(
                    concat!("bgp-failover.", $id, ".unused.median"),
                    concat!("node dies, ", $words, ": the router uses it no more, median"),
                    Milliseconds,
                ),
                plain(
                    concat!("bgp-failover.", $id, ".unused.max"),
                    concat!("node dies, ", $words, ": the router uses it no more, worst run"),
                    Milliseconds,
                ),
            ],
            gap: [
                plain(
                    concat!("bgp-failover.", $id, ".gap.median"),
                    concat!("node dies, ", $words, ": the client's longest gap, median"),
                    Milliseconds,
                ),
                plain(
                    concat!("bgp-failover.", $id, ".gap.max"),
                    concat!("node dies, ", $words, ": the client's longest gap, worst run"),
                    Milliseconds,
                ),
            ],
        }
    };
}

/// A death whose first measure is promised.
macro_rules! promised {
    ($id:literal, $words:literal, $budget:expr, $peers:expr) => {{
        let Death { unused: [median, max], gap } = death!($id, $words);
        Death { unused: [Known { budget: $budget, peers: $peers, ..median }, max], gap }
    }};
}

macro_rules! planned {
    ($id:literal, $words:literal, $budget:expr) => {
        [
            Known {
                budget: $budget,
                ..plain(
                    concat!("bgp-failover.", $id, ".frr.lost.max"),
                    concat!($words, ", at FRR: connections lost, most in a run"),
                    Count,
                )
            },
            Known {
                budget: $budget,
                ..plain(
                    concat!("bgp-failover.", $id, ".bird.lost.max"),
                    concat!($words, ", at BIRD: connections lost, most in a run"),
                    Count,
                )
            },
        ]
    };
}

pub static BGP_DIES_FRR_100: Death = promised!("frr.bfd100", "FRR, BFD 100 ms x 3", Some(350.0), &[]);
/// MetalLB's is FRR's own timers, which are these.
pub static BGP_DIES_FRR_300: Death = promised!("frr.bfd300", "FRR, BFD 300 ms x 3", None, &[(METALLB, 900.0)]);
pub static BGP_DIES_FRR_HOLD: Death = death!("frr.hold", "FRR, hold time 3 s");
pub static BGP_DIES_BIRD_100: Death = promised!("bird.bfd100", "BIRD, BFD 100 ms x 3", Some(350.0), &[]);
pub static BGP_DIES_BIRD_300: Death = death!("bird.bfd300", "BIRD, BFD 300 ms x 3");
pub static BGP_DIES_BIRD_HOLD: Death = death!("bird.hold", "BIRD, hold time 3 s");
pub static BGP_DIES_FRR_BOTH: Death = death!("frr.both", "FRR, BFD 100 ms x 3 and graceful restart");
pub static BGP_DIES_BIRD_BOTH: Death = death!("bird.both", "BIRD, BFD 100 ms x 3 and graceful restart");
pub static BGP_DIES_GOBGP_BOTH: Death = death!("gobgp.both", "GoBGP, BFD 100 ms x 3 and graceful restart");

pub static BGP_DRAINED: Planned =
    planned!("drained", "node is cordoned, and withdrawn after the drain delay", Some(0.0));
pub static BGP_SPEAKER_RESTARTED: Planned = planned!("speaker", "speaker is told to stop, and starts again", Some(0.0));
pub static BGP_GOBGPD_CRASHED: Planned =
    planned!("crashed", "gobgpd is killed under graceful restart, and starts again", Some(0.0));
pub static BGP_GOBGPD_UPGRADED: Planned = planned!("upgraded", "gobgpd is replaced under graceful restart", Some(0.0));
/// What BFD leaves of graceful restart: nothing is promised of both.
pub static BGP_GOBGPD_CRASHED_BOTH: Planned =
    planned!("crashed.both", "gobgpd is killed under graceful restart and BFD, and starts again", None);
pub static BGP_GOBGPD_UPGRADED_BOTH: Planned =
    planned!("upgraded.both", "gobgpd is replaced under graceful restart and BFD", None);
/// Whether anything is left, as other nodes may serve what is lost.
pub static BGP_KEPT_BOTH: Planned = [
    plain(
        "bgp-failover.kept.both.frr",
        "gobgpd is killed under graceful restart and BFD: FRR uses the node 2 s later (1) or not (0)",
        Count,
    ),
    plain(
        "bgp-failover.kept.both.bird",
        "gobgpd is killed under graceful restart and BFD: BIRD uses the node 2 s later (1) or not (0)",
        Count,
    ),
];
