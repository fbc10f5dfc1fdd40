//! Schedule of announcements: gratuitous ARP (RFC 5227 section 2.3) and unsolicited neighbor
//! advertisements (RFC 4861 section 7.2.6). Pure. Each interface's thread owns one [`Announcer`]
//! and sends the frames that are due.
//!
//! Only these frames update the caches of clients and switches when an address gets a new owner,
//! and a frame can be lost. Each address is therefore announced several times. The first
//! announcements of all addresses precede any repeat: a node that takes over a thousand addresses
//! must announce each of them once as soon as possible.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use ferrolb_proto::Instant;

/// Time between each announcement of a series and the previous one. The seven announcements of an
/// address thus take place 0, 30, 100 and 300 ms, and 1, 2 and 5 s after the first one.
const SERIES_INTERVALS: [Duration; 7] = [
    Duration::ZERO,
    Duration::from_millis(30),
    Duration::from_millis(70),
    Duration::from_millis(200),
    Duration::from_millis(700),
    Duration::from_millis(1_000),
    Duration::from_millis(3_000),
];
/// Value of `QueueEntry::round` for every periodic announcement. Lower values are indexes of
/// [`SERIES_INTERVALS`].
const PERIODIC_ROUND: usize = SERIES_INTERVALS.len();
/// Maximum number of frames of one announcement: an ARP request and an ARP reply for IPv4, one
/// neighbor advertisement for IPv6.
pub(super) const FRAMES_PER_ANNOUNCEMENT: u32 = 2;
/// Maximum number of gratuitous ARPs and unsolicited neighbor advertisements that one interface
/// sends per second. Storm control of switches begins at a few thousand broadcasts per second.
pub const GRATUITOUS_PER_SECOND_MAX: u32 = 5_000;
/// Minimum interval between two announcements of an interface, which enforces
/// [`GRATUITOUS_PER_SECOND_MAX`].
const ANNOUNCEMENT_INTERVAL: Duration = Duration::from_nanos(
    1_000_000_000 * FRAMES_PER_ANNOUNCEMENT as u64 / GRATUITOUS_PER_SECOND_MAX as u64,
);
/// Maximum number of overdue announcements that a delayed thread sends at once to catch up.
const CATCH_UP_MAX: u32 = 8;

/// Entry of the queue. The order of the fields is the order of the queue: first announcements
/// before repeats, then by time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct QueueEntry {
    is_repeat: bool,
    at: Instant,
    address: IpAddr,
    round: usize,
}

/// Queue of pending announcements.
#[derive(Debug)]
pub(super) struct Announcer {
    /// Interval of the periodic announcements of each owned address. None: there are no periodic
    /// announcements.
    period: Option<Duration>,
    queue: BTreeSet<QueueEntry>,
    by_address: BTreeMap<IpAddr, QueueEntry>,
    /// Addresses that need one extra announcement each, because another host has announced them or
    /// is about to use them.
    extra: BTreeSet<IpAddr>,
    /// True if the previous announcement was an extra one, from `extra`.
    last_was_extra: bool,
    /// Earliest time at which the rate limit allows the next announcement.
    next_allowed_at: Instant,
}

impl Announcer {
    pub(super) const fn new(period: Option<Duration>) -> Self {
        Self {
            period,
            queue: BTreeSet::new(),
            by_address: BTreeMap::new(),
            extra: BTreeSet::new(),
            last_was_extra: false,
            next_allowed_at: Instant::ZERO,
        }
    }

    /// Starts the series of announcements of `address` at `now`. A series that is in progress
    /// begins again.
    pub(super) fn start(&mut self, address: IpAddr, now: Instant) {
        self.unschedule(address);
        self.enqueue(QueueEntry { is_repeat: false, at: now, address, round: 0 });
    }

    /// Queues one extra announcement of `address`, to be sent as soon as the rate limit allows. The
    /// reason is a host that has announced the address, or is about to use it and waits one second
    /// for a reply (RFC 4862 section 5.4). Returns false if an extra announcement is queued
    /// already, since one is enough for all such hosts.
    pub(super) fn announce_extra(&mut self, address: IpAddr) -> bool {
        self.extra.insert(address)
    }

    /// Stops announcing `address`.
    pub(super) fn stop(&mut self, address: IpAddr) {
        self.extra.remove(&address);
        self.unschedule(address);
    }

