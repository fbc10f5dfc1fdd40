//! The ownership rule: which node takes a unit and when, which of two owners keeps it, and when an
//! owner releases it. Part of the claim machine of one interface.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::foreign::CONTEST_STAGGER;
use super::unit::{CONFLICT_INTERVAL, NodeView, UnitState, YieldSituation};
use super::{ClaimMachine, Output, Peer, STAGGER_MIN, STAGGER_OVER_INTERVAL};
use crate::Instant;
use crate::election::{Candidate, Unit, order};
use crate::wire::hello::{Flags, ReleaseReason};

/// How long an owner that is no longer a candidate keeps a unit that it cannot serve, if no peer
/// takes the unit.
const HOLD_USELESS: Duration = Duration::from_secs(1);
/// How long an owner that is no longer a candidate keeps a unit that it can still serve, if no peer
/// takes the unit. The time is longer, because the peers may not know of the change yet.
const HOLD_SERVING: Duration = Duration::from_secs(10);
/// Number of conflicts won against one peer after which the order alone decides, because the two
/// nodes have different views of the ranks.
const INSIST_MAX: u8 = 3;
/// A node that yields a unit within this time after taking it enters hold-down.
const TOO_SOON: Duration = Duration::from_secs(5);

/// When this node may take a unit that it does not own.
enum ClaimTime {
    Never,
    /// Not before this time, which is usually the end of the owner's preempt delay, unless
    /// something else changes.
    KeptUntil(Instant),
    /// After this many candidates with a better rank, each of which has one stagger of time.
    After(u32),
}

impl ClaimMachine {
    pub(super) fn set_units(&mut self, units: Vec<Arc<Unit>>, now: Instant) {
        let mut old = std::mem::take(&mut self.units);
        // `collect` builds the maps with full B-tree nodes; single inserts would leave them half
        // empty.
        let named = |unit: &Arc<Unit>| unit.addresses.first().copied();
        let all = units.iter().filter_map(|unit| Some((named(unit)?, unit)));
        let unit_of =
            all.flat_map(|(first, unit)| unit.addresses.iter().map(move |a| (*a, first))).collect();
        let old_unit_of = std::mem::replace(&mut self.unit_of, unit_of);
        let state = |unit: Arc<Unit>| {
            // The first address of a unit changes when a Service begins or ceases to share its
            // addresses. The state of the unit is kept.
            let before =
                unit.addresses.iter().find_map(|address| old.remove(old_unit_of.get(address)?));
            let before = before.unwrap_or_default();
            // A unit that a peer already claims has an owner, even if the unit has only now
            // appeared on this node. Taking such a unit counts as a move.
            let claims =
                |peer: &Peer| unit.addresses.iter().any(|address| peer.claims.contains(address));
            let was_held = before.was_held || self.peers.values().any(claims);
            Some((named(&unit)?, UnitState { unit, was_held, ..before }))
        };
        self.units = units.into_iter().filter_map(state).collect();
        let timer =
            |(first, state): (&IpAddr, &UnitState)| Some((state.story.as_ref()?.timer?, *first));
        self.timers = self.units.iter().filter_map(timer).collect();
        let is_gone = |address: &&IpAddr| !self.unit_of.contains_key(*address);
        let gone: Vec<_> = self.own.held.keys().filter(is_gone).copied().collect();
        self.release(&gone, ReleaseReason::HandedOver, now);
        self.orphans.retain(|address, _| self.unit_of.contains_key(address));
        self.own.dirty.all = true;
        self.update_failing(now);
    }

