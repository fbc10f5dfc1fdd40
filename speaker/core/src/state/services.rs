//! Services with addresses and their EndpointSlices, indexed by address and by Service. Pure;
//! [`super::State`] owns them. A change of an object reports the addresses and Services that it
//! concerns. An EndpointSlice of another Service concerns none.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use ferrolb_core::eligibility::EligibleEndpoints;
use ferrolb_core::endpoint_slices::EndpointSlices;
use ferrolb_core::shared_map::SharedMap;
use ferrolb_core::store::{Change, Store};
use ferrolb_proto::facts::{EndpointSlice, Key, Service, TrafficPolicy, api_server, is_api_server};
use ferrolb_proto::range::AddressRange;

use super::changes::Changes;
use super::{ReducedService, ReducedSlice, StateConfig};
use crate::health::kube_proxy::Families;

/// Services with addresses and their EndpointSlices.
#[derive(Debug, Default)]
pub(crate) struct Services {
    /// FerroLB's Services with assigned addresses, reduced to the fields that a plan needs.
    services: Store<Arc<Key>, ReducedService>,
    slices: EndpointSlices<Arc<Key>, ReducedSlice>,
    /// Addresses, each with the key of a Service that has it. A [`SharedMap`] needs less memory
    /// than a B-tree, which is half empty after the ascending keys of a list.
    by_address: SharedMap<(IpAddr, Arc<Key>), ()>,
    /// Keys of the Services with a health check node port.
    with_node_port: BTreeSet<Arc<Key>>,
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
            // The store and the indexes share one key in memory.
            let (key, now) = match self.services.get_key_value(&*key) {
                Some((key, now)) => (Arc::clone(key), Some(now)),
                None => (key, None),
            };
            if before.is_none() {
                self.slices.share_key(&key);
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
        let was_listed = self.slices.is_complete();
        let services = &self.services;
        let reduce = |slice| {
            let (service, slice) = ReducedSlice::of(slice, node)?;
            let known = services.get_key_value(&service).map(|(key, _)| Arc::clone(key));
            Some((known.unwrap_or_else(|| Arc::new(service)), slice))
        };
        let changed = self.slices.handle(change.or_delete(), reduce);
        let mut changes = Changes::all_if(was_listed != self.slices.is_complete());
        for service in changed {
            changes.add(self.concerning(&service));
            changes.all |= is_api_server(&service);
        }
        changes
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
            ("EndpointSlices", self.slices.is_complete()),
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
        // The default key sorts before the key of any object.
        let pairs = self.by_address.after(Some(&(address, Arc::default()))).map(|(pair, ())| pair);
        let keys = pairs.take_while(move |pair| pair.0 == address).map(|(_, key)| key);
        keys.filter_map(|key| self.services.get_key_value(&**key))
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
        Families {
            v4: self.addresses().next().is_some_and(|address| address.is_ipv4()),
            v6: self.by_address.after(Some(&last_v4)).next().is_some(),
        }
    }

    /// Returns the Services with a health check node port, sorted by namespace and name.
    pub(crate) fn with_node_port(&self) -> impl Iterator<Item = &ReducedService> {
        self.with_node_port.iter().filter_map(|key| self.services.get(&**key))
    }

    /// Returns the EndpointSlices of a Service, sorted by name.
    pub(crate) fn slices_of(&self, service: &Key) -> impl Iterator<Item = &ReducedSlice> {
        self.slices.of(service)
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
    pub(crate) fn api_servers(&self) -> BTreeSet<SocketAddr> {
        self.slices_of(&api_server()).flat_map(|slice| &slice.api_servers).copied().collect()
    }

    /// Returns the number of EndpointSlices.
    pub(super) fn slice_count(&self) -> usize {
        self.slices.count()
    }
}
