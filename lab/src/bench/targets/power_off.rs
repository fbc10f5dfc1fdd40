//! Measures of a machine that loses power, in a kubeadm cluster: the time until all connections are
//! good again, without and with marked pods.

use super::Unit::Milliseconds;
use super::{MeasureSpec, with_target, without_target};

/// Time within which all connections must be good again, in milliseconds.
const GOOD_TARGET_MS: f64 = 2000.0;

pub const POWER_OFF_GAP: MeasureSpec =
    with_target("power-off.gap", "a kubeadm machine fails: longest gap", Milliseconds, 300.0, &[]);

const fn off(id: &'static str, what: &'static str) -> MeasureSpec {
    without_target(id, what, Milliseconds)
}

const fn on(id: &'static str, what: &'static str) -> MeasureSpec {
    with_target(id, what, Milliseconds, GOOD_TARGET_MS, &[])
}

pub const POWER_OFF_CLUSTER_OWNER: [&MeasureSpec; 2] = [
    &off("power-off.off.cluster.owner", "off: owner fails, Cluster: all good again"),
    &on("power-off.on.cluster.owner", "on: owner fails, Cluster: all good again"),
];
pub const POWER_OFF_CLUSTER_OTHER: [&MeasureSpec; 2] = [
    &off("power-off.off.cluster.other", "off: another fails, Cluster: all good again"),
    &on("power-off.on.cluster.other", "on: another fails, Cluster: all good again"),
];
pub const POWER_OFF_LOCAL_OWNER: [&MeasureSpec; 2] = [
    &off("power-off.off.local.owner", "off: owner fails, Local: all good again"),
    &on("power-off.on.local.owner", "on: owner fails, Local: all good again"),
];
pub const POWER_OFF_LOCAL_OTHER: [&MeasureSpec; 2] = [
    &off("power-off.off.local.other", "off: another fails, Local: all good again"),
    &on("power-off.on.local.other", "on: another fails, Local: all good again"),
];
