//! The ConfigMap with the addresses of deleted Services: a new leader reads it, and the active
//! leader writes it. Part of the state, which the main loop owns.

use std::time::Duration;

use ferrolb_core::store::{Change, Store};
use ferrolb_core::watched::HandleChange;
use ferrolb_proto::Instant;
use ferrolb_proto::api;
use ferrolb_proto::facts::{AddressMemory, RememberedAddresses};

use super::State;
use crate::desired::{Status, Target};

impl State {
    /// Returns the time at which the allocator forgets the next Service.
    pub(super) fn next_expiry(&self, now: Instant) -> Option<Instant> {
        let seconds =
            self.allocator.next_expiry()?.saturating_sub(self.wall_clock.without_jump(now));
        Some(now + Duration::from_secs(u64::try_from(seconds).unwrap_or(0)))
    }

    /// Reads the memory of the previous leader.
    pub(super) fn restore_address_memory(&mut self) {
        let services = stored(&self.address_memory).to_vec();
        self.allocator.restore_memory(services.into_iter());
    }

    /// Compares the memory with the ConfigMap if it has changed or its write is due, and begins or
    /// queues the necessary write.
    pub(super) fn update_address_memory(&mut self, is_due: bool, now: Instant) {
        self.address_memory_dirty |= self.allocator.take_memory_changed() | is_due;
        if !self.address_memory_dirty {
            return;
        }
        self.address_memory_dirty = false;
        let services = self.allocator.remembered();
        let status =
            (services != stored(&self.address_memory)).then_some(Status::AddressMemory(services));
        self.status_queue.write_resource(Target::AddressMemory, status, now);
    }

    /// Records the written ConfigMap as the current one, until the watch reports it.
    pub(super) fn record_address_memory(&mut self, services: Vec<RememberedAddresses>) {
        let name: Box<str> = api::ADDRESS_MEMORY.into();
        self.address_memory.put(name.clone(), AddressMemory { name, services });
    }
}

impl HandleChange<AddressMemory> for State {
    /// Stores a change of the ConfigMap. If another client has changed it, the active leader writes
    /// it again.
    fn handle_change(&mut self, change: Change<AddressMemory>, _: Instant) {
        let changed = self.address_memory.handle(change, Some);
        self.address_memory_dirty |= !changed.is_empty();
    }
}

fn stored(memory: &Store<Box<str>, AddressMemory>) -> &[RememberedAddresses] {
    memory.get(api::ADDRESS_MEMORY).map_or(&[], |it| &it.services)
}
