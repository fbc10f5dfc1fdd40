//! One node of the simulated wire: a real claim machine, and what the world does to the process around it.

use super::clock::Clock;
use super::event::Packet;
use super::member::Member;
use super::view::View;
use ferrolb_proto::Instant;
use ferrolb_proto::wire::Mac;
use ferrolb_proto::wire::hello::{Flags, KeyRing};
use std::collections::{BTreeSet, VecDeque};
use std::net::IpAddr;
use std::rc::Rc;

/// How many frames wait for a node that stands still: a socket's buffer.
const STASH_MAX: usize = 64;

/// Why a node does nothing at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Halt {
    /// SIGSTOP: its clock goes on.
    Stopped,
    /// The pause of a virtual machine: its clock stands still too.
    Paused,
}

/// A repeat of an announcement that a halted node could not make.
#[derive(Clone, Copy, Debug)]
pub(super) struct Repeat {
    pub(super) unit: usize,
    pub(super) round: usize,
    pub(super) announcement: u32,
}

pub(super) struct Node {
    pub(super) name: Box<str>,
    pub(super) mac: Mac,
    pub(super) clock: Clock,
    /// Counts its starts.
    pub(super) life: u32,
    /// None while the process is not there.
    pub(super) member: Option<Member>,
    pub(super) started: Instant,
    pub(super) leaving: bool,
    pub(super) halted: Option<Halt>,
    /// Receives nothing.
    pub(super) deaf: bool,
    /// For every unit whether its health checks of it fail.
    pub(super) failing: Vec<bool>,
    /// What its last frame said of it.
    pub(super) says: Flags,
    /// Sends nothing that arrives.
    pub(super) mute: bool,
    /// Which part of a torn wire it is on.
    pub(super) part: u8,
    pub(super) stash: VecDeque<Rc<Packet>>,
    pub(super) repeats: Vec<Repeat>,
    pub(super) view: Rc<View>,
    /// The view changed while it was halted.
    pub(super) view_waits: bool,
    /// A frame that is none of ours came while it was halted.
    pub(super) heard_waits: bool,
    /// When it learns of the latest change that is on its way.
    pub(super) learns_at: Instant,
    pub(super) keys: KeyRing,
    /// The addresses it was told to answer for.
    pub(super) answers: BTreeSet<IpAddr>,
    /// The same for the first address of every unit.
    pub(super) holds: Vec<bool>,
    pub(super) gate_open: bool,
    /// When a frame of each other node last reached it; empty where nobody asks.
    pub(super) heard: Vec<Instant>,
    /// How often it has challenged each other node since; empty likewise.
    pub(super) asked: Vec<u32>,
    /// An event that looks at the gate is under way.
    pub(super) gate_watched: bool,
    /// The event that wakes it, if one is under way.
    pub(super) wake: Option<Instant>,
    /// How often the machine has given up everything, as far as it was counted.
    pub(super) fences: u64,
    /// For every unit the number of its latest announcement; another number is stale.
    pub(super) announcements: Vec<u32>,
}

impl Node {
    /// A node whose process does not run yet.
    pub(super) fn new(index: usize, clock: Clock, view: Rc<View>, keys: KeyRing, units: usize) -> Self {
        let [high, low] = u16::try_from(index).unwrap_or(u16::MAX).to_be_bytes();
        Self {
            name: format!("n{index}").into(),
            mac: Mac([2, 0, 0, 0, high, low]),
            clock,
            life: 0,
            member: None,
            started: Instant::ZERO,
            leaving: false,
            halted: None,
            deaf: false,
            failing: vec![false; units],
            says: Flags::default(),
            mute: false,
            part: 0,
            stash: VecDeque::new(),
            repeats: Vec::new(),
            view,
            view_waits: false,
            heard_waits: false,
            learns_at: Instant::ZERO,
            heard: Vec::new(),
            asked: Vec::new(),
            keys,
            answers: BTreeSet::new(),
            holds: vec![false; units],
            gate_open: false,
            gate_watched: false,
            wake: None,
            fences: 0,
            announcements: vec![0; units],
        }
    }

    /// The node of a MAC that [`Self::new`] made.
    pub(super) const fn index_of(mac: Mac) -> usize {
        u16::from_be_bytes([mac.0[4], mac.0[5]]) as usize
    }

    /// Whether the process runs.
    pub(super) const fn is_up(&self) -> bool {
        self.member.is_some()
    }

    /// Whether a question reaches it and its answer could leave.
    pub(super) const fn works(&self) -> bool {
        self.is_up() && self.halted.is_none() && !self.deaf && !self.mute
    }

    /// Whether a client that asks for the unit is answered.
    pub(super) fn answers_for(&self, unit: usize) -> bool {
        self.holds[unit] && self.gate_open && self.works()
    }

    pub(super) fn keep(&mut self, packet: Rc<Packet>) {
        if self.stash.len() < STASH_MAX {
            self.stash.push_back(packet);
        }
    }

    /// The process is gone, with all it knew.
    pub(super) fn clear(&mut self, now: Instant) {
        if self.halted == Some(Halt::Paused) {
            // Whatever starts next does so on a machine that runs.
            self.clock.go_on(now);
        }
        self.member = None;
        self.leaving = false;
        self.halted = None;
        self.stash.clear();
        self.repeats.clear();
        self.answers.clear();
        self.holds.fill(false);
        self.gate_open = false;
        self.wake = None;
        self.fences = 0;
        for announcement in &mut self.announcements {
            *announcement += 1;
        }
    }
}
