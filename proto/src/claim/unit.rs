//! A unit as this node knows it: what is under way with it, and how its candidates stand.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::foreign::Checks;
use crate::Instant;
use crate::election::{CLEAN, Candidate, Rank, Soft, Unit, order, rank, soft};
use crate::wire::hello::Flags;

/// Against a member that does not yield we insist, and tell the wire, at most this often (RFC 5227's DEFEND_INTERVAL).
pub(super) const INSIST_EVERY: Duration = Duration::from_secs(10);
const BACK_OFF_MIN: Duration = Duration::from_secs(10);
const BACK_OFF_MAX: Duration = Duration::from_secs(300);
/// After this long without a back-off the next one is short again.
const BACK_OFF_FORGOTTEN: Duration = Duration::from_secs(600);

/// Memory counts here: there may be ten thousand.
#[derive(Debug, Default)]
pub(super) struct UnitState {
    pub(super) unit: Arc<Unit>,
    /// Somebody held it since we know it.
    pub(super) was_held: bool,
    /// We held it last.
    pub(super) ours: bool,
    /// A stranger had it when it was last looked at: who takes it asks first.
    pub(super) contested: bool,
    /// None as long as nothing is expected to happen to it, which is the rule.
    pub(super) story: Option<Box<Story>>,
}

/// What is under way with a unit.
#[derive(Debug, Default)]
pub(super) struct Story {
    /// Since when it could be ours to take, and when we take it.
    pub(super) pending: Option<(Instant, Instant)>,
    /// When we stop, although nobody took it from us.
    pub(super) lost: Option<Instant>,
    /// How often we insisted against each peer that claimed what we hold.
    pub(super) insisted: BTreeMap<Box<str>, u8>,
    /// When we last told the wire because of a conflict.
    pub(super) defended: Option<Instant>,
    /// Until when we leave it with a live holder, unless things have changed since we yielded.
    pub(super) back_off: Option<(Instant, Yielded)>,
    /// When we last backed off, and for how long.
    pub(super) backed_off: Option<(Instant, Duration)>,
    /// Until when it is left with its holder although a better node is here.
    pub(super) kept: Option<Instant>,
    /// Until when nobody of us takes it, although it is free.
    pub(super) shunned: Option<Instant>,
    /// The questions whether a stranger has it, while they are asked.
    pub(super) checks: Option<Checks>,
    /// When it changed hands of late, ascending.
    pub(super) moves: Vec<Instant>,
    /// The timer that is set for it.
    pub(super) timer: Option<Instant>,
}

/// How things stood, in our view, when we yielded a unit and backed off from it. Who is no candidate has no [`Soft`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Yielded {
    /// The holder thought otherwise of who is better.
    pub(super) differs: bool,
    /// What spoke against us, and against who got it.
    pub(super) us: Option<Soft>,
    pub(super) them: Option<Soft>,
}

impl Yielded {
    /// Things have changed since: it is not the to and fro that a back-off is against. The holder is no candidate any more; or, the `first` time, more
    /// speaks against it, or less against us, which where views differ is no news to it.
    pub(super) fn is_over(self, us: &Seen<'_>, holder: &Seen<'_>, first: bool) -> bool {
        let gone = self.them.is_some() && holder.candidate.is_none();
        let worse = self.them.zip(holder.soft()).is_some_and(|(then, soft)| soft > then);
        let better = us.soft().is_some_and(|soft| self.us.is_none_or(|then| soft < then));
        gone || (first && (worse || (better && !self.differs)))
    }
}

impl Story {
    pub(super) fn deadline(&self) -> Option<Instant> {
        let due = self.pending.map(|(_, due)| due);
        let checks = self.checks.map(|checks| checks.next);
        let others = [self.lost, self.back_off.map(|(until, _)| until), self.kept, self.shunned, checks];
        others.into_iter().flatten().chain(due).min()
    }

    pub(super) fn back_off(&mut self, yielded: Yielded, now: Instant) {
        let again = self.backed_off.filter(|(at, wait)| now.since(*at) < *wait + BACK_OFF_FORGOTTEN);
        let wait = again.map_or(BACK_OFF_MIN, |(_, wait)| (wait * 2).min(BACK_OFF_MAX));
        self.backed_off = Some((now, wait));
        self.back_off = Some((now + wait, yielded));
    }

    /// How things stood when we backed off, while we do; and whether that was the first time of late.
    pub(super) fn yielded(&self) -> Option<(Yielded, bool)> {
        let first = self.backed_off.is_some_and(|(_, wait)| wait == BACK_OFF_MIN);
        self.back_off.map(|(_, then)| (then, first))
    }

    /// Nothing in it is of any use any more.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        let forgotten = |(at, wait): (Instant, Duration)| now.since(at) >= wait + BACK_OFF_FORGOTTEN;
        self.deadline().is_none()
            && self.insisted.is_empty()
            && self.moves.is_empty()
            && self.defended.is_none_or(|at| now.since(at) >= INSIST_EVERY)
            && self.backed_off.is_none_or(forgotten)
    }
}

impl UnitState {
    pub(super) fn story(&mut self) -> &mut Story {
        self.story.get_or_insert_default()
    }
}

/// A node as a unit sees it: with the API's facts and its own flags where it passes every hard rule.
#[derive(Clone, Copy)]
pub(super) struct Seen<'a> {
    pub(super) name: &'a str,
    pub(super) candidate: Option<(&'a Candidate, Flags)>,
    /// For how many of the unit's addresses its health checks fail, as it says itself.
    pub(super) failing: u8,
}

impl Seen<'_> {
    /// Less is better; whoever is no candidate comes after all that are, by plain order.
    pub(super) fn standing(&self, unit: &Unit, count_fresh: bool) -> (Option<u128>, Option<Rank>) {
        match (self.candidate, unit.addresses.first()) {
            (Some((candidate, flags)), _) => (None, Some(rank(candidate, flags, self.failing, count_fresh))),
            (None, first) => (Some(first.map_or(u128::MAX, |address| order(self.name, *address))), None),
        }
    }

    /// The same without what the API says of it.
    pub(super) fn own_word(&self) -> (Option<u128>, Option<Rank>) {
        let alone = |candidate: &Candidate| Candidate { order: candidate.order, ..Candidate::default() };
        (None, self.candidate.map(|(candidate, flags)| rank(&alone(candidate), flags, self.failing, true)))
    }

    pub(super) fn flags(&self) -> Flags {
        self.candidate.map(|(_, flags)| flags).unwrap_or_default()
    }

    pub(super) fn soft(&self) -> Option<Soft> {
        self.candidate.map(|(candidate, flags)| soft(candidate, flags, self.failing))
    }

    /// Whether it may take the unit from a live holder, which may ask that it is `kept` where it is. A fresh node, one that any soft
    /// rule speaks against, and every node while it is kept, takes only where the soft rules before freshness alone decide, or
    /// from a holder that is no candidate: a return must not move what works, nor does order where no node is sound.
    pub(super) fn may_take_from(&self, holder: &Self, unit: &Unit, kept: bool) -> bool {
        self.standing(unit, false) < holder.standing(unit, false)
            && (!(kept || self.flags().fresh || self.soft() != Some(CLEAN))
                || holder.candidate.is_none()
                || self.soft() < holder.soft())
    }
}
