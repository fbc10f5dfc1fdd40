//! The speaker: makes the local network send this node's LoadBalancer addresses to it.
//!
//! ```text
//!  API server -> watches --+
//!  netlink    -> links   --+-> Event -> State -> plan -> Desired -+-> link threads (hello, claims, ARP)
//!  threads    -> reports --+                                      +-> SpeakerStatus
//! ```
//!
//! - [`event`], [`state`], [`plan`]: pure; what happened, what is known, what is wanted.
//! - [`link`]: one thread a link; the sockets, the claim machine and the answers.
//! - [`health`]: asks kube-proxy and endpoints whether they work.
//! - [`links`], [`status`], [`speakers`]: the netlink and API edges. - [`alive`]: asks other speakers whether they live.
//! - [`run`]: the main loop. - [`instance`]: one process for each node. - [`flags`], [`metrics`].

pub mod alive;
pub mod bgp;
pub mod event;
pub mod flags;
pub mod health;
pub mod instance;
pub mod link;
pub mod links;
pub mod metrics;
pub mod plan;
pub mod run;
pub mod speakers;
pub mod state;
pub mod status;
