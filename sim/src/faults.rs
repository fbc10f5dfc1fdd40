//! Faults of nodes, the network segment and the API. Each fault is one action on the simulated
//! world; scenarios schedule the faults.

use super::checker::{Cause, FAILURE_DETECTION_MIN, Rule};
use super::clients::FOREIGN_HOST;
use super::node::Halt;
use super::view::{ApiChange, node_flags};
use super::world::{INTERVAL, SimWorld};
use ferrolb_proto::Instant;
use ferrolb_proto::claim::{Input, NodeState};
use ferrolb_proto::wire::Mac;
use ferrolb_proto::wire::hello::{HelloKey, HelloKeyRing};
use std::rc::Rc;
use std::time::Duration;

/// Length of a halt after which other nodes have taken the halted node's units: the times of
/// suspicion and failure detection, the stagger of two candidates, and a margin.
const TAKEN_AFTER: Duration = Duration::from_millis(400);
/// Maximum time from the end of a pause until the paused node has detected it. The node needs
/// frames of two peers, and nodes without units send a hello only every second.
const FENCE_WITHIN: Duration = Duration::from_millis(1_100);
/// Hardware address of a foreign host.
const FOREIGN_MAC: Mac = Mac([2, 0xff, 0, 0, 0xff, 0xff]);
/// Minimum time from a change in the API until a node learns of it.
const LEARN_MIN: Duration = Duration::from_millis(20);

impl SimWorld {
    /// Returns a random node that owns a unit, or the first node if none does.
    pub(super) fn owner(&mut self) -> usize {
        let holds = |index: &usize| self.nodes[*index].owns.contains(&true);
        let owners: Vec<usize> = (0..self.nodes.len()).filter(holds).collect();
        if owners.is_empty() { 0 } else { self.rng.pick(&owners) }
    }

    /// Kills the process of a node, which sends no frame any more.
    pub(super) fn crash(&mut self, index: usize) {
        self.log(|| format!("===== end n{index}"));
        self.nodes[index].clear(self.now);
        self.account_all(Cause::World);
    }

    /// Requests a graceful shutdown of the process of a node.
    pub(super) fn leave(&mut self, index: usize) {
        self.log(|| format!("===== leave n{index}"));
        self.nodes[index].leaving = self.nodes[index].is_up();
        self.pass_input(index, Input::Leave);
        self.account_all(Cause::World);
    }

    pub(super) fn freeze(&mut self, index: usize, time: Duration) {
        self.halt(index, time, Halt::Stopped);
    }

    pub(super) fn pause(&mut self, index: usize, time: Duration) {
        self.halt(index, time, Halt::Paused);
    }

    fn halt(&mut self, index: usize, time: Duration, how: Halt) {
        let node = &mut self.nodes[index];
        if !node.is_up() || node.halted.is_some() {
            return;
        }
        node.halted = Some(how);
        if how == Halt::Paused {
            node.clock.stop(self.now);
            self.irregular_clocks.insert(index);
        }
        let life = node.process_number;
        self.log(|| format!("===== {how:?} n{index} for {time:.1?}"));
        self.account_all(Cause::World);
        self.after(time, move |world| world.resume(index, life, how, time));
    }

    fn resume(&mut self, index: usize, life: u32, how: Halt, time: Duration) {
        let node = &mut self.nodes[index];
        if node.process_number != life || !node.is_up() {
            return;
        }
        if how == Halt::Paused {
            node.clock.resume(self.now);
        }
        node.halted = None;
        node.wake = None;
        let (fences, held) = (
            node.counted_fences,
            (0..node.owns.len()).filter(|unit| node.owns[*unit]).collect::<Vec<_>>(),
        );
        self.log(|| format!("===== n{index} continues"));
        // The answer lease is checked first, because the node may reply to an ARP request before it
        // does anything else.
        self.check_answer_lease(index, false);
        self.account_all(Cause::World);
        let part = self.nodes[index].part;
        let taken =
            held.iter().any(|unit| self.owners(part, *unit).iter().any(|owner| *owner != index));
        // If another node took a unit before it could detect a failure, this node had handed the
        // unit over. The answer lease only matters after a failure detection.
        if how == Halt::Stopped && taken && time + INTERVAL >= FAILURE_DETECTION_MIN {
            let stale = held.iter().find(|unit| {
                let owners = self.owners(part, **unit);
                owners.contains(&index) && owners.len() > 1
            });
            if let Some(unit) = stale {
                self.violate(
                    Rule::AnswerLease,
                    format!("n{index} was stopped for {time:.1?} and replies for unit {unit}"),
                );
            }
        }
        self.catch_up(index);
        self.account_all(Cause::World);
        let is_witnessed =
            self.bounds.fences.is_some() && self.irregular_clocks.iter().all(|node| *node == index);
        if taken && time >= TAKEN_AFTER && is_witnessed {
            let since = self.now;
            self.after(FENCE_WITHIN, move |world| {
                world.check_fenced(index, life, fences, &held, since)
            });
        }
    }

