//! Decides for one Service which addresses it keeps and which ones it gets. The allocator stores
//! the assignments, and the state decides the order of the Services.

use std::net::IpAddr;

use ferrolb_proto::api::IpMode;
use ferrolb_proto::facts::{AddressRequestProblem, FamilyPolicy};
use ferrolb_proto::range::Family;

use super::alloc::{Allocator, Refusal, Requester};
use super::choose::Shortage;

/// The decision about a Service: the assigned addresses, and why others are missing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Assignment {
    /// The assigned addresses, in the order of the Service's families.
    pub(super) addresses: Vec<IpAddr>,
    /// Pool of all the addresses.
    pub(super) pool: Option<Box<str>>,
    /// `ipMode` of all the addresses.
    pub(super) mode: IpMode,
    /// Reason why the Service lacks addresses that it requests.
    pub(super) shortage: Option<Box<Shortage>>,
    /// True if the Service has all addresses that it requires. A family that is still missing is
    /// then only preferred (`PreferDualStack`).
    pub(super) satisfied: bool,
}

/// Addresses that a Service lost, each with the reason.
pub(super) type LostAddresses = Vec<(IpAddr, Refusal)>;

impl Assignment {
    /// Returns the Service's families that have no address yet.
    fn missing(&self, families: &[Family]) -> Vec<Family> {
        let has =
            |family: &Family| self.addresses.iter().any(|address| Family::of(*address) == *family);
        families.iter().copied().filter(|family| !has(family)).collect()
    }
}

/// Keeps the first address of each family in `present` that the Service may use, and releases the
/// others. All kept addresses come from one pool; `from` is the pool of the existing assignment.
pub(super) fn keep(
    allocator: &mut Allocator,
    asker: &Requester<'_>,
    present: &[IpAddr],
    from: Option<&str>,
) -> (Assignment, LostAddresses) {
    let request = &asker.service.demand.request;
    // Ignores an invalid request, so that it releases no address. Ignores the request of a Service
    // that is being deleted for the same reason.
    let heeded = request.problem.is_none() && !asker.service.deleting;
    let (asked, asked_pool) = match heeded {
        true => (request.addresses.as_slice(), request.pool.as_deref()),
        false => (<&[IpAddr]>::default(), None),
    };
    let (mut claim, mut lost) = (Assignment::default(), Vec::new());
    let rank = |address: &&IpAddr| {
        asker.service.families.iter().position(|family| *family == Family::of(**address))
    };
    let mut present: Vec<&IpAddr> = present.iter().collect();
    present.sort_by_key(rank);
    for address in present {
        let missing = claim.missing(&asker.service.families);
        let verdict = if !missing.contains(&Family::of(*address)) {
            Err(Refusal::Family)
        } else if !asked.is_empty() && !asked.contains(address) {
            Err(Refusal::NotRequested)
        } else {
            allocator.check_address(asker, *address, from).and_then(|pool| {
                let wanted = claim.pool.as_deref().or(asked_pool).unwrap_or(&pool);
                if *pool == *wanted { Ok(pool) } else { Err(Refusal::OtherPool(pool)) }
            })
        };
        match verdict {
            Ok(pool) => {
                allocator.assign(*address, &asker.service.key, &asker.terms, &pool);
                claim.pool = Some(pool);
                claim.addresses.push(*address);
            }
            // The status lists this address a second time, and the Service has already kept it.
            Err(Refusal::Family) if claim.addresses.contains(address) => {}
            Err(refusal) => {
                allocator.release(*address, &asker.service.key);
                lost.push((*address, refusal));
            }
        }
    }
    (claim, lost)
}

