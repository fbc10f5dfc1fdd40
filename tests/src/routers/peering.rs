//! Who a router speaks to, for the configuration that most stories need: the nodes are its neighbours, over both families.

use crate::Lab;
use crate::topology::Host;
use crate::topology::routers::{NODE_AS, ROUTER_AS};
use anyhow::Result;
use std::net::{IpAddr, Ipv4Addr};

/// After so many seconds of silence a router takes its neighbour for gone: the shortest that BGP knows (RFC 4271 section 4.2).
const HOLD_SECONDS: u16 = 3;
/// The port of BGP (RFC 4271 section 8.2.1).
pub(super) const BGP_PORT: u16 = 179;
/// How many packets of BFD may be missing.
pub(super) const BFD_MULTIPLIER: u8 = 3;
/// Paths that a router uses at once, at most.
pub(super) const PATHS_MAX: u8 = 16;

/// A router, and whom it speaks to.
#[derive(Clone, Debug)]
pub struct Peering {
    pub router_id: Ipv4Addr,
    pub own_as: u32,
    /// Where it listens.
    pub port: u16,
    /// Its hold time, in seconds; it says something three times in that.
    pub hold: u16,
    pub neighbours: Vec<Neighbour>,
    /// Its BFD with all of them: how often it sends and wants to hear, in milliseconds; three packets may be missing.
    pub bfd: Option<u16>,
    /// It restarts gracefully, and keeps the routes of neighbours that do (RFC 4724).
    pub graceful: bool,
}

/// One whom a router speaks to.
#[derive(Clone, Debug)]
pub struct Neighbour {
    pub address: IpAddr,
    pub asn: u32,
    /// That of TCP-MD5 (RFC 2385).
    pub password: Option<String>,
    /// The session carries both families; else that of its address.
    pub both_families: bool,
}

impl Peering {
    /// All nodes of the lab, by eBGP, for a router on `host`.
    ///
    /// # Errors
    /// When there is no such host.
    pub fn with_nodes(lab: &Lab, host: &str) -> Result<Self> {
        let nodes = lab.nodes().iter().filter_map(|node| Host::named(node)).collect::<Vec<_>>();
        let addresses = nodes.iter().flat_map(|node| lab.families().of(node.addresses()));
        Ok(Self {
            router_id: lab.host(host)?.v4(),
            own_as: ROUTER_AS,
            port: BGP_PORT,
            hold: HOLD_SECONDS,
            neighbours: addresses.map(|address| Neighbour::new(address, NODE_AS)).collect(),
            bfd: None,
            graceful: false,
        })
    }

    /// How often it says something, in seconds.
    pub(super) fn keepalive(&self) -> u16 {
        self.hold / 3
    }
}

impl Neighbour {
    /// One without a password.
    pub fn new(address: IpAddr, asn: u32) -> Self {
        Self { address, asn, password: None, both_families: false }
    }

    /// The families that the session carries, as `ipv4` and `ipv6`.
    pub(super) fn families(&self) -> Vec<&'static str> {
        let carries = |v4: bool| self.both_families || self.address.is_ipv4() == v4;
        [("ipv4", true), ("ipv6", false)].into_iter().filter(|(_, v4)| carries(*v4)).map(|(name, _)| name).collect()
    }
}
