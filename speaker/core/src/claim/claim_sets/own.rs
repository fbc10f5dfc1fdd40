//! The claim set of this node: its addresses, its summary, and the stretch of it that a list sends
//! next. Owned by the claim sets of one interface.

use std::net::IpAddr;
use std::time::Duration;

use ferrolb_core::shared_map::SharedMap;
use ferrolb_proto::Instant;
use ferrolb_proto::wire::hello::{ADDRESSES_PER_FRAME_MAX, ClaimRank, ClaimSetSummary};

/// Minimum interval between the starts of two lists, however many peers request one. A list goes to
/// all peers.
const LIST_INTERVAL: Duration = Duration::from_millis(20);
/// Interval of the stretches that an owner sends without a request, for peers whose requests do not
/// arrive.
const STRETCH_INTERVAL: Duration = Duration::from_secs(1);

/// Ownership of an address by this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owned {
    /// Time at which this node claimed the address.
    pub since: Instant,
    /// Rank of this node for the address, as its latest claim states it.
    pub rank: ClaimRank,
}

/// Claim set of this node.
#[derive(Debug)]
pub(in crate::claim) struct OwnSet {
    epoch: u64,
    owned: SharedMap<IpAddr, Owned>,
    summary: ClaimSetSummary,
    /// Last address of the latest stretch; `None` if the next stretch is the first one.
    cursor: Option<IpAddr>,
    /// True if a list is sent, and its last stretch is not sent yet.
    is_listing: bool,
    /// Start of the latest list.
    list_started: Option<Instant>,
    /// Time of the next stretch without a request.
    next_stretch: Instant,
}

impl OwnSet {
    pub(super) fn new(epoch: u64, now: Instant) -> Self {
        Self {
            epoch,
            owned: SharedMap::default(),
            summary: ClaimSetSummary::default(),
            cursor: None,
            is_listing: false,
            list_started: None,
            next_stretch: now,
        }
    }

    pub(in crate::claim) const fn owned(&self) -> &SharedMap<IpAddr, Owned> {
        &self.owned
    }

    pub(in crate::claim) const fn summary(&self) -> ClaimSetSummary {
        self.summary
    }

    /// Adds the addresses of one CLAIM, or changes their ranks.
    pub(super) fn add(&mut self, claims: &[(IpAddr, ClaimRank)], now: Instant) {
        let mut is_changed = false;
        for (address, rank) in claims {
            let before = self.owned.get(address).copied();
            if before.is_some_and(|before| before.rank == *rank) {
                continue;
            }
            is_changed = true;
            if let Some(before) = before {
                self.summary.remove(self.epoch, *address, before.rank);
            }
            let since = before.map_or(now, |before| before.since);
            self.owned.insert(*address, Owned { since, rank: *rank });
            self.summary.add(self.epoch, *address, *rank);
        }
        self.summary.counter = self.summary.counter.wrapping_add(is_changed.into());
    }

    /// Removes the addresses of one RELEASE.
    pub(super) fn remove(&mut self, addresses: &[IpAddr]) {
        self.summary.counter = self.summary.counter.wrapping_add(1);
        for address in addresses {
            if let Some(owned) = self.owned.remove(address) {
                self.summary.remove(self.epoch, *address, owned.rank);
            }
        }
    }

    /// Starts a list, unless one is in progress, or the latest one is more recent than
    /// [`LIST_INTERVAL`]. A peer that has missed the first stretches requests the list again.
    pub(in crate::claim) fn start_list(&mut self, now: Instant) {
        let is_due = self.list_started.is_none_or(|at| now.since(at) >= LIST_INTERVAL);
        if is_due && !self.has_list() {
            self.list_started = Some(now);
            (self.is_listing, self.cursor) = (true, None);
        }
    }

    /// Returns whether a list is in progress.
    pub(in crate::claim) const fn has_list(&self) -> bool {
        self.is_listing && !self.owned.is_empty()
    }

    /// Returns whether a stretch is due without a request.
    pub(in crate::claim) fn is_stretch_due(&self, now: Instant) -> bool {
        !self.owned.is_empty() && now >= self.next_stretch
    }

    /// Returns the next stretch: the address before its first one, its last one, and its addresses.
    /// After the last stretch of the set follows the first one.
    pub(in crate::claim) fn next_stretch(
        &mut self,
        now: Instant,
    ) -> (Option<IpAddr>, Option<IpAddr>, Vec<IpAddr>) {
        self.next_stretch = now + STRETCH_INTERVAL;
        let after = self.cursor;
        let mut rest = self.owned.after(after.as_ref()).map(|(address, _)| *address);
        let addresses: Vec<_> = rest.by_ref().take(ADDRESSES_PER_FRAME_MAX).collect();
        let last = addresses.last().copied().filter(|_| rest.next().is_some());
        self.cursor = last;
        self.is_listing &= last.is_some();
        (after, last, addresses)
    }
}
