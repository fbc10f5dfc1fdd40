//! The units of this node, and the selection of those that the ownership rule must evaluate again.
//! Part of the ownership of one interface.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::ops::Bound;
use std::sync::Arc;

use ferrolb_core::election::Unit;
use ferrolb_proto::Instant;

use super::View;
use super::unit::UnitState;
use crate::claim::claim_sets::SetCopy;
use crate::claim::recent::RECENT;

/// Maximum number of units that one call of the machine evaluates. The driver handles frames before
/// the next call.
pub(in crate::claim) const EVALUATIONS_PER_TURN_MAX: usize = 512;
/// Maximum number of peers with which one call of the machine compares this node, for all units
/// together: without an owner, the evaluation of a unit compares this node with each peer.
pub(in crate::claim) const COMPARISONS_PER_TURN_MAX: usize = 4_096;
/// If at least one in this number of units has a timer, all units are evaluated instead of only
/// those with a timer.
const TIMERS_SHARE: usize = 4;
/// If the number of new addresses is at least this part of a set, to build the set again takes less
/// time than to insert the addresses.
const APPEND_SHARE: usize = 8;
/// Units that must be evaluated again, because something that affects their ownership has changed.
#[derive(Debug, Default)]
struct DirtyUnits {
    all: bool,
    /// True if all units with a timer must be evaluated, because the rank of a peer has changed,
    /// and with it perhaps the position of this node among the candidates.
    waiting: bool,
    /// Addresses whose units must be evaluated.
    addresses: BTreeSet<IpAddr>,
    /// Address that was evaluated last, if others remain. The next turn continues after it.
    last: Option<IpAddr>,
}

impl DirtyUnits {
    /// Removes and returns the next address, in ascending order. After the last address follows the
    /// first one.
    fn next(&mut self) -> Option<IpAddr> {
        let after = self.last.map_or(Bound::Unbounded, Bound::Excluded);
        let next = self.addresses.range((after, Bound::Unbounded)).next();
        self.last = next.or_else(|| self.addresses.first()).copied();
        self.last.inspect(|next| {
            self.addresses.remove(next);
        })
    }
}

/// State of all election units of one network segment.
#[derive(Debug)]
pub(super) struct UnitTable {
    /// State of each election unit, by its address.
    table: BTreeMap<IpAddr, UnitState>,
    /// Units whose ownership may have to change.
    dirty: DirtyUnits,
    /// Times at which units must be evaluated again, each with its address.
    timers: BTreeSet<(Instant, IpAddr)>,
    /// Time at which all units are evaluated again, although nothing may have changed.
    next_sweep: Instant,
}

