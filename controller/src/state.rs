//! All that the controller knows and has decided. One owner, the main loop; pure: events and time go in, nothing comes out but
//! what [`crate::plan`] reads.
//!
//! Every replica keeps the facts. Only the one that holds the lease decides, and not before it has seen a whole list of each
//! kind, the Services' made after it got the lease: then what the Services' statuses say is taken as given, by the order of
//! their names, and only then is anything new given out. So a change of the leader, like a restart, loses and doubles
//! nothing. An address is promised from the moment of the decision, whatever becomes of the write.

mod agenda;
mod alloc;
mod announced;
mod bgp;
mod choose;
mod decide;
mod dump;
mod hold;
mod inventory;
mod objects;
mod pools;
mod reasons;
mod service;
mod sharing;
mod slices;
mod space;
mod validity;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ferrolb_proto::Instant;
use ferrolb_proto::api::{self, Kind, StatusFields};
use ferrolb_proto::facts::{Advertisement, Community, Key, Node, Pool, Service, Speaker};
use ferrolb_runtime::watch::Change;

use crate::desired::{Figures, PoolFigures, PoolStatus, Status, Target, Usage, ValidStatus, Write};
use crate::event::{Event, Leadership, Outcome};

use agenda::{Agenda, Draft};
use alloc::Allocator;
use announced::{Checks, Reason};
use bgp::Bgp;
use inventory::Inventory;
use slices::Slices;
use validity::Fault;

/// The shortest time between two writes of one pool's or advertisement's status: its counts change with each Service.
pub const COUNTS_INTERVAL: Duration = Duration::from_secs(1);
/// How often a Service that lacks something is looked at again though nothing has happened.
pub const RETRY_INTERVAL: Duration = Duration::from_secs(30);
/// Latencies that wait to be shown.
const LATENCIES_MAX: usize = 1_024;

/// Whose Services are ours, and whose kinds.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// `--load-balancer-class`.
    pub classes: Vec<String>,
    /// `--default-implementation`.
    pub default_implementation: bool,
    /// `--api-group`.
    pub group: String,
}

/// An object of our own kinds, and its status as it should be.
#[derive(Debug)]
struct Own<F, S> {
    object: F,
    draft: Draft<S>,
    quiet_until: Instant,
}

/// Our Services, counted.
#[derive(Debug, Default)]
struct Tally {
    /// By the reason of their condition `AddressAssigned`, or
    /// [`NOT_WRITTEN`](crate::desired::NOT_WRITTEN).
    reasons: BTreeMap<&'static str, i64>,
    /// By the reason of their condition `Announced`.
    announced: BTreeMap<Reason, i64>,
    /// By the pool that they have addresses of.
    pools: BTreeMap<Box<str>, u64>,
}

/// The state. See the module's head.
#[derive(Debug)]
pub struct State {
    config: Config,
    /// The terms for which this replica has had the lease, this one included.
    terms: u32,
    leading: bool,
    /// Until when this replica holds the lease, if it is not renewed.
    until: Instant,
    /// Leading, and what there is was adopted.
    in_office: bool,
    services: Inventory<service::Entry>,
    slices: Slices,
    speakers: Inventory<Speaker>,
    nodes: Inventory<Node>,
    /// By name: their labels.
    namespaces: Inventory<BTreeMap<String, String>>,
    pools: Inventory<Own<Pool, PoolStatus>>,
    advertisements: Inventory<Own<Advertisement, ValidStatus>>,
    communities: Inventory<Own<Community, ValidStatus>>,
    bgp: Bgp,
    /// The status fields of our kinds, as far as they are known.
    fields: BTreeMap<Kind, StatusFields>,
    faults: BTreeMap<Box<str>, Fault>,
    allocator: Allocator,
    /// Something has changed that may matter to every Service.
    all_in_doubt: bool,
    /// Services that do not have all that they ask for.
    waiting: BTreeSet<Key>,
    /// Services that have changed in this pass and are decided at its end.
    deferred: Vec<Key>,
    /// When those that wait are looked at next if nothing happens.
    retry_at: Instant,
    agenda: Agenda,
    /// Which Services' conditions `Announced` are to be looked at.
    checks: Checks,
    tally: Tally,
    /// From an address given to its status written.
    latencies: Vec<Duration>,
}

/// Our own kinds are all in one namespace, and their facts do not carry it; other kinds have none.
fn bare(name: &str) -> Key {
    Key::new("", name)
}

impl State {
    /// A state that knows nothing yet.
    #[must_use]
    pub fn new(config: Config) -> Self {
        let known = if config.group == api::GROUP { Kind::OF_CONTROLLER.as_slice() } else { &[] };
        Self {
            config,
            terms: 0,
            leading: false,
            until: Instant::ZERO,
            in_office: false,
            services: Inventory::default(),
            slices: Slices::default(),
            speakers: Inventory::default(),
            nodes: Inventory::default(),
            namespaces: Inventory::default(),
            pools: Inventory::default(),
            advertisements: Inventory::default(),
            communities: Inventory::default(),
            bgp: Bgp::default(),
            fields: known.iter().map(|kind| (*kind, StatusFields::All)).collect(),
            faults: BTreeMap::new(),
            allocator: Allocator::default(),
            all_in_doubt: false,
            waiting: BTreeSet::new(),
            deferred: Vec::new(),
            retry_at: Instant::ZERO,
            agenda: Agenda::default(),
            checks: Checks::default(),
            tally: Tally::default(),
            latencies: Vec::new(),
        }
    }

