//! What a node can tell of itself by what it hears: that it hears nothing any more (deaf), and that it stood still while the
//! others' clocks went on (frozen together with its own clock, as a paused virtual machine).
//!
//! A node that receives nothing cannot tell which of two things has happened: its own receive path
//! has failed, or everybody else has. It acts as if it were alone, and every frame that it sends
//! says that it is deaf. If the others live, they take over at once from a deaf owner and keep what
//! a deaf node claims; if they have failed, the node serves everything.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Claims, Output};
use crate::Instant;
use crate::wire::Mac;
use crate::wire::hello::{Body, Flags};

/// After so long without a frame of any kind, and each time again, every member is challenged.
const SILENCE: Duration = Duration::from_millis(250);
/// After so many challenges in a row without a frame of any kind, which takes a second, the node is
/// deaf. A number and not a time: a node that stood still has to ask first, and read what came
/// meanwhile.
const UNANSWERED_MAX: u32 = 3;
/// How often a deaf node asks on.
const DEAF_ASKS_EVERY: Duration = Duration::from_secs(1);
/// The lowest lead over a peer's clock is kept for one to two of these: slow drift of clocks must not add up.
const FLOOR_WINDOW: Duration = Duration::from_secs(30);
/// How long one peer's word that we stood still waits for a second one: more than the interval of an idle node's hellos.
const VOTE_LIFETIME: Duration = Duration::from_millis(1500);
/// How many peers must say so, where there are so many.
const VOTES_ENOUGH: usize = 2;

/// Witnesses are called at most this often, however many are silent.
const CALL_EVERY: Duration = Duration::from_millis(20);
/// How many members are asked, when one is silent, whether we hear them.
const WITNESSES: usize = 3;

#[derive(Debug)]
pub(super) struct Senses {
    /// When the last frame of any kind was heard.
    last_frame: Instant,
    /// When the members are challenged next, if nothing is heard.
    next_poke: Instant,
    /// How often they were since then.
    unanswered: u32,
    /// When witnesses may be called again.
    next_call: Instant,
    /// By peer: when its clock said that ours had stood still.
    votes: BTreeMap<Box<str>, Instant>,
}

impl Senses {
    pub(super) const fn new(now: Instant) -> Self {
        Self { last_frame: now, next_poke: now, unanswered: 0, next_call: now, votes: BTreeMap::new() }
    }
}

/// The lowest lead of our clock over a peer's, in nanoseconds: of this window and of the one before.
///
/// Frames that were read within the last moments of our own clock do not count yet: what queued up while it stood still is read
/// at one go, and must not lower the floor that it is judged by.
#[derive(Debug)]
pub(super) struct Floor {
    current: i128,
    previous: i128,
    since: Instant,
    /// The lowest lead of late, and since when.
    latest: (i128, Instant),
}

impl Floor {
    /// A peer whose frame has just come carried `clock`.
    pub(super) fn new(clock: u64, now: Instant) -> Self {
        let lead = lead(clock, now);
        Self { current: lead, previous: lead, since: now, latest: (lead, now) }
    }

    /// Notes the clock of a frame; true if our lead has fallen by more than `most`: our clock stood still, or the peer's leapt.
    pub(super) fn fell(&mut self, clock: u64, most: Duration, now: Instant) -> bool {
        let lead = lead(clock, now);
        if now.since(self.latest.1) >= most {
            self.current = self.current.min(self.latest.0);
            self.latest = (lead, now);
        }
        let least = i128::try_from(most.as_nanos()).unwrap_or(i128::MAX);
        if lead < self.current.min(self.previous).saturating_sub(least) {
            *self = Self::new(clock, now);
            return true;
        }
        if now.since(self.since) >= FLOOR_WINDOW {
            (self.previous, self.current, self.since) = (self.current, lead, now);
        }
        self.latest.0 = self.latest.0.min(lead);
        false
    }
}

fn lead(clock: u64, now: Instant) -> i128 {
    i128::from(now.as_nanos()) - i128::from(clock)
}

