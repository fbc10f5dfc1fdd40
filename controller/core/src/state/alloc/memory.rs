//! Addresses of deleted Services. A Service of the same name gets them back if they are free
//! (`spec.stickyFor` of the pools). Methods of the [`Allocator`], and the memory that it owns.
//!
//! A ConfigMap preserves the memory: a new leader reads it from there. A Service that exists needs
//! no memory, because it has a record of its addresses itself.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use ferrolb_proto::api::REMEMBERED_SERVICES_MAX;
use ferrolb_proto::facts::{Key, RememberedAddresses, STICKY_FOR};
use ferrolb_proto::range::Family;
use k8s_openapi::jiff::Timestamp;

use super::{Allocator, Requester, UnmanagedSource, UnmanagedUse};
use crate::state::pool_addresses::{PoolAddresses, is_router_anycast};

/// Deleted Services and their addresses. All times are in seconds since 1970.
#[derive(Debug, Default)]
pub(super) struct Memory {
    services: BTreeMap<Key, Remembered>,
    /// Remembered addresses, each with the Services that had it.
    addresses: BTreeMap<IpAddr, BTreeSet<Key>>,
    /// The remembered Services by the time at which the allocator forgets them.
    by_expiry: BTreeSet<(i64, Key)>,
    /// True if the Services have changed since the previous call of
    /// [`Allocator::take_memory_changed`].
    changed: bool,
}

#[derive(Debug)]
struct Remembered {
    addresses: Vec<IpAddr>,
    released_at: i64,
    expires_at: i64,
}

impl Memory {
    fn insert(&mut self, key: Key, remembered: Remembered) {
        self.changed = true;
        for address in &remembered.addresses {
            self.addresses.entry(*address).or_default().insert(key.clone());
        }
        self.by_expiry.insert((remembered.expires_at, key.clone()));
        self.services.insert(key, remembered);
    }

    /// Returns the Service to forget when the memory is full: the earliest one of the namespace
    /// with the most Services, so that no namespace ends the memory of the others.
    fn first_to_forget(&self) -> Option<&Key> {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for key in self.services.keys() {
            *counts.entry(key.namespace()).or_default() += 1;
        }
        let rank = |(key, it): &(&Key, &Remembered)| {
            (Reverse(counts.get(key.namespace()).copied()), it.released_at)
        };
        self.services.iter().min_by_key(rank).map(|(key, _)| key)
    }

    /// Removes a Service. Returns those of its addresses that the memory does not contain for
    /// another Service.
    fn remove(&mut self, key: &Key) -> Vec<IpAddr> {
        let Some(removed) = self.services.remove(key) else { return Vec::new() };
        self.changed = true;
        self.by_expiry.remove(&(removed.expires_at, key.clone()));
        let mut forgotten = Vec::new();
        for address in &removed.addresses {
            let Some(keys) = self.addresses.get_mut(address) else { continue };
            keys.remove(key);
            if keys.is_empty() {
                self.addresses.remove(address);
                forgotten.push(*address);
            }
        }
        forgotten
    }
}

impl Allocator {
    /// Replaces the memory by that of the previous leader. The allocator has no pools yet.
    pub(in crate::state) fn restore_memory(
        &mut self,
        services: impl Iterator<Item = RememberedAddresses>,
    ) {
        self.memory = Memory::default();
        for RememberedAddresses { key, addresses, released_at, expires_at } in services {
            self.memory.insert(key, Remembered { addresses, released_at, expires_at });
        }
    }

    /// Adapts the memory to new pools, which decide for how long the allocator remembers their
    /// addresses. A pool that is missing for a moment does not shorten the time.
    pub(super) fn update_memory(&mut self) {
        for (key, mut remembered) in std::mem::take(&mut self.memory.services) {
            if let Some(sticky_for) = self.sticky_for(&remembered.addresses) {
                let expires_at = after(remembered.released_at, sticky_for);
                self.memory.changed |= remembered.expires_at != expires_at;
                remembered.expires_at = expires_at;
            }
            self.memory.services.insert(key, remembered);
        }
        let by_expiry = |(key, it): (&Key, &Remembered)| (it.expires_at, key.clone());
        self.memory.by_expiry = self.memory.services.iter().map(by_expiry).collect();
        let addresses: Vec<_> = self.memory.addresses.keys().copied().collect();
        addresses.into_iter().for_each(|address| self.set_aside(address));
    }

    /// Excludes a remembered address from the free ones of its pool, unless it is assigned.
    fn set_aside(&mut self, address: IpAddr) {
        if !self.is_assigned(address)
            && let Some(pool_addresses) = self.pool_addresses_containing(address)
        {
            pool_addresses.occupy(address);
        }
    }

    /// Returns the time for which the pool of these addresses remembers them, if the pool exists.
    fn sticky_for(&self, addresses: &[IpAddr]) -> Option<Duration> {
        let pool = addresses.iter().find_map(|address| self.pool_containing(*address))?;
        self.pools.get(pool).map(PoolAddresses::sticky_for)
    }

