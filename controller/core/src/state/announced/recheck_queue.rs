//! Queue of the Services whose condition `Announced` must be checked, and the rate limit of the
//! condition writes. Plain values; owned by the state.

use std::collections::BTreeSet;
use std::time::Duration;

use ferrolb_core::rate::TokenBucket;
use ferrolb_proto::Instant;
use ferrolb_proto::facts::Key;

use super::{CONDITIONS_AT_ONCE_MAX, CONDITIONS_PER_SECOND_MAX};

/// Delay until the next pass of the main loop if one pass could not check all due Services.
const NEXT_PASS_DELAY: Duration = Duration::from_millis(1);
/// Time between two condition writes at the maximum rate.
const WRITE_SPACING: Duration = Duration::from_millis(1_000 / CONDITIONS_PER_SECOND_MAX as u64);

/// The queued checks of single Services, by time, and the position of the round, which checks all
/// Services one after the other.
#[derive(Debug)]
pub(in crate::state) struct RecheckQueue {
    due: BTreeSet<(Instant, Key)>,
    /// The Service that the round has reached, and the number of Services that are left in the
    /// round.
    round: (Key, usize),
    /// Rate limit of condition writes.
    rate_limit: TokenBucket,
}

impl Default for RecheckQueue {
    fn default() -> Self {
        let rate_limit = TokenBucket::full(WRITE_SPACING, CONDITIONS_AT_ONCE_MAX);
        Self { due: BTreeSet::new(), round: (Key::default(), 0), rate_limit }
    }
}

/// A queued check of a Service.
#[derive(Debug)]
pub(in crate::state) struct QueuedRecheck {
    at: Instant,
    /// Time since which the facts have differed from the written condition; `None` if they agree.
    pub(super) since: Option<Instant>,
}

impl RecheckQueue {
    /// Starts a round of checks through all `count` Services. The round begins at the position that
    /// the previous round has reached.
    pub(super) fn begin_round(&mut self, count: usize) {
        self.round.1 = count;
    }

    /// Returns the Service that the round has reached, and the number of Services that are left in
    /// the round.
    pub(super) const fn round(&self) -> (&Key, usize) {
        (&self.round.0, self.round.1)
    }

    /// Records that the round has reached a Service.
    pub(super) fn advance_round(&mut self, key: &Key) {
        self.round = (key.clone(), self.round.1.saturating_sub(1));
    }

    /// Queues a check of a Service at `at`, unless a check at an earlier time is queued.
    pub(super) fn queue(
        &mut self,
        key: &Key,
        queued: &mut Option<Box<QueuedRecheck>>,
        at: Instant,
        since: Option<Instant>,
    ) {
        let since = queued.as_ref().and_then(|queued| queued.since).or(since);
        if queued.as_ref().is_none_or(|queued| queued.at > at) {
            self.remove(key, queued);
            self.due.insert((at, key.clone()));
            *queued = Some(Box::new(QueuedRecheck { at, since }));
        }
    }

    /// Removes the queued check of a Service.
    pub(in crate::state) fn remove(&mut self, key: &Key, queued: &mut Option<Box<QueuedRecheck>>) {
        if let Some(recheck) = queued.take() {
            self.due.remove(&(recheck.at, key.clone()));
        }
    }

    /// Returns the Services whose check is due, the longest overdue first.
    pub(super) fn due(&self, now: Instant) -> impl Iterator<Item = &Key> {
        self.due.iter().take_while(move |(at, _)| *at <= now).map(|(_, key)| key)
    }

    /// Returns whether a check is due and the rate limit allows its write.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.allowed_writes(now) > 0 && (self.round.1 > 0 || self.due(now).next().is_some())
    }

    /// Returns the number of conditions that the rate limit allows now.
    pub(super) fn allowed_writes(&self, now: Instant) -> u32 {
        self.rate_limit.tokens(now)
    }

    /// Counts one written condition for the rate limit.
    pub(super) fn count_write(&mut self, now: Instant) {
        self.rate_limit.take(now);
    }

    /// Returns the time after `now` of the next check that the rate limit allows; `None` if no
    /// check is queued.
    pub(super) fn deadline(&self, now: Instant) -> Option<Instant> {
        let first = self.due.first().map(|(at, _)| *at);
        let next = if self.round.1 > 0 { now } else { first? };
        let soonest = self.rate_limit.ready_at();
        Some(next.max(if soonest > now { soonest } else { now + NEXT_PASS_DELAY }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Instant {
        Instant::from_millis(millis)
    }

    #[test]
    fn the_rate_limit_allows_a_burst_and_a_rate_per_second() {
        let mut rechecks = RecheckQueue::default();
        rechecks.begin_round(1_000_000);
        let mut written = 0;
        let mut now = at(5_000);
        while now < at(6_000) {
            assert_eq!(rechecks.is_due(now), rechecks.allowed_writes(now) > 0);
            while rechecks.allowed_writes(now) > 0 {
                rechecks.count_write(now);
                written += 1;
            }
            now = rechecks.deadline(now).unwrap();
        }
        assert_eq!(written, CONDITIONS_PER_SECOND_MAX + CONDITIONS_AT_ONCE_MAX - 1);
    }

    #[test]
    fn a_service_is_queued_once_at_its_earliest_time() {
        let (mut rechecks, mut queued, key) =
            (RecheckQueue::default(), None, Key::new("default", "web"));
        rechecks.queue(&key, &mut queued, at(30), Some(at(1)));
        rechecks.queue(&key, &mut queued, at(20), None);
        rechecks.queue(&key, &mut queued, at(40), None);
        assert_eq!((rechecks.due(at(19)).count(), rechecks.due(at(20)).count()), (0, 1));
        assert_eq!(
            queued.as_ref().unwrap().since,
            Some(at(1)),
            "the time since which the facts differ is kept"
        );
        assert_eq!(rechecks.deadline(at(10)), Some(at(20)));
        rechecks.remove(&key, &mut queued);
        assert_eq!((rechecks.deadline(at(10)), queued.is_none()), (None, true));
    }
}
