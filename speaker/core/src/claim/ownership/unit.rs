//! State of an election unit on this node: pending changes, and recent moves. Owned by the
//! ownership of one interface.

use std::sync::Arc;
use std::time::Duration;

use ferrolb_core::election::{SoftRules, Unit};
use ferrolb_core::rate::Doubling;
use ferrolb_proto::Instant;
use ferrolb_proto::wire::hello::ClaimRank;

use super::probes::ArpProbes;
use crate::claim::DOUBT_LIFETIME;
use crate::claim::recent::RecentEvents;

/// Minimum interval between defenses of an address against a foreign host (DEFEND_INTERVAL of RFC
/// 5227).
pub(super) const DEFEND_INTERVAL: Duration = Duration::from_secs(10);
/// Minimum intervals at which a node defends an address against a peer, and an owner repeats its
/// claim while a peer claims the unit, too.
pub(super) const DEFEND_INTERVALS_PEER: Doubling =
    Doubling::new(Duration::from_millis(40), DEFEND_INTERVAL);

/// State of an election unit on this node. The type is small, because there may be 10,000 units.
#[derive(Debug)]
pub(super) struct UnitState {
    pub(super) unit: Arc<Unit>,
    /// True if a node has claimed the unit, and no foreign host has used its address since. A node
    /// probes an unproven unit before it claims it, so no claim of it exists without probes.
    pub(super) is_proven: bool,
    /// True if this node is the owner, or was the most recent owner.
    pub(super) owned_last: bool,
    /// Pending claim, conflict and recent moves; `None` if there are none, which is the usual case.
    pub(super) pending_claim: Option<Box<PendingClaim>>,
}

/// Action that is due at a later time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PendingAction {
    /// True if this node will doubt the owner, false if it will take the unit.
    pub(super) is_doubt: bool,
    /// Time since which this node has a reason for the action.
    pub(super) since: Instant,
    pub(super) due: Instant,
}

/// Pending claim, conflict and recent moves of a unit.
#[derive(Debug, Default)]
pub(super) struct PendingClaim {
    /// Next action of this node on the unit, which it does not own.
    pub(super) pending: Option<PendingAction>,
    /// Time at which this node, which owns the unit but is no candidate, releases it although no
    /// peer has taken it.
    pub(super) release_at: Option<Instant>,
    /// End of the preempt delay, until which the owner keeps the unit although a better node is
    /// present.
    pub(super) preempt_delay_until: Option<Instant>,
    /// Time until which this node respects the doubt of a peer, unless its own view of the unit
    /// changes.
    pub(super) doubted_until: Option<Instant>,
    /// End of the conflict hold-down, until which this node does not take the unit although no peer
    /// owns it.
    pub(super) conflict_hold_down_until: Option<Instant>,
    /// Progress of the ARP probes for the address, if any.
    pub(super) probes: Option<ArpProbes>,
    /// Time of the unit's entry in `UnitTable::timers`, if there is one.
    pub(super) timer: Option<Instant>,
    /// Time of the latest repetition of this node's claim in a conflict with a peer, and the
    /// minimum time from it to the next one.
    conflict: Option<(Instant, Duration)>,
    /// Recent moves; boxed, because 10,000 units can have a pending claim at the same time, and few
    /// of them have moved.
    pub(super) moves: Option<Box<RecentEvents>>,
}

impl PendingClaim {
    pub(super) fn deadline(&self) -> Option<Instant> {
        let due = self.pending.map(|pending| pending.due);
        let checks = self.probes.map(|probes| probes.next());
        let ends = [self.preempt_delay_until, self.doubted_until, self.conflict_hold_down_until];
        ends.into_iter().chain([self.release_at, checks, due]).flatten().min()
    }

    /// Drops what is over.
    pub(super) fn expire(&mut self, now: Instant) {
        self.preempt_delay_until = None;
        self.conflict_hold_down_until = self.conflict_hold_down_until.filter(|until| now < *until);
        self.doubted_until = self.doubted_until.filter(|until| now < *until);
        self.conflict = self.conflict.filter(|(at, _)| now < *at + DEFEND_INTERVAL * 2);
        self.moves.take_if(|moves| moves.are_over(now));
    }

    /// Returns whether the unit has no pending claim, conflict or recent move, so that this value
    /// can be dropped.
    pub(super) fn is_over(&self) -> bool {
        self.deadline().is_none() && self.conflict.is_none() && self.moves.is_none()
    }
}

