//! The watched objects of one kind, which the changes of their watch keep up to date. The state of
//! a program owns one store per kind.
//!
//! The store reports a change only if it changes the stored value. This one rule suits all kinds:
//!
//! - Facts contain only the fields that FerroLB reads. A heartbeat of a Node, or a condition of a
//!   Service that no decision depends on, does not change the fact.
//! - Facts of FerroLB's custom resources contain `metadata.generation`, which changes with the
//!   spec, and the labels that FerroLB reads. Their status is a
//!   [`ObservedStatus`](ferrolb_proto::facts::ObservedStatus), and all values of that type compare
//!   equal. The store therefore stores a new status, but does not report it.

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::ops::Bound;

use ferrolb_proto::facts::{Key, Keyed, Kind};

/// A change that a watch reports to the program's state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change<F> {
    /// A list begins. Every existing object follows, then [`Change::ResyncDone`]. If
    /// `ResyncStarted` arrives again before that, the list was interrupted and begins again.
    /// Objects that are already stored remain valid until the list is complete.
    ResyncStarted,
    /// The object exists; its fact holds all fields that FerroLB uses.
    Apply(F),
    /// The object exists and cannot be decoded; `why` names the field. Other objects are not
    /// affected.
    Unreadable {
        /// Key of the object.
        key: Key,
        /// Error of the decoder.
        why: String,
    },
    /// The object is deleted.
    Delete(Key),
    /// The list is complete. Objects that were neither applied nor unreadable since the latest
    /// [`Change::ResyncStarted`] are deleted.
    ResyncDone,
    /// After the list: true if the API server sends further changes from now on, and false if the
    /// watch is interrupted, so that any stored object may be outdated.
    Connected(bool),
}

impl<F> Change<F> {
    /// Returns the name of the kind, the key and the reason, if this change is about an object that
    /// cannot be decoded.
    #[must_use]
    pub const fn unreadable(&self) -> Option<(&'static str, &Key, &str)>
    where
        F: Kind,
    {
        match self {
            Self::Unreadable { key, why } => Some((F::NAME, key, why.as_str())),
            Self::ResyncStarted
            | Self::Apply(_)
            | Self::Delete(_)
            | Self::ResyncDone
            | Self::Connected(_) => None,
        }
    }

    /// Returns this change, or [`Change::Delete`] if the object cannot be read.
    #[must_use]
    pub fn or_delete(self) -> Self {
        if let Self::Unreadable { key, .. } = self { Self::Delete(key) } else { self }
    }
}

/// Objects by key. Lists have ascending numbers. Each object has the number of the list that was
/// the latest one when the watch last reported the object. At the end of a list, objects with a
/// lower number are removed.
///
/// Values are boxed, because about half of the slots in the nodes of a `BTreeMap` are empty.
#[derive(Debug)]
pub struct Store<K, V> {
    objects: BTreeMap<K, Box<(u32, V)>>,
    list_number: u32,
    complete: bool,
    ever_complete: bool,
    connected: bool,
}

impl<K, V> Default for Store<K, V> {
    fn default() -> Self {
        Self {
            objects: BTreeMap::new(),
            list_number: 0,
            complete: false,
            ever_complete: false,
            connected: false,
        }
    }
}

impl<K: Ord + Clone + From<Key>, V> Store<K, V> {
    /// Applies a change. Returns each key whose value has changed, with its previous value; `None`:
    /// the object is new.
    ///
    /// `keep` converts a fact to the value that is stored. If it returns `None`, the object is
    /// removed, because FerroLB does not need it. An object that cannot be read keeps its value,
    /// unless the caller applies [`Change::or_delete`] first.
    pub fn handle<F: Keyed>(
        &mut self,
        change: Change<F>,
        keep: impl FnOnce(F) -> Option<V>,
    ) -> Vec<(K, Option<V>)>
    where
        K: From<F::Key>,
        V: PartialEq,
    {
        match change {
            Change::ResyncStarted => self.resync_started(),
            Change::Apply(fact) => {
                let key = K::from(fact.key());
                let Some(value) = keep(fact) else { return self.delete(key) };
                let differs = self.get(&key) != Some(&value);
                let before = self.put(key.clone(), value);
                return if differs { vec![(key, before)] } else { Vec::new() };
            }
            Change::Unreadable { key, .. } => self.touch(&key.into()),
            Change::Delete(key) => return self.delete(key.into()),
            Change::ResyncDone => {
                let removed = self.resync_done().into_iter();
                return removed.map(|(key, value)| (key, Some(value))).collect();
            }
            Change::Connected(connected) => self.connected = connected,
        }
        Vec::new()
    }

