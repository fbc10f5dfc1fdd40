//! The new addresses of a Service. Plain values; the state owns one for each Service.

use std::net::IpAddr;

/// The new addresses of a Service. A new leader does not know whether a node has announced an
/// address, so its Services have no new addresses.
#[derive(Debug, Default)]
pub(in crate::state) struct UnannouncedAddresses {
    /// Addresses that the controller has assigned, and that no node has announced yet: at most one
    /// of each family.
    pub(super) unannounced: Vec<IpAddr>,
    /// Addresses that the Service has left, because another host replied for them.
    pub(super) left: Vec<IpAddr>,
}

impl UnannouncedAddresses {
    /// Records that a node announces an address.
    pub(in crate::state) fn announced(&mut self, address: IpAddr) {
        self.unannounced.retain(|it| *it != address);
    }

    /// Returns the addresses that the Service has left.
    pub(in crate::state) fn left(&self) -> &[IpAddr] {
        &self.left
    }
}
