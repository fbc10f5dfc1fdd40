//! Election units: the addresses that L2Advertisements announce, with the nodes that may announce
//! them, adapted to this node's interfaces. Pure; [`super::Memo`] has those of the latest plan.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use ferrolb_core::announce::{
    ClusterView, Interface, Layer2Address, SelectedInterface, ServiceView,
};
use ferrolb_core::election::{Candidate, Unit};
use ferrolb_core::eligibility::{Ineligible, Serving, serving};
use ferrolb_core::shared_map::SharedMap;
use ferrolb_proto::facts::{Key, L2Advertisement};
use ferrolb_proto::range::Family;
use ferrolb_proto::wire::hello::Flags;

use super::interfaces::usable_interfaces;
use super::v6;
use crate::claim::Owned;
use crate::event::Link;
use crate::state::{ReducedService, State};

/// Number of an address's best candidates that prepare to announce it: these candidates already
/// receive the neighbor solicitations for the address.
const PREPARED_CANDIDATES: usize = 3;

/// Number of addresses for each of [`SERVING_NAMES`].
pub type ServingCounts = BTreeMap<&'static str, i64>;

/// Election units of a network segment, by address.
pub type Units = SharedMap<IpAddr, Arc<Unit>>;

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

/// Addresses of all Services, and the election units of all interfaces on which this node
/// announces, as of the latest plan.
#[derive(Debug, Default)]
pub(super) struct AddressMemo {
    /// Nodes and interfaces by the names of the L2Advertisements that select them, since the latest
    /// [`AddressMemo::clear_selections`].
    selections: BTreeMap<Vec<Box<str>>, Arc<Selection>>,
    /// The same before, so that equal lists of nodes share memory.
    earlier_selections: BTreeMap<Vec<Box<str>>, Arc<Selection>>,
    addresses: SharedMap<IpAddr, AddressPlan>,
    counts: ServingCounts,
    links: BTreeMap<u32, LinkUnits>,
}

/// Nodes and interfaces that a list of L2Advertisements selects.
#[derive(Debug)]
struct Selection {
    /// See [`ClusterView::select_nodes`].
    nodes: Arc<[Candidate]>,
    /// This node's interfaces on which the advertisements announce from this node, by index.
    links: BTreeMap<u32, SelectedInterface>,
}

impl Selection {
    /// Returns whether this node may announce an address on an interface.
    fn selects(&self, index: u32, address: IpAddr) -> bool {
        let link = self.links.get(&index);
        link.is_some_and(|link| link.announces(address, self.links.values()))
    }
}

/// One address of a Service.
#[derive(Clone, Debug)]
struct AddressPlan {
    /// One of [`SERVING_NAMES`].
    serving: &'static str,
    /// Election unit, if an L2Advertisement announces the address.
    layer2: Option<Layer2Plan>,
}

/// Address that an L2Advertisement announces.
#[derive(Clone, Debug)]
struct Layer2Plan {
    /// Unit of the interfaces that the selection contains. All of them share it in memory.
    unit: Arc<Unit>,
    selection: Arc<Selection>,
}

/// Election units of one interface.
#[derive(Clone, Debug, Default)]
pub(super) struct LinkUnits {
    pub(super) units: Units,
    /// Number of units that this node may announce on the interface.
    selected: usize,
    /// IPv6 addresses for which this node is among the best [`PREPARED_CANDIDATES`] candidates
    /// according to the Kubernetes objects alone. The better candidates may have failed, so this
    /// node may soon own the addresses.
    prepared: SharedMap<Ipv6Addr, ()>,
    /// IPv6 addresses for which the interface must receive neighbor solicitations.
    solicited: SolicitedAddresses,
}

/// Union of prepared and owned IPv6 addresses.
#[derive(Clone, Debug, Default)]
struct SolicitedAddresses {
    prepared: SharedMap<Ipv6Addr, ()>,
    owned: SharedMap<IpAddr, Owned>,
    union: Arc<BTreeSet<Ipv6Addr>>,
}

