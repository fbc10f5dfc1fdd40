//! Which addresses a Service gets: the pools in their order, all families out of one pool (MetalLB's rules, ties by name).
//!
//! First the pools that are for this Service by `serviceAllocation`, by priority; then those for everyone. A Service that
//! asks for a pool gets addresses of that one or none.

use ferrolb_proto::facts::RequestProblem;
use ferrolb_proto::range::Family;
use std::net::IpAddr;

use super::alloc::{Allocator, Asker, Refusal};
use super::space::Space;

/// Why a Service has not all that it needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Shortage {
    /// It cannot be understood what it asks for.
    BadRequest(RequestProblem),
    /// It needs two families, and has cluster IPs of this one.
    OneFamily(Family),
    /// It may not have this address that it asks for.
    Refused(IpAddr, Refusal),
    /// There is no pool of the name it asks for.
    UnknownPool(Box<str>),
    /// The pool it asks for is not valid.
    InvalidPool(Box<str>),
    /// The pool it asks for is for others.
    ClosedPool(Box<str>),
    /// No pool gives to it by itself.
    NoPool(Closed),
    /// No such pool has addresses of all these families.
    Family(Vec<Family>),
    /// These pools have the families, and none is free; by name.
    Exhausted(Vec<Box<str>>),
}

/// Why the pools that there are give nothing to a Service. No numbers: a condition is no news because there is one pool more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Closed {
    /// Some are not valid.
    pub(super) invalid: bool,
    /// For some `spec.autoAssign` is false.
    pub(super) manual: bool,
    /// Some are for other namespaces or Services.
    pub(super) others: bool,
}

/// Addresses out of one pool, in the order of the families.
pub(super) type Gift = (Box<str>, Vec<IpAddr>);

impl Allocator {
    /// Gives a Service an address of each family, the most wanted first, out of the first pool that has all of them;
    /// `prefer`: where none has, what one has of them. `only`: out of this pool or none.
    pub(super) fn give(
        &mut self,
        asker: &Asker<'_>,
        families: &[Family],
        prefer: bool,
        only: Option<&str>,
    ) -> Result<Gift, Shortage> {
        let groups = match only {
            Some(pool) => [self.named(asker, pool)?, Vec::new()],
            None => self.by_itself(asker)?,
        };
        let mut found = None;
        for group in &groups {
            found = self.best(asker, group, families, prefer);
            if found.is_some() {
                break;
            }
        }
        let Some((pool, addresses)) = found else { return Err(self.shortage(&groups.concat(), families, prefer)) };
        for address in &addresses {
            self.take(*address, &asker.service.key, &asker.terms, &pool);
        }
        Ok((pool, addresses))
    }

    fn named(&self, asker: &Asker<'_>, pool: &str) -> Result<Vec<Box<str>>, Shortage> {
        match self.spaces.get(pool) {
            None => Err(Shortage::UnknownPool(pool.into())),
            Some(space) if !space.usable => Err(Shortage::InvalidPool(pool.into())),
            Some(space) if !asker.may_use(space) => Err(Shortage::ClosedPool(pool.into())),
            Some(_) => Ok(vec![pool.into()]),
        }
    }

    /// The pools that are for this Service, then those for everyone.
    fn by_itself(&self, asker: &Asker<'_>) -> Result<[Vec<Box<str>>; 2], Shortage> {
        let mut closed = Closed::default();
        let (mut own, mut everyones) = (Vec::new(), Vec::new());
        for (name, space) in &self.spaces {
            let allocation = space.allocation.as_ref();
            match (space.usable, space.auto_assign, allocation) {
                (false, ..) => closed.invalid = true,
                (_, false, _) => closed.manual = true,
                (_, _, None) => everyones.push(name.clone()),
                (_, _, Some(_)) if !asker.may_use(space) => closed.others = true,
                (_, _, Some(allocation)) => own.push((allocation.rank(), name.clone())),
            }
        }
        own.sort();
        if own.is_empty() && everyones.is_empty() {
            return Err(Shortage::NoPool(closed));
        }
        Ok([own.into_iter().map(|(_, name)| name).collect(), everyones])
    }

    /// The first of these pools that has all families; else, where `prefer`, the first that has the most wanted, or any.
    fn best(&mut self, asker: &Asker<'_>, pools: &[Box<str>], families: &[Family], prefer: bool) -> Option<Gift> {
        let mut partial: Vec<Option<Gift>> = vec![None; families.len()];
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

    /// Why these pools have nothing.
    fn shortage(&self, pools: &[Box<str>], families: &[Family], prefer: bool) -> Shortage {
        let has = |space: &Space| {
            let mut families = families.iter().map(|family| space.has_family(*family));
            if prefer { families.any(|has| has) } else { families.all(|has| has) }
        };
        let full = pools.iter().filter(|pool| self.spaces.get(*pool).is_some_and(has));
        let mut full: Vec<_> = full.cloned().collect();
        full.sort();
        if full.is_empty() { Shortage::Family(families.to_vec()) } else { Shortage::Exhausted(full) }
    }
}
