//! Services with addresses and their EndpointSlices, indexed by address and by Service. Pure;
//! [`super::State`] owns them. A change of an object reports the addresses and Services that it
//! concerns. An EndpointSlice of another Service concerns none.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ferrolb_proto::facts::{EndpointSlice, Key, Service};
use ferrolb_proto::health::kube_proxy::Families;
use ferrolb_proto::range::AddressRange;
use ferrolb_runtime::store::Store;
use ferrolb_runtime::watch::Change;

use super::changes::Changes;
use super::{ReducedService, ReducedSlice, StateConfig};

/// Services with addresses and their EndpointSlices.
#[derive(Debug, Default)]
pub(crate) struct Services {
    /// FerroLB's Services with assigned addresses, reduced to the fields that a plan needs.
    services: Store<Arc<Key>, ReducedService>,
    slices: Store<Arc<Key>, ReducedSlice>,
    /// Keys of the EndpointSlices of each Service, in no particular order.
    slices_of: BTreeMap<Arc<Key>, Vec<Arc<Key>>>,
    /// Keys of the Services that have an address, ascending.
    by_address: BTreeMap<IpAddr, Vec<Arc<Key>>>,
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
                remove_key(&mut self.by_address, address, &key);
                changes.addresses.insert(*address);
            }
            for address in now.iter().flat_map(|service| &service.assigned) {
                let keys = self.by_address.entry(*address).or_insert_with(|| Vec::with_capacity(1));
                if let Err(index) = keys.binary_search(&key) {
                    keys.insert(index, Arc::clone(&key));
                }
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
                let known = services.get_key_value(&service).map(|(key, _)| key);
                let known = known.or_else(|| slices_of.get_key_value(&service).map(|(key, _)| key));
                known.map_or_else(|| Arc::new(service), Arc::clone)
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
            let slices = self.slices_of.entry(Arc::clone(&now.service));
            slices.or_insert_with(|| Vec::with_capacity(1)).push(Arc::clone(key));
        }
        changes
    }

    fn remove_slice(&mut self, key: &Key, slice: &ReducedSlice) {
        remove_key(&mut self.slices_of, &slice.service, key);
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
        let keys = self.by_address.get(&address).into_iter().flatten();
        keys.filter_map(|key| self.services.get_key_value(&**key))
    }

    /// Returns all addresses of Services, ascending.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = IpAddr> + Clone {
        self.by_address.keys().copied()
    }

    /// Returns whether a Service has an address in a range.
    pub(crate) fn has_address_in(&self, range: &AddressRange) -> bool {
        self.by_address.range(range.first()..=range.last()).next().is_some()
    }

    /// Returns the families of the addresses.
    pub(crate) fn families(&self) -> Families {
        // IPv4 addresses sort before IPv6 addresses.
        let ends = [self.by_address.first_key_value(), self.by_address.last_key_value()];
        ends.into_iter().flatten().map(|(address, _)| *address).collect()
    }

    /// Returns the Services with a health check node port, sorted by namespace and name.
    pub(crate) fn with_node_port(&self) -> impl Iterator<Item = &ReducedService> {
        self.with_node_port.iter().filter_map(|key| self.services.get(&**key))
    }

    /// Returns the EndpointSlices of a Service, in no particular order.
    pub(crate) fn slices_of(&self, service: &Key) -> impl Iterator<Item = &ReducedSlice> {
        let keys = self.slices_of.get(service).into_iter().flatten();
        keys.filter_map(|key| self.slices.get(&**key))
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

/// Removes a key from those of an index entry. An entry without keys is removed.
fn remove_key<Q: Ord>(index: &mut BTreeMap<Q, Vec<Arc<Key>>>, entry: &Q, key: &Key) {
    if let Some(keys) = index.get_mut(entry) {
        keys.retain(|other| **other != *key);
        if keys.is_empty() {
            index.remove(entry);
        }
    }
}

/// Replaces the key of a new Service in the index and in the EndpointSlices that arrived before it,
/// so that all of them share one key in memory.
fn share_key(
    slices_of: &mut BTreeMap<Arc<Key>, Vec<Arc<Key>>>,
    slices: &mut Store<Arc<Key>, ReducedSlice>,
    service: &Arc<Key>,
) {
    let Some(keys) = slices_of.remove(&**service) else { return };
    for key in &keys {
        if let Some(slice) = slices.get_mut(&**key) {
            slice.service = Arc::clone(service);
        }
    }
    slices_of.insert(Arc::clone(service), keys);
}
