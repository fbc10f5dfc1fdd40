//! The hello and claim machine: who answers for which address on one wire (design: layer 2; docs/l2.md).
//!
//! One machine per link, run by the link's thread in the speaker and by the simulator. It owns what is known of the other
//! speakers on the wire, what they claim and what this node claims. Its one rule: a unit that nobody claims, or that a
//! worse rank holds and I may take, is claimed by the r-th of those that may after r staggers; a holder stops when it hears
//! a better claim, and not before.
//!
//! - [`peers`]: who is heard, their claims, suspicion and death.
//! - [`own`]: what this node holds, and the frames that say so.
//! - [`rule`]: the one rule, conflicts, and who may take what.

mod own;
mod peers;
mod rule;

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use crate::election::Unit;
use crate::wire::Mac;
use crate::wire::hello::{Flags, Frame};
use crate::{Instant, Machine};

use own::Own;
use peers::{Peer, Stranger};
use rule::UnitState;

/// The shortest stagger between two that may claim the same unit.
pub const STAGGER_MIN: Duration = Duration::from_millis(60);
/// What the stagger is longer than the hello interval by.
pub const STAGGER_OVER_INTERVAL: Duration = Duration::from_millis(10);
/// The hello interval of a node that holds nothing.
pub const INTERVAL_IDLE: Duration = Duration::from_secs(1);
/// How long a claim that is not restated, and a refusal, stay known.
pub const CLAIM_LIFETIME: Duration = Duration::from_secs(12);
/// How long a node listens before its first claim.
pub const LISTEN: Duration = Duration::from_secs(1);
/// How long a leaving node waits for others to take over.
pub const LEAVE_MAX: Duration = Duration::from_secs(2);
/// How many speakers on one wire are tracked; more are counted and ignored.
pub const PEERS_MAX: usize = 2048;
/// How many claimed addresses of one speaker are tracked; more are counted and ignored.
pub const CLAIMS_PER_PEER_MAX: usize = 65_536;
/// How many hellos at the old, faster rate follow the announcement of a slower one.
const SLOWING_HELLOS: u8 = 3;

/// What a machine is made with.
#[derive(Clone, Debug)]
pub struct Config {
    /// This node's name.
    pub node: Box<str>,
    /// Random, new at every start; also seeds the machine's random delays.
    pub epoch: u64,
    /// The hello interval while this node holds an address.
    pub hello_interval: Duration,
    /// How many hellos may be missing before a suspicion.
    pub hello_misses: u32,
    /// How long a node counts as fresh; none: as long as it runs (`--failback-delay never`).
    pub failback_delay: Option<Duration>,
}

/// What can happen to the machine.
#[derive(Clone, Debug)]
pub enum Input {
    /// All units that this wire may carry; replaces what was there.
    Units(Vec<Unit>),
    /// Ids of the keys that can be verified; none yet: no frame is sent and nothing is claimed.
    Keys(Vec<u32>),
    /// This node hands its addresses over, or no longer.
    Draining(bool),
    /// A frame that was decoded, with the source of its Ethernet header.
    Frame {
        /// Source MAC.
        source: Mac,
        /// Its contents.
        frame: Frame,
    },
    /// An ARP answer came from this MAC: something there still answers.
    ArpAnswer(Mac),
    /// This node is about to stop.
    Leave,
}

/// What the machine wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Send this frame, to the group where `to` is none.
    Send {
        /// Destination.
        to: Option<Mac>,
        /// What to sign and send.
        frame: Frame,
    },
    /// Answer for this address from now on, and tell the wire.
    Start(IpAddr),
    /// Still ours after a conflict: tell the wire again.
    Refresh(IpAddr),
    /// Answer for this address no longer.
    Stop(IpAddr),
    /// Ask by ARP for this address, from the host at `mac`, which may be dead.
    Probe {
        /// An address it claims.
        address: IpAddr,
        /// Where it was heard last.
        mac: Mac,
    },
    /// Nothing is held any more, or the wait is over: the process may end.
    Left,
}

