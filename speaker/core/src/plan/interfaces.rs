//! Selection of the interfaces that the speaker uses, and of those on which it announces addresses
//! while no other speaker is there. Pure.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ferrolb_proto::api::HOST_ADDRESSES_MAX;

use crate::event::Link;
use crate::state::State;

/// Returns the interfaces that the speaker uses while they are up. They support Ethernet and
/// broadcast, are no port of a bridge or bond, do not lead to a pod, and have a name that is not
/// excluded. A macvlan or similar interface is not used if its parent is used, because both
/// would announce. An interface with one of the Node's InternalIPs is used whatever its name.
pub(super) fn usable_interfaces(state: &State) -> Vec<&Link> {
    let excluded =
        |name: &str| state.config.exclude_interfaces.iter().any(|regex| regex.is_match(name));
    let is_usable = |link: &&Link| {
        link.ethernet
            && link.broadcast
            && !link.enslaved
            && !state.leads_to_pod(link)
            && (state.has_internal_address(link) || !excluded(&link.name))
    };
    let links: Vec<&Link> = state.all_links().filter(is_usable).collect();
    let is_used = |index: u32| links.iter().any(|link| link.index == index);
    links.iter().copied().filter(|link| !link.parent.is_some_and(is_used)).collect()
}

/// Interfaces that hold addresses of Services: those of kube-proxy in the mode `ipvs`, of
/// kube-router and of PureLB.
const SERVICE_INTERFACES: [&str; 3] = ["kube-ipvs0", "kube-dummy-if", "kube-lb0"];

/// Returns the addresses of this node's interfaces, ascending, without loopback and link-local ones
/// and without those of [`SERVICE_INTERFACES`]. At most [`HOST_ADDRESSES_MAX`], of the interfaces
/// with the lowest indexes.
pub(super) fn host_addresses(state: &State) -> Vec<IpAddr> {
    let own = state.all_links().filter(|link| !SERVICE_INTERFACES.contains(&&*link.name));
    let is_local = |address: &&IpAddr| match address {
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unicast_link_local(),
    };
    let addresses = own.flat_map(|link| &link.addresses).filter(|address| !is_local(address));
    let mut found = BTreeSet::new();
    for address in addresses {
        if found.len() == HOST_ADDRESSES_MAX {
            break;
        }
        found.insert(*address);
    }
    found.into_iter().collect()
}

/// Returns whether Services are announced on an interface: another speaker was received there, or
/// this node probably shares the network segment with clients. Neither is true for a bridge of
/// containers or an interface for out-of-band management, where this node would become a second
/// owner of every address.
pub(super) fn may_announce(state: &State, link: &Link) -> bool {
    let has_subnet = || {
        let pools = || state.existing_pools().flat_map(|pool| &pool.ranges);
        link.subnets().any(|subnet| {
            // A pool that is temporarily invalid has no ranges, but its Services still have their
            // addresses.
            pools().any(|range| range.overlaps(&subnet)) || state.services.has_address_in(&subnet)
        })
    };
    let is_in_advertisement = || {
        let mut naming = state.advertisements.values().filter(|ad| ad.names_interface(&link.name));
        state.own_node().is_some_and(|node| naming.any(|ad| ad.selectors.select_node(&node.labels)))
    };
    // If this node already announces an address on the interface, it continues, even if pools or
    // the interface's own addresses change.
    let already_announces =
        || state.reports.get(&link.index).is_some_and(|report| !report.owned.is_empty());
    state.speaker_ever_received.contains(&link.index)
        || state.has_internal_address(link)
        || already_announces()
        || has_subnet()
        || is_in_advertisement()
}
