//! Timers of a machine, in one table with their names. The machine owns the table.

use std::collections::BTreeMap;
use std::time::Duration;

use ferrolb_proto::Instant;

/// Deadlines of the timers that are set. `T` is the enum of the machine's timers.
#[derive(Clone, Debug)]
pub(crate) struct Timers<T>(BTreeMap<T, Instant>);

impl<T> Default for Timers<T> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<T: Ord> Timers<T> {
    /// Sets a timer, also one that is set already.
    pub(crate) fn set(&mut self, timer: T, deadline: Instant) {
        self.0.insert(timer, deadline);
    }

    /// Sets a timer. A timer that is set keeps its deadline if that is earlier.
    pub(crate) fn set_by(&mut self, timer: T, deadline: Instant) {
        let current = self.0.entry(timer).or_insert(deadline);
        *current = deadline.min(*current);
    }

    /// Stops a timer. Returns whether it was set.
    pub(crate) fn stop(&mut self, timer: &T) -> bool {
        self.0.remove(timer).is_some()
    }

    /// Returns whether a timer is set.
    pub(crate) fn is_set(&self, timer: &T) -> bool {
        self.0.contains_key(timer)
    }

    /// Returns whether a timer is set, and its deadline is `now` or earlier.
    pub(crate) fn is_due(&self, timer: &T, now: Instant) -> bool {
        self.0.get(timer).is_some_and(|deadline| *deadline <= now)
    }

    /// Returns for how long a timer has been due.
    pub(crate) fn lateness(&self, timer: &T, now: Instant) -> Duration {
        self.0.get(timer).map_or(Duration::ZERO, |deadline| now.since(*deadline))
    }

    /// Stops a timer if it is due. Returns whether it was due.
    pub(crate) fn expire(&mut self, timer: &T, now: Instant) -> bool {
        self.is_due(timer, now) && self.stop(timer)
    }

    /// Returns the earliest deadline, if a timer is set.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.0.values().min().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timer_runs_until_its_deadline_or_its_stop() {
        let at = |seconds| Instant::ZERO + Duration::from_secs(seconds);
        let mut timers = Timers::default();
        assert_eq!((timers.deadline(), timers.is_set(&"a")), (None, false));
        for (timer, deadline) in [("a", 5), ("b", 4), ("a", 3), ("a", 9)] {
            timers.set_by(timer, at(deadline));
        }
        assert_eq!(timers.deadline(), Some(at(3)));
        assert!(!timers.expire(&"a", at(2)) && timers.expire(&"a", at(3)));
        assert!(!timers.expire(&"a", at(9)), "the timer is not set any more");
        timers.set("b", at(6));
        assert_eq!(timers.deadline(), Some(at(6)));
        assert_eq!([timers.stop(&"b"), timers.stop(&"b")], [true, false]);
    }
}