impl AddressMemo {
    /// Drops everything that follows from Nodes, pools, advertisements and interfaces.
    pub(super) fn clear_selections(&mut self) {
        self.earlier_selections = std::mem::take(&mut self.selections);
    }

    /// Returns all addresses of the latest plan, ascending.
    pub(super) fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.addresses.keys().copied()
    }

    /// Returns how this node can serve each address.
    pub(super) fn serving_names(&self) -> BTreeMap<IpAddr, &'static str> {
        self.addresses.iter().map(|(address, plan)| (*address, plan.serving)).collect()
    }

    /// Returns the number of addresses for each of [`SERVING_NAMES`].
    pub(super) fn counts(&self) -> &ServingCounts {
        &self.counts
    }

    /// Computes one address again. `services` are the Services that have the address.
    pub(super) fn set_address(
        &mut self,
        state: &State,
        view: &ClusterView<'_>,
        address: IpAddr,
        services: &[ServiceView<'_>],
    ) {
        let layer2 = Layer2Address::new(view, address, services)
            .map(|layer2| self.layer2(state, view, address, &layer2));
        for (index, link) in &mut self.links {
            link.set(*index, address, layer2.as_ref(), &state.config.node);
        }
        let now = (!services.is_empty()).then(|| AddressPlan {
            serving: serving_name(serving(address, &state.config.node, services)),
            layer2,
        });
        if let Some(now) = &now {
            self.count(now.serving, 1);
        }
        let before = match now {
            Some(now) => self.addresses.insert(address, now),
            None => self.addresses.remove(&address),
        };
        if let Some(before) = before {
            self.count(before.serving, -1);
        }
    }

    fn count(&mut self, name: &'static str, more: i64) {
        let count = self.counts.entry(name).or_default();
        *count += more;
        if *count == 0 {
            self.counts.remove(name);
        }
    }

    fn layer2(
        &mut self,
        state: &State,
        view: &ClusterView<'_>,
        address: IpAddr,
        layer2: &Layer2Address<'_, '_>,
    ) -> Layer2Plan {
        let selection = self.selection(state, view, layer2.advertisements());
        let unit = layer2.unit(&selection.nodes, &state.config.node);
        let before = self.addresses.get(&address).and_then(|plan| plan.layer2.as_ref());
        let unit = match before.map(|plan| &plan.unit).filter(|before| ***before == unit) {
            Some(before) => Arc::clone(before),
            None => Arc::new(unit),
        };
        Layer2Plan { unit, selection }
    }

    fn selection(
        &mut self,
        state: &State,
        view: &ClusterView<'_>,
        advertisements: &[&L2Advertisement],
    ) -> Arc<Selection> {
        let mut names: Vec<Box<str>> = advertisements.iter().map(|ad| ad.name.clone()).collect();
        names.sort_unstable();
        if let Some(known) = self.selections.get(&names) {
            return Arc::clone(known);
        }
        let nodes = view.select_nodes(advertisements);
        let earlier = self.earlier_selections.get(&names);
        let nodes = earlier
            .map(|earlier| &earlier.nodes)
            .filter(|earlier| **earlier == nodes)
            .map_or(nodes, Arc::clone);
        let labels = state.own_node().map(|node| &node.labels);
        let selected = |link: &Link| {
            let report = state.reports.get(&link.index);
            let interface = || Interface {
                in_use: link.up && !report.is_some_and(|report| report.standby),
                has_ipv6: link.has_ipv6(),
                subnets: link.subnets().collect(),
            };
            let selected =
                SelectedInterface::select(advertisements, labels?, &link.name, interface);
            Some((link.index, selected?))
        };
        let links = usable_interfaces(state).into_iter().filter_map(selected).collect();
        let selection = Arc::new(Selection { nodes, links });
        self.selections.insert(names, Arc::clone(&selection));
        selection
    }

    /// Returns the election units of an interface on which this node announces. Those of a new
    /// interface are collected from all addresses.
    pub(super) fn link(&mut self, index: u32, node: &str) -> &mut LinkUnits {
        let addresses = &self.addresses;
        self.links.entry(index).or_insert_with(|| {
            let mut link = LinkUnits::default();
            for (address, plan) in addresses.iter() {
                link.set(index, *address, plan.layer2.as_ref(), node);
            }
            link
        })
    }

    /// Drops the units of all interfaces for which `is_used` is false.
    pub(super) fn retain_links(&mut self, is_used: impl Fn(u32) -> bool) {
        self.links.retain(|index, _| is_used(*index));
    }
}

