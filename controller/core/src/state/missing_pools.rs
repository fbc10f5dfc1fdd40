//! Pools that do not exist although Services have addresses of them. Plain values; owned by the
//! state.
//!
//! A missing pool is no edited pool: it may be created again in a moment, so the Services keep
//! their addresses for [`Config::pool_grace`](super::Config::pool_grace).

use std::collections::BTreeMap;
use std::time::Duration;

use ferrolb_proto::Instant;

/// The missing pools, each with the time at which the controller detected that.
#[derive(Debug, Default)]
pub(super) struct MissingPools {
    since: BTreeMap<Box<str>, Instant>,
    grace_end: Option<Instant>,
}

impl MissingPools {
    /// Replaces the missing pools. Returns those whose grace has not ended, each with the grace.
    pub(super) fn replace(
        &mut self,
        missing: impl Iterator<Item = Box<str>>,
        grace: Duration,
        now: Instant,
    ) -> BTreeMap<Box<str>, Duration> {
        let before = std::mem::take(&mut self.since);
        let since = |pool: &str| before.get(pool).copied().unwrap_or(now);
        self.since = missing.map(|pool| (pool.clone(), since(&pool))).collect();
        let in_grace = || self.since.iter().filter(|(_, since)| now < **since + grace);
        self.grace_end = in_grace().map(|(_, since)| *since + grace).min();
        in_grace().map(|(pool, _)| (pool.clone(), grace)).collect()
    }

    /// Returns the time at which the Services of the next missing pool lose their addresses.
    pub(super) const fn grace_end(&self) -> Option<Instant> {
        self.grace_end
    }
}
