//! Timers of this node by name. Part of the membership of one interface.

use std::collections::BTreeMap;

use ferrolb_proto::Instant;

/// Timer of this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    /// The next hello is due. The timer runs while this node has a key.
    Hello,
    /// End of the handover of this node, which leaves.
    Handover,
    /// End of the current listen phase.
    ListenPhase,
    /// End of this node's preempt delay. The timer does not run if the delay never ends.
    PreemptDelay,
    /// End of the standby period of this interface, during which another interface of this node is
    /// active on the segment.
    Standby,
    /// Time at which this node is no longer flapping.
    Flapping,
}

/// The running timers, each with its time.
#[derive(Debug, Default)]
pub(super) struct Timers(BTreeMap<Timer, Instant>);

impl Timers {
    pub(super) fn set(&mut self, timer: Timer, at: Instant) {
        self.0.insert(timer, at);
    }

    pub(super) fn stop(&mut self, timer: Timer) {
        self.0.remove(&timer);
    }

    pub(super) fn runs(&self, timer: Timer) -> bool {
        self.0.contains_key(&timer)
    }

    pub(super) fn has_expired(&self, timer: Timer, now: Instant) -> bool {
        self.0.get(&timer).is_some_and(|at| now >= *at)
    }

    /// Stops a timer if it has expired. Returns whether it has.
    pub(super) fn take_expired(&mut self, timer: Timer, now: Instant) -> bool {
        let has_expired = self.has_expired(timer, now);
        if has_expired {
            self.stop(timer);
        }
        has_expired
    }

    /// Returns the time at which the next timer expires.
    pub(super) fn next(&self) -> Option<Instant> {
        self.0.values().min().copied()
    }
}
