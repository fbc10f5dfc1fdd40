//! Ownership: which addresses this node takes, keeps and releases, and which conflicts there are
//! about them. Owned by the claim machine of one interface, which executes the decisions and reads
//! the effects after each call.
//!
//! The ownership rule: each owner states its own rank for each of its addresses. If an election
//! unit has no owner, or an owner with a worse rank, the candidates claim it in order of rank: the
//! candidate with position r (from 0) claims the unit after r staggers. If two nodes own a unit,
//! the one with the worse stated rank releases the unit when it receives the other one's claim, and
//! not before.
//!
//! Each part has its own state, which the others read by methods:
//!
//! - [`rule`]: the ownership rule, preemption, and the decisions that follow.
//! - [`units`]: the units, and which of them the ownership rule evaluates again. A call evaluates a
//!   limited number of units, and the next tick continues.
//! - [`mod@unit`]: state of one election unit, with [`probes`] (ARP probes for its address).
//! - [`announcements`]: repeated announcements of all owned addresses.
//! - [`conflicts`]: conflicts about addresses of the units, and their defenses.
//!
//! [`Ownership`] passes each input to its parts:
//!
//! - [`claims`]: the peers' claims and releases.
//! - [`foreign`]: frames of foreign hosts, and of peers whose kernel replies for an address.
//! - [`unheard`]: addresses of nodes whose claims do not arrive.

mod announcements;
mod claims;
mod conflicts;
mod foreign;
mod probes;
mod rule;
mod unheard;
mod unit;
mod units;

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use ferrolb_core::election::{Rank, Unit};
use ferrolb_core::random::Random;
use ferrolb_core::shared_map::SharedMap;
use ferrolb_proto::Instant;
use ferrolb_proto::wire::Mac;
use ferrolb_proto::wire::hello::ClaimRank;

use super::claim_sets::{ClaimSets, Owned, SetCopy};
use super::membership::Membership;
use super::{ClaimConfig, ClaimCounters, Move, Output};
use announcements::Announcements;
use conflicts::AddressConflicts;
use probes::ProbeStep;
use rule::Rule;
use units::UnitTable;

pub use conflicts::{AddressConflict, ConflictKind};
#[cfg(test)]
pub(super) use units::{COMPARISONS_PER_TURN_MAX, EVALUATIONS_PER_TURN_MAX};

/// Maximum number of addresses that one call of the machine announces again, and maximum number of
/// conflicts that it settles. The driver handles frames before the next call.
const ADDRESSES_PER_TURN_MAX: usize = 512;

/// Facts from which the ownership decides: the peers and their claim sets at one time.
#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    pub(super) members: &'a Membership,
    pub(super) sets: &'a ClaimSets,
    pub(super) now: Instant,
}

/// Rank that an owner states, and the end of its preempt delay for the unit.
type PeerRank<'a> = (Rank<'a>, Instant);

impl<'a> View<'a> {
    /// Returns the addresses that this node owns.
    fn owned(self) -> &'a SharedMap<IpAddr, Owned> {
        self.sets.own().owned()
    }

    /// Returns the ranks that the live owners of an address state, except this node.
    fn owners(self, address: IpAddr) -> impl Iterator<Item = PeerRank<'a>> + Clone {
        let claimants = self.sets.claimants(address);
        claimants.filter_map(move |(name, copy)| {
            let (_, flags) = self.members.peers().get_live(name)?;
            let claim = copy.claims().get(&address)?;
            Some((Rank::stated(name, flags, claim.rank), claim.delay_end))
        })
    }

    /// Returns whether a candidate may own a unit although this node has never received its claims:
    /// this node has heard no peer since its start, or a candidate does not respond to challenges.
    fn may_miss_owner(self, unit: &Unit) -> bool {
        let mut silent = self.members.silent_newcomers(self.now);
        (self.members.peers().count() == 0 && unit.candidates.len() > 1)
            || silent.any(|name| unit.candidate(name).is_some())
    }
}

/// Effect of an input on the rest of the claim machine, apart from the [`Decisions`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum OwnershipEffect {
    /// The driver must execute this output.
    Output(Output),
    /// This peer announces an address of this node that it does not claim. The claim may have been
    /// lost.
    Suspect(Arc<str>),
    /// A host with the MAC of this failed peer, or of this node that does not respond to
    /// challenges, announces an address of this node: it must be checked whether it is alive.
    CheckFailedPeer { node: Arc<str>, mac: Mac, address: IpAddr },
}

/// Decisions that are not yet executed and sent to the peers, as lists of addresses.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Decisions {
    /// Addresses to take, with the ranks to state.
    pub(super) take: Vec<(IpAddr, ClaimRank)>,
    /// Moves that the other decisions cause.
    pub(super) moves: Vec<Move>,
    /// Owned addresses to claim again, because their rank has changed or a peer claims them, too.
    pub(super) restate: Vec<(IpAddr, ClaimRank)>,
    pub(super) hand_over: Vec<IpAddr>,
    /// Addresses to release because a foreign host uses them.
    pub(super) contest: Vec<IpAddr>,
    /// Addresses that their owner, the peer with this name, may not announce in this node's view.
    pub(super) doubts: BTreeMap<String, Vec<IpAddr>>,
}