    fn delete(&mut self, key: K) -> Vec<(K, Option<V>)> {
        self.remove(&key).map(|value| (key, Some(value))).into_iter().collect()
    }

    /// Records that a list begins.
    pub const fn resync_started(&mut self) {
        self.list_number = self.list_number.wrapping_add(1);
    }

    /// Records that a list is complete. Removes and returns the objects that the list did not
    /// contain.
    pub fn resync_done(&mut self) -> Vec<(K, V)> {
        (self.complete, self.ever_complete) = (true, true);
        let list_number = self.list_number;
        self.objects
            .extract_if(.., |_, entry| entry.0 != list_number)
            .map(|(key, entry)| (key, entry.1))
            .collect()
    }

    /// Stores a value, and returns the previous one.
    pub fn put(&mut self, key: K, value: V) -> Option<V> {
        self.objects.insert(key, Box::new((self.list_number, value))).map(|before| before.1)
    }

    /// Records that an object still exists, so that the end of the current list does not remove it.
    pub fn touch(&mut self, key: &K) {
        if let Some(entry) = self.objects.get_mut(key) {
            entry.0 = self.list_number;
        }
    }

    /// Removes the value of this key, and returns it.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        self.objects.remove(key).map(|entry| entry.1)
    }

    /// Returns the value of this key for modification.
    pub fn get_mut<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        self.objects.get_mut(key).map(|entry| &mut entry.1)
    }

    /// Returns all values for modification, in the order of their keys.
    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut V> {
        self.objects.values_mut().map(|entry| &mut entry.1)
    }

    /// Returns all keys in circular order: first those after `key`, then the smallest one and all
    /// others up to `key`.
    pub fn keys_after(&self, key: &K) -> impl Iterator<Item = &K> {
        let later = self.objects.range((Bound::Excluded(key), Bound::Unbounded));
        later.chain(self.objects.range(..=key)).map(|(key, _)| key)
    }
}

impl<K: Ord, V> Store<K, V> {
    /// Returns whether a list has been completed since the latest [`Self::mark_incomplete`], even
    /// if another list is in progress.
    #[must_use]
    pub const fn is_complete(&self) -> bool {
        self.complete
    }

    /// Returns whether any list has been completed since the store was created.
    #[must_use]
    pub const fn was_ever_complete(&self) -> bool {
        self.ever_complete
    }

    /// Returns whether the store is complete and its watch is not interrupted.
    #[must_use]
    pub const fn is_current(&self) -> bool {
        self.complete && self.connected
    }

    /// Makes the store incomplete until the next list is complete.
    pub const fn mark_incomplete(&mut self) {
        (self.complete, self.connected) = (false, false);
    }

