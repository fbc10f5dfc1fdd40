//! The command `install`: checks the cluster, applies the manifests that the program contains,
//! waits until all pods are ready, and proposes a first pool. [`manifests`], [`decision`] and
//! [`progress`] are pure; [`wait`] is, apart from its clock; [`run`] and [`read`] perform the I/O.

pub mod decision;
pub mod manifests;
pub mod progress;
pub mod read;
pub mod run;
pub mod wait;

#[cfg(test)]
mod tests;
