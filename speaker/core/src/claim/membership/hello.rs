//! Hellos of this node: the interval between them, the detection time that they state, and the
//! answer lease, which fences a stalled node. Part of the membership of one interface.

use std::time::Duration;

use ferrolb_proto::Instant;

use super::failure_detection::FAILURE_DELAY;
use super::lateness::Lateness;
use crate::claim::ClaimConfig;

/// Time that must pass after the end of the answer lease before this node counts as stalled.
const ANSWER_LEASE_SLACK: Duration = Duration::from_millis(5);
/// Delay from a claim or release to the hello that follows, and from that one to the next. By these
/// hellos, peers detect that the claim or release was lost.
const HELLO_AFTER_CLAIM: Duration = Duration::from_millis(25);
/// Number of frames that carry longer times while this node still observes the shorter ones.
const SLOWING_FRAMES: u8 = 3;
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

/// Late hellos of this node, because it is busy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LateHellos {
    /// Time by which hellos were late at most, rounded up.
    pub by: Duration,
    /// Time after the latest frame until peers declare this node failed.
    pub detection_time: Duration,
}

/// Times by which peers judge this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Pace {
    /// Interval between two hellos.
    interval: Duration,
    /// Time without hellos after which peers suspect this node.
    patience: Duration,
}

/// Hellos of this node. Before longer times apply, hellos already carry them. Otherwise receivers
/// would still expect the shorter ones, and one lost frame would look like a node failure.
#[derive(Debug)]
pub(super) struct Hellos {
    /// Interval of an owner on a small segment.
    configured: Duration,
    /// Number of missed hellos after which a peer suspects this node.
    misses: u32,
    /// Longest patience that late hellos cause.
    patience_max: Duration,
    /// Pace at which this node sends hellos and measures its answer lease.
    pace: Pace,
    /// Pace that this node's frames carry.
    stated: Pace,
    slowing: u8,
    lateness: Lateness,
    /// Time of the latest hello, or of a claim or release, which has the same effect.
    last: Instant,
    last_claim: Instant,
}

impl Hellos {
    pub(super) fn new(config: &ClaimConfig, now: Instant) -> Self {
        let (interval, misses) = (config.hello_interval, config.hello_misses);
        let pace = Pace { interval, patience: interval * misses };
        Self {
            configured: interval,
            misses,
            pace,
            stated: pace,
            slowing: 0,
            patience_max: config.detection_time_max.saturating_sub(FAILURE_DELAY),
            lateness: Lateness::new(config.detection_time_max, now),
            last: now,
            last_claim: now,
        }
    }

    /// Returns the interval that this node's frames carry.
    pub(super) const fn stated_interval(&self) -> Duration {
        self.stated.interval
    }

    /// Returns the detection time that this node's frames carry.
    pub(super) fn detection_time(&self) -> Duration {
        self.stated.patience + FAILURE_DELAY
    }

    /// Returns how late hellos were in the last minutes, rounded up, and the detection time for
    /// this reason; `None` if the missed hellos cover it.
    pub(super) fn late(&self) -> Option<LateHellos> {
        let allowance = self.lateness.allowance();
        (!allowance.is_zero()).then(|| LateHellos {
            by: self.covered() + allowance,
            detection_time: self.detection_time(),
        })
    }

    /// Returns the time by which a hello of an owner may be late if there is no allowance.
    fn covered(&self) -> Duration {
        self.configured * (self.misses - 2)
    }

    pub(super) const fn last(&self) -> Instant {
        self.last
    }

    /// Returns the time without hellos of this node after which its peers suspect it.
    pub(super) const fn patience(&self) -> Duration {
        self.pace.patience
    }

    pub(super) fn answer_lease_end(&self) -> Instant {
        self.last + (self.pace.patience - self.pace.interval)
    }

    /// Returns whether this node has stalled: the answer lease ended a while ago.
    pub(super) fn are_overdue(&self, now: Instant) -> bool {
        now >= self.answer_lease_end() + ANSWER_LEASE_SLACK
    }

