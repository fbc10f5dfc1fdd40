//! Computation of the next step that brings gobgpd to the desired state.
//!
//! The policy statements of a path always exist before the path, and sessions are added last. Thus
//! the first UPDATEs to a router are complete. State that matches the desired one is not touched.
//!
//! BFD is enabled only while its session is established. FRR creates a new BFD session when the BGP
//! session is established. If gobgpd already had a BFD session, it would consider this one failed,
//! and end the BGP session (docs/internals/bgp.md). Changed or removed BFD timers need a new
//! session: GoBGP stops sending BFD packets when they change, and the router would end the session.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::plan::BgpIdentity;
use ferrolb_core::bgp::Prefix;
use ferrolb_proto::facts::PeerLocation;
use gobgp_proto as api;

use super::content_hash::ContentHash;
use super::gobgp_config::{GobgpConfig, Paths};
use super::peer_config::PeerConfig;
use super::policy_config::PolicyConfig;

/// Maximum number of paths in one call to gobgpd.
pub(super) const PATHS_MAX: usize = 1_000;

/// State of gobgpd as most recently read, updated by the steps since then.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ObservedState {
    /// AS and router ID with which gobgpd's BGP server was started. None: the server is not
    /// started.
    pub identity: Option<BgpIdentity>,
    /// Sessions in gobgpd, by the address or interface of the router.
    pub peers: BTreeMap<PeerLocation, ObservedSession>,
    /// Policies for the classes of routes, by mark. If a policy existed before this speaker
    /// started, only its mark is known.
    pub classes: BTreeMap<ContentHash, Option<Arc<PolicyConfig>>>,
    /// Paths in gobgpd. If they are the desired ones, both maps share memory.
    pub paths: Paths,
    /// Sessions that gobgpd rejected, or whose BFD it rejected, each with the description of the
    /// rejected configuration.
    pub(super) rejected: BTreeMap<PeerLocation, Box<str>>,
}

/// A session in gobgpd.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ObservedSession {
    /// The session's description, which identifies all its parameters except BFD.
    pub description: Box<str>,
    /// True if the session was established at the most recent read of gobgpd.
    pub established: bool,
    /// The session's BFD, if enabled.
    pub bfd: Option<api::BfdPeerConfig>,
    /// True if the session must be external, and its router has this node's AS.
    pub has_own_asn: bool,
}

/// One change of gobgpd's state.
#[derive(Clone, Debug, PartialEq)]
pub enum BgpStep {
    /// Start gobgpd's BGP server without paths and without policies for classes. Routes that no
    /// policy matches are rejected.
    Start(BgpIdentity),
    /// Remove a session.
    RemoveSession(PeerLocation),
    /// Replace the policies of all classes.
    SetPolicies(Vec<Arc<PolicyConfig>>),
    /// Add paths, or change the marks of existing ones.
    Announce(Vec<(Prefix, ContentHash)>),
    /// Remove paths.
    Withdraw(Vec<Prefix>),
    /// Add a session.
    AddSession(PeerLocation, Arc<PeerConfig>),
    /// Enable or disable the BFD of a session.
    SetBfd(PeerLocation, Arc<PeerConfig>, bool),
}

impl BgpStep {
    /// Returns whether the step changes a session.
    pub(super) const fn changes_session(&self) -> bool {
        matches!(self, Self::AddSession(..) | Self::RemoveSession(_) | Self::SetBfd(..))
    }
}

