//! World: the state of one run, and its queue of events.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use ferrolb_controller_core::lease::LeaseRecord;
use ferrolb_controller_core::node_failure::failures::NODES_PER_FAILURE;
use ferrolb_proto::Instant;
use ferrolb_proto::facts::{Pod, Speaker};
use ferrolb_speaker_core::node_failure::ring;

use super::checker::{Checker, Outcome};
use super::controller::{REPLICAS, Replica};
use super::node::{Conditions, Node, Process};
use super::queue::{Event, Queue};
use super::{Defect, Run};
use crate::rng::Rng;
use crate::scenario::ms;

/// Number of nodes that share a rack, and its network segment.
pub(super) const RACK_SIZE: usize = 20;
/// Largest cluster that may have one network segment in common.
const ONE_SEGMENT_MAX: usize = 100;
/// Share of runs in which some nodes have an old speaker, and share of these nodes.
const OLD_VERSIONS_SHARE: f64 = 0.25;
const OLD_NODES_SHARE: f64 = 0.3;

pub(super) struct World {
    pub(super) now: Instant,
    pub(super) rng: Rng,
    pub(super) queue: Queue,
    /// Names in ascending order, so that the order of the numbers is the one of the names.
    pub(super) names: Vec<Arc<str>>,
    /// The nodes in the order of the ring, which is the same for all of them.
    pub(super) ring: Vec<usize>,
    pub(super) nodes: Vec<Node>,
    /// Number of nodes on a segment; 0 if there is no segment with two nodes.
    segment_size: usize,
    /// Share of lost packets.
    pub(super) loss: f64,
    /// Share of requests to the API server that report a failure.
    pub(super) failing_requests: f64,
    /// The SpeakerStatuses in the API server.
    pub(super) stored: Vec<Arc<Speaker>>,
    /// The pod of each node's speaker in the API server.
    pub(super) pods: Vec<Option<Arc<Pod>>>,
    /// Additional time until a change of a pod reaches the replicas.
    pub(super) pods_late: Duration,
    /// The Lease in the API server.
    pub(super) lease: Option<LeaseRecord>,
    pub(super) latest_leader_change: Instant,
    pub(super) replicas: Vec<Replica>,
    pub(super) checker: Checker,
    pub(super) defect: Option<Defect>,
    trace: bool,
}

impl World {
    pub(super) fn new(run: &Run) -> Self {
        let mut rng = Rng::new(run.seed ^ ((run.nodes as u64) << 40));
        let now = Instant::from_millis(10_000);
        let count = run.nodes;
        let names: Vec<Arc<str>> = (0..count).map(|node| format!("node{node:04}").into()).collect();
        let followers = ring::successors(&names[0], names.iter());
        let index = |name: &str| names.binary_search_by(|it| (**it).cmp(name)).unwrap_or(0);
        let ring: Vec<usize> =
            std::iter::once(0).chain(followers.iter().map(|name| index(name))).collect();
        let mut sizes = vec![0, RACK_SIZE, RACK_SIZE];
        if count <= ONE_SEGMENT_MAX {
            sizes.push(count);
        }
        let mut world = Self {
            now,
            queue: Queue::default(),
            ring,
            nodes: Vec::new(),
            segment_size: rng.pick(&sizes),
            loss: rng.pick(&[0.0, 0.0, 0.001, 0.02]),
            failing_requests: rng.pick(&[0.0, 0.0, 0.05, 0.5]),
            stored: Vec::new(),
            pods: Vec::new(),
            pods_late: Duration::ZERO,
            lease: None,
            latest_leader_change: now,
            replicas: Vec::new(),
            checker: Checker::new(count, now),
            defect: run.defect,
            trace: run.trace,
            names,
            rng,
        };
        world.create_nodes();
        world
    }

    fn create_nodes(&mut self) {
        let mut positions = vec![0; self.ring.len()];
        for (position, node) in self.ring.iter().enumerate() {
            positions[*node] = position;
        }
        let old = if self.rng.chance(OLD_VERSIONS_SHARE) { OLD_NODES_SHARE } else { 0.0 };
        for position in positions {
            let sync_phase = self.random_phase();
            self.nodes.push(Node {
                conditions: Conditions::default(),
                position,
                is_old: self.rng.chance(old),
                pods: 0,
                process: Process::new(1, self.now),
                sync_phase,
                sync_pending: false,
                heartbeat_period: 0,
                is_ready: true,
                is_marked: false,
                latest_stored: self.now,
                latest_seen: self.now,
                latest_pod_seen: self.now,
            });
        }
        for node in 0..self.nodes.len() {
            let pod = Arc::new(self.new_pod(node));
            self.pods.push(Some(pod));
            if let Some(segment) = self.segment_of(node) {
                self.nodes[node].process.contacts = segment.filter(|it| *it != node).collect();
            }
        }
        self.stored = (0..self.nodes.len()).map(|node| Arc::new(self.status(node))).collect();
        self.create_replicas();
        self.note(|world| {
            let (size, loss) = (world.segment_size, world.loss);
            let nodes: Vec<_> = world.replicas.iter().map(|it| &*world.names[it.node]).collect();
            let nodes = nodes.join(", ");
            format!("segments of {size} nodes, loss {loss}, the replicas are on {nodes}")
        });
    }