impl LinkUnits {
    /// Replaces the unit of an address. `node` is the name of this node.
    fn set(&mut self, index: u32, address: IpAddr, plan: Option<&Layer2Plan>, node: &str) {
        let now = plan.map(|plan| {
            if plan.selection.selects(index, address) {
                Arc::clone(&plan.unit)
            } else {
                Arc::new(Unit { announced_here: false, ..(*plan.unit).clone() })
            }
        });
        let before = self.units.get(&address);
        if before == now.as_ref() {
            return;
        }
        let is_selected =
            |unit: Option<&Arc<Unit>>| usize::from(unit.is_some_and(|unit| unit.announced_here));
        self.selected -= is_selected(before);
        self.selected += is_selected(now.as_ref());
        if let Some(address) = v6(address) {
            if now.as_ref().is_some_and(|unit| is_prepared(unit, node)) {
                if self.prepared.get(&address).is_none() {
                    self.prepared.insert(address, ());
                }
            } else {
                self.prepared.remove(&address);
            }
        }
        match now {
            Some(now) => drop(self.units.insert(address, now)),
            None => drop(self.units.remove(&address)),
        }
    }

    /// Returns whether this node may announce any of the units on the interface.
    pub(super) const fn is_selected(&self) -> bool {
        self.selected > 0
    }

    /// Returns the IPv6 addresses for which the interface must receive neighbor solicitations.
    /// `owned` are the addresses that this node owns there.
    pub(super) fn solicited_addresses(
        &mut self,
        owned: &SharedMap<IpAddr, Owned>,
    ) -> Arc<BTreeSet<Ipv6Addr>> {
        let SolicitedAddresses { prepared, owned: owned_before, union } = &self.solicited;
        if *prepared == self.prepared && owned_before == owned {
            return Arc::clone(union);
        }
        // IPv6 addresses sort after IPv4 addresses.
        let owned_v6 = owned.after(Some(&IpAddr::V4(Ipv4Addr::BROADCAST)));
        let owned_v6 = owned_v6.filter_map(|(address, _)| v6(*address));
        let union = Arc::new(self.prepared.keys().copied().chain(owned_v6).collect());
        self.solicited = SolicitedAddresses {
            prepared: self.prepared.clone(),
            owned: owned.clone(),
            union: Arc::clone(&union),
        };
        union
    }
}

/// Returns whether this node is among the best [`PREPARED_CANDIDATES`] candidates of a unit.
fn is_prepared(unit: &Unit, node: &str) -> bool {
    let rank = |candidate| unit.rank(candidate, Flags::default());
    unit.own_candidate(node).map(rank).is_some_and(|own| {
        let better = unit.candidates.iter().filter(|other| rank(other) < own);
        better.take(PREPARED_CANDIDATES).count() < PREPARED_CANDIDATES
    })
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

/// Returns the facts of a Service that determine which nodes may announce it, with its endpoints.
/// `failing_on` are the nodes on which all endpoints of a family fail their health check.
pub(super) fn service_view<'a>(
    state: &'a State,
    (key, service): (&Arc<Key>, &'a ReducedService),
    failing_on: Vec<(&'a str, Family)>,
) -> ServiceView<'a> {
    ServiceView {
        assigned: &service.assigned,
        from_pool: service.from_pool.as_deref(),
        labels: &service.labels,
        endpoints: state.services.eligible_endpoints(key, service),
        failing_on,
    }
}
