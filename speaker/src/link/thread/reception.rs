//! Execution of the receive filter: the thread of an interface replaces the BPF programs of its
//! sockets for ARP and Neighbor Discovery.

use std::io;

use ferrolb_proto::Instant;
use tracing::warn;

use super::LinkThread;
use crate::link::{LinkError, filter};

impl LinkThread<'_> {
    /// Opens or closes the receive filter if it is time.
    pub(super) fn update_receive_filter(&mut self, now: Instant) -> Result<(), LinkError> {
        let needs_evidence =
            !self.neighbors.witness_received || self.claims.members().needs_evidence();
        let covers_units = self.config.received_ranges.is_some() && self.unit_changes.is_empty();
        if !self.receive_filter.update(needs_evidence || !covers_units, now) {
            return Ok(());
        }
        let attached = self.attach_programs();
        match attached {
            Err(error) if !self.receive_filter.is_open() => {
                warn!(link = %self.setup.name, %error, "the kernel rejects a filter for ARP and NDP \
                       frames, so this interface receives those about all addresses: raise the \
                       sysctl net.core.optmem_max");
                self.receive_filter.reject(now);
                self.attach_programs().map_err(LinkError::Socket)
            }
            attached => attached.map_err(LinkError::Socket),
        }
    }

    /// Opens the receive filter, because the ranges have changed: a closed filter has those from
    /// before.
    pub(super) fn open_receive_filter(&mut self, now: Instant) -> Result<(), LinkError> {
        if !self.receive_filter.update(true, now) {
            return Ok(());
        }
        self.attach_programs().map_err(LinkError::Socket)
    }

    /// Replaces the programs of both sockets by those of the open or closed filter. A filter that
    /// opens begins to search for recent witnesses.
    fn attach_programs(&mut self) -> io::Result<()> {
        let is_open = self.receive_filter.is_open();
        self.neighbors.witness_received &= !is_open;
        self.setup.metrics.receive_filter_open.set(is_open.into());
        let ranges = self.config.received_ranges.as_deref().filter(|_| !is_open);
        self.arp.set_program(filter::arp(self.setup.index, ranges))?;
        self.ndp.set_program(filter::neighbor_discovery(self.setup.index, ranges))
    }
}
