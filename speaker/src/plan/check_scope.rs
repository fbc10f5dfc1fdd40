//! Restrictions on the endpoints that health checks may connect to. Pure.
//!
//! A speaker connects from the host's network, which no NetworkPolicy restricts, to addresses that
//! everybody with write access to EndpointSlices can choose. Therefore it connects only to its own
//! Node, to the pods of this Node, and to ranges that the operator names.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use ferrolb_proto::facts::{EndpointAddress, Node};
use ferrolb_proto::range::AddressRange;

use crate::state::State;

/// Ranges and addresses that decide whether an endpoint may be checked.
pub(super) struct CheckScope<'a> {
    own_node: Option<&'a Node>,
    /// Ranges that `--health-checks` adds to the addresses that may be checked. None: health checks
    /// are off.
    ranges: Option<&'a [AddressRange]>,
    /// Addresses that health checks never connect to: those of other Nodes, and those of this Node
    /// that are not InternalIPs.
    excluded_addresses: BTreeSet<IpAddr>,
    api_servers: BTreeSet<SocketAddr>,
}

impl<'a> CheckScope<'a> {
    pub(super) fn new(state: &'a State) -> Self {
        let own = state.own_node();
        let links = state
            .links
            .iter()
            .flat_map(|links| links.values())
            .flat_map(|link| link.addresses.iter());
        let nodes =
            state.nodes.values().flat_map(|node| node.addresses.iter()).chain(links).copied();
        let internal = own.map_or(&[][..], |own| &own.internal_addresses);
        Self {
            own_node: own,
            ranges: state.config.checked_ranges.as_deref(),
            excluded_addresses: nodes.filter(|address| !internal.contains(address)).collect(),
            api_servers: state
                .slices
                .values()
                .flat_map(|slice| slice.api_servers.iter().copied())
                .collect(),
        }
    }

    /// Returns whether health checks are off.
    pub(super) const fn is_off(&self) -> bool {
        self.ranges.is_none()
    }

    /// Returns whether an address is an InternalIP of this Node. For an endpoint with such an
    /// address, SpeakerStatus reports only that the endpoint fails, not why.
    pub(super) fn is_own(&self, address: IpAddr) -> bool {
        self.own_node.is_some_and(|own| own.internal_addresses.contains(&address))
    }

    /// Returns whether health checks may connect to an endpoint.
    pub(super) fn allows(&self, target: &EndpointAddress, port: u16) -> bool {
        let (address, ranges) = (target.address, self.ranges.unwrap_or_default());
        let pods = self.own_node.map_or(&[][..], |own| &own.pod_cidrs);
        let single = AddressRange::single(address);
        let is_pod = || pods.iter().chain(ranges).any(|range| range.overlaps(&single));
        target.may_be_probed()
            && !self.is_off()
            && !self.excluded_addresses.contains(&address)
            && !self.api_servers.contains(&SocketAddr::new(address, port))
            && (self.is_own(address) || is_pod())
    }
}
