//! Limits on reading frames during a flood. Pure and without allocation. Each interface's thread
//! owns two [`CpuBudget`]s, for requests and for hellos, and three [`SourceLimiter`]s, for ARP,
//! Neighbor Discovery and hellos.
//!
//! A host that sends too many frames is blocked for a while. The kernel drops its frames before
//! they wake the thread, so that other hosts are not affected.
//!
//! If many hosts together cause a flood, reading takes at most half of one processor. The thread
//! first reads less often, and more frames at once. If that is not enough, the thread reads only a
//! random sample of the frames. This sample becomes larger step by step, and then all limits end.

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
/// Maximum measured time that is charged for one burst. If a burst took longer, the processor has
/// run something else meanwhile.
const BURST_COST_MAX: Duration = Duration::from_millis(2);
/// Pause after the budget is exhausted. The budget regains half of this time.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(10);
/// Pause during a flood after all frames have been read, because waking for each frame costs more
/// than reading the frame. During the pause, the kernel can queue at least 90 frames, by its limit
/// for a socket and the memory that drivers account per frame. At 300,000 frames/s, no frame is
/// lost.
const FLOOD_PAUSE: Duration = Duration::from_micros(250);
/// Highest value of [`SourceLimiter::level`]. At level n, n > 0, the thread reads one frame in
/// 2^(n-1).
const LEVEL_MAX: u8 = 7;
/// Number of sources whose frames are counted at a time, and maximum number of sources that are
/// blocked at a time.
const SOURCES_MAX: usize = 8;
/// Maximum number of ARP frames, and of Neighbor Discovery frames, that one host may send per
/// second. A router that requests 10,000 addresses within a second needs half of that.
pub(super) const REQUESTS_PER_SECOND_MAX: u32 = 20_000;
/// Maximum number of hellos that one host may send per second: 100 times the default rate of a
/// speaker. This limit is lower than the one for ARP, because each hello costs a signature check.
pub(super) const HELLOS_PER_SECOND_MAX: u32 = 2_000;
/// Time for which a host that exceeds its limit is blocked.
pub(super) const BLOCK_LIFETIME: Duration = Duration::from_secs(5);
/// Time after which [`SourceLimiter::level`] falls by one, if reading has not exhausted its budget
/// meanwhile.
const LEVEL_LIFETIME: Duration = Duration::from_secs(1);

/// CPU budget for reading frames.
#[derive(Debug, Default)]
pub(super) struct CpuBudget {
    /// Time used for reading, wake-ups included, minus the time allowed, as of `at`.
    used: Duration,
    at: Instant,
    paused_until: Instant,
}

impl CpuBudget {
    /// Charges the budget for a burst that was read from `start` to `now`. Returns whether the
    /// burst has exhausted the budget. Reading then pauses.
    pub(super) fn charge(&mut self, start: Instant, now: Instant) -> bool {
        self.used = self.used.saturating_sub(now.since(self.at) / SHARE_DIVISOR);
        self.used += now.since(start).min(BURST_COST_MAX) + WAKE_UP_COST;
        self.at = now;
        let exhausted = self.paused_until <= now && self.used > BURST_CREDIT;
        if exhausted {
            self.paused_until = now + EXHAUSTED_PAUSE;
        }
        exhausted
    }

    /// Pauses reading after all frames were read at `now` during a flood, so that the next burst
    /// reads more frames.
    fn pause(&mut self, now: Instant) {
        self.paused_until = self.paused_until.max(now + FLOOD_PAUSE);
    }

    /// Returns the time at which reading may continue. None: frames may be read at `now`.
    pub(super) fn deadline(&self, now: Instant) -> Option<Instant> {
        (self.paused_until > now).then_some(self.paused_until)
    }
}

/// Source limiter: blocks the sources that send too many frames, and sets the level of the limits
/// on the others.
#[derive(Debug, Default)]
pub(super) struct SourceLimiter {
    /// Maximum number of frames that one host may send per second.
    pub(super) frames_per_second_max: u32,
    /// Level of the limits on all sources together. 0: no limits. 1: reading pauses whenever all
    /// frames have been read. 2 and above: in addition, only a sample of the frames is read.
    pub(super) level: u8,
    /// Time at which the counts in `sources` start again from zero.
    window_end: Instant,
    /// The sources of most frames that were read in the current second, with their frame counts.
    /// Each count is too low by at most a ninth of all frames (Misra and Gries 1982).
    sources: [(Mac, u32); SOURCES_MAX],
    /// Blocked sources.
    pub(super) blocked: [Option<Mac>; SOURCES_MAX],
    /// Time at which [`SourceLimiter::expire`] must be called. None: there are no limits.
    pub(super) limited_until: Option<Instant>,
}

