//! How much of a flood is read. Pure and without allocation; each link's thread owns one [`Quota`]
//! for questions and one for hellos, and a [`Guard`] each for ARP, Neighbor Discovery and hellos.
//!
//! A host that sends too much is not read at all for a while: the kernel drops its frames before they cost a wake-up, and an honest client
//! is answered as if it were not there. Of what comes from many hosts, each with little, as much is read as half of a processor can: first less often and
//! more at once, and where that is too much, too, a part, and which is chance.

use std::time::Duration;

use ferrolb_proto::Instant;
use ferrolb_proto::wire::Mac;

/// Of each span of time, this part may go into reading.
const SHARE_DIVISOR: u32 = 2;
/// What may go into it beyond that, in one breath.
const CREDIT: Duration = Duration::from_millis(50);
/// What is added for each burst, as nearly each begins with being woken, beside what it is seen to take: 4 us where it was measured, more where the
/// processor goes to sleep, too.
const WAKE: Duration = Duration::from_micros(10);
/// For how long nothing is read after all was, in a flood: being woken for each frame takes more than reading it. The kernel keeps 90 frames and more,
/// by its own bound for a socket and what drivers book for each; of 300,000 in a second none is lost for a rest.
const REST: Duration = Duration::from_micros(250);
/// The last level: of what comes in one frame of two to the power of one less is read.
const LEVEL_MAX: u8 = 7;
/// For so long it was not too much, and the level is one less.
const EASE_AFTER: Duration = Duration::from_secs(1);
/// How much time has to come in before reading goes on.
const PAUSE: Duration = Duration::from_millis(5);
/// What one burst of frames can have cost. Where it took longer, the processor was with somebody else.
const COST_MAX: Duration = Duration::from_millis(2);
/// How many sources are counted at a time, and how many are blocked at most.
pub(super) const SOURCES: usize = 8;
/// ARP and ND frames per second that one host may send. A router that resolves 10,000 addresses
/// twice stays below.
pub(super) const QUESTIONS_PER_SECOND_MAX: u32 = 20_000;
/// Hellos per second that one host may send: 100 times the default rate of a speaker. The limit is
/// lower than for ARP, because each hello costs a signature check.
pub(super) const HELLOS_PER_SECOND_MAX: u32 = 2_000;
/// For how long a host that sends more is not heard.
pub(super) const BLOCK_LIFETIME: Duration = Duration::from_secs(5);

/// How much of the time goes into reading.
#[derive(Debug)]
pub(super) struct Quota {
    /// What reading took, being woken for it included, less what it may take, at that time.
    debt: Duration,
    at: Instant,
    open: bool,
    rests_until: Instant,
}

impl Quota {
    pub(super) const fn new() -> Self {
        Self { debt: Duration::ZERO, at: Instant::ZERO, open: true, rests_until: Instant::ZERO }
    }

    /// Whether frames may be read at `now`.
    pub(super) fn is_open(&mut self, now: Instant) -> bool {
        self.pay(now);
        self.open |= self.debt + PAUSE <= CREDIT;
        self.open && self.rests_until <= now
    }

    /// Reading a burst took from `start` to `now`. Says whether that was too much.
    pub(super) fn spend(&mut self, start: Instant, now: Instant) -> bool {
        self.pay(now);
        self.debt += now.since(start).min(COST_MAX) + WAKE;
        let too_much = self.open && self.debt > CREDIT;
        self.open &= !too_much;
        too_much
    }

    /// All was read at `now`, in a flood: nothing is for a moment, so that there is more at once.
    pub(super) fn rest(&mut self, now: Instant) {
        self.pay(now);
        self.rests_until = now + REST;
    }

    /// When [`Quota::is_open`] has to be asked again; none while it is open.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let paid = (!self.open).then(|| self.at + (self.debt + PAUSE).saturating_sub(CREDIT) * SHARE_DIVISOR);
        let rested = (self.rests_until > self.at).then_some(self.rests_until);
        paid.max(rested)
    }

    fn pay(&mut self, now: Instant) {
        self.debt = self.debt.saturating_sub(now.since(self.at) / SHARE_DIVISOR);
        self.at = now;
    }
}

