//! The one rule: who takes a unit and when, who keeps it when two claim it, and when a holder stops.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::foreign::CONTEST_STAGGER;
use super::unit::{INSIST_EVERY, Seen, UnitState, Yielded};
use super::{Claims, Output, Peer, STAGGER_MIN, STAGGER_OVER_INTERVAL};
use crate::Instant;
use crate::election::{Candidate, Unit, order};
use crate::wire::hello::{Flags, Release};

/// How long a holder that is no candidate any more goes on where it cannot serve anyway.
const HOLD_USELESS: Duration = Duration::from_secs(1);
/// The same where it still serves: the others' views may lag.
const HOLD_SERVING: Duration = Duration::from_secs(10);
/// After this many claims against each other the plain order decides: the two views differ.
const INSIST_MAX: u8 = 3;
/// Who stops for another's claim this soon after taking a unit backs off from it.
const TOO_SOON: Duration = Duration::from_secs(5);

/// When a unit that we do not hold is ours to take.
enum Turn {
    Never,
    /// Not before then, unless something else changes.
    KeptUntil(Instant),
    /// After so many others.
    After(u32),
}

impl Claims {
    pub(super) fn set_units(&mut self, units: Vec<Arc<Unit>>, now: Instant) {
        let mut old = std::mem::take(&mut self.units);
        // Collected, not inserted one by one: that fills the maps' nodes.
        let named = |unit: &Arc<Unit>| unit.addresses.first().copied();
        let all = units.iter().filter_map(|unit| Some((named(unit)?, unit)));
        let unit_of = all.flat_map(|(first, unit)| unit.addresses.iter().map(move |a| (*a, first))).collect();
        let old_unit_of = std::mem::replace(&mut self.unit_of, unit_of);
        let state = |unit: Arc<Unit>| {
            // Services that join or part change which address comes first; what is known of the unit stays.
            let before = unit.addresses.iter().find_map(|address| old.remove(old_unit_of.get(address)?));
            let before = before.unwrap_or_default();
            // Who learns of it later than its holder does takes it as the second: that is a move.
            let claims = |peer: &Peer| unit.addresses.iter().any(|address| peer.claims.contains(address));
            let was_held = before.was_held || self.peers.values().any(claims);
            Some((named(&unit)?, UnitState { unit, was_held, ..before }))
        };
        self.units = units.into_iter().filter_map(state).collect();
        let timer = |(first, state): (&IpAddr, &UnitState)| Some((state.story.as_ref()?.timer?, *first));
        self.timers = self.units.iter().filter_map(timer).collect();
        let is_gone = |address: &&IpAddr| !self.unit_of.contains_key(*address);
        let gone: Vec<_> = self.own.held.keys().filter(is_gone).copied().collect();
        self.release(&gone, Release::HandedOver, now);
        self.orphans.retain(|address, _| self.unit_of.contains_key(address));
        self.own.dirty.all = true;
        self.look_what_fails(now);
    }

    /// Looks at every unit that something happened to, or whose time has come.
    pub(super) fn evaluate_all(&mut self, now: Instant) {
        let dirty = std::mem::take(&mut self.own.dirty);
        let mut units = std::mem::take(&mut self.units);
        if dirty.all {
            for (first, state) in &mut units {
                self.evaluate(*first, state, now);
            }
        } else {
            let due = self.timers.iter().take_while(|(at, _)| dirty.waiting || *at <= now).map(|(_, first)| *first);
            let named = dirty.addresses.iter().filter_map(|address| self.unit_of.get(address).copied());
            for first in due.chain(named).collect::<BTreeSet<_>>() {
                if let Some(state) = units.get_mut(&first) {
                    self.evaluate(first, state, now);
                }
            }
        }
        self.units = units;
    }

    fn evaluate(&mut self, first: IpAddr, state: &mut UnitState, now: Instant) {
        if let Some(story) = &mut state.story {
            story.back_off = story.back_off.filter(|(until, _)| now < *until);
            story.kept = None;
            story.shunned = story.shunned.filter(|until| now < *until);
            story.forget_moves(now);
        }
        if state.unit.addresses.iter().any(|address| self.own.held.contains_key(address)) {
            self.evaluate_held(state, now);
        } else {
            self.evaluate_free(state, now);
        }
        self.set_timer(first, state);
        state.story.take_if(|story| story.is_over(now));
    }

    /// Keeps [`Claims::timers`] in step with a unit's story.
    fn set_timer(&mut self, first: IpAddr, state: &mut UnitState) {
        let Some(story) = &mut state.story else { return };
        let timer = story.deadline();
        if timer != story.timer {
            self.timers.extend(timer.map(|at| (at, first)));
            if let Some(before) = std::mem::replace(&mut story.timer, timer) {
                self.timers.remove(&(before, first));
            }
        }
    }

