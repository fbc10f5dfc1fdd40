//! Health checks of endpoints: whom this node asks, and what their answers make of its Services. Pure.
//!
//! A node asks its own endpoints only, and of these those that are usable, of families that the Service has an address of: what is not
//! counts for nothing anyway. It fails a family of a Service when it asks all of these and all of them fail; where one cannot be asked,
//! readiness alone decides.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use ferrolb_proto::api::FailingService;
use ferrolb_proto::facts::{CheckPort, HealthCheck, Key, Target, Usable};
use ferrolb_proto::health::prober::{Check, TargetId, Targets};
use ferrolb_proto::range::Family;

use super::slices;
use crate::state::State;

/// The most failing Services that a node's status names, each once for a family.
pub const FAILING_MAX: usize = 500;

/// What the probe driver is to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Probes {
    /// Whom to ask how.
    pub targets: Arc<Targets>,
    /// How many endpoints are not asked because of their addresses: see [`Target::may_be_asked`].
    pub refused: usize,
}

/// What health checks come to.
#[derive(Debug, Default)]
pub(super) struct Checked<'a> {
    pub(super) targets: Targets,
    /// See [`Probes::refused`].
    pub(super) refused: usize,
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
    let slices = slices::by_service(state.slices.iter().filter(|(_, slice)| slice.own.is_some()));
    for (key, service, check) in services {
        let has = |family| service.assigned.iter().any(|address| Family::of(*address) == family);
        let targets = targets(&slices, key, service.usable, &check.port);
        let found = checked.service(state, key, check, targets.filter(|(target, _)| has(Family::of(target.address))));
        for (family, (endpoint, why)) in found.into_iter().filter_map(Found::failing) {
            checked.failing.insert((key, family));
            if checked.said.len() < FAILING_MAX {
                let (namespace, name) = (key.namespace.to_string(), key.name.to_string());
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
        state: &'a State,
        key: &Key,
        check: &HealthCheck,
        targets: impl Iterator<Item = (Target, Option<u16>)>,
    ) -> [Found<'a>; 2] {
        let (service, how) = (Arc::new(key.clone()), Arc::new(Check::new(check, &state.config.checks)));
        let mut found = [Found::default(); 2];
        for (target, port) in targets {
            let found = &mut found[Family::of(target.address) as usize];
            let asked = port.filter(|_| target.may_be_asked());
            self.refused += usize::from(!target.may_be_asked());
            let Some(port) = asked else {
                found.passes = true;
                continue;
            };
            let id = TargetId { service: Arc::clone(&service), endpoint: SocketAddr::new(target.address, port) };
            match state.failing.get(&id) {
                Some(why) => found.fails = found.fails.or(Some((id.endpoint, &**why))),
                None => found.passes = true,
            }
            self.targets.insert(id, Arc::clone(&how));
        }
        found
    }
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
