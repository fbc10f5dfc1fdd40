//! Computes which nodes advertise an address, and to which routers. The inputs are the objects in
//! the API and the sessions that the speakers report. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ferrolb_proto::announce::{ClusterView, ServiceView};
use ferrolb_proto::bgp::{Advertiser, BgpAdvertisements, NotAdvertised};
use ferrolb_proto::facts::{BgpAdvertisement, BgpPeer, Community, Node};

use super::live_speakers::LiveSpeakers;

/// The BGPAdvertisements, and the nodes with their BGP sessions; computed once for many Services.
pub(super) struct BgpContext<'a> {
    ads: BgpAdvertisements<'a>,
    nodes: Vec<Advertiser<'a>>,
}

/// The nodes that advertise an address, and the BGPPeers that receive it.
#[derive(Debug, Default)]
pub(super) struct BgpExport<'a> {
    /// The nodes that advertise the address with a preferred route.
    pub(super) preferred_nodes: Vec<&'a str>,
    /// The nodes that advertise the address as a de-preferred path (RFC 8326).
    pub(super) depreferred_nodes: Vec<&'a str>,
    /// The BGPPeers to which any of these nodes advertises the address, over an established
    /// session.
    pub(super) peers: BTreeSet<&'a str>,
    /// The nodes that should advertise the address, but have no established session with any of the
    /// BGPPeers that should receive it.
    pub(super) nodes_without_session: Vec<&'a str>,
    /// The BGPPeers with which the nodes in `nodes_without_session` have no established session.
    pub(super) missing_peers: BTreeSet<&'a str>,
    /// The BGPAdvertisements whose attributes some of the BGPPeers do not receive, because an older
    /// BGPAdvertisement takes precedence.
    pub(super) overridden: BTreeSet<&'a str>,
    /// Why the other nodes do not advertise the address, with the number of nodes per cause.
    pub(super) not_advertised: BTreeMap<NotAdvertised, usize>,
}

impl<'a> BgpContext<'a> {
    /// Prepares the BGPAdvertisements and the sessions of all nodes. Returns `None` if there are no
    /// BGPAdvertisements.
    pub(super) fn new(
        ads: impl Iterator<Item = &'a BgpAdvertisement>,
        communities: impl Iterator<Item = &'a Community>,
        peers: impl Iterator<Item = &'a BgpPeer> + Clone,
        nodes: impl Iterator<Item = &'a Node>,
        voices: Option<&LiveSpeakers<'a>>,
    ) -> Option<Self> {
        let mut ads = ads.peekable();
        ads.peek()?;
        let teller = |node: &'a Node| {
            Advertiser::new(node, peers.clone(), voices.and_then(|voices| voices.of(&node.name)))
        };
        Some(Self {
            ads: BgpAdvertisements::new(ads, communities),
            nodes: nodes.map(teller).collect(),
        })
    }

    /// Returns the nodes that advertise an address of these Services, and the BGPPeers that receive
    /// it. Returns `None` if no BGPAdvertisement announces the address.
    pub(super) fn export_of(
        &self,
        scene: &ClusterView<'_>,
        services: &[ServiceView<'_>],
        address: IpAddr,
    ) -> Option<BgpExport<'a>> {
        let has = |served: &&ServiceView<'_>| served.assigned.contains(&address);
        services.iter().filter(has).find(|served| self.ads.is_announced(scene, served, address))?;
        let mut told = BgpExport::default();
        let (mut leaving, mut sound) = (Vec::new(), BTreeSet::new());
        for teller in &self.nodes {
            match teller.exported_to(scene, &self.ads, services, address) {
                Ok((to, should)) if to.is_empty() => {
                    told.nodes_without_session.push(&teller.node.name);
                    told.missing_peers.extend(should.peers);
                }
                Ok((to, should)) if should.de_preferred && teller.has_withdrawn() => {
                    leaving.push((&teller.node.name, to, should));
                }
                Ok((to, should)) => {
                    if !should.de_preferred {
                        sound.extend(&to);
                    }
                    let nodes = if should.de_preferred {
                        &mut told.depreferred_nodes
                    } else {
                        &mut told.preferred_nodes
                    };
                    nodes.push(&teller.node.name);
                    told.peers.extend(to);
                    told.overridden.extend(should.yielding);
                }
                Err(silence) => *told.not_advertised.entry(silence).or_default() += 1,
            }
        }
        // A draining node withdraws a route from routers to which another node advertises a
        // preferred route. The node continues to advertise the route only to other routers.
        for (node, to, should) in leaving {
            let to: Vec<_> = to.difference(&sound).copied().collect();
            if !to.is_empty() {
                told.depreferred_nodes.push(node);
                told.peers.extend(to);
                told.overridden.extend(should.yielding);
            }
        }
        Some(told)
    }
}
