//! Election units: the groups of Services that share addresses, with who may announce them. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ferrolb_proto::election::Unit;
use ferrolb_proto::facts::{Advertisement, Key, Pool, Service, Slice};
use ferrolb_proto::range::AddressRange;

use super::candidates::{Served, candidates};
use crate::event::Link;
use crate::state::State;

/// A unit before it is fitted to a link.
pub(super) struct Draft<'a> {
    unit: Unit,
    /// For each address, the advertisements that announce it from this node.
    own: Vec<Vec<&'a Advertisement>>,
}

impl Draft<'_> {
    /// The unit on one link of this node: where an address has no advertisement that selects the link, this node is no
    /// candidate there. The names of other nodes' links are theirs to know.
    pub(super) fn on(&self, link: &Link, node: &str) -> Unit {
        let mut unit = self.unit.clone();
        let selected = |ads: &Vec<&Advertisement>| ads.iter().any(|ad| ad.selects_interface(&link.name));
        if !self.own.iter().all(selected) {
            unit.candidates.retain(|candidate| *candidate.node != *node);
        }
        unit
    }
}

/// Every unit of the cluster that has an address to announce, by the name of its first Service.
pub(super) fn drafts(state: &State) -> Vec<Draft<'_>> {
    let services: Vec<_> = state.services.values().collect();
    let mut slices: Vec<_> = state.slices.values().collect();
    slices.sort_by(|a, b| a.service.cmp(&b.service));
    groups(&services).into_iter().filter_map(|group| draft(state, &slices, &group)).collect()
}

fn draft<'a>(state: &'a State, slices: &[&'a Slice], group: &[&'a Service]) -> Option<Draft<'a>> {
    let first = group.first()?.assigned.first()?.address;
    let advertised = announced(state, group);
    let served: Vec<_> =
        group.iter().map(|service| Served { service, endpoints: endpoints(slices, &service.key) }).collect();
    let lists: Vec<_> = advertised.values().cloned().collect();
    let me = &state.config.node;
    let unit = Unit {
        addresses: addresses(group, &advertised),
        candidates: candidates(state, &served, &lists, first),
        serves_here: served.iter().all(|served| served.verdict(me).serves()),
    };
    let labels = state.own_node().map(|node| &node.labels);
    let from_here = |ads: &Vec<&'a Advertisement>| {
        ads.iter().copied().filter(|ad| labels.is_some_and(|labels| ad.selects_node(labels))).collect()
    };
    let own = lists.iter().map(from_here).collect();
    (!unit.addresses.is_empty()).then_some(Draft { unit, own })
}

/// The addresses of a group that have at least one advertisement, with their advertisements. An address that no pool holds
/// any more, or whose pool nobody advertises, is not announced; it must not hold back the others.
fn announced<'a>(state: &'a State, group: &[&Service]) -> BTreeMap<IpAddr, Vec<&'a Advertisement>> {
    let mut announced = BTreeMap::new();
    for service in group {
        for address in service.assigned.iter().map(|assigned| assigned.address) {
            // The one place that leaves IPv6 out: nothing answers NDP yet. Such an address still joins Services into a unit
            // and still names its order, so that nothing moves once it is announced.
            if address.is_ipv6() {
                continue;
            }
            let Some(pool) = pool_of(state, service, address) else { continue };
            let ads: Vec<_> = state.advertisements.values().filter(|ad| ad.selects_pool(pool)).collect();
            if !ads.is_empty() {
                announced.insert(address, ads);
            }
        }
    }
    announced
}

/// The announced addresses in the order of their Services and of each Service's status, each once.
fn addresses<V>(group: &[&Service], announced: &BTreeMap<IpAddr, V>) -> Vec<IpAddr> {
    let mut addresses = Vec::with_capacity(announced.len());
    for assigned in group.iter().flat_map(|service| &service.assigned) {
        if announced.contains_key(&assigned.address) && !addresses.contains(&assigned.address) {
            addresses.push(assigned.address);
        }
    }
    addresses
}

/// The pool that holds an address: the one that the Service says it is from, else the first by name.
fn pool_of<'a>(state: &'a State, service: &Service, address: IpAddr) -> Option<&'a Pool> {
    let single = AddressRange::single(address);
    let mut holding = state.pools.values().filter(|pool| pool.ranges.iter().any(|range| range.overlaps(&single)));
    let first = holding.next()?;
    let named = |pool: &&Pool| Some(&pool.name) == service.from_pool.as_ref();
    if named(&first) { Some(first) } else { holding.find(named).or(Some(first)) }
}

/// The endpoints of a Service; `slices` are sorted by Service.
fn endpoints<'a>(slices: &[&'a Slice], service: &Key) -> Vec<&'a ferrolb_proto::facts::Endpoint> {
    let start = slices.partition_point(|slice| slice.service.as_ref() < Some(service));
    let own = slices[start..].iter().take_while(|slice| slice.service.as_ref() == Some(service));
    own.flat_map(|slice| &slice.endpoints).collect()
}

/// The Services in groups joined by shared addresses; groups and their members by name.
fn groups<'a>(services: &[&'a Service]) -> Vec<Vec<&'a Service>> {
    // Union-find: every Service points to an earlier one of its group, or to itself.
    let mut parents: Vec<usize> = (0..services.len()).collect();
    let mut first_with: BTreeMap<IpAddr, usize> = BTreeMap::new();
    for (i, service) in services.iter().enumerate() {
        for assigned in &service.assigned {
            let other = *first_with.entry(assigned.address).or_insert(i);
            let (a, b) = (root(&mut parents, i), root(&mut parents, other));
            parents[a.max(b)] = a.min(b);
        }
    }
    let mut groups: BTreeMap<usize, Vec<&Service>> = BTreeMap::new();
    for (i, service) in services.iter().enumerate() {
        groups.entry(root(&mut parents, i)).or_default().push(service);
    }
    groups.into_values().collect()
}

fn root(parents: &mut [usize], mut i: usize) -> usize {
    while parents[i] != i {
        parents[i] = parents[parents[i]];
        i = parents[i];
    }
    i
}
