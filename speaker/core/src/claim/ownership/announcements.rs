//! Repeated announcements of all owned addresses. Part of the ownership of one interface.

use std::net::IpAddr;
use std::time::Duration;

use ferrolb_core::rate::Doubling;
use ferrolb_core::shared_map::SharedMap;
use ferrolb_proto::Instant;

use super::ADDRESSES_PER_TURN_MAX;
use crate::claim::claim_sets::Owned;

/// Delay before an announcement of all owned addresses. Conflicts are settled first, because a node
/// that is about to release addresses must not announce them.
const REFRESH_ALL_AFTER: Duration = Duration::from_millis(60);
/// Minimum intervals between announcements of all owned addresses that follow each other soon. A
/// peer may fail and return over and over.
const REFRESH_ALL_EVERY: Doubling = Doubling::new(Duration::from_secs(1), Duration::from_secs(8));

/// Schedule of the repeated announcements of all owned addresses.
#[derive(Debug, Default)]
pub(super) struct Announcements {
    /// Time at which all owned addresses must be announced again, and whether the full series of
    /// announcements is sent.
    next: Option<(Instant, bool)>,
    /// Repeated announcement that is in progress: the last announced address, if any, and whether
    /// the full series of announcements is sent.
    in_progress: Option<(Option<IpAddr>, bool)>,
    /// Time of the latest repeated announcement, and the minimum time from it to the next one.
    latest: Option<(Instant, Duration)>,
}

impl Announcements {
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.next.map(|(at, _)| at)
    }

    /// Schedules an announcement of all owned addresses. `series` is true for the full series of
    /// announcements, false for one announcement per address.
    pub(super) fn schedule(&mut self, series: bool, now: Instant) {
        let soonest = now + REFRESH_ALL_AFTER;
        let at = self.latest.map_or(soonest, |(last, pause)| soonest.max(last + pause));
        self.next = Some(self.next.map_or((at, series), |(due, other)| (due, series || other)));
    }

    /// Returns the next owned addresses to announce again, if that is due, and whether the full
    /// series of announcements is sent.
    pub(super) fn next_turn(
        &mut self,
        owned: &SharedMap<IpAddr, Owned>,
        now: Instant,
    ) -> (Vec<IpAddr>, bool) {
        if let Some((_, series)) = self.next.take_if(|(at, _)| now >= *at) {
            let recent = self.latest.filter(|(last, pause)| now < *last + *pause * 2);
            let pause = REFRESH_ALL_EVERY.next(recent.map(|(_, pause)| pause));
            self.latest = Some((now, pause));
            self.in_progress = Some((None, series));
        }
        let Some((after, series)) = self.in_progress.take() else { return (Vec::new(), false) };
        let addresses = owned.after(after.as_ref()).map(|(address, _)| *address);
        let addresses: Vec<_> = addresses.take(ADDRESSES_PER_TURN_MAX).collect();
        if let (ADDRESSES_PER_TURN_MAX, Some(last)) = (addresses.len(), addresses.last()) {
            self.in_progress = Some((Some(*last), series));
        }
        (addresses, series)
    }

    /// Returns whether no announcement is in progress.
    pub(super) const fn is_complete(&self) -> bool {
        self.in_progress.is_none()
    }
}
