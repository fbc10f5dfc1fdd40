//! Tests of the CPU budget and of the source limiter.

use super::*;

const BURST: Duration = Duration::from_micros(500);
/// No exempt sources.
const NONE: std::iter::Empty<Mac> = std::iter::empty();

fn mac(n: u32) -> Mac {
    let [a, b, c, d] = n.to_be_bytes();
    Mac([2, 0, a, b, c, d])
}

fn limiter() -> SourceLimiter {
    SourceLimiter::new(REQUESTS_PER_SECOND_MAX)
}

/// Returns the blocked sources.
fn blocked(limiter: &SourceLimiter) -> Vec<Mac> {
    limiter.blocked.iter().flatten().copied().collect()
}

#[test]
fn reading_takes_half_of_the_time_in_the_long_run() {
    let mut budget = CpuBudget::default();
    let (mut now, mut read_time, mut first_burst) =
        (Instant::from_millis(1_000), Duration::ZERO, None);
    let end = now + Duration::from_secs(10);
    while now < end {
        if let Some(deadline) = budget.deadline(now) {
            first_burst = first_burst.or(Some(read_time));
            now = deadline;
        } else {
            let start = now;
            now = now + BURST;
            budget.charge(start, now);
            read_time += BURST;
        }
    }
    assert!(
        (Duration::from_millis(4_900)..Duration::from_millis(5_050)).contains(&read_time),
        "{read_time:?}"
    );
    assert!(
        first_burst.is_some_and(|first_burst| first_burst >= BURST_CREDIT),
        "a burst within the credit is read without a pause: {first_burst:?}"
    );
    assert_eq!(budget.deadline(now + Duration::from_secs(1)), None);
}

#[test]
fn sampling_keeps_reading_within_the_cpu_budget() {
    // Reading 300,000 frames/s takes three processors if each frame takes 10 us.
    let (mut budget, mut limiter) = (CpuBudget::default(), limiter());
    let (mut now, mut read_time, mut paused) =
        (Instant::from_millis(1_000), Duration::ZERO, Duration::ZERO);
    let (step, mut level_max) = (Duration::from_millis(1), 0);
    for _ in 0..20_000 {
        now = now + step;
        if budget.deadline(now).is_some() {
            paused += step;
        } else {
            let cost = (step * 3 / (1 << limiter.sampling_shift())).min(step);
            limiter.end_burst(&mut budget, (now, now + cost), false, NONE);
            read_time += cost;
        }
        limiter.expire(now);
        level_max = level_max.max(limiter.level);
    }
    assert!(
        read_time < Duration::from_millis(10_200),
        "reading takes more than half of 20 s and the burst credit: {read_time:?}"
    );
    assert!(paused < Duration::from_secs(4), "reading pauses for {paused:?} of 20 s");
    assert_eq!(level_max, 4, "an eighth of three processors is less than a half");
    (0..100).for_each(|_| _ = limiter.update(now, true, NONE));
    assert_eq!((limiter.level, limiter.sampling_shift()), (LEVEL_MAX, LEVEL_MAX - 1));
    assert!(!limiter.expire(now));
    let mut steps = 0;
    while let Some(deadline) = limiter.limited_until {
        assert!(limiter.expire(deadline));
        steps += 1;
    }
    assert_eq!((steps, limiter.level), (LEVEL_MAX, 0), "the level falls to 0, one by one");
}

#[test]
fn wake_ups_are_charged_to_the_cpu_budget() {
    // Each wake-up reads one frame, which takes no more than a third of the time.
    let (mut budget, gap, frame) =
        (CpuBudget::default(), Duration::from_micros(33), Duration::from_micros(10));
    let mut now = Instant::from_millis(1_000);
    let exhausted = (0..30_000).any(|_| {
        now = now + gap;
        budget.charge(now, now + frame)
    });
    assert!(exhausted && budget.deadline(now + frame).is_some());
}

#[test]
fn reading_continues_after_a_pause() {
    let (mut budget, now) = (CpuBudget::default(), Instant::from_millis(1_000));
    budget.pause(now);
    let pause_end = now + FLOOD_PAUSE;
    assert_eq!((budget.deadline(now), budget.deadline(pause_end)), (Some(pause_end), None));
    let exhausted_at = pause_end + BURST_COST_MAX;
    let exhausted = (0..100).filter(|_| budget.charge(pause_end, exhausted_at)).count();
    assert_eq!(exhausted, 1, "the budget is exhausted once, until the pause ends");
    budget.pause(exhausted_at);
    assert_eq!(
        budget.deadline(exhausted_at),
        Some(exhausted_at + EXHAUSTED_PAUSE),
        "the longer pause remains"
    );
}