    /// Decides again on every unit that is marked dirty or whose timer has expired.
    pub(super) fn evaluate_all(&mut self, now: Instant) {
        let dirty = std::mem::take(&mut self.own.dirty);
        let mut units = std::mem::take(&mut self.units);
        if dirty.all {
            for (first, state) in &mut units {
                self.evaluate(*first, state, now);
            }
        } else {
            let due = self
                .timers
                .iter()
                .take_while(|(at, _)| dirty.waiting || *at <= now)
                .map(|(_, first)| *first);
            let named =
                dirty.addresses.iter().filter_map(|address| self.unit_of.get(address).copied());
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
            story.preempt_delay_until = None;
            story.conflict_hold_down_until =
                story.conflict_hold_down_until.filter(|until| now < *until);
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

    /// Updates the entry of a unit in [`ClaimMachine::timers`] to the unit's next deadline.
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
            story.release_at = None;
            if story.conflict_hold_down_until.is_some() {
                (story.pending, story.checks) = (None, None);
                return;
            }
        }
        let turn = match self.turn(state, now) {
            ClaimTime::Never => None,
            ClaimTime::KeptUntil(until) => {
                state.story().preempt_delay_until = Some(until);
                None
            }
            ClaimTime::After(count) => Some(count),
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
            // ARP probes from an earlier turn are outdated; they start again with the next turn.
            let story = state.story();
            (story.pending, story.checks) = (Some((since, due)), None);
            return;
        }
        if state.contested && !self.found_free(state, now) {
            // This node keeps its turn while it probes.
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
        state.record_own(now);
        self.own.decided.take.extend(&state.unit.addresses);
    }

    /// Probes a unit that a foreign host used; returns true once all probes were sent and no host
    /// has replied.
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

    /// Returns the time that each candidate waits for the candidate that ranks before it.
    pub(super) fn stagger(&self) -> Duration {
        STAGGER_MIN.max(self.config.hello_interval + STAGGER_OVER_INTERVAL)
    }

    fn evaluate_held(&mut self, state: &mut UnitState, now: Instant) {
        let candidate = self.me(&state.unit).candidate.is_some();
        if let Some(story) = &mut state.story {
            story.pending = None;
            story.release_at = story.release_at.filter(|_| !candidate);
        }
        self.go_on_checking(state, now);
        if candidate {
            if !self.own.flags.leaving {
                let missing = state
                    .unit
                    .addresses
                    .iter()
                    .filter(|address| !self.own.held.contains_key(*address));
                self.own.decided.take.extend(missing);
            }
            return;
        }
        let patience = if state.unit.can_serve_here { HOLD_SERVING } else { HOLD_USELESS };
        let lost = &mut state.story().release_at;
        if now >= *lost.get_or_insert(now + patience) {
            *lost = None;
            self.own.decided.refuse.extend(&state.unit.addresses);
        }
    }

    /// Returns when this node may take a unit that it does not own.
    fn turn(&self, state: &UnitState, now: Instant) -> ClaimTime {
        let unit = &state.unit;
        let me = self.me(unit);
        if !self.own.claims() || me.candidate.is_none() {
            return ClaimTime::Never;
        }
        if self.peers.values().any(|peer| peer.may_still_hold(&unit.addresses, now)) {
            return ClaimTime::KeptUntil(now + self.config.hello_interval);
        }
        let claims =
            |peer: &Peer| unit.addresses.iter().any(|address| peer.claims.contains(address));
        let holding = || self.peers.iter().filter(|(_, peer)| !peer.dead && claims(peer));
        let holders = holding().map(|(name, _)| self.seen(name, unit.candidate(name), unit));
        let best = holders.min_by_key(|holder| holder.sort_key(unit, true));
        let taker = NodeView { failing: self.own.failing.counts_for(unit), ..me };
        // After yielding, this node leaves the unit to an owner that is neither leaving nor
        // isolated, until something changes. Exception, if the views did not differ: the owner is
        // no candidate, or reports failing health checks for more addresses than this node.
        let yielded = state.story.as_ref().and_then(|story| story.yielded());
        let over = |then: YieldSituation, first| {
            best.as_ref().is_some_and(|holder| then.is_over(&taker, holder, first))
        };
        let yielded = yielded.filter(|(then, first)| !over(*then, *first)).map(|(then, _)| then);
        if let Some(holder) = &best {
            let stays = holding().any(|(_, peer)| !(peer.flags.leaving || peer.flags.isolated));
            let serves = holder.candidate.is_some() && holder.failing <= taker.failing;
            let leaves_it = stays && yielded.is_some_and(|then| then.differs || serves);
            if !taker.may_take_from(holder, unit, false) || leaves_it {
                return ClaimTime::Never;
            }
        }
        let kept_until =
            best.as_ref().and_then(|holder| self.kept_until(holder.name, &unit.addresses));
        let kept = kept_until.filter(|until| now < *until);
        if let (Some(holder), Some(until)) = (&best, kept)
            && !taker.may_take_from(holder, unit, true)
        {
            return ClaimTime::KeptUntil(until);
        }
        // Two nodes whose views differ may each rank the other one higher, and would take and yield
        // the unit in lockstep. After yielding, this node therefore compares only self-reported
        // state, on which views do not differ.
        let line = |seen: &NodeView<'_>| {
            if yielded.is_some() { seen.self_reported_key() } else { seen.sort_key(unit, true) }
        };
        let mine = line(&me);
        let before_us = |candidate: &&Candidate| {
            let other = self.seen(&candidate.node, Some(candidate), unit);
            other.candidate.is_some()
                && best
                    .as_ref()
                    .is_none_or(|holder| other.may_take_from(holder, unit, kept.is_some()))
                && line(&other) < mine
        };
        // An isolated node does not receive the claims of better candidates, so it does not wait
        // for them.
        let waits_for = if self.own.flags.isolated {
            0
        } else {
            unit.candidates.iter().filter(before_us).count()
        };
        ClaimTime::After(u32::try_from(waits_for).unwrap_or(u32::MAX))
    }

