//! What a Service's status should say. Pure functions of one Service; the state asks them.
//!
//! The condition is written for a person, and it is the record of the terms on which an address is shared: after a restart,
//! the Services whose conditions say what is still true keep their addresses first, and one whose terms have changed
//! meanwhile is the one to go.

use std::net::IpAddr;

use ferrolb_proto::api::{IpMode, Truth};
use ferrolb_proto::facts::{ConditionFact, ConditionKind, Service};

use super::Config;
use super::agenda::Draft;
use super::alloc::Means;
use super::announced::{Motion, Reason};
use super::hold::{Claim, Lost};
use super::reasons::{ASSIGNED, SERVED_BY_METALLB, given_up, served_by_metallb, shortage_text};
use super::sharing::Terms;
use crate::desired::{Action, Condition, Notice, ServiceStatus};

/// What a Service is to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// It gets addresses.
    Ours,
    /// It would get addresses, if MetalLB did not say that it has it.
    Contested,
    /// It no longer is a LoadBalancer, and still carries what we wrote.
    Former,
    /// Somebody else's, or nobody's.
    Foreign,
}

/// A Service, and what we make of it.
#[derive(Debug, Default)]
pub(super) struct Entry {
    pub(super) service: Service,
    /// None: not decided, or not ours.
    pub(super) claim: Option<Claim>,
    /// What it had and may not keep, until that was told.
    pub(super) lost: Lost,
    pub(super) draft: Draft<ServiceStatus>,
    /// Its condition `Announced` as it should be, where it was decided and is not seen yet.
    pub(super) announced: Option<Box<Condition>>,
    /// Whether, and since when, it is looked at again: see [`super::announced`].
    pub(super) motion: Option<Box<Motion>>,
    /// What it is counted under.
    pub(super) counted: Counted,
    /// When it got an address after having had none, until that was written.
    pub(super) given_at: Option<ferrolb_proto::Instant>,
}

/// What a Service of ours is counted under.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Counted {
    /// The reason of its condition `AddressAssigned`; [`NOT_WRITTEN`](crate::desired::NOT_WRITTEN)
    /// while it has no such one.
    pub(super) reason: Option<&'static str>,
    /// That of its condition `Announced`.
    pub(super) announced: Option<Reason>,
    /// The pool that it has addresses of.
    pub(super) pool: Option<Box<str>>,
}

impl Entry {
    /// What it has now: as decided here, or else as its status says.
    pub(super) fn present(&self) -> Vec<IpAddr> {
        match &self.claim {
            Some(claim) if !claim.addresses.is_empty() => claim.addresses.clone(),
            Some(_) | None => self.service.assigned.iter().map(|assigned| assigned.address).collect(),
        }
    }

    /// The pool that it came from, as decided here or else as its annotation says.
    pub(super) fn from(&self) -> Option<Box<str>> {
        self.claim.as_ref().and_then(|claim| claim.pool.clone()).or_else(|| self.service.from_pool.clone())
    }
}

impl Config {
    /// What a Service is to us.
    pub(super) fn role(&self, service: &Service) -> Role {
        let marked = service.from_pool.is_some() || condition(service).is_some();
        if service.is_ours(&self.classes, self.default_implementation) {
            Role::Ours
        } else if service.is_contested(self.default_implementation) {
            Role::Contested
        } else if !service.load_balancer && marked {
            Role::Former
        } else {
            Role::Foreign
        }
    }

    /// The addresses that a Service has from elsewhere, ascending.
    pub(super) fn outside(&self, service: &Service) -> Vec<(IpAddr, Means)> {
        let external = service.demand.external_ips.iter().map(|address| (*address, Means::ExternalIps));
        let cluster = service.demand.cluster_ips.iter().map(|address| (*address, Means::ClusterIp));
        let foreign = service.load_balancer && self.role(service) != Role::Ours;
        let given = service.assigned.iter().filter(|_| foreign).map(|assigned| (assigned.address, Means::Balancer));
        let mut all: Vec<_> = external.chain(given).chain(cluster).collect();
        all.sort_unstable();
        all
    }
}

