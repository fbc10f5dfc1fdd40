//! Election units: the groups of Services that share addresses, with who may announce them, fitted to this node's links. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ferrolb_proto::announce::{Group, Scene, Served, groups};
use ferrolb_proto::election::{Unit, rank};
use ferrolb_proto::facts::{Advertisement, Key};
use ferrolb_proto::range::Family;
use ferrolb_proto::verdict::Verdict;
use ferrolb_proto::wire::hello::Flags;

use super::{probes, slices};
use crate::event::Link;
use crate::state::{KeptService, State};

/// How many of the first in line for a unit are prepared to answer for it.
const PREPARED: usize = 3;

/// How many units that are gone may stand between two that are not. More, as when most Services go at once, and the rest is made anew.
const KEPT_LOOKAHEAD: usize = 64;

/// How many Services get each verdict.
pub(super) type Verdicts = BTreeMap<Verdict, i64>;

/// A unit before it is fitted to a link.
pub(super) struct Draft<'a> {
    unit: Arc<Unit>,
    /// For each address, the advertisements that announce it from this node.
    own: Vec<Vec<&'a Advertisement>>,
}

impl Draft<'_> {
    /// The unit on one link of this node: where an address has no advertisement that selects the link, this node is no
    /// candidate there. The names of other nodes' links are theirs to know. All other links share the one unit.
    pub(super) fn on(&self, link: &Link, node: &str) -> Arc<Unit> {
        if self.selects(link) {
            return Arc::clone(&self.unit);
        }
        let others = self.unit.candidates.iter().filter(|candidate| *candidate.node != *node);
        Arc::new(Unit { candidates: others.cloned().collect(), ..(*self.unit).clone() })
    }

    /// True if every address of the unit has an advertisement that announces it from this node on
    /// this link.
    pub(super) fn selects(&self, link: &Link) -> bool {
        self.own.iter().all(|ads| ads.iter().any(|ad| ad.selects_interface(&link.name)))
    }
}

/// What all units stand in.
pub(super) fn scene(state: &State) -> Scene<'_> {
    let ignore_label = state.config.ignore_exclude_label;
    Scene::new(state.nodes.values(), state.pools.values(), state.advertisements.values(), ignore_label)
}

/// Every unit of the cluster that has an address to announce, by the name of its first Service. One after the other: what
/// leads to a unit takes more room than the unit. `failing`: the Services that this node fails by their health checks, and of which families.
/// The verdicts on this node are counted on the way.
pub(super) fn drafts<'a>(
    state: &'a State,
    scene: &Scene<'a>,
    failing: &BTreeSet<(&'a Key, Family)>,
    verdicts: &mut Verdicts,
) -> impl Iterator<Item = Draft<'a>> {
    all_groups(state, scene, failing).filter_map(|(_, group)| {
        group.verdicts(&state.config.node).for_each(|verdict| *verdicts.entry(verdict).or_default() += 1);
        draft(state, scene, &group)
    })
}

/// The verdict on this node for each Service that has an address that could be announced.
pub(super) fn verdicts(state: &State) -> BTreeMap<&Key, Verdict> {
    let keys: Vec<_> = state.services.iter().map(|(key, _)| key).collect();
    let mut verdicts = BTreeMap::new();
    for (places, group) in all_groups(state, &scene(state), &probes::checked(state).failing) {
        let keys = places.into_iter().map(|place| keys[place]);
        verdicts.extend(keys.zip(group.verdicts(&state.config.node)));
    }
    verdicts
}

/// The groups of Services that have something to announce, each with the places of its Services.
fn all_groups<'a>(
    state: &'a State,
    scene: &Scene<'a>,
    failing: &BTreeSet<(&'a Key, Family)>,
) -> impl Iterator<Item = (Vec<usize>, Group<'a>)> {
    let services: Vec<_> = state.services.iter().collect();
    let slices = slices::by_service(state.slices.iter());
    groups(services.iter().map(|(_, service)| &*service.assigned)).into_iter().filter_map(move |places| {
        let served = places.iter().map(|place| served(state, services[*place], &slices, failing)).collect();
        Some((places, Group::of(scene, served)?))
    })
}

/// The addresses that this node is among the first in line for, as far as the API says: whoever is ahead of it may be gone.
pub(super) fn ahead(units: &[Arc<Unit>], node: &str) -> impl Iterator<Item = IpAddr> {
    let prepared = |unit: &&Arc<Unit>| {
        let rank = |candidate| rank(candidate, Flags::default(), 0, false);
        let own = unit.candidate(node).map(rank);
        own.is_some_and(|own| unit.candidates.iter().filter(|other| rank(other) < own).count() < PREPARED)
    };
    units.iter().filter(prepared).flat_map(|unit| unit.addresses.iter().copied())
}

/// Takes those of the units `before` that say the same. Both are in the order of their Services' names.
pub(super) fn keep(units: &mut [Arc<Unit>], before: &[Arc<Unit>]) {
    let mut rest = before;
    for unit in units {
        let first = unit.addresses.first();
        // One that is gone stands before it, or some; one that is new has none.
        let Some(place) = rest.iter().take(KEPT_LOOKAHEAD).position(|before| before.addresses.first() == first) else {
            continue;
        };
        if rest[place] == *unit {
            *unit = Arc::clone(&rest[place]);
        }
        rest = &rest[place + 1..];
    }
}

fn draft<'a>(state: &'a State, scene: &Scene<'a>, group: &Group<'a>) -> Option<Draft<'a>> {
    // Of thousands that only BGP announces, nobody asks who would be first on a link.
    if group.addresses().is_empty() {
        return None;
    }
    let unit = Unit {
        addresses: group.addresses().into(),
        candidates: group.candidates(scene),
        serves_here: group.is_served_on(&state.config.node),
        failing: group.failing_on(&state.config.node).collect(),
    };
    let labels = state.own_node().map(|node| &node.labels);
    let from_here = |ads: &[&'a Advertisement]| {
        ads.iter().copied().filter(|ad| labels.is_some_and(|labels| ad.selects_node(labels))).collect()
    };
    Some(Draft { unit: Arc::new(unit), own: group.advertised().map(from_here).collect() })
}

/// A Service, with what of it fails on this node.
pub(super) fn served<'a>(
    state: &'a State,
    (key, service): (&'a Key, &'a KeptService),
    slices: &[slices::Named<'a>],
    failing: &BTreeSet<(&'a Key, Family)>,
) -> Served<'a> {
    let families = [Family::V4, Family::V6].into_iter().filter(|family| failing.contains(&(key, *family)));

    Served {
        policy: service.policy,
        usable: service.usable,
        assigned: &service.assigned,
        from_pool: service.from_pool.as_deref(),
        labels: &service.labels,
        endpoints: slices::of(slices, key).flat_map(|slice| &slice.endpoints).collect(),
        failing_on: families.map(|family| (&*state.config.node, family)).collect(),
    }
}
