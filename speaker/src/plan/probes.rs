//! Health checks of endpoints: the endpoints that this node checks, and the Services that fail on
//! this node. Pure.
//!
//! A node checks only its own endpoints, and of these only the eligible ones of a family in which
//! the Service has an address. The others do not affect the announcement. A Service fails in a
//! family if all these endpoints of the family can be checked and all of them fail. If one cannot
//! be checked, readiness alone decides.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ferrolb_proto::api::FailingService;
use ferrolb_proto::facts::{CheckPort, EndpointAddress, EndpointCondition, HealthCheck, Key};
use ferrolb_proto::health::prober::{ProbeConfig, ProbeTarget, ProbeTargets};
use ferrolb_proto::range::Family;

use super::check_scope::CheckScope;
use super::slices;
use crate::event::UncheckedEndpoints;
use crate::state::State;

/// Maximum number of failing Services in the SpeakerStatus of a node. A Service that fails in both
/// families is listed twice.
pub const FAILING_SERVICES_MAX: usize = 500;

/// Maximum number of health checks per second that this node sends for one Service. If the Service
/// has too many endpoints for its interval, each one is checked less often.
const CHECKS_PER_SERVICE_PER_SECOND_MAX: u32 = 50;

/// Input of the probe driver.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HealthChecks {
    /// Endpoints to check, and how.
    pub targets: Arc<ProbeTargets>,
    /// Number of endpoints that are not checked because health checks may not connect to their
    /// addresses.
    pub disallowed: usize,
    /// Number of endpoints that are checked less often than their Services request, because the
    /// Services have many endpoints on this node.
    pub slowed: usize,
}

/// Endpoints to whose addresses health checks may not connect.
#[derive(Debug, Default)]
pub(super) struct DisallowedEndpoints {
    pub(super) count: usize,
    /// The first of these endpoints, as an example for the SpeakerStatus.
    first: Option<ProbeTarget>,
}

/// Result of the health checks of all Services.
#[derive(Debug, Default)]
pub(super) struct HealthCheckPlan<'a> {
    pub(super) targets: ProbeTargets,
    /// See [`HealthChecks::disallowed`].
    pub(super) disallowed: DisallowedEndpoints,
    /// See [`HealthChecks::slowed`].
    pub(super) slowed: usize,
    /// True if health checks are off although a Service requests one.
    off: bool,
    /// Services that fail on this node, each with the family. The verdict of a Service takes this
    /// into account.
    pub(super) failing: BTreeSet<(&'a Key, Family)>,
    /// The first [`FAILING_SERVICES_MAX`] failing Services, for the SpeakerStatus of the node.
    pub(super) reported: Vec<FailingService>,
}

/// Returns the endpoints that this node must check, and the Services that fail by the results so
/// far.
pub(super) fn health_checks(state: &State) -> HealthCheckPlan<'_> {
    let mut plan = HealthCheckPlan::default();
    let mut services = state
        .services
        .iter()
        .filter_map(|(key, service)| Some((key, service, service.check.as_deref()?)))
        .peekable();
    if services.peek().is_none() {
        return plan;
    }
    let scope = CheckScope::new(state);
    plan.off = scope.is_off();
    if plan.off {
        return plan;
    }
    let slices = slices::by_service(state.slices.iter().filter(|(_, slice)| slice.own.is_some()));
    for (key, service, check) in services {
        let has = |family| service.assigned.iter().any(|address| Family::of(*address) == family);
        let targets = targets(&slices, key, service.eligible, &check.port);
        let targets = targets.filter(|(target, _)| has(Family::of(target.address)));
        let results = plan.add_service((state, &scope), key, check, targets);
        for (family, (endpoint, why)) in results.into_iter().filter_map(FamilyResult::failing) {
            plan.failing.insert((key, family));
            if plan.reported.len() < FAILING_SERVICES_MAX {
                let (namespace, name) = (key.namespace.to_string(), key.name.to_string());
                // The condition of the Service repeats the message. The readers of the condition
                // may not be permitted to know which ports of a node are open.
                let why = if scope.is_own(endpoint.ip()) {
                    "the health check fails: see the speaker's log"
                } else {
                    why
                };
                let (endpoint, message) = (endpoint.to_string(), why.to_owned());
                plan.reported.push(FailingService { namespace, name, endpoint, message });
            }
        }
    }
    plan
}

