//! Whether the main loop is alive and whether the program is ready: written by the main loop, and by watches that are refused; read by the admin thread. Shared
//! in an `Arc`; the lock is held for a string copy, and only by shell code.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use ferrolb_proto::Instant;

/// A main loop that did not beat for this long is stuck: `/healthz` answers 503 and the kubelet restarts the process.
pub const BEAT_AGE_MAX: Duration = Duration::from_secs(5);
/// How often the main loop beats, even when nothing happens.
pub const BEAT_INTERVAL: Duration = Duration::from_secs(1);

/// The same refusal is said again after so long, for whoever reads the log by then.
pub const REFUSAL_SAID_AGAIN_AFTER: Duration = Duration::from_secs(600);

/// The two facts a kubelet asks for, and what stands in the way of the second.
#[derive(Debug)]
pub struct Vitals {
    /// Nanoseconds of the last beat on [`crate::clock::Clock`].
    beat_nanos: AtomicU64,
    /// `None` when ready.
    not_ready: Mutex<Option<String>>,
    /// What the API server refuses.
    refused: Mutex<BTreeMap<&'static str, Refusal>>,
}

/// What was said of something that is refused.
#[derive(Debug)]
struct Refusal {
    /// The HTTP status; 0: an answer that made no sense.
    code: u16,
    said_at: Instant,
    why: String,
}

impl Vitals {
    /// Alive since `now`, not ready: "starting".
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self {
            beat_nanos: AtomicU64::new(now.as_nanos()),
            not_ready: Mutex::new(Some("starting".into())),
            refused: Mutex::default(),
        }
    }

    /// The main loop is alive. It calls this after each event and at least each [`BEAT_INTERVAL`].
    pub fn beat(&self, now: Instant) {
        self.beat_nanos.store(now.as_nanos(), Ordering::Relaxed);
    }

    /// The program does its work from here on.
    pub fn ready(&self) {
        self.set(None);
    }

    /// The program cannot do its work, and why, as a person reads it: "waiting for the first list of Services".
    pub fn not_ready(&self, why: impl Into<String>) {
        self.set(Some(why.into()));
    }

    /// Whether the main loop beat within [`BEAT_AGE_MAX`] of `now`.
    #[must_use]
    pub fn is_alive(&self, now: Instant) -> bool {
        now.since(Instant::from_nanos(self.beat_nanos.load(Ordering::Relaxed))) <= BEAT_AGE_MAX
    }

    /// When the main loop counts as dead unless it beats before.
    #[must_use]
    pub fn dead_at(&self) -> Instant {
        Instant::from_nanos(self.beat_nanos.load(Ordering::Relaxed)) + BEAT_AGE_MAX
    }

    /// The API server refuses something that the program needs, with this HTTP status, and `why`, with what to do. `what` is one of
    /// a few names. The answer is whether that is news.
    pub fn refused(&self, what: &'static str, code: u16, why: String, now: Instant) -> bool {
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        let said = |was: &Refusal| was.code == code && now.since(was.said_at) < REFUSAL_SAID_AGAIN_AFTER;
        let news = !refused.get(what).is_some_and(said);
        if news {
            refused.insert(what, Refusal { code, said_at: now, why });
        }
        news
    }

    /// The API server refuses it no longer. The answer is whether it did.
    pub fn granted(&self, what: &str) -> bool {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner).remove(what).is_some()
    }

    /// Why the program is not ready, and what the API server refuses it, each on a line; `None` when it is.
    #[must_use]
    pub fn why_not_ready(&self) -> Option<String> {
        let why = self.not_ready.lock().unwrap_or_else(PoisonError::into_inner).clone()?;
        let refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        Some(refused.iter().fold(why, |text, (what, refusal)| format!("{text}\n{what}: {}", refusal.why)))
    }

    fn set(&self, not_ready: Option<String>) {
        *self.not_ready.lock().unwrap_or_else(PoisonError::into_inner) = not_ready;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loop_that_stops_beating_is_dead_after_the_limit() {
        let start = Instant::from_millis(1_000);
        let vitals = Vitals::new(start);
        assert!(vitals.is_alive(start + BEAT_AGE_MAX));
        let late = start + BEAT_AGE_MAX + Duration::from_nanos(1);
        assert!(!vitals.is_alive(late));
        vitals.beat(late);
        assert!(vitals.is_alive(late));
    }
}
