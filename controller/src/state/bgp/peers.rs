//! The condition `Valid` of BGPPeers and BFDProfiles. Pure functions; the state asks them.

use std::collections::{BTreeMap, BTreeSet};

use ferrolb_proto::api::StatusFields;
use ferrolb_proto::bgp::{PeerConflict, sessions};
use ferrolb_proto::facts::{BfdProfile, BfdProfileProblem, BgpPeer, BgpPeerProblem, Password, Session, Speaker};

use super::super::validity::{Fault, verdict};
use crate::desired::ValidStatus;

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
) -> Option<ValidStatus> {
    let fault = match &peer.session {
        Err(problem) => Some(Fault { reason: peer_reason(problem), message: problem.to_string().into() }),
        Ok(session) => surroundings.fault(&peer.name, session),
    };
    let is = (peer.status.conditions.as_slice(), peer.status.observed_generation);
    let (wanted, same) = verdict(fault, "nodes can have sessions with this router", peer.generation, is);
    (!same && fields.has("conditions")).then_some(wanted)
}

impl Surroundings<'_> {
    /// What is wrong with a BGPPeer that is sound by itself: first what costs it its sessions.
    fn fault(&self, name: &str, session: &Session) -> Option<Fault> {
        if let Some(conflict) = self.conflicts.get(name) {
            return Some(Fault { reason: "Conflict", message: conflict.to_string().into() });
        }
        let has_secret = matches!(session.password, Some(Password::Secret(_)));
        if let Some((node, why)) = self.secrets.get(name).filter(|_| has_secret) {
            return Some(Fault { reason: "BadSecret", message: format!("{why} (on node {node})").into() });
        }
        let profile = session.bfd_profile.as_deref()?;
        if session.multi_hop {
            let message = "spec.bfdProfile: GoBGP has no BFD to a router more than one hop away: BFD is off".into();
            return Some(Fault { reason: "Unsupported", message });
        }
        match self.profiles.get(profile).map(|profile| &profile.timers) {
            Some(Ok(_)) => None,
            Some(Err(why)) => {
                let message = format!("spec.bfdProfile: BFDProfile {profile}: {why}: BFD is off").into();
                Some(Fault { reason: "BadBFDProfile", message })
            }
            None => {
                let message = format!("spec.bfdProfile: there is no BFDProfile {profile}: BFD is off").into();
                Some(Fault { reason: "UnknownBFDProfile", message })
            }
        }
    }
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