    fn evaluate_free(&mut self, state: &mut UnitState, now: Instant) {
        if let Some(story) = &mut state.story {
            story.lost = None;
            if story.shunned.is_some() {
                (story.pending, story.checks) = (None, None);
                return;
            }
        }
        let turn = match self.turn(state, now) {
            Turn::Never => None,
            Turn::KeptUntil(until) => {
                state.story().kept = Some(until);
                None
            }
            Turn::After(count) => Some(count),
        };
        let Some(turn) = turn else {
            if let Some(story) = &mut state.story {
                (story.pending, story.checks) = (None, None);
            }
            return;
        };
        let pending = state.story.as_ref().and_then(|story| story.pending);
        let since = pending.map_or(now, |(since, _)| since);
        let stagger = if state.contested { CONTEST_STAGGER } else { self.stagger() };
        let due = since + stagger * turn;
        if now < due {
            // What may have been asked while it was our turn is asked anew when it is again.
            let story = state.story();
            (story.pending, story.checks) = (Some((since, due)), None);
            return;
        }
        if state.contested && !self.found_free(state, now) {
            // It stays our turn while we ask.
            let next = state.story().checks.map_or(due, |checks| checks.next);
            state.story().pending = Some((since, next));
            return;
        }
        if let Some(story) = &mut state.story {
            story.pending = None;
        }
        if !state.was_held && !state.contested {
            self.begin_checking(state, now);
        }
        state.is_ours(now);
        self.own.decided.take.extend(&state.unit.addresses);
    }

    /// Asks for a unit that a stranger had; true once nobody has answered.
    fn found_free(&mut self, state: &mut UnitState, now: Instant) -> bool {
        if state.story().checks.is_none() {
            self.begin_checking(state, now);
        }
        let free = self.go_on_checking(state, now);
        state.contested = !free;
        if free {
            for address in &state.unit.addresses {
                self.troubles.remove(address);
            }
        }
        free
    }

    /// How long the next in line waits for the one before it.
    pub(super) fn stagger(&self) -> Duration {
        STAGGER_MIN.max(self.config.hello_interval + STAGGER_OVER_INTERVAL)
    }

    fn evaluate_held(&mut self, state: &mut UnitState, now: Instant) {
        let candidate = self.me(&state.unit).candidate.is_some();
        if let Some(story) = &mut state.story {
            story.pending = None;
            story.lost = story.lost.filter(|_| !candidate);
        }
        self.go_on_checking(state, now);
        if candidate {
            if !self.own.flags.leaving {
                let missing = state.unit.addresses.iter().filter(|address| !self.own.held.contains_key(*address));
                self.own.decided.take.extend(missing);
            }
            return;
        }
        let patience = if state.unit.serves_here { HOLD_SERVING } else { HOLD_USELESS };
        let lost = &mut state.story().lost;
        if now >= *lost.get_or_insert(now + patience) {
            *lost = None;
            self.own.decided.refuse.extend(&state.unit.addresses);
        }
    }

    /// When it is our turn to take a unit that we do not hold.
    fn turn(&self, state: &UnitState, now: Instant) -> Turn {
        let unit = &state.unit;
        let me = self.me(unit);
        if !self.own.claims() || me.candidate.is_none() {
            return Turn::Never;
        }
        if self.peers.values().any(|peer| peer.may_still_hold(&unit.addresses, now)) {
            return Turn::KeptUntil(now + self.config.hello_interval);
        }
        let claims = |peer: &Peer| unit.addresses.iter().any(|address| peer.claims.contains(address));
        let holding = || self.peers.iter().filter(|(_, peer)| !peer.dead && claims(peer));
        let holders = holding().map(|(name, _)| self.seen(name, unit.candidate(name), unit));
        let best = holders.min_by_key(|holder| holder.standing(unit, true));
        let taker = Seen { failing: self.own.failing.counts_for(unit), ..me };
        // Who has just yielded leaves it alone, so that it does not go to and fro: while things are as they were, and the holder can serve and does not
        // say itself that its clients are refused.
        let yielded = state.story.as_ref().and_then(|story| story.yielded());
        let over = |then: Yielded, first| best.as_ref().is_some_and(|holder| then.is_over(&taker, holder, first));
        let yielded = yielded.filter(|(then, first)| !over(*then, *first)).map(|(then, _)| then);
        if let Some(holder) = &best {
            let stays = holding().any(|(_, peer)| !(peer.flags.leaving || peer.flags.deaf));
            let serves = holder.candidate.is_some() && holder.failing <= taker.failing;
            let leaves_it = stays && yielded.is_some_and(|then| then.differs || serves);
            if !taker.may_take_from(holder, unit, false) || leaves_it {
                return Turn::Never;
            }
        }
        let kept_until = best.as_ref().and_then(|holder| self.kept_until(holder.name, &unit.addresses));
        let kept = kept_until.filter(|until| now < *until);
        if let (Some(holder), Some(until)) = (&best, kept)
            && !taker.may_take_from(holder, unit, true)
        {
            return Turn::KeptUntil(until);
        }
        // Two of whom each thinks the other better would take it and yield together, again and again: who has just yielded goes by
        // what nodes say of themselves, on which views do not differ.
        let line = |seen: &Seen<'_>| if yielded.is_some() { seen.own_word() } else { seen.standing(unit, true) };
        let mine = line(&me);
        let before_us = |candidate: &&Candidate| {
            let other = self.seen(&candidate.node, Some(candidate), unit);
            other.candidate.is_some()
                && best.as_ref().is_none_or(|holder| other.may_take_from(holder, unit, kept.is_some()))
                && line(&other) < mine
        };
        // A deaf node would not hear those before it claim.
        let waits_for = if self.own.flags.deaf { 0 } else { unit.candidates.iter().filter(before_us).count() };
        Turn::After(u32::try_from(waits_for).unwrap_or(u32::MAX))
    }

