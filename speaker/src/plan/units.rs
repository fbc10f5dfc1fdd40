//! Election units: the addresses that L2Advertisements announce, with the nodes that may announce
//! them, adapted to this node's interfaces. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ferrolb_proto::announce::{ClusterView, Layer2Address, ServiceView, ServicesByAddress};
use ferrolb_proto::election::{Candidate, Unit, rank};
use ferrolb_proto::eligibility::{EligibleEndpoints, Ineligible, Serving, serving};
use ferrolb_proto::facts::{Key, L2Advertisement};
use ferrolb_proto::range::Family;
use ferrolb_proto::wire::hello::Flags;

use super::{probes, slices};
use crate::event::Link;
use crate::state::{ReducedService, State};

/// Number of an address's best candidates that prepare to announce it: these candidates already
/// receive the neighbor solicitations for the address.
const PREPARED_CANDIDATES: usize = 3;

/// Number of addresses for each of [`SERVING_NAMES`].
pub type AddressCounts = BTreeMap<&'static str, i64>;

/// Names of the results of [`serving`] in the metrics and in `/state`, best first.
pub const SERVING_NAMES: [&str; 5] =
    ["ready", "terminating", "failing", "no_local_endpoint", "no_endpoint"];

/// Returns which of [`SERVING_NAMES`] a result has.
const fn serving_name(result: Result<Serving, Ineligible>) -> &'static str {
    match result {
        Ok(Serving { failing: true, .. }) => "failing",
        Ok(Serving { terminating: true, .. }) => "terminating",
        Ok(Serving { .. }) => "ready",
        Err(Ineligible::NoEndpoint) => "no_endpoint",
        Err(_) => "no_local_endpoint",
    }
}

/// Election unit as it is before interface selectors are applied.
pub(super) struct ClusterUnit<'a> {
    unit: Arc<Unit>,
    /// Advertisements by which this node announces the address.
    own_advertisements: Vec<&'a L2Advertisement>,
}

impl ClusterUnit<'_> {
    /// Returns the unit for one interface of this node. If no advertisement of the address selects
    /// the interface, this node is not a candidate there. All interfaces on which this node is a
    /// candidate share one unit in memory, and all interfaces share the list of candidates.
    pub(super) fn for_interface(&self, link: &Link) -> Arc<Unit> {
        if self.selects(link) {
            return Arc::clone(&self.unit);
        }
        Arc::new(Unit { announced_here: false, ..(*self.unit).clone() })
    }

    /// Returns whether an advertisement announces the address from this node on this interface.
    pub(super) fn selects(&self, link: &Link) -> bool {
        self.own_advertisements.iter().any(|ad| ad.selects_interface(&link.name))
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

/// Returns the election unit of every address that an L2Advertisement announces, by address.
pub(super) fn cluster_units<'a>(
    state: &'a State,
    cluster: &ClusterView<'a>,
    services: &ServicesByAddress<'a>,
) -> impl Iterator<Item = ClusterUnit<'a>> {
    let labels = state.own_node().map(|node| &node.labels);
    let from_this_node =
        move |ad: &&&'a L2Advertisement| labels.is_some_and(|labels| ad.selects_node(labels));
    let mut selected_by: BTreeMap<Vec<&str>, Arc<[Candidate]>> = BTreeMap::new();
    // The two addresses of a dual-stack Service have the same order.
    let mut with_order: BTreeMap<IpAddr, Arc<Unit>> = BTreeMap::new();
    services.iter().filter_map(move |(address, services)| {
        let layer2 = Layer2Address::new(cluster, address, services)?;
        let mut names: Vec<_> = layer2.advertisements().iter().map(|ad| &*ad.name).collect();
        names.sort_unstable();
        let selected = selected_by
            .entry(names)
            .or_insert_with(|| cluster.select_nodes(layer2.advertisements()));
        let (serving, ordered_by) = (layer2.serving(&state.config.node), layer2.ordered_by());
        let before = with_order.get(&ordered_by).map(|unit| &**unit);
        let unit = Arc::new(Unit {
            can_serve_here: serving.is_ok(),
            failing: serving.is_ok_and(|serving| serving.failing),
            ..Unit::new(address, ordered_by, layer2.candidates(selected), before)
        });
        with_order.entry(ordered_by).or_insert_with(|| Arc::clone(&unit));
        let own_advertisements =
            layer2.advertisements().iter().filter(from_this_node).copied().collect();
        Some(ClusterUnit { unit, own_advertisements })
    })
}

/// Returns for each address how this node can serve it, by name.
pub(super) fn addresses(state: &State) -> BTreeMap<IpAddr, &'static str> {
    let health_checks = probes::health_checks(state);
    serving_names(state, &services_by_address(state, &health_checks.failing)).collect()
}

/// Returns the number of addresses for each of [`SERVING_NAMES`].
pub(super) fn count_addresses(state: &State, services: &ServicesByAddress<'_>) -> AddressCounts {
    let mut counts = AddressCounts::new();
    for (_, name) in serving_names(state, services) {
        *counts.entry(name).or_default() += 1;
    }
    counts
}

fn serving_names(
    state: &State,
    services: &ServicesByAddress<'_>,
) -> impl Iterator<Item = (IpAddr, &'static str)> {
    services.iter().map(|(address, services)| {
        (address, serving_name(serving(address, &state.config.node, services)))
    })
}

/// Returns all Services by address. `failing` holds the Services that fail their health checks on
/// this node, each with the family.
pub(super) fn services_by_address<'a>(
    state: &'a State,
    failing: &BTreeSet<(&'a Key, Family)>,
) -> ServicesByAddress<'a> {
    let slices = slices::by_service(state.slices.iter());
    state.services.iter().map(|service| service_view(state, service, &slices, failing)).collect()
}

/// Returns the addresses for which this node is among the best [`PREPARED_CANDIDATES`] candidates
/// according to the Kubernetes objects alone. The better candidates may have failed, so this node
/// may soon own the addresses.
pub(super) fn prepared_addresses(units: &[Arc<Unit>], node: &str) -> impl Iterator<Item = IpAddr> {
    let prepared = |unit: &&Arc<Unit>| {
        let rank = |candidate| rank(candidate, Flags::default(), false, false);
        let own = unit.own_candidate(node).map(rank);
        own.is_some_and(|own| {
            let better = unit.ordered_candidates().filter(|other| rank(*other) < own);
            better.count() < PREPARED_CANDIDATES
        })
    };
    units.iter().filter(prepared).map(|unit| unit.address)
}

/// Replaces each unit by the equal one in `before`, if there is one, so that both plans share it in
/// memory. `units` and `before` are ordered by address.
pub(super) fn reuse_equal(units: &mut [Arc<Unit>], before: &[Arc<Unit>]) {
    let mut before = before.iter().peekable();
    for unit in units {
        while before.next_if(|before| before.address < unit.address).is_some() {}
        if let Some(same) = before.next_if(|before| **before == *unit) {
            *unit = Arc::clone(same);
        }
    }
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
    let endpoints = slices::of(slices, key).flat_map(|slice| &slice.endpoints);
    ServiceView {
        assigned: &service.assigned,
        from_pool: service.from_pool.as_deref(),
        labels: &service.labels,
        endpoints: EligibleEndpoints::new(service.policy, service.eligible, endpoints),
        failing_on: families.map(|family| (&*state.config.node, family)).collect(),
    }
}
