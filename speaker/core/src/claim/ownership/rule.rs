//! The ownership rule: which node takes a unit and when, which of two owners keeps it, and when an
//! owner releases it. Part of the ownership of one interface.
//!
//! Each owner states its own rank with its claim. Other nodes compare their own rank with the
//! stated one, and never compute the rank of an owner themselves. Two owners of a unit therefore
//! compare the same two ranks, and exactly one of them releases it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ferrolb_core::election::{Rank, SoftRules, Unit};
use ferrolb_proto::Instant;
use ferrolb_proto::wire::hello::{ClaimRank, Flags};

use super::probes::{ArpProbes, PROBING_STAGGER, ProbeStep};
use super::unit::{PendingAction, UnitState};
use super::{Decisions, PeerRank, View};
use crate::claim::{ClaimConfig, Move, MoveCause};

/// Time for which an owner that is no longer a candidate keeps a unit that it cannot serve, if no
/// peer takes the unit.
const RELEASE_DELAY_NOT_SERVING: Duration = Duration::from_secs(1);
/// Time for which an owner that is no longer a candidate keeps a unit that it can still serve, if
/// no peer takes the unit. The time is longer, because the peers may not know of the change yet.
const RELEASE_DELAY_SERVING: Duration = Duration::from_secs(10);
/// A move counts as failover if at most this time passes between the latest frame of the failed
/// owner and the claim of the new one. Before a later move, the new owner was unable to take the
/// address.
const FAILOVER_MAX: Duration = Duration::from_secs(60);
/// Maximum number of staggers that a candidate waits for others.
const POSITION_MAX: usize = 5;
/// Maximum time that a candidate waits on its own if it may miss the claims of others. Within this
/// time, the candidates begin their ARP probes one after another.
const UNHEARD_SPREAD: Duration = Duration::from_secs(1);
/// Minimum interval between two doubts of this node about an owner of a unit.
const DOUBT_INTERVAL: Duration = Duration::from_secs(1);
/// Time after a claim in which a peer may still send a frame without knowing of the claim.
const CROSSING_MAX: Duration = Duration::from_millis(20);

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

/// The ownership rule, and the decisions that follow from it.
#[derive(Debug)]
pub(super) struct Rule {
    config: ClaimConfig,
    /// Decisions that follow from one input; a few frames carry all of them.
    decided: Decisions,
    /// Unowned addresses whose owner has failed, each with the name of the owner, and the time of
    /// its latest frame.
    unowned: BTreeMap<IpAddr, (Arc<str>, Instant)>,
    /// Earliest time of the first ARP probe for a further unit.
    next_probes: Instant,
    /// Results of the ARP probes that the caller must handle.
    probed: Vec<(IpAddr, ProbeStep)>,
}

impl Rule {
    pub(super) fn new(config: ClaimConfig, now: Instant) -> Self {
        Self {
            config,
            decided: Decisions::default(),
            unowned: BTreeMap::new(),
            next_probes: now,
            probed: Vec::new(),
        }
    }

    /// Returns the name of this node.
    pub(super) fn node(&self) -> &str {
        &self.config.node
    }

    /// Returns the decisions so far, and forgets them.
    pub(super) fn take_decisions(&mut self) -> Decisions {
        std::mem::take(&mut self.decided)
    }

    /// Returns the addresses for which an ARP probe is due, and those that the probes have found
    /// free.
    pub(super) fn take_probed(&mut self) -> Vec<(IpAddr, ProbeStep)> {
        std::mem::take(&mut self.probed)
    }

    /// Decides to release an address because a foreign host uses it.
    pub(super) fn contest(&mut self, address: IpAddr) {
        self.decided.contest.push(address);
    }

    /// Records that the owner of these addresses, which are sorted, has failed. Its latest frame
    /// arrived at `last_frame`.
    pub(super) fn owner_failed(
        &mut self,
        owner: &Arc<str>,
        addresses: impl Iterator<Item = IpAddr>,
        last_frame: Instant,
    ) {
        // `append` of sorted addresses takes much less time than single inserts.
        let entry = |address| (address, (Arc::clone(owner), last_frame));
        self.unowned.append(&mut addresses.map(entry).collect());
    }

    /// Records that the failed owner of an address matters no longer.
    pub(super) fn forget_failed_owner(&mut self, address: IpAddr) {
        self.unowned.remove(&address);
    }

    /// Returns the remaining preempt delay of a unit.
    pub(super) fn preempt_delay(&self, state: &UnitState, now: Instant) -> Duration {
        let until = self.config.failback_delay.and_then(|delay| state.preempt_delay_end(delay));
        until.map_or(Duration::ZERO, |until| until.since(now))
    }

    /// Decides on a unit.
    pub(super) fn evaluate(&mut self, state: &mut UnitState, view: View<'_>) {
        if let Some(pending_claim) = &mut state.pending_claim {
            pending_claim.expire(view.now);
        }
        if view.owned().contains_key(&state.unit.address) {
            self.evaluate_owned(state, view);
        } else {
            self.evaluate_free(state, view);
        }
    }

