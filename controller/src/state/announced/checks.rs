//! Which Services are still to be looked at, and how many conditions may be written. Plain values; the state owns them.

use std::collections::BTreeSet;

use ferrolb_proto::Instant;
use ferrolb_proto::facts::Key;

use super::{CONDITIONS_AT_ONCE_MAX, CONDITIONS_PER_SECOND_MAX};
use std::time::Duration;

/// Until the next pass where one was not enough.
const NEXT_PASS: Duration = Duration::from_millis(1);
/// The time of one write at the full pace.
const SPACING: Duration = Duration::from_millis(1_000 / CONDITIONS_PER_SECOND_MAX as u64);

/// What is still to be looked at.
#[derive(Debug, Default)]
pub(in crate::state) struct Checks {
    due: BTreeSet<(Instant, Key)>,
    /// The Service that the round through all came to last, and how many are left.
    round: (Key, usize),
    /// The nodes whose speakers do not count; none: to be found out anew.
    pub(super) void: Option<BTreeSet<Box<str>>>,
    pace: Pace,
}

/// That a Service is looked at again.
#[derive(Debug)]
pub(in crate::state) struct Motion {
    at: Instant,
    /// Since when what is found is worse than what is written, if it is.
    pub(super) since: Option<Instant>,
}

/// How many conditions may be written.
#[derive(Debug)]
struct Pace {
    room: u32,
    since: Instant,
}

impl Default for Pace {
    fn default() -> Self {
        Self { room: CONDITIONS_AT_ONCE_MAX, since: Instant::ZERO }
    }
}

impl Pace {
    fn refill(&mut self, now: Instant) {
        let more = now.since(self.since).as_nanos() / SPACING.as_nanos();
        let more = u32::try_from(more).unwrap_or(u32::MAX);
        if more >= CONDITIONS_AT_ONCE_MAX - self.room {
            *self = Self { room: CONDITIONS_AT_ONCE_MAX, since: now };
        } else {
            *self = Self { room: self.room + more, since: self.since + SPACING * more };
        }
    }
}

impl Checks {
    /// All Services are to be looked at, `count` in number. A round that is under way goes on where it is, once around.
    pub(super) fn begin_round(&mut self, count: usize) {
        self.round.1 = count;
        self.void = None;
    }

    /// Where the round is, and how many Services are left.
    pub(super) const fn round(&self) -> (&Key, usize) {
        (&self.round.0, self.round.1)
    }

    /// The round has come to a Service.
    pub(super) fn came_to(&mut self, key: &Key) {
        self.round = (key.clone(), self.round.1.saturating_sub(1));
    }

    /// A Service is looked at again at `at`, or earlier if that was said before.
    pub(super) fn look_at(&mut self, key: &Key, motion: &mut Option<Box<Motion>>, at: Instant, since: Option<Instant>) {
        let since = motion.as_ref().and_then(|motion| motion.since).or(since);
        if motion.as_ref().is_none_or(|motion| motion.at > at) {
            self.forget(key, motion);
            self.due.insert((at, key.clone()));
            *motion = Some(Box::new(Motion { at, since }));
        }
    }

    /// A Service is looked at no more.
    pub(in crate::state) fn forget(&mut self, key: &Key, motion: &mut Option<Box<Motion>>) {
        if let Some(is) = motion.take() {
            self.due.remove(&(is.at, key.clone()));
        }
    }

    /// The Services whose time has come, the longest due first.
    pub(super) fn due(&self, now: Instant) -> impl Iterator<Item = &Key> {
        self.due.iter().take_while(move |(at, _)| *at <= now).map(|(_, key)| key)
    }

    /// Whether there is a Service to look at, and room for what may come of it.
    pub(super) fn is_due(&mut self, now: Instant) -> bool {
        self.pace.refill(now);
        self.pace.room > 0 && (self.round.1 > 0 || self.due(now).next().is_some())
    }

    /// Conditions that may be written now.
    pub(super) const fn room(&self) -> u32 {
        self.pace.room
    }

    /// A condition is written.
    pub(super) const fn pay(&mut self) {
        self.pace.room = self.pace.room.saturating_sub(1);
    }

    /// When the next look is due after `now`.
    pub(super) fn deadline(&self, now: Instant) -> Option<Instant> {
        let first = self.due.first().map(|(at, _)| *at);
        let next = if self.round.1 > 0 { now } else { first? };
        let soonest = if self.pace.room == 0 { self.pace.since + SPACING } else { now + NEXT_PASS };
        Some(next.max(soonest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Instant {
        Instant::from_millis(millis)
    }

    #[test]
    fn the_pace_allows_a_few_at_once_and_so_many_in_a_second() {
        let mut checks = Checks::default();
        checks.begin_round(1_000_000);
        let mut written = 0;
        let mut now = at(5_000);
        while now < at(6_000) {
            assert_eq!(checks.is_due(now), checks.room() > 0);
            while checks.room() > 0 {
                checks.pay();
                written += 1;
            }
            now = checks.deadline(now).unwrap();
        }
        assert_eq!(written, CONDITIONS_PER_SECOND_MAX + CONDITIONS_AT_ONCE_MAX - 1);
    }

    #[test]
    fn a_service_is_looked_at_when_it_was_first_said_and_once() {
        let (mut checks, mut motion, key) = (Checks::default(), None, Key::new("default", "web"));
        checks.look_at(&key, &mut motion, at(30), Some(at(1)));
        checks.look_at(&key, &mut motion, at(20), None);
        checks.look_at(&key, &mut motion, at(40), None);
        assert_eq!((checks.due(at(19)).count(), checks.due(at(20)).count()), (0, 1));
        assert_eq!(motion.as_ref().unwrap().since, Some(at(1)), "since when it is worse stays known");
        assert_eq!(checks.deadline(at(10)), Some(at(20)));
        checks.forget(&key, &mut motion);
        assert_eq!((checks.deadline(at(10)), motion.is_none()), (None, true));
    }
}
