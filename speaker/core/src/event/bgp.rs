//! State of gobgpd and of its sessions, as the BGP driver reports it. Plain values.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ferrolb_proto::api::{BfdState, BgpSessionState};

use super::SessionIssue;

/// State of one session.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SessionReport {
    /// State of the BGP session (RFC 4271 section 8.2.2).
    pub state: BgpSessionState,
    /// Time at which the session was established, in seconds since 1970.
    pub since: Option<i64>,
    /// Address of the router, if known.
    pub address: Option<IpAddr>,
    /// The router's AS, while the session is established.
    pub asn: Option<u32>,
    /// State of the BFD session, while the BGP session is established with BFD.
    pub bfd: Option<BfdState>,
    /// Issue of the session: why it is not established or has no BFD, or that the router sends too
    /// many prefixes.
    pub issue: Option<SessionIssue>,
}

/// State of gobgpd and of its sessions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BgpReport {
    /// Why gobgpd cannot be used. None: it can be used.
    pub unusable: Option<Box<str>>,
    /// States of the desired sessions, by the names of their BGPPeers.
    pub sessions: BTreeMap<Box<str>, SessionReport>,
}
