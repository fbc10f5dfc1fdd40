//! The routes that a draining node may withdraw. From each router, these are the routes that
//! another node has advertised to the same router for a certain time. Pure functions.
//!
//! [`AlternateNodes`] computes which routes other nodes advertise now, [`AlternateRoutes`] records
//! since when they do, and [`Withdrawable`] contains the routes that may be withdrawn. Another node
//! counts only if nothing shows that its speaker has failed, and if that node is healthy and does
//! not drain. The last node therefore never withdraws a route, and of several nodes that drain at
//! once, none relies on another.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::{Advertiser, BgpAdvertisements};
use crate::Instant;
use crate::announce::{ClusterView, ServiceView};
use crate::eligibility::serving;
use crate::facts::{BgpPeer, Key, Node, RunningSpeakers, Speaker, stale_speakers};
use crate::range::Family;

/// The nodes that may advertise routes in place of a draining one.
#[derive(Debug, Default)]
pub struct AlternateNodes<'a> {
    advertisers: Vec<Advertiser<'a>>,
    failing: BTreeMap<&'a Key, Vec<(&'a str, Family)>>,
}

impl<'a> AlternateNodes<'a> {
    /// Selects the nodes that are Ready, not cordoned and not draining, and whose speakers report a
    /// complete status with an established session. `own` is the current status of this node's
    /// speaker.
    ///
    /// The status of a failed speaker remains, with established sessions. Such a status does not
    /// count if it is stale (see [`stale_speakers`]), or if it names this node as a hello sender
    /// while this node receives no hello of that speaker.
    pub fn new(
        own: &'a Speaker,
        nodes: impl Iterator<Item = &'a Node>,
        peers: impl Iterator<Item = &'a BgpPeer> + Clone,
        speakers: impl Iterator<Item = &'a Speaker> + Clone,
    ) -> Self {
        let nodes: BTreeMap<&str, &Node> = nodes.map(|node| (&*node.name, node)).collect();
        let others = speakers.filter(|speaker| speaker.node != own.node);
        let node = |name: &str| nodes.get(name).copied();
        let stale = stale_speakers(others.clone().chain([own]), node, &RunningSpeakers::UNKNOWN);
        let is_silent = |speaker: &Speaker| {
            speaker.receives_hellos_of(&own.node) && !own.receives_hellos_of(&speaker.node)
        };
        let mut found = Self::default();
        for speaker in others {
            let Some(node) = nodes.get(&*speaker.node) else { continue };
            let is_healthy = node.ready
                && !node.cordoned
                && node.drain.is_none()
                && !speaker.incomplete
                && !speaker.draining
                && !stale.contains(&speaker.node)
                && !is_silent(speaker);
            if !is_healthy || !speaker.bgp.iter().flatten().any(|session| session.established) {
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

    /// Returns the BGPPeers in `peers` to whose routers another node advertises an address, other
    /// than as a de-preferred path. `services` are the Services that have the address.
    pub fn advertised_to<'v>(
        &self,
        view: &ClusterView<'_>,
        advertisements: &BgpAdvertisements<'a>,
        address: IpAddr,
        services: impl IntoIterator<Item = &'v ServiceView<'v>>,
        peers: &BTreeSet<&str>,
    ) -> BTreeSet<&'a str> {
        let is_announced = |service: &&ServiceView<'_>| {
            !advertisements.announcing(view, service, address).is_empty()
        };
        let announced: Vec<_> = services.into_iter().filter(is_announced).collect();
        let mut reached = BTreeSet::new();
        for advertiser in &self.advertisers {
            // This check is cheap and excludes most nodes, which have no endpoint of a Service with
            // the policy `Local`.
            if serving(address, &advertiser.node.name, announced.iter().copied()).is_err() {
                continue;
            }
            if let Ok((to, should)) =
                advertiser.exported_to(view, advertisements, address, announced.iter().copied())
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
pub type Withdrawable = BTreeMap<IpAddr, PeerNames>;

/// Names of BGPPeers. Shared like [`PeersSince`].
pub(super) type PeerNames = Arc<BTreeSet<Box<str>>>;

impl AlternateRoutes {
    /// Returns the addresses that other nodes advertise to any router.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.0.keys().copied()
    }

    /// Updates the addresses in `found`, which other nodes are observed to advertise to the routers
    /// of these BGPPeers: known BGPPeers keep their time, and new ones get `now`.
    pub fn update<'a>(
        &mut self,
        found: impl IntoIterator<Item = (IpAddr, BTreeSet<&'a str>)>,
        now: Instant,
    ) {
        let mut known = BTreeSet::<PeersSince>::new();
        for (address, peers) in found {
            let before = self.0.remove(&address).unwrap_or_default();
            if peers.is_empty() {
                continue;
            }
            let since = |peer: &str| before.get(peer).copied().unwrap_or(now);
            let since = peers.into_iter().map(|peer| (peer.into(), since(peer)));
            let since = Arc::new(since.collect::<BTreeMap<_, _>>());
            let since = known.get(&since).cloned().unwrap_or(since);
            known.insert(Arc::clone(&since));
            self.0.insert(address, since);
        }
    }

    /// Returns the routes that may be withdrawn, because other nodes have advertised them for
    /// `delay`.
    #[must_use]
    pub fn withdrawable(&self, delay: Duration, now: Instant) -> Withdrawable {
        let lasting = |since: &PeersSince| {
            let lasting = since.iter().filter(|(_, since)| **since + delay <= now);
            Arc::new(lasting.map(|(peer, _)| peer.clone()).collect::<BTreeSet<_>>())
        };
        let mut known = BTreeMap::new();
        let mut shared =
            |since| Arc::clone(known.entry(Arc::as_ptr(since)).or_insert_with(|| lasting(since)));
        let withdrawable = self.0.iter().map(|(address, since)| (*address, shared(since)));
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
