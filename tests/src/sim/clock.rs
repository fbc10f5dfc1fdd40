//! A node's own clock as a function of the true time: it has an offset, drifts, may stand still and may leap.

use ferrolb_proto::Instant;
use std::time::Duration;

const MILLION: i128 = 1_000_000;

/// What a node reads as its monotonic clock.
#[derive(Clone, Debug)]
pub(super) struct Clock {
    /// A true time, and what the clock showed then.
    since: Instant,
    shown: Instant,
    /// How much faster than the truth it is, in parts per million.
    drift: i32,
    stands: bool,
}

impl Clock {
    pub(super) const fn new(now: Instant, shown: Instant, drift: i32) -> Self {
        Self { since: now, shown, drift, stands: false }
    }

    /// What it shows at the true time `now`.
    pub(super) fn at(&self, now: Instant) -> Instant {
        if self.stands {
            return self.shown;
        }
        let passed = i128::try_from(now.since(self.since).as_nanos()).unwrap_or(0);
        self.shown + nanos(passed * (MILLION + i128::from(self.drift)) / MILLION)
    }

    /// The first true time at which it shows `own`, which it will if it goes on as it does.
    pub(super) fn when(&self, own: Instant) -> Instant {
        let ahead = i128::try_from(own.since(self.shown).as_nanos()).unwrap_or(0);
        let rate = MILLION + i128::from(self.drift);
        self.since + nanos((ahead * MILLION + rate - 1) / rate)
    }

    /// Stands still from `now` on: the pause of a virtual machine.
    pub(super) fn stop(&mut self, now: Instant) {
        (self.shown, self.since, self.stands) = (self.at(now), now, true);
    }

    /// Goes on from where it stood.
    pub(super) const fn go_on(&mut self, now: Instant) {
        (self.since, self.stands) = (now, false);
    }

    pub(super) fn leap(&mut self, now: Instant, by: Duration) {
        (self.shown, self.since) = (self.at(now) + by, now);
    }

    pub(super) fn set_drift(&mut self, now: Instant, drift: i32) {
        (self.shown, self.since, self.drift) = (self.at(now), now, drift);
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
    fn a_deadline_is_due_at_the_time_it_is_waited_for_and_not_before() {
        for drift in [-200, -1, 0, 7, 200] {
            let clock = Clock::new(at(5), at(90_000), drift);
            for own in [90_000_000_001, 90_123_456_789, 1_000_000_000_007] {
                let own = Instant::from_nanos(own);
                let when = clock.when(own);
                assert!(clock.at(when) >= own, "{drift}");
                assert!(clock.at(Instant::from_nanos(when.as_nanos() - 1)) < own, "{drift}");
            }
        }
    }

    #[test]
    fn a_pause_stops_it_and_a_leap_moves_it() {
        let mut clock = Clock::new(at(0), at(1_000), 0);
        clock.stop(at(100));
        assert_eq!(clock.at(at(900)), at(1_100));
        clock.go_on(at(900));
        assert_eq!(clock.at(at(950)), at(1_150));
        clock.leap(at(950), Duration::from_secs(10));
        assert_eq!(clock.at(at(950)), at(11_150));
    }
}
