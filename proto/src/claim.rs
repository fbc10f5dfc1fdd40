//! Ownership protocol: decides which speaker owns which address on one network segment
//! (docs/internals/l2-protocol.md).
//!
//! Each interface has one state machine, [`ClaimMachine`]. The interface's thread in the speaker
//! runs it, and in simulations the simulator. The state machine contains the state of the other
//! speakers on the segment (the peers), their claims, and the claims of this node.
//!
//! The ownership rule: each owner states its own rank for each of its addresses. If an election
//! unit has no owner, or an owner with a worse rank, the candidates claim it in order of rank: the
//! candidate with position r (from 0) claims the unit after r staggers. If two nodes own a unit,
//! the one with the worse stated rank releases the unit when it receives the other one's claim, and
//! not before.
//!
//! - [`peers`]: state of each peer, and the check whether a received frame is accepted.
//! - [`newcomers`]: the challenge that an unknown sender must pass.
//! - [`claim_sets`]: claim sets of this node and of its peers, and an index of the peers by
//!   address.
//! - [`claims`]: effects of the peers' claims and releases.
//! - [`failure_detection`]: failure detection of peers.
//! - [`second_path`]: challenges, reports and copies of frames by UDP.
//! - [`self_check`]: self-check: detects that this node is isolated, or that its clock stood still.
//! - [`own`]: state of this node, and the frames that it sends.
//! - [`hello`]: flags and hellos of this node, and their timing.
//! - [`interface`]: configuration, inputs and outputs of the claim machine.
//! - [`evaluation`]: the units, and which of them the ownership rule evaluates again. A call
//!   evaluates a limited number of units, and the next tick continues.
//! - [`rule`]: the ownership rule, conflicts between two owners, and preemption.
//! - [`mod@unit`]: state of one election unit.
//! - [`foreign`]: conflicts with foreign hosts, and with peers whose kernel replies for an address.
//! - [`unheard`]: addresses of nodes whose claims do not arrive.
//! - [`move_cause`]: causes of moves.
//! - [`moves`]: recent moves of a unit, and the preempt delay that follows from them.
//! - [`counters`]: counters of events, for the metrics.

mod claim_sets;
mod claims;
mod counters;
mod evaluation;
mod failure_detection;
mod foreign;
mod hello;
mod interface;
mod move_cause;
mod moves;
mod newcomers;
mod own;
mod peers;
mod rule;
mod second_path;
mod self_check;
mod unheard;
mod unit;

pub use claim_sets::Owned;
pub use counters::ClaimCounters;
pub use foreign::{AddressConflict, ConflictKind};
pub use interface::{ClaimConfig, Input, NodeState, Output};
pub use move_cause::{Move, MoveCause};

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use crate::shared_map::SharedMap;
use crate::wire::Mac;
use crate::wire::hello::Flags;
use crate::{Instant, Machine};

use claim_sets::ClaimSets;
use failure_detection::Suspicion;
use foreign::ConflictState;
use moves::MOVES_WINDOW;
use newcomers::Newcomer;
use own::OwnState;
use peers::Peer;
use self_check::SelfCheck;
use unit::UnitState;

/// Shortest stagger between two candidates for the same unit.
pub const STAGGER_MIN: Duration = Duration::from_millis(60);
/// Time that is added to the hello interval to compute the stagger, unless [`STAGGER_MIN`] is
/// longer than the sum.
pub const STAGGER_OVER_INTERVAL: Duration = Duration::from_millis(10);
/// Hello interval of a node that owns no address, unless the configured interval is longer.
pub const INTERVAL_IDLE: Duration = Duration::from_secs(1);
/// Maximum time for which a node respects the doubt of a peer about its eligibility for an address.
/// The time doubles with each recent move of the address, up to ten minutes.
pub const DOUBT_LIFETIME: Duration = Duration::from_secs(10);
/// Length of a listen phase, in which a node only receives frames and claims nothing. A listen
/// phase precedes the first claim of the node, and follows each fence and each standby period.
pub const LISTEN_PHASE: Duration = Duration::from_secs(1);
/// Maximum time that a leaving node waits for peers to take over its addresses.
pub const HANDOVER_TIMEOUT: Duration = Duration::from_secs(2);
/// Maximum number of tracked peers on one segment. Frames of further peers are ignored, and counted
/// in [`ClaimCounters::over_limit`].
pub const PEERS_MAX: usize = 2048;
/// Maximum number of tracked claims of one peer. Further claims are ignored, and counted in
/// [`ClaimCounters::over_limit`].
pub const CLAIMS_PER_PEER_MAX: usize = 65_536;
/// Capacity, in outputs, that the output queue keeps when it is empty. A burst of thousands of
/// addresses needs far more, but only for a moment.
const OUTPUTS_KEPT: usize = 64;

