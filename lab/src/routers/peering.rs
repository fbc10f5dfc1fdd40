//! Peering of a router in the configuration that most scenarios need: the nodes are its neighbors,
//! over both families.

use crate::Lab;
use crate::topology::Host;
use crate::topology::routers::{NODE_AS, ROUTER_AS};
use anyhow::Result;
use std::net::{IpAddr, Ipv4Addr};

/// Hold time of a router in seconds: the minimum of BGP (RFC 4271 section 4.2).
const HOLD_SECONDS: u16 = 3;
/// Port of BGP (RFC 4271 section 8.2.1).
pub(super) const BGP_PORT: u16 = 179;
/// Detection multiplier of BFD.
pub(super) const BFD_MULTIPLIER: u8 = 3;
/// Maximum number of paths that a router uses at once.
pub(super) const PATHS_MAX: u8 = 16;

/// A router and its neighbors.
#[derive(Clone, Debug)]
pub struct Peering {
    pub router_id: Ipv4Addr,
    pub own_as: u32,
    /// Port that the router listens on.
    pub port: u16,
    /// Hold time in seconds; the keepalive interval is a third of it.
    pub hold: u16,
    pub neighbors: Vec<BgpNeighbor>,
    /// BFD with all neighbors: the transmit and receive interval in milliseconds. The third missing
    /// packet is a failure.
    pub bfd: Option<u16>,
    /// True if the router uses graceful restart, and keeps the routes of neighbors that do (RFC
    /// 4724).
    pub graceful: bool,
}

/// A neighbor of a router.
#[derive(Clone, Debug)]
pub struct BgpNeighbor {
    pub address: IpAddr,
    pub asn: u32,
    /// Password for TCP-MD5 (RFC 2385).
    pub password: Option<String>,
    /// True if the session carries both families; otherwise it carries the family of its address.
    pub both_families: bool,
}

impl Peering {
    /// Returns the peering of a router on `host` with all nodes of the lab, by eBGP.
    ///
    /// # Errors
    /// If there is no such host.
    pub fn with_nodes(lab: &Lab, host: &str) -> Result<Self> {
        let nodes = lab.nodes().iter().filter_map(|node| Host::named(node)).collect::<Vec<_>>();
        let addresses = nodes.iter().flat_map(|node| lab.families().of(node.addresses()));
        Ok(Self {
            router_id: lab.host(host)?.v4(),
            own_as: ROUTER_AS,
            port: BGP_PORT,
            hold: HOLD_SECONDS,
            neighbors: addresses.map(|address| BgpNeighbor::new(address, NODE_AS)).collect(),
            bfd: None,
            graceful: false,
        })
    }

    /// Returns the keepalive interval, in seconds.
    pub(super) fn keepalive(&self) -> u16 {
        self.hold / 3
    }
}

impl BgpNeighbor {
    /// Returns a neighbor without a password.
    pub fn new(address: IpAddr, asn: u32) -> Self {
        Self { address, asn, password: None, both_families: false }
    }

    /// Returns the families of the session, as `ipv4` and `ipv6`.
    pub(super) fn families(&self) -> Vec<&'static str> {
        let carries = |v4: bool| self.both_families || self.address.is_ipv4() == v4;
        [("ipv4", true), ("ipv6", false)]
            .into_iter()
            .filter(|(_, v4)| carries(*v4))
            .map(|(name, _)| name)
            .collect()
    }
}