    /// Returns the nodes of a node's segment.
    pub(super) fn segment_of(&self, node: usize) -> Option<Range<usize>> {
        let size = self.segment_size;
        let start = node.checked_div(size)? * size;
        Some(start..(start + size).min(self.nodes.len()))
    }

    pub(super) fn index(&self, name: &str) -> usize {
        let found = self.names.binary_search_by(|it| (**it).cmp(name));
        found.expect("the name is one of the nodes'")
    }

    /// Prints a line of the trace.
    pub(super) fn note(&self, text: impl FnOnce(&Self) -> String) {
        if self.trace {
            let at = self.now.since(Instant::ZERO).as_secs_f64();
            println!("{at:>10.4} {}", text(self));
        }
    }

    pub(super) fn after(&mut self, wait: Duration, action: impl FnOnce(&mut Self) + 'static) {
        self.queue.push(self.now + wait, Event::Action(Box::new(action)));
    }

    /// Changes the conditions of a node.
    pub(super) fn change(&mut self, node: usize, change: impl FnOnce(&mut Conditions)) {
        let before = self.nodes[node].conditions;
        let mut after = before;
        change(&mut after);
        if before == after {
            return;
        }
        let is_watched =
            (before.is_calm(), before.part) != (after.is_calm(), after.part) || !after.is_calm();
        if is_watched {
            self.unpark_around(node);
        }
        self.nodes[node].conditions = after;
        match (before.speaker_runs(), after.speaker_runs()) {
            (true, false) => self.stop_speaker(node),
            (false, true) => self.start_speaker(node),
            (true, true) if after.watcher_works() && !before.watcher_works() => {
                self.resume_speaker(node);
            }
            (true, true) | (false, false) => {}
        }
        if is_watched {
            self.check_contacts(node);
        }
        if before.kubelet_works() != after.kubelet_works() {
            self.kubelet_changed(node, after.kubelet_works());
        }
        for replica in 0..REPLICAS {
            if node == self.replicas[replica].node {
                self.replica_changed(replica);
            }
        }
        self.check_node(node);
    }

    pub(super) fn check_node(&mut self, node: usize) {
        let it = &self.nodes[node];
        self.checker.update(node, it.conditions.is_alive(), it.is_marked, self.now);
    }

    pub(super) fn check_limit(&mut self) {
        let counts = |node: &&Node| node.is_marked && node.is_ready;
        let marked = self.nodes.iter().filter(counts).count();
        let limit = (self.nodes.len() / NODES_PER_FAILURE).max(1);
        self.checker.check_limit(marked, limit, self.now);
    }

    /// Handles all events of the next time `duration`.
    pub(super) fn run(&mut self, duration: Duration) {
        let end = self.now + duration;
        while let Some((at, event)) = self.queue.pop(end) {
            self.now = at;
            self.handle(event);
        }
        self.now = end;
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Wake(node) => self.wake(node),
            Event::Challenge { watcher, process, target, nonce } => {
                self.challenge_arrives((watcher, process), target, nonce);
            }
            Event::Arrival { watcher, process, arrival } => self.arrives(watcher, process, arrival),
            Event::Contact { node, other } => self.check_contact(node, other),
            Event::Contacts(node) => self.pass_contacts(node),
            Event::Write { node, process } => self.write_status(node, process),
            Event::Stored(node, status) => {
                self.stored[node] = Arc::clone(&status);
                let wait = self.rng.between(ms(1), ms(10));
                let it = &mut self.nodes[node];
                it.latest_seen = it.latest_seen.max(self.now + wait);
                self.queue.push(it.latest_seen, Event::Seen(node, status));
            }
            Event::Seen(node, status) => self.status_seen(node, &status),
            Event::ReadySeen(node, is_ready) => self.ready_seen(node, is_ready),
            Event::PodSeen(node, pod) => self.pod_seen(node, &pod),
            Event::Evaluate(replica) => self.evaluate(replica),
            Event::ReplicaWake(replica) => self.wake_replica(replica),
            Event::LeaseWake(replica) => self.wake_lease(replica),
            Event::LeaseEnd { replica, process, request } => {
                self.end_lease_request(replica, process, request);
            }
            Event::ActionSend(begun) => self.send_action(begun),
            Event::ActionEnd(ended) => self.end_action(&ended),
            Event::Sync(node) => self.sync(node),
            Event::Heartbeat { node, period } => self.check_heartbeat(node, period),
            Event::Action(action) => action(self),
        }
    }

    pub(super) fn conclude(self) -> Outcome {
        self.checker.conclude(self.now)
    }
}
