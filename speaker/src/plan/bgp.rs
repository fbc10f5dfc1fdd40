//! What gobgpd is to have, and what is said of the sessions. Pure.

mod order;
mod wanted;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ferrolb_proto::api::{BgpSessionState, BgpSessionStatus, BgpStatus, DataPathState};
use ferrolb_proto::bgp::{Ads, Asked, Class, Routes, Sessions, routes, sessions};
use ferrolb_proto::facts::{BgpPeer, Key, Session};
use ferrolb_proto::range::Family;

use super::{slices, units};
use crate::state::State;
use wanted::{Surroundings, wanted};

pub use order::{ClassOrder, Mark, PeerOrder, family};
pub use wanted::{Identity, Wanted};

/// What gobgpd is to have, and how its sessions stand; none as long as that cannot be known. `failing`: the Services that this node fails by their
/// health checks, and of which families.
pub(super) fn bgp(state: &State, draining: bool, failing: &BTreeSet<(&Key, Family)>) -> Option<(Wanted, BgpStatus)> {
    let objects = &state.bgp_objects;
    if state.waits_for().is_some() || objects.waits_for().is_some() {
        return None;
    }
    // A Node that is gone has nothing to announce, and no labels by which routers would be its own.
    let Some(node) = state.own_node() else { return Some((Wanted::default(), BgpStatus::default())) };
    let sessions = sessions(objects.peers.values(), &node.labels);
    let ads = Ads::new(objects.advertisements.values(), objects.communities.values());
    // What is not known yet, as when a speaker starts anew, changes nothing: the routes of a node that boots wait for its Node to be ready.
    let unsound = draining || state.data_path.state == DataPathState::Unhealthy;
    let asked = Asked { node, sessions: &sessions, ads: &ads, unsound };
    let slices = slices::by_service(state.slices.iter());
    let served = state.services.iter().map(|service| units::served(state, service, &slices, failing));
    let routes = routes(&units::scene(state), &asked, served);
    let heard = |(peer, session): &(&BgpPeer, &'_ Session)| {
        let address = state.bgp.sessions.get(&peer.name)?.address?;
        Some((session.place.interface()?.to_owned(), address))
    };
    let around = Surroundings {
        node,
        passwords: objects.passwords(),
        profiles: objects.profiles.values().map(|profile| (&*profile.name, profile)).collect(),
        neighbours: sessions.with.iter().filter_map(heard).collect(),
    };
    let (wanted, problems) = wanted(&around, &sessions, &routes);
    let status = status(state, &sessions, &routes, &problems);
    Some((wanted, status))
}

fn status(state: &State, sessions: &Sessions<'_>, routes: &Routes, problems: &BTreeMap<&str, String>) -> BgpStatus {
    let mut counts: BTreeMap<*const Class, (&Class, i64)> = BTreeMap::new();
    for class in routes.values() {
        counts.entry(Arc::as_ptr(class)).or_insert((class, 0)).1 += 1;
    }
    let session = |(peer, session): &(&BgpPeer, &Session)| {
        let is = state.bgp.sessions.get(&peer.name).cloned().unwrap_or_default();
        let established = is.state == BgpSessionState::Established;
        let seen = counts.values().filter(|(class, _)| class.peers().any(|name| *name == *peer.name));
        let prefixes: i64 = seen.map(|(_, count)| count).sum();
        let problem = problems.get(&*peer.name).cloned().or_else(|| is.problem.as_ref().map(ToString::to_string));
        BgpSessionStatus {
            peer: peer.name.to_string(),
            address: is.address.or(session.place.address()),
            asn: is.asn,
            state: is.state,
            since: is.since.and_then(|since| jiff::Timestamp::from_second(since).ok()).map(|since| since.to_string()),
            prefixes: if established { prefixes } else { 0 },
            message: problem.unwrap_or_default(),
        }
    };
    let mut all: Vec<_> = sessions.with.iter().map(session).collect();
    all.sort_by(|a, b| a.peer.cmp(&b.peer));
    BgpStatus { message: state.bgp.unusable.as_deref().unwrap_or_default().to_owned(), sessions: all }
}

#[cfg(test)]
mod tests;