    /// Adjusts the pace to the number of other live owners, or of other live nodes if this node
    /// owns nothing. Above [`OWNERS_FAST`] and [`NODES_FAST`], the interval grows with their
    /// number, so that the total rate of hellos on the segment does not, up to
    /// [`INTERVAL_IDLE_MAX`]. `peers_wait` is true if all peers wait for the detection time that
    /// this node states.
    pub(super) fn adjust(&mut self, is_owner: bool, others: usize, peers_wait: bool) {
        let fast = self.configured;
        let interval = if is_owner {
            fast * rounded(others).max(OWNERS_FAST) / OWNERS_FAST
        } else {
            let idle = fast * IDLE_FACTOR * rounded(others).max(NODES_FAST) / NODES_FAST;
            idle.min(INTERVAL_IDLE_MAX).max(fast)
        };
        let allowance = if peers_wait { self.lateness.allowance() } else { Duration::ZERO };
        let calm = interval * self.misses;
        let patience = (calm + allowance).min(self.patience_max).max(calm);
        self.change_to(Pace { interval, patience });
    }

    /// Changes the pace, before a frame is sent: to shorter times at once, to longer ones after
    /// [`SLOWING_FRAMES`] frames.
    fn change_to(&mut self, wanted: Pace) {
        let Pace { interval, patience } = self.pace;
        self.pace = Pace {
            interval: interval.min(wanted.interval),
            patience: patience.min(wanted.patience),
        };
        if self.stated != wanted {
            (self.stated, self.slowing) = (wanted, SLOWING_FRAMES);
        } else if self.slowing > 1 {
            self.slowing -= 1;
        } else {
            self.pace = wanted;
        }
    }

    /// Records a claim or release, and by how much the hello that it replaces is late. Returns the
    /// time of the next hello.
    ///
    /// A claim or release has the effect of a hello, also on the answer lease. A real hello right
    /// behind the claim or release could overtake it, and make it a stale frame.
    pub(super) fn on_claim(&mut self, late: Duration, now: Instant) -> Instant {
        self.on_sent(late, now);
        self.last_claim = now;
        now + HELLO_AFTER_CLAIM
    }

    /// Records a hello, and by how much it is late. Returns the time of the next one.
    pub(super) fn on_hello(&mut self, late: Duration, now: Instant) -> Instant {
        self.on_sent(late, now);
        let interval = self.pace.interval;
        let follows_claim = now < self.last_claim + HELLO_AFTER_CLAIM * 2;
        now + if follows_claim { interval.min(HELLO_AFTER_CLAIM) } else { interval }
    }

    /// Records a frame that has the effect of a hello.
    fn on_sent(&mut self, late: Duration, now: Instant) {
        self.lateness.record(late.saturating_sub(self.covered()), now);
        self.last = now;
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
        self.pace.interval
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    /// Hellos of an owner with one peer, and the time of the latest one.
    struct Owner(Hellos, Instant);

    impl Owner {
        fn new() -> Self {
            let config = ClaimConfig {
                node: "node1".into(),
                epoch: 1,
                hello_interval: ms(50),
                hello_misses: 3,
                detection_time_max: ms(2_000),
                failback_delay: None,
            };
            Self(Hellos::new(&config, Instant::ZERO), Instant::ZERO)
        }

        /// Sends a hello that is late. Returns the detection time that it states, and the length of
        /// the answer lease that it begins.
        fn send(&mut self, late: Duration, peers_wait: bool) -> (Duration, Duration) {
            let Self(hellos, now) = self;
            *now = *now + late;
            hellos.adjust(true, 1, peers_wait);
            let next = hellos.on_hello(late, *now);
            let stated = (hellos.detection_time(), hellos.answer_lease_end().since(*now));
            *now = next;
            stated
        }
    }

    /// Times of a node that was never late.
    const CALM: (Duration, Duration) = (Duration::from_millis(190), Duration::from_millis(100));

    #[test]
    fn the_answer_lease_grows_after_three_hellos_that_state_a_longer_time() {
        let mut owner = Owner::new();
        assert_eq!(owner.send(ms(50), true), CALM, "the missed hellos cover 50 ms");
        owner.send(ms(150), true);
        let next: Vec<_> = (0..4).map(|_| owner.send(ms(0), true)).collect();
        let (waiting, longer) = ((ms(290), ms(100)), (ms(290), ms(200)));
        assert_eq!(next, [waiting, waiting, waiting, longer]);
    }

    #[test]
    fn the_answer_lease_shrinks_with_the_first_hello_that_states_a_shorter_time() {
        let mut owner = Owner::new();
        owner.send(ms(150), true);
        (0..4).for_each(|_| _ = owner.send(ms(0), true));
        assert_eq!(owner.send(ms(0), false), CALM, "a peer of an earlier version has joined");
        let next: Vec<_> = (0..4).map(|_| owner.send(ms(0), true)).collect();
        assert_eq!(next[2..], [(ms(290), ms(100)), (ms(290), ms(200))], "the peer has left");
    }
}
