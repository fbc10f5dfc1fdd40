//! Addresses that hosts use: those that a Node lists, those that its speaker sees, and those that a
//! node may still advertise. Pure; the state passes them to the allocator.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ferrolb_proto::facts::{Node, Speaker};
use ferrolb_proto::range::AddressRange;

use super::{AddressUser, Allocator, UnmanagedSource, UnmanagedUse};

/// Addresses that a host uses, each with the origin.
pub(in crate::state) type HostUses = BTreeSet<(IpAddr, UnmanagedSource)>;

/// Maximum number of subnets of a node whose first and last addresses count.
const SUBNETS_MAX: usize = 64;

/// Returns the addresses that automatic assignment must skip because of one node.
pub(in crate::state) fn of_node(node: &Node, speaker: Option<&Speaker>) -> HostUses {
    let listed = &node.addresses;
    let with = |source| move |address: &IpAddr| (*address, source);
    let mut uses: HostUses = listed.iter().map(with(UnmanagedSource::NodeAddress)).collect();
    let Some(speaker) = speaker else { return uses };
    let unlisted = speaker.host_addresses.iter().filter(|address| !listed.contains(address));
    uses.extend(unlisted.map(with(UnmanagedSource::InterfaceAddress)));
    uses.extend(speaker.gateways.iter().map(with(UnmanagedSource::Gateway)));
    let subnets = speaker.interfaces.iter().flat_map(|interface| &interface.subnets);
    for subnet in subnets.filter(|subnet| has_broadcast(subnet)).take(SUBNETS_MAX) {
        uses.insert((subnet.first(), UnmanagedSource::NetworkAddress));
        uses.insert((subnet.last(), UnmanagedSource::BroadcastAddress));
    }
    uses
}

impl Allocator {
    /// Returns the nodes that may still advertise an address for a deleted Service.
    pub(in crate::state) fn former_routers(&self, address: IpAddr) -> impl Iterator<Item = &str> {
        let former = |it: &&UnmanagedUse| it.source == UnmanagedSource::FormerRoute;
        self.uses.of(address).filter(former).filter_map(|it| match &it.user {
            AddressUser::Node(name) => Some(&**name),
            AddressUser::Service(_) | AddressUser::ApiServer => None,
        })
    }
}

/// Returns whether hosts cannot have the first and the last address of a subnet: it is IPv4, and
/// has more than two addresses (RFC 3021).
fn has_broadcast(subnet: &AddressRange) -> bool {
    let (IpAddr::V4(first), IpAddr::V4(last)) = (subnet.first(), subnet.last()) else {
        return false;
    };
    last.to_bits() - first.to_bits() > 1
}

#[cfg(test)]
mod tests {
    use ferrolb_proto::facts::SpeakerInterface;

    use super::*;

    #[test]
    fn a_node_and_its_speaker_name_the_addresses_that_hosts_use() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let node = Node { addresses: vec![ip("10.0.0.4")], ..Node::default() };
        let subnets = ["10.0.0.0/24", "10.1.0.0/31", "10.2.0.0/32", "fd00::/64"];
        let interface = SpeakerInterface {
            subnets: subnets.map(|it| it.parse().unwrap()).into(),
            ..SpeakerInterface::default()
        };
        let speaker = Speaker {
            interfaces: [interface].into(),
            host_addresses: ["10.0.0.4", "10.0.0.5"].map(ip).into(),
            gateways: [ip("10.0.0.1")].into(),
            ..Speaker::default()
        };
        let listed = (ip("10.0.0.4"), UnmanagedSource::NodeAddress);
        let seen = [
            (ip("10.0.0.0"), UnmanagedSource::NetworkAddress),
            (ip("10.0.0.1"), UnmanagedSource::Gateway),
            (ip("10.0.0.5"), UnmanagedSource::InterfaceAddress),
            (ip("10.0.0.255"), UnmanagedSource::BroadcastAddress),
        ];
        assert_eq!(of_node(&node, None), [listed].into());
        assert_eq!(of_node(&node, Some(&speaker)), seen.into_iter().chain([listed]).collect());
    }
}
