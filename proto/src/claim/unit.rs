//! State of an election unit on this node: pending changes, and the rank of its candidates. Owned
//! by the claim machine of one interface.

use std::sync::Arc;
use std::time::Duration;

use super::foreign::ArpProbes;
use super::history::History;
use crate::Instant;
use crate::election::{Candidate, NO_SOFT_RULES, Rank, SoftRules, Unit, rank, soft_rules};
use crate::wire::hello::Flags;

/// Minimum interval at which an owner announces its unit again while a peer claims the unit and
/// does not yield. After the first few conflicts, also the minimum interval of repeated claims
/// (DEFEND_INTERVAL of RFC 5227).
pub(super) const CONFLICT_INTERVAL: Duration = Duration::from_secs(10);

/// State of an election unit on this node. The type is small, because there may be 10,000 units.
#[derive(Debug)]
pub(super) struct UnitState {
    pub(super) unit: Arc<Unit>,
    /// True if any node has owned the unit since the unit appeared on this node.
    pub(super) was_owned: bool,
    /// True if this node is the owner, or was the most recent owner.
    pub(super) owned_last: bool,
    /// True if a foreign host used the address when it was most recently probed. A candidate then
    /// probes the address before it takes the unit.
    pub(super) contested: bool,
    /// Pending claim, hold-downs and recent moves; `None` if there are none, which is the usual
    /// case.
    pub(super) pending_claim: Option<Box<PendingClaim>>,
}

/// Pending claim, hold-downs and recent moves of a unit.
#[derive(Debug, Default)]
pub(super) struct PendingClaim {
    /// Time since which this node may take the unit, and the time at which it takes the unit.
    pub(super) pending: Option<(Instant, Instant)>,
    /// Time at which this node, which owns the unit but is no candidate, releases it although no
    /// peer has taken it.
    pub(super) release_at: Option<Instant>,
    /// End of the preempt delay, until which the owner keeps the unit although a better node is
    /// present.
    pub(super) preempt_delay_until: Option<Instant>,
    /// End of the conflict hold-down, until which this node does not take the unit although no peer
    /// owns it.
    pub(super) conflict_hold_down_until: Option<Instant>,
    /// Progress of the ARP probes for the address, if any.
    pub(super) probes: Option<ArpProbes>,
    /// Time of the unit's entry in `ClaimMachine::timers`, if there is one.
    pub(super) timer: Option<Instant>,
    /// `None` if nothing has happened recently. Boxed, because 10,000 units can have a pending
    /// claim at the same time, and few of them have a history.
    pub(super) history: Option<Box<History>>,
}

/// Situation in which this node yielded a unit and entered hold-down, as this node saw it. The soft
/// rules of a node that is no candidate are `None`.
#[derive(Clone, Copy, Debug)]
pub(super) struct YieldSituation {
    /// True if this node and the other owner had different views of which of the two ranks better.
    pub(super) differs: bool,
    /// Soft rules that applied to this node.
    pub(super) this_node: Option<SoftRules>,
    /// Soft rules that applied to the other owner.
    pub(super) other_owner: Option<SoftRules>,
}

impl YieldSituation {
    /// Returns whether the situation has changed so much that this node may take the unit back
    /// without the risk that the unit moves again and again.
    ///
    /// The situation has changed if the owner is no longer a candidate. In the `first` hold-down,
    /// it has also changed if worse soft rules apply to the owner than before, or less severe ones
    /// to this node. The latter does not count if the views differ, because an owner with a
    /// different view would not yield.
    pub(super) fn is_over(
        self,
        this_node: &NodeView<'_>,
        owner: &NodeView<'_>,
        first: bool,
    ) -> bool {
        let is_no_candidate = self.other_owner.is_some() && owner.candidate.is_none();
        let worse = self.other_owner.zip(owner.soft()).is_some_and(|(then, soft)| soft > then);
        let better =
            this_node.soft().is_some_and(|soft| self.this_node.is_none_or(|then| soft < then));
        is_no_candidate || (first && (worse || (better && !self.differs)))
    }
}

impl PendingClaim {
    pub(super) fn deadline(&self) -> Option<Instant> {
        let due = self.pending.map(|(_, due)| due);
        let checks = self.probes.map(|probes| probes.next);
        let others = [
            self.release_at,
            self.history.as_ref().and_then(|history| history.hold_down_end()),
            self.preempt_delay_until,
            self.conflict_hold_down_until,
            checks,
        ];
        others.into_iter().flatten().chain(due).min()
    }

