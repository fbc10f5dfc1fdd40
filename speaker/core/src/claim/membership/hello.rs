//! Flags and hellos of this node, and their timing: listen phase, preempt delay, leaving, and the
//! answer lease that fences a stalled node. Part of the membership of one interface.

use std::time::Duration;

use ferrolb_proto::Instant;
use ferrolb_proto::wire::hello::{Body, Flags};

use super::own::{HELLO_AFTER_CLAIM, OwnState};
use super::{MemberEffect, Membership};
use crate::claim::{HANDOVER_TIMEOUT, LISTEN_PHASE, NodeState};

/// Time that must pass after the end of the answer lease before [`Membership::check_answer_lease`]
/// acts.
const ANSWER_LEASE_SLACK: Duration = Duration::from_millis(5);
/// Number of fences within [`FLAPPING_WINDOW`] that mark a node as flapping.
pub(super) const FENCES_FLAPPING: usize = 3;
const FLAPPING_WINDOW: Duration = Duration::from_secs(600);
/// Number of hellos that carry a new, longer interval while this node still sends at the old one.
const SLOWING_HELLOS: u8 = 3;
/// Number of owners on a segment up to which each owner sends hellos at the configured interval.
const OWNERS_FAST: u32 = 40;
/// Multiple of the configured interval at which a node that owns no address sends hellos.
const IDLE_FACTOR: u32 = 4;
/// Longest interval between two hellos of such a node, unless the configured one is longer.
const INTERVAL_IDLE_MAX: Duration = Duration::from_secs(1);
/// Number of nodes on a segment up to which a node without addresses sends hellos at
/// [`IDLE_FACTOR`] times the configured interval.
const NODES_FAST: u32 = 80;
/// Multiple to which these numbers are rounded up, so that the hello interval does not change with
/// each node.
const NODES_STEP: u32 = 10;
/// Time for which this interface remains on standby after a frame of another interface of this node
/// on the same segment. The time is three times [`INTERVAL_IDLE_MAX`], and a margin.
const STANDBY_PERIOD: Duration = Duration::from_millis(3_500);

/// Hello interval of this node. Before a longer interval applies, hellos already carry it.
/// Otherwise receivers would still expect the shorter one, and one lost frame would look like a
/// node failure.
#[derive(Debug)]
pub(super) struct HelloInterval {
    /// Interval at which this node sends hellos now.
    pub(super) current: Duration,
    /// Interval that this node's frames carry, from which receivers compute when hellos are
    /// missing.
    pub(super) promised: Duration,
    slowing: u8,
}

impl HelloInterval {
    pub(super) const fn new(interval: Duration) -> Self {
        Self { current: interval, promised: interval, slowing: 0 }
    }

    /// Changes the interval, before a hello is sent: to a shorter one at once, to a longer one
    /// after [`SLOWING_HELLOS`] hellos.
    fn change_to(&mut self, wanted: Duration) {
        if wanted <= self.current {
            *self = Self::new(wanted);
        } else if self.promised != wanted {
            (self.promised, self.slowing) = (wanted, SLOWING_HELLOS);
        } else if self.slowing > 1 {
            self.slowing -= 1;
        } else {
            self.current = wanted;
        }
    }
}

impl OwnState {
    pub(super) fn deadlines(&self) -> impl Iterator<Item = Instant> {
        let next_hello = (!self.keys.is_empty()).then_some(self.next_hello);
        let flapping_end = self.flapping_until().filter(|_| self.flags.flapping);
        let own = [
            next_hello,
            self.leave_until,
            self.listen_until,
            self.preempt_delay_until,
            self.standby_until,
            flapping_end,
        ];
        own.into_iter().flatten()
    }

    /// Returns the time at which this node is no longer flapping; `None` if it had too few fences.
    fn flapping_until(&self) -> Option<Instant> {
        let first = self.fences.front().filter(|_| self.fences.len() >= FENCES_FLAPPING)?;
        Some(*first + FLAPPING_WINDOW)
    }
}

impl Membership {
    /// Returns the end of the answer lease: until that time, this node may reply for its addresses.
    ///
    /// The lease ends `(hello_misses - 1) x hello interval` after this node's latest hello. A
    /// stalled node therefore does not reply for an address that a peer has taken over.
    #[must_use]
    pub fn answer_lease_end(&self) -> Instant {
        self.own.last_hello + self.own.hello_interval.current * (self.config.hello_misses - 1)
    }

