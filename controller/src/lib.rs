//! The controller: gives LoadBalancer Services addresses out of pools.
//!
//! ```text
//!  API server -> watches --+                                                            +-> writer  -> statuses, events
//!                lease   --+-> Event -> State::handle -> plan -> Desired (the latest) --+-> hello secret
//!                clock   --+     ^                                                           |
//!                                +-------------------- Event::Written -----------------------+
//! ```
//!
//! [`event`], [`state`], [`plan`] and [`desired`] are pure; [`drivers`] do the IO; [`run`] puts them together.

pub mod desired;
pub mod drivers;
pub mod event;
pub mod flags;
pub mod metrics;
pub mod plan;
pub mod run;
pub mod state;
