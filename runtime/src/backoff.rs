//! The delay before the next attempt after a failed request to the API server. The delay doubles
//! with each failure. Random jitter prevents a hundred nodes from retrying at the same moment. Pure
//! except for the jitter.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use ferrolb_proto::Instant;

/// The delay after the first failure, before jitter.
pub const RETRY_DELAY_MIN: Duration = Duration::from_millis(200);
/// The longest delay, before jitter.
pub const RETRY_DELAY_MAX: Duration = Duration::from_secs(10);
/// The longest delay with jitter, which adds at most the delay itself.
pub const RETRY_DELAY_LONGEST: Duration = Duration::from_secs(20);
/// The time without a failure after which the next failure counts as the first one.
pub const RETRY_FORGET_AFTER: Duration = Duration::from_secs(60);

/// The delays of one operation that is retried forever.
#[derive(Debug)]
pub struct Backoff {
    delays: ExponentialBackoff,
    failed_at: Option<Instant>,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { delays: delays(), failed_at: None }
    }
}

impl Backoff {
    /// Returns the time to wait between a failure at `now` and the next attempt.
    #[must_use]
    pub fn next_delay(&mut self, now: Instant) -> Duration {
        if self.failed_at.is_some_and(|failed_at| now.since(failed_at) >= RETRY_FORGET_AFTER) {
            self.delays = delays();
        }
        self.failed_at = Some(now);
        self.delays.next().unwrap_or(RETRY_DELAY_MAX)
    }
}

fn delays() -> ExponentialBackoff {
    ExponentialBuilder::new()
        .with_min_delay(RETRY_DELAY_MIN)
        .with_max_delay(RETRY_DELAY_MAX)
        .with_factor(2.0)
        .with_jitter()
        .without_max_times()
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_the_limit_and_reset_after_a_minute() {
        let mut backoff = Backoff::default();
        let mut now = Instant::ZERO;
        let mut delay_min = RETRY_DELAY_MIN;
        for _ in 0..20 {
            let delay = backoff.next_delay(now);
            assert!(
                delay >= delay_min && delay <= RETRY_DELAY_LONGEST,
                "the delay {delay:?} is at least {delay_min:?} and within the limit"
            );
            delay_min = (delay_min * 2).min(RETRY_DELAY_MAX);
            now = now + delay;
        }
        assert_eq!(delay_min, RETRY_DELAY_MAX);
        assert!(backoff.next_delay(now + RETRY_FORGET_AFTER) <= RETRY_DELAY_MIN * 2);
    }
}
