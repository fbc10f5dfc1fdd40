//! Repeatable pseudorandom numbers: all randomness in a run is a function of its seed, independent
//! of library versions.

use std::time::Duration;

/// Generator of pseudorandom numbers, SplitMix64 (Steele, Lea, Flood 2014): every seed is equally
/// good, and adjacent seeds are uncorrelated.
#[derive(Clone, Debug)]
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) const fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Returns a random number below `limit`, which is not 0. The bias of a remainder is far below
    /// the resolution of a simulation.
    pub(crate) const fn below(&mut self, limit: usize) -> usize {
        (self.next_u64() % limit as u64) as usize
    }

    /// Returns true with probability `share`.
    pub(crate) fn chance(&mut self, share: f64) -> bool {
        // Only 53 bits are used, because an f64 represents them exactly.
        (self.next_u64() >> 11) as f64 / (1_u64 << 53) as f64 <= share && share > 0.0
    }

    pub(crate) fn between(&mut self, shortest: Duration, longest: Duration) -> Duration {
        let span = u64::try_from((longest - shortest).as_nanos()).unwrap_or(u64::MAX);
        shortest + Duration::from_nanos(self.next_u64() % (span + 1))
    }

    /// Returns a random element of `all`, which is not empty.
    pub(crate) fn pick<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())]
    }

    /// Returns `count` different random numbers below `limit`, in ascending order.
    pub(crate) fn sample(&mut self, limit: usize, count: usize) -> Vec<usize> {
        let mut all: Vec<usize> = (0..limit).collect();
        for at in 0..count {
            let other = at + self.below(limit - at);
            all.swap(at, other);
        }
        all.truncate(count);
        all.sort_unstable();
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_reference_numbers() {
        // First outputs of the reference implementation for the seed 1234567.
        let mut rng = Rng::new(1_234_567);
        assert_eq!(
            [rng.next_u64(), rng.next_u64()],
            [6_457_827_717_110_365_317, 3_203_168_211_198_807_973]
        );
    }

    #[test]
    fn random_values_stay_within_their_limits() {
        let mut rng = Rng::new(1);
        let (low, high) = (Duration::from_millis(1), Duration::from_millis(3));
        let times: Vec<_> = (0..1000).map(|_| rng.between(low, high)).collect();
        assert!(times.iter().all(|time| (low..=high).contains(time)));
        assert!((0..1000).all(|_| !rng.chance(0.0)) && (0..1000).all(|_| rng.chance(1.0)));
        let tenth = (0..10_000).filter(|_| rng.chance(0.1)).count();
        assert!((800..1200).contains(&tenth), "{tenth}");
        let some = rng.sample(5, 3);
        assert!(some.len() == 3 && some.is_sorted_by(|a, b| a < b) && some[2] < 5, "{some:?}");
    }
}
