//! Beginning and end of the replies and announcements for an address. Part of the loop of an
//! interface's thread.

use std::net::IpAddr;
use std::sync::Arc;

use ferrolb_proto::Instant;

use super::LinkThread;

impl LinkThread<'_> {
    /// Begins to reply for an address and to announce it, or withholds it.
    pub(super) fn start(&mut self, address: IpAddr, now: Instant) {
        if self.config.withheld.contains_key(&address) {
            self.withheld.insert(address);
            return;
        }
        match address {
            IpAddr::V4(address) => self.owned.insert(address),
            IpAddr::V6(address) => self.owned_v6.insert(address),
        };
        self.announcer.start(address, now);
    }

    /// Begins to reply for the owned addresses that are not withheld any more.
    pub(super) fn start_withheld(&mut self, now: Instant) {
        let config = Arc::clone(&self.config);
        let served = self.withheld.extract_if(.., |address| !config.withheld.contains_key(address));
        served.collect::<Vec<_>>().into_iter().for_each(|address| self.start(address, now));
    }

    /// Ends the replies and announcements for an address.
    pub(super) fn stop(&mut self, address: IpAddr) {
        match address {
            IpAddr::V4(address) => self.owned.remove(&address),
            IpAddr::V6(address) => self.owned_v6.remove(&address),
        };
        self.withheld.remove(&address);
        self.announcer.stop(address);
    }
}
