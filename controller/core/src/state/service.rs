//! Desired status of a Service. Pure functions of one Service, called by the state.
//!
//! The condition `AddressAssigned` is for users. An annotation records the addresses, and the
//! sharing parameters under which the Service received them.
//!
//! After a restart of the controller, Services whose sharing parameters still match the record are
//! the first to keep their addresses. If two Services can no longer share an address, the Service
//! with changed parameters loses it. A Service whose status has been cleared gets the recorded
//! addresses again, before any other Service can get them.

mod entry;

use std::net::IpAddr;

use ferrolb_proto::api::{ConditionMessage, ConditionStatus, IpMode};
use ferrolb_proto::facts::{Service, ServiceCondition, ServiceConditionType};

use super::alloc::UnmanagedSource;
use super::messages::Message;
use super::messages::assigned::{
    AssignedMessage, SERVED_BY_METALLB, SERVED_BY_OTHER, STATUS_CONTESTED, with_released,
};
use super::messages::reason::Reason;
use super::service_addresses::{Assignment, LostAddresses};
use super::sharing::SharingParameters;
use super::{Config, Names};
use crate::desired::{Condition, EventAction, IngressChange, Notice, ServiceStatus};
use entry::record;

pub(super) use entry::{CounterLabels, Role, ServiceEntry};

impl Config {
    /// Returns the relation of a Service to FerroLB. `in_pool` returns whether a pool contains an
    /// address.
    pub(super) fn role(&self, service: &Service, in_pool: impl Fn(IpAddr) -> bool) -> Role {
        let role = self.role_by_class(service);
        let in_pool = || service.assigned.iter().any(|assigned| in_pool(assigned.address));
        if role == Role::ServedByFerroLb && is_assigned_by_other(service) && !in_pool() {
            Role::ServedByOther
        } else {
            role
        }
    }

    /// Returns the relation of a Service to FerroLB, without regard to the owner of its addresses.
    fn role_by_class(&self, service: &Service) -> Role {
        // The fields of a Service that is no load balancer have no meaning, whoever owns them.
        let has_ferrolb_fields = service.has_own_fields
            || !service.load_balancer
                && (service.pool_annotation.is_some() || condition(service).is_some());
        if service.is_served_by_ferrolb(&self.classes, self.default_implementation) {
            Role::ServedByFerroLb
        } else if service.is_served_by_metallb(self.default_implementation) {
            Role::ServedByMetalLb
        } else if has_ferrolb_fields {
            Role::Left
        } else {
            Role::Foreign
        }
    }

    /// Returns the addresses that a Service uses without an assignment by FerroLB, ascending.
    /// `assignment` is the decision about the Service, if there is one.
    pub(super) fn unmanaged_addresses(
        &self,
        service: &Service,
        assignment: Option<&Assignment>,
    ) -> Vec<(IpAddr, UnmanagedSource)> {
        let external = service
            .demand
            .external_ips
            .iter()
            .map(|address| (*address, UnmanagedSource::ExternalIps));
        let cluster =
            service.demand.cluster_ips.iter().map(|address| (*address, UnmanagedSource::ClusterIp));
        let is_lost = |address: &IpAddr| {
            assignment.is_some_and(|assignment| !assignment.addresses.contains(address))
        };
        // Another owner of the addresses does not matter here: pools contain none of them.
        let source = |address: &IpAddr| match self.role_by_class(service) {
            Role::ServedByFerroLb => is_lost(address).then_some(UnmanagedSource::StillInStatus),
            Role::Left => Some(UnmanagedSource::StillInStatus),
            Role::ServedByMetalLb | Role::ServedByOther | Role::Foreign => {
                service.load_balancer.then_some(UnmanagedSource::OtherLoadBalancer)
            }
        };
        let in_status = service.assigned.iter().map(|assigned| assigned.address);
        let in_status = in_status.filter_map(|address| Some((address, source(&address)?)));
        let mut all: Vec<_> = external.chain(cluster).chain(in_status).collect();
        all.sort_unstable();
        all
    }
}

/// Returns true if a Service without a class has an address that another client has written, and no
/// trace of FerroLB: with the addresses, FerroLB writes the annotation that names the pool.
fn is_assigned_by_other(service: &Service) -> bool {
    service.class.is_none()
        && !service.adopt
        && service.pool_annotation.is_none()
        && service.ingress_manager.is_some()
        && (service.has_foreign_ingress || !service.assigned.is_empty())
}

fn condition(service: &Service) -> Option<&ServiceCondition> {
    service.condition(ServiceConditionType::AddressAssigned)
}

/// Returns whether FerroLB has decided about the Service's addresses before.
pub(super) fn has_condition(service: &Service) -> bool {
    condition(service).is_some()
}

/// Returns whether another client has cleared the status of a Service: it has no address, but the
/// condition, which only the controller writes, is still true.
pub(super) fn is_cleared(service: &Service) -> bool {
    let is_true = |condition: &ServiceCondition| condition.status == ConditionStatus::True;
    service.assigned.is_empty() && condition(service).is_some_and(is_true)
}

