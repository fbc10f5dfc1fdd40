//! Health checks of endpoints: whom this node asks, and what their answers make of its Services. Pure.
//!
//! A node asks its own endpoints only, and of these those that are usable: what is not counts for nothing anyway. It fails a Service
//! when it asks all of them and all of them fail; where one cannot be asked, readiness alone decides.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use ferrolb_proto::api::FailingService;
use ferrolb_proto::facts::{CheckPort, HealthCheck, Key, Target, Usable};
use ferrolb_proto::health::prober::{Check, TargetId, Targets};

use super::slices;
use crate::state::State;

/// The most Services that a node's status names as failing.
pub const FAILING_SERVICES_MAX: usize = 500;

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
    /// The Services that this node fails; what that comes to is the verdict's to say.
    pub(super) failing: BTreeSet<&'a Key>,
    /// The first of them, for the node's status.
    pub(super) said: Vec<FailingService>,
}

/// What is to be asked, and what is known of it.
pub(super) fn checked(state: &State) -> Checked<'_> {
    let mut checked = Checked::default();
    let mut services = state
        .services
        .iter()
        .filter_map(|(key, service)| Some((key, service.usable, service.check.as_deref()?)))
        .peekable();
    if services.peek().is_none() {
        return checked;
    }
    let slices = slices::by_service(state.slices.iter().filter(|(_, slice)| slice.own.is_some()));
    for (key, usable, check) in services {
        let Some((endpoint, why)) = checked.service(state, key, check, targets(&slices, key, usable, &check.port))
        else {
            continue;
        };
        checked.failing.insert(key);
        if checked.said.len() < FAILING_SERVICES_MAX {
            let (namespace, name) = (key.namespace.to_string(), key.name.to_string());
            let (endpoint, message) = (endpoint.to_string(), why.to_owned());
            checked.said.push(FailingService { namespace, name, endpoint, message });
        }
    }
    checked
}

impl Checked<'_> {
    /// Adds whom to ask for a Service. If all its usable endpoints here fail, the first of them and why.
    fn service<'a>(
        &mut self,
        state: &'a State,
        key: &Key,
        check: &HealthCheck,
        targets: impl Iterator<Item = (Target, Option<u16>)>,
    ) -> Option<(SocketAddr, &'a str)> {
        let (service, how) = (Arc::new(key.clone()), Arc::new(Check::new(check, &state.config.checks)));
        let (mut first, mut all) = (None, true);
        for (target, port) in targets {
            let asked = port.filter(|_| target.may_be_asked());
            self.refused += usize::from(!target.may_be_asked());
            let Some(port) = asked else {
                all = false;
                continue;
            };
            let id = TargetId { service: Arc::clone(&service), endpoint: SocketAddr::new(target.address, port) };
            match state.failing.get(&id) {
                Some(why) => first = first.or(Some((id.endpoint, &**why))),
                None => all = false,
            }
            self.targets.insert(id, Arc::clone(&how));
        }
        first.filter(|_| all)
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
