//! Evidence that kube-proxy has made its rules for a new address. Pure; the state of a speaker owns
//! one value per address family.
//!
//! kube-proxy reports only the time at which its latest update of the rules ended. An update that
//! began before kube-proxy received the address does not contain the address, so the time of the
//! latest update alone proves nothing.

use std::time::Duration;

use ferrolb_proto::Instant;

/// Minimum time from the end of one update of kube-proxy's rules to the beginning of the next
/// (default of its `minSyncPeriod`).
const UPDATE_INTERVAL_MIN: Duration = Duration::from_secs(1);
/// Maximum time by which kube-proxy receives a change of a Service later than the speaker.
const WATCH_LAG_MAX: Duration = Duration::from_millis(100);
/// Maximum time to wait for the rules of a new address, if kube-proxy reports its updates.
const WAIT_MAX: Duration = Duration::from_millis(1_500);
/// Time to wait for the rules of a new address, if kube-proxy does not report its updates: it is
/// older than Kubernetes 1.33, does not run, or its health is not checked.
const WAIT_WITHOUT_REPORTS: Duration = Duration::from_secs(1);

/// The latest two updates of kube-proxy's rules for one address family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RuleUpdates {
    /// The ends of the last update and of the one before it.
    ends: [Option<Instant>; 2],
}

impl RuleUpdates {
    /// Records the end of an update, as kube-proxy reports it.
    pub const fn record(&mut self, end: Instant) {
        self.ends = [Some(end), self.ends[0]];
    }

    /// Returns whether an update has certainly begun after kube-proxy received an address that the
    /// speaker received at `seen`, and has ended.
    #[must_use]
    pub fn include(&self, seen: Instant) -> bool {
        let [Some(last), Some(before)] = self.ends else { return false };
        let received = seen + WATCH_LAG_MAX;
        last >= received && before + UPDATE_INTERVAL_MIN >= received
    }

    /// Returns the time at which an address that the speaker received at `seen` is announced, even
    /// if kube-proxy has not reported an update that includes it.
    #[must_use]
    pub fn wait_end(&self, seen: Instant) -> Instant {
        seen + if self.ends[0].is_some() { WAIT_MAX } else { WAIT_WITHOUT_REPORTS }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Instant {
        Instant::from_millis(millis)
    }

    fn updates(ends: &[u64]) -> RuleUpdates {
        let mut updates = RuleUpdates::default();
        ends.iter().for_each(|end| updates.record(at(*end)));
        updates
    }

    #[test]
    fn an_update_counts_only_if_it_began_after_the_address_arrived() {
        // The address arrives at 10,000 ms; kube-proxy may receive it until 10,100 ms.
        let cases: [(&[u64], bool, &str); 8] = [
            (&[], false, "no report"),
            (&[10_600], false, "the beginning of the only update is unknown"),
            (&[3_000, 9_000], false, "both updates ended before"),
            (&[3_000, 10_030], false, "the update may have begun before"),
            (&[3_000, 10_600], false, "the update may have begun before, and was slow"),
            (&[9_500, 10_550], true, "the update began at 10,500 ms or later"),
            (&[10_030, 11_060], true, "the update began at 11,030 ms or later"),
            (&[9_050, 10_080], false, "the update began at 10,050 ms or later"),
        ];
        for (ends, expected, why) in cases {
            assert_eq!(updates(ends).include(at(10_000)), expected, "{ends:?}: {why}");
        }
    }

    #[test]
    fn the_wait_depends_on_the_reports() {
        assert_eq!(updates(&[]).wait_end(at(10)), at(1_010));
        assert_eq!(updates(&[1]).wait_end(at(10)), at(1_510));
    }
}