/// Who sends too much, and how much of what comes from the others is left out.
#[derive(Debug)]
pub(super) struct Guard {
    /// Frames per second that one host may send.
    most: u32,
    /// 0: all is read at once. 1: there are rests. From 2 on a part is left out, too.
    level: u8,
    /// When the level is one less.
    ease_at: Instant,
    /// When the sources are counted anew.
    count_until: Instant,
    /// The most frequent sources since the last time, each with a count that is too low by a ninth of all frames at most (Misra and Gries
    /// 1982).
    sources: [(Mac, u32); SOURCES],
    /// Who is blocked, and until when.
    blocked: [Option<(Mac, Instant)>; SOURCES],
}

impl Guard {
    /// Blocks each source that sends more than `most` frames per second.
    pub(super) const fn new(most: u32) -> Self {
        let (ease_at, count_until) = (Instant::ZERO, Instant::ZERO);
        Self { most, level: 0, ease_at, count_until, sources: [(Mac::ZERO, 0); SOURCES], blocked: [None; SOURCES] }
    }

    /// Counts a received frame. While the kernel's filter passes one frame in 2^n, the frame counts
    /// as 2^n.
    pub(super) fn note(&mut self, source: Mac) {
        let mut weight = 1 << self.thin();
        let known = self.sources.iter().position(|(mac, count)| *mac == source && *count > 0);
        if known.is_none() {
            let least = self.sources.iter().map(|(_, count)| *count).min().unwrap_or_default().min(weight);
            self.sources.iter_mut().for_each(|(_, count)| *count -= least);
            weight -= least;
        }
        if let Some(place) = known.or_else(|| self.sources.iter().position(|(_, count)| *count == 0)) {
            self.sources[place] = (source, self.sources[place].1 + weight);
        }
    }

    /// Blocks the sources that sent too much, unless they are `spared`; says whether there is a new
    /// one.
    pub(super) fn block(&mut self, now: Instant, spared: impl Fn(Mac) -> bool) -> bool {
        let mut changed = false;
        for (mac, count) in self.sources {
            if count >= self.most
                && self.blocked().all(|other| other != mac)
                && !spared(mac)
                && let Some(place) = self.blocked.iter_mut().find(|place| place.is_none())
            {
                *place = Some((mac, now + BLOCK_LIFETIME));
                // It is likely to have been this one.
                self.level = 0;
                changed = true;
            }
        }
        if self.count_until <= now {
            (self.count_until, self.sources) = (now + Duration::from_secs(1), [(Mac::ZERO, 0); SOURCES]);
        }
        changed
    }

    /// What was read was too much: it is read less often, and where it is already, half of it is left out.
    pub(super) fn tighten(&mut self, now: Instant) {
        self.level = (self.level + 1).min(LEVEL_MAX);
        self.ease_at = now + EASE_AFTER;
    }

    /// Whether reading is to [`Quota::rest`].
    pub(super) const fn rests(&self) -> bool {
        self.level > 0
    }

    /// One frame of two to this power is to come in, by chance. Were none left out, those that come while the queue is full would be, and
    /// who asks when nobody reads would never be heard.
    pub(super) const fn thin(&self) -> u8 {
        self.level.saturating_sub(1)
    }

    /// Lets go of those who were blocked for long enough, and reads more where it has not been too much for a while; says whether anything
    /// changed.
    pub(super) fn release(&mut self, now: Instant) -> bool {
        let ease = self.level > 0 && self.ease_at <= now;
        if ease {
            self.level -= 1;
            self.ease_at = now + EASE_AFTER;
        }
        let over = |place: &Option<(Mac, Instant)>| place.is_some_and(|(_, until)| until <= now);
        let any = self.blocked.iter().any(over);
        self.blocked.iter_mut().filter(|place| over(place)).for_each(|place| *place = None);
        any || ease
    }

