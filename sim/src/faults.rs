//! Faults of nodes, the network segment and the API. Each fault is one action on the simulated
//! world; scenarios schedule the faults.

use std::rc::Rc;
use std::time::Duration;

use ferrolb_proto::Instant;
use ferrolb_proto::wire::Mac;
use ferrolb_proto::wire::hello::{HelloKey, HelloKeyRing};
use ferrolb_speaker_core::claim::{Input, MoveCause, NodeState};

use super::checker::{Cause, Rule};
use super::clients::FOREIGN_HOST;
use super::faulty_machine::Defect;
use super::node::Halt;
use super::segment::LOSS;
use super::view::{ApiChange, node_flags};
use super::world::SimWorld;

/// Minimum length of a halt after which other nodes have taken the halted node's units: the times
/// of suspicion and failure detection, the stagger of two candidates, and a margin.
const UNITS_TAKEN_AFTER: Duration = Duration::from_millis(400);
/// Time for which a node that was halted may not know the latest frames of others.
const HALTED_RECENTLY: Duration = Duration::from_secs(1);
/// Maximum time from the end of a pause until the paused node has detected the pause. The node
/// needs frames of two peers, and nodes without units send a hello only every second.
const FENCE_MAX: Duration = Duration::from_millis(1_100);
/// Hardware address of a foreign host.
const FOREIGN_MAC: Mac = Mac([2, 0xff, 0, 0, 0xff, 0xff]);
/// Minimum time from a change in the API until a node receives the change.
pub(super) const API_LAG_MIN: Duration = Duration::from_millis(20);

impl SimWorld {
    /// Returns a random node that owns a unit, or the first node if no node owns one.
    pub(super) fn owner(&mut self) -> usize {
        let owns_a_unit = |index: &usize| self.nodes[*index].owns.contains(&true);
        let owners: Vec<usize> = (0..self.nodes.len()).filter(owns_a_unit).collect();
        if owners.is_empty() { 0 } else { self.rng.pick(&owners) }
    }

    /// Kills the process of a node.
    pub(super) fn crash(&mut self, index: usize) {
        self.log(|| format!("===== kill n{index}"));
        self.nodes[index].clear(self.now);
        self.update_all_states(Cause::World);
    }

    /// Replaces the process of a node by one with a defect, or without one.
    pub(super) fn restart_with(&mut self, index: usize, defect: Option<Defect>) {
        self.crash(index);
        self.nodes[index].defect = defect;
        self.start(index);
    }

    /// Requests a graceful shutdown of the process of a node.
    pub(super) fn leave(&mut self, index: usize) {
        self.log(|| format!("===== shut down n{index}"));
        self.nodes[index].leaving = self.nodes[index].is_up();
        self.pass_input(index, Input::Leave);
        self.update_all_states(Cause::World);
    }

    pub(super) fn freeze(&mut self, index: usize, time: Duration) {
        self.halt(index, time, Halt::Stopped);
    }

    pub(super) fn pause(&mut self, index: usize, time: Duration) {
        self.halt(index, time, Halt::Paused);
    }

    fn halt(&mut self, index: usize, time: Duration, halt: Halt) {
        let node = &mut self.nodes[index];
        if !node.is_up() || node.halted.is_some() {
            return;
        }
        node.halted = Some(halt);
        if halt == Halt::Paused {
            node.clock.stop(self.now);
            self.irregular_clocks.insert(index);
        }
        let process_number = node.process_number;
        self.log(|| format!("===== {halt:?} n{index} for {time:.1?}"));
        self.update_all_states(Cause::World);
        self.after(time, move |world| world.resume(index, process_number, halt, time));
    }

