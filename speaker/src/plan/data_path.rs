//! What kube-proxy is asked, and whether this node drains. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ferrolb_proto::facts::Drain;
use ferrolb_proto::health::data_path::Situation;
use ferrolb_proto::range::Family;

use crate::state::State;

/// The port of kube-proxy's health server (its `--healthz-bind-address`).
const PROXY_HEALTH_PORT: u16 = 10256;
/// How many health check node ports are asked in turn: any of them speaks for the whole of kube-proxy.
const WITNESSES_MAX: usize = 16;

/// What kube-proxy is asked, and what its answers are judged by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Questions {
    /// Where its health server may be: the first that somebody listens at is it. None: that is not known yet.
    pub servers: Box<[SocketAddr]>,
    /// Health check node ports of this node, asked in turn where nobody listens at any of the servers.
    pub witnesses: Box<[SocketAddr]>,
    /// What else counts.
    pub situation: Situation,
}

pub(super) fn questions(state: &State) -> Questions {
    let node = state.own_node();
    Questions {
        servers: servers(state).into(),
        witnesses: witnesses(state).collect(),
        situation: Situation {
            ready: node.is_some_and(|node| node.ready),
            elsewhere: state.reports.values().any(|report| report.hears_checked),
            unrouted: state.bgp_found == Some(0),
            needed: state.services.values().flat_map(|service| service.assigned.iter().copied()).collect(),
        },
    }
}

/// By default the Node's own address, and then loopback, where some distributions put it.
fn servers(state: &State) -> Vec<SocketAddr> {
    if let Some(server) = state.config.kube_proxy_address {
        return vec![server];
    }
    let Some(node) = state.own_node() else { return Vec::new() };
    let loopback = match node.internal.first().copied().map(Family::of) {
        Some(Family::V6) => IpAddr::V6(Ipv6Addr::LOCALHOST),
        Some(Family::V4) | None => IpAddr::V4(Ipv4Addr::LOCALHOST),
    };
    let addresses = node.internal.first().copied().into_iter().chain([loopback]);
    addresses.map(|address| SocketAddr::new(address, PROXY_HEALTH_PORT)).collect()
}

/// The health check node ports, each at an address of the Node that is of its Service's family.
fn witnesses(state: &State) -> impl Iterator<Item = SocketAddr> {
    let internal = state.own_node().map_or(&[][..], |node| &node.internal);
    let services = state.services.values().filter(|service| service.health_check_node_port != 0);
    let at = |service: &crate::state::KeptService| {
        let family = Family::of(*service.assigned.first()?);
        let address = internal.iter().copied().find(|address| Family::of(*address) == family)?;
        Some(SocketAddr::new(address, service.health_check_node_port))
    };
    services.filter_map(at).take(WITNESSES_MAX)
}

/// Why this node hands over what it announces, though its speaker stays.
pub(super) fn draining(state: &State) -> Option<&'static str> {
    match state.own_node().and_then(|node| node.drain) {
        Some(Drain::Annotation) => Some("the Node has the annotation ferrolb.io/drain"),
        Some(Drain::Autoscaler) => Some("the Node has the taint ToBeDeletedByClusterAutoscaler"),
        None if state.data_path.ineligible => Some("kube-proxy says that the Node is about to be deleted"),
        None => None,
    }
}
