//! Chance that repeats: all that is random in a run is a function of its seed, today and with any later version of a library.

use std::time::Duration;

/// SplitMix64 (Steele, Lea, Flood 2014): any seed is as good as another, and neighbours share nothing.
#[derive(Clone, Debug)]
pub(crate) struct Chance(u64);

impl Chance {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) const fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `limit`, which is not 0. The bias of a remainder is far below what a simulation can see.
    pub(crate) const fn below(&mut self, limit: usize) -> usize {
        (self.number() % limit as u64) as usize
    }

    /// True once in `1 / share` times.
    pub(crate) fn happens(&mut self, share: f64) -> bool {
        // 53 bits are what a f64 holds exactly.
        (self.number() >> 11) as f64 / (1_u64 << 53) as f64 <= share && share > 0.0
    }

    pub(crate) fn between(&mut self, shortest: Duration, longest: Duration) -> Duration {
        let span = u64::try_from((longest - shortest).as_nanos()).unwrap_or(u64::MAX);
        shortest + Duration::from_nanos(self.number() % (span + 1))
    }

    /// One of `all`, which is not empty.
    pub(crate) fn pick<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())]
    }

    /// `count` of the numbers below `limit`, ascending.
    pub(crate) fn some_of(&mut self, limit: usize, count: usize) -> Vec<usize> {
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
    fn a_seed_gives_the_same_numbers_for_ever() {
        // The first outputs of the reference implementation for the seed 1234567.
        let mut chance = Chance::new(1_234_567);
        assert_eq!([chance.number(), chance.number()], [6_457_827_717_110_365_317, 3_203_168_211_198_807_973]);
    }

    #[test]
    fn limits_are_kept() {
        let mut chance = Chance::new(1);
        let (low, high) = (Duration::from_millis(1), Duration::from_millis(3));
        let times: Vec<_> = (0..1000).map(|_| chance.between(low, high)).collect();
        assert!(times.iter().all(|time| (low..=high).contains(time)));
        assert!((0..1000).all(|_| !chance.happens(0.0)) && (0..1000).all(|_| chance.happens(1.0)));
        let tenth = (0..10_000).filter(|_| chance.happens(0.1)).count();
        assert!((800..1200).contains(&tenth), "{tenth}");
        let some = chance.some_of(5, 3);
        assert!(some.len() == 3 && some.is_sorted_by(|a, b| a < b) && some[2] < 5, "{some:?}");
    }
}