    fn evaluate_free(&mut self, state: &mut UnitState, view: View<'_>) {
        if let Some(pending_claim) = &mut state.pending_claim {
            pending_claim.release_at = None;
            if pending_claim.conflict_hold_down_until.is_some() {
                return state.end_pending();
            }
        }
        let step = self.next_step(state, view);
        let (position, is_doubt) = match step {
            Step::None => return state.end_pending(),
            Step::NotBefore(until) => {
                state.pending_claim().preempt_delay_until = Some(until);
                return state.end_pending();
            }
            Step::Take(owner) => (self.position(&state.unit, owner, view), false),
            // The owner may learn of the same change in a moment.
            Step::Doubt(_) => (self.position(&state.unit, None, view) + 1, true),
        };
        let pending = state.pending_claim.as_ref().and_then(|pending_claim| pending_claim.pending);
        let same = pending.filter(|pending| pending.is_doubt == is_doubt);
        let since = same.map_or(view.now, |pending| pending.since);
        let due = since + self.wait(state, position, view);
        if view.now < due {
            // Earlier ARP probes are outdated. They start again when `due` is reached.
            let pending_claim = state.pending_claim();
            pending_claim.pending = Some(PendingAction { is_doubt, since, due });
            pending_claim.probes = None;
            return;
        }
        match step {
            Step::Take(owner) => {
                let moved = self.move_here(state, owner, view);
                self.take_if_free(state, since, moved, view);
            }
            Step::Doubt(owner) => {
                let owner = owner.to_owned();
                let (since, wait) = (view.now + DOUBT_INTERVAL, self.wait(state, position, view));
                state.pending_claim().pending =
                    Some(PendingAction { is_doubt, since, due: since + wait });
                self.decided.doubts.entry(owner).or_default().push(state.unit.address);
            }
            Step::None | Step::NotBefore(_) => {}
        }
    }

    /// Takes a unit whose time has come, after ARP probes if it is not proven.
    fn take_if_free(
        &mut self,
        state: &mut UnitState,
        since: Instant,
        moved: Option<Move>,
        view: View<'_>,
    ) {
        let probes_first = !state.is_proven || view.may_miss_owner(&state.unit);
        if probes_first && !self.found_free(state, view.now) {
            // `since` stays the same while this node probes, so its wait does not start again.
            let due = state.pending_claim().probes.map_or(view.now, |probes| probes.next());
            state.pending_claim().pending = Some(PendingAction { is_doubt: false, since, due });
            return;
        }
        state.end_pending();
        state.record_own(view.now);
        self.unowned.remove(&state.unit.address);
        let rank = state.claim_rank(&self.config.node);
        self.decided.take.push((state.unit.address, rank));
        self.decided.moves.extend(moved);
    }

    /// Returns the move of a unit to this node; `None` if no other node has owned the unit since.
    fn move_here(
        &self,
        state: &UnitState,
        owner: Option<PeerRank<'_>>,
        view: View<'_>,
    ) -> Option<Move> {
        let (address, to) = (state.unit.address, Arc::clone(&self.config.node));
        if let Some((owner, _)) = owner {
            let own = self.own_rank(state.claim_rank(&self.config.node), view);
            let (from, cause) = (Some(owner.node.into()), MoveCause::between(&owner, &own));
            return Some(Move { address, from, to, cause, silence: None });
        }
        if let Some((from, last_frame)) = self.unowned.get(&address) {
            let silence =
                Some(view.now.since(*last_frame)).filter(|silence| *silence < FAILOVER_MAX);
            let (from, cause) = (Some(Arc::clone(from)), MoveCause::NodeFailed);
            return Some(Move { address, from, to, cause, silence });
        }
        let is_move = state.is_proven && !state.owned_last;
        let cause = MoveCause::Released;
        is_move.then_some(Move { address, from: None, to, cause, silence: None })
    }

    /// Returns the time that this node waits until it acts on a unit, if it has this position among
    /// the candidates. The others do not know whether the health checks of this node fail, so this
    /// node waits longer on its own if they do.
    fn wait(&self, state: &UnitState, position: usize, view: View<'_>) -> Duration {
        let stagger = if state.is_proven { self.config.stagger() } else { PROBING_STAGGER };
        let position = u32::try_from(position.min(POSITION_MAX)).unwrap_or(u32::MAX);
        // Candidates that miss the claims of others do not know their positions. Each waits for
        // another time, and replies to the probes of those that wait longer.
        let order = f64::from(state.unit.order(&self.config.node)) / f64::from(u32::MAX);
        let spread = if view.may_miss_owner(&state.unit) {
            UNHEARD_SPREAD.mul_f64(order)
        } else {
            Duration::ZERO
        };
        let skew = if state.unit.failing { self.config.stagger() * 3 / 2 } else { Duration::ZERO };
        stagger * position + skew + spread
    }

