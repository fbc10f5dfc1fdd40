//! Every reason of the condition `ferrolb.io/AddressAssigned`, with the words for it. Pure; `docs/reasons.md` explains each.

use super::alloc::Refusal;
use super::choose::{Closed, Shortage};
use super::hold::Claim;
use super::service::join;
use super::sharing::Clash;

/// Names of pools that a message lists.
const POOLS_NAMED_MAX: usize = 5;

/// The Service has what it needs.
pub(super) const ASSIGNED: &str = "Assigned";
const BAD_ANNOTATION: &str = "BadAnnotation";
const FAMILY_MISSING: &str = "FamilyMissing";
const NO_POOL_MATCHES: &str = "NoPoolMatches";
const POOL_EXHAUSTED: &str = "PoolExhausted";
const REQUESTED_IN_USE: &str = "RequestedAddressInUse";
const REQUESTED_OUTSIDE: &str = "RequestedAddressOutsidePools";
const SHARING_CONFLICT: &str = "SharingConflict";
/// Another load balancer has the Service.
pub(super) const SERVED_BY_METALLB: &str = "ServedByMetalLB";

/// What to do about a key that only one of two Services has.
const BOTH_NAME_A_KEY: &str = "to share it, give both the same annotation ferrolb.io/allow-shared-ip";

/// The reason for a shortage, and what a person can do about it.
pub(super) fn shortage_text(shortage: &Shortage, claim: &Claim) -> (&'static str, String) {
    match shortage {
        Shortage::BadRequest(problem) => (BAD_ANNOTATION, problem.to_string()),
        Shortage::OneFamily(family) => (
            FAMILY_MISSING,
            format!(
                "ipFamilyPolicy is RequireDualStack, and the Service has a cluster IP of {family} only: make the cluster \
                 dual-stack, or set spec.ipFamilyPolicy to SingleStack"
            ),
        ),
        Shortage::Refused(address, refusal) => refused(&address.to_string(), refusal),
        Shortage::UnknownPool(pool) => (
            NO_POOL_MATCHES,
            format!(
                "there is no IPAddressPool {pool}, which the Service asks for: create it, or remove the annotation"
            ),
        ),
        Shortage::InvalidPool(pool) => (
            NO_POOL_MATCHES,
            format!("IPAddressPool {pool}, which it has to be from, is not valid: its own condition says why"),
        ),
        Shortage::ClosedPool(pool) => (
            NO_POOL_MATCHES,
            format!(
                "IPAddressPool {pool}, which the Service asks for, is for other namespaces or Services (spec.serviceAllocation)"
            ),
        ),
        Shortage::NoPool(closed) => (NO_POOL_MATCHES, no_pool(closed)),
        Shortage::Family(families) => {
            let where_to = if claim.addresses.is_empty() { "no single pool has" } else { "that pool has no" };
            let remedy = "add what is missing to that one pool, or set spec.ipFamilyPolicy to SingleStack";
            (FAMILY_MISSING, format!("{where_to} {} addresses: {remedy}", join(families)))
        }
        Shortage::Exhausted(pools) => {
            let named: Vec<_> = pools.iter().take(POOLS_NAMED_MAX).map(AsRef::as_ref).collect();
            let more = if pools.len() > POOLS_NAMED_MAX { " and others" } else { "" };
            let named = named.join(", ");
            (
                POOL_EXHAUSTED,
                format!("no address is free in pool {named}{more}: add addresses, or delete a Service that has one"),
            )
        }
    }
}

fn no_pool(closed: &Closed) -> String {
    let Closed { invalid, manual, others } = *closed;
    let causes = [
        (invalid, "some are not valid (their own conditions say why)"),
        (manual, "some give on request only (spec.autoAssign is false)"),
        (others, "some are for other namespaces or Services (spec.serviceAllocation)"),
    ];
    let causes: Vec<_> = causes.into_iter().filter(|(there, _)| *there).map(|(_, cause)| cause).collect();
    if causes.is_empty() {
        return "there is no IPAddressPool: create one".to_owned();
    }
    format!(
        "no IPAddressPool gives to this Service by itself: {}; create one, or ask for one with annotation ferrolb.io/address-pool",
        causes.join(", ")
    )
}

fn refused(address: &str, refusal: &Refusal) -> (&'static str, String) {
    let (reason, why) = match refusal {
        Refusal::NoPool => (
            REQUESTED_OUTSIDE,
            "is in no valid IPAddressPool, or a pool leaves it out (excludeAddresses, avoidBuggyIPs)".to_owned(),
        ),
        Refusal::OtherPool(pool) => (
            REQUESTED_OUTSIDE,
            format!("is in pool {pool}, and all of a Service's addresses are from one pool, the one that it asks for"),
        ),
        Refusal::Closed(pool) => (
            NO_POOL_MATCHES,
            format!("is in pool {pool}, which is for other namespaces or Services (spec.serviceAllocation)"),
        ),
        Refusal::Node => (REQUESTED_IN_USE, "is an address of a Node".to_owned()),
        Refusal::Outside(owner) => (REQUESTED_IN_USE, format!("is {owner}")),
        Refusal::Held(key, Clash::NoKey) => (REQUESTED_IN_USE, format!("belongs to Service {key}: {BOTH_NAME_A_KEY}")),
        Refusal::Held(key, clash) => {
            (SHARING_CONFLICT, format!("cannot be shared with Service {key}: {}", clash_text(clash)))
        }
        Refusal::NotAsked | Refusal::Family => (BAD_ANNOTATION, "is not of the families of the Service".to_owned()),
    };
    (reason, format!("{address}, which the Service asks for, {why}"))
}

fn clash_text(clash: &Clash) -> String {
    match clash {
        Clash::NoKey => BOTH_NAME_A_KEY.to_owned(),
        Clash::Key => "their annotations allow-shared-ip differ".to_owned(),
        Clash::Port(port) => format!("both have port {port}"),
        Clash::Local => {
            "with externalTrafficPolicy Local on one of them, both must be Local and have equal selectors".to_owned()
        }
    }
}

/// Why a Service is left alone that MetalLB has, as this annotation says.
pub(super) fn served_by_metallb(annotation: &str) -> String {
    format!(
        "MetalLB serves it, as annotation {annotation} says, so FerroLB leaves it and its addresses alone: if MetalLB is gone, \
         remove the annotation; as long as both run, give each Service of FerroLB a spec.loadBalancerClass that is FerroLB's"
    )
}

/// Why a Service could not keep an address.
pub(super) fn given_up(refusal: &Refusal) -> String {
    match refusal {
        Refusal::NoPool => "no pool has it any more".to_owned(),
        Refusal::Closed(pool) => format!("pool {pool} is for other namespaces or Services now"),
        Refusal::OtherPool(pool) => {
            format!("it is from pool {pool}, and the Service needs its addresses from another one")
        }
        Refusal::Node => "a Node has it".to_owned(),
        Refusal::Outside(owner) => format!("it is {owner}"),
        Refusal::Held(key, Clash::NoKey) => format!("Service {key} has it"),
        Refusal::Held(key, clash) => format!("it cannot be shared with Service {key}: {}", clash_text(clash)),
        Refusal::NotAsked => "the Service asks for another one".to_owned(),
        Refusal::Family => "the Service has no cluster IP of its family, or another address of that family".to_owned(),
    }
}
