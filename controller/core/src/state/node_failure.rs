//! Node failure: passes the evidence of the speakers to the state machine [`Failures`], and turns
//! its actions into tasks for the driver. Part of the state, which the main loop owns.

use std::collections::VecDeque;
use std::mem::take;
use std::net::SocketAddr;
use std::time::Duration;

use ferrolb_core::Machine as _;
use ferrolb_proto::Instant;
use ferrolb_proto::facts::{Key, Speaker};

use super::State;
use super::messages::node::NodeMessage;
use super::service::Role;
use crate::desired::{NodeAction, NodeNotice, NodeTask, ServiceKeys};
use crate::node_failure::evidence::Evidence;
use crate::node_failure::failures::{
    ActionKind, ActionResult, FailureAction, Failures, FailuresInput, FailuresOutput, MarkScope,
};
use crate::node_failure::stated_stops::StatedStops;

/// Number of speakers of which only one remains to report the failure of the other one.
const SPEAKERS_WITHOUT_SECOND_REPORT: usize = 2;

/// Minimum interval between two evaluations of the evidence. With 1,000 nodes on one segment, one
/// takes several milliseconds, and the failure of a node changes all SpeakerStatuses.
pub(super) const EVALUATION_INTERVAL_MIN: Duration = Duration::from_millis(50);

/// Time after the start of an attempt in which a replica that does not lead sends requests.
const STANDBY_REQUESTS_MAX: Duration = Duration::from_secs(2);

/// The silent nodes, and the tasks that concern them.
#[derive(Debug, Default)]
pub(super) struct NodeFailures {
    failures: Failures,
    stated_stops: StatedStops,
    /// True if a SpeakerStatus or a Node has changed since the evidence was computed.
    evidence_changed: bool,
    /// Results of actions, which need the latest evidence.
    ended: Vec<FailuresInput>,
    /// Time before which the evidence is not evaluated again.
    next_evaluation: Instant,
    tasks: Vec<NodeTask>,
    /// True if the silent leader has renewed its lease since the evidence was evaluated.
    leader_replies: bool,
    /// Events that the main loop has not read yet.
    notices: VecDeque<NodeNotice>,
}

impl NodeFailures {
    pub(super) const fn evidence_changed(&mut self) {
        self.evidence_changed = true;
    }

    pub(super) fn end_action(&mut self, attempt: u64, result: ActionResult) {
        self.ended.push(FailuresInput::Ended { attempt, result });
    }

    pub(super) fn failed(&self) -> impl Iterator<Item = &str> {
        self.failures.failed()
    }

    fn deadline(&self) -> Option<Instant> {
        let evaluation = self.evidence_changed.then_some(self.next_evaluation);
        self.failures.deadline().into_iter().chain(evaluation).min()
    }

    /// Forgets all silent nodes.
    pub(super) fn reset(&mut self) {
        (self.failures, self.evidence_changed) = (Failures::default(), true);
        self.stated_stops = StatedStops::default();
        (self.tasks, self.ended) = (Vec::new(), Vec::new());
    }
}

impl State {
    /// Returns the actions on silent nodes that the driver must execute.
    #[must_use]
    pub fn node_tasks(&self) -> &[NodeTask] {
        &self.node_failures.tasks
    }

    /// Removes and returns the next Event about a Node.
    pub fn next_node_notice(&mut self) -> Option<NodeNotice> {
        self.node_failures.notices.pop_front()
    }

    /// Returns `metadata.uid` of a Node; empty if the Node does not exist.
    #[must_use]
    pub fn node_uid(&self, node: &str) -> &str {
        self.nodes.get(node).map_or("", |node| &node.uid)
    }

    /// Returns whether this replica decides about silent nodes: the active leader about all others
    /// than its own one, and every other replica about the node of the leader.
    fn decides_about_nodes(&self) -> bool {
        let is_on = self.config.node_failure_endpoints != MarkScope::Off && self.has_speakers();
        let decides = self.leadership.is_active || self.leading_node().is_some();
        is_on && decides && self.speakers.is_complete() && self.slices.is_complete()
    }

    /// Returns the node of the replica that leads, if it is another one whose pod is known.
    fn leading_node(&self) -> Option<&str> {
        let pod = self.leadership.leading_pod()?;
        let pod = self.pods.get(&Key::new(&self.config.names.namespace, pod))?;
        let is_known = self.pods.is_complete() && self.nodes.is_complete();
        is_known.then_some(&*pod.node)
    }

    /// Records that the replica that leads has taken or renewed the lease, so that its node works.
    pub(super) fn refute_silence_of_leader(&mut self) {
        let is_silent =
            self.leading_node().is_some_and(|it| self.node_failures.failures.concerns(it));
        self.node_failures.leader_replies |= is_silent;
        // If another replica leads now, the evidence about the previous leader does not count.
        self.node_failures.evidence_changed = true;
    }

    /// Restricts the evidence to the nodes that this replica decides about. The node of this
    /// replica works, so reports that say otherwise are outdated.
    fn restrict(&self, evidence: &mut Evidence) {
        evidence.silent.remove(&self.config.node);
        if !self.leadership.is_active {
            let leading = self.leading_node().filter(|_| !self.node_failures.leader_replies);
            evidence.restrict_to(leading);
        }
    }

    /// Returns the time at which [`Self::update_node_failures`] must be called again, if any.
    pub(super) fn node_failures_deadline(&self) -> Option<Instant> {
        if self.decides_about_nodes() { self.node_failures.deadline() } else { None }
    }

