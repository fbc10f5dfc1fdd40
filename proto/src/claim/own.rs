//! What this node holds: its claim set, and the frames that say so.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use super::failing::Failures;
use super::hello::Pace;
use super::peers::Peer;
use super::{Claims, Config, Output};
use crate::Instant;
use crate::wire::Mac;
use crate::wire::hello::{ADDRESSES_PER_FRAME_MAX, Body, Flags, Frame, Release};

/// Who takes an address so long after its holder has died could not take it before: that is no failover.
const FAILOVER_MAX: Duration = Duration::from_secs(60);
/// How soon after a claim or release a hello restates what is held, in case that frame was lost.
const RESTATE_AFTER_CLAIM: Duration = Duration::from_millis(25);

/// Which units have to be looked at.
#[derive(Debug, Default)]
pub(super) struct Dirty {
    pub(super) all: bool,
    /// Units that wait for something: another's rank has changed, and ours with it.
    pub(super) waiting: bool,
    /// Units of these addresses.
    pub(super) addresses: BTreeSet<IpAddr>,
}

impl Dirty {
    /// What a peer is, or says of itself, has changed: what it holds, and whatever waits.
    pub(super) fn concerns(&mut self, peer: &Peer) {
        self.waiting = true;
        self.addresses.extend(&peer.claims);
        self.addresses.extend(peer.refused.keys());
    }
}

/// What was decided and is not yet done and said.
#[derive(Debug, Default)]
pub(super) struct Decided {
    pub(super) take: Vec<IpAddr>,
    pub(super) insist: Vec<IpAddr>,
    pub(super) hand_over: Vec<IpAddr>,
    pub(super) refuse: Vec<IpAddr>,
    /// Given up because a stranger has it.
    pub(super) contest: Vec<IpAddr>,
}

#[derive(Debug)]
pub(super) struct Own {
    /// Ids of the keys we can verify, newest first; without any we neither send nor claim.
    pub(super) keys: Vec<u32>,
    pub(super) flags: Flags,
    /// What we fail for.
    pub(super) failing: Failures,
    /// What we hold, and since when.
    pub(super) held: BTreeMap<IpAddr, Instant>,
    pub(super) last_hello: Instant,
    /// What changed that may change who should hold what.
    pub(super) dirty: Dirty,
    /// What one input decided, said in as few frames as it fits in: see [`Claims::say`].
    pub(super) decided: Decided,
    generation: u32,
    pub(super) sequence: u32,
    /// What the last frame carried, in nanoseconds.
    pub(super) clock: u64,
    pub(super) next_hello: Instant,
    pub(super) pace: Pace,
    /// What was just given up and may have been claimed by another meanwhile, to be said a second time.
    pub(super) yielded: BTreeMap<IpAddr, Release>,
    /// Until when we only listen.
    pub(super) listen_until: Option<Instant>,
    /// Until when we are fresh; none once that has passed, or if it never does.
    pub(super) fresh_until: Option<Instant>,
    /// Until when another link of this node speaks on this wire.
    pub(super) muted_until: Option<Instant>,
    pub(super) greet_at: Option<Instant>,
    /// When all that is held is announced again, and whether with the whole series.
    pub(super) refresh: Option<(Instant, bool)>,
    /// When that was done last.
    pub(super) refreshed: Option<Instant>,
    pub(super) leave_until: Option<Instant>,
    /// The latest fences, at most [`super::hello::FENCES_UNSTABLE`] of them, ascending.
    pub(super) fences: VecDeque<Instant>,
}

impl Own {
    pub(super) fn new(config: &Config, now: Instant) -> Self {
        Self {
            keys: Vec::new(),
            flags: Flags { fresh: true, ..Flags::default() },
            failing: Failures::default(),
            held: BTreeMap::new(),
            last_hello: now,
            dirty: Dirty::default(),
            decided: Decided::default(),
            generation: 0,
            sequence: 0,
            clock: 0,
            next_hello: now,
            pace: Pace::new(config.hello_interval),
            yielded: BTreeMap::new(),
            listen_until: None,
            fresh_until: config.failback_delay.map(|delay| now + delay),
            muted_until: None,
            greet_at: None,
            refresh: None,
            refreshed: None,
            leave_until: None,
            fences: VecDeque::new(),
        }
    }

    /// Whether we may claim at all.
    pub(super) fn claims(&self) -> bool {
        let silent = self.keys.is_empty() || self.listen_until.is_some() || self.muted_until.is_some();
        !(silent || self.flags.leaving)
    }

