//! Computes which nodes advertise an address, and to which routers. The inputs are the objects in
//! the API and the sessions that the speakers report. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ferrolb_core::announce::{ClusterView, ServiceView};
use ferrolb_core::bgp::{Advertiser, BgpAdvertisements, ExportTargets};
use ferrolb_core::eligibility::Ineligible;
use ferrolb_proto::facts::{BgpAdvertisement, BgpPeer, Community, Node};

use super::live_speakers::LiveSpeakers;

/// The BGPAdvertisements, and the nodes with their BGP sessions; computed once for many Services.
pub(super) struct BgpContext<'a> {
    advertisements: BgpAdvertisements<'a>,
    /// Sorted by name.
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
    /// Causes why the other nodes do not advertise the address, each with its number of nodes.
    pub(super) not_advertised: BTreeMap<Ineligible, usize>,
}

/// The BGPPeers that receive an address from a node, and the export targets of the node.
type Export<'a> = (BTreeSet<&'a str>, ExportTargets<'a>);

impl<'a> BgpContext<'a> {
    /// Prepares the BGPAdvertisements and the sessions of all nodes. Returns `None` if there are no
    /// BGPAdvertisements.
    pub(super) fn new(
        advertisements: impl Iterator<Item = &'a BgpAdvertisement>,
        communities: impl Iterator<Item = &'a Community>,
        peers: impl Iterator<Item = &'a BgpPeer> + Clone,
        nodes: impl Iterator<Item = &'a Node>,
        live_speakers: Option<&LiveSpeakers<'a>>,
    ) -> Option<Self> {
        let mut advertisements = advertisements.peekable();
        advertisements.peek()?;
        let advertiser = |node: &'a Node| {
            Advertiser::new(
                node,
                peers.clone(),
                live_speakers.and_then(|live_speakers| live_speakers.of(&node.name)),
            )
        };
        Some(Self {
            advertisements: BgpAdvertisements::new(advertisements, communities),
            nodes: nodes.map(advertiser).collect(),
        })
    }

    /// Returns the BGPAdvertisements.
    pub(super) const fn advertisements(&self) -> &BgpAdvertisements<'a> {
        &self.advertisements
    }

    /// Returns the nodes whose speakers run with gobgpd.
    pub(super) fn advertisers(&self) -> impl Iterator<Item = &Advertiser<'a>> {
        self.nodes.iter().filter(|node| node.runs_gobgpd())
    }

    /// Returns what [`Advertiser::exported_to`] returns for a node, or `None` if no
    /// BGPAdvertisement announces the address.
    pub(super) fn export_from<'v>(
        &self,
        node: &str,
        cluster: &ClusterView<'_>,
        address: IpAddr,
        services: impl Iterator<Item = &'v ServiceView<'v>> + Clone,
    ) -> Option<Result<Export<'a>, Ineligible>> {
        if !self.is_announced(cluster, address, services.clone()) {
            return None;
        }
        let index = self.nodes.binary_search_by(|it| (*it.node.name).cmp(node)).ok()?;
        Some(self.nodes[index].exported_to(cluster, &self.advertisements, address, services))
    }

    /// Returns whether a BGPAdvertisement announces an address.
    fn is_announced<'v>(
        &self,
        cluster: &ClusterView<'_>,
        address: IpAddr,
        mut services: impl Iterator<Item = &'v ServiceView<'v>>,
    ) -> bool {
        services
            .any(|service| !self.advertisements.announcing(cluster, service, address).is_empty())
    }

    /// Returns the nodes that advertise an address, and the BGPPeers that receive it. `services`
    /// are the Services that have the address. Returns `None` if no BGPAdvertisement announces the
    /// address.
    pub(super) fn export_of<'v>(
        &self,
        cluster: &ClusterView<'_>,
        address: IpAddr,
        services: impl Iterator<Item = &'v ServiceView<'v>> + Clone,
    ) -> Option<BgpExport<'a>> {
        if !self.is_announced(cluster, address, services.clone()) {
            return None;
        }
        let mut export = BgpExport::default();
        for advertiser in &self.nodes {
            match advertiser.exported_to(cluster, &self.advertisements, address, services.clone()) {
                Ok((peers, targets)) if peers.is_empty() => {
                    export.nodes_without_session.push(&advertiser.node.name);
                    export.missing_peers.extend(targets.peers);
                }
                Ok((peers, targets)) => {
                    let nodes = if targets.de_preferred {
                        &mut export.depreferred_nodes
                    } else {
                        &mut export.preferred_nodes
                    };
                    nodes.push(&advertiser.node.name);
                    export.peers.extend(peers);
                    export.overridden.extend(targets.overridden);
                }
                Err(cause) => *export.not_advertised.entry(cause).or_default() += 1,
            }
        }
        Some(export)
    }
}
