//! Claims of the peers, and the index of the peers by claimed address. Owned by the claim machine
//! of one interface.
//!
//! The machine decides about a unit without looking at peers that have nothing to do with it. Every
//! change of a peer's claims therefore updates the index: only the functions of this file can
//! change them.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::ops::Deref;
use std::sync::Arc;

use super::ClaimMachine;
use super::peers::Peer;

/// Maximum number of entries of an index that a debug build checks, because the check follows every
/// input.
const CHECKED_ENTRIES_MAX: usize = 128;

/// Addresses, each with the name of a peer that claims it, or claimed it when the peer was declared
/// failed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Claimants(BTreeSet<(IpAddr, Arc<str>)>);

impl Claimants {
    /// Returns the peers that claim an address, or claimed it when they were declared failed,
    /// sorted by name.
    pub(super) fn of(&self, address: IpAddr) -> impl Iterator<Item = &Arc<str>> + Clone {
        // The empty name sorts before all others.
        let from = self.0.range((address, Arc::default())..);
        from.take_while(move |pair| pair.0 == address).map(|(_, name)| name)
    }

    fn insert(&mut self, address: IpAddr, peer: &Arc<str>) {
        self.0.insert((address, Arc::clone(peer)));
    }

    fn remove(&mut self, address: IpAddr, peer: &Arc<str>) {
        self.0.remove(&(address, Arc::clone(peer)));
    }
}

/// Addresses that a peer claims. The value dereferences to the current claims.
#[derive(Debug)]
pub(super) struct PeerClaims {
    peer: Arc<str>,
    current: BTreeSet<IpAddr>,
    /// Claims that were saved when the peer was declared failed.
    saved: BTreeSet<IpAddr>,
}

impl Deref for PeerClaims {
    type Target = BTreeSet<IpAddr>;

    fn deref(&self) -> &BTreeSet<IpAddr> {
        &self.current
    }
}

impl PeerClaims {
    pub(super) const fn new(peer: Arc<str>) -> Self {
        Self { peer, current: BTreeSet::new(), saved: BTreeSet::new() }
    }

    /// Returns the claims that were saved when the peer was declared failed.
    pub(super) const fn saved(&self) -> &BTreeSet<IpAddr> {
        &self.saved
    }

    pub(super) fn add<'i>(
        &mut self,
        addresses: impl IntoIterator<Item = &'i IpAddr>,
        index: &mut Claimants,
    ) {
        for address in addresses {
            if self.current.insert(*address) {
                index.insert(*address, &self.peer);
            }
        }
    }

    /// Removes a claim. Returns false if the peer did not claim the address.
    pub(super) fn remove(&mut self, address: IpAddr, index: &mut Claimants) -> bool {
        let was_claimed = self.current.remove(&address);
        if was_claimed && !self.saved.contains(&address) {
            index.remove(address, &self.peer);
        }
        was_claimed
    }

    /// Removes and returns all current claims.
    pub(super) fn clear(&mut self, index: &mut Claimants) -> BTreeSet<IpAddr> {
        let released = std::mem::take(&mut self.current);
        for address in released.difference(&self.saved) {
            index.remove(*address, &self.peer);
        }
        released
    }

    /// Removes and returns the claims that `claims` does not contain.
    pub(super) fn remove_others(
        &mut self,
        claims: &BTreeSet<IpAddr>,
        index: &mut Claimants,
    ) -> Vec<IpAddr> {
        let others: Vec<_> = self.current.difference(claims).copied().collect();
        for address in &others {
            self.remove(*address, index);
        }
        others
    }

    /// Saves the current claims of a peer that was declared failed, because the peer may still run.
    /// Replaces the claims that were saved before.
    pub(super) fn save(&mut self, index: &mut Claimants) {
        let current = std::mem::take(&mut self.current);
        for address in self.saved.difference(&current) {
            index.remove(*address, &self.peer);
        }
        self.saved = current;
    }

    /// Saves an address that a peer announces although it was declared failed.
    pub(super) fn save_address(&mut self, address: IpAddr, index: &mut Claimants) {
        self.saved.insert(address);
        index.insert(address, &self.peer);
    }

    /// Drops the saved claims: the peer has reported its current claims.
    pub(super) fn drop_saved(&mut self, index: &mut Claimants) {
        for address in std::mem::take(&mut self.saved).difference(&self.current) {
            index.remove(*address, &self.peer);
        }
    }
}

impl ClaimMachine {
    /// Returns the peers that claim an address, or claimed it when they were declared failed,
    /// sorted by name.
    pub(super) fn claimants(&self, address: IpAddr) -> impl Iterator<Item = (&str, &Peer)> + Clone {
        let names = self.claimants.of(address);
        names.filter_map(|name| Some((&**name, self.peers.get(name)?)))
    }

    /// Returns whether the index equals an index that is computed from the claims of all peers, and
    /// whether [`Peer::owned_by_both`] is complete. An index with more than
    /// [`CHECKED_ENTRIES_MAX`] entries is not checked.
    pub(super) fn has_consistent_claimants(&self) -> bool {
        if self.claimants.0.len() > CHECKED_ENTRIES_MAX {
            return true;
        }
        let mut expect = Claimants::default();
        for (name, peer) in &self.peers {
            for address in peer.claims.union(&peer.claims.saved) {
                expect.insert(*address, name);
            }
        }
        let is_recorded = |peer: &Peer| {
            let mut both =
                peer.claims.iter().filter(|address| self.own.owned.contains_key(*address));
            both.all(|address| peer.owned_by_both.contains(address))
        };
        expect == self.claimants && self.peers.values().all(is_recorded)
    }
}
