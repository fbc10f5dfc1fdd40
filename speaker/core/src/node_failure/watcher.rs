//! Watcher: the state machine of a speaker that watches the nodes which follow it in the ring. The
//! driver of the speaker runs it, and it owns the state of the watched nodes.
//!
//! The speaker challenges each watched node by UDP. It also knows with which nodes the interfaces
//! of its own node are in contact. If a node is in contact with no interface and does not reply to
//! [`CHALLENGES_MAX`] challenges, its kubelet decides: any reply to TCP, even a refusal, means that
//! the node runs. A kubelet counts as silent only if it has replied to this speaker before, because
//! a packet filter may drop the connections. Both results need several probes if packets may be
//! lost.
//!
//! A process that stood still receives the replies that have arrived meanwhile after its first
//! overdue challenge, and one late challenge is not enough.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use ferrolb_core::Machine;
use ferrolb_core::node_failure::WATCHED_NODES;
use ferrolb_core::random::Random;
use ferrolb_proto::Instant;
use ferrolb_proto::api::{WatchedNode, WatchedNodeState};
use ferrolb_proto::wire::hello::Flags;

/// Interval between two challenges to a node that replies.
pub const CHALLENGE_INTERVAL: Duration = Duration::from_millis(500);
/// Time after which a challenge without a reply is repeated.
pub const REPLY_TIMEOUT: Duration = Duration::from_millis(100);
/// Number of challenges without a reply after which a node does not reply.
pub const CHALLENGES_MAX: u32 = 4;
/// Interval at which the kubelet of a node that replies is probed.
pub const KUBELET_INTERVAL: Duration = Duration::from_secs(60);
/// Interval at which the kubelet of a node is probed that does not reply.
pub const KUBELET_RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// Number of successive probes of a kubelet that must fail before the failure counts, except the
/// first probe of a node that has just become silent.
const PROBES_MAX: u32 = 3;
/// Time after which a node that has never replied counts as a node without a speaker.
pub const TRIAL_TIME: Duration = Duration::from_secs(3);
/// Time without a reply after which a node counts as a node without a speaker. Kubernetes has
/// handled its failure by then.
pub const FORGET_AFTER: Duration = Duration::from_secs(600);
/// Minimum interval at which a node without a speaker is tried again.
pub const ABSENT_RETRY_INTERVAL: Duration = Duration::from_secs(60);
/// The interval grows with the number of such nodes, so that a node which is tried again does not
/// keep those behind it in the ring from their first trial.
const RETRY_INTERVAL_PER_NODE: Duration = Duration::from_secs(2);

/// An input of a [`Watcher`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatcherInput {
    /// The other nodes, in the order of the ring ([`super::ring::successors`]), have changed.
    Nodes(Vec<Arc<str>>),
    /// The nodes with whose speakers any interface is in contact have changed.
    Contacts(BTreeSet<Box<str>>),
    /// A node has replied to a challenge, or has reported that it stops.
    Reply {
        /// Name of the node.
        node: Box<str>,
        /// Nonce of the challenge.
        nonce: u64,
        /// Flags of its speaker.
        flags: Flags,
    },
    /// A probe of a node's kubelet has ended.
    KubeletProbed {
        /// Name of the node.
        node: Arc<str>,
        /// True if the node has replied at all.
        replied: bool,
    },
}

/// An output of a [`Watcher`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatcherOutput {
    /// Send a challenge by UDP.
    Challenge {
        /// Name of the node.
        node: Arc<str>,
        /// Nonce that the reply must repeat.
        nonce: u64,
        /// Number of preceding challenges without a reply. A repeated challenge should have another
        /// key, because the node may not have read a new key yet.
        missed: u32,
    },
    /// Connect to the kubelet's port, and report the result.
    ProbeKubelet(Arc<str>),
    /// The report about the watched nodes has changed. Sorted by name.
    Report(Vec<WatchedNode>),
    /// After a change: true if kube-proxy was checked and works on a watched node that replies.
    KubeProxyWorks(bool),
}

