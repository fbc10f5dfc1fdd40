//! Whether a node can serve a Service: one pure function for announcing, conditions, metrics and the CLI.

use crate::facts::{Endpoint, Policy, Usable};
use crate::range::Family;

/// What a node's endpoints make of it for one Service, the best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// It can serve, by endpoints that are there to stay.
    Ready,
    /// It can serve for now: `Local` policy, and the only usable endpoints here are terminating.
    Terminating,
    /// `Local` policy, and the node says that of a family none of its usable endpoints passes the Service's health check: it serves only
    /// where nobody else does.
    Failing,
    /// `Local` policy, and no usable endpoint on this node.
    NoLocalEndpoint,
    /// No usable endpoint anywhere.
    NoEndpoint,
}

impl Verdict {
    /// Every one.
    pub const ALL: [Self; 5] = [Self::Ready, Self::Terminating, Self::Failing, Self::NoLocalEndpoint, Self::NoEndpoint];

    /// Whether the node can serve.
    #[must_use]
    pub const fn serves(self) -> bool {
        matches!(self, Self::Ready | Self::Terminating | Self::Failing)
    }

    /// Its name in metrics and in `/state`.
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

/// The usable endpoints of one family.
#[derive(Clone, Copy, Default)]
struct Found {
    anywhere: bool,
    here: bool,
    stays_here: bool,
}

impl Found {
    const fn verdict(self, policy: Policy, failing: bool) -> Verdict {
        match (policy, self) {
            (_, Self { anywhere: false, .. }) => Verdict::NoEndpoint,
            (Policy::Local, Self { here: false, .. }) => Verdict::NoLocalEndpoint,
            (Policy::Local, _) if failing => Verdict::Failing,
            (Policy::Cluster, _) | (Policy::Local, Self { stays_here: true, .. }) => Verdict::Ready,
            (Policy::Local, Self { stays_here: false, .. }) => Verdict::Terminating,
        }
    }
}

/// The verdict on `node` for a Service of this policy, whose announced addresses are of these `families`, given the endpoints of all
/// its slices, which of them count, and of which families the node says that none of its own passes its health check.
///
/// kube-proxy forwards an address to endpoints of its own family only, so the worst family decides. One that has no usable endpoint
/// anywhere is served by no node, and keeps none off the wire while another family has one.
pub fn verdict<'a>(
    policy: Policy,
    usable: Usable,
    families: impl IntoIterator<Item = Family>,
    node: &str,
    endpoints: impl IntoIterator<Item = &'a Endpoint>,
    failing: &[Family],
) -> Verdict {
    let mut found = [Found::default(); 2];
    for endpoint in endpoints.into_iter().filter(|endpoint| usable.takes(endpoint)) {
        let here = endpoint.node.as_deref() == Some(node);
        let found = &mut found[endpoint.family as usize];
        found.anywhere = true;
        found.here |= here;
        found.stays_here |= here && !endpoint.terminating;
    }
    let verdicts = families.into_iter().map(|family| found[family as usize].verdict(policy, failing.contains(&family)));
    verdicts.filter(|verdict| *verdict != Verdict::NoEndpoint).max().unwrap_or(Verdict::NoEndpoint)
}

#[cfg(test)]
mod tests;
