//! Actions of a replica of the controller: probes of kubelets, and requests that mark or restore
//! the pods of a node.

use std::time::Duration;

use ferrolb_controller_core::node_failure::failures::{ActionKind, ActionResult, FailureAction};
use ferrolb_proto::Instant;

use super::Defect;
use super::queue::Event;
use super::world::World;
use crate::scenario::ms;

/// Time after the start of an action in which a standby sends requests.
const STANDBY_REQUESTS_MAX: Duration = ms(2_000);
/// Interval of [`Defect::MarksAgain`].
const MARKS_AGAIN_INTERVAL: Duration = ms(2_000);
/// Delay of [`Defect::MarksLate`].
const MARKS_LATE_DELAY: Duration = ms(2_000);

/// An action of a replica that has begun.
#[derive(Clone, Debug)]
pub(super) struct ActionInProgress {
    replica: usize,
    process: u32,
    term: u32,
    action: FailureAction,
    node: usize,
    /// Time until which a standby sends the requests.
    until: Instant,
    /// False if the replica could not send the requests.
    was_sent: bool,
}

impl World {
    pub(super) fn begin(&mut self, replica: usize, action: FailureAction) {
        self.note(|_| format!("controller{replica}: begins {:?} of {}", action.kind, action.node));
        let node = self.index(&action.node);
        let it = &self.replicas[replica];
        let (process, term) = (it.process, it.term);
        let until = self.now + STANDBY_REQUESTS_MAX;
        let begun =
            ActionInProgress { replica, process, term, action, node, until, was_sent: false };
        let wait = self.rng.between(Duration::ZERO, ms(20));
        self.queue.push(self.now + wait, Event::ActionSend(begun));
    }

    /// Returns whether the process and its term are those of the action. Others have aborted it.
    fn is_wanted(&self, it: &ActionInProgress) -> bool {
        let replica = &self.replicas[it.replica];
        (replica.process, replica.term) == (it.process, it.term)
    }

    /// Returns whether the action is one of the machine's. Requests of others are not sent.
    fn is_in_progress(&self, it: &ActionInProgress) -> bool {
        let mut actions = self.replicas[it.replica].failures.actions();
        actions.any(|action| action.attempt == it.action.attempt)
    }

    /// Sends the requests of an action.
    pub(super) fn send_action(&mut self, mut begun: ActionInProgress) {
        let replica = begun.replica;
        if !self.is_wanted(&begun) || !self.is_in_progress(&begun) {
            return;
        }
        if !self.runs(replica) {
            return self.replicas[replica].unsent.push(begun);
        }
        let leadership = &self.replicas[replica].leadership;
        let may_send = self.now < leadership.held_until.unwrap_or(begun.until);
        begun.was_sent = may_send && self.reaches_api(replica);
        if begun.was_sent && begun.action.kind == ActionKind::Mark {
            self.check_standby(replica, begun.node);
        }
        let mut wait = match begun.action.kind {
            ActionKind::ProbeKubelet => ms(500),
            _ if !may_send => Duration::ZERO,
            _ if !begun.was_sent => self.rng.between(ms(10), ms(3_000)),
            ActionKind::Mark | ActionKind::Restore => self.rng.between(ms(5), ms(150)),
        };
        if self.defect == Some(Defect::MarksLate) {
            wait += MARKS_LATE_DELAY;
        }
        self.queue.push(self.now + wait, Event::ActionEnd(begun));
    }

    /// Verifies that a replica that does not lead marks only the pods of the leader's node, and not
    /// right after a renewal of the lease.
    fn check_standby(&mut self, replica: usize, node: usize) {
        let leader = self.leader();
        let leads = self.replicas[replica].leadership.held_until.is_some();
        let is_leaders = leader.is_none_or(|leader| self.replicas[leader].node == node);
        if !leads && !is_leaders && !self.leader_is_new() {
            self.checker.marked_by_standby(node, self.now);
        }
        let renewal = self.replicas[replica].renewal.filter(|(leader, _)| *leader == node);
        if let (Some((_, read)), false) = (renewal, leads) {
            self.checker.marked_after_renewal(node, self.now.since(read), self.now);
        }
    }

    /// Ends an action. Requests that were sent have their effect even if the process has stopped
    /// meanwhile.
    pub(super) fn end_action(&mut self, ended: &ActionInProgress) {
        let ActionInProgress { replica, ref action, node, was_sent, .. } = *ended;
        // A request may fail after the pods are patched, or after some of them are.
        let mut result = if !was_sent || self.rng.chance(self.failing_requests) {
            ActionResult::Failed
        } else {
            ActionResult::Done
        };
        match action.kind {
            ActionKind::ProbeKubelet => {
                let own = self.replicas[replica].node;
                if self.connects(own, node) {
                    result = ActionResult::KubeletReplied;
                }
            }
            ActionKind::Mark if was_sent => self.mark(node),
            ActionKind::Restore if was_sent => self.restore(node),
            ActionKind::Mark | ActionKind::Restore => {}
        }
        if self.is_wanted(ended) {
            if self.runs(replica) {
                self.deliver(replica, action.attempt, result);
            } else {
                self.replicas[replica].results.push((action.attempt, result));
            }
        }
        if self.defect == Some(Defect::MarksAgain) && action.kind == ActionKind::Mark && was_sent {
            let again = ended.clone();
            self.queue.push(self.now + MARKS_AGAIN_INTERVAL, Event::ActionEnd(again));
        }
    }

    fn mark(&mut self, node: usize) {
        self.note(|world| format!("the pods of {} are marked", world.names[node]));
        self.checker.marked(node, self.now);
        // The pods of a Node that is not Ready are already marked by Kubernetes.
        if self.nodes[node].is_ready {
            self.set_marked(node, true);
            self.check_limit();
        }
    }

    fn restore(&mut self, node: usize) {
        self.note(|world| format!("the pods of {} are restored", world.names[node]));
        if self.nodes[node].conditions.off > 0 {
            self.checker.restored_without_power(node, self.now);
        }
        self.set_marked(node, false);
    }
}