    /// Frames per second that one host may send.
    pub(super) const fn most(&self) -> u32 {
        self.most
    }

    /// Who is blocked.
    pub(super) fn blocked(&self) -> impl Iterator<Item = Mac> + '_ {
        self.blocked.iter().flatten().map(|(mac, _)| *mac)
    }

    /// When [`Guard::release`] has to be asked again, if ever.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let ease_at = (self.level > 0).then_some(self.ease_at);
        self.blocked.iter().flatten().map(|(_, until)| *until).chain(ease_at).min()
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
        let mut quota = Quota::new();
        let (mut now, mut spent, mut breath) = (Instant::from_millis(1_000), Duration::ZERO, None);
        let end = now + Duration::from_secs(10);
        while now < end {
            if quota.is_open(now) {
                now = now + BURST;
                quota.spend(earlier(now), now);
                spent += BURST;
            } else {
                breath = breath.or(Some(spent));
                now = quota.deadline().unwrap();
            }
        }
        assert!((Duration::from_millis(4_900)..Duration::from_millis(5_000)).contains(&spent), "{spent:?}");
        assert!(breath.is_some_and(|breath| breath >= CREDIT), "what comes in one breath is read in one: {breath:?}");
        let rested = now + Duration::from_secs(1);
        assert!(quota.is_open(rested) && quota.deadline().is_none());
    }

    fn earlier(now: Instant) -> Instant {
        Instant::from_nanos(now.as_nanos() - u64::try_from(BURST.as_nanos()).unwrap())
    }

    #[test]
    fn of_what_is_too_much_so_much_is_left_out_that_the_rest_is_not() {
        // 300,000 frames in a second of 10 us each: three processors' time.
        let (mut quota, mut guard) = (Quota::new(), Guard::new(QUESTIONS_PER_SECOND_MAX));
        let (mut now, mut spent, mut closed) = (Instant::from_millis(1_000), Duration::ZERO, Duration::ZERO);
        let step = Duration::from_millis(1);
        for _ in 0..20_000 {
            now = now + step;
            if quota.is_open(now) {
                let cost = (step * 3 / (1 << guard.thin())).min(step);
                if quota.spend(now, now + cost) {
                    guard.tighten(now);
                }
                spent += cost;
            } else {
                closed += step;
            }
            guard.release(now);
        }
        assert!(spent < Duration::from_millis(10_200), "half of 20 s, and a breath: {spent:?}");
        assert!(closed < Duration::from_secs(4), "it is read almost all the time: {closed:?}");
        (0..100).for_each(|_| guard.tighten(now));
        assert_eq!((guard.thin(), guard.rests()), (LEVEL_MAX - 1, true));
        let mut steps = 0;
        while let Some(deadline) = guard.deadline() {
            assert!(guard.release(deadline));
            steps += 1;
        }
        assert_eq!((steps, guard.thin(), guard.rests()), (LEVEL_MAX, 0, false), "all is read again");
    }

    #[test]
    fn being_woken_counts() {
        // Each for one frame, which takes no more than a third of the time.
        let (mut quota, gap, frame) = (Quota::new(), Duration::from_micros(33), Duration::from_micros(10));
        let mut now = Instant::from_millis(1_000);
        let too_much = (0..30_000).any(|_| {
            now = now + gap;
            quota.spend(now, now + frame)
        });
        assert!(too_much && !quota.is_open(now));
    }

    #[test]
    fn after_a_rest_it_is_read_again() {
        let (mut quota, now) = (Quota::new(), Instant::from_millis(1_000));
        quota.rest(now);
        let rested = quota.deadline().expect("a rest ends");
        assert_eq!(rested, now + REST);
        assert!(!quota.is_open(now) && quota.is_open(rested));
        assert_eq!(quota.deadline(), None);
        (0..100).for_each(|_| _ = quota.spend(rested, rested + COST_MAX));
        let spent = rested + COST_MAX;
        quota.rest(spent);
        let paid = quota.deadline().expect("a debt is paid");
        assert!(paid > spent + REST, "which takes longer");
        quota.rest(paid);
        assert_eq!(quota.deadline(), Some(paid + REST), "and a rest goes on where it is paid for");
    }

    #[test]
    fn a_thread_without_a_processor_has_not_read() {
        let mut quota = Quota::new();
        for second in 1..=100 {
            let now = Instant::from_millis(second * 1_000);
            assert!(quota.is_open(now));
            quota.spend(now, now + Duration::from_millis(500));
        }
        assert_eq!(quota.deadline(), None);
    }

    #[test]
    fn who_sends_too_much_is_blocked_for_a_while_and_nobody_else_is() {
        for loud in [0, 1, 2] {
            let mut guard = Guard::new(QUESTIONS_PER_SECOND_MAX);
            let start = Instant::from_millis(1_000);
            let mut blocked = Vec::new();
            for n in 0..100_000 {
                // Every tenth frame is of somebody else, always another; without anybody loud all are.
                let other = loud == 0 || n % 10 == 0;
                guard.note(if other { mac(n + 1000) } else { mac(n % loud) });
                if n % 50 == 0 && guard.block(start + Duration::from_micros(n.into()), |_| false) {
                    blocked = guard.blocked().collect();
                }
            }
            blocked.sort();
            assert_eq!(blocked, (0..loud).map(mac).collect::<Vec<_>>());
            let until = start + Duration::from_secs(1) + BLOCK_LIFETIME;
            assert_eq!(guard.release(until), loud > 0);
            assert!(guard.blocked().next().is_none() && guard.deadline().is_none() && !guard.release(until));
        }
    }

    #[test]
    fn a_host_that_sends_more_than_can_be_read_is_blocked_and_one_of_many_is_not() {
        // 200,000 frames in a second, of which half a processor reads 5,000.
        for hosts in [1, 2, 4_096] {
            let (mut quota, mut guard) = (Quota::new(), Guard::new(QUESTIONS_PER_SECOND_MAX));
            let (mut now, cost, mut read) = (Instant::from_millis(1_000), Duration::from_micros(100), 0_u32);
            let end = now + Duration::from_secs(4);
            while now < end && guard.blocked().next().is_none() {
                let gap = Duration::from_micros(5) * (1 << guard.thin());
                if quota.is_open(now) {
                    read += 1;
                    guard.note(mac(read % hosts));
                    let start = now;
                    now = now + cost.max(gap);
                    if quota.spend(start, start + cost) {
                        guard.tighten(now);
                    }
                    guard.block(now, |_| false);
                    guard.release(now);
                } else {
                    now = quota.deadline().unwrap();
                }
            }
            assert_eq!(guard.blocked().next().is_some(), hosts < 3, "of {hosts} hosts");
        }
    }

    #[test]
    fn twenty_thousand_questions_in_a_second_are_a_flood_and_one_less_is_none() {
        let mut guard = Guard::new(QUESTIONS_PER_SECOND_MAX);
        let mut now = Instant::from_millis(1_000);
        for _ in 0..3 {
            guard.block(now, |_| false);
            (1..QUESTIONS_PER_SECOND_MAX).for_each(|_| guard.note(mac(1)));
            now = now + Duration::from_secs(1);
            assert!(!guard.block(now, |_| false));
        }
        assert_eq!(guard.deadline(), None);
        (0..QUESTIONS_PER_SECOND_MAX).for_each(|_| guard.note(mac(1)));
        assert!(!guard.block(now, |source| source == mac(1)), "a source that is spared is never blocked");
        (0..QUESTIONS_PER_SECOND_MAX).for_each(|_| guard.note(mac(1)));
        assert!(guard.block(now, |source| source == mac(2)) && !guard.block(now, |_| false));
        assert_eq!(guard.blocked().collect::<Vec<_>>(), [mac(1)]);
        assert_eq!(guard.deadline(), Some(now + BLOCK_LIFETIME));
    }
}
