//! Which links of this node are spoken on, and on which of them it announces though it is alone
//! there. Pure.

use ferrolb_proto::range::AddressRange;

use crate::event::Link;
use crate::state::State;

/// The links that are spoken on while they are up: Ethernet with broadcast, no port of a bridge or bond, no macvlan or the like of one that is
/// (or both would), no pod's end of a veth pair, and a name that is not excluded. The link that
/// holds one of the Node's internal addresses is in whatever its name.
pub(super) fn eligible(state: &State) -> Vec<&Link> {
    let excluded = |name: &str| state.config.exclude_interfaces.iter().any(|regex| regex.is_match(name));
    // The other end of a veth pair may be a network, too, as where this node is itself a container:
    // then it has a subnet.
    let is_pods = |link: &Link| link.into_namespace && link.subnets().next().is_none();
    let is_in = |link: &&Link| {
        link.ethernet
            && link.broadcast
            && !link.enslaved
            && (has_internal(state, link) || !excluded(&link.name) && !is_pods(link))
    };
    let links: Vec<&Link> = state.links.iter().flat_map(|links| links.values()).filter(is_in).collect();
    let is_in = |index: u32| links.iter().any(|link| link.index == index);
    links.iter().copied().filter(|link| !link.parent.is_some_and(is_in)).collect()
}

/// Whether Services are announced on a link: another speaker has been received there, or this node
/// shares it with clients for all that is known. A bridge of containers or a card for
/// out-of-band management is neither, and would make this node a further owner of every address.
pub(super) fn announces(state: &State, link: &Link) -> bool {
    let has_subnet = || {
        let assigned = || state.services.values().flat_map(|service| &service.assigned);
        let pools = || state.pools.values().flat_map(|pool| &pool.ranges);
        link.subnets().any(|subnet| {
            // A pool that is broken for the moment has no ranges, and its Services have their
            // addresses.
            pools().any(|range| range.overlaps(&subnet))
                || assigned().any(|address| AddressRange::single(*address).overlaps(&subnet))
        })
    };
    let is_named = || {
        let labels = state.own_node().map(|node| &node.labels);
        let names =
            |labels| state.advertisements.values().any(|ad| ad.selects_node(labels) && ad.names_interface(&link.name));
        labels.is_some_and(names)
    };
    // An address that is announced there stays, whatever becomes of pools and of the link's
    // addresses.
    let holds = || state.reports.get(&link.index).is_some_and(|report| !report.held.is_empty());
    state.acquainted.contains(&link.index) || has_internal(state, link) || holds() || has_subnet() || is_named()
}

fn has_internal(state: &State, link: &Link) -> bool {
    let internal = state.own_node().map_or(&[][..], |node| &node.internal);
    link.addresses.iter().any(|address| internal.contains(address))
}
