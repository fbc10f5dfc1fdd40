//! Driver of gobgpd: executes the calls that the core's machine decides, and reports its events.

mod bfd_port;
mod client;
pub mod driver;
mod path;
mod stale_socket;
pub(crate) mod tasks;
