//! Receive filter of an interface: decides when the thread receives all ARP and NDP frames, and
//! when only those about the addresses of pools and Services. Pure; owned by the interface's
//! thread, which executes each change by new BPF programs ([`super::filter`]).
//!
//! A closed filter passes frames to this node alone, and frames whose sender or target is in
//! [`LinkConfig::received_ranges`]. The ranges contain every address that this node owns, probes or
//! may claim. So each request that gets a reply passes, and each frame of a foreign host with such
//! an address. ARP and NDP of other hosts about other addresses wake no thread.
//!
//! Frames about other addresses serve one purpose: each proves that this node receives. The filter
//! is therefore open in the following cases:
//!
//! - No witness was received since the filter opened. Witnesses are the hosts from which this node
//!   requests a proof later. So that they are recent, the filter opens for a second once a minute.
//! - A peer is suspected, no frame arrives although peers were challenged, or this node is isolated
//!   ([`Membership::needs_evidence`]).
//! - The ranges are not known or have just changed, or the claim machine has not received all units
//!   yet.
//!
//! A silence that the first challenge ends does not open the filter. It is frequent if this node is
//! the only owner, and the hellos of the others are further apart.
//!
//! [`LinkConfig::received_ranges`]: ferrolb_speaker_core::plan::LinkConfig::received_ranges
//! [`Membership::needs_evidence`]: ferrolb_speaker_core::claim::Membership::needs_evidence

use std::time::Duration;

use ferrolb_proto::Instant;

/// Time for which the filter remains open at least. Limits how often programs are replaced.
const OPEN_TIME: Duration = Duration::from_secs(1);
/// Time after which a closed filter opens, so that the known witnesses are recent.
const CLOSED_TIME: Duration = Duration::from_secs(60);

/// State of the filter. A new filter is open.
#[derive(Debug)]
pub(super) struct ReceiveFilter {
    open: bool,
    /// Earliest time of the next change that nothing but time causes.
    until: Instant,
}

impl ReceiveFilter {
    pub(super) const fn new() -> Self {
        Self { open: true, until: Instant::ZERO }
    }

    pub(super) const fn is_open(&self) -> bool {
        self.open
    }

    /// Opens the filter if all frames are needed at `now`, or opens or closes it if it is time.
    /// Returns whether the filter has changed.
    pub(super) fn update(&mut self, needs_all: bool, now: Instant) -> bool {
        let was_open = self.open;
        if needs_all {
            // A rejected filter stays open for longer.
            let until = if was_open { self.until } else { now };
            (self.open, self.until) = (true, until.max(now + OPEN_TIME));
        } else if self.until <= now {
            self.open = !was_open;
            self.until = now + if self.open { OPEN_TIME } else { CLOSED_TIME };
        }
        self.open != was_open
    }

    /// Opens the filter for as long as it would have been closed, because the kernel has rejected
    /// the programs of the closed filter.
    pub(super) fn reject(&mut self, now: Instant) {
        (self.open, self.until) = (true, now + CLOSED_TIME);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_filter_opens_for_a_second_once_a_minute() {
        let mut filter = ReceiveFilter::new();
        let start = Instant::from_millis(1_000);
        assert!(filter.is_open() && !filter.update(true, start), "a new filter is open");
        let mut changes = Vec::new();
        for millis in 0..130_000 {
            if filter.update(false, start + Duration::from_millis(millis)) {
                changes.push((millis, filter.is_open()));
            }
        }
        assert_eq!(
            changes,
            [(1_000, false), (61_000, true), (62_000, false), (122_000, true), (123_000, false)]
        );
    }

    #[test]
    fn a_closed_filter_opens_at_once_and_changes_at_most_twice_per_second() {
        let mut filter = ReceiveFilter::new();
        let start = Instant::from_millis(1_000);
        assert!(filter.update(false, start) && !filter.is_open());
        let mut changes = 0;
        for millis in 0..10_000 {
            // All frames are needed every other millisecond.
            let now = start + Duration::from_millis(millis);
            changes += u32::from(filter.update(millis % 2 == 0, now));
            assert!(filter.is_open());
        }
        assert_eq!(changes, 1);
        let mut changes = 0;
        for millis in 10_000..20_000 {
            let now = start + Duration::from_millis(millis);
            changes += u32::from(filter.update(!filter.is_open(), now));
        }
        assert!((18..=20).contains(&changes), "{changes} changes in 10 s");
    }

    #[test]
    fn a_rejected_filter_is_closed_again_a_minute_later() {
        let mut filter = ReceiveFilter::new();
        let start = Instant::from_millis(1_000);
        filter.update(false, start);
        filter.reject(start);
        let closed_at = (0..).map(|second| start + Duration::from_secs(second));
        // All frames are needed for a moment meanwhile.
        assert!(!filter.update(true, start + OPEN_TIME));
        let closed_at = closed_at.into_iter().find(|now| filter.update(false, *now));
        assert_eq!((closed_at, filter.is_open()), (Some(start + CLOSED_TIME), false));
    }
}