/// Returns the next step, or none if gobgpd already has the desired state.
pub(super) fn next_step(wanted: &GobgpConfig, known: &ObservedState) -> Option<BgpStep> {
    // A session with changed parameters is removed and added again, because they take effect when
    // the session is opened. If the node's AS or router ID changes, this applies to all sessions.
    let new_identity = wanted.identity.filter(|identity| known.identity != Some(*identity));
    let stays = |location: &PeerLocation, session: &ObservedSession| {
        wanted.peers.get(location).is_some_and(|config| {
            config.description() == &*session.description
                && !session.bfd_differs(config)
                && !session.has_own_asn
        })
    };
    let mut obsolete = known
        .peers
        .iter()
        .filter(|(location, session)| new_identity.is_some() || !stays(location, session));
    if let Some((location, _)) = obsolete.next() {
        return Some(BgpStep::RemoveSession(location.clone()));
    }
    if let Some(identity) = new_identity {
        return Some(BgpStep::Start(identity));
    }
    if wanted.policies.keys().any(|mark| !known.classes.contains_key(mark)) {
        // The old policies that paths still use stay until those paths have another mark.
        let in_use = |mark: &ContentHash| known.paths.values().any(|used| *used == Some(*mark));
        let old = known
            .classes
            .iter()
            .filter(|(mark, _)| !wanted.policies.contains_key(mark) && in_use(mark));
        let old = old.filter_map(|(_, policy)| policy.clone());
        return Some(BgpStep::SetPolicies(wanted.policies.values().cloned().chain(old).collect()));
    }
    if let Some(step) = path_step(&wanted.paths, &known.paths) {
        return Some(step);
    }
    if known.classes.len() != wanted.policies.len() {
        return Some(BgpStep::SetPolicies(wanted.policies.values().cloned().collect()));
    }
    let mut not_rejected = wanted.peers.iter().filter(|(location, config)| {
        let rejected = known.rejected.get(*location);
        rejected.is_none_or(|description| **description != *config.description())
    });
    let missing = not_rejected.clone().find(|(location, _)| !known.peers.contains_key(location));
    if let Some((location, config)) = missing {
        return Some(BgpStep::AddSession(location.clone(), Arc::clone(config)));
    }
    not_rejected.find_map(|(location, config)| {
        let session = known.peers.get(location)?;
        let on = session.established && config.peer.bfd.is_some();
        (session.bfd.is_some() != on)
            .then(|| BgpStep::SetBfd(location.clone(), Arc::clone(config), on))
    })
}

/// Returns the step that removes, adds or changes paths, or none if gobgpd already has the desired
/// paths.
fn path_step(wanted: &Paths, known: &Paths) -> Option<BgpStep> {
    let differences = || wanted.differences(known);
    let removed = differences().filter(|path| path.now.is_none()).map(|path| *path.key);
    let removed: Vec<_> = removed.take(PATHS_MAX).collect();
    if !removed.is_empty() {
        return Some(BgpStep::Withdraw(removed));
    }
    let changed = differences().filter_map(|path| Some((*path.key, (*path.now?)?)));
    let changed: Vec<_> = changed.take(PATHS_MAX).collect();
    (!changed.is_empty()).then_some(BgpStep::Announce(changed))
}

impl ObservedSession {
    /// Returns whether the session is established with a BFD configuration that differs from the
    /// desired one.
    fn bfd_differs(&self, config: &PeerConfig) -> bool {
        self.established && self.bfd.is_some() && self.bfd != config.peer.bfd
    }
}

impl ObservedState {
    /// Records that gobgpd has the desired paths. The recorded ones then share memory with them, so
    /// that the next change is found without a comparison of all paths.
    pub(super) fn share_paths(&mut self, wanted: &GobgpConfig) {
        if self.paths == wanted.paths {
            self.paths = wanted.paths.clone();
        }
    }

    /// Applies an executed step to the recorded state.
    pub(super) fn apply(&mut self, step: BgpStep) {
        match step {
            BgpStep::Start(identity) => {
                *self = Self { identity: Some(identity), ..Self::default() }
            }
            BgpStep::RemoveSession(location) => {
                self.peers.remove(&location);
            }
            BgpStep::SetPolicies(policies) => {
                self.classes =
                    policies.into_iter().map(|policy| (policy.hash, Some(policy))).collect();
            }
            BgpStep::Announce(paths) => {
                for (prefix, mark) in paths {
                    self.paths.insert(prefix, Some(mark));
                }
            }
            BgpStep::Withdraw(prefixes) => prefixes.iter().for_each(|prefix| {
                self.paths.remove(prefix);
            }),
            BgpStep::AddSession(location, config) => {
                self.rejected.remove(&location);
                self.peers.insert(
                    location,
                    ObservedSession {
                        description: config.description().into(),
                        ..ObservedSession::default()
                    },
                );
            }
            BgpStep::SetBfd(location, config, on) => {
                if let Some(session) = self.peers.get_mut(&location) {
                    session.bfd = config.peer.bfd.filter(|_| on);
                }
            }
        }
    }

    /// Records that gobgpd rejected a session or its BFD. No step repeats the request until the
    /// session's parameters change, or [`ObservedState::rejected`] is cleared.
    pub(super) fn reject(&mut self, location: PeerLocation, config: &PeerConfig) {
        self.rejected.insert(location, config.description().into());
    }
}

#[cfg(test)]
mod tests;
