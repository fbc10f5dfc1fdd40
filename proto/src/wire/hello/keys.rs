//! Keys that sign hello frames, read from the Secret [`crate::api::HELLO_SECRET`]. Each interface
//! thread of the speaker owns a key ring.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac as _};
use k8s_openapi::api::core::v1::Secret;
use sha2::{Digest, Sha256};

/// Length of a key, in bytes.
pub const KEY_LENGTH: usize = 32;
/// Maximum number of keys in a ring: the one in use, and the one that is rotated in or out.
const KEYS_MAX: usize = 2;
/// Length of a truncated signature, in bytes (RFC 2104 section 5: at least half of the hash).
pub(super) const SIGNATURE_LENGTH: usize = 16;

/// A hello key, which all speakers of the cluster share.
#[derive(Clone, PartialEq, Eq)]
pub struct HelloKey {
    id: u32,
    secret: [u8; KEY_LENGTH],
}

impl HelloKey {
    /// Makes a key from its secret. Frames carry the ID of the key in the clear. The ID is the
    /// first four bytes of a hash of the secret.
    #[must_use]
    pub fn new(secret: [u8; KEY_LENGTH]) -> Self {
        let hash =
            Sha256::new().chain_update(b"ferrolb hello key id").chain_update(secret).finalize();
        Self { id: u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]]), secret }
    }

    /// Returns the ID by which frames identify the key.
    #[must_use]
    pub const fn id(&self) -> u32 {
        self.id
    }

    fn mac(&self, data: &[u8]) -> Hmac<Sha256> {
        Hmac::<Sha256>::new_from_slice(&self.secret)
            .expect("HMAC takes keys of any length")
            .chain_update(data)
    }

    /// Returns the truncated HMAC-SHA256 of `data` (RFC 2104), which follows `data` in a frame.
    #[must_use]
    pub fn signature(&self, data: &[u8]) -> [u8; SIGNATURE_LENGTH] {
        let mut signature = [0; SIGNATURE_LENGTH];
        signature.copy_from_slice(&self.mac(data).finalize().into_bytes()[..SIGNATURE_LENGTH]);
        signature
    }

    /// Returns whether the signature of `data` is valid. The comparison takes constant time.
    pub(super) fn verifies(&self, data: &[u8], signature: &[u8]) -> bool {
        self.mac(data).verify_truncated_left(signature).is_ok()
    }
}

impl fmt::Debug for HelloKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({:08x})", self.id)
    }
}

/// Keys that a speaker accepts, newest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HelloKeyRing {
    keys: Vec<HelloKey>,
}

impl From<Secret> for HelloKeyRing {
    fn from(secret: Secret) -> Self {
        let data = secret.data.unwrap_or_default();
        Self::from_secret(data.iter().map(|(name, value)| (name.as_str(), value.0.as_slice())))
    }
}

impl HelloKeyRing {
    /// Makes a ring of the two newest of `keys`, which are ordered newest first.
    #[must_use]
    pub fn new(mut keys: Vec<HelloKey>) -> Self {
        keys.truncate(KEYS_MAX);
        Self { keys }
    }

    /// Reads the keys of the Secret's `data`. The name of each entry is a number; the highest is
    /// the newest. Entries with another name, or with another length than [`KEY_LENGTH`], are
    /// skipped.
    #[must_use]
    pub fn from_secret<'a>(entries: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> Self {
        let read = |(name, value): (&str, &[u8])| {
            Some((name.parse::<u32>().ok()?, HelloKey::new(value.try_into().ok()?)))
        };
        let mut keys: Vec<_> = entries.into_iter().filter_map(read).collect();
        keys.sort_by_key(|(number, _)| std::cmp::Reverse(*number));
        Self::new(keys.into_iter().map(|(_, key)| key).collect())
    }

    /// Returns whether the ring has no key.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Returns the IDs of all keys, newest first.
    #[must_use]
    pub fn ids(&self) -> Vec<u32> {
        self.keys.iter().map(HelloKey::id).collect()
    }

    /// Returns the key with this ID, if the ring has it.
    #[must_use]
    pub fn find(&self, id: u32) -> Option<&HelloKey> {
        self.keys.iter().find(|key| key.id == id)
    }
}
