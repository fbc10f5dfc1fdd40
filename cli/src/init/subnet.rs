//! The subnet of the nodes, from SpeakerStatuses or from the InternalIPs. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ferrolb_proto::facts::Node;
use ferrolb_proto::range::{AddressRange, Family};

use crate::check::facts::Objects;

/// Prefix length of the assumed IPv4 subnet around an InternalIP.
const ASSUMED_LENGTH: u8 = 24;

/// The subnet in which a pool is proposed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeSubnet {
    /// The addresses of the subnet.
    pub range: AddressRange,
    /// True if no speaker has reported subnets, so the prefix length is not known.
    pub is_assumed: bool,
    /// Nodes without an address in the subnet. They cannot announce the pool.
    pub other_nodes: Vec<String>,
}

fn has_address(node: &Node, subnet: &AddressRange) -> bool {
    node.internal_addresses.iter().any(|address| subnet.contains(*address))
}

/// Returns the subnet of a family with the most nodes. Without a reported one, that is the assumed
/// IPv4 subnet; `None` if there is none either. Of two subnets with equally many nodes, returns the
/// lower one.
#[must_use]
pub fn node_subnet(objects: &Objects, family: Family) -> Option<NodeSubnet> {
    let with_node =
        |subnet: &AddressRange| objects.nodes.iter().any(|node| has_address(node, subnet));
    let interfaces = objects.speakers.iter().flat_map(|it| &it.interfaces).filter(|it| it.up);
    let reported = interfaces.flat_map(|it| it.subnets.iter().copied());
    let reported: BTreeSet<_> =
        reported.filter(|it| it.family() == family).filter(with_node).collect();
    let is_assumed = reported.is_empty();
    let subnets = match (is_assumed, family) {
        (false, _) => reported,
        (true, Family::V4) => assumed(&objects.nodes),
        (true, Family::V6) => BTreeSet::new(),
    };
    let counts: BTreeMap<usize, AddressRange> = subnets
        .into_iter()
        .rev()
        .map(|subnet| (objects.nodes.iter().filter(|it| has_address(it, &subnet)).count(), subnet))
        .collect();
    let (_, range) = counts.into_iter().next_back()?;
    let others = objects.nodes.iter().filter(|node| !has_address(node, &range));
    let other_nodes = others.map(|node| node.name.to_string()).collect();
    Some(NodeSubnet { range, is_assumed, other_nodes })
}

fn assumed(nodes: &[Node]) -> BTreeSet<AddressRange> {
    let addresses = nodes.iter().flat_map(Node::usable_addresses).filter(IpAddr::is_ipv4);
    addresses.map(|address| AddressRange::network(address, ASSUMED_LENGTH)).collect()
}