/// The state machine of a speaker that watches nodes.
#[derive(Debug)]
pub struct Watcher {
    /// The other nodes in the order of the ring.
    ring: Vec<Arc<str>>,
    watched: BTreeMap<Arc<str>, Watched>,
    /// Nodes without a speaker, each with the time at which it is tried again.
    absent: BTreeMap<Arc<str>, Instant>,
    contacts: BTreeSet<Box<str>>,
    report: Vec<WatchedNode>,
    kube_proxy_works: bool,
    outputs: VecDeque<WatcherOutput>,
    random: Random,
}

/// State of one watched node.
#[derive(Debug)]
struct Watched {
    /// Nonce of the challenges since the latest reply.
    nonce: u64,
    /// Nonce of the latest challenge that the node has replied to.
    replied_nonce: u64,
    /// True if a challenge has been sent since the latest reply.
    is_challenged: bool,
    /// Number of challenges that have remained without a reply.
    missed: u32,
    next_challenge: Instant,
    /// True if the node has ever replied.
    has_replied: bool,
    /// Time of the latest reply; before it, the time since which the node is watched.
    latest_reply: Instant,
    /// Time of the latest reply or contact.
    latest_life: Instant,
    /// Flags of the latest reply.
    flags: Flags,
    kubelet: Kubelet,
}

/// State of the probes of a kubelet.
#[derive(Debug, Default)]
struct Kubelet {
    /// Start of the probe in progress.
    probing_since: Option<Instant>,
    next_probe: Option<Instant>,
    /// True if the latest probe while the node replied has reached it.
    is_reachable: bool,
    /// Number of latest probes that have failed, and are repeated before the failure counts.
    failures: u32,
    /// Result of the latest probe that began after the latest reply or hello.
    replied: Option<bool>,
}

impl Watched {
    fn new(nonce: u64, now: Instant) -> Self {
        Self {
            nonce,
            replied_nonce: nonce,
            is_challenged: false,
            missed: 0,
            next_challenge: now,
            has_replied: false,
            latest_reply: now,
            latest_life: now,
            flags: Flags::default(),
            kubelet: Kubelet::default(),
        }
    }

    const fn is_silent(&self, in_contact: bool) -> bool {
        !in_contact && self.missed >= CHALLENGES_MAX
    }

    const fn state(&self, in_contact: bool) -> WatchedNodeState {
        if !self.is_silent(in_contact) {
            WatchedNodeState::Replies
        } else {
            match self.kubelet.replied {
                Some(true) => WatchedNodeState::SpeakerSilent,
                Some(false) if self.kubelet.is_reachable => WatchedNodeState::Silent,
                Some(false) => WatchedNodeState::Unknown,
                // The probe is in progress.
                None => WatchedNodeState::Replies,
            }
        }
    }

    fn deadline(&self) -> Instant {
        let probe = self.kubelet.next_probe.filter(|_| self.kubelet.probing_since.is_none());
        probe.map_or(self.next_challenge, |at| at.min(self.next_challenge))
    }

    /// Records that the node has sent no reply or hello since `life`, and probes its kubelet at
    /// once.
    fn suspect(&mut self, life: Instant, now: Instant) {
        self.latest_life = self.latest_life.max(life);
        self.kubelet.replied = None;
        self.kubelet.next_probe = Some(now);
    }

    fn on_reply(&mut self, flags: Flags, now: Instant) {
        if !std::mem::replace(&mut self.has_replied, true) || self.missed > 0 {
            self.kubelet.next_probe = Some(now);
        }
        (self.is_challenged, self.missed) = (false, 0);
        self.next_challenge = now + CHALLENGE_INTERVAL;
        (self.latest_reply, self.latest_life) = (now, now);
        self.flags = flags;
        self.kubelet.replied = None;
    }

