//! Which routers are told of an address, from which nodes: by what the API says to be announced, and the speakers of their sessions. Pure.
//!
//! No speaker lists what it announces by BGP, which is the same ten thousand addresses on every node: it follows from the API, and an established
//! session carries it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ferrolb_proto::announce::{Bar, Scene, Served};
use ferrolb_proto::bgp::{Ads, Asked, Audience, Sessions, audience, sessions};
use ferrolb_proto::facts::{BgpAdvertisement, BgpPeer, Community, Node, Speaker};

use super::voices::Voices;

/// The nodes and their sessions, looked at once for many Services.
pub(super) struct Routers<'a> {
    ads: Ads<'a>,
    nodes: Vec<Place<'a>>,
}

struct Place<'a> {
    node: &'a Node,
    sessions: Sessions<'a>,
    /// None: it is dead, or was never there.
    speaker: Option<&'a Speaker>,
}

/// Who is told of an address.
#[derive(Debug, Default)]
pub(super) struct Told<'a> {
    /// The nodes that tell it.
    pub(super) from: Vec<&'a str>,
    /// Those that tell it as the last resort.
    pub(super) last: Vec<&'a str>,
    /// The BGPPeers to which one of them has an established session.
    pub(super) to: BTreeSet<&'a str>,
    /// The nodes that would tell it, and have no such session.
    pub(super) apart: Vec<&'a str>,
    /// The BGPPeers to which those have none.
    pub(super) missing: BTreeSet<&'a str>,
    /// The BGPAdvertisements that yield to older ones on the way to some of those routers.
    pub(super) yielding: BTreeSet<&'a str>,
    /// What keeps the others from it, and how many.
    pub(super) barred: BTreeMap<Silence, usize>,
}

/// Why a node tells nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Silence {
    /// It may not.
    Barred(Bar),
    /// No living speaker runs on it.
    NoSpeaker,
    /// Its speaker has no gobgpd.
    NoGobgpd,
}

impl<'a> Routers<'a> {
    /// None where nothing is to be announced by BGP.
    pub(super) fn new(
        ads: impl Iterator<Item = &'a BgpAdvertisement>,
        communities: impl Iterator<Item = &'a Community>,
        peers: impl Iterator<Item = &'a BgpPeer> + Clone,
        nodes: impl Iterator<Item = &'a Node>,
        voices: Option<&Voices<'a>>,
    ) -> Option<Self> {
        let mut ads = ads.peekable();
        ads.peek()?;
        let place = |node: &'a Node| Place {
            node,
            sessions: sessions(peers.clone(), &node.labels),
            speaker: voices.and_then(|voices| voices.of(&node.name)),
        };
        Some(Self { ads: Ads::new(ads, communities), nodes: nodes.map(place).collect() })
    }

    /// Who is told of an address of these Services, which are those that share it; none where no advertisement announces it.
    pub(super) fn told(&self, scene: &Scene<'_>, services: &[Served<'_>], address: IpAddr) -> Option<Told<'a>> {
        let has = |served: &&Served<'_>| served.assigned.contains(&address);
        services.iter().filter(has).find(|served| self.ads.announce(scene, served, address))?;
        let mut told = Told::default();
        for place in &self.nodes {
            match place.audience(scene, &self.ads, services, address) {
                Ok((to, should)) if to.is_empty() => {
                    told.apart.push(&place.node.name);
                    told.missing.extend(should.peers);
                }
                Ok((to, should)) => {
                    let nodes = if should.last { &mut told.last } else { &mut told.from };
                    nodes.push(&place.node.name);
                    told.to.extend(to);
                    told.yielding.extend(should.yielding);
                }
                Err(silence) => *told.barred.entry(silence).or_default() += 1,
            }
        }
        Some(told)
    }
}

impl<'a> Place<'a> {
    /// The BGPPeers whose routers are told, and who should be.
    fn audience(
        &self,
        scene: &Scene<'_>,
        ads: &Ads<'a>,
        services: &[Served<'_>],
        address: IpAddr,
    ) -> Result<(BTreeSet<&'a str>, Audience<'a>), Silence> {
        let unsound = self.speaker.is_some_and(|speaker| speaker.draining || speaker.broken().is_some());
        let asked = Asked { node: self.node, sessions: &self.sessions, ads, unsound };
        let should = audience(scene, &asked, services, address).map_err(Silence::Barred)?;
        let bgp = self.speaker.ok_or(Silence::NoSpeaker)?.bgp.as_ref().ok_or(Silence::NoGobgpd)?;
        let stands = |name: &&str| bgp.iter().any(|session| session.established && *session.peer == **name);
        let to = should.peers.iter().copied().filter(stands).collect();
        Ok((to, should))
    }
}
