//! Decides whether a SpeakerStatus is credible. A SpeakerStatus outlives its speaker: it does not
//! change any more, and still lists its addresses. Its age is no evidence, because the API server
//! does not store an unchanged write. Pure; the controller and `kubectl ferrolb` use it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ferrolb_proto::api::{WatchedNode, WatchedNodeState};
use ferrolb_proto::facts::{Component, Node, Pod, Speaker};

use ferrolb_core::node_failure::WATCHED_NODES;

/// Number of speakers that must report that a node or speaker does not reply.
pub const REPORTS_MIN: usize = 2;

/// The credibility of a SpeakerStatus. Each caller decides which values it accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Credibility {
    /// Nothing shows that the speaker has stopped.
    Credible,
    /// [`REPORTS_MIN`] speakers, and more than report the opposite, report that the speaker does
    /// not reply to challenges.
    Contradicted,
    /// The speaker receives hellos of others, and none of these receives its hellos. An isolated
    /// speaker receives no hellos, so its empty list proves nothing about others. A speaker reports
    /// that the speaker replies to challenges.
    Unheard,
    /// As [`Self::Unheard`], but no speaker reports that the speaker replies to challenges.
    Silent,
    /// The speaker does not run, by two kinds of evidence or because its Node does not exist:
    ///
    /// - The others receive no hellos of it, as for [`Self::Unheard`], and it is also
    ///   [`Self::Contradicted`].
    /// - The `Ready` condition of the Node is `Unknown`, or no pod of a speaker is Ready on it, and
    ///   no other speaker confirms it ([`Speaker::confirms`]). Possibly, only the kubelet has
    ///   failed.
    Stale,
}

/// The pods of the speakers, as far as they are known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpeakerPods {
    /// The nodes whose speaker has a Ready pod; `None` if they are not known.
    running: Option<BTreeSet<Box<str>>>,
    /// The UIDs of the pods that nobody has ended, by node.
    wanted: BTreeMap<Box<str>, Box<str>>,
}

impl SpeakerPods {
    /// Nothing is known about the pods, so they are no evidence.
    pub const UNKNOWN: Self = Self { running: None, wanted: BTreeMap::new() };

    /// Reads the pods of FerroLB. If not even a pod of the controller is among them, FerroLB does
    /// not run in pods, or they cannot be read.
    pub fn of<'a>(pods: impl Iterator<Item = &'a Pod> + Clone) -> Self {
        let mut components = pods.clone().map(|pod| pod.component);
        if !components.any(|component| component == Some(Component::Controller)) {
            return Self::UNKNOWN;
        }
        let speakers = pods.filter(|pod| pod.component == Some(Component::Speaker));
        let running = speakers.clone().filter(|pod| pod.ready).map(|pod| pod.node.clone());
        let wanted = speakers.filter(|pod| pod.is_wanted);
        let wanted = wanted.map(|pod| (pod.node.clone(), pod.uid.clone()));
        Self { running: Some(running.collect()), wanted: wanted.collect() }
    }

    /// Returns the UID of the speaker's pod on a node, if nobody has ended it.
    #[must_use]
    pub fn wanted_on(&self, node: &str) -> Option<&str> {
        self.wanted.get(node).map(|uid| &**uid)
    }

    /// Returns whether the pods show that no speaker runs on a node.
    #[must_use]
    pub fn lack(&self, node: &str) -> bool {
        self.running.as_ref().is_some_and(|running| !running.contains(node))
    }
}

/// Returns the nodes whose SpeakerStatus does not count for conditions: the speaker announces
/// nothing, or nobody can see that it does. Challenges and their replies prove nothing about
/// announcements, so a contradicted SpeakerStatus counts, and an unheard one does not.
pub fn stale_speakers<'a>(
    speakers: impl Iterator<Item = &'a Speaker>,
    node: impl Fn(&str) -> Option<&'a Node>,
    running: &SpeakerPods,
) -> BTreeSet<Box<str>> {
    let all = credibility(speakers, node, running).into_iter();
    all.filter(|(_, it)| !it.is_heard()).map(|(node, _)| node.into()).collect()
}

impl Credibility {
    /// Returns whether other speakers receive the hellos of the speaker, as far as it is known.
    const fn is_heard(self) -> bool {
        matches!(self, Self::Credible | Self::Contradicted)
    }
}

