//! Groups of Services that share addresses: their advertisements, and the nodes that may announce
//! them. Pure functions.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::{ClusterView, Ineligible, ServiceView};
use crate::election::{Candidate, order};
use crate::facts::{L2Advertisement, Node, TrafficPolicy};
use crate::range::Family;
use crate::verdict::{Verdict, verdict};

/// Services that are joined by shared addresses, usually a single Service. One node announces all
/// their addresses.
#[derive(Debug)]
pub struct SharingGroup<'a> {
    members: Vec<Member<'a>>,
    first: IpAddr,
    addresses: Box<[IpAddr]>,
    /// Advertisements of each announced address; addresses ascending.
    advertised: BTreeMap<IpAddr, Vec<&'a L2Advertisement>>,
}

/// A Service of a group.
#[derive(Debug)]
struct Member<'a> {
    served: ServiceView<'a>,
    /// Address families of the Service's announced addresses. If no address is announced, the
    /// families of all its assigned addresses.
    families: [Option<Family>; 2],
    /// True if the Service takes part in the choice of nodes: it has an eligible endpoint on some
    /// node, or no Service of the group has one. No node can serve a Service without endpoints, so
    /// such a Service must not block another one on the same address. The value is the same for
    /// every node.
    counts: bool,
}

impl<'a> Member<'a> {
    fn new(served: ServiceView<'a>, advertised: &BTreeMap<IpAddr, Vec<&L2Advertisement>>) -> Self {
        let is_announced = |address: &IpAddr| advertised.contains_key(address);
        let none_announced = !served.assigned.iter().any(is_announced);
        let announced =
            || served.assigned.iter().filter(|address| none_announced || is_announced(address));
        let has =
            |family| announced().any(|address| Family::of(*address) == family).then_some(family);
        let families = [has(Family::V4), has(Family::V6)];
        let mut member = Self { served, families, counts: false };
        member.counts = member.has_endpoint();
        member
    }

    fn verdict(&self, node: &str) -> Verdict {
        let failing = self.served.failing_on.iter().filter(|(on, _)| *on == node);
        self.judge(node, &failing.map(|(_, family)| *family).collect::<Vec<_>>())
    }

    /// Returns the Service's addresses whose endpoints on a node all fail their health check. Empty
    /// unless the policy is `Local`.
    fn failing_on(&self, node: &str) -> impl Iterator<Item = IpAddr> {
        let ServiceView { policy, assigned, failing_on, .. } = &self.served;
        let fails =
            |family| *policy == TrafficPolicy::Local && failing_on.contains(&(node, family));
        let failing = [Family::V4, Family::V6].map(|family| fails(family).then_some(family));
        assigned
            .iter()
            .copied()
            .filter(move |address| failing.contains(&Some(Family::of(*address))))
    }

    /// Returns the verdict from Kubernetes objects alone, without health checks, so that every node
    /// computes the same verdict.
    fn known_verdict(&self, node: &str) -> Verdict {
        self.judge(node, &[])
    }

    fn judge(&self, node: &str, failing: &[Family]) -> Verdict {
        let ServiceView { policy, eligible, endpoints, .. } = &self.served;
        verdict(
            *policy,
            *eligible,
            self.families.into_iter().flatten(),
            node,
            endpoints.iter().copied(),
            failing,
        )
    }

    fn has_endpoint(&self) -> bool {
        self.known_verdict("") != Verdict::NoEndpoint
    }
}

impl<'a> SharingGroup<'a> {
    /// Creates the group of these Services, which are sorted by name; `None` if the first Service
    /// has no address.
    #[must_use]
    pub fn of(view: &ClusterView<'a>, served: Vec<ServiceView<'a>>) -> Option<Self> {
        let first = *served.first()?.assigned.first()?;
        let advertised = advertised(view, &served);
        let addresses = addresses(&served, &advertised);
        let mut members: Vec<_> =
            served.into_iter().map(|served| Member::new(served, &advertised)).collect();
        if !members.iter().any(|member| member.counts) {
            members.iter_mut().for_each(|member| member.counts = true);
        }
        Some(Self { members, first, addresses, advertised })
    }

