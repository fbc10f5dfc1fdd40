//! Wall-clock time in the state, for times that must be valid in every replica. Owned by the state.

use ferrolb_proto::Instant;

/// Seconds by which the clock may jump forward during a term as the leader until addresses are
/// forgotten. A larger jump, as of a clock that was wrong at boot, would forget all of them.
const JUMP_MAX: i64 = 3_600;

/// The wall-clock time, as the driver sets it in each pass.
#[derive(Debug)]
pub(super) struct WallClock {
    /// The time in seconds since 1970 at [`Instant::ZERO`].
    at_zero: i64,
    /// The largest `at_zero` of this term by which addresses are forgotten.
    limit: i64,
}

impl Default for WallClock {
    fn default() -> Self {
        Self { at_zero: 0, limit: i64::MAX }
    }
}

impl WallClock {
    /// Sets the time in seconds since 1970.
    pub(super) const fn set(&mut self, unix_time: i64, now: Instant) {
        self.at_zero = unix_time.saturating_sub(whole_seconds(now));
    }

    /// Returns the time in seconds since 1970.
    pub(super) const fn at(&self, now: Instant) -> i64 {
        self.at_zero.saturating_add(whole_seconds(now))
    }

    /// Returns the time by which addresses are forgotten: without a jump, the same.
    pub(super) fn without_jump(&self, now: Instant) -> i64 {
        self.at_zero.min(self.limit).saturating_add(whole_seconds(now))
    }

    /// Begins a term as the leader, or ends it.
    pub(super) const fn set_leading(&mut self, leading: bool) {
        self.limit = if leading { self.at_zero.saturating_add(JUMP_MAX) } else { i64::MAX };
    }
}

/// Returns a time in whole seconds since the start of the clock.
const fn whole_seconds(now: Instant) -> i64 {
    now.since(Instant::ZERO).as_secs().cast_signed()
}
