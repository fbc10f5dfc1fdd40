//! When all hosts are told where an address is (gratuitous ARP, RFC 5227 section 2.3; unsolicited neighbour advertisements, RFC 4861
//! section 7.2.6). Pure; each link's thread owns one [`Announcer`] and sends what it says.
//!
//! Caches of clients and switches turn to the new owner by these frames alone, and one may be lost: each address is announced
//! several times. The first announcements of all addresses go before any repeat, because a node that takes over a thousand
//! addresses must first of all have named each of them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use ferrolb_proto::Instant;

/// How long after the announcement before it each announcement of one address follows: 0, 30, 100, 300 ms, 1, 2 and 5 s
/// after the first.
const GAPS: [Duration; 7] = [
    Duration::ZERO,
    Duration::from_millis(30),
    Duration::from_millis(70),
    Duration::from_millis(200),
    Duration::from_millis(700),
    Duration::from_millis(1_000),
    Duration::from_millis(3_000),
];
/// The round of what is announced now and then, when those are over.
const AGAIN: usize = GAPS.len();
/// Frames that one announcement takes at most: the request form and the reply form of ARP; of IPv6 it is one.
pub(super) const FRAMES_PER_ANNOUNCEMENT: u32 = 2;
/// Gratuitous frames that one link sends in a second; storm control of switches begins at a few thousand broadcasts.
pub const GRATUITOUS_PER_SECOND_MAX: u32 = 5_000;
/// The pause between two announcements that keeps to that.
const PACE: Duration =
    Duration::from_nanos(1_000_000_000 * FRAMES_PER_ANNOUNCEMENT as u64 / GRATUITOUS_PER_SECOND_MAX as u64);
/// A thread that was late may make up for so many announcements at once.
const BURST_MAX: u32 = 8;

/// A place in the queue: first announcements before repeats, then by time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Due {
    repeat: bool,
    at: Instant,
    address: IpAddr,
    round: usize,
}

/// The announcements that are still to be made.
#[derive(Debug)]
pub(super) struct Announcer {
    /// How long after the last of an address it is announced again; none: not before it is taken anew.
    period: Option<Duration>,
    queue: BTreeSet<Due>,
    by_address: BTreeMap<IpAddr, Due>,
    /// Addresses that are announced once more: another host announced one, or is about to take it.
    wanted: BTreeSet<IpAddr>,
    /// The last announcement was of one of those.
    was_wanted: bool,
    /// The pace allows the next one from here on.
    open_at: Instant,
}

impl Announcer {
    pub(super) const fn new(period: Option<Duration>) -> Self {
        Self {
            period,
            queue: BTreeSet::new(),
            by_address: BTreeMap::new(),
            wanted: BTreeSet::new(),
            was_wanted: false,
            open_at: Instant::ZERO,
        }
    }

    /// Announces `address` from `now` on, from the first round if it was under way already.
    pub(super) fn start(&mut self, address: IpAddr, now: Instant) {
        self.unschedule(address);
        self.enqueue(Due { repeat: false, at: now, address, round: 0 });
    }

    /// Announces `address` once more as soon as the pace allows. Another host has announced it, or
    /// is about to take it and waits for a second (RFC 4862 section 5.4). Returns whether that is
    /// news: one announcement answers all.
    pub(super) fn once(&mut self, address: IpAddr) -> bool {
        self.wanted.insert(address)
    }

    /// Announces `address` no longer.
    pub(super) fn stop(&mut self, address: IpAddr) {
        self.wanted.remove(&address);
        self.unschedule(address);
    }

    /// The address to announce at `now`, if one is due, the pace allows it and the `gate` is not
    /// shut by then; to be asked until it says none.
    pub(super) fn next(&mut self, now: Instant, gate: Instant) -> Option<IpAddr> {
        if now < self.open_at || now >= gate {
            return None;
        }
        let due = self.queue.first().copied().filter(|due| due.at <= now);
        // Whoever wants addresses without end has half of the pace.
        self.was_wanted = !self.wanted.is_empty() && (due.is_none() || !self.was_wanted);
        let address = if self.was_wanted { self.wanted.pop_first()? } else { self.advance(due?, now) };
        // What was not used of the pace is kept for a burst only.
        let behind = now.since(self.open_at).min(PACE * BURST_MAX);
        self.open_at = earlier(now, behind) + PACE;
        Some(address)
    }

