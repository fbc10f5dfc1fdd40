//! Tests of the plan: eligibility of nodes and interfaces.

use ferrolb_proto::wire::hello::HelloKeyRing;
use std::net::IpAddr;
use std::time::Duration;

use ferrolb_core::election::Unit;
use ferrolb_core::election::{Candidate, order};
use ferrolb_core::shared_map::SharedMap;
use ferrolb_core::store::Change;
use ferrolb_proto::api::{self, IpMode};
use ferrolb_proto::facts::{
    AssignedAddress, Endpoint, EndpointSlice, Key, L2Advertisement, Node, Pool, PoolProblem,
    Service, TrafficPolicy,
};
use ferrolb_proto::range::Family;
use ferrolb_proto::wire::hello::{ClaimRank, HelloKey, KEY_LENGTH};
use regex::Regex;
use serde_json::json;

use super::*;
use crate::claim::Owned;
use crate::event::{Event, LinkReport, Routes};
use crate::health::prober::CheckDefaults;
use crate::state::StateConfig;

mod addresses;
mod data_path;
mod links;
mod memo;
mod outlook;
mod own_node;
mod own_pods;
mod probes;
mod received_ranges;
mod routes;
mod rules;
mod second_path;
mod unchecked;

/// Description of a small cluster. Each test sets only the fields that it needs.
struct Cluster {
    ignore_label: bool,
    nodes: Vec<Node>,
    services: Vec<Service>,
    slices: Vec<EndpointSlice>,
    pools: Vec<Pool>,
    advertisements: Vec<serde_json::Value>,
    links: Vec<Link>,
}

impl Default for Cluster {
    /// Returns two nodes, one Service with an endpoint on each node, one pool, one advertisement
    /// without selectors, and one interface.
    fn default() -> Self {
        Self {
            ignore_label: false,
            nodes: vec![node("node1"), node("node2")],
            services: vec![service("web", &["172.30.0.200"])],
            slices: vec![slice("web", &["node1", "node2"])],
            pools: vec![pool("lan", &["172.30.0.0/16", "fd30::/64"])],
            advertisements: vec![json!({})],
            links: vec![link(2, "eth0")],
        }
    }
}

impl Cluster {
    fn state(&self) -> State {
        let mut state = State::new(StateConfig {
            node: "node1".into(),
            classes: Vec::new(),
            default_implementation: true,
            pool_grace: Duration::from_secs(60),
            ignore_exclude_label: self.ignore_label,
            exclude_interfaces: vec![Regex::new("^cni0$").unwrap()],
            kube_proxy_address: None,
            gobgp: false,
            health_check_defaults: CheckDefaults {
                interval: Duration::from_secs(1),
                fall: 2,
                rise: 3,
            },
            checked_ranges: Some(Vec::new()),
        });
        apply_resync(&mut state, &self.services, Event::of::<Service>);
        apply_resync(&mut state, &self.slices, Event::of::<EndpointSlice>);
        apply_resync(&mut state, &self.nodes, Event::of::<Node>);
        apply_resync(&mut state, &self.pools, Event::of::<Pool>);
        let advertisements: Vec<L2Advertisement> = self
            .advertisements
            .iter()
            .enumerate()
            .map(|(i, spec)| advertisement(i, spec))
            .collect();
        apply_resync(&mut state, &advertisements, Event::of::<L2Advertisement>);
        apply_resync(
            &mut state,
            &[HelloKeyRing::new(vec![HelloKey::new([1; KEY_LENGTH])])],
            Event::of::<HelloKeyRing>,
        );
        state.handle(Event::Links(self.links.clone()), Instant::ZERO);
        state
    }

    fn plan(&self) -> Desired {
        plan(&self.state(), Instant::ZERO)
    }

    /// Returns the election units of the first interface.
    fn units(&self) -> Vec<Arc<Unit>> {
        let plan = self.plan();
        let link = plan.links.values().next().expect("a link");
        link.config.units.values().cloned().collect()
    }

    /// Returns the names of the candidates of the only unit on the first interface.
    fn candidates(&self) -> Vec<String> {
        let units = self.units();
        assert_eq!(units.len(), 1, "{units:?}");
        units[0].candidates.iter().map(|candidate| candidate.node.to_string()).collect()
    }
}

/// Computes the first plan from a state.
fn plan(state: &State, now: Instant) -> Desired {
    super::plan(state, &mut Memo::default(), now)
}

/// Returns the election unit of the lowest address on an interface.
fn first_unit(desired: &Desired, link: u32) -> Arc<Unit> {
    Arc::clone(desired.links[&link].config.units.values().next().expect("a unit"))
}

