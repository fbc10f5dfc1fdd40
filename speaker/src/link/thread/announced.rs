//! Addresses for which the thread replies, and which it announces. Part of the loop of an
//! interface's thread, on its reply path's data.

use std::net::IpAddr;
use std::sync::Arc;

use ferrolb_proto::Instant;

use super::LinkThread;

impl LinkThread<'_> {
    /// Begins to reply for an address and to announce it, or withholds it.
    pub(super) fn start(&mut self, address: IpAddr, now: Instant) {
        if self.config.withheld.contains(&address) {
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
        let served = self.withheld.extract_if(.., |address| !config.withheld.contains(address));
        let served: Vec<_> = served.collect();
        served.into_iter().for_each(|address| self.start(address, now));
    }

    pub(super) fn stop(&mut self, address: IpAddr) {
        match address {
            IpAddr::V4(address) => self.owned.remove(&address),
            IpAddr::V6(address) => self.owned_v6.remove(&address),
        };
        self.withheld.remove(&address);
        self.announcer.stop(address);
    }
}
