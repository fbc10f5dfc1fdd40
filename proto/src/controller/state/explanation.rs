//! Explanations of Services and pools for `kubectl ferrolb`, which fills a state with a copy of the
//! objects. They follow from the same facts as the conditions. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::Serialize;

use super::State;
use super::announced::{CheckContext, NodeVerdict, Reason};
use super::messages::assigned::STATUS_CONTESTED;
use super::messages::join;
use super::pool_addresses::AddressCounts;
use super::service::{self, Role, ServiceEntry};
use crate::api::ConditionStatus;
use crate::controller::desired::NOT_WRITTEN;
use crate::facts::{AssignedAddress, Key, ServiceConditionType};
use crate::range::AddressRange;

/// A Service of type LoadBalancer, with its addresses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceRow {
    /// Namespace and name.
    pub service: String,
    /// True if the Service has all its addresses, and all of them are announced.
    pub announced: bool,
    /// The reason of the worst state: of the condition `Announced` if the Service has addresses,
    /// else of `AddressAssigned`.
    pub reason: String,
    /// Time since which the condition with this reason has its status, in seconds since 1970.
    pub since: Option<i64>,
    /// The addresses in the status.
    pub addresses: Vec<IpAddr>,
    /// The pool of the addresses.
    pub pool: Option<String>,
    /// The nodes that announce any of these addresses on layer 2, ascending.
    pub nodes: Vec<String>,
}

/// The state of a Service, and its reasons.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// The Service, its addresses and its reason.
    #[serde(flatten)]
    pub row: ServiceRow,
    /// The state of the assignment: the facts, and the command or the change that helps. Empty if
    /// FerroLB does not serve the Service.
    pub assignment: String,
    /// Problems that do not prevent the announcement.
    pub warnings: Vec<String>,
    /// The state of each address.
    pub explained: Vec<AddressExplanation>,
}

/// The state of one address of a Service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AddressExplanation {
    /// The address.
    pub address: IpAddr,
    /// The reason, as in the condition `Announced`.
    pub reason: &'static str,
    /// The fact, and the command or the change that helps.
    pub message: String,
    /// The relation of each node to the address.
    pub nodes: Vec<NodeVerdict>,
}

/// An IPAddressPool and the number of its addresses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PoolRow {
    /// Name of the pool.
    pub pool: String,
    /// Number of Services with addresses of the pool.
    pub services: u64,
    /// IPv4 addresses.
    pub v4: PoolCounts,
    /// IPv6 addresses.
    pub v6: PoolCounts,
}

/// Numbers of addresses of an IPAddressPool, in one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct PoolCounts {
    /// Addresses that Services use.
    pub used: u64,
    /// Addresses that Services can still get without a request.
    pub free: u128,
    /// Addresses that the pool can assign, used or free.
    pub total: u128,
}

/// Reason of a Service that FerroLB does not serve.
const NOT_SERVED: &str = "NotServed";

/// Returns the assigned addresses that the status of a Service does not contain: the controller has
/// not written them.
fn unwritten(entry: &ServiceEntry) -> Vec<IpAddr> {
    let written = &entry.service.assigned;
    let is_missing = |address: &&IpAddr| !written.iter().any(|it| it.address == **address);
    let assigned = entry.assignment.iter().flat_map(|assignment| &assignment.addresses);
    assigned.filter(is_missing).copied().collect()
}

impl State {
    /// Returns all Services that FerroLB serves, by namespace and name.
    #[must_use]
    pub fn service_rows(&self) -> Vec<ServiceRow> {
        let stale = self.stale();
        self.with_check_context(&stale, |context| {
            let entries = self.services.iter().map(|(_, entry)| entry);
            let listed = entries.filter(|entry| entry.role == Role::ServedByFerroLb);
            listed.map(|entry| self.service_row(entry, context)).collect()
        })
    }

