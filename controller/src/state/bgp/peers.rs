//! The conditions of BGPPeers and BFDProfiles, and how many sessions a BGPPeer has. Pure functions; the state asks them.

use std::collections::{BTreeMap, BTreeSet};

use ferrolb_proto::api::{self, CONDITION_ESTABLISHED, StatusFields, Truth};
use ferrolb_proto::bgp::{BfdFault, PeerConflict, sessions};
use ferrolb_proto::facts::{BfdProfile, BfdProfileProblem, BgpPeer, BgpPeerProblem, Node, Password, Session, Speaker};

use super::super::validity::{Fault, assume, assume_condition, judged, verdict};
use super::few;
use crate::desired::{PeerStatus, ValidStatus};

/// How a speaker's words about the Secret of a BGPPeer begin.
const OF_SECRET: &str = "spec.passwordSecret";

/// What decides on BGPPeers beside themselves.
pub(super) struct Surroundings<'a> {
    /// Why some have no session on a node, from [`conflicts`].
    pub(super) conflicts: BTreeMap<&'a str, PeerConflict>,
    /// What is wrong with the Secrets of some, from [`secrets`].
    pub(super) secrets: BTreeMap<&'a str, (&'a str, &'a str)>,
    /// All BFDProfiles, by name.
    pub(super) profiles: BTreeMap<&'a str, &'a BfdProfile>,
    /// The nodes that have a speaker, and what it says.
    pub(super) speakers: Vec<(&'a Node, &'a Speaker)>,
}

/// The BGPPeers that have no session on some node beside the others, and why on the first of these. Where no node is known, as if
/// there were one without labels.
pub(super) fn conflicts<'a>(
    peers: impl Iterator<Item = &'a BgpPeer> + Clone,
    nodes: &[&BTreeMap<String, String>],
) -> BTreeMap<&'a str, PeerConflict> {
    let bare = [&BTreeMap::new()];
    let nodes = if nodes.is_empty() { bare.as_slice() } else { nodes };
    let mut conflicts = BTreeMap::new();
    // Thousands of nodes are of a handful of sorts.
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

/// What speakers say of the Secrets of BGPPeers: by the name of the BGPPeer the first node that cannot use it, and why.
pub(super) fn secrets<'a>(speakers: impl Iterator<Item = &'a Speaker>) -> BTreeMap<&'a str, (&'a str, &'a str)> {
    let mut secrets = BTreeMap::new();
    for speaker in speakers {
        for session in speaker.bgp.iter().flatten().filter(|session| session.message.starts_with(OF_SECRET)) {
            secrets.entry(&*session.peer).or_insert((&*speaker.node, &*session.message));
        }
    }
    secrets
}

/// The status that a BGPPeer should have; none when it has it, or its CRD has no place for it.
pub(super) fn peer_status(
    peer: &BgpPeer,
    surroundings: &Surroundings<'_>,
    fields: &StatusFields,
) -> Option<PeerStatus> {
    let fault = match &peer.session {
        Err(problem) => Some(Fault { reason: peer_reason(problem), message: problem.to_string().into() }),
        Ok(session) => surroundings.fault(&peer.name, session),
    };
    let has = &peer.status;
    let is = (has.conditions.as_slice(), has.observed_generation);
    let (valid, same) = verdict(fault, sound(peer), peer.generation, is);
    let count = peer.session.is_ok().then(|| surroundings.count(peer)).flatten();
    let sessions = count.as_ref().filter(|_| fields.has("sessions")).map(|count| count.text.clone());
    let counted = sessions.as_deref() == has.sessions.as_deref();
    let judge = |count: Count| judged(CONDITION_ESTABLISHED, count.status, count.says, &has.conditions);
    let (established, told) = match count.map(judge) {
        Some((condition, told)) => (Some(condition), told),
        None => (None, has.conditions.iter().all(|condition| condition.type_ != CONDITION_ESTABLISHED)),
    };
    (!(same && counted && told) && fields.has("conditions")).then_some(PeerStatus { valid, sessions, established })
}

/// What is said of a BGPPeer without a fault: a warning where two of its terms work against each other.
fn sound(peer: &BgpPeer) -> Fault {
    let both = |session: &Session| session.graceful_restart && session.bfd_profile.is_some();
    if !peer.session.as_ref().is_ok_and(both) {
        return Fault::from("nodes can have sessions with this router");
    }
    let message = "nodes can have sessions with this router; but BFD ends with gobgpd, as the session does, so that a router may drop at once what \
                   spec.enableGracefulRestart asks it to keep: BIRD does unless it says `bfd graceful`, FRR does not while gobgpd is replaced; see what this \
                   one does, or remove one of the two";
    Fault { reason: "GracefulRestartWithBFD", message: message.into() }
}

/// Takes a status that was written for the one that is there, until the watch shows it.
pub(super) fn assume_peer(is: &mut api::BGPPeerStatus, written: &PeerStatus) {
    assume(&mut is.conditions, &mut is.observed_generation, &written.valid);
    assume_condition(CONDITION_ESTABLISHED, &mut is.conditions, written.established.as_ref());
    is.sessions = written.sessions.as_deref().map(str::to_owned);
}

