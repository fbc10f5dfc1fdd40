//! Sequences of events as data, against an API server that does what is desired and echoes it.

mod exchange;
mod properties;
mod rules;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use ferrolb_proto::facts::{AssignedAddress, ConditionFact, Key, Node, Pool, Service};
use ferrolb_proto::range::Family;
use ferrolb_proto::{Instant, api};
use ferrolb_runtime::watch::Change;

use super::{Config, State};
use crate::desired::{Notice, ServiceStatus, Status, Target, Write};
use crate::event::{Advertisement, Event, Leadership, Outcome};
use crate::plan::plan;

/// A cluster and a controller in it.
struct World {
    state: State,
    now: Instant,
    services: BTreeMap<Key, Service>,
    pools: BTreeMap<Box<str>, Pool>,
    nodes: Vec<Node>,
    /// Every Service status that was written, as a short text.
    log: Vec<String>,
    notices: Vec<Notice>,
}

fn config() -> Config {
    Config { classes: vec![api::LOAD_BALANCER_CLASS.to_owned()], default_implementation: true }
}

fn key(name: &str) -> Key {
    Key::new("default", name)
}

fn service(name: &str) -> Service {
    let uid = format!("uid of {name}").into();
    Service { key: key(name), uid, load_balancer: true, families: vec![Family::V4], ..Service::default() }
}

fn dual(name: &str) -> Service {
    Service { families: vec![Family::V6, Family::V4], ..service(name) }
}

fn assigned(name: &str, addresses: &[&str], pool: &str) -> Service {
    let addresses = addresses.iter().map(|text| AssignedAddress { address: text.parse().unwrap(), vip: true });
    Service { assigned: addresses.collect(), from_pool: Some(pool.into()), ..service(name) }
}

fn pool(name: &str, ranges: &[&str]) -> Pool {
    let ranges = ranges.iter().map(|text| text.parse().unwrap()).collect();
    Pool { name: name.into(), ranges, auto_assign: true, generation: 1, ..Pool::default() }
}

fn node(name: &str, address: &str) -> Node {
    Node { name: name.into(), addresses: vec![address.parse().unwrap()], ..Node::default() }
}

impl World {
    /// A cluster whose controller is in office and has nothing to do any more.
    fn new(services: Vec<Service>, pools: Vec<Pool>) -> Self {
        let mut world = Self::unled(services, pools);
        world.lead();
        world.settle();
        world
    }

    /// The same before anybody leads, and before anything is listed.
    fn unled(services: Vec<Service>, pools: Vec<Pool>) -> Self {
        Self {
            state: State::new(config()),
            now: Instant::from_millis(1_000),
            services: services.into_iter().map(|service| (service.key.clone(), service)).collect(),
            pools: pools.into_iter().map(|pool| (pool.name.clone(), pool)).collect(),
            nodes: vec![node("n1", "192.0.2.1")],
            log: Vec::new(),
            notices: Vec::new(),
        }
    }

    fn handle(&mut self, event: Event) {
        self.now = self.now + Duration::from_millis(1);
        self.state.handle(event, self.now);
    }

    /// Gets the lease; then every list comes.
    fn lead(&mut self) {
        self.handle(Event::Lease(Leadership::Gained));
        self.list_all(false);
    }

    fn list_all(&mut self, backwards: bool) {
        let mut events: Vec<Event> =
            self.services.values().cloned().map(|s| Event::Service(Change::Apply(s))).collect();
        events.extend(self.pools.values().cloned().map(|pool| Event::Pool(Change::Apply(pool))));
        events.extend(self.nodes.iter().cloned().map(|node| Event::Node(Change::Apply(node))));
        if backwards {
            events.reverse();
        }
        let kinds = [
            [Event::Service(Change::ResyncStarted), Event::Service(Change::ResyncDone)],
            [Event::Pool(Change::ResyncStarted), Event::Pool(Change::ResyncDone)],
            [Event::Node(Change::ResyncStarted), Event::Node(Change::ResyncDone)],
            [Event::Advertisement(Change::ResyncStarted), Event::Advertisement(Change::ResyncDone)],
        ];
        let (started, done): (Vec<_>, Vec<_>) = kinds.into_iter().map(|[started, done]| (started, done)).unzip();
        started.into_iter().chain(events).chain(done).for_each(|event| self.handle(event));
    }

