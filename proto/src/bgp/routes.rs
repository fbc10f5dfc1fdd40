//! What a node announces by BGP, and to whom. Pure.
//!
//! Each address is judged by itself, by endpoints of its own family: unlike on a wire, where one node answers for all addresses of
//! a Service, every node that can serve an address announces it, and routers spread connections over them (ECMP).

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::ads::{Ad, Ads};
use super::{Attributes, Class, Prefix, Relief, Sessions};
use crate::announce::{Bar, Scene, Served};
use crate::facts::{BgpAdvertisement, Node, Pool, Session};
use crate::range::Family;
use crate::verdict::{Verdict, verdict};

/// Communities of one route, from all advertisements: as large ones they fill half of the longest message (RFC 4271 section 4).
const COMMUNITIES_MAX: usize = 160;

/// Whose routes are asked for, and what decides on them beside the Services.
#[derive(Debug)]
pub struct Asked<'a, 's> {
    /// The node.
    pub node: &'a Node,
    /// The routers it speaks with.
    pub sessions: &'s Sessions<'a>,
    /// All BGPAdvertisements.
    pub ads: &'s Ads<'a>,
    /// The node drains, or its data path does not work.
    pub unsound: bool,
    /// What it need not tell any more, because it drains and others do.
    pub relief: &'s Relief,
}

/// What a node announces: its prefixes, each with who sees it and how. Prefixes that nobody sees are not there.
pub type Routes = BTreeMap<Prefix, Arc<Class>>;

/// What comes of [`routes`].
#[derive(Debug, Default)]
pub struct Announcement {
    /// What the node announces.
    pub routes: Routes,
    /// Prefixes of which some router is told no longer, because the node drains and others tell it.
    pub withdrawn: usize,
}

/// What is known of an address on a node, of all the Services that have it.
#[derive(Default)]
struct Standing {
    /// A Service has a usable endpoint somewhere.
    counts: bool,
    /// One of those is not served on the node.
    unserved: bool,
    /// Of one of those, all endpoints on the node fail their health check.
    failing: bool,
}

impl Standing {
    fn of(services: &[Served<'_>], address: IpAddr, node: &str) -> Self {
        let mut standing = Self::default();
        let having = services.iter().filter(|served| served.assigned.contains(&address));
        having.for_each(|served| standing.judge(served, address, node));
        standing
    }

    fn judge(&mut self, served: &Served<'_>, address: IpAddr, node: &str) {
        let Served { policy, usable, endpoints, failing_on, .. } = served;
        let family = Family::of(address);
        let failing = failing_on.contains(&(node, family)).then_some(family);
        let verdict = verdict(*policy, *usable, [family], node, endpoints.iter().copied(), failing.as_slice());
        self.counts |= verdict != Verdict::NoEndpoint;
        self.unserved |= verdict != Verdict::NoEndpoint && !verdict.serves();
        self.failing |= verdict == Verdict::Failing;
    }

    /// Each Service that has a usable endpoint somewhere must be served.
    const fn serves(&self) -> bool {
        self.counts && !self.unserved
    }
}

impl Asked<'_, '_> {
    /// Whether the node is announced as the last resort, whatever the address: as on a link, soft rules give way to another node and never
    /// leave an address without any, and here the routers are who see whether there is another.
    fn is_last(&self) -> bool {
        self.unsound || self.node.cordoned || !self.node.ready
    }
}

/// The routes of a node for these Services. Those of one address count together.
pub fn routes<'a>(
    scene: &Scene<'a>,
    asked: &Asked<'a, '_>,
    services: impl IntoIterator<Item = Served<'a>>,
) -> Announcement {
    let ads = asked.ads.of_node(&asked.node.labels);
    if ads.is_empty() || asked.sessions.with.is_empty() || scene.bar(asked.node).is_some() {
        return Announcement::default();
    }
    let mut by_pool: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    // With the places of the advertisements that announce each.
    let mut standings: BTreeMap<IpAddr, (Standing, BTreeSet<usize>)> = BTreeMap::new();
    for served in services {
        for address in served.assigned {
            let pool = scene.pool_of(served.from_pool, *address);
            let of_pool =
                |pool: &Pool| (0..ads.len()).filter(|place| ads[*place].announces_pool(pool)).collect::<Vec<_>>();
            let places = pool.map(|pool| by_pool.entry(&pool.name).or_insert_with(|| of_pool(pool)).as_slice());
            let selected =
                places.into_iter().flatten().filter(|place| ads[**place].of.selects_service(|| served.labels()));
            let (standing, selecting) = standings.entry(*address).or_default();
            selecting.extend(selected);
            standing.judge(&served, *address, &asked.node.name);
        }
    }
    classified(&ads, asked, standings)
}

