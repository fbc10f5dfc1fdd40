//! Evidence: the nodes that the reports of all speakers show to be silent. Pure; the controller
//! computes it from the SpeakerStatuses.

use std::collections::{BTreeMap, BTreeSet};

use crate::credibility::{Credibility, REPORTS_MIN, by_reports, watched_by};
use ferrolb_proto::api::{WatchedNode, WatchedNodeState};
use ferrolb_proto::facts::Speaker;

/// The evidence at one time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Evidence {
    /// Nodes that at least one credible speaker reports as silent, also if another one reports a
    /// reply or hello: while a network recovers, such reports are the last ones of a large failure.
    pub suspected: BTreeSet<Box<str>>,
    /// Those of [`Self::suspected`] that [`REPORTS_MIN`] credible speakers, and more than report
    /// silence, report as replying.
    pub contradicted: BTreeSet<Box<str>>,
    /// Nodes for which all evidence holds.
    pub silent: BTreeMap<Box<str>, Confirmation>,
    /// Nodes of which a credible speaker reports a reply or hello, and none reports silence.
    pub replying: BTreeSet<Box<str>>,
}

/// State of the evidence about a silent node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Confirmation {
    /// [`REPORTS_MIN`] speakers report the node.
    Complete,
    /// The cluster has only two speakers. The controller must probe the kubelet itself.
    ByController,
}

impl Evidence {
    /// Returns whether any speaker reports a node that does not reply. Without such a report, there
    /// is no evidence.
    pub fn is_possible<'a>(mut speakers: impl Iterator<Item = &'a Speaker>) -> bool {
        speakers.any(|speaker| {
            speaker.watched.iter().any(|watched| watched.state != WatchedNodeState::Replies)
        })
    }

    /// Computes the evidence from the SpeakerStatuses of all nodes that Kubernetes reports as
    /// Ready. `concerns` selects further nodes of which [`Self::replying`] is needed. `is_wanted`
    /// tells of a node whether nobody has ended the pod of its speaker: then a speaker that has
    /// stated its stop has stopped with its node.
    ///
    /// Replies to challenges are evidence that a node runs, so an unheard SpeakerStatus counts, and
    /// a contradicted one does not. A silent one counts only in a cluster of two, in which a single
    /// speaker would decide.
    pub fn new<'a>(
        speakers: impl Iterator<Item = &'a Speaker>,
        concerns: impl Fn(&str) -> bool,
        is_wanted: impl Fn(&str) -> bool,
    ) -> Self {
        let all: BTreeMap<_, _> = speakers.map(|speaker| (&*speaker.node, speaker)).collect();
        let count = all.len();
        let is_accepted = |credibility| match credibility {
            Credibility::Credible | Credibility::Unheard => true,
            Credibility::Silent => count <= REPORTS_MIN,
            Credibility::Contradicted | Credibility::Stale => false,
        };
        let accepted = by_reports(&all).filter(|(_, credibility)| is_accepted(*credibility));
        let speakers: Vec<_> = accepted.map(|(speaker, _)| speaker).collect();
        let watched = speakers.iter().copied().flat_map(watched_by);
        let state = |it: &WatchedNode| {
            let has_failed = it.silent && is_wanted(&it.node);
            if has_failed { WatchedNodeState::Silent } else { it.state }
        };
        let mut nodes = BTreeMap::<&str, Reports>::new();
        for it in watched.clone() {
            if state(it) == WatchedNodeState::Silent || concerns(&it.node) {
                nodes.entry(&it.node).or_default();
            }
        }
        for it in watched {
            if let Some(reports) = nodes.get_mut(&*it.node) {
                reports.add(state(it));
            }
        }
        add_hellos(&speakers, &mut nodes);
        let mut evidence = Self::default();
        for (node, reports) in nodes {
            let is_alive = reports.replies > 0 || reports.is_received || reports.kubelet_replies;
            if is_alive && reports.silent == 0 && concerns(node) {
                evidence.replying.insert(node.into());
            }
            if reports.silent > 0 {
                evidence.suspected.insert(node.into());
                if reports.replies >= REPORTS_MIN.max(reports.silent + 1) {
                    evidence.contradicted.insert(node.into());
                }
            }
            if is_alive || reports.is_leaving {
                continue;
            }
            // If the kubelet saw the speaker of its node end, this speaker does not count any more.
            let others = count - usize::from(all.contains_key(node));
            let confirmation = match reports.silent {
                REPORTS_MIN.. => Confirmation::Complete,
                1 if others == 1 => Confirmation::ByController,
                _ => continue,
            };
            evidence.silent.insert(node.into(), confirmation);
        }
        evidence
    }

    /// Removes all other silent nodes than `leading`: those that a replica which does not lead
    /// leaves to the leader. The suspected nodes remain, because they count for the limit.
    pub fn restrict_to(&mut self, leading: Option<&str>) {
        self.silent.retain(|node, _| Some(&**node) == leading);
    }
}

/// Reports of the credible speakers about one node.
#[derive(Default)]
struct Reports {
    silent: usize,
    replies: usize,
    /// True if a speaker receives hellos of the node.
    is_received: bool,
    kubelet_replies: bool,
    is_leaving: bool,
}

impl Reports {
    const fn add(&mut self, state: WatchedNodeState) {
        match state {
            WatchedNodeState::Replies => self.replies += 1,
            WatchedNodeState::SpeakerSilent => self.kubelet_replies = true,
            WatchedNodeState::Leaving => self.is_leaving = true,
            WatchedNodeState::Silent => self.silent += 1,
            WatchedNodeState::Unknown => {}
        }
    }
}

/// Records which nodes reply because a speaker receives their hellos. If the network is in parts,
/// half of all nodes are silent, so the shorter one of two lists is searched in the other.
fn add_hellos(speakers: &[&Speaker], nodes: &mut BTreeMap<&str, Reports>) {
    let mut open: BTreeSet<&str> =
        nodes.iter().filter(|(_, reports)| reports.replies == 0).map(|(node, _)| *node).collect();
    for speaker in speakers {
        let own = &*speaker.node;
        let heard: Vec<&str> = if open.is_empty() {
            return;
        } else if open.len() < speaker.interfaces.iter().map(|it| it.hello_senders.len()).sum() {
            open.iter().copied().filter(|node| speaker.receives_hellos_of(node)).collect()
        } else {
            let senders = speaker.interfaces.iter().flat_map(|it| &*it.hello_senders);
            senders.filter_map(|sender| open.get(&**sender).copied()).collect()
        };
        for node in heard.into_iter().filter(|node| *node != own) {
            open.remove(node);
            if let Some(reports) = nodes.get_mut(node) {
                reports.is_received = true;
            }
        }
    }
}

#[cfg(test)]
mod tests;
