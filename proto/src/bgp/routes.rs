//! The routes that a node advertises by BGP, and the routers that receive them. Pure.
//!
//! The endpoints of an address's own family alone decide which nodes may advertise the address. On
//! a network segment, in contrast, one node owns all addresses of a Service. By BGP, every node
//! that can serve an address advertises it, and routers spread connections over these nodes (ECMP).

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::ads::{BgpAdvertisements, ResolvedAdvertisement};
use super::{Prefix, RouteAttributes, RouteClass, Sessions, Withdrawable};
use crate::announce::{ClusterView, Ineligible, ServiceView};
use crate::facts::{BgpAdvertisement, Node, Pool, SessionParameters};
use crate::range::Family;
use crate::verdict::{Verdict, verdict};

/// The maximum number of communities of one route, from all advertisements together. As large
/// communities, they fill half of the longest BGP message (RFC 4271 section 4).
const COMMUNITIES_MAX: usize = 160;

/// The node whose routes are computed, with all inputs of that computation besides the Services.
#[derive(Debug)]
pub struct RouteInput<'a, 's> {
    /// The node whose routes are computed.
    pub node: &'a Node,
    /// The node's sessions.
    pub sessions: &'s Sessions<'a>,
    /// All BGPAdvertisements.
    pub ads: &'s BgpAdvertisements<'a>,
    /// The routes must be de-preferred: the node drains, or its kube-proxy is unhealthy.
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

/// The eligibility of a node for an address, according to all Services that have the address.
#[derive(Default)]
struct AddressEligibility {
    /// At least one Service with the address has an eligible endpoint on some node.
    has_endpoint: bool,
    /// The node cannot serve at least one Service that has an eligible endpoint on some node.
    unserved: bool,
    /// All endpoints of at least one Service on the node fail their health check.
    failing: bool,
}

impl AddressEligibility {
    fn of(services: &[ServiceView<'_>], address: IpAddr, node: &str) -> Self {
        let mut standing = Self::default();
        let having = services.iter().filter(|served| served.assigned.contains(&address));
        having.for_each(|served| standing.add(served, address, node));
        standing
    }

    fn add(&mut self, served: &ServiceView<'_>, address: IpAddr, node: &str) {
        let ServiceView { policy, eligible: usable, endpoints, failing_on, .. } = served;
        let family = Family::of(address);
        let failing = failing_on.contains(&(node, family)).then_some(family);
        let verdict = verdict(
            *policy,
            *usable,
            [family],
            node,
            endpoints.iter().copied(),
            failing.as_slice(),
        );
        self.has_endpoint |= verdict != Verdict::NoEndpoint;
        self.unserved |= verdict != Verdict::NoEndpoint && !verdict.can_serve();
        self.failing |= verdict == Verdict::Failing;
    }

    /// Returns whether the node can serve every Service that has an eligible endpoint on some node.
    const fn serves(&self) -> bool {
        self.has_endpoint && !self.unserved
    }
}

impl RouteInput<'_, '_> {
    /// Returns whether all routes of the node are de-preferred, whatever the address. As on a
    /// network segment, soft rules prefer other nodes and never leave an address without a node.
    /// With BGP, the routers decide whether another path exists.
    fn is_de_preferred(&self) -> bool {
        self.unhealthy || self.node.cordoned || !self.node.ready
    }
}

/// Computes the routes of a node for these Services. All Services with the same address together
/// decide on its route.
pub fn routes<'a>(
    scene: &ClusterView<'a>,
    asked: &RouteInput<'a, '_>,
    services: impl IntoIterator<Item = ServiceView<'a>>,
) -> NodeRoutes {
    let ads = asked.ads.of_node(&asked.node.labels);
    if ads.is_empty() || asked.sessions.active.is_empty() || scene.ineligible(asked.node).is_some()
    {
        return NodeRoutes::default();
    }
    let mut by_pool: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    // The eligibility of the node for each address, with the indexes into `ads` of the
    // advertisements that announce the address.
    let mut standings: BTreeMap<IpAddr, (AddressEligibility, BTreeSet<usize>)> = BTreeMap::new();
    for served in services {
        for address in served.assigned {
            let pool = scene.pool_of(served.from_pool, *address);
            let of_pool = |pool: &Pool| {
                (0..ads.len()).filter(|place| ads[*place].announces_pool(pool)).collect::<Vec<_>>()
            };
            let places = pool
                .map(|pool| by_pool.entry(&pool.name).or_insert_with(|| of_pool(pool)).as_slice());
            let selected = places
                .into_iter()
                .flatten()
                .filter(|place| ads[**place].of.selects_service(|| served.labels()));
            let (standing, selecting) = standings.entry(*address).or_default();
            selecting.extend(selected);
            standing.add(&served, *address, &asked.node.name);
        }
    }
    classify(&ads, asked, standings)
}

/// Returns whether the node of this name can serve an address of these Services.
pub(super) fn is_served_on(services: &[ServiceView<'_>], address: IpAddr, node: &str) -> bool {
    AddressEligibility::of(services, address, node).serves()
}

/// The routers to which a node advertises an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExportTargets<'a> {
    /// The names of the BGPPeers of the routers.
    pub peers: BTreeSet<&'a str>,
    /// The routes to the address are de-preferred.
    pub de_preferred: bool,
    /// The BGPAdvertisements that are not applied to some of their routers, because an older
    /// BGPAdvertisement with other attributes has precedence.
    pub yielding: BTreeSet<&'a str>,
}

/// Computes the routers to which a node advertises an address of these Services. Services without
/// the address are ignored.
///
/// # Errors
/// Returns the reason why the node advertises the address to no router.
pub fn export_targets<'a>(
    scene: &ClusterView<'_>,
    asked: &RouteInput<'a, '_>,
    services: &[ServiceView<'_>],
    address: IpAddr,
) -> Result<ExportTargets<'a>, Ineligible> {
    if let Some(bar) = scene.ineligible(asked.node) {
        return Err(bar);
    }
    let having = || services.iter().filter(|served| served.assigned.contains(&address));
    let announces = |ad: &&ResolvedAdvertisement<'_>| {
        let of_pool = |served: &ServiceView<'_>| scene.pool_of(served.from_pool, address);
        having().any(|served| of_pool(served).is_some_and(|pool| ad.announces(pool, served)))
    };
    let mut ads = asked.ads.of_node(&asked.node.labels);
    ads.retain(announces);
    if ads.is_empty() {
        return Err(Ineligible::NotSelected);
    }
    let standing = AddressEligibility::of(services, address, &asked.node.name);
    if !standing.has_endpoint {
        return Err(Ineligible::NoEndpoint);
    }
    if standing.unserved {
        return Err(Ineligible::CannotServe);
    }
    let carrying = asked
        .sessions
        .active
        .iter()
        .filter(|(_, session)| session.carries_family(Family::of(address)));
    let last = asked.is_de_preferred() || standing.failing;
    let mut audience =
        ExportTargets { peers: BTreeSet::new(), de_preferred: last, yielding: BTreeSet::new() };
    let mut bar = Ineligible::NoRouter;
    for (peer, session) in carrying {
        match attributes_for(&ads, &peer.name, session, last) {
            Some(Ok((_, yielding))) => {
                audience.peers.insert(&*peer.name);
                audience.yielding.extend(yielding);
            }
            Some(Err(CommunityLimitExceeded)) => bar = Ineligible::TooManyCommunities,
            None => {}
        }
    }
    if audience.peers.is_empty() { Err(bar) } else { Ok(audience) }
}