    /// Takes events that happened until `now`, in their order; times never go backwards. What concerns all Services is
    /// decided once, at the end.
    pub fn handle(&mut self, events: impl IntoIterator<Item = Event>, now: Instant) {
        for event in events {
            match event {
                Event::Service(change) => self.service(change, now),
                Event::Slice(change) => self.slice(change, now),
                Event::Speaker(change) => self.speaker(change, now),
                Event::Node(change) => self.node(change),
                Event::Namespace(change) => self.namespace(change),
                Event::Pool(change) => self.pool(change, now),
                Event::Advertisement(change) => self.advertisement(change, now),
                Event::Community(change) => self.community(change, now),
                Event::Peer(change) => self.peer(change),
                Event::BgpAdvertisement(change) => self.bgp_advertisement(change),
                Event::BfdProfile(change) => self.bfd_profile(change),
                Event::Fields(kind, fields) => {
                    self.fields.insert(kind, fields);
                    self.all_in_doubt = true;
                }
                Event::Lease(leadership) => self.lease(leadership),
                Event::Written { target, attempt, outcome } => self.written(&target, attempt, outcome, now),
                Event::Tick => {}
            }
        }
        if self.leading && !self.in_office && self.is_complete() {
            (self.in_office, self.all_in_doubt) = (true, true);
        }
        self.decide_the_rest(now);
        self.check_announced(now);
    }

    /// Which time this replica holds the lease, if it does.
    #[must_use]
    pub fn term(&self) -> Option<u32> {
        self.leading.then_some(self.terms)
    }

    /// Until when this replica may write, while it holds the lease.
    #[must_use]
    pub const fn until(&self) -> Instant {
        self.until
    }

    /// Communities and the kinds for BGP decide nothing about addresses, so that a cluster without their CRDs is served all the
    /// same.
    fn is_complete(&self) -> bool {
        self.services.is_complete()
            && self.nodes.is_complete()
            && self.namespaces.is_complete()
            && self.pools.is_complete()
            && self.advertisements.is_complete()
    }

