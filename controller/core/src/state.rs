//! State of the controller and its decisions; owned by the main loop. Pure: the inputs are events
//! and the time, and [`crate::plan`] reads the result.
//!
//! Every replica stores the watched objects. Only the active leader decides about addresses and
//! statuses: it holds the lease, and since it acquired the lease it has received a complete list of
//! each required kind.
//!
//! The leader first adopts the addresses in the Services' statuses, and only then assigns new ones.
//! A change of the leader, like a restart, therefore neither loses an address nor assigns it twice.
//! The controller reserves an address as soon as it has decided to assign it, whatever the result
//! of the status write.

mod address_memory;
mod alloc;
mod announced;
mod bgp;
mod choose;
mod conditions;
mod conflicts;
mod contest;
mod custom_resources;
mod decide;
mod decision_queue;
mod dump;
mod explanation;
mod former_routes;
mod leadership;
mod messages;
mod missing_pools;
mod node_failure;
mod objects;
mod outlook;
mod pool_addresses;
mod pools;
mod record_repair;
mod resource_statuses;
mod service;
mod service_addresses;
mod service_counters;
mod sharing;
mod slices;
mod stale_speakers;
mod status_queue;
mod validity;
mod wall_clock;

use alloc::Allocator;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::credibility::SpeakerPods;
use ferrolb_core::store::Change;
use ferrolb_core::store::Store;
use ferrolb_core::watched::HandleChange;
use ferrolb_proto::Instant;
use ferrolb_proto::facts::{
    AddressMemory, EndpointSlice, Key, Kind as _, L2Advertisement, Namespace, Node, Pod, Pool,
    Service, Speaker,
};
use ferrolb_proto::range::AddressRange;

use crate::desired::{MetricValues, PoolMetricValues, Status, Target, Usage, Write};
use crate::event::{Event, Outcome};
use crate::node_failure::failures::MarkScope;
use custom_resources::CustomResources;
use decision_queue::DecisionQueue;
use former_routes::FormerRoutes;
use leadership::LeadershipTerm;
use messages::pool::PoolFault;
use missing_pools::MissingPools;
use node_failure::NodeFailures;
use service_counters::ServiceCounters;
use slices::Slices;
use stale_speakers::StaleSpeakers;
use status_queue::StatusQueue;
use wall_clock::WallClock;

pub use announced::{NodeVerdict, Verdict};
pub use explanation::{AddressExplanation, Explanation, PoolCounts, PoolRow, ServiceRow};
pub use outlook::{Outlook, OwnerOutlook, ServiceOutlook};

/// Minimum time between two status writes of one custom resource. The limit is necessary because
/// the counts in a pool's status change with each Service.
pub const RESOURCE_STATUS_INTERVAL: Duration = Duration::from_secs(1);
/// Minimum time between two writes of the ConfigMap with the addresses of deleted Services.
pub const ADDRESS_MEMORY_INTERVAL: Duration = Duration::from_secs(5);
/// Interval at which the controller again tries to assign addresses to the Services that lack some,
/// unless an event causes an earlier attempt.
pub const RETRY_INTERVAL: Duration = Duration::from_secs(30);
/// Maximum number of measured assignment latencies that are stored until the metrics read them.
const LATENCIES_MAX: usize = 1_024;

/// Names that depend on the installation. The commands in messages contain them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// Value of the flag `--namespace`.
    pub namespace: String,
    /// Value of the flag `--api-group`.
    pub group: String,
}

/// Settings that select FerroLB's Services and custom resources.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// Values of the flag `--load-balancer-class`.
    pub classes: Vec<String>,
    /// Value of the flag `--default-implementation`.
    pub default_implementation: bool,
    /// The namespace and the API group of the custom resources.
    pub names: Names,
    /// True if the custom resources belong to another product, such as MetalLB, so that the
    /// controller writes no status of them. `kubectl ferrolb` writes nothing, and computes all.
    pub foreign_custom_resources: bool,
    /// Value of the flag `--pool-grace`.
    pub pool_grace: Duration,
    /// Value of the flag `--node-failure-endpoints`.
    pub node_failure_endpoints: MarkScope,
    /// Name of the Node on which this controller runs; empty: not known.
    pub node: Box<str>,
}

