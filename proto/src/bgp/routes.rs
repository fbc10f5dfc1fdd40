//! What a node announces by BGP, and to whom. Pure.
//!
//! Each address is judged by itself, by endpoints of its own family: unlike on a wire, where one node answers for all addresses of
//! a Service, every node that can serve an address announces it, and routers spread connections over them (ECMP).

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::{Attributes, Class, Prefix, Sessions};
use crate::announce::{Scene, Served};
use crate::facts::{BgpAdvertisement, Community, CommunityRef, CommunityValue, Node, Pool};
use crate::range::{AddressRange, Family};
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
    pub advertisements: Vec<&'a BgpAdvertisement>,
    /// All Communities, by name: of two that give a name the first counts.
    pub communities: Vec<&'a Community>,
}

/// What a node announces: its prefixes, each with who sees it and how. Prefixes that nobody sees are not there.
pub type Routes = BTreeMap<Prefix, Arc<Class>>;

/// An advertisement of this node whose communities all stand for something.
struct Ad<'a> {
    of: &'a BgpAdvertisement,
    communities: BTreeSet<CommunityValue>,
}

/// What is known of an address, of all the Services that have it.
#[derive(Default)]
struct Standing {
    /// A Service has a usable endpoint somewhere.
    counts: bool,
    /// One of those is not served on the node.
    unserved: bool,
    /// The places of the advertisements that announce it.
    ads: BTreeSet<usize>,
}

/// The routes of a node for these Services. Those of one address count together: each that has a usable endpoint somewhere must be served.
pub fn routes<'a>(scene: &Scene<'a>, asked: &Asked<'a, '_>, services: impl IntoIterator<Item = Served<'a>>) -> Routes {
    let ads = usable(asked);
    if ads.is_empty() || asked.sessions.with.is_empty() || scene.bar(asked.node).is_some() {
        return Routes::default();
    }
    let mut by_pool: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    let mut standings: BTreeMap<IpAddr, Standing> = BTreeMap::new();
    for served in services {
        for address in served.assigned {
            let pool = scene.pool_of(served.from_pool, *address);
            let of_pool = |pool: &Pool| -> Vec<usize> {
                let announces = |ad: &Ad<'_>| ad.of.selects_pool(pool) && too_wide(ad.of, pool).is_none();
                (0..ads.len()).filter(|place| announces(&ads[*place])).collect()
            };
            let places = pool.map(|pool| by_pool.entry(&pool.name).or_insert_with(|| of_pool(pool)).as_slice());
            let selected =
                places.into_iter().flatten().filter(|place| ads[**place].of.selects_service(|| served.labels()));
            let standing = standings.entry(*address).or_default();
            standing.ads.extend(selected);
            let on_node = judge(&served, *address, &asked.node.name);
            standing.counts |= on_node != Verdict::NoEndpoint;
            standing.unserved |= on_node != Verdict::NoEndpoint && !on_node.serves();
        }
    }
    classified(&ads, asked.sessions, standings)
}

fn judge(served: &Served<'_>, address: IpAddr, node: &str) -> Verdict {
    let Served { policy, usable, endpoints, .. } = served;
    verdict(*policy, *usable, [Family::of(address)], node, endpoints.iter().copied(), &[])
}

/// The advertisements that select the node and can be sent as they are written, the oldest first. One with a name that stands for no
/// community announces nothing: what it was to keep from spreading would spread.
fn usable<'a>(asked: &Asked<'a, '_>) -> Vec<Ad<'a>> {
    let mut aliases = BTreeMap::new();
    for (alias, value) in asked.communities.iter().flat_map(|community| &community.aliases) {
        aliases.entry(&**alias).or_insert(*value);
    }
    let value = |community: &CommunityRef| match community {
        CommunityRef::Value(value) => Some(*value),
        CommunityRef::Name(name) => aliases.get(&**name).copied(),
    };
    let ad = |of: &&'a BgpAdvertisement| {
        let of = *of;
        let communities = of.communities.iter().map(value).collect::<Option<_>>()?;
        (of.problem.is_none() && of.selects_node(&asked.node.labels)).then_some(Ad { of, communities })
    };
    let mut ads: Vec<_> = asked.advertisements.iter().filter_map(ad).collect();
    ads.sort_by_key(|ad| (ad.of.created, &*ad.of.name));
    ads
}

/// Where the prefixes of an advertisement would hold addresses that are not the pool's own, so far as these are aligned: the family, and
/// the shortest length that can be had. One that is wider than the pool's widest network would draw traffic for addresses that are others'
/// (MetalLB refuses it).
#[must_use]
pub fn too_wide(ad: &BgpAdvertisement, pool: &Pool) -> Option<(Family, u8)> {
    let shortest = |family| {
        let ranges = pool.ranges.iter().filter(|range| range.family() == family);
        ranges.map(AddressRange::widest_network).max()
    };
    let wide = |family| shortest(family).filter(|shortest| ad.length(family) < *shortest);
    [Family::V4, Family::V6].into_iter().find_map(|family| Some((family, wide(family)?)))
}

/// The routes for the addresses that the node can serve.
fn classified(ads: &[Ad<'_>], sessions: &Sessions<'_>, standings: BTreeMap<IpAddr, Standing>) -> Routes {
    let mut prefixes: BTreeMap<Prefix, BTreeSet<usize>> = BTreeMap::new();
    for (address, standing) in standings.into_iter().filter(|(_, standing)| standing.counts && !standing.unserved) {
        for place in standing.ads {
            let length = ads[place].of.length(Family::of(address));
            prefixes.entry(Prefix::of(address, length)).or_default().insert(place);
        }
    }
    // Ten thousand prefixes are of a handful of classes.
    let mut classes: BTreeMap<(Family, BTreeSet<usize>), Arc<Class>> = BTreeMap::new();
    let routes = prefixes.into_iter().map(|(prefix, places)| {
        let class = classes.entry((prefix.family(), places)).or_insert_with_key(|(family, places)| {
            Arc::new(class(&places.iter().map(|place| &ads[*place]).collect::<Vec<_>>(), *family, sessions))
        });
        (prefix, Arc::clone(class))
    });
    routes.filter(|(_, class)| !class.seen_as.is_empty()).collect()
}

/// How routers see what these advertisements announce together, the oldest first. For one router their communities add up; where what
/// there is one of differs, the older has its way, and the younger does not announce to it.
fn class(ads: &[&Ad<'_>], family: Family, sessions: &Sessions<'_>) -> Class {
    let mut class = Class::default();
    for (peer, session) in sessions.with.iter().filter(|(_, session)| session.carries(family)) {
        let mut selecting = ads.iter().filter(|ad| ad.of.selects_peer(&peer.name));
        let Some(oldest) = selecting.next() else { continue };
        let BgpAdvertisement { local_pref, med, prepend, .. } = *oldest.of;
        let mut communities = oldest.communities.clone();
        for ad in selecting.filter(|ad| (ad.of.local_pref, ad.of.med, ad.of.prepend) == (local_pref, med, prepend)) {
            if communities.union(&ad.communities).count() <= COMMUNITIES_MAX {
                communities.extend(&ad.communities);
            }
        }
        // A router of our own AS would take a path with our number in it for a loop; to others LOCAL_PREF is not sent.
        let internal = session.is_internal();
        let (local_pref, prepend) = (local_pref.filter(|_| internal), if internal { 0 } else { prepend });
        class.insert(&peer.name, Attributes { communities, local_pref, med, prepend });
    }
    class
}

#[cfg(test)]
mod tests;