impl UnitState {
    pub(super) const fn new(unit: Arc<Unit>) -> Self {
        Self { unit, is_proven: false, owned_last: false, pending_claim: None }
    }

    pub(super) fn pending_claim(&mut self) -> &mut PendingClaim {
        self.pending_claim.get_or_insert_default()
    }

    /// Replaces the unit by a changed one. The doubt of a peer about the earlier one ends.
    pub(super) fn set_unit(&mut self, unit: Arc<Unit>) {
        self.unit = unit;
        if let Some(pending_claim) = &mut self.pending_claim {
            pending_claim.doubted_until = None;
        }
    }

    /// Ends the pending action of this node on the unit, and its ARP probes.
    pub(super) fn end_pending(&mut self) {
        if let Some(pending_claim) = &mut self.pending_claim {
            (pending_claim.pending, pending_claim.probes) = (None, None);
        }
    }

    /// Forgets since when this node has a reason to take the unit.
    pub(super) fn restart_wait(&mut self) {
        if let Some(pending_claim) = &mut self.pending_claim {
            pending_claim.pending = None;
        }
    }

    /// Returns the rank of this node, whose name is `node`, as its claim states it.
    pub(super) fn claim_rank(&self, node: &str) -> ClaimRank {
        let mut rank = self.unit.claim_rank(node);
        let is_doubted = self.pending_claim.as_ref().is_some_and(|it| it.doubted_until.is_some());
        rank.soft_rules |= SoftRules::INELIGIBLE.when(is_doubted).bits();
        rank
    }

    /// Returns whether this node should repeat its claim and its announcement now, because a peer
    /// claims the unit, too.
    pub(super) fn repeats_claim(&mut self, now: Instant) -> bool {
        let conflict = &mut self.pending_claim().conflict;
        if conflict.is_some_and(|(at, interval)| now < at + interval) {
            return false;
        }
        let interval = DEFEND_INTERVALS_PEER.next(conflict.map(|(_, interval)| interval));
        *conflict = Some((now, interval));
        true
    }

    fn moved(&mut self, now: Instant) {
        self.pending_claim().moves.get_or_insert_default().add(now);
    }

    /// Returns the recent moves of the unit, if there are any.
    pub(super) fn moves(&self) -> Option<&RecentEvents> {
        self.pending_claim.as_ref()?.moves.as_deref()
    }

    /// Returns the time for which this node respects a doubt about the unit. The time doubles with
    /// each recent move, because the views of two nodes may differ for long.
    pub(super) fn doubt_lifetime(&self) -> Duration {
        self.moves().map_or(DOUBT_LIFETIME, |moves| moves.lengthen(DOUBT_LIFETIME))
    }

    /// Records that another node owns the unit from now on. The first claim of an unproven unit
    /// does not count as a move.
    pub(super) fn record_other_owner(&mut self, now: Instant) {
        self.owned_last = false;
        if std::mem::replace(&mut self.is_proven, true) {
            self.moved(now);
        }
    }

    /// Records that this node owns the unit from now on. Taking back a unit that no other node has
    /// owned in between does not count as a move.
    pub(super) fn record_own(&mut self, now: Instant) {
        if std::mem::replace(&mut self.is_proven, true) && !self.owned_last {
            self.moved(now);
        }
        self.owned_last = true;
    }

    /// Returns the end of the unit's preempt delay; `None` if the unit has not moved. The delay is
    /// `delay` after the first move, and doubles with each further move within ten minutes.
    pub(super) fn preempt_delay_end(&self, delay: Duration) -> Option<Instant> {
        let moves = self.moves()?;
        Some(moves.last()? + moves.lengthen(delay))
    }

    /// Returns whether ARP probes for the unit are in progress. A reply then means that another
    /// host uses the address.
    pub(super) fn is_probed(&self) -> bool {
        self.pending_claim.as_ref().is_some_and(|pending_claim| pending_claim.probes.is_some())
    }

    /// Leaves the address to a foreign host until this time.
    pub(super) fn leave_to_foreign_host(&mut self, until: Instant) {
        self.is_proven = false;
        let pending_claim = self.pending_claim();
        (pending_claim.probes, pending_claim.pending, pending_claim.conflict_hold_down_until) =
            (None, None, Some(until));
    }

    /// Ends the conflict hold-down.
    pub(super) fn end_hold_down(&mut self) {
        if let Some(pending_claim) = &mut self.pending_claim {
            pending_claim.conflict_hold_down_until = None;
        }
    }
}
