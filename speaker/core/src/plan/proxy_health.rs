//! Targets of the kube-proxy health check, and the reasons for which this node drains. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ferrolb_proto::facts::DrainReason;
use ferrolb_proto::range::Family;

use crate::health::kube_proxy::KubeProxyContext;
use crate::state::State;

/// Port of kube-proxy's health server (its `--healthz-bind-address`).
const PROXY_HEALTH_PORT: u16 = 10256;
/// Maximum number of Services' health check node ports that are checked, one per
/// `--health-interval`. A few are enough, because each of them reports the health of the whole
/// kube-proxy.
const HEALTH_CHECK_NODE_PORTS_MAX: usize = 16;

/// Targets of the kube-proxy health check, and the facts for judging its results.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProxyTargets {
    /// Possible addresses of kube-proxy's health server: the first one that does not refuse the
    /// connection is used. Empty: the addresses are not known yet.
    pub servers: Box<[SocketAddr]>,
    /// Health check node ports of this node. One of them is checked per `--health-interval` while
    /// all `servers` refuse the connection.
    pub health_check_node_ports: Box<[SocketAddr]>,
    /// True if new addresses wait until kube-proxy has updated its rules.
    pub waits_for_rules: bool,
    /// Other facts on which the judgement of kube-proxy's health depends.
    pub context: KubeProxyContext,
}

pub(super) fn proxy_targets(state: &State) -> ProxyTargets {
    let node = state.own_node();
    ProxyTargets {
        servers: servers(state).into(),
        health_check_node_ports: health_check_node_ports(state).collect(),
        waits_for_rules: !state.withheld().is_empty(),
        context: KubeProxyContext {
            ready: node.is_some_and(|node| node.ready),
            healthy_elsewhere: state.proxy_works_on_watched
                || state.reports.values().any(|report| report.proxy_healthy_elsewhere),
            started_without_routes: state.prefixes_at_start == Some(0),
            needed: state.services.families(),
        },
    }
}

/// Returns the possible addresses of kube-proxy's health server: the configured one, or by default
/// the Node's InternalIP and then loopback, to which some distributions bind the server.
fn servers(state: &State) -> Vec<SocketAddr> {
    if let Some(server) = state.config.kube_proxy_address {
        return vec![server];
    }
    let Some(node) = state.own_node() else { return Vec::new() };
    let loopback = match node.internal_addresses.first().copied().map(Family::of) {
        Some(Family::V6) => IpAddr::V6(Ipv6Addr::LOCALHOST),
        Some(Family::V4) | None => IpAddr::V4(Ipv4Addr::LOCALHOST),
    };
    let addresses = node.internal_addresses.first().copied().into_iter().chain([loopback]);
    addresses.map(|address| SocketAddr::new(address, PROXY_HEALTH_PORT)).collect()
}

/// Returns the health check node ports of the Services, each at an InternalIP of the Node that has
/// the same family as the Service's address.
fn health_check_node_ports(state: &State) -> impl Iterator<Item = SocketAddr> {
    let internal = state.own_node().map_or(&[][..], |node| &node.internal_addresses);
    let at = |service: &crate::state::ReducedService| {
        let family = Family::of(*service.assigned.first()?);
        let address = internal.iter().copied().find(|address| Family::of(*address) == family)?;
        Some(SocketAddr::new(address, service.health_check_node_port))
    };
    state.services.with_node_port().filter_map(at).take(HEALTH_CHECK_NODE_PORTS_MAX)
}

/// Returns why this node drains, which means that it hands over its addresses although its speaker
/// does not stop. Returns none if it does not drain.
pub(super) fn drain_reason(state: &State) -> Option<&'static str> {
    match state.own_node().and_then(|node| node.drain) {
        Some(DrainReason::Annotation) => Some("the Node has the annotation ferrolb.io/drain"),
        Some(DrainReason::Autoscaler) => {
            Some("the Node has the taint ToBeDeletedByClusterAutoscaler")
        }
        None if state.proxy_health.ineligible => {
            Some("kube-proxy reports that the Node is about to be deleted")
        }
        None => None,
    }
}
