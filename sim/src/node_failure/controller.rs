//! Processes of the controller: the leader and a standby. Each one computes the real evidence from
//! the objects that it has received, and runs the real machine of failures.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use ferrolb_controller_core::node_failure::evidence::Evidence;
use ferrolb_controller_core::node_failure::failures::{
    ActionResult, Failures, FailuresInput, FailuresOutput,
};
use ferrolb_controller_core::node_failure::stated_stops::StatedStops;
use ferrolb_core::Machine;
use ferrolb_proto::Instant;
use ferrolb_proto::facts::Speaker;

use super::Defect;
use super::actions::ActionInProgress;
use super::leadership::Leadership;
use super::pods::PodView;
use super::queue::Event;
use super::world::World;
use crate::scenario::ms;

/// Number of replicas.
pub(super) const REPLICAS: usize = 2;
/// Minimum interval between two evaluations of the evidence.
const EVALUATION_INTERVAL_MIN: Duration = ms(50);

pub(super) struct Replica {
    /// Node of the replica.
    pub(super) node: usize,
    /// Number of the process.
    pub(super) process: u32,
    /// Number of times that the process has begun or ceased to lead.
    pub(super) term: u32,
    /// False after the node has lost its power, until the process starts again.
    pub(super) is_started: bool,
    /// Number of faults that stop the process.
    pub(super) frozen: u8,
    /// Number of faults that delay all that it receives.
    pub(super) watch_stalled: u8,
    /// True if the process runs and reaches the API server.
    pub(super) is_connected: bool,
    pub(super) leadership: Leadership,
    pub(super) failures: Failures,
    stated_stops: StatedStops,
    /// The SpeakerStatuses and the conditions of the Nodes, as the process has received them.
    view: Vec<Arc<Speaker>>,
    ready: Vec<bool>,
    pub(super) pods: PodView,
    /// Attempts that have begun.
    pub(super) begun: BTreeSet<u64>,
    /// Actions whose requests are not sent because the process stands still.
    pub(super) unsent: Vec<ActionInProgress>,
    /// Results that have arrived while the process stood still.
    pub(super) results: Vec<(u64, ActionResult)>,
    evaluation_pending: bool,
    next_evaluation: Instant,
    /// True if the silent leader has renewed its lease since the evidence was evaluated.
    leader_replies: bool,
    /// Node of the replica that leads, and the time at which a renewal of its lease was read.
    pub(super) renewal: Option<(usize, Instant)>,
    wake_at: Option<Instant>,
}

impl Replica {
    pub(super) fn new(node: usize, process: u32, leadership: Leadership) -> Self {
        Self {
            node,
            process,
            term: 0,
            is_started: true,
            frozen: 0,
            watch_stalled: 0,
            is_connected: true,
            leadership,
            failures: Failures::default(),
            stated_stops: StatedStops::default(),
            view: Vec::new(),
            ready: Vec::new(),
            pods: PodView::default(),
            begun: BTreeSet::new(),
            unsent: Vec::new(),
            results: Vec::new(),
            evaluation_pending: false,
            next_evaluation: Instant::ZERO,
            leader_replies: false,
            renewal: None,
            wake_at: None,
        }
    }

    /// Forgets all silent nodes.
    pub(super) fn reset(&mut self) {
        (self.failures, self.stated_stops) = (Failures::default(), StatedStops::default());
        self.begun.clear();
        self.results.clear();
    }

    /// Returns whether the replica decides about silent nodes: the leader about all others than its
    /// own one, and a standby about the node of the leader.
    const fn decides(&self) -> bool {
        self.leadership.is_active || self.leadership.leading_node.is_some()
    }
}

impl World {
    pub(super) fn runs(&self, replica: usize) -> bool {
        let it = &self.replicas[replica];
        it.is_started && it.frozen == 0
    }

    pub(super) fn reaches_api(&self, replica: usize) -> bool {
        self.nodes[self.replicas[replica].node].conditions.reaches_api()
    }

    pub(super) fn receives_objects(&self, replica: usize) -> bool {
        let is_stalled = self.replicas[replica].watch_stalled > 0;
        self.runs(replica) && self.reaches_api(replica) && !is_stalled
    }

    pub(super) fn status_seen(&mut self, node: usize, status: &Arc<Speaker>) {
        for replica in 0..REPLICAS {
            if self.receives_objects(replica) {
                self.replicas[replica].view[node] = Arc::clone(status);
                self.evaluate_soon(replica);
            }
        }
    }

    pub(super) fn ready_seen(&mut self, node: usize, is_ready: bool) {
        for replica in 0..REPLICAS {
            if self.receives_objects(replica) {
                self.replicas[replica].ready[node] = is_ready;
                self.evaluate_soon(replica);
            }
        }
    }

    pub(super) fn evaluate_soon(&mut self, replica: usize) {
        if !std::mem::replace(&mut self.replicas[replica].evaluation_pending, true) {
            let wait = self.rng.between(Duration::ZERO, ms(3));
            let at = (self.now + wait).max(self.replicas[replica].next_evaluation);
            self.queue.push(at, Event::Evaluate(replica));
        }
    }

