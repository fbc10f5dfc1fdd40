//! Process of a speaker: runs the real watcher, replies to challenges, and writes the
//! SpeakerStatus.
//!
//! A watcher is parked, and costs nothing, while its own node and the nodes that it watches are
//! calm: no fault affects them, and they have replied. A parked watcher would only repeat
//! challenges and receive replies. Its report could change only if four challenges in a row were
//! lost, and then the kubelet replies, so that its report is never `Silent`. A run therefore loses
//! no mark and no violation. A fault unparks the watchers of the node first: they continue with a
//! reply from each node at a random time within the last interval. The probe of each kubelet before
//! the fault is simulated with its losses, because a kubelet that it did not reach proves nothing
//! later.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use ferrolb_core::Machine;
use ferrolb_core::node_failure::WATCHED_NODES;
use ferrolb_proto::Instant;
use ferrolb_proto::api::{WatchedNode, WatchedNodeState};
use ferrolb_proto::facts::{Speaker, SpeakerInterface};
use ferrolb_proto::wire::hello::Flags;
use ferrolb_speaker_core::node_failure::watcher::{
    CHALLENGE_INTERVAL, Watcher, WatcherInput, WatcherOutput,
};

use super::node::Process;
use super::queue::{Arrival, Event};
use super::world::World;
use crate::scenario::ms;

/// Number of following nodes that a watcher knows. A real one knows all, but watches only the first
/// three that reply, and tries at most three others every 3 s.
const KNOWN_NODES: usize = 64;
/// Time after which the probe of a kubelet ends without a reply.
const PROBE_TIMEOUT: Duration = ms(500);
/// Minimum time for which a watcher is simulated after a change.
const UNPARKED_MIN: Duration = ms(3_000);
/// Interval of writes of a SpeakerStatus, and the burst.
const WRITE_INTERVAL: Duration = ms(1_000);
const WRITE_BURST: u32 = 3;