fn condition(service: &Service) -> Option<&ConditionFact> {
    service.condition(ConditionKind::AddressAssigned)
}

/// Whether the terms on which it has its addresses are those that its condition records.
pub(super) fn is_settled(service: &Service, terms: &Terms) -> bool {
    condition(service).is_some_and(|is| {
        let recorded = is.message.split(SEPARATOR).find(|part| part.starts_with(Terms::PREFIX));
        recorded.unwrap_or_default() == terms.to_string()
    })
}

/// Between the parts of a condition's message.
pub(super) const SEPARATOR: &str = "; ";

/// The status that a Service should have; none when it has it.
pub(super) fn status(entry: &Entry, role: Role) -> Option<ServiceStatus> {
    let service = &entry.service;
    match (role, &entry.claim) {
        _ if service.deleting => None,
        (Role::Ours, Some(claim)) => claimed(entry, claim),
        (Role::Contested, _) => contested(service),
        (Role::Former, _) => Some(ServiceStatus {
            uid: service.uid.clone(),
            theirs: false,
            addresses: Vec::new(),
            mode: IpMode::Vip,
            pool: None,
            condition: None,
            announced: None,
            notices: Vec::new(),
        }),
        (Role::Ours, None) | (Role::Foreign, _) => None,
    }
}

/// Nothing but a condition that says whose it is. What we wrote before we knew goes, but for addresses.
fn contested(service: &Service) -> Option<ServiceStatus> {
    let message = served_by_metallb(service.metallb?).into();
    let wanted = Condition { status: Truth::False, reason: SERVED_BY_METALLB.into(), message, since: None };
    let is = condition(service);
    let told = is.is_some_and(|is| says(is, &wanted));
    if told && service.from_pool.is_none() && service.condition(ConditionKind::Announced).is_none() {
        return None;
    }
    let notices = (!told).then(|| notice(&wanted, &Lost::new())).into_iter().collect();
    Some(ServiceStatus {
        uid: service.uid.clone(),
        theirs: true,
        addresses: Vec::new(),
        mode: IpMode::Vip,
        pool: None,
        condition: Some(in_place_of(is, wanted)),
        announced: None,
        notices,
    })
}

/// Whether a condition says the same.
pub(super) fn says(is: &ConditionFact, wanted: &Condition) -> bool {
    is.status == wanted.status && *is.reason == *wanted.reason && is.message == wanted.message
}

/// A condition as it should be, that keeps its time as long as its status stays.
pub(super) fn in_place_of(is: Option<&ConditionFact>, wanted: Condition) -> Condition {
    let since = is.filter(|is| is.status == wanted.status).and_then(|is| is.since);
    Condition { since, ..wanted }
}

fn claimed(entry: &Entry, claim: &Claim) -> Option<ServiceStatus> {
    let service = &entry.service;
    let wanted = wanted(service, claim);
    let is = condition(service);
    let told = is.is_some_and(|is| says(is, &wanted));
    let mode = Some(claim.mode);
    let placed = service.assigned.iter().map(|assigned| assigned.address).eq(claim.addresses.iter().copied());
    let addressed = placed && !service.foreign_ingress && service.assigned.iter().all(|is| is.mode == mode);
    let (announced, announced_told) = announced(entry, placed && !claim.addresses.is_empty());
    if told && addressed && service.from_pool == claim.pool && announced_told {
        return None;
    }
    // What follows the first part of a sound condition is for who looks, and no news.
    let first = |message: &str| message.split(SEPARATOR).next().unwrap_or_default().to_owned();
    let same = |is: &ConditionFact| {
        is.status == Truth::True
            && wanted.status == Truth::True
            && *is.reason == *wanted.reason
            && first(&is.message) == first(&wanted.message)
    };
    let news = !told && !is.is_some_and(same);
    let mut notices: Vec<_> = news.then(|| notice(&wanted, &entry.lost)).into_iter().collect();
    notices.extend(announced.as_ref().and_then(|wanted| announced_notice(service, wanted)));
    Some(ServiceStatus {
        uid: service.uid.clone(),
        theirs: false,
        addresses: claim.addresses.clone(),
        mode: claim.mode,
        pool: claim.pool.clone(),
        condition: Some(in_place_of(is, wanted)),
        announced,
        notices,
    })
}

