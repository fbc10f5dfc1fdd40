//! The routes that a node advertises by BGP, and the routers that receive them. Pure functions.
//!
//! Every node that may announce an address advertises it, and routers spread connections over these
//! nodes (ECMP). On a network segment, in contrast, one node owns the address.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ferrolb_proto::facts::{BgpAdvertisement, Node, SessionParameters};
use ferrolb_proto::range::Family;

use super::advertisements::{BgpAdvertisements, ResolvedAdvertisement};
use super::{RouteAttributes, RouteClass, Sessions};
use crate::announce::{ClusterView, ServiceView};
use crate::eligibility::{Ineligible, Serving, eligibility};

/// The maximum number of communities of one route, from all advertisements together. This number of
/// large communities fills half of the longest BGP message (RFC 4271 section 4).
const COMMUNITIES_MAX: usize = 160;

/// The node whose routes are computed, with all inputs of that computation besides the Services.
#[derive(Debug)]
pub struct RouteInput<'a, 's> {
    /// The node whose routes are computed.
    pub node: &'a Node,
    /// The node's sessions.
    pub sessions: &'s Sessions<'a>,
    /// All BGPAdvertisements.
    pub advertisements: &'s BgpAdvertisements<'a>,
    /// True if the routes must be de-preferred, because the node drains or its kube-proxy is
    /// unhealthy.
    pub unhealthy: bool,
}

impl RouteInput<'_, '_> {
    /// Returns whether all routes of the node are de-preferred, whatever the address. As on a
    /// network segment, soft rules prefer other nodes and never leave an address without a node.
    /// With BGP, the routers decide whether another path exists.
    pub(super) fn is_de_preferred(&self) -> bool {
        self.unhealthy || self.node.cordoned || !self.node.ready
    }
}

/// An address that a node may advertise.
pub(super) struct ServedAddress {
    pub(super) serving: Serving,
    /// Indexes of the BGPAdvertisements that announce the address from the node, ascending.
    pub(super) advertisements: BTreeSet<usize>,
}

/// Decides whether a node may advertise an address. All Services that have the address, which are
/// `services`, decide together.
pub(super) fn served_address<'v>(
    view: &ClusterView<'_>,
    input: &RouteInput<'_, '_>,
    address: IpAddr,
    services: impl IntoIterator<Item = &'v ServiceView<'v>>,
) -> Result<ServedAddress, Ineligible> {
    let mut advertisements = BTreeSet::new();
    let mut selected = Vec::new();
    for service in services {
        let announcing = input.advertisements.announcing(view, service, address);
        if !announcing.is_empty() {
            selected.push(service);
        }
        advertisements.extend(announcing);
    }
    let labels = &input.node.labels;
    advertisements
        .retain(|index| input.advertisements.get(*index).of.selectors.select_node(labels));
    let is_selected = !advertisements.is_empty();
    let serving = eligibility(view, input.node, is_selected, address, selected)?;
    Ok(ServedAddress { serving, advertisements })
}

/// The routers to which a node advertises an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExportTargets<'a> {
    /// The names of the BGPPeers of the routers.
    pub peers: BTreeSet<&'a str>,
    /// True if the routes to the address are de-preferred.
    pub de_preferred: bool,
    /// The BGPAdvertisements that are not applied to some of their routers, because an older
    /// BGPAdvertisement with other attributes has precedence.
    pub overridden: BTreeSet<&'a str>,
}

/// Computes the routers to which a node advertises an address. `services` are the Services that
/// have the address.
///
/// # Errors
/// Returns the reason why the node advertises the address to no router.
pub(crate) fn export_targets<'a, 'v>(
    view: &ClusterView<'_>,
    input: &RouteInput<'a, '_>,
    address: IpAddr,
    services: impl IntoIterator<Item = &'v ServiceView<'v>>,
) -> Result<ExportTargets<'a>, Ineligible> {
    let served = served_address(view, input, address, services)?;
    let advertisements: Vec<_> =
        served.advertisements.iter().map(|index| input.advertisements.get(*index)).collect();
    let sessions = input
        .sessions
        .active
        .iter()
        .filter(|(_, session)| session.carries_family(Family::of(address)));
    let de_preferred = input.is_de_preferred() || served.serving.failing;
    let mut targets =
        ExportTargets { peers: BTreeSet::new(), de_preferred, overridden: BTreeSet::new() };
    let mut reason = Ineligible::NoRouter;
    for (peer, session) in sessions {
        match attributes_for(&advertisements, &peer.name, session, None) {
            Some(Ok((_, overridden))) => {
                targets.peers.insert(&*peer.name);
                targets.overridden.extend(overridden);
            }
            Some(Err(CommunityLimitExceeded)) => reason = Ineligible::TooManyCommunities,
            None => {}
        }
    }
    if targets.peers.is_empty() { Err(reason) } else { Ok(targets) }
}

/// Computes the class of the routes that these advertisements announce together. The oldest
/// advertisement is first. `de_preferred` is the MED of de-preferred routes.
pub(super) fn class(
    advertisements: &[&ResolvedAdvertisement<'_>],
    family: Family,
    sessions: &Sessions<'_>,
    de_preferred: Option<u32>,
) -> RouteClass {
    let mut class = RouteClass::default();
    for (peer, session) in
        sessions.active.iter().filter(|(_, session)| session.carries_family(family))
    {
        if let Some(Ok((attributes, _))) =
            attributes_for(advertisements, &peer.name, session, de_preferred)
        {
            class.insert(&peer.name, attributes);
        }
    }
    class
}

/// Error: a route would have more than [`COMMUNITIES_MAX`] communities. The route is then not
/// advertised, because a route without its NO_EXPORT would leak.
struct CommunityLimitExceeded;

/// Returns the attributes that one router receives, and the names of the advertisements that yield
/// to an older one; `None` if no advertisement selects the router.
///
/// A route has the communities of all its advertisements, but only one value of each other
/// attribute. The oldest advertisement sets these values, and a younger one with other values is
/// not applied to this router.
fn attributes_for<'a>(
    advertisements: &[&ResolvedAdvertisement<'a>],
    peer: &str,
    session: &SessionParameters,
    de_preferred: Option<u32>,
) -> Option<Result<(RouteAttributes, Vec<&'a str>), CommunityLimitExceeded>> {
    let mut selecting = advertisements.iter().filter(|ad| ad.of.selects_peer(peer));
    let oldest = selecting.next()?;
    let BgpAdvertisement { local_pref, med, as_path_prepend: prepend, .. } = *oldest.of;
    let (mut communities, mut overridden) = (oldest.communities.clone(), Vec::new());
    for ad in selecting {
        if (ad.of.local_pref, ad.of.med, ad.of.as_path_prepend) == (local_pref, med, prepend) {
            communities.extend(&ad.communities);
        } else {
            overridden.push(&*ad.of.name);
        }
    }
    if communities.len() > COMMUNITIES_MAX {
        return Some(Err(CommunityLimitExceeded));
    }
    // A router in the nodes' own AS would reject a path with its own AS number as a loop.
    // LOCAL_PREF is only sent to such routers.
    let is_internal = session.is_internal();
    let (local_pref, prepend) =
        (local_pref.filter(|_| is_internal), if is_internal { 0 } else { prepend });
    let attributes = RouteAttributes { communities, local_pref, med, prepend };
    let attributes = match de_preferred {
        Some(med) => attributes.de_preferred(is_internal, med),
        None => attributes,
    };
    Some(Ok((attributes, overridden)))
}

#[cfg(test)]
mod tests;
