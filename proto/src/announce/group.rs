//! Groups of Services that share addresses: what announces them, and which nodes may.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::{Bar, Scene, Served};
use crate::election::{Candidate, order};
use crate::facts::{Advertisement, Node, Policy};
use crate::range::Family;
use crate::verdict::{Verdict, verdict};

/// Services joined by shared addresses, usually one: all announced from one node.
#[derive(Debug)]
pub struct Group<'a> {
    members: Vec<Member<'a>>,
    first: IpAddr,
    addresses: Box<[IpAddr]>,
    /// For each announced address, ascending, the advertisements that announce it.
    advertised: BTreeMap<IpAddr, Vec<&'a Advertisement>>,
}

/// A Service of a group.
#[derive(Debug)]
struct Member<'a> {
    served: Served<'a>,
    /// Those of its announced addresses; where none is announced, of all that could be.
    families: [Option<Family>; 2],
    /// It counts: it has a usable endpoint somewhere, or none of the group has. Who has none is served by no node, and keeps nobody off
    /// the wire who shares its address. That is the same for every node.
    counts: bool,
}

impl<'a> Member<'a> {
    fn new(served: Served<'a>, advertised: &BTreeMap<IpAddr, Vec<&Advertisement>>) -> Self {
        let is_announced = |address: &IpAddr| advertised.contains_key(address);
        let none_is = !served.assigned.iter().any(is_announced);
        let announced = || served.assigned.iter().filter(|address| none_is || is_announced(address));
        let has = |family| announced().any(|address| Family::of(*address) == family).then_some(family);
        let families = [has(Family::V4), has(Family::V6)];
        let mut member = Self { served, families, counts: false };
        member.counts = member.has_endpoint();
        member
    }

    fn verdict(&self, node: &str) -> Verdict {
        let failing = self.served.failing_on.iter().filter(|(on, _)| *on == node);
        self.judge(node, &failing.map(|(_, family)| *family).collect::<Vec<_>>())
    }

    /// Those of its addresses for which its endpoints on a node all fail.
    fn failing_on(&self, node: &str) -> impl Iterator<Item = IpAddr> {
        let Served { policy, assigned, failing_on, .. } = &self.served;
        let says = |family| *policy == Policy::Local && failing_on.contains(&(node, family));
        let failing = [Family::V4, Family::V6].map(|family| says(family).then_some(family));
        assigned.iter().copied().filter(move |address| failing.contains(&Some(Family::of(*address))))
    }

    /// By what every node knows alike: the API alone.
    fn known_verdict(&self, node: &str) -> Verdict {
        self.judge(node, &[])
    }

    fn judge(&self, node: &str, failing: &[Family]) -> Verdict {
        let Served { policy, usable, endpoints, .. } = &self.served;
        verdict(*policy, *usable, self.families.into_iter().flatten(), node, endpoints.iter().copied(), failing)
    }

    fn has_endpoint(&self) -> bool {
        self.known_verdict("") != Verdict::NoEndpoint
    }
}

impl<'a> Group<'a> {
    /// The group of these Services, by name; none if the first of them has no address.
    #[must_use]
    pub fn of(scene: &Scene<'a>, served: Vec<Served<'a>>) -> Option<Self> {
        let first = *served.first()?.assigned.first()?;
        let advertised = advertised(scene, &served);
        let addresses = addresses(&served, &advertised);
        let mut members: Vec<_> = served.into_iter().map(|served| Member::new(served, &advertised)).collect();
        if !members.iter().any(|member| member.counts) {
            members.iter_mut().for_each(|member| member.counts = true);
        }
        Some(Self { members, first, addresses, advertised })
    }

