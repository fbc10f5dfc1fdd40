//! What the speaker knows: facts of the cluster, of this node's links and of their threads. Pure; the main loop owns the one
//! [`State`] and feeds it; [`crate::plan`] reads it.
//!
//! The same events in any order, each object's own in order, give the same state: nothing here depends on what was before.
//! The exceptions are the keys, see [`State::handle`], the last passwords of BGPPeers, see
//! [`last_passwords`], since when others announce what this node does while it drains, and the
//! links on which another speaker was ever received.

mod bgp;
mod dump;
mod kept;
mod last_passwords;
mod table;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ferrolb_proto::Instant;
use ferrolb_proto::bgp::Covered;
use ferrolb_proto::facts::{Advertisement, Key, Node, Pool, PoolProblem, Speaker};
use ferrolb_proto::health::data_path::Judgement;
use ferrolb_proto::health::prober::{Defaults, TargetId};
use ferrolb_proto::range::AddressRange;
use ferrolb_proto::wire::hello::KeyRing;
use ferrolb_runtime::watch::Change;
use regex::Regex;

use crate::event::{BgpReport, Event, Link, LinkReport};
use bgp::BgpObjects;
use table::Table;

pub use bgp::Password;
pub(crate) use kept::{KeptService, KeptSlice};

/// How long a link whose thread failed is left alone, the first time.
pub const LINK_RETRY_DELAY_MIN: Duration = Duration::from_secs(1);
/// What that wait doubles up to.
pub const LINK_RETRY_DELAY_MAX: Duration = Duration::from_secs(30);
/// So long without a failure, and the next one counts as a first failure.
pub const LINK_RETRY_FORGET_AFTER: Duration = Duration::from_secs(60);

/// What never changes while the process runs.
#[derive(Clone, Debug)]
pub struct Config {
    /// This node's name.
    pub node: Box<str>,
    /// The load balancer classes that are ours.
    pub classes: Vec<String>,
    /// Whether Services without a class are ours.
    pub default_implementation: bool,
    /// Whether the exclude label of Nodes means nothing.
    pub ignore_exclude_label: bool,
    /// Names of links that are not spoken on.
    pub exclude_interfaces: Vec<Regex>,
    /// Where kube-proxy serves its health; none: where it does by default.
    pub kube_proxy_address: Option<SocketAddr>,
    /// Whether this node has a gobgpd.
    pub gobgp: bool,
    /// How long other nodes must have announced by BGP what this one does before it stops while it drains; none: it never does.
    pub drain_delay: Option<Duration>,
    /// What health checks of endpoints leave open.
    pub checks: Defaults,
    /// Which endpoints may be checked beside those at addresses of the own Node; none: no endpoint
    /// is.
    pub checked_ranges: Option<Vec<AddressRange>>,
}

/// The failures of one link's thread.
#[derive(Clone, Copy, Debug)]
pub struct Failure {
    /// How many in a row.
    pub count: u32,
    /// When the last one was.
    pub at: Instant,
}

impl Failure {
    /// When the thread may be started again.
    #[must_use]
    pub fn retry_at(self) -> Instant {
        let doubled = LINK_RETRY_DELAY_MIN.saturating_mul(1 << self.count.saturating_sub(1).min(16));
        self.at + doubled.min(LINK_RETRY_DELAY_MAX)
    }
}

