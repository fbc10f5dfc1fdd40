//! Process of the controller: computes the real evidence from the SpeakerStatuses that it has
//! received, runs the real machine of failures, and executes its actions.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use ferrolb_controller_core::node_failure::evidence::Evidence;
use ferrolb_controller_core::node_failure::failures::{
    ActionKind, ActionResult, FailureAction, Failures, FailuresInput, FailuresOutput,
};
use ferrolb_core::Machine;
use ferrolb_proto::Instant;
use ferrolb_proto::facts::Speaker;

use super::Defect;
use super::queue::Event;
use super::world::World;
use crate::scenario::ms;

/// Time after which another replica takes the lease of a controller that does not renew it.
const LEASE_TIME: Duration = ms(15_000);
/// Interval of [`Defect::MarksAgain`].
const MARKS_AGAIN_INTERVAL: Duration = ms(2_000);
/// Delay of [`Defect::MarksLate`].
const MARKS_LATE_DELAY: Duration = ms(2_000);

/// An action of a controller's process that has begun.
#[derive(Clone, Debug)]
pub(super) struct ActionInProgress {
    epoch: u32,
    action: FailureAction,
    node: usize,
    /// False if the controller could not reach the API server.
    was_sent: bool,
}

pub(super) struct Controller {
    /// Node of the active replica.
    pub(super) node: usize,
    /// Number of the active replica.
    epoch: u32,
    /// Number of faults that stop the process.
    pub(super) frozen: u8,
    /// Number of faults that delay all that it receives.
    pub(super) watch_stalled: u8,
    /// Time since which the replica cannot renew its lease.
    lost_lease_at: Option<Instant>,
    failures: Failures,
    /// The SpeakerStatuses and the conditions of the Nodes, as the controller has received them.
    view: Vec<Arc<Speaker>>,
    ready: Vec<bool>,
    /// Attempts that have begun.
    begun: BTreeSet<u64>,
    /// Results that have arrived while the process stood still.
    results: Vec<(u64, ActionResult)>,
    evaluation_pending: bool,
    wake_at: Option<Instant>,
}

impl Controller {
    pub(super) fn new(node: usize, view: Vec<Arc<Speaker>>) -> Self {
        let ready = vec![true; view.len()];
        Self {
            node,
            epoch: 0,
            frozen: 0,
            watch_stalled: 0,
            lost_lease_at: None,
            failures: Failures::default(),
            view,
            ready,
            begun: BTreeSet::new(),
            results: Vec::new(),
            evaluation_pending: false,
            wake_at: None,
        }
    }
}

impl World {
    fn controller_runs(&self) -> bool {
        let conditions = &self.nodes[self.controller.node].conditions;
        conditions.off == 0 && self.controller.frozen == 0
    }

    fn controller_reaches_api(&self) -> bool {
        self.nodes[self.controller.node].conditions.reaches_api()
    }

    fn controller_receives(&self) -> bool {
        self.controller_runs()
            && self.controller_reaches_api()
            && self.controller.watch_stalled == 0
    }

    pub(super) fn status_seen(&mut self, node: usize, status: Arc<Speaker>) {
        if self.controller_receives() {
            self.controller.view[node] = status;
            self.evaluate_soon();
        }
    }

    pub(super) fn ready_seen(&mut self, node: usize, is_ready: bool) {
        if self.controller_receives() {
            self.controller.ready[node] = is_ready;
            self.evaluate_soon();
        }
    }

    fn evaluate_soon(&mut self) {
        if !std::mem::replace(&mut self.controller.evaluation_pending, true) {
            let wait = self.rng.between(Duration::ZERO, ms(3));
            self.queue.push(self.now + wait, Event::Evaluate);
        }
    }

    pub(super) fn evaluate(&mut self) {
        self.controller.evaluation_pending = false;
        if !self.controller_runs() {
            return;
        }
        let controller = &mut self.controller;
        let ready = controller.view.iter().zip(&controller.ready);
        let speakers = ready.filter(|(_, is_ready)| **is_ready).map(|(speaker, _)| &**speaker);
        let failures = &controller.failures;
        if failures.is_idle() && !Evidence::is_possible(speakers.clone()) {
            return;
        }
        let mut evidence = Evidence::new(speakers, |node| failures.concerns(node), |_| false);
        if self.defect == Some(Defect::IgnoresLimit) {
            evidence.suspected.clear();
        }
        let nodes = self.names.iter().zip(&controller.ready);
        let nodes = nodes.map(|(name, is_ready)| ((**name).into(), *is_ready)).collect();
        controller.failures.handle(FailuresInput::Evidence { evidence, nodes }, self.now);
        self.drive_controller();
    }

    pub(super) fn wake_controller(&mut self) {
        if self.controller.wake_at != Some(self.now) {
            return;
        }
        self.controller.wake_at = None;
        if self.controller_runs() {
            self.controller.failures.tick(self.now);
            self.drive_controller();
        }
    }

    /// Starts the new actions, and schedules the deadline.
    fn drive_controller(&mut self) {
        while let Some(output) = self.controller.failures.poll() {
            if let FailuresOutput::TooMany { .. } = output {
                self.checker.outcome.too_many += 1;
            }
            self.note(|_| format!("controller: {output:?}"));
        }
        let actions: Vec<_> = self.controller.failures.actions().collect();
        for action in actions {
            if self.controller.begun.insert(action.attempt) {
                self.begin(action);
            }
        }
        let Some(deadline) = self.controller.failures.deadline() else { return };
        if self.controller.wake_at.is_none_or(|at| deadline < at) {
            let at = deadline.max(self.now) + self.rng.between(Duration::ZERO, ms(1));
            self.controller.wake_at = Some(at);
            self.queue.push(at, Event::ControllerWake);
        }
    }

