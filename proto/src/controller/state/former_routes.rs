//! Addresses of deleted Services that a node may still advertise by BGP: its gobgpd keeps its
//! routes while its speaker does not run. Part of the state, which the main loop owns.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use super::State;
use super::alloc::AddressUser;
use crate::Instant;
use crate::facts::Speaker;

/// Maximum time for which routers have the routes of a node without a speaker: the liveness probe
/// ends gobgpd within a minute, and graceful restart keeps its routes for up to two more.
const ADVERTISED_MAX: Duration = Duration::from_secs(180);
/// Maximum number of addresses; the earliest are forgotten.
const ADDRESSES_MAX: usize = 4_096;

/// Addresses that have become free within [`ADVERTISED_MAX`].
#[derive(Debug, Default)]
pub(super) struct FormerRoutes {
    freed_at: BTreeMap<IpAddr, Instant>,
    /// The same addresses, the earliest first. One that has become free again is in it twice.
    by_time: VecDeque<(Instant, IpAddr)>,
    /// True if the addresses have changed since the latest [`State::update_former_routes`].
    has_changed: bool,
}

impl FormerRoutes {
    /// Records an address that has become free.
    pub(super) fn record(&mut self, address: IpAddr, now: Instant) {
        self.freed_at.insert(address, now);
        self.by_time.push_back((now, address));
        self.has_changed = true;
        if self.by_time.len() > ADDRESSES_MAX {
            self.pop();
        }
    }

    pub(super) fn contains(&self, address: IpAddr) -> bool {
        self.freed_at.contains_key(&address)
    }

    /// Returns the addresses, ascending.
    pub(super) fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.freed_at.keys().copied()
    }

    /// Returns the time at which the next address is forgotten.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.by_time.front().map(|(at, _)| *at + ADVERTISED_MAX)
    }

    /// Forgets the addresses whose time has ended, and returns them.
    fn expire(&mut self, now: Instant) -> Vec<IpAddr> {
        let mut ended = Vec::new();
        while self.deadline().is_some_and(|end| now >= end) {
            ended.extend(self.pop());
        }
        ended
    }

    /// Forgets the earliest address, unless it has become free again since.
    fn pop(&mut self) -> Option<IpAddr> {
        let (at, address) = self.by_time.pop_front()?;
        self.has_changed = true;
        (self.freed_at.get(&address) == Some(&at)).then(|| self.freed_at.remove(&address))?;
        Some(address)
    }
}

impl State {
    /// Ends the warnings about addresses that no node can advertise any more, and reports to the
    /// allocator those that nodes without a speaker may still advertise.
    pub(super) fn update_former_routes(&mut self, now: Instant) {
        let ended = self.former_routes.expire(now);
        self.queue_rechecks_at(ended, now);
        if std::mem::take(&mut self.former_routes.has_changed) {
            for node in self.stale_speakers.nodes.clone() {
                self.update_host(AddressUser::node(&node));
            }
        }
    }

    /// Returns whether a node may still advertise addresses, because its speaker does not run.
    pub(super) fn is_former_router(&self, node: &str) -> bool {
        let has_session =
            |speaker: &Speaker| speaker.bgp.iter().flatten().any(|session| session.established);
        self.stale_speakers.nodes.contains(node) && self.speakers.get(node).is_some_and(has_session)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_forgotten_after_their_time_and_beyond_the_limit() {
        let at = Instant::from_millis;
        let [one, two]: [IpAddr; 2] = [[10, 0, 0, 1].into(), [10, 0, 0, 2].into()];
        let mut routes = FormerRoutes::default();
        routes.record(one, at(0));
        routes.record(two, at(1_000));
        routes.record(one, at(2_000));
        assert_eq!(routes.deadline(), Some(at(0) + ADVERTISED_MAX));
        assert_eq!(routes.expire(at(0) + ADVERTISED_MAX), [] as [IpAddr; 0], "free again later");
        assert_eq!(routes.expire(at(1_000) + ADVERTISED_MAX), [two]);
        assert!(routes.contains(one) && !routes.contains(two));
        assert_eq!(routes.expire(at(2_000) + ADVERTISED_MAX), [one]);
        assert_eq!(routes.deadline(), None);
        for number in 0..=ADDRESSES_MAX {
            routes.record([10, 1, (number / 256) as u8, (number % 256) as u8].into(), at(3_000));
        }
        assert_eq!((routes.freed_at.len(), routes.by_time.len()), (ADDRESSES_MAX, ADDRESSES_MAX));
        assert!(!routes.contains([10, 1, 0, 0].into()));
    }
}
