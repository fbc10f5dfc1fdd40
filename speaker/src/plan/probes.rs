//! Health checks of endpoints: whom this node asks, and what their answers make of its Services. Pure.
//!
//! A node asks its own endpoints only, and of these those that are usable, of families that the Service has an address of: what is not
//! counts for nothing anyway. It fails a family of a Service when it asks all of these and all of them fail; where one cannot be asked,
//! readiness alone decides.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ferrolb_proto::api::FailingService;
use ferrolb_proto::facts::{CheckPort, HealthCheck, Key, Target, Usable};
use ferrolb_proto::health::prober::{Check, TargetId, Targets};
use ferrolb_proto::range::Family;

use super::reach::Reach;
use super::slices;
use crate::state::State;

/// The most failing Services that a node's status names, each once for a family.
pub const FAILING_MAX: usize = 500;

/// The most questions of one Service that this node asks in a second: of more endpoints each is
/// asked less often.
const QUESTIONS_OF_SERVICE_PER_SECOND_MAX: u32 = 50;

/// What the probe driver is to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Probes {
    /// Whom to ask how.
    pub targets: Arc<Targets>,
    /// How many endpoints are not asked because health checks may not connect to their addresses.
    pub refused: usize,
    /// How many endpoints are asked less often than their Services say, because these have many.
    pub slowed: usize,
}

/// The endpoints whose addresses may not be connected to.
#[derive(Debug, Default)]
pub(super) struct Refused {
    pub(super) count: usize,
    /// One of them.
    first: Option<TargetId>,
}

/// What health checks come to.
#[derive(Debug, Default)]
pub(super) struct Checked<'a> {
    pub(super) targets: Targets,
    /// See [`Probes::refused`].
    pub(super) refused: Refused,
    /// See [`Probes::slowed`].
    pub(super) slowed: usize,
    /// A Service has a check, and checks are off.
    off: bool,
    /// The Services that this node fails, and for which family; what that comes to is the verdict's to say.
    pub(super) failing: BTreeSet<(&'a Key, Family)>,
    /// The first of them, for the node's status.
    pub(super) said: Vec<FailingService>,
}

/// What is to be asked, and what is known of it.
pub(super) fn checked(state: &State) -> Checked<'_> {
    let mut checked = Checked::default();
    let mut services =
        state.services.iter().filter_map(|(key, service)| Some((key, service, service.check.as_deref()?))).peekable();
    if services.peek().is_none() {
        return checked;
    }
    let reach = Reach::new(state);
    checked.off = reach.is_off();
    if checked.off {
        return checked;
    }
    let slices = slices::by_service(state.slices.iter().filter(|(_, slice)| slice.own.is_some()));
    for (key, service, check) in services {
        let has = |family| service.assigned.iter().any(|address| Family::of(*address) == family);
        let targets = targets(&slices, key, service.usable, &check.port);
        let targets = targets.filter(|(target, _)| has(Family::of(target.address)));
        let found = checked.service((state, &reach), key, check, targets);
        for (family, (endpoint, why)) in found.into_iter().filter_map(Found::failing) {
            checked.failing.insert((key, family));
            if checked.said.len() < FAILING_MAX {
                let (namespace, name) = (key.namespace.to_string(), key.name.to_string());
                // The Service's condition repeats it, for people who may not look at the ports of
                // nodes.
                let why = if reach.is_own(endpoint.ip()) { "it does not pass: see the speaker's log" } else { why };
                let (endpoint, message) = (endpoint.to_string(), why.to_owned());
                checked.said.push(FailingService { namespace, name, endpoint, message });
            }
        }
    }
    checked
}

impl Checked<'_> {
    /// How many Services this node fails.
    pub(super) fn services(&self) -> i64 {
        let services: BTreeSet<_> = self.failing.iter().map(|(key, _)| key).collect();
        i64::try_from(services.len()).unwrap_or(i64::MAX)
    }

    /// Adds whom to ask for a Service. What is known of its endpoints here, of each family.
    fn service<'a>(
        &mut self,
        (state, reach): (&'a State, &Reach<'_>),
        key: &Key,
        check: &HealthCheck,
        targets: impl Iterator<Item = (Target, Option<u16>)>,
    ) -> [Found<'a>; 2] {
        let service = Arc::new(key.clone());
        let mut found = [Found::default(); 2];
        let mut asked = BTreeSet::new();
        for (target, port) in targets {
            let found = &mut found[Family::of(target.address) as usize];
            let Some(port) = port else {
                found.passes = true;
                continue;
            };
            let id = TargetId { service: Arc::clone(&service), endpoint: SocketAddr::new(target.address, port) };
            if !reach.allows(&target, port) {
                found.passes = true;
                self.refused.count += 1;
                self.refused.first.get_or_insert(id);
                continue;
            }
            match state.failing.get(&id) {
                Some(why) => found.fails = found.fails.or(Some((id.endpoint, &**why))),
                None => found.passes = true,
            }
            asked.insert(id);
        }
        let how = Check::new(check, &state.config.checks);
        let interval = how.interval.max(interval_min(asked.len()));
        self.slowed += if interval > how.interval { asked.len() } else { 0 };
        let how = Arc::new(Check { interval, ..how });
        self.targets.extend(asked.into_iter().map(|id| (id, Arc::clone(&how))));
        found
    }

    /// Which endpoints are not checked because of their addresses, and what to do about it.
    pub(super) fn unchecked(&self, state: &State) -> String {
        if self.off {
            return "no endpoint is checked: --health-checks is off".to_owned();
        }
        let Some(first) = &self.refused.first else { return String::new() };
        format!(
            "endpoints that are not checked: {}, the first is {first}, which is no InternalIP of Node {node} and not in its spec.podCIDRs, or \
             is an address of another Node, or the API server's. If pods of this node have such addresses, name their range in --health-checks",
            self.refused.count,
            node = state.config.node
        )
    }
}

/// The shortest interval at which so many endpoints of a Service are asked.
fn interval_min(endpoints: usize) -> Duration {
    let endpoints = u32::try_from(endpoints).unwrap_or(u32::MAX);
    Duration::from_secs(1).saturating_mul(endpoints) / QUESTIONS_OF_SERVICE_PER_SECOND_MAX
}

/// What is known of a Service's endpoints of one family here.
#[derive(Clone, Copy, Default)]
struct Found<'a> {
    /// The first that fails, and why.
    fails: Option<(SocketAddr, &'a str)>,
    /// One passes, or cannot be asked.
    passes: bool,
}

impl<'a> Found<'a> {
    /// The family and what is known, if all fail.
    fn failing(self) -> Option<(Family, (SocketAddr, &'a str))> {
        let fails = self.fails.filter(|_| !self.passes)?;
        Some((Family::of(fails.0.ip()), fails))
    }
}

/// The usable endpoints on this node of a Service, each with its port if its slice has one of that name.
fn targets<'a>(
    slices: &[slices::Named<'a>],
    service: &Key,
    usable: Usable,
    port: &'a CheckPort,
) -> impl Iterator<Item = (Target, Option<u16>)> {
    let own = slices::of(slices, service).filter_map(|slice| Some((slice, slice.own.as_deref()?)));
    own.flat_map(move |(slice, own)| {
        let number = match port {
            CheckPort::Number(number) => Some(*number),
            CheckPort::Named(name) => own.ports.iter().find(|(other, _)| other == name).map(|(_, number)| *number),
        };
        let is_usable =
            move |target: &&Target| slice.endpoints.get(target.endpoint).is_some_and(|endpoint| usable.takes(endpoint));
        own.targets.iter().filter(is_usable).map(move |target| (*target, number))
    })
}
