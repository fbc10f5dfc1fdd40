//! Traffic in a lab: the server in its pods, pages and datagrams for a client, long-lived
//! connections, streams, probes that measure outages, and the capture of all frames on the switch.

pub mod capture;
pub mod datagram;
pub mod long_lived;
pub mod page;
pub mod probe;
pub mod serve;
mod server_behavior;
pub mod stream;
