//! Tests of FerroLB with real routers: FRR, BIRD and GoBGP, each in a namespace or a container. The
//! tests need root. Each scenario has a folder with a diagram of its topology, and starts a lab of
//! its own. The test `api` needs no lab, but the sources of GoBGP.

mod api;
mod attributes;
mod bfd;
mod connection_attempts;
mod diagnosis;
mod drain;
mod example;
mod expect;
mod faults;
mod graceful;
mod guide;
mod hop_limits;
mod liveness;
mod metallb_migration;
mod objects;
mod parameters;
mod password;
mod plan;
mod reported;
mod selectors;
mod session;
mod traffic;
mod unnumbered;