/// Returns true if the Service's sharing parameters still equal those under which it received its
/// addresses, as its record states.
pub(super) fn has_recorded_sharing(service: &Service, sharing: &SharingParameters) -> bool {
    service.record.as_ref().is_some_and(|record| record.sharing == sharing.digest())
}

/// Returns the status that a Service should have, or `None` if there is nothing to write. While a
/// write with a lost address may be on its way, a further write must show that none is.
pub(super) fn status(entry: &ServiceEntry, names: &Names) -> Option<ServiceStatus> {
    let service = &entry.service;
    match (entry.role, &entry.assignment) {
        _ if service.deleting => None,
        (Role::ServedByFerroLb, Some(assignment)) => assigned_status(entry, assignment, names),
        (Role::ServedByMetalLb, _) => {
            let annotation = service.metallb_annotation?;
            let message = AssignedMessage::MetalLb { annotation };
            foreign_status(entry, &message, IngressChange::KeepForMetalLb)
        }
        (Role::ServedByOther, _) => {
            let manager = service.ingress_manager.as_deref()?;
            let message = AssignedMessage::Other { service, manager };
            foreign_status(entry, &message, IngressChange::Release)
        }
        (Role::Left, _) => Some(empty_status(service)),
        (Role::Foreign, _) => entry.has_outdated_addresses().then(|| empty_status(service)),
        (Role::ServedByFerroLb, None) => None,
    }
}

/// Returns the status of a Service that FerroLB does not serve.
fn empty_status(service: &Service) -> ServiceStatus {
    ServiceStatus {
        uid: service.uid.clone(),
        ingress: IngressChange::Release,
        seen: Vec::new(),
        addresses: Vec::new(),
        mode: IpMode::Vip,
        pool: None,
        // The user may change the type back.
        record: service.record.clone().filter(|_| !service.load_balancer),
        condition: None,
        announced: None,
        notices: Vec::new(),
    }
}

/// Returns the status of a Service that another load balancer serves: a condition that names the
/// load balancer.
///
/// This status removes FerroLB's earlier annotations and the condition `Announced`, but leaves the
/// other load balancer's addresses as they are.
fn foreign_status(
    entry: &ServiceEntry,
    message: &AssignedMessage<'_>,
    ingress: IngressChange,
) -> Option<ServiceStatus> {
    let service = &entry.service;
    let desired = condition_for(message);
    let current = condition(service);
    let condition_matches = current.is_some_and(|current| matches(current, &desired));
    if condition_matches
        && !entry.has_outdated_addresses()
        && service.pool_annotation.is_none()
        && service.condition(ServiceConditionType::Announced).is_none()
    {
        return None;
    }
    let notices =
        (!condition_matches).then(|| notice(&desired, &LostAddresses::new())).into_iter().collect();
    let condition = Some(with_transition_time(current, desired));
    Some(ServiceStatus { ingress, condition, notices, ..empty_status(service) })
}

/// Returns true if a condition has the desired status, reason, and message.
pub(super) fn matches(current: &ServiceCondition, desired: &Condition) -> bool {
    current.status == desired.status
        && *current.reason == *desired.reason
        && current.message == desired.message
}

/// Returns the desired condition. If it has the same status as the present condition, it gets the
/// transition time of that condition.
pub(super) fn with_transition_time(
    current: Option<&ServiceCondition>,
    desired: Condition,
) -> Condition {
    let since = current
        .filter(|current| current.status == desired.status)
        .and_then(|current| current.since);
    Condition { since, ..desired }
}

fn assigned_status(
    entry: &ServiceEntry,
    assignment: &Assignment,
    names: &Names,
) -> Option<ServiceStatus> {
    let service = &entry.service;
    let contest = entry.active_contest();
    let desired = condition_for(&AssignedMessage::Decided { service, assignment, contest, names });
    let current = condition(service);
    let condition_matches = current.is_some_and(|current| matches(current, &desired));
    let mode = Some(assignment.mode);
    let addresses_match = service
        .assigned
        .iter()
        .map(|assigned| assigned.address)
        .eq(assignment.addresses.iter().copied());
    let ingress_matches = addresses_match
        && !service.has_foreign_ingress
        && service.assigned.iter().all(|current| current.mode == mode);
    let pool_matches = service.pool_annotation == assignment.pool;
    // The speakers still announce addresses that another client has removed from the status.
    let is_cleared = service.assigned.is_empty() && pool_matches;
    let (announced, announced_matches) =
        announced(entry, (addresses_match || is_cleared) && !assignment.addresses.is_empty());
    let record_matches = !entry.is_record_due || entry.has_record();
    if condition_matches
        && ingress_matches
        && pool_matches
        && announced_matches
        && record_matches
        && !entry.has_outdated_addresses()
    {
        return None;
    }
    // A condition that remains True causes an Event only if the addresses or their pool changed. If
    // another client has emptied the status, restoring the addresses causes no Event.
    let unchanged_addresses = pool_matches && (addresses_match || service.assigned.is_empty());
    let same = |current: &ServiceCondition| {
        current.status == ConditionStatus::True
            && desired.status == ConditionStatus::True
            && *current.reason == *desired.reason
            && unchanged_addresses
    };
    let needs_event = !condition_matches && !current.is_some_and(same);
    let mut notices: Vec<_> =
        needs_event.then(|| notice(&desired, &entry.lost)).into_iter().collect();
    notices.extend(announced.as_ref().and_then(|desired| announced_notice(service, desired)));
    Some(ServiceStatus {
        uid: service.uid.clone(),
        ingress: IngressChange::Assign,
        seen: service.assigned.iter().map(|assigned| assigned.address).collect(),
        addresses: assignment.addresses.clone(),
        mode: assignment.mode,
        pool: assignment.pool.clone(),
        record: record(service, assignment),
        condition: Some(with_transition_time(current, desired)),
        announced,
        notices,
    })
}

