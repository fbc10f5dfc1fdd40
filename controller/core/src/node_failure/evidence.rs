//! Evidence: the nodes that the reports of all speakers show to be silent. Pure; the controller
//! computes it from the SpeakerStatuses.

use std::collections::{BTreeMap, BTreeSet};

use ferrolb_core::node_failure::WATCHED_NODES;
use ferrolb_proto::api::{WatchedNode, WatchedNodeState};
use ferrolb_proto::facts::{Speaker, unconfirmed};

/// Number of speakers that must report a node as silent.
pub const REPORTS_MIN: usize = 2;

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
    /// Ready, sorted by node. `concerns` selects further nodes of which [`Self::replying`] is
    /// needed.
    ///
    /// A SpeakerStatus outlives its speaker. It is not credible if [`REPORTS_MIN`] others, and more
    /// than report the opposite, report that the speaker does not reply. Nor is it if no other
    /// reports that it replies, and none of those whose hellos it receives receives its own. In a
    /// cluster of two, neither is enough.
    pub fn new<'a>(
        speakers: impl Iterator<Item = &'a Speaker> + Clone,
        concerns: impl Fn(&str) -> bool,
    ) -> Self {
        let all: Vec<_> = speakers.collect();
        let count = all.len();
        let outdated = outdated(&all);
        let speakers = all.into_iter().filter(|speaker| !outdated.contains(&*speaker.node));
        let watched = speakers.clone().flat_map(watched_by);
        let mut nodes = BTreeMap::<&str, Reports>::new();
        for it in watched.clone() {
            if it.state == WatchedNodeState::Silent || concerns(&it.node) {
                nodes.entry(&it.node).or_default();
            }
        }
        for it in watched {
            if let Some(reports) = nodes.get_mut(&*it.node) {
                reports.add(it.state);
            }
        }
        add_hellos(speakers, &mut nodes);
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
            let confirmation = match reports.silent {
                REPORTS_MIN.. => Confirmation::Complete,
                1 if count == REPORTS_MIN => Confirmation::ByController,
                _ => continue,
            };
            evidence.silent.insert(node.into(), confirmation);
        }
        evidence
    }
}

/// Returns the reports of a speaker about other nodes. A speaker watches no more of them, so one
/// that reports more cannot make more nodes count as silent.
fn watched_by(speaker: &Speaker) -> impl Iterator<Item = &WatchedNode> + Clone {
    speaker.watched.iter().take(WATCHED_NODES)
}

/// Returns the speakers whose reports are not credible. `speakers` are sorted by node.
fn outdated<'a>(speakers: &[&'a Speaker]) -> BTreeSet<&'a str> {
    let mut unconfirmed: BTreeSet<&str> = if speakers.len() > REPORTS_MIN {
        unconfirmed(speakers).map(|speaker| &*speaker.node).collect()
    } else {
        BTreeSet::new()
    };
    // Reports that a speaker does not reply, and reports that it does.
    let mut reports = BTreeMap::<&str, [usize; 2]>::new();
    for watched in speakers.iter().flat_map(|speaker| watched_by(speaker)) {
        let replies = watched.state == WatchedNodeState::Replies;
        if replies {
            unconfirmed.remove(&*watched.node);
        }
        reports.entry(&watched.node).or_default()[usize::from(replies)] += 1;
    }
    let is_refuted = |[against, for_it]: &[usize; 2]| *against >= REPORTS_MIN && against > for_it;
    let refuted = reports.into_iter().filter(|(_, counts)| is_refuted(counts));
    unconfirmed.extend(refuted.map(|(node, _)| node));
    unconfirmed
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
fn add_hellos<'a>(
    speakers: impl Iterator<Item = &'a Speaker>,
    nodes: &mut BTreeMap<&str, Reports>,
) {
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
