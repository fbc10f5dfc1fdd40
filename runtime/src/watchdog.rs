//! Liveness and readiness of the program, shared in an `Arc`. The main loop and the watches write
//! these values; the admin threads read them. The locks are held only to copy or replace a string,
//! and only in the I/O layer.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use ferrolb_proto::Instant;

/// The age of the latest heartbeat after which the main loop counts as stalled: `/healthz` returns
/// 503, and the kubelet restarts the process.
pub const HEARTBEAT_AGE_MAX: Duration = Duration::from_secs(5);
/// The longest interval between two heartbeats of the main loop, which sends them even without
/// events.
pub const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(1);

/// The time after which the same refusal is logged again, for operators who read only recent logs.
pub const REFUSAL_LOG_INTERVAL: Duration = Duration::from_secs(600);

/// The liveness and the readiness of the program, and the reasons why it is not ready.
#[derive(Debug)]
pub struct Watchdog {
    /// The time of the latest heartbeat on [`crate::clock::Clock`], in nanoseconds.
    heartbeat_nanos: AtomicU64,
    /// The reason why the program is not ready; `None` if it is ready.
    not_ready: Mutex<Option<String>>,
    /// The watches that the API server refuses at present. The key is the plural of the watch's
    /// kind.
    refused: Mutex<BTreeMap<&'static str, LoggedRefusal>>,
}

/// A refusal of a watch, which was logged.
#[derive(Debug)]
struct LoggedRefusal {
    /// The HTTP status; 0 for a reply that could not be decoded.
    code: u16,
    logged_at: Instant,
    why: String,
}

impl Watchdog {
    /// Returns the watchdog of a program whose first heartbeat is at `now`, and which is not ready
    /// because it is "starting".
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self {
            heartbeat_nanos: AtomicU64::new(now.as_nanos()),
            not_ready: Mutex::new(Some("starting".into())),
            refused: Mutex::default(),
        }
    }

    /// Records a heartbeat. The main loop calls this function after each event and at least once
    /// per [`HEARTBEAT_INTERVAL`].
    pub fn heartbeat(&self, now: Instant) {
        self.heartbeat_nanos.store(now.as_nanos(), Ordering::Relaxed);
    }

    /// Records that the program is ready.
    pub fn ready(&self) {
        self.set_not_ready(None);
    }

    /// Records that the program is not ready, and why, in words for people, such as "waiting for
    /// the first list of Services".
    pub fn not_ready(&self, why: impl Into<String>) {
        self.set_not_ready(Some(why.into()));
    }

    /// Returns whether the main loop sent a heartbeat within [`HEARTBEAT_AGE_MAX`] before `now`.
    #[must_use]
    pub fn is_alive(&self, now: Instant) -> bool {
        now.since(Instant::from_nanos(self.heartbeat_nanos.load(Ordering::Relaxed)))
            <= HEARTBEAT_AGE_MAX
    }

    /// Returns the time at which the main loop counts as stalled unless it sends another heartbeat
    /// before that time.
    #[must_use]
    pub fn stalled_at(&self) -> Instant {
        Instant::from_nanos(self.heartbeat_nanos.load(Ordering::Relaxed)) + HEARTBEAT_AGE_MAX
    }

    /// Records that the API server refuses the watch of `what` with this HTTP status, and `why`,
    /// which includes the remedy. `what` is the plural of a kind. Returns whether the refusal
    /// should be logged.
    pub fn refused(&self, what: &'static str, code: u16, why: String, now: Instant) -> bool {
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        let was_logged = |previous: &LoggedRefusal| {
            previous.code == code && now.since(previous.logged_at) < REFUSAL_LOG_INTERVAL
        };
        let should_log = !refused.get(what).is_some_and(was_logged);
        if should_log {
            refused.insert(what, LoggedRefusal { code, logged_at: now, why });
        }
        should_log
    }

    /// Records that the API server accepts the watch of `what`. Returns whether the API server
    /// refused that watch before.
    pub fn accepted(&self, what: &str) -> bool {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner).remove(what).is_some()
    }

    /// Returns why the program is not ready, followed by the API server's current refusals, one per
    /// line. `None`: the program is ready.
    #[must_use]
    pub fn why_not_ready(&self) -> Option<String> {
        let why = self.not_ready.lock().unwrap_or_else(PoisonError::into_inner).clone()?;
        let refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        Some(
            refused
                .iter()
                .fold(why, |text, (what, refusal)| format!("{text}\n{what}: {}", refusal.why)),
        )
    }

    fn set_not_ready(&self, not_ready: Option<String>) {
        *self.not_ready.lock().unwrap_or_else(PoisonError::into_inner) = not_ready;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_main_loop_without_heartbeats_is_not_alive_after_the_limit() {
        let start = Instant::from_millis(1_000);
        let watchdog = Watchdog::new(start);
        assert!(watchdog.is_alive(start + HEARTBEAT_AGE_MAX));
        let late = start + HEARTBEAT_AGE_MAX + Duration::from_nanos(1);
        assert!(!watchdog.is_alive(late));
        watchdog.heartbeat(late);
        assert!(watchdog.is_alive(late));
    }
}