    fn on_kubelet_probed(&mut self, replied: bool, in_contact: bool, now: Instant) {
        let Some(since) = self.kubelet.probing_since.take() else { return };
        let replies = self.missed == 0 || in_contact;
        let is_outdated = !replies && since < self.latest_life;
        // One lost packet proves nothing, so a probe that fails is repeated. Only the first one of
        // a node that has just become silent is not, because its failure must be detected soon, and
        // other speakers probe it as well.
        let is_first = !replies && self.kubelet.replied.is_none();
        let is_unsure = !replied && !is_first && self.kubelet.failures + 1 < PROBES_MAX;
        if is_outdated || is_unsure {
            self.kubelet.failures += u32::from(!is_outdated);
            self.kubelet.is_reachable |= replied;
            self.kubelet.next_probe = Some(now);
            return;
        }
        self.kubelet.failures = 0;
        if replies || replied {
            self.kubelet.is_reachable = replied;
        }
        if !replies {
            self.kubelet.replied = Some(replied);
        }
        let interval = if replies { KUBELET_INTERVAL } else { KUBELET_RETRY_INTERVAL };
        self.kubelet.next_probe = Some(now + interval);
    }
}

impl Watcher {
    /// Creates a watcher that watches no node yet. `seed` must be random.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self {
            ring: Vec::new(),
            watched: BTreeMap::new(),
            absent: BTreeMap::new(),
            contacts: BTreeSet::new(),
            report: Vec::new(),
            kube_proxy_works: false,
            outputs: VecDeque::new(),
            random: Random::new(seed),
        }
    }

    /// Selects the nodes to watch: the first ones in the ring up to the third that has replied, and
    /// of those that have never replied at most [`WATCHED_NODES`].
    fn select(&mut self, now: Instant) {
        let mut selected = BTreeSet::new();
        let (mut replied, mut trials) = (0, 0);
        for name in &self.ring {
            if replied == WATCHED_NODES {
                break;
            }
            if self.watched.get(name).is_some_and(|watched| watched.has_replied) {
                replied += 1;
            } else if trials < WATCHED_NODES && self.absent.get(name).is_none_or(|at| *at <= now) {
                trials += 1;
            } else {
                continue;
            }
            selected.insert(Arc::clone(name));
        }
        self.watched.retain(|name, _| selected.contains(name));
        for name in selected {
            self.absent.remove(&name);
            if !self.watched.contains_key(&name) {
                let nonce = self.random.nonce();
                self.watched.insert(name, Watched::new(nonce, now));
            }
        }
    }

    fn set_nodes(&mut self, ring: Vec<Arc<str>>, now: Instant) {
        let names: BTreeSet<_> = ring.iter().collect();
        self.absent.retain(|name, _| names.contains(name));
        self.ring = ring;
        self.select(now);
    }

    fn set_contacts(&mut self, contacts: BTreeSet<Box<str>>, now: Instant) {
        let before = std::mem::replace(&mut self.contacts, contacts);
        for (name, watched) in &mut self.watched {
            match (before.contains(&**name), self.contacts.contains(&**name)) {
                (true, false) => {
                    watched.suspect(now, now);
                    watched.next_challenge = now;
                }
                (false, true) => {
                    watched.latest_life = now;
                    watched.flags.leaving = false;
                    watched.kubelet.replied = None;
                }
                (false, false) | (true, true) => {}
            }
        }
    }

    fn on_reply(&mut self, node: &str, nonce: u64, flags: Flags, now: Instant) {
        let new_nonce = self.random.nonce();
        let Some(watched) = self.watched.get_mut(node) else { return };
        // The report that a speaker stops repeats the nonce of its latest reply.
        let is_announcement = flags.leaving && nonce == watched.replied_nonce;
        if !(is_announcement || watched.is_challenged && nonce == watched.nonce) {
            return;
        }
        let is_new = !watched.has_replied;
        watched.on_reply(flags, now);
        (watched.replied_nonce, watched.nonce) = (nonce, new_nonce);
        if is_new {
            self.select(now);
        }
    }

    fn retry_interval(&self) -> Duration {
        let nodes = u32::try_from(self.absent.len()).unwrap_or(u32::MAX);
        ABSENT_RETRY_INTERVAL.max(RETRY_INTERVAL_PER_NODE.saturating_mul(nodes))
    }

    fn tick_node(&mut self, name: &Arc<str>, now: Instant) {
        let in_contact = self.contacts.contains(&**name);
        let Some(watched) = self.watched.get_mut(name) else { return };
        let limit = if watched.has_replied { FORGET_AFTER } else { TRIAL_TIME };
        if now.since(watched.latest_reply) >= limit && !in_contact {
            self.watched.remove(name);
            self.absent.insert(Arc::clone(name), now + self.retry_interval());
            return self.select(now);
        }
        if watched.next_challenge <= now {
            if watched.is_challenged {
                watched.missed = watched.missed.saturating_add(1);
                if watched.missed == 1 && watched.has_replied && !in_contact {
                    watched.suspect(watched.latest_reply, now);
                }
            }
            watched.is_challenged = true;
            let fails = watched.missed >= CHALLENGES_MAX || !watched.has_replied;
            watched.next_challenge = now + if fails { CHALLENGE_INTERVAL } else { REPLY_TIMEOUT };
            let (node, nonce, missed) = (Arc::clone(name), watched.nonce, watched.missed);
            self.outputs.push_back(WatcherOutput::Challenge { node, nonce, missed });
        }
        let kubelet = &mut watched.kubelet;
        if kubelet.probing_since.is_none() && kubelet.next_probe.is_some_and(|at| at <= now) {
            (kubelet.probing_since, kubelet.next_probe) = (Some(now), None);
            self.outputs.push_back(WatcherOutput::ProbeKubelet(Arc::clone(name)));
        }
    }

    fn update_report(&mut self) {
        let node = |(name, watched): (&Arc<str>, &Watched)| {
            let state = watched.state(self.contacts.contains(&**name));
            let leaving = watched.flags.leaving;
            WatchedNode {
                node: name.to_string(),
                state: if leaving { WatchedNodeState::Leaving } else { state },
                silent: leaving && state == WatchedNodeState::Silent,
            }
        };
        // A node that has never replied may have no speaker.
        let known = self.watched.iter().filter(|(_, watched)| watched.has_replied);
        let report: Vec<_> = known.map(node).collect();
        if report != self.report {
            self.report.clone_from(&report);
            self.outputs.push_back(WatcherOutput::Report(report));
        }
        let works = |it: &Watched| it.flags.health_checked && it.missed < CHALLENGES_MAX;
        let kube_proxy_works = self.watched.values().any(works);
        if std::mem::replace(&mut self.kube_proxy_works, kube_proxy_works) != kube_proxy_works {
            self.outputs.push_back(WatcherOutput::KubeProxyWorks(kube_proxy_works));
        }
    }
}

