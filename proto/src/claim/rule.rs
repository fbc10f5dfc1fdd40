//! The ownership rule: which node takes a unit and when, which of two owners keeps it, and when an
//! owner releases it. Part of the claim machine of one interface.
//!
//! Each owner states its own rank with its claim. Other nodes compare their own rank with the
//! stated one, and never compute the rank of an owner themselves. Two owners of a unit therefore
//! compare the same two ranks, and exactly one of them releases it.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::foreign::CONTEST_STAGGER;
use super::unit::{Pending, UnitState};
use super::{ClaimMachine, Move, MoveCause, Output, Peer, STAGGER_MIN, STAGGER_OVER_INTERVAL};
use crate::Instant;
use crate::election::{Rank, SoftRules, Unit};

/// Time for which an owner that is no longer a candidate keeps a unit that it cannot serve, if no
/// peer takes the unit.
const RELEASE_DELAY_NOT_SERVING: Duration = Duration::from_secs(1);
/// Time for which an owner that is no longer a candidate keeps a unit that it can still serve, if
/// no peer takes the unit. The time is longer, because the peers may not know of the change yet.
const RELEASE_DELAY_SERVING: Duration = Duration::from_secs(10);
/// Time after a claim in which a peer may still send a frame without knowing of the claim.
const CROSSING_MAX: Duration = Duration::from_millis(20);
/// A move counts as failover if at most this time passes between the latest frame of the failed
/// owner and the claim of the new one. Before a later move, the new owner was unable to take the
/// address.
const FAILOVER_MAX: Duration = Duration::from_secs(60);
/// Maximum number of staggers that a candidate waits for others.
const POSITION_MAX: usize = 5;
/// Minimum interval between two doubts of this node about an owner of a unit.
const DOUBT_INTERVAL: Duration = Duration::from_secs(1);

/// Rank that an owner states, and the end of its preempt delay for the unit.
type PeerRank<'a> = (Rank<'a>, Instant);

