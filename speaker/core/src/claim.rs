//! Ownership protocol: decides which speaker owns which address on one network segment
//! (docs/internals/l2-protocol.md).
//!
//! Each interface has one state machine, [`ClaimMachine`]. The interface's thread in the speaker
//! runs it, and in simulations the simulator. It consists of three parts. No part has access to the
//! fields of another; the ownership reads the other two by methods:
//!
//! - [`membership`]: the other speakers on the segment (the peers), and whether they are alive.
//! - [`claim_sets`]: claim sets of this node and of its peers, and an index of the peers by
//!   address.
//! - [`ownership`]: which addresses this node takes, keeps and releases.
//!
//! The claim machine passes each input to the part that it concerns, and the effects of one part to
//! the others:
//!
//! - [`interface`]: configuration, inputs and outputs of the claim machine.
//! - [`frames`]: received frames and datagrams.
//! - [`effects`]: effects of one part on the others.
//! - [`decisions`]: frames with the decisions, lists and hellos of this node.
//! - [`move_cause`]: causes of moves.
//! - [`recent`]: recent events that lengthen a preempt delay.
//! - [`counters`]: counters of events, for the metrics.
//! - `fuzz`: fuzz targets of the parts.

mod claim_sets;
mod counters;
mod decisions;
mod effects;
mod frames;
#[cfg(any(test, feature = "fuzz"))]
pub mod fuzz;
mod interface;
mod membership;
mod move_cause;
mod ownership;
mod recent;

pub use claim_sets::Owned;
pub use counters::ClaimCounters;
pub use interface::{ClaimConfig, Input, NodeState, Output};
pub use membership::{LateHellos, Membership, OwnState, Peers};
pub use move_cause::{Move, MoveCause};
pub use ownership::{AddressConflict, ConflictKind};

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::Duration;

use ferrolb_core::Machine;
use ferrolb_core::shared_map::SharedMap;
use ferrolb_proto::Instant;
use ferrolb_proto::wire::Mac;

use claim_sets::ClaimSets;
use ownership::{Ownership, View};

/// Shortest stagger between two candidates for the same unit.
pub const STAGGER_MIN: Duration = Duration::from_millis(60);
/// Time that is added to the hello interval to compute the stagger, unless [`STAGGER_MIN`] is
/// longer than the sum.
pub const STAGGER_OVER_INTERVAL: Duration = Duration::from_millis(10);
/// Maximum time for which a node respects the doubt of a peer about its eligibility for an address.
/// The time doubles with each recent move of the address, up to ten minutes.
pub const DOUBT_LIFETIME: Duration = Duration::from_secs(10);
/// Length of a listen phase, in which a node only receives frames and claims nothing. A listen
/// phase precedes the first claim of the node, and follows each fence and each standby period.
/// After a fence it ends earlier if the node has heard every live peer.
pub const LISTEN_PHASE: Duration = Duration::from_secs(1);
/// Maximum time that a leaving node waits for peers to take over its addresses.
pub const HANDOVER_TIMEOUT: Duration = Duration::from_secs(2);
/// Capacity that a queue of outputs or effects keeps when it is empty. A burst of thousands of
/// addresses needs far more, but only for a moment.
const OUTPUTS_KEPT: usize = 64;
/// Delay until the machine continues work that was too much for one call: the driver must handle
/// frames meanwhile, and a deadline is always in the future.
const CONTINUE_DELAY: Duration = Duration::from_micros(1);

/// State machine of the ownership protocol for one interface; see the module documentation.
#[derive(Debug)]
pub struct ClaimMachine {
    membership: Membership,
    sets: ClaimSets,
    ownership: Ownership,
    /// Time at which the next tick continues work that was too much for one call. Until then, other
    /// calls only add to this work.
    continue_at: Option<Instant>,
    outputs: VecDeque<Output>,
}

impl ClaimMachine {
    /// Creates a machine that starts to receive at `now`.
    #[must_use]
    pub fn new(config: ClaimConfig, now: Instant) -> Self {
        Self {
            sets: ClaimSets::new(config.epoch, now),
            membership: Membership::new(config.clone(), now),
            ownership: Ownership::new(config, now),
            continue_at: None,
            outputs: VecDeque::new(),
        }
    }

    /// Returns the other speakers on the segment, and the state of this node.
    #[must_use]
    pub const fn members(&self) -> &Membership {
        &self.membership
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

    /// Returns the conflicts about addresses of this node's units, by address, and one for each
    /// unheard peer.
    pub fn conflicts(&self) -> impl Iterator<Item = AddressConflict> + '_ {
        let unheard = self.membership.peers().unheard().filter_map(|name| {
            let copy = self.sets.copy(name)?;
            let address = *copy.claims().keys().chain(self.owned().keys()).next()?;
            let (mac, kind) =
                (self.membership.peers().mac_of(name)?, ConflictKind::UnheardPeer(name.into()));
            Some(AddressConflict { address, mac, kind })
        });
        self.ownership.conflicts().chain(unheard)
    }