impl UnitTable {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            table: BTreeMap::new(),
            dirty: DirtyUnits::default(),
            timers: BTreeSet::new(),
            next_sweep: now + RECENT,
        }
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// Returns whether an address is one of the units.
    pub(super) fn contain(&self, address: IpAddr) -> bool {
        self.table.contains_key(&address)
    }

    pub(super) fn get(&self, address: IpAddr) -> Option<&UnitState> {
        self.table.get(&address)
    }

    /// Returns the state of a unit. After a change, [`Self::mark`] evaluates the unit again.
    pub(super) fn get_mut(&mut self, address: IpAddr) -> Option<&mut UnitState> {
        self.table.get_mut(&address)
    }

    pub(super) fn remove(&mut self, address: IpAddr) {
        let state = self.table.remove(&address);
        if let Some(at) = state.and_then(|state| state.pending_claim?.timer) {
            self.timers.remove(&(at, address));
        }
    }

    /// Adds new and changed units. Only these units are evaluated again.
    pub(super) fn update(&mut self, changed: Vec<Arc<Unit>>, view: View<'_>) {
        if self.table.is_empty() {
            self.dirty.all = true;
            // `collect` builds the map with full B-tree nodes; single inserts would leave them half
            // empty.
            let new = changed.into_iter().map(|unit| (unit.address, new_state(unit, view)));
            self.table = new.collect();
            return;
        }
        self.dirty.addresses.extend(changed.iter().map(|unit| unit.address));
        for unit in changed {
            if let Some(state) = self.table.get_mut(&unit.address) {
                state.set_unit(unit);
            } else {
                self.table.insert(unit.address, new_state(unit, view));
            }
        }
    }

    /// Marks all units.
    pub(super) const fn mark_all(&mut self) {
        self.dirty.all = true;
    }

    /// Marks all units with a timer.
    pub(super) const fn mark_waiting(&mut self) {
        self.dirty.waiting = true;
    }

    /// Marks the units that a change of a peer affects: the units that the peer claims, and all
    /// units with a timer. `copy` is the copy of its claim set.
    pub(super) fn mark_affected(&mut self, copy: Option<&SetCopy>) {
        self.dirty.waiting = true;
        self.dirty.addresses.extend(copy.into_iter().flat_map(|copy| copy.claims().keys()));
    }

    /// Marks a unit.
    pub(super) fn mark(&mut self, address: IpAddr) {
        self.dirty.addresses.insert(address);
    }

    /// Marks the units of these addresses.
    pub(super) fn mark_each(&mut self, addresses: &[IpAddr]) {
        let marked = &mut self.dirty.addresses;
        if addresses.len() < marked.len() / APPEND_SHARE {
            marked.extend(addresses);
        } else {
            marked.append(&mut addresses.iter().copied().collect());
        }
    }

    /// Marks a unit, and updates its timer.
    pub(super) fn mark_changed(&mut self, address: IpAddr) {
        self.mark(address);
        if let Some(state) = self.table.get_mut(&address) {
            set_timer(&mut self.timers, address, state);
        }
    }

    /// Marks all units once per [`RECENT`]. Their evaluation drops the moves that are older.
    pub(super) fn sweep_if_due(&mut self, now: Instant) {
        if now >= self.next_sweep {
            self.next_sweep = now + RECENT;
            self.mark_all();
        }
    }

    /// Evaluates the units that are marked or whose timer has expired, in the order of their
    /// addresses. If this is too much for one call, the next tick continues.
    ///
    /// Returns whether the work is complete.
    pub(super) fn evaluate(
        &mut self,
        view: View<'_>,
        mut evaluate: impl FnMut(&mut UnitState),
    ) -> bool {
        self.mark_due(view.now);
        let by_comparisons = COMPARISONS_PER_TURN_MAX / view.members.peers().count().max(1);
        for _ in 0..EVALUATIONS_PER_TURN_MAX.min(by_comparisons.max(1)) {
            let Some(address) = self.dirty.next() else { break };
            if let Some(state) = self.table.get_mut(&address) {
                evaluate(state);
                set_timer(&mut self.timers, address, state);
                state.pending_claim.take_if(|pending_claim| pending_claim.is_over());
            }
        }
        self.dirty.addresses.is_empty()
    }

    /// Marks the units whose timer has expired, and those that [`DirtyUnits`] does not name.
    fn mark_due(&mut self, now: Instant) {
        let all = std::mem::take(&mut self.dirty.all);
        let waiting = std::mem::take(&mut self.dirty.waiting);
        // The addresses of the timers are not sorted, so it takes longer to collect them.
        if all || (waiting && self.timers.len() * TIMERS_SHARE >= self.table.len()) {
            // `collect` of sorted addresses takes much less time than single inserts.
            self.dirty.addresses = self.table.keys().copied().collect();
            return;
        }
        let is_due = |(at, _): &&(Instant, IpAddr)| waiting || *at <= now;
        let due = self.timers.iter().take_while(is_due).map(|(_, address)| *address);
        // If more are due than one call evaluates, one of them remains, and the next tick
        // continues.
        let count = if waiting { usize::MAX } else { EVALUATIONS_PER_TURN_MAX + 1 };
        self.dirty.addresses.extend(due.take(count));
    }
}

/// Updates the entry of a unit in `timers` to the unit's next deadline.
fn set_timer(timers: &mut BTreeSet<(Instant, IpAddr)>, address: IpAddr, state: &mut UnitState) {
    let Some(pending_claim) = &mut state.pending_claim else { return };
    let timer = pending_claim.deadline();
    if timer != pending_claim.timer {
        timers.extend(timer.map(|at| (at, address)));
        if let Some(before) = std::mem::replace(&mut pending_claim.timer, timer) {
            timers.remove(&(before, address));
        }
    }
}

/// Returns the state of a unit that has only now appeared on this node. A unit that a peer already
/// claims is proven. Taking such a unit counts as a move.
fn new_state(unit: Arc<Unit>, view: View<'_>) -> UnitState {
    let is_proven = view.owners(unit.address).next().is_some();
    UnitState { is_proven, ..UnitState::new(unit) }
}

/// State that only tests read.
#[cfg(test)]
impl UnitTable {
    pub(super) fn addresses(&self) -> impl Iterator<Item = &IpAddr> {
        self.table.keys()
    }

    /// Returns the state that decides about the units, as text. State that is over has no effect:
    /// the next evaluation drops it.
    pub(super) fn state(&mut self, now: Instant) -> String {
        for state in self.table.values_mut() {
            state.pending_claim.take_if(|pending_claim| {
                pending_claim.expire(now);
                pending_claim.is_over()
            });
        }
        let Self { table, timers, .. } = self;
        format!("{table:#?}{timers:#?}")
    }
}
