//! Measures of BGP, at a router with BIRD and sessions to three nodes.

use super::Unit::{Count, Megabytes, Milliseconds};
use super::{METALLB, MeasureSpec, MemoryMeasures, with_target, without_target};

/// Time from the removal of a Service's only endpoint, confirmed by the API server, until the
/// router's kernel removes the route; and from the endpoint's return until the kernel adds the
/// route again.
pub const BGP_ENDPOINT_CHANGE: [MeasureSpec; 3] = [
    with_target(
        "bgp.gone",
        "endpoint gone to withdrawn at the router, median",
        Milliseconds,
        50.0,
        &[(METALLB, 17.0)],
    ),
    without_target(
        "bgp.gone.max",
        "endpoint gone to withdrawn at the router, worst of 20",
        Milliseconds,
    ),
    without_target("bgp.back", "endpoint back to announced at the router, median", Milliseconds),
];
/// The same times with FRR, which processes received routes after 50 ms (its `work_queue` for best
/// paths).
pub const BGP_ENDPOINT_CHANGE_FRR: [MeasureSpec; 3] = [
    without_target(
        "bgp.gone.frr",
        "the same at an FRR, which waits 50 ms: endpoint gone to withdrawn, median",
        Milliseconds,
    ),
    without_target(
        "bgp.gone.frr.max",
        "the same at an FRR: endpoint gone to withdrawn, worst of 20",
        Milliseconds,
    ),
    without_target(
        "bgp.back.frr",
        "the same at an FRR: endpoint back to announced, median",
        Milliseconds,
    ),
];
pub const BGP_ENDPOINT_CHANGE_10000: [MeasureSpec; 3] = [
    with_target(
        "bgp.gone.10000",
        "one of 10,000: endpoint gone to withdrawn at the router, median",
        Milliseconds,
        10.0,
        &[],
    ),
    without_target(
        "bgp.gone.10000.max",
        "one of 10,000: endpoint gone to withdrawn at the router, worst of 20",
        Milliseconds,
    ),
    without_target(
        "bgp.back.10000",
        "one of 10,000: endpoint back to announced at the router, median",
        Milliseconds,
    ),
];
pub const BGP_ALL_ROUTES: MeasureSpec = without_target(
    "bgp.full",
    "10,000 Services: start of three speakers until the router has all 30,000 routes",
    Milliseconds,
);
pub const BGP_ROUTES_RESTORED: MeasureSpec = without_target(
    "bgp.refilled",
    "10,000 Services: start of a gobgpd that was killed until the router has its routes",
    Milliseconds,
);
pub const BGP_RESTART_LOST: MeasureSpec = with_target(
    "bgp.restart.lost",
    "10,000 Services: routes lost when all speakers restart",
    Count,
    0.0,
    &[],
);
pub const BGP_RESTART_UPDATES: MeasureSpec = without_target(
    "bgp.restart.updates",
    "10,000 Services: UPDATEs when all speakers restart",
    Count,
);
pub const BGP_DRAINED_10000: MeasureSpec = without_target(
    "bgp.drained.10000",
    "10,000 Services: node cordoned until the router has de-preferred all of its routes",
    Milliseconds,
);
pub const BGP_DRAIN_PLAN: MeasureSpec = without_target(
    "bgp.drain.plan.p99",
    "10,000 Services: planning time of the draining node, 99th percentile",
    Milliseconds,
);
pub const BGP_SPEAKER_10000: MemoryMeasures = MemoryMeasures {
    rss: with_target(
        "bgp.speaker.rss.10000",
        "speaker, 10,000 Services by BGP: resident",
        Megabytes,
        25.0,
        &[],
    ),
    pss: without_target(
        "bgp.speaker.pss.10000",
        "speaker, 10,000 Services by BGP: its share (PSS)",
        Megabytes,
    ),
    anonymous: without_target(
        "bgp.speaker.anonymous.10000",
        "speaker, 10,000 Services by BGP: anonymous",
        Megabytes,
    ),
};
/// Memory of GoBGP itself; it has no target.
pub const BGP_GOBGPD_10000: MemoryMeasures = MemoryMeasures {
    rss: without_target("bgp.gobgpd.rss.10000", "gobgpd, 10,000 Services: resident", Megabytes),
    pss: without_target(
        "bgp.gobgpd.pss.10000",
        "gobgpd, 10,000 Services: its share (PSS)",
        Megabytes,
    ),
    anonymous: without_target(
        "bgp.gobgpd.anonymous.10000",
        "gobgpd, 10,000 Services: anonymous",
        Megabytes,
    ),
};
