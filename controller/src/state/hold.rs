//! One Service's addresses: what it may keep, and what it gets. Decides with the allocator; the state says for whom and when.

use std::net::IpAddr;

use ferrolb_proto::api::IpMode;
use ferrolb_proto::facts::{FamilyPolicy, RequestProblem};
use ferrolb_proto::range::Family;

use super::alloc::{Allocator, Asker, Refusal};
use super::choose::Shortage;

/// What a Service was given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Claim {
    /// In the order of the Service's families.
    pub(super) addresses: Vec<IpAddr>,
    /// The one pool that they are from.
    pub(super) pool: Option<Box<str>>,
    /// The `ipMode` of all of them.
    pub(super) mode: IpMode,
    /// Why it has not all that it asks for.
    pub(super) short: Option<Box<Shortage>>,
    /// It has what it needs; what it lacks it would only like to have.
    pub(super) content: bool,
}

/// Addresses that a Service had and has no longer.
pub(super) type Lost = Vec<(IpAddr, Refusal)>;

impl Claim {
    /// The families of the Service that it has no address of.
    fn missing(&self, families: &[Family]) -> Vec<Family> {
        let has = |family: &Family| self.addresses.iter().any(|address| Family::of(*address) == *family);
        families.iter().copied().filter(|family| !has(family)).collect()
    }
}

/// Lets a Service keep, of each family it has, the first of its `present` addresses that it may have; all from one pool.
pub(super) fn keep(
    allocator: &mut Allocator,
    asker: &Asker<'_>,
    present: &[IpAddr],
    from: Option<&str>,
) -> (Claim, Lost) {
    let request = &asker.service.demand.request;
    // A request that cannot be understood takes nothing away, nor does one that comes too late.
    let heeded = request.problem.is_none() && !asker.service.deleting;
    let (asked, asked_pool) = match heeded {
        true => (request.addresses.as_slice(), request.pool.as_deref()),
        false => (<&[IpAddr]>::default(), None),
    };
    let (mut claim, mut lost) = (Claim::default(), Vec::new());
    let rank = |address: &&IpAddr| asker.service.families.iter().position(|family| *family == Family::of(**address));
    let mut present: Vec<&IpAddr> = present.iter().collect();
    present.sort_by_key(rank);
    for address in present {
        let missing = claim.missing(&asker.service.families);
        let verdict = if !missing.contains(&Family::of(*address)) {
            Err(Refusal::Family)
        } else if !asked.is_empty() && !asked.contains(address) {
            Err(Refusal::NotAsked)
        } else {
            allocator.admit(asker, *address, from).and_then(|pool| {
                let wanted = claim.pool.as_deref().or(asked_pool).unwrap_or(&pool);
                if *pool == *wanted { Ok(pool) } else { Err(Refusal::OtherPool(pool)) }
            })
        };
        match verdict {
            Ok(pool) => {
                allocator.take(*address, &asker.service.key, &asker.terms, &pool);
                claim.pool = Some(pool);
                claim.addresses.push(*address);
            }
            // Written twice: it has that one.
            Err(Refusal::Family) if claim.addresses.contains(address) => {}
            Err(refusal) => {
                allocator.release(*address, &asker.service.key);
                lost.push((*address, refusal));
            }
        }
    }
    (claim, lost)
}

