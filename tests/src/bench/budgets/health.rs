//! The measures of health: what changes of endpoints cost a speaker, how soon they are on the wire, and what a dead node's endpoints cost a
//! client.

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

pub const DEAD_NOT_READY: Known = plain("health.dead.node", "a node dies: until it is NotReady", Milliseconds);
pub const DEAD_ENDPOINTS: Known =
    plain("health.dead.endpoints", "a node dies: until its endpoints are not ready", Milliseconds);
pub const DEAD_LOST: Known = plain("health.dead.lost", "a node dies: connections lost, one in 10 ms", Count);
