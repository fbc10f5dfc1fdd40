//! Tests of the state with sequences of events. A fake API server stores each write and reports the
//! written object back, as a watch does.

mod announced;
mod bgp;
mod contest;
mod exchange;
mod messages;
mod model;
mod node_failure;
mod properties;
mod record;
mod rules;
mod script;
mod sticky;
mod table;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ferrolb_core::store::Change;
use ferrolb_proto::api::{CustomResourceKind, IpMode};
use ferrolb_proto::facts::{
    AddressMemory, AssignedAddress, EndpointSlice, Key, L2Advertisement, Namespace, Node, Pool,
    Service, ServiceCondition, ServiceConditionType, Speaker,
};
use ferrolb_proto::range::Family;
use ferrolb_proto::{Instant, api};

use super::custom_resources::StatusResource as _;
use super::{Config, Names, State};
use crate::desired::{CustomResourceStatus, Notice, Status, Target, Write};
use crate::event::{Event, Leadership, Outcome};
use crate::node_failure::failures::MarkScope;
use crate::plan::plan;
use crate::simulation::store;

/// Objects of a cluster, and the state of its controller.
struct Cluster {
    state: State,
    now: Instant,
    services: BTreeMap<Key, Service>,
    pools: BTreeMap<Box<str>, Pool>,
    nodes: BTreeMap<Arc<str>, Node>,
    speakers: BTreeMap<Box<str>, Speaker>,
    /// The EndpointSlice of the API servers.
    api_server: Option<EndpointSlice>,
    namespaces: BTreeMap<Box<str>, Namespace>,
    /// The ConfigMap with the addresses of deleted Services.
    address_memory: Option<AddressMemory>,
    /// Every Service status that was written, as a short text.
    log: Vec<String>,
    notices: Vec<Notice>,
}

/// Time without a write after which a cluster counts as settled: longer than any retry delay.
const QUIET_TIME: Duration = Duration::from_secs(900);

fn config() -> Config {
    Config {
        classes: vec![api::LOAD_BALANCER_CLASS.to_owned()],
        default_implementation: true,
        names: default_names(),
        foreign_custom_resources: false,
        pool_grace: Duration::from_secs(60),
        node_failure_endpoints: MarkScope::Services,
        node: "".into(),
    }
}

/// Returns the names of an installation with default flags.
fn default_names() -> Names {
    Names { namespace: api::NAMESPACE.to_owned(), group: api::GROUP.to_owned() }
}

/// Returns a lease that does not expire during a test.
fn permanent_lease() -> Leadership {
    Leadership::Held(Instant::from_nanos(u64::MAX))
}

fn key(name: &str) -> Key {
    Key::new("default", name)
}

fn service(name: &str) -> Service {
    let uid = format!("uid of {name}").into();
    Service {
        key: key(name),
        uid,
        load_balancer: true,
        families: vec![Family::V4],
        ..Service::default()
    }
}

fn dual_stack_service(name: &str) -> Service {
    Service { families: vec![Family::V6, Family::V4], ..service(name) }
}

/// Returns a Service whose status has these addresses of a pool.
fn service_with_addresses(name: &str, addresses: &[&str], pool: &str) -> Service {
    let addresses = addresses
        .iter()
        .map(|text| AssignedAddress { address: text.parse().unwrap(), mode: Some(IpMode::Vip) });
    Service { assigned: addresses.collect(), pool_annotation: Some(pool.into()), ..service(name) }
}

fn pool(name: &str, ranges: &[&str]) -> Pool {
    let ranges = ranges.iter().map(|text| text.parse().unwrap()).collect();
    Pool { name: name.into(), ranges, auto_assign: true, generation: 1, ..Pool::default() }
}

fn node(name: &str, address: &str) -> Node {
    Node { name: name.into(), addresses: vec![address.parse().unwrap()], ..Node::default() }
}

/// Order of the objects in the lists that the watches report.
#[derive(Clone, Copy)]
enum Order {
    ByName,
    Reversed,
    Shuffled(Random),
}

/// Reproducible random numbers: xorshift64 of a seed.
#[derive(Clone, Copy)]
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % limit.max(1)
    }

    fn shuffle<T>(&mut self, things: &mut [T]) {
        for last in (1..things.len()).rev() {
            things.swap(last, self.below(last + 1));
        }
    }
}

impl Cluster {
    /// Returns a cluster whose controller is the active leader and has nothing left to write.
    fn new(services: Vec<Service>, pools: Vec<Pool>) -> Self {
        let mut cluster = Self::without_leader(services, pools);
        cluster.become_leader();
        cluster.settle();
        cluster
    }