/// Gives a Service what it lacks, and says what it still lacks after that.
pub(super) fn fill(allocator: &mut Allocator, asker: &Asker<'_>, claim: &mut Claim) -> Lost {
    let service = asker.service;
    let demand = &service.demand;
    let prefers = demand.family_policy == FamilyPolicy::Prefer;
    let mut lost = Vec::new();
    let outcome = match (demand.request.problem.as_deref(), demand.family_policy, service.families.as_slice()) {
        _ if service.deleting => Ok(()),
        (Some(problem), ..) => Err(Shortage::BadRequest(problem.clone())),
        (None, FamilyPolicy::Require, [one]) => Err(Shortage::OneFamily(*one)),
        (None, ..) if !demand.request.addresses.is_empty() => fill_asked(allocator, asker, claim),
        (None, ..) if claim.addresses.is_empty() => fill_new(allocator, asker, claim, prefers),
        (None, ..) => fill_up(allocator, asker, claim, prefers, &mut lost),
    };
    let rank = |address: &IpAddr| service.families.iter().position(|family| *family == Family::of(*address));
    claim.addresses.sort_by_key(rank);
    claim.short = outcome.err().map(Box::new);
    let would_like =
        matches!(claim.short.as_deref(), Some(Shortage::Family(_) | Shortage::Exhausted(_) | Shortage::InvalidPool(_)));
    claim.content = claim.short.is_none() || (prefers && would_like && !claim.addresses.is_empty());
    let written = || service.assigned.iter().find_map(|assigned| assigned.mode);
    // A mode that cannot be read is no reason to take another one.
    let slip = matches!(demand.request.problem.as_deref(), Some(RequestProblem::Mode(_))).then(written).flatten();
    let of_pool = || allocator.mode(claim.pool.as_deref()?);
    claim.mode = demand.request.mode.or(slip).or_else(of_pool).or_else(written).unwrap_or(claim.mode);
    lost
}

/// The addresses that it asks for, those that it does not have yet.
fn fill_asked(allocator: &mut Allocator, asker: &Asker<'_>, claim: &mut Claim) -> Result<(), Shortage> {
    let request = &asker.service.demand.request;
    let has = |address: &&IpAddr| claim.addresses.contains(address);
    let wanted: Vec<_> = request.addresses.iter().filter(|address| !has(address)).copied().collect();
    let Some(first) = wanted.first().copied() else { return Ok(()) };
    let pool = allocator.admit_new(asker, &wanted).map_err(|(address, refusal)| Shortage::Refused(address, refusal))?;
    let must_be = claim.pool.as_deref().or(request.pool.as_deref());
    if must_be.is_some_and(|must_be| *must_be != *pool) {
        return Err(Shortage::Refused(first, Refusal::OtherPool(pool)));
    }
    for address in wanted {
        allocator.take(address, &asker.service.key, &asker.terms, &pool);
        claim.addresses.push(address);
    }
    claim.pool = Some(pool);
    Ok(())
}

/// It has nothing yet.
fn fill_new(allocator: &mut Allocator, asker: &Asker<'_>, claim: &mut Claim, prefers: bool) -> Result<(), Shortage> {
    let Asker { service, .. } = asker;
    let (pool, addresses) =
        allocator.give(asker, &service.families, prefers, service.demand.request.pool.as_deref())?;
    (claim.addresses, claim.pool) = (addresses, Some(pool));
    // What it would like to have and did not get is asked for again, to say why.
    fill_up(allocator, asker, claim, prefers, &mut Vec::new())
}

/// It has an address, and lacks another one: out of the same pool. Where it needs both, any pool that has both will do.
fn fill_up(
    allocator: &mut Allocator,
    asker: &Asker<'_>,
    claim: &mut Claim,
    prefers: bool,
    lost: &mut Lost,
) -> Result<(), Shortage> {
    let Asker { service, .. } = asker;
    let missing = claim.missing(&service.families);
    if missing.is_empty() {
        return Ok(());
    }
    let shortage = match allocator.give(asker, &missing, false, claim.pool.as_deref()) {
        Ok((_, addresses)) => {
            claim.addresses.extend(addresses);
            return Ok(());
        }
        Err(shortage) => shortage,
    };
    let moved = if prefers {
        None
    } else {
        allocator.give(asker, &service.families, false, service.demand.request.pool.as_deref()).ok()
    };
    let Some((pool, addresses)) = moved else { return Err(shortage) };
    for address in std::mem::replace(&mut claim.addresses, addresses) {
        if !claim.addresses.contains(&address) {
            allocator.release(address, &service.key);
            lost.push((address, Refusal::OtherPool(claim.pool.take().unwrap_or_default())));
        }
    }
    claim.pool = Some(pool);
    Ok(())
}
