//! Predicts the effect of changes: a controller with a simulated API server, which stores each
//! write at once. `kubectl ferrolb plan` runs it with a copy of a cluster's objects. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use ferrolb_core::store::Change;
use ferrolb_proto::Instant;
use ferrolb_proto::facts::{AssignedAddress, Key, Service, ServiceCondition, ServiceConditionType};

use super::desired::{
    Condition, CustomResourceStatus, IngressChange, ServiceStatus, Status, Target, Write,
};
use super::event::{Event, ObjectChange, Outcome};
use super::state::{RETRY_INTERVAL, State};

/// Maximum number of rounds of writes after one change. A state that still writes after that has
/// two decisions that contradict each other, which is a bug.
const ROUNDS_MAX: usize = 1_000;
/// Virtual time of one round of writes.
const ROUND: Duration = Duration::from_millis(1);

/// A controller with a simulated API server.
#[derive(Debug)]
pub struct Simulation {
    state: State,
    now: Instant,
    /// The latest simulated write of each Service.
    written: BTreeMap<Key, ServiceStatus>,
    /// The latest simulated write of each custom resource.
    resources: BTreeMap<Target, CustomResourceStatus>,
}

impl Simulation {
    /// Starts with a state that leads and has received all objects, at `now`. The writes that are
    /// due without any change are stored first.
    #[must_use]
    pub fn new(state: State, now: Instant) -> Self {
        let mut simulation =
            Self { state, now, written: BTreeMap::new(), resources: BTreeMap::new() };
        simulation.settle();
        simulation
    }

    /// Handles a change, and stores all writes that follow from it. A changed Service keeps the
    /// status that the simulation has written.
    pub fn change(&mut self, mut event: Event) {
        if let Event::Object(ObjectChange::Service(Change::Apply(service))) = &mut event {
            let written = self.written.get(&service.key).filter(|it| it.uid == service.uid);
            if let Some(status) = written.filter(|_| service.load_balancer) {
                store(service, status);
            }
        }
        self.handle(vec![event]);
        self.settle();
    }

    /// Advances the time until the grace of all missing pools has ended, and another attempt to
    /// assign addresses to waiting Services changes nothing.
    pub fn finish(&mut self) {
        for _ in 0..ROUNDS_MAX {
            let grace_end = self.state.pool_grace_end();
            self.now = grace_end.unwrap_or(self.now + RETRY_INTERVAL).max(self.now);
            self.handle(vec![Event::Tick]);
            let wrote = self.settle();
            if grace_end.is_none() && !wrote {
                return;
            }
        }
    }

    /// Returns whether Services keep addresses of a pool that does not exist, until its grace ends.
    #[must_use]
    pub const fn has_missing_pool(&self) -> bool {
        self.state.pool_grace_end().is_some()
    }

    /// Returns the state of the controller.
    #[must_use]
    pub const fn state(&self) -> &State {
        &self.state
    }

    /// Returns the statuses that the simulation has written to custom resources.
    pub fn resources(&self) -> impl Iterator<Item = (&Target, &CustomResourceStatus)> {
        self.resources.iter()
    }

    fn handle(&mut self, events: Vec<Event>) {
        self.now = self.now + ROUND;
        self.state.handle(events, self.now);
    }

    /// Stores writes until none is due. Returns whether there were any.
    fn settle(&mut self) -> bool {
        for round in 0..ROUNDS_MAX {
            let due: Vec<_> = self.state.writes().cloned().collect();
            if due.is_empty() {
                return round > 0;
            }
            let events = due.into_iter().flat_map(|write| self.store(write)).collect();
            self.handle(events);
        }
        debug_assert!(false, "the simulated controller does not settle");
        true
    }

    /// Stores a write. Returns the events that follow: the changed Service, and the result of the
    /// write.
    fn store(&mut self, write: Write) -> Vec<Event> {
        let (target, attempt) = (write.target(), write.attempt);
        let written = Event::Written { target: target.clone(), attempt, outcome: Outcome::Done };
        let (key, status) = match write.status {
            Status::Service(key, status) => (key, status),
            Status::CustomResource(_, status) => {
                self.resources.insert(target, status);
                return vec![written];
            }
            Status::AddressMemory(_) => return vec![written],
        };
        let Some(service) = self.state.service(&key).filter(|it| it.uid == status.uid) else {
            return vec![written];
        };
        let mut service = service.clone();
        store(&mut service, &status);
        self.written.insert(key, status);
        vec![Event::of::<Service>(Change::Apply(service)), written]
    }
}

/// Applies a written status to a Service, as the API server does.
pub(crate) fn store(service: &mut Service, status: &ServiceStatus) {
    let mode = Some(status.mode);
    match status.ingress {
        IngressChange::Assign => {
            let assigned = |address: &IpAddr| AssignedAddress { address: *address, mode };
            service.assigned = status.addresses.iter().map(assigned).collect();
            (service.has_foreign_ingress, service.ingress_manager) = (false, None);
        }
        // The API server clears the addresses of a Service that is no load balancer.
        IngressChange::Release if !service.load_balancer || service.ingress_manager.is_none() => {
            service.assigned.clear();
        }
        IngressChange::Release | IngressChange::KeepForMetalLb => {}
    }
    service.has_own_fields = status.ingress == IngressChange::Assign || status.condition.is_some();
    service.pool_annotation.clone_from(&status.pool);
    service.record.clone_from(&status.record);
    let fact = |kind| {
        move |condition: &Condition| ServiceCondition {
            kind,
            status: condition.status,
            reason: (*condition.reason).into(),
            message: condition.message.clone(),
            since: condition.since.or(Some(1)),
        }
    };
    let assigned = status.condition.iter().map(fact(ServiceConditionType::AddressAssigned));
    let announced = status.announced.iter().map(fact(ServiceConditionType::Announced));
    service.conditions = assigned.chain(announced).collect();
}
