//! What gobgpd is to have, and what is said of the sessions. Pure.

mod cover;
mod order;
mod wanted;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use ferrolb_proto::Instant;
use ferrolb_proto::api::{BgpSessionState, BgpSessionStatus, BgpStatus, DataPathState};
use ferrolb_proto::bgp::{Ads, Announcement, Asked, Covered, Doubted, Relief, Sessions, routes, sessions};
use ferrolb_proto::facts::{BgpPeer, Key, Node, PeerPlace, Session};
use ferrolb_proto::range::Family;

use super::{slices, units};
use crate::state::State;
use wanted::{Outcome, STATEMENTS_MAX, Surroundings, wanted};

pub use order::{ClassOrder, Mark, PeerOrder, RESTART_TIME_S, family};
pub use wanted::{Identity, Wanted};

/// Sessions as metrics show them, by the names of their BGPPeers.
pub type Shown = BTreeMap<Box<str>, ShownSession>;

/// A session as metrics show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShownSession {
    /// Where the router is: `192.0.2.1:179`, `[2001:db8::1]:179`, `eth0:179`.
    pub router: Box<str>,
    /// There is a session.
    pub established: bool,
    /// How many prefixes the router is announced.
    pub prefixes: i64,
}

/// What comes of BGP.
#[derive(Debug, Default)]
pub(super) struct Bgp {
    /// What gobgpd is to have.
    pub(super) wanted: Wanted,
    /// How its sessions stand.
    pub(super) status: BgpStatus,
    /// The same for metrics.
    pub(super) shown: Shown,
    /// Prefixes that are not announced because there are too many kinds of them.
    pub(super) left_out: usize,
    /// While the node drains: what others tell, and since when.
    pub(super) covered: Covered,
    /// While the node drains: whose speakers are asked whether they live.
    pub(super) doubted: Doubted,
    /// When the node need tell less, though nothing happens.
    pub(super) wake: Option<Instant>,
}

/// What comes of BGP; none as long as that cannot be known. `failing`: the Services that this node fails by their health checks, and of which
/// families.
pub(super) fn bgp(state: &State, draining: bool, failing: &BTreeSet<(&Key, Family)>, now: Instant) -> Option<Bgp> {
    let objects = &state.bgp_objects;
    if state.waits_for().is_some() || objects.waits_for().is_some() {
        return None;
    }
    // A Node that is gone has nothing to announce, and no labels by which routers would be its own.
    let Some(node) = state.own_node() else { return Some(Bgp::default()) };
    let sessions = sessions(objects.peers.values(), &node.labels);
    let ads = Ads::new(objects.advertisements.values(), objects.communities.values());
    // A speaker that restarts knows nothing of the data path yet, and changes no route that it
    // finds in gobgpd. Where there is none, as after a boot, no traffic comes, and none should
    // before the data path is known.
    let unsound = match state.data_path.state {
        DataPathState::Unhealthy => true,
        DataPathState::Unknown => draining || state.bgp_found == Some(0),
        DataPathState::Healthy | DataPathState::NotChecked => draining,
    };
    let scene = units::scene(state);
    let all = Asked { node, sessions: &sessions, ads: &ads, unsound, relief: &Relief::default() };
    let delay = state.config.drain_delay.filter(|_| draining || node.cordoned);
    let (covered, doubted) = delay.map(|_| cover::covered(state, &scene, &all, now)).unwrap_or_default();
    let relief = delay.map(|delay| covered.relief(delay, now)).unwrap_or_default();
    let asked = Asked { relief: &relief, ..all };
    let slices = slices::by_service(state.slices.iter());
    let served = state.services.iter().map(|service| units::served(state, service, &slices, failing));
    let Announcement { routes, withdrawn } = routes(&scene, &asked, served);
    let heard = |(peer, session): &(&BgpPeer, &'_ Session)| {
        let address = state.bgp.sessions.get(&peer.name)?.address?;
        Some((session.place.interface()?.to_owned(), address))
    };
    let around = Surroundings {
        node,
        passwords: objects.passwords(),
        last_passwords: objects.last_passwords(),
        profiles: objects.profiles.values().map(|profile| (&*profile.name, profile)).collect(),
        neighbours: sessions.with.iter().filter_map(heard).collect(),
    };
    let outcome = wanted(&around, &sessions, &routes);
    let count = |prefixes: usize| i64::try_from(prefixes).unwrap_or(i64::MAX);
    let (announced, withdrawn) = (count(outcome.wanted.paths.len()), count(withdrawn));
    let status = BgpStatus { announced, withdrawn, ..status(state, &sessions, &outcome) };
    let shown = shown(&sessions, &status);
    let wanted = Wanted { parting: parting(state.leaving, draining, node), ..outcome.wanted };
    let wake = delay.and_then(|delay| covered.deadline(delay, now));
    Some(Bgp { wanted, status, shown, left_out: outcome.left_out, covered, doubted, wake })
}

