//! The measures of health: what changes of endpoints and questions to them cost a speaker, how soon either is on the wire, and what a cordon and a
//! dead node's endpoints cost a client.

use super::Unit::{Count, Milliseconds};
use super::{Known, budgeted, plain};

pub const HEALTH_REST: Known =
    budgeted("health.cpu.rest", "speaker, 1,000 Services at rest: processor time in a second", Milliseconds, 10.0, &[]);
pub const HEALTH_CHANGES: Known = budgeted(
    "health.cpu.changes",
    "speaker, 50 endpoint changes a second: processor time in a second",
    Milliseconds,
    250.0,
    &[],
);
pub const HEALTH_PLAN: [Known; 2] = [
    plain("health.plan.p50", "speaker, 50 endpoint changes a second: a plan, p50", Milliseconds),
    budgeted("health.plan.p99", "speaker, 50 endpoint changes a second: a plan, p99", Milliseconds, 50.0, &[]),
];
/// From the API server's answer to a change that takes an address from its owner until another node announces it.
pub const HEALTH_WIRE: [Known; 2] = [
    plain("health.wire.p50", "endpoint change to announcement by another, p50", Milliseconds),
    budgeted("health.wire.p99", "endpoint change to announcement by another, p99", Milliseconds, 110.0, &[]),
];

/// 5,000 endpoints over three nodes, each asked once a second by TCP.
pub const HEALTH_CHECKED: Known = budgeted(
    "health.cpu.checked",
    "speaker, 1,000 Services at rest, all checked: processor time in a second",
    Milliseconds,
    100.0,
    &[],
);
pub const HEALTH_ASKED: Known =
    plain("health.asked", "the same: endpoints asked in a second, by three speakers", Count);
/// From the end of the owner's server, by the defaults of a `tcp` check, until another node announces.
pub const HEALTH_REFUSES: [Known; 2] = [
    plain("health.refuses.median", "a ready pod refuses: until another node announces, median", Milliseconds),
    budgeted(
        "health.refuses.max",
        "a ready pod refuses: until another node announces, worst",
        Milliseconds,
        4000.0,
        &[],
    ),
];
/// Of ten cordons of the owner: all that were lost, and those of them that did not begin in the 30 ms before another node announced.
pub const HEALTH_CORDON: [Known; 2] = [
    plain("health.cordon.lost", "the owner is cordoned, ten times: connections lost", Count),
    budgeted("health.cordon.beyond", "the same: lost and not under way at the move", Count, 0.0, &[]),
];

pub const DEAD_NOT_READY: Known = plain("health.dead.node", "a node dies: until it is NotReady", Milliseconds);
pub const DEAD_ENDPOINTS: Known =
    plain("health.dead.endpoints", "a node dies: until its endpoints are not ready", Milliseconds);
pub const DEAD_LOST: Known = plain("health.dead.lost", "a node dies: connections lost, one in 10 ms", Count);