impl SourceLimiter {
    /// Returns a limiter that blocks each source that sends `frames_per_second_max` or more frames
    /// within a second.
    pub(super) fn new(frames_per_second_max: u32) -> Self {
        Self { frames_per_second_max, ..Self::default() }
    }

    /// Adds a frame that was read to the count of its source.
    pub(super) fn count(&mut self, source: Mac) {
        let counts = &mut self.sources;
        let known = counts.iter().position(|(mac, count)| *mac == source && *count > 0);
        match known.or_else(|| counts.iter().position(|(_, count)| *count == 0)) {
            Some(index) => counts[index] = (source, counts[index].1 + 1),
            None => counts.iter_mut().for_each(|(_, count)| *count -= 1),
        }
    }

    /// Ends a burst that was read from `start` to `now`: charges the budget, updates the limits as
    /// [`Self::update`] does, and pauses reading if there is a flood and all frames were read.
    pub(super) fn end_burst(
        &mut self,
        budget: &mut CpuBudget,
        (start, now): (Instant, Instant),
        all_read: bool,
        exempt: impl Iterator<Item = Mac> + Clone,
    ) -> bool {
        let exhausted = budget.charge(start, now);
        let changed = self.update(now, exhausted, exempt);
        if self.level > 0 && all_read {
            budget.pause(now);
        }
        changed
    }

    /// Updates the limits after a burst. Blocks the sources that have exceeded their maximum,
    /// except the sources `exempt`. If there is none and the CPU budget is exhausted, raises the
    /// level: level 1 adds pauses, and each further level halves the sample of frames. Returns
    /// whether the limits have changed, so that the kernel's filter must be replaced.
    fn update(
        &mut self,
        now: Instant,
        exhausted: bool,
        exempt: impl Iterator<Item = Mac> + Clone,
    ) -> bool {
        let (max, before) = (self.frames_per_second_max >> self.sampling_shift(), self.blocked);
        for (mac, _) in self.sources.iter().filter(|(_, count)| *count >= max) {
            if !self.blocked.contains(&Some(*mac))
                && exempt.clone().all(|other| other != *mac)
                && let Some(slot) = self.blocked.iter_mut().find(|slot| slot.is_none())
            {
                *slot = Some(*mac);
            }
        }
        let has_blocked = self.blocked != before;
        if has_blocked {
            // These sources probably caused the overload, so the others need no limits.
            self.level = 0;
        } else if exhausted {
            self.level = (self.level + 1).min(LEVEL_MAX);
        }
        let changed = has_blocked || exhausted;
        if changed {
            let lifetime = if has_blocked { BLOCK_LIFETIME } else { LEVEL_LIFETIME };
            self.limited_until = self.limited_until.max(Some(now + lifetime));
        }
        if changed || self.window_end <= now {
            self.window_end = now + Duration::from_secs(1);
            self.sources = Default::default();
        }
        changed
    }

    /// Returns n, where the kernel's filter must pass one frame in 2^n, at random. If the kernel
    /// dropped frames only at a full queue, clients whose requests always arrive at such a time
    /// would get no reply.
    pub(super) const fn sampling_shift(&self) -> u8 {
        self.level.saturating_sub(1)
    }

    /// Lowers the level if it is time, or ends all limits if the level is 1 or 0. Returns whether
    /// the limits have changed, so that the kernel's filter must be replaced.
    pub(super) fn expire(&mut self, now: Instant) -> bool {
        let expired = self.limited_until.is_some_and(|until| until <= now);
        if expired && self.level > 1 {
            (self.level, self.limited_until) = (self.level - 1, Some(now + LEVEL_LIFETIME));
        } else if expired {
            *self = Self::new(self.frames_per_second_max);
        }
        expired
    }
}

#[cfg(test)]
mod tests;
