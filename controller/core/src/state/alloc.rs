//! Allocation of addresses to Services. Pure and deterministic; owned by the state while this
//! replica leads.
//!
//! Several Services can have the same address only if their sharing parameters allow it. Only
//! [`Allocator::assign`] and [`Allocator::release`] change assignments, and they update the pools'
//! counts. [`super::choose`] selects the addresses of a Service.

mod host_uses;
mod memory;
mod refusal;
mod requester;
mod uses;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use ferrolb_proto::api::IpMode;
use ferrolb_proto::facts::{Key, Pool};
use ferrolb_proto::range::Family;

use super::pool_addresses::{AddressCounts, PoolAddresses, family_index, is_router_anycast};
use super::sharing::{SharingConflict, SharingParameters};
pub(super) use host_uses::{HostUses, of_node};
use memory::Memory;
pub(super) use refusal::{Refusal, SkipReason};
pub(super) use requester::Requester;
use uses::Uses;
pub(super) use uses::{AddressUser, UnmanagedSource, UnmanagedUse};

/// A Service to which an address is assigned, and its sharing parameters.
#[derive(Debug)]
struct AssignedService {
    key: Key,
    sharing: SharingParameters,
}

/// An assigned address: its pool and its Services.
#[derive(Debug)]
struct AddressAssignment {
    /// The pool whose counts include the address.
    pool: Box<str>,
    /// The Services to which the address is assigned; at least one.
    services: Vec<AssignedService>,
}

/// The pools, and the assignments of their addresses to Services.
#[derive(Debug, Default)]
pub(super) struct Allocator {
    pub(super) pools: BTreeMap<Box<str>, PoolAddresses>,
    /// The ranges of the valid pools: the key is the first address, the value is the last address
    /// and the pool's name. The ranges do not overlap.
    pool_ranges: BTreeMap<IpAddr, (IpAddr, Box<str>)>,
    assignments: BTreeMap<IpAddr, AddressAssignment>,
    /// Assigned addresses that Services may share, by sharing key.
    shared: BTreeMap<Box<str>, BTreeSet<IpAddr>>,
    uses: Uses,
    /// Pools that do not exist, and whose addresses their Services keep for this time.
    pools_in_grace: BTreeMap<Box<str>, Duration>,
    memory: Memory,
    /// Pools whose counts have changed since the previous call of
    /// [`Self::take_changed_pools`].
    changed_pools: BTreeSet<Box<str>>,
    /// True if an address may have become available for a waiting Service since the previous call
    /// of [`Self::take_freed`].
    freed: bool,
}

