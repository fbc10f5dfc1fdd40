//! The objects of one kind, as far as the watch has told: applied one by one, swept after each list. Owned by the state.

use std::collections::BTreeMap;
use std::ops::Bound;

use ferrolb_proto::facts::Key;

/// Objects by name, each with the number of the list that showed it last; boxed, because nodes of the map are half empty.
#[derive(Debug)]
pub(super) struct Inventory<F> {
    objects: BTreeMap<Key, Box<(u32, F)>>,
    round: u32,
    complete: bool,
    listed: bool,
}

impl<F> Default for Inventory<F> {
    fn default() -> Self {
        Self { objects: BTreeMap::new(), round: 0, complete: false, listed: false }
    }
}

impl<F> Inventory<F> {
    /// Whether a whole list has been seen; stays so while another one is read.
    pub(super) const fn is_complete(&self) -> bool {
        self.complete
    }

    /// Whether there has ever been one.
    pub(super) const fn was_listed(&self) -> bool {
        self.listed
    }

    /// What is there counts no longer as complete, until the next list has ended.
    pub(super) const fn doubt(&mut self) {
        self.complete = false;
    }

    /// A list begins.
    pub(super) const fn resync_started(&mut self) {
        self.round = self.round.wrapping_add(1);
    }

    /// The list has ended: what it did not show is gone.
    pub(super) fn resync_done(&mut self) -> Vec<(Key, F)> {
        (self.complete, self.listed) = (true, true);
        let round = self.round;
        self.objects.extract_if(.., |_, is| is.0 != round).map(|(key, is)| (key, is.1)).collect()
    }

    /// An object is there; the answer is what was there before.
    pub(super) fn put(&mut self, key: Key, object: F) -> Option<F> {
        self.objects.insert(key, Box::new((self.round, object))).map(|before| before.1)
    }

    /// An object is still there, whatever it is now.
    pub(super) fn touch(&mut self, key: &Key) {
        if let Some(is) = self.objects.get_mut(key) {
            is.0 = self.round;
        }
    }

    pub(super) fn remove(&mut self, key: &Key) -> Option<F> {
        self.objects.remove(key).map(|is| is.1)
    }

    pub(super) fn get(&self, key: &Key) -> Option<&F> {
        self.objects.get(key).map(|is| &is.1)
    }

    pub(super) fn get_mut(&mut self, key: &Key) -> Option<&mut F> {
        self.objects.get_mut(key).map(|is| &mut is.1)
    }

    /// In the order of their keys.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&Key, &F)> + Clone {
        self.objects.iter().map(|(key, is)| (key, &is.1))
    }

    pub(super) fn len(&self) -> usize {
        self.objects.len()
    }

    /// The keys after this one in their order, then those before it and itself.
    pub(super) fn after(&self, key: &Key) -> impl Iterator<Item = &Key> {
        let later = self.objects.range((Bound::Excluded(key.clone()), Bound::Unbounded));
        later.chain(self.objects.range(..=key.clone())).map(|(key, _)| key)
    }

    pub(super) fn values_mut(&mut self) -> impl Iterator<Item = &mut F> {
        self.objects.values_mut().map(|is| &mut is.1)
    }

    pub(super) fn keys(&self) -> Vec<Key> {
        self.objects.keys().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> Key {
        Key::new("", name)
    }

    #[test]
    fn a_list_sweeps_what_it_does_not_show_and_one_that_broke_off_sweeps_nothing() {
        let mut inventory = Inventory::default();
        inventory.resync_started();
        for name in ["a", "b", "c"] {
            assert_eq!(inventory.put(key(name), 1), None);
        }
        assert!(!inventory.is_complete() && !inventory.was_listed());
        assert_eq!(inventory.resync_done(), []);
        assert!(inventory.is_complete() && inventory.was_listed());
        inventory.resync_started();
        assert_eq!(inventory.put(key("a"), 2), Some(1));
        inventory.resync_started();
        inventory.put(key("b"), 3);
        inventory.touch(&key("c"));
        assert!(inventory.is_complete(), "what is known stays valid meanwhile");
        assert_eq!(inventory.resync_done(), [(key("a"), 2)]);
        assert_eq!(inventory.iter().map(|(key, value)| (&*key.name, *value)).collect::<Vec<_>>(), [("b", 3), ("c", 1)]);
        let after = |name| inventory.after(&key(name)).map(|key| &*key.name).collect::<Vec<_>>();
        assert_eq!((after("b"), after("a"), after("d")), (vec!["c", "b"], vec!["b", "c"], vec!["b", "c"]));
        inventory.doubt();
        assert!(!inventory.is_complete() && inventory.was_listed());
    }
}
