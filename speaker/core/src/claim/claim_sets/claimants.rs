//! Index of the peers by claimed address. Owned by the claim sets of one interface.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

/// Addresses, each with the name of a peer whose set contains it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Claimants(BTreeSet<(IpAddr, Arc<str>)>);

impl Claimants {
    /// Returns the peers whose set contains an address, sorted by name.
    pub(super) fn of(&self, address: IpAddr) -> impl Iterator<Item = &Arc<str>> + Clone {
        // The empty name sorts before all others.
        let from = self.0.range((address, Arc::default())..);
        from.take_while(move |pair| pair.0 == address).map(|(_, name)| name)
    }

    pub(super) fn insert(&mut self, address: IpAddr, peer: &Arc<str>) {
        self.0.insert((address, Arc::clone(peer)));
    }

    pub(super) fn remove(&mut self, address: IpAddr, peer: &Arc<str>) {
        self.0.remove(&(address, Arc::clone(peer)));
    }

    #[cfg(any(test, feature = "fuzz"))]
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}
