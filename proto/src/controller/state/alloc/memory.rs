//! Addresses that Services have lost. A Service of the same name gets them back if they are free
//! (`spec.stickyFor` of the pools). Methods of the [`Allocator`], and the memory that it owns.
//!
//! The statuses of the pools preserve the memory: a new leader reads it from there. While a pool
//! does not exist, only the leader has the memory of its addresses.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::api::REMEMBERED_SERVICES_MAX;
use crate::facts::{Key, Pool, RememberedAddresses, STICKY_FOR};
use crate::range::Family;

use super::{Allocator, Requester};
use crate::controller::state::pool_addresses::{PoolAddresses, is_router_anycast};

/// Services that have lost all their addresses, and these addresses. All times are in seconds since
/// 1970.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// True if the CRD of the pools can preserve the memory. Otherwise the allocator remembers
    /// nothing.
    enabled: bool,
    services: BTreeMap<Key, Remembered>,
    /// Remembered addresses, each with the Services that had it.
    addresses: BTreeMap<IpAddr, BTreeSet<Key>>,
    /// The remembered Services by the time at which the allocator forgets them.
    by_expiry: BTreeSet<(i64, Key)>,
}

#[derive(Debug)]
struct Remembered {
    pool: Box<str>,
    addresses: Vec<IpAddr>,
    released_at: i64,
    expires_at: i64,
}

impl Memory {
    fn insert(&mut self, key: Key, remembered: Remembered) {
        for address in &remembered.addresses {
            self.addresses.entry(*address).or_default().insert(key.clone());
        }
        self.by_expiry.insert((remembered.expires_at, key.clone()));
        self.services.insert(key, remembered);
    }

    /// Returns the Service that lost its addresses first.
    fn earliest(&self) -> Option<&Key> {
        let released_at = |(_, it): &(&Key, &Remembered)| it.released_at;
        self.services.iter().min_by_key(released_at).map(|(key, _)| key)
    }

    /// Removes a Service. The second value has those of its addresses that the memory does not
    /// contain for another Service.
    fn remove(&mut self, key: &Key) -> Option<(Remembered, Vec<IpAddr>)> {
        let removed = self.services.remove(key)?;
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
        Some((removed, forgotten))
    }
}

impl Allocator {
    /// Turns the memory on or off. When the memory is turned on for the first time, reads it from
    /// the statuses of the pools.
    pub(in crate::controller::state) fn enable_memory<'a>(
        &mut self,
        enabled: bool,
        pools: impl Iterator<Item = &'a Pool>,
    ) {
        if enabled == self.memory.enabled {
            return;
        }
        self.memory = Memory { enabled, ..Memory::default() };
        for pool in pools.filter(|_| enabled) {
            for RememberedAddresses { key, addresses, released_at } in pool.remembered() {
                let known = self.memory.services.get(&key).map(|known| known.released_at);
                if known.is_some_and(|known| known >= released_at) {
                    continue;
                }
                self.memory.remove(&key);
                let pool = pool.name.clone();
                let remembered = Remembered { pool, addresses, released_at, expires_at: 0 };
                self.memory.insert(key, remembered);
            }
        }
    }

    /// Adapts the memory to new pools. They decide for how long the allocator remembers an address.
    pub(super) fn update_memory(&mut self) {
        for (key, mut remembered) in std::mem::take(&mut self.memory.services) {
            let present = remembered.addresses.iter().find_map(|it| self.pool_containing(*it));
            if let Some(pool) = present.filter(|pool| **pool != *remembered.pool) {
                remembered.pool = pool.into();
            }
            // A pool that is missing for a moment does not shorten the time.
            if self.pools.contains_key(&remembered.pool) || remembered.expires_at == 0 {
                remembered.expires_at = self.expiry(&remembered.pool, remembered.released_at);
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

    fn expiry(&self, pool: &str, released_at: i64) -> i64 {
        let sticky_for = self.pools.get(pool).map_or(STICKY_FOR, PoolAddresses::sticky_for);
        released_at.saturating_add(i64::try_from(sticky_for.as_secs()).unwrap_or(i64::MAX))
    }

    /// Remembers addresses of a pool that a Service has lost. `now` is in seconds since 1970. If
    /// there are more than [`REMEMBERED_SERVICES_MAX`] Services, forgets the one that lost its
    /// addresses first.
    pub(in crate::controller::state) fn remember(
        &mut self,
        key: &Key,
        pool: &str,
        addresses: Vec<IpAddr>,
        now: i64,
    ) {
        if !self.memory.enabled || addresses.is_empty() {
            return;
        }
        self.forget(key);
        let expires_at = self.expiry(pool, now);
        if expires_at <= now {
            return;
        }
        addresses.iter().for_each(|address| self.set_aside(*address));
        let remembered = Remembered { pool: pool.into(), addresses, released_at: now, expires_at };
        self.memory.insert(key.clone(), remembered);
        self.changed_pools.insert(pool.into());
        if self.memory.services.len() > REMEMBERED_SERVICES_MAX
            && let Some(first) = self.memory.earliest().cloned()
        {
            self.forget(&first);
        }
    }

    /// Forgets the addresses that a Service had.
    pub(in crate::controller::state) fn forget(&mut self, key: &Key) {
        let Some((removed, addresses)) = self.memory.remove(key) else { return };
        self.changed_pools.insert(removed.pool);
        for address in addresses {
            if !self.is_assigned(address)
                && !self.is_skipped(address)
                && let Some(pool_addresses) = self.pool_addresses_containing(address)
            {
                pool_addresses.vacate(address);
            }
        }
    }

    /// Forgets the Services whose time has ended. `now` is in seconds since 1970.
    pub(in crate::controller::state) fn forget_expired(&mut self, now: i64) {
        while let Some((_, key)) = self.memory.by_expiry.first().filter(|(at, _)| *at <= now) {
            let key = key.clone();
            self.forget(&key);
        }
    }

    /// Returns the time at which the next Service is forgotten, in seconds since 1970.
    pub(in crate::controller::state) fn next_expiry(&self) -> Option<i64> {
        self.memory.by_expiry.first().map(|(at, _)| *at)
    }

    /// Returns the Services that have lost their addresses of this pool, for its status.
    pub(in crate::controller::state) fn remembered(&self, pool: &str) -> Vec<RememberedAddresses> {
        let of_pool = self.memory.services.iter().filter(|(_, it)| *it.pool == *pool);
        let fact = |(key, it): (&Key, &Remembered)| RememberedAddresses {
            key: key.clone(),
            addresses: it.addresses.clone(),
            released_at: it.released_at,
        };
        of_pool.map(fact).collect()
    }

    pub(super) fn is_remembered(&self, address: IpAddr) -> bool {
        self.memory.addresses.contains_key(&address)
    }

    /// Returns the address of this family and pool that the Service had, if it can have it again.
    pub(in crate::controller::state) fn former_address(
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
            self.uses_by_others(requester, *address).next().is_none()
                && !is_router_anycast(*address)
                && self.first_conflict(requester, *address).is_none()
        })
    }

    /// Returns the free address of this family and pool that other Services lost first.
    pub(in crate::controller::state) fn first_remembered(
        &self,
        pool: &str,
        family: Family,
    ) -> Option<IpAddr> {
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
