//! Health checks of endpoints: the endpoints that this node checks, and the Services that fail on
//! this node. Pure; the [`super::Memo`] owns the result of the latest plan.
//!
//! A node checks only its own endpoints, and of these only the eligible ones of a family in which
//! the Service has an address. The others do not affect the announcement. A Service fails in a
//! family if all these endpoints of the family can be checked and all of them fail. If one cannot
//! be checked, readiness alone decides.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ferrolb_proto::api::{FailingService, UncheckedReason, UncheckedService};
use ferrolb_proto::facts::{CheckPort, EndpointAddress, Key};
use ferrolb_proto::range::Family;

use super::check_scope::CheckScope;
use crate::health::prober::{ProbeConfig, ProbeTarget, ProbeTargets, TARGETS_MAX};
use crate::state::{Changes, ReducedService, State};

/// Maximum number of failing Services in the SpeakerStatus of a node, and of Services with
/// unchecked endpoints. A Service with both families is listed twice.
pub const REPORTED_SERVICES_MAX: usize = 500;

/// Maximum number of health checks per second that this node sends for one Service. If the Service
/// has too many endpoints for its interval, each one is checked less often.
const CHECKS_PER_SERVICE_PER_SECOND_MAX: u32 = 50;

/// Input of the probe driver.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HealthChecks {
    /// Endpoints to check, and how.
    pub targets: ProbeTargets,
    /// Number of endpoints that are not checked because health checks may not connect to their
    /// addresses.
    pub disallowed: usize,
    /// Number of endpoints that are checked less often than their Services request, because the
    /// Services have many endpoints on this node.
    pub slowed: usize,
}

/// Health checks of all Services, as of the latest plan.
#[derive(Debug, Default)]
pub(super) struct HealthCheckMemo {
    /// Endpoints that may be checked. `None` until a Service has a health check.
    scope: Option<CheckScope>,
    /// Services with a health check.
    services: BTreeMap<Arc<Key>, ServiceChecks>,
    /// Input of the probe driver: the sum over `services`.
    checks: HealthChecks,
    /// Services that fail on this node.
    failing: BTreeSet<Arc<Key>>,
    /// Services with endpoints that are not checked, apart from those above the limit of a node.
    unchecked: BTreeSet<Arc<Key>>,
}

/// Health checks of one Service.
#[derive(Debug, Default)]
struct ServiceChecks {
    targets: BTreeSet<ProbeTarget>,
    /// See [`HealthChecks::disallowed`].
    disallowed: usize,
    /// Number of eligible endpoints of each family.
    endpoints: BTreeMap<Family, usize>,
    /// For each family with endpoints that are not checked: these endpoints.
    unchecked: BTreeMap<Family, Unchecked>,
    /// See [`HealthChecks::slowed`].
    slowed: usize,
    /// For each family in which the Service fails: its lowest endpoint, and why that one fails.
    failing: BTreeMap<Family, (SocketAddr, Box<str>)>,
}

/// Endpoints of one Service and one family that are not checked.
#[derive(Clone, Copy, Debug)]
struct Unchecked {
    /// The first reason, and the lowest address with this reason.
    first: (UncheckedReason, IpAddr),
    count: usize,
}

impl Unchecked {
    /// Counts one more endpoint.
    fn add(&mut self, reason: UncheckedReason, address: IpAddr) {
        self.first = self.first.min((reason, address));
        self.count += 1;
    }

    /// Counts one more endpoint of a Service in the entry of its family.
    fn add_to<K: Ord>(
        map: &mut BTreeMap<K, Self>,
        key: K,
        reason: UncheckedReason,
        address: IpAddr,
    ) {
        map.entry(key).or_insert(Self { first: (reason, address), count: 0 }).add(reason, address);
    }
}

impl HealthCheckMemo {
    /// Computes the health checks of the Services that `changes` names again. Returns whether the
    /// part for the SpeakerStatus can differ.
    pub(super) fn update(&mut self, state: &State, changes: &Changes) -> bool {
        if changes.all {
            self.scope = None;
        }
        let all = || state.services.iter().map(|(key, _)| key).chain(self.services.keys());
        let keys: BTreeSet<_> = if changes.all {
            all().cloned().collect()
        } else {
            changes.services.iter().cloned().collect()
        };
        let defaults = &state.config.health_check_defaults;
        let mut is_reported = changes.all || self.is_over_limit();
        for key in keys {
            let checked = state
                .services
                .get(&key)
                .and_then(|(key, service)| Some((key, service, service.check.as_deref()?)));
            let now = checked.map(|(key, service, check)| {
                let scope = self.scope.get_or_insert_with(|| CheckScope::new(state));
                let checks = service_checks(state, scope, key, service, &check.port);
                (Arc::clone(key), checks, ProbeConfig::new(check, defaults))
            });
            is_reported |= self.replace(&key, now);
        }
        is_reported || self.is_over_limit()
    }

