//! Computes the condition `Valid` of BGPAdvertisements. Pure functions; called by the state.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ferrolb_core::bgp::too_wide_prefix;
use ferrolb_core::store::Store;
use ferrolb_proto::facts::{BgpAdvertisement, BgpAdvertisementProblem, CommunityRef, Node, Pool};
use ferrolb_proto::range::Family;

use super::super::custom_resources::{CustomResources, StatusResource, Validity};
use super::super::messages::bgp::BgpMessage;
use crate::desired::{CustomResourceStatus, ValidStatus};

/// Inputs of a BGPAdvertisement's status, in addition to the BGPAdvertisement itself.
pub(in crate::state) struct AdvertisementStatusInputs<'a> {
    pools: Vec<&'a Pool>,
    /// For each community name, the Community that defines the name.
    aliases: BTreeMap<&'a str, &'a str>,
    /// The names of all BGPPeers.
    peers: BTreeSet<&'a str>,
    /// For each BGPAdvertisement in conflict, the older BGPAdvertisement that overrides it.
    conflicts: BTreeMap<&'a str, &'a BgpAdvertisement>,
}

impl StatusResource for BgpAdvertisement {
    type StatusInputs<'a> = AdvertisementStatusInputs<'a>;

    fn unreadable(name: Box<str>, why: Box<str>, before: Option<&Self>) -> Self {
        let mut ad = before.cloned().unwrap_or_default();
        (ad.name, ad.problem) = (name, Some(BgpAdvertisementProblem::Unreadable(why)));
        ad
    }

    fn status(&self, inputs: &AdvertisementStatusInputs<'_>) -> Option<CustomResourceStatus> {
        inputs.status(self).map(Self::valid)
    }
}

impl<'a> AdvertisementStatusInputs<'a> {
    /// Collects the inputs from the stores. `aliases` come from
    /// [`alias_owners`](super::super::validity::alias_owners).
    pub(in crate::state) fn of(
        own: &'a CustomResources,
        nodes: &Store<Arc<str>, Node>,
        aliases: BTreeMap<&'a str, &'a str>,
    ) -> Self {
        let advertisements: Vec<_> = own.bgp_advertisements.values().collect();
        let labels: Vec<_> = nodes.values().map(|node| &node.labels).collect();
        let peers = own.peers.keys().map(|name| &**name).collect();
        Self::new(&advertisements, &labels, own.pools.values().collect(), aliases, peers)
    }

    /// Stores the inputs, and computes the conflicts between all BGPAdvertisements. `nodes` has the
    /// labels of each node; if it is empty, assumes one node without labels.
    pub(super) fn new(
        advertisements: &[&'a BgpAdvertisement],
        nodes: &[&BTreeMap<String, String>],
        pools: Vec<&'a Pool>,
        aliases: BTreeMap<&'a str, &'a str>,
        peers: BTreeSet<&'a str>,
    ) -> Self {
        let mut inputs = Self { pools, aliases, peers, conflicts: BTreeMap::new() };
        let is_announced = |ad: &&'a BgpAdvertisement| {
            ad.problem.is_none() && inputs.unknown_communities(ad).next().is_none()
        };
        let mut announcing: Vec<_> = advertisements.iter().copied().filter(is_announced).collect();
        announcing.sort_by_key(|ad| (ad.created, &*ad.name));
        let no_labels = [&BTreeMap::new()];
        let nodes = if nodes.is_empty() { no_labels.as_slice() } else { nodes };
        inputs.conflicts = conflicts(&announcing, nodes, &inputs.pools);
        inputs
    }

    /// Returns the status to write to a BGPAdvertisement; `None` if the current status is up to
    /// date.
    pub(super) fn status(&self, ad: &BgpAdvertisement) -> Option<ValidStatus> {
        ad.changed_validity(&self.message(ad))
    }

    fn message<'s>(&'s self, ad: &'s BgpAdvertisement) -> BgpMessage<'s> {
        if let Some(problem) = &ad.problem {
            return BgpMessage::Problem(problem);
        }
        let communities: Vec<_> = self.unknown_communities(ad).collect();
        if !communities.is_empty() {
            return BgpMessage::UnknownCommunity(communities);
        }
        let is_pool = |name: &str| self.pools.iter().any(|pool| *pool.name == *name);
        let pools = ad.selectors.unknown_pools(is_pool);
        if !pools.is_empty() {
            return BgpMessage::UnknownPool(pools);
        }
        let is_peer = |name: &&str| self.peers.contains(name);
        let peers: Vec<_> =
            ad.peers.iter().map(|name| &**name).filter(|name| !is_peer(name)).collect();
        if !peers.is_empty() {
            return BgpMessage::UnknownPeer(peers);
        }
        let mut selected = self.pools.iter().filter(|pool| ad.selects_pool(pool));
        if let Some((pool, (family, shortest))) =
            selected.find_map(|pool| Some((pool, too_wide_prefix(ad, pool)?)))
        {
            let length = ad.aggregation_length(family);
            return BgpMessage::TooWide { family, length, pool: &pool.name, shortest };
        }
        match self.conflicts.get(&*ad.name) {
            Some(older) => {
                BgpMessage::Conflict { fields: differences(ad, older), older: &older.name }
            }
            None => BgpMessage::Valid,
        }
    }

