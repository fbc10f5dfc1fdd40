//! Drain of a node that advertises by BGP: the addresses that other nodes advertise to the same
//! routers. Pure.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ferrolb_proto::Instant;
use ferrolb_proto::bgp::{
    AlternateNodes, AlternateRoutes, ExportTargets, RouteInput, export_targets,
};
use ferrolb_proto::facts::{Node, Speaker, SpeakerInterface};

use crate::plan::units;
use crate::state::State;

/// Updates `alternates` for `addresses`: the routers to which other nodes advertise each address
/// that this node advertises according to `route_input`, and since when. The result is empty while
/// the SpeakerStatuses are unknown.
pub(super) fn update_alternates<'a>(
    alternates: &mut AlternateRoutes,
    state: &'a State,
    route_input: &RouteInput<'a, '_>,
    addresses: &BTreeSet<IpAddr>,
    now: Instant,
) {
    if !state.speakers.was_ever_complete() {
        *alternates = AlternateRoutes::default();
        return;
    }
    let (nodes, peers, speakers) =
        (state.nodes.values(), state.bgp_objects.peers.values(), state.speakers.values());
    let own = own_speaker(state, route_input.node);
    let others = AlternateNodes::new(&own, nodes, peers, speakers);
    let cluster = units::cluster_view(state);
    let found = addresses.iter().map(|address| {
        let services = state.services.with_address(*address).map(|(key, service)| {
            units::service_view(state, (key, service), others.failing(key).collect())
        });
        let services: Vec<_> = services.collect();
        let advertised_to = |targets: ExportTargets<'_>| {
            let (ads, peers) = (route_input.advertisements, &targets.peers);
            others.advertised_to(&cluster, ads, *address, &services, peers)
        };
        let targets = export_targets(&cluster, route_input, *address, &services);
        (*address, targets.map(advertised_to).unwrap_or_default())
    });
    alternates.update(found, now);
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