/// All that the speaker knows.
#[derive(Debug)]
pub struct State {
    pub(crate) config: Config,
    /// Services that are ours and have addresses, reduced to what a plan needs.
    pub(crate) services: Table<KeptService>,
    pub(crate) slices: Table<KeptSlice>,
    pub(crate) nodes: Table<Node>,
    pub(crate) pools: Table<Pool>,
    pub(crate) advertisements: Table<Advertisement>,
    pub(crate) keys: KeyRing,
    keys_listed: bool,
    /// None: not known yet.
    pub(crate) links: Option<BTreeMap<u32, Link>>,
    pub(crate) reports: BTreeMap<u32, LinkReport>,
    pub(crate) failures: BTreeMap<u32, Failure>,
    /// The links on which another speaker was ever received: who failed since then was there.
    pub(crate) acquainted: BTreeSet<u32>,
    /// The addresses whose questions a link cannot hear.
    pub(crate) unheard: BTreeMap<u32, Arc<[Ipv6Addr]>>,
    /// What is thought of this node's data path.
    pub(crate) data_path: Judgement,
    /// The endpoints that fail their health checks, and why.
    pub(crate) failing: BTreeMap<TargetId, Box<str>>,
    /// What is read of BGP.
    pub(crate) bgp_objects: BgpObjects,
    /// How gobgpd and its sessions stand.
    pub(crate) bgp: BgpReport,
    /// How many prefixes gobgpd had when this speaker started; none: it has not been read yet.
    pub(crate) bgp_found: Option<usize>,
    /// What all speakers say of themselves; known only while this node drains.
    pub(crate) speakers: Table<Speaker>,
    /// Of the speakers that this node does not hear while it drains, those that have answered lately, by node.
    pub(crate) answered: BTreeSet<Box<str>>,
    /// What others announce by BGP in place of this node, and since when, as the last plan found it.
    pub(crate) covered: Arc<Covered>,
    pub(crate) leaving: bool,
}

