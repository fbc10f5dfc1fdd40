//! The core of the controller: assigns addresses from pools to Services, and decides every status.
//! The controller runs it with the events of its watches, and `kubectl ferrolb` with a copy of the
//! objects.
//!
//! ```text
//! Event -> State::handle -> plan -> Desired
//! ```
//!
//! - [`event`], [`state`], [`plan`], [`desired`]: the input, what the core remembers of it, and the
//!   writes that follow.
//! - [`credibility`]: whether the SpeakerStatus of a node counts.
//! - [`simulation`] runs the core without an API server, to predict the effect of a change.
//! - [`lease`]: the state machine that decides which replica of the controller may write.
//! - [`node_failure`]: decides when the pods of a silent node are marked as not ready.
//! - [`other_load_balancers`]: the field managers that write the addresses of Services.
//!
//! No code in this crate does I/O, reads a clock, starts a task or thread, takes a lock, or awaits.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod credibility;
pub mod desired;
pub mod event;
pub mod lease;
pub mod node_failure;
pub mod other_load_balancers;
pub mod plan;
pub mod simulation;
pub mod state;
