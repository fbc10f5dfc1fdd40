//! Driver of gobgpd: configures the daemon step by step as the plan desires, and reports the state
//! of its BGP sessions. The modules `path`, `report` and `steps` are pure.

mod bfd_port;
mod client;
pub mod driver;
mod path;
mod report;
mod stale_socket;
mod steps;
pub(crate) mod tasks;
