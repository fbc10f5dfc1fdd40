//! How many questions each Service has on their way, and who waits because these are too many: one whose endpoints are many and never
//! answer delays nobody else's. Part of the [`Prober`](super::Prober), which owns it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::TargetId;
use crate::Instant;
use crate::facts::Key;

/// Of those Services that have any.
#[derive(Debug)]
pub(super) struct Shares {
    questions_max: usize,
    services: BTreeMap<Arc<Key>, Share>,
}

#[derive(Debug, Default)]
struct Share {
    asked: usize,
    /// Whose time has come, the one that waits longest first.
    waiting: BTreeSet<(Instant, TargetId)>,
}

impl Shares {
    pub(super) const fn new(questions_max: usize) -> Self {
        Self { questions_max, services: BTreeMap::new() }
    }

    /// Takes room for a question to a target that is due since then; without room it waits.
    pub(super) fn take(&mut self, due: Instant, id: &TargetId) -> bool {
        let share = self.services.entry(Arc::clone(&id.service)).or_default();
        let has_room = share.asked < self.questions_max;
        if has_room {
            share.asked += 1;
        } else {
            share.waiting.insert((due, id.clone()));
        }
        has_room
    }

    /// A question of a Service is over: see [`Self::next`].
    pub(super) fn give_back(&mut self, service: &Arc<Key>) -> Option<(Instant, TargetId)> {
        self.services.get_mut(service)?.asked -= 1;
        self.next(service)
    }

    /// There is room that nobody took. Who waits for it, and since when; it waits no longer.
    pub(super) fn next(&mut self, service: &Arc<Key>) -> Option<(Instant, TargetId)> {
        let next = self.services.get_mut(service)?.waiting.pop_first();
        self.tidy(service);
        next
    }

    fn tidy(&mut self, service: &Arc<Key>) {
        if self.services.get(service).is_some_and(|share| share.asked == 0 && share.waiting.is_empty()) {
            self.services.remove(service);
        }
    }

    /// How many Services have questions on their way, or targets that wait.
    #[cfg(test)]
    pub(super) fn services(&self) -> usize {
        self.services.len()
    }

    /// A target waits no longer, if it did.
    pub(super) fn forget(&mut self, due: Instant, id: &TargetId) {
        if let Some(share) = self.services.get_mut(&id.service) {
            share.waiting.remove(&(due, id.clone()));
            self.tidy(&id.service);
        }
    }
}
