//! Decisions about gobgpd, which the BGP driver executes: when it is read, in which order it is
//! changed, and what its sessions report. The driver's task owns the one [`GobgpMachine`].
//!
//! - `gobgp_config`, `peer_config`, `policy_config`, `content_hash`: the desired configuration in
//!   the terms of GoBGP's API.
//! - `steps`: the next change of gobgpd.
//! - `connection`, `listed_session`, `report`, `session_counts`, `bfd_port`: the state of the
//!   sessions.

mod bfd_port;
mod connection;
mod content_hash;
mod error;
mod gobgp_config;
mod listed_session;
mod machine;
mod peer_config;
mod policy_config;
mod report;
mod session_counts;
mod steps;

use std::collections::{BTreeMap, BTreeSet};

pub use content_hash::ContentHash;
pub use error::GobgpError;
pub use gobgp_config::Paths;
pub use listed_session::ListedSession;
pub use machine::GobgpMachine;
pub use peer_config::{PeerConfig, family};
pub use policy_config::PolicyConfig;
pub use session_counts::{BfdCounts, SessionCounts};
pub use steps::{BgpStep, ObservedSession, ObservedState};

use crate::event::BgpReport;
use crate::plan::BgpConfig;

/// Call to gobgpd. The driver executes one call at a time, and returns its result as
/// [`GobgpInput::CallDone`].
#[derive(Debug)]
pub enum GobgpCall {
    /// Connect to gobgpd, and read its whole state.
    Read,
    /// Check that gobgpd's version is supported.
    CheckVersion,
    /// Change gobgpd's state.
    Execute(BgpStep),
    /// List the sessions and, if true, the sockets on the BFD port.
    ListSessions(bool),
    /// Stop gobgpd, so that routers with graceful restart keep its routes.
    Stop,
}

/// Result of a call that gobgpd completed.
#[derive(Debug)]
pub enum GobgpReply {
    /// Whole state of gobgpd, to which the driver is connected.
    Read(ObservedState),
    /// gobgpd's version is supported.
    VersionChecked,
    /// gobgpd executed a step.
    Executed(BgpStep),
    /// gobgpd rejected the session of a step, or its BFD, with this reason.
    Rejected(BgpStep, String),
    /// Sessions in gobgpd and, if the call lists them, the inodes of the sockets on the BFD port.
    Sessions(Vec<ListedSession>, Option<BTreeSet<u64>>),
    /// gobgpd is stopped.
    Stopped,
}

/// Input of the [`GobgpMachine`].
#[derive(Debug)]
pub enum GobgpInput {
    /// The latest desired configuration. None: not known yet.
    Config(Option<BgpConfig>),
    /// A call has ended, or the connection to gobgpd.
    CallDone(Result<GobgpReply, GobgpError>),
    /// gobgpd reported a change of a session.
    SessionChanged,
    /// A scrape read the metrics.
    Scraped,
    /// A client on the node requests a handover.
    HandoverRequested,
    /// The client does not wait for the handover any more.
    HandoverCancelled,
}

/// Output of the [`GobgpMachine`].
#[derive(Debug)]
pub enum GobgpOutput {
    /// Call to execute.
    Call(GobgpCall),
    /// Report for the main loop.
    Report(BgpReport),
    /// Number of prefixes that gobgpd had when it was read for the first time.
    FirstRead(usize),
    /// Counters of the sessions in gobgpd, by the names of BGPPeers.
    Counts(BTreeMap<Box<str>, SessionCounts>),
    /// The session of a BGPPeer was established, or lost for a reason.
    SessionChanged(Box<str>, Option<String>),
    /// gobgpd rejected a session or its BFD, or the router of a session has this node's AS.
    Rejected,
    /// gobgpd cannot be used, and the connection to it ends.
    Unusable(GobgpError),
    /// Response to the client of the handover.
    Respond(Result<(), String>),
    /// Refusal of the handover: routers should not keep the routes, for this reason.
    Refuse(&'static str),
}

#[cfg(test)]
mod tests;
