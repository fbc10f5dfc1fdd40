//! The lab's only clock and its only waits. The lab is a shell around real programs: it reads time, and it polls what cannot tell it.

use anyhow::{Result, bail};
use std::time::{Duration, Instant};

/// How often something that cannot notify is looked at again.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// The monotonic time.
#[expect(clippy::disallowed_methods, reason = "the lab measures real programs in real time")]
pub fn now() -> Instant {
    Instant::now()
}

/// Asks `look` again and again until it has an answer; after `limit` fails, naming `what` and the last reason `look` gave.
#[expect(clippy::disallowed_methods, reason = "what is waited for are other programs, which send this one no event")]
pub fn until<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
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

/// Looks again and again for as long as `length`: at what is sampled, or must stay as it is.
///
/// # Errors
/// As `look`, at once.
#[expect(clippy::disallowed_methods, reason = "what is looked at are other programs, which send this one no event")]
pub fn during(length: Duration, mut look: impl FnMut() -> Result<()>) -> Result<()> {
    let end = now() + length;
    while now() < end {
        look()?;
        std::thread::sleep(LOOK_AGAIN);
    }
    Ok(())
}

/// [`until`] for a question to the API server.
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
