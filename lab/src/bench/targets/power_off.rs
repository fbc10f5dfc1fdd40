//! Measures of a machine that loses power, in a kubeadm cluster.

use super::Unit::{Count, Milliseconds};
use super::{MeasureSpec, with_target, without_target};

pub const POWER_OFF_GAP: MeasureSpec =
    with_target("power-off.gap", "a kubeadm machine fails: longest gap", Milliseconds, 300.0, &[]);
pub const POWER_OFF_NOT_READY: MeasureSpec =
    without_target("power-off.node", "a kubeadm machine fails: until it is NotReady", Milliseconds);
pub const POWER_OFF_ENDPOINTS: MeasureSpec = without_target(
    "power-off.endpoints",
    "a kubeadm machine fails: until its endpoint is not ready",
    Milliseconds,
);
pub const POWER_OFF_LOST: MeasureSpec = without_target(
    "power-off.lost",
    "a kubeadm machine fails: connections lost, one per 10 ms",
    Count,
);