impl Allocator {
    /// Replaces the pools, the addresses of hosts, and those that Services use although FerroLB did
    /// not assign them. The bool of each pool is true if the pool is valid.
    ///
    /// Existing assignments remain. The caller checks each of them with [`Self::check_address`],
    /// and releases the address if `check_address` rejects it. The cost is proportional to the
    /// number of pools and assignments.
    pub(super) fn set_pools<'a>(
        &mut self,
        pools: impl Iterator<Item = (&'a Pool, bool)>,
        hosts: impl Iterator<Item = (AddressUser, HostUses)>,
        unmanaged: impl Iterator<Item = (Requester<'a>, Vec<(IpAddr, UnmanagedSource)>)>,
    ) {
        let new_entry =
            |(pool, usable): (&Pool, bool)| (pool.name.clone(), PoolAddresses::new(pool, usable));
        self.pools = pools.map(new_entry).collect();
        let usable = self.pools.iter().filter(|(_, pool_addresses)| pool_addresses.valid);
        let ranges = usable.flat_map(|(name, pool_addresses)| {
            pool_addresses.ranges().iter().map(move |range| (range, name))
        });
        self.pool_ranges =
            ranges.map(|(range, name)| (range.first(), (range.last(), name.clone()))).collect();
        self.shared.clear();
        self.uses = Uses::default();
        for (address, assignment) in std::mem::take(&mut self.assignments) {
            let pool = self.pool_containing(address).map_or(assignment.pool, Into::into);
            for AssignedService { key, sharing } in assignment.services {
                self.assign(address, &key, &sharing, &pool);
            }
        }
        hosts.for_each(|(host, uses)| drop(self.set_host_uses(host, &uses)));
        unmanaged.for_each(|(requester, addresses)| self.set_unmanaged(&requester, &addresses));
        self.update_memory();
    }

    /// Replaces the pools that do not exist, and whose addresses their Services keep for a time.
    pub(super) fn set_pools_in_grace(&mut self, pools: BTreeMap<Box<str>, Duration>) {
        self.pools_in_grace = pools;
    }

    /// Returns the time for which Services keep the addresses of a pool that does not exist; `None`
    /// if the pool exists.
    pub(super) fn grace_of(&self, pool: &str) -> Option<Duration> {
        self.pools_in_grace.get(pool).copied()
    }

    /// Returns the valid pool that contains this address and does not exclude it.
    fn pool_containing(&self, address: IpAddr) -> Option<&str> {
        let (_, (last, pool)) = self.pool_ranges.range(..=address).next_back()?;
        let contains = *last >= address
            && self
                .pools
                .get(pool)
                .is_some_and(|pool_addresses| pool_addresses.can_assign(address));
        contains.then_some(&**pool)
    }

    /// Returns whether FerroLB can have assigned this address: a valid pool contains it and does
    /// not exclude it, and no Node has it.
    pub(super) fn is_own(&self, address: IpAddr) -> bool {
        self.pool_containing(address).is_some() && self.node_with(address).is_none()
    }

    /// Returns the use of an address of a pool by a Node, if a Node has it.
    pub(super) fn node_with(&self, address: IpAddr) -> Option<&UnmanagedUse> {
        self.uses.of(address).find(|it| it.source == UnmanagedSource::NodeAddress)
    }

    /// Returns the use of an address by a host of which a Service with the address has a warning.
    pub(super) fn host_with(&self, address: IpAddr) -> Option<&UnmanagedUse> {
        self.uses.of(address).find(|it| it.source.is_warned_of())
    }

    fn pool_addresses_containing(&mut self, address: IpAddr) -> Option<&mut PoolAddresses> {
        let pool: Box<str> = self.pool_containing(address)?.into();
        self.pools.get_mut(&pool)
    }

    /// Checks whether a Service may have an address, which can be free, shared, or already assigned
    /// to this Service. Returns the pool of the address.
    ///
    /// `from` is the pool of an existing assignment. If this pool is invalid, the Service keeps the
    /// address, so that a mistake in a pool releases no address. The same applies for a time if the
    /// pool does not exist.
    pub(super) fn check_address(
        &self,
        requester: &Requester<'_>,
        address: IpAddr,
        from: Option<&str>,
    ) -> Result<Box<str>, Refusal> {
        let unusable =
            |name: &&str| self.pools.get(*name).is_some_and(|pool_addresses| !pool_addresses.valid);
        let pool = from
            .filter(unusable)
            .or_else(|| self.pool_containing(address))
            .or_else(|| from.filter(|pool| self.pools_in_grace.contains_key(*pool)))
            .ok_or(Refusal::NoPool)?;
        if self.pools.get(pool).is_some_and(|pool_addresses| {
            pool_addresses.valid && !requester.may_use(pool_addresses)
        }) {
            return Err(Refusal::PoolNotAllowed(pool.into()));
        }
        if let Some((key, conflict)) = self.first_conflict(requester, address) {
            return Err(Refusal::AssignedTo(key.clone(), conflict));
        }
        Ok(pool.into())
    }

    /// Checks whether a Service may have all these addresses, which it requests and does not have
    /// yet. Returns their common pool.
    pub(super) fn check_requested(
        &self,
        requester: &Requester<'_>,
        addresses: &[IpAddr],
    ) -> Result<Box<str>, (IpAddr, Refusal)> {
        let mut common_pool: Option<Box<str>> = None;
        for address in addresses {
            let pool = self
                .check_address(requester, *address, None)
                .map_err(|refusal| (*address, refusal))?;
            if let Some(other) = self.first_refusing_use(requester, *address) {
                return Err((*address, Refusal::Unmanaged(other.clone())));
            }
            if common_pool.get_or_insert_with(|| pool.clone()) != &pool {
                return Err((*address, Refusal::OtherPool(pool)));
            }
        }
        common_pool.ok_or_else(|| unreachable!("the caller passes at least one address"))
    }

    /// Returns the first use of an address, which FerroLB did not assign, because of which this
    /// Service cannot get it.
    fn first_refusing_use(
        &self,
        requester: &Requester<'_>,
        address: IpAddr,
    ) -> Option<&UnmanagedUse> {
        let own_key = &requester.service.key;
        self.uses.of(address).find(|it| !it.is_by(own_key) && it.source.refuses_request())
    }

    /// Returns the first Service, by key, that has the address and cannot share it with
    /// `requester`, and the conflict between these two Services.
    fn first_conflict(
        &self,
        requester: &Requester<'_>,
        address: IpAddr,
    ) -> Option<(&Key, SharingConflict)> {
        let assigned_services =
            self.assignments.get(&address).into_iter().flat_map(|assignment| &assignment.services);
        let others = assigned_services
            .filter(|assigned_service| assigned_service.key != requester.service.key);
        let conflicts = others.filter_map(|assigned_service| {
            Some((
                &assigned_service.key,
                assigned_service.sharing.conflict_with(&requester.sharing)?,
            ))
        });
        conflicts.min_by_key(|(key, _)| *key)
    }

    /// Assigns `address` to the Service `key` and counts it in `pool`. If the Service has the
    /// address already, updates its sharing parameters and the pool.
    pub(super) fn assign(
        &mut self,
        address: IpAddr,
        key: &Key,
        sharing: &SharingParameters,
        pool: &str,
    ) {
        let before = self.assignments.get(&address).and_then(|assignment| {
            let assigned_service =
                assignment.services.iter().find(|assigned_service| assigned_service.key == *key)?;
            Some(assigned_service.sharing == *sharing && *assignment.pool == *pool)
        });
        match before {
            Some(true) => return,
            // The new sharing parameters may let other Services share the address. A release sets
            // `freed`, so that the controller tries these Services again.
            Some(false) => self.release(address, key),
            None => {}
        }
        if let Some(key) = sharing.key() {
            self.shared.entry(key.into()).or_default().insert(address);
        }
        let assigned_service = AssignedService { key: key.clone(), sharing: sharing.clone() };
        if let Some(assignment) = self.assignments.get_mut(&address) {
            assignment.services.push(assigned_service);
            return;
        }
        let was_skipped = self.is_skipped(address);
        if let Some(pool_addresses) = self.pool_addresses_containing(address) {
            pool_addresses.occupy(address);
            let skipped = &mut pool_addresses.skipped[family_index(Family::of(address))];
            *skipped = skipped.saturating_sub(u64::from(was_skipped));
        }
        self.count_use(address, pool, 1);
        self.assignments.insert(
            address,
            AddressAssignment { pool: pool.into(), services: vec![assigned_service] },
        );
    }

    /// Removes the assignment of `address` to the Service `key`. The address becomes free if no
    /// other Service shares it.
    pub(super) fn release(&mut self, address: IpAddr, key: &Key) {
        let Some(assignment) = self.assignments.get_mut(&address) else { return };
        let Some(position) =
            assignment.services.iter().position(|assigned_service| assigned_service.key == *key)
        else {
            return;
        };
        let released = assignment.services.swap_remove(position);
        self.freed = true;
        if !assignment.services.is_empty() {
            return;
        }
        let pool = std::mem::take(&mut assignment.pool);
        self.assignments.remove(&address);
        if let Some(sharing_key) = released.sharing.key()
            && let Some(addresses) = self.shared.get_mut(sharing_key)
        {
            addresses.remove(&address);
            if addresses.is_empty() {
                self.shared.remove(sharing_key);
            }
        }
        self.count_use(address, &pool, -1);
        if self.is_skipped(address) {
            self.adjust_skipped(address, 1, PoolAddresses::occupy);
        } else if !self.is_remembered(address)
            && let Some(pool_addresses) = self.pool_addresses_containing(address)
        {
            pool_addresses.vacate(address);
        }
    }

    fn count_use(&mut self, address: IpAddr, pool: &str, by: i64) {
        if let Some(pool_addresses) = self.pools.get_mut(pool) {
            let used = &mut pool_addresses.used[family_index(Family::of(address))];
            *used = used.saturating_add_signed(by);
        }
        self.changed_pools.insert(pool.into());
    }

    /// Replaces the list of addresses that a Service uses although FerroLB did not assign them.
    /// `addresses` must be in ascending order.
    ///
    /// The `externalIPs` of a Service block addresses only in pools that the Service may use. A
    /// Service therefore cannot block addresses of other pools.
    pub(super) fn set_unmanaged(
        &mut self,
        requester: &Requester<'_>,
        addresses: &[(IpAddr, UnmanagedSource)],
    ) {
        let blocks = |(address, source): &&(IpAddr, UnmanagedSource)| {
            let pool_addresses =
                self.pool_containing(*address).and_then(|pool| self.pools.get(pool));
            pool_addresses.is_some_and(|pool_addresses| {
                *source != UnmanagedSource::ExternalIps || requester.may_use(pool_addresses)
            })
        };
        let current = addresses.iter().filter(blocks).copied().collect();
        self.set_uses(&AddressUser::Service(requester.service.key.clone()), current);
    }

    /// Replaces the addresses that a host uses. Returns the Services that have an address of which
    /// a use has begun or ended.
    pub(super) fn set_host_uses(&mut self, host: AddressUser, uses: &HostUses) -> BTreeSet<Key> {
        let in_pool = |(address, _): &&(IpAddr, _)| self.pool_containing(*address).is_some();
        let current = uses.iter().filter(in_pool).copied().collect();
        let changed = self.set_uses(&host, current);
        changed.into_iter().flat_map(|address| self.services_of(address)).cloned().collect()
    }

    /// Replaces the addresses that an object uses. Returns those whose uses have changed.
    fn set_uses(
        &mut self,
        user: &AddressUser,
        current: Vec<(IpAddr, UnmanagedSource)>,
    ) -> BTreeSet<IpAddr> {
        let changed = self.uses.replace(user, current);
        changed.ended.into_iter().for_each(|address| self.unblock(address));
        changed.begun.into_iter().for_each(|address| self.block(address));
        for address in &changed.all {
            // The message of the pool names the first use.
            let pool = self.pool_containing(*address).map(Box::from);
            self.changed_pools.extend(pool);
        }
        changed.all
    }

    fn is_assigned(&self, address: IpAddr) -> bool {
        self.assignments.contains_key(&address)
    }

    /// Returns whether automatic assignment skips this address.
    fn is_skipped(&self, address: IpAddr) -> bool {
        self.uses.contains(address) || is_router_anycast(address)
    }

    /// Excludes an address from automatic assignment, unless FerroLB has already assigned it.
    fn block(&mut self, address: IpAddr) {
        if !self.is_assigned(address) {
            self.adjust_skipped(
                address,
                i64::from(!is_router_anycast(address)),
                PoolAddresses::occupy,
            );
        }
    }

    fn unblock(&mut self, address: IpAddr) {
        if !self.is_assigned(address) {
            self.freed |= self.pool_containing(address).is_some();
            let update = match self.is_remembered(address) {
                true => PoolAddresses::occupy,
                false => PoolAddresses::vacate,
            };
            self.adjust_skipped(address, -i64::from(!is_router_anycast(address)), update);
        }
    }

    fn adjust_skipped(&mut self, address: IpAddr, by: i64, update: fn(&mut PoolAddresses, IpAddr)) {
        let Some(pool) = self.pool_containing(address).map(Box::<str>::from) else { return };
        if let Some(pool_addresses) = self.pools.get_mut(&pool) {
            let skipped = &mut pool_addresses.skipped[family_index(Family::of(address))];
            *skipped = skipped.saturating_add_signed(by);
            update(pool_addresses, address);
        }
        self.changed_pools.insert(pool);
    }

    /// Returns the first address of a pool and family that nobody has or had, or that the Service
    /// can share; `None` if the pool has no such address.
    pub(super) fn first_address(
        &mut self,
        requester: &Requester<'_>,
        pool: &str,
        family: Family,
    ) -> Option<IpAddr> {
        let Self { pools, assignments, shared, uses, .. } = self;
        let shared = requester.sharing.key().and_then(|key| shared.get(key));
        let is_blocked = |address| uses.of(address).any(|it| it.source.prevents_sharing());
        let can_share = |address: IpAddr| {
            if is_blocked(address) {
                return false;
            }
            let assigned_services =
                assignments.get(&address).into_iter().flat_map(|assignment| &assignment.services);
            let mut others = assigned_services
                .filter(|assigned_service| assigned_service.key != requester.service.key);
            others.all(|assigned_service| {
                assigned_service.sharing.conflict_with(&requester.sharing).is_none()
            })
        };
        pools.get_mut(pool)?.first(family, shared, can_share)
    }

    /// Returns whether an address may have become available for a waiting Service since the
    /// previous call of [`Self::take_freed`].
    pub(super) const fn has_freed(&self) -> bool {
        self.freed
    }

    /// Returns the same flag as [`Self::has_freed`], and clears it.
    pub(super) const fn take_freed(&mut self) -> bool {
        std::mem::replace(&mut self.freed, false)
    }

    /// Returns the pools whose counts have changed since the previous call.
    pub(super) fn take_changed_pools(&mut self) -> BTreeSet<Box<str>> {
        std::mem::take(&mut self.changed_pools)
    }

    /// Returns every assigned address, in ascending order, with the Services to which it is
    /// assigned.
    pub(super) fn assignments(&self) -> impl Iterator<Item = (IpAddr, Vec<&Key>)> {
        self.assignments.iter().map(|(address, assignment)| {
            (
                *address,
                assignment.services.iter().map(|assigned_service| &assigned_service.key).collect(),
            )
        })
    }

    /// Returns the Services to which this address is assigned.
    pub(super) fn services_of(&self, address: IpAddr) -> impl Iterator<Item = &Key> {
        self.assignments
            .get(&address)
            .into_iter()
            .flat_map(|assignment| &assignment.services)
            .map(|assigned_service| &assigned_service.key)
    }

    /// Returns the `ipMode` of a pool's addresses; `None` if the pool is absent or invalid.
    pub(super) fn mode(&self, pool: &str) -> Option<IpMode> {
        self.pools.get(pool).filter(|it| it.valid).map(|it| it.mode)
    }

    /// Returns the counts of a pool's addresses for IPv4 and IPv6.
    pub(super) fn counts(&self, pool: &str) -> [AddressCounts; 2] {
        let count = |pool_addresses: &PoolAddresses| {
            [Family::V4, Family::V6].map(|family| pool_addresses.count(family))
        };
        self.pools.get(pool).map(count).unwrap_or_default()
    }

    /// Returns the addresses of a pool that automatic assignment skips, each with the reason.
    pub(super) fn skipped(&self, pool: &str) -> impl Iterator<Item = (IpAddr, SkipReason<'_>)> {
        let pool_addresses = self.pools.get(pool).filter(|pool_addresses| pool_addresses.valid);
        let ranges = pool_addresses.into_iter().flat_map(PoolAddresses::ranges);
        let used = ranges.flat_map(|range| self.uses.first_in(range));
        let unassigned = used.filter(move |(address, _)| {
            !self.is_assigned(*address)
                && pool_addresses.is_some_and(|pool_addresses| pool_addresses.can_assign(*address))
        });
        let unmanaged = unassigned.map(|(address, used)| (address, SkipReason::Unmanaged(used)));
        let routers = pool_addresses.into_iter().flat_map(PoolAddresses::router_addresses);
        let unassigned =
            routers.filter(|address| !self.is_assigned(*address) && !self.uses.contains(*address));
        unmanaged.chain(unassigned.map(|address| (address, SkipReason::RouterAnycast)))
    }

    /// Returns the address counts of all pools, for the metrics.
    pub(super) fn usage(&self) -> Vec<(Box<str>, [AddressCounts; 2])> {
        self.pools.keys().map(|name| (name.clone(), self.counts(name))).collect()
    }
}

#[cfg(test)]
mod tests;
