//! The routes that a node advertises by BGP, and the routers that receive them. Pure functions.
//!
//! Every node that may announce an address advertises it, and routers spread connections over these
//! nodes (ECMP). On a network segment, in contrast, one node owns the address.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::advertisements::{BgpAdvertisements, ResolvedAdvertisement};
use super::{Prefix, RouteAttributes, RouteClass, Sessions, Withdrawable};
use crate::announce::{ClusterView, ServiceView, ServicesByAddress};
use crate::eligibility::{Ineligible, Serving, eligibility};
use crate::facts::{BgpAdvertisement, Node, SessionParameters};
use crate::range::Family;

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
    /// The routes that the node may withdraw, because it drains or is cordoned, and other nodes
    /// advertise them.
    pub withdrawable: &'s Withdrawable,
}

/// The prefixes that a node advertises, each with the routers that receive it and their attributes.
/// Prefixes without a router are not in the map.
pub type Routes = BTreeMap<Prefix, Arc<RouteClass>>;

/// The result of [`routes`].
#[derive(Debug, Default)]
pub struct NodeRoutes {
    /// The routes that the node advertises.
    pub routes: Routes,
    /// The number of prefixes that are withdrawn from at least one router, because the node drains
    /// or is cordoned, and other nodes advertise them.
    pub withdrawn: usize,
}

impl RouteInput<'_, '_> {
    /// Returns whether all routes of the node are de-preferred, whatever the address. As on a
    /// network segment, soft rules prefer other nodes and never leave an address without a node.
    /// With BGP, the routers decide whether another path exists.
    fn is_de_preferred(&self) -> bool {
        self.unhealthy || self.node.cordoned || !self.node.ready
    }
}

/// Computes the routes of a node. All Services with the same address together decide on its route.
pub fn routes(
    view: &ClusterView<'_>,
    input: &RouteInput<'_, '_>,
    services: &ServicesByAddress<'_>,
) -> NodeRoutes {
    if input.sessions.active.is_empty() {
        return NodeRoutes::default();
    }
    let served = services.iter().filter_map(|(address, services)| {
        Some((address, served_address(view, input, address, services).ok()?))
    });
    classify(input, served)
}

/// An address that a node may advertise.
struct ServedAddress {
    serving: Serving,
    /// Indexes of the BGPAdvertisements that announce the address from the node, ascending.
    advertisements: BTreeSet<usize>,
}

/// Decides whether a node may advertise an address. `services` are the Services that have the
/// address.
fn served_address<'v>(
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
    advertisements.retain(|index| input.advertisements.get(*index).of.selects_node(labels));
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
pub fn export_targets<'a, 'v>(
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
        match attributes_for(&advertisements, &peer.name, session, de_preferred) {
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

/// Properties of a prefix, which follow from the addresses in the prefix that the node can serve.
struct PrefixProperties<'r> {
    /// True if all addresses in the prefix that the node can serve are de-preferred.
    de_preferred: bool,
    /// The BGPPeers from whose routers the node may withdraw every address in the prefix that the
    /// node can serve; `None` before the first address is added.
    withdrawable: Option<BTreeSet<&'r str>>,
    /// The indexes of the advertisements that announce any address in the prefix that the node can
    /// serve.
    ad_indexes: BTreeSet<usize>,
}

/// The key of a [`RouteClass`]: prefixes with the same family and the same properties (see
/// [`PrefixProperties`]) share one class.
type ClassKey<'r> = (Family, bool, BTreeSet<&'r str>, BTreeSet<usize>);

/// Computes the routes for the addresses that the node may advertise.
fn classify(
    input: &RouteInput<'_, '_>,
    served: impl Iterator<Item = (IpAddr, ServedAddress)>,
) -> NodeRoutes {
    let mut prefixes: BTreeMap<Prefix, PrefixProperties<'_>> = BTreeMap::new();
    for (address, ServedAddress { serving, advertisements }) in served {
        let peers: BTreeSet<_> =
            input.withdrawable.get(&address).into_iter().flatten().map(|peer| &**peer).collect();
        for index in advertisements {
            let length = input.advertisements.get(index).of.aggregation_length(Family::of(address));
            let properties = prefixes.entry(Prefix::of(address, length));
            let properties = properties.or_insert(PrefixProperties {
                de_preferred: true,
                withdrawable: None,
                ad_indexes: BTreeSet::new(),
            });
            properties.de_preferred &= input.is_de_preferred() || serving.failing;
            properties.withdrawable = Some(
                properties.withdrawable.take().map_or_else(|| peers.clone(), |all| &all & &peers),
            );
            properties.ad_indexes.insert(index);
        }
    }
    // Each class is computed once per key, because 10,000 prefixes have only a handful of keys. The
    // flag is true if a router was removed from the class, because the route is withdrawn from that
    // router.
    let mut classes = BTreeMap::<ClassKey<'_>, (Arc<RouteClass>, bool)>::new();
    let mut node_routes = NodeRoutes::default();
    for (prefix, PrefixProperties { de_preferred, withdrawable, ad_indexes }) in prefixes {
        let key = (prefix.family(), de_preferred, withdrawable.unwrap_or_default(), ad_indexes);
        let (class, is_withdrawn) = classes.entry(key).or_insert_with_key(
            |(family, de_preferred, withdrawable, ad_indexes)| {
                let advertisements = ad_indexes
                    .iter()
                    .map(|index| input.advertisements.get(*index))
                    .collect::<Vec<_>>();
                let mut class = class(&advertisements, *family, input.sessions, *de_preferred);
                let is_withdrawn = class.remove_peers(withdrawable);
                (Arc::new(class), is_withdrawn)
            },
        );
        node_routes.withdrawn += usize::from(*is_withdrawn);
        if !class.peers_by_attributes.is_empty() {
            node_routes.routes.insert(prefix, Arc::clone(class));
        }
    }
    node_routes
}

/// Computes the class of the routes that these advertisements announce together. The oldest
/// advertisement is first.
fn class(
    advertisements: &[&ResolvedAdvertisement<'_>],
    family: Family,
    sessions: &Sessions<'_>,
    de_preferred: bool,
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
    de_preferred: bool,
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
    Some(Ok((
        if de_preferred { attributes.de_preferred(is_internal) } else { attributes },
        overridden,
    )))
}

#[cfg(test)]
mod tests;
