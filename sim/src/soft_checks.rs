//! Checks of the soft rules: no candidate is better than a unit's owner, and a candidate that is
//! not better does not take the unit from its owner.

use super::checker::{Checker, Rule, UnitState};
use super::world::SimWorld;
use ferrolb_proto::Instant;
use ferrolb_proto::claim::CLAIM_LIFETIME;
use ferrolb_proto::wire::hello::{Body, Flags, Frame};
use std::time::Duration;

/// A node that releases a unit within this time after it took the unit goes into hold-down.
const TOO_SOON: Duration = Duration::from_secs(5);
/// First hold-down; each further one is twice as long.
const HOLD_DOWN: Duration = Duration::from_secs(10);
/// Time within which all nodes have received each other's state, although some frames are lost.
const STATE_SPREAD_MAX: Duration = Duration::from_secs(5);
/// Time within which all nodes have received a claim. Before that, a node that has received the
/// release of the former owner, but not the claim of the new one, may take the unit as unowned.
const CLAIM_SPREAD_MAX: Duration = Duration::from_millis(300);

type SoftRules = [bool; 6];
const CLEAN: SoftRules = [false; 6];

impl Checker {
    /// Records the time of a change that may make another candidate the best one.
    pub(super) fn record_change(&mut self, now: Instant) {
        self.changed = now;
    }

    /// Records that a node released a unit.
    pub(super) fn record_release(&mut self, unit: usize, now: Instant) {
        let watch = &mut self.units[unit];
        watch.hold_downs += u32::from(now.since(watch.taken) < TOO_SOON);
    }
}

impl SimWorld {
    /// Returns which soft rules truly apply to a node for a unit, the worst rule first. The order
    /// of nodes by these rules is computed independently of the claim machines.
    fn soft(&self, index: usize, unit: usize) -> SoftRules {
        let node = &self.nodes[index];
        let Flags { leaving, draining, unhealthy, flapping: unstable, .. } = node.flags;
        [leaving, node.failing[unit], draining, unhealthy, self.api.cordoned[index], unstable]
    }

    /// Records the flags of a frame, and the times for which the addresses in the frame should not
    /// move.
    pub(super) fn record_frame(&mut self, index: usize, frame: &Frame) {
        if std::mem::replace(&mut self.nodes[index].flags, frame.flags) != frame.flags {
            self.truth.record_change(self.now);
        }
        let (Body::Claim { addresses, preempt_delays: keeps, .. }
        | Body::List { addresses, preempt_delays: keeps, .. }) = &frame.body
        else {
            return;
        };
        for (address, keep) in addresses.iter().zip(keeps) {
            if let Some(unit) = self.catalogue.unit_named(*address) {
                let kept_until = &mut self.truth.units[unit].keep_until;
                *kept_until = (*kept_until).max(self.now + *keep);
            }
        }
    }

    /// Returns whether the node works, is a candidate for the unit, and has the current view of the
    /// API.
    fn may_own(&self, index: usize, unit: usize) -> bool {
        let node = &self.nodes[index];
        node.works()
            && !node.flags.leaving
            && !node.flags.isolated
            && *node.view == self.api
            && self.api.candidates[unit][index]
    }

    /// Starts or ends the time in which no unit may move.
    pub(super) fn expect_no_moves(&mut self, still: bool) {
        self.log(|| format!("===== nothing may move: {still}"));
        self.truth.moves_forbidden = still;
    }

    /// Checks that a node to which a soft rule applies does not take a unit from a node that is at
    /// least as good.
    pub(super) fn check_reason(&mut self, taker: usize, unit: usize) {
        let known = self.now.since(self.truth.changed) >= STATE_SPREAD_MAX
            && self.parts == 1
            && !self.is_one_way();
        let moves = self.now.since(self.truth.units[unit].taken) < CLAIM_SPREAD_MAX;
        let own = self.soft(taker, unit);
        if !known || moves || own == CLEAN || !self.may_own(taker, unit) {
            return;
        }
        let alike = |owner: &usize| {
            *owner != taker && self.may_own(*owner, unit) && self.soft(*owner, unit) <= own
        };
        if let Some(owner) = self.owners(0, unit).into_iter().find(alike) {
            self.violate(
                Rule::NeedlessMove,
                format!("n{taker} takes unit {unit} from n{owner}, and is not better"),
            );
        }
    }

    /// Checks at the end of a run that no candidate is better than the owner: by the soft rules, or
    /// by the order if no soft rule applies to the two nodes.
    pub(super) fn check_best(&mut self, unit: usize) {
        let UnitState { taken, keep_until: kept_until, hold_downs: backed_off, .. } =
            self.truth.units[unit];
        // Time for which a node may be in hold-down, or may count as no candidate because it has
        // released the unit.
        let waits =
            CLAIM_LIFETIME.max(HOLD_DOWN * 2_u32.saturating_pow(backed_off)) + STATE_SPREAD_MAX;
        let settled = self.now.since(self.truth.changed) >= waits && self.now.since(taken) >= waits;
        let [owner] = self.owners(0, unit)[..] else { return };
        if !settled
            || self.parts > 1
            || self.is_one_way()
            || self.foreign_hosts.contains_key(&unit)
            || !self.may_own(owner, unit)
        {
            return;
        }
        let is_kept = self.now < kept_until + STATE_SPREAD_MAX;
        let its = self.soft(owner, unit);
        let better = |index: &usize| {
            let own = self.soft(*index, unit);
            let by_order = own == CLEAN
                && its == CLEAN
                && !(is_kept || self.nodes[*index].flags.in_preempt_delay)
                && self.catalogue.is_before(unit, *index, owner);
            self.may_own(*index, unit) && (own < its || by_order)
        };
        if let Some(index) = (0..self.nodes.len()).find(better) {
            self.violate(
                Rule::Best,
                format!("unit {unit}: n{owner} owns it, and n{index} is better"),
            );
        }
    }
}
