//! Custom resources of one kind, with those that were deleted a short time ago: a tool may delete
//! an object and create it again, or install its CRD again. Part of the state, which the main loop
//! owns.

use std::collections::BTreeMap;
use std::time::Duration;

use ferrolb_core::store::{Change, Store};
use ferrolb_proto::Instant;
use ferrolb_proto::facts::Keyed;

/// Time for which a deleted object stays in use.
pub(super) const HOLD_TIME: Duration = Duration::from_secs(10);

/// The objects of one kind, by name.
#[derive(Debug)]
pub(crate) struct HeldObjects<V> {
    /// All objects in use.
    objects: Store<Box<str>, V>,
    /// The objects in use that were deleted, each with the time of the deletion.
    deleted: BTreeMap<Box<str>, Instant>,
    /// The latest time at which the first object of this kind was created again.
    returned_at: Instant,
}

impl<V> Default for HeldObjects<V> {
    fn default() -> Self {
        let (objects, deleted) = (Store::default(), BTreeMap::new());
        Self { objects, deleted, returned_at: Instant::ZERO }
    }
}

impl<V> HeldObjects<V> {
    /// Returns all objects in use, in the order of their names.
    pub(crate) fn values(&self) -> impl Iterator<Item = &V> + Clone {
        self.objects.values()
    }

    /// Returns whether any list has been completed.
    pub(crate) const fn was_ever_complete(&self) -> bool {
        self.objects.was_ever_complete()
    }

    /// Returns whether no object of this kind exists. CRDs that are installed again look like that.
    fn is_kind_empty(&self) -> bool {
        self.objects.len() == self.deleted.len()
    }

    /// Returns the time until which a deleted object stays in use. `grace` is the time for a kind
    /// of which no object exists.
    fn until(&self, deleted_at: Instant, grace: Duration) -> Instant {
        match self.is_kind_empty() {
            true => deleted_at + grace.max(HOLD_TIME),
            false => deleted_at.max(self.returned_at) + HOLD_TIME,
        }
    }

    /// Returns the time at which [`Self::expire`] is due next.
    pub(super) fn deadline(&self, grace: Duration) -> Option<Instant> {
        self.deleted.values().map(|at| self.until(*at, grace)).min()
    }

    /// Forgets the objects that are not held any more. Returns whether there were any.
    pub(super) fn expire(&mut self, now: Instant, grace: Duration) -> bool {
        let is_over = |at: Instant| now >= self.until(at, grace);
        let over = self.deleted.iter().filter(|(_, at)| is_over(**at));
        let over: Vec<_> = over.map(|(name, _)| name.clone()).collect();
        for name in &over {
            self.deleted.remove(name);
            self.objects.remove(name);
        }
        !over.is_empty()
    }
}

impl<V: Keyed<Key = Box<str>> + PartialEq> HeldObjects<V> {
    /// Applies a change. An object that cannot be decoded is treated as deleted. Returns whether
    /// the objects in use have changed.
    pub(super) fn handle(&mut self, change: Change<V>, now: Instant) -> bool {
        let was_listed = self.was_ever_complete();
        let was_empty = self.is_kind_empty();
        if let Change::Apply(object) = &change {
            self.deleted.remove(&object.key());
            if was_empty {
                self.returned_at = now;
            }
        }
        let mut has_changed = false;
        for (name, before) in self.objects.handle(change.or_delete(), Some) {
            match before.filter(|_| self.objects.get(&name).is_none()) {
                Some(deleted) => {
                    self.deleted.entry(name.clone()).or_insert(now);
                    self.objects.put(name, deleted);
                }
                None => has_changed = true,
            }
        }
        has_changed || was_listed != self.was_ever_complete()
    }
}

#[cfg(test)]
mod tests {
    use ferrolb_proto::facts::{Key, Pool};

    use super::*;

    const GRACE: Duration = Duration::from_secs(60);

    fn pool(name: &str) -> Pool {
        Pool { name: name.into(), ..Pool::default() }
    }

    fn delete(name: &str) -> Change<Pool> {
        Change::Delete(Key::new("ferrolb-system", name))
    }

    /// Returns a store with these objects.
    fn objects(names: &[&str]) -> HeldObjects<Pool> {
        let mut objects = HeldObjects::default();
        for name in names {
            objects.handle(Change::Apply(pool(name)), Instant::ZERO);
        }
        objects
    }

    fn names(objects: &HeldObjects<Pool>) -> Vec<&str> {
        objects.values().map(|pool| &*pool.name).collect()
    }

    /// Expires what is due, and returns the seconds at which that was.
    fn expiries(objects: &mut HeldObjects<Pool>) -> Vec<u64> {
        let mut times = Vec::new();
        while let Some(at) = objects.deadline(GRACE) {
            assert!(objects.expire(at, GRACE));
            times.push(at.since(Instant::ZERO).as_secs());
        }
        times
    }

    const fn at(seconds: u64) -> Instant {
        Instant::from_millis(seconds * 1_000)
    }

    #[test]
    fn a_deleted_object_stays_for_a_time_and_one_that_returns_changes_nothing() {
        let mut held = objects(&["a", "b"]);
        assert!(!held.handle(delete("a"), at(5)));
        assert!(!held.handle(Change::Apply(pool("a")), at(14)), "the same object");
        assert_eq!(expiries(&mut held), Vec::<u64>::new());
        assert_eq!(names(&held), ["a", "b"]);
        held.handle(delete("a"), at(20));
        assert!(held.handle(Change::Apply(Pool { generation: 2, ..pool("a") }), at(21)));
        held.handle(delete("a"), at(30));
        assert_eq!(expiries(&mut held), [40]);
        assert_eq!(names(&held), ["b"]);
    }

    #[test]
    fn a_kind_without_any_object_stays_for_the_grace_and_returns_one_by_one() {
        let mut held = objects(&["a", "b", "c"]);
        assert!(["a", "b", "c"].into_iter().all(|name| !held.handle(delete(name), at(1))));
        assert_eq!(held.deadline(GRACE), Some(at(61)));
        held.handle(Change::Apply(pool("b")), at(50));
        assert_eq!((names(&held).len(), held.deadline(GRACE)), (3, Some(at(60))));
        held.handle(Change::Apply(pool("a")), at(55));
        assert_eq!(expiries(&mut held), [60]);
        assert_eq!(names(&held), ["a", "b"]);
        assert!(["a", "b"].into_iter().all(|name| !held.handle(delete(name), at(70))));
        assert_eq!(expiries(&mut held), [130]);
        assert_eq!(names(&held), Vec::<&str>::new());
    }

    #[test]
    fn an_object_that_a_list_lacks_is_held_from_the_first_list_without_it() {
        let mut held = objects(&["a", "b"]);
        for seconds in [3, 6] {
            held.handle(Change::ResyncStarted, at(seconds));
            held.handle(Change::Apply(pool("b")), at(seconds));
            held.handle(Change::ResyncDone, at(seconds));
        }
        assert_eq!(names(&held), ["a", "b"]);
        assert_eq!(expiries(&mut held), [13]);
    }
}
