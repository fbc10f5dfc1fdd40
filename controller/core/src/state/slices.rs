//! The endpoints of Services, from their EndpointSlices, in a compact form. Owned by the state.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ferrolb_core::store::Change;
use ferrolb_proto::facts::{
    API_SERVERS_MAX, Endpoint, EndpointSlice, Key, api_server, is_api_server,
};

/// An EndpointSlice that has endpoints.
#[derive(Debug)]
struct StoredSlice {
    name: Box<str>,
    /// Value of the field `list_number` of [`Slices`] when the watch most recently reported this
    /// EndpointSlice.
    list_number: u32,
    endpoints: Box<[Endpoint]>,
    /// The addresses of the API servers, at most [`API_SERVERS_MAX`], if these are the endpoints.
    api_servers: Box<[IpAddr]>,
}

/// All EndpointSlices that have endpoints, by Service.
///
/// A lookup by the name of an EndpointSlice is fast too, because the Kubernetes controllers begin
/// nearly every name with the name of the Service.
#[derive(Debug, Default)]
pub(super) struct Slices {
    services: BTreeMap<Key, Vec<StoredSlice>>,
    /// The Service's name for each EndpointSlice whose own name does not begin with it.
    service_names: BTreeMap<Key, Box<str>>,
    list_number: u32,
    complete: bool,
}

impl Slices {
    /// Returns true if a complete list has been received since [`Self::mark_incomplete`], even if
    /// another list is being read.
    pub(super) const fn is_complete(&self) -> bool {
        self.complete
    }

    /// Marks the endpoints as incomplete until the next list ends.
    pub(super) const fn mark_incomplete(&mut self) {
        self.complete = false;
    }

    /// Returns the endpoints of a Service, eligible or not.
    pub(super) fn of(&self, service: &Key) -> impl Iterator<Item = &Endpoint> {
        self.services.get(service).into_iter().flatten().flat_map(|slice| &slice.endpoints)
    }

    /// Returns the addresses of the API servers.
    pub(super) fn api_server_addresses(&self) -> impl Iterator<Item = IpAddr> {
        let slices = self.services.get(&api_server()).into_iter().flatten();
        slices.flat_map(|slice| slice.api_servers.iter().copied()).take(API_SERVERS_MAX)
    }

    /// Returns the EndpointSlices of a Service that have endpoints.
    pub(super) fn names_of(&self, service: &Key) -> impl Iterator<Item = Key> {
        let slices = self.services.get(service).into_iter().flatten();
        slices.map(|slice| Key::new(service.namespace(), &slice.name))
    }

    /// Returns the Services that have an endpoint on a node.
    pub(super) fn services_on(&self, node: &str) -> impl Iterator<Item = &Key> {
        let is_on = |slice: &StoredSlice| {
            slice.endpoints.iter().any(|endpoint| endpoint.node.as_deref() == Some(node))
        };
        self.services.iter().filter(move |(_, all)| all.iter().any(is_on)).map(|(key, _)| key)
    }

    /// Handles a change. Returns the Services whose endpoints changed.
    pub(super) fn handle(&mut self, change: Change<EndpointSlice>) -> Vec<Key> {
        match change {
            Change::ResyncStarted => {
                self.list_number = self.list_number.wrapping_add(1);
                Vec::new()
            }
            Change::Apply(slice) => self.apply(slice),
            // The EndpointSlice still exists, so the end of the list must not remove its endpoints,
            // which were read earlier.
            Change::Unreadable { key, .. } => {
                let list_number = self.list_number;
                let found = self.owner(&key).and_then(|owner| self.services.get_mut(&owner));
                found
                    .into_iter()
                    .flatten()
                    .filter(|stored| *stored.name == *key.name())
                    .for_each(|stored| stored.list_number = list_number);
                Vec::new()
            }
            Change::Delete(key) => self.remove(&key).into_iter().collect(),
            Change::ResyncDone => self.remove_unlisted(),
        }
    }

    fn apply(&mut self, slice: EndpointSlice) -> Vec<Key> {
        let EndpointSlice { key, service, endpoints, endpoint_addresses, ports: _ } = slice;
        let before = self.owner(&key);
        let mut changed = Vec::new();
        if before.is_some() && before != service {
            changed.extend(self.remove(&key));
        }
        let Some(service) = service else { return changed };
        if endpoints.is_empty() {
            changed.extend(self.remove(&key));
            return changed;
        }
        if !has_service_prefix(key.name(), service.name()) {
            self.service_names.insert(key.clone(), service.name().into());
        }
        let api_servers = endpoint_addresses.into_iter().filter(|_| is_api_server(&service));
        let api_servers = api_servers.take(API_SERVERS_MAX).map(|it| it.address).collect();
        let stored = StoredSlice {
            name: key.name().into(),
            list_number: self.list_number,
            endpoints: endpoints.into(),
            api_servers,
        };
        let all = self.services.entry(service.clone()).or_insert_with(|| Vec::with_capacity(1));
        match all.iter_mut().find(|slice| slice.name == stored.name) {
            Some(current)
                if (&current.endpoints, &current.api_servers)
                    == (&stored.endpoints, &stored.api_servers) =>
            {
                current.list_number = stored.list_number
            }
            Some(current) => {
                *current = stored;
                changed.push(service);
            }
            None => {
                all.reserve_exact(1);
                all.push(stored);
                changed.push(service);
            }
        }
        changed
    }

