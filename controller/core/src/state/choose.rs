//! Selection of a Service's addresses from the pools; methods of the [`Allocator`].
//!
//! The allocator tries the pools in MetalLB's order: first the pools whose `serviceAllocation`
//! selects the Service, by priority, then the pools for all Services. Pools of equal rank are in
//! the order of their names. All addresses of a Service come from one pool. A Service that requests
//! a pool gets addresses of that pool or none.
//!
//! Among the pools that select the Service, and among those for all Services, a pool of which the
//! Service had addresses comes first. Addresses that other Services had come last.

use ferrolb_proto::facts::AddressRequestProblem;
use ferrolb_proto::range::Family;
use std::net::IpAddr;

use super::alloc::{Allocator, Refusal, Requester};
use super::pool_addresses::PoolAddresses;

/// Reason why a Service lacks addresses that it requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Shortage {
    /// An annotation or `spec.loadBalancerIP` is invalid, or both contradict each other. The
    /// Service keeps its addresses.
    ///
    /// Action: Follow the message.
    BadRequest(AddressRequestProblem),
    /// The Service requires two families, and has a cluster IP of one.
    ///
    /// Action: Make the cluster dual-stack, or set `ipFamilyPolicy: SingleStack`.
    OneFamily(Family),
    /// The Service requests this address, but cannot have it.
    Refused(IpAddr, Refusal),
    /// The requested pool does not exist.
    ///
    /// Action: Create it, or change the annotation.
    UnknownPool(Box<str>),
    /// The pool that the Service needs is invalid.
    ///
    /// Action: Correct the pool.
    InvalidPool(Box<str>),
    /// The `serviceAllocation` of the requested pool excludes the Service.
    PoolNotAllowed(Box<str>),
    /// No pool assigns addresses to the Service automatically
    /// ([causes](docs/reference/conditions.md#causes-of-nopoolmatches)).
    ///
    /// Action: Create or change a pool, or request one.
    NoPool(UnusablePools),
    /// No pool that the Service may use has addresses of all its families.
    ///
    /// Action: Add a range of the missing family, or set `ipFamilyPolicy`.
    Family(Vec<Family>),
    /// No address is free in the pools of the Service.
    ///
    /// Names of the pools, sorted.
    ///
    /// Action: Add addresses to a pool, or delete a Service.
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
const UNUSABLE_POOLS_MAX: usize = 6;

/// Name of a pool, and the addresses selected from it, in the order of the requested families.
pub(super) type SelectedAddresses = (Box<str>, Vec<IpAddr>);

impl Allocator {
    /// Assigns one address of each family from the first pool that has all the families. `families`
    /// begins with the preferred family, and `only` restricts the choice to one pool.
    ///
    /// With `prefers_dual_stack` (`PreferDualStack`), one address of one family is enough. Even
    /// then, the pools that select the Service take precedence over the pools for all Services.
    pub(super) fn assign_from_pools(
        &mut self,
        requester: &Requester<'_>,
        families: &[Family],
        prefers_dual_stack: bool,
        only: Option<&str>,
    ) -> Result<SelectedAddresses, Shortage> {
        let groups = match only {
            Some(pool) => [self.requested_pool(requester, pool)?, Vec::new()],
            None => self.automatic_pools(requester)?,
        };
        let mut found = None;
        for group in &groups {
            let is_former = |pool: &str| {
                let mut families = families.iter();
                families.any(|family| self.former_address(requester, pool, *family).is_some())
            };
            let former: Vec<_> = group.iter().filter(|pool| is_former(pool)).cloned().collect();
            found = self
                .best_addresses(requester, &former, families, prefers_dual_stack)
                .or_else(|| self.best_addresses(requester, group, families, prefers_dual_stack));
            if found.is_some() {
                break;
            }
        }
        let Some((pool, addresses)) = found else {
            return Err(self.shortage(&groups.concat(), families, prefers_dual_stack));
        };
        for address in &addresses {
            self.assign(*address, &requester.service.key, &requester.sharing, &pool);
        }
        Ok((pool, addresses))
    }

