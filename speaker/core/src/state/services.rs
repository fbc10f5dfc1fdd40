//! Services with addresses and their EndpointSlices, indexed by address and by Service. Pure;
//! [`super::State`] owns them. A change of an object reports the addresses and Services that it
//! concerns. An EndpointSlice of another Service concerns none.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use ferrolb_core::eligibility::EligibleEndpoints;
use ferrolb_core::shared_map::SharedMap;
use ferrolb_core::store::Change;
use ferrolb_core::store::Store;
use ferrolb_proto::facts::{EndpointSlice, Key, Service, TrafficPolicy};
use ferrolb_proto::range::AddressRange;

use super::changes::Changes;
use super::{ReducedService, ReducedSlice, StateConfig};
use crate::health::kube_proxy::Families;

/// Values, each with the key of an object that has it. A [`SharedMap`] needs less memory than a
/// B-tree, which is half empty after the ascending keys of a list.
type Index<Q> = SharedMap<(Q, Arc<Key>), ()>;

/// Services with addresses and their EndpointSlices.
#[derive(Debug, Default)]
pub(crate) struct Services {
    /// FerroLB's Services with assigned addresses, reduced to the fields that a plan needs.
    services: Store<Arc<Key>, ReducedService>,
    slices: Store<Arc<Key>, ReducedSlice>,
    /// Keys of Services, each with the key of one of its EndpointSlices.
    slices_of: Index<Arc<Key>>,
    /// Addresses, each with the key of a Service that has it.
    by_address: Index<IpAddr>,
    /// Keys of the Services with a health check node port.
    with_node_port: BTreeSet<Arc<Key>>,
    /// Addresses of the API servers, each with the number of EndpointSlices that contain it.
    api_servers: BTreeMap<SocketAddr, usize>,
}

impl Services {
    /// Applies a change of a Service.
    pub(super) fn set_service(&mut self, change: Change<Service>, config: &StateConfig) -> Changes {
        let was_listed = self.services.was_ever_complete();
        let changed = self.services.handle(change.or_delete(), |service| {
            let is_ours =
                service.is_served_by_ferrolb(&config.classes, config.default_implementation);
            (is_ours && !service.assigned.is_empty()).then(|| service.into())
        });
        let mut changes = Changes::all_if(was_listed != self.services.was_ever_complete());
        for (key, before) in changed {
            // The stores and the indexes share one key in memory.
            let (key, now) = match self.services.get_key_value(&*key) {
                Some((key, now)) => (Arc::clone(key), Some(now)),
                None => (key, None),
            };
            if before.is_none() {
                share_key(&mut self.slices_of, &mut self.slices, &key);
            }
            for address in before.iter().flat_map(|service| &service.assigned) {
                self.by_address.remove(&(*address, Arc::clone(&key)));
                changes.addresses.insert(*address);
            }
            for address in now.iter().flat_map(|service| &service.assigned) {
                self.by_address.insert((*address, Arc::clone(&key)), ());
                changes.addresses.insert(*address);
            }
            if now.is_some_and(|service| service.health_check_node_port != 0) {
                self.with_node_port.insert(Arc::clone(&key));
            } else {
                self.with_node_port.remove(&key);
            }
            changes.services.insert(key);
        }
        changes
    }

    /// Applies a change of an EndpointSlice. `node` is the name of this node.
    pub(super) fn set_slice(&mut self, change: Change<EndpointSlice>, node: &str) -> Changes {
        let was_listed = self.slices.was_ever_complete();
        let (services, slices_of) = (&self.services, &self.slices_of);
        let reduce = |slice| {
            ReducedSlice::of(slice, node, |service| {
                let service = Arc::new(service);
                let known = services.get_key_value(&*service).map(|(key, _)| key);
                let pair = || pairs_of(slices_of, Arc::clone(&service)).next();
                let known = known.or_else(|| pair().map(|(key, _)| key));
                known.map_or_else(|| Arc::clone(&service), Arc::clone)
            })
        };
        let changed = self.slices.handle(change.or_delete(), reduce);
        let mut changes = Changes::all_if(was_listed != self.slices.was_ever_complete());
        for (key, before) in changed {
            if let Some(before) = before {
                changes.add(self.concerning(&before.service));
                changes.all |= !before.api_servers.is_empty();
                self.remove_slice(&key, &before);
            }
            let Some((key, now)) = self.slices.get_key_value(&*key) else { continue };
            changes.add(self.concerning(&now.service));
            changes.all |= !now.api_servers.is_empty();
            for server in &now.api_servers {
                *self.api_servers.entry(*server).or_default() += 1;
            }
            self.slices_of.insert((Arc::clone(&now.service), Arc::clone(key)), ());
        }
        changes
    }

    fn remove_slice(&mut self, key: &Arc<Key>, slice: &ReducedSlice) {
        self.slices_of.remove(&(Arc::clone(&slice.service), Arc::clone(key)));
        for server in &slice.api_servers {
            if let Some(count) = self.api_servers.get_mut(server) {
                *count -= 1;
            }
        }
        self.api_servers.retain(|_, count| *count > 0);
    }

