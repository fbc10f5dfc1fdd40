//! Who has which address. Pure and deterministic; owned by the state while this replica leads.
//!
//! An address has several tenants only on terms that let them share it. What is asked here changes nothing; what is taken and
//! released keeps the counts. Which address a Service gets is [`super::choose`]'s.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Display, Formatter};
use std::net::IpAddr;

use ferrolb_proto::api::IpMode;
use ferrolb_proto::facts::{Key, Pool, Service};
use ferrolb_proto::range::Family;

use super::sharing::{Clash, Terms};
use super::space::{Count, Space, index, is_router_anycast};

/// Why a Service cannot have an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// No pool that can be used has it.
    NoPool,
    /// This pool has it, and is for other namespaces or Services.
    Closed(Box<str>),
    /// This pool has it, and the Service asks for another one or has its other address from another one.
    OtherPool(Box<str>),
    /// A Node has it.
    Node,
    /// A Service has it that was not given it here.
    Outside(Outsider),
    /// Another Service has it, and does not share it with this one.
    Held(Key, Clash),
    /// The Service asks for other addresses.
    NotAsked,
    /// The Service has no cluster IP of that family, or another address of it.
    Family,
}

/// A Service that has an address that was not given to it here. Told as what follows the address in a sentence.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Outsider {
    pub(super) key: Key,
    pub(super) means: Means,
}

/// How it came by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Means {
    /// By its `externalIPs`.
    ExternalIps,
    /// By another load balancer, which has written it into its status.
    Balancer,
    /// It is its cluster IP.
    ClusterIp,
}

impl Display for Outsider {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.means {
            Means::ExternalIps => write!(f, "in spec.externalIPs of Service {}", self.key),
            Means::Balancer => write!(f, "given to Service {} by another load balancer", self.key),
            Means::ClusterIp => write!(f, "the cluster IP of Service {}", self.key),
        }
    }
}

/// Why an address of a pool is not given by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Skipped<'a> {
    /// A Node has it.
    Node,
    /// A Service has it from elsewhere.
    Outside(&'a Outsider),
    /// It is the Subnet-Router anycast address of a network.
    Routers,
}

impl Display for Skipped<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node => f.write_str("a Node has it"),
            Self::Outside(owner) => owner.fmt(f),
            Self::Routers => f.write_str("Subnet-Router anycast, assigned on request only"),
        }
    }
}

/// A Service that asks for addresses, with all that decides which it may have.
#[derive(Debug)]
pub(super) struct Asker<'a> {
    pub(super) service: &'a Service,
    pub(super) terms: Terms,
    /// None: its Namespace was not seen yet.
    pub(super) namespace_labels: Option<&'a BTreeMap<String, String>>,
}

impl Asker<'_> {
    /// Whether a pool is for this Service. What depends on a Namespace that was not seen takes nothing away.
    pub(super) fn may_use(&self, space: &Space) -> bool {
        let labels = || {
            let labels = self.service.demand.labels.iter();
            labels.map(|(key, value)| (key.to_string(), value.to_string())).collect()
        };
        let nothing = BTreeMap::new();
        let Some(allocation) = &space.allocation else { return true };
        let unclear = self.namespace_labels.is_none() && allocation.selects_namespaces();
        let namespace_labels = self.namespace_labels.unwrap_or(&nothing);
        unclear || allocation.allows(&self.service.key.namespace, namespace_labels, labels)
    }
}

/// Someone who has an address, and on which terms.
#[derive(Debug)]
struct Tenant {
    key: Key,
    terms: Terms,
}

/// An address that somebody has.
#[derive(Debug)]
struct Holding {
    /// The pool that it is counted to.
    pool: Box<str>,
    /// At least one.
    tenants: Vec<Tenant>,
}

/// Pools, and who has their addresses.
#[derive(Debug, Default)]
pub(super) struct Allocator {
    pub(super) spaces: BTreeMap<Box<str>, Space>,
    /// The ranges of the pools that can be used: first address -> last one, and the pool. They share no address.
    index: BTreeMap<IpAddr, (IpAddr, Box<str>)>,
    holdings: BTreeMap<IpAddr, Holding>,
    /// Held addresses by the key under which they may be shared.
    shared: BTreeMap<Box<str>, BTreeSet<IpAddr>>,
    nodes: BTreeSet<IpAddr>,
    /// Addresses of pools that Services have from elsewhere.
    outside: BTreeMap<IpAddr, BTreeSet<Outsider>>,
    /// The same by Service, ascending.
    outsiders: BTreeMap<Key, Vec<(IpAddr, Means)>>,
    /// Pools whose counts have changed since they were asked for.
    touched: BTreeSet<Box<str>>,
    /// Whether somebody may get now what he could not get before.
    freed: bool,
}

