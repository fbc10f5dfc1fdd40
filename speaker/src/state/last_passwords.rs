//! The passwords by which sessions stay open while their Secret has none. Pure;
//! [`super::bgp::BgpObjects`] owns them.
//!
//! A Secret that is deleted and created again, as tools that replace or restore it do, must not end
//! the sessions of all nodes. The passwords are kept in memory alone: a speaker that starts without
//! the Secret opens no session.

use std::collections::BTreeMap;

use ferrolb_proto::facts::{BgpPeer, Password, Session};

/// For each BGPPeer with a Secret the last password that it had, and the terms that it was used
/// with.
#[derive(Debug, Default)]
pub(super) struct LastPasswords(BTreeMap<Box<str>, (Session, Box<str>)>);

impl LastPasswords {
    /// Follows the BGPPeers and the Secrets: other terms, or a BGPPeer that is gone, end what is
    /// kept.
    pub(super) fn update<'a>(
        &mut self,
        peers: impl Iterator<Item = &'a BgpPeer>,
        passwords: &BTreeMap<&str, Result<&str, &str>>,
    ) {
        let mut before = std::mem::take(&mut self.0);
        for peer in peers {
            let Ok(session) = &peer.session else { continue };
            let Some(Password::Secret(secret)) = &session.password else { continue };
            let last = match passwords.get(&**secret) {
                Some(Ok(password)) => Some((session.clone(), (*password).into())),
                Some(Err(_)) | None => before.remove(&peer.name).filter(|(terms, _)| terms == session),
            };
            self.0.extend(last.map(|last| (peer.name.clone(), last)));
        }
    }

    /// The passwords, by the names of their BGPPeers.
    pub(super) fn by_peer(&self) -> BTreeMap<&str, &str> {
        self.0.iter().map(|(peer, (_, password))| (&**peer, &**password)).collect()
    }
}
