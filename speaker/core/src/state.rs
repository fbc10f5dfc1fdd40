//! State of the speaker: the facts about the cluster, this node's interfaces and their threads.
//! Pure. The main loop owns the one [`State`] and feeds it events; [`crate::plan`] reads it.
//!
//! Events about the same object arrive in order. The order of events about different objects does
//! not affect the state, with seven exceptions:
//!
//! - the hello keys, see [`State::handle`];
//! - the addresses that have left the status of a Service, see [`held`];
//! - the custom resources that were deleted, see [`held_objects`];
//! - the addresses that no Service had before, see [`new_addresses`];
//! - the endpoints that have just left this node, see [`moved_endpoints`];
//! - the last passwords of BGPPeers, see [`last_passwords`];
//! - the interfaces on which this node has ever received another speaker.

mod bgp;
mod changes;
mod dump;
mod held;
mod held_objects;
mod last_passwords;
mod moved_endpoints;
mod new_addresses;
mod own_pods;
mod reduced;
mod services;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ferrolb_core::rate::Doubling;
use ferrolb_core::store::{Change, Store};
use ferrolb_core::watched::HandleChange;
use ferrolb_proto::Instant;
use ferrolb_proto::api::{KubeProxyState, WatchedNode};
use ferrolb_proto::facts::{Key, Keyed, Kind as _, L2Advertisement, Node, Pool, PoolProblem};
use ferrolb_proto::range::AddressRange;
use ferrolb_proto::wire::hello::HelloKeyRing;
use regex::Regex;

use crate::event::{BgpReport, Event, Link, LinkReport, Routes};
use crate::health::kube_proxy::KubeProxyHealth;
use crate::health::prober::{CheckDefaults, ProbeTarget};
use bgp::BgpObjects;
use held::HeldService;
use held_objects::HeldObjects;
use moved_endpoints::MovedEndpoints;
use new_addresses::NewAddresses;
use own_pods::OwnPods;
use services::Services;

pub use changes::Changes;
pub(crate) use last_passwords::LastPasswords;
pub(crate) use reduced::{ReducedService, ReducedSlice};

/// Delays before an interface's thread is started again after consecutive failures.
const LINK_RETRY_DELAYS: Doubling = Doubling::new(Duration::from_secs(1), Duration::from_secs(30));
/// Time without a failure after which the next failure of the thread is treated as its first one.
pub const LINK_RETRY_FORGET_AFTER: Duration = Duration::from_secs(60);

/// Maximum number of deleted pools that a speaker keeps.
const DELETED_POOLS_MAX: usize = 64;

/// Configuration that is constant while the process runs.
#[derive(Clone, Debug)]
pub struct StateConfig {
    /// Name of this node.
    pub node: Box<str>,
    /// Load balancer classes (`spec.loadBalancerClass`) of the Services that FerroLB announces.
    pub classes: Vec<String>,
    /// True if FerroLB also announces Services without a class.
    pub default_implementation: bool,
    /// True if the exclude label of Nodes is ignored.
    pub ignore_exclude_label: bool,
    /// How long deleted custom resources stay in use while no other one of their kind exists.
    pub pool_grace: Duration,
    /// Patterns of the names of interfaces that are not used.
    pub exclude_interfaces: Vec<Regex>,
    /// Address of kube-proxy's health server. None: the default addresses.
    pub kube_proxy_address: Option<SocketAddr>,
    /// True if this node has a gobgpd.
    pub gobgp: bool,
    /// Defaults for values that a Service's health check leaves out.
    pub health_check_defaults: CheckDefaults,
    /// Ranges of checked endpoints besides the InternalIPs and pods of this Node. None: no checks.
    pub checked_ranges: Option<Vec<AddressRange>>,
}

/// Consecutive failures of one interface's thread.
#[derive(Clone, Copy, Debug)]
pub struct LinkFailure {
    /// Number of consecutive failures.
    pub count: u32,
    /// Time of the latest failure.
    pub at: Instant,
}

impl LinkFailure {
    /// Returns the time at which the thread may be started again.
    #[must_use]
    pub fn retry_at(self) -> Instant {
        self.at + LINK_RETRY_DELAYS.delay(self.count.saturating_sub(1))
    }
}

