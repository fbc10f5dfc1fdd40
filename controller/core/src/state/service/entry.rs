//! A Service and the decisions about it. Plain values; the state owns one for each Service.

use std::net::IpAddr;

use ferrolb_proto::Instant;
use ferrolb_proto::facts::{AddressRecord, Service, ServiceConditionType};

use crate::desired::Condition;
use crate::state::conflicts::unannounced::UnannouncedAddresses;
use crate::state::contest::changes::Contest;
use crate::state::messages::reason::Reason;
use crate::state::service_addresses::{Assignment, LostAddresses};
use crate::state::sharing::SharingParameters;
use crate::state::status_queue::Attempts;

/// Maximum number of addresses that a Service blocks because writes with them may be on their way.
/// More are queued only if the API server accepts no write while the Service requests one address
/// after the other.
const SENT_ADDRESSES_MAX: usize = 8;

/// Relation of a Service to FerroLB: whether FerroLB assigns addresses to it, and which status it
/// writes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::state) enum Role {
    /// FerroLB assigns addresses to the Service.
    ServedByFerroLb,
    /// FerroLB would assign addresses to the Service, but an annotation shows that MetalLB serves
    /// it.
    ServedByMetalLb,
    /// FerroLB would assign addresses to the Service, but another load balancer has assigned one
    /// that is in no pool.
    ServedByOther,
    /// FerroLB does not serve the Service any more, but the Service still has fields of FerroLB.
    Left,
    /// Another load balancer serves the Service, or none does.
    #[default]
    Foreign,
}

/// A Service and the controller's decisions about it.
#[derive(Debug, Default)]
pub(in crate::state) struct ServiceEntry {
    pub(in crate::state) service: Service,
    /// The relation to FerroLB that the latest decision has found.
    pub(in crate::state) role: Role,
    /// The decision about the Service's addresses. `None` if there is no decision yet, or if
    /// FerroLB does not serve the Service.
    pub(in crate::state) assignment: Option<Assignment>,
    /// Addresses that the Service has lost, which the Event of its next status write reports.
    pub(in crate::state) lost: LostAddresses,
    pub(in crate::state) attempts: Attempts,
    /// Addresses of the writes that have begun since the latest success, at most
    /// [`SENT_ADDRESSES_MAX`]. Each of these writes may still be on its way, so no other Service
    /// gets the addresses.
    pub(in crate::state) sent_addresses: Vec<IpAddr>,
    /// True if the status differs because of the record in the Service's annotation: see
    /// [`crate::state::record_repair`].
    pub(in crate::state) is_record_due: bool,
    /// Changes of the addresses in the status by other clients, if there were any.
    pub(in crate::state) contest: Option<Box<Contest>>,
    /// Desired `Announced` condition, if the controller has decided it and the watch has not
    /// reported it yet.
    pub(in crate::state) announced: Option<Box<Condition>>,
    /// Time since which the facts have differed from the written condition `Announced`; `None` if
    /// they agree.
    pub(in crate::state) differs_since: Option<Instant>,
    /// Counters in which the Service is counted at present.
    pub(in crate::state) counted: CounterLabels,
    pub(in crate::state) new_addresses: UnannouncedAddresses,
    /// Time at which the Service got its first address; `None` after the status with the address
    /// has been written.
    pub(in crate::state) first_assigned_at: Option<Instant>,
}

/// Labels of the counters in which a Service is counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::state) struct CounterLabels {
    /// Reason of the `AddressAssigned` condition;
    /// [`NOT_WRITTEN`](crate::desired::NOT_WRITTEN) while the API server rejects the
    /// status.
    pub(in crate::state) reason: Option<&'static str>,
    /// Reason of the `Announced` condition.
    pub(in crate::state) announced: Option<Reason>,
    /// Pool of the Service's addresses.
    pub(in crate::state) pool: Option<Box<str>>,
}

