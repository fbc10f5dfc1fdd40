//! Clocks and waits of the lab; no other module reads the time. The lab drives real programs, and
//! polls those that send no notifications.

use anyhow::{Result, bail, ensure};
use std::fs;
use std::time::{Duration, Instant};

/// Shortest and longest pause between two polls.
const POLL_INTERVAL: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// Length of a pause, in lengths of the poll.
const PAUSE_FACTOR: u32 = 4;
/// Factor by which a limit is longer on a machine that is always busy.
const BUSY_FACTOR: u32 = 10;
/// The kernel's measurement of the time in which a program waited for a processor.
const CPU_PRESSURE: &str = "/proc/pressure/cpu";

/// Returns the monotonic time.
#[expect(clippy::disallowed_methods, reason = "the lab measures real programs in real time")]
pub fn now() -> Instant {
    Instant::now()
}

/// A clock for limits of other programs' work. While a program of this machine waits for a
/// processor, the clock runs [`BUSY_FACTOR`] times slower. Without measurement of such times by the
/// kernel (Pressure Stall Information), it always runs normally.
#[derive(Clone, Copy, Debug)]
pub struct WorkClock {
    start: Instant,
    busy: Duration,
}

impl WorkClock {
    /// Returns a clock that starts now.
    pub fn start() -> Self {
        Self { start: now(), busy: busy_time() }
    }

    /// Returns the real time since the start.
    pub fn real_elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    /// Returns the time since the start, in which busy times count less.
    pub fn elapsed(&self) -> Duration {
        work_time(self.real_elapsed(), busy_time().saturating_sub(self.busy))
    }

    /// Returns the real time since the start.
    ///
    /// # Errors
    /// If the limit has passed on this clock.
    pub fn within(&self, limit: Duration) -> Result<Duration> {
        let (real, counted) = (self.real_elapsed(), self.elapsed());
        ensure!(
            counted < limit,
            "this took {real:?}, of which {counted:?} count: more than {limit:?}"
        );
        Ok(real)
    }
}

/// Returns the length of `elapsed` on a [`WorkClock`], if the machine was busy for `busy`.
fn work_time(elapsed: Duration, busy: Duration) -> Duration {
    let busy = busy.min(elapsed);
    elapsed - busy + busy / BUSY_FACTOR
}

/// Returns the time since the machine's boot in which a program waited for a processor.
fn busy_time() -> Duration {
    fs::read_to_string(CPU_PRESSURE).ok().and_then(|text| parse_pressure(&text)).unwrap_or_default()
}

/// Parses the line `some avg10=0.00 avg60=0.00 avg300=0.00 total=12345`, whose total is in
/// microseconds (`Documentation/accounting/psi.rst` of Linux).
fn parse_pressure(text: &str) -> Option<Duration> {
    let some = text.lines().find_map(|line| line.strip_prefix("some "))?;
    let total = some.split(' ').find_map(|word| word.strip_prefix("total="))?;
    Some(Duration::from_micros(total.parse().ok()?))
}

/// Returns the pause after a poll that took `check`: several times as long, so that polls with an
/// expensive command, such as one in a container, leave the processor to the polled program.
fn pause_after(check: Duration) -> Duration {
    (check * PAUSE_FACTOR).clamp(POLL_INTERVAL, PAUSE_MAX)
}

/// Calls `check` repeatedly until it returns a result. After `limit` of a [`WorkClock`], fails with
/// `goal` and the last error of `check`.
pub fn until<T>(
    goal: &str,
    limit: Duration,
    check: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    poll(goal, limit, pause_after, check)
}

/// Waits like [`until`] for a `check` that listens on the network most of its time. The next check
/// follows at once, because it costs little processor time.
pub fn until_heard<T>(
    goal: &str,
    limit: Duration,
    check: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    poll(goal, limit, |_| POLL_INTERVAL, check)
}

#[expect(
    clippy::disallowed_methods,
    reason = "waits for other programs, which send this program no event"
)]
fn poll<T>(
    goal: &str,
    limit: Duration,
    pause: fn(Duration) -> Duration,
    mut check: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let clock = WorkClock::start();
    loop {
        let check_start = now();
        let reason = match check() {
            Ok(Some(found)) => return Ok(found),
            Ok(None) => String::new(),
            Err(error) => format!(": {error:#}"),
        };
        if clock.elapsed() >= limit {
            bail!("{goal}: not within {limit:?}{reason}");
        }
        std::thread::sleep(pause(check_start.elapsed()));
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
    let clock = WorkClock::start();
    loop {
        let check_start = now();
        let reason = match check().await {
            Ok(Some(found)) => return Ok(found),
            Ok(None) => String::new(),
            Err(error) => format!(": {error:#}"),
        };
        if clock.elapsed() >= limit {
            bail!("{goal}: not within {limit:?}{reason}");
        }
        tokio::time::sleep(pause_after(check_start.elapsed())).await;
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
    fn expensive_polls_leave_most_of_the_time() {
        for (check, pause) in [(0, 20), (5, 20), (200, 800), (9_000, 1_000)] {
            assert_eq!(pause_after(Duration::from_millis(check)), Duration::from_millis(pause));
        }
    }

    #[test]
    fn busy_times_count_a_tenth() {
        for (elapsed, busy, expect) in [(10, 0, 10), (20, 10, 11), (10, 10, 1), (10, 11, 1)] {
            let [elapsed, busy, expect] = [elapsed, busy, expect].map(Duration::from_secs);
            assert_eq!(work_time(elapsed, busy), expect, "{elapsed:?}, busy for {busy:?}");
        }
    }

    #[test]
    fn the_kernel_reports_the_busy_time() {
        let text = "some avg10=1.53 avg60=0.87 avg300=0.21 total=1500000\n\
                    full avg10=0.00 avg60=0.00 avg300=0.00 total=7\n";
        assert_eq!(parse_pressure(text), Some(Duration::from_millis(1_500)));
        for text in ["", "full total=7", "some total=x"] {
            assert_eq!(parse_pressure(text), None, "{text}");
        }
    }

    #[test]
    fn a_failed_wait_reports_its_goal_and_last_error() {
        let failed = until::<()>("the page", Duration::ZERO, || bail!("connection refused"));
        assert_eq!(failed.unwrap_err().to_string(), "the page: not within 0ns: connection refused");
    }
}