    pub(in crate::claim) fn set_keys(&mut self, keys: Vec<u32>, now: Instant) {
        if self.own.keys.is_empty() && !keys.is_empty() {
            self.start_listen_phase(now);
            // Another interface of this node may be active on this segment. This interface
            // therefore receives for a moment before its first hello.
            self.own.next_hello = now + self.config.stagger();
        }
        self.own.keys = keys;
        self.effects.push_back(MemberEffect::OwnStateChanged);
    }

    /// Returns the ID of the newest key that every peer accepts, so that a secret rotation excludes
    /// no node.
    ///
    /// Newcomers must accept the key, too, or they could not verify a challenge. If peers and
    /// newcomers have no key in common, returns the oldest key, which had the longest time to reach
    /// every node.
    pub(in crate::claim) fn signing_key(&self) -> Option<u32> {
        let peers = self.peers.values().filter(|peer| !peer.failed).map(|peer| &*peer.accepts);
        let all_accepts =
            || peers.clone().chain(self.newcomers.values().map(|newcomer| &*newcomer.accepts));
        let accepted =
            |key: &&u32| all_accepts().all(|accepts| accepts.is_empty() || accepts.contains(key));
        self.own.keys.iter().find(accepted).or(self.own.keys.last()).copied()
    }

    fn start_listen_phase(&mut self, now: Instant) {
        self.own.listen_until = Some(now + LISTEN_PHASE);
    }

    /// Starts the preempt delay of this node. While all peers have failed, the delay does not end:
    /// if they still run, they keep the addresses that they took over from this node.
    pub(super) fn start_preempt_delay(&mut self, now: Instant) {
        let is_alone = !self.peers.is_empty() && self.is_alone();
        let delay = self.config.failback_delay.filter(|_| !is_alone);
        self.own.preempt_delay_until = delay.map(|delay| now + delay);
        self.set_flags(Flags { in_preempt_delay: true, ..self.own.flags }, now);
    }

    /// Applies the state of the node that other parts of the speaker have determined.
    pub(in crate::claim) fn set_node_state(&mut self, state: NodeState, now: Instant) {
        let NodeState { draining, unhealthy, health_checked } = state;
        self.set_flags(Flags { draining, unhealthy, health_checked, ..self.own.flags }, now);
    }

    /// Sets the flags of this node. If they have changed, the next hello is due at once.
    pub(super) fn set_flags(&mut self, flags: Flags, now: Instant) {
        if flags != self.own.flags {
            self.own.flags = flags;
            self.own.next_hello = now;
            self.effects.push_back(MemberEffect::OwnStateChanged);
        }
    }

    /// Ends the standby period, the listen phase, the preempt delay and the flapping state when
    /// their time has passed.
    pub(in crate::claim) fn expire(&mut self, now: Instant) {
        if self.own.standby_until.is_some_and(|until| now >= until) {
            self.end_standby(now);
        }
        if self.own.listen_until.is_some_and(|until| now >= until) {
            self.own.listen_until = None;
            self.effects.push_back(MemberEffect::OwnStateChanged);
        }
        if self.own.preempt_delay_until.is_some_and(|until| now >= until) {
            self.own.preempt_delay_until = None;
            self.set_flags(Flags { in_preempt_delay: false, ..self.own.flags }, now);
        }
        if self.own.flapping_until().is_some_and(|until| now >= until) {
            self.set_flags(Flags { flapping: false, ..self.own.flags }, now);
        }
    }

    /// Handles the expiry of the answer lease, which means that this node has stalled.
    ///
    /// After a stall that is shorter than the peers' timeout, no peer can have claimed an address
    /// of this node, so the node sends a hello and continues. The same applies without live peers.
    /// After a longer stall, peers may already reply for the addresses, so the node fences itself.
    pub(in crate::claim) fn check_answer_lease(&mut self, now: Instant) {
        let silence = now.since(self.own.last_hello);
        if self.owns_nothing() || now < self.answer_lease_end() + ANSWER_LEASE_SLACK {
            return;
        }
        let patience = self.own.hello_interval.current * self.config.hello_misses;
        if silence < patience || self.is_alone() {
            self.send_hello(now);
            return;
        }
        self.fence(now);
    }