    /// Returns whether the node has more targets than it checks.
    fn is_over_limit(&self) -> bool {
        self.checks.targets.len() > TARGETS_MAX
    }

    /// Replaces the health checks of a Service. `now` has the shared key of the Service, its
    /// checks, and the parameters that it requests. Returns whether the part for the SpeakerStatus
    /// can differ.
    fn replace(
        &mut self,
        key: &Arc<Key>,
        now: Option<(Arc<Key>, ServiceChecks, ProbeConfig)>,
    ) -> bool {
        let before = self.services.remove(key).unwrap_or_default();
        self.failing.remove(key);
        self.unchecked.remove(key);
        self.checks.disallowed -= before.disallowed;
        self.checks.slowed -= before.slowed;
        let is_reported =
            |checks: &ServiceChecks| !checks.failing.is_empty() || !checks.unchecked.is_empty();
        let was_reported = is_reported(&before);
        let Some((key, now, config)) = now else {
            before.targets.iter().for_each(|target| drop(self.checks.targets.remove(target)));
            return was_reported;
        };
        let interval = config.interval.max(interval_min(now.targets.len()));
        let slowed = if interval > config.interval { now.targets.len() } else { 0 };
        let now = ServiceChecks { slowed, ..now };
        let config = Arc::new(ProbeConfig { interval, ..config });
        for target in before.targets.difference(&now.targets) {
            self.checks.targets.remove(target);
        }
        for target in &now.targets {
            if self.checks.targets.get(target) != Some(&config) {
                self.checks.targets.insert(target.clone(), Arc::clone(&config));
            }
        }
        self.checks.disallowed += now.disallowed;
        self.checks.slowed += now.slowed;
        if !now.failing.is_empty() {
            self.failing.insert(Arc::clone(&key));
        }
        if !now.unchecked.is_empty() {
            self.unchecked.insert(Arc::clone(&key));
        }
        let is_reported = was_reported || is_reported(&now);
        self.services.insert(key, now);
        is_reported
    }

    /// Returns the input of the probe driver.
    pub(super) fn checks(&self) -> HealthChecks {
        self.checks.clone()
    }

    /// Returns the families in which a Service fails on this node.
    pub(super) fn failing_families(&self, service: &Key) -> impl Iterator<Item = Family> {
        let checks = self.services.get(service);
        checks.into_iter().flat_map(|checks| checks.failing.keys().copied())
    }

    /// Returns the number of Services that fail on this node.
    pub(super) fn failing_services(&self) -> i64 {
        number(self.failing.len())
    }

    /// Returns the first [`REPORTED_SERVICES_MAX`] failing Services, for the SpeakerStatus.
    pub(super) fn reported_failing(&self) -> Vec<FailingService> {
        let failing = self.failing.iter().filter_map(|key| self.services.get_key_value(&**key));
        let entries = failing.flat_map(|(key, checks)| {
            checks.failing.values().map(|(endpoint, message)| FailingService {
                namespace: key.namespace().to_string(),
                name: key.name().to_string(),
                endpoint: endpoint.to_string(),
                message: message.to_string(),
            })
        });
        entries.take(REPORTED_SERVICES_MAX).collect()
    }

    /// Returns the number of Services with endpoints that are not checked.
    pub(super) fn unchecked_services(&self) -> i64 {
        let over_limit: BTreeSet<_> = self.over_limit().map(|target| &target.service).collect();
        number(
            self.unchecked.len() + over_limit.difference(&self.unchecked.iter().collect()).count(),
        )
    }

