//! Limits on reading frames during a flood. Pure and without allocation. Each interface's thread
//! owns two [`CpuBudget`]s, for requests and for hellos, and three [`SourceLimiter`]s, for ARP,
//! Neighbor Discovery and hellos.
//!
//! A host that sends too many frames is blocked for a while. The kernel drops its frames before
//! they wake the thread, so that other hosts are not affected.
//!
//! If many hosts together cause a flood, reading takes at most half of one processor. The thread
//! first reads less often, and more frames at once. If that is not enough, the thread reads only a
//! random sample of the frames.

use std::time::Duration;

use ferrolb_proto::Instant;
use ferrolb_proto::wire::Mac;

/// Divisor of the share of one processor that reading frames may use in the long run: one half.
const SHARE_DIVISOR: u32 = 2;
/// Time that reading may take in addition to its share, so that a short burst of frames is read
/// without a pause.
const BURST_CREDIT: Duration = Duration::from_millis(50);
/// Cost added to the measured time of each burst, which is a sequence of reads without a wait.
/// Nearly every burst begins with a wake-up, which the measured time does not include. In a
/// measurement, a wake-up took 4 us; it takes longer if the processor sleeps.
const WAKE_UP_COST: Duration = Duration::from_micros(10);
/// Pause during a flood after all frames have been read, because waking for each frame costs more
/// than reading the frame. During the pause, the kernel can queue at least 90 frames, by its limit
/// for a socket and the memory that drivers account per frame. At 300,000 frames/s, no frame is
/// lost.
const BACKOFF: Duration = Duration::from_micros(250);
/// Highest value of [`SourceLimiter::level`]. At level n, n > 0, the thread reads one frame in
/// 2^(n-1).
const LEVEL_MAX: u8 = 7;
/// Time after which [`SourceLimiter::level`] falls by one, if reading has not exhausted its budget
/// meanwhile.
const LEVEL_DOWN_AFTER: Duration = Duration::from_secs(1);
/// Time that the exhausted budget must regain before reading continues.
const REOPEN_CREDIT: Duration = Duration::from_millis(5);
/// Maximum measured time that is charged for one burst. If a burst took longer, the processor has
/// run something else meanwhile.
const BURST_COST_MAX: Duration = Duration::from_millis(2);
/// Number of sources whose frames are counted at a time, and maximum number of sources that are
/// blocked at a time.
pub(super) const SOURCES_MAX: usize = 8;
/// Maximum number of ARP frames, and of Neighbor Discovery frames, that one host may send per
/// second. A router that requests 10,000 addresses within a second needs half of that.
pub(super) const REQUESTS_PER_SECOND_MAX: u32 = 20_000;
/// Maximum number of hellos that one host may send per second: 100 times the default rate of a
/// speaker. This limit is lower than the one for ARP, because each hello costs a signature check.
pub(super) const HELLOS_PER_SECOND_MAX: u32 = 2_000;
/// Time for which a host that exceeds its limit is blocked.
pub(super) const BLOCK_LIFETIME: Duration = Duration::from_secs(5);

/// CPU budget for reading frames.
#[derive(Debug)]
pub(super) struct CpuBudget {
    /// Time used for reading, wake-ups included, minus the time allowed, as of `at`.
    used: Duration,
    at: Instant,
    open: bool,
    backoff_until: Instant,
}

impl CpuBudget {
    pub(super) const fn new() -> Self {
        Self { used: Duration::ZERO, at: Instant::ZERO, open: true, backoff_until: Instant::ZERO }
    }

    /// Returns whether frames may be read at `now`.
    pub(super) fn is_open(&mut self, now: Instant) -> bool {
        self.accrue(now);
        self.open |= self.used + REOPEN_CREDIT <= BURST_CREDIT;
        self.open && self.backoff_until <= now
    }

    /// Charges the budget for a burst that was read from `start` to `now`. Returns whether the
    /// burst has exhausted the budget.
    pub(super) fn charge(&mut self, start: Instant, now: Instant) -> bool {
        self.accrue(now);
        self.used += now.since(start).min(BURST_COST_MAX) + WAKE_UP_COST;
        let exhausted = self.open && self.used > BURST_CREDIT;
        self.open &= !exhausted;
        exhausted
    }

    /// Pauses reading after all frames were read at `now` during a flood, so that the next burst
    /// reads more frames.
    pub(super) fn back_off(&mut self, now: Instant) {
        self.accrue(now);
        self.backoff_until = now + BACKOFF;
    }

