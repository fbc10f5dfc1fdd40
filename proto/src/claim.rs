//! The hello and claim machine: who answers for which address on one wire (design: layer 2; docs/l2.md).
//!
//! One machine per link, run by the link's thread in the speaker and by the simulator. It owns what is known of the other
//! speakers on the wire, what they claim and what this node claims. Its one rule: a unit that nobody claims, or that a
//! worse rank holds and I may take, is claimed by the r-th of those that may after r staggers; a holder stops when it hears
//! a better claim, and not before.
//!
//! - [`peers`]: who is heard. - [`words`]: what they say that they hold. - [`death`]: suspicion and death.
//! - [`senses`]: whether this node itself is deaf, or stood still.
//! - [`failing`]: whose health checks fail. - [`own`]: what this node holds, and the frames that say so. - [`hello`]: what it says of itself, and when.
//! - [`rule`]: the one rule, conflicts, and who may take what. - [`unit`]: what is known of a unit.
//! - [`foreign`]: strangers, and kernels that answer. - [`moves`]: why a unit that moved often is left where it is.

mod death;
mod failing;
mod foreign;
mod hello;
mod moves;
mod own;
mod peers;
mod rule;
mod senses;
mod unit;
mod words;

pub use foreign::{Trouble, TroubleKind};

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::election::Unit;
use crate::wire::Mac;
use crate::wire::hello::{Flags, Frame};
use crate::{Instant, Machine};

use foreign::Seen;
use own::Own;
use peers::{Newcomer, Peer};
use senses::Senses;
use unit::UnitState;

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
/// Outputs that keep their room when all are taken: thousands of addresses that came at once gave far more.
const OUTPUTS_KEPT: usize = 64;

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

/// What the rest of a node says of itself, on all its links; each is the flag of the same name in [`Flags`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Says {
    /// It hands its addresses over.
    pub draining: bool,
    /// Its data path does not work.
    pub unhealthy: bool,
    /// Its data path was asked after and works.
    pub checked: bool,
}

/// What can happen to the machine.
#[derive(Clone, Debug)]
pub enum Input {
    /// All units that this wire may carry; replaces what was there. They are shared with whoever made them: ten thousand
    /// are the most of what a speaker keeps.
    Units(Vec<Arc<Unit>>),
    /// Ids of the keys that can be verified, newest first; none yet: no frame is sent and nothing is claimed.
    Keys(Vec<u32>),
    /// What the rest of this node says of itself.
    Says(Says),
    /// A frame that was decoded, with the source of its Ethernet header.
    Frame {
        /// Source MAC.
        source: Mac,
        /// Its contents.
        frame: Frame,
    },
    /// An ARP answer came from this MAC: something there still answers.
    ArpAnswer(Mac),
    /// The kernel dropped frames of the hello protocol because they were read too late: their absence says nothing.
    Lost,
    /// Any other frame was received: this node is not deaf.
    Heard,
    /// An ARP frame says that another hardware address, which is not this node's, has an address that is held or checked.
    Foreign {
        /// The address.
        address: IpAddr,
        /// The hardware address.
        mac: Mac,
        /// It was no answer to a question of ours.
        announced: bool,
    },
    /// A frame of another link of this node was heard: the two are on one wire.
    Sibling {
        /// That link speaks for the node, and this one does not.
        precedes: bool,
    },
    /// What gives this machine its units stands still, or goes on again.
    Stuck(bool),
    /// This node is about to stop.
    Leave,
    /// The link is no longer used: release everything now, as there is no time to wait for others.
    End,
}

