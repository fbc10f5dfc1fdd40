//! Addresses of deleted Services that a node may still advertise by BGP: its gobgpd keeps its
//! routes while its speaker does not run. Part of the state, which the main loop owns.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use ferrolb_proto::Instant;
use ferrolb_proto::facts::{Node, Speaker};

use super::State;
use super::alloc::AddressUser;

/// Maximum time for which routers have the routes of a node without a speaker: the liveness probe
/// ends gobgpd within a minute, and graceful restart keeps its routes for up to two more.
const ADVERTISED_MAX: Duration = Duration::from_secs(180);
/// Maximum number of addresses; the earliest are forgotten.
const ADDRESSES_MAX: usize = 4_096;

/// Addresses that have become free, each for [`ADVERTISED_MAX`].
#[derive(Debug, Default)]
pub(super) struct FormerRoutes {
    ends: BTreeMap<IpAddr, Instant>,
    /// The same addresses, the first to end first. One that has become free again is in it twice.
    by_end: VecDeque<(Instant, IpAddr)>,
    /// True if the addresses have changed since the latest [`State::update_former_routes`].
    has_changed: bool,
}

impl FormerRoutes {
    /// Records an address that became free `age` ago. The caller records them in this order.
    fn record(&mut self, address: IpAddr, age: Duration, now: Instant) {
        let end = now + ADVERTISED_MAX.saturating_sub(age);
        self.ends.insert(address, end);
        self.by_end.push_back((end, address));
        self.has_changed = true;
        if self.by_end.len() > ADDRESSES_MAX {
            self.pop();
        }
    }

    /// Returns the addresses, ascending.
    pub(super) fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.ends.keys().copied()
    }

    /// Returns the time at which the next address is forgotten.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.by_end.front().map(|(end, _)| *end)
    }

    /// Forgets the addresses whose time has ended, and returns them.
    fn expire(&mut self, now: Instant) -> Vec<IpAddr> {
        let mut ended = Vec::new();
        while self.deadline().is_some_and(|end| now >= end) {
            ended.extend(self.pop());
        }
        ended
    }

    /// Forgets the first address, unless it has become free again since.
    fn pop(&mut self) -> Option<IpAddr> {
        let (end, address) = self.by_end.pop_front()?;
        self.has_changed = true;
        (self.ends.get(&address) == Some(&end)).then(|| self.ends.remove(&address))?;
        Some(address)
    }
}

impl State {
    /// Records an address if no Service has it any more.
    pub(super) fn record_former_route(&mut self, address: IpAddr, now: Instant) {
        if self.allocator.services_of(address).next().is_none() {
            self.former_routes.record(address, Duration::ZERO, now);
        }
    }

    /// Records the addresses that became free under the previous leader, as far as the memory of
    /// deleted Services has them.
    pub(super) fn restore_former_routes(&mut self, now: Instant) {
        let unix_time = self.wall_clock.at(now);
        let age = |released_at: i64| u64::try_from(unix_time - released_at).unwrap_or(0);
        let mut released: Vec<_> = self.allocator.remembered();
        released.sort_by_key(|it| it.released_at);
        for it in released {
            let age = Duration::from_secs(age(it.released_at));
            if age < ADVERTISED_MAX {
                it.addresses.iter().for_each(|one| self.former_routes.record(*one, age, now));
            }
        }
    }

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
    pub(super) fn is_former_router(&self, node: &Node) -> bool {
        !node.ready_unknown
            && self.stale_speakers.nodes.contains(&*node.name)
            && self.speakers.get(&*node.name).is_some_and(Speaker::has_session)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_forgotten_after_their_time_and_beyond_the_limit() {
        let at = Instant::from_millis;
        let [one, two]: [IpAddr; 2] = [[10, 0, 0, 1].into(), [10, 0, 0, 2].into()];
        let record = |routes: &mut FormerRoutes, address, millis| {
            routes.record(address, Duration::ZERO, at(millis));
        };
        let contains = |routes: &FormerRoutes, address| routes.addresses().any(|it| it == address);
        let mut routes = FormerRoutes::default();
        record(&mut routes, one, 0);
        record(&mut routes, two, 1_000);
        record(&mut routes, one, 2_000);
        assert_eq!(routes.deadline(), Some(at(0) + ADVERTISED_MAX));
        assert_eq!(routes.expire(at(0) + ADVERTISED_MAX), [] as [IpAddr; 0], "free again later");
        assert_eq!(routes.expire(at(1_000) + ADVERTISED_MAX), [two]);
        assert!(contains(&routes, one) && !contains(&routes, two));
        assert_eq!(routes.expire(at(2_000) + ADVERTISED_MAX), [one]);
        assert_eq!(routes.deadline(), None);
        for number in 0..=ADDRESSES_MAX {
            let address = [10, 1, (number / 256) as u8, (number % 256) as u8];
            record(&mut routes, address.into(), 3_000);
        }
        assert_eq!((routes.ends.len(), routes.by_end.len()), (ADDRESSES_MAX, ADDRESSES_MAX));
        assert!(!contains(&routes, [10, 1, 0, 0].into()));
    }
}