    /// Makes a resumed node read its clock and its sockets in a random order.
    fn catch_up(&mut self, index: usize) {
        if self.nodes[index].view_pending {
            self.pass_view(index);
        }
        let clock_first = self.rng.chance(0.5);
        if clock_first {
            self.tick(index);
        }
        if std::mem::take(&mut self.nodes[index].foreign_frame_pending) {
            self.pass_input(index, Input::FrameReceived);
        }
        for packet in std::mem::take(&mut self.nodes[index].pending_frames) {
            self.receive(index, packet);
        }
        if !clock_first {
            self.tick(index);
        }
        self.catch_up_announcing(index);
    }

    /// Checks that a resumed node has fenced itself. A node that has already yielded the units that
    /// others took in the meantime has nothing to release, and need not fence itself.
    fn check_fenced(
        &mut self,
        index: usize,
        life: u32,
        before: u64,
        held: &[usize],
        since: Instant,
    ) {
        let node = &self.nodes[index];
        let holds_on =
            held.iter().any(|unit| node.owns[*unit] && self.truth.units[*unit].taken < since);
        if node.process_number == life && node.works() && node.counted_fences == before && holds_on
        {
            self.violate(
                Rule::Fence,
                format!("n{index} was frozen, lost its units, and did not fence itself"),
            );
        }
    }

    /// Splits the segment: nodes with different numbers in `parts` do not receive each other's
    /// frames. Each part has one client, and the first part has one more. The first part always has
    /// a node: clients without any node would miss moves, and no node could detect when they
    /// return.
    pub(super) fn split(&mut self, parts: &[u8]) {
        self.log(|| format!("===== split {parts:?}"));
        let first = parts.iter().min().copied().unwrap_or(0);
        let parts: Vec<u8> = parts.iter().map(|part| part - first).collect();
        for (node, part) in self.nodes.iter_mut().zip(&parts) {
            node.part = *part;
        }
        self.parts = parts.iter().max().map_or(1, |last| last + 1);
        for (part, client) in (0..self.parts).zip(&mut self.clients) {
            client.part = part;
        }
        self.account_all(Cause::World);
    }

    /// Ends the split of the segment.
    pub(super) fn heal(&mut self) {
        self.log(|| "===== heal".into());
        for node in &mut self.nodes {
            node.part = 0;
        }
        for client in &mut self.clients {
            client.part = 0;
        }
        self.parts = 1;
        self.account_all(Cause::World);
    }

    /// Isolates one node. With a probability of one half, the part of the other nodes gets all
    /// clients, and the node receives no frames at all.
    pub(super) fn isolate(&mut self, index: usize) {
        let parts: Vec<u8> = (0..self.nodes.len()).map(|node| u8::from(node == index)).collect();
        self.split(&parts);
        if self.rng.chance(0.5) {
            self.clients[1].part = 0;
            self.account_all(Cause::World);
        }
    }

    pub(super) fn set_isolated(&mut self, index: usize, deaf: bool) {
        self.log(|| format!("===== n{index} receives nothing: {deaf}"));
        self.nodes[index].isolated = deaf;
        self.account_all(Cause::World);
    }

    pub(super) fn set_muted(&mut self, index: usize, mute: bool) {
        self.log(|| format!("===== n{index} sends nothing: {mute}"));
        self.nodes[index].muted = mute;
        self.account_all(Cause::World);
    }

    /// Drops all frames from the node `speaker` to the node `deaf` if `cut` is true, otherwise
    /// delivers them again.
    pub(super) fn cut(&mut self, speaker: usize, deaf: usize, cut: bool) {
        self.log(|| format!("===== n{deaf} receives nothing from n{speaker}: {cut}"));
        if cut {
            self.wire.cuts.insert((speaker, deaf));
        } else {
            self.wire.cuts.remove(&(speaker, deaf));
        }
        self.account_all(Cause::World);
    }

