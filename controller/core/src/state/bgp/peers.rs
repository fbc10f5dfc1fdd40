//! Computes the conditions of BGPPeers, and how many sessions a BGPPeer has. Pure functions; called
//! by the state.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ferrolb_core::bgp::{PeerConflict, ProfilesByName, bfd_timers, sessions};
use ferrolb_core::store::Store;
use ferrolb_proto::api::CONDITION_ESTABLISHED;
use ferrolb_proto::facts::{BgpPeer, Node, PasswordSource, SessionParameters, Speaker};

use super::super::conditions::{compare_condition, record_condition};
use super::super::custom_resources::{CustomResources, StatusResource, Validity};
use super::super::messages::peer::{NodeSession, PeerMessage, SessionMessage, SessionProblem};
use crate::desired::{CustomResourceStatus, PeerStatus};

/// Inputs of a BGPPeer's status, in addition to the BGPPeer itself.
pub(in crate::state) struct PeerStatusInputs<'a> {
    /// The BGPPeers that have no session on a node because of another BGPPeer, from [`conflicts`].
    pub(super) conflicts: BTreeMap<&'a str, PeerConflict>,
    /// For each BGPPeer with an unusable password Secret, the first node whose speaker reports this
    /// problem, and the cause; from [`secrets`].
    pub(super) secrets: BTreeMap<&'a str, (&'a str, &'a str)>,
    pub(super) profiles: ProfilesByName<'a>,
    /// The nodes that have a SpeakerStatus, each with the content of its SpeakerStatus.
    pub(super) speakers: Vec<(&'a Node, &'a Speaker)>,
    /// The nodes whose SpeakerStatus is stale.
    pub(super) stale: &'a BTreeSet<Box<str>>,
}

impl<'a> PeerStatusInputs<'a> {
    /// Collects the inputs from the stores.
    pub(in crate::state) fn of(
        own: &'a CustomResources,
        nodes: &'a Store<Arc<str>, Node>,
        speakers: &'a Store<Box<str>, Speaker>,
        stale: &'a BTreeSet<Box<str>>,
    ) -> Self {
        let labels: Vec<_> = nodes.values().map(|node| &node.labels).collect();
        Self {
            conflicts: conflicts(own.peers.values(), &labels),
            secrets: secrets(speakers.values()),
            profiles: own.profiles.iter().map(|(name, profile)| (&**name, profile)).collect(),
            speakers: speakers
                .values()
                .filter_map(|current| Some((nodes.get(&*current.node)?, current)))
                .collect(),
            stale,
        }
    }
}

/// Returns the BGPPeers that have no session on a node because of another BGPPeer, each with the
/// conflict on the first such node. If there are no nodes, assumes one node without labels.
pub(super) fn conflicts<'a>(
    peers: impl Iterator<Item = &'a BgpPeer> + Clone,
    nodes: &[&BTreeMap<String, String>],
) -> BTreeMap<&'a str, PeerConflict> {
    let no_labels = [&BTreeMap::new()];
    let nodes = if nodes.is_empty() { no_labels.as_slice() } else { nodes };
    let mut conflicts = BTreeMap::new();
    // Even if thousands of nodes exist, only few distinct sets of BGPPeers select them. Each set is
    // checked once.
    let mut seen = BTreeSet::new();
    for labels in nodes {
        let selecting: Vec<bool> = peers.clone().map(|peer| peer.selects_node(labels)).collect();
        if !seen.insert(selecting) {
            continue;
        }
        for (peer, conflict) in sessions(peers.clone(), labels).conflicts {
            conflicts.entry(&*peer.name).or_insert(conflict);
        }
    }
    conflicts
}

/// Returns, for each BGPPeer with an unusable password Secret, the first node whose speaker reports
/// this problem, and the cause.
pub(super) fn secrets<'a>(
    speakers: impl Iterator<Item = &'a Speaker>,
) -> BTreeMap<&'a str, (&'a str, &'a str)> {
    let mut secrets = BTreeMap::new();
    for speaker in speakers {
        for session in speaker.bgp.iter().flatten() {
            if let Some(why) = &session.password_unavailable {
                secrets.entry(&*session.peer).or_insert((&*speaker.node, &**why));
            }
        }
    }
    secrets
}