fn apply_resync<F: Clone>(state: &mut State, facts: &[F], wrap: fn(Change<F>) -> Event) {
    let changes = facts.iter().cloned().map(Change::Apply);
    for change in [Change::ResyncStarted].into_iter().chain(changes).chain([Change::ResyncDone]) {
        state.handle(wrap(change), Instant::ZERO);
    }
}

fn node(name: &str) -> Node {
    let labels = [("name".to_owned(), name.to_owned())].into();
    let pod_cidrs = ["10.244.1.0/24", "fd00::/64"].map(|text| text.parse().unwrap()).into();
    Node { name: name.into(), ready: true, labels, pod_cidrs, ..Node::default() }
}

fn service(name: &str, addresses: &[&str]) -> Service {
    let assigned = addresses
        .iter()
        .map(|text| AssignedAddress { address: text.parse().unwrap(), mode: Some(IpMode::Vip) });
    Service {
        key: Key::new("default", name),
        load_balancer: true,
        assigned: assigned.collect(),
        ..Service::default()
    }
}

fn slice(service: &str, nodes: &[&str]) -> EndpointSlice {
    let endpoint = |node: &&str| Endpoint {
        node: Some((*node).into()),
        family: Family::V4,
        ready: true,
        serving: true,
        terminating: false,
    };
    let service_key = Key::new("default", service);
    let key = Key::new("default", &format!("{service}-1"));
    EndpointSlice {
        key,
        service: Some(service_key),
        endpoints: nodes.iter().map(endpoint).collect(),
        ..EndpointSlice::default()
    }
}

/// Returns a copy of an EndpointSlice with another name and another address family.
fn with_family(family: Family, mut slice: EndpointSlice) -> EndpointSlice {
    slice.endpoints.iter_mut().for_each(|endpoint| endpoint.family = family);
    slice.key = Key::new(slice.key.namespace(), &format!("{}-{family}", slice.key.name()));
    slice
}

fn pool(name: &str, ranges: &[&str]) -> Pool {
    Pool {
        name: name.into(),
        ranges: ranges.iter().map(|range| range.parse().unwrap()).collect(),
        ..Pool::default()
    }
}

fn advertisement(i: usize, spec: &serde_json::Value) -> L2Advertisement {
    let object = json!({"metadata": {"name": format!("l2-{i}")}, "spec": spec});
    serde_json::from_value::<api::L2AdvertisementObject>(object).unwrap().into()
}

fn link(index: u32, name: &str) -> Link {
    let mac = Mac([2, 0, 0, 0, 0, u8::try_from(index).unwrap()]);
    let prefixes = vec![("172.30.0.9".parse().unwrap(), 16)];
    Link {
        index,
        name: name.into(),
        mac,
        ethernet: true,
        up: true,
        broadcast: true,
        addresses: vec!["fe80::9".parse().unwrap()],
        prefixes,
        ..Link::default()
    }
}

fn addresses(texts: &[&str]) -> Box<[IpAddr]> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn select(node: &str) -> serde_json::Value {
    json!({"nodeSelectors": [{"matchLabels": {"name": node}}]})
}

#[test]
fn the_services_with_an_address_decide_together() {
    let mut cluster = Cluster {
        services: vec![
            service("a", &["172.30.0.1", "172.30.0.2"]),
            service("b", &["172.30.0.3"]),
            service("c", &["172.30.0.3", "172.30.0.2"]),
        ],
        slices: vec![slice("a", &["node1"]), slice("b", &["node1"]), slice("c", &["node2"])],
        ..Cluster::default()
    };
    let units = |cluster: &Cluster| -> Vec<_> {
        let units = cluster.units();
        let unit = |unit: &Arc<Unit>| {
            let names = unit.candidates.iter().map(|candidate| &*candidate.node);
            let ordered_by = unit.ordered_by.to_string();
            (unit.address.to_string(), ordered_by, names.collect::<Vec<_>>().join("+"))
        };
        units.iter().map(|of| (unit(of), of.can_serve_here)).collect()
    };
    let text = |address: &str, ordered_by: &str, nodes: &str| {
        (address.to_owned(), ordered_by.to_owned(), nodes.to_owned())
    };
    let expect = |[first, second, third]: [(&str, bool); 3]| {
        vec![
            (text("172.30.0.1", "172.30.0.1", first.0), first.1),
            (text("172.30.0.2", "172.30.0.1", second.0), second.1),
            (text("172.30.0.3", "172.30.0.3", third.0), third.1),
        ]
    };
    assert_eq!(units(&cluster), expect([("node1+node2", true); 3]));
    cluster.services.iter_mut().for_each(|service| service.policy = TrafficPolicy::Local);
    // The endpoints of a and c, and those of b and c, are on different nodes.
    assert_eq!(units(&cluster), expect([("node1", true), ("", false), ("", false)]));
}

