//! Hellos of this node: the interval between them, and the answer lease, which fences a stalled
//! node. Part of the membership of one interface.

use std::time::Duration;

use ferrolb_proto::Instant;

use crate::claim::ClaimConfig;

/// Time that must pass after the end of the answer lease before this node counts as stalled.
const ANSWER_LEASE_SLACK: Duration = Duration::from_millis(5);
/// Delay from a claim or release to the hello that follows, and from that one to the next. By these
/// hellos, peers detect that the claim or release was lost.
const HELLO_AFTER_CLAIM: Duration = Duration::from_millis(25);
/// Number of hellos that carry a new, longer interval while this node still sends at the old one.
const SLOWING_HELLOS: u8 = 3;
/// Number of owners on a segment up to which each owner sends hellos at the configured interval.
const OWNERS_FAST: u32 = 40;
/// Multiple of the configured interval at which a node that owns no address sends hellos.
const IDLE_FACTOR: u32 = 4;
/// Longest interval between two hellos of such a node, unless the configured one is longer.
pub(super) const INTERVAL_IDLE_MAX: Duration = Duration::from_secs(1);
/// Number of nodes on a segment up to which a node without addresses sends hellos at
/// [`IDLE_FACTOR`] times the configured interval.
const NODES_FAST: u32 = 80;
/// Multiple to which these numbers are rounded up, so that the hello interval does not change with
/// each node.
const NODES_STEP: u32 = 10;

/// Hellos of this node. Before a longer interval applies, hellos already carry it. Otherwise
/// receivers would still expect the shorter one, and one lost frame would look like a node failure.
#[derive(Debug)]
pub(super) struct Hellos {
    /// Interval of an owner on a small segment.
    configured: Duration,
    /// Number of missed hellos after which a peer suspects this node.
    misses: u32,
    /// Interval at which this node sends hellos now.
    interval: Duration,
    /// Interval that this node's frames carry, from which receivers compute when hellos are
    /// missing.
    promised: Duration,
    slowing: u8,
    /// Time of the latest hello, or of a claim or release, which has the same effect.
    last: Instant,
    last_claim: Instant,
}

impl Hellos {
    pub(super) const fn new(config: &ClaimConfig, now: Instant) -> Self {
        let interval = config.hello_interval;
        Self {
            configured: interval,
            misses: config.hello_misses,
            interval,
            promised: interval,
            slowing: 0,
            last: now,
            last_claim: now,
        }
    }

    /// Returns the interval that this node's frames carry.
    pub(super) const fn promised(&self) -> Duration {
        self.promised
    }

    pub(super) const fn last(&self) -> Instant {
        self.last
    }

    /// Returns the time without hellos of this node after which its peers suspect it.
    pub(super) fn patience(&self) -> Duration {
        self.interval * self.misses
    }

    pub(super) fn answer_lease_end(&self) -> Instant {
        self.last + self.interval * (self.misses - 1)
    }

    /// Returns whether this node has stalled: the answer lease ended a while ago.
    pub(super) fn are_overdue(&self, now: Instant) -> bool {
        now >= self.answer_lease_end() + ANSWER_LEASE_SLACK
    }

    /// Adjusts the interval to the number of other live owners, or of other live nodes if this node
    /// owns nothing. Above [`OWNERS_FAST`] and [`NODES_FAST`], the interval grows with their
    /// number, so that the total rate of hellos on the segment does not, up to
    /// [`INTERVAL_IDLE_MAX`].
    pub(super) fn adjust(&mut self, is_owner: bool, others: usize) {
        let fast = self.configured;
        self.change_to(if is_owner {
            fast * rounded(others).max(OWNERS_FAST) / OWNERS_FAST
        } else {
            let idle = fast * IDLE_FACTOR * rounded(others).max(NODES_FAST) / NODES_FAST;
            idle.min(INTERVAL_IDLE_MAX).max(fast)
        });
    }

    /// Changes the interval, before a hello is sent: to a shorter one at once, to a longer one
    /// after [`SLOWING_HELLOS`] hellos.
    fn change_to(&mut self, wanted: Duration) {
        if wanted <= self.interval {
            (self.interval, self.promised, self.slowing) = (wanted, wanted, 0);
        } else if self.promised != wanted {
            (self.promised, self.slowing) = (wanted, SLOWING_HELLOS);
        } else if self.slowing > 1 {
            self.slowing -= 1;
        } else {
            self.interval = wanted;
        }
    }

    /// Records a claim or release. Returns the time of the next hello.
    ///
    /// A claim or release has the effect of a hello, also on the answer lease. A real hello right
    /// behind the claim or release could overtake it, and make it a stale frame.
    pub(super) fn on_claim(&mut self, now: Instant) -> Instant {
        (self.last, self.last_claim) = (now, now);
        now + HELLO_AFTER_CLAIM
    }

    /// Records a hello. Returns the time of the next one.
    pub(super) fn on_hello(&mut self, now: Instant) -> Instant {
        self.last = now;
        let follows_claim = now < self.last_claim + HELLO_AFTER_CLAIM * 2;
        now + if follows_claim { self.interval.min(HELLO_AFTER_CLAIM) } else { self.interval }
    }
}

/// Returns the number of nodes with this node and `others`, rounded up.
fn rounded(others: usize) -> u32 {
    u32::try_from(others + 1).unwrap_or(u32::MAX).next_multiple_of(NODES_STEP)
}

/// State that only tests read.
#[cfg(test)]
impl Hellos {
    pub(super) const fn interval(&self) -> Duration {
        self.interval
    }
}
