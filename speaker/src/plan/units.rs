//! Election units: groups of Services that share addresses, with the nodes that may announce them,
//! adapted to this node's interfaces. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ferrolb_proto::announce::{ClusterView, ServiceView, SharingGroup, sharing_groups};
use ferrolb_proto::election::{Unit, rank};
use ferrolb_proto::facts::{Key, L2Advertisement};
use ferrolb_proto::range::Family;
use ferrolb_proto::verdict::Verdict;
use ferrolb_proto::wire::hello::Flags;

use super::{probes, slices};
use crate::event::Link;
use crate::state::{ReducedService, State};

/// Number of a unit's best candidates that prepare to announce its addresses: these candidates
/// already receive the neighbor solicitations for the addresses.
const PREPARED_CANDIDATES: usize = 3;

/// Number of units of the previous plan among which [`reuse_equal`] searches for the next unit,
/// since removed units may precede it. If more are removed in a row, as when most Services are
/// deleted at once, the units after them are not shared with the previous plan.
const REUSE_LOOKAHEAD: usize = 64;

/// Number of Services for each verdict.
pub(super) type Verdicts = BTreeMap<Verdict, i64>;

/// Election unit as it is before interface selectors are applied.
pub(super) struct ClusterUnit<'a> {
    unit: Arc<Unit>,
    /// For each address of the unit, the advertisements by which this node announces it.
    own_advertisements: Vec<Vec<&'a L2Advertisement>>,
}

impl ClusterUnit<'_> {
    /// Returns the unit for one interface of this node. If an address has no advertisement that
    /// selects the interface, this node is not a candidate there. Each node evaluates interface
    /// selectors only for itself. All interfaces on which this node is a candidate share one unit
    /// in memory.
    pub(super) fn for_interface(&self, link: &Link, node: &str) -> Arc<Unit> {
        if self.selects(link) {
            return Arc::clone(&self.unit);
        }
        let others = self.unit.candidates.iter().filter(|candidate| *candidate.node != *node);
        Arc::new(Unit { candidates: others.cloned().collect(), ..(*self.unit).clone() })
    }

    /// Returns whether every address of the unit has an advertisement that announces it from this
    /// node on this interface.
    pub(super) fn selects(&self, link: &Link) -> bool {
        self.own_advertisements
            .iter()
            .all(|advertisements| advertisements.iter().any(|ad| ad.selects_interface(&link.name)))
    }
}

/// Returns the Nodes, pools and advertisements of the cluster, which all units share.
pub(super) fn cluster_view(state: &State) -> ClusterView<'_> {
    let ignore_label = state.config.ignore_exclude_label;
    ClusterView::new(
        state.nodes.values(),
        state.pools.values(),
        state.advertisements.values(),
        ignore_label,
    )
}

/// Returns every election unit of the cluster that has an address to announce, in the order of the
/// unit's first Service. Also counts the Services for each verdict on this node, in `verdicts`.
///
/// `failing` holds the Services that fail their health checks on this node, each with the family.
/// The result is an iterator, because the intermediate data of a unit is larger than the unit and
/// must not exist for all units at once.
pub(super) fn cluster_units<'a>(
    state: &'a State,
    cluster: &ClusterView<'a>,
    failing: &BTreeSet<(&'a Key, Family)>,
    verdicts: &mut Verdicts,
) -> impl Iterator<Item = ClusterUnit<'a>> {
    all_groups(state, cluster, failing).filter_map(|(_, group)| {
        group
            .verdicts(&state.config.node)
            .for_each(|verdict| *verdicts.entry(verdict).or_default() += 1);
        cluster_unit(state, cluster, &group)
    })
}

/// Returns the verdict on this node for each Service that has an address which may be announced.
pub(super) fn verdicts(state: &State) -> BTreeMap<&Key, Verdict> {
    let keys: Vec<_> = state.services.iter().map(|(key, _)| key).collect();
    let mut verdicts = BTreeMap::new();
    for (indexes, group) in
        all_groups(state, &cluster_view(state), &probes::health_checks(state).failing)
    {
        let keys = indexes.into_iter().map(|index| keys[index]);
        verdicts.extend(keys.zip(group.verdicts(&state.config.node)));
    }
    verdicts
}

