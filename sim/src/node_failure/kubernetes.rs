//! Kubernetes: the kubelets, which set their own pods Ready, and the node controller, which marks
//! the pods of a node without heartbeats.

use super::Defect;
use super::queue::Event;
use super::world::World;
use crate::scenario::ms;
use ferrolb_proto::Instant;
use std::time::Duration;

/// Interval at which a kubelet compares its pods with the API server.
pub(super) const SYNC_INTERVAL: Duration = ms(10_000);
/// Time without a heartbeat after which a Node is not Ready.
const GRACE_PERIOD: Duration = ms(50_000);
const HEARTBEAT_INTERVAL: Duration = ms(10_000);

impl World {
    /// Handles that a kubelet can write to the API server from now on, or no longer.
    pub(super) fn kubelet_changed(&mut self, node: usize, works: bool) {
        let wait = if works {
            self.rng.between(ms(10), ms(1_000))
        } else {
            GRACE_PERIOD - self.rng.between(Duration::ZERO, HEARTBEAT_INTERVAL)
        };
        let it = &mut self.nodes[node];
        it.heartbeat_period += 1;
        let period = it.heartbeat_period;
        self.queue.push(self.now + wait, Event::Heartbeat { node, period });
        self.plan_sync(node);
    }

    /// The node controller changes the condition of the Node. If the Node is not Ready, the pods
    /// are marked by Kubernetes, not by the controller of FerroLB.
    pub(super) fn check_heartbeat(&mut self, node: usize, period: u32) {
        let it = &self.nodes[node];
        let is_ready = it.conditions.kubelet_works();
        if it.heartbeat_period != period || it.is_ready == is_ready {
            return;
        }
        self.note(|world| format!("Node {} is Ready: {is_ready}", world.names[node]));
        self.nodes[node].is_ready = is_ready;
        if !is_ready {
            self.set_marked(node, false);
        }
        let at = self.now + self.rng.between(ms(5), ms(50));
        self.queue.push(at, Event::ReadySeen(node, is_ready));
    }

    /// Plans the next synchronization of a kubelet. Only the one of a node whose pods are marked
    /// has an effect, so others are not simulated.
    pub(super) fn plan_sync(&mut self, node: usize) {
        let it = &mut self.nodes[node];
        if !it.is_marked || it.sync_pending || !it.conditions.kubelet_works() {
            return;
        }
        it.sync_pending = true;
        let interval = SYNC_INTERVAL.as_nanos() as u64;
        let since = self.now.as_nanos() + interval - it.sync_phase.as_nanos() % interval;
        let wait = Duration::from_nanos(interval - since % interval);
        self.queue.push(self.now + wait, Event::Sync(node));
    }

    /// A kubelet sets its pods Ready.
    pub(super) fn sync(&mut self, node: usize) {
        self.nodes[node].sync_pending = false;
        if self.defect == Some(Defect::KubeletsNeverSync) {
            return;
        }
        if self.nodes[node].conditions.kubelet_works() && self.nodes[node].is_marked {
            self.note(|world| format!("the kubelet of {} sets its pods Ready", world.names[node]));
            self.set_marked(node, false);
        }
    }

    /// Marks or restores the pods of a node.
    pub(super) fn set_marked(&mut self, node: usize, is_marked: bool) {
        self.nodes[node].is_marked = is_marked;
        self.check_node(node);
        self.plan_sync(node);
    }

    /// Returns a random phase of a kubelet's synchronizations.
    pub(super) fn random_phase(&mut self) -> Instant {
        Instant::ZERO + self.rng.between(Duration::ZERO, SYNC_INTERVAL)
    }
}