/// How many nodes have their session with a router.
struct Count {
    text: Box<str>,
    status: Truth,
    says: Fault,
}

impl Surroundings<'_> {
    /// Of the nodes that a BGPPeer selects, and that have a gobgpd, how many have a session; none where there are no such nodes.
    fn count(&self, peer: &BgpPeer) -> Option<Count> {
        let (mut missing, mut unwatched) = (Vec::new(), Vec::new());
        let mut total = 0;
        for (node, speaker) in self.speakers.iter().filter(|(node, _)| peer.selects_node(&node.labels)) {
            let Some(sessions) = &speaker.bgp else { continue };
            total += 1;
            let session = sessions.iter().find(|session| session.peer == peer.name);
            if node.lost {
                missing.push((&*node.name, "nothing was heard of the node for long"));
            } else if session.is_none_or(|session| !session.established) {
                missing.push((&*node.name, session.map_or("", |session| &session.message)));
            } else if let Some(session) = session.filter(|session| session.unwatched && !session.message.is_empty()) {
                // One that is about to come up says nothing yet.
                unwatched.push((&*node.name, &*session.message));
            }
        }
        let text = format!("{}/{total}", total - missing.len()).into();
        let Some((first, why)) = missing.first() else {
            let says = watched(&unwatched);
            return (total > 0).then_some(Count { text, status: Truth::True, says });
        };
        let names = few(missing.iter().map(|(name, _)| *name)).unwrap_or_default();
        let why = if why.is_empty() { String::new() } else { format!("; {first}: {why}") };
        let says = Fault { reason: "NoSession", message: format!("no session on {names}{why}").into() };
        Some(Count { text, status: Truth::False, says })
    }

    /// What is wrong with a BGPPeer that is sound by itself: first what costs it its sessions.
    fn fault(&self, name: &str, session: &Session) -> Option<Fault> {
        if let Some(conflict) = self.conflicts.get(name) {
            return Some(Fault { reason: "Conflict", message: conflict.to_string().into() });
        }
        let has_secret = matches!(session.password, Some(Password::Secret(_)));
        if let Some((node, why)) = self.secrets.get(name).filter(|_| has_secret) {
            return Some(Fault { reason: "BadSecret", message: format!("{why} (on node {node})").into() });
        }
        let why = session.bfd(|name| self.profiles.get(name).copied()).err()?;
        let reason = match why {
            BfdFault::MultiHop => "Unsupported",
            BfdFault::Unknown(_) => "UnknownBFDProfile",
            BfdFault::Profile { .. } => "BadBFDProfile",
        };
        Some(Fault { reason, message: why.to_string().into() })
    }
}

/// What is said where all nodes have their session; some may lack its BFD, and say why.
fn watched(unwatched: &[(&str, &str)]) -> Fault {
    let all = "all its nodes have their session";
    let Some((first, why)) = unwatched.first() else { return Fault { reason: "Established", message: all.into() } };
    let names = few(unwatched.iter().map(|(name, _)| *name)).unwrap_or_default();
    Fault { reason: "NoBFD", message: format!("{all}, but on {names} BFD does not watch it; {first}: {why}").into() }
}

/// The status that a BFDProfile should have; none when it has it, or its CRD has no place for it.
pub(super) fn profile_status(profile: &BfdProfile, fields: &StatusFields) -> Option<ValidStatus> {
    let fault = profile.timers.as_ref().err().map(|problem| {
        let reason = match problem {
            BfdProfileProblem::Range { .. } => "BadTime",
            BfdProfileProblem::Unsupported(_) => "Unsupported",
            BfdProfileProblem::Unreadable(_) => "Unreadable",
        };
        Fault { reason, message: problem.to_string().into() }
    });
    let is = (profile.status.conditions.as_slice(), profile.status.observed_generation);
    let (wanted, same) = verdict(fault, "it can be named in BGPPeers", profile.generation, is);
    (!same && fields.has("conditions")).then_some(wanted)
}

const fn peer_reason(problem: &BgpPeerProblem) -> &'static str {
    match problem {
        BgpPeerProblem::MyAsn | BgpPeerProblem::PeerAsn => "BadASN",
        BgpPeerProblem::Place | BgpPeerProblem::Address { .. } | BgpPeerProblem::SourceFamily => "BadAddress",
        BgpPeerProblem::Time { .. } | BgpPeerProblem::Keepalive => "BadTime",
        BgpPeerProblem::MultiHop | BgpPeerProblem::Hops => "BadHops",
        BgpPeerProblem::Passwords | BgpPeerProblem::Password => "BadPassword",
        BgpPeerProblem::SecretNamespace(_) => "BadSecret",
        BgpPeerProblem::Vrf => "Unsupported",
        BgpPeerProblem::Selector(_) => "BadSelector",
        BgpPeerProblem::Unreadable(_) => "Unreadable",
    }
}

#[cfg(test)]
mod tests;