/// What happened so far; counters since the machine was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Peers suspected dead.
    pub suspicions: u64,
    /// Suspicions that turned out wrong.
    pub refuted: u64,
    /// Peers found dead.
    pub deaths: u64,
    /// Times this node gave up all it had because it had been frozen.
    pub fences: u64,
    /// Claims of a member for an address that this node holds.
    pub conflicts: u64,
    /// Frames older than one already seen.
    pub stale_frames: u64,
    /// Frames of nodes or epochs that have yet to answer a challenge: newcomers for a moment, or recordings.
    pub unproven: u64,
    /// Frames that carry this node's own name: a reflection, or two nodes with one name.
    pub own_name: u64,
    /// Frames dropped and claims ignored because a table was full.
    pub over_limit: u64,
}

/// The machine of one link. See the module's head.
#[derive(Debug)]
pub struct Claims {
    config: Config,
    own: Own,
    peers: BTreeMap<Box<str>, Peer>,
    strangers: BTreeMap<Box<str>, Stranger>,
    /// By the unit's first address.
    units: BTreeMap<IpAddr, UnitState>,
    /// The unit of every address.
    unit_of: BTreeMap<IpAddr, IpAddr>,
    outputs: VecDeque<Output>,
    counts: Counts,
    random: u64,
}

impl Claims {
    /// A machine that starts to listen at `now`.
    #[must_use]
    pub fn new(config: Config, now: Instant) -> Self {
        Self {
            own: Own::new(&config, now),
            // Zero is the one seed that xorshift cannot leave.
            random: config.epoch | 1,
            config,
            peers: BTreeMap::new(),
            strangers: BTreeMap::new(),
            units: BTreeMap::new(),
            unit_of: BTreeMap::new(),
            outputs: VecDeque::new(),
            counts: Counts::default(),
        }
    }

    /// Until when an address that is held may be answered for: an answer is legal only while the own last hello left less
    /// than `(misses - 1) x interval` ago, so that no frozen node speaks for an address that another has taken.
    #[must_use]
    pub fn gate(&self) -> Instant {
        self.own.last_hello + self.config.hello_interval * (self.config.hello_misses - 1)
    }

    /// The addresses that this node holds.
    pub fn held(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.own.held.keys().copied()
    }

    /// The names of the speakers that are heard and alive, ascending.
    pub fn heard(&self) -> impl Iterator<Item = &str> {
        self.peers.iter().filter(|(_, peer)| !peer.dead).map(|(name, _)| &**name)
    }

    /// Counters since the machine was made.
    #[must_use]
    pub const fn counts(&self) -> Counts {
        self.counts
    }

    /// Draws the consequences of whatever changed.
    fn settle(&mut self, now: Instant) {
        self.say(now);
        self.evaluate_all(now);
        self.say(now);
        self.leave_if_done(now);
        self.hello_if_due(now);
    }

    /// A number below `below`; xorshift64, for delays that must differ between nodes and be the same in a replay.
    fn random(&mut self, below: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % below
    }
}

impl Machine for Claims {
    type Input = Input;
    type Output = Output;

    fn handle(&mut self, input: Input, now: Instant) {
        self.check_gate(now);
        match input {
            Input::Units(units) => self.set_units(units, now),
            Input::Keys(keys) => self.set_keys(keys, now),
            Input::Draining(draining) => self.set_flags(Flags { draining, ..self.own.flags }, now),
            Input::Frame { source, frame } => self.receive(source, frame, now),
            Input::ArpAnswer(mac) => self.arp_answer(mac),
            Input::Leave => self.leave(now),
        }
        self.settle(now);
    }

    fn tick(&mut self, now: Instant) {
        self.check_gate(now);
        self.expire(now);
        self.check_peers(now);
        self.settle(now);
    }

    fn poll(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn deadline(&self) -> Option<Instant> {
        let peers = self.peers.values().filter_map(|peer| peer.deadline(&self.config));
        let units = self.units.values().filter_map(UnitState::deadline);
        peers.chain(units).chain(self.own.deadlines()).min()
    }
}

#[cfg(test)]
mod tests;
