//! Routes in variants of one cluster: two nodes, a router of another AS, and a router of the nodes'
//! own AS.

use ferrolb_proto::api;
use ferrolb_proto::facts::{BgpPeer, Community, Endpoint, EndpointCondition, Pool, TrafficPolicy};
use serde_json::{Value, json};

use super::*;
use crate::bgp::sessions;
use crate::eligibility::EligibleEndpoints;

mod table;

use table::routes;

/// A cluster with the nodes `node1` and `node2`.
struct RouteCluster {
    nodes: Vec<Node>,
    pools: Vec<Pool>,
    peers: Vec<BgpPeer>,
    advertisements: Vec<BgpAdvertisement>,
    communities: Vec<Community>,
    unhealthy: bool,
}

fn read<O: serde::de::DeserializeOwned, F: From<O>>(name: &str, created: usize, spec: &Value) -> F {
    let metadata =
        json!({"name": name, "creationTimestamp": format!("2026-01-01T00:00:{created:02}Z")});
    serde_json::from_value::<O>(json!({"metadata": metadata, "spec": spec}))
        .expect("an object")
        .into()
}

fn ad(name: &str, created: usize, spec: &Value) -> BgpAdvertisement {
    read::<api::BgpAdvertisementObject, _>(name, created, spec)
}

impl RouteCluster {
    /// Returns a cluster in which the router `tor` is of another AS, and `spine` of the nodes' own.
    /// Both are reached by IPv4, and `spine` also accepts IPv6 routes. The pool has `10.0.0.0/24`
    /// and `fd00::/120`.
    fn with(advertisements: Vec<BgpAdvertisement>) -> Self {
        let node = |name: &str| Node {
            name: name.into(),
            ready: true,
            labels: [("rack".to_owned(), name.to_owned())].into(),
            ..Node::default()
        };
        let tor = json!({"myASN": 64512, "peerASN": 64513, "peerAddress": "192.0.2.1"});
        let spine = json!({"myASN": 64512, "peerASN": 64512, "peerAddress": "192.0.2.2", "dualStackAddressFamily": true});
        let ranges = ["10.0.0.0/24", "fd00::/120"].map(|range| range.parse().expect("a range"));
        Self {
            nodes: vec![node("node1"), node("node2")],
            pools: vec![Pool { name: "lan".into(), ranges: ranges.into(), ..Pool::default() }],
            peers: vec![
                read::<api::BgpPeerObject, _>("tor", 0, &tor),
                read::<api::BgpPeerObject, _>("spine", 1, &spine),
            ],
            advertisements,
            communities: vec![],
            unhealthy: false,
        }
    }

    /// Returns the routes of `node1`, one text for each prefix and set of attributes:
    /// `prefix routers attributes`.
    fn routes(&self, services: Vec<ServiceView<'_>>) -> Vec<String> {
        let view = ClusterView::new(self.nodes.iter(), self.pools.iter(), [].into_iter(), false);
        let sessions = sessions(&self.peers, &self.nodes[0].labels);
        let advertisements = BgpAdvertisements::new(&self.advertisements, &self.communities);
        let input = RouteInput {
            node: &self.nodes[0],
            sessions: &sessions,
            advertisements: &advertisements,
            unhealthy: self.unhealthy,
        };
        let routes = routes(&view, &input, services);
        let lines = routes.iter().flat_map(|(prefix, class)| {
            let line = move |(attributes, peers): (&RouteAttributes, &BTreeSet<Box<str>>)| {
                let RouteAttributes { communities, local_pref, med, prepend } = attributes;
                let communities: Vec<_> = communities.iter().map(ToString::to_string).collect();
                let numbers = [
                    ("pref", *local_pref),
                    ("med", *med),
                    ("prepend", Some(u32::from(*prepend)).filter(|n| *n > 0)),
                ];
                let numbers: Vec<_> = numbers
                    .into_iter()
                    .filter_map(|(name, n)| Some(format!("{name}{}", n?)))
                    .collect();
                let peers: Vec<_> = peers.iter().map(|peer| &**peer).collect();
                [prefix.to_string(), peers.join("+"), communities.join(","), numbers.join(",")]
                    .join(" ")
                    .trim_end()
                    .to_owned()
            };
            class.peers_by_attributes.iter().map(line)
        });
        lines.collect()
    }
}

const NO_LABELS: &crate::announce::SortedLabels = &[];

