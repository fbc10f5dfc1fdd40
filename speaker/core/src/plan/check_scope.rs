//! Restrictions on the endpoints that health checks may connect to. Pure.
//!
//! A speaker connects from the host's network, which no NetworkPolicy restricts, to addresses that
//! everybody with write access to EndpointSlices can choose. Therefore it connects only to its own
//! Node, to the pods of this Node, and to ranges that the operator names.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use ferrolb_proto::facts::EndpointAddress;
use ferrolb_proto::range::AddressRange;

use crate::state::State;

/// Ranges and addresses that decide whether an endpoint may be checked.
#[derive(Debug)]
pub(super) struct CheckScope {
    /// InternalIPs of this Node.
    internal_addresses: Vec<IpAddr>,
    /// Pod CIDRs of this Node, and the ranges of `--health-checks`.
    ranges: Vec<AddressRange>,
    /// Addresses that health checks never connect to: those of other Nodes, and those of this Node
    /// that are not InternalIPs.
    excluded_addresses: BTreeSet<IpAddr>,
    api_servers: BTreeSet<SocketAddr>,
}

impl CheckScope {
    pub(super) fn new(state: &State) -> Self {
        let own = state.own_node();
        let links = state.all_links().flat_map(|link| link.addresses.iter());
        let nodes =
            state.nodes.values().flat_map(|node| node.addresses.iter()).chain(links).copied();
        let internal_addresses = own.map_or(Vec::new(), |own| own.internal_addresses.to_vec());
        let pods = own.into_iter().flat_map(|own| own.pod_cidrs.iter());
        Self {
            ranges: pods.chain(state.config.checked_ranges.iter().flatten()).copied().collect(),
            excluded_addresses: nodes
                .filter(|address| !internal_addresses.contains(address))
                .collect(),
            internal_addresses,
            api_servers: state.services.api_servers(),
        }
    }

    /// Returns whether an address is an InternalIP of this Node. For an endpoint with such an
    /// address, SpeakerStatus reports only that the endpoint fails, not why.
    pub(super) fn is_own(&self, address: IpAddr) -> bool {
        self.internal_addresses.contains(&address)
    }

    /// Returns whether health checks may connect to an endpoint.
    pub(super) fn allows(&self, target: &EndpointAddress, port: u16) -> bool {
        let address = target.address;
        let single = AddressRange::single(address);
        target.may_be_probed()
            && !self.excluded_addresses.contains(&address)
            && !self.api_servers.contains(&SocketAddr::new(address, port))
            && (self.is_own(address) || self.ranges.iter().any(|range| range.overlaps(&single)))
    }
}