    fn requested_pool(
        &self,
        requester: &Requester<'_>,
        pool: &str,
    ) -> Result<Vec<Box<str>>, Shortage> {
        match self.pools.get(pool) {
            None => Err(Shortage::UnknownPool(pool.into())),
            Some(pool_addresses) if !pool_addresses.valid => {
                Err(Shortage::InvalidPool(pool.into()))
            }
            Some(pool_addresses) if !requester.may_use(pool_addresses) => {
                Err(Shortage::PoolNotAllowed(pool.into()))
            }
            Some(_) => Ok(vec![pool.into()]),
        }
    }

    /// Returns the pools that assign addresses to this Service automatically: those that select the
    /// Service, and those for all Services.
    fn automatic_pools(&self, requester: &Requester<'_>) -> Result<[Vec<Box<str>>; 2], Shortage> {
        let mut unusable = UnusablePools::default();
        let add = |pools: &mut Vec<Box<str>>, name: &str| {
            if pools.len() < UNUSABLE_POOLS_MAX {
                pools.push(name.into());
            }
        };
        let (mut selecting, mut unrestricted) = (Vec::new(), Vec::new());
        for (name, pool_addresses) in &self.pools {
            let allocation = pool_addresses.allocation.as_ref();
            match (pool_addresses.valid, pool_addresses.auto_assign, allocation) {
                (false, ..) => add(&mut unusable.invalid, name),
                (_, false, _) => add(&mut unusable.manual, name),
                (_, _, None) => unrestricted.push(name.clone()),
                (_, _, Some(_)) if !requester.may_use(pool_addresses) => {
                    add(&mut unusable.others, name)
                }
                (_, _, Some(allocation)) => selecting.push((allocation.rank(), name.clone())),
            }
        }
        selecting.sort();
        if selecting.is_empty() && unrestricted.is_empty() {
            return Err(Shortage::NoPool(unusable));
        }
        Ok([selecting.into_iter().map(|(_, name)| name).collect(), unrestricted])
    }

    /// Returns addresses from the first of these pools that has all families, if possible without
    /// addresses that other Services had.
    ///
    /// If no pool has all families and `prefers_dual_stack` is set, returns one address from the
    /// first pool that has the first family. If no pool has the first family, tries the next
    /// family.
    fn best_addresses(
        &mut self,
        requester: &Requester<'_>,
        pools: &[Box<str>],
        families: &[Family],
        prefers_dual_stack: bool,
    ) -> Option<SelectedAddresses> {
        let mut partial: Vec<Option<SelectedAddresses>> = vec![None; families.len()];
        for with_remembered in [false, true] {
            for pool in pools {
                let found = self.first_addresses(requester, pool, families, with_remembered);
                if let Some(all) = found.iter().copied().collect::<Option<Vec<_>>>() {
                    return Some((pool.clone(), all));
                }
                for (first, address) in partial.iter_mut().zip(found) {
                    if let (None, Some(address)) = (&first, address) {
                        *first = Some((pool.clone(), vec![address]));
                    }
                }
            }
        }
        partial.into_iter().flatten().next().filter(|_| prefers_dual_stack)
    }

    /// Returns, for each family, an address of the pool that the Service can have: the one that it
    /// had, or else the first one that nobody has or had, or that it can share. Otherwise, with
    /// `with_remembered`, the one that another Service had.
    fn first_addresses(
        &mut self,
        requester: &Requester<'_>,
        pool: &str,
        families: &[Family],
        with_remembered: bool,
    ) -> Vec<Option<IpAddr>> {
        let mut first = |family: Family| {
            self.former_address(requester, pool, family)
                .or_else(|| self.first_address(requester, pool, family))
                .or_else(|| self.first_remembered(pool, family).filter(|_| with_remembered))
        };
        families.iter().map(|family| first(*family)).collect()
    }

    /// Returns why these pools have no address to assign: they do not contain the families, or no
    /// address is free.
    fn shortage(
        &self,
        pools: &[Box<str>],
        families: &[Family],
        prefers_dual_stack: bool,
    ) -> Shortage {
        let has = |pool_addresses: &PoolAddresses| {
            let mut families = families.iter().map(|family| pool_addresses.has_family(*family));
            if prefers_dual_stack { families.any(|has| has) } else { families.all(|has| has) }
        };
        let exhausted = pools.iter().filter(|pool| self.pools.get(*pool).is_some_and(has));
        let mut exhausted: Vec<_> = exhausted.cloned().collect();
        exhausted.sort();
        if exhausted.is_empty() {
            Shortage::Family(families.to_vec())
        } else {
            Shortage::Exhausted(exhausted)
        }
    }
}
