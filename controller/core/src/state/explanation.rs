//! Explanations of Services and pools for `kubectl ferrolb`, which fills a state with a copy of the
//! objects. They follow from the same facts as the conditions. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ferrolb_proto::api::ConditionStatus;
use ferrolb_proto::facts::{AssignedAddress, Key, Service, ServiceCondition, ServiceConditionType};
use ferrolb_proto::range::AddressRange;
use serde::Serialize;

use super::State;
use super::announced::{CheckContext, NodeVerdict};
use super::contest::shows_assignment;
use super::messages::assigned::{self, ASSIGNED, STATUS_CONTESTED};
use super::messages::join;
use super::messages::reason::Reason;
use super::pool_addresses::AddressCounts;
use super::service::{self, Role, ServiceEntry};
use crate::desired::NOT_WRITTEN;
use crate::other_load_balancers::{described, remedy};

/// A Service of type LoadBalancer, with its addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceRow {
    /// Namespace and name.
    pub service: Key,
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
    /// True if FerroLB serves the Service.
    pub served: bool,
    /// True if another client changes the addresses in the status, whatever the reason.
    pub contested: bool,
    /// Problems that do not prevent the announcement.
    pub warnings: Vec<String>,
    /// The warning about endpoints that are not checked, although the Service has a health check.
    pub unchecked: Option<String>,
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
    /// Why FerroLB does not serve the Service; empty if it does.
    pub not_served: String,
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
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PoolRow {
    /// Name of the pool.
    pub pool: String,
    /// Number of Services with addresses of the pool.
    pub services: u64,
    /// True if the pool does not exist, and its Services keep their addresses for the rest of
    /// `--pool-grace`.
    pub missing: bool,
    /// IPv4 addresses.
    pub v4: PoolCounts,
    /// IPv6 addresses.
    pub v6: PoolCounts,
}

/// Numbers of addresses of an IPAddressPool, in one family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
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
/// Reason of a Service whose class FerroLB does not serve.
const OTHER_CLASS: &str = "OtherClass";

/// Returns whether the status of a Service lacks an assigned address, which the controller has not
/// written.
fn has_unwritten(entry: &ServiceEntry) -> bool {
    let written = &entry.service.assigned;
    let mut assigned = entry.assignment.iter().flat_map(|assignment| &assignment.addresses);
    assigned.any(|address| !written.iter().any(|it| it.address == *address))
}

/// Returns the assigned addresses that the Service's record contains: FerroLB holds them for it.
/// The others are only those that a controller would assign to it at present.
fn recorded(entry: &ServiceEntry) -> Vec<IpAddr> {
    let recorded = entry.service.record.as_deref();
    let is_recorded =
        |address: &&IpAddr| recorded.is_some_and(|record| record.addresses.contains(address));
    let assigned = entry.assignment.iter().flat_map(|assignment| &assignment.addresses);
    assigned.filter(is_recorded).copied().collect()
}

/// Returns the written condition of a Service whose status another client repeatedly changes, which
/// only the controller knows.
fn contested(entry: &ServiceEntry) -> Option<&ServiceCondition> {
    let written = entry.service.condition(ServiceConditionType::AddressAssigned);
    written.filter(|condition| *condition.reason == *STATUS_CONTESTED)
}

/// Returns the field manager that has replaced FerroLB's addresses in the status, if the status
/// shows those of another client at present.
fn replaced_by(entry: &ServiceEntry) -> Option<&str> {
    let has_addresses = entry.assignment.as_ref().is_some_and(|it| !it.addresses.is_empty());
    let is_replaced = has_addresses && !shows_assignment(entry, &entry.service);
    entry.service.ingress_manager.as_deref().filter(|_| is_replaced)
}

/// Returns the state of the assignment of a Service whose addresses a field manager has replaced.
fn replaced_text(entry: &ServiceEntry, manager: &str) -> String {
    let recorded = recorded(entry);
    let of_ferrolb = if recorded.is_empty() {
        "FerroLB's addresses".to_owned()
    } else {
        format!("{} of FerroLB", join(&recorded))
    };
    let shown: Vec<_> = entry.service.assigned.iter().map(|it| it.address).collect();
    let by = if shown.is_empty() { String::new() } else { format!(" by {}", join(&shown)) };
    format!(
        "{} has replaced {of_ferrolb} in the status{by}: {}",
        described(manager),
        remedy(manager)
    )
}

/// Warning about such a Service. The state of the assignment names the client.
const CONTESTED_WARNING: &str = "another client changes the addresses in the status";