    /// Makes a foreign host start or stop using the first address of a unit.
    pub(super) fn use_as_foreign_host(&mut self, unit: usize, squats: bool) {
        self.log(|| format!("===== a foreign host has unit {unit}: {squats}"));
        if squats {
            self.foreign_hosts.insert(unit, FOREIGN_MAC);
        } else {
            self.foreign_hosts.remove(&unit);
        }
        self.account(unit, Cause::World);
    }

    /// Makes a foreign host announce the first address of a unit. The clients accept the
    /// announcement.
    pub(super) fn announce_as_foreign_host(&mut self, unit: usize) {
        self.log(|| format!("===== a foreign host announces unit {unit}"));
        for client in &mut self.clients {
            client.cache[unit] = Some(FOREIGN_HOST);
        }
        for index in 0..self.nodes.len() {
            self.send_foreign_arp(index, unit, FOREIGN_MAC, true);
        }
    }

    /// Sets whether a node drains and whether it is unhealthy, as other components report it to the
    /// node's claim machine.
    pub(super) fn set_node_state(&mut self, index: usize, draining: bool, unhealthy: bool) {
        self.log(|| format!("===== n{index} draining: {draining}, unhealthy: {unhealthy}"));
        self.truth.record_change(self.now);
        self.pass_input(
            index,
            Input::NodeState(NodeState { draining, unhealthy, ..NodeState::default() }),
        );
    }

    /// Makes a node's health checks of a unit fail or pass.
    pub(super) fn fail(&mut self, index: usize, unit: usize, failing: bool) {
        self.log(|| format!("===== the checks of n{index} of unit {unit} fail: {failing}"));
        self.nodes[index].failing[unit] = failing;
        self.truth.record_change(self.now);
        self.pass_view(index);
    }

    /// Stalls or resumes the main loop of a node, which passes the units to the node's claim
    /// machine.
    pub(super) fn stall(&mut self, index: usize, stuck: bool) {
        self.log(|| format!("===== n{index} stuck: {stuck}"));
        self.nodes[index].leaving = stuck;
        self.truth.record_change(self.now);
        self.pass_input(index, Input::MainLoopStalled(stuck));
        self.account_all(Cause::World);
    }

    /// Changes the API. Every node learns of the change after a random lag up to `lag`. The node in
    /// `stale` learns of it after the lag in `stale`.
    pub(super) fn api(
        &mut self,
        lag: Duration,
        change: ApiChange,
        stale: Option<(usize, Duration)>,
    ) {
        self.log(|| "===== the API changes".into());
        self.api.apply(&change);
        let change = Rc::new(change);
        for index in 0..self.nodes.len() {
            let wait = match stale {
                Some((node, wait)) if node == index => wait,
                _ => self.rng.between(LEARN_MIN, lag),
            };
            // A watch never delivers changes out of order.
            let at = (self.now + wait).max(self.nodes[index].api_change_at);
            self.nodes[index].api_change_at = at;
            let change = Rc::clone(&change);
            self.after(at.since(self.now), move |world| world.receive_api_change(index, &change));
        }
        self.account_all(Cause::World);
    }

    fn receive_api_change(&mut self, index: usize, change: &ApiChange) {
        self.log(|| format!("n{index} learns of the change"));
        Rc::make_mut(&mut self.nodes[index].view).apply(change);
        self.truth.record_change(self.now);
        self.pass_view(index);
    }

    /// Returns a change that gives each unit a random selection of the nodes as candidates.
    pub(super) fn some_candidates(&mut self) -> ApiChange {
        let nodes = self.nodes.len();
        let mut some = || {
            let count = 1 + self.rng.below(nodes - 1);
            node_flags(nodes, &self.rng.sample(nodes, count))
        };
        let candidates = (0..self.clients[0].cache.len()).map(|_| some()).collect();
        ApiChange { candidates: Some(candidates), ..ApiChange::default() }
    }

    /// Sets the hello keys that a node accepts, newest first.
    pub(super) fn learn_keys(&mut self, index: usize, keys: Vec<HelloKey>) {
        self.nodes[index].keys = HelloKeyRing::new(keys);
        let ids = self.nodes[index].keys.ids();
        self.log(|| format!("n{index} learns the keys {ids:08x?}"));
        self.pass_input(index, Input::Keys(ids));
    }

    pub(super) fn leap(&mut self, index: usize, by: Duration) {
        self.log(|| format!("===== the clock of n{index} leaps by {by:?}"));
        let node = &mut self.nodes[index];
        node.clock.leap(self.now, by);
        self.irregular_clocks.insert(index);
        node.wake = None;
        self.set_alarm(index);
        self.check_answer_lease(index, false);
    }
}