/// State of the controller. See the module documentation.
#[derive(Debug)]
pub struct State {
    config: Config,
    leadership: LeadershipTerm,
    services: Store<Key, service::ServiceEntry>,
    slices: Slices,
    speakers: Store<Box<str>, Speaker>,
    /// FerroLB's own pods.
    pods: Store<Key, Pod>,
    nodes: Store<Arc<str>, Node>,
    /// Labels of each Namespace, by its name.
    namespaces: Store<Box<str>, BTreeMap<String, String>>,
    /// The ConfigMap with the addresses of deleted Services, if it exists.
    address_memory: Store<Box<str>, AddressMemory>,
    /// True if the ConfigMap must be compared with the allocator's memory again.
    address_memory_dirty: bool,
    custom_resources: CustomResources,
    pool_faults: BTreeMap<Box<str>, PoolFault>,
    /// Ranges of pools that are in no subnet of the interfaces that announce the pools.
    ranges_outside: BTreeMap<Box<str>, Vec<AddressRange>>,
    missing_pools: MissingPools,
    /// Addresses that a node may still advertise for a deleted Service.
    former_routes: FormerRoutes,
    wall_clock: WallClock,
    allocator: Allocator,
    decisions: DecisionQueue,
    status_queue: StatusQueue,
    /// The pods of the speakers among [`Self::pods`].
    speaker_pods: SpeakerPods,
    stale_speakers: StaleSpeakers,
    node_failures: NodeFailures,
    counters: ServiceCounters,
    /// Assignment latencies that the metrics have not read yet: times from the assignment of a
    /// Service's first address until its status is written.
    latencies: Vec<Duration>,
}

