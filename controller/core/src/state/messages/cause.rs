//! The causes why nodes cannot announce an address, and the number of nodes per cause. Pure.

use std::borrow::Cow;
use std::collections::BTreeMap;

use ferrolb_core::eligibility::Ineligible;
use ferrolb_proto::facts::TrafficPolicy;

use super::{NAMED_MAX, Names, NamesWithCount};

/// Placeholder for the name of a node in a command.
const ANY_NODE: &str = "NODE";

/// The causes that exclude nodes, each with the number of these nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::state) struct Causes<'a> {
    pub(in crate::state) counts: BTreeMap<Ineligible, usize>,
    /// `externalTrafficPolicy` of the Service. With `Cluster`, only another Service that shares the
    /// address can exclude a node without a local endpoint.
    pub(in crate::state) policy: TrafficPolicy,
    /// The first node that has the cause [`Ineligible::NoInterface`], and the interfaces that its
    /// speaker reports.
    pub(in crate::state) interfaces: Option<(&'a str, Vec<&'a str>)>,
    /// The L2Advertisements of the address; empty for BGP.
    pub(in crate::state) advertisements: Vec<&'a str>,
    /// With `externalTrafficPolicy: Local`, the place of the eligible endpoints.
    pub(in crate::state) endpoints: Option<LocalEndpoints<'a>>,
}

/// Place of the eligible endpoints of a Service with `externalTrafficPolicy: Local`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::state) enum LocalEndpoints<'a> {
    /// The endpoints have no `nodeName`, so no node has a local endpoint.
    WithoutNodeName,
    /// The endpoints are on a node that cannot announce the address for this cause.
    On(&'a str, Ineligible),
}

impl Causes<'_> {
    /// Counts one node for a cause.
    pub(in crate::state) fn count(&mut self, cause: Ineligible) {
        *self.counts.entry(cause).or_default() += 1;
    }

    /// Returns the number of nodes for each cause, and the remedy for the node with the endpoints,
    /// or for the most frequent cause.
    pub(in crate::state) fn text(&self, names: &Names) -> String {
        let total: usize = self.counts.values().sum();
        let mut text = format!("of {total} node{}, ", if total == 1 { "" } else { "s" });
        for (i, (cause, count)) in self.counts.iter().enumerate() {
            text.push_str(&format!(
                "{}{count} {}",
                if i > 0 { ", " } else { "" },
                phrase(*cause, self.policy)
            ));
            if let (Ineligible::NoInterface, Some((node, interfaces))) = (cause, &self.interfaces) {
                let interfaces = NamesWithCount(interfaces, NAMED_MAX);
                text.push_str(&format!(" ({node} has {interfaces})"));
            }
        }
        match self.endpoints {
            Some(LocalEndpoints::WithoutNodeName) => {
                return text + ". The eligible endpoints have no nodeName, so they are on no node";
            }
            Some(LocalEndpoints::On(node, cause)) => {
                return format!(
                    "{text}. Endpoints are on {node}: {}",
                    self.remedy(cause, names, node)
                );
            }
            None => {}
        }
        // The message ends with the remedy for the most frequent cause. If several causes are
        // equally frequent, the first one counts.
        let most = self.counts.iter().rev().max_by_key(|(_, count)| **count);
        let remedy = |cause: &Ineligible| format!(": {}", self.remedy(*cause, names, ANY_NODE));
        text + &most.map_or_else(String::new, |(cause, _)| remedy(cause))
    }

    /// Returns the command or the change that helps to make a node eligible.
    fn remedy(&self, cause: Ineligible, names: &Names, node: &str) -> Cow<'static, str> {
        Cow::Borrowed(match (cause, self.policy) {
            (Ineligible::Unreachable, _) => "see `kubectl describe nodes`",
            (Ineligible::Excluded, _) => {
                return Cow::Owned(format!(
                    "`kubectl label node {node} \
                     node.kubernetes.io/exclude-from-external-load-balancers-` removes the label"
                ));
            }
            (Ineligible::NotSelected, _) if !self.advertisements.is_empty() => {
                return Cow::Owned(format!(
                    "change spec.nodeSelectors of L2Advertisement {}",
                    NamesWithCount(&self.advertisements, NAMED_MAX)
                ));
            }
            (Ineligible::NotSelected, _) => "change spec.nodeSelectors of an advertisement",
            (Ineligible::NoLocalEndpoint, TrafficPolicy::Local) => {
                "run pods there, or set spec.externalTrafficPolicy to Cluster"
            }
            (Ineligible::NoLocalEndpoint, TrafficPolicy::Cluster) => {
                "check the endpoints of all Services that share the address"
            }
            (Ineligible::NoEndpoint, _) => "check the endpoints of the Service",
            (Ineligible::NoInterface, _) => "change spec.interfaces of the L2Advertisement",
            (Ineligible::NoIpv6, _) => {
                "set the sysctl net.ipv6.conf.INTERFACE.disable_ipv6 to 0 there"
            }
            (Ineligible::NoRouter, _) => {
                "change spec.nodeSelectors of a BGPPeer, or spec.peers of the BGPAdvertisement"
            }
            (Ineligible::TooManyCommunities, _) => "remove some from spec.communities",
            (Ineligible::NoSpeaker, _) => {
                return Cow::Owned(format!("see {}", names.describe_speakers()));
            }
            (Ineligible::NoGobgpd, _) => {
                "install gobgpd with deploy/install-bgp.yaml or the Helm value bgp.enabled=true"
            }
        })
    }
}

/// Returns why a node cannot announce an address, as a phrase after the node. `policy` is the one
/// of the Service.
pub(in crate::state) const fn phrase(cause: Ineligible, policy: TrafficPolicy) -> &'static str {
    match (cause, policy) {
        (Ineligible::Unreachable, _) => "out of service or without network",
        (Ineligible::Excluded, _) => "labeled exclude-from-external-load-balancers",
        (Ineligible::NotSelected, _) => "not selected by an advertisement",
        (Ineligible::NoLocalEndpoint, TrafficPolicy::Local) => {
            "without eligible endpoint (externalTrafficPolicy Local)"
        }
        (Ineligible::NoLocalEndpoint, TrafficPolicy::Cluster) => {
            "without eligible endpoint of a Service that shares the address"
        }
        (Ineligible::NoEndpoint, _) => "without eligible endpoint",
        (Ineligible::NoInterface, _) => {
            "without an active interface that an L2Advertisement selects"
        }
        (Ineligible::NoIpv6, _) => "without an IPv6 address on the interface",
        (Ineligible::NoRouter, _) => "without a BGPPeer that the BGPAdvertisement selects",
        (Ineligible::TooManyCommunities, _) => {
            "with more communities than a route can carry, from all advertisements together"
        }
        (Ineligible::NoSpeaker, _) => "without a live speaker",
        (Ineligible::NoGobgpd, _) => "whose speaker has no --gobgp",
    }
}
