//! The driver of gobgpd: makes the daemon have what the plan wants, step by step, and reports how its sessions stand. `steps` and `report` are pure.

mod client;
pub mod driver;
mod leftover;
mod port;
mod report;
mod steps;
