//! The answer to the question whether a node may announce an address, as far as Kubernetes objects
//! and health checks decide it. Pure functions. BGP and the condition `Announced` use
//! [`eligibility`], and layer 2 and the metrics use its part [`serving`], so that they agree.
//!
//! The Services that have the address and that an advertisement selects decide together. A node
//! must be able to serve each of them that has an eligible endpoint of the address's family on any
//! node. A Service without such an endpoint excludes no node, because no node can serve it.

use std::net::IpAddr;

use ferrolb_proto::facts::{Endpoint, EndpointCondition, Node, TrafficPolicy};
use ferrolb_proto::range::Family;

use crate::announce::{ClusterView, ServiceView};

/// Ability of an eligible node to serve an address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Serving {
    /// True if one of the Services has `externalTrafficPolicy: Local`, and all its eligible
    /// endpoints of the family on the node are terminating.
    pub terminating: bool,
    /// True if one of the Services has `externalTrafficPolicy: Local`, and all its eligible
    /// endpoints of the family on the node fail their health check, as the node reports. The node
    /// serves only if no other node can.
    pub failing: bool,
}

/// Reason why a node may not or cannot announce an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ineligible {
    /// The Node has the condition `NetworkUnavailable`, or the taint for nodes that are out of
    /// service.
    Unreachable,
    /// The node has the exclude label.
    Excluded,
    /// No advertisement that announces the address selects the node.
    NotSelected,
    /// One of the Services has eligible endpoints of the address's family, but none on this node.
    NoLocalEndpoint,
    /// None of the Services has an eligible endpoint of the address's family on any node.
    NoEndpoint,
    /// Layer 2: the node has no interface in use that an advertisement selects.
    NoInterface,
    /// Layer 2: no interface of the node that could announce the IPv6 address has IPv6.
    NoIpv6,
    /// BGP: no BGPPeer fulfills all three conditions: the BGPPeer selects the node and accepts the
    /// address's family, and an advertisement selects the BGPPeer.
    NoRouter,
    /// BGP: the advertisements together have more communities than a route may carry.
    TooManyCommunities,
    /// No live speaker runs on the node.
    NoSpeaker,
    /// BGP: the speaker on the node runs without gobgpd.
    NoGobgpd,
}

/// Nodes with eligible endpoints of a Service, by family.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EligibleEndpoints([FamilyEndpoints; 2]);

/// Nodes with eligible endpoints of one family.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct FamilyEndpoints {
    /// True if an eligible endpoint exists, with or without a node.
    exist: bool,
    /// With `externalTrafficPolicy: Local`, the nodes with eligible endpoints, ascending, each with
    /// whether all its endpoints are terminating. `None` with `Cluster`, where every node serves.
    by_node: Option<Vec<(Box<str>, bool)>>,
}

