//! Selection of a Service's addresses from the pools; methods of the [`Allocator`].
//!
//! The allocator tries the pools in MetalLB's order: first the pools whose `serviceAllocation`
//! selects the Service, by priority, then the pools for all Services. Pools of equal rank follow by
//! name. All addresses of a Service come from one pool. A Service that requests a pool gets
//! addresses of that pool or none.

use ferrolb_proto::facts::AddressRequestProblem;
use ferrolb_proto::range::Family;
use std::net::IpAddr;

use super::alloc::{Allocator, Refusal, Requester};
use super::pool_addresses::PoolAddresses;

/// Reason why a Service lacks addresses that it requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Shortage {
    /// The request in annotations or `spec.loadBalancerIP` of the Service is invalid.
    BadRequest(AddressRequestProblem),
    /// The Service requires dual-stack addresses, but has cluster IPs of this family only.
    OneFamily(Family),
    /// The Service requests this address, but cannot have it.
    Refused(IpAddr, Refusal),
    /// No pool has the requested name.
    UnknownPool(Box<str>),
    /// The pool that the Service requests, or that its other address is from, is invalid.
    InvalidPool(Box<str>),
    /// The `serviceAllocation` of the requested pool excludes the Service.
    PoolNotAllowed(Box<str>),
    /// No pool assigns addresses to the Service automatically.
    NoPool(UnusablePools),
    /// No pool that the Service may use has addresses of these families.
    Family(Vec<Family>),
    /// These pools, sorted by name, contain addresses of the families, but none is free.
    Exhausted(Vec<Box<str>>),
}

/// Pools that assign no address to a Service automatically, by cause. Each list has the first pools
/// by name: one more than a message lists, so that the message can add "and others".
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct UnusablePools {
    pub(super) invalid: Vec<Box<str>>,
    /// Pools in which `spec.autoAssign` is false.
    pub(super) manual: Vec<Box<str>>,
    /// Pools whose `spec.serviceAllocation` selects other Namespaces or Services.
    pub(super) others: Vec<Box<str>>,
}

/// Maximum number of pools per cause in [`UnusablePools`].
const CLOSED_MAX: usize = 6;

/// Name of a pool, and the addresses selected from it, in the order of the requested families.
pub(super) type SelectedAddresses = (Box<str>, Vec<IpAddr>);

impl Allocator {
    /// Assigns one address of each family from the first pool that has all the families. `families`
    /// begins with the preferred family, and `only` restricts the choice to one pool.
    ///
    /// With `prefer` (`PreferDualStack`), one address of one family is enough. Even then, the pools
    /// that select the Service take precedence over the pools for all Services.
    pub(super) fn assign_from_pools(
        &mut self,
        asker: &Requester<'_>,
        families: &[Family],
        prefer: bool,
        only: Option<&str>,
    ) -> Result<SelectedAddresses, Shortage> {
        let groups = match only {
            Some(pool) => [self.named(asker, pool)?, Vec::new()],
            None => self.automatic_pools(asker)?,
        };
        let mut found = None;
        for group in &groups {
            found = self.best(asker, group, families, prefer);
            if found.is_some() {
                break;
            }
        }
        let Some((pool, addresses)) = found else {
            return Err(self.shortage(&groups.concat(), families, prefer));
        };
        for address in &addresses {
            self.assign(*address, &asker.service.key, &asker.terms, &pool);
        }
        Ok((pool, addresses))
    }

    fn named(&self, asker: &Requester<'_>, pool: &str) -> Result<Vec<Box<str>>, Shortage> {
        match self.pools.get(pool) {
            None => Err(Shortage::UnknownPool(pool.into())),
            Some(space) if !space.valid => Err(Shortage::InvalidPool(pool.into())),
            Some(space) if !asker.may_use(space) => Err(Shortage::PoolNotAllowed(pool.into())),
            Some(_) => Ok(vec![pool.into()]),
        }
    }

    /// Returns the pools that assign addresses to this Service automatically: those that select the
    /// Service, and those for all Services.
    fn automatic_pools(&self, asker: &Requester<'_>) -> Result<[Vec<Box<str>>; 2], Shortage> {
        let mut closed = UnusablePools::default();
        let keep = |pools: &mut Vec<Box<str>>, name: &str| {
            if pools.len() < CLOSED_MAX {
                pools.push(name.into());
            }
        };
        let (mut own, mut everyones) = (Vec::new(), Vec::new());
        for (name, space) in &self.pools {
            let allocation = space.allocation.as_ref();
            match (space.valid, space.auto_assign, allocation) {
                (false, ..) => keep(&mut closed.invalid, name),
                (_, false, _) => keep(&mut closed.manual, name),
                (_, _, None) => everyones.push(name.clone()),
                (_, _, Some(_)) if !asker.may_use(space) => keep(&mut closed.others, name),
                (_, _, Some(allocation)) => own.push((allocation.rank(), name.clone())),
            }
        }
        own.sort();
        if own.is_empty() && everyones.is_empty() {
            return Err(Shortage::NoPool(closed));
        }
        Ok([own.into_iter().map(|(_, name)| name).collect(), everyones])
    }

    /// Returns addresses from the first of these pools that has all families.
    ///
    /// If no pool has all families and `prefer` is set, returns one address from the first pool
    /// that has the first family. If there is none, the next family follows.
    fn best(
        &mut self,
        asker: &Requester<'_>,
        pools: &[Box<str>],
        families: &[Family],
        prefer: bool,
    ) -> Option<SelectedAddresses> {
        let mut partial: Vec<Option<SelectedAddresses>> = vec![None; families.len()];
        for pool in pools {
            let found = self.first_of(pool, asker, families);
            if let Some(all) = found.iter().copied().collect::<Option<Vec<_>>>() {
                return Some((pool.clone(), all));
            }
            for (known, address) in partial.iter_mut().zip(found) {
                if let (None, Some(address)) = (&known, address) {
                    *known = Some((pool.clone(), vec![address]));
                }
            }
        }
        partial.into_iter().flatten().next().filter(|_| prefer)
    }

    /// Returns why these pools have no address to assign: they do not contain the families, or no
    /// address is free.
    fn shortage(&self, pools: &[Box<str>], families: &[Family], prefer: bool) -> Shortage {
        let has = |space: &PoolAddresses| {
            let mut families = families.iter().map(|family| space.has_family(*family));
            if prefer { families.any(|has| has) } else { families.all(|has| has) }
        };
        let full = pools.iter().filter(|pool| self.pools.get(*pool).is_some_and(has));
        let mut full: Vec<_> = full.cloned().collect();
        full.sort();
        if full.is_empty() {
            Shortage::Family(families.to_vec())
        } else {
            Shortage::Exhausted(full)
        }
    }
}