    fn me<'a>(&'a self, unit: &'a Unit) -> NodeView<'a> {
        self.seen(&self.config.node, unit.candidate(&self.config.node), unit)
    }

    /// Returns a node with the API facts and flags that rank it for a unit. They are absent if the
    /// node fails a hard rule that depends on hellos: a peer that is isolated or has refused the
    /// unit is no candidate. This node remains a candidate even if isolated, because it may be the
    /// only node left.
    fn seen<'a>(
        &'a self,
        name: &'a str,
        candidate: Option<&'a Candidate>,
        unit: &Unit,
    ) -> NodeView<'a> {
        let passes = |flags: &Flags| {
            let refuses = |peer: &Peer| {
                unit.addresses.iter().any(|address| peer.refused.contains_key(address))
            };
            let deaf = flags.isolated && *name != *self.config.node;
            !deaf && !self.peers.get(name).is_some_and(refuses)
        };
        let candidate =
            candidate.and_then(|candidate| Some((candidate, self.flags_of(name).filter(passes)?)));
        NodeView { name, candidate, failing: self.fails(name, unit) }
    }

    /// Returns the flags of a node; `None` if no live peer has this name.
    fn flags_of(&self, node: &str) -> Option<Flags> {
        if *node == *self.config.node {
            return Some(self.own.flags);
        }
        self.peers.get(node).filter(|peer| !peer.dead).map(|peer| peer.flags)
    }

    /// Handles a peer's claim for addresses that this node owns: the node with the better rank
    /// keeps the addresses.
    pub(super) fn conflict(&mut self, peer: &str, addresses: &[IpAddr], now: Instant) {
        let units: BTreeSet<_> =
            addresses.iter().filter_map(|address| self.unit_of.get(address).copied()).collect();
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
        // A node reports in its flags that it is isolated or leaving. Whatever the ranks are, such
        // a node yields to a node that is neither, and never the other way round.
        let says = self.peers.get(peer).map(|peer| peer.flags).unwrap_or_default();
        let own_word = |flags: Flags| (flags.isolated, flags.leaving);
        let by_word = own_word(says).cmp(&own_word(self.own.flags));
        let peer_is_better =
            by_word.then_with(|| them.sort_key(&unit, true).cmp(&us.sort_key(&unit, true))).is_lt();
        let softs = [&us, &them].map(NodeView::soft);
        let story = state.story();
        let insisted = story.conflicts_won.entry(peer.into()).or_insert(0);
        // An isolated peer receives no claims and cannot yield, so its claims do not indicate a
        // different view.
        *insisted = insisted.saturating_add(u8::from(!peer_is_better && !says.isolated));
        let views_differ = *insisted >= INSIST_MAX
            && by_word.is_eq()
            && order(peer, *first) < order(&self.config.node, *first);
        if !peer_is_better && !views_differ {
            let rest = story.defended.is_some_and(|at| now.since(at) < CONFLICT_INTERVAL);
            if !rest {
                story.defended = Some(now);
                self.outputs.extend(ours.iter().map(|address| Output::AnnounceSeries(*address)));
            }
            if !rest || *insisted <= INSIST_MAX {
                self.own.decided.insist.extend(ours);
            }
            // The peer's claim has recorded the peer as the owner, but this node keeps the unit.
            state.owned_last = true;
            return;
        }
        story.conflicts_won.remove(peer);
        if views_differ || now.since(since) < TOO_SOON {
            story.back_off(
                YieldSituation { differs: views_differ, us: softs[0], them: softs[1] },
                now,
            );
        }
        let decided = &mut self.own.decided;
        if candidate { decided.hand_over.extend(ours) } else { decided.refuse.extend(ours) }
    }

    pub(super) fn forget_insistence(&mut self, peer: &str, address: IpAddr) {
        let state = self.unit_of.get(&address).and_then(|first| self.units.get_mut(first));
        if let Some(story) = state.and_then(|state| state.story.as_mut()) {
            story.conflicts_won.remove(peer);
        }
    }
}
