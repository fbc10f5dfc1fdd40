//! All that the controller knows and has decided. One owner, the main loop; pure: events and time go in, nothing comes out but
//! what [`crate::plan`] reads.
//!
//! Every replica keeps the facts. Only the one that holds the lease decides, and not before it has seen a whole list of each
//! kind, the Services' made after it got the lease: then what the Services' statuses say is taken as given, by the order of
//! their names, and only then is anything new given out. So a change of the leader, like a restart, loses and doubles
//! nothing. An address is promised from the moment of the decision, whatever becomes of the write.

mod agenda;
mod alloc;
mod decide;
mod dump;
mod inventory;
mod pools;
mod service;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use ferrolb_proto::Instant;
use ferrolb_proto::facts::{Key, Node, Pool, PoolProblem, Service};
use ferrolb_runtime::watch::Change;

use crate::desired::{AdvertisementStatus, Figures, PoolStatus, Status, Target};
use crate::event::{Advertisement, Event, Leadership, Outcome};

use agenda::{Agenda, Draft};
use alloc::Allocator;
use inventory::Inventory;
use pools::Fault;

/// The shortest time between two writes of one pool's or advertisement's status: its counts change with each Service.
pub const COUNTS_INTERVAL: Duration = Duration::from_secs(1);

/// Whose Services are ours.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// `--load-balancer-class`.
    pub classes: Vec<String>,
    /// `--default-implementation`.
    pub default_implementation: bool,
}

/// An object of our own kinds, and its status as it should be.
#[derive(Debug)]
struct Own<F, S> {
    object: F,
    draft: Draft<S>,
    quiet_until: Instant,
}

/// The state. See the module's head.
#[derive(Debug)]
pub struct State {
    config: Config,
    /// The terms for which this replica has had the lease, this one included.
    terms: u32,
    leading: bool,
    /// Leading, and what there is was adopted.
    in_office: bool,
    services: Inventory<service::Entry>,
    nodes: Inventory<Vec<IpAddr>>,
    pools: Inventory<Own<Pool, PoolStatus>>,
    advertisements: Inventory<Own<Advertisement, AdvertisementStatus>>,
    faults: BTreeMap<Box<str>, Fault>,
    allocator: Allocator,
    /// Services that do not have all that they need.
    waiting: BTreeSet<Key>,
    agenda: Agenda,
    /// Our Services by the reason of their condition.
    reasons: BTreeMap<&'static str, i64>,
}

/// Our own kinds are all in one namespace, and their facts do not carry it.
fn bare(name: &str) -> Key {
    Key::new("", name)
}

