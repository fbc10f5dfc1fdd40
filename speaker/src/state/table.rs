//! The objects of one kind, kept by the changes of their watch. Pure; [`super::State`] owns one for each kind.

use std::collections::{BTreeMap, BTreeSet};

use ferrolb_proto::facts::{Advertisement, Key, Node, Pool, Service, Slice, Speaker};
use ferrolb_runtime::watch::Change;

use super::kept::{KeptService, KeptSlice};

/// A fact that has a name.
pub(crate) trait Named {
    /// Its key. Nodes, and our own kinds that all live in our one namespace, are told apart by name alone.
    fn key(&self) -> Key;

    /// The same for the key of an object that is gone or cannot be read.
    fn normal(key: Key) -> Key {
        Key { namespace: "".into(), ..key }
    }
}

impl Named for Service {
    fn key(&self) -> Key {
        self.key.clone()
    }

    fn normal(key: Key) -> Key {
        key
    }
}

impl Named for Slice {
    fn key(&self) -> Key {
        self.key.clone()
    }

    fn normal(key: Key) -> Key {
        key
    }
}

impl Named for Node {
    fn key(&self) -> Key {
        Key::new("", &self.name)
    }
}

impl Named for Pool {
    fn key(&self) -> Key {
        Key::new("", &self.name)
    }
}

impl Named for Advertisement {
    fn key(&self) -> Key {
        Key::new("", &self.name)
    }
}

/// What is kept of a fact.
pub(crate) trait Kept {
    /// Whether the other says the same. Where that cannot be told: no.
    fn same(&self, other: &Self) -> bool;
}

impl Kept for KeptService {
    fn same(&self, other: &Self) -> bool {
        self == other
    }
}

impl Kept for KeptSlice {
    fn same(&self, other: &Self) -> bool {
        self == other
    }
}

impl Kept for Node {
    fn same(&self, other: &Self) -> bool {
        self == other
    }
}

impl Kept for Pool {
    fn same(&self, other: &Self) -> bool {
        self == other
    }
}

impl Named for Speaker {
    fn key(&self) -> Key {
        Key::new("", &self.node)
    }
}

impl Kept for Speaker {
    fn same(&self, other: &Self) -> bool {
        self == other
    }
}

impl Kept for Advertisement {
    fn same(&self, _other: &Self) -> bool {
        false
    }
}

/// What is known of the objects of one kind.
#[derive(Debug)]
pub(crate) struct Table<F> {
    objects: BTreeMap<Key, F>,
    /// While a list comes in: what it had so far.
    listing: Option<BTreeSet<Key>>,
    listed: bool,
}

impl<F> Default for Table<F> {
    fn default() -> Self {
        Self { objects: BTreeMap::new(), listing: None, listed: false }
    }
}

impl<F: Kept> Table<F> {
    /// Takes one change and says whether it made a difference; `keep` reduces an object to what is kept of it, or says that it
    /// is of no interest.
    pub(super) fn handle<O: Named>(&mut self, change: Change<O>, keep: impl FnOnce(O) -> Option<F>) -> bool {
        match change {
            Change::ResyncStarted => {
                self.listing = Some(BTreeSet::new());
                false
            }
            Change::Apply(object) => {
                let key = object.key();
                let Some(object) = keep(object) else { return self.objects.remove(&key).is_some() };
                if let Some(listing) = &mut self.listing {
                    listing.insert(key.clone());
                }
                if self.objects.get(&key).is_some_and(|before| before.same(&object)) {
                    return false;
                }
                self.objects.insert(key, object);
                true
            }
            Change::Unreadable { key, .. } | Change::Delete(key) => self.objects.remove(&O::normal(key)).is_some(),
            Change::ResyncDone => {
                let before = self.objects.len();
                if let Some(listing) = self.listing.take() {
                    self.objects.retain(|key, _| listing.contains(key));
                }
                let first = !std::mem::replace(&mut self.listed, true);
                first || self.objects.len() != before
            }
        }
    }
}

impl<F> Table<F> {
    /// Whether a whole list has come in once.
    pub(crate) const fn is_listed(&self) -> bool {
        self.listed
    }

    /// The object of this key.
    pub(crate) fn get(&self, key: &Key) -> Option<&F> {
        self.objects.get(key)
    }

    /// All objects with their keys, by key.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Key, &F)> {
        self.objects.iter()
    }

    /// All objects, by key.
    pub(crate) fn values(&self) -> impl Iterator<Item = &F> + Clone {
        self.objects.values()
    }
}