    /// Remembers the addresses of a deleted Service. `now` is in seconds since 1970. If there are
    /// more than [`REMEMBERED_SERVICES_MAX`] Services, forgets one of them.
    pub(in crate::state) fn remember(&mut self, key: &Key, addresses: Vec<IpAddr>, now: i64) {
        self.forget(key);
        let expires_at = after(now, self.sticky_for(&addresses).unwrap_or(STICKY_FOR));
        if addresses.is_empty() || expires_at <= now {
            return;
        }
        addresses.iter().for_each(|address| self.set_aside(*address));
        self.memory.insert(key.clone(), Remembered { addresses, released_at: now, expires_at });
        if self.memory.services.len() > REMEMBERED_SERVICES_MAX
            && let Some(first) = self.memory.first_to_forget().cloned()
        {
            self.forget(&first);
        }
    }

    /// Forgets the addresses that a Service had.
    pub(in crate::state) fn forget(&mut self, key: &Key) {
        for address in self.memory.remove(key) {
            if !self.is_assigned(address)
                && !self.is_skipped(address)
                && let Some(pool_addresses) = self.pool_addresses_containing(address)
            {
                pool_addresses.vacate(address);
            }
        }
    }

    /// Forgets the Services whose time has ended. `now` is in seconds since 1970.
    pub(in crate::state) fn forget_expired(&mut self, now: i64) {
        while let Some((_, key)) = self.memory.by_expiry.first().filter(|(at, _)| *at <= now) {
            let key = key.clone();
            self.forget(&key);
        }
    }

    /// Returns the time at which the next Service is forgotten, in seconds since 1970.
    pub(in crate::state) fn next_expiry(&self) -> Option<i64> {
        self.memory.by_expiry.first().map(|(at, _)| *at)
    }

    /// Returns whether the memory has changed since the previous call.
    pub(in crate::state) const fn take_memory_changed(&mut self) -> bool {
        std::mem::replace(&mut self.memory.changed, false)
    }

    /// Returns the memory, in the order of the Services' keys.
    pub(in crate::state) fn remembered(&self) -> Vec<RememberedAddresses> {
        let fact = |(key, it): (&Key, &Remembered)| RememberedAddresses {
            key: key.clone(),
            addresses: it.addresses.clone(),
            released_at: it.released_at,
            expires_at: it.expires_at,
        };
        self.memory.services.iter().map(fact).collect()
    }

    pub(super) fn is_remembered(&self, address: IpAddr) -> bool {
        self.memory.addresses.contains_key(&address)
    }

    /// Returns the address of this family and pool that the Service had, if it can have it again.
    pub(in crate::state) fn former_address(
        &self,
        requester: &Requester<'_>,
        pool: &str,
        family: Family,
    ) -> Option<IpAddr> {
        let own_key = &requester.service.key;
        let former = self.memory.services.get(own_key)?.addresses.iter().copied();
        let mut in_pool = former
            .filter(|it| Family::of(*it) == family && self.pool_containing(*it) == Some(pool));
        in_pool.find(|address| {
            // The interface of a node may still have the address for the Service, or the node may
            // still advertise it.
            let prevents = |it: &UnmanagedUse| {
                use UnmanagedSource::{FormerRoute, InterfaceAddress};
                !it.is_by(own_key) && ![FormerRoute, InterfaceAddress].contains(&it.source)
            };
            !self.uses.of(*address).any(prevents)
                && !is_router_anycast(*address)
                && self.first_conflict(requester, *address).is_none()
        })
    }

    /// Returns the free address of this family and pool that other Services lost first.
    pub(in crate::state) fn first_remembered(&self, pool: &str, family: Family) -> Option<IpAddr> {
        let pool_addresses = self.pools.get(pool)?;
        let ranges = pool_addresses.ranges().iter().filter(|range| range.family() == family);
        let remembered =
            ranges.flat_map(|range| self.memory.addresses.range(range.first()..=range.last()));
        let free = remembered.filter(|(address, _)| {
            let is_taken = self.is_assigned(**address) || self.is_skipped(**address);
            pool_addresses.can_assign(**address) && !is_taken
        });
        let lost_at = |keys: &BTreeSet<Key>| {
            keys.iter().filter_map(|key| Some(self.memory.services.get(key)?.released_at)).max()
        };
        let (address, _) = free.min_by_key(|(address, keys)| (lost_at(keys), **address))?;
        Some(*address)
    }
}

/// Returns the time, in seconds since 1970, that is `duration` after `start`, at the latest the end
/// of the year 9999, as no later time can be written.
fn after(start: i64, duration: Duration) -> i64 {
    let end = start.saturating_add(i64::try_from(duration.as_secs()).unwrap_or(i64::MAX));
    end.min(Timestamp::MAX.as_second())
}