    /// Returns the explanation of a Service; `None` if it does not exist.
    #[must_use]
    pub fn explain(&self, key: &Key) -> Option<Explanation> {
        let entry = self.services.get(key)?;
        let stale = self.stale();
        Some(self.with_check_context(&stale, |context| {
            let row = self.service_row(entry, context);
            self.with_diagnosis_input(entry, context, |input| {
                let explain = |assigned: &AssignedAddress| {
                    let (diagnosis, _) = input.diagnose(assigned.address, assigned.mode);
                    AddressExplanation {
                        address: assigned.address,
                        reason: diagnosis.reason().name(),
                        message: diagnosis.text(&[assigned.address], &self.config.names),
                        nodes: input.verdicts(assigned.address),
                    }
                };
                let assigned = entry.service.assigned.iter();
                let own = assigned.filter(|_| entry.role == Role::ServedByFerroLb);
                Explanation {
                    row,
                    assignment: self.assignment_text(entry),
                    warnings: input.warning_texts(),
                    explained: own.map(explain).collect(),
                }
            })
        }))
    }

    /// Returns all pools, by name.
    #[must_use]
    pub fn pool_rows(&self) -> Vec<PoolRow> {
        let counts =
            |AddressCounts { used, available: free, total }| PoolCounts { used, free, total };
        let row = |(name, [v4, v6]): (Box<str>, [AddressCounts; 2])| PoolRow {
            services: self.counters.pools.get(&name).copied().unwrap_or(0),
            pool: name.into(),
            v4: counts(v4),
            v6: counts(v6),
        };
        self.allocator.usage().into_iter().map(row).collect()
    }

    /// Returns the Services that FerroLB would serve without another load balancer, which serves
    /// them.
    pub fn served_by_others(&self) -> impl Iterator<Item = &Key> {
        let is_other = |role| matches!(role, Role::ServedByMetalLb | Role::ServedByOther);
        let entries = self.services.iter().filter(move |(_, entry)| is_other(entry.role));
        entries.map(|(key, _)| key)
    }

    /// Returns the ranges of each pool with addresses that are in no subnet of the interfaces that
    /// announce the pool. Routed pools have none.
    #[must_use]
    pub const fn ranges_outside(&self) -> &BTreeMap<Box<str>, Vec<AddressRange>> {
        &self.ranges_outside
    }

    /// Returns the state of the assignment; empty if FerroLB does not serve the Service.
    fn assignment_text(&self, entry: &ServiceEntry) -> String {
        let names = &self.config.names;
        let unwritten = unwritten(entry);
        if !unwritten.is_empty() {
            return format!(
                "{} is not in the status of the Service yet: check that a controller runs, with \
                 `kubectl -n {} get pods`, and its log",
                join(&unwritten),
                names.namespace
            );
        }
        // The contest of two clients about the status is known only to the controller.
        let written = entry.service.condition(ServiceConditionType::AddressAssigned);
        match written.filter(|condition| *condition.reason == *STATUS_CONTESTED) {
            Some(contested) => contested.message.to_string(),
            None => service::assigned_text(entry, names).unwrap_or_default(),
        }
    }

    fn service_row(&self, entry: &ServiceEntry, context: &CheckContext<'_>) -> ServiceRow {
        let service = &entry.service;
        let written = |kind| service.condition(kind);
        let row = |announced, reason: &str, kind, nodes| ServiceRow {
            service: service.key.to_string(),
            announced,
            reason: reason.to_owned(),
            since: written(kind).filter(|it| *it.reason == *reason).and_then(|it| it.since),
            addresses: service.assigned.iter().map(|assigned| assigned.address).collect(),
            pool: entry.pool_name().map(Into::into),
            nodes,
        };
        let kind = ServiceConditionType::AddressAssigned;
        if !unwritten(entry).is_empty() {
            return row(false, NOT_WRITTEN, kind, Vec::new());
        }
        let is_satisfied = entry.assignment.as_ref().is_some_and(|it| it.satisfied);
        if service.assigned.is_empty() || !is_satisfied {
            let reason = service::decided_reason(entry).unwrap_or(NOT_SERVED);
            return row(false, reason, kind, Vec::new());
        }
        self.with_diagnosis_input(entry, context, |input| {
            let reasons = service
                .assigned
                .iter()
                .map(|assigned| input.diagnose(assigned.address, assigned.mode).0.reason());
            let worst = reasons.min().unwrap_or(Reason::Pending);
            row(
                worst.status() == ConditionStatus::True,
                worst.name(),
                ServiceConditionType::Announced,
                input.owning_nodes(),
            )
        })
    }
}
