//! Delays that double, and rates with a burst: plain values that state machines and drivers own.

use std::time::Duration;

use ferrolb_proto::Instant;

/// A delay that doubles with each repetition, up to a maximum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Doubling {
    min: Duration,
    max: Duration,
}

impl Doubling {
    /// Returns delays from `min` to `max`.
    #[must_use]
    pub const fn new(min: Duration, max: Duration) -> Self {
        Self { min, max }
    }

    /// Returns the delay after this number of repetitions; the first delay is `min`.
    #[must_use]
    pub fn delay(self, repetitions: u32) -> Duration {
        self.min.saturating_mul(2_u32.saturating_pow(repetitions)).min(self.max)
    }

    /// Returns the delay that follows `before`; `None` is no delay yet.
    #[must_use]
    pub fn next(self, before: Option<Duration>) -> Duration {
        before.map_or(self.min, |before| before.saturating_mul(2).min(self.max))
    }
}

/// A token bucket: actions may happen at a rate, and after a pause a number of them at once.
#[derive(Clone, Copy, Debug)]
pub struct TokenBucket {
    interval: Duration,
    burst: u32,
    /// Time at which all tokens are available.
    full_at: Instant,
}

impl TokenBucket {
    /// Returns a full bucket with `burst` tokens, at least one, which gets a token per `interval`.
    #[must_use]
    pub const fn full(interval: Duration, burst: u32) -> Self {
        Self { interval, burst, full_at: Instant::ZERO }
    }

    /// Returns the number of tokens that are available.
    #[must_use]
    pub fn tokens(&self, now: Instant) -> u32 {
        let missing = self.full_at.since(now).as_nanos().div_ceil(self.interval.as_nanos());
        self.burst.saturating_sub(u32::try_from(missing).unwrap_or(u32::MAX))
    }

    /// Returns the earliest time at which a token is available.
    #[must_use]
    pub fn ready_at(&self) -> Instant {
        let others = self.interval.saturating_mul(self.burst.saturating_sub(1));
        Instant::ZERO + self.full_at.since(Instant::ZERO + others)
    }

    /// Returns the time at which all tokens are available.
    #[must_use]
    pub const fn full_at(&self) -> Instant {
        self.full_at
    }

    /// Takes a token. Without an available one, takes the next.
    pub fn take(&mut self, now: Instant) {
        self.full_at = self.full_at.max(now) + self.interval;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn at(millis: u64) -> Instant {
        Instant::from_millis(millis)
    }

    #[test]
    fn a_delay_doubles_up_to_its_maximum() {
        let doubling = Doubling::new(SECOND, SECOND * 30);
        let delays = [0, 1, 4, 5, 31, 32, u32::MAX].map(|it| doubling.delay(it).as_secs());
        assert_eq!(delays, [1, 2, 16, 30, 30, 30, 30]);
        let (mut before, mut seconds) = (None, Vec::new());
        for _ in 0..7 {
            before = Some(doubling.next(before));
            seconds.extend(before.map(|it| it.as_secs()));
        }
        assert_eq!(seconds, [1, 2, 4, 8, 16, 30, 30]);
    }

    /// Compares a bucket with a counter of tokens, for many sequences of waits and actions.
    #[test]
    fn a_bucket_never_exceeds_its_rate_and_burst() {
        let mut random = crate::random::Random::new(7);
        for burst in [1, 3, 25] {
            let (mut bucket, mut now) = (TokenBucket::full(SECOND, burst), at(0));
            // Tokens and the time since which the next one accrues.
            let (mut tokens, mut since) = (burst, now);
            for _ in 0..10_000 {
                now = now + Duration::from_millis(random.below(3_000));
                while tokens < burst && now.since(since) >= SECOND {
                    (tokens, since) = (tokens + 1, since + SECOND);
                }
                if tokens == burst {
                    since = now;
                }
                assert_eq!(bucket.tokens(now), tokens);
                assert_eq!(bucket.ready_at() <= now, tokens > 0);
                assert_eq!(bucket.full_at() <= now, tokens == burst);
                if tokens > 0 {
                    bucket.take(now);
                    tokens -= 1;
                }
            }
        }
    }
}