impl ServiceEntry {
    /// Returns the addresses that the controller has assigned to the Service, or if there are none,
    /// the addresses in the Service's status.
    pub(in crate::state) fn present(&self) -> Vec<IpAddr> {
        match &self.assignment {
            Some(assignment) if !assignment.addresses.is_empty() => assignment.addresses.clone(),
            Some(_) | None => {
                self.service.assigned.iter().map(|assigned| assigned.address).collect()
            }
        }
    }

    /// Returns whether [`Self::present`] returns addresses that FerroLB assigned.
    pub(in crate::state) fn has_own_addresses(&self) -> bool {
        let is_assigned = self.assignment.as_ref().is_some_and(|it| !it.addresses.is_empty());
        let service = &self.service;
        is_assigned
            || !service.assigned.is_empty()
                && service.pool_annotation.is_some()
                && service.ingress_manager.is_none()
    }

    /// Records the addresses of a write that has begun.
    pub(in crate::state) fn record_sent(&mut self, addresses: &[IpAddr]) {
        for address in addresses {
            if !self.sent_addresses.contains(address) {
                self.sent_addresses.push(*address);
            }
        }
        let excess = self.sent_addresses.len().saturating_sub(SENT_ADDRESSES_MAX);
        self.sent_addresses.drain(..excess);
    }

    /// Returns the lost addresses of the Service with which a write may be on its way. The success
    /// of a later write shows that none is.
    pub(in crate::state) fn outdated_addresses(&self) -> impl Iterator<Item = IpAddr> {
        let assigned = self.assignment.as_ref().map(|assignment| &assignment.addresses);
        let is_lost = move |address: &&IpAddr| assigned.is_none_or(|it| !it.contains(address));
        self.sent_addresses.iter().filter(is_lost).copied()
    }

    pub(super) fn has_outdated_addresses(&self) -> bool {
        self.outdated_addresses().next().is_some()
    }

    /// Returns the contest about the Service's status, if the status is contested.
    pub(in crate::state) fn active_contest(&self) -> Option<&Contest> {
        self.contest.as_deref().filter(|contest| contest.is_active())
    }

    /// Ends the contest if the other client has changed nothing for
    /// [`CONTEST_END`](crate::state::contest::CONTEST_END). Otherwise returns the time at which it
    /// ends, if the status is contested.
    pub(in crate::state) fn end_contest(&mut self, now: Instant) -> Option<Instant> {
        let end = self.contest.as_deref()?.end()?;
        if now >= end {
            self.contest = None;
        }
        (now < end).then_some(end)
    }

    /// Returns the pool of the assigned addresses, or if there is none, the pool in the Service's
    /// annotation.
    pub(in crate::state) fn pool_name(&self) -> Option<Box<str>> {
        self.assignment
            .as_ref()
            .and_then(|assignment| assignment.pool.clone())
            .or_else(|| self.service.pool_annotation.clone())
    }

    /// Returns whether the Service has the record that it should have.
    pub(in crate::state) fn has_record(&self) -> bool {
        let is_recorded = |assignment| self.service.record == record(&self.service, assignment);
        let assignment = self.assignment.as_ref().filter(|_| !self.service.deleting);
        self.role != Role::ServedByFerroLb || assignment.is_none_or(is_recorded)
    }

    /// Returns the reason of the condition `Announced` that is to be written, or else the reason of
    /// the written condition. Returns `None` if there is no condition, or if this version does not
    /// define the reason.
    pub(in crate::state) fn announced_reason(&self) -> Option<Reason> {
        let decided = self.announced.as_ref().map(|condition| &*condition.reason);
        let written = self.service.condition(ServiceConditionType::Announced);
        Reason::from_name(decided.or(written.map(|condition| &*condition.reason))?)
    }
}

/// Returns the record that a Service should have. A Service without addresses keeps the record of
/// those that it had.
pub(in crate::state) fn record(
    service: &Service,
    assignment: &Assignment,
) -> Option<Box<AddressRecord>> {
    if assignment.addresses.is_empty() {
        return service.record.clone();
    }
    let addresses = assignment.addresses.as_slice().into();
    let sharing = SharingParameters::of(service).digest();
    Some(Box::new(AddressRecord { addresses, sharing }))
}