    /// Returns the changes that a change of a Service's endpoints, or of their health, can cause.
    pub(super) fn concerning(&self, service: &Key) -> Changes {
        let mut changes = Changes::default();
        if let Some((key, service)) = self.services.get_key_value(service) {
            changes.addresses.extend(&service.assigned);
            changes.services.insert(Arc::clone(key));
        }
        changes
    }

    /// Returns whether the first list of Services is complete.
    pub(super) const fn is_listed(&self) -> bool {
        self.services.was_ever_complete()
    }

    /// Returns the first of the two resources whose list has not arrived yet, if any.
    pub(super) fn missing_input(&self) -> Option<&'static str> {
        let listed = [
            ("Services", self.services.was_ever_complete()),
            ("EndpointSlices", self.slices.was_ever_complete()),
        ];
        listed.into_iter().find(|(_, listed)| !listed).map(|(what, _)| what)
    }

    /// Returns all Services, sorted by namespace and name.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Arc<Key>, &ReducedService)> + Clone {
        self.services.iter()
    }

    /// Returns a Service with its shared key.
    pub(crate) fn get(&self, key: &Key) -> Option<(&Arc<Key>, &ReducedService)> {
        self.services.get_key_value(key)
    }

    /// Returns the Services that have an address, sorted by namespace and name.
    pub(crate) fn with_address(
        &self,
        address: IpAddr,
    ) -> impl Iterator<Item = (&Arc<Key>, &ReducedService)> {
        pairs_of(&self.by_address, address)
            .filter_map(|(_, key)| self.services.get_key_value(&**key))
    }

    /// Returns the addresses of all Services, ascending. An address that several Services have
    /// occurs once for each of them.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = IpAddr> + Clone {
        self.by_address.keys().map(|(address, _)| *address)
    }

    /// Returns whether a Service has an address in a range.
    pub(crate) fn has_address_in(&self, range: &AddressRange) -> bool {
        let first = (range.first(), Arc::default());
        let next = self.by_address.after(Some(&first)).next();
        next.is_some_and(|((address, _), ())| *address <= range.last())
    }

    /// Returns the families of the addresses.
    pub(crate) fn families(&self) -> Families {
        // IPv4 addresses sort before IPv6 addresses.
        let last_v4 = (IpAddr::V4(Ipv4Addr::BROADCAST), Arc::default());
        let ends = [self.by_address.iter().next(), self.by_address.after(Some(&last_v4)).next()];
        ends.into_iter().flatten().map(|((address, _), ())| *address).collect()
    }

    /// Returns the Services with a health check node port, sorted by namespace and name.
    pub(crate) fn with_node_port(&self) -> impl Iterator<Item = &ReducedService> {
        self.with_node_port.iter().filter_map(|key| self.services.get(&**key))
    }

    /// Returns the EndpointSlices of a Service, sorted by name.
    pub(crate) fn slices_of(&self, service: &Arc<Key>) -> impl Iterator<Item = &ReducedSlice> {
        pairs_of(&self.slices_of, Arc::clone(service))
            .filter_map(|(_, key)| self.slices.get(&**key))
    }

    /// Returns the eligible endpoints of a Service with addresses and the policy `Local`.
    pub(super) fn local_endpoints(&self, service: &Key) -> Option<EligibleEndpoints> {
        let (key, service) = self.get(service)?;
        (service.policy == TrafficPolicy::Local).then(|| self.eligible_endpoints(key, service))
    }

    /// Returns the eligible endpoints of a Service with addresses.
    pub(crate) fn eligible_endpoints(
        &self,
        key: &Arc<Key>,
        service: &ReducedService,
    ) -> EligibleEndpoints {
        let endpoints = self.slices_of(key).flat_map(|slice| &slice.endpoints);
        EligibleEndpoints::new(service.policy, service.eligible, endpoints)
    }

    /// Returns the addresses and ports of the API servers.
    pub(crate) fn api_servers(&self) -> impl Iterator<Item = SocketAddr> {
        self.api_servers.keys().copied()
    }

    /// Returns the number of EndpointSlices.
    pub(super) fn slice_count(&self) -> usize {
        self.slices.len()
    }
}

/// Returns the pairs of an index that begin with this value.
fn pairs_of<Q: Ord + Clone>(index: &Index<Q>, first: Q) -> impl Iterator<Item = &(Q, Arc<Key>)> {
    // The default key sorts before the key of any object.
    let pairs = index.after(Some(&(first.clone(), Arc::default()))).map(|(pair, ())| pair);
    pairs.take_while(move |pair| pair.0 == first)
}

/// Replaces the key of a new Service in the index and in the EndpointSlices that arrived before it,
/// so that all of them share one key in memory.
fn share_key(
    slices_of: &mut Index<Arc<Key>>,
    slices: &mut Store<Arc<Key>, ReducedSlice>,
    service: &Arc<Key>,
) {
    let pairs: Vec<_> = pairs_of(slices_of, Arc::clone(service)).cloned().collect();
    for (earlier, slice) in pairs {
        if let Some(slice) = slices.get_mut(&*slice) {
            slice.service = Arc::clone(service);
        }
        slices_of.remove(&(earlier, Arc::clone(&slice)));
        slices_of.insert((Arc::clone(service), slice), ());
    }
}
