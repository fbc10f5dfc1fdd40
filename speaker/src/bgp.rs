//! Driver of gobgpd: executes the calls that the core's machine decides, and reports its events.

mod bfd_port;
mod client;
pub mod driver;
pub(crate) mod inputs;
mod path;
mod stale_socket;
