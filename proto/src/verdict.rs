//! Verdict on whether a node can serve a Service. Announcements, conditions and metrics use
//! the same pure function, so that they agree.

use crate::facts::{Endpoint, EndpointCondition, TrafficPolicy};
use crate::range::Family;

/// Ability of a node to serve one Service, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// The node can serve. With `Local` policy, at least one eligible endpoint on the node is not
    /// terminating.
    Ready,
    /// The node can serve, but with `Local` policy, all eligible endpoints of a family on the node
    /// are terminating.
    Terminating,
    /// With `Local` policy, all eligible endpoints of a family on the node fail the Service's
    /// health check, as the node reports. The node serves only if no other node can.
    Failing,
    /// With `Local` policy, the node has no eligible endpoint of a family, but another node has
    /// one.
    NoLocalEndpoint,
    /// The Service has no eligible endpoint on any node.
    NoEndpoint,
}

impl Verdict {
    /// All verdicts, best first.
    pub const ALL: [Self; 5] =
        [Self::Ready, Self::Terminating, Self::Failing, Self::NoLocalEndpoint, Self::NoEndpoint];

    /// Returns whether a node with this verdict can serve the Service.
    #[must_use]
    pub const fn can_serve(self) -> bool {
        matches!(self, Self::Ready | Self::Terminating | Self::Failing)
    }

    /// Returns the name of the verdict in metrics and in `/state`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Terminating => "terminating",
            Self::Failing => "failing",
            Self::NoLocalEndpoint => "no_local_endpoint",
            Self::NoEndpoint => "no_endpoint",
        }
    }
}

/// Locations of a Service's eligible endpoints of one family. The fields are true if at least one
/// endpoint is on any node, on this node, and on this node without terminating.
#[derive(Clone, Copy, Default)]
struct EligibleEndpoints {
    anywhere: bool,
    here: bool,
    here_not_terminating: bool,
}

impl EligibleEndpoints {
    const fn verdict(self, policy: TrafficPolicy, failing: bool) -> Verdict {
        match (policy, self) {
            (_, Self { anywhere: false, .. }) => Verdict::NoEndpoint,
            (TrafficPolicy::Local, Self { here: false, .. }) => Verdict::NoLocalEndpoint,
            (TrafficPolicy::Local, _) if failing => Verdict::Failing,
            (TrafficPolicy::Cluster, _)
            | (TrafficPolicy::Local, Self { here_not_terminating: true, .. }) => Verdict::Ready,
            (TrafficPolicy::Local, Self { here_not_terminating: false, .. }) => {
                Verdict::Terminating
            }
        }
    }
}

/// Returns the verdict on `node` for a Service with this policy and with announced addresses of
/// these `families`. `endpoints` are the endpoints of all its EndpointSlices, and `condition`
/// decides which of them are eligible. `failing` lists the families whose endpoints on the node all
/// fail their health check, as the node reports.
///
/// kube-proxy forwards an address only to endpoints of the same family, so the worst family
/// decides. A family that has no eligible endpoint on any node does not count if another family has
/// one, so that the addresses of the other family are still announced.
pub fn verdict<'a>(
    policy: TrafficPolicy,
    condition: EndpointCondition,
    families: impl IntoIterator<Item = Family>,
    node: &str,
    endpoints: impl IntoIterator<Item = &'a Endpoint>,
    failing: &[Family],
) -> Verdict {
    let mut found = [EligibleEndpoints::default(); 2];
    for endpoint in endpoints.into_iter().filter(|endpoint| condition.accepts(endpoint)) {
        let here = endpoint.node.as_deref() == Some(node);
        let found = &mut found[endpoint.family as usize];
        found.anywhere = true;
        found.here |= here;
        found.here_not_terminating |= here && !endpoint.terminating;
    }
    let verdicts = families
        .into_iter()
        .map(|family| found[family as usize].verdict(policy, failing.contains(&family)));
    verdicts.filter(|verdict| *verdict != Verdict::NoEndpoint).max().unwrap_or(Verdict::NoEndpoint)
}

#[cfg(test)]
mod tests;