    fn resume(&mut self, index: usize, process_number: u32, halt: Halt, time: Duration) {
        let node = &mut self.nodes[index];
        if node.process_number != process_number || !node.is_up() {
            return;
        }
        if halt == Halt::Paused {
            node.clock.resume(self.now);
        }
        node.halted = None;
        node.resumed = self.now;
        node.wake = None;
        let (fences, owned) = (
            node.counted_fences,
            (0..node.owns.len()).filter(|unit| node.owns[*unit]).collect::<Vec<_>>(),
        );
        self.log(|| format!("===== n{index} continues"));
        // The answer lease is checked first, because the node may reply to an ARP request before it
        // does anything else.
        self.check_answer_lease(index, false);
        self.update_all_states(Cause::World);
        let part = self.nodes[index].part;
        let taken =
            owned.iter().any(|unit| self.owners(part, *unit).iter().any(|owner| *owner != index));
        // The answer lease only matters after a failure detection. The other owner may have missed
        // the latest hellos of the node if many frames are lost, or if it was halted itself.
        if halt == Halt::Stopped && taken && self.segment.loss <= LOSS {
            let stale_unit = owned.iter().find(|unit| {
                let owners = self.owners(part, **unit);
                let cause = self.checker.units[**unit].move_cause;
                let is_failover = cause == Some(MoveCause::NodeFailed);
                let has_listened =
                    |owner: &usize| self.now.since(self.nodes[*owner].resumed) > HALTED_RECENTLY;
                let mut others = owners.iter().filter(|owner| **owner != index);
                owners.contains(&index) && is_failover && others.any(has_listened)
            });
            if let Some(unit) = stale_unit {
                self.report_violation(
                    Rule::AnswerLease,
                    format!("n{index} was stopped for {time:.1?} and replies for unit {unit}"),
                );
            }
        }
        self.catch_up(index);
        self.update_all_states(Cause::World);
        let is_witnessed =
            self.bounds.fences.is_some() && self.irregular_clocks.iter().all(|node| *node == index);
        if taken && time >= UNITS_TAKEN_AFTER && is_witnessed {
            let since = self.now;
            self.after(FENCE_MAX, move |world| {
                world.check_fenced(index, process_number, fences, &owned, since)
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
        self.send_delayed_rounds(index);
    }

    /// Checks that a resumed node has fenced itself. A node need not fence itself if it has already
    /// yielded all units that other nodes took in the meantime.
    fn check_fenced(
        &mut self,
        index: usize,
        process_number: u32,
        before: u64,
        owned: &[usize],
        since: Instant,
    ) {
        let node = &self.nodes[index];
        let still_owns =
            owned.iter().any(|unit| node.owns[*unit] && self.checker.units[*unit].taken < since);
        if node.process_number == process_number
            && node.works()
            && node.counted_fences == before
            && still_owns
        {
            self.report_violation(
                Rule::Fence,
                format!("n{index} was halted, lost its units, and did not fence itself"),
            );
        }
    }

    /// Splits the segment: nodes with different numbers in `parts` do not receive each other's
    /// frames. Each part has one client, and the first part has one more. The first part always has
    /// a node: clients in a part without nodes would miss moves, and no node could detect the
    /// return of these clients.
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
        self.update_all_states(Cause::World);
    }

    /// Ends the split of the segment.
    pub(super) fn heal(&mut self) {
        self.log(|| "===== the split ends".into());
        for node in &mut self.nodes {
            node.part = 0;
        }
        for client in &mut self.clients {
            client.part = 0;
        }
        self.parts = 1;
        self.update_all_states(Cause::World);
    }

    /// Isolates one node. With a probability of one half, the part of the other nodes gets all
    /// clients, and the isolated node receives no frames at all.
    pub(super) fn isolate(&mut self, index: usize) {
        let parts: Vec<u8> = (0..self.nodes.len()).map(|node| u8::from(node == index)).collect();
        self.split(&parts);
        if self.rng.chance(0.5) {
            self.clients[1].part = 0;
            self.update_all_states(Cause::World);
        }
    }

    pub(super) fn set_isolated(&mut self, index: usize, receives_nothing: bool) {
        self.log(|| format!("===== n{index} receives nothing: {receives_nothing}"));
        self.nodes[index].isolated = receives_nothing;
        self.update_all_states(Cause::World);
    }

    pub(super) fn set_sends_nothing(&mut self, index: usize, sends_nothing: bool) {
        self.log(|| format!("===== n{index} sends nothing: {sends_nothing}"));
        self.nodes[index].sends_nothing = sends_nothing;
        self.update_all_states(Cause::World);
    }

    /// Drops all frames from the node `sender` to the node `receiver` if `cut` is true, otherwise
    /// delivers them again.
    pub(super) fn set_cut(&mut self, sender: usize, receiver: usize, cut: bool) {
        self.log(|| format!("===== n{receiver} receives nothing from n{sender}: {cut}"));
        if cut {
            self.segment.cuts.insert((sender, receiver));
        } else {
            self.segment.cuts.remove(&(sender, receiver));
        }
        self.update_all_states(Cause::World);
    }

    /// Makes a foreign host start or stop using the first address of a unit.
    pub(super) fn set_foreign_host(&mut self, unit: usize, in_use: bool) {
        self.log(|| format!("===== a foreign host uses unit {unit}: {in_use}"));
        if in_use {
            self.foreign_hosts.insert(unit, FOREIGN_MAC);
        } else {
            self.foreign_hosts.remove(&unit);
            self.answered_probes.forget(unit);
        }
        self.update_state(unit, Cause::World);
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
        self.checker.record_change(self.now);
        self.pass_input(
            index,
            Input::NodeState(NodeState { draining, unhealthy, ..NodeState::default() }),
        );
    }

    /// Makes a node's health checks of a unit's endpoints fail or pass.
    pub(super) fn set_failing(&mut self, index: usize, unit: usize, failing: bool) {
        self.log(|| format!("===== the checks of n{index} of unit {unit} fail: {failing}"));
        self.nodes[index].failing[unit] = failing;
        self.checker.record_change(self.now);
        self.pass_view(index);
    }

    /// Stalls or resumes the main loop of a node. The main loop passes the units to the claim
    /// machine.
    pub(super) fn set_stalled(&mut self, index: usize, stalled: bool) {
        self.log(|| format!("===== the main loop of n{index} stalls: {stalled}"));
        self.nodes[index].leaving = stalled;
        self.checker.record_change(self.now);
        self.pass_input(index, Input::MainLoopStalled(stalled));
        self.update_all_states(Cause::World);
    }

    /// Changes the API. Every node receives the change after a random time of at most `lag`, except
    /// the node in `stale`, which receives the change after the time in `stale`.
    pub(super) fn change_api(
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
                _ => self.rng.between(API_LAG_MIN, lag),
            };
            // A watch never delivers changes out of order.
            let at = (self.now + wait).max(self.nodes[index].api_change_at);
            self.nodes[index].api_change_at = at;
            let change = Rc::clone(&change);
            self.after(at.since(self.now), move |world| world.receive_api_change(index, &change));
        }
        self.update_all_states(Cause::World);
    }

