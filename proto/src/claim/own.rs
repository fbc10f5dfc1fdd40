//! What this node holds and says of itself: its claim set, its flags, its hellos, and the gate that fences a frozen node.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use super::{Claims, Config, INTERVAL_IDLE, LEAVE_MAX, LISTEN, Output, SLOWING_HELLOS};
use crate::Instant;
use crate::wire::Mac;
use crate::wire::hello::{ADDRESSES_PER_FRAME_MAX, Body, Flags, Frame};

/// How soon after a claim the next hello restates it, in case the claim was lost.
const RESTATE_AFTER_CLAIM: Duration = Duration::from_millis(25);
/// A newly heard member is answered within this time, at random, so that many answers become one burst of few.
const GREET_WITHIN_MILLIS: u64 = 20;
/// How late a hello may be before the gate looks at it.
const GATE_SLACK: Duration = Duration::from_millis(5);
/// This many fences within [`UNSTABLE_WINDOW`] make a node unstable.
const FENCES_UNSTABLE: usize = 3;
const UNSTABLE_WINDOW: Duration = Duration::from_secs(600);

/// Which units have to be looked at.
#[derive(Debug, Default)]
pub(super) struct Dirty {
    pub(super) all: bool,
    /// Units of these addresses.
    pub(super) addresses: BTreeSet<IpAddr>,
}

/// What was decided and is not yet done and said.
#[derive(Debug, Default)]
pub(super) struct Decided {
    pub(super) take: Vec<IpAddr>,
    pub(super) insist: Vec<IpAddr>,
    pub(super) hand_over: Vec<IpAddr>,
    pub(super) refuse: Vec<IpAddr>,
}

#[derive(Debug)]
pub(super) struct Own {
    /// Ids of the keys we can verify; without any we neither send nor claim.
    pub(super) keys: Vec<u32>,
    pub(super) flags: Flags,
    /// What we hold, and since when.
    pub(super) held: BTreeMap<IpAddr, Instant>,
    pub(super) last_hello: Instant,
    /// What changed that may change who should hold what.
    pub(super) dirty: Dirty,
    /// What one input decided, said in as few frames as it fits in: see [`Claims::say`].
    pub(super) decided: Decided,
    generation: u32,
    sequence: u32,
    /// What the last frame carried, in nanoseconds.
    clock: u64,
    next_hello: Instant,
    slowing: u8,
    /// Until when we only listen.
    listen_until: Option<Instant>,
    /// Until when we are fresh; none once that has passed, or if it never does.
    fresh_until: Option<Instant>,
    greet_at: Option<Instant>,
    leave_until: Option<Instant>,
    /// The latest fences, at most [`FENCES_UNSTABLE`] of them, ascending.
    fences: VecDeque<Instant>,
}

impl Own {
    pub(super) fn new(config: &Config, now: Instant) -> Self {
        Self {
            keys: Vec::new(),
            flags: Flags { fresh: true, ..Flags::default() },
            held: BTreeMap::new(),
            last_hello: now,
            dirty: Dirty::default(),
            decided: Decided::default(),
            generation: 0,
            sequence: 0,
            clock: 0,
            next_hello: now,
            slowing: 0,
            listen_until: None,
            fresh_until: config.failback_delay.map(|delay| now + delay),
            greet_at: None,
            leave_until: None,
            fences: VecDeque::new(),
        }
    }

    pub(super) fn deadlines(&self) -> impl Iterator<Item = Instant> {
        let speaking = (!self.keys.is_empty()).then_some(self.next_hello);
        let unstable = self.unstable_until().filter(|_| self.flags.unstable);
        let own = [speaking, self.greet_at, self.leave_until, self.listen_until, self.fresh_until, unstable];
        own.into_iter().flatten()
    }

    /// When the latest fences are too far back to make the node unstable; none if there were not enough of them.
    fn unstable_until(&self) -> Option<Instant> {
        let first = self.fences.front().filter(|_| self.fences.len() >= FENCES_UNSTABLE)?;
        Some(*first + UNSTABLE_WINDOW)
    }

    /// Whether we may claim at all.
    pub(super) fn claims(&self) -> bool {
        !self.keys.is_empty() && self.listen_until.is_none() && !self.flags.leaving
    }

    /// The generation that a hello carries: 0 where nothing is held.
    fn stated_generation(&self) -> u32 {
        if self.held.is_empty() { 0 } else { self.generation }
    }