fn endpoint(node: &str, family: Family) -> Endpoint {
    Endpoint { node: Some(node.into()), family, ready: true, serving: true, terminating: false }
}

/// Returns a Service with these addresses and endpoints.
fn served<'a>(
    policy: TrafficPolicy,
    assigned: &'a [IpAddr],
    endpoints: &'a [Endpoint],
) -> ServiceView<'a> {
    ServiceView {
        assigned,
        from_pool: None,
        labels: NO_LABELS,
        endpoints: EligibleEndpoints::new(policy, EndpointCondition::default(), endpoints),
        failing_on: vec![],
    }
}

fn addresses(all: &[&str]) -> Vec<IpAddr> {
    all.iter().map(|address| address.parse().expect("an address")).collect()
}

/// Returns the routes of `node1` for one Service with the policy `Cluster` and these addresses,
/// under these advertisements.
fn advertised(advertisements: Vec<BgpAdvertisement>, all: &[&str]) -> Vec<String> {
    let (assigned, both) =
        (addresses(all), [Family::V4, Family::V6].map(|family| endpoint("node2", family)));
    RouteCluster::with(advertisements).routes(vec![served(
        TrafficPolicy::Cluster,
        &assigned,
        &both,
    )])
}

#[test]
fn an_empty_advertisement_exports_to_every_router_of_the_family() {
    let bare = || vec![ad("all", 0, &json!({}))];
    assert_eq!(
        advertised(bare(), &["10.0.0.7", "fd00::7"]),
        ["10.0.0.7/32 spine+tor", "fd00::7/128 spine"]
    );
    assert_eq!(advertised(vec![], &["10.0.0.7"]), [""; 0]);
    assert_eq!(advertised(bare(), &["10.9.0.7"]), [""; 0], "no pool contains the address");
}

#[test]
fn attributes_apply_to_the_selected_routers() {
    let full = json!({"localPref": 200, "med": 7, "asPathPrepend": 2, "communities": ["64512:1", "large:1:2:3"]});
    let lines = advertised(vec![ad("full", 0, &full)], &["10.0.0.7"]);
    assert_eq!(
        lines,
        [
            "10.0.0.7/32 tor 64512:1,large:1:2:3 med7,prepend2",
            "10.0.0.7/32 spine 64512:1,large:1:2:3 pref200,med7"
        ]
    );
    let two = vec![
        ad("a", 0, &json!({"peers": ["tor"], "communities": ["1:1"]})),
        ad("b", 1, &json!({"peers": ["spine"], "communities": ["2:2"]})),
        ad("c", 2, &json!({"communities": ["3:3"]})),
    ];
    assert_eq!(
        advertised(two, &["10.0.0.7"]),
        ["10.0.0.7/32 tor 1:1,3:3", "10.0.0.7/32 spine 2:2,3:3"]
    );
}

#[test]
fn the_older_of_two_conflicting_advertisements_applies() {
    for (field, value) in [("localPref", 1), ("med", 1), ("asPathPrepend", 1)] {
        let younger = json!({field: value, "communities": ["2:2"]});
        let advertisements = vec![
            ad("a", 2, &younger),
            ad("b", 1, &json!({"peers": ["tor"], "communities": ["1:1"]})),
        ];
        let lines = advertised(advertisements, &["10.0.0.7"]);
        assert!(lines.iter().any(|line| line == "10.0.0.7/32 tor 1:1"), "tor, {field}: {lines:?}");
        assert!(
            lines.iter().any(|line| line.starts_with("10.0.0.7/32 spine 2:2")),
            "spine, {field}: {lines:?}"
        );
    }
}

#[test]
fn a_route_with_too_many_communities_is_not_advertised() {
    let many =
        |from: usize| (from..from + 63).map(|n| format!("large:1:1:{n}")).collect::<Vec<_>>();
    let ad_of = |n: usize, peers: &[&str]| {
        ad(&n.to_string(), n, &json!({"communities": many(n * 63), "peers": peers}))
    };
    let two = advertised(vec![ad_of(0, &[]), ad_of(1, &[])], &["10.0.0.7"]);
    assert_eq!(two[0].matches("large:").count(), 126);
    let third = advertised(vec![ad_of(0, &[]), ad_of(1, &[]), ad_of(2, &["tor"])], &["10.0.0.7"]);
    assert!(
        matches!(&third[..], [one] if one.starts_with("10.0.0.7/32 spine ")),
        "tor receives no route: {third:?}"
    );
}

