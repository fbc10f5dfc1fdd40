//! The lab: a real Kubernetes cluster out of network namespaces on one machine, with FerroLB in it, for the demo, the tests and the
//! benchmarks. `Lab` is the way in; docs/architecture.md says how the rooms hang together.

pub mod bench;
mod chance;
pub mod cluster;
pub mod lab;
pub mod netns;
pub mod process;
pub mod rights;
pub mod routers;
pub mod run;
pub mod setup;
pub mod sim;
pub mod stage;
pub mod state;
pub mod steps;
pub mod teardown;
pub mod topology;
pub mod traffic;
pub mod wait;

pub use lab::{Lab, Options};
pub use rustix::process::Signal;
pub use traffic::probe::Report;