    /// Evaluates the evidence if it has changed, and updates the tasks.
    pub(super) fn update_node_failures(&mut self, now: Instant) {
        if !self.decides_about_nodes() {
            self.node_failures.tasks.clear();
            return;
        }
        // A decision needs the latest evidence.
        let ended = take(&mut self.node_failures.ended);
        let deadline = self.node_failures.failures.deadline();
        let decides = !ended.is_empty() || deadline.is_some_and(|at| at <= now);
        let is_due = decides || now >= self.node_failures.next_evaluation;
        let changed = is_due && take(&mut self.node_failures.evidence_changed);
        if changed {
            self.update_stated_stops();
        }
        let failures = &self.node_failures.failures;
        if changed && (!failures.is_idle() || Evidence::is_possible(self.speakers.values())) {
            let reporting = self.reporting_speakers();
            let is_wanted = |node: &str| {
                let stops = &self.node_failures.stated_stops;
                self.pods.is_current() && stops.are_of_node(node, &self.speaker_pods)
            };
            let concerns = |node: &str| failures.concerns(node);
            let mut evidence = Evidence::new(reporting, concerns, is_wanted);
            self.restrict(&mut evidence);
            // A node that is still silent counts from now on.
            self.node_failures.evidence_changed = take(&mut self.node_failures.leader_replies);
            let nodes = self.nodes.values().map(|node| ((*node.name).into(), node.ready));
            let input = FailuresInput::Evidence { evidence, nodes: nodes.collect() };
            self.node_failures.failures.handle(input, now);
            self.node_failures.next_evaluation = now + EVALUATION_INTERVAL_MIN;
        } else {
            self.node_failures.failures.tick(now);
        }
        ended.into_iter().for_each(|input| self.node_failures.failures.handle(input, now));
        let mut failed_changed = false;
        while let Some(output) = self.node_failures.failures.poll() {
            let is_too_many = matches!(output, FailuresOutput::TooMany { .. });
            if is_too_many && !self.leadership.is_active {
                continue;
            }
            failed_changed |= !is_too_many;
            let notice = NodeMessage(output).into_notice();
            self.node_failures.notices.push_back(notice);
        }
        if failed_changed {
            self.recheck_all_services();
        }
        self.update_node_tasks(now);
    }

    fn update_stated_stops(&mut self) {
        let mut stops = take(&mut self.node_failures.stated_stops);
        stops.update(self.reporting_speakers(), self.speaker_pods());
        self.node_failures.stated_stops = stops;
    }

    /// Adds tasks for new actions, and removes those that have ended. The active leader sends their
    /// requests while it has the lease.
    fn update_node_tasks(&mut self, now: Instant) {
        let actions: Vec<_> = self.node_failures.failures.actions().collect();
        let lease = self.leadership.is_active.then(|| self.lease_expiry());
        let mut tasks = take(&mut self.node_failures.tasks);
        tasks.retain(|task| actions.iter().any(|action| action.attempt == task.attempt));
        tasks.iter_mut().for_each(|task| task.until = lease.unwrap_or(task.until));
        for action in actions {
            if tasks.iter().any(|task| task.attempt == action.attempt) {
                continue;
            }
            let services = || ServiceKeys(self.marked_services(&action.node).cloned().collect());
            let kind = match action.kind {
                ActionKind::ProbeKubelet => NodeAction::ProbeKubelet(self.kubelet(&action.node)),
                ActionKind::Mark => NodeAction::Mark(services()),
                ActionKind::Restore => NodeAction::Restore(services()),
            };
            let until = lease.unwrap_or(now + STANDBY_REQUESTS_MAX);
            let FailureAction { attempt, node, .. } = action;
            tasks.push(NodeTask { attempt, node, action: kind, until });
        }
        self.node_failures.tasks = tasks;
    }

    /// Returns the Services with an endpoint on a node whose pods are marked.
    fn marked_services<'a>(&'a self, node: &'a str) -> impl Iterator<Item = &'a Key> {
        let is_own = |key: &Key| {
            self.services.get(key).is_some_and(|entry| {
                let role = self.config.role(&entry.service, |_| false);
                role == Role::ServedByFerroLb && !entry.service.assigned.is_empty()
            })
        };
        let all = self.config.node_failure_endpoints == MarkScope::All;
        self.slices.services_with(|slice| slice.is_on(node)).filter(move |key| all || is_own(key))
    }

    /// Returns the speakers whose reports count: those that run on Ready Nodes.
    fn reporting_speakers(&self) -> impl Iterator<Item = &Speaker> + Clone {
        let running = self.speaker_pods();
        let is_ready = |node: &str| self.nodes.get(node).is_some_and(|node| node.ready);
        let speakers = self.speakers.values();
        speakers.filter(move |it| is_ready(&it.node) && !running.lack(&it.node))
    }

    /// Returns the kubelets that the active leader may have to probe: those of a cluster in which
    /// two speakers report. The other replicas probe them, too, because one may become the leader.
    #[must_use]
    pub fn kubelets(&self) -> Vec<SocketAddr> {
        let is_on = self.config.node_failure_endpoints != MarkScope::Off;
        let speakers: Vec<_> =
            self.reporting_speakers().take(SPEAKERS_WITHOUT_SECOND_REPORT + 1).collect();
        if !is_on || speakers.len() != SPEAKERS_WITHOUT_SECOND_REPORT {
            return Vec::new();
        }
        speakers.iter().filter_map(|speaker| self.kubelet(&speaker.node)).collect()
    }

    fn kubelet(&self, node: &str) -> Option<SocketAddr> {
        let node = self.nodes.get(node)?;
        Some(SocketAddr::new(node.usable_addresses().next()?, node.kubelet_port()))
    }
}