#[test]
fn reading_pauses_during_a_flood_after_all_frames_have_been_read() {
    let start = Instant::from_millis(1_000);
    let end = start + Duration::from_micros(1);
    for (level, all_read, expect) in
        [(0, true, None), (1, false, None), (1, true, Some(end + FLOOD_PAUSE))]
    {
        let (mut limiter, mut budget) = (limiter(), CpuBudget::default());
        (0..level).for_each(|_| _ = limiter.update(start, true, NONE));
        assert!(!limiter.end_burst(&mut budget, (start, end), all_read, NONE));
        assert_eq!(budget.deadline(end), expect, "level {level}, all frames read: {all_read}");
    }
}

#[test]
fn time_without_a_processor_is_not_charged() {
    let mut budget = CpuBudget::default();
    for second in 1..=100 {
        let now = Instant::from_millis(second * 1_000);
        assert!(!budget.charge(now, now + Duration::from_millis(500)));
    }
}

#[test]
fn only_sources_above_the_limit_are_blocked_for_a_while() {
    for flooders in [0, 1, 2] {
        let mut limiter = limiter();
        let start = Instant::from_millis(1_000);
        for n in 0..100_000 {
            // Every tenth frame has a new source; if `flooders` is 0, every frame has.
            let other = flooders == 0 || n % 10 == 0;
            limiter.count(if other { mac(n + 1000) } else { mac(n % flooders) });
            if n % 50 == 0 {
                limiter.update(start + Duration::from_micros(n.into()), false, NONE);
            }
        }
        let mut blocked_sources = blocked(&limiter);
        blocked_sources.sort();
        assert_eq!(blocked_sources, (0..flooders).map(mac).collect::<Vec<_>>());
        let until = start + Duration::from_secs(1) + BLOCK_LIFETIME;
        assert_eq!(limiter.expire(until), flooders > 0);
        assert!(blocked(&limiter).is_empty() && limiter.limited_until.is_none());
        assert!(!limiter.expire(until));
    }
}

#[test]
fn a_single_flooder_is_blocked_although_frames_are_sampled() {
    // The flood has 200,000 frames/s, of which half a processor can read 5,000.
    for hosts in [1, 2, 4_096] {
        let (mut budget, mut limiter) = (CpuBudget::default(), limiter());
        let (mut now, cost, mut read) =
            (Instant::from_millis(1_000), Duration::from_micros(100), 0_u32);
        let end = now + Duration::from_secs(4);
        while now < end && blocked(&limiter).is_empty() {
            let gap = Duration::from_micros(5) * (1 << limiter.sampling_shift());
            if let Some(deadline) = budget.deadline(now) {
                now = deadline;
            } else {
                read += 1;
                limiter.count(mac(read % hosts));
                let start = now;
                now = now + cost.max(gap);
                let exhausted = budget.charge(start, start + cost);
                limiter.update(now, exhausted, NONE);
                limiter.expire(now);
            }
        }
        assert_eq!(!blocked(&limiter).is_empty(), hosts < 3, "the flood has {hosts} sources");
    }
}

#[test]
fn a_source_is_blocked_at_its_limit_and_not_below() {
    let mut limiter = limiter();
    let mut now = Instant::from_millis(1_000);
    for _ in 0..3 {
        limiter.update(now, false, NONE);
        (1..REQUESTS_PER_SECOND_MAX).for_each(|_| limiter.count(mac(1)));
        now = now + Duration::from_secs(1);
        assert!(!limiter.update(now, false, NONE));
    }
    assert_eq!(limiter.limited_until, None);
    (0..REQUESTS_PER_SECOND_MAX).for_each(|_| limiter.count(mac(1)));
    assert!(!limiter.update(now, false, [mac(1)].into_iter()), "an exempt source is never blocked");
    assert!(limiter.update(now, false, [mac(2)].into_iter()) && !limiter.update(now, false, NONE));
    assert_eq!(blocked(&limiter), [mac(1)]);
    assert_eq!(limiter.limited_until, Some(now + BLOCK_LIFETIME));
}

#[test]
fn a_blocked_source_ends_the_limits_on_the_others() {
    let (mut limiter, now) = (limiter(), Instant::from_millis(1_000));
    (0..3).for_each(|_| assert!(limiter.update(now, true, NONE)));
    assert_eq!((limiter.level, limiter.sampling_shift()), (3, 2));
    // At level 3, a quarter of the frames are read, so a quarter of the maximum is enough.
    (0..REQUESTS_PER_SECOND_MAX / 4).for_each(|_| limiter.count(mac(1)));
    assert!(limiter.update(now, false, NONE));
    assert_eq!((limiter.level, blocked(&limiter)), (0, vec![mac(1)]));
    // A block does not end earlier because the level rises again.
    let later = now + Duration::from_millis(1);
    assert!(limiter.update(later, true, NONE));
    assert_eq!((limiter.level, limiter.limited_until), (1, Some(now + BLOCK_LIFETIME)));
}
