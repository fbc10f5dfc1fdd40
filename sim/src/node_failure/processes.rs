//! Start and end of the processes of the controller, and times in which they stand still or receive
//! nothing.

use std::time::Duration;

use super::controller::{REPLICAS, Replica};
use super::leadership::Leadership;
use super::world::World;
use crate::scenario::ms;

impl World {
    /// Starts the replicas on different nodes. The first one leads.
    pub(super) fn create_replicas(&mut self) {
        let nodes = self.rng.sample(self.nodes.len(), REPLICAS);
        let first = self.rng.below(REPLICAS);
        for replica in 0..REPLICAS {
            let node = nodes[(first + replica) % REPLICAS];
            let leadership = Leadership::new(replica, 1, self.now);
            self.replicas.push(Replica::new(node, 1, leadership));
            self.receive_all(replica);
        }
        self.tick_lease(0);
        self.after(ms(100), |world| world.tick_lease(1));
    }

    /// Handles a change of the conditions of a replica's node, or of the replica.
    pub(super) fn replica_changed(&mut self, replica: usize) {
        let conditions = self.nodes[self.replicas[replica].node].conditions;
        let it = &mut self.replicas[replica];
        if conditions.off > 0 {
            if std::mem::take(&mut it.is_started) {
                (it.process, it.is_connected) = (it.process + 1, false);
            }
            return;
        }
        if !it.is_started {
            let (node, process) = (it.node, it.process);
            let wait = self.rng.between(ms(1_000), ms(15_000));
            return self.after(wait, move |world| {
                let it = &world.replicas[replica];
                let has_power = world.nodes[node].conditions.off == 0;
                if it.process == process && !it.is_started && has_power {
                    world.start_replica(replica, node);
                }
            });
        }
        let is_connected = it.frozen == 0 && conditions.reaches_api();
        if !std::mem::replace(&mut it.is_connected, is_connected) && is_connected {
            self.resume_replica(replica);
        }
    }

    /// Stops the process of a replica for some time.
    pub(super) fn freeze_replica(&mut self, replica: usize, time: Duration) {
        self.note(|_| format!("controller{replica} stands still for {} ms", time.as_millis()));
        self.replicas[replica].frozen += 1;
        self.replica_changed(replica);
        self.after(time, move |world| {
            // Another process may run by now.
            if world.replicas[replica].frozen > 0 {
                world.replicas[replica].frozen -= 1;
                world.replica_changed(replica);
            }
        });
    }

    /// A replica receives nothing for some time.
    pub(super) fn stall_watches(&mut self, replica: usize, time: Duration) {
        self.note(|_| format!("controller{replica} receives nothing for {} ms", time.as_millis()));
        self.replicas[replica].watch_stalled += 1;
        self.after(time, move |world| {
            world.replicas[replica].watch_stalled -= 1;
            if world.replicas[replica].watch_stalled == 0 {
                world.resume_replica(replica);
            }
        });
    }

    /// Continues after a time in which the process stood still or received nothing: its timers run
    /// before it receives all that has changed, or after that.
    fn resume_replica(&mut self, replica: usize) {
        if !self.runs(replica) {
            return;
        }
        if self.rng.chance(0.5) {
            self.tick_failures(replica);
        }
        self.tick_lease(replica);
        for action in std::mem::take(&mut self.replicas[replica].unsent) {
            self.send_action(action);
        }
        for (attempt, result) in std::mem::take(&mut self.replicas[replica].results) {
            self.deliver(replica, attempt, result);
        }
        let wait = self.rng.between(Duration::ZERO, ms(500));
        let process = self.replicas[replica].process;
        self.after(wait, move |world| {
            if world.replicas[replica].process == process && world.receives_objects(replica) {
                world.receive_all(replica);
                world.tick_failures(replica);
            }
        });
    }

    /// Replaces the process of a replica by a new one on another node, which knows only the API
    /// server's objects.
    pub(super) fn restart_replica(&mut self, replica: usize) {
        let taken: Vec<_> = self.replicas.iter().map(|it| it.node).collect();
        let works = |node: &usize| self.nodes[*node].conditions.is_alive() && !taken.contains(node);
        let candidates: Vec<_> = (0..self.nodes.len()).filter(works).collect();
        if candidates.is_empty() {
            return;
        }
        let node = self.rng.pick(&candidates);
        if self.leader() == Some(replica) && self.reaches_api(replica) && self.rng.chance(0.5) {
            self.release_lease();
        }
        let it = &mut self.replicas[replica];
        (it.is_started, it.is_connected) = (false, false);
        it.process += 1;
        let process = it.process;
        let wait = self.rng.between(ms(300), ms(5_000));
        self.after(wait, move |world| {
            if world.replicas[replica].process == process {
                world.start_replica(replica, node);
            }
        });
    }

    fn start_replica(&mut self, replica: usize, node: usize) {
        self.note(|world| format!("controller{replica} starts on {}", world.names[node]));
        let old = &self.replicas[replica];
        let (process, watch_stalled) = (old.process + 1, old.watch_stalled);
        let interrupted = old.pods.interrupted;
        let leadership = Leadership::new(replica, process, self.now);
        self.replicas[replica] = Replica::new(node, process, leadership);
        let it = &mut self.replicas[replica];
        (it.watch_stalled, it.pods.interrupted) = (watch_stalled, interrupted);
        it.is_connected = self.nodes[node].conditions.reaches_api();
        self.receive_all(replica);
        self.tick_lease(replica);
    }
}