    /// The generation that a hello carries: 0 where nothing is held.
    pub(super) fn stated_generation(&self) -> u32 {
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
            let (addresses, keeps) = (addresses.to_vec(), self.keeps(addresses, now));
            self.send(to, Body::List { generation, part, parts: count, addresses, keeps }, now);
        }
    }

    /// Does and says what was decided: a thousand addresses that move at once are a few frames, not a thousand.
    pub(super) fn say(&mut self, now: Instant) {
        let Decided { take, insist, hand_over, refuse, contest } = std::mem::take(&mut self.own.decided);
        self.own.yielded.extend(hand_over.iter().map(|address| (*address, Release::HandedOver)));
        self.own.yielded.extend(refuse.iter().map(|address| (*address, Release::Refused)));
        self.release(&hand_over, Release::HandedOver, now);
        self.release(&refuse, Release::Refused, now);
        self.release(&contest, Release::Contested, now);
        self.insist(&insist, now);
        self.take(&take, now);
    }

    /// Takes addresses: answers from now on, and says so.
    fn take(&mut self, addresses: &[IpAddr], now: Instant) {
        let new: Vec<_> = addresses.iter().copied().filter(|address| !self.own.held.contains_key(address)).collect();
        for chunk in new.chunks(ADDRESSES_PER_FRAME_MAX) {
            let stated = self.own.stated_generation();
            self.own.held.extend(chunk.iter().map(|address| (*address, now)));
            for address in chunk {
                self.outputs.push_back(Output::Start(*address));
                let died = self.orphans.remove(address).filter(|at| now.since(*at) < FAILOVER_MAX);
                self.outputs.extend(died.map(|last_sign| Output::TookOver(now.since(last_sign))));
            }
            // From here on others expect the fast interval.
            self.turn_pace();
            let (before, generation) = self.own.raise(stated);
            let (addresses, keeps) = (chunk.to_vec(), self.keeps(chunk, now));
            self.send(None, Body::Claim { before, generation, addresses, keeps }, now);
        }
    }

    /// Says again that we hold these, to a member that claims them too.
    fn insist(&mut self, addresses: &[IpAddr], now: Instant) {
        let generation = self.own.stated_generation();
        for chunk in addresses.chunks(ADDRESSES_PER_FRAME_MAX) {
            let (addresses, keeps) = (chunk.to_vec(), self.keeps(chunk, now));
            self.send(None, Body::Claim { before: generation, generation, addresses, keeps }, now);
        }
    }

    /// Stops answering, and says so.
    pub(super) fn release(&mut self, addresses: &[IpAddr], why: Release, now: Instant) {
        let held: Vec<_> = addresses.iter().copied().filter(|address| self.own.held.contains_key(address)).collect();
        for chunk in held.chunks(ADDRESSES_PER_FRAME_MAX) {
            let (before, generation) = self.own.raise(self.own.generation);
            for address in chunk {
                self.own.held.remove(address);
            }
            self.outputs.extend(chunk.iter().map(|address| Output::Stop(*address)));
            self.send(None, Body::Release { before, generation, addresses: chunk.to_vec(), why }, now);
        }
    }

    /// Says a second time what was given up; false if there is nothing to say. If another claims it too it has to hear that there
    /// were two of us, and a set that is empty again tells nobody that anything was missed.
    pub(super) fn release_again(&mut self, now: Instant) -> bool {
        let yielded = std::mem::take(&mut self.own.yielded);
        if self.own.muted_until.is_some() {
            return false;
        }
        let (before, generation) = (self.own.generation, self.own.generation);
        let mut said = false;
        for why in [Release::HandedOver, Release::Refused] {
            let free = yielded.iter().filter(|(address, said)| **said == why && !self.own.held.contains_key(*address));
            let free: Vec<_> = free.map(|(address, _)| *address).collect();
            for chunk in free.chunks(ADDRESSES_PER_FRAME_MAX) {
                self.send(None, Body::Release { before, generation, addresses: chunk.to_vec(), why }, now);
                said = true;
            }
        }
        said
    }

    pub(super) fn send(&mut self, to: Option<Mac>, body: Body, now: Instant) {
        let Some(key) = self.signing_key().filter(|_| self.own.muted_until.is_none()) else { return };
        if body.is_multicast() {
            self.own.sequence = self.own.sequence.wrapping_add(1);
        }
        if matches!(body, Body::Claim { .. } | Body::Release { .. }) {
            // As good as a hello, for the gate as well. A hello right behind it might overtake it, and void it.
            self.own.last_hello = now;
            self.own.next_hello = now + RESTATE_AFTER_CLAIM;
        }
        // No two frames carry one clock, so that a receiver knows the newer of any two.
        self.own.clock = now.as_nanos().max(self.own.clock + 1);
        let frame = Frame {
            node: self.config.node.clone(),
            epoch: self.config.epoch,
            sequence: self.own.sequence,
            clock: self.own.clock,
            interval: self.own.pace.promised,
            flags: self.own.flags,
            body,
        };
        self.outputs.push_back(Output::Send { to, key, frame });
    }
}
