//! The Services whose addresses must be decided. Plain values; owned by the state.

use std::collections::BTreeSet;

use ferrolb_proto::Instant;
use ferrolb_proto::facts::Key;

use super::RETRY_INTERVAL;

/// The Services whose addresses must be decided. Waiting Services come before those that changed.
#[derive(Debug, Default)]
pub(super) struct DecisionQueue {
    /// True if all Services must be decided, because a change may affect every Service.
    pub(super) all: bool,
    /// Services that lack addresses, or whose Namespace this replica has not received yet. They are
    /// decided again when an address becomes free.
    pub(super) waiting: BTreeSet<Key>,
    /// Services that changed in this pass. They are decided at its end, after the waiting ones.
    pub(super) changed: Vec<Key>,
    /// Time of the next decision about the waiting Services, if no event causes one earlier.
    retry_at: Instant,
}

impl DecisionQueue {
    /// Records whether a Service waits.
    pub(super) fn set_waiting(&mut self, key: &Key, waits: bool) {
        if waits {
            self.waiting.insert(key.clone());
        } else {
            self.waiting.remove(key);
        }
    }

    /// Records that the waiting Services are decided at `now`.
    pub(super) fn begin_retry(&mut self, now: Instant) {
        self.retry_at = now + RETRY_INTERVAL;
    }

    /// Returns whether the waiting Services must be decided again.
    pub(super) fn is_retry_due(&self, now: Instant) -> bool {
        now >= self.retry_at
    }

    /// Returns the time of the next decision about the waiting Services.
    pub(super) fn deadline(&self) -> Option<Instant> {
        (!self.waiting.is_empty()).then_some(self.retry_at)
    }
}