    /// Raises the generation; gives the one before and the one after. A set that was empty has the generation 0, so that
    /// who missed its end knows the whole new set all the same.
    fn raise(&mut self, before: u32) -> (u32, u32) {
        self.generation = self.generation.wrapping_add(1).max(1);
        (before, self.generation)
    }
}

impl Claims {
    pub(super) fn set_keys(&mut self, keys: Vec<u32>, now: Instant) {
        if self.own.keys.is_empty() && !keys.is_empty() {
            self.listen(now);
            self.own.next_hello = now;
        }
        self.own.keys = keys;
        self.own.dirty.all = true;
    }

    fn listen(&mut self, now: Instant) {
        self.own.listen_until = Some(now + LISTEN);
    }

    pub(super) fn become_fresh(&mut self, now: Instant) {
        self.own.fresh_until = self.config.failback_delay.map(|delay| now + delay);
        self.set_flags(Flags { fresh: true, ..self.own.flags }, now);
    }

    /// A change of flags is a hello at once.
    pub(super) fn set_flags(&mut self, flags: Flags, now: Instant) {
        if flags != self.own.flags {
            self.own.flags = flags;
            self.own.next_hello = now;
            self.own.dirty.all = true;
        }
    }

    /// Ends what has lasted long enough: listening, freshness, being unstable.
    pub(super) fn expire(&mut self, now: Instant) {
        if self.own.listen_until.is_some_and(|until| now >= until) {
            self.own.listen_until = None;
            self.own.dirty.all = true;
        }
        if self.own.fresh_until.is_some_and(|until| now >= until) {
            self.own.fresh_until = None;
            self.set_flags(Flags { fresh: false, ..self.own.flags }, now);
        }
        if self.own.unstable_until().is_some_and(|until| now >= until) {
            self.set_flags(Flags { unstable: false, ..self.own.flags }, now);
        }
    }

    /// After a stall shorter than a peer's patience nobody can have claimed yet: say hello and go on. After a longer one
    /// others may answer already: give up everything, and listen.
    pub(super) fn check_gate(&mut self, now: Instant) {
        let silence = now.since(self.own.last_hello);
        if self.own.held.is_empty() || now < self.gate() + GATE_SLACK {
            return;
        }
        let patience = self.config.hello_interval * self.config.hello_misses;
        if silence < patience || self.peers.is_empty() {
            self.hello(now);
            return;
        }
        self.counts.fences += 1;
        let all: Vec<_> = self.own.held.keys().copied().collect();
        self.release(&all, true, now);
        self.listen(now);
        self.own.fences.push_back(now);
        if self.own.fences.len() > FENCES_UNSTABLE {
            self.own.fences.pop_front();
        }
        self.own.flags.unstable = self.own.unstable_until().is_some_and(|until| now < until);
        self.become_fresh(now);
        self.hello(now);
    }

    pub(super) fn leave(&mut self, now: Instant) {
        self.own.leave_until = Some(now + LEAVE_MAX);
        self.set_flags(Flags { leaving: true, ..self.own.flags }, now);
    }

    /// A leaving node ends when the others have taken all, or when they had time enough.
    pub(super) fn leave_if_done(&mut self, now: Instant) {
        let Some(until) = self.own.leave_until else { return };
        if self.own.held.is_empty() || now >= until {
            let all: Vec<_> = self.own.held.keys().copied().collect();
            self.release(&all, false, now);
            self.own.leave_until = None;
            self.outputs.push_back(Output::Left);
        }
    }

    pub(super) fn hello_if_due(&mut self, now: Instant) {
        if self.own.greet_at.is_some_and(|at| now >= at) {
            self.own.greet_at = None;
            self.list(None, now);
        }
        if now >= self.own.next_hello && !self.own.keys.is_empty() {
            self.hello(now);
        }
    }

    fn hello(&mut self, now: Instant) {
        let body = Body::Hello { generation: self.own.stated_generation(), accepts: self.own.keys.clone() };
        self.send(None, body, now);
        self.own.last_hello = now;
        let holding = !self.own.held.is_empty();
        self.own.slowing = if holding { SLOWING_HELLOS } else { self.own.slowing.saturating_sub(1) };
        let fast = holding || self.own.slowing > 0;
        self.own.next_hello = now + if fast { self.config.hello_interval } else { self.interval() };
    }

