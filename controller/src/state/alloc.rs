//! Who has which address. Pure and deterministic; owned by the state while this replica leads.
//!
//! The lowest free address of the first pool by name is given. A free address is found without scanning, whatever the size
//! of the pool: each pool keeps its free addresses as intervals.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ferrolb_proto::facts::{Key, Pool};
use ferrolb_proto::range::{AddressRange, AddressSet, Family};

use crate::desired::Usage;

/// Why an address cannot be held by a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Loss {
    /// No pool that can be used has it.
    NoPool,
    /// A Node has it.
    Node,
    /// Another Service has it.
    Taken(Key),
}

/// Why there is no address to give.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Shortage {
    /// There is no pool that can be used and that gives to everyone.
    NoPool,
    /// No such pool has addresses of all these families.
    Family(Vec<Family>),
    /// These pools have the families, and none is free; by name.
    Exhausted(Vec<Box<str>>),
}

/// The addresses of one pool.
#[derive(Debug, Default)]
struct Space {
    usable: bool,
    auto_assign: bool,
    avoid_buggy: bool,
    /// What may be given at all, but for the addresses that `avoidBuggyIPs` skips.
    all: AddressSet,
    /// Those that nobody holds. Skipped ones are taken out when they are met.
    free: AddressSet,
    total: [u128; 2],
    used: [u64; 2],
}

/// Pools, and the owners of addresses. An address has one owner at most.
#[derive(Debug, Default)]
pub(super) struct Allocator {
    pools: BTreeMap<Box<str>, Space>,
    owners: BTreeMap<IpAddr, (Key, Box<str>)>,
    nodes: BTreeSet<IpAddr>,
    /// Pools whose counts have changed since they were asked for.
    touched: BTreeSet<Box<str>>,
    /// Whether an address has become free since that was asked for.
    freed: bool,
}

/// Where a family's numbers are: in the order of pool statuses.
const fn index(family: Family) -> usize {
    match family {
        Family::V4 => 0,
        Family::V6 => 1,
    }
}

/// Whether some old devices refuse the address: IPv4, ending in .0 or .255.
fn is_buggy(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => matches!(address.octets()[3], 0 | 255),
        IpAddr::V6(_) => false,
    }
}

/// How many addresses of a range [`is_buggy`] names.
fn buggy(range: &AddressRange) -> u128 {
    let (IpAddr::V4(first), IpAddr::V4(last)) = (range.first(), range.last()) else { return 0 };
    // Below n there are two for each full 256, and one more once the next block has begun.
    let below = |n: u64| 2 * (n / 256) + u64::from(!n.is_multiple_of(256));
    u128::from(below(u64::from(last.to_bits()) + 1) - below(u64::from(first.to_bits())))
}

impl Space {
    fn new(pool: &Pool, usable: bool, nodes: &BTreeSet<IpAddr>) -> Self {
        let mut all = AddressSet::default();
        if usable {
            pool.ranges.iter().for_each(|range| all.insert(*range));
            pool.excluded.iter().for_each(|range| all.remove(*range));
            nodes.iter().for_each(|node| all.remove(AddressRange::single(*node)));
        }
        let skipped = if pool.avoid_buggy { all.ranges().map(|range| buggy(&range)).sum() } else { 0 };
        let total = [all.count(Family::V4).saturating_sub(skipped), all.count(Family::V6)];
        let free = all.clone();
        let Pool { auto_assign, avoid_buggy, .. } = *pool;
        Self { usable, auto_assign, avoid_buggy, all, free, total, used: [0; 2] }
    }

    fn has(&self, address: IpAddr) -> bool {
        self.all.contains(address) && !(self.avoid_buggy && is_buggy(address))
    }

    fn lowest(&mut self, family: Family) -> Option<IpAddr> {
        loop {
            let address = self.free.lowest(family)?;
            if !self.avoid_buggy || !is_buggy(address) {
                return Some(address);
            }
            self.free.remove(AddressRange::single(address));
        }
    }

    fn gives(&self) -> bool {
        self.usable && self.auto_assign
    }

    fn has_families(&self, families: &[Family]) -> bool {
        families.iter().all(|family| self.total[index(*family)] > 0)
    }
}

impl Allocator {
    /// New pools, each with whether it can be used, and the addresses of all Nodes. Owners stay owners until they are asked
    /// about with [`Self::holder`] and released. Costs as much as there are pools and owners.
    pub(super) fn set_pools<'a>(
        &mut self,
        pools: impl Iterator<Item = (&'a Pool, bool)>,
        nodes: impl Iterator<Item = IpAddr>,
    ) {
        self.nodes = nodes.collect();
        let space = |(pool, usable): (&Pool, bool)| (pool.name.clone(), Space::new(pool, usable, &self.nodes));
        self.pools = pools.map(space).collect();
        for (address, owner) in std::mem::take(&mut self.owners) {
            self.take(address, owner.0, &owner.1);
        }
    }