/// State of the speaker.
#[derive(Debug)]
pub struct State {
    pub(crate) config: StateConfig,
    /// FerroLB's Services with assigned addresses, and their EndpointSlices.
    pub(crate) services: Services,
    /// Services whose addresses have just left their statuses.
    held: BTreeMap<Key, HeldService>,
    /// Addresses that this node does not announce yet.
    new_addresses: NewAddresses,
    /// Services that have just moved from this node to others.
    moved_endpoints: MovedEndpoints,
    pub(crate) nodes: Store<Arc<str>, Node>,
    /// Pools, also deleted ones: a Service of a deleted pool stays announced until the controller
    /// removes its address.
    pub(crate) pools: Store<Box<str>, Pool>,
    /// The deleted pools, the latest ones last, at most [`DELETED_POOLS_MAX`].
    deleted_pools: VecDeque<Box<str>>,
    pub(crate) advertisements: HeldObjects<L2Advertisement>,
    pub(crate) keys: HelloKeyRing,
    keys_listed: bool,
    /// This node's interfaces, by index. None: not known yet.
    pub(crate) links: Option<BTreeMap<u32, Link>>,
    pub(crate) routes: Routes,
    /// Addresses that this node's kernel delivers to its own pods.
    pub(crate) own_pods: OwnPods,
    pub(crate) reports: BTreeMap<u32, LinkReport>,
    pub(crate) link_failures: BTreeMap<u32, LinkFailure>,
    /// Interfaces on which this node has ever received another speaker, even if that speaker has
    /// failed since.
    pub(crate) speaker_ever_received: BTreeSet<u32>,
    /// IPv6 addresses for which an interface receives no neighbor solicitations, by index of the
    /// interface.
    pub(crate) unjoined: BTreeMap<u32, Arc<[Ipv6Addr]>>,
    /// Health of kube-proxy on this node.
    pub(crate) proxy_health: KubeProxyHealth,
    /// Endpoints that fail their health checks, with the reasons.
    pub(crate) failing_endpoints: BTreeMap<ProbeTarget, Box<str>>,
    /// Custom resources and Secrets that configure BGP.
    pub(crate) bgp_objects: BgpObjects,
    /// State of gobgpd and of its sessions.
    pub(crate) bgp: BgpReport,
    /// Number of prefixes that gobgpd had when this speaker started. None: gobgpd has not been read
    /// yet.
    pub(crate) prefixes_at_start: Option<usize>,
    /// The nodes that this node watches, sorted by name.
    pub(crate) watched_nodes: Arc<[WatchedNode]>,
    /// True if kube-proxy was checked and works on one of them.
    pub(crate) proxy_works_on_watched: bool,
    pub(crate) leaving: bool,
}

impl State {
    /// Creates the state of a speaker that has received no event yet.
    #[must_use]
    pub fn new(config: StateConfig) -> Self {
        Self {
            config,
            services: Services::default(),
            nodes: Store::default(),
            pools: Store::default(),
            deleted_pools: VecDeque::new(),
            held: BTreeMap::new(),
            new_addresses: NewAddresses::default(),
            moved_endpoints: MovedEndpoints::default(),
            advertisements: HeldObjects::default(),
            keys: HelloKeyRing::default(),
            keys_listed: false,
            links: None,
            routes: Routes::default(),
            own_pods: OwnPods::default(),
            reports: BTreeMap::new(),
            link_failures: BTreeMap::new(),
            speaker_ever_received: BTreeSet::new(),
            unjoined: BTreeMap::new(),
            proxy_health: KubeProxyHealth::default(),
            failing_endpoints: BTreeMap::new(),
            bgp_objects: BgpObjects::default(),
            bgp: BgpReport::default(),
            prefixes_at_start: None,
            watched_nodes: Arc::default(),
            proxy_works_on_watched: false,
            leaving: false,
        }
    }