/// The condition `Announced` that goes with a status, and whether it is there. It is about the addresses that are `placed` in
/// the status now: without them there is none.
fn announced(entry: &Entry, placed: bool) -> (Option<Condition>, bool) {
    let is = entry.service.condition(ConditionKind::Announced);
    match (&entry.announced, placed) {
        (Some(wanted), true) => (Some((**wanted).clone()), is.is_some_and(|is| says(is, wanted))),
        (None, true) => (is.map(kept), true),
        (_, false) => (None, is.is_none()),
    }
}

fn kept(is: &ConditionFact) -> Condition {
    let reason = is.reason.to_string().into();
    Condition { status: is.status, reason, message: is.message.clone(), since: is.since }
}

/// The first owner is news, and what a person has to do something about; that another node has it now is not.
fn announced_notice(service: &Service, wanted: &Condition) -> Option<Notice> {
    let is = service.condition(ConditionKind::Announced);
    let news = is.is_none_or(|is| is.status != wanted.status || *is.reason != *wanted.reason);
    let of = |warning| Notice {
        warning,
        action: Action::Announce,
        reason: wanted.reason.clone(),
        message: wanted.message.clone(),
    };
    match wanted.status {
        Truth::True | Truth::False if news => Some(of(wanted.status == Truth::False)),
        Truth::True | Truth::False | Truth::Unknown => None,
    }
}

/// The condition that fits a claim. It says nothing of the past, so that a restart writes nothing.
fn wanted(service: &Service, claim: &Claim) -> Condition {
    let from = claim.pool.as_deref().unwrap_or_default();
    let has = format!("{} from pool {from}", join(&claim.addresses));
    let mut parts = Vec::new();
    let (mut reason, short) = (ASSIGNED, claim.short.as_ref().map(|short| shortage_text(short, claim)));
    match (short, claim.content) {
        (None, _) => parts.push(has),
        (Some((_, why)), true) => parts.extend([has, format!("ipFamilyPolicy PreferDualStack: {why}")]),
        (Some((short, why)), false) => {
            reason = short;
            parts.push(why);
            if !claim.addresses.is_empty() {
                parts.push(format!("keeps {has}"));
            }
        }
    }
    if !claim.addresses.is_empty() {
        parts.extend(Some(Terms::of(service).to_string()).filter(|terms| !terms.is_empty()));
        parts.extend(proxy(service, claim));
    }
    let message = parts.join(SEPARATOR).into();
    Condition { status: claim.content.into(), reason: reason.into(), message, since: None }
}

/// What `ipMode: Proxy` means for whoever expects to reach the address.
fn proxy(service: &Service, claim: &Claim) -> Option<String> {
    let announced = if service.demand.request.announce {
        "it is announced all the same, as the Service asks"
    } else {
        "it is not announced"
    };
    (claim.mode == IpMode::Proxy)
        .then(|| format!("ipMode Proxy: kube-proxy takes no traffic for it on any node, so {announced}"))
}

/// The reason of a Service's condition; none while it has nothing and is to get nothing.
pub(super) fn reason(claim: &Claim) -> Option<&'static str> {
    match claim.short.as_deref() {
        Some(shortage) if !claim.content => Some(shortage_text(shortage, claim).0),
        Some(_) | None => (!claim.addresses.is_empty()).then_some(ASSIGNED),
    }
}

fn notice(condition: &Condition, lost: &Lost) -> Notice {
    let mut message = condition.message.to_string();
    for (address, refusal) in lost {
        message.push_str(&format!("{SEPARATOR}{address} was given up: {}", given_up(refusal)));
    }
    let warning = condition.status != Truth::True || !lost.is_empty();
    Notice { warning, action: Action::AssignAddress, reason: condition.reason.clone(), message: message.into() }
}

pub(super) fn join<T: ToString>(things: &[T]) -> String {
    things.iter().map(ToString::to_string).collect::<Vec<_>>().join(" and ")
}