impl State {
    /// Creates an empty state.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self {
            config,
            leadership: LeadershipTerm::default(),
            services: Store::default(),
            slices: Slices::default(),
            speakers: Store::default(),
            pods: Store::default(),
            nodes: Store::default(),
            namespaces: Store::default(),
            address_memory: Store::default(),
            address_memory_dirty: false,
            custom_resources: CustomResources::default(),
            pool_faults: BTreeMap::new(),
            ranges_outside: BTreeMap::new(),
            missing_pools: MissingPools::default(),
            former_routes: FormerRoutes::default(),
            wall_clock: WallClock::default(),
            allocator: Allocator::default(),
            decisions: DecisionQueue::default(),
            status_queue: StatusQueue::default(),
            speaker_pods: SpeakerPods::UNKNOWN,
            stale_speakers: StaleSpeakers::default(),
            node_failures: NodeFailures::default(),
            counters: ServiceCounters::default(),
            latencies: Vec::new(),
        }
    }

    /// Sets the wall-clock time, in seconds since 1970.
    pub fn set_unix_time(&mut self, unix_time: i64, now: Instant) {
        self.wall_clock.set(unix_time, now);
    }

    /// Returns the wall-clock time in seconds since 1970.
    const fn unix_time(&self, now: Instant) -> i64 {
        self.wall_clock.at(now)
    }

    /// Handles the events that have occurred until `now`, in order. From call to call, `now` never
    /// goes backward. If changes affect all Services, the state decides them once, after the last
    /// event.
    pub fn handle(&mut self, events: impl IntoIterator<Item = Event>, now: Instant) {
        for event in events {
            match event {
                Event::Object(change) => change.apply(self, now),
                Event::Lease(leadership) => self.handle_leadership(leadership),
                Event::Written { target, attempt, outcome } => {
                    self.handle_write_result(&target, attempt, outcome, now)
                }
                Event::NodeActionEnded { attempt, result } => {
                    self.node_failures.end_action(attempt, result)
                }
                Event::Tick => {}
            }
        }
        let leadership = &self.leadership;
        if leadership.has_lease() && !leadership.is_active && self.is_complete() {
            (self.leadership.is_active, self.decisions.all) = (true, true);
            self.restore_address_memory();
            self.restore_former_routes(now);
        }
        self.decide_remaining(now);
        self.update_node_failures(now);
        self.check_announced(now);
    }

    /// Returns the leadership term, if this replica holds the lease.
    #[must_use]
    pub fn term(&self) -> Option<u32> {
        self.leadership.number()
    }

    /// Returns the time until which this replica may write. The value is valid only while the
    /// replica holds the lease.
    #[must_use]
    pub const fn lease_expiry(&self) -> Instant {
        self.leadership.expiry()
    }

    /// Returns whether the lists of all kinds that affect assignment are complete.
    ///
    /// Communities and the BGP kinds do not affect assignment, so the controller also assigns
    /// addresses in a cluster without their CRDs.
    fn is_complete(&self) -> bool {
        self.services.is_complete()
            && self.nodes.is_complete()
            && self.namespaces.is_complete()
            && self.address_memory.is_complete()
            && self.custom_resources.pools.is_complete()
            && self.custom_resources.advertisements.is_complete()
    }

    /// Returns the required kinds of which this replica has never received a complete list.
    #[must_use]
    pub fn never_listed(&self) -> Vec<&'static str> {
        let kinds = [
            (Service::PLURAL, self.services.was_ever_complete()),
            (Node::PLURAL, self.nodes.was_ever_complete()),
            (Namespace::PLURAL, self.namespaces.was_ever_complete()),
            (AddressMemory::PLURAL, self.address_memory.was_ever_complete()),
            (Pool::PLURAL, self.custom_resources.pools.was_ever_complete()),
            (L2Advertisement::PLURAL, self.custom_resources.advertisements.was_ever_complete()),
        ];
        kinds.into_iter().filter(|(_, listed)| !listed).map(|(kind, _)| kind).collect()
    }

    /// Returns the writes that the drivers execute, at most
    /// [`WRITES_MAX`](crate::desired::WRITES_MAX). Their results make room for others.
    pub fn writes(&self) -> impl Iterator<Item = &Write> {
        self.status_queue.in_flight()
    }

    /// Returns the time at which the Services of the next missing pool lose their addresses.
    pub(crate) const fn pool_grace_end(&self) -> Option<Instant> {
        self.missing_pools.grace_end()
    }

    /// Returns the time after `now` at which the state needs the next [`Event::Tick`], if any.
    #[must_use]
    pub fn deadline(&self, now: Instant) -> Option<Instant> {
        let retry = self.decisions.deadline().filter(|_| self.leadership.is_active);
        self.status_queue
            .deadline(now)
            .into_iter()
            .chain(retry)
            .chain(self.pool_grace_end())
            .chain(self.next_expiry(now))
            .chain(self.former_routes.deadline())
            .chain(self.announced_deadline(now))
            .chain(self.node_failures_deadline())
            .min()
    }

    /// Returns the values of the metrics.
    #[must_use]
    pub fn metric_values(&self) -> MetricValues {
        let usage =
            |count: pool_addresses::AddressCounts| Usage { total: count.total, used: count.used };
        let pool =
            |(name, counts): (Box<str>, [pool_addresses::AddressCounts; 2])| PoolMetricValues {
                services: self.counters.pools.get(&name).copied().unwrap_or(0),
                usage: counts.map(usage),
                name,
            };
        MetricValues {
            leading: self.leadership.has_lease(),
            pools: self.allocator.usage().into_iter().map(pool).collect(),
            services: self
                .counters
                .reasons
                .iter()
                .map(|(reason, count)| (*reason, *count))
                .collect(),
            announced: self
                .counters
                .announced
                .iter()
                .map(|(reason, count)| (reason.name(), *count))
                .collect(),
            failed_nodes: i64::try_from(self.node_failures.failed().count()).unwrap_or(i64::MAX),
        }
    }

    /// Returns and clears the assignment latencies. Each latency is the time from the decision
    /// about a Service's first address until its status was written. Each Service whose first
    /// address was written since the previous call has one latency.
    pub fn take_latencies(&mut self) -> Vec<Duration> {
        std::mem::take(&mut self.latencies)
    }

    fn remove_service(&mut self, key: &Key, now: Instant) {
        if let Some(entry) = self.services.remove(key) {
            self.release(key, entry, now);
        }
    }

    /// Marks the stored objects of all kinds as possibly outdated until the new list of each kind
    /// is complete.
    const fn mark_lists_incomplete(&mut self) {
        self.services.mark_incomplete();
        self.slices.mark_incomplete();
        self.speakers.mark_incomplete();
        self.pods.mark_incomplete();
        self.nodes.mark_incomplete();
        self.namespaces.mark_incomplete();
        self.address_memory.mark_incomplete();
        self.custom_resources.mark_incomplete();
    }

    fn handle_write_result(
        &mut self,
        target: &Target,
        attempt: u64,
        outcome: Outcome,
        now: Instant,
    ) {
        match target {
            Target::Service(key) => {
                let Some(entry) = self.services.get_mut(key) else { return };
                // The writer executes the writes of one object one after the other.
                let all_done = outcome == Outcome::Done && entry.attempts.is_latest(attempt);
                if all_done {
                    entry.is_record_due = false;
                    entry.sent_addresses = Vec::new();
                }
                let (queue, result) = (&mut self.status_queue, (attempt, outcome));
                if queue.end_attempt(&mut entry.attempts, result, now).is_some() {
                    entry.lost.clear();
                    let assigned_at = entry
                        .first_assigned_at
                        .take()
                        .filter(|_| self.latencies.len() < LATENCIES_MAX);
                    self.latencies.extend(assigned_at.map(|assigned_at| now.since(assigned_at)));
                }
                self.counters.count(entry);
                if all_done {
                    self.update_unmanaged(key);
                }
            }
            Target::CustomResource(..) | Target::AddressMemory => {
                let result = (attempt, outcome);
                match self.status_queue.end_resource_attempt(target, result, now) {
                    Some(Status::CustomResource(name, status)) => {
                        self.custom_resources.record_written(&name, &status);
                    }
                    Some(Status::AddressMemory(services)) => self.record_address_memory(services),
                    Some(Status::Service(..)) | None => {}
                }
            }
        }
    }
}

