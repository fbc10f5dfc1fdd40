//! The lab: a real Kubernetes cluster in network namespaces on one machine, with FerroLB in it, for
//! the demo, the tests and the benchmarks.
//!
//! `Lab` is the entry point; docs/internals/architecture.md describes how the crates depend on
//! each other.

pub mod bench;
pub mod cluster;
pub mod dist;
pub mod host_state;
pub mod lab;
pub mod netns;
pub mod permissions;
pub mod process;
pub mod routers;
pub mod run;
pub mod scenario;
pub mod setup;
pub mod shared_folder;
pub mod state;
pub mod steps;
pub mod teardown;
pub mod topology;
pub mod traffic;
pub mod virtual_machine;
pub mod wait;

pub use lab::{Lab, Options};
pub use rustix::process::Signal;
pub use traffic::probe::ProbeReport;