/// Assigns the addresses that a Service lacks, and records in `shortage` why addresses are still
/// missing. Returns the addresses that the Service loses because it moves to another pool.
pub(super) fn fill(
    allocator: &mut Allocator,
    asker: &Requester<'_>,
    claim: &mut Assignment,
) -> LostAddresses {
    let service = asker.service;
    let demand = &service.demand;
    let prefers = demand.family_policy == FamilyPolicy::Prefer;
    let mut lost = Vec::new();
    let outcome = match (
        demand.request.problem.as_deref(),
        demand.family_policy,
        service.families.as_slice(),
    ) {
        _ if service.deleting => Ok(()),
        (Some(problem), ..) => Err(Shortage::BadRequest(problem.clone())),
        (None, FamilyPolicy::Require, [one]) => Err(Shortage::OneFamily(*one)),
        (None, ..) if !demand.request.addresses.is_empty() => fill_asked(allocator, asker, claim),
        (None, ..) if claim.addresses.is_empty() => fill_new(allocator, asker, claim, prefers),
        (None, ..) => assign_missing_families(allocator, asker, claim, prefers, &mut lost),
    };
    let rank = |address: &IpAddr| {
        service.families.iter().position(|family| *family == Family::of(*address))
    };
    claim.addresses.sort_by_key(rank);
    claim.shortage = outcome.err().map(Box::new);
    let would_like = matches!(
        claim.shortage.as_deref(),
        Some(Shortage::Family(_) | Shortage::Exhausted(_) | Shortage::InvalidPool(_))
    );
    claim.satisfied =
        claim.shortage.is_none() || (prefers && would_like && !claim.addresses.is_empty());
    let written = || service.assigned.iter().find_map(|assigned| assigned.mode);
    // An invalid `ipMode` in the request must not change the current mode, so the mode in the
    // status remains.
    let slip = matches!(demand.request.problem.as_deref(), Some(AddressRequestProblem::Mode(_)))
        .then(written)
        .flatten();
    let of_pool = || allocator.mode(claim.pool.as_deref()?);
    claim.mode =
        demand.request.ip_mode.or(slip).or_else(of_pool).or_else(written).unwrap_or(claim.mode);
    lost
}

/// Assigns the requested addresses that the Service does not have yet.
fn fill_asked(
    allocator: &mut Allocator,
    asker: &Requester<'_>,
    claim: &mut Assignment,
) -> Result<(), Shortage> {
    let request = &asker.service.demand.request;
    let has = |address: &&IpAddr| claim.addresses.contains(address);
    let wanted: Vec<_> =
        request.addresses.iter().filter(|address| !has(address)).copied().collect();
    let Some(first) = wanted.first().copied() else { return Ok(()) };
    let pool = allocator
        .check_requested(asker, &wanted)
        .map_err(|(address, refusal)| Shortage::Refused(address, refusal))?;
    let must_be = claim.pool.as_deref().or(request.pool.as_deref());
    if must_be.is_some_and(|must_be| *must_be != *pool) {
        return Err(Shortage::Refused(first, Refusal::OtherPool(pool)));
    }
    for address in wanted {
        allocator.assign(address, &asker.service.key, &asker.terms, &pool);
        claim.addresses.push(address);
    }
    claim.pool = Some(pool);
    Ok(())
}

/// Assigns addresses to a Service that has none and requests no specific ones.
fn fill_new(
    allocator: &mut Allocator,
    asker: &Requester<'_>,
    claim: &mut Assignment,
    prefers: bool,
) -> Result<(), Shortage> {
    let Requester { service, .. } = asker;
    let (pool, addresses) = allocator.assign_from_pools(
        asker,
        &service.families,
        prefers,
        service.demand.request.pool.as_deref(),
    )?;
    (claim.addresses, claim.pool) = (addresses, Some(pool));
    // Try again to assign a preferred family that is still missing, because only this attempt
    // returns the reason.
    assign_missing_families(allocator, asker, claim, prefers, &mut Vec::new())
}

/// Assigns addresses of the missing families to a Service that has an address, from the pool of
/// that address. If this fails, a Service that requires both families moves to a pool that has
/// both.
fn assign_missing_families(
    allocator: &mut Allocator,
    asker: &Requester<'_>,
    claim: &mut Assignment,
    prefers: bool,
    lost: &mut LostAddresses,
) -> Result<(), Shortage> {
    let Requester { service, .. } = asker;
    let missing = claim.missing(&service.families);
    if missing.is_empty() {
        return Ok(());
    }
    let shortage = match allocator.assign_from_pools(asker, &missing, false, claim.pool.as_deref())
    {
        Ok((_, addresses)) => {
            claim.addresses.extend(addresses);
            return Ok(());
        }
        Err(shortage) => shortage,
    };
    let moved = if prefers {
        None
    } else {
        allocator
            .assign_from_pools(
                asker,
                &service.families,
                false,
                service.demand.request.pool.as_deref(),
            )
            .ok()
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