/// What the machine wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Send this frame, to the group where `to` is none.
    Send {
        /// Destination.
        to: Option<Mac>,
        /// Id of the key to sign with.
        key: u32,
        /// What to sign and send.
        frame: Frame,
    },
    /// Answer for this address from now on, and tell the wire.
    Start(IpAddr),
    /// An address of a dead speaker was just started: so long after that speaker's last sign of life.
    TookOver(Duration),
    /// Still ours after a conflict: tell the wire again.
    Refresh(IpAddr),
    /// Still ours, although someone may have said otherwise: tell the wire once.
    Defend(IpAddr),
    /// Answer for this address no longer.
    Stop(IpAddr),
    /// Ask by ARP for this address, from the host at `mac`, which may be dead.
    Probe {
        /// An address it claims.
        address: IpAddr,
        /// Where it was heard last.
        mac: Mac,
    },
    /// Ask the wire whether anyone has this address (RFC 5227 section 2.1.1), and feed what is answered within a second.
    Check(IpAddr),
    /// Nothing is heard: ask hosts that were heard before, so that any answer tells whether it is us or them.
    AskAround,
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
    /// Peers found dead although something answered for them by ARP.
    pub proxied: u64,
    /// Frames of hosts that are no members, about an address that this node holds or checks.
    pub strangers: u64,
    /// The same of members that do not claim it: their kernels answer.
    pub kernel_answers: u64,
    /// Times this node gave up all it had because it had been frozen.
    pub fences: u64,
    /// Times this node received nothing any more, although it had heard other members.
    pub deaf: u64,
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
    newcomers: BTreeMap<Box<str>, Newcomer>,
    /// None of them is too old before then.
    newcomers_due: Instant,
    /// By the unit's first address.
    units: BTreeMap<IpAddr, UnitState>,
    /// The unit of every address.
    unit_of: BTreeMap<IpAddr, IpAddr>,
    /// No peer has to be looked at before; looked at too early, nothing happens.
    peers_due: Option<Instant>,
    /// What the dead held and nobody has claimed since, with their last sign of life.
    orphans: BTreeMap<IpAddr, Instant>,
    /// Who else uses our addresses.
    troubles: BTreeMap<IpAddr, Seen>,
    /// When one of our addresses is defended next.
    defence_due: Option<Instant>,
    /// When the next address may be asked for.
    next_check: Instant,
    /// When which unit has to be looked at.
    timers: BTreeSet<(Instant, IpAddr)>,
    senses: Senses,
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
            newcomers: BTreeMap::new(),
            newcomers_due: now,
            units: BTreeMap::new(),
            unit_of: BTreeMap::new(),
            peers_due: None,
            orphans: BTreeMap::new(),
            troubles: BTreeMap::new(),
            defence_due: None,
            next_check: now,
            timers: BTreeSet::new(),
            senses: Senses::new(now),
            outputs: VecDeque::new(),
            counts: Counts::default(),
        }
    }

    /// Until when an address that is held may be answered for: an answer is legal only while the own last hello left less
    /// than `(misses - 1) x interval` ago, so that no frozen node speaks for an address that another has taken.
    #[must_use]
    pub fn gate(&self) -> Instant {
        self.own.last_hello + self.own.pace.current * (self.config.hello_misses - 1)
    }

    /// The addresses that this node holds.
    pub fn held(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.own.held.keys().copied()
    }

    /// Whether another link of this node speaks on this wire, and this one is silent.
    #[must_use]
    pub const fn is_muted(&self) -> bool {
        self.own.muted_until.is_some()
    }

    /// Whether nothing is heard any more.
    #[must_use]
    pub const fn is_deaf(&self) -> bool {
        self.own.flags.deaf
    }

    /// The names of the speakers that are heard and alive, ascending.
    pub fn heard(&self) -> impl Iterator<Item = &str> {
        self.peers.iter().filter(|(_, peer)| !peer.dead).map(|(name, _)| &**name)
    }

    /// The hardware addresses of the members, by name; those that are dead included.
    pub fn macs(&self) -> impl Iterator<Item = Mac> + Clone + '_ {
        self.peers.values().map(|peer| peer.mac)
    }

    /// Whether another node's data path was asked after and works.
    #[must_use]
    pub fn hears_checked(&self) -> bool {
        self.peers.values().any(|peer| !peer.dead && peer.flags.checked)
    }

    /// Whether the next tick may find a peer dead: the driver should look whether frames were lost on the way to it.
    #[must_use]
    pub fn suspects(&self) -> bool {
        self.peers.values().any(|peer| peer.suspicion.is_some())
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
        self.refresh_if_due(now);
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
            Input::Says(Says { draining, unhealthy, checked }) => {
                self.set_flags(Flags { draining, unhealthy, checked, ..self.own.flags }, now);
            }
            Input::Frame { source, frame } => {
                self.hear(now);
                self.receive(source, frame, now);
            }
            Input::ArpAnswer(mac) => {
                self.hear(now);
                self.arp_answer(mac);
            }
            Input::Heard => self.hear(now),
            Input::Lost => self.frames_lost(now),
            Input::Foreign { address, mac, announced } => {
                self.hear(now);
                self.foreign(address, mac, announced, now);
            }
            Input::Sibling { precedes } => {
                self.hear(now);
                self.sibling(precedes, now);
            }
            Input::Stuck(stuck) => self.stuck(stuck, now),
            Input::Leave => self.leave(now),
            Input::End => self.end(now),
        }
        self.settle(now);
    }

    fn tick(&mut self, now: Instant) {
        self.check_gate(now);
        self.expire(now);
        self.forget_troubles(now);
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
        let unit = self.timers.first().map(|(at, _)| *at);
        self.peers_due
            .into_iter()
            .chain(self.defence_due)
            .chain(unit)
            .chain(self.senses_deadline())
            .chain(self.own.deadlines())
            .min()
    }
}

#[cfg(test)]
mod tests;