impl State {
    /// A state that knows nothing yet.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self {
            config,
            terms: 0,
            leading: false,
            in_office: false,
            services: Inventory::default(),
            nodes: Inventory::default(),
            pools: Inventory::default(),
            advertisements: Inventory::default(),
            faults: BTreeMap::new(),
            allocator: Allocator::default(),
            waiting: BTreeSet::new(),
            agenda: Agenda::default(),
            reasons: BTreeMap::new(),
        }
    }

    /// Takes one event that happened at `now`; times never go backwards.
    pub fn handle(&mut self, event: Event, now: Instant) {
        match event {
            Event::Service(change) => self.service(change, now),
            Event::Node(change) => self.node(change, now),
            Event::Pool(change) => self.pool(change, now),
            Event::Advertisement(change) => self.advertisement(change, now),
            Event::Lease(leadership) => self.lease(leadership),
            Event::Written { target, attempt, outcome } => self.written(&target, attempt, outcome, now),
            Event::Tick => {}
        }
        if self.leading && !self.in_office && self.is_complete() {
            self.in_office = true;
            self.decide_all(now);
        }
    }

    /// Which time this replica holds the lease, if it does.
    #[must_use]
    pub fn term(&self) -> Option<u32> {
        self.leading.then_some(self.terms)
    }

    fn is_complete(&self) -> bool {
        self.services.is_complete()
            && self.nodes.is_complete()
            && self.pools.is_complete()
            && self.advertisements.is_complete()
    }

    /// The kinds of which there never was a whole list.
    #[must_use]
    pub fn never_listed(&self) -> Vec<&'static str> {
        let kinds = [
            ("Services", self.services.was_listed()),
            ("Nodes", self.nodes.was_listed()),
            ("IPAddressPools", self.pools.was_listed()),
            ("L2Advertisements", self.advertisements.was_listed()),
        ];
        kinds.into_iter().filter(|(_, listed)| !listed).map(|(kind, _)| kind).collect()
    }

    /// What is to be written at `now`, the longest due first.
    pub fn due(&self, now: Instant) -> impl Iterator<Item = (&Target, u64, Status)> {
        self.agenda.due(now).filter_map(|target| {
            let (attempt, status) = match target {
                Target::Service(key) => {
                    let (attempt, status) = self.services.get(key)?.draft.write()?;
                    (attempt, Status::Service(status.clone()))
                }
                Target::Pool(name) => {
                    let (attempt, status) = self.pools.get(&bare(name))?.draft.write()?;
                    (attempt, Status::Pool(status.clone()))
                }
                Target::Advertisement(name) => {
                    let (attempt, status) = self.advertisements.get(&bare(name))?.draft.write()?;
                    (attempt, Status::Advertisement(status.clone()))
                }
            };
            Some((target, attempt, status))
        })
    }

    /// When an [`Event::Tick`] is needed next, after `now`.
    #[must_use]
    pub fn deadline(&self, now: Instant) -> Option<Instant> {
        self.agenda.deadline(now)
    }

    /// What the metrics say.
    #[must_use]
    pub fn figures(&self) -> Figures {
        Figures {
            leading: self.leading,
            pools: self.allocator.usage(),
            services: self.reasons.iter().map(|(reason, count)| (*reason, *count)).collect(),
        }
    }

    fn service(&mut self, change: Change<Service>, now: Instant) {
        match change {
            Change::ResyncStarted => self.services.resync_started(),
            Change::Apply(service) => {
                let key = service.key.clone();
                if self.services.get(&key).is_some_and(|entry| entry.service.uid != service.uid) {
                    self.forget(&key, now);
                }
                if let Some(entry) = self.services.get_mut(&key) {
                    entry.service = service;
                    self.services.touch(&key);
                } else {
                    self.services.put(key.clone(), service::Entry { service, ..service::Entry::default() });
                }
                self.decide_one(&key, now);
            }
            Change::Unreadable { key, .. } => self.services.touch(&key),
            Change::Delete(key) => self.forget(&key, now),
            Change::ResyncDone => {
                for (key, entry) in self.services.resync_done() {
                    self.release(&key, entry, now);
                }
            }
        }
    }

    fn forget(&mut self, key: &Key, now: Instant) {
        if let Some(entry) = self.services.remove(key) {
            self.release(key, entry, now);
        }
    }

    fn node(&mut self, change: Change<Node>, now: Instant) {
        let changed = match change {
            Change::ResyncStarted => {
                self.nodes.resync_started();
                false
            }
            Change::Apply(node) => {
                let before = self.nodes.put(bare(&node.name), node.addresses.clone());
                before.unwrap_or_default() != node.addresses
            }
            Change::Unreadable { key, .. } => {
                self.nodes.touch(&bare(&key.name));
                false
            }
            Change::Delete(key) => self.nodes.remove(&bare(&key.name)).is_some(),
            Change::ResyncDone => !self.nodes.resync_done().is_empty(),
        };
        if changed && self.in_office {
            self.decide_all(now);
        }
    }

    fn pool(&mut self, change: Change<Pool>, now: Instant) {
        let spaces = |pool: &Pool| {
            let Pool { ranges, excluded, auto_assign, avoid_buggy, problem, .. } = pool.clone();
            (ranges, excluded, auto_assign, avoid_buggy, problem)
        };
        let mut shown = None;
        let changed = match change {
            Change::ResyncStarted => {
                self.pools.resync_started();
                false
            }
            Change::Apply(pool) => {
                shown = Some(pool.name.clone());
                put(&mut self.pools, bare(&pool.name), pool, |is, was| spaces(is) != spaces(was))
            }
            Change::Unreadable { key, why } => {
                shown = Some(key.name.clone());
                let before = self.pools.get(&bare(&key.name)).map(|own| &own.object);
                // What was written to it last is all that can be known of its status.
                let pool = Pool {
                    name: key.name.clone(),
                    generation: before.map_or(0, |pool| pool.generation),
                    status: before.map(|pool| pool.status.clone()).unwrap_or_default(),
                    problem: Some(PoolProblem::Unreadable(why.into())),
                    ..Pool::default()
                };
                put(&mut self.pools, bare(&key.name), pool, |is, was| spaces(is) != spaces(was))
            }
            Change::Delete(key) => match self.pools.remove(&bare(&key.name)) {
                Some(mut own) => {
                    self.agenda.withdraw(&mut own.draft);
                    true
                }
                None => false,
            },
            Change::ResyncDone => {
                let mut gone = self.pools.resync_done();
                gone.iter_mut().for_each(|(_, own)| self.agenda.withdraw(&mut own.draft));
                !gone.is_empty()
            }
        };
        if changed && self.in_office {
            self.decide_all(now);
        } else if let Some(name) = shown {
            self.settle_pool(&name, now);
        }
    }

    fn advertisement(&mut self, change: Change<Advertisement>, now: Instant) {
        match change {
            Change::ResyncStarted => self.advertisements.resync_started(),
            Change::Apply(ad) => {
                let name = ad.name.clone();
                put(&mut self.advertisements, bare(&name), ad, |_, _| true);
                self.settle_advertisement(&name, now);
            }
            Change::Unreadable { key, why } => {
                let before = self.advertisements.get(&bare(&key.name)).map(|own| own.object.clone());
                let problem = Some(format!("the object cannot be read: {why}").into());
                let ad = Advertisement { name: key.name.clone(), problem, ..before.unwrap_or_default() };
                put(&mut self.advertisements, bare(&key.name), ad, |_, _| true);
                self.settle_advertisement(&key.name, now);
            }
            Change::Delete(key) => {
                if let Some(mut own) = self.advertisements.remove(&bare(&key.name)) {
                    self.agenda.withdraw(&mut own.draft);
                }
            }
            Change::ResyncDone => {
                for (_, mut own) in self.advertisements.resync_done() {
                    self.agenda.withdraw(&mut own.draft);
                }
            }
        }
    }

    fn lease(&mut self, leadership: Leadership) {
        self.leading = leadership == Leadership::Gained;
        if self.leading {
            self.terms += 1;
            self.services.doubt();
        }
        self.resign();
    }

    fn written(&mut self, target: &Target, attempt: u64, outcome: Outcome, now: Instant) {
        match target {
            Target::Service(key) => {
                let Some(entry) = self.services.get_mut(key) else { return };
                match outcome {
                    Outcome::Done if self.agenda.done(&mut entry.draft, attempt, now).is_some() => entry.lost.clear(),
                    Outcome::Done => {}
                    Outcome::Failed => self.agenda.failed(target, &mut entry.draft, attempt, now),
                }
            }
            Target::Pool(name) => {
                let Some(own) = self.pools.get_mut(&bare(name)) else { return };
                own.quiet_until = now + COUNTS_INTERVAL;
                match outcome {
                    Outcome::Done => {
                        if let Some(status) = self.agenda.done(&mut own.draft, attempt, now) {
                            pools::assume_pool(&mut own.object.status, &status);
                        }
                    }
                    Outcome::Failed => self.agenda.failed(target, &mut own.draft, attempt, now),
                }
            }
            Target::Advertisement(name) => {
                let Some(own) = self.advertisements.get_mut(&bare(name)) else { return };
                own.quiet_until = now + COUNTS_INTERVAL;
                match outcome {
                    Outcome::Done => {
                        if let Some(status) = self.agenda.done(&mut own.draft, attempt, now) {
                            pools::assume_advertisement(&mut own.object.status, &status);
                        }
                    }
                    Outcome::Failed => self.agenda.failed(target, &mut own.draft, attempt, now),
                }
            }
        }
    }
}

/// Puts an object in the place of the one before; the answer is whether `differs` from that one, or there was none.
fn put<F, S>(inventory: &mut Inventory<Own<F, S>>, key: Key, object: F, differs: impl FnOnce(&F, &F) -> bool) -> bool {
    let Some(own) = inventory.get_mut(&key) else {
        inventory.put(key, Own { object, draft: Draft::default(), quiet_until: Instant::ZERO });
        return true;
    };
    let differs = differs(&object, &own.object);
    own.object = object;
    inventory.touch(&key);
    differs
}

#[cfg(test)]
mod tests;
