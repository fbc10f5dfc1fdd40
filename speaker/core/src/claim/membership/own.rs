//! State of this node: its keys and flags, and the phases in which it claims no address or takes
//! none back. Part of the membership of one interface.

use std::time::Duration;

use ferrolb_proto::Instant;
use ferrolb_proto::wire::hello::{Body, ClaimSetSummary, Flags, Frame};

use super::failure_detection::FAILURE_DELAY;
use super::hello::{Hellos, LateHellos};
use super::timers::Timer;
use crate::claim::recent::RecentEvents;
use crate::claim::{ClaimConfig, HANDOVER_TIMEOUT, LISTEN_PHASE, NodeState};
use crate::timers::Timers;

/// Time for which this interface remains on standby after a frame of another interface of this node
/// on the same segment. The time is three times
/// [`INTERVAL_IDLE_MAX`](super::hello::INTERVAL_IDLE_MAX), and a margin.
const STANDBY_PERIOD: Duration = Duration::from_millis(3_500);

/// State of this node on one interface.
#[derive(Debug)]
pub struct OwnState {
    config: ClaimConfig,
    /// IDs of the keys with which this node can verify frames, newest first. Without a key, this
    /// node neither sends nor claims.
    keys: Vec<u32>,
    flags: Flags,
    /// True if the flags have changed, or whether this node may claim addresses, since
    /// [`Self::take_change`].
    has_changed: bool,
    /// Summary of this node's claim set, which each frame carries.
    claim_set: ClaimSetSummary,
    /// Clock value of the latest frame that this node sent, in nanoseconds.
    clock: u64,
    hellos: Hellos,
    timers: Timers<Timer>,
    /// Recent fences of this node.
    fences: RecentEvents,
}

impl OwnState {
    pub(super) fn new(config: ClaimConfig, now: Instant) -> Self {
        let mut timers = Timers::default();
        if let Some(delay) = config.failback_delay {
            timers.set(Timer::PreemptDelay, now + delay);
        }
        Self {
            keys: Vec::new(),
            flags: Flags { in_preempt_delay: true, ..Flags::default() },
            has_changed: false,
            claim_set: ClaimSetSummary::default(),
            clock: 0,
            hellos: Hellos::new(&config, now),
            timers,
            fences: RecentEvents::default(),
            config,
        }
    }

    pub(super) const fn config(&self) -> &ClaimConfig {
        &self.config
    }

    pub(super) const fn hellos(&self) -> &Hellos {
        &self.hellos
    }

    /// Returns whether this interface is a standby interface, because another interface of the node
    /// is active on the same segment.
    #[must_use]
    pub fn is_standby(&self) -> bool {
        self.timers.is_set(&Timer::Standby)
    }

    /// Returns whether this node is isolated.
    #[must_use]
    pub const fn is_isolated(&self) -> bool {
        self.flags.isolated
    }

    /// Returns the end of the answer lease: until that time, this node may reply for its addresses.
    ///
    /// The lease ends one hello interval before the peers suspect this node. A stalled node
    /// therefore does not reply for an address that a peer has taken over.
    #[must_use]
    pub fn answer_lease_end(&self) -> Instant {
        self.hellos.answer_lease_end()
    }

    /// Returns how late hellos of this node were in the last minutes; `None` if they were not.
    #[must_use]
    pub fn late_hellos(&self) -> Option<LateHellos> {
        self.hellos.late()
    }

    /// Returns the flags of this node.
    pub(in crate::claim) const fn flags(&self) -> Flags {
        self.flags
    }

    /// Returns whether this node sends frames.
    pub(super) fn sends(&self) -> bool {
        !(self.keys.is_empty() || self.is_standby())
    }

    /// Returns whether this node may claim any address now.
    pub(in crate::claim) fn claims(&self) -> bool {
        self.sends() && !self.timers.is_set(&Timer::ListenPhase) && !self.flags.leaving
    }

    /// Returns whether this node owns no address.
    pub(super) const fn owns_nothing(&self) -> bool {
        self.claim_set.count == 0
    }

    /// Returns whether this node is in the preempt delay, which ends at some time.
    pub(super) fn delay_ends(&self) -> bool {
        self.timers.is_set(&Timer::PreemptDelay)
    }

    /// Returns whether a hello is due.
    pub(in crate::claim) fn is_hello_due(&self, now: Instant) -> bool {
        self.timers.is_due(&Timer::Hello, now)
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.timers.deadline()
    }

