//! Who a router speaks to, for the configuration that most stories need: the nodes are its neighbours, over both families.

use crate::Lab;
use crate::topology::Host;
use crate::topology::routers::{NODE_AS, ROUTER_AS};
use anyhow::Result;
use std::net::{IpAddr, Ipv4Addr};

/// After so many seconds of silence a router takes its neighbour for gone: the shortest that BGP knows (RFC 4271 section 4.2).
pub(super) const HOLD_SECONDS: u8 = 3;
/// How often a neighbour says something, in seconds: a third of that.
pub(super) const KEEPALIVE_SECONDS: u8 = 1;
/// Paths that a router uses at once, at most.
pub(super) const PATHS_MAX: u8 = 16;

/// A router's neighbours.
#[derive(Clone, Debug)]
pub struct Peering {
    pub router_id: Ipv4Addr,
    pub own_as: u32,
    /// Address and AS. A session carries the family of its address.
    pub neighbours: Vec<(IpAddr, u32)>,
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
            neighbours: addresses.map(|address| (address, NODE_AS)).collect(),
        })
    }

    /// The neighbours' addresses of one family.
    pub(super) fn of_family(&self, v4: bool) -> impl Iterator<Item = IpAddr> {
        self.neighbours.iter().map(|(address, _)| *address).filter(move |address| address.is_ipv4() == v4)
    }
}
