//! State of the custom resources and Secrets that configure BGP. Pure; the speaker watches them
//! only on nodes that have a gobgpd.

use std::collections::BTreeMap;
use std::time::Duration;

use ferrolb_core::store::Change;
use ferrolb_core::store::Store;
use ferrolb_proto::Instant;
use ferrolb_proto::facts::{BfdProfile, BgpAdvertisement, BgpPeer, Community, Keyed, PASSWORD_MAX};
use k8s_openapi::api::core::v1::Secret;

use super::apply;
use super::held_objects::HeldObjects;
use super::last_passwords::LastPasswords;
use crate::event::{BASIC_AUTH, PASSWORD_ENTRY, PasswordProblem};

/// Custom resources and Secrets that configure BGP.
#[derive(Debug, Default)]
pub(crate) struct BgpObjects {
    pub(crate) peers: HeldObjects<BgpPeer>,
    pub(crate) advertisements: HeldObjects<BgpAdvertisement>,
    pub(crate) communities: HeldObjects<Community>,
    pub(crate) profiles: HeldObjects<BfdProfile>,
    pub(crate) passwords: Store<Box<str>, PasswordSecret>,
    last_passwords: LastPasswords,
}

impl BgpObjects {
    /// Applies a change of a BGPPeer. Returns whether anything changed.
    pub(super) fn set_peer(&mut self, change: Change<BgpPeer>, now: Instant) -> bool {
        let changed = self.peers.handle(change, now);
        self.update_last_passwords(changed)
    }

    /// Forgets the deleted objects that are not held any more. Returns whether there were any.
    pub(super) fn expire(&mut self, now: Instant, grace: Duration) -> bool {
        let peers = self.peers.expire(now, grace);
        let others = [
            self.advertisements.expire(now, grace),
            self.communities.expire(now, grace),
            self.profiles.expire(now, grace),
        ];
        self.update_last_passwords(peers) || others.contains(&true)
    }

    /// Returns the time at which [`Self::expire`] is due next.
    pub(super) fn deadline(&self, grace: Duration) -> Option<Instant> {
        let all = [
            self.peers.deadline(grace),
            self.advertisements.deadline(grace),
            self.communities.deadline(grace),
            self.profiles.deadline(grace),
        ];
        all.into_iter().flatten().min()
    }

    /// Applies a change of a Secret. Returns whether anything changed.
    pub(super) fn set_password(&mut self, change: Change<PasswordSecret>) -> bool {
        let changed = apply(&mut self.passwords, change, Some);
        self.update_last_passwords(changed)
    }

    fn update_last_passwords(&mut self, changed: bool) -> bool {
        if changed {
            self.last_passwords.update(self.peers.values(), &passwords(&self.passwords));
        }
        changed
    }

    /// Returns the first resource whose list has not arrived yet, if any. gobgpd is not configured
    /// before all lists have arrived.
    pub(crate) fn missing_input(&self) -> Option<&'static str> {
        let listed = [
            ("BGPPeers", self.peers.was_ever_complete()),
            ("BGPAdvertisements", self.advertisements.was_ever_complete()),
            ("Communities", self.communities.was_ever_complete()),
            ("BFDProfiles", self.profiles.was_ever_complete()),
            ("Secrets", self.passwords.was_ever_complete()),
        ];
        listed.into_iter().find(|(_, listed)| !listed).map(|(what, _)| what)
    }

    /// Returns, for each Secret by its name, the password or why it has none.
    pub(crate) fn passwords(&self) -> BTreeMap<&str, Result<&str, &PasswordProblem>> {
        passwords(&self.passwords)
    }

    /// Returns, for each BGPPeer with a Secret, the most recent password that the Secret had.
    pub(crate) fn last_passwords(&self) -> BTreeMap<&str, &str> {
        self.last_passwords.by_peer()
    }
}

fn passwords(
    secrets: &Store<Box<str>, PasswordSecret>,
) -> BTreeMap<&str, Result<&str, &PasswordProblem>> {
    secrets
        .values()
        .map(|PasswordSecret { name, password }| (&**name, password.as_deref()))
        .collect()
}

/// A Secret in FerroLB's namespace, reduced to its password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PasswordSecret {
    name: Box<str>,
    /// The password, or why there is none.
    password: Result<Box<str>, PasswordProblem>,
}

impl From<Secret> for PasswordSecret {
    fn from(secret: Secret) -> Self {
        let kind = secret.type_.unwrap_or_default();
        let bytes = secret.data.unwrap_or_default().remove(PASSWORD_ENTRY).map(|bytes| bytes.0);
        let password = match bytes.map(String::from_utf8) {
            _ if kind != BASIC_AUTH => Err(PasswordProblem::Type(kind.into())),
            None => Err(PasswordProblem::NoEntry),
            Some(Err(_)) => Err(PasswordProblem::NotUtf8),
            Some(Ok(password)) if password.len() > PASSWORD_MAX => Err(PasswordProblem::TooLong),
            Some(Ok(password)) if password.is_empty() => Err(PasswordProblem::Empty),
            Some(Ok(password)) => Ok(password.into()),
        };
        Self { name: secret.metadata.name.unwrap_or_default().into(), password }
    }
}

impl Keyed for PasswordSecret {
    type Key = Box<str>;

    fn key(&self) -> Box<str> {
        self.name.clone()
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::ByteString;

    use super::*;

    fn read(kind: &str, entry: &str, value: &[u8]) -> Result<Box<str>, PasswordProblem> {
        let data = [(entry.to_owned(), ByteString(value.to_vec()))].into();
        PasswordSecret::from(Secret {
            type_: Some(kind.to_owned()),
            data: Some(data),
            ..Secret::default()
        })
        .password
    }

    #[test]
    fn only_a_basic_auth_secret_with_a_valid_password_has_one() {
        assert_eq!(read(BASIC_AUTH, PASSWORD_ENTRY, b"hush").as_deref(), Ok("hush"));
        for (kind, entry, value, problem) in [
            ("Opaque", PASSWORD_ENTRY, &b"hush"[..], PasswordProblem::Type("Opaque".into())),
            (BASIC_AUTH, "username", b"hush", PasswordProblem::NoEntry),
            (BASIC_AUTH, PASSWORD_ENTRY, b"\xff", PasswordProblem::NotUtf8),
            (BASIC_AUTH, PASSWORD_ENTRY, b"", PasswordProblem::Empty),
            (BASIC_AUTH, PASSWORD_ENTRY, &[b'x'; 81], PasswordProblem::TooLong),
        ] {
            assert_eq!(read(kind, entry, value), Err(problem));
        }
        assert!(read(BASIC_AUTH, PASSWORD_ENTRY, &[b'x'; 80]).is_ok());
    }
}