impl Machine for Watcher {
    type Input = WatcherInput;
    type Output = WatcherOutput;

    fn handle(&mut self, input: WatcherInput, now: Instant) {
        match input {
            WatcherInput::Nodes(ring) => self.set_nodes(ring, now),
            WatcherInput::Contacts(contacts) => self.set_contacts(contacts, now),
            WatcherInput::Reply { node, nonce, flags } => self.on_reply(&node, nonce, flags, now),
            WatcherInput::KubeletProbed { node, replied } => {
                let in_contact = self.contacts.contains(&*node);
                if let Some(watched) = self.watched.get_mut(&node) {
                    watched.on_kubelet_probed(replied, in_contact, now);
                }
            }
        }
        self.update_report();
    }

    fn tick(&mut self, now: Instant) {
        if self.deadline().is_none_or(|at| now < at) {
            return;
        }
        if self.absent.values().any(|at| *at <= now) {
            self.select(now);
            // The nodes that are not selected wait for the next interval.
            let next = now + self.retry_interval();
            self.absent.values_mut().filter(|at| **at <= now).for_each(|at| *at = next);
        }
        let is_due = |watched: &Watched| watched.deadline() <= now;
        let due = self.watched.iter().filter(|(_, watched)| is_due(watched));
        for name in due.map(|(name, _)| Arc::clone(name)).collect::<Vec<_>>() {
            self.tick_node(&name, now);
        }
        self.update_report();
    }

    fn poll(&mut self) -> Option<WatcherOutput> {
        self.outputs.pop_front()
    }

    fn deadline(&self) -> Option<Instant> {
        let absent = self.absent.values().copied();
        self.watched.values().map(Watched::deadline).chain(absent).min()
    }
}

#[cfg(test)]
mod tests;
