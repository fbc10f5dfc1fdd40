//! Drain of a node that advertises by BGP: the addresses that other nodes advertise to the same
//! routers. Pure.

use ferrolb_proto::Instant;
use ferrolb_proto::bgp::{AlternateNodes, AlternateRoutes, RouteInput, export_targets};
use ferrolb_proto::facts::{Node, Speaker, SpeakerInterface};

use crate::plan::units;
use crate::state::State;

/// Returns, for each address that this node advertises according to `route_input`, the routers to
/// which other nodes advertise the address, and since when. `before` is the result of the previous
/// plan. The result is empty while the SpeakerStatuses are unknown.
pub(super) fn alternates<'a>(
    state: &'a State,
    before: &AlternateRoutes,
    route_input: &RouteInput<'a, '_>,
    now: Instant,
) -> AlternateRoutes {
    if !state.speakers.was_ever_complete() {
        return AlternateRoutes::default();
    }
    let (nodes, peers, speakers) =
        (state.nodes.values(), state.bgp_objects.peers.values(), state.speakers.values());
    let own = own_speaker(state, route_input.node);
    let others = AlternateNodes::new(&own, nodes, peers, speakers);
    let cluster = units::cluster_view(state);
    let found = state.services.addresses().filter_map(|address| {
        let services = state.services.with_address(address).map(|(key, service)| {
            units::service_view(state, (key, service), others.failing(key).collect())
        });
        let services: Vec<_> = services.collect();
        let targets = export_targets(&cluster, route_input, address, &services).ok()?.peers;
        let (advertisements, peers) = (route_input.advertisements, &targets);
        Some((address, others.advertised_to(&cluster, advertisements, address, &services, peers)))
    });
    before.updated(found, now)
}

/// Returns this node's SpeakerStatus as of now, reduced to the speakers that it receives on each
/// interface.
fn own_speaker(state: &State, node: &Node) -> Speaker {
    let links = state.reports.values().map(|report| SpeakerInterface {
        hello_senders: report.speakers.clone().into(),
        ..SpeakerInterface::default()
    });
    Speaker { node: (*node.name).into(), interfaces: links.collect(), ..Speaker::default() }
}
