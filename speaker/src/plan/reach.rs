//! Which endpoints health checks may connect to. Pure.
//!
//! A speaker connects from the host's network, past every NetworkPolicy, to addresses that anybody
//! may write who may write EndpointSlices. So it connects to its own Node and to the Node's own
//! pods, and to nothing else that the operator does not name.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use ferrolb_proto::facts::{Node, Target};
use ferrolb_proto::range::AddressRange;

use crate::state::State;

/// The ranges that decide whether an endpoint is checked.
pub(super) struct Reach<'a> {
    own: Option<&'a Node>,
    /// The ranges that `--health-checks` names; none: nothing is checked.
    ranges: Option<&'a [AddressRange]>,
    /// Addresses of other Nodes, and those of this one that are no InternalIP.
    nodes: BTreeSet<IpAddr>,
    api_servers: BTreeSet<SocketAddr>,
}

impl<'a> Reach<'a> {
    pub(super) fn new(state: &'a State) -> Self {
        let own = state.own_node();
        let links = state.links.iter().flat_map(|links| links.values()).flat_map(|link| link.addresses.iter());
        let nodes = state.nodes.values().flat_map(|node| node.addresses.iter()).chain(links).copied();
        let internal = own.map_or(&[][..], |own| &own.internal);
        Self {
            own,
            ranges: state.config.checked_ranges.as_deref(),
            nodes: nodes.filter(|address| !internal.contains(address)).collect(),
            api_servers: state.slices.values().flat_map(|slice| slice.api_servers.iter().copied()).collect(),
        }
    }

    /// True if nothing is checked at all.
    pub(super) const fn is_off(&self) -> bool {
        self.ranges.is_none()
    }

    /// True if the endpoint is at the Node's own address: SpeakerStatus says of these only whether
    /// they pass.
    pub(super) fn is_own(&self, address: IpAddr) -> bool {
        self.own.is_some_and(|own| own.internal.contains(&address))
    }

    /// True if an endpoint may be connected to.
    pub(super) fn allows(&self, target: &Target, port: u16) -> bool {
        let (address, ranges) = (target.address, self.ranges.unwrap_or_default());
        let pods = self.own.map_or(&[][..], |own| &own.pod_cidrs);
        let single = AddressRange::single(address);
        let is_pod = || pods.iter().chain(ranges).any(|range| range.overlaps(&single));
        target.may_be_asked()
            && !self.is_off()
            && !self.nodes.contains(&address)
            && !self.api_servers.contains(&SocketAddr::new(address, port))
            && (self.is_own(address) || is_pod())
    }
}