#[test]
fn an_aggregate_needs_an_address_and_must_fit_into_its_pool() {
    let aggregate = |length: u8| {
        vec![ad("a", 0, &json!({"aggregationLength": length, "aggregationLengthV6": 124}))]
    };
    let all = ["10.0.0.7", "10.0.0.9", "10.0.0.201", "fd00::7"];
    assert_eq!(
        advertised(aggregate(26), &all),
        ["10.0.0.0/26 spine+tor", "10.0.0.192/26 spine+tor", "fd00::/124 spine"]
    );
    assert_eq!(advertised(aggregate(24), &all), ["10.0.0.0/24 spine+tor", "fd00::/124 spine"]);
    assert_eq!(advertised(aggregate(23), &all), [""; 0], "half of the prefix is outside the pool");
}

#[test]
fn an_unknown_community_name_blocks_the_advertisement() {
    let named = || vec![ad("named", 0, &json!({"communities": ["quiet"]}))];
    let spec = |value: &str| json!({"communities": [{"name": "quiet", "value": value}]});
    let both = [endpoint("node2", Family::V4)];
    let assigned = addresses(&["10.0.0.7"]);
    let mut cluster = RouteCluster::with(named());
    assert_eq!(cluster.routes(vec![served(TrafficPolicy::Cluster, &assigned, &both)]), [""; 0]);
    cluster.communities = [("a", "65535:1"), ("b", "65535:2")]
        .map(|(name, value)| read::<api::CommunityObject, Community>(name, 0, &spec(value)))
        .into();
    let lines = cluster.routes(vec![served(TrafficPolicy::Cluster, &assigned, &both)]);
    assert_eq!(lines, ["10.0.0.7/32 spine+tor 65535:1"], "the first Community by name applies");
}

#[test]
fn endpoints_of_the_same_family_decide_on_an_address() {
    let both = addresses(&["10.0.0.7", "fd00::7"]);
    let v4_on_node1 = [endpoint("node1", Family::V4), endpoint("node2", Family::V6)];
    let cluster = RouteCluster::with(vec![ad("all", 0, &json!({}))]);
    assert_eq!(
        cluster.routes(vec![served(TrafficPolicy::Local, &both, &v4_on_node1)]),
        ["10.0.0.7/32 spine+tor"]
    );
    assert_eq!(cluster.routes(vec![served(TrafficPolicy::Cluster, &both, &v4_on_node1)]).len(), 2);
    assert_eq!(
        cluster.routes(vec![served(TrafficPolicy::Cluster, &both, &v4_on_node1[..1])]),
        ["10.0.0.7/32 spine+tor"],
        "no node has an IPv6 endpoint"
    );
    assert_eq!(cluster.routes(vec![served(TrafficPolicy::Cluster, &both, &[])]), [""; 0]);
}

#[test]
fn all_services_of_an_address_with_endpoints_decide_together() {
    let shared = addresses(&["10.0.0.7"]);
    let [on_node1, on_node2] = [[endpoint("node1", Family::V4)], [endpoint("node2", Family::V4)]];
    let cluster = RouteCluster::with(vec![ad("all", 0, &json!({}))]);
    let local = |endpoints| served(TrafficPolicy::Local, &shared, endpoints);
    assert_eq!(cluster.routes(vec![local(&on_node1), local(&on_node2)]), [""; 0]);
    assert_eq!(cluster.routes(vec![local(&on_node1), local(&[])]).len(), 1);
    assert_eq!(
        cluster
            .routes(vec![local(&on_node1), served(TrafficPolicy::Cluster, &shared, &on_node2)])
            .len(),
        1
    );
}

#[test]
fn selectors_of_nodes_services_pools_and_peers_apply() {
    let with_labels = |labels: &'static crate::announce::SortedLabels, policy| {
        let (assigned, on_node2) =
            (addresses(&["10.0.0.7"]).leak(), vec![endpoint("node2", Family::V4)].leak());
        ServiceView { labels, ..served(policy, assigned, on_node2) }
    };
    let web: &crate::announce::SortedLabels = vec![("tier".into(), "web".into())].leak();
    for (spec, announced) in [
        (json!({"nodeSelectors": [{"matchLabels": {"rack": "node1"}}]}), true),
        (json!({"nodeSelectors": [{"matchLabels": {"rack": "node2"}}]}), false),
        (json!({"serviceSelectors": [{"matchLabels": {"tier": "web"}}]}), true),
        (json!({"serviceSelectors": [{"matchLabels": {"tier": "db"}}]}), false),
        (json!({"ipAddressPools": ["lan"]}), true),
        (json!({"ipAddressPools": ["wan"]}), false),
        (json!({"peers": ["tor"]}), true),
        (json!({"peers": ["other"]}), false),
    ] {
        let lines = RouteCluster::with(vec![ad("one", 0, &spec)])
            .routes(vec![with_labels(web, TrafficPolicy::Cluster)]);
        assert_eq!(!lines.is_empty(), announced, "routes with {spec}: {lines:?}");
    }
}

