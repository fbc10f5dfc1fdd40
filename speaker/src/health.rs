//! Drivers of the health checks that this node's announcements depend on: those of kube-proxy, and
//! those of the endpoints of Services. The plan configures the checks, and the drivers report the
//! results as events.

pub mod http;
pub mod probes;
pub mod proxy;
pub mod rules;
