//! How gobgpd and its sessions stand, as the driver tells it. Plain values.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ferrolb_proto::api::{BfdState, BgpSessionState};

/// One session.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SessionReport {
    /// How it stands.
    pub state: BgpSessionState,
    /// Since when it is established, in seconds since 1970.
    pub since: Option<i64>,
    /// Where the router is, as far as that is known.
    pub address: Option<IpAddr>,
    /// The router's AS, once it was said.
    pub asn: Option<u32>,
    /// How its BFD stands, where that is on.
    pub bfd: Option<BfdState>,
    /// Why it is not established, or BFD does not watch it, for a person.
    pub problem: Option<Box<str>>,
}

/// How gobgpd and its sessions stand.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BgpReport {
    /// Why it cannot be used; none: it can.
    pub unusable: Option<Box<str>>,
    /// The sessions that are wanted, by the names of their BGPPeers.
    pub sessions: BTreeMap<Box<str>, SessionReport>,
}
