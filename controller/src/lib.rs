//! Controller library: assigns addresses from pools to LoadBalancer Services.
//!
//! ```text
//! API server -> watches -+
//!               lease   -+-> Event -> State::handle -> plan -> Desired (the latest)
//!               clock   -+     ^                                |
//!                              |                                +-> hello secret
//!                              |                                +-> writer -> statuses, Events
//!                              |                                     |
//!                              +----------- Event::Written ----------+
//! ```
//!
//! [`event`], [`state`], [`plan`] and [`desired`] are pure: they perform no I/O. [`drivers`]
//! perform the I/O, and [`run`] connects all modules.

pub mod desired;
pub mod drivers;
pub mod event;
pub mod flags;
pub mod metrics;
pub mod plan;
pub mod run;
pub mod state;