    /// Handles one event that happened at `now`. Returns the parts of the plan that the event can
    /// change. Most events can change none, such as a change of a Service's conditions, of a Node's
    /// heartbeat, or of an EndpointSlice whose Service has no address of FerroLB.
    ///
    /// An object that cannot be decoded is treated as deleted; only a pool keeps its ranges. The
    /// hello keys stay in use if their Secret is deleted or holds no key, until a Secret with keys
    /// replaces them. Otherwise, an accidental deletion would end all announcements of the cluster.
    pub fn handle(&mut self, event: Event, now: Instant) -> Changes {
        match event {
            Event::Object(change) => change.apply(self, now),
            Event::Links(links) => self.set_links(links),
            Event::Routes(routes) => self.set_routes(routes),
            Event::Report { link, report } => self.set_report(link, report),
            Event::LinkFailed { link, why: _ } => {
                self.record_failure(link, now);
                Changes::everything()
            }
            Event::GroupsNotJoined { link, addresses } => {
                let changed = self.unjoined.get(&link) != Some(&addresses);
                self.unjoined.insert(link, addresses);
                Changes::other_if(changed)
            }
            Event::ProxyHealth(health) => {
                if health.state == KubeProxyState::NotChecked {
                    self.new_addresses.forget_rule_updates();
                }
                Changes::other_if(replace(&mut self.proxy_health, health))
            }
            Event::RuleUpdate { family, end } => self.record_rule_update(family, end),
            Event::EndpointHealth { id, failing } => self.set_endpoint_health(id, failing),
            Event::Bgp(report) => Changes::other_if(replace(&mut self.bgp, report)),
            Event::GobgpRead(prefixes) => {
                Changes::other_if(replace(&mut self.prefixes_at_start, Some(prefixes)))
            }
            Event::WatchedNodes(watched) => {
                Changes::other_if(replace(&mut self.watched_nodes, watched))
            }
            Event::KubeProxyWorksElsewhere(works) => {
                Changes::other_if(replace(&mut self.proxy_works_on_watched, works))
            }
            Event::StopRequested => Changes::other_if(!std::mem::replace(&mut self.leaving, true)),
        }
    }