impl World {
    /// Returns the nodes that a node watches, if all of them reply.
    pub(super) fn successors(&self, node: usize) -> impl Iterator<Item = usize> + '_ {
        let (position, count) = (self.nodes[node].position, self.ring.len());
        (1..=(count - 1).min(KNOWN_NODES)).map(move |step| self.ring[(position + step) % count])
    }

    /// Returns whether a speaker that watches the node is an old one.
    pub(super) fn has_old_watcher(&self, node: usize) -> bool {
        let (position, count) = (self.nodes[node].position, self.ring.len());
        (1..=WATCHED_NODES.min(count - 1))
            .any(|step| self.nodes[self.ring[(position + count - step) % count]].is_old)
    }

    /// Continues the watcher of a node, and those of the nodes that watch it, before a change.
    pub(super) fn unpark_around(&mut self, node: usize) {
        let (position, count) = (self.nodes[node].position, self.ring.len());
        for step in 0..=WATCHED_NODES {
            self.unpark(self.ring[(position + count - step) % count]);
        }
    }

    fn unpark(&mut self, node: usize) {
        let now = self.now;
        let it = &mut self.nodes[node];
        if !it.conditions.watcher_works() {
            return;
        }
        it.process.unparked_at = now;
        if !std::mem::replace(&mut it.process.is_parked, false) {
            return;
        }
        let names = it.process.contacts.iter().map(|other| Box::from(&*self.names[*other]));
        let contacts: BTreeSet<Box<str>> = names.collect();
        let since = now.as_nanos().saturating_sub(CHALLENGE_INTERVAL.as_nanos() as u64);
        let mut at = it.process.latest_call.max(Instant::from_nanos(since));
        let is_new = it.process.watcher.is_none();
        if is_new {
            self.create_watcher(node, at);
        }
        let mut watcher = self.nodes[node].process.watcher.take().expect("it was created");
        watcher.handle(WatcherInput::Contacts(contacts), at);
        let mut targets: Vec<_> = self.successors(node).take(WATCHED_NODES).collect();
        self.shuffle(&mut targets);
        watcher.tick(at);
        let mut challenges = Vec::new();
        for _ in 0..=targets.len() {
            while let Some(output) = watcher.poll() {
                match output {
                    WatcherOutput::Challenge { node, nonce, .. } => challenges.push((node, nonce)),
                    WatcherOutput::ProbeKubelet(node) => {
                        let replied = !self.loses_connection();
                        watcher.handle(WatcherInput::KubeletProbed { node, replied }, at);
                        watcher.tick(at);
                    }
                    WatcherOutput::Report(report) => self.nodes[node].process.report = report,
                    WatcherOutput::KubeProxyWorks(_) => {}
                }
            }
            let Some(target) = targets.pop() else { break };
            let name = &self.names[target];
            if let Some((_, nonce)) = challenges.iter().find(|(node, _)| node == name) {
                at = at + self.rng.between(Duration::ZERO, now.since(at) / 2);
                let (node_name, flags) = ((**name).into(), Flags::default());
                let reply = WatcherInput::Reply { node: node_name, nonce: *nonce, flags };
                watcher.handle(reply, at);
                let number = self.nodes[node].process.number;
                self.nodes[target].process.replied.insert(node, (number, *nonce));
                // A new watcher probes the kubelet.
                watcher.tick(at);
            }
        }
        let process = &mut self.nodes[node].process;
        (process.watcher, process.latest_call) = (Some(watcher), at);
        self.drive(node);
    }

    /// Returns whether the first packet of a connection, or the reply, is lost. Linux repeats it
    /// only after 1 s.
    fn loses_connection(&mut self) -> bool {
        self.rng.chance(self.loss) || self.rng.chance(self.loss)
    }

    fn shuffle(&mut self, all: &mut [usize]) {
        for at in (1..all.len()).rev() {
            all.swap(at, self.rng.below(at + 1));
        }
    }

    fn create_watcher(&mut self, node: usize, at: Instant) {
        let mut watcher = Watcher::new(self.rng.next_u64());
        let ring = self.successors(node).map(|other| Arc::clone(&self.names[other])).collect();
        watcher.handle(WatcherInput::Nodes(ring), at);
        self.nodes[node].process.watcher = Some(watcher);
    }

    /// Starts a new process, which knows nothing.
    pub(super) fn start_speaker(&mut self, node: usize) {
        let number = self.nodes[node].process.number + 1;
        self.nodes[node].process = Process::new(number, self.now);
        self.nodes[node].process.is_parked = false;
        self.nodes[node].process.latest_call = self.now;
        self.create_watcher(node, self.now);
        self.drive(node);
        let wait = self.rng.between(ms(100), ms(500));
        self.write_status_after(node, wait);
    }

    pub(super) fn stop_speaker(&mut self, node: usize) {
        let number = self.nodes[node].process.number + 1;
        self.nodes[node].process = Process::new(number, self.now);
    }

    /// Sends the report that a speaker stops to all nodes that challenge it.
    pub(super) fn announce_stop(&mut self, node: usize) {
        if !self.nodes[node].conditions.speaker_works() {
            return;
        }
        self.unpark_around(node);
        for (watcher, (process, nonce)) in self.nodes[node].process.replied.clone() {
            for _ in 0..2 {
                let arrival = Arrival::Reply { target: node, nonce, is_leaving: true };
                self.send(node, watcher, process, arrival);
            }
        }
    }

    /// Sends a UDP datagram to a watcher.
    fn send(&mut self, from: usize, watcher: usize, process: u32, arrival: Arrival) {
        let passes = self.passes_udp(from, watcher);
        if passes && !self.rng.chance(self.loss) {
            let at = self.now + self.latency();
            self.queue.push(at, Event::Arrival { watcher, process, arrival });
        }
    }

    fn passes_udp(&self, one: usize, other: usize) -> bool {
        self.nodes[one].conditions.exchanges_udp(&self.nodes[other].conditions)
    }

    /// Returns whether the port of a kubelet replies to another node. It replies also if the
    /// kubelet does not run: with a refusal.
    pub(super) fn connects(&self, node: usize, target: usize) -> bool {
        let (here, there) = (&self.nodes[node].conditions, &self.nodes[target].conditions);
        here.reaches(there) && there.kubelet_filtered == 0
    }

    fn latency(&mut self) -> Duration {
        if self.rng.chance(0.01) {
            self.rng.between(ms(1), ms(60))
        } else {
            self.rng.between(Duration::from_micros(50), ms(2))
        }
    }

    /// A challenge reaches its target.
    pub(super) fn challenge_arrives(
        &mut self,
        (watcher, process): (usize, u32),
        target: usize,
        nonce: u64,
    ) {
        let conditions = self.nodes[target].conditions;
        if !self.passes_udp(watcher, target) || !conditions.speaker_runs() {
            return;
        }
        if !conditions.speaker_works() {
            return self.nodes[target].process.unanswered.push((watcher, process, nonce));
        }
        self.nodes[target].process.replied.insert(watcher, (process, nonce));
        let arrival = Arrival::Reply { target, nonce, is_leaving: false };
        self.send(target, watcher, process, arrival);
    }

    pub(super) fn arrives(&mut self, watcher: usize, process: u32, arrival: Arrival) {
        let node = &mut self.nodes[watcher];
        if node.process.number != process || node.process.watcher.is_none() {
            return;
        }
        if !node.conditions.watcher_works() {
            return node.process.inbox.push(arrival);
        }
        let input = match arrival {
            Arrival::Reply { target, nonce, is_leaving } => {
                let node = (*self.names[target]).into();
                let flags = Flags { leaving: is_leaving, ..Flags::default() };
                WatcherInput::Reply { node, nonce, flags }
            }
            Arrival::Probed { target, replied } => {
                let hidden = self.defect == Some(super::Defect::IgnoresKubelets)
                    && !self.nodes[target].conditions.is_calm();
                let node = Arc::clone(&self.names[target]);
                WatcherInput::KubeletProbed { node, replied: replied && !hidden }
            }
        };
        self.handle_input(watcher, input);
    }

    fn handle_input(&mut self, node: usize, input: WatcherInput) {
        let now = self.now;
        let process = &mut self.nodes[node].process;
        let Some(watcher) = &mut process.watcher else { return };
        watcher.handle(input, now);
        process.latest_call = now;
        self.drive(node);
    }

    /// Continues a process that stood still. Its timers run before its inputs, or after them.
    pub(super) fn resume_speaker(&mut self, node: usize) {
        let timers_first = self.rng.chance(0.5);
        if timers_first {
            self.tick_watcher(node);
        }
        let process = &mut self.nodes[node].process;
        let number = process.number;
        let (inbox, unanswered) =
            (std::mem::take(&mut process.inbox), std::mem::take(&mut process.unanswered));
        for arrival in inbox {
            self.arrives(node, number, arrival);
        }
        for (watcher, process, nonce) in unanswered {
            self.challenge_arrives((watcher, process), node, nonce);
        }
        if !timers_first {
            self.tick_watcher(node);
        }
        // The process may find first that it has not received hellos for long.
        if self.rng.chance(0.5) {
            self.nodes[node].process.contacts.clear();
            self.contacts_changed(node);
        }
        self.write_status_after(node, ms(1));
    }

    /// The deadline of a watcher may have passed.
    pub(super) fn wake(&mut self, node: usize) {
        if self.nodes[node].process.wake_at != Some(self.now) {
            return;
        }
        self.nodes[node].process.wake_at = None;
        if !self.nodes[node].conditions.watcher_works() {
            return;
        }
        if self.may_park(node) {
            self.nodes[node].process.is_parked = true;
            return;
        }
        self.tick_watcher(node);
    }

    fn tick_watcher(&mut self, node: usize) {
        let now = self.now;
        let process = &mut self.nodes[node].process;
        let Some(watcher) = &mut process.watcher else { return };
        watcher.tick(now);
        process.latest_call = now;
        self.drive(node);
    }

    fn may_park(&self, node: usize) -> bool {
        let it = &self.nodes[node];
        let is_calm = |other: usize| {
            let conditions = &self.nodes[other].conditions;
            conditions.is_calm() && conditions.part == it.conditions.part
        };
        let replies = |other: usize| {
            let reports = |watched: &WatchedNode| {
                *watched.node == *self.names[other] && watched.state == WatchedNodeState::Replies
            };
            it.process.report.iter().any(reports)
        };
        self.now.since(it.process.unparked_at) >= UNPARKED_MIN
            && is_calm(node)
            && it.process.report.len() == WATCHED_NODES.min(self.nodes.len() - 1)
            && self.successors(node).take(WATCHED_NODES).all(|it| is_calm(it) && replies(it))
    }

    /// Executes the outputs of a watcher, and schedules its deadline.
    fn drive(&mut self, node: usize) {
        loop {
            let Some(watcher) = &mut self.nodes[node].process.watcher else { return };
            let Some(output) = watcher.poll() else { break };
            self.execute(node, output);
        }
        let watcher = self.nodes[node].process.watcher.as_ref();
        let Some(deadline) = watcher.and_then(Machine::deadline) else { return };
        if self.nodes[node].process.wake_at.is_none_or(|at| deadline < at) {
            let at = deadline.max(self.now) + self.rng.between(Duration::ZERO, ms(2));
            self.nodes[node].process.wake_at = Some(at);
            self.queue.push(at, Event::Wake(node));
        }
    }

    fn execute(&mut self, node: usize, output: WatcherOutput) {
        let process = self.nodes[node].process.number;
        match output {
            WatcherOutput::Challenge { node: target, nonce, .. } => {
                let target = self.index(&target);
                if self.passes_udp(node, target) && !self.rng.chance(self.loss) {
                    let at = self.now + self.latency();
                    self.queue.push(at, Event::Challenge { watcher: node, process, target, nonce });
                }
            }
            WatcherOutput::ProbeKubelet(target) => {
                let target = self.index(&target);
                let replied = self.connects(node, target) && !self.loses_connection();
                let wait = if replied { self.latency() } else { PROBE_TIMEOUT };
                let arrival = Arrival::Probed { target, replied };
                self.queue
                    .push(self.now + wait, Event::Arrival { watcher: node, process, arrival });
            }
            WatcherOutput::Report(report) => {
                self.note(|world| {
                    let states = report.iter().map(|it| {
                        let silent = if it.silent { " silent" } else { "" };
                        format!("{} {:?}{silent}", it.node, it.state)
                    });
                    let states: Vec<_> = states.collect();
                    format!("{} reports {}", world.names[node], states.join(", "))
                });
                self.nodes[node].process.report = report;
                self.write_status_after(node, ms(1));
            }
            WatcherOutput::KubeProxyWorks(_) => {}
        }
    }

    /// Records that a contact may have begun or ended, for both nodes.
    pub(super) fn check_contacts(&mut self, node: usize) {
        let Some(segment) = self.segment_of(node) else { return };
        for other in segment.filter(|other| *other != node) {
            for (one, two) in [(node, other), (other, node)] {
                let receives = self.receives(one, two);
                if self.nodes[one].process.contacts.contains(&two) != receives {
                    let (least, most) = if receives { (50, 300) } else { (160, 850) };
                    let wait = self.rng.between(ms(least), ms(most));
                    self.queue.push(self.now + wait, Event::Contact { node: one, other: two });
                }
            }
        }
    }

    fn receives(&self, node: usize, other: usize) -> bool {
        self.nodes[node].conditions.receives_hellos_of(&self.nodes[other].conditions)
    }

    pub(super) fn check_contact(&mut self, node: usize, other: usize) {
        if !self.nodes[node].conditions.watcher_works() {
            return;
        }
        let receives = self.receives(node, other);
        let contacts = &mut self.nodes[node].process.contacts;
        let has_changed = if receives { contacts.insert(other) } else { contacts.remove(&other) };
        if has_changed {
            self.contacts_changed(node);
        }
    }

    /// Changes of several contacts at almost the same time are handled together.
    fn contacts_changed(&mut self, node: usize) {
        if !std::mem::replace(&mut self.nodes[node].process.contacts_pending, true) {
            let wait = self.rng.between(Duration::ZERO, ms(5));
            self.queue.push(self.now + wait, Event::Contacts(node));
        }
    }

    pub(super) fn pass_contacts(&mut self, node: usize) {
        let it = &mut self.nodes[node];
        it.process.contacts_pending = false;
        if !it.conditions.watcher_works() {
            return;
        }
        if !it.process.is_parked {
            let names = it.process.contacts.iter().map(|other| (*self.names[*other]).into());
            let contacts = names.collect();
            self.handle_input(node, WatcherInput::Contacts(contacts));
        }
        self.write_status_after(node, ms(1));
    }

    fn write_status_after(&mut self, node: usize, wait: Duration) {
        let process = &mut self.nodes[node].process;
        if std::mem::replace(&mut process.write_pending, true) {
            return;
        }
        let full = process.full_burst_at.as_nanos();
        let burst = (WRITE_INTERVAL * (WRITE_BURST - 1)).as_nanos() as u64;
        let allowed = Instant::from_nanos(full.saturating_sub(burst));
        let at = allowed.max(self.now + wait);
        let process = process.number;
        self.queue.push(at, Event::Write { node, process });
    }

    pub(super) fn write_status(&mut self, node: usize, process: u32) {
        let now = self.now;
        let it = &mut self.nodes[node];
        if it.process.number != process {
            return;
        }
        it.process.write_pending = false;
        // A process that continues writes again.
        if !it.conditions.speaker_works() {
            return;
        }
        if !it.conditions.reaches_api() {
            return self.write_status_after(node, WRITE_INTERVAL);
        }
        it.process.full_burst_at = it.process.full_burst_at.max(now) + WRITE_INTERVAL;
        let status = Arc::new(self.status(node));
        let at = now + self.rng.between(ms(4), ms(40));
        // One process writes one status after the other.
        let it = &mut self.nodes[node];
        it.latest_stored = it.latest_stored.max(at);
        self.queue.push(it.latest_stored, Event::Stored(node, status));
    }

    /// Returns the SpeakerStatus of a node.
    pub(super) fn status(&self, node: usize) -> Speaker {
        let process = &self.nodes[node].process;
        let name = |other: &usize| Box::from(&*self.names[*other]);
        let hello_senders = process.contacts.iter().map(name).collect();
        let watched = if process.watcher.is_some() {
            process.report.clone()
        } else {
            let watched = |other: usize| WatchedNode {
                node: self.names[other].to_string(),
                state: WatchedNodeState::Replies,
                silent: false,
            };
            let mut all: Vec<_> = self.successors(node).take(WATCHED_NODES).map(watched).collect();
            all.sort_by(|a, b| a.node.cmp(&b.node));
            all
        };
        let is_old = self.nodes[node].is_old && self.defect != Some(super::Defect::IgnoresVersions);
        let watched =
            watched.into_iter().map(|it| WatchedNode { silent: it.silent && !is_old, ..it });
        Speaker {
            node: (*self.names[node]).into(),
            interfaces: [SpeakerInterface { hello_senders, ..SpeakerInterface::default() }].into(),
            watched: watched.collect(),
            ..Speaker::default()
        }
    }
}
