//! The command `install`: checks the cluster, applies the manifests that the program contains,
//! waits until all pods are ready, and proposes a first pool. [`manifests`] and [`decision`] are
//! pure; [`run`] and [`wait`] perform the I/O.

pub mod decision;
pub mod manifests;
pub mod run;
pub mod wait;

#[cfg(test)]
mod tests;
