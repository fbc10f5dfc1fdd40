//! Health checks of kube-proxy and of endpoints: pure state machines whose inputs are check results
//! and times. The speaker's health drivers run these state machines.

pub mod hysteresis;
pub mod kube_proxy;
pub mod prober;
