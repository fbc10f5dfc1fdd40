//! What a node that drains announces no longer: to each router what other nodes have told it of for long enough. Pure.
//!
//! [`Others`] says what others tell now, [`Covered`] since when, and what follows from that is the [`Relief`]. Who is not known to tell it soundly
//! does not count, nor does another that drains: so the last one never stops, and of several that drain at once none relies on the others.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::routes::is_served_on;
use super::{Ads, Teller};
use crate::Instant;
use crate::announce::{Scene, Served};
use crate::facts::{BgpPeer, Key, Node, Speaker};
use crate::range::Family;

/// The most addresses of a node at which its speaker is asked: one of each family.
const ADDRESSES_ASKED_MAX: usize = 2;

/// The speakers that could tell routers if they live, which nobody knows unless they are asked: the InternalIPs of their nodes, by name.
pub type Doubted = BTreeMap<Box<str>, Box<[IpAddr]>>;

/// The nodes that may tell routers in place of one that drains.
#[derive(Debug, Default)]
pub struct Others<'a> {
    /// Those that count only if they answer.
    pub doubted: Doubted,
    tellers: Vec<Teller<'a>>,
    failing: BTreeMap<&'a Key, Vec<(&'a str, Family)>>,
}

impl<'a> Others<'a> {
    /// Those of all nodes that are sound, and whose speakers say so and live: this node, of which `own` is what it says and hears at this moment,
    /// and they hear each other, or they have `answered` lately. What a speaker said before it died stays, with its sessions.
    pub fn new(
        own: &'a Speaker,
        nodes: impl Iterator<Item = &'a Node>,
        peers: impl Iterator<Item = &'a BgpPeer> + Clone,
        speakers: impl Iterator<Item = &'a Speaker>,
        answered: &BTreeSet<Box<str>>,
    ) -> Self {
        let nodes: BTreeMap<&str, &Node> = nodes.map(|node| (&*node.name, node)).collect();
        let mut found = Self::default();
        for speaker in speakers.filter(|speaker| speaker.node != own.node) {
            let Some(node) = nodes.get(&*speaker.node) else { continue };
            let sound = node.ready && !node.cordoned && node.drain.is_none() && !speaker.partial && !speaker.draining;
            if !sound || !speaker.bgp.iter().flatten().any(|session| session.established) {
                continue;
            }
            let heard = own.hears(&speaker.node) && speaker.hears(&own.node);
            if !heard {
                let addresses = node.internal.iter().copied().take(ADDRESSES_ASKED_MAX).collect();
                found.doubted.insert(speaker.node.clone(), addresses);
            }
            if !heard && !answered.contains(&speaker.node) {
                continue;
            }
            found.tellers.push(Teller::new(node, peers.clone(), Some(speaker)));
            for failing in &speaker.failing {
                found.failing.entry(&failing.service).or_default().push((&node.name, failing.family));
            }
        }
        found
    }

    /// Those that say that none of their own endpoints of a Service passes its health check, and of which family.
    pub fn failing(&self, service: &Key) -> impl Iterator<Item = (&'a str, Family)> {
        self.failing.get(service).into_iter().flatten().copied()
    }

    /// The BGPPeers, of these, whose routers one of them tells of an address of these Services, and not as the last resort.
    pub fn tell(
        &self,
        scene: &Scene<'_>,
        ads: &Ads<'a>,
        services: &[Served<'_>],
        address: IpAddr,
        peers: &BTreeSet<&str>,
    ) -> BTreeSet<&'a str> {
        let mut told = BTreeSet::new();
        for teller in &self.tellers {
            // Most nodes have no endpoint of a Service whose policy is Local, and that is found out soon.
            if !is_served_on(services, address, &teller.node.name) {
                continue;
            }
            if let Ok((to, should)) = teller.told(scene, ads, services, address)
                && !should.last
            {
                let sends = |peer: &&str| peers.contains(peer) && teller.sends(peer, Family::of(address));
                told.extend(to.into_iter().filter(sends));
            }
            if told.len() == peers.len() {
                break;
            }
        }
        told
    }
}

/// Which BGPPeers' routers others tell of an address, and since when without a break, as far as this node knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Covered(BTreeMap<IpAddr, Since>);

/// Ten thousand addresses have a handful of these.
type Since = Arc<BTreeMap<Box<str>, Instant>>;

/// The BGPPeers whose routers are told of an address no longer. Only addresses of which that is so.
pub type Relief = BTreeMap<IpAddr, BTreeSet<Box<str>>>;

impl Covered {
    /// The same when others tell what is `found` now.
    #[must_use]
    pub fn then<'a>(&self, found: impl IntoIterator<Item = (IpAddr, BTreeSet<&'a str>)>, now: Instant) -> Self {
        let mut known = BTreeSet::<Since>::new();
        let covers = found.into_iter().filter(|(_, peers)| !peers.is_empty()).map(|(address, peers)| {
            let before = |peer: &str| self.0.get(&address).and_then(|since| since.get(peer).copied());
            let since = peers.into_iter().map(|peer| (peer.into(), before(peer).unwrap_or(now)));
            let since = Arc::new(since.collect::<BTreeMap<_, _>>());
            let since = known.get(&since).cloned().unwrap_or(since);
            known.insert(Arc::clone(&since));
            (address, since)
        });
        Self(covers.collect())
    }

    /// What has been so for `delay`.
    #[must_use]
    pub fn relief(&self, delay: Duration, now: Instant) -> Relief {
        let long = |since: &Since| -> BTreeSet<Box<str>> {
            since.iter().filter(|(_, since)| **since + delay <= now).map(|(peer, _)| peer.clone()).collect()
        };
        let relief = self.0.iter().map(|(address, since)| (*address, long(since)));
        relief.filter(|(_, peers)| !peers.is_empty()).collect()
    }

    /// When there will be more relief, if nothing changes.
    #[must_use]
    pub fn deadline(&self, delay: Duration, now: Instant) -> Option<Instant> {
        let all = self.0.values().flat_map(|since| since.values()).map(|since| *since + delay);
        all.filter(|at| *at > now).min()
    }
}

#[cfg(test)]
mod tests;
