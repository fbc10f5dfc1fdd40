//! The BGPAdvertisements of a cluster, as they can be sent. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::announce::{Scene, Served};
use crate::facts::{BgpAdvertisement, Community, CommunityRef, CommunityValue, Pool};
use crate::range::{AddressRange, Family};

/// An advertisement whose communities all stand for something.
#[derive(Debug)]
pub(super) struct Ad<'a> {
    pub(super) of: &'a BgpAdvertisement,
    pub(super) communities: BTreeSet<CommunityValue>,
}

/// The advertisements that can be sent as they are written, the oldest first. One with a name that stands for no community announces nothing:
/// what it was to keep from spreading would spread.
#[derive(Debug, Default)]
pub struct Ads<'a>(Vec<Ad<'a>>);

impl<'a> Ads<'a> {
    /// Those of all advertisements, with all Communities, by name: of two that give a name the first counts.
    pub fn new(
        ads: impl IntoIterator<Item = &'a BgpAdvertisement>,
        communities: impl IntoIterator<Item = &'a Community>,
    ) -> Self {
        let mut aliases = BTreeMap::new();
        for (alias, value) in communities.into_iter().flat_map(|community| &community.aliases) {
            aliases.entry(&**alias).or_insert(*value);
        }
        let value = |community: &CommunityRef| match community {
            CommunityRef::Value(value) => Some(*value),
            CommunityRef::Name(name) => aliases.get(&**name).copied(),
        };
        let sound = ads.into_iter().filter(|of| of.problem.is_none());
        let ad = |of: &'a BgpAdvertisement| {
            Some(Ad { of, communities: of.communities.iter().map(value).collect::<Option<_>>()? })
        };
        let mut ads: Vec<_> = sound.filter_map(ad).collect();
        ads.sort_by_key(|ad| (ad.of.created, &*ad.of.name));
        Self(ads)
    }

    /// Whether one of them announces an address of a Service, from whatever node and to whomever.
    #[must_use]
    pub fn announce(&self, scene: &Scene<'_>, served: &Served<'_>, address: IpAddr) -> bool {
        let pool = scene.pool_of(served.from_pool, address);
        pool.is_some_and(|pool| self.0.iter().any(|ad| ad.announces(pool, served)))
    }

    /// Those that announce from a node with these labels.
    pub(super) fn of_node(&self, labels: &BTreeMap<String, String>) -> Vec<&Ad<'a>> {
        self.0.iter().filter(|ad| ad.of.selects_node(labels)).collect()
    }
}

impl Ad<'_> {
    /// Whether it announces addresses of a pool.
    pub(super) fn announces_pool(&self, pool: &Pool) -> bool {
        self.of.selects_pool(pool) && too_wide(self.of, pool).is_none()
    }

    /// Whether it announces a Service's addresses of a pool.
    pub(super) fn announces(&self, pool: &Pool, served: &Served<'_>) -> bool {
        self.announces_pool(pool) && self.of.selects_service(|| served.labels())
    }
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
