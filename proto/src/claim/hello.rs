//! What this node says of itself, and when: its flags, its hellos, listening, freshness, leaving, and the gate that fences a
//! frozen node.

use std::time::Duration;

use super::failing::FAILING_SAID_EVERY;
use super::own::Own;
use super::{Claims, INTERVAL_IDLE, LEAVE_MAX, LISTEN, Output};
use crate::Instant;
use crate::wire::hello::{Body, Flags, Release};

/// A newly heard member is answered within this time, at random, so that many answers become one burst of few.
const GREET_WITHIN_MILLIS: u64 = 20;
/// How late a hello may be before the gate looks at it.
const GATE_SLACK: Duration = Duration::from_millis(5);
/// This many fences within [`UNSTABLE_WINDOW`] make a node unstable.
pub(super) const FENCES_UNSTABLE: usize = 3;
const UNSTABLE_WINDOW: Duration = Duration::from_secs(600);
/// How many hellos at the old, faster rate follow the announcement of a slower one.
const SLOWING_HELLOS: u8 = 3;
/// So many owners on a wire say hello at the configured interval.
const OWNERS_FAST: u32 = 40;
/// Owners are counted in tens, so that the interval does not change with each.
const OWNERS_STEP: u32 = 10;
/// How long a link that hears another link of its own node on the same wire stays silent: three hellos of an idle node, and some.
const MUTE: Duration = Duration::from_millis(3_500);

/// How often hellos go out. A longer interval is promised before it is kept, or a lost frame would be taken for a death.
#[derive(Debug)]
pub(super) struct Pace {
    /// The interval that is kept.
    pub(super) current: Duration,
    /// The interval that our frames promise.
    pub(super) promised: Duration,
    slowing: u8,
}

impl Pace {
    pub(super) const fn new(interval: Duration) -> Self {
        Self { current: interval, promised: interval, slowing: 0 }
    }