/// Returns the credibility of each SpeakerStatus, by the reports of all of them and by the Nodes
/// and pods. A stale SpeakerStatus confirms no other one.
pub fn credibility<'a>(
    speakers: impl Iterator<Item = &'a Speaker>,
    node: impl Fn(&str) -> Option<&'a Node>,
    running: &SpeakerPods,
) -> BTreeMap<&'a str, Credibility> {
    let named = speakers.map(|speaker| (&*speaker.node, speaker));
    let (with_node, without_node): (BTreeMap<_, _>, BTreeMap<_, _>) =
        named.partition(|(name, _)| node(name).is_some());
    let reported: Vec<_> = by_reports(&with_node).collect();
    let is_suspected = |speaker: &&Speaker| {
        let is_unknown = node(&speaker.node).is_some_and(|it| it.ready_unknown);
        is_unknown || running.lack(&speaker.node)
    };
    let heard = reported.iter().filter(|(_, it)| it.is_heard()).map(|(speaker, _)| *speaker);
    let (mut suspected, mut credible): (Vec<&Speaker>, Vec<_>) = heard.partition(is_suspected);
    // A confirmed speaker is credible, too, and may confirm further ones.
    while !suspected.is_empty()
        && let Some(other) = credible.pop()
    {
        credible.extend(suspected.extract_if(.., |it| other.confirms(&it.node)));
    }
    let stale = without_node.into_values().chain(suspected).map(|it| (it, Credibility::Stale));
    // Of two values of one node, the map keeps the later one.
    reported.into_iter().chain(stale).map(|(speaker, it)| (&*speaker.node, it)).collect()
}

/// Returns the credibility of each SpeakerStatus by the reports of all of them alone. The Nodes of
/// all `speakers` exist.
pub fn by_reports<'a>(
    speakers: &BTreeMap<&'a str, &'a Speaker>,
) -> impl Iterator<Item = (&'a Speaker, Credibility)> {
    // Reports that a speaker does not reply, and reports that it does.
    let mut reports = BTreeMap::<&str, [usize; 2]>::new();
    for watched in speakers.values().copied().flat_map(watched_by) {
        let replies = watched.state == WatchedNodeState::Replies;
        reports.entry(&watched.node).or_default()[usize::from(replies)] += 1;
    }
    speakers.values().map(move |speaker| {
        let [against, replies] = reports.get(&*speaker.node).copied().unwrap_or_default();
        let is_contradicted = against >= REPORTS_MIN && against > replies;
        let credibility = match (is_unheard(speaker, speakers), is_contradicted) {
            (false, false) => Credibility::Credible,
            (false, true) => Credibility::Contradicted,
            (true, true) => Credibility::Stale,
            (true, false) if replies > 0 => Credibility::Unheard,
            (true, false) => Credibility::Silent,
        };
        (*speaker, credibility)
    })
}

/// Returns the reports of a speaker about other nodes. A speaker watches no more of them, so one
/// that reports more cannot make more nodes count as silent.
pub fn watched_by(speaker: &Speaker) -> impl Iterator<Item = &WatchedNode> + Clone {
    speaker.watched.iter().take(WATCHED_NODES)
}

/// Returns whether a speaker receives hellos of others of which none receives its hellos.
fn is_unheard(speaker: &Speaker, all: &BTreeMap<&str, &Speaker>) -> bool {
    let senders = speaker.interfaces.iter().flat_map(|link| &*link.hello_senders);
    let mut others = senders.filter(|sender| **sender != speaker.node).peekable();
    let is_isolated = |other: &Speaker| other.interfaces.iter().any(|link| link.isolated);
    let may_receive =
        |other: &&Speaker| other.receives_hellos_of(&speaker.node) || is_isolated(other);
    others.peek().is_some() && !others.any(|sender| all.get(&**sender).is_some_and(may_receive))
}

/// Returns whether a SpeakerStatus that lists an address is outdated because `other`, which lists
/// the address, too, receives no hellos of its speaker, whereas the speaker receives those of
/// `other`. An isolated `other` receives no hellos at all, and proves nothing.
#[must_use]
pub fn is_outdated_by(speaker: &Speaker, other: &Speaker, address: IpAddr) -> bool {
    speaker.receives_hellos_of(&other.node)
        && !other.is_isolated_at(address)
        && !other.receives_hellos_of(&speaker.node)
}

#[cfg(test)]
mod tests;