impl HealthCheckPlan<'_> {
    /// Returns the number of Services that fail on this node.
    pub(super) fn failing_services(&self) -> i64 {
        let services: BTreeSet<_> = self.failing.iter().map(|(key, _)| key).collect();
        i64::try_from(services.len()).unwrap_or(i64::MAX)
    }

    /// Adds the endpoints of a Service to those that this node must check. Returns the results so
    /// far of the Service's endpoints on this node, for each family.
    fn add_service<'a>(
        &mut self,
        (state, scope): (&'a State, &CheckScope<'_>),
        key: &Key,
        check: &HealthCheck,
        targets: impl Iterator<Item = (EndpointAddress, Option<u16>)>,
    ) -> [FamilyResult<'a>; 2] {
        let service = Arc::new(key.clone());
        let mut results = [FamilyResult::default(); 2];
        let mut checked_targets = BTreeSet::new();
        for (target, port) in targets {
            let result = &mut results[Family::of(target.address) as usize];
            let Some(port) = port else {
                result.passes_or_unchecked = true;
                continue;
            };
            let id = ProbeTarget {
                service: Arc::clone(&service),
                endpoint: SocketAddr::new(target.address, port),
            };
            if !scope.allows(&target, port) {
                result.passes_or_unchecked = true;
                self.disallowed.count += 1;
                self.disallowed.first.get_or_insert(id);
                continue;
            }
            match state.failing_endpoints.get(&id) {
                Some(why) => result.fails = result.fails.or(Some((id.endpoint, &**why))),
                None => result.passes_or_unchecked = true,
            }
            checked_targets.insert(id);
        }
        let config = ProbeConfig::new(check, &state.config.health_check_defaults);
        let interval = config.interval.max(interval_min(checked_targets.len()));
        self.slowed += if interval > config.interval { checked_targets.len() } else { 0 };
        let config = Arc::new(ProbeConfig { interval, ..config });
        self.targets.extend(checked_targets.into_iter().map(|id| (id, Arc::clone(&config))));
        results
    }

    /// Returns the endpoints that are not checked, because checks are off or because of their
    /// addresses, if there are any.
    pub(super) fn unchecked(&self, state: &State) -> Option<UncheckedEndpoints> {
        if self.off {
            return Some(UncheckedEndpoints::Off);
        }
        let DisallowedEndpoints { count, first } = &self.disallowed;
        let (count, first) = (*count, first.clone()?);
        Some(UncheckedEndpoints::Disallowed { count, first, node: state.config.node.clone() })
    }
}

/// Returns the shortest interval between two checks of one endpoint, if its Service has this number
/// of endpoints on this node.
fn interval_min(endpoints: usize) -> Duration {
    let endpoints = u32::try_from(endpoints).unwrap_or(u32::MAX);
    Duration::from_secs(1).saturating_mul(endpoints) / CHECKS_PER_SERVICE_PER_SECOND_MAX
}

/// Health check results of a Service's endpoints of one family on this node.
#[derive(Clone, Copy, Default)]
struct FamilyResult<'a> {
    /// The first endpoint that fails, and why.
    fails: Option<(SocketAddr, &'a str)>,
    /// True if an endpoint passes, or cannot be checked. The Service then does not fail in the
    /// family.
    passes_or_unchecked: bool,
}

impl<'a> FamilyResult<'a> {
    /// Returns the family with the first failing endpoint, if all endpoints fail.
    fn failing(self) -> Option<(Family, (SocketAddr, &'a str))> {
        let fails = self.fails.filter(|_| !self.passes_or_unchecked)?;
        Some((Family::of(fails.0.ip()), fails))
    }
}

/// Returns the eligible endpoints of a Service on this node, each with the number of the port to
/// check. The number is none if the EndpointSlice has no port of the name in `port`.
fn targets<'a>(
    slices: &[slices::KeyedSlice<'a>],
    service: &Key,
    usable: EndpointCondition,
    port: &'a CheckPort,
) -> impl Iterator<Item = (EndpointAddress, Option<u16>)> {
    let own = slices::of(slices, service).filter_map(|slice| Some((slice, slice.own.as_deref()?)));
    own.flat_map(move |(slice, own)| {
        let number = match port {
            CheckPort::Number(number) => Some(*number),
            CheckPort::Named(name) => {
                own.ports.iter().find(|(other, _)| other == name).map(|(_, number)| *number)
            }
        };
        let is_usable = move |target: &&EndpointAddress| {
            slice.endpoints.get(target.endpoint).is_some_and(|endpoint| usable.accepts(endpoint))
        };
        own.targets.iter().filter(is_usable).map(move |target| (*target, number))
    })
}
