//! What is known of BGP's objects. Pure; read only where this node has a gobgpd.

use std::collections::BTreeMap;

use ferrolb_proto::facts::{BfdProfile, BgpAdvertisement, BgpPeer, Community, Key, PASSWORD_MAX};
use ferrolb_runtime::watch::Change;
use k8s_openapi::api::core::v1::Secret;

use super::last_passwords::LastPasswords;
use super::table::{Kept, Named, Table};

/// What a Secret with a password is of (core/v1 SecretTypeBasicAuth).
const BASIC_AUTH: &str = "kubernetes.io/basic-auth";
/// Its entry that is the password.
const PASSWORD: &str = "password";

/// The objects, by kind.
#[derive(Debug, Default)]
pub(crate) struct BgpObjects {
    pub(crate) peers: Table<BgpPeer>,
    pub(crate) advertisements: Table<BgpAdvertisement>,
    pub(crate) communities: Table<Community>,
    pub(crate) profiles: Table<BfdProfile>,
    pub(crate) passwords: Table<Password>,
    last_passwords: LastPasswords,
}

impl BgpObjects {
    /// Takes a change of a BGPPeer and says whether it made a difference.
    pub(super) fn set_peer(&mut self, change: Change<BgpPeer>) -> bool {
        let changed = self.peers.handle(change, Some);
        self.keep_passwords(changed)
    }

    /// Takes a change of a Secret and says whether it made a difference.
    pub(super) fn set_password(&mut self, change: Change<Password>) -> bool {
        let changed = self.passwords.handle(change, Some);
        self.keep_passwords(changed)
    }

    fn keep_passwords(&mut self, changed: bool) -> bool {
        if changed {
            self.last_passwords.update(self.peers.values(), &passwords(&self.passwords));
        }
        changed
    }

    /// What is still waited for before anything can be said to gobgpd, if anything.
    pub(crate) fn waits_for(&self) -> Option<&'static str> {
        let listed = [
            ("BGPPeers", self.peers.is_listed()),
            ("BGPAdvertisements", self.advertisements.is_listed()),
            ("Communities", self.communities.is_listed()),
            ("BFDProfiles", self.profiles.is_listed()),
            ("Secrets", self.passwords.is_listed()),
        ];
        listed.into_iter().find(|(_, listed)| !listed).map(|(what, _)| what)
    }

    /// For each Secret, its password or why it has none.
    pub(crate) fn passwords(&self) -> BTreeMap<&str, Result<&str, &str>> {
        passwords(&self.passwords)
    }

    /// For each BGPPeer with a Secret, the last password that the Secret had.
    pub(crate) fn last_passwords(&self) -> BTreeMap<&str, &str> {
        self.last_passwords.by_peer()
    }
}

fn passwords(secrets: &Table<Password>) -> BTreeMap<&str, Result<&str, &str>> {
    secrets.values().map(|Password { name, password }| (&**name, password.as_deref().map_err(|why| &**why))).collect()
}

/// A Secret of our namespace, as far as it may be a router's password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Password {
    name: Box<str>,
    /// The password, or why there is none, for a person.
    password: Result<Box<str>, Box<str>>,
}

impl From<Secret> for Password {
    fn from(secret: Secret) -> Self {
        let kind = secret.type_.unwrap_or_default();
        let bytes = secret.data.unwrap_or_default().remove(PASSWORD).map(|bytes| bytes.0);
        let password = match bytes.map(String::from_utf8) {
            _ if kind != BASIC_AUTH => Err(format!("it is of type {kind}: make one of type {BASIC_AUTH}")),
            None => Err(format!("it has no entry {PASSWORD:?}")),
            Some(Err(_)) => Err("its password is no text".to_owned()),
            Some(Ok(password)) if password.len() > PASSWORD_MAX => {
                Err(format!("its password is longer than {PASSWORD_MAX} bytes"))
            }
            Some(Ok(password)) if password.is_empty() => Err("its password is empty".to_owned()),
            Some(Ok(password)) => Ok(password.into()),
        };
        Self { name: secret.metadata.name.unwrap_or_default().into(), password: password.map_err(Into::into) }
    }
}

impl Named for Password {
    fn key(&self) -> Key {
        Key::new("", &self.name)
    }
}

impl Kept for Password {
    fn same(&self, other: &Self) -> bool {
        self == other
    }
}

impl Named for BgpPeer {
    fn key(&self) -> Key {
        Key::new("", &self.name)
    }
}

/// `metadata.generation` counts the changes of the spec: a status that is written makes no difference here.
impl Kept for BgpPeer {
    fn same(&self, other: &Self) -> bool {
        (self.generation, self.created) == (other.generation, other.created)
    }
}

impl Named for BgpAdvertisement {
    fn key(&self) -> Key {
        Key::new("", &self.name)
    }
}

impl Kept for BgpAdvertisement {
    fn same(&self, other: &Self) -> bool {
        (self.generation, self.created) == (other.generation, other.created)
    }
}

impl Named for Community {
    fn key(&self) -> Key {
        Key::new("", &self.name)
    }
}

impl Kept for Community {
    fn same(&self, other: &Self) -> bool {
        self.aliases == other.aliases && self.problem == other.problem
    }
}

impl Named for BfdProfile {
    fn key(&self) -> Key {
        Key::new("", &self.name)
    }
}

impl Kept for BfdProfile {
    fn same(&self, other: &Self) -> bool {
        self.timers == other.timers
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::ByteString;

    use super::*;

    fn read(kind: &str, entry: &str, value: &[u8]) -> Result<Box<str>, Box<str>> {
        let data = [(entry.to_owned(), ByteString(value.to_vec()))].into();
        Password::from(Secret { type_: Some(kind.to_owned()), data: Some(data), ..Secret::default() }).password
    }

    #[test]
    fn a_secret_of_basic_auth_with_a_password_has_one_and_any_other_says_why_not() {
        assert_eq!(read(BASIC_AUTH, PASSWORD, b"hush").as_deref(), Ok("hush"));
        for (kind, entry, value, why) in [
            ("Opaque", PASSWORD, &b"hush"[..], "it is of type Opaque"),
            (BASIC_AUTH, "username", b"hush", "no entry \"password\""),
            (BASIC_AUTH, PASSWORD, b"\xff", "is no text"),
            (BASIC_AUTH, PASSWORD, b"", "is empty"),
            (BASIC_AUTH, PASSWORD, &[b'x'; 81], "longer than 80 bytes"),
        ] {
            let problem = read(kind, entry, value).expect_err("no password");
            assert!(problem.contains(why), "{problem}");
        }
        assert!(read(BASIC_AUTH, PASSWORD, &[b'x'; 80]).is_ok());
    }
}
