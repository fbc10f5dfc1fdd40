//! The nodes whose SpeakerStatus is stale, as one answer for the conditions of Services and
//! BGPPeers. Part of the state; the rule is [`stale_speakers`].

use std::collections::BTreeSet;

use crate::credibility::{SpeakerPods, stale_speakers};
use ferrolb_core::store::Change;
use ferrolb_core::watched::HandleChange;
use ferrolb_proto::Instant;
use ferrolb_proto::facts::Pod;

use super::State;
use super::alloc::AddressUser;

/// The latest answer.
#[derive(Debug, Default)]
pub(super) struct StaleSpeakers {
    pub(super) nodes: BTreeSet<Box<str>>,
    /// False if a fact about speakers, Nodes or pods has changed since.
    pub(super) is_current: bool,
}

impl State {
    /// Returns the nodes whose SpeakerStatus is stale, see [`stale_speakers`].
    #[must_use]
    pub fn stale(&self) -> BTreeSet<Box<str>> {
        let node = |name: &str| self.nodes.get(name);
        stale_speakers(self.speakers.values(), node, self.speaker_pods())
    }

    /// Returns the pods of the speakers, as far as they are known.
    pub(super) const fn speaker_pods(&self) -> &SpeakerPods {
        const UNKNOWN: &SpeakerPods = &SpeakerPods::UNKNOWN;
        if self.pods.is_complete() { &self.speaker_pods } else { UNKNOWN }
    }

    /// Computes the stale speakers again if a fact has changed. BGPPeers do not count the sessions
    /// of stale speakers, so another answer concerns their statuses.
    pub(super) fn update_stale_speakers(&mut self) {
        if self.stale_speakers.is_current {
            return;
        }
        let nodes = self.stale();
        let before = std::mem::take(&mut self.stale_speakers.nodes);
        let changed: Vec<_> = before.symmetric_difference(&nodes).cloned().collect();
        self.custom_resources.statuses_dirty |= !changed.is_empty();
        self.stale_speakers = StaleSpeakers { nodes, is_current: true };
        changed.iter().for_each(|node| self.update_host(AddressUser::node(node)));
    }
}

impl HandleChange<Pod> for State {
    /// Stores a change of a pod, which may concern all Services.
    fn handle_change(&mut self, change: Change<Pod>, _: Instant) {
        let is_list_complete = matches!(change, Change::ResyncDone);
        if matches!(change, Change::Connected(_)) {
            self.node_failures.evidence_changed();
        }
        let changed = self.pods.handle(change.or_delete(), Some);
        if is_list_complete || !changed.is_empty() {
            self.speaker_pods = SpeakerPods::of(self.pods.values());
            self.node_failures.evidence_changed();
            self.recheck_all_services();
        }
    }
}