    /// Returns the time at which reading may continue, as [`CpuBudget::is_open`] then reports.
    /// None: frames may be read now.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let credit_at = (!self.open).then(|| {
            self.at + (self.used + REOPEN_CREDIT).saturating_sub(BURST_CREDIT) * SHARE_DIVISOR
        });
        let backoff_end = (self.backoff_until > self.at).then_some(self.backoff_until);
        credit_at.max(backoff_end)
    }

    fn accrue(&mut self, now: Instant) {
        self.used = self.used.saturating_sub(now.since(self.at) / SHARE_DIVISOR);
        self.at = now;
    }
}

/// Source limiter: blocks the sources that send too many frames, and sets the sampling level for
/// the others.
#[derive(Debug)]
pub(super) struct SourceLimiter {
    /// Maximum number of frames that one host may send per second.
    frames_per_second_max: u32,
    /// Level of the limits on all sources together. 0: no limits. 1: reading pauses whenever all
    /// frames have been read. 2 and above: in addition, only a sample of the frames is read.
    level: u8,
    /// Time at which the level falls by one.
    level_down_at: Instant,
    /// Time at which the counts in `sources` start again from zero.
    window_end: Instant,
    /// The sources of most frames in the current second, with their frame counts. Each count is too
    /// low by at most a ninth of all frames (Misra and Gries 1982).
    sources: [(Mac, u32); SOURCES_MAX],
    /// Blocked sources, each with the time at which the block ends.
    blocked: [Option<(Mac, Instant)>; SOURCES_MAX],
}

impl SourceLimiter {
    /// Returns a limiter that blocks each source that sends `frames_per_second_max` or more frames
    /// within a second.
    pub(super) const fn new(frames_per_second_max: u32) -> Self {
        Self {
            frames_per_second_max,
            level: 0,
            level_down_at: Instant::ZERO,
            window_end: Instant::ZERO,
            sources: [(Mac::ZERO, 0); SOURCES_MAX],
            blocked: [None; SOURCES_MAX],
        }
    }

    /// Adds a received frame to the count of its source. While the kernel's filter passes only one
    /// frame in 2^n, each received frame is counted as 2^n frames.
    pub(super) fn count(&mut self, source: Mac) {
        let mut weight = 1 << self.sampling_shift();
        let known = self.sources.iter().position(|(mac, count)| *mac == source && *count > 0);
        if known.is_none() {
            let least =
                self.sources.iter().map(|(_, count)| *count).min().unwrap_or_default().min(weight);
            self.sources.iter_mut().for_each(|(_, count)| *count -= least);
            weight -= least;
        }
        if let Some(index) =
            known.or_else(|| self.sources.iter().position(|(_, count)| *count == 0))
        {
            self.sources[index] = (source, self.sources[index].1 + weight);
        }
    }

    /// Blocks the sources that have exceeded the limit, except those for which `is_exempt` returns
    /// true. Returns whether a source was blocked.
    pub(super) fn block(&mut self, now: Instant, is_exempt: impl Fn(Mac) -> bool) -> bool {
        let mut changed = false;
        for (mac, count) in self.sources {
            if count >= self.frames_per_second_max
                && self.blocked().all(|other| other != mac)
                && !is_exempt(mac)
                && let Some(slot) = self.blocked.iter_mut().find(|slot| slot.is_none())
            {
                *slot = Some((mac, now + BLOCK_LIFETIME));
                // This source probably caused the overload, so the others need no sampling.
                self.level = 0;
                changed = true;
            }
        }
        if self.window_end <= now {
            (self.window_end, self.sources) =
                (now + Duration::from_secs(1), [(Mac::ZERO, 0); SOURCES_MAX]);
        }
        changed
    }

    /// Raises the level after reading has exhausted its budget. Level 1 adds pauses, and each
    /// further level halves the sample of frames.
    pub(super) fn raise_level(&mut self, now: Instant) {
        self.level = (self.level + 1).min(LEVEL_MAX);
        self.level_down_at = now + LEVEL_DOWN_AFTER;
    }

    /// Returns whether reading must pause whenever all frames have been read
    /// ([`CpuBudget::back_off`]).
    pub(super) const fn backs_off(&self) -> bool {
        self.level > 0
    }

    /// Returns n, where the kernel's filter must pass one frame in 2^n, at random. If the kernel
    /// dropped frames only at a full queue, clients whose requests always arrive at such a time
    /// would get no reply.
    pub(super) const fn sampling_shift(&self) -> u8 {
        self.level.saturating_sub(1)
    }

    /// Removes the blocks that have expired, and lowers the level if it is time. Returns whether a
    /// block or the level has changed, so that the kernel's filter must be replaced.
    pub(super) fn expire(&mut self, now: Instant) -> bool {
        let lower_level = self.level > 0 && self.level_down_at <= now;
        if lower_level {
            self.level -= 1;
            self.level_down_at = now + LEVEL_DOWN_AFTER;
        }
        let is_expired =
            |block: &Option<(Mac, Instant)>| block.is_some_and(|(_, until)| until <= now);
        let any = self.blocked.iter().any(is_expired);
        self.blocked.iter_mut().filter(|block| is_expired(block)).for_each(|block| *block = None);
        any || lower_level
    }

