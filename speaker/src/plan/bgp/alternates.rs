//! Drain of a node that advertises by BGP: the addresses that other nodes advertise to the same
//! routers. Pure.

use std::collections::BTreeSet;

use ferrolb_proto::Instant;
use ferrolb_proto::announce::{ClusterView, ServiceView, ServicesByAddress};
use ferrolb_proto::bgp::{AlternateNodes, AlternateRoutes, RouteInput, export_targets};
use ferrolb_proto::facts::{Key, Node, Speaker, SpeakerInterface};
use ferrolb_proto::range::Family;

use crate::plan::{slices, units};
use crate::state::{ReducedService, State};

/// Returns, for each address that this node advertises according to `route_input`, the routers to
/// which other nodes advertise the address, and since when. `before` is the result of the previous
/// plan. The result is empty while the SpeakerStatuses are unknown.
pub(super) fn alternates<'a>(
    state: &'a State,
    before: &AlternateRoutes,
    cluster: &ClusterView<'a>,
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
    let (slices, no_failures) =
        (slices::by_service(state.slices.iter()), BTreeSet::<(&Key, Family)>::new());
    let service_view = |service: (&'a Key, &'a ReducedService)| ServiceView {
        failing_on: others.failing(service.0).collect(),
        ..units::service_view(state, service, &slices, &no_failures)
    };
    let services: ServicesByAddress<'_> = state.services.iter().map(service_view).collect();
    let found = services.iter().filter_map(|(address, services)| {
        let targets = export_targets(cluster, route_input, address, services.clone()).ok()?.peers;
        let (advertisements, peers) = (route_input.advertisements, &targets);
        Some((address, others.advertised_to(cluster, advertisements, address, services, peers)))
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
