//! The core of the controller: assigns addresses from pools to Services, and decides every status.
//! The controller runs it with the events of its watches, and `kubectl ferrolb` with a copy of the
//! objects.
//!
//! ```text
//! Event -> State::handle -> plan -> Desired
//! ```
//!
//! [`simulation`] runs the core without an API server, to predict the effect of a change.

pub mod desired;
pub mod event;
pub mod plan;
pub mod simulation;
pub mod state;
