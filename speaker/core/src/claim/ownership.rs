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
//! - [`rule`]: the ownership rule, and preemption.
//! - [`two_owners`]: conflicts between two owners, and doubts.
//! - [`evaluation`]: the units, and which of them the ownership rule evaluates again. A call
//!   evaluates a limited number of units, and the next tick continues.
//! - [`mod@unit`]: state of one election unit.
//! - [`claims`]: effects of the peers' claims and releases.
//! - [`announcements`]: repeated announcements of all owned addresses.
//! - [`foreign`]: conflicts with foreign hosts, and with peers whose kernel replies for an address.
//! - [`probes`]: ARP probes.
//! - [`unheard`]: addresses of nodes whose claims do not arrive.
//! - [`moves`]: recent moves of a unit, and the preempt delay that follows from them.

mod announcements;
mod claims;
mod evaluation;
mod foreign;
mod moves;
mod probes;
mod rule;
mod two_owners;
mod unheard;
mod unit;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::ops::Bound;
use std::sync::Arc;

use ferrolb_core::election::Rank;
use ferrolb_core::random::Random;
use ferrolb_core::shared_map::SharedMap;
use ferrolb_proto::Instant;
use ferrolb_proto::wire::Mac;
use ferrolb_proto::wire::hello::ClaimRank;

use super::claim_sets::{ClaimSets, Owned};
use super::membership::Membership;
use super::{ClaimConfig, ClaimCounters, Move, Output};
use announcements::Announcements;
use evaluation::DirtyUnits;
use foreign::ConflictState;
use moves::MOVES_WINDOW;
use unit::UnitState;

#[cfg(test)]
pub(super) use evaluation::{COMPARISONS_PER_TURN_MAX, EVALUATIONS_PER_TURN_MAX};
pub use foreign::{AddressConflict, ConflictKind};

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

/// State of all election units of one network segment.
#[derive(Debug)]
pub(super) struct Ownership {
    config: ClaimConfig,
    /// State of each election unit, by its address.
    units: BTreeMap<IpAddr, UnitState>,
    /// Units whose ownership may have to change.
    dirty: DirtyUnits,
    /// Decisions that follow from one input; a few frames carry all of them.
    decided: Decisions,
    /// Unowned addresses whose owner has failed, each with the name of the owner, and the time of
    /// its latest frame.
    unowned: BTreeMap<IpAddr, (Arc<str>, Instant)>,
    announcements: Announcements,
    /// Conflicts with foreign hosts or kernels of peers about addresses of this node's units.
    address_conflicts: BTreeMap<IpAddr, ConflictState>,
    /// Time at which the next postponed address defense is due.
    defense_due: Option<Instant>,
    /// Earliest time of the first ARP probe for a further unit.
    next_probe: Instant,
    /// Peers whose claims may include addresses that this node owns, each with the last address
    /// that was checked.
    conflict_checks: BTreeMap<Arc<str>, Bound<IpAddr>>,
    /// Times at which units must be evaluated again, each with its address.
    timers: BTreeSet<(Instant, IpAddr)>,
    /// Time at which all units are evaluated again, although nothing may have changed.
    next_sweep: Instant,
    effects: VecDeque<OwnershipEffect>,
    counts: ClaimCounters,
    random: Random,
}

impl Ownership {
    pub(super) fn new(config: ClaimConfig, now: Instant) -> Self {
        Self {
            random: Random::new(!config.epoch),
            config,
            units: BTreeMap::new(),
            dirty: DirtyUnits::default(),
            decided: Decisions::default(),
            unowned: BTreeMap::new(),
            announcements: Announcements::default(),
            address_conflicts: BTreeMap::new(),
            defense_due: None,
            next_probe: now,
            conflict_checks: BTreeMap::new(),
            timers: BTreeSet::new(),
            next_sweep: now + MOVES_WINDOW,
            effects: VecDeque::new(),
            counts: ClaimCounters::default(),
        }
    }

    /// Returns the next effect of the inputs so far.
    pub(super) fn poll(&mut self) -> Option<OwnershipEffect> {
        let effect = self.effects.pop_front();
        if effect.is_none() {
            self.effects.shrink_to(super::OUTPUTS_KEPT);
        }
        effect
    }

    /// Returns the decisions that follow from the inputs so far, and forgets them.
    pub(super) fn take_decisions(&mut self) -> Decisions {
        std::mem::take(&mut self.decided)
    }

    /// Returns the time of the next deadline.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let unit = self.timers.first().map(|(at, _)| *at);
        unit.into_iter().chain(self.defense_due).chain(self.announcements.deadline()).min()
    }

    pub(super) const fn counts(&self) -> ClaimCounters {
        self.counts
    }

    /// Returns whether an address is one of the units.
    pub(super) fn has_unit(&self, address: IpAddr) -> bool {
        self.units.contains_key(&address)
    }

    fn output(&mut self, output: Output) {
        self.effects.push_back(OwnershipEffect::Output(output));
    }
}

#[cfg(test)]
mod tests;