    fn evaluate_owned(&mut self, state: &mut UnitState, view: View<'_>) {
        let address = state.unit.address;
        let candidate = state.unit.own_candidate(&self.config.node).is_some();
        if let Some(pending_claim) = &mut state.pending_claim {
            pending_claim.pending = None;
            pending_claim.release_at = pending_claim.release_at.filter(|_| !candidate);
        }
        let rank = state.claim_rank(&self.config.node);
        if view.owned().get(&address).is_some_and(|owned| owned.rank != rank) {
            self.decided.restate.push((address, rank));
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
        if view.now >= *release_at.get_or_insert(view.now + delay) {
            *release_at = None;
            self.decided.hand_over.push(address);
        }
    }

    /// Returns the rank of this node whose claim states this.
    fn own_rank(&self, stated: ClaimRank, view: View<'_>) -> Rank<'_> {
        Rank::stated(&self.config.node, view.members.own().flags(), stated)
    }

    /// Decides on a unit that this node does not own.
    fn next_step<'a>(&self, state: &UnitState, view: View<'a>) -> Step<'a> {
        let (unit, node) = (&state.unit, &*self.config.node);
        if !view.members.own().claims() || unit.own_candidate(node).is_none() {
            return Step::None;
        }
        let best = view.owners(unit.address).min();
        let Some((owner, delay_end)) = best else {
            let is_deaf =
                view.members.own().flags().isolated && !view.members.may_be_alone(view.now);
            return if is_deaf { Step::None } else { Step::Take(None) };
        };
        let own = self.own_rank(state.claim_rank(node), view);
        if own.may_take_from(&owner, view.now < delay_end) {
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

    /// Returns the position of this node among the candidates that may take a unit from its owner,
    /// if there is one: the number of better ones in this node's view.
    ///
    /// An isolated node does not receive the claims of better candidates, so it does not wait for
    /// them.
    fn position(&self, unit: &Unit, owner: Option<PeerRank<'_>>, view: View<'_>) -> usize {
        let own_candidate = unit.own_candidate(&self.config.node);
        let Some(candidate) = own_candidate.filter(|_| !view.members.own().flags().isolated) else {
            return 0;
        };
        let own = unit.rank(candidate, view.members.own().flags());
        let takes_from = |other: Rank<'_>, (owner, _): PeerRank<'_>| {
            other.node != owner.node && other.may_take_from(&owner, false)
        };
        let is_better = |(name, flags): &(&Arc<str>, Option<Flags>)| {
            let flags = flags.filter(|flags| !(flags.isolated || flags.leaving));
            unit.candidate(name).zip(flags).is_some_and(|(candidate, flags)| {
                let other = unit.rank(candidate, flags);
                other < own && owner.is_none_or(|owner| takes_from(other, owner))
            })
        };
        view.members.peers().iter().filter(is_better).count()
    }

    /// Continues the ARP probes for a unit, if due. Returns true once all probes were sent, the
    /// time for replies is over, and no host has replied.
    fn found_free(&mut self, state: &mut UnitState, now: Instant) -> bool {
        let address = state.unit.address;
        let probes = &mut state.pending_claim().probes;
        let earliest = &mut self.next_probes;
        let step = probes.get_or_insert_with(|| ArpProbes::begin(earliest, now)).step(now);
        let is_done = step == ProbeStep::Done;
        if is_done {
            *probes = None;
        }
        if step != ProbeStep::Wait {
            self.probed.push((address, step));
        }
        is_done
    }

    /// Settles the conflict about a unit that this node and a peer own: the node with the better
    /// stated rank keeps the unit. See [`Ownership::resolve_conflicts`](super::Ownership) for
    /// `is_answer`. Returns whether this node must announce the address again.
    pub(super) fn settle_conflict(
        &mut self,
        peer: &str,
        state: &mut UnitState,
        is_answer: bool,
        view: View<'_>,
    ) -> bool {
        let address = state.unit.address;
        let Some(owned) = view.owned().get(&address).copied() else { return false };
        let own = self.own_rank(owned.rank, view);
        let better = view.owners(address).find(|(rank, _)| *rank.node == *peer && *rank < own);
        if let Some(cause) = better.map(|(rank, _)| MoveCause::between(&own, &rank)) {
            // A frame may name an address twice.
            let is_decided = self.decided.hand_over.contains(&address);
            if !is_decided && (is_answer || view.now.since(owned.since) >= CROSSING_MAX) {
                let (from, to) = (Some(Arc::clone(&self.config.node)), peer.into());
                self.decided.hand_over.push(address);
                self.decided.moves.push(Move { address, from, to, cause, silence: None });
            }
            return false;
        }
        // The peer's claim has recorded the peer as the owner, but this node keeps the unit.
        state.owned_last = true;
        let repeats = state.repeats_claim(view.now);
        if repeats {
            self.decided.restate.push((address, owned.rank));
        }
        repeats
    }
}

/// State that only tests read.
#[cfg(test)]
impl Rule {
    pub(super) const fn unowned(&self) -> &BTreeMap<IpAddr, (Arc<str>, Instant)> {
        &self.unowned
    }
}
