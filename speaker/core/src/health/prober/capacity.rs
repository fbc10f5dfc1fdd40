//! The probe capacity of each Service: its probes in flight, and its endpoints that wait because of
//! the limit. A Service with many endpoints that never reply therefore delays no other Service.
//! Part of the [`Prober`](super::Prober), which owns it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ferrolb_proto::Instant;
use ferrolb_proto::facts::Key;

use super::ProbeTarget;

/// The Services that have probes in flight, or endpoints that wait for a probe.
#[derive(Debug)]
pub(super) struct ServiceCapacities {
    probes_max: usize,
    services: BTreeMap<Arc<Key>, ServiceCapacity>,
}

#[derive(Debug, Default)]
struct ServiceCapacity {
    in_flight: usize,
    /// The endpoints whose probe is due and waits for capacity. The endpoint that has waited
    /// longest is first.
    waiting: BTreeSet<(Instant, ProbeTarget)>,
}

impl ServiceCapacities {
    pub(super) const fn new(probes_max: usize) -> Self {
        Self { probes_max, services: BTreeMap::new() }
    }

    /// Takes capacity for a probe of an endpoint that has been due since `due`. Returns false if
    /// the Service has no capacity left; the endpoint then waits.
    pub(super) fn take(&mut self, due: Instant, id: &ProbeTarget) -> bool {
        let capacity = self.services.entry(Arc::clone(&id.service)).or_default();
        let has_room = capacity.in_flight < self.probes_max;
        if has_room {
            capacity.in_flight += 1;
        } else {
            capacity.waiting.insert((due, id.clone()));
        }
        has_room
    }

    /// Releases the capacity of a probe that has ended, and returns the next waiting endpoint of
    /// the Service; see [`Self::take_waiting`].
    pub(super) fn release(&mut self, service: &Arc<Key>) -> Option<(Instant, ProbeTarget)> {
        self.services.get_mut(service)?.in_flight -= 1;
        self.take_waiting(service)
    }

    /// Removes and returns the endpoint that has waited longest, with the time since which its
    /// probe is due. May only be called when the Service has capacity.
    pub(super) fn take_waiting(&mut self, service: &Arc<Key>) -> Option<(Instant, ProbeTarget)> {
        let next = self.services.get_mut(service)?.waiting.pop_first();
        self.remove_if_empty(service);
        next
    }

    fn remove_if_empty(&mut self, service: &Arc<Key>) {
        if self
            .services
            .get(service)
            .is_some_and(|capacity| capacity.in_flight == 0 && capacity.waiting.is_empty())
        {
            self.services.remove(service);
        }
    }

    /// Returns the number of Services that have probes in flight or waiting endpoints.
    #[cfg(test)]
    pub(super) fn services(&self) -> usize {
        self.services.len()
    }

    /// Removes an endpoint from the waiting ones, if it waits.
    pub(super) fn remove_waiting(&mut self, due: Instant, id: &ProbeTarget) {
        if let Some(capacity) = self.services.get_mut(&id.service) {
            capacity.waiting.remove(&(due, id.clone()));
            self.remove_if_empty(&id.service);
        }
    }
}
