//! The measures of a machine that loses its power, in a cluster made by kubeadm.

use super::Unit::{Count, Milliseconds};
use super::{Known, budgeted, plain};

pub const POWER_OFF_GAP: Known =
    budgeted("power-off.gap", "a kubeadm machine dies: longest gap", Milliseconds, 300.0, &[]);
pub const POWER_OFF_NOT_READY: Known =
    plain("power-off.node", "a kubeadm machine dies: until it is NotReady", Milliseconds);
pub const POWER_OFF_ENDPOINTS: Known =
    plain("power-off.endpoints", "a kubeadm machine dies: until its endpoint is not ready", Milliseconds);
pub const POWER_OFF_LOST: Known =
    plain("power-off.lost", "a kubeadm machine dies: connections lost, one in 10 ms", Count);
