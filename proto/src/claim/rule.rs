//! The one rule: who takes a unit and when, who keeps it when two claim it, and when a holder stops.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use super::{Claims, Output, STAGGER_MIN, STAGGER_OVER_INTERVAL};
use crate::Instant;
use crate::election::{Candidate, Rank, Unit, order, rank, soft};
use crate::wire::hello::Flags;

/// How long a holder that is no candidate any more goes on where it cannot serve anyway.
const HOLD_USELESS: Duration = Duration::from_secs(1);
/// The same where it still serves: the others' views may lag.
const HOLD_SERVING: Duration = Duration::from_secs(10);
/// After this many claims against each other the plain order decides: the two views differ.
const INSIST_MAX: u8 = 3;
/// Against a member that does not yield we insist, and tell the wire, at most this often (RFC 5227's DEFEND_INTERVAL).
const INSIST_EVERY: Duration = Duration::from_secs(10);
/// Who stops for another's claim this soon after taking a unit backs off from it.
const TOO_SOON: Duration = Duration::from_secs(5);
const BACK_OFF_MIN: Duration = Duration::from_secs(10);
const BACK_OFF_MAX: Duration = Duration::from_secs(300);
/// After this long without a back-off the next one is short again.
const BACK_OFF_FORGOTTEN: Duration = Duration::from_secs(600);

#[derive(Debug, Default)]
pub(super) struct UnitState {
    unit: Unit,
    /// Since when it could be ours to take, and when we take it.
    pending: Option<(Instant, Instant)>,
    /// When we stop, although nobody took it from us.
    lost: Option<Instant>,
    /// How often we insisted against each peer.
    insisted: BTreeMap<Box<str>, u8>,
    /// When we last told the wire because of a conflict.
    defended: Option<Instant>,
    /// Until when we take it from no live holder.
    back_off: Option<Instant>,
    /// When we last backed off, and for how long.
    backed_off: Option<(Instant, Duration)>,
}

impl UnitState {
    pub(super) fn deadline(&self) -> Option<Instant> {
        let due = self.pending.map(|(_, due)| due);
        due.into_iter().chain(self.lost).chain(self.back_off).min()
    }

    fn back_off(&mut self, now: Instant) {
        let again = self.backed_off.filter(|(at, wait)| now.since(*at) < *wait + BACK_OFF_FORGOTTEN);
        let wait = again.map_or(BACK_OFF_MIN, |(_, wait)| (wait * 2).min(BACK_OFF_MAX));
        self.backed_off = Some((now, wait));
        self.back_off = Some(now + wait);
    }
}

impl Claims {
    pub(super) fn set_units(&mut self, units: Vec<Unit>, now: Instant) {
        let mut old = std::mem::take(&mut self.units);
        self.unit_of.clear();
        for unit in units {
            let Some(first) = unit.addresses.first().copied() else { continue };
            self.unit_of.extend(unit.addresses.iter().map(|address| (*address, first)));
            let state = old.remove(&first).unwrap_or_default();
            self.units.insert(first, UnitState { unit, ..state });
        }
        let is_gone = |address: &&IpAddr| !self.unit_of.contains_key(*address);
        let gone: Vec<_> = self.own.held.keys().filter(is_gone).copied().collect();
        self.release(&gone, false, now);
        self.own.dirty.all = true;
    }

    /// Looks at every unit that something happened to, or whose time has come.
    pub(super) fn evaluate_all(&mut self, now: Instant) {
        let dirty = std::mem::take(&mut self.own.dirty);
        let touched: BTreeSet<_> = dirty.addresses.iter().filter_map(|a| self.unit_of.get(a).copied()).collect();
        let mut units = std::mem::take(&mut self.units);
        for (first, state) in &mut units {
            let due = state.deadline().is_some_and(|at| now >= at);
            if dirty.all || due || touched.contains(first) {
                self.evaluate(state, now);
            }
        }
        self.units = units;
    }

    fn evaluate(&mut self, state: &mut UnitState, now: Instant) {
        state.back_off = state.back_off.filter(|until| now < *until);
        if state.unit.addresses.iter().any(|address| self.own.held.contains_key(address)) {
            state.pending = None;
            self.evaluate_held(state, now);
            return;
        }
        state.lost = None;
        let Some(turn) = self.turn(state) else {
            state.pending = None;
            return;
        };
        let stagger = STAGGER_MIN.max(self.config.hello_interval + STAGGER_OVER_INTERVAL);
        let since = state.pending.map_or(now, |(since, _)| since);
        let due = since + stagger * turn;
        state.pending = Some((since, due));
        if now >= due {
            state.pending = None;
            self.own.decided.take.extend(&state.unit.addresses);
        }
    }

    fn evaluate_held(&mut self, state: &mut UnitState, now: Instant) {
        if self.is_candidate(&self.config.node, &state.unit) {
            state.lost = None;
            if !self.own.flags.leaving {
                let missing = state.unit.addresses.iter().filter(|address| !self.own.held.contains_key(*address));
                self.own.decided.take.extend(missing);
            }
            return;
        }
        let patience = if state.unit.serves_here { HOLD_SERVING } else { HOLD_USELESS };
        if now >= *state.lost.get_or_insert(now + patience) {
            state.lost = None;
            self.own.decided.refuse.extend(&state.unit.addresses);
        }
    }