    /// Returns the first [`REPORTED_SERVICES_MAX`] Services with endpoints that are not checked,
    /// for the SpeakerStatus.
    pub(super) fn reported_unchecked(&self) -> Vec<UncheckedService> {
        let services = self.unchecked.iter().filter_map(|key| self.services.get_key_value(key));
        let entries = services.flat_map(|(key, checks)| {
            checks.unchecked.iter().map(move |(family, unchecked)| ((key, *family), *unchecked))
        });
        let mut entries: BTreeMap<_, _> = entries.take(REPORTED_SERVICES_MAX).collect();
        for ProbeTarget { service, endpoint } in self.over_limit() {
            let key = (service, Family::of(endpoint.ip()));
            Unchecked::add_to(&mut entries, key, UncheckedReason::TooMany, endpoint.ip());
        }
        let entry = |((key, family), Unchecked { first, count }): ((&Arc<Key>, _), Unchecked)| {
            let endpoints = self.services.get(key).and_then(|it| it.endpoints.get(&family));
            UncheckedService {
                namespace: key.namespace().to_string(),
                name: key.name().to_string(),
                reason: first.0,
                address: first.1,
                unchecked: number(count),
                endpoints: number(endpoints.copied().unwrap_or_default()),
            }
        };
        entries.into_iter().take(REPORTED_SERVICES_MAX).map(entry).collect()
    }

    /// Returns the targets that are not checked, because the node has too many.
    fn over_limit(&self) -> impl Iterator<Item = &ProbeTarget> {
        self.is_over_limit()
            .then(|| self.checks.targets.keys().skip(TARGETS_MAX))
            .into_iter()
            .flatten()
    }
}

fn number(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// Returns the health checks of a Service, with the results so far.
fn service_checks(
    state: &State,
    scope: &CheckScope,
    key: &Arc<Key>,
    service: &ReducedService,
    port: &CheckPort,
) -> ServiceChecks {
    let mut checks = ServiceChecks::default();
    // Families with an endpoint that passes, or that cannot be checked.
    let mut not_failing = BTreeSet::new();
    for (target, port) in targets(state, key, service, port) {
        let address = target.address;
        let family = Family::of(address);
        *checks.endpoints.entry(family).or_default() += 1;
        let endpoint = match scope.permit(state, &target, port) {
            Ok(endpoint) => endpoint,
            Err(reason) => {
                not_failing.insert(family);
                let by_address = [UncheckedReason::OutsideRanges, UncheckedReason::Excluded];
                checks.disallowed += usize::from(by_address.contains(&reason));
                Unchecked::add_to(&mut checks.unchecked, family, reason, address);
                continue;
            }
        };
        let id = ProbeTarget { service: Arc::clone(key), endpoint };
        match state.failing_endpoints.get(&id) {
            Some(why) => {
                let why = reported_message(scope, endpoint, why);
                let lowest = checks.failing.entry(family).or_insert((endpoint, why.into()));
                if endpoint < lowest.0 {
                    *lowest = (endpoint, why.into());
                }
            }
            None => {
                not_failing.insert(family);
            }
        }
        checks.targets.insert(id);
    }
    checks.failing.retain(|family, _| !not_failing.contains(family));
    checks
}

/// Returns the reason for which an endpoint fails, as the SpeakerStatus reports it. The condition
/// of the Service repeats the message. The readers of the condition may not be permitted to know
/// which ports of a node are open.
fn reported_message<'w>(scope: &CheckScope, endpoint: SocketAddr, why: &'w str) -> &'w str {
    if scope.is_own(endpoint.ip()) { "the health check fails: see the speaker's log" } else { why }
}

/// Returns the shortest interval between two checks of one endpoint, if its Service has this number
/// of endpoints on this node.
fn interval_min(endpoints: usize) -> Duration {
    let endpoints = u32::try_from(endpoints).unwrap_or(u32::MAX);
    Duration::from_secs(1).saturating_mul(endpoints) / CHECKS_PER_SERVICE_PER_SECOND_MAX
}

/// Returns the eligible endpoints of a Service on this node, of the families of its addresses, each
/// with the number of the port to check. The number is none if the EndpointSlice has no port of the
/// name in `port`.
fn targets<'a>(
    state: &'a State,
    key: &Arc<Key>,
    service: &'a ReducedService,
    port: &'a CheckPort,
) -> impl Iterator<Item = (EndpointAddress, Option<u16>)> {
    let own =
        state.services.slices_of(key).filter_map(|slice| Some((slice, slice.own.as_deref()?)));
    let has = |family| service.assigned.iter().any(|address| Family::of(*address) == family);
    own.flat_map(move |(slice, own)| {
        let number = match port {
            CheckPort::Number(number) => Some(*number),
            CheckPort::Named(name) => {
                own.ports.iter().find(|(other, _)| other == name).map(|(_, number)| *number)
            }
        };
        let is_eligible = move |target: &&EndpointAddress| {
            let endpoint = slice.endpoints.get(target.endpoint);
            endpoint.is_some_and(|endpoint| service.eligible.accepts(endpoint))
                && has(Family::of(target.address))
        };
        own.targets.iter().filter(is_eligible).map(move |target| (*target, number))
    })
}
