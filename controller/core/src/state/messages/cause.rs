//! The causes why nodes cannot announce an address, and the number of nodes per cause. Pure.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::{self, Display};

use super::{NAMED_MAX, Names, NamesWithCount};

/// Placeholder for the name of a node in a command.
const ANY_NODE: &str = "NODE";

/// Cause why a node cannot announce an address. A message lists the causes in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::state) enum Cause {
    /// The node's network is unavailable, or the node is out of service.
    Unreachable,
    Excluded,
    NotSelected,
    /// With `externalTrafficPolicy: Local`: the node has no eligible endpoint.
    NoLocalEndpoint,
    /// A Service that shares the address has no eligible endpoint for this node.
    NoSharedEndpoint,
    NoEndpoint,
    NoInterface,
    /// No interface of the node that could announce the IPv6 address has IPv6.
    NoIpv6,
    NoPeer,
    TooManyCommunities,
    NoSpeaker,
    NoGobgpd,
}

/// The causes that exclude nodes, each with the number of these nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::state) struct Causes<'a> {
    pub(in crate::state) counts: BTreeMap<Cause, usize>,
    /// The first node that has the cause [`Cause::NoInterface`], and the interfaces that its
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
    On(&'a str, Cause),
}

impl Causes<'_> {
    /// Counts one node for a cause.
    pub(in crate::state) fn count(&mut self, cause: Cause) {
        *self.counts.entry(cause).or_default() += 1;
    }

    /// Returns the number of nodes for each cause, and the remedy for the node with the endpoints,
    /// or for the most frequent cause.
    pub(in crate::state) fn text(&self, names: &Names) -> String {
        let total: usize = self.counts.values().sum();
        let mut text = format!("of {total} node{}, ", if total == 1 { "" } else { "s" });
        for (i, (cause, count)) in self.counts.iter().enumerate() {
            text.push_str(&format!("{}{count} {cause}", if i > 0 { ", " } else { "" }));
            if let (Cause::NoInterface, Some((node, interfaces))) = (cause, &self.interfaces) {
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
        let remedy = |cause: &Cause| format!(": {}", self.remedy(*cause, names, ANY_NODE));
        text + &most.map_or_else(String::new, |(cause, _)| remedy(cause))
    }

    /// Returns the command or the change that helps to make a node eligible.
    fn remedy(&self, cause: Cause, names: &Names, node: &str) -> Cow<'static, str> {
        match (cause, &*self.advertisements) {
            (Cause::NotSelected, [_, ..]) => Cow::Owned(format!(
                "change spec.nodeSelectors of L2Advertisement {}",
                NamesWithCount(&self.advertisements, NAMED_MAX)
            )),
            _ => cause.remedy(names, node),
        }
    }
}

impl Cause {
    /// Returns the command or the change that helps to make a node eligible.
    fn remedy(self, names: &Names, node: &str) -> Cow<'static, str> {
        Cow::Borrowed(match self {
            Self::Unreachable => "see `kubectl describe nodes`",
            Self::Excluded => {
                return Cow::Owned(format!(
                    "`kubectl label node {node} \
                     node.kubernetes.io/exclude-from-external-load-balancers-` removes the label"
                ));
            }
            Self::NotSelected => "change spec.nodeSelectors of an advertisement",
            Self::NoLocalEndpoint => "run pods there, or set spec.externalTrafficPolicy to Cluster",
            Self::NoSharedEndpoint => "check the endpoints of all Services that share the address",
            Self::NoEndpoint => "check the endpoints of the Service",
            Self::NoInterface => "change spec.interfaces of the L2Advertisement",
            Self::NoIpv6 => "set the sysctl net.ipv6.conf.INTERFACE.disable_ipv6 to 0 there",
            Self::NoPeer => {
                "change spec.nodeSelectors of a BGPPeer, or spec.peers of the BGPAdvertisement"
            }
            Self::TooManyCommunities => "remove some from spec.communities",
            Self::NoSpeaker => return Cow::Owned(format!("see {}", names.describe_speakers())),
            Self::NoGobgpd => {
                "install gobgpd with deploy/install-bgp.yaml or the Helm value bgp.enabled=true"
            }
        })
    }
}

impl Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unreachable => "out of service or without network",
            Self::Excluded => "labeled exclude-from-external-load-balancers",
            Self::NotSelected => "not selected by an advertisement",
            Self::NoLocalEndpoint => "without eligible endpoint (externalTrafficPolicy Local)",
            Self::NoSharedEndpoint => {
                "without eligible endpoint of a Service that shares the address"
            }
            Self::NoEndpoint => "without eligible endpoint",
            Self::NoInterface => "without an active interface that an L2Advertisement selects",
            Self::NoIpv6 => "without an IPv6 address on the interface",
            Self::NoPeer => "without a BGPPeer that the BGPAdvertisement selects",
            Self::TooManyCommunities => {
                "with more communities than a route can carry, from all advertisements together"
            }
            Self::NoSpeaker => "without a live speaker",
            Self::NoGobgpd => "whose speaker has no --gobgp",
        })
    }
}