impl Claims {
    /// A frame of any kind was received. The one that ends deafness may be a question about what
    /// this node holds.
    pub(super) fn hear(&mut self, now: Instant) {
        self.senses.last_frame = now;
        self.senses.next_poke = now + SILENCE;
        self.senses.unanswered = 0;
        if self.own.flags.deaf {
            self.set_flags(Flags { deaf: false, ..self.own.flags }, now);
            // Members that lived all the time keep what they took over.
            self.become_fresh(now);
        }
    }

    /// When silence has to be looked at. A node that has never heard another cannot tell silence
    /// from solitude.
    pub(super) fn senses_deadline(&self) -> Option<Instant> {
        let silent = self.own.keys.is_empty() || self.own.muted_until.is_some();
        let listens = !silent && (self.own.flags.deaf || !self.peers.is_empty());
        listens.then_some(self.senses.next_poke)
    }

    /// Challenges all members when nothing is heard, and becomes deaf when that brings nothing.
    pub(super) fn check_silence(&mut self, now: Instant) {
        if self.senses_deadline().is_none_or(|at| now < at) {
            return;
        }
        if self.own.flags.deaf {
            self.senses.next_poke = now + DEAF_ASKS_EVERY;
            // Members that live may have missed a claim, and cannot ask for it.
            self.list(None, now);
        } else if self.senses.unanswered == UNANSWERED_MAX {
            self.counts.deaf += 1;
            self.senses.next_poke = now + DEAF_ASKS_EVERY;
            self.set_flags(Flags { deaf: true, ..self.own.flags }, now);
            self.find_all_dead(now);
        } else {
            self.senses.next_poke = now + SILENCE;
            self.senses.unanswered += 1;
            let members: Vec<_> = self.peers.values().filter(|peer| !peer.dead).map(|peer| peer.mac).collect();
            self.challenge(&members, now);
        }
        self.outputs.push_back(Output::AskAround);
    }

    fn challenge(&mut self, members: &[Mac], now: Instant) {
        for mac in members {
            let nonce = self.random(u64::MAX);
            self.send(Some(*mac), Body::Challenge { nonce }, now);
        }
    }

    /// Whether nothing at all was heard since `then`: if someone is silent, it may be us who hear nothing.
    pub(super) fn hears_nothing_since(&self, then: Instant) -> bool {
        self.senses.last_frame < then
    }

    /// Asks those that should be alive whether we hear them, and other hosts: any answer will do.
    pub(super) fn call_witnesses(&mut self, now: Instant) {
        if now < self.senses.next_call {
            return;
        }
        self.senses.next_call = now + CALL_EVERY;
        let living = self.peers.values().filter(|peer| !peer.dead && peer.suspicion.is_none());
        let witnesses: Vec<_> = living.take(WITNESSES).map(|peer| peer.mac).collect();
        self.challenge(&witnesses, now);
        self.outputs.push_back(Output::AskAround);
    }

    /// Compares our clock with a peer's: it went on while ours stood still, which is a long stall that our own clock hides. Two
    /// peers have to say so where there are two: one may have a clock that leaps.
    pub(super) fn compare_clocks(&mut self, node: &str, clock: u64, now: Instant) {
        let most = self.own.pace.current * self.config.hello_misses;
        let Some(peer) = self.peers.get_mut(node) else { return };
        if !peer.floor.fell(clock, most, now) || self.own.held.is_empty() {
            return;
        }
        self.senses.votes.retain(|_, at| now.since(*at) < VOTE_LIFETIME);
        self.senses.votes.insert(node.into(), now);
        let living = || self.peers.iter().filter(|(_, peer)| !peer.dead);
        if self.senses.votes.len() >= VOTES_ENOUGH.min(living().count()) {
            self.fence(now);
            return;
        }
        let others: Vec<_> =
            living().filter(|(name, _)| !self.senses.votes.contains_key(*name)).map(|(_, peer)| peer.mac).collect();
        self.challenge(&others, now);
    }

    /// After a fence all clocks are compared from where they are now.
    pub(super) fn forget_votes(&mut self) {
        self.senses.votes.clear();
    }
}
