//! The keys that sign hello frames. The speaker's link threads own a ring each; the keys come from the Secret
//! [`crate::api::HELLO_SECRET`].

use std::fmt;

use hmac::{Hmac, KeyInit, Mac as _};
use sha2::{Digest, Sha256};

/// Length of a key, in bytes.
pub const KEY_LENGTH: usize = 32;
/// How many keys a ring accepts: the one in use, and the one that is being rotated in or out.
const KEYS_MAX: usize = 2;
/// Length of a truncated signature, in bytes (RFC 2104 section 5: at least half of the hash).
pub(super) const SIGNATURE: usize = 16;

/// One shared key.
#[derive(Clone, PartialEq, Eq)]
pub struct Key {
    id: u32,
    secret: [u8; KEY_LENGTH],
}

impl Key {
    /// A key from its secret. Its id, which travels in the clear, is the head of a hash of the secret.
    #[must_use]
    pub fn new(secret: [u8; KEY_LENGTH]) -> Self {
        let hash = Sha256::new().chain_update(b"ferrolb hello key id").chain_update(secret).finalize();
        Self { id: u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]]), secret }
    }

    /// What names the key on the wire.
    #[must_use]
    pub const fn id(&self) -> u32 {
        self.id
    }

    fn mac(&self, data: &[u8]) -> Hmac<Sha256> {
        Hmac::<Sha256>::new_from_slice(&self.secret).expect("HMAC takes keys of any length").chain_update(data)
    }

    /// The truncated HMAC-SHA256 of `data`, which a frame ends with (RFC 2104).
    #[must_use]
    pub fn signature(&self, data: &[u8]) -> [u8; SIGNATURE] {
        let mut signature = [0; SIGNATURE];
        signature.copy_from_slice(&self.mac(data).finalize().into_bytes()[..SIGNATURE]);
        signature
    }

    /// Compares in constant time.
    pub(super) fn verifies(&self, data: &[u8], signature: &[u8]) -> bool {
        self.mac(data).verify_truncated_left(signature).is_ok()
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({:08x})", self.id)
    }
}

/// The keys that a speaker accepts, newest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyRing {
    keys: Vec<Key>,
}

impl KeyRing {
    /// A ring of the two newest of `keys`, which are ordered newest first.
    #[must_use]
    pub fn new(mut keys: Vec<Key>) -> Self {
        keys.truncate(KEYS_MAX);
        Self { keys }
    }

    /// The keys of the Secret's `data`: each entry's name is a number, the highest is the newest. What is no number or has
    /// another length than [`KEY_LENGTH`] is left out.
    #[must_use]
    pub fn from_secret<'a>(entries: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> Self {
        let read = |(name, value): (&str, &[u8])| Some((name.parse::<u32>().ok()?, Key::new(value.try_into().ok()?)));
        let mut keys: Vec<_> = entries.into_iter().filter_map(read).collect();
        keys.sort_by_key(|(number, _)| std::cmp::Reverse(*number));
        Self::new(keys.into_iter().map(|(_, key)| key).collect())
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The ids of all keys that verify, newest first.
    #[must_use]
    pub fn ids(&self) -> Vec<u32> {
        self.keys.iter().map(Key::id).collect()
    }

    /// The key of this id, if the ring has it.
    #[must_use]
    pub fn find(&self, id: u32) -> Option<&Key> {
        self.keys.iter().find(|key| key.id == id)
    }
}