/// Properties of a prefix, which follow from the addresses in the prefix that the node can serve.
struct PrefixProperties<'r> {
    /// All addresses in the prefix that the node can serve are de-preferred.
    de_preferred: bool,
    /// The BGPPeers from whose routers the node may withdraw every address in the prefix that it
    /// can serve; `None` before the first address is added.
    withdrawable: Option<BTreeSet<&'r str>>,
    /// The indexes of the advertisements that announce any address in the prefix that the node can
    /// serve.
    places: BTreeSet<usize>,
}

/// The key of a [`RouteClass`]: prefixes with the same family and the same properties (see
/// [`PrefixProperties`]) share one class.
type ClassKey<'r> = (Family, bool, BTreeSet<&'r str>, BTreeSet<usize>);

/// Computes the routes for the addresses that the node can serve.
fn classify(
    ads: &[&ResolvedAdvertisement<'_>],
    asked: &RouteInput<'_, '_>,
    standings: BTreeMap<IpAddr, (AddressEligibility, BTreeSet<usize>)>,
) -> NodeRoutes {
    let mut prefixes: BTreeMap<Prefix, PrefixProperties<'_>> = BTreeMap::new();
    for (address, (standing, places)) in
        standings.into_iter().filter(|(_, (standing, _))| standing.serves())
    {
        let relief: BTreeSet<_> =
            asked.withdrawable.get(&address).into_iter().flatten().map(|peer| &**peer).collect();
        for place in places {
            let length = ads[place].of.aggregation_length(Family::of(address));
            let joined = prefixes.entry(Prefix::of(address, length));
            let joined = joined.or_insert(PrefixProperties {
                de_preferred: true,
                withdrawable: None,
                places: BTreeSet::new(),
            });
            joined.de_preferred &= asked.is_de_preferred() || standing.failing;
            joined.withdrawable = Some(
                joined.withdrawable.take().map_or_else(|| relief.clone(), |all| &all & &relief),
            );
            joined.places.insert(place);
        }
    }
    // Each class is computed once per key, because 10,000 prefixes have only a handful of keys. The
    // flag records whether the relief removes a router from the class.
    let mut classes = BTreeMap::<ClassKey<'_>, (Arc<RouteClass>, bool)>::new();
    let mut announcement = NodeRoutes::default();
    for (prefix, PrefixProperties { de_preferred: last, withdrawable: relief, places }) in prefixes
    {
        let sort = (prefix.family(), last, relief.unwrap_or_default(), places);
        let (class, relieved) =
            classes.entry(sort).or_insert_with_key(|(family, last, relief, places)| {
                let ads = places.iter().map(|place| ads[*place]).collect::<Vec<_>>();
                let mut class = class(&ads, *family, asked.sessions, *last);
                let relieved = class.remove_peers(relief);
                (Arc::new(class), relieved)
            });
        announcement.withdrawn += usize::from(*relieved);
        if !class.peers_by_attributes.is_empty() {
            announcement.routes.insert(prefix, Arc::clone(class));
        }
    }
    announcement
}

/// Computes the class of the routes that these advertisements announce together, the oldest first.
/// `last`: the routes are de-preferred.
fn class(
    ads: &[&ResolvedAdvertisement<'_>],
    family: Family,
    sessions: &Sessions<'_>,
    last: bool,
) -> RouteClass {
    let mut class = RouteClass::default();
    for (peer, session) in
        sessions.active.iter().filter(|(_, session)| session.carries_family(family))
    {
        if let Some(Ok((seen, _))) = attributes_for(ads, &peer.name, session, last) {
            class.insert(&peer.name, seen);
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
    ads: &[&ResolvedAdvertisement<'a>],
    peer: &str,
    session: &SessionParameters,
    de_preferred: bool,
) -> Option<Result<(RouteAttributes, Vec<&'a str>), CommunityLimitExceeded>> {
    let mut selecting = ads.iter().filter(|ad| ad.of.selects_peer(peer));
    let oldest = selecting.next()?;
    let BgpAdvertisement { local_pref, med, as_path_prepend: prepend, .. } = *oldest.of;
    let (mut communities, mut yielding) = (oldest.communities.clone(), Vec::new());
    for ad in selecting {
        if (ad.of.local_pref, ad.of.med, ad.of.as_path_prepend) == (local_pref, med, prepend) {
            communities.extend(&ad.communities);
        } else {
            yielding.push(&*ad.of.name);
        }
    }
    if communities.len() > COMMUNITIES_MAX {
        return Some(Err(CommunityLimitExceeded));
    }
    // A router in the nodes' own AS would reject a path with its own AS number as a loop.
    // LOCAL_PREF is only sent to such routers.
    let internal = session.is_internal();
    let (local_pref, prepend) =
        (local_pref.filter(|_| internal), if internal { 0 } else { prepend });
    let seen = RouteAttributes { communities, local_pref, med, prepend };
    Some(Ok((if de_preferred { seen.de_preferred(internal) } else { seen }, yielding)))
}

#[cfg(test)]
mod tests;
