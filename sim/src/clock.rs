//! Clock of a node as a function of the true time. The clock has an offset and a drift, and it may
//! stop or leap.

use ferrolb_proto::Instant;
use std::time::Duration;

const MILLION: i128 = 1_000_000;

/// Monotonic clock of a node.
#[derive(Clone, Debug)]
pub(super) struct NodeClock {
    /// True time at which the clock showed `value`.
    since: Instant,
    value: Instant,
    /// Drift against the true time, in parts per million.
    drift: i32,
    stopped: bool,
}

impl NodeClock {
    pub(super) const fn new(now: Instant, value: Instant, drift: i32) -> Self {
        Self { since: now, value, drift, stopped: false }
    }

    /// Returns the clock's value at the true time `now`.
    pub(super) fn at(&self, now: Instant) -> Instant {
        if self.stopped {
            return self.value;
        }
        let passed = i128::try_from(now.since(self.since).as_nanos()).unwrap_or(0);
        self.value + nanos(passed * (MILLION + i128::from(self.drift)) / MILLION)
    }

    /// Returns the first true time at which the clock shows the value `own`, if the clock's rate
    /// does not change.
    pub(super) fn when(&self, own: Instant) -> Instant {
        let ahead = i128::try_from(own.since(self.value).as_nanos()).unwrap_or(0);
        let rate = MILLION + i128::from(self.drift);
        self.since + nanos((ahead * MILLION + rate - 1) / rate)
    }

    /// Stops the clock at `now`, like a pause of a virtual machine.
    pub(super) fn stop(&mut self, now: Instant) {
        (self.value, self.since, self.stopped) = (self.at(now), now, true);
    }

    /// Continues the clock from the value at which it stopped.
    pub(super) const fn resume(&mut self, now: Instant) {
        (self.since, self.stopped) = (now, false);
    }

    pub(super) fn leap(&mut self, now: Instant, by: Duration) {
        (self.value, self.since) = (self.at(now) + by, now);
    }

    pub(super) fn set_drift(&mut self, now: Instant, drift: i32) {
        (self.value, self.since, self.drift) = (self.at(now), now, drift);
    }
}

fn nanos(number: i128) -> Duration {
    Duration::from_nanos(u64::try_from(number).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Instant {
        Instant::from_millis(millis)
    }

    #[test]
    fn a_deadline_is_due_exactly_at_its_wake_up_time() {
        for drift in [-200, -1, 0, 7, 200] {
            let clock = NodeClock::new(at(5), at(90_000), drift);
            for own in [90_000_000_001, 90_123_456_789, 1_000_000_000_007] {
                let own = Instant::from_nanos(own);
                let when = clock.when(own);
                assert!(clock.at(when) >= own, "{drift}");
                assert!(clock.at(Instant::from_nanos(when.as_nanos() - 1)) < own, "{drift}");
            }
        }
    }

    #[test]
    fn a_pause_stops_and_a_leap_advances_the_clock() {
        let mut clock = NodeClock::new(at(0), at(1_000), 0);
        clock.stop(at(100));
        assert_eq!(clock.at(at(900)), at(1_100));
        clock.resume(at(900));
        assert_eq!(clock.at(at(950)), at(1_150));
        clock.leap(at(950), Duration::from_secs(10));
        assert_eq!(clock.at(at(950)), at(11_150));
    }
}