    /// Returns a cluster without a leader, before any list was read.
    fn without_leader(services: Vec<Service>, pools: Vec<Pool>) -> Self {
        Self {
            state: State::new(config()),
            now: Instant::from_millis(1_000),
            services: services.into_iter().map(|service| (service.key.clone(), service)).collect(),
            pools: pools.into_iter().map(|pool| (pool.name.clone(), pool)).collect(),
            nodes: [("n1".into(), node("n1", "192.0.2.1"))].into(),
            speakers: BTreeMap::new(),
            api_server: None,
            namespaces: BTreeMap::new(),
            address_memory: None,
            log: Vec::new(),
            notices: Vec::new(),
        }
    }

    /// Copies the objects on which the addresses of Services depend.
    fn copy_inputs(&mut self, other: &Self) {
        self.pools.clone_from(&other.pools);
        self.nodes.clone_from(&other.nodes);
        self.namespaces.clone_from(&other.namespaces);
        self.speakers.clone_from(&other.speakers);
        self.api_server.clone_from(&other.api_server);
    }

    fn handle(&mut self, event: Event) {
        self.handle_all(vec![event]);
    }

    /// Handles all these events in one pass.
    fn handle_all(&mut self, events: Vec<Event>) {
        self.now = self.now + Duration::from_millis(1);
        self.state.handle(events, self.now);
    }

    /// Acquires the lease, then reports every list to the state.
    fn become_leader(&mut self) {
        self.become_leader_with(Order::ByName);
    }

    fn become_leader_with(&mut self, order: Order) {
        self.handle(Event::Lease(permanent_lease()));
        self.list_all(order);
    }

    fn list_all(&mut self, order: Order) {
        let mut events: Vec<Event> = self
            .services
            .values()
            .cloned()
            .map(|s| Event::of::<Service>(Change::Apply(s)))
            .collect();
        events.extend(
            self.pools.values().cloned().map(|pool| Event::of::<Pool>(Change::Apply(pool))),
        );
        events.extend(
            self.nodes.values().cloned().map(|node| Event::of::<Node>(Change::Apply(node))),
        );
        events.extend(self.speakers.values().cloned().map(Change::Apply).map(Event::of::<Speaker>));
        events.extend(self.api_server.clone().map(Change::Apply).map(Event::of::<EndpointSlice>));
        events.extend(
            self.namespaces
                .values()
                .cloned()
                .map(|namespace| Event::of::<Namespace>(Change::Apply(namespace))),
        );
        events
            .extend(self.address_memory.clone().map(Change::Apply).map(Event::of::<AddressMemory>));
        match order {
            Order::ByName => {}
            Order::Reversed => events.reverse(),
            Order::Shuffled(mut random) => random.shuffle(&mut events),
        }
        let kinds = [
            [Event::of::<Service>(Change::ResyncStarted), Event::of::<Service>(Change::ResyncDone)],
            [
                Event::of::<AddressMemory>(Change::ResyncStarted),
                Event::of::<AddressMemory>(Change::ResyncDone),
            ],
            [Event::of::<Pool>(Change::ResyncStarted), Event::of::<Pool>(Change::ResyncDone)],
            [Event::of::<Node>(Change::ResyncStarted), Event::of::<Node>(Change::ResyncDone)],
            [
                Event::of::<Namespace>(Change::ResyncStarted),
                Event::of::<Namespace>(Change::ResyncDone),
            ],
            [
                Event::of::<L2Advertisement>(Change::ResyncStarted),
                Event::of::<L2Advertisement>(Change::ResyncDone),
            ],
        ];
        let (started, mut done): (Vec<_>, Vec<_>) =
            kinds.into_iter().map(|[started, done]| (started, done)).unzip();
        if let Order::Shuffled(mut random) = order {
            random.shuffle(&mut done);
        }
        let mut events: Vec<Event> = started.into_iter().chain(events).chain(done).collect();
        match order {
            Order::ByName | Order::Reversed => {
                events.into_iter().for_each(|event| self.handle(event))
            }
            Order::Shuffled(mut random) => {
                while !events.is_empty() {
                    let pass = random.below(8).min(events.len() - 1) + 1;
                    self.handle_all(events.drain(..pass).collect());
                }
            }
        }
    }

    /// Replaces the controller by a new process, which lists the current objects of the cluster.
    fn restart(&mut self) {
        self.restart_with(Order::ByName);
    }

    fn restart_with(&mut self, order: Order) {
        self.state = State::new(config());
        self.become_leader_with(order);
    }

