//! Checks of the soft rules: no candidate is better than a unit's owner, and a candidate that is
//! not better does not take the unit from its owner.

use std::time::Duration;

use ferrolb_core::rate::Doubling;
use ferrolb_proto::Instant;
use ferrolb_proto::wire::hello::{Body, Flags, Frame, Stretch};
use ferrolb_speaker_core::claim::DOUBT_LIFETIME;

use super::checker::{Checker, Rule, UnitState};
use super::world::SimWorld;

/// Time within which all nodes have received each other's state, although some frames are lost.
const STATE_SPREAD_MAX: Duration = Duration::from_secs(5);
/// Time within which all nodes have received a claim. Before that, a node that has received the
/// release of the former owner, but not the claim of the new one, may take the unit as unowned.
const CLAIM_SPREAD_MAX: Duration = Duration::from_millis(300);

/// Upper limit of the time for which a node respects a doubt.
const DOUBT_MAX: Duration = Duration::from_secs(640);

type AppliedSoftRules = [bool; 5];
const NO_SOFT_RULE: AppliedSoftRules = [false; 5];

impl Checker {
    /// Records the time of a change that may make another candidate the best one.
    pub(super) fn record_change(&mut self, now: Instant) {
        self.changed = now;
    }
}

impl SimWorld {
    /// Returns, for each soft rule, whether the rule applies to a node for a unit according to the
    /// true state. The order is from the worst rule to the least bad. The claim machines are not
    /// involved.
    fn soft_rules(&self, index: usize, unit: usize) -> AppliedSoftRules {
        let node = &self.nodes[index];
        let Flags { leaving, draining, unhealthy, .. } = node.flags;
        [leaving, node.failing[unit], draining, unhealthy, self.api.cordoned[index]]
    }

    /// Records the flags of a frame, and the times for which the addresses in the frame should not
    /// move.
    pub(super) fn record_frame(&mut self, index: usize, frame: &Frame) {
        if std::mem::replace(&mut self.nodes[index].flags, frame.flags) != frame.flags {
            self.checker.record_change(self.now);
        }
        if let Body::Doubt(addresses) = &frame.body {
            for unit in addresses.iter().filter_map(|address| self.catalog.unit_of(*address)) {
                self.checker.units[unit].doubted = true;
            }
        }
        let (Body::Claim(claims) | Body::List(Stretch { claims, .. })) = &frame.body else {
            return;
        };
        for claim in claims.iter().filter(|claim| !claim.preempt_delay.is_zero()) {
            if let Some(unit) = self.catalog.unit_of(claim.address) {
                let keep_until = &mut self.checker.units[unit].keep_until;
                *keep_until = (*keep_until).max(self.now + claim.preempt_delay);
            }
        }
    }

    /// Returns whether the node works, is neither leaving nor isolated, is a candidate for the
    /// unit, and has the current view of the API.
    fn may_own(&self, index: usize, unit: usize) -> bool {
        let node = &self.nodes[index];
        node.works()
            && !node.flags.leaving
            && !node.flags.isolated
            && *node.view == self.api
            && self.api.is_candidate(unit, index)
    }

    /// Starts or ends the time in which no unit may move.
    pub(super) fn expect_no_moves(&mut self, forbidden: bool) {
        self.log(|| format!("===== no unit may move: {forbidden}"));
        self.checker.moves_forbidden = forbidden;
    }

    /// Checks that a node to which a soft rule applies does not take a unit from a node that is at
    /// least as good.
    pub(super) fn check_reason(&mut self, taker: usize, unit: usize) {
        let all_informed = self.now.since(self.checker.changed) >= STATE_SPREAD_MAX
            && self.parts == 1
            && self.segment.filters.is_empty()
            && !self.is_one_way();
        let just_moved = self.now.since(self.checker.units[unit].taken) < CLAIM_SPREAD_MAX;
        let own = self.soft_rules(taker, unit);
        if !all_informed || just_moved || own == NO_SOFT_RULE || !self.may_own(taker, unit) {
            return;
        }
        let is_as_good = |owner: &usize| {
            *owner != taker && self.may_own(*owner, unit) && self.soft_rules(*owner, unit) <= own
        };
        if let Some(owner) = self.owners(0, unit).into_iter().find(is_as_good) {
            self.report_violation(
                Rule::NeedlessMove,
                format!("n{taker} takes unit {unit} from n{owner}, and is not better"),
            );
        }
    }

    /// Records whether unhealthy nodes own a unit although a healthy candidate works, and checks
    /// for how long they did.
    pub(super) fn check_unhealthy_owner(&mut self, unit: usize) {
        if self.bounds.unhealthy_owner.is_none() {
            return;
        }
        let is_unhealthy = |index: &usize| self.nodes[*index].flags.unhealthy;
        let is_healthy = |index: usize| !is_unhealthy(&index) && self.may_own(index, unit);
        let owners = self.owners(0, unit);
        let lasts = !owners.is_empty()
            && owners.iter().all(is_unhealthy)
            && (0..self.nodes.len()).any(is_healthy);
        if !lasts {
            self.check_unhealthy_time(unit);
        }
        let since = &mut self.checker.units[unit].unhealthy_since;
        *since = lasts.then(|| since.unwrap_or(self.now));
    }

    /// Checks for how long unhealthy nodes have owned a unit although a healthy candidate worked.
    pub(super) fn check_unhealthy_time(&mut self, unit: usize) {
        let since = self.checker.units[unit].unhealthy_since;
        let lasted = since.map_or(Duration::ZERO, |since| self.now.since(since));
        let bound = self.bounds.unhealthy_owner.map_or(Duration::MAX, Duration::from_millis);
        if lasted > bound {
            self.report_violation(
                Rule::UnhealthyOwner,
                format!("unit {unit}: owned by unhealthy nodes for {lasted:.1?}"),
            );
        }
    }

    /// Checks at the end of a run that no candidate is better than the owner: by the soft rules, or
    /// by the order if no soft rule applies to the two nodes.
    pub(super) fn check_best(&mut self, unit: usize) {
        let UnitState { taken, keep_until, move_count, doubted, .. } = self.checker.units[unit];
        // A better node may respect the doubt of another one. The time doubles with each move.
        let moves = u32::try_from(move_count).unwrap_or(u32::MAX);
        let doubt = Doubling::new(DOUBT_LIFETIME, DOUBT_MAX).delay(moves) * u32::from(doubted);
        let settle_time = doubt + STATE_SPREAD_MAX;
        let settled = self.now.since(self.checker.changed) >= settle_time
            && self.now.since(taken) >= settle_time;
        let [owner] = self.owners(0, unit)[..] else { return };
        if !settled
            || self.parts > 1
            || self.is_one_way()
            || !self.segment.filters.is_empty()
            || self.foreign_hosts.contains_key(&unit)
            || !self.may_own(owner, unit)
        {
            return;
        }
        let is_kept = self.now < keep_until + STATE_SPREAD_MAX;
        let owner_rules = self.soft_rules(owner, unit);
        let is_better = |index: &usize| {
            let own = self.soft_rules(*index, unit);
            let by_order = own == NO_SOFT_RULE
                && owner_rules == NO_SOFT_RULE
                && !(is_kept || self.nodes[*index].flags.in_preempt_delay)
                && self.catalog.is_before(unit, *index, owner);
            self.may_own(*index, unit) && (own < owner_rules || by_order)
        };
        if let Some(index) = (0..self.nodes.len()).find(is_better) {
            self.report_violation(
                Rule::Best,
                format!("unit {unit}: n{owner} owns it, and n{index} is better"),
            );
        }
    }
}
