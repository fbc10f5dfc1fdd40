//! The ownership rule: which node takes a unit and when, which of two owners keeps it, and when an
//! owner releases it. Part of the claim machine of one interface.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::foreign::CONTEST_STAGGER;
use super::history::History;
use super::unit::{CONFLICT_INTERVAL, NodeView, UnitState, YieldSituation};
use super::{ClaimMachine, Output, Peer, STAGGER_MIN, STAGGER_OVER_INTERVAL};
use crate::Instant;
use crate::election::Unit;
use crate::wire::hello::Flags;

/// Time for which an owner that is no longer a candidate keeps a unit that it cannot serve, if no
/// peer takes the unit.
const RELEASE_DELAY_NOT_SERVING: Duration = Duration::from_secs(1);
/// Time for which an owner that is no longer a candidate keeps a unit that it can still serve, if
/// no peer takes the unit. The time is longer, because the peers may not know of the change yet.
const RELEASE_DELAY_SERVING: Duration = Duration::from_secs(10);
/// Number of conflicts won against one peer after which the order alone decides, because the two
/// nodes have different views of the ranks.
const CONFLICTS_WON_MAX: u8 = 3;
/// A node that yields a unit within this time after taking it enters hold-down.
const QUICK_YIELD: Duration = Duration::from_secs(5);

/// Time at which this node may take a unit that it does not own.
enum ClaimTime {
    /// This node may not take the unit.
    Never,
    /// This node may not take the unit before this time, usually the end of the owner's preempt
    /// delay, unless something else changes.
    NotBefore(Instant),
    /// This number of candidates rank better. This node waits one stagger for each of them before
    /// it takes the unit.
    After(u32),
}

impl ClaimMachine {
    pub(super) fn evaluate(&mut self, address: IpAddr, state: &mut UnitState, now: Instant) {
        if let Some(pending_claim) = &mut state.pending_claim {
            pending_claim.preempt_delay_until = None;
            pending_claim.conflict_hold_down_until =
                pending_claim.conflict_hold_down_until.filter(|until| now < *until);
            pending_claim.history.take_if(|history| {
                history.forget(now);
                history.is_over(now)
            });
        }
        if self.owned().contains_key(&address) {
            self.evaluate_owned(state, now);
        } else {
            self.evaluate_free(state, now);
        }
        self.set_timer(address, state);
        state.pending_claim.take_if(|pending_claim| pending_claim.is_over());
    }

    fn evaluate_free(&mut self, state: &mut UnitState, now: Instant) {
        if let Some(pending_claim) = &mut state.pending_claim {
            pending_claim.release_at = None;
            if pending_claim.conflict_hold_down_until.is_some() {
                (pending_claim.pending, pending_claim.probes) = (None, None);
                return;
            }
        }
        let position = match self.claim_time(state, now) {
            ClaimTime::Never => None,
            ClaimTime::NotBefore(until) => {
                state.pending_claim().preempt_delay_until = Some(until);
                None
            }
            ClaimTime::After(count) => Some(count),
        };
        let Some(position) = position else {
            if let Some(pending_claim) = &mut state.pending_claim {
                (pending_claim.pending, pending_claim.probes) = (None, None);
            }
            return;
        };
        let pending = state.pending_claim.as_ref().and_then(|pending_claim| pending_claim.pending);
        let since = pending.map_or(now, |(since, _)| since);
        let stagger = if state.contested { CONTEST_STAGGER } else { self.stagger() };
        let due = since + stagger * position;
        if now < due {
            // Earlier ARP probes are outdated. They start again when `due` is reached.
            let pending_claim = state.pending_claim();
            (pending_claim.pending, pending_claim.probes) = (Some((since, due)), None);
            return;
        }
        if state.contested && !self.found_free(state, now) {
            // `since` stays the same while this node probes, so its wait does not start again.
            let next = state.pending_claim().probes.map_or(due, |probes| probes.next);
            state.pending_claim().pending = Some((since, next));
            return;
        }
        if let Some(pending_claim) = &mut state.pending_claim {
            pending_claim.pending = None;
        }
        if !state.was_owned && !state.contested {
            self.start_probing(state, now);
        }
        state.record_own(now);
        self.own.decided.take.push(state.unit.address);
    }

    /// Probes a unit that a foreign host used; returns true once all probes were sent and no host
    /// has replied.
    fn found_free(&mut self, state: &mut UnitState, now: Instant) -> bool {
        if state.pending_claim().probes.is_none() {
            self.start_probing(state, now);
        }
        let is_free = self.continue_probing(state, now);
        state.contested = !is_free;
        if is_free {
            self.address_conflicts.remove(&state.unit.address);
        }
        is_free
    }