impl State {
    /// Returns all Services of type LoadBalancer, by namespace and name.
    #[must_use]
    pub fn service_rows(&self) -> Vec<ServiceRow> {
        let stale = self.stale();
        self.with_check_context(&stale, |context| {
            let entries = self.services.iter().map(|(_, entry)| entry);
            let listed = entries.filter(|entry| entry.service.load_balancer);
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
                // No node announces the addresses of another load balancer.
                let is_own = |it: &&AssignedAddress| {
                    replaced_by(entry).is_none()
                        || entry.assignment.iter().any(|own| own.addresses.contains(&it.address))
                };
                let own = entry.service.assigned.iter().filter(is_own);
                let own = own.filter(|_| entry.role == Role::ServedByFerroLb);
                Explanation {
                    row,
                    assignment: self.assignment_text(entry),
                    not_served: self.not_served_text(entry),
                    explained: own.map(explain).collect(),
                }
            })
        }))
    }

    /// Returns all pools by name, also those that do not exist and whose Services still have their
    /// addresses.
    #[must_use]
    pub fn pool_rows(&self) -> Vec<PoolRow> {
        let counts =
            |AddressCounts { used, available: free, total }| PoolCounts { used, free, total };
        let row = |(name, [v4, v6]): (Box<str>, [AddressCounts; 2])| PoolRow {
            services: self.counters.pools.get(&name).copied().unwrap_or(0),
            pool: name.into(),
            missing: false,
            v4: counts(v4),
            v6: counts(v6),
        };
        let mut rows: Vec<_> = self.allocator.usage().into_iter().map(row).collect();
        let kept = self.services.iter().filter_map(|(_, entry)| entry.assignment.as_ref());
        let kept = kept.filter(|assignment| assignment.pool_grace.is_some());
        for name in kept.filter_map(|assignment| assignment.pool.as_deref()) {
            match rows.iter_mut().find(|row| *row.pool == *name) {
                Some(row) => row.services += 1,
                None => rows.push(PoolRow {
                    pool: name.to_owned(),
                    services: 1,
                    missing: true,
                    ..PoolRow::default()
                }),
            }
        }
        rows.sort_by(|a, b| a.pool.cmp(&b.pool));
        rows
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
        // Only the controller knows about another client that repeatedly changes the status.
        if let Some(contested) = contested(entry) {
            return contested.message.to_string();
        }
        if let Some(manager) = replaced_by(entry) {
            return replaced_text(entry, manager);
        }
        if has_unwritten(entry) {
            let recorded = recorded(entry);
            let what = match recorded.is_empty() {
                true => "the address".to_owned(),
                false => join(&recorded),
            };
            return format!(
                "{what} is not in the status of the Service yet: check that a controller runs, \
                 with `kubectl -n {} get pods`, and its log",
                names.namespace
            );
        }
        service::assigned_text(entry, names).unwrap_or_default()
    }

    /// Returns why FerroLB does not serve a Service; empty if FerroLB serves it, or another load
    /// balancer does and `assignment_text` names it.
    fn not_served_text(&self, entry: &ServiceEntry) -> String {
        let Service { load_balancer, class, .. } = &entry.service;
        if !matches!(entry.role, Role::Foreign | Role::Left) {
            return String::new();
        }
        if !load_balancer {
            return "its spec.type is not LoadBalancer".to_owned();
        }
        let mut served = self.config.classes.join(", ");
        if self.config.default_implementation {
            served.push_str(", and Services without a class");
        }
        let class = class.as_deref().unwrap_or("not set");
        format!(
            "its spec.loadBalancerClass is {class}, and FerroLB serves {served}. Kubernetes does not \
             permit a change of the class: delete the Service, and create it with another one"
        )
    }

    fn service_row(&self, entry: &ServiceEntry, context: &CheckContext<'_>) -> ServiceRow {
        let service = &entry.service;
        let assignment = entry.assignment.as_ref();
        let served = entry.role == Role::ServedByFerroLb;
        let contested = contested(entry);
        let is_replaced = replaced_by(entry).is_some()
            || contested.is_some_and(|it| it.status != ConditionStatus::True);
        let contest = (is_replaced || contested.is_some()).then_some(STATUS_CONTESTED);
        let diagnose = || {
            self.with_diagnosis_input(entry, context, |input| {
                let (diagnosed, _) = input.diagnoses();
                let worst = diagnosed.first().map(|(diagnosis, _)| diagnosis.reason());
                (worst, input.warning_texts(&diagnosed), input.owning_nodes())
            })
        };
        let is_diagnosed = served && !service.assigned.is_empty();
        let (worst, warnings, nodes) = is_diagnosed.then(diagnose).unwrap_or_default();
        // The warnings of the assignment come first, because `check` has findings of their own.
        let all_warnings = contest
            .map(|_| CONTESTED_WARNING.to_owned())
            .into_iter()
            .chain(assignment.into_iter().flat_map(assigned::warnings))
            .chain(warnings.all)
            .collect();
        let is_satisfied = assignment.is_some_and(|it| it.satisfied) && worst.is_some();
        let decided = service::decided_reason(entry);
        let (announced, reason, kind) = if is_replaced || has_unwritten(entry) {
            (false, contest.unwrap_or(NOT_WRITTEN), ServiceConditionType::AddressAssigned)
        } else if !is_satisfied {
            let is_foreign = matches!(entry.role, Role::Foreign | Role::Left);
            let other = if service.load_balancer && is_foreign { OTHER_CLASS } else { NOT_SERVED };
            (false, decided.unwrap_or(other), ServiceConditionType::AddressAssigned)
        } else {
            let worst = worst.unwrap_or(Reason::Pending);
            let is_announced = worst.status() == ConditionStatus::True;
            // The address is announced, but another client or the missing pool may end that.
            match contest.or(decided).filter(|it| is_announced && *it != ASSIGNED) {
                Some(reason) => (true, reason, ServiceConditionType::AddressAssigned),
                None => (is_announced, worst.name(), ServiceConditionType::Announced),
            }
        };
        let condition = service.condition(kind).filter(|it| *it.reason == *reason);
        ServiceRow {
            service: service.key.clone(),
            announced,
            reason: reason.to_owned(),
            since: condition.and_then(|it| it.since),
            addresses: service.assigned.iter().map(|assigned| assigned.address).collect(),
            pool: entry.pool_name().map(Into::into),
            nodes,
            served,
            contested: contest.is_some(),
            warnings: all_warnings,
            unchecked: warnings.unchecked,
        }
    }
}