#[test]
fn an_excluded_or_unreachable_node_advertises_nothing() {
    let (assigned, on_node2) = (addresses(&["10.0.0.7"]), [endpoint("node2", Family::V4)]);
    let mut cluster = RouteCluster::with(vec![ad("all", 0, &json!({}))]);
    cluster.nodes[0].excluded = true;
    assert_eq!(cluster.routes(vec![served(TrafficPolicy::Cluster, &assigned, &on_node2)]), [""; 0]);
    cluster.nodes[1].excluded = true;
    assert_eq!(
        cluster.routes(vec![served(TrafficPolicy::Cluster, &assigned, &on_node2)]).len(),
        1,
        "the label has no effect if every Node has it"
    );
    cluster.nodes[0].unreachable = true;
    assert_eq!(cluster.routes(vec![served(TrafficPolicy::Cluster, &assigned, &on_node2)]), [""; 0]);
}

#[test]
fn export_targets_match_the_routes_or_have_a_reason() {
    let both = addresses(&["10.0.0.7", "fd00::7"]);
    let [on_node1, on_node2] = [[endpoint("node1", Family::V4)], [endpoint("node2", Family::V4)]];
    let v6 = [endpoint("node1", Family::V6)];
    let on = |rack: &str| json!({"nodeSelectors": [{"matchLabels": {"rack": rack}}]});
    let none = json!({"communities": ["unknown"]});
    let cases = [
        (json!({}), TrafficPolicy::Local, &on_node1, Ok("spine+tor")),
        (json!({"peers": ["tor"]}), TrafficPolicy::Cluster, &on_node2, Ok("tor")),
        (
            json!({"peers": ["elsewhere"]}),
            TrafficPolicy::Cluster,
            &on_node2,
            Err(Ineligible::NoRouter),
        ),
        (json!({}), TrafficPolicy::Local, &on_node2, Err(Ineligible::NoLocalEndpoint)),
        (on("node2"), TrafficPolicy::Cluster, &on_node2, Err(Ineligible::NotSelected)),
        (
            json!({"ipAddressPools": ["wan"]}),
            TrafficPolicy::Cluster,
            &on_node2,
            Err(Ineligible::NotSelected),
        ),
        (
            json!({"aggregationLength": 8}),
            TrafficPolicy::Cluster,
            &on_node2,
            Err(Ineligible::NotSelected),
        ),
        (none, TrafficPolicy::Cluster, &on_node2, Err(Ineligible::NotSelected)),
        (json!({}), TrafficPolicy::Cluster, &v6, Err(Ineligible::NoEndpoint)),
    ];
    for (spec, policy, endpoints, expect) in cases {
        let cluster = RouteCluster::with(vec![ad("one", 0, &spec)]);
        let view =
            ClusterView::new(cluster.nodes.iter(), cluster.pools.iter(), [].into_iter(), false);
        let (sessions, advertisements) = (
            sessions(&cluster.peers, &cluster.nodes[0].labels),
            BgpAdvertisements::new(&cluster.advertisements, []),
        );
        let input = RouteInput {
            node: &cluster.nodes[0],
            sessions: &sessions,
            advertisements: &advertisements,
            unhealthy: false,
        };
        let service = served(policy, &both, endpoints);
        let targets = export_targets(&view, &input, both[0], [&service]);
        let names = targets.map(|targets| targets.peers.into_iter().collect::<Vec<_>>().join("+"));
        assert_eq!(names, expect.map(str::to_owned), "export targets with {spec}");
        let receivers: BTreeSet<String> = routes(&view, &input, vec![service])
            .iter()
            .filter(|(prefix, _)| prefix.to_string() == "10.0.0.7/32")
            .flat_map(|(_, class)| class.peers().map(str::to_owned).collect::<Vec<_>>())
            .collect();
        assert_eq!(
            receivers.into_iter().collect::<Vec<_>>().join("+"),
            expect.unwrap_or_default(),
            "routers with {spec}"
        );
    }
}