    /// Records that the replica that leads has renewed its lease, so that its node works.
    pub(super) fn refute_silence_of_leader(&mut self, replica: usize, leader: usize) {
        self.replicas[replica].renewal = Some((leader, self.now));
        let is_ignored = self.defect == Some(Defect::IgnoresRenewals);
        if !is_ignored && self.replicas[replica].failures.concerns(&self.names[leader]) {
            self.replicas[replica].leader_replies = true;
            self.evaluate_soon(replica);
        }
    }

    /// Evaluates the evidence if it has changed.
    pub(super) fn evaluate(&mut self, replica: usize) {
        if !self.runs(replica) || !self.replicas[replica].decides() {
            self.replicas[replica].evaluation_pending = false;
            return;
        }
        if !std::mem::take(&mut self.replicas[replica].evaluation_pending) {
            return;
        }
        let mut stops = std::mem::take(&mut self.replicas[replica].stated_stops);
        let it = &self.replicas[replica];
        let (failures, pods) = (&it.failures, &it.pods);
        let ready = it.view.iter().zip(&it.ready).filter(|(_, is_ready)| **is_ready);
        let speakers = ready.map(|(speaker, _)| &**speaker).filter(|it| pods.runs(it));
        let (speaker_pods, is_current) = pods.speakers();
        stops.update(speakers.clone(), speaker_pods);
        if failures.is_idle() && !Evidence::is_possible(speakers.clone()) {
            self.replicas[replica].stated_stops = stops;
            return;
        }
        let all_wanted = self.defect == Some(Defect::IgnoresPods);
        let is_wanted =
            |node: &str| all_wanted || is_current && stops.are_of_node(node, speaker_pods);
        let mut evidence = Evidence::new(speakers, |node| failures.concerns(node), is_wanted);
        if self.defect == Some(Defect::IgnoresLimit) {
            evidence.suspected.clear();
        }
        self.restrict(replica, &mut evidence);
        let nodes = self.names.iter().zip(&it.ready);
        let nodes = nodes.map(|(name, is_ready)| ((**name).into(), *is_ready)).collect();
        let it = &mut self.replicas[replica];
        it.stated_stops = stops;
        it.next_evaluation = self.now + EVALUATION_INTERVAL_MIN;
        it.failures.handle(FailuresInput::Evidence { evidence, nodes }, self.now);
        // A node that is still silent counts from now on.
        if std::mem::take(&mut it.leader_replies) {
            self.evaluate_soon(replica);
        }
        self.drive_failures(replica);
    }

    /// Restricts the evidence to the nodes that the replica decides about.
    fn restrict(&self, replica: usize, evidence: &mut Evidence) {
        let it = &self.replicas[replica];
        evidence.silent.remove(&*self.names[it.node]);
        if it.leadership.is_active || self.defect == Some(Defect::StandbyMarksAll) {
            return;
        }
        let decides = !it.leader_replies && self.defect != Some(Defect::StandbyMarksNone);
        let leading = it.leadership.leading_node.filter(|_| decides);
        evidence.restrict_to(leading.map(|node| &*self.names[node]));
    }

    pub(super) fn wake_replica(&mut self, replica: usize) {
        if self.replicas[replica].wake_at == Some(self.now) {
            self.replicas[replica].wake_at = None;
            self.tick_failures(replica);
        }
    }

    /// Lets the timers run. A decision needs the latest evidence.
    pub(super) fn tick_failures(&mut self, replica: usize) {
        if self.runs(replica) && self.replicas[replica].decides() {
            self.evaluate(replica);
            self.replicas[replica].failures.tick(self.now);
            self.drive_failures(replica);
        }
    }

    pub(super) fn deliver(&mut self, replica: usize, attempt: u64, result: ActionResult) {
        self.evaluate(replica);
        let input = FailuresInput::Ended { attempt, result };
        self.replicas[replica].failures.handle(input, self.now);
        self.drive_failures(replica);
    }

    /// Starts the new actions, and schedules the deadline.
    pub(super) fn drive_failures(&mut self, replica: usize) {
        while let Some(output) = self.replicas[replica].failures.poll() {
            let is_active = self.replicas[replica].leadership.is_active;
            if is_active && matches!(output, FailuresOutput::TooMany { .. }) {
                self.checker.outcome.too_many += 1;
            }
            self.note(|_| format!("controller{replica}: {output:?}"));
        }
        let actions: Vec<_> = self.replicas[replica].failures.actions().collect();
        for action in actions {
            if self.replicas[replica].begun.insert(action.attempt) {
                self.begin(replica, action);
            }
        }
        let it = &mut self.replicas[replica];
        let Some(deadline) = it.failures.deadline() else { return };
        if it.wake_at.is_none_or(|at| deadline < at) {
            let at = deadline.max(self.now) + self.rng.between(Duration::ZERO, ms(1));
            it.wake_at = Some(at);
            self.queue.push(at, Event::ReplicaWake(replica));
        }
    }

    /// Receives the state of all objects.
    pub(super) fn receive_all(&mut self, replica: usize) {
        let it = &mut self.replicas[replica];
        it.view.clone_from(&self.stored);
        it.ready = self.nodes.iter().map(|node| node.is_ready).collect();
        it.pods.list(&self.pods);
        self.evaluate_soon(replica);
    }
}