    /// Returns the address to announce at `now`, if one is due, the rate limit allows it, and `now`
    /// is before `lease_end`, the end of the answer lease. Callers repeat the call until it returns
    /// none.
    pub(super) fn next(&mut self, now: Instant, lease_end: Instant) -> Option<IpAddr> {
        if now < self.next_allowed_at || now >= lease_end {
            return None;
        }
        let due = self.queue.first().copied().filter(|due| due.at <= now);
        // Extra announcements alternate with due ones. A host that causes extra announcements
        // without end thus gets only half of the rate.
        self.last_was_extra = !self.extra.is_empty() && (due.is_none() || !self.last_was_extra);
        let address =
            if self.last_was_extra { self.extra.pop_first()? } else { self.advance(due?, now) };
        // A delayed thread catches up on at most `CATCH_UP_MAX` announcements.
        let behind = now.since(self.next_allowed_at).min(ANNOUNCEMENT_INTERVAL * CATCH_UP_MAX);
        self.next_allowed_at = saturating_sub(now, behind) + ANNOUNCEMENT_INTERVAL;
        Some(address)
    }

    /// Returns the time at which [`Announcer::next`] must be called again, if an announcement is
    /// queued.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let due = if self.extra.is_empty() { self.queue.first()?.at } else { Instant::ZERO };
        Some(due.max(self.next_allowed_at))
    }

    /// Removes the announcement `due` from the queue, and inserts the next announcement of the same
    /// address. Returns the address.
    fn advance(&mut self, due: QueueEntry, now: Instant) -> IpAddr {
        self.unschedule(due.address);
        if let Some(gap) = SERIES_INTERVALS.get(due.round + 1).copied().or(self.period) {
            let round = (due.round + 1).min(PERIODIC_ROUND);
            self.enqueue(QueueEntry {
                is_repeat: true,
                at: now + gap,
                address: due.address,
                round,
            });
        }
        due.address
    }

    fn unschedule(&mut self, address: IpAddr) {
        if let Some(due) = self.by_address.remove(&address) {
            self.queue.remove(&due);
        }
    }

    fn enqueue(&mut self, due: QueueEntry) {
        self.queue.insert(due);
        self.by_address.insert(due.address, due);
    }
}