/// Returns the groups of Services that are connected by shared addresses, each with the indexes of
/// its Services. Services without an address which may be announced are left out.
fn all_groups<'a>(
    state: &'a State,
    cluster: &ClusterView<'a>,
    failing: &BTreeSet<(&'a Key, Family)>,
) -> impl Iterator<Item = (Vec<usize>, SharingGroup<'a>)> {
    let services: Vec<_> = state.services.iter().collect();
    let slices = slices::by_service(state.slices.iter());
    sharing_groups(services.iter().map(|(_, service)| &*service.assigned)).into_iter().filter_map(
        move |indexes| {
            let service_views = indexes
                .iter()
                .map(|index| service_view(state, services[*index], &slices, failing))
                .collect();
            Some((indexes, SharingGroup::of(cluster, service_views)?))
        },
    )
}

/// Returns the addresses for which this node is among the best [`PREPARED_CANDIDATES`] candidates
/// according to the Kubernetes objects alone. The better candidates may have failed, so this node
/// may soon own the addresses.
pub(super) fn prepared_addresses(units: &[Arc<Unit>], node: &str) -> impl Iterator<Item = IpAddr> {
    let prepared = |unit: &&Arc<Unit>| {
        let rank = |candidate| rank(candidate, Flags::default(), 0, false);
        let own = unit.candidate(node).map(rank);
        own.is_some_and(|own| {
            unit.candidates.iter().filter(|other| rank(other) < own).count() < PREPARED_CANDIDATES
        })
    };
    units.iter().filter(prepared).flat_map(|unit| unit.addresses.iter().copied())
}

/// Replaces each unit by the equal one in `before`, if there is one, so that both plans share it in
/// memory. `units` and `before` are ordered by the names of their first Services.
pub(super) fn reuse_equal(units: &mut [Arc<Unit>], before: &[Arc<Unit>]) {
    let mut remaining = before;
    for unit in units {
        let first = unit.addresses.first();
        // In `before`, removed units may precede this unit. A new unit is not in `before`.
        let Some(index) = remaining
            .iter()
            .take(REUSE_LOOKAHEAD)
            .position(|before| before.addresses.first() == first)
        else {
            continue;
        };
        if remaining[index] == *unit {
            *unit = Arc::clone(&remaining[index]);
        }
        remaining = &remaining[index + 1..];
    }
}

fn cluster_unit<'a>(
    state: &'a State,
    cluster: &ClusterView<'a>,
    group: &SharingGroup<'a>,
) -> Option<ClusterUnit<'a>> {
    // Services that are only advertised by BGP need no election unit. There may be thousands of
    // them, so the order of their candidates is not computed.
    if group.addresses().is_empty() {
        return None;
    }
    let unit = Unit {
        addresses: group.addresses().into(),
        candidates: group.candidates(cluster),
        can_serve_here: group.is_served_on(&state.config.node),
        failing: group.failing_on(&state.config.node).collect(),
    };
    let labels = state.own_node().map(|node| &node.labels);
    let from_this_node = |advertisements: &[&'a L2Advertisement]| {
        advertisements
            .iter()
            .copied()
            .filter(|ad| labels.is_some_and(|labels| ad.selects_node(labels)))
            .collect()
    };
    Some(ClusterUnit {
        unit: Arc::new(unit),
        own_advertisements: group.advertised().map(from_this_node).collect(),
    })
}

/// Returns the facts of a Service that determine which nodes may announce it, with its endpoints
/// and the families in which it fails its health check on this node.
pub(super) fn service_view<'a>(
    state: &'a State,
    (key, service): (&'a Key, &'a ReducedService),
    slices: &[slices::KeyedSlice<'a>],
    failing: &BTreeSet<(&'a Key, Family)>,
) -> ServiceView<'a> {
    let families =
        [Family::V4, Family::V6].into_iter().filter(|family| failing.contains(&(key, *family)));

    ServiceView {
        policy: service.policy,
        eligible: service.eligible,
        assigned: &service.assigned,
        from_pool: service.from_pool.as_deref(),
        labels: &service.labels,
        endpoints: slices::of(slices, key).flat_map(|slice| &slice.endpoints).collect(),
        failing_on: families.map(|family| (&*state.config.node, family)).collect(),
    }
}