/// Returns the status to write to a BGPPeer; `None` if the current status is up to date.
pub(super) fn peer_status(peer: &BgpPeer, inputs: &PeerStatusInputs<'_>) -> Option<PeerStatus> {
    let message = match &peer.session {
        Err(problem) => PeerMessage::Problem(problem),
        Ok(session) => inputs.message(&peer.name, session),
    };
    let status = &peer.status;
    let (valid, same) = peer.validity(&message);
    let count = peer.session.is_ok().then(|| inputs.count(peer)).flatten();
    let sessions = count.as_ref().map(|count| count.text.clone());
    let sessions_match = sessions.as_deref() == status.sessions.as_deref();
    let compare = |count: SessionCount<'_>| {
        compare_condition(CONDITION_ESTABLISHED, &count.message, &status.conditions)
    };
    let (established, established_matches) = match count.map(compare) {
        Some((condition, established_matches)) => (Some(condition), established_matches),
        None => (
            None,
            status.conditions.iter().all(|condition| condition.type_ != CONDITION_ESTABLISHED),
        ),
    };
    (!(same && sessions_match && established_matches)).then_some(PeerStatus {
        valid,
        sessions,
        established,
    })
}

impl StatusResource for BgpPeer {
    type StatusInputs<'a> = PeerStatusInputs<'a>;

    fn unreadable(name: Box<str>, why: Box<str>, before: Option<&Self>) -> Self {
        let mut peer = Self::unreadable(name, &why);
        if let Some(before) = before {
            (peer.generation, peer.created) = (before.generation, before.created);
            peer.status = before.status.clone();
        }
        peer
    }

    fn status(&self, inputs: &PeerStatusInputs<'_>) -> Option<CustomResourceStatus> {
        peer_status(self, inputs).map(CustomResourceStatus::Peer)
    }

    fn record_written(&mut self, written: &CustomResourceStatus) {
        self.record_validity(written.valid());
        let CustomResourceStatus::Peer(written) = written else { return };
        let status = &mut self.status.0;
        record_condition(
            CONDITION_ESTABLISHED,
            &mut status.conditions,
            written.established.as_ref(),
        );
        status.sessions = written.sessions.as_deref().map(str::to_owned);
    }
}

/// The number of nodes that have a session with a router, as text for the status, and the content
/// of the condition `Established`.
struct SessionCount<'a> {
    text: Box<str>,
    message: SessionMessage<'a>,
}

impl<'a> PeerStatusInputs<'a> {
    /// Counts the established sessions on the nodes that the BGPPeer selects and that run gobgpd;
    /// `None` without such nodes.
    fn count(&self, peer: &BgpPeer) -> Option<SessionCount<'a>> {
        let (mut missing, mut without_bfd) = (Vec::new(), Vec::new());
        let mut total = 0;
        for (node, speaker) in
            self.speakers.iter().filter(|(node, _)| peer.selects_node(&node.labels))
        {
            let Some(sessions) = &speaker.bgp else { continue };
            total += 1;
            let session = sessions.iter().find(|session| session.peer == peer.name);
            let on = |why| NodeSession { node: &node.name, why };
            let reported = session.map_or("", |session| &session.message);
            if self.stale.contains(&*node.name) {
                missing.push(on(SessionProblem::SpeakerNotRunning));
            } else if session.is_none_or(|session| !session.established) {
                missing.push(on(SessionProblem::Reported(reported)));
            } else if session.is_some_and(|session| session.bfd_down) && !reported.is_empty() {
                // While a BFD session is still coming up, the speaker reports no message, and the
                // node is not listed.
                without_bfd.push(on(SessionProblem::Reported(reported)));
            }
        }
        let text = format!("{}/{total}", total - missing.len()).into();
        let message = match (missing.is_empty(), without_bfd.is_empty()) {
            (false, _) => SessionMessage::NoSession(missing),
            (true, false) => SessionMessage::NoBfd(without_bfd),
            (true, true) => SessionMessage::Established,
        };
        (total > 0).then_some(SessionCount { text, message })
    }

    /// Returns the message of a BGPPeer whose own specification is valid. Faults that prevent
    /// sessions take precedence.
    fn message(&self, name: &str, session: &SessionParameters) -> PeerMessage<'_> {
        if let Some(conflict) = self.conflicts.get(name) {
            return PeerMessage::Conflict(conflict);
        }
        let has_secret = matches!(session.password, Some(PasswordSource::Secret(_)));
        if let Some((node, why)) = self.secrets.get(name).filter(|_| has_secret) {
            return PeerMessage::Secret { node, why };
        }
        match bfd_timers(session, &self.profiles) {
            Err(fault) => PeerMessage::Bfd(fault),
            Ok(_) if session.graceful_restart && session.bfd_profile.is_some() => {
                PeerMessage::GracefulRestartWithBfd
            }
            Ok(_) => PeerMessage::Valid,
        }
    }
}

#[cfg(test)]
mod tests;
