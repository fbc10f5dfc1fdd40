//! Clock and waits of the lab; no other module reads the time. The lab drives real programs, and
//! polls those that send no notifications.

use anyhow::{Result, bail};
use std::time::{Duration, Instant};

/// Interval of polls.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Returns the monotonic time.
#[expect(clippy::disallowed_methods, reason = "the lab measures real programs in real time")]
pub fn now() -> Instant {
    Instant::now()
}

/// Calls `check` repeatedly until it returns a result. After `limit`, fails with `goal` and the
/// last error of `check`.
#[expect(
    clippy::disallowed_methods,
    reason = "waits for other programs, which send this program no event"
)]
pub fn until<T>(
    goal: &str,
    limit: Duration,
    mut check: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let end = now() + limit;
    loop {
        let reason = match check() {
            Ok(Some(found)) => return Ok(found),
            Ok(None) => String::new(),
            Err(error) => format!(": {error:#}"),
        };
        if now() >= end {
            bail!("{goal}: not within {limit:?}{reason}");
        }
        std::thread::sleep(POLL_INTERVAL);
    }
}

/// Calls `check` repeatedly for `length`, to sample a value or to check that it does not change.
///
/// # Errors
/// If `check` fails, at once.
#[expect(
    clippy::disallowed_methods,
    reason = "checks other programs, which send this program no event"
)]
pub fn during(length: Duration, mut check: impl FnMut() -> Result<()>) -> Result<()> {
    let end = now() + length;
    while now() < end {
        check()?;
        std::thread::sleep(POLL_INTERVAL);
    }
    Ok(())
}

/// Waits like [`until`] for an async `check`, such as a request to the API server.
pub async fn until_async<T, F: Future<Output = Result<Option<T>>>>(
    goal: &str,
    limit: Duration,
    mut check: impl FnMut() -> F,
) -> Result<T> {
    let end = now() + limit;
    loop {
        let reason = match check().await {
            Ok(Some(found)) => return Ok(found),
            Ok(None) => String::new(),
            Err(error) => format!(": {error:#}"),
        };
        if now() >= end {
            bail!("{goal}: not within {limit:?}{reason}");
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_ends_with_the_first_result() {
        let mut calls = 0;
        let third = until("the third call", Duration::from_secs(5), || {
            calls += 1;
            Ok((calls == 3).then_some(calls))
        });
        assert_eq!(third.unwrap(), 3);
    }

    #[test]
    fn a_failed_wait_reports_its_goal_and_last_error() {
        let failed = until::<()>("the page", Duration::ZERO, || bail!("connection refused"));
        assert_eq!(failed.unwrap_err().to_string(), "the page: not within 0ns: connection refused");
    }
}
