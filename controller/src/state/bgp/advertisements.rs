//! The condition `Valid` of BGPAdvertisements. Pure functions; the state asks them.

use std::collections::{BTreeMap, BTreeSet};

use ferrolb_proto::api::StatusFields;
use ferrolb_proto::bgp::too_wide;
use ferrolb_proto::facts::{BgpAdvertisement, BgpAdvertisementProblem, CommunityRef, Pool};
use ferrolb_proto::range::Family;

use super::super::validity::{Fault, verdict};
use super::few;
use crate::desired::ValidStatus;

/// What decides on BGPAdvertisements beside themselves.
pub(super) struct Surroundings<'a> {
    pools: Vec<&'a Pool>,
    /// By the name of a community, the Community that gives it.
    aliases: BTreeMap<&'a str, &'a str>,
    /// The names of all BGPPeers.
    peers: BTreeSet<&'a str>,
    /// Who has to yield to whom.
    conflicts: BTreeMap<&'a str, &'a BgpAdvertisement>,
}

impl<'a> Surroundings<'a> {
    /// Those of all advertisements in a cluster with these nodes, by their labels. Where no node is known, as if there were one
    /// without labels.
    pub(super) fn new(
        ads: &[&'a BgpAdvertisement],
        nodes: &[&BTreeMap<String, String>],
        pools: Vec<&'a Pool>,
        aliases: BTreeMap<&'a str, &'a str>,
        peers: BTreeSet<&'a str>,
    ) -> Self {
        let mut surroundings = Self { pools, aliases, peers, conflicts: BTreeMap::new() };
        let announces = |ad: &&'a BgpAdvertisement| ad.problem.is_none() && surroundings.strange(ad).next().is_none();
        let mut announcing: Vec<_> = ads.iter().copied().filter(announces).collect();
        announcing.sort_by_key(|ad| (ad.created, &*ad.name));
        let bare = [&BTreeMap::new()];
        let nodes = if nodes.is_empty() { bare.as_slice() } else { nodes };
        surroundings.conflicts = conflicts(&announcing, nodes, &surroundings.pools);
        surroundings
    }

    /// The status that an advertisement should have; none when it has it, or its CRD has no place for it.
    pub(super) fn status(&self, ad: &BgpAdvertisement, fields: &StatusFields) -> Option<ValidStatus> {
        let is = (ad.status.conditions.as_slice(), ad.status.observed_generation);
        let (wanted, same) = verdict(self.fault(ad), "what this advertisement selects is announced", ad.generation, is);
        (!same && fields.has("conditions")).then_some(wanted)
    }

    fn fault(&self, ad: &BgpAdvertisement) -> Option<Fault> {
        let fault = |reason, message: String| Some(Fault { reason, message: message.into() });
        if let Some(problem) = &ad.problem {
            return fault(reason(problem), problem.to_string());
        }
        if let Some(names) = few(self.strange(ad)) {
            let message = format!("spec.communities: no Community gives the name {names}; nothing is announced by it");
            return fault("UnknownCommunity", message);
        }
        let is_pool = |name: &str| self.pools.iter().any(|pool| *pool.name == *name);
        if let Some(names) = few(ad.pools.iter().map(String::as_str).filter(|name| !is_pool(name))) {
            let message =
                format!("spec.ipAddressPools: there is no IPAddressPool {names}; what else is selected is announced");
            return fault("UnknownPool", message);
        }
        if let Some(names) = few(ad.peers.iter().map(|name| &**name).filter(|name| !self.peers.contains(name))) {
            let message = format!("spec.peers: there is no BGPPeer {names}; to what else is named it is announced");
            return fault("UnknownPeer", message);
        }
        let selected = self.pools.iter().filter(|pool| ad.selects_pool(pool));
        if let Some((pool, (family, shortest))) =
            selected.into_iter().find_map(|pool| Some((pool, too_wide(ad, pool)?)))
        {
            let (field, length) = (field(family), ad.length(family));
            let message = format!(
                "spec.{field}: a prefix of {length} bits is wider than pool {} and would draw traffic for addresses that are not its \
                 own, so that the pool is not announced by it: write {shortest} or more",
                pool.name
            );
            return fault("TooWide", message);
        }
        let older = self.conflicts.get(&*ad.name)?;
        let message = format!(
            "{}: BGPAdvertisement {} announces the same prefixes otherwise, and is older: it has its way with the routers of both",
            differences(ad, older),
            older.name
        );
        fault("Conflict", message)
    }

    /// The names of communities that no Community gives.
    fn strange<'s>(&'s self, ad: &'s BgpAdvertisement) -> impl Iterator<Item = &'s str> {
        let name = |community: &'s CommunityRef| match community {
            CommunityRef::Name(name) => Some(&**name),
            CommunityRef::Value(_) => None,
        };
        ad.communities.iter().filter_map(name).filter(|name| !self.aliases.contains_key(name))
    }
}

