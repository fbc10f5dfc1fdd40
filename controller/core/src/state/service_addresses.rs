//! Decides for one Service which addresses it keeps and which ones it gets. The allocator stores
//! the assignments, and the state decides the order of the Services.

use std::net::IpAddr;
use std::time::Duration;

use ferrolb_proto::api::IpMode;
use ferrolb_proto::facts::{AddressRequestProblem, FamilyPolicy};
use ferrolb_proto::range::Family;

use super::alloc::{Allocator, Refusal, Requester, UnmanagedUse};
use super::choose::Shortage;

/// The decision about a Service: the assigned addresses, and why others are missing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Assignment {
    /// The assigned addresses, in the order of the Service's families.
    pub(super) addresses: Vec<IpAddr>,
    /// Pool of all the addresses.
    pub(super) pool: Option<Box<str>>,
    /// Time for which the Service keeps its addresses although their pool does not exist; `None` if
    /// the pool exists.
    pub(super) pool_grace: Option<Duration>,
    /// Uses of the addresses by hosts, each with the address.
    pub(super) hosts: Vec<(IpAddr, UnmanagedUse)>,
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

/// Addresses that a Service has.
#[derive(Clone, Copy, Debug)]
pub(super) struct Present<'a> {
    pub(super) addresses: &'a [IpAddr],
    /// Pool of the existing assignment.
    pub(super) pool: Option<&'a str>,
    /// True if FerroLB assigned the addresses. Other load balancers also assign those of Nodes.
    pub(super) is_own: bool,
}

/// Keeps, for each family, the first address in `present` that the Service may use, and releases
/// the others. All kept addresses come from one pool.
pub(super) fn keep(
    allocator: &mut Allocator,
    requester: &Requester<'_>,
    present: Present<'_>,
) -> (Assignment, LostAddresses) {
    let request = &requester.service.demand.request;
    // Ignores an invalid request, so that it releases no address. Ignores the request of a Service
    // that is being deleted for the same reason.
    let honors_request = request.problem.is_none() && !requester.service.deleting;
    let (requested, requested_pool) = match honors_request {
        true => (request.addresses.as_slice(), request.pool.as_deref()),
        false => (<&[IpAddr]>::default(), None),
    };
    let requested_pool = requested_pool.filter(|pool| allocator.grace_of(pool).is_none());
    let (mut assignment, mut lost) = (Assignment::default(), Vec::new());
    let rank = |address: &&IpAddr| {
        requester.service.families.iter().position(|family| *family == Family::of(**address))
    };
    let mut addresses: Vec<&IpAddr> = present.addresses.iter().collect();
    addresses.sort_by_key(rank);
    for address in addresses {
        let missing = assignment.missing(&requester.service.families);
        let verdict = if !missing.contains(&Family::of(*address)) {
            Err(Refusal::Family)
        } else if !requested.is_empty() && !requested.contains(address) {
            Err(Refusal::NotRequested)
        } else if let Some(node) = allocator.node_with(*address).filter(|_| !present.is_own) {
            Err(Refusal::Unmanaged(node.clone()))
        } else {
            allocator.check_address(requester, *address, present.pool).and_then(|pool| {
                let pool_name = assignment.pool.as_deref().or(requested_pool).unwrap_or(&pool);
                if *pool == *pool_name { Ok(pool) } else { Err(Refusal::OtherPool(pool)) }
            })
        };
        match verdict {
            Ok(pool) => {
                allocator.assign(*address, &requester.service.key, &requester.sharing, &pool);
                assignment.pool = Some(pool);
                assignment.addresses.push(*address);
            }
            // The status lists this address a second time, and the Service has already kept it.
            Err(Refusal::Family) if assignment.addresses.contains(address) => {}
            Err(refusal) => {
                allocator.release(*address, &requester.service.key);
                lost.push((*address, refusal));
            }
        }
    }
    (assignment, lost)
}

/// Assigns the addresses that a Service lacks, and records in `shortage` why addresses are still
/// missing. The Service loses no address.
pub(super) fn assign(
    allocator: &mut Allocator,
    requester: &Requester<'_>,
    assignment: &mut Assignment,
) {
    let service = requester.service;
    let demand = &service.demand;
    let prefers_dual_stack = demand.family_policy == FamilyPolicy::Prefer;
    adopt_record(allocator, requester, assignment);
    let outcome = match (
        demand.request.problem.as_deref(),
        demand.family_policy,
        service.families.as_slice(),
    ) {
        _ if service.deleting => Ok(()),
        (Some(problem), ..) => Err(Shortage::BadRequest(problem.clone())),
        (None, FamilyPolicy::Require, [family]) => Err(Shortage::OneFamily(*family)),
        (None, ..) if !demand.request.addresses.is_empty() => {
            assign_requested(allocator, requester, assignment)
        }
        (None, ..) if assignment.addresses.is_empty() => {
            assign_new(allocator, requester, assignment, prefers_dual_stack)
        }
        (None, ..) => assign_missing_families(allocator, requester, assignment),
    };
    let rank = |address: &IpAddr| {
        service.families.iter().position(|family| *family == Family::of(*address))
    };
    assignment.addresses.sort_by_key(rank);
    assignment.shortage = outcome.err().map(Box::new);
    let lacks_preferred_family = matches!(
        assignment.shortage.as_deref(),
        Some(Shortage::Family(_) | Shortage::Exhausted(_) | Shortage::InvalidPool(_))
    );
    assignment.satisfied = assignment.shortage.is_none()
        || (prefers_dual_stack && lacks_preferred_family && !assignment.addresses.is_empty());
    let host_with = |address: &IpAddr| Some((*address, allocator.host_with(*address)?.clone()));
    assignment.hosts = assignment.addresses.iter().filter_map(host_with).collect();
    assignment.pool_grace = assignment.pool.as_deref().and_then(|pool| allocator.grace_of(pool));
    let written = || service.assigned.iter().find_map(|assigned| assigned.mode);
    // An invalid `ipMode` in the request must not change the current mode, so the mode in the
    // status remains.
    let mode_in_status =
        matches!(demand.request.problem.as_deref(), Some(AddressRequestProblem::Mode(_)))
            .then(written)
            .flatten();
    let of_pool = || allocator.mode(assignment.pool.as_deref()?);
    assignment.mode = demand
        .request
        .ip_mode
        .or(mode_in_status)
        .or_else(of_pool)
        .or_else(written)
        .unwrap_or(assignment.mode);
}

