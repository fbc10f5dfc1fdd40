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
//! [`ferrolb_controller_core`] is the pure core with events, state, plan and `Desired`.
//! [`drivers`] perform the I/O, and [`run`] connects all modules.

pub mod drivers;
pub mod flags;
pub mod metrics;
pub mod run;
