//! Repeated announcements of all owned addresses. Part of the ownership of one interface.

use std::net::IpAddr;
use std::time::Duration;

use ferrolb_core::rate::Doubling;
use ferrolb_proto::Instant;

use super::claims::ADDRESSES_PER_TURN_MAX;
use super::{Ownership, View};
use crate::claim::Output;

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
}

impl Ownership {
    /// Schedules an announcement of all owned addresses, because a peer may have announced some of
    /// them unnoticed. `series` is true for the full series of announcements, false for one
    /// announcement per address.
    pub(in crate::claim) fn announce_all(&mut self, series: bool, view: View<'_>) {
        if view.owned().is_empty() {
            return;
        }
        let soonest = view.now + REFRESH_ALL_AFTER;
        let at =
            self.announcements.latest.map_or(soonest, |(last, pause)| soonest.max(last + pause));
        let (at, series) =
            self.announcements.next.map_or((at, series), |(due, other)| (due, series || other));
        self.announcements.next = Some((at, series));
    }

    /// Announces all owned addresses again if that is due. If this is too much for one call, the
    /// next tick continues. Returns whether the work is complete.
    pub(in crate::claim) fn announce_if_due(&mut self, view: View<'_>) -> bool {
        if let Some((_, series)) = self.announcements.next.take_if(|(at, _)| view.now >= *at) {
            let recent =
                self.announcements.latest.filter(|(last, pause)| view.now < *last + *pause * 2);
            let pause = REFRESH_ALL_EVERY.next(recent.map(|(_, pause)| pause));
            self.announcements.latest = Some((view.now, pause));
            self.announcements.in_progress = Some((None, series));
        }
        let Some((after, series)) = self.announcements.in_progress.take() else { return true };
        let addresses = view.owned().after(after.as_ref()).map(|(address, _)| *address);
        let addresses: Vec<_> = addresses.take(ADDRESSES_PER_TURN_MAX).collect();
        let again = if series { Output::AnnounceSeries } else { Output::Defend };
        addresses.iter().for_each(|address| self.output(again(*address)));
        if let (ADDRESSES_PER_TURN_MAX, Some(last)) = (addresses.len(), addresses.last()) {
            self.announcements.in_progress = Some((Some(*last), series));
            return false;
        }
        true
    }
}
