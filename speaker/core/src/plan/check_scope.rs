//! Restrictions on the endpoints that health checks may connect to. Pure.
//!
//! A speaker connects from the host's network, which no NetworkPolicy restricts, to addresses that
//! everybody with write access to EndpointSlices can choose. Therefore it connects only to its own
//! Node, to the pods of this Node, and to ranges that the operator names. Pods of this Node have
//! addresses in its `spec.podCIDRs`, or such that the node's kernel delivers to pods.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use ferrolb_proto::api::UncheckedReason;
use ferrolb_proto::facts::EndpointAddress;
use ferrolb_proto::range::AddressRange;

use crate::state::State;

/// Ranges and addresses that decide whether an endpoint may be checked.
#[derive(Debug)]
pub(super) struct CheckScope {
    /// True if no endpoint may be checked.
    is_off: bool,
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
            is_off: state.config.checked_ranges.is_none(),
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

    /// Returns the address and the port of an endpoint if health checks may connect to it, else the
    /// reason why not. `port` is none if the EndpointSlice does not have the port.
    pub(super) fn permit(
        &self,
        state: &State,
        target: &EndpointAddress,
        port: Option<u16>,
    ) -> Result<SocketAddr, UncheckedReason> {
        if self.is_off {
            return Err(UncheckedReason::Off);
        }
        let endpoint = SocketAddr::new(target.address, port.ok_or(UncheckedReason::NoPort)?);
        let single = AddressRange::single(target.address);
        if !target.may_be_probed()
            || self.excluded_addresses.contains(&target.address)
            || self.api_servers.contains(&endpoint)
        {
            Err(UncheckedReason::Excluded)
        } else if self.is_own(target.address)
            || self.ranges.iter().any(|range| range.overlaps(&single))
            || state.own_pods.contains(target.address)
        {
            Ok(endpoint)
        } else {
            Err(UncheckedReason::OutsideRanges)
        }
    }
}
