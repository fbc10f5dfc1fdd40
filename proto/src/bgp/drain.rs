//! The routes that a draining node may withdraw. From each router, these are the routes that
//! another node has advertised to the same router for a certain time. Pure functions.
//!
//! [`AlternateNodes`] computes which routes other nodes advertise now, [`AlternateRoutes`] records
//! since when they do, and [`Withdrawable`] contains the routes that may be withdrawn. Another node
//! counts only if its speaker is known to be live, and if that node is healthy and does not drain.
//! The last node therefore never withdraws a route, and of several nodes that drain at once, none
//! relies on another.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::routes::is_served_on;
use super::{Advertiser, BgpAdvertisements};
use crate::Instant;
use crate::announce::{ClusterView, ServiceView};
use crate::facts::{BgpPeer, Key, Node, Speaker};
use crate::range::Family;

/// The maximum number of a node's addresses to which liveness requests for its speaker are sent:
/// one of each family.
const LIVENESS_ADDRESSES_MAX: usize = 2;

/// The speakers whose liveness only a reply to a request can prove, because no hellos prove it. The
/// keys are node names, and the values the InternalIPs of the nodes.
pub type UnverifiedSpeakers = BTreeMap<Box<str>, Box<[IpAddr]>>;

/// The nodes that may advertise routes in place of a draining one.
#[derive(Debug, Default)]
pub struct AlternateNodes<'a> {
    /// The nodes that are considered only if their speakers reply to a liveness request.
    pub unverified: UnverifiedSpeakers,
    advertisers: Vec<Advertiser<'a>>,
    failing: BTreeMap<&'a Key, Vec<(&'a str, Family)>>,
}

impl<'a> AlternateNodes<'a> {
    /// Selects the nodes that are Ready, not cordoned and not draining, and whose speakers are live
    /// and report a complete status with an established session. `own` is the current status of
    /// this node's speaker. Another speaker is live if the two receive each other's hellos, or if
    /// it has replied recently (`replied`). The status object alone proves nothing: after the
    /// failure of a speaker, its status remains, with established sessions.
    pub fn new(
        own: &'a Speaker,
        nodes: impl Iterator<Item = &'a Node>,
        peers: impl Iterator<Item = &'a BgpPeer> + Clone,
        speakers: impl Iterator<Item = &'a Speaker>,
        replied: &BTreeSet<Box<str>>,
    ) -> Self {
        let nodes: BTreeMap<&str, &Node> = nodes.map(|node| (&*node.name, node)).collect();
        let mut found = Self::default();
        for speaker in speakers.filter(|speaker| speaker.node != own.node) {
            let Some(node) = nodes.get(&*speaker.node) else { continue };
            let is_healthy = node.ready
                && !node.cordoned
                && node.drain.is_none()
                && !speaker.incomplete
                && !speaker.draining;
            if !is_healthy || !speaker.bgp.iter().flatten().any(|session| session.established) {
                continue;
            }
            let has_mutual_hellos =
                own.receives_hellos_of(&speaker.node) && speaker.receives_hellos_of(&own.node);
            if !has_mutual_hellos {
                let addresses =
                    node.internal_addresses.iter().copied().take(LIVENESS_ADDRESSES_MAX).collect();
                found.unverified.insert(speaker.node.clone(), addresses);
            }
            if !has_mutual_hellos && !replied.contains(&speaker.node) {
                continue;
            }
            found.advertisers.push(Advertiser::new(node, peers.clone(), Some(speaker)));
            for failing in &speaker.failing {
                found
                    .failing
                    .entry(&failing.service)
                    .or_default()
                    .push((&node.name, failing.family));
            }
        }
        found
    }

    /// Returns the nodes that report that none of their own endpoints of a Service passes its
    /// health check, with the address family.
    pub fn failing(&self, service: &Key) -> impl Iterator<Item = (&'a str, Family)> {
        self.failing.get(service).into_iter().flatten().copied()
    }

    /// Returns the BGPPeers in `peers` to whose routers another node advertises an address of these
    /// Services, other than as a de-preferred path.
    pub fn advertised_to(
        &self,
        view: &ClusterView<'_>,
        advertisements: &BgpAdvertisements<'a>,
        services: &[ServiceView<'_>],
        address: IpAddr,
        peers: &BTreeSet<&str>,
    ) -> BTreeSet<&'a str> {
        let mut reached = BTreeSet::new();
        for advertiser in &self.advertisers {
            // This check is cheap and excludes most nodes, which have no endpoint of a Service with
            // the policy `Local`.
            if !is_served_on(services, address, &advertiser.node.name) {
                continue;
            }
            if let Ok((to, should)) =
                advertiser.exported_to(view, advertisements, services, address)
                && !should.de_preferred
            {
                let sends = |peer: &&str| {
                    peers.contains(peer) && advertiser.has_next_hop(peer, Family::of(address))
                };
                reached.extend(to.into_iter().filter(sends));
            }
            if reached.len() == peers.len() {
                break;
            }
        }
        reached
    }
}

/// For each address, the BGPPeers to whose routers other nodes advertise it, with the time since
/// which they have done so without interruption. The times are those of this node's observations.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AlternateRoutes(BTreeMap<IpAddr, PeersSince>);

/// For each BGPPeer, the time since which other nodes advertise to its router. Shared, because
/// 10,000 addresses have only a handful of distinct values.
type PeersSince = Arc<BTreeMap<Box<str>, Instant>>;

/// For each address, the BGPPeers from whose routers the node withdraws its route. Addresses
/// without such BGPPeers are not in the map.
pub type Withdrawable = BTreeMap<IpAddr, BTreeSet<Box<str>>>;

impl AlternateRoutes {
    /// Returns the updated value after other nodes are observed to advertise `found`: known
    /// BGPPeers keep their time, and new ones get `now`.
    #[must_use]
    pub fn updated<'a>(
        &self,
        found: impl IntoIterator<Item = (IpAddr, BTreeSet<&'a str>)>,
        now: Instant,
    ) -> Self {
        let mut known = BTreeSet::<PeersSince>::new();
        let routes =
            found.into_iter().filter(|(_, peers)| !peers.is_empty()).map(|(address, peers)| {
                let before =
                    |peer: &str| self.0.get(&address).and_then(|since| since.get(peer).copied());
                let since =
                    peers.into_iter().map(|peer| (peer.into(), before(peer).unwrap_or(now)));
                let since = Arc::new(since.collect::<BTreeMap<_, _>>());
                let since = known.get(&since).cloned().unwrap_or(since);
                known.insert(Arc::clone(&since));
                (address, since)
            });
        Self(routes.collect())
    }

    /// Returns the routes that may be withdrawn, because other nodes have advertised them for
    /// `delay`.
    #[must_use]
    pub fn withdrawable(&self, delay: Duration, now: Instant) -> Withdrawable {
        let lasting = |since: &PeersSince| -> BTreeSet<Box<str>> {
            since
                .iter()
                .filter(|(_, since)| **since + delay <= now)
                .map(|(peer, _)| peer.clone())
                .collect()
        };
        let withdrawable = self.0.iter().map(|(address, since)| (*address, lasting(since)));
        withdrawable.filter(|(_, peers)| !peers.is_empty()).collect()
    }

    /// Returns the next time at which [`Self::withdrawable`] contains more routes if nothing
    /// changes.
    #[must_use]
    pub fn deadline(&self, delay: Duration, now: Instant) -> Option<Instant> {
        let all = self.0.values().flat_map(|since| since.values()).map(|since| *since + delay);
        all.filter(|at| *at > now).min()
    }
}

#[cfg(test)]
mod tests;