    /// Returns the value of this key.
    #[must_use]
    pub fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.objects.get(key).map(|entry| &entry.1)
    }

    /// Returns the value of this key, with the key that the store contains.
    #[must_use]
    pub fn get_key_value<Q: Ord + ?Sized>(&self, key: &Q) -> Option<(&K, &V)>
    where
        K: Borrow<Q>,
    {
        self.objects.get_key_value(key).map(|(key, entry)| (key, &entry.1))
    }

    /// Returns all keys and values, in the order of the keys.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> + Clone {
        self.objects.iter().map(|(key, entry)| (key, &entry.1))
    }

    /// Returns all values, in the order of their keys.
    pub fn values(&self) -> impl Iterator<Item = &V> + Clone {
        self.objects.values().map(|entry| &entry.1)
    }

    /// Returns all keys in order.
    pub fn keys(&self) -> impl Iterator<Item = &K> {
        self.objects.keys()
    }

    /// Returns the number of objects.
    #[must_use]
    pub fn len(&self) -> usize {
        self.objects.len()
    }

    /// Returns whether the store contains no object.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use ferrolb_proto::api;
    use ferrolb_proto::facts::{Namespace, ObservedStatus, Pool};

    use super::*;

    fn key(name: &str) -> Key {
        Key::new("", name)
    }

    fn labeled(name: &str, value: &str) -> Change<Namespace> {
        let labels = [("value".to_owned(), value.to_owned())].into();
        Change::Apply(Namespace { name: name.into(), labels })
    }

    fn handle(store: &mut Store<Box<str>, String>, change: Change<Namespace>) -> Vec<String> {
        let changed = store.handle(change, |mut namespace| namespace.labels.remove("value"));
        changed.iter().map(|(key, before)| format!("{key} {before:?}")).collect()
    }

    #[test]
    fn only_a_complete_list_removes_missing_objects() {
        let mut store = Store::default();
        assert!(handle(&mut store, Change::ResyncStarted).is_empty());
        for name in ["a", "b", "c"] {
            assert_eq!(handle(&mut store, labeled(name, "1")), [format!("{name} None")]);
        }
        assert!(!store.is_complete() && !store.was_ever_complete());
        assert!(handle(&mut store, Change::ResyncDone).is_empty());
        assert!(store.is_complete() && store.was_ever_complete());
        handle(&mut store, Change::ResyncStarted);
        assert_eq!(handle(&mut store, labeled("a", "2")), ["a Some(\"1\")"]);
        handle(&mut store, Change::ResyncStarted);
        assert!(
            handle(&mut store, labeled("b", "1")).is_empty(),
            "an unchanged object is not reported"
        );
        handle(&mut store, Change::Unreadable { key: key("c"), why: String::new() });
        assert!(store.is_complete(), "the store stays complete during the next list");
        assert_eq!(handle(&mut store, Change::ResyncDone), ["a Some(\"2\")"]);
        assert_eq!(store.keys().map(|key| &**key).collect::<Vec<_>>(), ["b", "c"]);
        let after =
            |name: &str| store.keys_after(&name.into()).map(|key| &**key).collect::<Vec<_>>();
        assert_eq!(
            (after("b"), after("a"), after("d")),
            (vec!["c", "b"], vec!["b", "c"], vec!["b", "c"])
        );
        store.mark_incomplete();
        assert!(!store.is_complete() && store.was_ever_complete());
    }

    #[test]
    fn deleted_and_unneeded_objects_are_removed() {
        let mut store = Store::default();
        handle(&mut store, labeled("a", "1"));
        handle(&mut store, labeled("b", "1"));
        assert_eq!(handle(&mut store, Change::Delete(key("a"))), ["a Some(\"1\")"]);
        assert!(handle(&mut store, Change::Delete(key("a"))).is_empty());
        let bare = Namespace { name: "b".into(), ..Namespace::default() };
        assert_eq!(handle(&mut store, Change::Apply(bare)), ["b Some(\"1\")"]);
        assert!(store.is_empty());
    }

    #[test]
    fn a_status_write_is_stored_but_not_reported() {
        let mut store = Store::<Box<str>, Pool>::default();
        let pool = |generation, assigned_ipv4| Pool {
            name: "lan".into(),
            generation,
            status: ObservedStatus(api::IPAddressPoolStatus {
                assigned_ipv4,
                ..Default::default()
            }),
            ..Pool::default()
        };
        for (pool, changes) in [(pool(1, 0), 1), (pool(1, 5), 0), (pool(2, 5), 1)] {
            assert_eq!(store.handle(Change::Apply(pool.clone()), Some).len(), changes);
            assert_eq!(
                store.get("lan").map(|pool| pool.status.assigned_ipv4),
                Some(pool.status.assigned_ipv4)
            );
        }
    }
}