    /// Returns the first missing input without which this node may not announce anything. None: all
    /// such inputs have arrived.
    #[must_use]
    pub fn missing_input(&self) -> Option<&'static str> {
        let known = [
            (Node::PLURAL, self.nodes.was_ever_complete()),
            (Pool::PLURAL, self.pools.was_ever_complete()),
            (L2Advertisement::PLURAL, self.advertisements.was_ever_complete()),
            ("the Secret with the hello keys", self.keys_listed),
            ("the network interfaces of this node", self.links.is_some()),
        ];
        let unknown = || known.into_iter().find(|(_, known)| !known).map(|(what, _)| what);
        self.services.missing_input().or_else(unknown)
    }

    /// Returns the name of this speaker's node.
    #[must_use]
    pub const fn node_name(&self) -> &str {
        &self.config.node
    }

    /// Returns this node's interfaces, by index. None: not known yet.
    #[must_use]
    pub const fn links(&self) -> Option<&BTreeMap<u32, Link>> {
        self.links.as_ref()
    }

    /// Returns the interfaces of this node that are known.
    pub(crate) fn all_links(&self) -> impl Iterator<Item = &Link> {
        self.links.iter().flat_map(|links| links.values())
    }

    /// Returns the latest report of an interface's thread.
    #[must_use]
    pub fn report(&self, link: u32) -> Option<&LinkReport> {
        self.reports.get(&link)
    }

    /// Returns whether the latest start of an interface's thread has failed.
    #[must_use]
    pub fn has_failed(&self, link: u32) -> bool {
        self.link_failures.contains_key(&link)
    }

    /// Returns whether kube-proxy was checked and works on this node.
    #[must_use]
    pub const fn kube_proxy_works(&self) -> bool {
        self.proxy_health.checked()
    }

    /// Returns the Node of this speaker.
    #[must_use]
    pub fn own_node(&self) -> Option<&Node> {
        self.nodes.get(&*self.config.node)
    }

    /// Returns the watched nodes with whose speakers any interface is in contact.
    pub(crate) fn contacts_of_watched(&self) -> BTreeSet<Box<str>> {
        let is_contact = |node: &&str| {
            let speakers_of = |report: &LinkReport| {
                report.speakers.binary_search_by(|speaker| (**speaker).cmp(node)).is_ok()
            };
            self.reports.values().any(speakers_of)
        };
        let watched = self.watched_nodes.iter().map(|watched| &*watched.node);
        watched.filter(is_contact).map(Into::into).collect()
    }

    fn set_report(&mut self, link: u32, report: LinkReport) -> Changes {
        if !report.speakers.is_empty() {
            self.speaker_ever_received.insert(link);
        }
        let before = self.reports.insert(link, report);
        let (before, now) = (before.as_ref(), self.reports.get(&link));
        let mut changes = Changes::other_if(before != now);
        // Another interface then announces the addresses in the subnets of this one.
        let standby = |report: Option<&LinkReport>| report.is_some_and(|report| report.standby);
        changes.all = standby(before) != standby(now);
        changes
    }

    fn set_endpoint_health(&mut self, id: ProbeTarget, failing: Option<Box<str>>) -> Changes {
        let service = Arc::clone(&id.service);
        let changed = match failing {
            Some(why) => self.failing_endpoints.insert(id, why.clone()) != Some(why),
            None => self.failing_endpoints.remove(&id).is_some(),
        };
        if changed { self.services.concerning(&service) } else { Changes::default() }
    }

    fn record_failure(&mut self, link: u32, now: Instant) {
        self.reports.remove(&link);
        let failure = self.link_failures.entry(link).or_insert(LinkFailure { count: 0, at: now });
        let first = now.since(failure.at) >= LINK_RETRY_FORGET_AFTER;
        *failure =
            LinkFailure { count: if first { 1 } else { failure.count.saturating_add(1) }, at: now };
    }

    /// Keeps a deleted pool, whose Services may still have their addresses. Returns whether it has
    /// existed until now.
    fn keep_deleted(&mut self, name: Box<str>, pool: Pool) -> bool {
        self.pools.put(name.clone(), pool);
        if self.deleted_pools.contains(&name) {
            return false;
        }
        self.deleted_pools.push_back(name);
        if self.deleted_pools.len() > DELETED_POOLS_MAX {
            self.deleted_pools.pop_front().map(|oldest| self.pools.remove(&oldest));
        }
        true
    }

    /// Returns the pools that exist.
    pub(crate) fn existing_pools(&self) -> impl Iterator<Item = &Pool> + Clone {
        self.pools.values().filter(|pool| !self.deleted_pools.contains(&pool.name))
    }

    /// Handles what is due at `now`. Returns the parts of the plan that this can change.
    pub fn expire(&mut self, now: Instant) -> Changes {
        let grace = self.config.pool_grace;
        let mut changes = Changes::all_if(self.advertisements.expire(now, grace));
        changes.add(Changes::all_if(self.bgp_objects.expire(now, grace)));
        changes.add(self.end_expired_holds(now));
        changes.add(self.end_waits(now));
        changes.add(self.end_moves(now));
        changes
    }

    /// Returns the time at which [`Self::expire`] is due next.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        let grace = self.config.pool_grace;
        let objects = [self.advertisements.deadline(grace), self.bgp_objects.deadline(grace)];
        let holds_end = self.held.values().map(|held| held.until).min();
        let others = [holds_end, self.new_addresses.deadline(), self.moved_endpoints.deadline()];
        objects.into_iter().chain(others).flatten().min()
    }

    /// Converts the change of a pool that cannot be decoded into a pool with a problem. The pool's
    /// other fields keep their previous values.
    fn keep_unreadable(&self, change: Change<Pool>) -> Change<Pool> {
        let Change::Unreadable { key, why } = change else { return change };
        let before = self.pools.get(key.name()).cloned().unwrap_or_default();
        Change::Apply(Pool {
            name: key.name().into(),
            problem: Some(PoolProblem::Unreadable(why.into())),
            ..before
        })
    }

    /// Sets the interfaces. A change of an interface that leads to a pod counts only if it changes
    /// the addresses of this node, because every pod that starts or ends changes such interfaces.
    fn set_links(&mut self, links: Vec<Link>) -> Changes {
        let links: BTreeMap<_, _> = links.into_iter().map(|link| (link.index, link)).collect();
        // The failures of an interface that is down are removed, so that its thread starts without
        // a delay when the interface comes up again.
        let up = |index: &u32| links.get(index).is_some_and(|link| link.up);
        let entries = |state: &Self| {
            state.link_failures.len()
                + state.reports.len()
                + state.unjoined.len()
                + state.speaker_ever_received.len()
        };
        let entries_before = entries(self);
        self.link_failures.retain(|index, _| up(index));
        self.reports.retain(|index, _| up(index));
        self.unjoined.retain(|index, _| up(index));
        self.speaker_ever_received.retain(|index| links.contains_key(index));
        let relevant = |links: &BTreeMap<u32, Link>| {
            let (to_pods, others): (Vec<_>, Vec<_>) =
                links.values().cloned().partition(|link| self.leads_to_pod(link));
            let addresses: BTreeSet<_> =
                to_pods.into_iter().flat_map(|link| link.addresses).collect();
            (others, addresses)
        };
        let changed = entries(self) != entries_before
            || self.links.as_ref().map(relevant) != Some(relevant(&links));
        self.links = Some(links);
        let mut changes = Changes::all_if(changed);
        changes.add(self.update_own_pods());
        changes
    }

    /// Returns whether an interface has one of the Node's InternalIPs.
    pub(crate) fn has_internal_address(&self, link: &Link) -> bool {
        let internal = self.own_node().map_or(&[][..], |node| &node.internal_addresses);
        link.addresses.iter().any(|address| internal.contains(address))
    }

    /// Returns whether an interface is the host's end of a pod's veth pair. A veth pair may also
    /// connect this node to its network, if the node is itself a container. The interface then has
    /// a subnet or an InternalIP, and does not lead to a pod.
    pub(crate) fn leads_to_pod(&self, link: &Link) -> bool {
        link.into_namespace && link.subnets().next().is_none() && !self.has_internal_address(link)
    }
}