    /// Releases all addresses and starts a listen phase, because peers may already reply for them.
    pub(super) fn fence(&mut self, now: Instant) {
        self.forget_votes();
        self.counts.fences += 1;
        self.start_listen_phase(now);
        self.own.fences.push_back(now);
        if self.own.fences.len() > FENCES_FLAPPING {
            self.own.fences.pop_front();
        }
        self.own.flags.flapping = self.own.flapping_until().is_some_and(|until| now < until);
        self.start_preempt_delay(now);
        self.effects.push_back(MemberEffect::ReleaseAll);
    }

    /// Handles a frame of another interface of this node on the same segment. Only one of the
    /// interfaces may be active, because peers track a single claim set per node. Before a standby
    /// period, this node must have released all addresses.
    pub(in crate::claim) fn on_sibling_frame(&mut self, is_active: bool, now: Instant) {
        if !is_active {
            if self.own.standby_until.is_some() {
                self.end_standby(now);
            }
            let is_rate_limited = now.since(self.own.last_hello) < self.config.stagger();
            self.own.next_hello = if is_rate_limited { self.own.next_hello } else { now };
            return;
        }
        self.own.standby_until = Some(now + STANDBY_PERIOD);
    }

    fn end_standby(&mut self, now: Instant) {
        self.own.standby_until = None;
        self.start_listen_phase(now);
        self.own.next_hello = now;
    }

    /// Handles the stall of the main loop, and its end. The decisions of a stalled main loop are
    /// stale, so peers should take over the addresses.
    pub(in crate::claim) fn set_main_loop_stalled(&mut self, stalled: bool, now: Instant) {
        let leaving = stalled || self.own.leave_until.is_some();
        if self.own.flags.leaving && !leaving {
            self.start_preempt_delay(now);
        }
        self.set_flags(Flags { leaving, ..self.own.flags }, now);
    }

    pub(in crate::claim) fn leave(&mut self, now: Instant) {
        self.own.leave_until = Some(now + HANDOVER_TIMEOUT);
        self.set_flags(Flags { leaving: true, ..self.own.flags }, now);
    }

    /// Returns whether a leaving node has just finished its handover: the peers have taken all
    /// addresses, or [`HANDOVER_TIMEOUT`] has passed.
    pub(in crate::claim) fn has_left(&mut self, now: Instant) -> bool {
        let owns_nothing = self.owns_nothing();
        self.own.leave_until.take_if(|until| owns_nothing || now >= *until).is_some()
    }

    /// Ends the participation in the protocol: this node claims no address any more.
    pub(in crate::claim) const fn end(&mut self) {
        self.own.flags.leaving = true;
    }

    /// Returns whether a hello is due.
    pub(in crate::claim) const fn is_hello_due(&self, now: Instant) -> bool {
        now.as_nanos() >= self.own.next_hello.as_nanos() && !self.own.keys.is_empty()
    }

    /// Adjusts the hello interval before a frame is sent, because each frame carries the interval.
    pub(in crate::claim) fn adjust_interval(&mut self) {
        self.own.hello_interval.change_to(self.wanted_interval());
    }

    pub(in crate::claim) fn send_hello(&mut self, now: Instant) {
        self.adjust_interval();
        let accepted_keys = self.own.keys.clone();
        self.send(None, Body::Hello { accepted_keys }, now);
        self.own.last_hello = now;
        let follows_claim = now < self.own.last_claim + HELLO_AFTER_CLAIM * 2;
        let interval = self.own.hello_interval.current;
        self.own.next_hello =
            now + if follows_claim { interval.min(HELLO_AFTER_CLAIM) } else { interval };
    }

    /// Returns the hello interval for the current number of owners, or of nodes if this node owns
    /// nothing. Above [`OWNERS_FAST`] and [`NODES_FAST`], the interval grows with their number, so
    /// that the total rate of hellos on the segment does not, up to [`INTERVAL_IDLE_MAX`].
    fn wanted_interval(&self) -> Duration {
        let fast = self.config.hello_interval;
        let live = self.peers.values().filter(|peer| !peer.failed);
        if self.owns_nothing() {
            let idle = fast * IDLE_FACTOR * rounded(live.count()).max(NODES_FAST) / NODES_FAST;
            return idle.min(INTERVAL_IDLE_MAX).max(fast);
        }
        let owners = rounded(live.filter(|peer| peer.is_owner).count());
        fast * owners.max(OWNERS_FAST) / OWNERS_FAST
    }
}

/// Returns the number of nodes with this node and `others`, rounded up.
fn rounded(others: usize) -> u32 {
    u32::try_from(others + 1).unwrap_or(u32::MAX).next_multiple_of(NODES_STEP)
}