/// State machine of the ownership protocol for one interface; see the module documentation.
#[derive(Debug)]
pub struct ClaimMachine {
    config: ClaimConfig,
    own: OwnState,
    peers: BTreeMap<Arc<str>, Peer>,
    sets: ClaimSets,
    newcomers: BTreeMap<Box<str>, Newcomer>,
    /// Time before which no entry of `newcomers` expires.
    newcomers_due: Instant,
    /// State of each election unit, by its address.
    units: BTreeMap<IpAddr, UnitState>,
    /// Time of the next check of the peers' deadlines. The time may be too early; an early check
    /// changes nothing.
    peers_due: Option<Instant>,
    /// Unowned addresses whose owner has failed, each with the name of the owner, and the time of
    /// its latest frame.
    unowned: BTreeMap<IpAddr, (Arc<str>, Instant)>,
    /// Conflicts with foreign hosts or kernels of peers about addresses of this node's units.
    address_conflicts: BTreeMap<IpAddr, ConflictState>,
    /// Time at which the next postponed address defense is due.
    defense_due: Option<Instant>,
    /// Earliest time of the next ARP probe, so that probes for many units do not flood the segment.
    next_probe: Instant,
    /// Peers whose claims may include addresses that this node owns, each with the last address
    /// that was checked.
    conflict_checks: BTreeMap<Arc<str>, Bound<IpAddr>>,
    /// Times at which units must be evaluated again, each with its address.
    timers: BTreeSet<(Instant, IpAddr)>,
    /// Time at which the next tick continues work that was too much for one call. Until then, other
    /// calls only add to this work.
    continue_at: Option<Instant>,
    /// Time at which all units are evaluated again, although nothing may have changed.
    next_sweep: Instant,
    self_check: SelfCheck,
    /// Time after which no peer expects reports of this node by the second path.
    answers_end: Instant,
    /// Time of the latest reply to a frame of this node.
    last_reply: Instant,
    outputs: VecDeque<Output>,
    counts: ClaimCounters,
    random: u64,
}

impl ClaimMachine {
    /// Creates a machine that starts to receive at `now`.
    #[must_use]
    pub fn new(config: ClaimConfig, now: Instant) -> Self {
        let sets = ClaimSets::new(config.epoch, now);
        Self {
            own: OwnState::new(&config, now),
            // The value must not be zero, because xorshift would never leave zero.
            random: config.epoch | 1,
            config,
            peers: BTreeMap::new(),
            sets,
            newcomers: BTreeMap::new(),
            newcomers_due: now,
            units: BTreeMap::new(),
            peers_due: None,
            unowned: BTreeMap::new(),
            address_conflicts: BTreeMap::new(),
            defense_due: None,
            next_probe: now,
            conflict_checks: BTreeMap::new(),
            timers: BTreeSet::new(),
            continue_at: None,
            next_sweep: now + MOVES_WINDOW,
            self_check: SelfCheck::new(now),
            answers_end: now,
            last_reply: Instant::ZERO,
            outputs: VecDeque::new(),
            counts: ClaimCounters::default(),
        }
    }

    /// Returns the end of the answer lease: until that time, this node may reply for its addresses.
    ///
    /// The lease ends `(hello_misses - 1) x hello interval` after this node's latest hello. A
    /// stalled node therefore does not reply for an address that a peer has taken over.
    #[must_use]
    pub fn answer_lease_end(&self) -> Instant {
        self.own.last_hello + self.own.hello_interval.current * (self.config.hello_misses - 1)
    }

    /// Returns the addresses that this node owns.
    #[must_use]
    pub const fn owned(&self) -> &SharedMap<IpAddr, Owned> {
        self.sets.own().owned()
    }

    /// Returns whether the next tick continues work that was too much for one call. The driver
    /// handles other events before that tick.
    #[must_use]
    pub const fn has_more_work(&self) -> bool {
        self.continue_at.is_some()
    }

    /// Returns whether this interface is a standby interface, because another interface of the node
    /// is active on the same segment.
    #[must_use]
    pub const fn is_standby(&self) -> bool {
        self.own.standby_until.is_some()
    }

    /// Returns whether this node is isolated.
    #[must_use]
    pub const fn is_isolated(&self) -> bool {
        self.own.flags.isolated
    }

    /// Returns the names of the peers that are not declared failed, ascending.
    pub fn live_peers(&self) -> impl Iterator<Item = &str> {
        self.peers.iter().filter(|(_, peer)| !peer.failed).map(|(name, _)| &**name)
    }

