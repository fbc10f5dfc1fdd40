//! Decides the warnings of a Service: which health checks fail, which annotations are wrong, and
//! which unhealthy or draining nodes announce it. Pure; the order of the warnings is always the
//! same.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ferrolb_core::eligibility::Ineligible;
use ferrolb_proto::facts::{
    Endpoint, FailingHealthCheck, Speaker, TrafficPolicy, UncheckedHealthCheck,
};
use ferrolb_proto::range::Family;

use super::finding::DiagnosisInput;
use crate::state::messages::warning::{Flaw, FlawedOwner, UncheckedEndpoints, Warning};

/// The warnings of a Service.
#[derive(Debug, Default)]
pub(super) struct Warnings<'a> {
    pub(super) all: Vec<Warning<'a>>,
    /// True if a node with a [`Flaw`] announces the Service. If a better node is eligible, that
    /// node takes over within a second.
    pub(super) flawed: bool,
}

impl DiagnosisInput<'_> {
    /// Returns the warnings of the Service. `announced` is true if all its addresses are announced.
    pub(super) fn warnings(&self, announced: bool) -> Warnings<'_> {
        let mut problems: Vec<_> =
            self.service.endpoint_problems().map(Warning::Annotation).collect();
        if !problems.is_empty() {
            problems.push(Warning::ReadinessOnly);
        }
        let silent: Vec<_> =
            self.silent_nodes.iter().copied().filter(|it| self.has_endpoint(it)).collect();
        problems.extend((!silent.is_empty()).then_some(Warning::SilentNodes(silent)));
        problems.extend(self.former_routers());
        if !announced {
            return Warnings { all: problems, flawed: false };
        }
        let families = [Family::V4, Family::V6].into_iter();
        let failing: Vec<_> =
            families.filter_map(|family| Some((family, self.failing(family)?))).collect();
        let everywhere: Vec<_> = failing
            .iter()
            .filter(|(_, warning)| matches!(warning, Warning::AllFail { .. }))
            .map(|(family, _)| *family)
            .collect();
        let flawed = self.flawed(&everywhere);
        // A single node must ignore the label, so nothing could be better there.
        let has_others = || self.cluster.nodes().nth(1).is_some();
        let is_ignored = self.cluster.ignores_label() && has_others();
        let label_ignored = is_ignored.then_some(Warning::LabelIgnored);
        let is_flawed = !flawed.is_empty();
        let flawed = is_flawed.then_some(Warning::Flawed(flawed));
        let first = failing.into_iter().map(|(_, warning)| warning).chain(self.unchecked());
        let outside = self.outside_subnets();
        Warnings {
            all: first.chain(problems).chain(flawed).chain(label_ignored).chain(outside).collect(),
            flawed: is_flawed,
        }
    }

    fn has_endpoint(&self, node: &str) -> bool {
        self.endpoints.iter().any(|endpoint| endpoint.node.as_deref() == Some(node))
    }

    /// Returns the warning about nodes that may still advertise an address for a deleted Service,
    /// and would not for this one.
    fn former_routers(&self) -> Option<Warning<'_>> {
        let bgp = self.bgp?;
        let should_not_advertise = |(address, node): &&(IpAddr, &str)| {
            let services = self.services.of(*address);
            let export = bgp.export_from(node, self.cluster, *address, services);
            !matches!(export, Some(Err(Ineligible::NoSpeaker)))
        };
        let former = self.former_routers.iter().filter(|(_, it)| !self.silent_nodes.contains(it));
        let (addresses, nodes): (BTreeSet<_>, BTreeSet<_>) =
            former.filter(should_not_advertise).copied().unzip();
        let (addresses, nodes) = (addresses.into_iter().collect(), Vec::from_iter(nodes));
        (!nodes.is_empty()).then_some(Warning::FormerRouters { addresses, nodes })
    }

    /// Returns the warning about addresses that are in no subnet of the interfaces that announce
    /// them, unless their pool is routed.
    fn outside_subnets(&self) -> Option<Warning<'_>> {
        let live_speakers = self.live_speakers?;
        let (mut addresses, mut pool_name, mut subnets) = (Vec::new(), None, BTreeSet::new());
        for address in self.service.announceable() {
            let from = self.service.pool_annotation.as_deref();
            let Some(pool) = self.cluster.pool_of(from, address) else { continue };
            if pool.routed {
                continue;
            }
            let Some(known) = live_speakers.subnets_around(address) else { continue };
            if known.iter().any(|subnet| subnet.contains(address)) {
                continue;
            }
            addresses.push(address);
            pool_name = Some(&*pool.name);
            subnets.extend(known.iter().map(ToString::to_string));
        }
        let subnets = subnets.into_iter().collect();
        Some(Warning::OutsideSubnets { addresses, pool: pool_name?, subnets })
    }

    /// Returns the eligible endpoints of the family of an address.
    pub(super) fn eligible_endpoints_for(
        &self,
        address: IpAddr,
    ) -> impl Iterator<Item = &Endpoint> {
        self.eligible_endpoints().filter(move |it| it.family == Family::of(address))
    }

    /// Returns the eligible endpoints.
    pub(super) fn eligible_endpoints(&self) -> impl Iterator<Item = &Endpoint> {
        self.endpoints
            .iter()
            .copied()
            .filter(|endpoint| self.service.endpoint_condition.accepts(endpoint))
    }

    /// Returns the warning about failing health checks of a family; `None` if none fails, or if the
    /// Service has no address of the family.
    fn failing(&self, family: Family) -> Option<Warning<'_>> {
        let has = |family| self.service.announceable().any(|address| Family::of(address) == family);
        let eligible =
            self.eligible_endpoints().filter(|endpoint| endpoint.family == family && has(family));
        let nodes: BTreeSet<_> = eligible.map(|endpoint| endpoint.node.as_deref()).collect();
        // Ignores reports of nodes that have no eligible endpoint of the family any more.
        let applies = |(node, failing): &(&str, &FailingHealthCheck)| {
            failing.family == family && nodes.contains(&Some(*node))
        };
        let failing = self.live_speakers?.failing(&self.service.key).filter(applies);
        let (names, why): (Vec<_>, Vec<_>) =
            failing.map(|(node, failing)| (node, &*failing.why)).unzip();
        if names.is_empty() {
            return None;
        }
        let passes = |node: &Option<&str>| match node {
            Some(node) => !names.contains(node),
            // No speaker checks an endpoint without a node. Such an endpoint can receive traffic
            // only with policy Cluster.
            None => self.service.policy == TrafficPolicy::Cluster,
        };
        let everywhere = !nodes.iter().any(passes);
        let family = (has(Family::V4) && has(Family::V6)).then_some(family);
        Some(if everywhere {
            Warning::AllFail { family, why, local: self.service.policy == TrafficPolicy::Local }
        } else {
            Warning::NodesFail { family, nodes: names, why }
        })
    }

    /// Returns the warnings about endpoints that are not checked, although the Service has a health
    /// check.
    fn unchecked(&self) -> Vec<Warning<'_>> {
        if !matches!(self.service.health_check(), Some(Ok(_))) {
            return Vec::new();
        }
        let eligible: BTreeSet<_> =
            self.eligible_endpoints().map(|it| (it.node.as_deref(), it.family)).collect();
        let mut families = self.service.announceable().map(Family::of);
        let without_node = families.any(|family| eligible.contains(&(None, family)));
        let reports = self.live_speakers.iter().flat_map(|it| it.unchecked(&self.service.key));
        // Ignores reports of nodes that have no eligible endpoint of the family any more.
        let reports: Vec<_> = reports
            .filter(|(node, it)| eligible.contains(&(Some(node), Family::of(it.address))))
            .collect();
        let reported = reports.iter().map(|(_, it)| it.reason).min().map(|reason| {
            let of_reason = || reports.iter().filter(move |(_, it)| it.reason == reason);
            let nodes: BTreeSet<_> = reports.iter().map(|(node, _)| *node).collect();
            let sum = |number: fn(&UncheckedHealthCheck) -> u64| {
                reports.iter().fold(0, |sum: u64, (_, it)| sum.saturating_add(number(it)))
            };
            let example =
                |family| of_reason().map(|(_, it)| it.address).find(|it| Family::of(*it) == family);
            Warning::Unchecked(UncheckedEndpoints {
                count: [sum(|it| it.unchecked), sum(|it| it.endpoints)],
                nodes: nodes.into_iter().collect(),
                reason,
                examples: [Family::V4, Family::V6].into_iter().filter_map(example).collect(),
            })
        });
        let without_node = without_node.then_some(Warning::UncheckedWithoutNode);
        reported.into_iter().chain(without_node).collect()
    }

    /// Returns the nodes that announce the Service although they report a [`Flaw`]. Failing health
    /// checks of the families in `everywhere` are no flaw, because they fail on all nodes and have
    /// a warning of their own.
    fn flawed(&self, everywhere: &[Family]) -> Vec<FlawedOwner<'_>> {
        let Some(live_speakers) = self.live_speakers else { return Vec::new() };
        let owners =
            self.service.announceable().flat_map(|address| live_speakers.owners(address).all);
        let owners: BTreeSet<_> = owners.map(|owner| owner.node).collect();
        let others_pass = |address| !everywhere.contains(&Family::of(address));
        let fails = |node| {
            let mut layer2 = self.layer2.iter().filter(|(address, _)| others_pass(**address));
            layer2.any(|(_, layer2)| layer2.serving(node).is_ok_and(|serving| serving.failing))
        };
        let flawed = |node| {
            let flaw = flaw(live_speakers.of(node)?, fails(node))?;
            Some(FlawedOwner { node, flaw })
        };
        owners.into_iter().filter_map(flawed).collect()
    }
}

/// Returns the worst flaw of a speaker's node, or `None`. Because of a flaw, another node should
/// announce the address instead. `fails` is true if endpoints on the node fail their health check.
fn flaw(speaker: &Speaker, fails: bool) -> Option<Flaw<'_>> {
    match speaker.kube_proxy_issue() {
        _ if fails => Some(Flaw::EndpointsFail),
        _ if speaker.draining => Some(Flaw::Draining),
        why => why.map(Flaw::KubeProxy),
    }
}
