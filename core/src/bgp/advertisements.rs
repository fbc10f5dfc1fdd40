//! The valid BGPAdvertisements of a cluster, with the values of their communities. Pure functions.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ferrolb_proto::facts::{BgpAdvertisement, Community, CommunityRef, CommunityValue, Pool};
use ferrolb_proto::range::{AddressRange, Family};

use crate::announce::{ClusterView, SelectedPool, ServiceView};

/// A BGPAdvertisement whose community names are all resolved to values.
#[derive(Debug)]
pub(super) struct ResolvedAdvertisement<'a> {
    pub(super) of: &'a BgpAdvertisement,
    pub(super) communities: BTreeSet<CommunityValue>,
}

/// The valid BGPAdvertisements of a cluster, the oldest first. An unknown community name blocks the
/// whole advertisement, so that a restricted route never leaks.
#[derive(Debug, Default)]
pub struct BgpAdvertisements<'a>(Vec<ResolvedAdvertisement<'a>>);

impl<'a> BgpAdvertisements<'a> {
    /// Selects the valid ones of all BGPAdvertisements and resolves their community names.
    /// `communities` are sorted by name; if two of them define the same alias, the first one
    /// applies.
    pub fn new(
        advertisements: impl IntoIterator<Item = &'a BgpAdvertisement>,
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
        let valid = advertisements.into_iter().filter(|of| of.problem.is_none());
        let ad = |of: &'a BgpAdvertisement| {
            Some(ResolvedAdvertisement {
                of,
                communities: of.communities.iter().map(value).collect::<Option<_>>()?,
            })
        };
        let mut advertisements: Vec<_> = valid.filter_map(ad).collect();
        advertisements.sort_by_key(|ad| (ad.of.created, &*ad.of.name));
        Self(advertisements)
    }

    /// Returns the indexes of the advertisements that announce an address of a Service, from any
    /// node and to any router, ascending.
    #[must_use]
    pub fn announcing(
        &self,
        view: &ClusterView<'_>,
        service: &ServiceView<'_>,
        address: IpAddr,
    ) -> Vec<usize> {
        let Some(pool) = view.selected_pool(service, address) else { return Vec::new() };
        let announces = |index: &usize| {
            let ad = self.0[*index].of;
            let selects_pool = match pool {
                SelectedPool::Exists(pool) => {
                    ad.selects_pool(pool) && too_wide_prefix(ad, pool).is_none()
                }
                // The ranges are unknown, so a prefix could be too wide.
                SelectedPool::Missing(name) => ad.names_pool(name) && !ad.aggregates(),
            };
            selects_pool && ad.selectors.select_service(|| service.labels())
        };
        (0..self.0.len()).filter(announces).collect()
    }

    /// Returns the advertisement with this index; see [`Self::announcing`].
    pub(super) fn get(&self, index: usize) -> &ResolvedAdvertisement<'a> {
        &self.0[index]
    }
}

/// Returns the address family in which the advertisement's prefixes are wider than a range of the
/// pool, and the shortest prefix length that fits into every range; `None` if all prefixes fit. A
/// wider prefix would attract traffic for addresses outside the pool; MetalLB refuses it, too. A
/// prefix fits into a range if the range contains a whole aligned network of that length.
#[must_use]
pub fn too_wide_prefix(ad: &BgpAdvertisement, pool: &Pool) -> Option<(Family, u8)> {
    let shortest = |family| {
        let ranges = pool.ranges.iter().filter(|range| range.family() == family);
        ranges.map(AddressRange::widest_network).max()
    };
    let too_wide =
        |family| shortest(family).filter(|shortest| ad.aggregation_length(family) < *shortest);
    [Family::V4, Family::V6].into_iter().find_map(|family| Some((family, too_wide(family)?)))
}
