//! One node of the simulated segment: a real claim machine, and the state of the process around it.

use super::clock::NodeClock;
use super::event::Packet;
use super::faulty_machine::{Defect, FaultyMachine};
use super::view::ApiView;
use ferrolb_core::election::Unit;
use ferrolb_proto::Instant;
use ferrolb_proto::wire::Mac;
use ferrolb_proto::wire::hello::{Flags, HelloKeyRing};
use std::collections::{BTreeSet, VecDeque};
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// Maximum number of frames that wait for a halted node, like the frames in the receive buffer of a
/// socket.
const PENDING_FRAMES_MAX: usize = 64;

/// Reason why a node is halted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Halt {
    /// SIGSTOP to the process: the node's clock keeps running.
    Stopped,
    /// Pause of the virtual machine: the node's clock stops too.
    Paused,
}

/// A round of an announcement that was due while the node was halted. The node sends it when it
/// continues.
#[derive(Clone, Copy, Debug)]
pub(super) struct DelayedRound {
    pub(super) unit: usize,
    pub(super) round: usize,
    pub(super) announcement: u32,
}

pub(super) struct SimNode {
    pub(super) name: Box<str>,
    pub(super) mac: Mac,
    pub(super) clock: NodeClock,
    /// Number of starts of the process.
    pub(super) process_number: u32,
    /// Defect of this node alone.
    pub(super) defect: Option<Defect>,
    /// Claim machine of the process. None while the process does not run.
    pub(super) machine: Option<FaultyMachine>,
    pub(super) started: Instant,
    pub(super) leaving: bool,
    pub(super) halted: Option<Halt>,
    /// Time at which the latest halt ended.
    pub(super) resumed: Instant,
    /// True if the node receives no frames.
    pub(super) isolated: bool,
    /// For each unit, true if its health checks fail on this node.
    pub(super) failing: Vec<bool>,
    /// Flags in the node's most recent frame.
    pub(super) flags: Flags,
    /// Detection time in the most recent frame of the process; zero before its first frame.
    pub(super) detection_time: Duration,
    /// Time by which the longer one of this and the previous detection time exceeds that of a calm
    /// node.
    pub(super) allowance: Duration,
    /// True if all frames that the node sends are dropped.
    pub(super) sends_nothing: bool,
    /// Number of the part of a split segment to which the node belongs.
    pub(super) part: u8,
    pub(super) pending_frames: VecDeque<Rc<Packet>>,
    pub(super) delayed_rounds: Vec<DelayedRound>,
    pub(super) view: Rc<ApiView>,
    /// Units that the claim machine of the process has received.
    pub(super) units: Vec<Arc<Unit>>,
    /// True if the node's view of the API changed while the node was halted.
    pub(super) view_pending: bool,
    /// True if a frame from a host that is not a node arrived while the node was halted.
    pub(super) foreign_frame_pending: bool,
    /// Time at which the node receives the latest change in the API.
    pub(super) api_change_at: Instant,
    pub(super) keys: HelloKeyRing,
    /// Addresses that the machine announces.
    pub(super) announced: BTreeSet<IpAddr>,
    /// For each unit, true if the machine announces its first address.
    pub(super) owns: Vec<bool>,
    pub(super) lease_valid: bool,
    /// Time of the most recent frame from each other node; empty if no rule needs these times.
    pub(super) last_frame: Vec<Instant>,
    /// Number of challenges to each other node since the most recent frame from it; empty if no
    /// rule needs these numbers.
    pub(super) challenges: Vec<u32>,
    /// True if an event that checks the answer lease is pending.
    pub(super) lease_watched: bool,
    /// Time of the pending [`super::event::Event::Wake`] of the node.
    pub(super) wake: Option<Instant>,
    /// Number of the machine's fences that the results of the run already include.
    pub(super) counted_fences: u64,
    /// The same for the failures that the machine has declared.
    pub(super) counted_failures: u64,
    /// Number of the latest announcement of each unit. Rounds of an announcement with another
    /// number are not sent.
    pub(super) announcement_numbers: Vec<u32>,
}

impl SimNode {
    /// Creates a node whose process does not run yet.
    pub(super) fn new(
        index: usize,
        clock: NodeClock,
        view: Rc<ApiView>,
        keys: HelloKeyRing,
        units: usize,
    ) -> Self {
        let [high, low] = u16::try_from(index).unwrap_or(u16::MAX).to_be_bytes();
        Self {
            name: format!("n{index}").into(),
            mac: Mac([2, 0, 0, 0, high, low]),
            clock,
            process_number: 0,
            defect: None,
            machine: None,
            started: Instant::ZERO,
            leaving: false,
            halted: None,
            resumed: Instant::ZERO,
            isolated: false,
            failing: vec![false; units],
            flags: Flags::default(),
            detection_time: Duration::ZERO,
            allowance: Duration::ZERO,
            sends_nothing: false,
            part: 0,
            pending_frames: VecDeque::new(),
            delayed_rounds: Vec::new(),
            view,
            units: Vec::new(),
            view_pending: false,
            foreign_frame_pending: false,
            api_change_at: Instant::ZERO,
            last_frame: Vec::new(),
            challenges: Vec::new(),
            keys,
            announced: BTreeSet::new(),
            owns: vec![false; units],
            lease_valid: false,
            lease_watched: false,
            wake: None,
            counted_fences: 0,
            counted_failures: 0,
            announcement_numbers: vec![0; units],
        }
    }

    /// Returns the index of the node to which [`Self::new`] gave this MAC.
    pub(super) const fn index_of(mac: Mac) -> usize {
        u16::from_be_bytes([mac.0[4], mac.0[5]]) as usize
    }

    /// Returns whether the process runs.
    pub(super) const fn is_up(&self) -> bool {
        self.machine.is_some()
    }

    /// Returns whether the node can receive requests and send replies.
    pub(super) const fn works(&self) -> bool {
        self.is_up() && self.halted.is_none() && !self.isolated && !self.sends_nothing
    }

    /// Returns whether the node replies to clients for the unit.
    pub(super) fn announces(&self, unit: usize) -> bool {
        self.owns[unit] && self.lease_valid && self.works()
    }

    pub(super) fn queue_frame(&mut self, packet: Rc<Packet>) {
        if self.pending_frames.len() < PENDING_FRAMES_MAX {
            self.pending_frames.push_back(packet);
        }
    }

    /// Ends the process and discards its state.
    pub(super) fn clear(&mut self, now: Instant) {
        if self.halted == Some(Halt::Paused) {
            // The next process starts on a machine that is not paused.
            self.clock.resume(now);
        }
        self.machine = None;
        self.units.clear();
        self.leaving = false;
        self.halted = None;
        self.pending_frames.clear();
        self.delayed_rounds.clear();
        self.announced.clear();
        self.owns.fill(false);
        self.lease_valid = false;
        self.wake = None;
        self.counted_fences = 0;
        self.counted_failures = 0;
        for announcement in &mut self.announcement_numbers {
            *announcement += 1;
        }
    }
}