    fn me<'a>(&'a self, unit: &'a Unit) -> Seen<'a> {
        self.seen(&self.config.node, unit.candidate(&self.config.node), unit)
    }

    /// A node with what the API says of it; the hello's hard rules are looked at here. Another node
    /// that is deaf is no candidate; this node stays one, as it may be the last.
    fn seen<'a>(&'a self, name: &'a str, candidate: Option<&'a Candidate>, unit: &Unit) -> Seen<'a> {
        let passes = |flags: &Flags| {
            let refuses = |peer: &Peer| unit.addresses.iter().any(|address| peer.refused.contains_key(address));
            let deaf = flags.deaf && *name != *self.config.node;
            !deaf && !self.peers.get(name).is_some_and(refuses)
        };
        let candidate = candidate.and_then(|candidate| Some((candidate, self.flags_of(name).filter(passes)?)));
        Seen { name, candidate, failing: self.fails(name, unit) }
    }

    /// What a node says of itself; none if it is not heard.
    fn flags_of(&self, node: &str) -> Option<Flags> {
        if *node == *self.config.node {
            return Some(self.own.flags);
        }
        self.peers.get(node).filter(|peer| !peer.dead).map(|peer| peer.flags)
    }

    /// A member claims addresses that we hold: the better rank keeps them.
    pub(super) fn conflict(&mut self, peer: &str, addresses: &[IpAddr], now: Instant) {
        let units: BTreeSet<_> = addresses.iter().filter_map(|address| self.unit_of.get(address).copied()).collect();
        for first in units {
            if let Some(mut state) = self.units.remove(&first) {
                self.counts.conflicts += 1;
                self.settle_conflict(peer, &mut state, now);
                self.set_timer(first, &mut state);
                self.units.insert(first, state);
                self.own.dirty.addresses.insert(first);
            }
        }
    }

    fn settle_conflict(&mut self, peer: &str, state: &mut UnitState, now: Instant) {
        let unit = Arc::clone(&state.unit);
        let held = |address: &&IpAddr| self.own.held.contains_key(*address);
        let ours: Vec<_> = unit.addresses.iter().filter(held).copied().collect();
        let Some(first) = ours.first() else { return };
        let since = self.own.held.get(first).copied().unwrap_or(now);
        let (us, them) = (self.me(&unit), self.seen(peer, unit.candidate(peer), &unit));
        let candidate = us.candidate.is_some();
        // A node that is deaf or leaving says so itself: whatever the views of the rest are, it
        // yields to one that is not, and never the other way round.
        let says = self.peers.get(peer).map(|peer| peer.flags).unwrap_or_default();
        let own_word = |flags: Flags| (flags.deaf, flags.leaving);
        let by_word = own_word(says).cmp(&own_word(self.own.flags));
        let peer_is_better = by_word.then_with(|| them.standing(&unit, true).cmp(&us.standing(&unit, true))).is_lt();
        let softs = [&us, &them].map(Seen::soft);
        let story = state.story();
        let insisted = story.insisted.entry(peer.into()).or_insert(0);
        // A deaf node cannot yield: that says nothing of its view.
        *insisted = insisted.saturating_add(u8::from(!peer_is_better && !says.deaf));
        let views_differ =
            *insisted >= INSIST_MAX && by_word.is_eq() && order(peer, *first) < order(&self.config.node, *first);
        if !peer_is_better && !views_differ {
            let rest = story.defended.is_some_and(|at| now.since(at) < INSIST_EVERY);
            if !rest {
                story.defended = Some(now);
                self.outputs.extend(ours.iter().map(|address| Output::Refresh(*address)));
            }
            if !rest || *insisted <= INSIST_MAX {
                self.own.decided.insist.extend(ours);
            }
            // Whoever else claims it.
            state.ours = true;
            return;
        }
        story.insisted.remove(peer);
        if views_differ || now.since(since) < TOO_SOON {
            story.back_off(Yielded { differs: views_differ, us: softs[0], them: softs[1] }, now);
        }
        let decided = &mut self.own.decided;
        if candidate { decided.hand_over.extend(ours) } else { decided.refuse.extend(ours) }
    }

    pub(super) fn forget_insistence(&mut self, peer: &str, address: IpAddr) {
        let state = self.unit_of.get(&address).and_then(|first| self.units.get_mut(first));
        if let Some(story) = state.and_then(|state| state.story.as_mut()) {
            story.insisted.remove(peer);
        }
    }
}
