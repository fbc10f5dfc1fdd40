//! State of an election unit on this node: pending changes, and the rank of its candidates. Owned
//! by the claim machine of one interface.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::foreign::Checks;
use crate::Instant;
use crate::election::{Candidate, NO_SOFT_RULES, Rank, SoftRules, Unit, order, rank, soft_rules};
use crate::wire::hello::Flags;

/// Minimum interval between announcements of a unit against a peer that claims it and does not
/// yield, and between repeated claims after the first few (DEFEND_INTERVAL of RFC 5227).
pub(super) const CONFLICT_INTERVAL: Duration = Duration::from_secs(10);
const BACK_OFF_MIN: Duration = Duration::from_secs(10);
const BACK_OFF_MAX: Duration = Duration::from_secs(300);
/// Time after the end of a hold-down after which the next one is short again.
const BACK_OFF_FORGOTTEN: Duration = Duration::from_secs(600);

/// State of an election unit on this node. The type is small, because there may be 10,000 units.
#[derive(Debug, Default)]
pub(super) struct UnitState {
    pub(super) unit: Arc<Unit>,
    /// Any node, this one or another, has owned the unit since the unit appeared on this node.
    pub(super) was_held: bool,
    /// This node is the owner, or was the most recent one.
    pub(super) owned_last: bool,
    /// A foreign host used an address of the unit when the address was most recently probed, so a
    /// new owner probes first.
    pub(super) contested: bool,
    /// Pending claim, hold-downs and recent moves; `None`, the normal case, if there are none.
    pub(super) story: Option<Box<PendingClaim>>,
}

/// Pending claim, hold-downs and recent moves of a unit.
#[derive(Debug, Default)]
pub(super) struct PendingClaim {
    /// Time since which this node may take the unit, and the time at which it takes the unit.
    pub(super) pending: Option<(Instant, Instant)>,
    /// Time at which this node, which owns the unit but is no candidate, releases it although no
    /// peer has taken it.
    pub(super) release_at: Option<Instant>,
    /// Number of conflicts won against each peer that claims the unit while this node owns it.
    pub(super) conflicts_won: BTreeMap<Box<str>, u8>,
    /// Time of the latest announcement of the unit's addresses because of a conflict.
    pub(super) defended: Option<Instant>,
    /// End of the hold-down after yielding to a live owner, and the situation in which this node
    /// yielded. A change of the situation ends the hold-down early.
    pub(super) back_off: Option<(Instant, YieldSituation)>,
    /// Start and length of the latest hold-down after yielding, from which the next length follows.
    pub(super) latest_hold_down: Option<(Instant, Duration)>,
    /// End of the preempt delay, until which the owner keeps the unit although a better node is
    /// present.
    pub(super) preempt_delay_until: Option<Instant>,
    /// End of the conflict hold-down, until which this node does not take the unit although no peer
    /// owns it.
    pub(super) conflict_hold_down_until: Option<Instant>,
    /// Progress of the ARP probes for the unit's addresses, if any.
    pub(super) checks: Option<Checks>,
    /// Times of the unit's recent moves, ascending.
    pub(super) moves: Vec<Instant>,
    /// Time at which `ClaimMachine::timers` has an entry for the unit, if any.
    pub(super) timer: Option<Instant>,
}

/// Situation in which this node yielded a unit and entered hold-down, as this node saw it. The soft
/// rules of a node that is no candidate are `None`.
#[derive(Clone, Copy, Debug)]
pub(super) struct YieldSituation {
    /// The other owner had a different view of which of the two nodes ranks better.
    pub(super) differs: bool,
    /// Soft rules that applied to this node.
    pub(super) us: Option<SoftRules>,
    /// Soft rules that applied to the other owner.
    pub(super) them: Option<SoftRules>,
}

impl YieldSituation {
    /// Returns whether the situation has changed so much that this node may take the unit back
    /// without the risk of flapping.
    ///
    /// The situation has changed if the owner is no longer a candidate. In the `first` hold-down,
    /// it has also changed if more soft rules apply to the owner, or fewer to this node. Fewer
    /// rules for this node do not count if the views differ, because an owner with a different view
    /// would not yield.
    pub(super) fn is_over(self, us: &NodeView<'_>, holder: &NodeView<'_>, first: bool) -> bool {
        let gone = self.them.is_some() && holder.candidate.is_none();
        let worse = self.them.zip(holder.soft()).is_some_and(|(then, soft)| soft > then);
        let better = us.soft().is_some_and(|soft| self.us.is_none_or(|then| soft < then));
        gone || (first && (worse || (better && !self.differs)))
    }
}