    /// Another process takes over from the cluster as it is.
    fn restart(&mut self) {
        self.state = State::new(config());
        self.lead();
    }

    fn apply(&mut self, service: Service) {
        self.services.insert(service.key.clone(), service.clone());
        self.handle(Event::Service(Change::Apply(service)));
    }

    fn change(&mut self, name: &str, change: impl FnOnce(&mut Service)) {
        let mut service = self.services[&key(name)].clone();
        change(&mut service);
        self.apply(service);
    }

    fn delete(&mut self, name: &str) {
        self.services.remove(&key(name));
        self.handle(Event::Service(Change::Delete(key(name))));
    }

    fn apply_pool(&mut self, pool: Pool) {
        let status = self.pools.get(&pool.name).map(|pool| pool.status.clone()).unwrap_or_default();
        let pool = Pool { status, ..pool };
        self.pools.insert(pool.name.clone(), pool.clone());
        self.handle(Event::Pool(Change::Apply(pool)));
    }

    fn delete_pool(&mut self, name: &str) {
        self.pools.remove(name);
        self.handle(Event::Pool(Change::Delete(Key::new(api::NAMESPACE, name))));
    }

    fn writes(&self) -> Vec<Write> {
        plan(&self.state, self.now).writes
    }

    /// Writes what is due, echoes it, and lets time pass, until nothing is due for an hour.
    fn settle(&mut self) {
        for _ in 0..10_000 {
            for write in self.writes() {
                self.write(&write);
            }
            if self.writes().is_empty() {
                let Some(deadline) = self.state.deadline(self.now) else { return };
                self.now = self.now.max(deadline);
                self.handle(Event::Tick);
            }
        }
        panic!("it never settles: {:?}", self.writes());
    }

    /// The API server takes a write; its echo comes before the answer, as it may.
    fn write(&mut self, write: &Write) {
        let (target, attempt) = (write.target.clone(), write.attempt);
        match (&write.target, &write.status) {
            (Target::Service(key), Status::Service(status)) => {
                if let Some(mut service) = self.services.get(key).filter(|service| service.uid == status.uid).cloned() {
                    self.log.push(format!("{} {}", key.name, text(&status.addresses)));
                    self.notices.extend(status.notice.clone());
                    store(&mut service, status);
                    self.apply(service);
                }
            }
            (Target::Pool(name), Status::Pool(status)) => {
                if let Some(mut pool) = self.pools.get(name).cloned() {
                    super::pools::assume_pool(&mut pool.status, status);
                    self.apply_status(pool);
                }
            }
            (Target::Advertisement(_), _) | (_, _) => {}
        }
        self.handle(Event::Written { target, attempt, outcome: Outcome::Done });
    }

    fn apply_status(&mut self, pool: Pool) {
        self.pools.insert(pool.name.clone(), pool.clone());
        self.handle(Event::Pool(Change::Apply(pool)));
    }

    /// The statuses of all Services: `name=addresses`.
    fn shown(&self) -> Vec<String> {
        let addresses =
            |service: &Service| service.assigned.iter().map(|assigned| assigned.address).collect::<Vec<_>>();
        self.services.values().map(|service| format!("{}={}", service.key.name, text(&addresses(service)))).collect()
    }

    fn reason(&self, name: &str) -> String {
        self.services[&key(name)].conditions.first().map(|condition| condition.reason.to_string()).unwrap_or_default()
    }

    fn message(&self, name: &str) -> String {
        self.services[&key(name)].conditions.first().map(|condition| condition.message.to_string()).unwrap_or_default()
    }
}

fn text(addresses: &[IpAddr]) -> String {
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

/// What the API server makes of a write.
fn store(service: &mut Service, status: &ServiceStatus) {
    service.assigned =
        status.addresses.iter().map(|address| AssignedAddress { address: *address, vip: true }).collect();
    service.foreign_ingress = false;
    service.from_pool.clone_from(&status.pool);
    service.conditions = status
        .condition
        .iter()
        .map(|condition| ConditionFact {
            kind: api::CONDITION_ADDRESS_ASSIGNED.into(),
            is_true: condition.is_true,
            reason: condition.reason.into(),
            message: condition.message.clone(),
            since: condition.since.clone().unwrap_or_else(|| "now".into()),
        })
        .collect();
}