impl State {
    /// Nothing is known yet.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self {
            config,
            services: Table::default(),
            slices: Table::default(),
            nodes: Table::default(),
            pools: Table::default(),
            advertisements: Table::default(),
            keys: KeyRing::default(),
            keys_listed: false,
            links: None,
            reports: BTreeMap::new(),
            failures: BTreeMap::new(),
            acquainted: BTreeSet::new(),
            unheard: BTreeMap::new(),
            data_path: Judgement::default(),
            failing: BTreeMap::new(),
            bgp_objects: BgpObjects::default(),
            bgp: BgpReport::default(),
            bgp_found: None,
            speakers: Table::default(),
            answered: BTreeSet::new(),
            covered: Arc::default(),
            leaving: false,
        }
    }

    /// Takes one event that happened at `now` and says whether it can make a difference to the plan. Most do not: a Service
    /// changes its conditions, a Node its heartbeat.
    ///
    /// An object that cannot be read counts as absent. Keys stay when their Secret goes or holds none: whoever deletes it by
    /// mistake must not silence every address of the cluster; a new Secret replaces them.
    pub fn handle(&mut self, event: Event, now: Instant) -> bool {
        match event {
            Event::Service(change) => {
                let Config { classes, default_implementation, .. } = &self.config;
                self.services.handle(change, |service| {
                    let ours = service.is_ours(classes, *default_implementation);
                    (ours && !service.assigned.is_empty()).then(|| service.into())
                })
            }
            Event::Slice(change) => self.slices.handle(change, |slice| KeptSlice::of(slice, &self.config.node)),
            Event::Node(change) => self.nodes.handle(change, Some),
            Event::Pool(change) => {
                let change = self.still_there(change);
                self.pools.handle(change, Some)
            }
            Event::Advertisement(change) => self.advertisements.handle(change, Some),
            Event::BgpPeer(change) => self.bgp_objects.set_peer(change),
            Event::BgpAdvertisement(change) => self.bgp_objects.advertisements.handle(change, Some),
            Event::Community(change) => self.bgp_objects.communities.handle(change, Some),
            Event::BfdProfile(change) => self.bgp_objects.profiles.handle(change, Some),
            Event::Password(change) => self.bgp_objects.set_password(change),
            Event::Keys(change) => {
                self.set_keys(change);
                true
            }
            Event::Links(links) => {
                self.set_links(links);
                true
            }
            Event::Report { link, report } => {
                self.set_report(link, report);
                true
            }
            Event::LinkFailed { link, why: _ } => {
                self.fail(link, now);
                true
            }
            Event::Unheard { link, addresses } => {
                self.unheard.insert(link, addresses);
                true
            }
            Event::DataPath(judgement) => {
                self.data_path = judgement;
                true
            }
            Event::Probe { id, failing: Some(why) } => self.failing.insert(id, why.clone()) != Some(why),
            Event::Probe { id, failing: None } => self.failing.remove(&id).is_some(),
            Event::Bgp(report) => {
                let changed = self.bgp != report;
                self.bgp = report;
                changed
            }
            Event::BgpFound(prefixes) => {
                self.bgp_found = Some(prefixes);
                true
            }
            Event::Speaker(change) => self.speakers.handle(change, Some),
            Event::SpeakersUnknown => std::mem::take(&mut self.speakers).is_listed(),
            Event::Answered(nodes) => {
                let changed = self.answered != nodes;
                self.answered = nodes;
                changed
            }
            Event::Covered(covered) => {
                self.covered = covered;
                false
            }
            Event::Leave => !std::mem::replace(&mut self.leaving, true),
        }
    }

    /// What is still waited for before anything may be announced, if anything.
    #[must_use]
    pub fn waits_for(&self) -> Option<&'static str> {
        let known = [
            ("Services", self.services.is_listed()),
            ("EndpointSlices", self.slices.is_listed()),
            ("Nodes", self.nodes.is_listed()),
            ("IPAddressPools", self.pools.is_listed()),
            ("L2Advertisements", self.advertisements.is_listed()),
            ("the Secret with the hello keys", self.keys_listed),
            ("the links of this node", self.links.is_some()),
        ];
        known.into_iter().find(|(_, known)| !known).map(|(what, _)| what)
    }

    /// This Node.
    #[must_use]
    pub fn own_node(&self) -> Option<&Node> {
        self.nodes.get(&Key::new("", &self.config.node))
    }

    fn set_keys(&mut self, change: Change<KeyRing>) {
        match change {
            Change::Apply(keys) if !keys.is_empty() => self.keys = keys,
            Change::ResyncDone => self.keys_listed = true,
            Change::Apply(_) | Change::ResyncStarted | Change::Unreadable { .. } | Change::Delete(_) => {}
        }
    }

    fn set_report(&mut self, link: u32, report: LinkReport) {
        if !report.heard.is_empty() {
            self.acquainted.insert(link);
        }
        self.reports.insert(link, report);
    }

    fn fail(&mut self, link: u32, now: Instant) {
        self.reports.remove(&link);
        let failure = self.failures.entry(link).or_insert(Failure { count: 0, at: now });
        let first = now.since(failure.at) >= LINK_RETRY_FORGET_AFTER;
        *failure = Failure { count: if first { 1 } else { failure.count.saturating_add(1) }, at: now };
    }

    /// A pool that cannot be read is one with a problem, and not one that is gone.
    fn still_there(&self, change: Change<Pool>) -> Change<Pool> {
        let Change::Unreadable { key, why } = change else { return change };
        let before = self.pools.get(&Key::new("", &key.name)).cloned().unwrap_or_default();
        Change::Apply(Pool { name: key.name, problem: Some(PoolProblem::Unreadable(why.into())), ..before })
    }

    fn set_links(&mut self, links: Vec<Link>) {
        let links: BTreeMap<_, _> = links.into_iter().map(|link| (link.index, link)).collect();
        // A link that went down and came up again is a new try, whatever failed before.
        let up = |index: &u32| links.get(index).is_some_and(|link| link.up);
        self.failures.retain(|index, _| up(index));
        self.reports.retain(|index, _| up(index));
        self.unheard.retain(|index, _| up(index));
        self.acquainted.retain(|index| links.contains_key(index));
        self.links = Some(links);
    }
}

#[cfg(test)]
mod tests;