    /// The Services that count.
    fn decisive(&self) -> impl Iterator<Item = &Member<'a>> {
        self.members.iter().filter(|member| member.counts)
    }

    /// The verdict on a node for each of the Services, in their order.
    pub fn verdicts(&self, node: &str) -> impl Iterator<Item = Verdict> {
        self.members.iter().map(move |member| member.verdict(node))
    }

    /// The announced addresses in the order of their Services and of each Service's status, each once. One that no pool holds
    /// any more, or whose pool nobody advertises, is not announced; it does not hold back the others.
    #[must_use]
    pub const fn addresses(&self) -> &[IpAddr] {
        &self.addresses
    }

    /// For each announced address, the advertisements that announce it.
    pub fn advertised(&self) -> impl Iterator<Item = &[&'a Advertisement]> {
        self.advertised.values().map(Vec::as_slice)
    }

    /// Whether a node could forward to endpoints of all the Services, were it asked to.
    #[must_use]
    pub fn is_served_on(&self, node: &str) -> bool {
        self.decisive().all(|member| member.known_verdict(node).serves())
    }

    /// The addresses for which a node that can serve all the Services says that its endpoints of one of them all fail.
    pub fn failing_on(&self, node: &str) -> impl Iterator<Item = IpAddr> {
        let mut failing: Vec<_> = self.decisive().flat_map(|member| member.failing_on(node)).collect();
        // Seldom asked: nearly always nothing fails.
        if !failing.is_empty() && !self.is_served_on(node) {
            failing.clear();
        }
        self.addresses.iter().copied().filter(move |address| failing.contains(address))
    }

    /// Whether any of the Services has a usable endpoint, on whatever node.
    #[must_use]
    pub fn has_endpoint(&self) -> bool {
        self.members.iter().any(Member::has_endpoint)
    }

    /// Whether a node may announce all the addresses on its link of this name, if it may announce them at all.
    #[must_use]
    pub fn selects_link(&self, node: &Node, link: &str) -> bool {
        let selected = |ad: &&Advertisement| ad.selects_node(&node.labels) && ad.selects_interface(link);
        self.advertised.values().all(|ads| ads.iter().any(selected))
    }

    /// The nodes that may announce the group, by name.
    #[must_use]
    pub fn candidates(&self, scene: &Scene<'_>) -> Box<[Candidate]> {
        let may = |(node, _): &&(&Node, Arc<str>)| self.bar(scene, node).is_none();
        scene.nodes.iter().filter(may).map(|(node, name)| self.candidate(node, name)).collect()
    }

    /// Every node, by name, with what keeps it from announcing the group, if anything does.
    pub fn bars<'s>(&self, scene: &'s Scene<'a>) -> impl Iterator<Item = (&'a Node, Option<Bar>)> + use<'a, 's, '_> {
        scene.nodes.iter().map(|(node, _)| (*node, self.bar(scene, node)))
    }

    fn bar(&self, scene: &Scene<'_>, node: &Node) -> Option<Bar> {
        let selected = || self.advertised.values().all(|ads| ads.iter().any(|ad| ad.selects_node(&node.labels)));
        scene.bar(node).or_else(|| {
            if selected() {
                (!self.is_served_on(&node.name)).then_some(Bar::CannotServe)
            } else {
                Some(Bar::NotSelected)
            }
        })
    }

    fn candidate(&self, node: &Node, name: &Arc<str>) -> Candidate {
        Candidate {
            node: Arc::clone(name),
            cordoned: node.cordoned || !node.ready,
            terminating: self.decisive().any(|member| member.known_verdict(name) == Verdict::Terminating),
            preference: self.preference(node),
            order: order(name, self.first),
        }
    }

    /// The weights of a node, over the advertisements that select it; each of them once, however many of the addresses it
    /// announces.
    fn preference(&self, node: &Node) -> u32 {
        let mut counted: Vec<&Advertisement> = Vec::new();
        for ad in self.advertised.values().flatten().filter(|ad| ad.selects_node(&node.labels)) {
            if !counted.iter().any(|there| std::ptr::eq(*there, *ad)) {
                counted.push(ad);
            }
        }
        counted.iter().fold(0, |sum, ad| sum.saturating_add(ad.preference(&node.labels)))
    }
}

/// The addresses of these Services that have at least one advertisement, with their advertisements. One that is shared is
/// announced by what selects any of its Services.
fn advertised<'a>(scene: &Scene<'a>, served: &[Served<'_>]) -> BTreeMap<IpAddr, Vec<&'a Advertisement>> {
    let mut advertised: BTreeMap<IpAddr, Vec<&Advertisement>> = BTreeMap::new();
    for served in served {
        for &address in served.assigned {
            for ad in scene.advertisements_of(served, address) {
                let all = advertised.entry(address).or_default();
                if !all.iter().any(|there| std::ptr::eq(*there, ad)) {
                    all.push(ad);
                }
            }
        }
    }
    advertised
}

fn addresses<V>(served: &[Served<'_>], advertised: &BTreeMap<IpAddr, V>) -> Box<[IpAddr]> {
    let mut addresses = Vec::with_capacity(advertised.len());
    for address in served.iter().flat_map(|served| served.assigned) {
        if advertised.contains_key(address) && !addresses.contains(address) {
            addresses.push(*address);
        }
    }
    addresses.into()
}

/// The Services, each given by its addresses, in groups joined by shared ones: their places in what was given. Groups and their
/// members are in that order.
pub fn groups<'a>(services: impl ExactSizeIterator<Item = &'a [IpAddr]>) -> Vec<Vec<usize>> {
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
