//! Controller library: assigns addresses from pools to LoadBalancer Services.
//!
//! ```text
//! API server -> watches -+
//!               lease   -+-> Event -> State::handle -> plan -> Desired (the latest)
//!               clock   -+     ^                                |
//!                              |                                +-> hello secret
//!                              |                                +-> writer -> statuses, events
//!                              |                                     |
//!                              +----------- Event::Written ----------+
//! ```
//!
//! [`event`], [`state`], [`plan`] and [`desired`] are pure. [`drivers`] do the I/O. [`run`]
//! connects them.

pub mod desired;
pub mod drivers;
pub mod event;
pub mod flags;
pub mod metrics;
pub mod plan;
pub mod run;
pub mod state;
