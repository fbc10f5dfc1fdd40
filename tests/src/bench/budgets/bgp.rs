//! The measures of BGP, at a BIRD that three nodes announce to.

use super::Unit::{Count, Megabytes, Milliseconds};
use super::{Held, Known, METALLB, budgeted, plain};

/// From the API server's answer to the change of a Service's only endpoint until the router's kernel has its route no more; and until it has it again.
pub const BGP_GONE: [Known; 3] = [
    budgeted("bgp.gone", "endpoint gone to withdrawn at the router, median", Milliseconds, 50.0, &[(METALLB, 17.0)]),
    plain("bgp.gone.max", "endpoint gone to withdrawn at the router, worst of 20", Milliseconds),
    plain("bgp.back", "endpoint back to announced at the router, median", Milliseconds),
];
/// FRR looks at what it hears 50 ms later (its `work_queue` for best paths).
pub const BGP_GONE_FRR: [Known; 3] = [
    plain("bgp.gone.frr", "the same at an FRR, which waits 50 ms: endpoint gone to withdrawn, median", Milliseconds),
    plain("bgp.gone.frr.max", "the same at an FRR: endpoint gone to withdrawn, worst of 20", Milliseconds),
    plain("bgp.back.frr", "the same at an FRR: endpoint back to announced, median", Milliseconds),
];
pub const BGP_GONE_10000: [Known; 3] = [
    budgeted(
        "bgp.gone.10000",
        "one of 10,000: endpoint gone to withdrawn at the router, median",
        Milliseconds,
        50.0,
        &[],
    ),
    plain("bgp.gone.10000.max", "one of 10,000: endpoint gone to withdrawn at the router, worst of 20", Milliseconds),
    plain("bgp.back.10000", "one of 10,000: endpoint back to announced at the router, median", Milliseconds),
];
pub const BGP_FULL: Known =
    plain("bgp.full", "10,000 Services: start of three speakers until the router has all 30,000 routes", Milliseconds);
pub const BGP_REFILLED: Known = plain(
    "bgp.refilled",
    "10,000 Services: start of a gobgpd that was killed until the router has its routes",
    Milliseconds,
);
pub const BGP_RESTART_LOST: Known =
    budgeted("bgp.restart.lost", "10,000 Services: routes lost when all speakers start anew", Count, 0.0, &[]);
pub const BGP_RESTART_UPDATES: Known =
    plain("bgp.restart.updates", "10,000 Services: UPDATEs when all speakers start anew", Count);
pub const BGP_DRAINED_10000: Known = plain(
    "bgp.drained.10000",
    "10,000 Services: node cordoned, until the router has none of its routes (the last resort for 5 s)",
    Milliseconds,
);
pub const BGP_DRAIN_PLAN: Known =
    plain("bgp.drain.plan.p99", "10,000 Services: a plan of the node that drains, 99th percentile", Milliseconds);
pub const BGP_SPEAKER_10000: Held = Held {
    rss: budgeted("bgp.speaker.rss.10000", "speaker, 10,000 Services by BGP: resident", Megabytes, 25.0, &[]),
    pss: plain("bgp.speaker.pss.10000", "speaker, 10,000 Services by BGP: its share (PSS)", Megabytes),
    anonymous: plain("bgp.speaker.anonymous.10000", "speaker, 10,000 Services by BGP: anonymous", Megabytes),
};
/// GoBGP's own, of which nothing is promised.
pub const BGP_GOBGPD_10000: Held = Held {
    rss: plain("bgp.gobgpd.rss.10000", "gobgpd, 10,000 Services: resident", Megabytes),
    pss: plain("bgp.gobgpd.pss.10000", "gobgpd, 10,000 Services: its share (PSS)", Megabytes),
    anonymous: plain("bgp.gobgpd.anonymous.10000", "gobgpd, 10,000 Services: anonymous", Megabytes),
};