#[test]
fn routes_of_an_unhealthy_node_are_de_preferred() {
    let (assigned, on_node1) =
        (addresses(&["10.0.0.7", "10.0.0.9"]), [endpoint("node1", Family::V4)]);
    let spec = json!({"localPref": 200, "asPathPrepend": 1, "communities": ["1:1"]});
    let with = |change: fn(&mut RouteCluster)| {
        let mut cluster = RouteCluster::with(vec![ad("all", 0, &spec)]);
        change(&mut cluster);
        cluster.routes(vec![served(TrafficPolicy::Local, &assigned[..1], &on_node1)])
    };
    let plain = ["10.0.0.7/32 tor 1:1 prepend1", "10.0.0.7/32 spine 1:1 pref200"];
    let de_preferred = [
        "10.0.0.7/32 tor 1:1,65535:0 med4294967295,prepend4",
        "10.0.0.7/32 spine 1:1,65535:0 pref0,med4294967295",
    ];
    assert_eq!(with(|_| ()), plain);
    for change in [
        (|cluster| cluster.unhealthy = true) as fn(&mut RouteCluster),
        |cluster| cluster.nodes[0].cordoned = true,
        |cluster| cluster.nodes[0].ready = false,
    ] {
        assert_eq!(with(change), de_preferred);
    }
    // The same properties of another node do not matter.
    assert_eq!(with(|cluster| cluster.nodes[1].cordoned = true), plain);
}

#[test]
fn failing_checks_de_prefer_an_address_or_a_whole_aggregate() {
    let (assigned, on_node1) =
        (addresses(&["10.0.0.7", "10.0.0.9"]), [endpoint("node1", Family::V4)]);
    let fails = |address, on: &'static str| ServiceView {
        failing_on: vec![(on, Family::V4)],
        ..served(TrafficPolicy::Local, address, &on_node1)
    };
    let passes = |address| served(TrafficPolicy::Local, address, &on_node1);
    let (one, other) = (&assigned[..1], &assigned[1..]);
    let lines =
        |spec: Value, services| RouteCluster::with(vec![ad("all", 0, &spec)]).routes(services);
    let is_de_preferred = |line: &String| line.contains("65535:0");
    let each = lines(json!({"peers": ["tor"]}), vec![fails(one, "node1"), passes(other)]);
    assert_eq!(each.iter().map(is_de_preferred).collect::<Vec<_>>(), [true, false], "{each:?}");
    assert!(
        !lines(json!({}), vec![fails(one, "node2")]).iter().any(is_de_preferred),
        "failures on another node do not count"
    );
    let whole = || json!({"peers": ["tor"], "aggregationLength": 24});
    assert!(!lines(whole(), vec![fails(one, "node1"), passes(other)]).iter().any(is_de_preferred));
    assert!(
        lines(whole(), vec![fails(one, "node1"), fails(other, "node1")])
            .iter()
            .all(is_de_preferred)
    );
}

#[test]
fn export_targets_name_the_yielding_advertisements() {
    let both = addresses(&["10.0.0.7"]);
    let on_node2 = [endpoint("node2", Family::V4)];
    let advertisements = vec![
        ad("old", 0, &json!({"peers": ["tor"]})),
        ad("young", 1, &json!({"med": 7})),
        ad("other", 2, &json!({"med": 8, "peers": ["other"]})),
    ];
    let cluster = RouteCluster::with(advertisements);
    let view = ClusterView::new(cluster.nodes.iter(), cluster.pools.iter(), [].into_iter(), false);
    let (sessions, advertisements) = (
        sessions(&cluster.peers, &cluster.nodes[0].labels),
        BgpAdvertisements::new(&cluster.advertisements, []),
    );
    let input = RouteInput {
        node: &cluster.nodes[0],
        sessions: &sessions,
        advertisements: &advertisements,
        unhealthy: false,
    };
    let targets =
        export_targets(&view, &input, both[0], [&served(TrafficPolicy::Cluster, &both, &on_node2)]);
    let expect = ExportTargets {
        peers: ["spine", "tor"].into(),
        de_preferred: false,
        overridden: ["young"].into(),
    };
    assert_eq!(targets, Ok(expect));
}