    fn apply(&mut self, service: Service) {
        self.services.insert(service.key.clone(), service.clone());
        self.handle(Event::of::<Service>(Change::Apply(service)));
    }

    fn change(&mut self, name: &str, change: impl FnOnce(&mut Service)) {
        let mut service = self.services[&key(name)].clone();
        change(&mut service);
        self.apply(service);
    }

    fn delete(&mut self, name: &str) {
        self.services.remove(&key(name));
        self.handle(Event::of::<Service>(Change::Delete(key(name))));
    }

    fn apply_pool(&mut self, pool: Pool) {
        let status = self.pools.get(&pool.name).map(|pool| pool.status.clone()).unwrap_or_default();
        let pool = Pool { status, ..pool };
        self.pools.insert(pool.name.clone(), pool.clone());
        self.handle(Event::of::<Pool>(Change::Apply(pool)));
    }

    fn delete_pool(&mut self, name: &str) {
        self.pools.remove(name);
        self.handle(Event::of::<Pool>(Change::Delete(Key::new(api::NAMESPACE, name))));
    }

    fn writes(&self) -> Vec<Write> {
        plan(&self.state).writes
    }

    /// Advances the time, and lets the state handle what is due then.
    fn advance(&mut self, time: Duration) {
        self.now = self.now + time;
        self.handle(Event::Tick);
    }

    /// Executes due writes, and advances the time until no write was due for [`QUIET_TIME`].
    fn settle(&mut self) {
        let mut quiet_since = self.now;
        for _ in 0..10_000 {
            for write in self.writes() {
                self.write(&write);
                quiet_since = self.now;
            }
            if self.writes().is_empty() {
                let Some(deadline) = self.state.deadline(self.now) else { return };
                if deadline.since(quiet_since) > QUIET_TIME {
                    return;
                }
                self.now = self.now.max(deadline);
                self.handle(Event::Tick);
            }
        }
        panic!("the controller never settles: {:?}", self.writes());
    }

    /// Stores a write. The watch reports the written object before the reply to the write arrives:
    /// the API server guarantees no order.
    fn write(&mut self, write: &Write) {
        self.store_write(write);
        self.report(write, Outcome::Done);
    }

    fn report(&mut self, write: &Write, outcome: Outcome) {
        let (target, attempt) = (write.target(), write.attempt);
        self.handle(Event::Written { target, attempt, outcome });
    }

    fn store_write(&mut self, write: &Write) {
        match &write.status {
            Status::Service(key, status) => {
                if let Some(mut service) =
                    self.services.get(key).filter(|service| service.uid == status.uid).cloned()
                {
                    self.log.push(format!("{} {}", key.name(), joined(&status.addresses)));
                    self.notices.extend(status.notices.clone());
                    store(&mut service, status);
                    self.apply(service);
                }
            }
            Status::CustomResource(name, status @ CustomResourceStatus::Pool(_)) => {
                if let Some(mut pool) = self.pools.get(name).cloned() {
                    pool.record_written(status);
                    self.apply_status(pool);
                }
            }
            Status::CustomResource(..) => {}
            Status::AddressMemory(services) => {
                let name = api::ADDRESS_MEMORY.into();
                self.address_memory = Some(AddressMemory { name, services: services.clone() });
                self.report_address_memory();
            }
        }
    }

    fn report_address_memory(&mut self) {
        let change = match self.address_memory.clone() {
            Some(memory) => Change::Apply(memory),
            None => Change::Delete(Key::new(api::NAMESPACE, api::ADDRESS_MEMORY)),
        };
        self.handle(Event::of::<AddressMemory>(change));
    }

    fn apply_status(&mut self, pool: Pool) {
        self.pools.insert(pool.name.clone(), pool.clone());
        self.handle(Event::of::<Pool>(Change::Apply(pool)));
    }

    /// Returns the statuses of all Services as `name=addresses`.
    fn statuses(&self) -> Vec<String> {
        let addresses = |service: &Service| {
            service.assigned.iter().map(|assigned| assigned.address).collect::<Vec<_>>()
        };
        self.services
            .values()
            .map(|service| format!("{}={}", service.key.name(), joined(&addresses(service))))
            .collect()
    }

    fn reason(&self, name: &str) -> String {
        self.services[&key(name)]
            .conditions
            .first()
            .map(|condition| condition.reason.to_string())
            .unwrap_or_default()
    }

    fn message(&self, name: &str) -> String {
        self.services[&key(name)]
            .conditions
            .first()
            .map(|condition| condition.message.to_string())
            .unwrap_or_default()
    }
}

fn joined(addresses: &[IpAddr]) -> String {
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}