    /// The pool that would hold `address` for `key`. A pool that is there and cannot be used (`annotated`, the one it came
    /// from) lets a Service keep what it has: a slip in a pool takes no address away.
    pub(super) fn holder(&self, address: IpAddr, key: &Key, annotated: Option<&str>) -> Result<Box<str>, Loss> {
        if let Some((owner, _)) = self.owners.get(&address)
            && owner != key
        {
            return Err(Loss::Taken(owner.clone()));
        }
        if self.nodes.contains(&address) {
            return Err(Loss::Node);
        }
        if let Some((name, _)) = self.pools.iter().find(|(_, space)| space.has(address)) {
            return Ok(name.clone());
        }
        let unusable = |name: &&str| self.pools.get(*name).is_some_and(|space| !space.usable);
        annotated.filter(unusable).map(Into::into).ok_or(Loss::NoPool)
    }

    /// Makes `key` the owner of `address`, counted to `pool`.
    pub(super) fn take(&mut self, address: IpAddr, key: Key, pool: &str) {
        if self.owners.get(&address).is_some_and(|(owner, from)| *owner == key && **from == *pool) {
            return;
        }
        self.release(address);
        let single = AddressRange::single(address);
        for (name, space) in &mut self.pools {
            space.free.remove(single);
            if **name == *pool {
                space.used[index(single.family())] += 1;
                self.touched.insert(name.clone());
            }
        }
        self.owners.insert(address, (key, pool.into()));
    }

    /// Nobody has `address` any longer.
    pub(super) fn release(&mut self, address: IpAddr) {
        let Some((_, pool)) = self.owners.remove(&address) else { return };
        self.freed = true;
        let single = AddressRange::single(address);
        for (name, space) in &mut self.pools {
            if space.has(address) {
                space.free.insert(single);
            }
            if *name == pool {
                let used = &mut space.used[index(single.family())];
                *used = used.saturating_sub(1);
                self.touched.insert(pool.clone());
            }
        }
    }

    /// Whether an address has become free since the last call.
    pub(super) const fn take_freed(&mut self) -> bool {
        std::mem::replace(&mut self.freed, false)
    }

    /// The pools whose counts have changed since the last call.
    pub(super) fn take_touched(&mut self) -> BTreeSet<Box<str>> {
        std::mem::take(&mut self.touched)
    }

    /// Gives `key` the lowest free address of each family out of the first pool by name that has all of them. `only`: out of
    /// this pool or none.
    pub(super) fn give(
        &mut self,
        key: &Key,
        families: &[Family],
        only: Option<&str>,
    ) -> Result<(Box<str>, Vec<IpAddr>), Shortage> {
        let (mut any, mut full) = (false, Vec::new());
        let mut found = None;
        for (name, space) in &mut self.pools {
            if only.map_or(!space.gives(), |only| **name != *only) {
                continue;
            }
            any = true;
            if !space.has_families(families) {
                continue;
            }
            let lowest: Option<Vec<_>> = families.iter().map(|family| space.lowest(*family)).collect();
            if let Some(lowest) = lowest {
                found = Some((name.clone(), lowest));
                break;
            }
            full.push(name.clone());
        }
        let Some((pool, addresses)) = found else {
            return Err(match (any, full.is_empty()) {
                (false, _) => Shortage::NoPool,
                (true, true) => Shortage::Family(families.to_vec()),
                (true, false) => Shortage::Exhausted(full),
            });
        };
        for address in &addresses {
            self.take(*address, key.clone(), &pool);
        }
        Ok((pool, addresses))
    }

    /// Every owned address with its owner, ascending.
    pub(super) fn owners(&self) -> impl Iterator<Item = (IpAddr, &Key)> {
        self.owners.iter().map(|(address, (key, _))| (*address, key))
    }

    /// For each family: how many addresses the pool can give, all in all and still.
    pub(super) fn counts(&self, pool: &str) -> [(u128, u64); 2] {
        self.pools.get(pool).map_or([(0, 0); 2], |space| [0, 1].map(|family| (space.total[family], space.used[family])))
    }

    /// The counts of all pools, for metrics.
    pub(super) fn usage(&self) -> Vec<(Box<str>, [Usage; 2])> {
        let clamp = |number: u128| i64::try_from(number).unwrap_or(i64::MAX);
        let usage = |space: &Space| {
            [0, 1].map(|family| Usage { total: clamp(space.total[family]), used: clamp(space.used[family].into()) })
        };
        self.pools.iter().map(|(name, space)| (name.clone(), usage(space))).collect()
    }
}

#[cfg(test)]
mod tests;
