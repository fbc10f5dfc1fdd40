//! Lateness of this node's hellos, which grows if the node is busy: the allowance is the time that
//! peers wait for them in addition to the missed hellos. Part of the membership of one interface.

use std::time::Duration;

use ferrolb_core::rate::Doubling;
use ferrolb_proto::Instant;

/// Shortest allowance above zero. Longer ones are doublings of it, so that an allowance rarely
/// changes.
const ALLOWANCE_MIN: Duration = Duration::from_millis(50);
/// Time after which the allowance is halved, unless hellos were late in that time.
const DECAY_PERIOD: Duration = Duration::from_secs(120);

/// The allowance for late hellos.
#[derive(Debug)]
pub(super) struct Lateness {
    allowance: Duration,
    steps: Doubling,
    /// Greatest excess in the current period, which began at `since`.
    greatest: Duration,
    since: Instant,
}

impl Lateness {
    /// `limit` is the longest allowance, at least [`ALLOWANCE_MIN`].
    pub(super) fn new(limit: Duration, now: Instant) -> Self {
        let steps = Doubling::new(ALLOWANCE_MIN, limit.max(ALLOWANCE_MIN));
        Self { allowance: Duration::ZERO, steps, greatest: Duration::ZERO, since: now }
    }

    pub(super) const fn allowance(&self) -> Duration {
        self.allowance
    }

    /// Records a hello, which was late by `excess` more than the missed hellos cover.
    pub(super) fn record(&mut self, excess: Duration, now: Instant) {
        self.greatest = self.greatest.max(excess);
        if now.since(self.since) >= DECAY_PERIOD {
            let half = Some(self.allowance / 2).filter(|half| *half >= ALLOWANCE_MIN);
            self.allowance = half.unwrap_or_default();
            self.raise_to(self.greatest);
            (self.greatest, self.since) = (Duration::ZERO, now);
        }
        self.raise_to(excess);
    }

    /// Doubles the allowance until it covers `excess`, or has its maximum.
    fn raise_to(&mut self, excess: Duration) {
        while self.allowance < excess {
            let next = self.steps.next(Some(self.allowance).filter(|it| !it.is_zero()));
            if next == self.allowance {
                return;
            }
            self.allowance = next;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_millis(2_000);

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn the_allowance_covers_the_excess_in_doublings_up_to_the_limit() {
        for (excess, allowance) in
            [(0, 0), (1, 50), (50, 50), (51, 100), (590, 800), (1_700, 2_000), (u64::MAX, 2_000)]
        {
            let mut lateness = Lateness::new(LIMIT, Instant::ZERO);
            lateness.record(ms(excess), Instant::ZERO);
            assert_eq!(lateness.allowance(), ms(allowance), "{excess} ms");
        }
    }

    #[test]
    fn the_allowance_halves_in_each_period_in_which_less_is_needed() {
        let mut lateness = Lateness::new(LIMIT, Instant::ZERO);
        lateness.record(ms(590), Instant::ZERO);
        let mut allowances = Vec::new();
        for period in 1..=6 {
            let end = Instant::ZERO + DECAY_PERIOD * period;
            lateness.record(ms(if period == 2 { 300 } else { 0 }), end);
            lateness.record(Duration::ZERO, end + ms(1));
            allowances.push(lateness.allowance());
        }
        // The first period includes the excess of 590 ms, and the second one that of 300 ms.
        assert_eq!(allowances, [800, 400, 200, 100, 50, 0].map(ms));
    }
}