    /// Stores the new summary of this node's claim set.
    pub(in crate::claim) const fn set_claim_set(&mut self, summary: ClaimSetSummary) {
        self.claim_set = summary;
    }

    pub(in crate::claim) fn set_keys(&mut self, keys: Vec<u32>, now: Instant) {
        let is_first = self.keys.is_empty();
        self.keys = keys;
        if self.keys.is_empty() {
            self.timers.stop(&Timer::Hello);
        } else if is_first {
            self.start_listen_phase(now);
            // Another interface of this node may be active on this segment. This interface
            // therefore receives for a moment before its first hello.
            self.schedule_hello(now + self.config.stagger());
        }
        self.note_change();
    }

    /// Returns the IDs of the keys with which this node can verify frames, newest first.
    pub(super) fn keys(&self) -> &[u32] {
        &self.keys
    }

    /// Returns the ID of the newest key that all others accept; `accepts` are the keys of each of
    /// them, empty if not reported yet. If they have no key in common, returns the oldest key,
    /// which had the longest time to reach every node.
    pub(super) fn signing_key<'a>(
        &self,
        accepts: impl Iterator<Item = &'a [u32]> + Clone,
    ) -> Option<u32> {
        let is_accepted =
            |key: &&u32| accepts.clone().all(|accepts| accepts.is_empty() || accepts.contains(key));
        self.keys.iter().find(is_accepted).or(self.keys.last()).copied()
    }

    /// Applies the state of the node that other parts of the speaker have determined.
    pub(in crate::claim) fn set_node_state(&mut self, state: NodeState, now: Instant) {
        let NodeState { draining, unhealthy, health_checked } = state;
        self.set_flags(Flags { draining, unhealthy, health_checked, ..self.flags }, now);
    }

    pub(super) fn set_isolated(&mut self, isolated: bool, now: Instant) {
        self.set_flags(Flags { isolated, ..self.flags }, now);
    }

    /// Sets the flags of this node. If they have changed, the next hello is due at once.
    fn set_flags(&mut self, flags: Flags, now: Instant) {
        if flags != self.flags {
            self.flags = flags;
            self.schedule_hello(now);
            self.note_change();
        }
    }

    /// Records that the rest of the claim machine must consider the state of this node again.
    pub(super) const fn note_change(&mut self) {
        self.has_changed = true;
    }

    /// Returns whether the state of this node has changed since the previous call.
    pub(super) const fn take_change(&mut self) -> bool {
        std::mem::replace(&mut self.has_changed, false)
    }

    /// Schedules a hello for `at`. A hello that is due earlier remains so, because its delay counts
    /// as lateness.
    fn schedule_hello(&mut self, at: Instant) {
        if !self.keys.is_empty() {
            self.timers.set_by(Timer::Hello, at);
        }
    }

    fn start_listen_phase(&mut self, now: Instant) {
        self.timers.set(Timer::ListenPhase, now + LISTEN_PHASE);
    }

    /// Starts the preempt delay of this node, which doubles with each recent fence but the first.
    /// `ends` is false if the delay does not end.
    pub(super) fn start_preempt_delay(&mut self, ends: bool, now: Instant) {
        self.fences.are_over(now);
        match self.config.failback_delay.filter(|_| ends) {
            Some(delay) => self.timers.set(Timer::PreemptDelay, now + self.fences.lengthen(delay)),
            None => _ = self.timers.stop(&Timer::PreemptDelay),
        }
        self.set_flags(Flags { in_preempt_delay: true, ..self.flags }, now);
    }

    /// Ends the standby period, the listen phase and the preempt delay when their time has passed.
    pub(in crate::claim) fn expire(&mut self, now: Instant) {
        if self.timers.expire(&Timer::Standby, now) {
            self.end_standby(now);
        }
        if self.timers.expire(&Timer::ListenPhase, now) {
            self.note_change();
        }
        if self.timers.expire(&Timer::PreemptDelay, now) {
            self.set_flags(Flags { in_preempt_delay: false, ..self.flags }, now);
        }
    }

    /// Starts a listen phase after a fence.
    pub(super) fn on_fence(&mut self, now: Instant) {
        self.start_listen_phase(now);
        self.fences.add(now);
    }

    /// Returns the time of the latest fence, while its listen phase lasts.
    pub(super) fn listens_after_fence(&self, now: Instant) -> Option<Instant> {
        let listens = self.timers.is_set(&Timer::ListenPhase);
        self.fences.last().filter(|at| listens && now.since(*at) < LISTEN_PHASE)
    }

    pub(super) fn end_listen_phase(&mut self) {
        self.timers.stop(&Timer::ListenPhase);
        self.note_change();
    }

    /// Handles a frame of another interface of this node on the same segment. Only one of the
    /// interfaces may be active, because peers track a single claim set per node. Before a standby
    /// period, this node must have released all addresses.
    pub(in crate::claim) fn on_sibling_frame(&mut self, is_active: bool, now: Instant) {
        if is_active {
            self.timers.set(Timer::Standby, now + STANDBY_PERIOD);
            return;
        }
        if self.is_standby() {
            self.end_standby(now);
        }
        if now.since(self.hellos.last()) >= self.config.stagger() {
            self.schedule_hello(now);
        }
    }

    fn end_standby(&mut self, now: Instant) {
        self.timers.stop(&Timer::Standby);
        self.start_listen_phase(now);
        self.schedule_hello(now);
    }

    /// Sets whether the main loop is stalled, and this node leaves for that reason. Returns whether
    /// this node has stopped leaving.
    pub(super) fn set_main_loop_stalled(&mut self, stalled: bool, now: Instant) -> bool {
        let leaving = stalled || self.timers.is_set(&Timer::Handover);
        let stays = self.flags.leaving && !leaving;
        self.set_flags(Flags { leaving, ..self.flags }, now);
        stays
    }

    pub(in crate::claim) fn leave(&mut self, now: Instant) {
        self.timers.set(Timer::Handover, now + HANDOVER_TIMEOUT);
        self.set_flags(Flags { leaving: true, ..self.flags }, now);
    }

    /// Returns whether a leaving node has just finished its handover: the peers have taken all
    /// addresses, or [`HANDOVER_TIMEOUT`] has passed.
    pub(in crate::claim) fn has_left(&mut self, now: Instant) -> bool {
        let has_left = self.timers.is_set(&Timer::Handover)
            && (self.owns_nothing() || self.timers.is_due(&Timer::Handover, now));
        if has_left {
            self.timers.stop(&Timer::Handover);
        }
        has_left
    }

    /// Ends the participation in the protocol: this node claims no address any more.
    pub(in crate::claim) const fn end(&mut self) {
        self.flags.leaving = true;
    }

    /// Adjusts the pace of the hellos. `others` is the number of other live owners, or of other
    /// live nodes if this node owns nothing. `peers_wait` is true if all peers wait for the
    /// detection time that this node states.
    pub(super) fn adjust_pace(&mut self, others: usize, peers_wait: bool) {
        self.hellos.adjust(!self.owns_nothing(), others, peers_wait);
    }

    /// Returns the time after this frame before which its sender is not declared failed.
    pub(super) fn detection_time_of(&self, frame: &Frame) -> Duration {
        let from_interval = || frame.interval * self.config.hello_misses + FAILURE_DELAY;
        frame.detection_time.unwrap_or_else(from_interval)
    }

    /// Stops the timer of the hello that is sent now, and returns by how much the hello is late.
    fn take_lateness(&mut self, now: Instant) -> Duration {
        let late = self.timers.lateness(&Timer::Hello, now);
        self.timers.stop(&Timer::Hello);
        late
    }

    /// Records that a hello was sent.
    pub(super) fn on_hello(&mut self, now: Instant) {
        let late = self.take_lateness(now);
        let next = self.hellos.on_hello(late, now);
        self.schedule_hello(next);
    }

    /// Returns a frame of this node. A claim or release has the effect of a hello.
    pub(super) fn frame(&mut self, body: Body, now: Instant) -> Frame {
        // Clock values are unique per sender, so a receiver can order any two frames.
        self.clock = now.as_nanos().max(self.clock + 1);
        if matches!(body, Body::Claim(_) | Body::Release { .. }) {
            let late = self.take_lateness(now);
            let next = self.hellos.on_claim(late, now);
            self.schedule_hello(next);
        }
        Frame {
            node: (*self.config.node).into(),
            epoch: self.config.epoch,
            clock: self.clock,
            claim_set: self.claim_set,
            interval: self.hellos.stated_interval(),
            detection_time: Some(self.hellos.detection_time()),
            flags: self.flags,
            body,
        }
    }
}

/// State that only tests change.
#[cfg(test)]
impl OwnState {
    pub(super) const fn end_preempt_delay(&mut self) {
        self.flags.in_preempt_delay = false;
    }
}
