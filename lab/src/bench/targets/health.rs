//! Measures of health: cost of endpoint changes and of health checks to a speaker, and time until
//! another node announces after an endpoint change or a failed health check. Also the cost of a
//! cordon and of a failed node's endpoints to a client.

use super::Unit::{Count, Milliseconds};
use super::{MeasureSpec, with_target, without_target};

/// Measures of 50 endpoint changes per second among a number of Services.
#[derive(Debug)]
pub struct ChangeMeasures {
    pub cpu_at_rest: MeasureSpec,
    pub cpu: MeasureSpec,
    /// Planning time: median and 99th percentile.
    pub plan: [MeasureSpec; 2],
    /// Time from the API server's reply to a change that makes the owner ineligible until another
    /// node announces the address: median and 99th percentile.
    pub announcement: [MeasureSpec; 2],
}

/// Builds the measures for a number of Services. The arguments are the start of the ids, and the
/// start of the descriptions.
macro_rules! change_measures {
    ($id:literal, $what:literal) => {
        ChangeMeasures {
            cpu_at_rest: with_target(
                concat!($id, ".cpu.rest"),
                concat!($what, " at rest: speaker, processor time per second"),
                Milliseconds,
                10.0,
                &[],
            ),
            cpu: with_target(
                concat!($id, ".cpu.changes"),
                concat!($what, ", 50 endpoint changes/s: speaker, processor time per second"),
                Milliseconds,
                40.0,
                &[],
            ),
            plan: [
                without_target(
                    concat!($id, ".plan.p50"),
                    concat!($what, ", 50 endpoint changes/s: planning time, p50"),
                    Milliseconds,
                ),
                with_target(
                    concat!($id, ".plan.p99"),
                    concat!($what, ", 50 endpoint changes/s: planning time, p99"),
                    Milliseconds,
                    1.0,
                    &[],
                ),
            ],
            announcement: [
                without_target(
                    concat!($id, ".wire.p50"),
                    concat!($what, ": endpoint change to announcement by another, p50"),
                    Milliseconds,
                ),
                with_target(
                    concat!($id, ".wire.p99"),
                    concat!($what, ": endpoint change to announcement by another, p99"),
                    Milliseconds,
                    110.0,
                    &[],
                ),
            ],
        }
    };
}

pub const CHANGES_1000: ChangeMeasures = change_measures!("health", "1,000 Services");
pub const CHANGES_10000: ChangeMeasures = change_measures!("health10000", "10,000 Services");

/// Processor time of a speaker with 5,000 endpoints over three nodes. Each endpoint gets one TCP
/// health check per second.
pub const HEALTH_CPU_CHECKED: MeasureSpec = with_target(
    "health.cpu.checked",
    "speaker, 1,000 Services at rest, all checked: processor time per second",
    Milliseconds,
    100.0,
    &[],
);
pub const HEALTH_CHECK_RATE: MeasureSpec = without_target(
    "health.asked",
    "the same: endpoints checked per second, by three speakers",
    Count,
);
/// Time from the end of the owner's server, with the defaults of a `tcp` check, until another node
/// announces.
pub const HEALTH_POD_REFUSES: [MeasureSpec; 2] = [
    without_target(
        "health.refuses.median",
        "a ready pod refuses: until another node announces, median",
        Milliseconds,
    ),
    with_target(
        "health.refuses.max",
        "a ready pod refuses: until another node announces, worst",
        Milliseconds,
        4000.0,
        &[],
    ),
];
/// Connections that a client loses in ten cordons of the owner: all lost connections, and those
/// that did not begin in the 30 ms before another node announced.
pub const HEALTH_CORDON: [MeasureSpec; 2] = [
    without_target("health.cordon.lost", "owner is cordoned ten times: connections lost", Count),
    with_target(
        "health.cordon.beyond",
        "the same: lost, and not in progress at the move",
        Count,
        0.0,
        &[],
    ),
];