    /// How many may take the unit before us; none if we may not.
    fn turn(&self, state: &UnitState) -> Option<u32> {
        let unit = &state.unit;
        let me = &*self.config.node;
        if !self.own.claims() || !self.is_candidate(me, unit) {
            return None;
        }
        let claims = |peer: &super::Peer| unit.addresses.iter().any(|address| peer.claims.contains(address));
        let holders = self.peers.iter().filter(|(_, peer)| !peer.dead && claims(peer)).map(|(name, _)| &**name);
        let best = holders.min_by_key(|name| self.standing(name, unit, true));
        if let Some(holder) = best {
            let leaving = self.flags_of(holder).is_some_and(|flags| flags.leaving);
            if !self.may_take(me, holder, unit) || (state.back_off.is_some() && !leaving) {
                return None;
            }
        }
        let may = |candidate: &&Candidate| {
            let name = &*candidate.node;
            self.is_candidate(name, unit) && best.is_none_or(|holder| self.may_take(name, holder, unit))
        };
        let mine = self.standing(me, unit, true);
        let before = unit.candidates.iter().filter(may).filter(|c| self.standing(&c.node, unit, true) < mine).count();
        u32::try_from(before).ok()
    }

    /// Whether `node` may take the unit from a live holder. A fresh node takes only where the soft rules before freshness
    /// alone decide, or from a holder that is no candidate: its return must not move what works.
    fn may_take(&self, node: &str, holder: &str, unit: &Unit) -> bool {
        if self.standing(node, unit, false) >= self.standing(holder, unit, false) {
            return false;
        }
        let fresh = self.flags_of(node).is_some_and(|flags| flags.fresh);
        let soft = |name: &str| Some(soft(unit.candidate(name)?, self.flags_of(name)?));
        !fresh || !self.is_candidate(holder, unit) || soft(node) < soft(holder)
    }

    /// What a node says of itself; none if it is not heard.
    fn flags_of(&self, node: &str) -> Option<Flags> {
        if *node == *self.config.node {
            return Some(self.own.flags);
        }
        self.peers.get(node).filter(|peer| !peer.dead).map(|peer| peer.flags)
    }

    /// Whether a node passes every hard rule: the API's (it is in the unit's list) and the hello's.
    fn is_candidate(&self, node: &str, unit: &Unit) -> bool {
        let refuses = |peer: &super::Peer| unit.addresses.iter().any(|address| peer.refused.contains_key(address));
        unit.candidate(node).is_some()
            && self.flags_of(node).is_some_and(|flags| !flags.deaf)
            && !self.peers.get(node).is_some_and(refuses)
    }

    /// Less is better; whoever is no candidate comes after all that are, by plain order.
    fn standing(&self, node: &str, unit: &Unit, count_fresh: bool) -> (Option<u128>, Option<Rank>) {
        let first = unit.addresses.first().copied().filter(|_| !self.is_candidate(node, unit));
        match (first, unit.candidate(node), self.flags_of(node)) {
            (None, Some(candidate), Some(flags)) => (None, Some(rank(candidate, flags, count_fresh))),
            (first, ..) => (Some(first.map_or(u128::MAX, |address| order(node, address))), None),
        }
    }

    /// A member claims addresses that we hold: the better rank keeps them.
    pub(super) fn conflict(&mut self, peer: &str, addresses: &[IpAddr], now: Instant) {
        let mut units: Vec<_> = addresses.iter().filter_map(|address| self.unit_of.get(address).copied()).collect();
        units.dedup();
        for first in units {
            if let Some(mut state) = self.units.remove(&first) {
                self.counts.conflicts += 1;
                self.settle_conflict(peer, &mut state, now);
                self.units.insert(first, state);
                self.own.dirty.addresses.insert(first);
            }
        }
    }

    fn settle_conflict(&mut self, peer: &str, state: &mut UnitState, now: Instant) {
        let me = self.config.node.clone();
        let held = |address: &&IpAddr| self.own.held.contains_key(*address);
        let ours: Vec<_> = state.unit.addresses.iter().filter(held).copied().collect();
        let Some(first) = ours.first() else { return };
        let since = self.own.held.get(first).copied().unwrap_or(now);
        let peer_is_better = self.standing(peer, &state.unit, true) < self.standing(&me, &state.unit, true);
        let insisted = state.insisted.entry(peer.into()).or_insert(0);
        *insisted = insisted.saturating_add(u8::from(!peer_is_better));
        let views_differ = *insisted >= INSIST_MAX && order(peer, *first) < order(&me, *first);
        if !peer_is_better && !views_differ {
            let rest = state.defended.is_some_and(|at| now.since(at) < INSIST_EVERY);
            if !rest {
                state.defended = Some(now);
                self.outputs.extend(ours.iter().map(|address| Output::Refresh(*address)));
            }
            if !rest || *insisted <= INSIST_MAX {
                self.own.decided.insist.extend(ours);
            }
            return;
        }
        state.insisted.remove(peer);
        if views_differ || now.since(since) < TOO_SOON {
            state.back_off(now);
        }
        let candidate = self.is_candidate(&me, &state.unit);
        let decided = &mut self.own.decided;
        if candidate { decided.hand_over.extend(ours) } else { decided.refuse.extend(ours) }
    }

    pub(super) fn forget_insistence(&mut self, peer: &str, addresses: &[IpAddr]) {
        for address in addresses {
            let state = self.unit_of.get(address).and_then(|first| self.units.get_mut(first));
            state.map(|state| state.insisted.remove(peer));
        }
    }
}
