//! What is still to be written, and when: in the order in which it became due. Owned by the state.
//!
//! A write that fails, or that somebody else undoes, waits longer each time. The driver is told to write at once or not at
//! all: it has no clock of its own.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use ferrolb_proto::Instant;

use crate::desired::Target;
use crate::event::Outcome;

/// The wait after a first failure; it doubles with each further one.
const RETRY_DELAY_MIN: Duration = Duration::from_millis(200);
/// The longest wait.
const RETRY_DELAY_MAX: Duration = Duration::from_secs(10);
/// So many refusals in a row are reported: fewer pass by themselves, as conflicts with other
/// writers do.
pub(super) const REFUSALS_REPORTED: u32 = 3;
/// A status of ours that changes within so long after it was written was changed by somebody else: a quarrel, not to be
/// carried on at full speed.
const QUARREL_WINDOW: Duration = Duration::from_secs(60);

/// The agenda: targets by the time when they are due, then by when they came.
#[derive(Debug, Default)]
pub(super) struct Agenda {
    due: BTreeMap<(Instant, u64), Target>,
    /// Counts places and attempts, so that neither ever comes twice.
    sequence: u64,
}

/// What is to be written to one object, and how that goes.
#[derive(Debug)]
pub(super) struct Draft<S> {
    /// What to write; none: the object is as it should be, or was written and has not been seen since.
    status: Option<Box<S>>,
    /// Its place in the agenda while there is a status.
    place: Option<(Instant, u64)>,
    attempt: u64,
    failures: u32,
    /// How often in a row the API server has refused to write it.
    refusals: u32,
    /// When the last write was done; none again when what is to be written was decided anew.
    done_at: Option<Instant>,
    /// Stands for the status that was to be written last.
    last: u64,
    not_before: Instant,
}

impl<S> Default for Draft<S> {
    fn default() -> Self {
        Self {
            status: None,
            place: None,
            attempt: 0,
            failures: 0,
            refusals: 0,
            done_at: None,
            last: 0,
            not_before: Instant::ZERO,
        }
    }
}

impl<S> Draft<S> {
    /// What is to be written, and the number of the attempt to do so.
    pub(super) fn write(&self) -> Option<(u64, &S)> {
        self.status.as_deref().map(|status| (self.attempt, status))
    }

    /// True if the API server has refused it so often that this was reported.
    pub(super) const fn is_refused(&self) -> bool {
        self.refusals >= REFUSALS_REPORTED
    }

    /// True if the next refusal is the one to report.
    pub(super) const fn reports_refusal(&self) -> bool {
        self.refusals + 1 == REFUSALS_REPORTED
    }

    /// It was decided anew what is to be written: nobody undid anything, and it need not wait.
    pub(super) const fn renew(&mut self) {
        (self.done_at, self.not_before) = (None, Instant::ZERO);
    }

    /// Nothing is written before then.
    pub(super) fn hold_until(&mut self, until: Instant) {
        self.not_before = self.not_before.max(until);
    }

    /// When the last write was done, if that is known.
    pub(super) const fn done_at(&self) -> Option<Instant> {
        self.done_at
    }

    fn fail(&mut self, now: Instant) {
        let delay = RETRY_DELAY_MIN.saturating_mul(1 << self.failures.min(16)).min(RETRY_DELAY_MAX);
        self.failures += 1;
        self.hold_until(now + delay);
    }
}

impl Agenda {
    /// The object should have this status; none: it is as it should be, or nobody's business.
    pub(super) fn set<S: PartialEq + Hash>(
        &mut self,
        target: &Target,
        draft: &mut Draft<S>,
        status: Option<S>,
        now: Instant,
    ) {
        let Some(wanted) = &status else {
            // What was to be written is there: the watch may show it before the answer to the write comes.
            if draft.place.is_some() {
                draft.done_at = Some(now);
            }
            return self.withdraw(draft);
        };
        let last = std::mem::replace(&mut draft.last, digest(wanted));
        if draft.place.is_none() {
            match draft.done_at {
                // What was written last is to be written again: somebody has undone it.
                Some(at) if now.since(at) < QUARREL_WINDOW && draft.last == last => draft.fail(now),
                Some(_) | None => draft.failures = 0,
            }
            self.place(target, draft, now);
        } else if draft.status.as_deref() != status.as_ref() {
            // An attempt that is under way is no longer the one that counts.
            self.sequence += 1;
            draft.attempt = self.sequence;
        }
        draft.status = status.map(Box::new);
    }

    fn place<S>(&mut self, target: &Target, draft: &mut Draft<S>, now: Instant) {
        self.sequence += 1;
        draft.attempt = self.sequence;
        let place = (draft.not_before.max(now), self.sequence);
        draft.place = Some(place);
        self.due.insert(place, target.clone());
    }

    /// Nothing is to be written to the object.
    pub(super) fn withdraw<S>(&mut self, draft: &mut Draft<S>) {
        (draft.status, draft.refusals) = (None, 0);
        if let Some(place) = draft.place.take() {
            self.due.remove(&place);
        }
    }

