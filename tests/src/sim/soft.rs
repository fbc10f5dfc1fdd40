//! Whether the soft rules are kept: who owns a unit is as good as any other, and who is no better than the owner leaves it alone.

use super::truth::{Rule, Truth, Watch};
use super::world::World;
use ferrolb_proto::Instant;
use ferrolb_proto::claim::CLAIM_LIFETIME;
use ferrolb_proto::wire::hello::{Body, Flags, Frame};
use std::time::Duration;

/// Who gives up what it took this short a time ago backs off.
const TOO_SOON: Duration = Duration::from_secs(5);
/// For so long at first, and twice as long each time.
const BACK_OFF: Duration = Duration::from_secs(10);
/// Within this time all nodes know of each other what they say, although some frames are lost.
const KNOWN: Duration = Duration::from_secs(5);
/// Within this time all know of a claim: before, who hears of the release that it brought about takes the unit for free.
const CLAIM_KNOWN: Duration = Duration::from_millis(300);

type Soft = [bool; 6];
const CLEAN: Soft = [false; 6];

impl Truth {
    /// Something changed that may change who is the best.
    pub(super) fn note_change(&mut self, now: Instant) {
        self.changed = now;
    }

    /// Someone gave a unit up.
    pub(super) fn note_stop(&mut self, unit: usize, now: Instant) {
        let watch = &mut self.units[unit];
        watch.backed_off += u32::from(now.since(watch.taken) < TOO_SOON);
    }
}

impl World {
    /// What really speaks against a node, worst first; the machines have this order from elsewhere.
    fn soft(&self, index: usize, unit: usize) -> Soft {
        let node = &self.nodes[index];
        let Flags { leaving, draining, unhealthy, unstable, .. } = node.says;
        [leaving, node.failing[unit], draining, unhealthy, self.api.cordoned[index], unstable]
    }

    /// Takes from a frame what it says of its sender, and how long addresses are best left with it.
    pub(super) fn note_words(&mut self, index: usize, frame: &Frame) {
        if std::mem::replace(&mut self.nodes[index].says, frame.flags) != frame.flags {
            self.truth.note_change(self.now);
        }
        let (Body::Claim { addresses, keeps, .. } | Body::List { addresses, keeps, .. }) = &frame.body else { return };
        for (address, keep) in addresses.iter().zip(keeps) {
            if let Some(unit) = self.catalogue.unit_named(*address) {
                let kept_until = &mut self.truth.units[unit].kept_until;
                *kept_until = (*kept_until).max(self.now + *keep);
            }
        }
    }

    /// Whether it works, is a candidate, and knows it.
    fn may_have(&self, index: usize, unit: usize) -> bool {
        let node = &self.nodes[index];
        node.works()
            && !node.says.leaving
            && !node.says.deaf
            && *node.view == self.api
            && self.api.candidates[unit][index]
    }

    /// From here on nothing may move, or it may again.
    pub(super) fn expect_stillness(&mut self, still: bool) {
        self.log(|| format!("===== nothing may move: {still}"));
        self.truth.still = still;
    }

    /// A node takes a unit: if something speaks against it, then not from one that is no worse.
    pub(super) fn check_reason(&mut self, taker: usize, unit: usize) {
        let known = self.now.since(self.truth.changed) >= KNOWN && self.parts == 1 && !self.is_one_way();
        let moves = self.now.since(self.truth.units[unit].taken) < CLAIM_KNOWN;
        let own = self.soft(taker, unit);
        if !known || moves || own == CLEAN || !self.may_have(taker, unit) {
            return;
        }
        let alike = |owner: &usize| *owner != taker && self.may_have(*owner, unit) && self.soft(*owner, unit) <= own;
        if let Some(owner) = self.owners(0, unit).into_iter().find(alike) {
            self.violate(Rule::Wander, format!("n{taker} takes unit {unit} from n{owner}, and is no better"));
        }
    }

    /// In the end no candidate is better than the owner: none by the soft rules, and by order none that is sound.
    pub(super) fn check_best(&mut self, unit: usize) {
        let Watch { taken, kept_until, backed_off, .. } = self.truth.units[unit];
        // As long as who refused, or backed off, may still do so.
        let waits = CLAIM_LIFETIME.max(BACK_OFF * 2_u32.saturating_pow(backed_off)) + KNOWN;
        let settled = self.now.since(self.truth.changed) >= waits && self.now.since(taken) >= waits;
        let [owner] = self.owners(0, unit)[..] else { return };
        if !settled
            || self.parts > 1
            || self.is_one_way()
            || self.strangers.contains_key(&unit)
            || !self.may_have(owner, unit)
        {
            return;
        }
        let is_kept = self.now < kept_until + KNOWN;
        let its = self.soft(owner, unit);
        let better = |index: &usize| {
            let own = self.soft(*index, unit);
            let by_order = own == CLEAN
                && its == CLEAN
                && !(is_kept || self.nodes[*index].says.fresh)
                && self.catalogue.is_before(unit, *index, owner);
            self.may_have(*index, unit) && (own < its || by_order)
        };
        if let Some(index) = (0..self.nodes.len()).find(better) {
            self.violate(Rule::Best, format!("unit {unit}: n{owner} has it, and n{index} is better"));
        }
    }
}
