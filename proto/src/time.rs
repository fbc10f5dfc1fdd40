//! Monotonic time as plain values. The I/O layer makes them from its clock; tests and simulators
//! construct them from numbers.

use std::num::NonZeroU64;
use std::ops::Add;
use std::time::Duration;

/// A point in monotonic time: nanoseconds since a start that each process chooses.
///
/// Unlike [`std::time::Instant`], tests and simulators can construct one from a number.
///
/// An `Option<Instant>` takes no more memory than an `Instant`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(
    /// Nanoseconds plus one.
    NonZeroU64,
);

impl Instant {
    /// The start of the clock.
    pub const ZERO: Self = Self(NonZeroU64::MIN);

    /// Returns the point `nanos` nanoseconds after the start of the clock.
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(NonZeroU64::MIN.saturating_add(nanos))
    }

    /// Returns the point `millis` milliseconds after the start of the clock.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self::from_nanos(millis.saturating_mul(1_000_000))
    }

    /// Returns the nanoseconds since the start of the clock.
    #[must_use]
    pub const fn as_nanos(self) -> u64 {
        self.0.get() - 1
    }

    /// Returns the time since `earlier`; zero if `earlier` is in the future.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.as_nanos().saturating_sub(earlier.as_nanos()))
    }
}

impl Default for Instant {
    fn default() -> Self {
        Self::ZERO
    }
}

impl Add<Duration> for Instant {
    type Output = Self;

    fn add(self, rhs: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(rhs.as_nanos()).unwrap_or(u64::MAX)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_never_underflows_and_a_sum_never_overflows() {
        let one = Instant::from_millis(1);
        assert_eq!(one.since(Instant::ZERO), Duration::from_millis(1));
        assert_eq!(Instant::ZERO.since(one), Duration::ZERO);
        assert_eq!(
            Instant::from_nanos(u64::MAX) + Duration::from_secs(1),
            Instant::from_nanos(u64::MAX)
        );
    }
}
