//! The command `check`: findings about a cluster and about FerroLB in it. [`read`] and
//! [`read_traces`] perform the I/O and fill [`facts::ClusterFacts`]. The rules are pure, with one
//! module for each category.
//!
//! ```text
//! API server -> ClusterFacts -> findings of each category -> Report -> text, short text or JSON
//! ```

pub mod announcements;
pub mod bgp;
pub mod cilium;
pub mod cluster;
pub mod crds;
pub mod daemon_sets;
pub mod facts;
pub mod finding;
pub mod installation;
pub mod layer2;
pub mod load_balancers;
pub mod permissions;
pub mod plugins;
pub mod pools;
pub mod rbac;
pub mod read;
pub mod read_traces;
pub mod report;
pub mod reviews;
pub mod services;
pub mod text;
pub mod traces;

#[cfg(test)]
mod tests;