    fn begin(&mut self, action: FailureAction) {
        self.note(|_| format!("controller: begins {:?} of {}", action.kind, action.node));
        let was_sent = self.controller_reaches_api();
        let node = self.index(&action.node);
        let mut wait = match action.kind {
            _ if !was_sent => self.rng.between(ms(10), ms(3_000)),
            ActionKind::ProbeKubelet => ms(500),
            ActionKind::Mark | ActionKind::Restore => self.rng.between(ms(5), ms(150)),
        };
        if self.defect == Some(Defect::MarksLate) {
            wait += MARKS_LATE_DELAY;
        }
        let epoch = self.controller.epoch;
        let event = ActionInProgress { epoch, action, node, was_sent };
        self.queue.push(self.now + wait, Event::ActionEnd(event));
    }

    /// Ends an action. Requests that were sent have their effect even if the process has stopped
    /// meanwhile.
    pub(super) fn end_action(&mut self, ended: &ActionInProgress) {
        let ActionInProgress { epoch, ref action, node, was_sent } = *ended;
        // A request may fail after the pods are patched, or after some of them are.
        let mut result = if !was_sent || self.rng.chance(self.failing_requests) {
            ActionResult::Failed
        } else {
            ActionResult::Done
        };
        match action.kind {
            ActionKind::ProbeKubelet => {
                let (own, other) = (self.controller.node, node);
                if self.nodes[own].conditions.reaches(&self.nodes[other].conditions) {
                    result = ActionResult::KubeletReplied;
                }
            }
            ActionKind::Mark if was_sent => self.mark(node),
            ActionKind::Restore if was_sent => self.restore(node),
            ActionKind::Mark | ActionKind::Restore => {}
        }
        if epoch != self.controller.epoch {
            return;
        }
        if self.controller_runs() {
            self.deliver(action.attempt, result);
        } else {
            self.controller.results.push((action.attempt, result));
        }
        if self.defect == Some(Defect::MarksAgain) && action.kind == ActionKind::Mark && was_sent {
            let again = ended.clone();
            self.queue.push(self.now + MARKS_AGAIN_INTERVAL, Event::ActionEnd(again));
        }
    }

    fn deliver(&mut self, attempt: u64, result: ActionResult) {
        self.controller.failures.handle(FailuresInput::Ended { attempt, result }, self.now);
        self.drive_controller();
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

    /// Handles a change of the conditions of the controller's node, or of its own.
    pub(super) fn controller_changed(&mut self) {
        let renews = self.controller_runs() && self.controller_reaches_api();
        match self.controller.lost_lease_at {
            None if !renews => {
                self.controller.lost_lease_at = Some(self.now);
                let (lost_at, epoch) = (self.now, self.controller.epoch);
                self.after(LEASE_TIME, move |world| world.take_over(lost_at, epoch));
            }
            Some(_) if renews => {
                self.controller.lost_lease_at = None;
                if self.controller.watch_stalled == 0 {
                    self.resume_controller();
                }
            }
            None | Some(_) => {}
        }
    }

    /// Continues after a time in which the process stood still or received nothing: its timers run
    /// before it receives all that has changed, or after that.
    pub(super) fn resume_controller(&mut self) {
        if self.rng.chance(0.5) {
            self.controller.failures.tick(self.now);
            self.drive_controller();
        }
        for (attempt, result) in std::mem::take(&mut self.controller.results) {
            self.deliver(attempt, result);
        }
        let wait = self.rng.between(Duration::ZERO, ms(500));
        let epoch = self.controller.epoch;
        self.after(wait, move |world| {
            if world.controller.epoch == epoch && world.controller_receives() {
                world.receive_all();
                world.controller.failures.tick(world.now);
                world.drive_controller();
            }
        });
    }

    fn receive_all(&mut self) {
        self.controller.view.clone_from(&self.stored);
        self.controller.ready = self.nodes.iter().map(|node| node.is_ready).collect();
        self.evaluate_soon();
    }

    /// Another replica takes the lease, unless the old one has renewed it.
    fn take_over(&mut self, lost_at: Instant, epoch: u32) {
        if self.controller.lost_lease_at == Some(lost_at) && self.controller.epoch == epoch {
            self.restart_controller();
        }
    }

    /// Replaces the controller's process by a new one, which knows only the API server's objects.
    pub(super) fn restart_controller(&mut self) {
        let works = |node: &usize| self.nodes[*node].conditions.is_alive();
        let candidates: Vec<_> = (0..self.nodes.len()).filter(works).collect();
        if candidates.is_empty() {
            return;
        }
        let node = self.rng.pick(&candidates);
        self.note(|world| format!("{} runs the controller", world.names[node]));
        let old = &self.controller;
        let (epoch, watch_stalled) = (old.epoch + 1, old.watch_stalled);
        self.controller = Controller::new(node, Vec::new());
        (self.controller.epoch, self.controller.watch_stalled) = (epoch, watch_stalled);
        self.receive_all();
    }
}