/// Ownership of the addresses of one network segment.
#[derive(Debug)]
pub(super) struct Ownership {
    units: UnitTable,
    rule: Rule,
    announcements: Announcements,
    conflicts: AddressConflicts,
    /// Peers whose claims may include addresses that this node owns, each with the last address
    /// that was checked.
    conflict_checks: BTreeMap<Arc<str>, Bound<IpAddr>>,
    effects: VecDeque<OwnershipEffect>,
    counts: ClaimCounters,
    random: Random,
}

impl Ownership {
    pub(super) fn new(config: ClaimConfig, now: Instant) -> Self {
        Self {
            random: Random::new(!config.epoch),
            units: UnitTable::new(now),
            rule: Rule::new(config, now),
            announcements: Announcements::default(),
            conflicts: AddressConflicts::default(),
            conflict_checks: BTreeMap::new(),
            effects: VecDeque::new(),
            counts: ClaimCounters::default(),
        }
    }

    /// Returns the next effect of the inputs so far.
    pub(super) fn poll(&mut self) -> Option<OwnershipEffect> {
        super::pop(&mut self.effects)
    }

    /// Returns the decisions that follow from the inputs so far, and forgets them.
    pub(super) fn take_decisions(&mut self) -> Decisions {
        self.rule.take_decisions()
    }

    /// Returns the time of the next deadline.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let parts =
            [self.units.deadline(), self.conflicts.deadline(), self.announcements.deadline()];
        parts.into_iter().flatten().min()
    }

    pub(super) const fn counts(&self) -> ClaimCounters {
        self.counts
    }

    /// Returns whether an address is one of the units.
    pub(super) fn has_unit(&self, address: IpAddr) -> bool {
        self.units.contain(address)
    }

    /// Returns the remaining preempt delay of an address of this node.
    pub(super) fn preempt_delay(&self, address: IpAddr, now: Instant) -> Duration {
        let state = self.units.get(address);
        state.map_or(Duration::ZERO, |state| self.rule.preempt_delay(state, now))
    }

    /// Removes units. Their addresses must be released.
    pub(super) fn remove_units(&mut self, removed: &[IpAddr]) {
        for address in removed {
            self.rule.forget_failed_owner(*address);
            self.units.remove(*address);
        }
    }

    /// Adds new and changed units. Only these units are evaluated again.
    pub(super) fn update_units(&mut self, changed: Vec<Arc<Unit>>, view: View<'_>) {
        self.units.update(changed, view);
    }

    /// Evaluates all units again, because the state of this node has changed.
    pub(super) const fn mark_all(&mut self) {
        self.units.mark_all();
    }

    /// Evaluates the units again that a change of a peer affects. `copy` is the copy of its claim
    /// set.
    pub(super) fn mark_affected(&mut self, copy: Option<&SetCopy>) {
        self.units.mark_affected(copy);
    }

    /// Handles what is due at this time, except the units' timers.
    pub(super) fn expire(&mut self, view: View<'_>) {
        self.units.sweep_if_due(view.now);
        self.conflicts.expire(|address| self.units.contain(address), view.now);
        for address in self.conflicts.defend_due(view.now) {
            if view.owned().contains_key(&address) {
                self.output(Output::Defend(address));
            }
        }
    }

    /// Decides again on the units that may have to change. If this is too much for one call, the
    /// next tick continues.
    ///
    /// Returns whether the work is complete.
    pub(super) fn evaluate_dirty(&mut self, view: View<'_>) -> bool {
        let Self { units, rule, .. } = self;
        let is_complete = units.evaluate(view, |state| rule.evaluate(state, view));
        for (address, step) in self.rule.take_probed() {
            if step == ProbeStep::Probe {
                self.output(Output::ArpProbe(address));
            } else {
                self.conflicts.end_left(address);
            }
        }
        is_complete
    }

    /// Schedules an announcement of all owned addresses, because a peer may have announced some of
    /// them unnoticed. `series` is true for the full series of announcements, false for one
    /// announcement per address.
    fn announce_all(&mut self, series: bool, view: View<'_>) {
        if !view.owned().is_empty() {
            self.announcements.schedule(series, view.now);
        }
    }

    /// Announces all owned addresses again if that is due. If this is too much for one call, the
    /// next tick continues. Returns whether the work is complete.
    pub(super) fn announce_if_due(&mut self, view: View<'_>) -> bool {
        let (addresses, series) = self.announcements.next_turn(view.owned(), view.now);
        let again = if series { Output::AnnounceSeries } else { Output::Defend };
        addresses.iter().for_each(|address| self.output(again(*address)));
        self.announcements.is_complete()
    }

    fn output(&mut self, output: Output) {
        self.effects.push_back(OwnershipEffect::Output(output));
    }
}

#[cfg(test)]
mod tests;