    /// When [`Announcer::next`] has to be asked again, if ever.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let due = if self.wanted.is_empty() { self.queue.first()?.at } else { Instant::ZERO };
        Some(due.max(self.open_at))
    }

    /// Takes what is due out of the queue, and puts in what comes after it.
    fn advance(&mut self, due: Due, now: Instant) -> IpAddr {
        self.unschedule(due.address);
        if let Some(gap) = GAPS.get(due.round + 1).copied().or(self.period) {
            let round = (due.round + 1).min(AGAIN);
            self.enqueue(Due { repeat: true, at: now + gap, address: due.address, round });
        }
        due.address
    }

    fn unschedule(&mut self, address: IpAddr) {
        if let Some(due) = self.by_address.remove(&address) {
            self.queue.remove(&due);
        }
    }

    fn enqueue(&mut self, due: Due) {
        self.queue.insert(due);
        self.by_address.insert(due.address, due);
    }
}

fn earlier(now: Instant, by: Duration) -> Instant {
    Instant::from_nanos(now.as_nanos().saturating_sub(u64::try_from(by.as_nanos()).unwrap_or(u64::MAX)))
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    const A: IpAddr = IpAddr::V4(Ipv4Addr::new(172, 30, 0, 200));
    const B: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd30, 0, 0, 0, 0, 0, 0, 0x201));

    /// A gate that never shuts.
    const OPEN: Instant = Instant::from_nanos(u64::MAX);

    /// Runs the announcer from `from` until it has nothing left; what it says, with the milliseconds.
    fn run(announcer: &mut Announcer, from: Instant) -> Vec<(u128, IpAddr)> {
        let mut said = Vec::new();
        let mut now = from;
        loop {
            while let Some(address) = announcer.next(now, OPEN) {
                said.push((now.since(Instant::ZERO).as_millis(), address));
            }
            let Some(deadline) = announcer.deadline() else { return said };
            assert!(deadline > now, "the deadline moves on");
            now = deadline;
        }
    }

    #[test]
    fn one_address_is_announced_seven_times_over_five_seconds() {
        let mut announcer = Announcer::new(None);
        announcer.start(A, Instant::from_millis(1_000));
        let at: Vec<_> = run(&mut announcer, Instant::from_millis(1_000)).into_iter().map(|(ms, _)| ms).collect();
        assert_eq!(at, [1_000, 1_030, 1_100, 1_300, 2_000, 3_000, 6_000]);
    }

    #[test]
    fn first_announcements_go_before_repeats_and_keep_the_pace() {
        let mut announcer = Announcer::new(None);
        let start = Instant::from_millis(10_000);
        let count = 1_000;
        for i in 0..count {
            announcer.start(Ipv4Addr::from_bits(0x0a00_0000 + i).into(), start);
        }
        let said = run(&mut announcer, start);
        let firsts: BTreeSet<_> = said[..count as usize].iter().map(|(_, address)| address).collect();
        assert_eq!(firsts.len(), count as usize, "every address once before any twice");
        assert_eq!(said.len(), GAPS.len() * count as usize);
        for (i, (ms, _)) in said.iter().enumerate() {
            let next_second = said[i..].partition_point(|(other, _)| *other < ms + 1_000);
            let frames = u32::try_from(next_second).unwrap() * FRAMES_PER_ANNOUNCEMENT;
            let most = GRATUITOUS_PER_SECOND_MAX + (BURST_MAX + 1) * FRAMES_PER_ANNOUNCEMENT;
            assert!(frames <= most, "{frames} in the second from {ms} ms");
        }
        let last_first = said[count as usize - 1].0 - 10_000;
        assert!((350..=400).contains(&last_first), "1,000 addresses named after {last_first} ms");
    }

    #[test]
    fn a_first_announcement_passes_repeats_that_are_late() {
        let mut announcer = Announcer::new(None);
        let count: u32 = 500;
        for i in 0..count {
            announcer.start(Ipv4Addr::from_bits(0x0a00_0000 + i).into(), Instant::ZERO);
        }
        // The pace takes 200 ms for these; by then the first repeats are due since 170 ms.
        let mut now = Instant::ZERO;
        for _ in 0..count {
            now = now.max(announcer.deadline().unwrap());
            assert!(announcer.next(now, OPEN).is_some());
        }
        announcer.start(A, now);
        assert_eq!(announcer.next(announcer.deadline().unwrap(), OPEN), Some(A));
    }

    #[test]
    fn a_defence_is_one_announcement_more() {
        let mut announcer = Announcer::new(None);
        announcer.once(A);
        assert_eq!(run(&mut announcer, Instant::from_millis(1_000)), [(1_000, A)]);
        announcer.start(B, Instant::from_millis(9_000));
        announcer.once(B);
        assert_eq!(run(&mut announcer, Instant::from_millis(9_000)).len(), GAPS.len() + 1);
    }

    #[test]
    fn an_address_is_announced_again_after_each_period_and_a_defence_does_not_wait_for_it() {
        let period = Duration::from_secs(60);
        let mut announcer = Announcer::new(Some(period));
        announcer.start(A, Instant::ZERO);
        let mut at = Vec::new();
        for _ in 0..GAPS.len() + 2 {
            let now = announcer.deadline().unwrap();
            assert_eq!(announcer.next(now, OPEN), Some(A));
            at.push(now);
        }
        let [.., last, first, second] = at[..] else { panic!("{at:?}") };
        assert_eq!((last, first, second), (Instant::from_millis(5_000), last + period, first + period));
        let soon = second + Duration::from_secs(1);
        announcer.once(A);
        assert_eq!((announcer.next(soon, OPEN), announcer.deadline()), (Some(A), Some(second + period)));
    }

    #[test]
    fn who_wants_an_address_is_told_at_once_and_has_half_of_the_pace() {
        let mut announcer = Announcer::new(None);
        let start = Instant::from_millis(1_000);
        (0..1_000).for_each(|n| announcer.start(Ipv4Addr::from_bits(n).into(), start));
        announcer.start(B, start);
        assert_ne!(announcer.next(start, OPEN), Some(B));
        let mut told = Vec::new();
        for _ in 0..10 {
            announcer.once(B);
            announcer.once(B);
            let now = announcer.deadline().unwrap().max(start);
            told.push(announcer.next(now, OPEN) == Some(B));
        }
        assert_eq!(told, [true, false].repeat(5));
        announcer.stop(B);
        assert!(run(&mut announcer, start).iter().all(|(_, address)| *address != B));
        announcer.once(A);
        let idle = Instant::from_millis(90_000);
        assert_eq!(run(&mut announcer, idle), [(90_000, A)]);
    }

    #[test]
    fn a_stop_ends_it_and_a_start_begins_anew() {
        let mut announcer = Announcer::new(None);
        announcer.start(A, Instant::ZERO);
        announcer.start(B, Instant::ZERO);
        let late = Instant::from_millis(50);
        assert_eq!([announcer.next(late, OPEN), announcer.next(late, OPEN)], [Some(A), Some(B)]);
        announcer.stop(A);
        announcer.start(B, late);
        let said = run(&mut announcer, late);
        assert!(said.iter().all(|(_, address)| *address == B));
        assert_eq!((said.len(), said[0].0), (GAPS.len(), 50));
    }

    #[test]
    fn a_shut_gate_holds_back_what_is_due_and_loses_none_of_it() {
        let (mut announcer, start) = (Announcer::new(None), Instant::from_millis(1_000));
        announcer.start(A, start);
        announcer.once(B);
        assert_eq!(announcer.next(start, start), None, "others may have both by now");
        assert_eq!([announcer.next(start, OPEN), announcer.next(start + PACE, OPEN)], [Some(B), Some(A)]);
    }
}
