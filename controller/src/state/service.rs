//! What a Service has, and what its status should say. Pure functions of one Service; the state asks them.

use std::net::IpAddr;

use ferrolb_proto::api::CONDITION_ADDRESS_ASSIGNED;
use ferrolb_proto::facts::{ConditionFact, Service};
use ferrolb_proto::range::Family;

use super::agenda::Draft;
use super::alloc::{Loss, Shortage};
use crate::desired::{Condition, Notice, ServiceStatus};

/// Names of pools that a message lists.
const POOLS_NAMED_MAX: usize = 5;

/// The reason of a Service that has all that it needs.
const ASSIGNED: &str = "Assigned";

/// What a Service is to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// It gets addresses.
    Ours,
    /// It no longer is a LoadBalancer, and still carries what we wrote.
    Former,
    /// Somebody else's, or nobody's.
    Foreign,
}

/// What a Service was given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Claim {
    /// In the order of the Service's families.
    pub(super) addresses: Vec<IpAddr>,
    /// The pool of the first one.
    pub(super) pool: Option<Box<str>>,
    /// Why it has not all that it needs.
    pub(super) short: Option<Shortage>,
}

/// A Service and what was decided about it.
#[derive(Debug, Default)]
pub(super) struct Entry {
    pub(super) service: Service,
    /// None: not decided, or not ours.
    pub(super) claim: Option<Claim>,
    /// What it had and may not keep, until that was told.
    pub(super) lost: Vec<(IpAddr, Loss)>,
    pub(super) draft: Draft<ServiceStatus>,
    /// The reason that it is counted under.
    pub(super) counted: Option<&'static str>,
}

impl Entry {
    /// What it has now: as decided here, or else as its status says.
    pub(super) fn present(&self) -> Vec<IpAddr> {
        match &self.claim {
            Some(claim) if !claim.addresses.is_empty() => claim.addresses.clone(),
            Some(_) | None => self.service.assigned.iter().map(|assigned| assigned.address).collect(),
        }
    }

    /// The families that it has no address of.
    pub(super) fn missing(&self) -> Vec<Family> {
        let has = |family: &Family| {
            self.claim.iter().flat_map(|claim| &claim.addresses).any(|address| Family::of(*address) == *family)
        };
        self.service.families.iter().copied().filter(|family| !has(family)).collect()
    }
}

/// What a Service is to us, given our classes.
pub(super) fn role(service: &Service, classes: &[String], default_implementation: bool) -> Role {
    let marked = service.from_pool.is_some() || condition(service).is_some();
    if service.is_ours(classes, default_implementation) {
        Role::Ours
    } else if !service.load_balancer && marked {
        Role::Former
    } else {
        Role::Foreign
    }
}

fn condition(service: &Service) -> Option<&ConditionFact> {
    service.conditions.iter().find(|condition| *condition.kind == *CONDITION_ADDRESS_ASSIGNED)
}

/// The status that a Service should have; none when it has it.
pub(super) fn status(entry: &Entry, role: Role) -> Option<ServiceStatus> {
    let service = &entry.service;
    match (role, &entry.claim) {
        _ if service.deleting => None,
        (Role::Ours, Some(claim)) => claimed(service, claim, &entry.lost),
        (Role::Former, _) => Some(ServiceStatus {
            uid: service.uid.clone(),
            addresses: Vec::new(),
            pool: None,
            condition: None,
            notice: None,
        }),
        (Role::Ours, None) | (Role::Foreign, _) => None,
    }
}

fn claimed(service: &Service, claim: &Claim, lost: &[(IpAddr, Loss)]) -> Option<ServiceStatus> {
    let wanted = wanted(claim);
    let is = condition(service);
    let told = is
        .is_some_and(|is| is.is_true == wanted.is_true && *is.reason == *wanted.reason && is.message == wanted.message);
    let addressed = !service.foreign_ingress
        && service.assigned.len() == claim.addresses.len()
        && service.assigned.iter().zip(&claim.addresses).all(|(is, wanted)| is.vip && is.address == *wanted);
    if told && addressed && service.from_pool == claim.pool {
        return None;
    }
    let since = is.filter(|is| is.is_true == wanted.is_true).map(|is| is.since.clone());
    Some(ServiceStatus {
        uid: service.uid.clone(),
        addresses: claim.addresses.clone(),
        pool: claim.pool.clone(),
        notice: (!told).then(|| notice(&wanted, lost)),
        condition: Some(Condition { since, ..wanted }),
    })
}

/// The condition that fits a claim. It says nothing of the past, so that a restart writes nothing.
fn wanted(claim: &Claim) -> Condition {
    let has = join(&claim.addresses);
    let from = claim.pool.as_deref().unwrap_or_default();
    let (reason, message) = match &claim.short {
        None => (ASSIGNED, format!("{has} from pool {from}")),
        Some(shortage) => {
            let (reason, why) = shortage_text(shortage, &claim.addresses);
            let kept =
                if claim.addresses.is_empty() { String::new() } else { format!("keeps {has} from pool {from}; ") };
            (reason, format!("{kept}{why}"))
        }
    };
    Condition { is_true: claim.short.is_none(), reason, message: message.into(), since: None }
}

/// The reason of a Service's condition; none while it has nothing and is to get nothing.
pub(super) fn reason(claim: &Claim) -> Option<&'static str> {
    match &claim.short {
        Some(shortage) => Some(shortage_text(shortage, &[]).0),
        None => (!claim.addresses.is_empty()).then_some(ASSIGNED),
    }
}

fn shortage_text(shortage: &Shortage, has: &[IpAddr]) -> (&'static str, String) {
    match shortage {
        Shortage::NoPool => (
            "NoPoolMatches",
            "there is no IPAddressPool that is valid and gives addresses by itself (spec.autoAssign): create one"
                .to_owned(),
        ),
        Shortage::Family(families) => {
            let where_to = if has.is_empty() { "no single pool has" } else { "that pool has no" };
            let remedy = "add what is missing to that one pool, or set spec.ipFamilyPolicy to SingleStack";
            ("FamilyMissing", format!("{where_to} {} addresses: {remedy}", join(families)))
        }
        Shortage::Exhausted(pools) => {
            let named: Vec<_> = pools.iter().take(POOLS_NAMED_MAX).map(AsRef::as_ref).collect();
            let more = if pools.len() > POOLS_NAMED_MAX { " and others" } else { "" };
            let named = named.join(", ");
            (
                "PoolExhausted",
                format!("no address is free in pool {named}{more}: add addresses, or delete a Service that has one"),
            )
        }
    }
}

fn notice(condition: &Condition, lost: &[(IpAddr, Loss)]) -> Notice {
    let mut message = condition.message.to_string();
    for (address, loss) in lost {
        let why = match loss {
            Loss::NoPool => "no pool has it any more".to_owned(),
            Loss::Node => "a Node has it".to_owned(),
            Loss::Taken(owner) => format!("Service {owner} has it"),
        };
        message.push_str(&format!("; {address} was given up: {why}"));
    }
    Notice { warning: !condition.is_true || !lost.is_empty(), reason: condition.reason, message: message.into() }
}

fn join<T: ToString>(things: &[T]) -> String {
    things.iter().map(ToString::to_string).collect::<Vec<_>>().join(" and ")
}
