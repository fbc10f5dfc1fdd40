//! Requests that the thread of an interface sends: liveness probes, ARP probes, and requests to
//! hosts that prove that frames arrive.

use std::net::{IpAddr, Ipv4Addr};

use ferrolb_proto::Instant;
use ferrolb_proto::wire::{Mac, arp, ndp};
use ferrolb_runtime::clock::Clock;
use ferrolb_speaker_core::claim::Input;

use super::LinkThread;
use crate::link::LinkError;

impl LinkThread<'_> {
    /// Sends a liveness probe for `address` to the peer alone. An ARP request has no sender address
    /// (RFC 5227 section 1.1), so that no cache stores it. Neighbor Discovery requires a sender in
    /// a unicast request.
    pub(super) fn send_liveness_probe(
        &mut self,
        address: IpAddr,
        mac: Mac,
        now: Instant,
    ) -> Result<(), LinkError> {
        self.neighbors.start_liveness_probe(mac, address, now);
        let own_mac = self.setup.mac;
        match address {
            IpAddr::V4(address) => self.send_arp(&unicast_request(own_mac, address, mac)),
            IpAddr::V6(address) => match self.config.source_v6 {
                Some(own) => self.send_ndp(&ndp::unicast_solicitation(own_mac, own, address, mac)),
                None => self.send_ndp(&ndp::dad_solicitation(own_mac, address)),
            },
        }
    }

    /// Sends a liveness probe for the address of a peer's node, if its family is in use on this
    /// interface. The request goes to the peer alone, so that it passes the peer's receive filter.
    pub(super) fn send_node_probe(
        &mut self,
        node: &str,
        mac: Mac,
        now: Instant,
    ) -> Result<(), LinkError> {
        let own_mac = self.setup.mac;
        match (self.address_of(node), self.config.source_v6) {
            (Some(IpAddr::V4(address)), _) => {
                self.neighbors.start_liveness_probe(mac, address.into(), now);
                self.send_arp(&unicast_request(own_mac, address, mac))
            }
            (Some(IpAddr::V6(address)), Some(own)) => {
                self.neighbors.start_liveness_probe(mac, address.into(), now);
                self.send_ndp(&ndp::unicast_solicitation(own_mac, own, address, mac))
            }
            (Some(IpAddr::V6(_)), None) | (None, _) => Ok(()),
        }
    }

    /// Handles a reply about `address` from the host with this MAC, which may be the reply to a
    /// liveness probe or to a request of [`Self::probe_neighbors`].
    pub(super) fn on_reply(
        &mut self,
        address: IpAddr,
        mac: Mac,
        is_solicited: bool,
    ) -> Result<(), LinkError> {
        let now = Clock::now();
        if self.neighbors.is_liveness_probed(mac, address, now) {
            self.handle_input(Input::ArpReply(mac), now)?;
        }
        if is_solicited && self.neighbors.take_request(mac, address, now) {
            self.handle_input(Input::NeighborReplied, now)?;
        }
        Ok(())
    }

    /// Sends ARP probes for an address, with and without this node's address as the
    /// sender, since some hosts reply to only one of the two.
    pub(super) fn send_arp_probe(
        &mut self,
        address: IpAddr,
        now: Instant,
    ) -> Result<(), LinkError> {
        self.neighbors.start_arp_probe(address, now);
        let own_mac = self.setup.mac;
        match address {
            IpAddr::V4(address) => {
                let own = self.config.source.filter(|own| *own != address);
                own.into_iter()
                    .chain([Ipv4Addr::UNSPECIFIED])
                    .try_for_each(|sender| self.send_arp(&arp::request(own_mac, sender, address)))
            }
            IpAddr::V6(address) => {
                if let Some(own) = self.config.source_v6 {
                    self.send_ndp(&ndp::solicitation(own_mac, own, address))?;
                }
                self.send_ndp(&ndp::dad_solicitation(own_mac, address))
            }
        }
    }

    /// Sends requests to the most recent witnesses: any reply proves that frames arrive here.
    pub(super) fn probe_neighbors(&mut self, now: Instant) -> Result<(), LinkError> {
        self.neighbors.start_requests(now);
        let own_mac = self.setup.mac;
        let source = self.config.source.unwrap_or(Ipv4Addr::UNSPECIFIED);
        for (mac, address) in self.neighbors.hosts() {
            match address {
                IpAddr::V4(address) => {
                    let mut request = arp::request(own_mac, source, address);
                    request[..6].copy_from_slice(&mac.0);
                    self.send_arp(&request)?;
                }
                IpAddr::V6(address) => {
                    let Some(own) = self.config.source_v6 else { continue };
                    self.send_ndp(&ndp::unicast_solicitation(own_mac, own, address, mac))?;
                }
            }
        }
        Ok(())
    }

    fn send_arp(&self, request: &[u8]) -> Result<(), LinkError> {
        self.send(&self.arp.socket, request, &self.setup.metrics.requests_sent)
    }

    fn send_ndp(&self, solicitation: &[u8]) -> Result<(), LinkError> {
        self.send(&self.ndp.socket, solicitation, &self.setup.metrics.requests_sent)
    }
}

/// Returns an ARP request to one host, without a sender address.
fn unicast_request(own_mac: Mac, address: Ipv4Addr, mac: Mac) -> [u8; arp::FRAME_LENGTH] {
    let mut request = arp::request(own_mac, Ipv4Addr::UNSPECIFIED, address);
    request[..6].copy_from_slice(&mac.0);
    request
}