impl PendingClaim {
    pub(super) fn deadline(&self) -> Option<Instant> {
        let due = self.pending.map(|(_, due)| due);
        let checks = self.checks.map(|checks| checks.next);
        let others = [
            self.release_at,
            self.back_off.map(|(until, _)| until),
            self.preempt_delay_until,
            self.conflict_hold_down_until,
            checks,
        ];
        others.into_iter().flatten().chain(due).min()
    }

    pub(super) fn back_off(&mut self, yielded: YieldSituation, now: Instant) {
        let again =
            self.latest_hold_down.filter(|(at, wait)| now.since(*at) < *wait + BACK_OFF_FORGOTTEN);
        let wait = again.map_or(BACK_OFF_MIN, |(_, wait)| (wait * 2).min(BACK_OFF_MAX));
        self.latest_hold_down = Some((now, wait));
        self.back_off = Some((now + wait, yielded));
    }

    /// Returns the situation in which the current hold-down began, and whether no other hold-down
    /// came shortly before it.
    pub(super) fn yielded(&self) -> Option<(YieldSituation, bool)> {
        let first = self.latest_hold_down.is_some_and(|(_, wait)| wait == BACK_OFF_MIN);
        self.back_off.map(|(_, then)| (then, first))
    }

    /// Returns whether this state contains nothing that is still needed, so that it can be dropped.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        let forgotten =
            |(at, wait): (Instant, Duration)| now.since(at) >= wait + BACK_OFF_FORGOTTEN;
        self.deadline().is_none()
            && self.conflicts_won.is_empty()
            && self.moves.is_empty()
            && self.defended.is_none_or(|at| now.since(at) >= CONFLICT_INTERVAL)
            && self.latest_hold_down.is_none_or(forgotten)
    }
}

impl UnitState {
    pub(super) fn story(&mut self) -> &mut PendingClaim {
        self.story.get_or_insert_default()
    }
}

/// A node in relation to a unit. `candidate` contains the node's API facts and flags if the node
/// passes every hard rule.
#[derive(Clone, Copy)]
pub(super) struct NodeView<'a> {
    pub(super) name: &'a str,
    pub(super) candidate: Option<(&'a Candidate, Flags)>,
    /// Number of the unit's addresses whose health checks fail on the node, as reported by the node
    /// itself.
    pub(super) failing: u8,
}

impl NodeView<'_> {
    /// Returns the sort key of a node; a lower key is better. Nodes that are no candidates sort
    /// after all candidates, by the order alone. `count_fresh`: a running preempt delay makes the
    /// key worse.
    pub(super) fn sort_key(&self, unit: &Unit, count_fresh: bool) -> (Option<u128>, Option<Rank>) {
        match (self.candidate, unit.addresses.first()) {
            (Some((candidate, flags)), _) => {
                (None, Some(rank(candidate, flags, self.failing, count_fresh)))
            }
            (None, first) => {
                (Some(first.map_or(u128::MAX, |address| order(self.name, *address))), None)
            }
        }
    }

    /// Returns the sort key of a node without API facts: from the state that the node itself
    /// reports, and from the order.
    pub(super) fn self_reported_key(&self) -> (Option<u128>, Option<Rank>) {
        let alone =
            |candidate: &Candidate| Candidate { order: candidate.order, ..Candidate::default() };
        (
            None,
            self.candidate
                .map(|(candidate, flags)| rank(&alone(candidate), flags, self.failing, true)),
        )
    }

    pub(super) fn flags(&self) -> Flags {
        self.candidate.map(|(_, flags)| flags).unwrap_or_default()
    }

    pub(super) fn soft(&self) -> Option<SoftRules> {
        self.candidate.map(|(candidate, flags)| soft_rules(candidate, flags, self.failing))
    }

    /// Returns whether `self` may take the unit from its live owner `holder`. `kept`: the owner's
    /// preempt delay for the unit is running.
    ///
    /// Three kinds of nodes are restricted: a node in preempt delay, a node to which any soft rule
    /// applies, and every node while `kept`. Such a node takes the unit only if less severe soft
    /// rules apply to it than to the owner, or if the owner is no candidate. A returning node must
    /// not move a unit that works. The order alone must not move a unit where no node is healthy.
    pub(super) fn may_take_from(&self, holder: &Self, unit: &Unit, kept: bool) -> bool {
        self.sort_key(unit, false) < holder.sort_key(unit, false)
            && (!(kept || self.flags().in_preempt_delay || self.soft() != Some(NO_SOFT_RULES))
                || holder.candidate.is_none()
                || self.soft() < holder.soft())
    }
}