/// Why this node may not be back soon. One that is shut down is not Ready by then, or its speaker is told to end.
fn parting(leaving: bool, draining: bool, node: &Node) -> Option<&'static str> {
    let signs = [
        (leaving, "its speaker ends"),
        (draining, "the node drains"),
        (node.cordoned, "the Node is cordoned"),
        (!node.ready, "the Node is not Ready"),
    ];
    signs.into_iter().find_map(|(is, why)| is.then_some(why))
}

fn status(state: &State, sessions: &Sessions<'_>, outcome: &Outcome<'_>) -> BgpStatus {
    let session = |(peer, session): &(&BgpPeer, &Session)| {
        let is = state.bgp.sessions.get(&peer.name).cloned().unwrap_or_default();
        let established = is.state == BgpSessionState::Established;
        let prefixes = outcome.prefixes.get(&*peer.name).copied().unwrap_or_default();
        // Why there is no session comes before what is wrong with its BFD.
        let why = is.problem.as_ref().or(state.bgp.unusable.as_ref()).map(ToString::to_string);
        let said: Vec<String> = why.into_iter().chain(outcome.problems.get(&*peer.name).cloned()).collect();
        BgpSessionStatus {
            peer: peer.name.to_string(),
            address: is.address.or(session.place.address()),
            asn: is.asn,
            state: is.state,
            since: is.since.and_then(|since| jiff::Timestamp::from_second(since).ok()).map(|since| since.to_string()),
            bfd: is.bfd,
            prefixes: if established { prefixes } else { 0 },
            message: said.join("; "),
        }
    };
    let mut all: Vec<_> = sessions.with.iter().map(session).collect();
    all.sort_by(|a, b| a.peer.cmp(&b.peer));
    let established = all.iter().filter(|session| session.state == BgpSessionState::Established).count();
    let established = format!("{established}/{}", all.len());
    let unusable = state.bgp.unusable.as_ref().map(ToString::to_string);
    let message = unusable.or_else(|| too_many(outcome.left_out)).unwrap_or_default();
    BgpStatus { message, established, sessions: all, ..BgpStatus::default() }
}

/// What a person has to know of prefixes that are left out.
fn too_many(left_out: usize) -> Option<String> {
    let why = || {
        format!(
            "{left_out} prefixes are not announced: BGPAdvertisements may make {STATEMENTS_MAX} different announcements \
             on a node, counted for all routers that see the same; let more prefixes, or more routers, have the same attributes"
        )
    };
    (left_out > 0).then(why)
}

fn shown(sessions: &Sessions<'_>, status: &BgpStatus) -> Shown {
    let routers: BTreeMap<_, _> = sessions.with.iter().map(|(peer, session)| (&*peer.name, router(session))).collect();
    let session = |session: &BgpSessionStatus| {
        let (router, established) = (routers.get(&*session.peer)?, session.state == BgpSessionState::Established);
        let shown = ShownSession { router: router.as_str().into(), established, prefixes: session.prefixes };
        Some((session.peer.as_str().into(), shown))
    };
    status.sessions.iter().filter_map(session).collect()
}

/// Where a router is, as MetalLB's metrics name it.
fn router(session: &Session) -> String {
    match &session.place {
        PeerPlace::Address(address) => SocketAddr::new(*address, session.port).to_string(),
        PeerPlace::Interface(link) => format!("{link}:{}", session.port),
    }
}

#[cfg(test)]
mod tests;
