//! Pseudorandom numbers. Owned by each state machine that needs some.

/// Generator of pseudorandom numbers (xorshift64). Delays from these numbers differ between nodes,
/// and are the same again when a run is replayed.
#[derive(Debug)]
pub struct Random(u64);

impl Random {
    /// Returns a generator whose numbers depend on `seed` alone.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        // The value must not be zero, because xorshift would never leave zero.
        Self(seed | 1)
    }

    /// Returns a number less than `below`.
    pub const fn below(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % below
    }

    /// Returns a nonce for a challenge.
    pub const fn nonce(&mut self) -> u64 {
        self.below(u64::MAX)
    }
}
