//! The routers to which a node advertises an address, computed from the API objects and the session
//! states that the node's speaker reports. Pure functions.
//!
//! A speaker does not report the addresses that it advertises by BGP, because every node would
//! report the same addresses, up to 10,000. The addresses follow from the API objects, and an
//! established session carries their routes.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ferrolb_proto::facts::{BgpPeer, Node, Speaker};

use super::routes::export_targets;
use super::{BgpAdvertisements, ExportTargets, RouteInput, Sessions, sessions};
use crate::announce::{ClusterView, ServiceView};
use crate::eligibility::Ineligible;

/// A node, its sessions, and the status of its speaker.
#[derive(Debug)]
pub struct Advertiser<'a> {
    /// The node that advertises.
    pub node: &'a Node,
    sessions: Sessions<'a>,
    speaker: Option<&'a Speaker>,
}

impl<'a> Advertiser<'a> {
    /// Selects the sessions of a node from these BGPPeers. `speaker` is the status of the node's
    /// speaker; `None` if the speaker has failed or never existed.
    pub fn new(
        node: &'a Node,
        peers: impl IntoIterator<Item = &'a BgpPeer>,
        speaker: Option<&'a Speaker>,
    ) -> Self {
        Self { node, sessions: sessions(peers, &node.labels), speaker }
    }

    /// Returns the BGPPeers to whose routers the node advertises an address, and the export
    /// targets. `services` are the Services that have the address.
    ///
    /// # Errors
    /// Returns the reason why the node should not or cannot advertise the address to any router.
    pub fn exported_to<'v>(
        &self,
        view: &ClusterView<'_>,
        advertisements: &BgpAdvertisements<'a>,
        address: IpAddr,
        services: impl IntoIterator<Item = &'v ServiceView<'v>>,
    ) -> Result<(BTreeSet<&'a str>, ExportTargets<'a>), Ineligible> {
        let draining = self.speaker.is_some_and(|speaker| speaker.draining);
        let input = self.route_input(advertisements, draining);
        let targets = export_targets(view, &input, address, services)?;
        let bgp =
            self.speaker.ok_or(Ineligible::NoSpeaker)?.bgp.as_ref().ok_or(Ineligible::NoGobgpd)?;
        let is_established =
            |name: &&str| bgp.iter().any(|session| session.established && *session.peer == **name);
        let peers = targets.peers.iter().copied().filter(is_established).collect();
        Ok((peers, targets))
    }

    /// Returns the input from which the routes of the node follow. `draining` is true if the node
    /// is in announcement drain.
    #[must_use]
    pub fn route_input<'s>(
        &'s self,
        advertisements: &'s BgpAdvertisements<'a>,
        draining: bool,
    ) -> RouteInput<'a, 's> {
        let is_unhealthy = |speaker: &Speaker| speaker.kube_proxy_issue().is_some();
        RouteInput {
            node: self.node,
            sessions: &self.sessions,
            advertisements,
            unhealthy: draining || self.speaker.is_some_and(is_unhealthy),
        }
    }

    /// Returns whether the speaker runs with gobgpd.
    #[must_use]
    pub fn runs_gobgpd(&self) -> bool {
        self.speaker.is_some_and(|speaker| speaker.bgp.is_some())
    }
}
