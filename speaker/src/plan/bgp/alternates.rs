//! Drain of a node that advertises by BGP: the addresses that other nodes advertise to the same
//! routers, and the speakers of these nodes that need a liveness check. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ferrolb_proto::Instant;
use ferrolb_proto::announce::{ClusterView, ServiceView};
use ferrolb_proto::bgp::{
    AlternateNodes, AlternateRoutes, RouteInput, UnverifiedSpeakers, export_targets,
};
use ferrolb_proto::facts::{Key, Node, Speaker, SpeakerInterface};
use ferrolb_proto::range::Family;

use crate::plan::{slices, units};
use crate::state::State;

/// Returns, for each address that this node advertises according to `asked`, the routers to which
/// other nodes advertise it, and since when. Also returns the speakers that this node does not
/// receive, so that they count only after a successful liveness check. Both results are empty while
/// the SpeakerStatuses are unknown.
pub(super) fn alternates<'a>(
    state: &'a State,
    scene: &ClusterView<'a>,
    asked: &RouteInput<'a, '_>,
    now: Instant,
) -> (AlternateRoutes, UnverifiedSpeakers) {
    if !state.speakers.was_ever_complete() {
        return (AlternateRoutes::default(), UnverifiedSpeakers::new());
    }
    let own = own_speaker(state, asked.node);
    let (nodes, peers, speakers) =
        (state.nodes.values(), state.bgp_objects.peers.values(), state.speakers.values());
    let others = AlternateNodes::new(&own, nodes, peers, speakers, &state.live_speakers);
    let (slices, unfailing) =
        (slices::by_service(state.slices.iter()), BTreeSet::<(&Key, Family)>::new());
    let services: Vec<_> = state.services.iter().collect();
    let served = |place: &usize| {
        let (key, service) = services[*place];
        let failing_on = others.failing(key).collect();
        ServiceView {
            failing_on,
            ..units::service_view(state, (key, service), &slices, &unfailing)
        }
    };
    let mut having: BTreeMap<IpAddr, Vec<usize>> = BTreeMap::new();
    for (place, (_, service)) in services.iter().enumerate() {
        service.assigned.iter().for_each(|address| having.entry(*address).or_default().push(place));
    }
    let found = having.into_iter().filter_map(|(address, places)| {
        let sharers: Vec<_> = places.iter().map(served).collect();
        let to = export_targets(scene, asked, &sharers, address).ok()?.peers;
        Some((address, others.advertised_to(scene, asked.ads, &sharers, address, &to)))
    });
    (state.alternates.updated(found, now), others.unverified)
}

/// Returns this node's SpeakerStatus as of now, reduced to the speakers that it receives on each
/// interface.
fn own_speaker(state: &State, node: &Node) -> Speaker {
    let links = state.reports.values().map(|report| SpeakerInterface {
        hello_senders: report.speakers.clone().into(),
        ..SpeakerInterface::default()
    });
    Speaker { node: node.name.clone(), interfaces: links.collect(), ..Speaker::default() }
}
