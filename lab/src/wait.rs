//! Clock and waits of the lab; no other module reads the time. The lab drives real programs, and
//! polls those that send no notifications.

use anyhow::{Result, bail};
use std::time::{Duration, Instant};

/// Interval of polls.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Returns the monotonic time.
#[expect(clippy::disallowed_methods, reason = "the lab measures real programs in real time")]
pub fn now() -> Instant {
    Instant::now()
}

/// Calls `look` repeatedly until it returns a result. After `limit` fails with `what` and the last
/// error of `look`.
#[expect(
    clippy::disallowed_methods,
    reason = "what is waited for are other programs, which send this one no event"
)]
pub fn until<T>(
    what: &str,
    limit: Duration,
    mut look: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let end = now() + limit;
    loop {
        let reason = match look() {
            Ok(Some(found)) => return Ok(found),
            Ok(None) => String::new(),
            Err(error) => format!(": {error:#}"),
        };
        if now() >= end {
            bail!("{what}: not within {limit:?}{reason}");
        }
        std::thread::sleep(LOOK_AGAIN);
    }
}

/// Calls `look` repeatedly for `length`, to sample a value or to check that it does not change.
///
/// # Errors
/// If `look` fails, at once.
#[expect(
    clippy::disallowed_methods,
    reason = "what is looked at are other programs, which send this one no event"
)]
pub fn during(length: Duration, mut look: impl FnMut() -> Result<()>) -> Result<()> {
    let end = now() + length;
    while now() < end {
        look()?;
        std::thread::sleep(LOOK_AGAIN);
    }
    Ok(())
}

/// Waits like [`until`] for an async `look`, such as a request to the API server.
pub async fn until_async<T, F: Future<Output = Result<Option<T>>>>(
    what: &str,
    limit: Duration,
    mut look: impl FnMut() -> F,
) -> Result<T> {
    let end = now() + limit;
    loop {
        let reason = match look().await {
            Ok(Some(found)) => return Ok(found),
            Ok(None) => String::new(),
            Err(error) => format!(": {error:#}"),
        };
        if now() >= end {
            bail!("{what}: not within {limit:?}{reason}");
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_ends_with_the_first_answer() {
        let mut looks = 0;
        let third = until("the third look", Duration::from_secs(5), || {
            looks += 1;
            Ok((looks == 3).then_some(looks))
        });
        assert_eq!(third.unwrap(), 3);
    }

    #[test]
    fn a_wait_that_fails_says_for_what_and_why() {
        let failed = until::<()>("the page", Duration::ZERO, || bail!("connection refused"));
        assert_eq!(failed.unwrap_err().to_string(), "the page: not within 0ns: connection refused");
    }
}
