//! EndpointSlices by Service. Pure; the state of each program owns one index, and decides which
//! fields of an EndpointSlice it keeps.

use std::borrow::Borrow;
use std::collections::BTreeMap;

use ferrolb_proto::facts::{EndpointSlice, Key};

use crate::store::Change;

/// An EndpointSlice of a Service.
#[derive(Debug)]
struct StoredSlice<V> {
    name: Box<str>,
    /// Value of the field `list_number` of [`EndpointSlices`] when the watch most recently reported
    /// this EndpointSlice.
    list_number: u32,
    value: V,
}

/// All EndpointSlices that a program needs, by Service, each with its value.
///
/// A program stores ten thousand of them, so an EndpointSlice has no [`Key`] of its own. A lookup
/// by the name of an EndpointSlice is fast too, because the Kubernetes controllers begin nearly
/// every name with the name of the Service.
#[derive(Debug, Default)]
pub struct EndpointSlices<K, V> {
    /// The EndpointSlices of each Service, in the order of their names.
    services: BTreeMap<K, Vec<StoredSlice<V>>>,
    /// The Service's name for each EndpointSlice whose own name does not begin with it.
    service_names: BTreeMap<Key, Box<str>>,
    list_number: u32,
    complete: bool,
}

impl<K: Borrow<Key> + Ord + Clone, V: PartialEq> EndpointSlices<K, V> {
    /// Returns whether a complete list has been received since [`Self::mark_incomplete`], even if
    /// another list is being read.
    #[must_use]
    pub const fn is_complete(&self) -> bool {
        self.complete
    }

    /// Marks the EndpointSlices as incomplete until the next list ends.
    pub const fn mark_incomplete(&mut self) {
        self.complete = false;
    }

    /// Returns the values of a Service's EndpointSlices, in the order of their names.
    pub fn of(&self, service: &Key) -> impl Iterator<Item = &V> {
        self.services.get(service).into_iter().flatten().map(|slice| &slice.value)
    }

    /// Returns the keys of a Service's EndpointSlices.
    pub fn keys_of(&self, service: &Key) -> impl Iterator<Item = Key> {
        let slices = self.services.get(service).into_iter().flatten();
        slices.map(|slice| Key::new(service.namespace(), &slice.name))
    }

    /// Returns the Services that have an EndpointSlice for which `applies` returns true.
    pub fn services_with(&self, applies: impl Fn(&V) -> bool) -> impl Iterator<Item = &K> {
        let any = move |slices: &[StoredSlice<V>]| slices.iter().any(|it| applies(&it.value));
        self.services.iter().filter(move |(_, slices)| any(slices)).map(|(service, _)| service)
    }

    /// Returns the number of EndpointSlices.
    #[must_use]
    pub fn count(&self) -> usize {
        self.services.values().map(Vec::len).sum()
    }

    /// Replaces the stored key of a Service by an equal one that shares its memory with others.
    pub fn share_key(&mut self, service: &K) {
        if let Some(slices) = self.services.remove(service.borrow()) {
            self.services.insert(service.clone(), slices);
        }
    }

    /// Handles a change. Returns the Services whose EndpointSlices changed.
    ///
    /// `keep` returns the Service of an EndpointSlice and the value to store. If it returns none,
    /// the EndpointSlice is removed, because the program does not need it. An EndpointSlice that
    /// cannot be read keeps its value, unless the caller applies [`Change::or_delete`] first.
    pub fn handle(
        &mut self,
        change: Change<EndpointSlice>,
        keep: impl FnOnce(EndpointSlice) -> Option<(K, V)>,
    ) -> Vec<K> {
        match change {
            Change::ResyncStarted => self.list_number = self.list_number.wrapping_add(1),
            Change::Apply(slice) => {
                let key = slice.key.clone();
                return self.apply(&key, keep(slice));
            }
            Change::Unreadable { key, .. } => self.touch(&key),
            Change::Delete(key) => return self.apply(&key, None),
            Change::ResyncDone => return self.remove_unlisted(),
            Change::Connected(_) => {}
        }
        Vec::new()
    }

    /// Stores a value of an EndpointSlice, or removes the EndpointSlice.
    fn apply(&mut self, slice: &Key, kept: Option<(K, V)>) -> Vec<K> {
        let mut changed = Vec::new();
        let left = self.owner(slice).filter(|owner| kept.as_ref().map(|it| &it.0) != Some(owner));
        if let Some(owner) = left {
            self.remove(owner.borrow(), slice);
            changed.push(owner);
        }
        let Some((service, value)) = kept else { return changed };
        let name = service.borrow().name();
        if !slice.name().strip_prefix(name).is_some_and(|rest| rest.starts_with('-')) {
            self.service_names.insert(slice.clone(), name.into());
        }
        let stored =
            StoredSlice { name: slice.name().into(), list_number: self.list_number, value };
        let slices = self.services.entry(service.clone()).or_default();
        match position(slices, slice.name()) {
            Ok(at) => {
                let before = std::mem::replace(&mut slices[at], stored);
                changed.extend((before.value != slices[at].value).then_some(service));
            }
            Err(at) => {
                // Most Services have one or two EndpointSlices, and leave no space unused.
                if slices.len() == slices.capacity() {
                    slices.reserve_exact(1 + slices.len() / 8);
                }
                slices.insert(at, stored);
                changed.push(service);
            }
        }
        changed
    }

    /// Returns the Service to which a stored EndpointSlice belongs.
    fn owner(&self, slice: &Key) -> Option<K> {
        let name = slice.name();
        let other = self.service_names.get(slice).map(|service| &**service);
        let prefixes = name.match_indices('-').map(|(at, _)| &name[..at]);
        other.into_iter().chain(prefixes).find_map(|service| {
            let service = Key::new(slice.namespace(), service);
            let (service, slices) = self.services.get_key_value(&service)?;
            position(slices, name).is_ok().then(|| service.clone())
        })
    }

    /// Records that an EndpointSlice still exists, so that the end of the current list does not
    /// remove it.
    fn touch(&mut self, slice: &Key) {
        let owner = self.owner(slice);
        let slices =
            owner.and_then(|owner| self.services.get_mut(owner.borrow())).into_iter().flatten();
        let same_name = slices.filter(|stored| *stored.name == *slice.name());
        same_name.for_each(|stored| stored.list_number = self.list_number);
    }

    fn remove(&mut self, service: &Key, slice: &Key) {
        self.service_names.remove(slice);
        let Some(slices) = self.services.get_mut(service) else { return };
        slices.retain(|stored| *stored.name != *slice.name());
        if slices.is_empty() {
            self.services.remove(service);
        }
    }

    /// Removes the EndpointSlices that the list did not contain.
    fn remove_unlisted(&mut self) -> Vec<K> {
        self.complete = true;
        let (list_number, mut changed) = (self.list_number, Vec::new());
        let service_names = &mut self.service_names;
        self.services.retain(|service, slices| {
            let before = slices.len();
            for removed in slices.iter().filter(|stored| stored.list_number != list_number) {
                service_names.remove(&Key::new(service.borrow().namespace(), &removed.name));
            }
            slices.retain(|stored| stored.list_number == list_number);
            if slices.len() != before {
                changed.push(service.clone());
            }
            !slices.is_empty()
        });
        changed
    }
}

/// Returns the position of the EndpointSlice of this name, or the one at which it would be.
fn position<V>(slices: &[StoredSlice<V>], name: &str) -> Result<usize, usize> {
    slices.binary_search_by(|stored| (*stored.name).cmp(name))
}

#[cfg(test)]
mod tests;