    /// Returns the latest hardware address of each peer, failed peers included, in the order of the
    /// peers' names.
    pub fn macs(&self) -> impl Iterator<Item = Mac> + Clone + '_ {
        self.peers.values().map(|peer| peer.mac)
    }

    /// Returns whether a live peer reports that its kube-proxy was checked and is healthy.
    #[must_use]
    pub fn any_peer_health_checked(&self) -> bool {
        self.peers.values().any(|peer| !peer.failed && peer.flags.health_checked)
    }

    /// Returns whether the next tick may declare a peer failed. Before that tick, the driver should
    /// check whether the kernel dropped frames, and report such a loss as [`Input::FramesDropped`].
    #[must_use]
    pub fn has_suspicion(&self) -> bool {
        let is_open = |suspicion: &Suspicion| suspicion.is_open();
        self.peers.values().any(|peer| peer.suspicion.as_ref().is_some_and(is_open))
    }

    /// Returns the names of the unheard peers, ascending: they are alive, but their frames do not
    /// arrive on the segment.
    pub fn unheard_peers(&self) -> impl Iterator<Item = &str> {
        self.peers.iter().filter(|(_, peer)| peer.unheard).map(|(name, _)| &**name)
    }

    /// Returns the counters of events since the machine was created.
    #[must_use]
    pub const fn counts(&self) -> ClaimCounters {
        self.counts
    }

    /// Computes the decisions that follow from all changes so far, and queues their frames.
    fn settle(&mut self, now: Instant) {
        let has_backlog = self.continue_at.is_some();
        if !has_backlog {
            self.settle_conflicts(now);
        }
        self.send_decisions(now);
        if !has_backlog {
            self.evaluate_dirty(now);
            self.send_decisions(now);
            self.refresh_if_due(now);
        }
        if self.continue_at.is_none() {
            self.continue_list(now);
        }
        self.leave_if_done(now);
        self.hello_if_due(now);
        #[cfg(debug_assertions)]
        assert!(self.sets.is_consistent(), "the index contains the claims of all peers");
    }

    /// Returns a pseudorandom number less than `below` (xorshift64). Delays from these numbers
    /// differ between nodes, and are the same again when a run is replayed.
    fn random(&mut self, below: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % below
    }
}

impl Machine for ClaimMachine {
    type Input = Input;
    type Output = Output;

    fn handle(&mut self, input: Input, now: Instant) {
        self.check_answer_lease(now);
        match input {
            Input::Units { changed, removed } => self.update_units(changed, &removed, now),
            Input::Keys(keys) => self.set_keys(keys, now),
            Input::NodeState(NodeState { draining, unhealthy, health_checked }) => {
                self.set_flags(
                    Flags { draining, unhealthy, health_checked, ..self.own.flags },
                    now,
                );
            }
            Input::Frame { source, frame } => {
                self.frame_received(now);
                self.receive(source, frame, now);
            }
            Input::ArpReply(mac) => {
                self.frame_received(now);
                self.on_arp_reply(mac);
            }
            Input::FrameReceived => self.frame_received(now),
            Input::Datagram(frame) => self.receive_datagram(frame, now),
            Input::NeighborReplied => {
                self.frame_received(now);
                self.on_reply(now);
            }
            Input::RequestAnswered(mac) => self.on_request(mac, now),
            Input::FramesDropped => self.on_frames_dropped(now),
            Input::ForeignFrame { address, mac, announced } => {
                self.frame_received(now);
                self.on_foreign_frame(address, mac, announced, now);
            }
            Input::SiblingInterface { is_active } => {
                self.frame_received(now);
                self.on_sibling_frame(is_active, now);
            }
            Input::MainLoopStalled(stalled) => self.set_main_loop_stalled(stalled, now),
            Input::Leave => self.leave(now),
            Input::InterfaceRemoved => self.end(now),
        }
        self.settle(now);
    }

    fn tick(&mut self, now: Instant) {
        self.continue_at.take_if(|at| now >= *at);
        self.check_answer_lease(now);
        self.expire(now);
        self.sweep_if_due(now);
        self.expire_conflicts(now);
        self.defend_later(now);
        self.check_silence(now);
        self.check_peers(now);
        self.settle(now);
    }

    fn poll(&mut self) -> Option<Output> {
        let output = self.outputs.pop_front();
        if output.is_none() {
            self.outputs.shrink_to(OUTPUTS_KEPT);
        }
        output
    }

    fn deadline(&self) -> Option<Instant> {
        if self.continue_at.is_some() {
            // The times of units that are not evaluated yet may be in the past.
            return self.continue_at;
        }
        let unit = self.timers.first().map(|(at, _)| *at);
        self.peers_due
            .into_iter()
            .chain(self.defense_due)
            .chain(unit)
            .chain(self.self_check_deadline())
            .chain(self.own.deadlines())
            .min()
    }
}

#[cfg(test)]
mod tests;
