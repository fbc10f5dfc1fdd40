//! Whether a node can serve a Service: one pure function for announcing, conditions, metrics and the CLI.

use crate::facts::{Endpoint, Policy};

/// What a node's endpoints make of it for one Service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It can serve: by ready endpoints.
    Ready,
    /// `Local` policy, and the node says that none of its usable endpoints passes the Service's health check: it serves only where nobody
    /// else does.
    Failing,
    /// It can serve for now: `Local` policy, and the only usable endpoints here are terminating.
    Terminating,
    /// `Local` policy, and no usable endpoint on this node.
    NoLocalEndpoint,
    /// No usable endpoint anywhere.
    NoEndpoint,
}

impl Verdict {
    /// Whether the node can serve.
    #[must_use]
    pub const fn serves(self) -> bool {
        matches!(self, Self::Ready | Self::Terminating | Self::Failing)
    }
}

/// Usable: ready, or serving while terminating (KEP-1669). With `publishNotReadyAddresses` the API server itself says ready.
#[must_use]
pub const fn usable(endpoint: &Endpoint) -> bool {
    endpoint.ready || (endpoint.serving && endpoint.terminating)
}

/// The verdict on `node` for a Service of this policy, given the endpoints of all its slices, and whether the node says that none of
/// its own passes its health check.
pub fn verdict<'a>(
    policy: Policy,
    node: &str,
    endpoints: impl IntoIterator<Item = &'a Endpoint>,
    failing: bool,
) -> Verdict {
    let (mut anywhere, mut here, mut ready_here) = (false, false, false);
    for endpoint in endpoints.into_iter().filter(|endpoint| usable(endpoint)) {
        let local = endpoint.node.as_deref() == Some(node);
        anywhere = true;
        here |= local;
        ready_here |= local && endpoint.ready;
    }
    match (policy, anywhere, here, ready_here) {
        (_, false, ..) => Verdict::NoEndpoint,
        (Policy::Local, _, true, _) if failing => Verdict::Failing,
        (Policy::Cluster, ..) | (Policy::Local, _, _, true) => Verdict::Ready,
        (Policy::Local, _, true, false) => Verdict::Terminating,
        (Policy::Local, _, false, _) => Verdict::NoLocalEndpoint,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_verdict_follows_policy_and_endpoints() {
        let at = |node: Option<&str>, ready, serving, terminating| Endpoint {
            node: node.map(Into::into),
            ready,
            serving,
            terminating,
        };
        let ready = |node| at(Some(node), true, true, false);
        let (dead, leaving) = (at(Some("a"), false, false, true), at(Some("a"), false, true, true));
        let failing = at(Some("a"), false, true, false);
        let nowhere = at(None, true, true, false);
        let cases = [
            (vec![], Verdict::NoEndpoint, Verdict::NoEndpoint),
            (vec![ready("a")], Verdict::Ready, Verdict::Ready),
            (vec![ready("b")], Verdict::Ready, Verdict::NoLocalEndpoint),
            (vec![dead.clone()], Verdict::NoEndpoint, Verdict::NoEndpoint),
            (vec![failing], Verdict::NoEndpoint, Verdict::NoEndpoint),
            (vec![leaving.clone()], Verdict::Ready, Verdict::Terminating),
            (vec![leaving, ready("a")], Verdict::Ready, Verdict::Ready),
            (vec![nowhere], Verdict::Ready, Verdict::NoLocalEndpoint),
            (vec![dead, ready("b")], Verdict::Ready, Verdict::NoLocalEndpoint),
        ];
        for (endpoints, cluster, local) in cases {
            for (policy, expected) in [(Policy::Cluster, cluster), (Policy::Local, local)] {
                assert_eq!(verdict(policy, "a", &endpoints, false), expected, "{policy:?} {endpoints:?}");
            }
        }
    }
}