    /// Returns the time that each candidate waits for the candidate that ranks before it.
    pub(super) fn stagger(&self) -> Duration {
        STAGGER_MIN.max(self.config.hello_interval + STAGGER_OVER_INTERVAL)
    }

    fn evaluate_owned(&mut self, state: &mut UnitState, now: Instant) {
        let candidate = state.unit.own_candidate(&self.config.node).is_some();
        if let Some(pending_claim) = &mut state.pending_claim {
            pending_claim.pending = None;
            pending_claim.release_at = pending_claim.release_at.filter(|_| !candidate);
        }
        self.continue_probing(state, now);
        if candidate {
            return;
        }
        let delay = if state.unit.can_serve_here {
            RELEASE_DELAY_SERVING
        } else {
            RELEASE_DELAY_NOT_SERVING
        };
        let release_at = &mut state.pending_claim().release_at;
        if now >= *release_at.get_or_insert(now + delay) {
            *release_at = None;
            self.own.decided.refuse.push(state.unit.address);
        }
    }

    /// Returns when this node may take a unit that it does not own.
    fn claim_time(&self, state: &UnitState, now: Instant) -> ClaimTime {
        let unit = &state.unit;
        let me = self.this_node(unit);
        if !self.own.claims() || me.candidate.is_none() {
            return ClaimTime::Never;
        }
        let owning_peers = || self.owners(unit.address);
        let owners = owning_peers().map(|(name, peer)| Self::peer_view(name, Some(peer), unit));
        let best = owners.min_by_key(|owner| owner.sort_key(true));
        let taker = NodeView { failing: self.own.failing.counts_for(unit.address), ..me };
        // After yielding, this node leaves the unit to an owner that is neither leaving nor
        // isolated, until something changes. Exception, if the views did not differ: the owner is
        // no candidate, or reports that the address fails its health check, and this node does not.
        let yielded = state.history().and_then(History::yielded);
        let over = |then: YieldSituation, first| {
            best.as_ref().is_some_and(|owner| then.is_over(&taker, owner, first))
        };
        let yielded = yielded.filter(|(then, first)| !over(*then, *first)).map(|(then, _)| then);
        if let Some(owner) = &best {
            let has_stable_owner =
                owning_peers().any(|(_, peer)| !(peer.flags.leaving || peer.flags.isolated));
            let serves = owner.candidate.is_some() && owner.failing <= taker.failing;
            let leaves_unit =
                has_stable_owner && yielded.is_some_and(|then| then.differs || serves);
            if !taker.may_take_from(owner, false) || leaves_unit {
                return ClaimTime::Never;
            }
        }
        let delay_end =
            best.as_ref().and_then(|owner| self.sets.copy(owner.name)?.claims().get(&unit.address));
        let running_delay_end = delay_end.copied().filter(|until| now < *until);
        if let (Some(owner), Some(until)) = (&best, running_delay_end)
            && !taker.may_take_from(owner, true)
        {
            return ClaimTime::NotBefore(until);
        }
        // An isolated node does not receive the claims of better candidates, so it does not wait
        // for them.
        if self.own.flags.isolated {
            return ClaimTime::After(0);
        }
        let owner = best.as_ref().map(|owner| (owner, running_delay_end.is_some()));
        ClaimTime::After(self.count_better(unit, &me, owner, yielded.is_some()))
    }