/// Whether a node of this name can serve an address of these Services.
pub(super) fn is_served_on(services: &[Served<'_>], address: IpAddr, node: &str) -> bool {
    Standing::of(services, address, node).serves()
}

/// Whom a node tells of an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Audience<'a> {
    /// The names of the BGPPeers of the routers.
    pub peers: BTreeSet<&'a str>,
    /// They are told of it as the last resort.
    pub last: bool,
    /// The BGPAdvertisements that do not announce it to all the routers that they are for, because an older one says otherwise.
    pub yielding: BTreeSet<&'a str>,
}

/// Whom a node tells of an address of these Services: those that have it.
///
/// # Errors
/// Why it tells nobody.
pub fn audience<'a>(
    scene: &Scene<'_>,
    asked: &Asked<'a, '_>,
    services: &[Served<'_>],
    address: IpAddr,
) -> Result<Audience<'a>, Bar> {
    if let Some(bar) = scene.bar(asked.node) {
        return Err(bar);
    }
    let having = || services.iter().filter(|served| served.assigned.contains(&address));
    let announces = |ad: &&Ad<'_>| {
        let of_pool = |served: &Served<'_>| scene.pool_of(served.from_pool, address);
        having().any(|served| of_pool(served).is_some_and(|pool| ad.announces(pool, served)))
    };
    let mut ads = asked.ads.of_node(&asked.node.labels);
    ads.retain(announces);
    if ads.is_empty() {
        return Err(Bar::NotSelected);
    }
    let standing = Standing::of(services, address, &asked.node.name);
    if !standing.counts {
        return Err(Bar::NoEndpoint);
    }
    if standing.unserved {
        return Err(Bar::CannotServe);
    }
    let carrying = asked.sessions.with.iter().filter(|(_, session)| session.carries(Family::of(address)));
    let last = asked.is_last() || standing.failing;
    let mut audience = Audience { peers: BTreeSet::new(), last, yielding: BTreeSet::new() };
    let mut bar = Bar::NoRouter;
    for (peer, session) in carrying {
        match heard(&ads, &peer.name, session, last) {
            Some(Ok((_, yielding))) => {
                audience.peers.insert(&*peer.name);
                audience.yielding.extend(yielding);
            }
            Some(Err(TooMany)) => bar = Bar::TooManyCommunities,
            None => {}
        }
    }
    if audience.peers.is_empty() { Err(bar) } else { Ok(audience) }
}

/// A prefix, of the addresses in it that the node can serve.
struct Joined<'r> {
    /// All of them are of the last resort.
    last: bool,
    /// The BGPPeers whose routers need to be told of none of them; none: no address has been looked at.
    relief: Option<BTreeSet<&'r str>>,
    /// The places of the advertisements that announce one.
    places: BTreeSet<usize>,
}

/// What prefixes of one class have in common: their family, and what is in [`Joined`].
type Sort<'r> = (Family, bool, BTreeSet<&'r str>, BTreeSet<usize>);