    /// The kinds that are needed and of which there never was a whole list.
    #[must_use]
    pub fn never_listed(&self) -> Vec<&'static str> {
        let kinds = [
            ("Services", self.services.was_listed()),
            ("Nodes", self.nodes.was_listed()),
            ("Namespaces", self.namespaces.was_listed()),
            ("IPAddressPools", self.pools.was_listed()),
            ("L2Advertisements", self.advertisements.was_listed()),
        ];
        kinds.into_iter().filter(|(_, listed)| !listed).map(|(kind, _)| kind).collect()
    }

    /// What is to be written at `now`, the longest due first.
    pub fn due(&self, now: Instant) -> impl Iterator<Item = Write> {
        fn write<S: Clone>(target: &Target, draft: &Draft<S>, status: fn(S) -> Status) -> Option<Write> {
            let (attempt, wanted) = draft.write()?;
            let (target, status) = (target.clone(), status(wanted.clone()));
            Some(Write { target, attempt, reports_refusal: draft.reports_refusal(), status })
        }
        self.agenda.due(now).filter_map(|target| match target {
            Target::Service(key) => write(target, &self.services.get(key)?.draft, Status::Service),
            Target::Pool(name) => write(target, &self.pools.get(&bare(name))?.draft, Status::Pool),
            Target::Advertisement(name) => write(target, &self.advertisements.get(&bare(name))?.draft, Status::Valid),
            Target::Community(name) => write(target, &self.communities.get(&bare(name))?.draft, Status::Valid),
            Target::Peer(name) => write(target, &self.bgp.peers.get(&bare(name))?.draft, Status::Peer),
            Target::BgpAdvertisement(name) => write(target, &self.bgp.ads.get(&bare(name))?.draft, Status::Valid),
            Target::BfdProfile(name) => write(target, &self.bgp.profiles.get(&bare(name))?.draft, Status::Valid),
        })
    }

    /// When an [`Event::Tick`] is needed next, after `now`.
    #[must_use]
    pub fn deadline(&self, now: Instant) -> Option<Instant> {
        let retry = (self.in_office && !self.waiting.is_empty()).then_some(self.retry_at);
        self.agenda.deadline(now).into_iter().chain(retry).chain(self.announced_deadline(now)).min()
    }

    /// What the metrics say.
    #[must_use]
    pub fn figures(&self) -> Figures {
        let usage = |count: space::Count| Usage { total: count.total, used: count.used };
        let pool = |(name, counts): (Box<str>, [space::Count; 2])| PoolFigures {
            services: self.tally.pools.get(&name).copied().unwrap_or(0),
            usage: counts.map(usage),
            name,
        };
        Figures {
            leading: self.leading,
            pools: self.allocator.usage().into_iter().map(pool).collect(),
            services: self.tally.reasons.iter().map(|(reason, count)| (*reason, *count)).collect(),
            announced: self.tally.announced.iter().map(|(reason, count)| (reason.name(), *count)).collect(),
        }
    }

    /// How long it took from the decision to give a Service its first address to the status in the API server, for each since
    /// the last call.
    pub fn take_latencies(&mut self) -> Vec<Duration> {
        std::mem::take(&mut self.latencies)
    }

    fn service(&mut self, change: Change<Service>, now: Instant) {
        match change {
            Change::ResyncStarted => self.services.resync_started(),
            Change::Apply(service) => {
                let key = service.key.clone();
                if self.services.get(&key).is_some_and(|entry| entry.service.uid != service.uid) {
                    self.forget(&key);
                }
                let before = match self.services.get_mut(&key) {
                    Some(entry) => std::mem::replace(&mut entry.service, service),
                    None => {
                        self.services.put(key.clone(), service::Entry { service, ..service::Entry::default() });
                        Service::default()
                    }
                };
                self.services.touch(&key);
                self.service_changed(&key, &before, now);
                self.decide_one(&key, &before, now);
            }
            Change::Unreadable { key, .. } => self.services.touch(&key),
            Change::Delete(key) => self.forget(&key),
            Change::ResyncDone => {
                for (key, entry) in self.services.resync_done() {
                    self.release(&key, entry);
                }
            }
        }
    }

    fn forget(&mut self, key: &Key) {
        if let Some(entry) = self.services.remove(key) {
            self.release(key, entry);
        }
    }

    /// What this replica knows may be old: new lists of everything that decides about addresses follow.
    const fn doubt(&mut self) {
        self.services.doubt();
        self.slices.doubt();
        self.speakers.doubt();
        self.nodes.doubt();
        self.namespaces.doubt();
        self.pools.doubt();
        self.advertisements.doubt();
        self.bgp.doubt();
    }

    fn lease(&mut self, leadership: Leadership) {
        match leadership {
            Leadership::Held(until) => {
                self.until = until;
                if std::mem::replace(&mut self.leading, true) {
                    return;
                }
                self.terms += 1;
                self.doubt();
            }
            Leadership::Lost => self.leading = false,
        }
        self.resign();
    }

    fn written(&mut self, target: &Target, attempt: u64, outcome: Outcome, now: Instant) {
        match target {
            Target::Service(key) => {
                let Some(entry) = self.services.get_mut(key) else { return };
                match outcome {
                    Outcome::Done if self.agenda.done(&mut entry.draft, attempt, now).is_some() => {
                        entry.lost.clear();
                        let given = entry.given_at.take().filter(|_| self.latencies.len() < LATENCIES_MAX);
                        self.latencies.extend(given.map(|given| now.since(given)));
                    }
                    Outcome::Done => {}
                    Outcome::Refused | Outcome::Failed => {
                        self.agenda.failed(target, &mut entry.draft, (attempt, outcome), now);
                    }
                }
                self.tally.count(entry, self.config.role(&entry.service));
            }
            Target::Pool(name) => {
                let Some(own) = self.pools.get_mut(&bare(name)) else { return };
                if let Some(status) = self.agenda.own_written(target, own, attempt, outcome, now) {
                    pools::assume_pool(&mut own.object.status, &status);
                }
            }
            Target::Advertisement(name) => {
                let Some(own) = self.advertisements.get_mut(&bare(name)) else { return };
                if let Some(written) = self.agenda.own_written(target, own, attempt, outcome, now) {
                    let is = &mut own.object.status;
                    validity::assume(&mut is.conditions, &mut is.observed_generation, &written);
                }
            }
            Target::Community(name) => {
                let Some(own) = self.communities.get_mut(&bare(name)) else { return };
                if let Some(written) = self.agenda.own_written(target, own, attempt, outcome, now) {
                    let is = &mut own.object.status;
                    validity::assume(&mut is.conditions, &mut is.observed_generation, &written);
                }
            }
            Target::Peer(_) | Target::BgpAdvertisement(_) | Target::BfdProfile(_) => {
                self.bgp.written(&mut self.agenda, target, attempt, outcome, now);
            }
        }
    }
}

impl Agenda {
    /// What came of a write to an object of our own kinds; the answer is what is there now.
    fn own_written<F, S>(
        &mut self,
        target: &Target,
        own: &mut Own<F, S>,
        attempt: u64,
        outcome: Outcome,
        now: Instant,
    ) -> Option<S> {
        own.quiet_until = now + COUNTS_INTERVAL;
        match outcome {
            Outcome::Done => self.done(&mut own.draft, attempt, now),
            Outcome::Refused | Outcome::Failed => {
                self.failed(target, &mut own.draft, (attempt, outcome), now);
                None
            }
        }
    }
}

#[cfg(test)]
mod tests;