impl Allocator {
    /// New pools, each with whether it can be used, the addresses of all Nodes, and what Services have from elsewhere. Tenants
    /// stay until they are asked about with [`Self::admit`] and released. Costs as much as there are pools and tenants.
    pub(super) fn set_pools<'a>(
        &mut self,
        pools: impl Iterator<Item = (&'a Pool, bool)>,
        nodes: impl Iterator<Item = IpAddr>,
        outside: impl Iterator<Item = (Asker<'a>, Vec<(IpAddr, Means)>)>,
    ) {
        self.nodes = nodes.collect();
        let space = |(pool, usable): (&Pool, bool)| (pool.name.clone(), Space::new(pool, usable, &self.nodes));
        self.spaces = pools.map(space).collect();
        let usable = self.spaces.iter().filter(|(_, space)| space.usable);
        let ranges = usable.flat_map(|(name, space)| space.ranges().iter().map(move |range| (range, name)));
        self.index = ranges.map(|(range, name)| (range.first(), (range.last(), name.clone()))).collect();
        self.shared.clear();
        self.outside.clear();
        self.outsiders.clear();
        for (address, holding) in std::mem::take(&mut self.holdings) {
            let pool = self.pool_with(address).map_or(holding.pool, Into::into);
            for Tenant { key, terms } in holding.tenants {
                self.take(address, &key, &terms, &pool);
            }
        }
        outside.for_each(|(asker, addresses)| self.set_outside(&asker, &addresses));
    }

    /// The pool that can be used and may give this address.
    fn pool_with(&self, address: IpAddr) -> Option<&str> {
        let (_, (last, pool)) = self.index.range(..=address).next_back()?;
        let has = *last >= address && self.spaces.get(pool).is_some_and(|space| space.has(address));
        has.then_some(&**pool)
    }

    fn space_with(&mut self, address: IpAddr) -> Option<&mut Space> {
        let pool: Box<str> = self.pool_with(address)?.into();
        self.spaces.get_mut(&pool)
    }

    /// The pool out of which a Service may have an address, be it free, shared or its own. A pool that is there and cannot be
    /// used (`from`, the one it came from) lets a Service keep what it has: a slip in a pool takes no address away.
    pub(super) fn admit(&self, asker: &Asker<'_>, address: IpAddr, from: Option<&str>) -> Result<Box<str>, Refusal> {
        if self.nodes.contains(&address) {
            return Err(Refusal::Node);
        }
        let unusable = |name: &&str| self.spaces.get(*name).is_some_and(|space| !space.usable);
        let pool = from.filter(unusable).or_else(|| self.pool_with(address)).ok_or(Refusal::NoPool)?;
        if self.spaces.get(pool).is_some_and(|space| space.usable && !asker.may_use(space)) {
            return Err(Refusal::Closed(pool.into()));
        }
        if let Some((key, clash)) = self.clash(asker, address) {
            return Err(Refusal::Held(key.clone(), clash));
        }
        Ok(pool.into())
    }

    /// The one pool out of which a Service may have all these addresses that it asks for, none of which it has yet.
    pub(super) fn admit_new(&self, asker: &Asker<'_>, addresses: &[IpAddr]) -> Result<Box<str>, (IpAddr, Refusal)> {
        let mut one: Option<Box<str>> = None;
        for address in addresses {
            let pool = self.admit(asker, *address, None).map_err(|refusal| (*address, refusal))?;
            let others = |owner: &&Outsider| owner.key != asker.service.key;
            if let Some(owner) = self.outside.get(address).and_then(|owners| owners.iter().find(others)) {
                return Err((*address, Refusal::Outside(owner.clone())));
            }
            if one.get_or_insert_with(|| pool.clone()) != &pool {
                return Err((*address, Refusal::OtherPool(pool)));
            }
        }
        one.ok_or_else(|| unreachable!("nothing is asked for"))
    }

    /// The first by name of those that have an address and keep a Service from having it too.
    fn clash(&self, asker: &Asker<'_>, address: IpAddr) -> Option<(&Key, Clash)> {
        let tenants = self.holdings.get(&address).into_iter().flat_map(|holding| &holding.tenants);
        let others = tenants.filter(|tenant| tenant.key != asker.service.key);
        let clashes = others.filter_map(|tenant| Some((&tenant.key, tenant.terms.clash(&asker.terms)?)));
        clashes.min_by_key(|(key, _)| *key)
    }

    /// Makes `key` a tenant of `address`, counted to `pool`, or changes its terms.
    pub(super) fn take(&mut self, address: IpAddr, key: &Key, terms: &Terms, pool: &str) {
        let before = self.holdings.get(&address).and_then(|holding| {
            let tenant = holding.tenants.iter().find(|tenant| tenant.key == *key)?;
            Some(tenant.terms == *terms && *holding.pool == *pool)
        });
        match before {
            Some(true) => return,
            // On its new terms, others may share it.
            Some(false) => self.release(address, key),
            None => {}
        }
        if let Some(key) = terms.key() {
            self.shared.entry(key.into()).or_default().insert(address);
        }
        let tenant = Tenant { key: key.clone(), terms: terms.clone() };
        if let Some(holding) = self.holdings.get_mut(&address) {
            holding.tenants.push(tenant);
            return;
        }
        let was_skipped = self.is_skipped(address);
        if let Some(space) = self.space_with(address) {
            space.occupy(address);
            let skipped = &mut space.skipped[index(Family::of(address))];
            *skipped = skipped.saturating_sub(u64::from(was_skipped));
        }
        self.count_use(address, pool, 1);
        self.holdings.insert(address, Holding { pool: pool.into(), tenants: vec![tenant] });
    }

    /// `key` is no tenant of `address` any longer.
    pub(super) fn release(&mut self, address: IpAddr, key: &Key) {
        let Some(holding) = self.holdings.get_mut(&address) else { return };
        let Some(place) = holding.tenants.iter().position(|tenant| tenant.key == *key) else { return };
        let gone = holding.tenants.swap_remove(place);
        self.freed = true;
        if !holding.tenants.is_empty() {
            return;
        }
        let pool = std::mem::take(&mut holding.pool);
        self.holdings.remove(&address);
        if let Some(sharing) = gone.terms.key()
            && let Some(addresses) = self.shared.get_mut(sharing)
        {
            addresses.remove(&address);
            if addresses.is_empty() {
                self.shared.remove(sharing);
            }
        }
        self.count_use(address, &pool, -1);
        if self.is_skipped(address) {
            self.shift_skipped(address, 1, Space::occupy);
        } else if let Some(space) = self.space_with(address) {
            space.vacate(address);
        }
    }

    fn count_use(&mut self, address: IpAddr, pool: &str, by: i64) {
        if let Some(space) = self.spaces.get_mut(pool) {
            let used = &mut space.used[index(Family::of(address))];
            *used = used.saturating_add_signed(by);
        }
        self.touched.insert(pool.into());
    }

    /// A Service has these addresses from elsewhere now, ascending. Its `externalIPs` count only in
    /// pools that it may use: nobody blocks a pool that is closed to him.
    pub(super) fn set_outside(&mut self, asker: &Asker<'_>, addresses: &[(IpAddr, Means)]) {
        let counts = |(address, means): &&(IpAddr, Means)| {
            let space = self.pool_with(*address).and_then(|pool| self.spaces.get(pool));
            space.is_some_and(|space| *means != Means::ExternalIps || asker.may_use(space))
        };
        let now: Vec<_> = addresses.iter().filter(counts).copied().collect();
        let key = &asker.service.key;
        let before = self.outsiders.remove(key).unwrap_or_default();
        for (address, means) in before.iter().filter(|had| now.binary_search(had).is_err()) {
            let Some(owners) = self.outside.get_mut(address) else { continue };
            owners.remove(&Outsider { key: key.clone(), means: *means });
            if owners.is_empty() {
                self.outside.remove(address);
                self.unblock(*address);
            }
        }
        for (address, means) in &now {
            let new = !self.outside.contains_key(address);
            self.outside.entry(*address).or_default().insert(Outsider { key: key.clone(), means: *means });
            if new {
                self.block(*address);
            }
        }
        if !now.is_empty() {
            self.outsiders.insert(key.clone(), now);
        }
    }

    /// True if the address is assigned on request only, while no Service has it.
    fn is_skipped(&self, address: IpAddr) -> bool {
        self.outside.contains_key(&address) || is_router_anycast(address)
    }

    /// Nobody was given the address here, and nobody is to get it.
    fn block(&mut self, address: IpAddr) {
        if !self.holdings.contains_key(&address) {
            self.shift_skipped(address, i64::from(!is_router_anycast(address)), Space::occupy);
        }
    }

    fn unblock(&mut self, address: IpAddr) {
        if !self.holdings.contains_key(&address) {
            self.freed |= self.pool_with(address).is_some();
            self.shift_skipped(address, -i64::from(!is_router_anycast(address)), Space::vacate);
        }
    }

    fn shift_skipped(&mut self, address: IpAddr, by: i64, then: fn(&mut Space, IpAddr)) {
        let Some(pool) = self.pool_with(address).map(Box::<str>::from) else { return };
        if let Some(space) = self.spaces.get_mut(&pool) {
            let skipped = &mut space.skipped[index(Family::of(address))];
            *skipped = skipped.saturating_add_signed(by);
            then(space, address);
        }
        self.touched.insert(pool);
    }

    /// The first addresses of these families that a pool has for a Service, free or shared; none where it has none.
    pub(super) fn first_of(&mut self, pool: &str, asker: &Asker<'_>, families: &[Family]) -> Vec<Option<IpAddr>> {
        let Self { spaces, holdings, shared, .. } = self;
        let Some(space) = spaces.get_mut(pool) else { return vec![None; families.len()] };
        let shared = asker.terms.key().and_then(|key| shared.get(key));
        let joins = |address: IpAddr| {
            let tenants = holdings.get(&address).into_iter().flat_map(|holding| &holding.tenants);
            let mut others = tenants.filter(|tenant| tenant.key != asker.service.key);
            others.all(|tenant| tenant.terms.clash(&asker.terms).is_none())
        };
        families.iter().map(|family| space.first(*family, shared, joins)).collect()
    }

    /// Whether somebody may get now what he could not get at the last call of [`Self::take_freed`].
    pub(super) const fn has_freed(&self) -> bool {
        self.freed
    }

    /// Whether somebody may get now what he could not get at the last call.
    pub(super) const fn take_freed(&mut self) -> bool {
        std::mem::replace(&mut self.freed, false)
    }

    /// The pools whose counts have changed since the last call.
    pub(super) fn take_touched(&mut self) -> BTreeSet<Box<str>> {
        std::mem::take(&mut self.touched)
    }

    /// Every held address with its tenants, ascending.
    pub(super) fn tenants(&self) -> impl Iterator<Item = (IpAddr, Vec<&Key>)> {
        self.holdings.iter().map(|(address, holding)| (*address, holding.tenants.iter().map(|t| &t.key).collect()))
    }

    /// The Services that have an address.
    pub(super) fn tenants_of(&self, address: IpAddr) -> impl Iterator<Item = &Key> {
        self.holdings.get(&address).into_iter().flat_map(|holding| &holding.tenants).map(|tenant| &tenant.key)
    }

    /// The mode of a pool's addresses; none where that cannot be known.
    pub(super) fn mode(&self, pool: &str) -> Option<IpMode> {
        self.spaces.get(pool).filter(|space| space.usable).map(|space| space.mode)
    }

    /// For each family: how many addresses the pool has.
    pub(super) fn counts(&self, pool: &str) -> [Count; 2] {
        let count = |space: &Space| [Family::V4, Family::V6].map(|family| space.count(family));
        self.spaces.get(pool).map(count).unwrap_or_default()
    }

    /// Addresses of a pool that are not given by themselves, and why.
    pub(super) fn skipped(&self, pool: &str) -> impl Iterator<Item = (IpAddr, Skipped<'_>)> {
        let space = self.spaces.get(pool).filter(|space| space.usable);
        let nodes = space.into_iter().flat_map(Space::of_nodes).map(|address| (*address, Skipped::Node));
        let ranges = space.into_iter().flat_map(Space::ranges);
        let outside = ranges.flat_map(|range| self.outside.range(range.first()..=range.last()));
        let unheld = outside.filter(move |(address, _)| {
            !self.holdings.contains_key(address) && space.is_some_and(|space| space.has(**address))
        });
        let outside = unheld.filter_map(|(address, owners)| Some((*address, Skipped::Outside(owners.first()?))));
        let routers = space.into_iter().flat_map(Space::of_routers);
        let unheld =
            routers.filter(|address| !self.holdings.contains_key(address) && !self.outside.contains_key(address));
        nodes.chain(outside).chain(unheld.map(|address| (address, Skipped::Routers)))
    }

    /// The counts of all pools, for metrics.
    pub(super) fn usage(&self) -> Vec<(Box<str>, [Count; 2])> {
        self.spaces.keys().map(|name| (name.clone(), self.counts(name))).collect()
    }
}

#[cfg(test)]
mod tests;