    /// Returns the Service to which a stored EndpointSlice belongs.
    fn owner(&self, slice: &Key) -> Option<Key> {
        let has = |service: &Key| {
            self.services
                .get(service)
                .is_some_and(|all| all.iter().any(|stored| *stored.name == *slice.name()))
        };
        let other = self.service_names.get(slice).map(|name| Key::new(slice.namespace(), name));
        let name = slice.name();
        let dashes =
            name.match_indices('-').map(|(at, _)| Key::new(slice.namespace(), &name[..at]));
        other.into_iter().chain(dashes).find(has)
    }

    fn remove(&mut self, slice: &Key) -> Option<Key> {
        let owner = self.owner(slice)?;
        self.service_names.remove(slice);
        let all = self.services.get_mut(&owner)?;
        all.retain(|stored| *stored.name != *slice.name());
        if all.is_empty() {
            self.services.remove(&owner);
        }
        Some(owner)
    }

    fn remove_unlisted(&mut self) -> Vec<Key> {
        self.complete = true;
        let (list_number, mut changed) = (self.list_number, Vec::new());
        let service_names = &mut self.service_names;
        self.services.retain(|service, all| {
            let before = all.len();
            for removed in all.iter().filter(|stored| stored.list_number != list_number) {
                service_names.remove(&Key::new(service.namespace(), &removed.name));
            }
            all.retain(|stored| stored.list_number == list_number);
            if all.len() != before {
                changed.push(service.clone());
            }
            !all.is_empty()
        });
        changed
    }
}

/// Returns true if the name of an EndpointSlice begins with the name of its Service and a dash.
fn has_service_prefix(slice: &str, service: &str) -> bool {
    slice.strip_prefix(service).is_some_and(|rest| rest.starts_with('-'))
}

#[cfg(test)]
mod tests {
    use ferrolb_proto::range::Family;

    use super::*;

    fn slice(name: &str, service: &str, nodes: &[&str]) -> EndpointSlice {
        let endpoint = |node: &&str| Endpoint {
            node: Some((*node).into()),
            family: Family::V4,
            ready: true,
            serving: true,
            terminating: false,
        };
        let service = Some(Key::new("default", service)).filter(|key| !key.name().is_empty());
        let endpoints = nodes.iter().map(endpoint).collect();
        EndpointSlice {
            key: Key::new("default", name),
            service,
            endpoints,
            ..EndpointSlice::default()
        }
    }

    fn nodes_of(slices: &Slices, service: &str) -> Vec<String> {
        let service = Key::new("default", service);
        slices
            .of(&service)
            .map(|endpoint| endpoint.node.clone().unwrap_or_default().into())
            .collect()
    }

    fn apply(slices: &mut Slices, slice: EndpointSlice) -> Vec<String> {
        slices.handle(Change::Apply(slice)).iter().map(|key| key.name().to_string()).collect()
    }

    #[test]
    fn slices_are_found_by_any_name_and_can_change_their_service() {
        let mut slices = Slices::default();
        let delete = |slices: &mut Slices, name: &str| {
            slices.handle(Change::Delete(Key::new("default", name))).len()
        };
        assert_eq!(apply(&mut slices, slice("web-1", "web", &["a"])), ["web"]);
        assert_eq!(
            apply(&mut slices, slice("web-1", "web", &["a"])),
            [""; 0],
            "an unchanged slice changes no Service"
        );
        assert_eq!(apply(&mut slices, slice("web-2-x", "web", &["b"])), ["web"]);
        assert_eq!(apply(&mut slices, slice("by-hand", "web", &["c"])), ["web"]);
        assert_eq!(apply(&mut slices, slice("web-2-y", "web-2", &["d"])), ["web-2"]);
        assert_eq!(
            (nodes_of(&slices, "web"), nodes_of(&slices, "web-2")),
            (vec!["a".into(), "b".into(), "c".into()], vec!["d".into()])
        );
        assert_eq!(
            apply(&mut slices, slice("by-hand", "web-2", &["c"])),
            ["web", "web-2"],
            "the slice moves to another Service"
        );
        assert_eq!(
            apply(&mut slices, slice("web-2-x", "", &["b"])),
            ["web"],
            "the slice belongs to no Service any more"
        );
        assert_eq!(
            apply(&mut slices, slice("web-1", "web", &[])),
            ["web"],
            "a slice without endpoints is removed"
        );
        assert_eq!(
            (
                delete(&mut slices, "by-hand"),
                delete(&mut slices, "web-2-y"),
                delete(&mut slices, "web-1")
            ),
            (1, 1, 0)
        );
        assert!(slices.services.is_empty() && slices.service_names.is_empty(), "{slices:?}");
    }

    #[test]
    fn a_complete_list_removes_the_slices_that_it_lacks() {
        let mut slices = Slices::default();
        for (name, service) in [("a-1", "a"), ("b-1", "b"), ("odd", "c"), ("d-1", "d")] {
            apply(&mut slices, slice(name, service, &["n"]));
        }
        slices.handle(Change::ResyncStarted);
        apply(&mut slices, slice("a-1", "a", &["n"]));
        slices.handle(Change::Unreadable { key: Key::new("default", "d-1"), why: String::new() });
        assert!(!slices.is_complete());
        let changed: Vec<_> =
            slices.handle(Change::ResyncDone).iter().map(|key| key.name().to_string()).collect();
        assert_eq!(changed, ["b", "c"]);
        assert!(
            slices.is_complete() && slices.service_names.is_empty() && slices.services.len() == 2
        );
    }
}