#[test]
fn only_addresses_of_advertised_pools_are_announced() {
    let services = vec![service("web", &["fd30::c8", "172.30.0.200"])];
    let units = Cluster { services, ..Cluster::default() }.units();
    let both: Vec<_> = units.iter().map(|unit| unit.address).collect();
    assert_eq!(both, *addresses(&["172.30.0.200", "fd30::c8"]));
    assert_eq!(units[0].order("node1"), order("node1", "fd30::c8"));
    assert_eq!(units[1].candidates.len(), 0, "the Service has no IPv6 endpoint");
    let no_pool = Cluster { pools: vec![pool("other", &["10.0.0.0/8"])], ..Cluster::default() };
    let no_ad = Cluster { advertisements: Vec::new(), ..Cluster::default() };
    let other_ad = Cluster {
        advertisements: vec![json!({"ipAddressPools": ["other"]})],
        ..Cluster::default()
    };
    for (what, cluster) in [("no pool", no_pool), ("no ad", no_ad), ("another pool's ad", other_ad)]
    {
        assert_eq!(cluster.units(), [], "{what}");
    }
}

#[test]
fn the_owner_and_the_first_three_candidates_receive_solicitations_for_an_ipv6_address() {
    let names: Vec<_> = (1..=8).map(|n| format!("node{n}")).collect();
    let nodes: Vec<&str> = names.iter().map(String::as_str).collect();
    let texts: Vec<_> = (0..40).map(|n| format!("fd30::{n:x}")).collect();
    let cluster = Cluster {
        nodes: nodes.iter().map(|name| node(name)).collect(),
        services: texts.iter().map(|text| service(&format!("s{text}"), &[text])).collect(),
        slices: texts
            .iter()
            .map(|text| with_family(Family::V6, slice(&format!("s{text}"), &nodes)))
            .collect(),
        ..Cluster::default()
    };
    let rank = |address: IpAddr| {
        let mut nodes_by_order = nodes.clone();
        nodes_by_order.sort_by_key(|name| order(name, &address.to_string()));
        nodes_by_order.iter().position(|name| *name == "node1").unwrap()
    };
    let ndp_addresses =
        |state: &State| plan(state, Instant::ZERO).links[&2].ndp_addresses.as_ref().clone();
    let mut state = cluster.state();
    let all: Vec<Ipv6Addr> = texts.iter().map(|text| text.parse().unwrap()).collect();
    let expect: BTreeSet<Ipv6Addr> =
        all.iter().copied().filter(|address| rank((*address).into()) < 3).collect();
    assert!((5..35).contains(&expect.len()));
    assert_eq!(ndp_addresses(&state), expect);
    let last = all.into_iter().find(|address| !expect.contains(address)).unwrap();
    let report = LinkReport { owned: owned([last.into()]), ..LinkReport::default() };
    state.handle(Event::Report { link: 2, report }, Instant::ZERO);
    assert_eq!(ndp_addresses(&state), expect.into_iter().chain([last]).collect());
}

#[test]
fn an_advertisement_selects_services_pools_and_nodes() {
    let labeled_service = |tier: &str| {
        let mut service = service("web", &["172.30.0.200"]);
        service.demand.labels = [("tier".into(), tier.into())].into();
        service
    };
    let ad = |tier: &str, node: &str| {
        let mut ad = select(node);
        ad["serviceSelectors"] = json!([{"matchLabels": {"tier": tier}}]);
        ad
    };
    let candidates = |services: Vec<Service>, advertisements: Vec<serde_json::Value>| {
        let units = Cluster { services, advertisements, ..Cluster::default() }.units();
        let names = units
            .iter()
            .flat_map(|unit| unit.candidates.iter().map(|candidate| candidate.node.to_string()));
        names.collect::<Vec<_>>()
    };
    let advertisements_of_both = || vec![ad("web", "node1"), ad("db", "node2")];
    assert_eq!(candidates(vec![labeled_service("web")], advertisements_of_both()), ["node1"]);
    assert_eq!(candidates(vec![labeled_service("db")], advertisements_of_both()), ["node2"]);
    assert_eq!(candidates(vec![labeled_service("mail")], advertisements_of_both()), [""; 0]);
    assert_eq!(
        candidates(vec![labeled_service("web")], vec![ad("web", "node1"), select("node2")]),
        ["node1", "node2"]
    );
    let sharing = Service { key: Key::new("default", "web2"), ..labeled_service("mail") };
    assert_eq!(
        candidates(vec![labeled_service("web"), sharing], advertisements_of_both()),
        ["node1"],
        "an advertisement selects one of the two Services"
    );
}

