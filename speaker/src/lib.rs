//! The speaker: attracts traffic for LoadBalancer addresses to this node, by ARP and NDP on its
//! network segments and by BGP.
//!
//! ```text
//! API server -> watches --+
//! netlink    -> links   --+-> Event -> State -> plan -> Desired -+-> interface threads (ARP, NDP)
//! threads    -> reports --+                                      +-> gobgpd
//!                                                                +-> SpeakerStatus
//! ```
//!
//! [`ferrolb_speaker_core`] has the events, the state, the plan and all machines, without input or
//! output. This crate connects them with the node and the cluster:
//!
//! - [`link`]: one thread per interface, with its sockets, its state machine for claims, and the
//!   ARP and NDP replies.
//! - [`health`]: checks kube-proxy and endpoints.
//! - [`bgp`]: configures gobgpd.
//! - [`links`], [`routes`]: report this node's interfaces, default gateways and routes to pods,
//!   read from netlink.
//! - [`status`]: writes this node's SpeakerStatus.
//! - [`run`], [`watches`]: the main loop, and the watches that it starts.
//! - [`node_watch`]: watches other nodes, to detect their failure.
//! - [`node_lock`]: lock that admits one speaker process per node.
//! - [`flags`], [`metrics`]: command line flags, and Prometheus metrics.

pub mod bgp;
pub mod flags;
pub mod health;
pub mod link;
pub mod links;
pub mod metrics;
pub mod node_lock;
pub mod node_watch;
pub mod routes;
pub mod run;
pub mod status;
pub mod watches;
