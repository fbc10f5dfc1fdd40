//! The endpoints of Services, from their EndpointSlices, in a compact form. Owned by the state.

use std::collections::BTreeMap;

use ferrolb_proto::facts::{Endpoint, EndpointSlice, Key};
use ferrolb_runtime::watch::Change;

/// An EndpointSlice that has endpoints.
#[derive(Debug)]
struct StoredSlice {
    name: Box<str>,
    /// Value of the field `round` of [`Slices`] when the watch most recently reported this
    /// EndpointSlice.
    round: u32,
    endpoints: Box<[Endpoint]>,
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
    round: u32,
    complete: bool,
}

impl Slices {
    /// Returns true if a complete list has been received since [`Self::doubt`], even while another
    /// list is read.
    pub(super) const fn is_complete(&self) -> bool {
        self.complete
    }

    /// Marks the endpoints as incomplete until the next list ends.
    pub(super) const fn doubt(&mut self) {
        self.complete = false;
    }

    /// Returns the endpoints of a Service, eligible or not.
    pub(super) fn of(&self, service: &Key) -> impl Iterator<Item = &Endpoint> {
        self.services.get(service).into_iter().flatten().flat_map(|slice| &slice.endpoints)
    }

    /// Handles a change. Returns the Services whose endpoints changed.
    pub(super) fn handle(&mut self, change: Change<EndpointSlice>) -> Vec<Key> {
        match change {
            Change::ResyncStarted => {
                self.round = self.round.wrapping_add(1);
                Vec::new()
            }
            Change::Apply(slice) => self.apply(slice),
            // The EndpointSlice still exists, so the end of the list must not remove its endpoints,
            // which were read earlier.
            Change::Unreadable { key, .. } => {
                let round = self.round;
                let found = self.owner(&key).and_then(|owner| self.services.get_mut(&owner));
                found
                    .into_iter()
                    .flatten()
                    .filter(|kept| kept.name == key.name)
                    .for_each(|kept| kept.round = round);
                Vec::new()
            }
            Change::Delete(key) => self.remove(&key).into_iter().collect(),
            Change::ResyncDone => self.sweep(),
        }
    }

    fn apply(&mut self, slice: EndpointSlice) -> Vec<Key> {
        let EndpointSlice { key, service, endpoints, endpoint_addresses: _, ports: _ } = slice;
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
        if !has_service_prefix(&key.name, &service.name) {
            self.service_names.insert(key.clone(), service.name.clone());
        }
        let kept = StoredSlice { name: key.name, round: self.round, endpoints: endpoints.into() };
        let all = self.services.entry(service.clone()).or_insert_with(|| Vec::with_capacity(1));
        match all.iter_mut().find(|slice| slice.name == kept.name) {
            Some(is) if is.endpoints == kept.endpoints => is.round = kept.round,
            Some(is) => {
                *is = kept;
                changed.push(service);
            }
            None => {
                all.reserve_exact(1);
                all.push(kept);
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
                .is_some_and(|all| all.iter().any(|kept| kept.name == slice.name))
        };
        let other = self.service_names.get(slice).map(|name| Key::new(&slice.namespace, name));
        let dashes = slice
            .name
            .match_indices('-')
            .map(|(at, _)| Key::new(&slice.namespace, &slice.name[..at]));
        other.into_iter().chain(dashes).find(has)
    }

    fn remove(&mut self, slice: &Key) -> Option<Key> {
        let owner = self.owner(slice)?;
        self.service_names.remove(slice);
        let all = self.services.get_mut(&owner)?;
        all.retain(|kept| kept.name != slice.name);
        if all.is_empty() {
            self.services.remove(&owner);
        }
        Some(owner)
    }

    fn sweep(&mut self) -> Vec<Key> {
        self.complete = true;
        let (round, mut changed) = (self.round, Vec::new());
        let others = &mut self.service_names;
        self.services.retain(|service, all| {
            let before = all.len();
            for gone in all.iter().filter(|kept| kept.round != round) {
                others
                    .remove(&Key { namespace: service.namespace.clone(), name: gone.name.clone() });
            }
            all.retain(|kept| kept.round == round);
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
        let service = Some(Key::new("default", service)).filter(|key| !key.name.is_empty());
        let endpoints = nodes.iter().map(endpoint).collect();
        EndpointSlice {
            key: Key::new("default", name),
            service,
            endpoints,
            ..EndpointSlice::default()
        }
    }

    fn on(slices: &Slices, service: &str) -> Vec<String> {
        let service = Key::new("default", service);
        slices
            .of(&service)
            .map(|endpoint| endpoint.node.clone().unwrap_or_default().into())
            .collect()
    }

    fn apply(slices: &mut Slices, slice: EndpointSlice) -> Vec<String> {
        slices.handle(Change::Apply(slice)).iter().map(|key| key.name.to_string()).collect()
    }

    #[test]
    fn endpoints_follow_their_slices_whatever_these_are_called_and_whosever_they_become() {
        let mut slices = Slices::default();
        let gone = |slices: &mut Slices, name: &str| {
            slices.handle(Change::Delete(Key::new("default", name))).len()
        };
        assert_eq!(apply(&mut slices, slice("web-1", "web", &["a"])), ["web"]);
        assert_eq!(
            apply(&mut slices, slice("web-1", "web", &["a"])),
            [""; 0],
            "the same again is no news"
        );
        assert_eq!(apply(&mut slices, slice("web-2-x", "web", &["b"])), ["web"]);
        assert_eq!(apply(&mut slices, slice("by-hand", "web", &["c"])), ["web"]);
        assert_eq!(apply(&mut slices, slice("web-2-y", "web-2", &["d"])), ["web-2"]);
        assert_eq!(
            (on(&slices, "web"), on(&slices, "web-2")),
            (vec!["a".into(), "b".into(), "c".into()], vec!["d".into()])
        );
        assert_eq!(
            apply(&mut slices, slice("by-hand", "web-2", &["c"])),
            ["web", "web-2"],
            "it was given away"
        );
        assert_eq!(apply(&mut slices, slice("web-2-x", "", &["b"])), ["web"], "nobody's any more");
        assert_eq!(
            apply(&mut slices, slice("web-1", "web", &[])),
            ["web"],
            "an empty slice is none"
        );
        assert_eq!(
            (
                gone(&mut slices, "by-hand"),
                gone(&mut slices, "web-2-y"),
                gone(&mut slices, "web-1")
            ),
            (1, 1, 0)
        );
        assert!(slices.services.is_empty() && slices.service_names.is_empty(), "{slices:?}");
    }

    #[test]
    fn a_list_sweeps_what_it_does_not_show() {
        let mut slices = Slices::default();
        for (name, service) in [("a-1", "a"), ("b-1", "b"), ("odd", "c"), ("d-1", "d")] {
            apply(&mut slices, slice(name, service, &["n"]));
        }
        slices.handle(Change::ResyncStarted);
        apply(&mut slices, slice("a-1", "a", &["n"]));
        slices.handle(Change::Unreadable { key: Key::new("default", "d-1"), why: String::new() });
        assert!(!slices.is_complete());
        let changed: Vec<_> =
            slices.handle(Change::ResyncDone).iter().map(|key| key.name.to_string()).collect();
        assert_eq!(changed, ["b", "c"]);
        assert!(
            slices.is_complete() && slices.service_names.is_empty() && slices.services.len() == 2
        );
    }
}