impl EligibleEndpoints {
    /// Selects the eligible endpoints of a Service with this policy. `endpoints` are those of all
    /// its EndpointSlices, and `condition` decides which of them are eligible.
    pub fn new<'e>(
        policy: TrafficPolicy,
        condition: EndpointCondition,
        endpoints: impl IntoIterator<Item = &'e Endpoint>,
    ) -> Self {
        let by_node = || (policy == TrafficPolicy::Local).then(Vec::new);
        let family = || FamilyEndpoints { exist: false, by_node: by_node() };
        let mut selected = Self([family(), family()]);
        for endpoint in endpoints.into_iter().filter(|endpoint| condition.accepts(endpoint)) {
            let family = &mut selected.0[endpoint.family as usize];
            family.exist = true;
            if let (Some(by_node), Some(node)) = (&mut family.by_node, &endpoint.node) {
                match by_node.binary_search_by(|(name, _)| name.cmp(node)) {
                    Ok(index) => by_node[index].1 &= endpoint.terminating,
                    Err(index) => by_node.insert(index, (node.clone(), endpoint.terminating)),
                }
            }
        }
        selected
    }

    /// Returns whether the Service has an eligible endpoint of a family on any node.
    #[must_use]
    pub const fn exist(&self, family: Family) -> bool {
        self.0[family as usize].exist
    }

    /// Returns the nodes with eligible endpoints of a family, ascending, each with whether all its
    /// endpoints are terminating. Returns `None` if the Service excludes no node: its policy is
    /// `Cluster`, or it has no eligible endpoint of the family.
    pub fn local(&self, family: Family) -> Option<&[(Box<str>, bool)]> {
        let FamilyEndpoints { exist, by_node } = &self.0[family as usize];
        by_node.as_deref().filter(|_| *exist)
    }

    /// Returns whether all endpoints of a family have left their nodes, of which `node` is one, and
    /// only other nodes have endpoints now. Never true with the policy `Cluster`.
    #[must_use]
    pub fn have_left(&self, node: &str, now: &Self, family: Family) -> bool {
        let before = self.local(family).unwrap_or_default();
        let now = now.local(family).unwrap_or_default();
        let stays = |(name, _): &(Box<str>, bool)| now.iter().any(|(other, _)| other == name);
        before.iter().any(|(name, _)| **name == *node)
            && !now.is_empty()
            && !before.iter().any(stays)
    }

    /// Returns how a node can serve the Service's addresses of a family. `failing` is true if the
    /// node reports that all its endpoints of the family fail their health check.
    ///
    /// # Errors
    /// Returns [`Ineligible::NoEndpoint`] or [`Ineligible::NoLocalEndpoint`].
    fn serving(&self, family: Family, node: &str, failing: bool) -> Result<Serving, Ineligible> {
        let FamilyEndpoints { exist, by_node } = &self.0[family as usize];
        match by_node {
            _ if !exist => Err(Ineligible::NoEndpoint),
            None => Ok(Serving::default()),
            Some(by_node) => match by_node.binary_search_by(|(name, _)| (**name).cmp(node)) {
                Ok(index) => Ok(Serving { terminating: by_node[index].1, failing }),
                Err(_) => Err(Ineligible::NoLocalEndpoint),
            },
        }
    }
}

impl ServiceView<'_> {
    /// Returns how a node can serve an address of this Service.
    fn serving(&self, address: IpAddr, node: &str) -> Result<Serving, Ineligible> {
        let family = Family::of(address);
        self.endpoints.serving(family, node, self.failing_on.contains(&(node, family)))
    }
}

/// Returns how a node may announce an address. `services` are the Services that have the address
/// and that an advertisement selects. `is_selected` is true if such an advertisement selects the
/// node, too.
///
/// # Errors
/// Returns the first reason why the node may not announce the address, in the order of the variants
/// of [`Ineligible`].
pub fn eligibility<'s>(
    view: &ClusterView<'_>,
    node: &Node,
    is_selected: bool,
    address: IpAddr,
    services: impl IntoIterator<Item = &'s ServiceView<'s>>,
) -> Result<Serving, Ineligible> {
    if let Some(reason) = view.ineligible(node) {
        return Err(reason);
    }
    if !is_selected {
        return Err(Ineligible::NotSelected);
    }
    serving(address, &node.name, services)
}

/// Returns how a node can serve an address of all these Services.
///
/// # Errors
/// Returns [`Ineligible::NoLocalEndpoint`] or [`Ineligible::NoEndpoint`].
pub fn serving<'s>(
    address: IpAddr,
    node: &str,
    services: impl IntoIterator<Item = &'s ServiceView<'s>>,
) -> Result<Serving, Ineligible> {
    let mut all = Err(Ineligible::NoEndpoint);
    for service in services {
        match service.serving(address, node) {
            Ok(Serving { terminating, failing }) => {
                let before: Serving = all.unwrap_or_default();
                all = Ok(Serving {
                    terminating: before.terminating || terminating,
                    failing: before.failing || failing,
                });
            }
            Err(Ineligible::NoEndpoint) => {}
            Err(reason) => return Err(reason),
        }
    }
    all
}

#[cfg(test)]
mod tests;