    /// Returns the community names of an advertisement that no Community defines.
    fn unknown_communities<'s>(
        &'s self,
        ad: &'s BgpAdvertisement,
    ) -> impl Iterator<Item = &'s str> {
        let name = |community: &'s CommunityRef| match community {
            CommunityRef::Name(name) => Some(&**name),
            CommunityRef::Value(_) => None,
        };
        ad.communities.iter().filter_map(name).filter(|name| !self.aliases.contains_key(name))
    }
}

/// Returns the BGPAdvertisements in conflict with an older one, each with the older one. Both
/// advertise the same prefix from the same node to the same router, but with different values of an
/// attribute that a route has only once.
///
/// `advertisements` are sorted by age, and all of them are valid. The result ignores
/// BGPAdvertisements that select only some Services, because the Services are unknown here.
fn conflicts<'a>(
    advertisements: &[&'a BgpAdvertisement],
    nodes: &[&BTreeMap<String, String>],
    pools: &[&Pool],
) -> BTreeMap<&'a str, &'a BgpAdvertisement> {
    let selected_ads = |labels: &BTreeMap<String, String>| -> Vec<usize> {
        let is_selected = |index: &usize| {
            let selectors = &advertisements[*index].selectors;
            selectors.select_any_service() && selectors.select_node(labels)
        };
        (0..advertisements.len()).filter(is_selected).collect()
    };
    let ad_sets: BTreeSet<Vec<usize>> = nodes.iter().map(|labels| selected_ads(labels)).collect();
    // Groups of BGPAdvertisements that advertise common prefixes; each group has indices into
    // `advertisements`.
    let mut groups: BTreeSet<Vec<usize>> = BTreeSet::new();
    for pool in pools {
        let families: BTreeSet<Family> = pool.ranges.iter().map(|range| range.family()).collect();
        for (ad_set, family) in
            ad_sets.iter().flat_map(|ad_set| families.iter().map(move |family| (ad_set, *family)))
        {
            let mut by_length: BTreeMap<u8, Vec<usize>> = BTreeMap::new();
            for index in ad_set.iter().filter(|index| advertisements[**index].selects_pool(pool)) {
                by_length
                    .entry(advertisements[*index].aggregation_length(family))
                    .or_default()
                    .push(*index);
            }
            groups.extend(by_length.into_values().filter(|indices| indices.len() > 1));
        }
    }
    let named = advertisements.iter().flat_map(|ad| &ad.peers).map(|name| &**name);
    // The empty name represents every BGPPeer that no BGPAdvertisement names.
    let peers: BTreeSet<&str> = named.chain([""]).collect();
    let mut conflicts = BTreeMap::new();
    for (group, peer) in
        groups.iter().flat_map(|group| peers.iter().map(move |peer| (group, *peer)))
    {
        let mut announcing =
            group.iter().map(|index| advertisements[*index]).filter(|ad| ad.selects_peer(peer));
        let Some(oldest) = announcing.next() else { continue };
        for ad in announcing.filter(|ad| attributes(ad) != attributes(oldest)) {
            conflicts.entry(&*ad.name).or_insert(oldest);
        }
    }
    conflicts
}

/// Returns the attributes that a route has only once, unlike communities, which several
/// BGPAdvertisements can add.
const fn attributes(ad: &BgpAdvertisement) -> (Option<u32>, Option<u32>, u8) {
    (ad.local_pref, ad.med, ad.as_path_prepend)
}

/// Returns the names of the spec fields behind [`attributes`] in which two BGPAdvertisements
/// differ.
fn differences(one: &BgpAdvertisement, other: &BgpAdvertisement) -> Vec<&'static str> {
    let fields = [
        ("spec.localPref", one.local_pref != other.local_pref),
        ("spec.med", one.med != other.med),
        ("spec.asPathPrepend", one.as_path_prepend != other.as_path_prepend),
    ];
    fields.into_iter().filter(|(_, differs)| *differs).map(|(field, _)| field).collect()
}

#[cfg(test)]
mod tests;