impl HandleChange<Node, Changes> for State {
    fn handle_change(&mut self, change: Change<Node>, _: Instant) -> Changes {
        Changes::all_if(apply(&mut self.nodes, change))
    }
}

impl HandleChange<Pool, Changes> for State {
    fn handle_change(&mut self, change: Change<Pool>, _: Instant) -> Changes {
        let change = self.keep_unreadable(change);
        let was_complete = self.pools.was_ever_complete();
        let deleted_before = self.deleted_pools.len();
        if let Change::Apply(pool) = &change {
            self.deleted_pools.retain(|name| *name != pool.name);
        }
        let mut has_changed = deleted_before != self.deleted_pools.len();
        for (name, before) in self.pools.handle(change, Some) {
            match before.filter(|_| self.pools.get(&name).is_none()) {
                Some(pool) => has_changed |= self.keep_deleted(name, pool),
                None => has_changed = true,
            }
        }
        Changes::all_if(has_changed || was_complete != self.pools.was_ever_complete())
    }
}

impl HandleChange<L2Advertisement, Changes> for State {
    fn handle_change(&mut self, change: Change<L2Advertisement>, now: Instant) -> Changes {
        Changes::all_if(self.advertisements.handle(change, now))
    }
}

impl HandleChange<HelloKeyRing, Changes> for State {
    fn handle_change(&mut self, change: Change<HelloKeyRing>, _: Instant) -> Changes {
        Changes::other_if(match change {
            Change::Apply(keys) if !keys.is_empty() => replace(&mut self.keys, keys),
            Change::ResyncDone => replace(&mut self.keys_listed, true),
            Change::Apply(_)
            | Change::ResyncStarted
            | Change::Connected(_)
            | Change::Unreadable { .. }
            | Change::Delete(_) => false,
        })
    }
}

/// Applies a change to a store. Returns whether the change can affect the plan. An object that
/// cannot be decoded is treated as deleted.
fn apply<K: Ord + Clone + From<Key> + From<F::Key>, F: Keyed + PartialEq>(
    store: &mut Store<K, F>,
    change: Change<F>,
) -> bool {
    let was_listed = store.was_ever_complete();
    let changed = store.handle(change.or_delete(), Some);
    !changed.is_empty() || was_listed != store.was_ever_complete()
}

/// Stores `value` in `slot`. Returns whether the previous value was different.
fn replace<T: PartialEq>(slot: &mut T, value: T) -> bool {
    let changed = *slot != value;
    *slot = value;
    changed
}

#[cfg(test)]
mod tests;
