//! Which links of this node are spoken on. Pure.

use crate::event::Link;
use crate::state::State;

/// The links that are spoken on while they are up: Ethernet with broadcast, no port of a bridge or bond, no macvlan or the like of one that is
/// (or both would), and a name that is not excluded. The link that holds one of the Node's internal addresses is in whatever its name.
pub(super) fn eligible(state: &State) -> Vec<&Link> {
    let internal = state.own_node().map_or(&[][..], |node| &node.internal);
    let excluded = |name: &str| state.config.exclude_interfaces.iter().any(|regex| regex.is_match(name));
    let is_in = |link: &&Link| {
        link.ethernet
            && link.broadcast
            && !link.enslaved
            && (!excluded(&link.name) || link.addresses.iter().any(|address| internal.contains(address)))
    };
    let links: Vec<&Link> = state.links.iter().flat_map(|links| links.values()).filter(is_in).collect();
    let is_in = |index: u32| links.iter().any(|link| link.index == index);
    links.iter().copied().filter(|link| !link.parent.is_some_and(is_in)).collect()
}
