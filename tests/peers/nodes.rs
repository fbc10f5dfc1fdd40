//! What stands for the speaker where a story goes without one: a node's gobgpd is told by its own command line.

use anyhow::{Context, Result};
use ferrolb_tests::Lab;
use ferrolb_tests::topology::Host;
use ferrolb_tests::topology::routers::{NODE_AS, ROUTER_AS, ROUTERS};
use std::net::IpAddr;

/// Tells the gobgpd of a node who it is, and that the routers on the lab's hosts for them are its neighbours, by both families.
pub(crate) fn meet_routers(lab: &Lab, node: &Host) -> Result<()> {
    let (name, as_number) = (node.name.as_str(), ROUTER_AS.to_string());
    lab.gobgp(name, &["global", "as", &NODE_AS.to_string(), "router-id", &node.v4().to_string()])?;
    let routers = lab.state().facts()?.hosts().into_iter().filter(|host| ROUTERS.contains(&host.name.as_str()));
    routers.flat_map(|router| router.addresses()).try_for_each(|address| {
        let family = format!("{}-unicast", family(address));
        let neighbour = ["neighbor", "add", &address.to_string(), "as", &as_number, "family", &family];
        lab.gobgp(name, &neighbour).map(drop)
    })
}

/// Announces an address from a node, with itself as the next hop; `attributes` as gobgp spells them.
pub(crate) fn announce(lab: &Lab, node: &Host, address: IpAddr, attributes: &[&str]) -> Result<()> {
    let [v4, v6] = node.addresses();
    let hop = if address.is_ipv4() { v4 } else { v6 }.to_string();
    let path = ["global", "rib", "add", "-a", family(address), &prefix(address), "nexthop", &hop];
    lab.gobgp(&node.name, &[path.as_slice(), attributes].concat()).map(drop)
}

/// Announces it no longer.
pub(crate) fn withdraw(lab: &Lab, node: &Host, address: IpAddr) -> Result<()> {
    lab.gobgp(&node.name, &["global", "rib", "del", "-a", family(address), &prefix(address)]).map(drop)
}

/// The prefix that holds the address alone.
pub(crate) fn prefix(address: IpAddr) -> String {
    format!("{address}/{}", if address.is_ipv4() { 32 } else { 128 })
}

/// The lab's nodes as hosts.
pub(crate) fn all(lab: &Lab) -> Result<Vec<Host>> {
    lab.nodes().iter().map(|node| Host::named(node).context("a node")).collect()
}

fn family(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "ipv4" } else { "ipv6" }
}
