//! The hard rules that can be read off the API: which nodes may announce. Pure. What the wire adds (a speaker is heard, the
//! link is up) is the claim machine's.

use std::net::IpAddr;

use ferrolb_proto::election::{Candidate, order};
use ferrolb_proto::facts::{Advertisement, Endpoint, Node, Service};
use ferrolb_proto::verdict::{Verdict, verdict};

use crate::state::State;

/// Whether the exclude label is ignored because every Node carries it, as on a fresh cluster of one node.
pub(super) fn exclusion_ignored(state: &State) -> bool {
    !state.config.ignore_exclude_label
        && state.nodes.values().next().is_some()
        && state.nodes.values().all(|node| node.excluded)
}

/// One Service with the endpoints of all its slices.
pub(super) struct Served<'a> {
    pub(super) service: &'a Service,
    pub(super) endpoints: Vec<&'a Endpoint>,
}

impl Served<'_> {
    pub(super) fn verdict(&self, node: &str) -> Verdict {
        verdict(self.service, node, self.endpoints.iter().copied())
    }
}

/// The nodes that may announce a unit: they can serve all its Services, and each of its addresses has an advertisement (in
/// `advertised`, a list for each address) that selects them. `first` is the address that decides the order among them.
pub(super) fn candidates(
    state: &State,
    services: &[Served<'_>],
    advertised: &[Vec<&Advertisement>],
    first: IpAddr,
) -> Vec<Candidate> {
    let honor_label = !state.config.ignore_exclude_label && !exclusion_ignored(state);
    let candidate = |node: &Node| {
        let excluded = honor_label && node.excluded;
        let may = !excluded
            && !node.unreachable
            && advertised.iter().all(|ads| ads.iter().any(|ad| ad.selects_node(&node.labels)));
        if !may {
            return None;
        }
        let verdicts = services.iter().map(|served| served.verdict(&node.name));
        let terminating = verdicts.map(|v| v.serves().then_some(v == Verdict::Terminating));
        // None as soon as one Service cannot be served.
        let terminating = terminating.collect::<Option<Vec<_>>>()?.contains(&true);
        Some(Candidate {
            node: node.name.clone(),
            cordoned: node.cordoned || !node.ready,
            terminating,
            preference: 0,
            order: order(&node.name, first),
        })
    };
    state.nodes.values().filter_map(candidate).collect()
}