    /// Someone was newly heard: tell all who we are and what we hold, soon.
    pub(super) fn greet(&mut self, now: Instant) {
        let delay = Duration::from_millis(self.random(GREET_WITHIN_MILLIS));
        self.own.greet_at.get_or_insert(now + delay);
    }

    /// The whole claim set, to one or to all; a hello where there is none.
    pub(super) fn list(&mut self, to: Option<Mac>, now: Instant) {
        let all: Vec<_> = self.own.held.keys().copied().collect();
        let generation = self.own.stated_generation();
        let parts: Vec<_> = all.chunks(ADDRESSES_PER_FRAME_MAX).collect();
        let count = u16::try_from(parts.len()).unwrap_or(u16::MAX);
        if parts.is_empty() {
            self.own.next_hello = now;
        }
        for (part, addresses) in (0..count).zip(parts) {
            self.send(to, Body::List { generation, part, parts: count, addresses: addresses.to_vec() }, now);
        }
    }

    /// Does and says what was decided: a thousand addresses that move at once are a few frames, not a thousand.
    pub(super) fn say(&mut self, now: Instant) {
        let Decided { take, insist, hand_over, refuse } = std::mem::take(&mut self.own.decided);
        self.release(&hand_over, false, now);
        self.release(&refuse, true, now);
        self.insist(&insist, now);
        self.take(&take, now);
    }

    /// Takes addresses: answers from now on, and says so.
    fn take(&mut self, addresses: &[IpAddr], now: Instant) {
        let new: Vec<_> = addresses.iter().copied().filter(|address| !self.own.held.contains_key(address)).collect();
        if new.is_empty() {
            return;
        }
        for chunk in new.chunks(ADDRESSES_PER_FRAME_MAX) {
            let stated = self.own.stated_generation();
            let first = self.own.held.is_empty();
            self.own.held.extend(chunk.iter().map(|address| (*address, now)));
            self.outputs.extend(chunk.iter().map(|address| Output::Start(*address)));
            let (before, generation) = self.own.raise(stated);
            self.send(None, Body::Claim { before, generation, addresses: chunk.to_vec() }, now);
            if first {
                // From here on others expect the fast interval, and the gate opens with a hello.
                self.hello(now);
            }
        }
        self.own.next_hello = self.own.next_hello.min(now + RESTATE_AFTER_CLAIM);
    }

    /// Says again that we hold these, to a member that claims them too.
    fn insist(&mut self, addresses: &[IpAddr], now: Instant) {
        let generation = self.own.stated_generation();
        for chunk in addresses.chunks(ADDRESSES_PER_FRAME_MAX) {
            self.send(None, Body::Claim { before: generation, generation, addresses: chunk.to_vec() }, now);
        }
    }

    /// Stops answering, and says so. `refused`: count me out for a while.
    pub(super) fn release(&mut self, addresses: &[IpAddr], refused: bool, now: Instant) {
        let held: Vec<_> = addresses.iter().copied().filter(|address| self.own.held.contains_key(address)).collect();
        for chunk in held.chunks(ADDRESSES_PER_FRAME_MAX) {
            let (before, generation) = self.own.raise(self.own.generation);
            for address in chunk {
                self.own.held.remove(address);
            }
            self.outputs.extend(chunk.iter().map(|address| Output::Stop(*address)));
            self.send(None, Body::Release { before, generation, addresses: chunk.to_vec(), refused }, now);
        }
    }

    /// The interval that our frames promise.
    fn interval(&self) -> Duration {
        let fast = self.config.hello_interval;
        if self.own.held.is_empty() { fast.max(INTERVAL_IDLE) } else { fast }
    }

    pub(super) fn send(&mut self, to: Option<Mac>, body: Body, now: Instant) {
        if self.own.keys.is_empty() {
            return;
        }
        if body.is_multicast() {
            self.own.sequence = self.own.sequence.wrapping_add(1);
        }
        // No two frames carry one clock, so that a receiver knows the newer of any two.
        self.own.clock = now.as_nanos().max(self.own.clock + 1);
        let frame = Frame {
            node: self.config.node.clone(),
            epoch: self.config.epoch,
            sequence: self.own.sequence,
            clock: self.own.clock,
            interval: self.interval(),
            flags: self.own.flags,
            body,
        };
        self.outputs.push_back(Output::Send { to, frame });
    }
}