fn saturating_sub(now: Instant, by: Duration) -> Instant {
    Instant::from_nanos(
        now.as_nanos().saturating_sub(u64::try_from(by.as_nanos()).unwrap_or(u64::MAX)),
    )
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    const A: IpAddr = IpAddr::V4(Ipv4Addr::new(172, 30, 0, 200));
    const B: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd30, 0, 0, 0, 0, 0, 0, 0x201));

    /// End of an answer lease that never ends.
    const ENDLESS_LEASE: Instant = Instant::from_nanos(u64::MAX);

    /// Runs the announcer from `from` until the queue is empty. Returns the announcements with
    /// their times in milliseconds.
    fn run(announcer: &mut Announcer, from: Instant) -> Vec<(u128, IpAddr)> {
        let mut announcements = Vec::new();
        let mut now = from;
        loop {
            while let Some(address) = announcer.next(now, ENDLESS_LEASE) {
                announcements.push((now.since(Instant::ZERO).as_millis(), address));
            }
            let Some(deadline) = announcer.deadline() else { return announcements };
            assert!(deadline > now, "the next deadline is later than now");
            now = deadline;
        }
    }

    #[test]
    fn one_address_is_announced_seven_times_over_five_seconds() {
        let mut announcer = Announcer::new(None);
        announcer.start(A, Instant::from_millis(1_000));
        let at: Vec<_> = run(&mut announcer, Instant::from_millis(1_000))
            .into_iter()
            .map(|(ms, _)| ms)
            .collect();
        assert_eq!(at, [1_000, 1_030, 1_100, 1_300, 2_000, 3_000, 6_000]);
    }

    #[test]
    fn first_announcements_precede_repeats_within_the_rate_limit() {
        let mut announcer = Announcer::new(None);
        let start = Instant::from_millis(10_000);
        let count = 1_000;
        for i in 0..count {
            announcer.start(Ipv4Addr::from_bits(0x0a00_0000 + i).into(), start);
        }
        let announcements = run(&mut announcer, start);
        let firsts: BTreeSet<_> =
            announcements[..count as usize].iter().map(|(_, address)| address).collect();
        assert_eq!(firsts.len(), count as usize, "every first announcement precedes all repeats");
        assert_eq!(announcements.len(), SERIES_INTERVALS.len() * count as usize);
        for (i, (ms, _)) in announcements.iter().enumerate() {
            let next_second = announcements[i..].partition_point(|(other, _)| *other < ms + 1_000);
            let frames = u32::try_from(next_second).unwrap() * FRAMES_PER_ANNOUNCEMENT;
            let most = GRATUITOUS_PER_SECOND_MAX + (CATCH_UP_MAX + 1) * FRAMES_PER_ANNOUNCEMENT;
            assert!(frames <= most, "{frames} frames are sent in the second from {ms} ms");
        }
        let last_first = announcements[count as usize - 1].0 - 10_000;
        assert!(
            (350..=400).contains(&last_first),
            "the last of 1,000 first announcements is sent after {last_first} ms"
        );
    }

    #[test]
    fn a_first_announcement_precedes_overdue_repeats() {
        let mut announcer = Announcer::new(None);
        let count: u32 = 500;
        for i in 0..count {
            announcer.start(Ipv4Addr::from_bits(0x0a00_0000 + i).into(), Instant::ZERO);
        }
        // By the rate limit, all first announcements take 200 ms; the first repeats are due at 30
        // ms.
        let mut now = Instant::ZERO;
        for _ in 0..count {
            now = now.max(announcer.deadline().unwrap());
            assert!(announcer.next(now, ENDLESS_LEASE).is_some());
        }
        announcer.start(A, now);
        assert_eq!(announcer.next(announcer.deadline().unwrap(), ENDLESS_LEASE), Some(A));
    }

    #[test]
    fn an_extra_announcement_is_sent_once() {
        let mut announcer = Announcer::new(None);
        announcer.announce_extra(A);
        assert_eq!(run(&mut announcer, Instant::from_millis(1_000)), [(1_000, A)]);
        announcer.start(B, Instant::from_millis(9_000));
        announcer.announce_extra(B);
        assert_eq!(
            run(&mut announcer, Instant::from_millis(9_000)).len(),
            SERIES_INTERVALS.len() + 1
        );
    }

    #[test]
    fn extra_announcements_do_not_wait_for_periodic_ones() {
        let period = Duration::from_secs(60);
        let mut announcer = Announcer::new(Some(period));
        announcer.start(A, Instant::ZERO);
        let mut at = Vec::new();
        for _ in 0..SERIES_INTERVALS.len() + 2 {
            let now = announcer.deadline().unwrap();
            assert_eq!(announcer.next(now, ENDLESS_LEASE), Some(A));
            at.push(now);
        }
        let [.., last, first, second] = at[..] else { panic!("{at:?}") };
        assert_eq!(
            (last, first, second),
            (Instant::from_millis(5_000), last + period, first + period)
        );
        let early = second + Duration::from_secs(1);
        announcer.announce_extra(A);
        assert_eq!(
            (announcer.next(early, ENDLESS_LEASE), announcer.deadline()),
            (Some(A), Some(second + period))
        );
    }

    #[test]
    fn extra_announcements_are_immediate_and_get_half_of_the_rate() {
        let mut announcer = Announcer::new(None);
        let start = Instant::from_millis(1_000);
        (0..1_000).for_each(|n| announcer.start(Ipv4Addr::from_bits(n).into(), start));
        announcer.start(B, start);
        assert_ne!(announcer.next(start, ENDLESS_LEASE), Some(B));
        let mut is_extra = Vec::new();
        for _ in 0..10 {
            announcer.announce_extra(B);
            announcer.announce_extra(B);
            let now = announcer.deadline().unwrap().max(start);
            is_extra.push(announcer.next(now, ENDLESS_LEASE) == Some(B));
        }
        assert_eq!(is_extra, [true, false].repeat(5));
        announcer.stop(B);
        assert!(run(&mut announcer, start).iter().all(|(_, address)| *address != B));
        announcer.announce_extra(A);
        let idle = Instant::from_millis(90_000);
        assert_eq!(run(&mut announcer, idle), [(90_000, A)]);
    }

    #[test]
    fn stop_ends_a_series_and_start_begins_a_new_one() {
        let mut announcer = Announcer::new(None);
        announcer.start(A, Instant::ZERO);
        announcer.start(B, Instant::ZERO);
        let late = Instant::from_millis(50);
        assert_eq!(
            [announcer.next(late, ENDLESS_LEASE), announcer.next(late, ENDLESS_LEASE)],
            [Some(A), Some(B)]
        );
        announcer.stop(A);
        announcer.start(B, late);
        let announcements = run(&mut announcer, late);
        assert!(announcements.iter().all(|(_, address)| *address == B));
        assert_eq!((announcements.len(), announcements[0].0), (SERIES_INTERVALS.len(), 50));
    }

    #[test]
    fn an_expired_answer_lease_delays_announcements_and_loses_none() {
        let (mut announcer, start) = (Announcer::new(None), Instant::from_millis(1_000));
        announcer.start(A, start);
        announcer.announce_extra(B);
        assert_eq!(announcer.next(start, start), None, "the answer lease has ended");
        assert_eq!(
            [
                announcer.next(start, ENDLESS_LEASE),
                announcer.next(start + ANNOUNCEMENT_INTERVAL, ENDLESS_LEASE)
            ],
            [Some(B), Some(A)]
        );
    }
}