/// Action of this node on a unit that it does not own.
#[derive(Clone, Copy)]
enum Step<'a> {
    None,
    /// This node may not take the unit before this time, the end of the owner's preempt delay,
    /// unless something else changes.
    NotBefore(Instant),
    /// This node takes the unit from its owner, if there is one.
    Take(Option<PeerRank<'a>>),
    /// In this node's view, the owner may not announce the unit. This node sends it a doubt.
    Doubt(&'a str),
}

impl ClaimMachine {
    pub(super) fn evaluate(&mut self, address: IpAddr, state: &mut UnitState, now: Instant) {
        if let Some(pending_claim) = &mut state.pending_claim {
            pending_claim.expire(now);
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
        let step = self.next_step(state, now);
        let position = match step {
            Step::None => None,
            Step::NotBefore(until) => {
                state.pending_claim().preempt_delay_until = Some(until);
                None
            }
            Step::Take(owner) => Some(self.position(&state.unit, owner)),
            // The owner may learn of the same change in a moment.
            Step::Doubt(_) => Some(self.position(&state.unit, None) + 1),
        };
        let Some(position) = position else {
            if let Some(pending_claim) = &mut state.pending_claim {
                (pending_claim.pending, pending_claim.probes) = (None, None);
            }
            return;
        };
        let is_doubt = matches!(step, Step::Doubt(_));
        let pending = state.pending_claim.as_ref().and_then(|pending_claim| pending_claim.pending);
        let same = pending.filter(|pending| pending.is_doubt == is_doubt);
        let since = same.map_or(now, |pending| pending.since);
        let due = since + self.wait(state, position, now);
        if now < due {
            // Earlier ARP probes are outdated. They start again when `due` is reached.
            let pending_claim = state.pending_claim();
            pending_claim.pending = Some(Pending { is_doubt, since, due });
            pending_claim.probes = None;
            return;
        }
        match step {
            Step::Take(owner) => {
                let moved = self.move_here(state, owner, now);
                self.take_if_free(state, since, moved, now);
            }
            Step::Doubt(owner) => {
                let owner = owner.to_owned();
                let (since, wait) = (now + DOUBT_INTERVAL, self.wait(state, position, now));
                state.pending_claim().pending =
                    Some(Pending { is_doubt, since, due: since + wait });
                self.own.decided.doubts.entry(owner).or_default().push(state.unit.address);
            }
            Step::None | Step::NotBefore(_) => {}
        }
    }

    /// Takes a unit whose time has come, after ARP probes if a foreign host used its address.
    fn take_if_free(
        &mut self,
        state: &mut UnitState,
        since: Instant,
        moved: Option<Move>,
        now: Instant,
    ) {
        let probes_first = self.probes_first(state, now);
        if probes_first && !self.found_free(state, now) {
            // `since` stays the same while this node probes, so its wait does not start again.
            let due = state.pending_claim().probes.map_or(now, |probes| probes.next);
            state.pending_claim().pending = Some(Pending { is_doubt: false, since, due });
            return;
        }
        if let Some(pending_claim) = &mut state.pending_claim {
            (pending_claim.pending, pending_claim.probes) = (None, None);
        }
        if !state.was_owned && !probes_first {
            self.start_probing(state, now);
        }
        state.record_own(now);
        let rank = state.claim_rank(&self.config.node);
        self.own.decided.take.push((state.unit.address, rank));
        self.own.decided.moves.extend(moved);
    }

    /// Returns the move of a unit to this node; `None` if no other node has owned the unit since.
    fn move_here(
        &self,
        state: &UnitState,
        owner: Option<PeerRank<'_>>,
        now: Instant,
    ) -> Option<Move> {
        let (address, to) = (state.unit.address, Arc::clone(&self.config.node));
        if let Some((owner, _)) = owner {
            let own = Rank::stated(
                &self.config.node,
                self.own.flags,
                state.claim_rank(&self.config.node),
            );
            let (from, cause) = (Some(owner.node.into()), MoveCause::between(&owner, &own));
            return Some(Move { address, from, to, cause, silence: None });
        }
        if let Some((from, last_frame)) = self.unowned.get(&address) {
            let silence = Some(now.since(*last_frame)).filter(|silence| *silence < FAILOVER_MAX);
            let (from, cause) = (Some(Arc::clone(from)), MoveCause::NodeFailed);
            return Some(Move { address, from, to, cause, silence });
        }
        let is_move = state.was_owned && !state.owned_last;
        let cause = MoveCause::Released;
        is_move.then_some(Move { address, from: None, to, cause, silence: None })
    }

    /// Probes a unit that a foreign host used; returns true once all probes were sent and no host
    /// has replied.
    fn found_free(&mut self, state: &mut UnitState, now: Instant) -> bool {
        if state.pending_claim().probes.is_none() {
            self.start_probing(state, now);
        }
        let is_free = self.continue_probing(state, now);
        if is_free {
            state.contested = false;
            self.address_conflicts.remove(&state.unit.address);
        }
        is_free
    }

    /// Returns the time that each candidate waits for the candidate that ranks before it.
    pub(super) fn stagger(&self) -> Duration {
        STAGGER_MIN.max(self.config.hello_interval + STAGGER_OVER_INTERVAL)
    }

    /// Returns the time that this node waits until it acts on a unit, if it has this position among
    /// the candidates. The others do not know whether the health checks of this node fail, so this
    /// node waits longer on its own if they do.
    fn wait(&self, state: &UnitState, position: usize, now: Instant) -> Duration {
        let stagger = if state.contested { CONTEST_STAGGER } else { self.stagger() };
        let position = u32::try_from(position.min(POSITION_MAX)).unwrap_or(u32::MAX);
        // Candidates that miss the claims of others do not know their positions. Each waits for
        // another time, and replies to the probes of those that wait longer.
        let order = f64::from(state.unit.order(&self.config.node)) / f64::from(u32::MAX);
        let spread = if self.may_miss_owner(&state.unit, now) {
            CONTEST_STAGGER.mul_f64(order)
        } else {
            Duration::ZERO
        };
        let skew = if state.unit.failing { self.stagger() * 3 / 2 } else { Duration::ZERO };
        stagger * position + skew + spread
    }

    fn evaluate_owned(&mut self, state: &mut UnitState, now: Instant) {
        let address = state.unit.address;
        let candidate = state.unit.own_candidate(&self.config.node).is_some();
        if let Some(pending_claim) = &mut state.pending_claim {
            pending_claim.pending = None;
            pending_claim.release_at = pending_claim.release_at.filter(|_| !candidate);
        }
        self.continue_probing(state, now);
        let rank = state.claim_rank(&self.config.node);
        if self.owned().get(&address).is_some_and(|owned| owned.rank != rank) {
            self.own.decided.restate.push((address, rank));
        }
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
            self.own.decided.hand_over.push(address);
        }
    }

    /// Decides on a unit that this node does not own.
    fn next_step(&self, state: &UnitState, now: Instant) -> Step<'_> {
        let (unit, node) = (&state.unit, &*self.config.node);
        if !self.own.claims() || unit.own_candidate(node).is_none() {
            return Step::None;
        }
        let best = self.owners(unit.address).min();
        let Some((owner, delay_end)) = best else {
            let is_deaf = self.own.flags.isolated && !self.may_be_alone(now);
            return if is_deaf { Step::None } else { Step::Take(None) };
        };
        let own = Rank::stated(node, self.own.flags, state.claim_rank(node));
        if own.may_take_from(&owner, now < delay_end) {
            return Step::Take(Some((owner, delay_end)));
        }
        let is_doubtful = unit.candidate(owner.node).is_none();
        let is_stated = owner.soft_rules.has(SoftRules::INELIGIBLE);
        // After the doubt, a node to which a soft rule applies would lose the address again at
        // once, and move it back and forth.
        if is_doubtful && !is_stated && own.soft_rules == SoftRules::NONE {
            return Step::Doubt(owner.node);
        }
        if own.may_take_from(&owner, false) {
            return Step::NotBefore(delay_end);
        }
        Step::None
    }

    /// Returns the ranks that the live owners of an address state, except this node.
    pub(super) fn owners(&self, address: IpAddr) -> impl Iterator<Item = PeerRank<'_>> + Clone {
        let claimants = self.sets.claimants(address);
        claimants.filter_map(move |(name, copy)| {
            let peer = self.peers.get(name).filter(|peer| !peer.failed)?;
            let claim = copy.claims().get(&address)?;
            Some((Rank::stated(name, peer.flags, claim.rank), claim.delay_end))
        })
    }

    /// Returns the position of this node among the candidates that may take a unit from its owner,
    /// if there is one: the number of better ones in this node's view.
    ///
    /// An isolated node does not receive the claims of better candidates, so it does not wait for
    /// them.
    fn position(&self, unit: &Unit, owner: Option<PeerRank<'_>>) -> usize {
        let own_candidate = unit.own_candidate(&self.config.node);
        let Some(candidate) = own_candidate.filter(|_| !self.own.flags.isolated) else { return 0 };
        let own = Rank::of_candidate(candidate, unit.order(&candidate.node), self.own.flags);
        let takes_from = |other: Rank<'_>, (owner, _): PeerRank<'_>| {
            other.node != owner.node && other.may_take_from(&owner, false)
        };
        let is_better = |(name, peer): &(&Arc<str>, &Peer)| {
            let is_silent = peer.failed || peer.flags.isolated || peer.flags.leaving;
            let candidate = unit.candidate(name).filter(|_| !is_silent);
            let other = candidate.map(|candidate| {
                Rank::of_candidate(candidate, unit.order(&candidate.node), peer.flags)
            });
            other.is_some_and(|other| {
                other < own && owner.is_none_or(|owner| takes_from(other, owner))
            })
        };
        self.peers.iter().filter(is_better).count()
    }

    /// Handles a peer's claim for addresses that this node owns, too: the node with the better
    /// stated rank keeps the addresses.
    ///
    /// `is_answer` is true if the peer has just sent a CLAIM for the addresses. Without that, this
    /// node releases no address that it has just taken: the peer may have released it meanwhile.
    pub(super) fn resolve_conflicts(
        &mut self,
        peer: &str,
        addresses: &[IpAddr],
        is_answer: bool,
        now: Instant,
    ) {
        for address in addresses {
            if let Some(mut state) = self.units.remove(address) {
                self.counts.conflicts += 1;
                self.settle_conflict(peer, &mut state, is_answer, now);
                self.set_timer(*address, &mut state);
                self.units.insert(*address, state);
                self.own.dirty.addresses.insert(*address);
            }
        }
    }

    fn settle_conflict(
        &mut self,
        peer: &str,
        state: &mut UnitState,
        is_answer: bool,
        now: Instant,
    ) {
        let address = state.unit.address;
        let Some(owned) = self.owned().get(&address).copied() else { return };
        let own = Rank::stated(&self.config.node, self.own.flags, owned.rank);
        let better = self.owners(address).find(|(rank, _)| *rank.node == *peer && *rank < own);
        if let Some(cause) = better.map(|(rank, _)| MoveCause::between(&own, &rank)) {
            // A frame may name an address twice.
            let is_decided = self.own.decided.hand_over.contains(&address);
            if !is_decided && (is_answer || now.since(owned.since) >= CROSSING_MAX) {
                let (from, to) = (Some(Arc::clone(&self.config.node)), peer.into());
                self.own.decided.hand_over.push(address);
                self.own.decided.moves.push(Move { address, from, to, cause, silence: None });
            }
            return;
        }
        // The peer's claim has recorded the peer as the owner, but this node keeps the unit.
        state.owned_last = true;
        if state.repeats_claim(now) {
            self.outputs.push_back(Output::AnnounceSeries(address));
            self.own.decided.restate.push((address, owned.rank));
        }
    }

    /// Handles the doubts of a peer about addresses that this node owns. Until this node's view of
    /// a unit changes, the node states a rank with which any candidate may take the unit. A peer
    /// whose own view was outdated has the current one long before the doubt ends.
    pub(super) fn on_doubts(&mut self, addresses: &[IpAddr], now: Instant) {
        let owned = self.sets.own().owned();
        for address in addresses.iter().filter(|address| owned.contains_key(*address)) {
            if let Some(state) = self.units.get_mut(address) {
                let until = now + state.doubt_lifetime();
                state.pending_claim().doubted_until = Some(until);
                self.own.dirty.addresses.insert(*address);
            }
        }
    }
}