    /// Returns the maximum number of frames that one host may send per second.
    pub(super) const fn frames_per_second_max(&self) -> u32 {
        self.frames_per_second_max
    }

    /// Returns the blocked sources.
    pub(super) fn blocked(&self) -> impl Iterator<Item = Mac> + '_ {
        self.blocked.iter().flatten().map(|(mac, _)| *mac)
    }

    /// Returns the time at which [`SourceLimiter::expire`] must be called. None: no source is
    /// blocked, and the level is 0.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let level_down_at = (self.level > 0).then_some(self.level_down_at);
        self.blocked.iter().flatten().map(|(_, until)| *until).chain(level_down_at).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BURST: Duration = Duration::from_micros(500);

    fn mac(n: u32) -> Mac {
        let [a, b, c, d] = n.to_be_bytes();
        Mac([2, 0, a, b, c, d])
    }

    #[test]
    fn reading_takes_half_of_the_time_in_the_long_run() {
        let mut budget = CpuBudget::new();
        let (mut now, mut read_time, mut first_burst) =
            (Instant::from_millis(1_000), Duration::ZERO, None);
        let end = now + Duration::from_secs(10);
        while now < end {
            if budget.is_open(now) {
                now = now + BURST;
                budget.charge(earlier(now), now);
                read_time += BURST;
            } else {
                first_burst = first_burst.or(Some(read_time));
                now = budget.deadline().unwrap();
            }
        }
        assert!(
            (Duration::from_millis(4_900)..Duration::from_millis(5_000)).contains(&read_time),
            "{read_time:?}"
        );
        assert!(
            first_burst.is_some_and(|first_burst| first_burst >= BURST_CREDIT),
            "a burst within the credit is read without a pause: {first_burst:?}"
        );
        let backoff_end = now + Duration::from_secs(1);
        assert!(budget.is_open(backoff_end) && budget.deadline().is_none());
    }

    fn earlier(now: Instant) -> Instant {
        Instant::from_nanos(now.as_nanos() - u64::try_from(BURST.as_nanos()).unwrap())
    }

    #[test]
    fn sampling_keeps_reading_within_the_cpu_budget() {
        // Reading 300,000 frames/s takes three processors if each frame takes 10 us.
        let (mut budget, mut limiter) =
            (CpuBudget::new(), SourceLimiter::new(REQUESTS_PER_SECOND_MAX));
        let (mut now, mut read_time, mut closed) =
            (Instant::from_millis(1_000), Duration::ZERO, Duration::ZERO);
        let step = Duration::from_millis(1);
        for _ in 0..20_000 {
            now = now + step;
            if budget.is_open(now) {
                let cost = (step * 3 / (1 << limiter.sampling_shift())).min(step);
                if budget.charge(now, now + cost) {
                    limiter.raise_level(now);
                }
                read_time += cost;
            } else {
                closed += step;
            }
            limiter.expire(now);
        }
        assert!(
            read_time < Duration::from_millis(10_200),
            "reading takes more than half of 20 s and the burst credit: {read_time:?}"
        );
        assert!(closed < Duration::from_secs(4), "reading pauses for {closed:?} of 20 s");
        (0..100).for_each(|_| limiter.raise_level(now));
        assert_eq!((limiter.sampling_shift(), limiter.backs_off()), (LEVEL_MAX - 1, true));
        let mut steps = 0;
        while let Some(deadline) = limiter.deadline() {
            assert!(limiter.expire(deadline));
            steps += 1;
        }
        assert_eq!(
            (steps, limiter.sampling_shift(), limiter.backs_off()),
            (LEVEL_MAX, 0, false),
            "the level falls to 0, one by one"
        );
    }

    #[test]
    fn wake_ups_are_charged_to_the_cpu_budget() {
        // Each wake-up reads one frame, which takes no more than a third of the time.
        let (mut budget, gap, frame) =
            (CpuBudget::new(), Duration::from_micros(33), Duration::from_micros(10));
        let mut now = Instant::from_millis(1_000);
        let exhausted = (0..30_000).any(|_| {
            now = now + gap;
            budget.charge(now, now + frame)
        });
        assert!(exhausted && !budget.is_open(now));
    }

    #[test]
    fn reading_continues_after_a_pause() {
        let (mut budget, now) = (CpuBudget::new(), Instant::from_millis(1_000));
        budget.back_off(now);
        let backoff_end = budget.deadline().expect("the pause ends");
        assert_eq!(backoff_end, now + BACKOFF);
        assert!(!budget.is_open(now) && budget.is_open(backoff_end));
        assert_eq!(budget.deadline(), None);
        (0..100).for_each(|_| _ = budget.charge(backoff_end, backoff_end + BURST_COST_MAX));
        let exhausted_at = backoff_end + BURST_COST_MAX;
        budget.back_off(exhausted_at);
        let credit_at = budget.deadline().expect("the budget recovers");
        assert!(
            credit_at > exhausted_at + BACKOFF,
            "the budget recovers later than the pause ends"
        );
        budget.back_off(credit_at);
        assert_eq!(
            budget.deadline(),
            Some(credit_at + BACKOFF),
            "after the budget has recovered, the pause remains"
        );
    }

    #[test]
    fn time_without_a_processor_is_not_charged() {
        let mut budget = CpuBudget::new();
        for second in 1..=100 {
            let now = Instant::from_millis(second * 1_000);
            assert!(budget.is_open(now));
            budget.charge(now, now + Duration::from_millis(500));
        }
        assert_eq!(budget.deadline(), None);
    }

    #[test]
    fn only_sources_above_the_limit_are_blocked_for_a_while() {
        for flooders in [0, 1, 2] {
            let mut limiter = SourceLimiter::new(REQUESTS_PER_SECOND_MAX);
            let start = Instant::from_millis(1_000);
            let mut blocked = Vec::new();
            for n in 0..100_000 {
                // Every tenth frame has a new source; if `flooders` is 0, every frame has.
                let other = flooders == 0 || n % 10 == 0;
                limiter.count(if other { mac(n + 1000) } else { mac(n % flooders) });
                if n % 50 == 0 && limiter.block(start + Duration::from_micros(n.into()), |_| false)
                {
                    blocked = limiter.blocked().collect();
                }
            }
            blocked.sort();
            assert_eq!(blocked, (0..flooders).map(mac).collect::<Vec<_>>());
            let until = start + Duration::from_secs(1) + BLOCK_LIFETIME;
            assert_eq!(limiter.expire(until), flooders > 0);
            assert!(
                limiter.blocked().next().is_none()
                    && limiter.deadline().is_none()
                    && !limiter.expire(until)
            );
        }
    }

    #[test]
    fn a_single_flooder_is_blocked_although_frames_are_sampled() {
        // The flood has 200,000 frames/s, of which half a processor can read 5,000.
        for hosts in [1, 2, 4_096] {
            let (mut budget, mut limiter) =
                (CpuBudget::new(), SourceLimiter::new(REQUESTS_PER_SECOND_MAX));
            let (mut now, cost, mut read) =
                (Instant::from_millis(1_000), Duration::from_micros(100), 0_u32);
            let end = now + Duration::from_secs(4);
            while now < end && limiter.blocked().next().is_none() {
                let gap = Duration::from_micros(5) * (1 << limiter.sampling_shift());
                if budget.is_open(now) {
                    read += 1;
                    limiter.count(mac(read % hosts));
                    let start = now;
                    now = now + cost.max(gap);
                    if budget.charge(start, start + cost) {
                        limiter.raise_level(now);
                    }
                    limiter.block(now, |_| false);
                    limiter.expire(now);
                } else {
                    now = budget.deadline().unwrap();
                }
            }
            assert_eq!(
                limiter.blocked().next().is_some(),
                hosts < 3,
                "the flood has {hosts} sources"
            );
        }
    }

    #[test]
    fn a_source_is_blocked_at_its_limit_and_not_below() {
        let mut limiter = SourceLimiter::new(REQUESTS_PER_SECOND_MAX);
        let mut now = Instant::from_millis(1_000);
        for _ in 0..3 {
            limiter.block(now, |_| false);
            (1..REQUESTS_PER_SECOND_MAX).for_each(|_| limiter.count(mac(1)));
            now = now + Duration::from_secs(1);
            assert!(!limiter.block(now, |_| false));
        }
        assert_eq!(limiter.deadline(), None);
        (0..REQUESTS_PER_SECOND_MAX).for_each(|_| limiter.count(mac(1)));
        assert!(
            !limiter.block(now, |source| source == mac(1)),
            "an exempt source is never blocked"
        );
        (0..REQUESTS_PER_SECOND_MAX).for_each(|_| limiter.count(mac(1)));
        assert!(limiter.block(now, |source| source == mac(2)) && !limiter.block(now, |_| false));
        assert_eq!(limiter.blocked().collect::<Vec<_>>(), [mac(1)]);
        assert_eq!(limiter.deadline(), Some(now + BLOCK_LIFETIME));
    }
}