#[test]
fn the_weights_of_every_advertisement_that_selects_a_node_add_up() {
    let prefer = |node: &str, weight: u32| json!({"preferredNodeSelectors": [{"weight": weight, "preference": {"matchLabels": {"name": node}}}]});
    let mut on_node2 = prefer("node1", 50);
    on_node2["nodeSelectors"] = select("node2")["nodeSelectors"].clone();
    let advertisements = vec![prefer("node1", 3), prefer("node1", 4), prefer("node2", 5), on_node2];
    let unit = &Cluster { advertisements, ..Cluster::default() }.units()[0];
    let weights: Vec<_> = unit.candidates.iter().map(|candidate| candidate.preference).collect();
    assert_eq!(weights, [7, 5]);
}

#[test]
fn the_pool_annotation_decides_between_overlapping_pools() {
    let pools = || vec![pool("a", &["172.30.0.0/16"]), pool("b", &["172.30.0.0/24"])];
    let advertisements = || {
        vec![
            json!({"ipAddressPools": ["a"], "nodeSelectors": [{"matchLabels": {"name": "node1"}}]}),
            json!({"ipAddressPools": ["b"]}),
        ]
    };
    for (annotation, expect) in [(Some("b"), 2), (Some("a"), 1), (None, 1), (Some("missing"), 1)] {
        let services = vec![Service {
            pool_annotation: annotation.map(Into::into),
            ..service("web", &["172.30.0.200"])
        }];
        let cluster = Cluster {
            services,
            pools: pools(),
            advertisements: advertisements(),
            ..Cluster::default()
        };
        assert_eq!(cluster.candidates().len(), expect, "{annotation:?}");
    }
}

#[test]
fn a_service_without_endpoints_does_not_block_services_that_share_its_address() {
    let services = vec![service("a", &["172.30.0.1"]), service("b", &["172.30.0.1"])];
    for (slices, candidates) in
        [(vec![slice("b", &["node1"])], 2), (vec![], 0), (vec![slice("a", &[])], 0)]
    {
        let cluster = Cluster { services: services.clone(), slices, ..Cluster::default() };
        assert_eq!(
            cluster.units().iter().map(|unit| unit.candidates.len()).collect::<Vec<_>>(),
            [candidates]
        );
    }
}

#[test]
fn an_invalid_pool_withdraws_no_address() {
    let invalid_pool = Pool { problem: Some(PoolProblem::Empty), ..pool("a", &[]) };
    // While a named pool does not exist, the controller decides how long the address stays.
    for (annotation, expect) in [(Some("a"), 2), (None, 0), (Some("missing"), 2)] {
        let services = vec![Service {
            pool_annotation: annotation.map(Into::into),
            ..service("web", &["172.30.0.200"])
        }];
        let cluster = Cluster {
            services,
            pools: vec![invalid_pool.clone()],
            advertisements: vec![json!({})],
            ..Cluster::default()
        };
        assert_eq!(
            cluster.plan().links[&2].config.units.len(),
            usize::from(expect > 0),
            "{annotation:?}"
        );
    }
}

#[test]
fn all_interfaces_share_a_unit() {
    let links = vec![link(2, "eth0"), link(3, "eth1")];
    let desired = Cluster { links, ..Cluster::default() }.plan();
    assert!(Arc::ptr_eq(&first_unit(&desired, 2), &first_unit(&desired, 3)));
}

#[test]
fn nothing_is_announced_before_all_input_has_arrived() {
    let complete = Cluster::default();
    let mut state = State::new(complete.state().config.clone());
    assert_eq!(
        plan(&state, Instant::ZERO).not_ready_reason.as_deref(),
        Some("waiting for Services")
    );
    state.handle(Event::Links(complete.links.clone()), Instant::ZERO);
    apply_resync(&mut state, &complete.services, Event::of::<Service>);
    let early = plan(&state, Instant::ZERO);
    assert!(early.links[&2].config.units.is_empty(), "the interface is used without units");
    let without_node = Cluster { nodes: vec![node("node2")], ..Cluster::default() };
    assert!(without_node.plan().not_ready_reason.is_some_and(|why| why.contains("--node-name")));
    assert_eq!(complete.plan().not_ready_reason, None);
}

/// Returns owned addresses that were claimed at the same time.
fn owned(addresses: impl IntoIterator<Item = IpAddr>) -> SharedMap<IpAddr, Owned> {
    let mut owned = SharedMap::default();
    for address in addresses {
        owned.insert(address, Owned { since: Instant::ZERO, rank: ClaimRank::default() });
    }
    owned
}
