//! State of the custom resources and Secrets that configure BGP. Pure; the speaker watches them
//! only on nodes that have a gobgpd.

use std::collections::BTreeMap;

use ferrolb_proto::facts::{BfdProfile, BgpAdvertisement, BgpPeer, Community, Keyed, PASSWORD_MAX};
use ferrolb_runtime::store::Store;
use ferrolb_runtime::watch::Change;
use k8s_openapi::api::core::v1::Secret;

use super::apply;
use super::last_passwords::LastPasswords;

/// Type of a Secret that holds a password (core/v1 SecretTypeBasicAuth).
pub(crate) const BASIC_AUTH: &str = "kubernetes.io/basic-auth";
/// Key of the password in the Secret's data.
const PASSWORD: &str = "password";

/// Custom resources and Secrets that configure BGP.
#[derive(Debug, Default)]
pub(crate) struct BgpObjects {
    pub(crate) peers: Store<Box<str>, BgpPeer>,
    pub(crate) advertisements: Store<Box<str>, BgpAdvertisement>,
    pub(crate) communities: Store<Box<str>, Community>,
    pub(crate) profiles: Store<Box<str>, BfdProfile>,
    pub(crate) passwords: Store<Box<str>, PasswordSecret>,
    last_passwords: LastPasswords,
}

impl BgpObjects {
    /// Applies a change of a BGPPeer. Returns whether anything changed.
    pub(super) fn set_peer(&mut self, change: Change<BgpPeer>) -> bool {
        let changed = apply(&mut self.peers, change, Some);
        self.update_last_passwords(changed)
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
    pub(crate) fn passwords(&self) -> BTreeMap<&str, Result<&str, &str>> {
        passwords(&self.passwords)
    }

    /// Returns, for each BGPPeer with a Secret, the most recent password that the Secret had.
    pub(crate) fn last_passwords(&self) -> BTreeMap<&str, &str> {
        self.last_passwords.by_peer()
    }
}

fn passwords(secrets: &Store<Box<str>, PasswordSecret>) -> BTreeMap<&str, Result<&str, &str>> {
    secrets
        .values()
        .map(|PasswordSecret { name, password }| {
            (&**name, password.as_deref().map_err(|why| &**why))
        })
        .collect()
}

/// A Secret in FerroLB's namespace, reduced to its password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PasswordSecret {
    name: Box<str>,
    /// The password, or why there is none, as a message.
    password: Result<Box<str>, Box<str>>,
}

impl From<Secret> for PasswordSecret {
    fn from(secret: Secret) -> Self {
        let kind = secret.type_.unwrap_or_default();
        let bytes = secret.data.unwrap_or_default().remove(PASSWORD).map(|bytes| bytes.0);
        let password = match bytes.map(String::from_utf8) {
            _ if kind != BASIC_AUTH => {
                Err(format!("its type is {kind}: create one of type {BASIC_AUTH}"))
            }
            None => Err(format!("it has no entry {PASSWORD:?}")),
            Some(Err(_)) => Err("its password is not UTF-8".to_owned()),
            Some(Ok(password)) if password.len() > PASSWORD_MAX => {
                Err(format!("its password is longer than {PASSWORD_MAX} bytes"))
            }
            Some(Ok(password)) if password.is_empty() => Err("its password is empty".to_owned()),
            Some(Ok(password)) => Ok(password.into()),
        };
        Self {
            name: secret.metadata.name.unwrap_or_default().into(),
            password: password.map_err(Into::into),
        }
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

    fn read(kind: &str, entry: &str, value: &[u8]) -> Result<Box<str>, Box<str>> {
        let data = [(entry.to_owned(), ByteString(value.to_vec()))].into();
        PasswordSecret::from(Secret {
            type_: Some(kind.to_owned()),
            data: Some(data),
            ..Secret::default()
        })
        .password
    }

    #[test]
    fn a_secret_of_basic_auth_with_a_password_has_one_and_any_other_says_why_not() {
        assert_eq!(read(BASIC_AUTH, PASSWORD, b"hush").as_deref(), Ok("hush"));
        for (kind, entry, value, why) in [
            ("Opaque", PASSWORD, &b"hush"[..], "its type is Opaque"),
            (BASIC_AUTH, "username", b"hush", "no entry \"password\""),
            (BASIC_AUTH, PASSWORD, b"\xff", "is not UTF-8"),
            (BASIC_AUTH, PASSWORD, b"", "is empty"),
            (BASIC_AUTH, PASSWORD, &[b'x'; 81], "longer than 80 bytes"),
        ] {
            let problem = read(kind, entry, value).expect_err("no password");
            assert!(problem.contains(why), "{problem}");
        }
        assert!(read(BASIC_AUTH, PASSWORD, &[b'x'; 80]).is_ok());
    }
}
