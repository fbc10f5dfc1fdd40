//! Formats: what FerroLB reads and writes.
//!
//! - [`api`]: custom resources, annotations and conditions of FerroLB.
//! - [`facts`]: the few fields of the objects of Kubernetes, and of custom resources, that
//!   decisions need.
//! - [`wire`]: frames on the network segment: Ethernet, ARP, NDP, and the hello protocol.
//! - [`range`]: address ranges and sets of free addresses.
//! - [`duration`]: the text formats of durations.
//! - [`Instant`]: a time of the monotonic clock.
//!
//! No code in this crate does I/O, reads a clock, starts a task or thread, takes a lock, or awaits.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod api;
pub mod duration;
pub mod facts;
pub mod range;
mod time;
pub mod wire;

pub use time::Instant;
