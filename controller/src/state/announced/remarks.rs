//! What a person should know beside who announces a Service: which health checks fail, what was not understood, and why a node that is
//! not sound is the one. Pure; always in the same order, and of many only some are named.

use std::collections::BTreeSet;

use ferrolb_proto::facts::{Endpoint, Failing, Policy, Speaker};
use ferrolb_proto::range::Family;

use super::finding::{Case, some};
use crate::state::service::join;

/// Nodes or endpoints that a remark names.
const NAMED_MAX: usize = 3;

/// What is to be said beside where a Service is announced.
#[derive(Debug, Default)]
pub(super) struct Remarks {
    pub(super) all: Vec<String>,
    /// A node that is not sound announces it. If a better one is there that ends by itself, within a second.
    pub(super) hindered: bool,
}

/// Endpoints that fail their health check.
struct Failure {
    text: String,
    /// There are no others.
    everywhere: bool,
}

impl Case<'_> {
    /// What is to be said; `announced`: all its addresses are.
    pub(super) fn remarks(&self, announced: bool) -> Remarks {
        let problems: Vec<_> = self.service.endpoint_problems().collect();
        let by_readiness = (!problems.is_empty()).then(|| "endpoints are judged by readiness alone".to_owned());
        let problems = problems.into_iter().chain(by_readiness);
        if !announced {
            return Remarks { all: problems.collect(), hindered: false };
        }
        let families = [Family::V4, Family::V6].into_iter();
        let failing: Vec<_> = families.filter_map(|family| Some((family, self.failing(family)?))).collect();
        let everywhere: Vec<_> = failing.iter().filter(|(_, it)| it.everywhere).map(|(family, _)| *family).collect();
        let hindered = self.hindered(&everywhere);
        let unlabelled = self
            .scene
            .ignores_label()
            .then(|| "every node is labelled exclude-from-external-load-balancers, so the label is ignored".to_owned());
        let is_hindered = hindered.is_some();
        let first = failing.into_iter().map(|(_, failing)| failing.text).chain(self.unserved());
        Remarks { all: first.chain(problems).chain(hindered).chain(unlabelled).collect(), hindered: is_hindered }
    }

    /// Its endpoints that count.
    pub(super) fn usable(&self) -> impl Iterator<Item = &Endpoint> {
        self.endpoints.iter().copied().filter(|endpoint| self.service.usable.takes(endpoint))
    }

    /// Whether it has an endpoint that counts to which kube-proxy forwards addresses of a family.
    pub(super) fn is_served(&self, family: Family) -> bool {
        self.usable().any(|endpoint| endpoint.family == family)
    }

    /// What fails of a family that has an address here.
    fn failing(&self, family: Family) -> Option<Failure> {
        let has = |family| self.service.announceable().any(|address| Family::of(address) == family);
        let usable = self.usable().filter(|endpoint| endpoint.family == family && has(family));
        let nodes: BTreeSet<_> = usable.map(|endpoint| endpoint.node.as_deref()).collect();
        // What a speaker says of endpoints that are gone is old.
        let is_so = |(node, failing): &(&str, &Failing)| failing.family == family && nodes.contains(&Some(*node));
        let failing = self.voices?.failing(&self.service.key).filter(is_so);
        let (names, why): (Vec<_>, Vec<_>) = failing.map(|(node, failing)| (node, &*failing.why)).unzip();
        if names.is_empty() {
            return None;
        }
        let passes = |node: &Option<&str>| match node {
            Some(node) => !names.contains(node),
            // Nobody checks what is on no node.
            None => self.service.policy == Policy::Cluster,
        };
        let everywhere = !nodes.iter().any(passes);
        let (names, why) = (some(&names, NAMED_MAX), some(&why, NAMED_MAX));
        // Where there is one family, nobody has to be told which.
        let which = if has(Family::V4) && has(Family::V6) { format!("{family} ") } else { String::new() };
        let text = if everywhere {
            let decides = match self.service.policy {
                Policy::Local => ": readiness alone decides where it is announced",
                Policy::Cluster => "",
            };
            format!("no {which}endpoint passes its health check ({why}){decides}")
        } else {
            format!("of its {which}endpoints on {names} none passes its health check ({why})")
        };
        Some(Failure { text, everywhere })
    }

    /// A family without endpoints, while the other has some.
    fn unserved(&self) -> Option<String> {
        let (served, unserved): (Vec<_>, Vec<_>) =
            self.service.announceable().partition(|address| self.is_served(Family::of(*address)));
        let first = unserved.first().filter(|_| !served.is_empty())?;
        Some(format!("no {} endpoint is usable: nothing is behind {}", Family::of(*first), join(&unserved)))
    }

    /// The nodes that announce it although they say themselves that others should; of which families all endpoints fail was said.
    fn hindered(&self, everywhere: &[Family]) -> Option<String> {
        let voices = self.voices?;
        let owners = self.service.announceable().flat_map(|address| voices.owners(address).all);
        let owners: BTreeSet<_> = owners.map(|owner| owner.node).collect();
        let others_pass = |address| !everywhere.contains(&Family::of(address));
        let fails = |node| self.group.as_ref().is_some_and(|group| group.failing_on(node).any(others_pass));
        let hindrance = |node| voices.of(node).and_then(|speaker| hindrance(speaker, fails(node)));
        let hindered: Vec<_> = owners.into_iter().filter_map(hindrance).collect();
        (!hindered.is_empty()).then(|| format!("{}, and no better one takes it", some(&hindered, NAMED_MAX)))
    }
}

/// Why another node should announce in the place of this one, the worst first.
fn hindrance(speaker: &Speaker, fails: bool) -> Option<String> {
    let why = match speaker.broken() {
        _ if fails => "endpoints on it fail their health check".to_owned(),
        _ if speaker.draining => "it is draining".to_owned(),
        Some("") => "its data path does not work".to_owned(),
        Some(why) => format!("its data path does not work ({why})"),
        None => return None,
    };
    Some(format!("{} announces it although {why}", speaker.node))
}