    /// An attempt was successful: the object counts as it should be until the watch shows it again. The answer is what was
    /// written; none where that attempt is no longer the one that counts.
    pub(super) fn done<S>(&mut self, draft: &mut Draft<S>, attempt: u64, now: Instant) -> Option<S> {
        if attempt != draft.attempt {
            return None;
        }
        draft.done_at = Some(now);
        let status = draft.status.take();
        self.withdraw(draft);
        status.map(|status| *status)
    }

    /// An attempt failed: another one follows later, if the object still needs it.
    pub(super) fn failed<S>(
        &mut self,
        target: &Target,
        draft: &mut Draft<S>,
        (attempt, outcome): (u64, Outcome),
        now: Instant,
    ) {
        if attempt != draft.attempt {
            return;
        }
        draft.refusals = draft.refusals.saturating_add(u32::from(outcome == Outcome::Refused));
        if let Some(place) = draft.place.take() {
            self.due.remove(&place);
            draft.fail(now);
            self.place(target, draft, now);
        }
    }

    /// What is due at `now`, the longest due first.
    pub(super) fn due(&self, now: Instant) -> impl Iterator<Item = &Target> {
        self.due.range(..=(now, u64::MAX)).map(|(_, target)| target)
    }

    /// When the next one becomes due after `now`.
    pub(super) fn deadline(&self, now: Instant) -> Option<Instant> {
        self.due.range((now, u64::MAX)..).next().map(|((at, _), _)| *at)
    }
}

/// Stands for a status, in little room.
fn digest(status: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    status.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Instant {
        Instant::from_millis(millis)
    }

    fn target(name: &str) -> Target {
        Target::Pool(name.into())
    }

    #[test]
    fn what_came_first_is_due_first_and_what_is_withdrawn_no_longer() {
        let (mut agenda, mut a, mut b) = (Agenda::default(), Draft::default(), Draft::default());
        agenda.set(&target("b"), &mut b, Some(1), at(1));
        agenda.set(&target("a"), &mut a, Some(1), at(1));
        agenda.set(&target("b"), &mut b, Some(1), at(2));
        assert_eq!(agenda.due(at(1)).collect::<Vec<_>>(), [&target("b"), &target("a")]);
        agenda.set(&target("b"), &mut b, None, at(2));
        assert_eq!(agenda.due(at(2)).collect::<Vec<_>>(), [&target("a")]);
    }

    #[test]
    fn an_attempt_that_was_overtaken_counts_for_nothing() {
        let (mut agenda, mut a) = (Agenda::default(), Draft::default());
        agenda.set(&target("a"), &mut a, Some(1), at(0));
        let (first, _) = a.write().unwrap();
        agenda.set(&target("a"), &mut a, Some(1), at(0));
        assert_eq!(a.write(), Some((first, &1)), "the same again is no new attempt");
        agenda.set(&target("a"), &mut a, Some(2), at(0));
        assert_eq!(agenda.done(&mut a, first, at(1)), None);
        agenda.failed(&target("a"), &mut a, (first, Outcome::Failed), at(1));
        assert_eq!(agenda.due(at(1)).count(), 1, "the other status is still due, at once");
        let (second, _) = a.write().unwrap();
        assert_eq!(agenda.done(&mut a, second, at(1)), Some(2));
        assert_eq!(agenda.due(at(1)).count(), 0);
    }

    #[test]
    fn a_write_is_done_when_the_object_shows_it_whether_or_not_the_answer_came() {
        let (mut agenda, mut a) = (Agenda::default(), Draft::default());
        agenda.set(&target("a"), &mut a, None::<u8>, at(0));
        assert_eq!(a.done_at(), None, "nothing was to be written");
        agenda.set(&target("a"), &mut a, Some(1), at(1));
        agenda.set(&target("a"), &mut a, None, at(2));
        assert_eq!((a.done_at(), agenda.due(at(2)).count()), (Some(at(2)), 0));
    }

    #[test]
    fn a_failure_waits_longer_each_time() {
        let (mut agenda, mut a) = (Agenda::default(), Draft::default());
        agenda.set(&target("a"), &mut a, Some(1), at(0));
        let mut now = at(0);
        for delay in [200, 400, 800, 1_600, 3_200, 6_400, 10_000, 10_000] {
            let (attempt, _) = a.write().unwrap();
            agenda.failed(&target("a"), &mut a, (attempt, Outcome::Failed), now);
            assert_eq!(agenda.due(now).count(), 0);
            assert_eq!(agenda.deadline(now), Some(now + Duration::from_millis(delay)));
            now = now + Duration::from_millis(delay);
            assert_eq!(agenda.due(now).count(), 1);
        }
    }

    #[test]
    fn what_somebody_undoes_is_written_again_ever_more_slowly() {
        let (mut agenda, mut a) = (Agenda::default(), Draft::default());
        let mut now = at(0);
        for delay in [0, 200, 400, 800] {
            agenda.set(&target("a"), &mut a, Some(1), now);
            let due = now + Duration::from_millis(delay);
            assert_eq!(agenda.due(due).count(), 1, "{delay}");
            assert_eq!(agenda.deadline(now), (delay > 0).then_some(due));
            let (attempt, _) = a.write().unwrap();
            assert_eq!(agenda.done(&mut a, attempt, due), Some(1));
            now = due;
        }
        a.renew();
        agenda.set(&target("a"), &mut a, Some(2), now);
        assert_eq!(agenda.due(now).count(), 1, "a new decision is no quarrel");
    }
}
