//! Decides which SpeakerStatuses are stale: those of speakers that do not run any more. A stale
//! SpeakerStatus does not change and still lists its addresses. Its age is no evidence, because the
//! API server does not store an unchanged write. Pure; the controller and
//! `kubectl ferrolb` use it.

use std::collections::BTreeSet;

use super::{Component, Node, Pod, Speaker};

/// The nodes whose speaker has a Ready pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunningSpeakers(Option<BTreeSet<Box<str>>>);

impl RunningSpeakers {
    /// Nothing is known about the pods, so they are no evidence.
    pub const UNKNOWN: Self = Self(None);

    /// Reads the pods of FerroLB. If not even a pod of the controller is among them, FerroLB does
    /// not run in pods, or they cannot be read.
    pub fn of<'a>(pods: impl Iterator<Item = &'a Pod> + Clone) -> Self {
        let mut components = pods.clone().map(|pod| pod.component);
        if !components.any(|component| component == Some(Component::Controller)) {
            return Self::UNKNOWN;
        }
        let speakers = pods.filter(|pod| pod.component == Some(Component::Speaker) && pod.ready);
        Self(Some(speakers.map(|pod| pod.node.clone()).collect()))
    }

    /// Returns whether the pods show that no speaker runs on a node.
    pub fn lack(&self, node: &str) -> bool {
        self.0.as_ref().is_some_and(|running| !running.contains(node))
    }
}

/// Returns the nodes whose SpeakerStatus is stale. A SpeakerStatus is stale in three cases:
///
/// - Its Node does not exist.
/// - The speaker receives hellos of other speakers, and none of these receives its hellos. An
///   isolated speaker receives no hellos, so its empty list proves nothing about others.
/// - The `Ready` condition of the Node is `Unknown`, or no pod of a speaker is Ready on it, and no
///   other speaker confirms it ([`Speaker::confirms`]). Possibly only the kubelet has failed.
///
/// A stale SpeakerStatus confirms no other one.
pub fn stale_speakers<'a>(
    speakers: impl Iterator<Item = &'a Speaker>,
    node: impl Fn(&str) -> Option<&'a Node>,
    running: &RunningSpeakers,
) -> BTreeSet<Box<str>> {
    let (mut with_node, without_node): (Vec<_>, Vec<_>) =
        speakers.partition(|speaker| node(&speaker.node).is_some());
    with_node.sort_unstable_by(|one, other| one.node.cmp(&other.node));
    let is_suspected = |speaker: &&Speaker| {
        let is_unknown = node(&speaker.node).is_some_and(|it| it.ready_unknown);
        is_unknown || running.lack(&speaker.node)
    };
    let names = |speakers: &[&Speaker]| -> BTreeSet<Box<str>> {
        speakers.iter().map(|speaker| speaker.node.clone()).collect()
    };
    let mut stale = names(&without_node);
    stale.extend(unconfirmed(&with_node).map(|speaker| speaker.node.clone()));
    let others = with_node.iter().copied().filter(|speaker| !stale.contains(&speaker.node));
    let (mut suspected, mut credible): (Vec<&Speaker>, Vec<_>) = others.partition(is_suspected);
    // A confirmed speaker is credible, too, and may confirm further ones.
    while !suspected.is_empty()
        && let Some(other) = credible.pop()
    {
        credible.extend(suspected.extract_if(.., |it| other.confirms(&it.node)));
    }
    stale.extend(names(&suspected));
    stale
}

/// Returns the speakers that receive hellos of others of which none receives theirs. `speakers` are
/// sorted by node.
pub fn unconfirmed<'a>(speakers: &[&'a Speaker]) -> impl Iterator<Item = &'a Speaker> {
    debug_assert!(speakers.is_sorted_by(|one, next| one.node < next.node));
    let of = |node: &str| {
        let index = speakers.binary_search_by(|speaker| (*speaker.node).cmp(node)).ok()?;
        Some(speakers[index])
    };
    let is_isolated = |speaker: &Speaker| speaker.interfaces.iter().any(|link| link.isolated);
    let is_unconfirmed = move |speaker: &&Speaker| {
        let senders = speaker.interfaces.iter().flat_map(|link| &*link.hello_senders);
        let mut others = senders.filter(|sender| **sender != speaker.node).peekable();
        let confirms =
            |other: &Speaker| other.receives_hellos_of(&speaker.node) || is_isolated(other);
        others.peek().is_some() && !others.any(|sender| of(sender).is_some_and(confirms))
    };
    speakers.iter().copied().filter(is_unconfirmed)
}