    /// Returns whether a host can prove that this node receives frames while its peers are silent.
    /// `mac` is the hardware address of the host, and `address` its IP address.
    ///
    /// A peer or newcomer cannot be a witness, because it may have failed. A host with an address
    /// of this node's units cannot be one either, because peers announce these addresses.
    #[must_use]
    pub fn is_witness(&self, mac: Mac, address: IpAddr) -> bool {
        !self.ownership.has_unit(address) && !self.membership.is_member(mac)
    }

    /// Returns the counters of events since the machine was created.
    #[must_use]
    pub const fn counts(&self) -> ClaimCounters {
        let (members, ownership) = (self.membership.counts(), self.ownership.counts());
        ClaimCounters {
            foreign_hosts: ownership.foreign_hosts,
            kernel_replies: ownership.kernel_replies,
            conflicts: ownership.conflicts,
            proxied_failures: ownership.proxied_failures,
            over_limit: members.over_limit + ownership.over_limit,
            ..members
        }
    }

    /// Returns the ownership, and the facts from which it decides.
    const fn ownership(&mut self, now: Instant) -> (&mut Ownership, View<'_>) {
        let Self { membership: members, sets, ownership, .. } = self;
        (ownership, View { members, sets, now })
    }

    /// Computes the decisions that follow from all changes so far, and queues their frames.
    fn settle(&mut self, now: Instant) {
        let has_backlog = self.continue_at.is_some();
        if !has_backlog {
            self.do_turn(Ownership::settle_conflicts, now);
        }
        self.send_decisions(now);
        if !has_backlog {
            self.do_turn(Ownership::evaluate_dirty, now);
            self.send_decisions(now);
            self.do_turn(Ownership::announce_if_due, now);
        }
        if self.continue_at.is_none() {
            self.continue_list(now);
        }
        self.leave_if_done(now);
        self.hello_if_due(now);
        #[cfg(any(test, feature = "fuzz"))]
        assert!(self.sets.is_consistent(), "the index contains the claims of all peers");
    }

    /// Does a turn of the ownership's work, and applies the effects. Requests a tick if `work`
    /// returns false, because the work was too much for one call.
    fn do_turn(&mut self, work: fn(&mut Ownership, View<'_>) -> bool, now: Instant) {
        let (ownership, view) = self.ownership(now);
        let is_complete = work(ownership, view);
        self.apply_effects(now);
        if !is_complete {
            self.continue_at = Some(now + CONTINUE_DELAY);
        }
    }
}

impl Machine for ClaimMachine {
    type Input = Input;
    type Output = Output;

    fn handle(&mut self, input: Input, now: Instant) {
        self.membership.check_answer_lease(now);
        self.apply_effects(now);
        if input.proves_receipt() {
            self.membership.frame_received(now);
        }
        match input {
            Input::Units { changed, removed } => self.update_units(changed, &removed, now),
            Input::Keys(keys) => self.membership.own_mut().set_keys(keys, now),
            Input::NodeState(state) => self.membership.own_mut().set_node_state(state, now),
            Input::Frame { source, frame } => self.receive(source, frame, now),
            Input::ArpReply(mac) => self.membership.on_arp_reply(mac),
            Input::FrameReceived => {}
            Input::Datagram(frame) => self.receive_datagram(frame, now),
            Input::NeighborReplied => self.membership.on_reply(now),
            Input::RequestAnswered(mac) => self.membership.on_request(mac, now),
            Input::FramesDropped => self.membership.on_frames_dropped(now),
            Input::ForeignFrame { address, mac, announced } => {
                let (ownership, view) = self.ownership(now);
                ownership.on_foreign_frame(address, mac, announced, view);
            }
            Input::SiblingInterface { is_active } => self.on_sibling_frame(is_active, now),
            Input::MainLoopStalled(stalled) => self.membership.set_main_loop_stalled(stalled, now),
            Input::Leave => self.membership.own_mut().leave(now),
            Input::InterfaceRemoved => self.end(now),
        }
        self.apply_effects(now);
        self.settle(now);
    }

    fn tick(&mut self, now: Instant) {
        self.continue_at.take_if(|at| now >= *at);
        self.membership.check_answer_lease(now);
        self.apply_effects(now);
        self.membership.own_mut().expire(now);
        let (ownership, view) = self.ownership(now);
        ownership.expire(view);
        self.apply_effects(now);
        self.membership.check_silence(now);
        self.apply_effects(now);
        self.membership.check_peers(now);
        self.apply_effects(now);
        self.settle(now);
    }

    fn poll(&mut self) -> Option<Output> {
        pop(&mut self.outputs)
    }

    fn deadline(&self) -> Option<Instant> {
        if self.continue_at.is_some() {
            // The times of units that are not evaluated yet may be in the past.
            return self.continue_at;
        }
        self.membership.deadline().into_iter().chain(self.ownership.deadline()).min()
    }
}

/// Removes the first value of a queue. An empty queue keeps memory for [`OUTPUTS_KEPT`] values.
fn pop<T>(queue: &mut VecDeque<T>) -> Option<T> {
    let first = queue.pop_front();
    if first.is_none() {
        queue.shrink_to(OUTPUTS_KEPT);
    }
    first
}

#[cfg(test)]
mod tests;
