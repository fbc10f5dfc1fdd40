//! Claim sets of this node and of its peers: which addresses each of them owns, and with which
//! rank, by its own account. Owned by the claim machine of one interface.
//!
//! Each frame carries a summary of its sender's set: number and digest of the addresses, and a
//! counter of the changes. A copy of the set whose number and digest differ is incomplete, and its
//! holder requests a list. If the counter shows two or more changes that the holder has missed, the
//! peer may have claimed and released addresses unnoticed.
//!
//! A list goes to all peers, in stretches. Each stretch replaces the copy's claims in its range, so
//! a stretch stays valid if the set changes during the list.
//!
//! - [`own`]: the set of this node.
//! - [`copy`]: the copy of a peer's set.
//! - [`claimants`]: index of the peers by address.

mod claimants;
mod copy;
mod own;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use ferrolb_proto::Instant;
use ferrolb_proto::wire::hello::{Body, CLAIMS_PER_PEER_MAX, Claim, ClaimRank, Frame, Stretch};

use claimants::Claimants;

pub(super) use copy::SetCopy;
pub(super) use own::OwnSet;
pub use own::Owned;

/// Minimum interval between requests to one peer for its list.
const LIST_REQUEST_INTERVAL: Duration = Duration::from_millis(20);
/// Number of missed changes in which a peer may have claimed and released an address unnoticed.
const CHANGES_UNNOTICED: u32 = 2;
/// Maximum number of entries of the sets that a test checks, because the check follows every input.
#[cfg(any(test, feature = "fuzz"))]
const CHECKED_ENTRIES_MAX: usize = 64;

/// Changes of the copy of a peer's set by one frame.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct SetChanges {
    /// Addresses that were added to the copy.
    pub(super) claimed: Vec<IpAddr>,
    /// Addresses whose rank or preempt delay has changed.
    pub(super) restated: Vec<IpAddr>,
    /// Addresses that were removed from the copy.
    pub(super) released: Vec<IpAddr>,
    /// Released addresses that the copy did not contain.
    pub(super) unknown: Vec<IpAddr>,
    /// True if the peer may have claimed and released further addresses unnoticed.
    pub(super) missed: bool,
    /// Number of claims that were ignored because the copy is full.
    pub(super) over_limit: u64,
}

/// Claim sets of this node and of its peers.
#[derive(Debug)]
pub(super) struct ClaimSets {
    own: OwnSet,
    copies: BTreeMap<Arc<str>, SetCopy>,
    claimants: Claimants,
}

impl ClaimSets {
    /// Creates an empty set of this node. `epoch` is the one in its frames.
    pub(super) fn new(epoch: u64, now: Instant) -> Self {
        Self {
            own: OwnSet::new(epoch, now),
            copies: BTreeMap::new(),
            claimants: Claimants::default(),
        }
    }

    pub(super) const fn own(&self) -> &OwnSet {
        &self.own
    }

    /// Returns the set of this node, for its lists. The addresses are changed only by
    /// [`Self::claim`] and [`Self::release`].
    pub(super) const fn own_mut(&mut self) -> &mut OwnSet {
        &mut self.own
    }

    /// Adds the addresses of one CLAIM to the set of this node, or changes their ranks.
    pub(super) fn claim(&mut self, claims: &[(IpAddr, ClaimRank)], now: Instant) {
        self.own.add(claims, now);
        self.update_shared(claims.iter().map(|(address, _)| address), true);
    }

    /// Removes the addresses of one RELEASE from the set of this node.
    pub(super) fn release(&mut self, addresses: &[IpAddr]) {
        self.own.remove(addresses);
        self.update_shared(addresses, false);
    }