/// The routes for the addresses that the node can serve.
fn classified(
    ads: &[&Ad<'_>],
    asked: &Asked<'_, '_>,
    standings: BTreeMap<IpAddr, (Standing, BTreeSet<usize>)>,
) -> Announcement {
    let mut prefixes: BTreeMap<Prefix, Joined<'_>> = BTreeMap::new();
    for (address, (standing, places)) in standings.into_iter().filter(|(_, (standing, _))| standing.serves()) {
        let relief: BTreeSet<_> = asked.relief.get(&address).into_iter().flatten().map(|peer| &**peer).collect();
        for place in places {
            let length = ads[place].of.length(Family::of(address));
            let joined = prefixes.entry(Prefix::of(address, length));
            let joined = joined.or_insert(Joined { last: true, relief: None, places: BTreeSet::new() });
            joined.last &= asked.is_last() || standing.failing;
            joined.relief = Some(joined.relief.take().map_or_else(|| relief.clone(), |all| &all & &relief));
            joined.places.insert(place);
        }
    }
    // Ten thousand prefixes are of a handful of classes. With each, whether the relief leaves a router out of it.
    let mut classes = BTreeMap::<Sort<'_>, (Arc<Class>, bool)>::new();
    let mut announcement = Announcement::default();
    for (prefix, Joined { last, relief, places }) in prefixes {
        let sort = (prefix.family(), last, relief.unwrap_or_default(), places);
        let (class, relieved) = classes.entry(sort).or_insert_with_key(|(family, last, relief, places)| {
            let ads = places.iter().map(|place| ads[*place]).collect::<Vec<_>>();
            let mut class = class(&ads, *family, asked.sessions, *last);
            let relieved = class.relieve(relief);
            (Arc::new(class), relieved)
        });
        announcement.withdrawn += usize::from(*relieved);
        if !class.seen_as.is_empty() {
            announcement.routes.insert(prefix, Arc::clone(class));
        }
    }
    announcement
}

/// How routers see what these advertisements announce together, the oldest first. `last`: as the last resort.
fn class(ads: &[&Ad<'_>], family: Family, sessions: &Sessions<'_>, last: bool) -> Class {
    let mut class = Class::default();
    for (peer, session) in sessions.with.iter().filter(|(_, session)| session.carries(family)) {
        if let Some(Ok((seen, _))) = heard(ads, &peer.name, session, last) {
            class.insert(&peer.name, seen);
        }
    }
    class
}

/// There are more communities than [`COMMUNITIES_MAX`]: without all of them nothing is announced, for what they are to keep from spreading would.
struct TooMany;

/// What one router sees of it, and the names of the advertisements that yield: their communities add up, but where what there is one of
/// differs the older has its way, and the younger does not announce to it. None where none is for this router.
fn heard<'a>(
    ads: &[&Ad<'a>],
    peer: &str,
    session: &Session,
    last: bool,
) -> Option<Result<(Attributes, Vec<&'a str>), TooMany>> {
    let mut selecting = ads.iter().filter(|ad| ad.of.selects_peer(peer));
    let oldest = selecting.next()?;
    let BgpAdvertisement { local_pref, med, prepend, .. } = *oldest.of;
    let (mut communities, mut yielding) = (oldest.communities.clone(), Vec::new());
    for ad in selecting {
        if (ad.of.local_pref, ad.of.med, ad.of.prepend) == (local_pref, med, prepend) {
            communities.extend(&ad.communities);
        } else {
            yielding.push(&*ad.of.name);
        }
    }
    if communities.len() > COMMUNITIES_MAX {
        return Some(Err(TooMany));
    }
    // A router of our own AS would take a path with our number in it for a loop; to others LOCAL_PREF is not sent.
    let internal = session.is_internal();
    let (local_pref, prepend) = (local_pref.filter(|_| internal), if internal { 0 } else { prepend });
    let seen = Attributes { communities, local_pref, med, prepend };
    Some(Ok((if last { seen.of_last_resort(internal) } else { seen }, yielding)))
}

#[cfg(test)]
mod tests;
