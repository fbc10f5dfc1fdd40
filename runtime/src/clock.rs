//! The only code in both programs that reads the monotonic clock. Any thread may call it. A static
//! variable stores the time of the first reading.

use std::sync::OnceLock;
use std::time;

use ferrolb_proto::Instant;

/// The process's monotonic clock: CLOCK_MONOTONIC, counted from the first reading in the process.
#[derive(Debug, Clone, Copy)]
pub struct Clock;

impl Clock {
    /// Returns the current time, which is the same for all threads.
    #[must_use]
    pub fn now() -> Instant {
        static START: OnceLock<time::Instant> = OnceLock::new();
        #[expect(
            clippy::disallowed_methods,
            reason = "the only reader of the monotonic clock, to which the ban refers"
        )]
        let now = time::Instant::now();
        let since_start = now.saturating_duration_since(*START.get_or_init(|| now));
        Instant::ZERO + since_start
    }

    /// Completes at `deadline`, rounded up to whole milliseconds, or never if `deadline` is `None`.
    /// Meant for a loop that also waits for other inputs; canceling the future is safe.
    pub async fn sleep_until(deadline: Option<Instant>) {
        match deadline {
            Some(deadline) => tokio::time::sleep(deadline.since(Self::now())).await,
            None => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn a_sleep_ends_at_its_deadline() {
        let deadline = Clock::now() + Duration::from_millis(5);
        Clock::sleep_until(Some(deadline)).await;
        assert!(Clock::now() >= deadline);
    }
}
