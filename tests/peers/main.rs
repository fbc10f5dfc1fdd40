//! Tests of FerroLB with real routers: FRR, BIRD and GoBGP. The tests need root. Each scenario has
//! a folder with a diagram of its topology, and starts a lab of its own. Scenarios whose subject is
//! the protocol between FerroLB and a router run each router in a container, the others in a
//! namespace. The test `api` needs no lab, but the sources of GoBGP.

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

use ferrolb_lab::Options;
use ferrolb_lab::scenario::one_node;

/// Returns the options of a lab with one node whose routers are containers.
fn in_containers(name: &str) -> Options {
    Options { bgp: true, containers: true, ..one_node(name) }
}