/// Who announces what an older one announces to the same router from the same node, and says something else of which there can be
/// only one. `ads` are in the order of their age, and each could announce; Services are not known here, so those that select some of
/// them are left out.
fn conflicts<'a>(
    ads: &[&'a BgpAdvertisement],
    nodes: &[&BTreeMap<String, String>],
    pools: &[&Pool],
) -> BTreeMap<&'a str, &'a BgpAdvertisement> {
    let here = |labels: &BTreeMap<String, String>| -> Vec<usize> {
        let counts = |place: &usize| ads[*place].selects_any_service() && ads[*place].selects_node(labels);
        (0..ads.len()).filter(counts).collect()
    };
    let sorts: BTreeSet<Vec<usize>> = nodes.iter().map(|labels| here(labels)).collect();
    // Those that have prefixes in common.
    let mut companies: BTreeSet<Vec<usize>> = BTreeSet::new();
    for pool in pools {
        let families: BTreeSet<Family> = pool.ranges.iter().map(|range| range.family()).collect();
        for (sort, family) in sorts.iter().flat_map(|sort| families.iter().map(move |family| (sort, *family))) {
            let mut by_length: BTreeMap<u8, Vec<usize>> = BTreeMap::new();
            for place in sort.iter().filter(|place| ads[**place].selects_pool(pool)) {
                by_length.entry(ads[*place].length(family)).or_default().push(*place);
            }
            companies.extend(by_length.into_values().filter(|places| places.len() > 1));
        }
    }
    let named = ads.iter().flat_map(|ad| &ad.peers).map(|name| &**name);
    // None of that name: one that nobody names.
    let peers: BTreeSet<&str> = named.chain([""]).collect();
    let mut conflicts = BTreeMap::new();
    for (company, peer) in companies.iter().flat_map(|company| peers.iter().map(move |peer| (company, *peer))) {
        let mut announcing = company.iter().map(|place| ads[*place]).filter(|ad| ad.selects_peer(peer));
        let Some(oldest) = announcing.next() else { continue };
        for ad in announcing.filter(|ad| attributes(ad) != attributes(oldest)) {
            conflicts.entry(&*ad.name).or_insert(oldest);
        }
    }
    conflicts
}

/// What a route has one of.
const fn attributes(ad: &BgpAdvertisement) -> (Option<u32>, Option<u32>, u8) {
    (ad.local_pref, ad.med, ad.prepend)
}

/// The fields of [`attributes`] that differ.
fn differences(one: &BgpAdvertisement, other: &BgpAdvertisement) -> String {
    let fields = [
        ("spec.localPref", one.local_pref != other.local_pref),
        ("spec.med", one.med != other.med),
        ("spec.asPathPrepend", one.prepend != other.prepend),
    ];
    fields.into_iter().filter(|(_, differs)| *differs).map(|(field, _)| field).collect::<Vec<_>>().join(", ")
}

const fn field(family: Family) -> &'static str {
    match family {
        Family::V4 => "aggregationLength",
        Family::V6 => "aggregationLengthV6",
    }
}

const fn reason(problem: &BgpAdvertisementProblem) -> &'static str {
    match problem {
        BgpAdvertisementProblem::Length { .. } | BgpAdvertisementProblem::SelectedPrefix => "BadLength",
        BgpAdvertisementProblem::Twice(_) => "BadCommunity",
        BgpAdvertisementProblem::Selector(_) => "BadSelector",
        BgpAdvertisementProblem::Unreadable(_) => "Unreadable",
    }
}

#[cfg(test)]
mod tests;
