//! Which routers are told of an address, from which nodes: by what the API says to be announced, and the speakers of their sessions. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ferrolb_proto::announce::{Scene, Served};
use ferrolb_proto::bgp::{Ads, Silence, Teller};
use ferrolb_proto::facts::{BgpAdvertisement, BgpPeer, Community, Node};

use super::voices::Voices;

/// The nodes and their sessions, looked at once for many Services.
pub(super) struct Routers<'a> {
    ads: Ads<'a>,
    nodes: Vec<Teller<'a>>,
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
        let teller = |node: &'a Node| Teller::new(node, peers.clone(), voices.and_then(|voices| voices.of(&node.name)));
        Some(Self { ads: Ads::new(ads, communities), nodes: nodes.map(teller).collect() })
    }

    /// Who is told of an address of these Services, which are those that share it; none where no advertisement announces it.
    pub(super) fn told(&self, scene: &Scene<'_>, services: &[Served<'_>], address: IpAddr) -> Option<Told<'a>> {
        let has = |served: &&Served<'_>| served.assigned.contains(&address);
        services.iter().filter(has).find(|served| self.ads.announce(scene, served, address))?;
        let mut told = Told::default();
        let (mut leaving, mut sound) = (Vec::new(), BTreeSet::new());
        for teller in &self.nodes {
            match teller.told(scene, &self.ads, services, address) {
                Ok((to, should)) if to.is_empty() => {
                    told.apart.push(&teller.node.name);
                    told.missing.extend(should.peers);
                }
                Ok((to, should)) if should.last && teller.withdraws() => {
                    leaving.push((&teller.node.name, to, should));
                }
                Ok((to, should)) => {
                    if !should.last {
                        sound.extend(&to);
                    }
                    let nodes = if should.last { &mut told.last } else { &mut told.from };
                    nodes.push(&teller.node.name);
                    told.to.extend(to);
                    told.yielding.extend(should.yielding);
                }
                Err(silence) => *told.barred.entry(silence).or_default() += 1,
            }
        }
        // They go on to tell only what nobody else tells soundly.
        for (node, to, should) in leaving {
            let to: Vec<_> = to.difference(&sound).copied().collect();
            if !to.is_empty() {
                told.last.push(node);
                told.to.extend(to);
                told.yielding.extend(should.yielding);
            }
        }
        Some(told)
    }
}