    /// Returns the Services that take part in the choice of nodes; see [`Member::counts`].
    fn deciding_members(&self) -> impl Iterator<Item = &Member<'a>> {
        self.members.iter().filter(|member| member.counts)
    }

    /// Returns the verdicts of the Services for a node, in the order of the Services.
    pub fn verdicts(&self, node: &str) -> impl Iterator<Item = Verdict> {
        self.members.iter().map(move |member| member.verdict(node))
    }

    /// Returns the announced addresses in the order of the Services and of each Service's status,
    /// each once.
    ///
    /// An address is not announced if it has no pool, or if no advertisement selects its pool. Such
    /// an address does not block the other addresses.
    #[must_use]
    pub const fn addresses(&self) -> &[IpAddr] {
        &self.addresses
    }

    /// Returns the advertisements of each announced address, in ascending order of the addresses.
    pub fn advertised(&self) -> impl Iterator<Item = &[&'a L2Advertisement]> {
        self.advertised.values().map(Vec::as_slice)
    }

    /// Returns whether a node can forward to eligible endpoints of all the Services. A Service
    /// without any eligible endpoint is ignored if another Service has one.
    #[must_use]
    pub fn is_served_on(&self, node: &str) -> bool {
        self.deciding_members().all(|member| member.known_verdict(node).can_serve())
    }

    /// Returns those addresses of the group for which all endpoints on a node fail their health
    /// check, as that node reports. Returns none if there is a Service that the node cannot serve.
    pub fn failing_on(&self, node: &str) -> impl Iterator<Item = IpAddr> {
        let mut failing: Vec<_> =
            self.deciding_members().flat_map(|member| member.failing_on(node)).collect();
        // The verdicts are computed only on demand, because nearly always no health check fails.
        if !failing.is_empty() && !self.is_served_on(node) {
            failing.clear();
        }
        self.addresses.iter().copied().filter(move |address| failing.contains(address))
    }

    /// Returns whether any of the Services has an eligible endpoint on any node.
    #[must_use]
    pub fn has_eligible_endpoint(&self) -> bool {
        self.members.iter().any(Member::has_endpoint)
    }

    /// Returns whether a node that may announce the group may announce all addresses of the group
    /// on the interface `link`.
    #[must_use]
    pub fn selects_interface(&self, node: &Node, link: &str) -> bool {
        let selected =
            |ad: &&L2Advertisement| ad.selects_node(&node.labels) && ad.selects_interface(link);
        self.advertised.values().all(|advertisements| advertisements.iter().any(selected))
    }

    /// Returns the nodes that may announce the group, sorted by name.
    #[must_use]
    pub fn candidates(&self, view: &ClusterView<'_>) -> Box<[Candidate]> {
        let is_eligible = |(node, _): &&(&Node, Arc<str>)| self.ineligible(view, node).is_none();
        view.nodes
            .iter()
            .filter(is_eligible)
            .map(|(node, name)| self.candidate(node, name))
            .collect()
    }

    /// Returns every node, sorted by name, with the reason why it may not announce the group, if
    /// any.
    pub fn eligibility<'s>(
        &self,
        view: &'s ClusterView<'a>,
    ) -> impl Iterator<Item = (&'a Node, Option<Ineligible>)> + use<'a, 's, '_> {
        view.nodes.iter().map(|(node, _)| (*node, self.ineligible(view, node)))
    }

    fn ineligible(&self, view: &ClusterView<'_>, node: &Node) -> Option<Ineligible> {
        let selected = || {
            self.advertised
                .values()
                .all(|advertisements| advertisements.iter().any(|ad| ad.selects_node(&node.labels)))
        };
        view.ineligible(node).or_else(|| {
            if selected() {
                (!self.is_served_on(&node.name)).then_some(Ineligible::CannotServe)
            } else {
                Some(Ineligible::NotSelected)
            }
        })
    }

    fn candidate(&self, node: &Node, name: &Arc<str>) -> Candidate {
        Candidate {
            node: Arc::clone(name),
            cordoned: node.cordoned || !node.ready,
            terminating: self
                .deciding_members()
                .any(|member| member.known_verdict(name) == Verdict::Terminating),
            preference: self.preference(node),
            order: order(name, self.first),
        }
    }

    /// Returns the preference of a node: the sum over the advertisements that select it. Each
    /// advertisement is added once, however many addresses it announces.
    fn preference(&self, node: &Node) -> u32 {
        let mut counted: Vec<&L2Advertisement> = Vec::new();
        for ad in self.advertised.values().flatten().filter(|ad| ad.selects_node(&node.labels)) {
            if !counted.iter().any(|other| std::ptr::eq(*other, *ad)) {
                counted.push(ad);
            }
        }
        counted.iter().fold(0, |sum, ad| sum.saturating_add(ad.preference(&node.labels)))
    }
}

/// Returns the addresses of these Services that have at least one advertisement, each with its
/// advertisements. An advertisement announces a shared address if it selects any of the Services
/// with that address.
fn advertised<'a>(
    view: &ClusterView<'a>,
    served: &[ServiceView<'_>],
) -> BTreeMap<IpAddr, Vec<&'a L2Advertisement>> {
    let mut advertised: BTreeMap<IpAddr, Vec<&L2Advertisement>> = BTreeMap::new();
    for served in served {
        for &address in served.assigned {
            for ad in view.advertisements_of(served, address) {
                let all = advertised.entry(address).or_default();
                if !all.iter().any(|other| std::ptr::eq(*other, ad)) {
                    all.push(ad);
                }
            }
        }
    }
    advertised
}

fn addresses<V>(served: &[ServiceView<'_>], advertised: &BTreeMap<IpAddr, V>) -> Box<[IpAddr]> {
    let mut addresses = Vec::with_capacity(advertised.len());
    for address in served.iter().flat_map(|served| served.assigned) {
        if advertised.contains_key(address) && !addresses.contains(address) {
            addresses.push(*address);
        }
    }
    addresses.into()
}

/// Returns groups of Services that are joined by shared addresses, as indices into `services`,
/// which contains the addresses of each Service. Groups and their members are in the order of
/// `services`.
pub fn sharing_groups<'a>(
    services: impl ExactSizeIterator<Item = &'a [IpAddr]>,
) -> Vec<Vec<usize>> {
    // Union-find: every Service points to an earlier one of its group, or to itself.
    let mut parents: Vec<usize> = (0..services.len()).collect();
    let mut groups: Vec<Vec<_>> = vec![Vec::new(); services.len()];
    let mut first_with: BTreeMap<IpAddr, usize> = BTreeMap::new();
    for (i, addresses) in services.enumerate() {
        for address in addresses {
            let other = *first_with.entry(*address).or_insert(i);
            let (a, b) = (root(&mut parents, i), root(&mut parents, other));
            parents[a.max(b)] = a.min(b);
        }
    }
    for i in 0..groups.len() {
        groups[root(&mut parents, i)].push(i);
    }
    groups.retain(|group| !group.is_empty());
    groups
}

fn root(parents: &mut [usize], mut i: usize) -> usize {
    while parents[i] != i {
        parents[i] = parents[parents[i]];
        i = parents[i];
    }
    i
}

#[cfg(test)]
mod tests;
