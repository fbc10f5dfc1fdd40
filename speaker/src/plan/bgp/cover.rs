//! While this node drains: which routers other nodes tell of its addresses, and who of them has to be asked whether it lives. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ferrolb_proto::Instant;
use ferrolb_proto::announce::{Scene, Served};
use ferrolb_proto::bgp::{Asked, Covered, Doubted, Others, audience};
use ferrolb_proto::facts::{Key, Node, Speaker, SpeakerLink};
use ferrolb_proto::range::Family;

use crate::plan::{slices, units};
use crate::state::State;

/// What others tell now of what `asked` says that this node tells, and since when; and who may tell it, too, if it lives. Nothing where it is
/// not known.
pub(super) fn covered<'a>(
    state: &'a State,
    scene: &Scene<'a>,
    asked: &Asked<'a, '_>,
    now: Instant,
) -> (Covered, Doubted) {
    if !state.speakers.is_listed() {
        return (Covered::default(), Doubted::new());
    }
    let own = own(state, asked.node);
    let (nodes, peers, speakers) = (state.nodes.values(), state.bgp_objects.peers.values(), state.speakers.values());
    let others = Others::new(&own, nodes, peers, speakers, &state.answered);
    let (slices, unfailing) = (slices::by_service(state.slices.iter()), BTreeSet::<(&Key, Family)>::new());
    let services: Vec<_> = state.services.iter().collect();
    let served = |place: &usize| {
        let (key, service) = services[*place];
        let failing_on = others.failing(key).collect();
        Served { failing_on, ..units::served(state, (key, service), &slices, &unfailing) }
    };
    let mut having: BTreeMap<IpAddr, Vec<usize>> = BTreeMap::new();
    for (place, (_, service)) in services.iter().enumerate() {
        service.assigned.iter().for_each(|address| having.entry(*address).or_default().push(place));
    }
    let found = having.into_iter().filter_map(|(address, places)| {
        let sharers: Vec<_> = places.iter().map(served).collect();
        let to = audience(scene, asked, &sharers, address).ok()?.peers;
        Some((address, others.tell(scene, asked.ads, &sharers, address, &to)))
    });
    (state.covered.then(found, now), others.doubted)
}

/// What this node hears at this moment.
fn own(state: &State, node: &Node) -> Speaker {
    let links = state
        .reports
        .values()
        .map(|report| SpeakerLink { heard: report.heard.clone().into(), ..SpeakerLink::default() });
    Speaker { node: node.name.clone(), links: links.collect(), ..Speaker::default() }
}
