//! The core of the speaker: decides what this node announces, and when.
//!
//! ```text
//! Event -> State::handle -> plan -> Desired
//! ```
//!
//! - [`event`], [`state`], [`plan`]: the input, the state that results from it, and the desired
//!   configuration that the plan computes from the state.
//! - [`claim`]: the state machine that decides which speaker owns an address.
//! - [`health`]: the state machines for the health checks of endpoints and for kube-proxy health.
//! - [`gobgp`]: the state machine that decides when and in which order gobgpd is changed.
//! - [`node_failure`]: which other nodes this speaker watches, and what it reports about them.
//!
//! The speaker and the simulator run the same machines. No code in this crate does I/O, reads a
//! clock, starts a task or thread, takes a lock, or awaits.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod claim;
pub mod event;
pub mod gobgp;
pub mod health;
pub mod node_failure;
pub mod plan;
pub mod state;
mod timers;