impl HandleChange<Service> for State {
    fn handle_change(&mut self, change: Change<Service>, now: Instant) {
        match change {
            Change::ResyncStarted => self.services.resync_started(),
            Change::Apply(service) => {
                let key = service.key.clone();
                if self.services.get(&key).is_some_and(|entry| entry.service.uid != service.uid) {
                    self.remove_service(&key, now);
                }
                let before = match self.services.get_mut(&key) {
                    Some(entry) => std::mem::replace(&mut entry.service, service),
                    None => {
                        self.services.put(
                            key.clone(),
                            service::ServiceEntry { service, ..service::ServiceEntry::default() },
                        );
                        Service::default()
                    }
                };
                self.services.touch(&key);
                self.service_changed(&key, &before, now);
                self.decide_one(&key, &before, now);
            }
            Change::Unreadable { key, .. } => self.services.touch(&key),
            Change::Delete(key) => self.remove_service(&key, now),
            Change::ResyncDone => {
                for (key, entry) in self.services.resync_done() {
                    self.release(&key, entry, now);
                }
            }
            Change::Connected(_) => {}
        }
    }
}

impl HandleChange<EndpointSlice> for State {
    fn handle_change(&mut self, change: Change<EndpointSlice>, now: Instant) {
        self.handle_slice(change, now);
    }
}

impl HandleChange<Speaker> for State {
    fn handle_change(&mut self, change: Change<Speaker>, now: Instant) {
        self.handle_speaker(change, now);
    }
}

#[cfg(test)]
mod tests;