    fn receive_api_change(&mut self, index: usize, change: &ApiChange) {
        self.log(|| format!("n{index} receives the change"));
        Rc::make_mut(&mut self.nodes[index].view).apply(change);
        self.checker.record_change(self.now);
        self.pass_view(index);
    }

    /// Returns a change that gives each unit a random selection of the nodes as candidates.
    pub(super) fn random_candidates(&mut self) -> ApiChange {
        let nodes = self.nodes.len();
        let mut random_nodes = || {
            let count = 1 + self.rng.below(nodes - 1);
            node_flags(nodes, &self.rng.sample(nodes, count))
        };
        let candidates = (0..self.clients[0].cache.len()).map(|_| random_nodes()).collect();
        ApiChange { candidates: Some(candidates), ..ApiChange::default() }
    }

    /// Sets the hello keys that a node accepts, newest first.
    pub(super) fn set_keys(&mut self, index: usize, keys: Vec<HelloKey>) {
        self.nodes[index].keys = HelloKeyRing::new(keys);
        let ids = self.nodes[index].keys.ids();
        self.log(|| format!("n{index} receives the keys {ids:08x?}"));
        self.pass_input(index, Input::Keys(ids));
    }

    pub(super) fn leap(&mut self, index: usize, by: Duration) {
        self.log(|| format!("===== the clock of n{index} leaps by {by:?}"));
        let node = &mut self.nodes[index];
        node.clock.leap(self.now, by);
        self.irregular_clocks.insert(index);
        node.wake = None;
        self.schedule_wake(index);
        self.check_answer_lease(index, false);
    }
}