    /// Before a hello.
    fn turn_to(&mut self, wanted: Duration) {
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

impl Own {
    pub(super) fn deadlines(&self) -> impl Iterator<Item = Instant> {
        let speaking = (!self.keys.is_empty()).then_some(self.next_hello);
        let unstable = self.unstable_until().filter(|_| self.flags.unstable);
        let refresh = self.refresh.map(|(at, _)| at);
        let own = [
            speaking,
            self.greet_at,
            self.leave_until,
            self.listen_until,
            self.fresh_until,
            self.muted_until,
            unstable,
            refresh,
        ];
        own.into_iter().flatten()
    }

    /// When the latest fences are too far back to make the node unstable; none if there were not enough of them.
    fn unstable_until(&self) -> Option<Instant> {
        let first = self.fences.front().filter(|_| self.fences.len() >= FENCES_UNSTABLE)?;
        Some(*first + UNSTABLE_WINDOW)
    }
}

impl Claims {
    pub(super) fn set_keys(&mut self, keys: Vec<u32>, now: Instant) {
        if self.own.keys.is_empty() && !keys.is_empty() {
            self.listen(now);
            // Another link of this node may be on this wire and hold something: it is heard first.
            self.own.next_hello = now + self.stagger();
        }
        self.own.keys = keys;
        self.own.dirty.all = true;
    }

    /// The newest key that every member heard says it accepts, so that no rotation leaves anyone out; a newcomer's word counts,
    /// or it could never answer our challenge. Where they agree on none, the oldest: it has had the longest time to spread.
    pub(super) fn signing_key(&self) -> Option<u32> {
        let peers = self.peers.values().filter(|peer| !peer.dead).map(|peer| &*peer.accepts);
        let heard = || peers.clone().chain(self.newcomers.values().map(|newcomer| &*newcomer.accepts));
        let accepted = |key: &&u32| heard().all(|accepts| accepts.is_empty() || accepts.contains(key));
        self.own.keys.iter().find(accepted).or(self.own.keys.last()).copied()
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
        if self.own.muted_until.is_some_and(|until| now >= until) {
            self.unmute(now);
        }
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
        let patience = self.own.pace.current * self.config.hello_misses;
        if silence < patience || self.peers.values().all(|peer| peer.dead) {
            self.hello(now);
            return;
        }
        self.fence(now);
    }

    /// Gives up everything, and listens: others may answer already.
    pub(super) fn fence(&mut self, now: Instant) {
        self.forget_votes();
        self.counts.fences += 1;
        self.listen(now);
        self.own.fences.push_back(now);
        if self.own.fences.len() > FENCES_UNSTABLE {
            self.own.fences.pop_front();
        }
        self.own.flags.unstable = self.own.unstable_until().is_some_and(|until| now < until);
        self.become_fresh(now);
        let all: Vec<_> = self.own.held.keys().copied().collect();
        self.release(&all, Release::Refused, now);
    }

    /// Another link of this node was heard on this wire. Only one of them may speak: to the others a node has one voice.
    pub(super) fn sibling(&mut self, precedes: bool, now: Instant) {
        if !precedes {
            if self.own.muted_until.is_some() {
                self.unmute(now);
            }
            let rest = now.since(self.own.last_hello) < self.stagger();
            self.own.next_hello = if rest { self.own.next_hello } else { now };
            return;
        }
        if self.own.muted_until.is_none() {
            let all: Vec<_> = self.own.held.keys().copied().collect();
            self.release(&all, Release::HandedOver, now);
            self.own.dirty.all = true;
        }
        self.own.muted_until = Some(now + MUTE);
    }

    fn unmute(&mut self, now: Instant) {
        self.own.muted_until = None;
        self.listen(now);
        self.own.next_hello = now;
    }

    /// The main loop stands still, or goes on again: what it would decide is stale, so others had better announce.
    pub(super) fn stuck(&mut self, stuck: bool, now: Instant) {
        let leaving = stuck || self.own.leave_until.is_some();
        if self.own.flags.leaving && !leaving {
            self.become_fresh(now);
        }
        self.set_flags(Flags { leaving, ..self.own.flags }, now);
    }

    pub(super) fn leave(&mut self, now: Instant) {
        self.own.leave_until = Some(now + LEAVE_MAX);
        self.set_flags(Flags { leaving: true, ..self.own.flags }, now);
    }

    /// A leaving node ends when the others have taken all, or when they had time enough.
    pub(super) fn leave_if_done(&mut self, now: Instant) {
        let Some(until) = self.own.leave_until else { return };
        if self.own.held.is_empty() || now >= until {
            self.end(now);
            self.own.leave_until = None;
            self.outputs.push_back(Output::Left);
        }
    }

    /// Releases everything, and takes nothing any more: no later frame of this machine can say so.
    pub(super) fn end(&mut self, now: Instant) {
        self.own.flags.leaving = true;
        let all: Vec<_> = self.own.held.keys().copied().collect();
        self.release(&all, Release::HandedOver, now);
        self.release_again(now);
    }

    pub(super) fn hello_if_due(&mut self, now: Instant) {
        if self.own.greet_at.is_some_and(|at| now >= at) {
            self.own.greet_at = None;
            self.list(None, now);
        }
        if now >= self.own.next_hello && !self.own.keys.is_empty() && !self.release_again(now) {
            self.hello(now);
        }
    }

    /// Brings the pace nearer to what it should be; before a frame, which promises it.
    pub(super) fn turn_pace(&mut self) {
        self.own.pace.turn_to(self.wanted_interval());
    }

    pub(super) fn hello(&mut self, now: Instant) {
        self.turn_pace();
        let (failing, changed) = self.say_failing();
        let body = Body::Hello { generation: self.own.stated_generation(), accepts: self.own.keys.clone(), failing };
        self.send(None, body, now);
        self.own.last_hello = now;
        let pace = self.own.pace.current;
        self.own.next_hello = now + if changed { pace.min(FAILING_SAID_EVERY) } else { pace };
    }

    /// Someone was newly heard: tell all who we are and what we hold, soon.
    pub(super) fn greet(&mut self, now: Instant) {
        self.own.failing.tell_newcomers();
        let delay = Duration::from_millis(self.random(GREET_WITHIN_MILLIS));
        self.own.greet_at.get_or_insert(now + delay);
    }

    /// The interval that hellos should have: above so many owners it grows in proportion, so that a wire's hellos do not.
    fn wanted_interval(&self) -> Duration {
        let fast = self.config.hello_interval;
        if self.own.held.is_empty() {
            return fast.max(INTERVAL_IDLE);
        }
        let others = self.peers.values().filter(|peer| !peer.dead && !peer.claims.is_empty()).count();
        let owners = u32::try_from(others + 1).unwrap_or(u32::MAX).next_multiple_of(OWNERS_STEP);
        fast * owners.max(OWNERS_FAST) / OWNERS_FAST
    }
}