    /// Returns whether the unit has no pending claim, hold-down or recent move, so that this value
    /// can be dropped.
    pub(super) fn is_over(&self) -> bool {
        self.deadline().is_none() && self.history.is_none()
    }
}

impl UnitState {
    pub(super) const fn new(unit: Arc<Unit>) -> Self {
        Self { unit, was_owned: false, owned_last: false, contested: false, pending_claim: None }
    }

    pub(super) fn pending_claim(&mut self) -> &mut PendingClaim {
        self.pending_claim.get_or_insert_default()
    }

    pub(super) fn end_conflict_hold_down(&mut self) {
        if let Some(pending_claim) = &mut self.pending_claim {
            pending_claim.conflict_hold_down_until = None;
        }
    }

    pub(super) fn history(&self) -> Option<&History> {
        self.pending_claim.as_ref()?.history.as_deref()
    }

    pub(super) fn history_mut(&mut self) -> &mut History {
        self.pending_claim().history.get_or_insert_default()
    }
}

/// Sort key of a node: order and name of a node that is no candidate, rank of a candidate.
pub(super) type SortKey<'a> = (Option<(u32, &'a str)>, Option<Rank<'a>>);

/// Properties of a node that decide on its rank for a unit. `candidate` contains the node's API
/// facts and flags, or is `None` if the node fails a hard rule.
#[derive(Clone, Copy)]
pub(super) struct NodeView<'a> {
    pub(super) name: &'a str,
    /// [`Unit::order`] of the node.
    pub(super) order: u32,
    pub(super) candidate: Option<(&'a Candidate, Flags)>,
    /// True if the health checks of the address fail on the node, as reported by the node itself.
    pub(super) failing: bool,
}

impl<'a> NodeView<'a> {
    /// Returns the sort key of a node by its order alone.
    pub(super) const fn order_key(&self) -> (u32, &'a str) {
        (self.order, self.name)
    }

    /// Returns the sort key of a node; a lower key is better. Nodes that are no candidates sort
    /// after all candidates, by the order and the name alone. If `count_preempt_delay` is true, a
    /// running preempt delay of the node makes the key worse.
    pub(super) fn sort_key(&self, count_preempt_delay: bool) -> SortKey<'a> {
        match self.candidate {
            Some((candidate, flags)) => {
                let rank = rank(candidate, self.order, flags, self.failing, count_preempt_delay);
                (None, Some(rank))
            }
            None => (Some(self.order_key()), None),
        }
    }

    /// Returns the sort key of a node among the nodes that wait for the unit. If `by_own_report` is
    /// true, the key depends only on the state that the node itself reports, and on the order.
    pub(super) fn waiting_key(&self, by_own_report: bool) -> SortKey<'a> {
        let (no_candidate, rank) = self.sort_key(true);
        if by_own_report { (None, rank.map(Rank::without_api_facts)) } else { (no_candidate, rank) }
    }

    pub(super) fn flags(&self) -> Flags {
        self.candidate.map(|(_, flags)| flags).unwrap_or_default()
    }

    pub(super) fn soft(&self) -> Option<SoftRules> {
        self.candidate.map(|(candidate, flags)| soft_rules(candidate, flags, self.failing))
    }

    /// Returns whether `self` may take the unit from its live `owner`. `delay_runs` is true if the
    /// owner's preempt delay for the unit is running.
    ///
    /// Three kinds of nodes are restricted: a node in preempt delay, a node to which any soft rule
    /// applies, and every node if `delay_runs` is true. Such a node takes the unit only if less
    /// severe soft rules apply to it than to the owner, or if the owner is no candidate. A
    /// returning node must not move a unit that works. The order alone must not move a unit where
    /// no node is healthy.
    pub(super) fn may_take_from(&self, owner: &NodeView<'_>, delay_runs: bool) -> bool {
        self.sort_key(false) < owner.sort_key(false)
            && (!(delay_runs
                || self.flags().in_preempt_delay
                || self.soft() != Some(NO_SOFT_RULES))
                || owner.candidate.is_none()
                || self.soft() < owner.soft())
    }
}