    /// Returns the number of candidates that rank better than this node, and that may take the unit
    /// from its live owner, if there is one. `owner` has true if its preempt delay for the unit is
    /// running.
    ///
    /// Two nodes whose views differ may each rank the other one higher, and would take and yield
    /// the unit in lockstep. After yielding, this node therefore compares only self-reported state,
    /// on which views do not differ: `by_own_report` is true.
    fn count_better(
        &self,
        unit: &Unit,
        me: &NodeView<'_>,
        owner: Option<(&NodeView<'_>, bool)>,
        by_own_report: bool,
    ) -> u32 {
        let own_key = me.waiting_key(by_own_report);
        let is_better = |(name, peer): &(&Arc<str>, &Peer)| {
            let other = Self::peer_view(name, Some(peer), unit);
            other.candidate.is_some()
                && other.waiting_key(by_own_report) < own_key
                && owner.is_none_or(|(owner, delay_runs)| other.may_take_from(owner, delay_runs))
        };
        let count = self.peers.iter().filter(is_better).count();
        u32::try_from(count).unwrap_or(u32::MAX)
    }

    /// Returns the live peers that claim an address, sorted by name.
    pub(super) fn owners(&self, address: IpAddr) -> impl Iterator<Item = (&str, &Peer)> + Clone {
        let claimants = self.sets.claimants(address);
        let peers = claimants.filter_map(|(name, _)| Some((&**name, self.peers.get(name)?)));
        peers.filter(|(_, peer)| !peer.failed)
    }

    /// Returns the properties of this node that decide on its rank for a unit. This node remains a
    /// candidate even if isolated, because it may be the only node left.
    fn this_node<'a>(&'a self, unit: &'a Unit) -> NodeView<'a> {
        let (name, flags) = (&*self.config.node, self.own.flags);
        let candidate = unit.own_candidate(name).map(|candidate| (candidate, flags));
        let failing = self.own.failing.is_reported(unit.address);
        NodeView { name, order: unit.order(name), candidate, failing }
    }

    /// Returns the properties of a peer that decide on its rank for a unit. The API facts and flags
    /// are absent if the peer fails a hard rule that depends on hellos: a peer that has failed, is
    /// isolated or has refused the unit is no candidate.
    fn peer_view<'a>(name: &'a str, peer: Option<&Peer>, unit: &'a Unit) -> NodeView<'a> {
        let is_available = |peer: &&Peer| {
            !(peer.failed || peer.flags.isolated || peer.refused.contains_key(&unit.address))
        };
        let flags = peer.filter(is_available).map(|peer| peer.flags);
        let failing = peer.is_some_and(|peer| peer.failing.contains(&unit.address));
        let candidate = flags.and_then(|flags| Some((unit.candidate(name)?, flags)));
        NodeView { name, order: unit.order(name), candidate, failing }
    }

    /// Handles a peer's claim for addresses that this node owns: the node with the better rank
    /// keeps the addresses.
    pub(super) fn resolve_conflicts(&mut self, peer: &str, addresses: &[IpAddr], now: Instant) {
        for address in addresses {
            if let Some(mut state) = self.units.remove(address) {
                self.counts.conflicts += 1;
                self.settle_conflict(peer, &mut state, now);
                self.set_timer(*address, &mut state);
                self.units.insert(*address, state);
                self.own.dirty.addresses.insert(*address);
            }
        }
    }

    fn settle_conflict(&mut self, peer: &str, state: &mut UnitState, now: Instant) {
        let unit = Arc::clone(&state.unit);
        let Some(since) = self.owned().get(&unit.address).copied() else { return };
        let (this_node, other_owner) =
            (self.this_node(&unit), Self::peer_view(peer, self.peers.get(peer), &unit));
        let candidate = this_node.candidate.is_some();
        // A node reports in its flags that it is isolated or leaving. Whatever the ranks are, such
        // a node yields to a node that is neither, and never the other way round.
        let peer_flags = self.peers.get(peer).map(|peer| peer.flags).unwrap_or_default();
        let self_reported = |flags: Flags| (flags.isolated, flags.leaving);
        let by_self_reported = self_reported(peer_flags).cmp(&self_reported(self.own.flags));
        let peer_is_better = by_self_reported
            .then_with(|| other_owner.sort_key(true).cmp(&this_node.sort_key(true)))
            .is_lt();
        let [own_soft, owner_soft] = [&this_node, &other_owner].map(NodeView::soft);
        let history = state.history_mut();
        let won = history.conflicts_won.entry(peer.into()).or_insert(0);
        // An isolated peer receives no claims and cannot yield, so its claims do not indicate a
        // different view.
        *won = won.saturating_add(u8::from(!peer_is_better && !peer_flags.isolated));
        let views_differ = *won >= CONFLICTS_WON_MAX
            && by_self_reported.is_eq()
            && other_owner.order_key() < this_node.order_key();
        if !peer_is_better && !views_differ {
            let is_rate_limited =
                history.defended.is_some_and(|at| now.since(at) < CONFLICT_INTERVAL);
            if !is_rate_limited {
                history.defended = Some(now);
                self.outputs.push_back(Output::AnnounceSeries(unit.address));
            }
            if !is_rate_limited || *won <= CONFLICTS_WON_MAX {
                self.own.decided.repeat_claims.push(unit.address);
            }
            // The peer's claim has recorded the peer as the owner, but this node keeps the unit.
            state.owned_last = true;
            return;
        }
        history.conflicts_won.remove(peer);
        if views_differ || now.since(since) < QUICK_YIELD {
            history.start_hold_down(
                YieldSituation {
                    differs: views_differ,
                    this_node: own_soft,
                    other_owner: owner_soft,
                },
                now,
            );
        }
        let decided = &mut self.own.decided;
        if candidate {
            decided.hand_over.push(unit.address)
        } else {
            decided.refuse.push(unit.address)
        }
    }

    pub(super) fn forget_conflicts_won(&mut self, peer: &str, address: IpAddr) {
        let state = self.units.get_mut(&address);
        if let Some(history) =
            state.and_then(|state| state.pending_claim.as_mut()?.history.as_mut())
        {
            history.conflicts_won.remove(peer);
        }
    }
}
