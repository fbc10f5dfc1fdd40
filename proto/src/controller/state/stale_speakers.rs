//! The nodes whose SpeakerStatus is stale, as one answer for the conditions of Services and
//! BGPPeers. Part of the state; the rule is [`stale_speakers`].

use std::collections::BTreeSet;

use super::State;
use crate::facts::{RunningSpeakers, stale_speakers};

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
        stale_speakers(self.speakers.values(), node, &self.running_speakers())
    }

    /// Returns the nodes whose speaker has a Ready pod, as far as the pods are known.
    pub(super) fn running_speakers(&self) -> RunningSpeakers {
        match self.pods.is_complete() {
            true => RunningSpeakers::of(self.pods.values()),
            false => RunningSpeakers::UNKNOWN,
        }
    }

    /// Computes the stale speakers again if a fact has changed. BGPPeers do not count the sessions
    /// of stale speakers, so another answer concerns their statuses.
    pub(super) fn update_stale_speakers(&mut self) {
        if self.stale_speakers.is_current {
            return;
        }
        let nodes = self.stale();
        self.custom_resources.statuses_dirty |= nodes != self.stale_speakers.nodes;
        self.stale_speakers = StaleSpeakers { nodes, is_current: true };
    }
}
