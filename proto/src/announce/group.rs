//! Groups of Services that share addresses: what announces them, and which nodes may.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::{Bar, Scene, Served};
use crate::election::{Candidate, order};
use crate::facts::{Advertisement, Node};
use crate::verdict::Verdict;

/// Services joined by shared addresses, usually one: all announced from one node.
#[derive(Debug)]
pub struct Group<'a> {
    /// Those that have an endpoint somewhere, or all if none has.
    served: Vec<Served<'a>>,
    first: IpAddr,
    addresses: Box<[IpAddr]>,
    /// For each announced address, ascending, the advertisements that announce it.
    advertised: BTreeMap<IpAddr, Vec<&'a Advertisement>>,
}

impl<'a> Group<'a> {
    /// The group of these Services, by name; none if the first of them has no address.
    #[must_use]
    pub fn of(scene: &Scene<'a>, mut served: Vec<Served<'a>>) -> Option<Self> {
        let first = *served.first()?.assigned.first()?;
        let advertised = advertised(scene, &served);
        let addresses = addresses(&served, &advertised);
        // Who has no endpoint anywhere is served by no node, and keeps nobody off the wire who shares its address. That is the
        // same for every node.
        let lives = |served: &Served<'_>| served.verdict("") != Verdict::NoEndpoint;
        if served.iter().any(lives) {
            served.retain(lives);
        }
        Some(Self { served, first, addresses, advertised })
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
        self.served.iter().all(|served| served.verdict(node).serves())
    }

    /// Whether a node says that its endpoints of one of the Services all fail.
    #[must_use]
    pub fn fails_on(&self, node: &str) -> bool {
        self.served.iter().any(|served| served.verdict(node) == Verdict::Failing)
    }

    /// Whether any of the Services has a usable endpoint, on whatever node.
    #[must_use]
    pub fn has_endpoint(&self) -> bool {
        self.served.iter().any(|served| served.verdict("") != Verdict::NoEndpoint)
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
            terminating: self.served.iter().any(|served| served.verdict(name) == Verdict::Terminating),
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
mod tests {
    use serde_json::json;

    use super::*;
    use crate::api;
    use crate::facts::{Endpoint, Policy, Pool};

    fn node(name: &str) -> Node {
        let labels = [("name".to_owned(), name.to_owned())].into();
        Node { name: name.into(), ready: true, labels, ..Node::default() }
    }

    #[test]
    fn every_node_says_what_keeps_it_away_and_a_node_that_nothing_keeps_away_is_a_candidate() {
        let nodes = [
            node("a"),
            Node { unreachable: true, excluded: true, ..node("b") },
            Node { excluded: true, ..node("c") },
            node("d"),
            node("e"),
        ];
        let pool = Pool { name: "lan".into(), ranges: vec!["10.0.0.0/24".parse().expect("range")], ..Pool::default() };
        let not_d = json!({"matchExpressions": [{"key": "name", "operator": "NotIn", "values": ["d"]}]});
        let spec = json!({"metadata": {"name": "l2"}, "spec": {"nodeSelectors": [not_d], "interfaces": ["eth1"]}});
        let ad: Advertisement = serde_json::from_value::<api::L2>(spec).expect("advertisement").into();
        let scene = Scene::new(nodes.iter(), [&pool].into_iter(), [&ad].into_iter(), false);
        let address = [IpAddr::from([10, 0, 0, 1])];
        let here = |node: &str| Endpoint { node: Some(node.into()), ready: true, serving: true, terminating: false };
        let endpoints = ["a", "b", "c", "d"].map(here);
        let served = Served {
            policy: Policy::Local,
            assigned: &address,
            from_pool: None,
            labels: &[],
            endpoints: endpoints.iter().collect(),
            failing_on: Vec::new(),
        };
        let group = Group::of(&scene, vec![served]).expect("a group");
        let bars: Vec<_> = group.bars(&scene).map(|(node, bar)| (&*node.name, bar)).collect();
        let expect = [
            ("a", None),
            ("b", Some(Bar::Unreachable)),
            ("c", Some(Bar::Excluded)),
            ("d", Some(Bar::NotSelected)),
            ("e", Some(Bar::CannotServe)),
        ];
        assert_eq!(bars, expect);
        let names: Vec<_> = group.candidates(&scene).iter().map(|candidate| candidate.node.to_string()).collect();
        assert_eq!(names, ["a"]);
        assert!(group.has_endpoint() && group.is_served_on("b") && !group.is_served_on("e"));
        assert!(group.selects_link(&nodes[0], "eth1") && !group.selects_link(&nodes[0], "eth0"));
    }

    #[test]
    fn services_are_joined_by_what_they_share_directly_or_through_others() {
        let of = |last: &[u8]| last.iter().map(|last| IpAddr::from([10, 0, 0, *last])).collect::<Vec<_>>();
        let services = [of(&[1, 2]), of(&[3]), of(&[]), of(&[3, 2]), of(&[4])];
        let joined = groups(services.iter().map(Vec::as_slice));
        assert_eq!(joined, [vec![0, 1, 3], vec![2], vec![4]]);
    }
}
