//! Asks whether what is announced works: kube-proxy for the node's data path, endpoints by their Services' health checks. Drivers:
//! what is asked is planned, and what is learnt comes back as events.

pub mod http;
pub mod probes;
pub mod proxy;
