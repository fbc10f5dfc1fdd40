//! Driver of gobgpd: translates the configuration that the plan desires into gobgpd's terms,
//! configures the daemon step by step, and reports the state of its BGP sessions. The modules
//! `content_hash`, `gobgp_config`, `path`, `peer_config`, `policy_config`, `report` and `steps` are
//! pure.

mod bfd_port;
mod client;
mod config_receiver;
mod content_hash;
pub mod driver;
mod gobgp_config;
mod path;
mod peer_config;
mod policy_config;
mod report;
mod stale_socket;
mod steps;
pub(crate) mod tasks;
