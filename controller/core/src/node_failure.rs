//! Node failure in the controller: decides that a node has failed, long before Kubernetes does, so
//! that its endpoints leave the Services.
//!
//! - [`evidence`]: the nodes that the reports of all speakers show to be silent.
//! - [`stated_stops`]: the pods whose speakers have stated that they stop.
//! - [`failures`]: the state machine that decides when the pods of a silent node are marked, and
//!   when they are restored.
//!
//! The pods of a node are marked only if all of this holds:
//!
//! - At least two speakers watch it, and each of them reports that the node replies to no
//!   challenge, neither on a segment nor by UDP, and that its kubelet, which it has reached before,
//!   does not reply to TCP.
//! - No other speaker that works receives its hellos, or a reply of it.
//! - Its speaker did not report that it stops, or the pod of this speaker exists and nobody has
//!   ended it: then its machine has shut down.

pub mod evidence;
pub mod failures;
pub mod stated_stops;