    fn update_shared<'a>(
        &mut self,
        addresses: impl IntoIterator<Item = &'a IpAddr>,
        is_owned: bool,
    ) {
        for address in addresses {
            for peer in self.claimants.of(*address) {
                if let Some(copy) = self.copies.get_mut(peer) {
                    copy.set_shared(*address, is_owned);
                }
            }
        }
    }

    /// Returns the copy of a peer's set.
    pub(super) fn copy(&self, peer: &str) -> Option<&SetCopy> {
        self.copies.get(peer)
    }

    /// Returns the peers whose set contains an address, sorted by name.
    pub(super) fn claimants(
        &self,
        address: IpAddr,
    ) -> impl Iterator<Item = (&Arc<str>, &SetCopy)> + Clone {
        let names = self.claimants.of(address);
        names.filter_map(|name| Some((name, self.copies.get(name)?)))
    }

    /// Adds a peer, or a new epoch of a peer. All changes before the first received frame count as
    /// missed.
    pub(super) fn add_peer(&mut self, name: Arc<str>, epoch: u64) {
        let copy = SetCopy::new(Arc::clone(&name), epoch);
        self.copies.insert(name, copy);
    }

    /// Removes a peer. Returns the addresses that it claimed.
    pub(super) fn remove_peer(&mut self, name: &str) -> Vec<IpAddr> {
        let Some((name, copy)) = self.copies.remove_entry(name) else { return Vec::new() };
        let addresses: Vec<_> = copy.claims().keys().copied().collect();
        addresses.iter().for_each(|address| self.claimants.remove(*address, &name));
        addresses
    }

    /// Applies a frame that is newer than all others of the peer.
    pub(super) fn receive(&mut self, peer: &str, frame: &Frame, now: Instant) -> SetChanges {
        let Some(copy) = self.copies.get_mut(peer) else { return SetChanges::default() };
        copy.set_stated(frame.claim_set, &frame.body);
        self.apply(peer, &frame.body, now)
    }

    /// Applies a frame that newer ones of the peer have overtaken. `is_recent` is false if the
    /// frame is so old that it may be a recording. Returns `None` if the frame is outdated.
    pub(super) fn receive_late(
        &mut self,
        peer: &str,
        frame: &Frame,
        is_recent: bool,
        now: Instant,
    ) -> Option<SetChanges> {
        let copy = self.copies.get_mut(peer)?;
        if !copy.is_completed_by(&frame.body, frame.claim_set) {
            let Body::Release { addresses, .. } = &frame.body else {
                let is_executed = is_recent && frame.body == Body::ListRequest;
                return is_executed.then(SetChanges::default);
            };
            // The claims of these addresses were lost, or the copy contains them no longer.
            let is_unknown = |address: &&IpAddr| !copy.claims().contains_key(*address);
            let unknown = addresses.iter().filter(is_unknown).copied().collect();
            return is_recent.then(|| SetChanges { unknown, ..SetChanges::default() });
        }
        if !matches!(frame.body, Body::List(_)) {
            // The frame contained one of the missed changes.
            copy.missed = copy.missed.saturating_sub(1);
        }
        Some(self.apply(peer, &frame.body, now))
    }

    fn apply(&mut self, peer: &str, body: &Body, now: Instant) -> SetChanges {
        let mut changes = SetChanges::default();
        let Self { own, copies, claimants } = self;
        let Some(copy) = copies.get_mut(peer) else { return changes };
        let removed = if let Body::List(stretch) = body {
            outdated(copy, stretch)
        } else if let Body::Release { addresses, .. } = body {
            addresses.clone()
        } else {
            Vec::new()
        };
        for claim in body.claims().iter().filter(|claim| is_valid(body, claim)) {
            copy.add(*claim, now, own, claimants, &mut changes);
        }
        (changes.released, changes.unknown) =
            removed.into_iter().partition(|address| copy.remove(address, claimants));
        if copy.stated.count == 0 {
            changes.released.extend(copy.clear(claimants));
        }
        changes.missed =
            copy.is_complete() && std::mem::take(&mut copy.missed) >= CHANGES_UNNOTICED;
        changes
    }

    /// Returns whether the index and the shared addresses follow from the sets. Sets with more than
    /// [`CHECKED_ENTRIES_MAX`] entries are not checked.
    #[cfg(any(test, feature = "fuzz"))]
    pub(super) fn is_consistent(&self) -> bool {
        let entries: usize = self.copies.values().map(|copy| copy.claims().len()).sum();
        entries > CHECKED_ENTRIES_MAX
            || (entries == self.claimants.len()
                && self.copies.values().all(|copy| copy.is_consistent(&self.own, &self.claimants)))
    }

    /// Returns whether this node should request the list of a peer now, and records the request.
    pub(super) fn requests_list(&mut self, peer: &str, now: Instant) -> bool {
        let Some(copy) = self.copies.get_mut(peer) else { return false };
        let is_due = copy.requested_at.is_none_or(|at| now.since(at) >= LIST_REQUEST_INTERVAL);
        let requests = is_due && !copy.is_complete() && copy.claims().len() < CLAIMS_PER_PEER_MAX;
        if requests {
            copy.requested_at = Some(now);
        }
        requests
    }
}

/// Returns whether a claim is in the range of its stretch, if the frame is a list.
fn is_valid(body: &Body, claim: &Claim) -> bool {
    !matches!(body, Body::List(stretch) if !stretch.contains(&claim.address))
}

/// Returns the claims of a copy in the range of a stretch that the stretch does not contain.
fn outdated(copy: &SetCopy, stretch: &Stretch) -> Vec<IpAddr> {
    let from = stretch.after.map_or(Bound::Unbounded, Bound::Excluded);
    let in_range = copy.claims().range((from, Bound::Unbounded)).map(|(address, _)| *address);
    let is_listed = |address: &IpAddr| {
        stretch.claims.binary_search_by_key(address, |claim| claim.address).is_ok()
    };
    in_range
        .take_while(|address| stretch.contains(address))
        .filter(|address| !is_listed(address))
        .collect()
}

#[cfg(test)]
mod tests;