/// Returns the desired `Announced` condition, and whether the Service has it.
///
/// `addresses_match` is true if the status has the assigned addresses, or if another client has
/// cleared it. Otherwise the Service should have no condition `Announced`.
fn announced(entry: &ServiceEntry, addresses_match: bool) -> (Option<Condition>, bool) {
    let current = entry.service.condition(ServiceConditionType::Announced);
    match (&entry.announced, addresses_match) {
        (Some(desired), true) => {
            (Some((**desired).clone()), current.is_some_and(|current| matches(current, desired)))
        }
        (None, true) => (current.map(unchanged), true),
        (_, false) => (None, current.is_none()),
    }
}

fn unchanged(current: &ServiceCondition) -> Condition {
    let reason = current.reason.to_string().into();
    Condition {
        status: current.status,
        reason,
        message: current.message.clone(),
        since: current.since,
    }
}

/// Returns an Event if the condition becomes True, becomes False for a new reason, or if the
/// speakers do not run. A change of the owner alone causes no Event.
fn announced_notice(service: &Service, desired: &Condition) -> Option<Notice> {
    let current = service.condition(ServiceConditionType::Announced);
    let needs_event = current.is_none_or(|current| {
        current.status != desired.status || *current.reason != *desired.reason
    });
    let with_warning = |warning| Notice {
        warning,
        action: EventAction::Announce,
        reason: desired.reason.clone(),
        message: (*desired.message).into(),
    };
    let is_reported = desired.status != ConditionStatus::Unknown
        || *desired.reason == *Reason::SpeakersNotRunning.name();
    (needs_event && is_reported).then(|| with_warning(desired.status != ConditionStatus::True))
}

fn condition_for(message: &AssignedMessage<'_>) -> Condition {
    let (status, reason) = (message.status(), message.reason().into());
    Condition { status, reason, message: ConditionMessage::new(message), since: None }
}

/// Returns the reason of the condition `AddressAssigned` that a Service should have; `None` if it
/// should have none.
pub(super) fn decided_reason(entry: &ServiceEntry) -> Option<&'static str> {
    match entry.role {
        Role::ServedByFerroLb => reason(entry),
        Role::ServedByMetalLb => Some(SERVED_BY_METALLB),
        Role::ServedByOther => Some(SERVED_BY_OTHER),
        Role::Left | Role::Foreign => None,
    }
}

/// Returns the message of the condition `AddressAssigned` that a Service should have; `None` if it
/// should have none.
pub(super) fn assigned_text(entry: &ServiceEntry, names: &Names) -> Option<String> {
    let (service, contest) = (&entry.service, entry.active_contest());
    let message = match (entry.role, &entry.assignment) {
        (Role::ServedByFerroLb, Some(assignment)) => {
            AssignedMessage::Decided { service, assignment, contest, names }
        }
        (Role::ServedByMetalLb, _) => {
            AssignedMessage::MetalLb { annotation: service.metallb_annotation? }
        }
        (Role::ServedByOther, _) => {
            AssignedMessage::Other { service, manager: service.ingress_manager.as_deref()? }
        }
        (Role::ServedByFerroLb, None) | (Role::Left | Role::Foreign, _) => return None,
    };
    Some(message.to_string())
}

/// Returns the reason of a Service's `AddressAssigned` condition, or `None` if the Service has no
/// address and needs none.
pub(super) fn reason(entry: &ServiceEntry) -> Option<&'static str> {
    let assignment = entry.assignment.as_ref()?;
    let is_reported = !assignment.satisfied || !assignment.addresses.is_empty();
    is_reported.then(|| assignment.reason(entry.active_contest()))
}

fn notice(condition: &Condition, lost: &LostAddresses) -> Notice {
    let warning = condition.status != ConditionStatus::True
        || condition.reason == STATUS_CONTESTED
        || !lost.is_empty();
    Notice {
        warning,
        action: EventAction::AssignAddress,
        reason: condition.reason.clone(),
        message: with_released(&condition.message, lost).into(),
    }
}