/// Replaces an address by another one of the same family, from the same pool if the Service has
/// addresses of both families. Returns whether a pool has another one.
pub(super) fn replace(
    allocator: &mut Allocator,
    requester: &Requester<'_>,
    assignment: &mut Assignment,
    address: IpAddr,
) -> bool {
    let service = requester.service;
    let Some(at) = assignment.addresses.iter().position(|it| *it == address) else { return false };
    let only = match assignment.addresses.len() {
        1 => service.demand.request.pool.as_deref(),
        _ => assignment.pool.as_deref(),
    };
    let families = [Family::of(address)];
    let Ok((pool, others)) = allocator.assign_from_pools(requester, &families, false, only) else {
        return false;
    };
    allocator.release(address, &service.key);
    assignment.addresses.splice(at..=at, others);
    assignment.pool = Some(pool);
    true
}

/// Assigns the requested addresses that the Service does not have yet.
fn assign_requested(
    allocator: &mut Allocator,
    requester: &Requester<'_>,
    assignment: &mut Assignment,
) -> Result<(), Shortage> {
    let request = &requester.service.demand.request;
    let is_assigned = |address: &&IpAddr| assignment.addresses.contains(address);
    let needed: Vec<_> =
        request.addresses.iter().filter(|address| !is_assigned(address)).copied().collect();
    let Some(first) = needed.first().copied() else { return Ok(()) };
    let pool = allocator
        .check_requested(requester, &needed)
        .map_err(|(address, refusal)| Shortage::Refused(address, refusal))?;
    let required_pool = assignment.pool.as_deref().or(request.pool.as_deref());
    if required_pool.is_some_and(|required_pool| *required_pool != *pool) {
        return Err(Shortage::Refused(first, Refusal::OtherPool(pool)));
    }
    for address in needed {
        allocator.assign(address, &requester.service.key, &requester.sharing, &pool);
        assignment.addresses.push(address);
    }
    assignment.pool = Some(pool);
    Ok(())
}

/// Assigns the addresses in the Service's record for the families that it lacks, as far as a
/// request for them would be met. A valid request excludes other addresses. Returns whether the
/// Service has got an address.
pub(super) fn adopt_record(
    allocator: &mut Allocator,
    requester: &Requester<'_>,
    assignment: &mut Assignment,
) -> bool {
    let service = requester.service;
    let request = &service.demand.request;
    let is_allowed = |address: &&IpAddr| {
        let is_free = request.problem.is_some() || request.addresses.is_empty();
        !service.deleting && (is_free || request.addresses.contains(address))
    };
    let before = assignment.addresses.len();
    let recorded = service.record.iter().flat_map(|record| &record.addresses);
    for address in recorded.filter(is_allowed) {
        if !assignment.missing(&service.families).contains(&Family::of(*address)) {
            continue;
        }
        let Ok(pool) = allocator.check_requested(requester, &[*address]) else { continue };
        let required = assignment.pool.as_deref().or(request.pool.as_deref());
        if required.is_none_or(|required| *required == *pool) {
            allocator.assign(*address, &service.key, &requester.sharing, &pool);
            assignment.addresses.push(*address);
            assignment.pool = Some(pool);
        }
    }
    assignment.addresses.len() > before
}

/// Assigns addresses to a Service that has none and requests no specific ones.
fn assign_new(
    allocator: &mut Allocator,
    requester: &Requester<'_>,
    assignment: &mut Assignment,
    prefers_dual_stack: bool,
) -> Result<(), Shortage> {
    let Requester { service, .. } = requester;
    let (pool, addresses) = allocator.assign_from_pools(
        requester,
        &service.families,
        prefers_dual_stack,
        service.demand.request.pool.as_deref(),
    )?;
    (assignment.addresses, assignment.pool) = (addresses, Some(pool));
    // Try again to assign a preferred family that is still missing, because only this attempt
    // returns the reason.
    assign_missing_families(allocator, requester, assignment)
}

/// Assigns addresses of the missing families to a Service that has an address, from the pool of
/// that address. Another pool with both families changes nothing: the Service keeps what it has.
fn assign_missing_families(
    allocator: &mut Allocator,
    requester: &Requester<'_>,
    assignment: &mut Assignment,
) -> Result<(), Shortage> {
    let Requester { service, .. } = requester;
    let missing = assignment.missing(&service.families);
    if missing.is_empty() {
        return Ok(());
    }
    let pool = assignment.pool.as_deref();
    let (_, addresses) = allocator.assign_from_pools(requester, &missing, false, pool)?;
    assignment.addresses.extend(addresses);
    Ok(())
}
