//! The Secrets with the passwords of routers: each password, or why a Secret has none.

use super::kind::built_in;
use k8s_openapi::api::core::v1::Secret;

use super::PASSWORD_MAX;

/// Type of a Secret that holds a password (core/v1 SecretTypeBasicAuth).
const BASIC_AUTH: &str = "kubernetes.io/basic-auth";
/// Key of the password in the Secret's data.
const PASSWORD_ENTRY: &str = "password";

/// Field selector that skips Helm release Secrets: they are up to 1 MB and never hold a BGP
/// password.
const NOT_HELM_RELEASES: &str = "type!=helm.sh/release.v1";

/// Why a Secret holds no usable password. `Display` renders the rest of a sentence that begins with
/// the name of the Secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PasswordProblem {
    /// The Secret does not exist.
    #[error("does not exist: create it with type {BASIC_AUTH}")]
    NoSecret,
    /// The Secret has this type, which is not for passwords.
    #[error("is of type {0}: delete it, and create it with type {BASIC_AUTH}")]
    Type(Box<str>),
    /// The Secret has no entry with the key of a password.
    #[error("has no entry `{PASSWORD_ENTRY}`: add it")]
    NoEntry,
    /// The password is not UTF-8.
    #[error("has a password that is not UTF-8: write it as UTF-8 text")]
    NotUtf8,
    /// The password is longer than [`PASSWORD_MAX`].
    #[error("has a password that is longer than {PASSWORD_MAX} bytes: write a shorter one")]
    TooLong,
    /// The password is empty.
    #[error("has an empty password: write one into the entry `{PASSWORD_ENTRY}`")]
    Empty,
}

/// A Secret in FerroLB's namespace, reduced to its password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PasswordSecret {
    /// `metadata.name`.
    pub name: Box<str>,
    /// The password, or why there is none.
    pub password: Result<Box<str>, PasswordProblem>,
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

built_in!(PasswordSecret: Secret, "Secret", "Secrets", own, FIELDS = NOT_HELM_RELEASES);

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
