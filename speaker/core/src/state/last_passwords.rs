//! Most recent passwords of the Secrets that BGPPeers refer to. Sessions stay established with them
//! while the Secret is missing or has no password. Pure; [`super::bgp::BgpObjects`] owns them.
//!
//! A Secret that is deleted and created again, as by tools that replace or restore it, must not end
//! the sessions of all nodes. The passwords are in memory only: a speaker that starts without the
//! Secret opens no session.

use std::collections::BTreeMap;

use ferrolb_core::store::Store;
use ferrolb_proto::facts::{BgpPeer, PasswordSecret, PasswordSource, SessionParameters};

/// Most recent password of each BGPPeer with a Secret, and the session parameters with which the
/// password was used.
#[derive(Debug, Default)]
pub(crate) struct LastPasswords(BTreeMap<Box<str>, (SessionParameters, Box<str>)>);

impl LastPasswords {
    /// Updates the passwords from the BGPPeers and Secrets. While a Secret has no password, its
    /// most recent one stays until the BGPPeer is deleted or its session parameters change.
    pub(super) fn update<'a>(
        &mut self,
        peers: impl Iterator<Item = &'a BgpPeer>,
        secrets: &Store<Box<str>, PasswordSecret>,
    ) {
        let mut before = std::mem::take(&mut self.0);
        for peer in peers {
            let Ok(session) = &peer.session else { continue };
            let Some(PasswordSource::Secret(secret)) = &session.password else { continue };
            let known = secrets.get(secret).and_then(|secret| secret.password.as_deref().ok());
            let last = known.map(|password| (session.clone(), password.into())).or_else(|| {
                before.remove(&peer.name).filter(|(parameters, _)| parameters == session)
            });
            self.0.extend(last.map(|last| (peer.name.clone(), last)));
        }
    }

    /// Returns the most recent password of the BGPPeer with this name.
    pub(crate) fn of(&self, peer: &str) -> Option<&str> {
        self.0.get(peer).map(|(_, password)| &**password)
    }
}
