//! FerroLB's nodes and real routers: FRR, BIRD and GoBGP, each in a namespace or a container. Needs root rights; each story has a folder with a drawing of
//! who is linked to whom, and raises a lab of its own. `api` needs no lab, but GoBGP's sources.

mod api;
mod attributes;
mod bfd;
mod distance;
mod drain;
mod example;
mod expect;
mod faults;
mod graceful;
mod knocks;
mod liveness;
mod objects;
mod password;
mod said;
mod selectors;
mod session;
mod takeover;
mod terms;
mod traffic;
mod unnumbered;
