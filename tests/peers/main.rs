//! Tests of FerroLB's nodes with real routers: FRR, BIRD and GoBGP, each in a namespace or a
//! container. They need root. Each scenario has a folder with a drawing of its topology, and starts
//! a lab of its own. `api` needs no lab, but GoBGP's sources.

mod api;
mod attributes;
mod bfd;
mod connection_attempts;
mod drain;
mod example;
mod expect;
mod faults;
mod graceful;
mod hop_limits;
mod liveness;
mod metallb_migration;
mod objects;
mod parameters;
mod password;
mod reported;
mod selectors;
mod session;
mod traffic;
mod unnumbered;
