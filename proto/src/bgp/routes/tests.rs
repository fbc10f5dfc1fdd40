//! A table of one cluster: two nodes, a router of another AS and one of the nodes' own, and the
//! routes that each receives.

use serde_json::{Value, json};

use super::*;
use crate::api;
use crate::bgp::sessions;
use crate::facts::{BgpPeer, Community, Endpoint, EndpointCondition, TrafficPolicy};

/// The nodes `here` and `there`, and the objects around them.
struct Cluster {
    nodes: Vec<Node>,
    pools: Vec<Pool>,
    peers: Vec<BgpPeer>,
    ads: Vec<BgpAdvertisement>,
    communities: Vec<Community>,
    unsound: bool,
    relief: Withdrawable,
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

impl Cluster {
    /// Returns a cluster in which `tor` is of another AS and `spine` of the nodes' own. Both are
    /// reached by IPv4, and `spine` also accepts IPv6 routes. The pool has `10.0.0.0/24` and
    /// `fd00::/120`.
    fn with(ads: Vec<BgpAdvertisement>) -> Self {
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
            nodes: vec![node("here"), node("there")],
            pools: vec![Pool { name: "lan".into(), ranges: ranges.into(), ..Pool::default() }],
            peers: vec![
                read::<api::BgpPeerObject, _>("tor", 0, &tor),
                read::<api::BgpPeerObject, _>("spine", 1, &spine),
            ],
            ads,
            communities: vec![],
            unsound: false,
            relief: Withdrawable::default(),
        }
    }

    /// Returns the routes of `here`, one text for each prefix and router:
    /// `prefix router attributes`.
    fn routes(&self, services: Vec<ServiceView<'_>>) -> Vec<String> {
        let scene = ClusterView::new(self.nodes.iter(), self.pools.iter(), [].into_iter(), false);
        let sessions = sessions(&self.peers, &self.nodes[0].labels);
        let ads = BgpAdvertisements::new(&self.ads, &self.communities);
        let asked = RouteInput {
            node: &self.nodes[0],
            sessions: &sessions,
            ads: &ads,
            unhealthy: self.unsound,
            withdrawable: &self.relief,
        };
        let routes = routes(&scene, &asked, services).routes;
        let lines = routes.iter().flat_map(|(prefix, class)| {
            let line = move |(seen, peers): (&RouteAttributes, &BTreeSet<Box<str>>)| {
                let RouteAttributes { communities, local_pref, med, prepend } = seen;
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

const LABELS: &crate::announce::SortedLabels = &[];

fn endpoint(node: &str, family: Family) -> Endpoint {
    Endpoint { node: Some(node.into()), family, ready: true, serving: true, terminating: false }
}

/// Returns a Service with these addresses and endpoints, by node.
fn served<'a>(
    policy: TrafficPolicy,
    assigned: &'a [IpAddr],
    endpoints: &'a [Endpoint],
) -> ServiceView<'a> {
    let (usable, endpoints) = (EndpointCondition::default(), endpoints.iter().collect());
    ServiceView {
        policy,
        eligible: usable,
        assigned,
        from_pool: None,
        labels: LABELS,
        endpoints,
        failing_on: vec![],
    }
}

fn addresses(all: &[&str]) -> Vec<IpAddr> {
    all.iter().map(|address| address.parse().expect("an address")).collect()
}

/// Returns the routes of `here` for one Service of policy Cluster with these addresses, under these
/// advertisements.
fn announced(ads: Vec<BgpAdvertisement>, all: &[&str]) -> Vec<String> {
    let (assigned, both) =
        (addresses(all), [Family::V4, Family::V6].map(|family| endpoint("there", family)));
    Cluster::with(ads).routes(vec![served(TrafficPolicy::Cluster, &assigned, &both)])
}

#[test]
fn a_bare_advertisement_announces_each_address_to_every_router_that_takes_its_family() {
    let bare = || vec![ad("all", 0, &json!({}))];
    assert_eq!(
        announced(bare(), &["10.0.0.7", "fd00::7"]),
        ["10.0.0.7/32 spine+tor", "fd00::7/128 spine"]
    );
    assert_eq!(announced(vec![], &["10.0.0.7"]), [""; 0]);
    assert_eq!(announced(bare(), &["10.9.0.7"]), [""; 0], "no pool has it");
}

#[test]
fn attributes_reach_the_routers_that_they_are_for() {
    let full = json!({"localPref": 200, "med": 7, "asPathPrepend": 2, "communities": ["64512:1", "large:1:2:3"]});
    let lines = announced(vec![ad("full", 0, &full)], &["10.0.0.7"]);
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
        announced(two, &["10.0.0.7"]),
        ["10.0.0.7/32 tor 1:1,3:3", "10.0.0.7/32 spine 2:2,3:3"]
    );
}

#[test]
fn of_two_that_differ_in_what_there_is_one_of_the_older_has_its_way_with_each_router() {
    for (field, value) in [("localPref", 1), ("med", 1), ("asPathPrepend", 1)] {
        let younger = json!({field: value, "communities": ["2:2"]});
        let ads = vec![
            ad("a", 2, &younger),
            ad("b", 1, &json!({"peers": ["tor"], "communities": ["1:1"]})),
        ];
        let lines = announced(ads, &["10.0.0.7"]);
        assert!(lines.iter().any(|line| line == "10.0.0.7/32 tor 1:1"), "{field}: {lines:?}");
        assert!(
            lines.iter().any(|line| line.starts_with("10.0.0.7/32 spine 2:2")),
            "{field}: {lines:?}"
        );
    }
}

#[test]
fn more_communities_than_a_message_carries_announce_nothing_rather_than_some() {
    let many =
        |from: usize| (from..from + 63).map(|n| format!("large:1:1:{n}")).collect::<Vec<_>>();
    let ad_of = |n: usize, peers: &[&str]| {
        ad(&n.to_string(), n, &json!({"communities": many(n * 63), "peers": peers}))
    };
    let two = announced(vec![ad_of(0, &[]), ad_of(1, &[])], &["10.0.0.7"]);
    assert_eq!(two[0].matches("large:").count(), 126);
    let third = announced(vec![ad_of(0, &[]), ad_of(1, &[]), ad_of(2, &["tor"])], &["10.0.0.7"]);
    assert!(
        matches!(&third[..], [one] if one.starts_with("10.0.0.7/32 spine ")),
        "not to tor: {third:?}"
    );
}

#[test]
fn an_aggregate_is_announced_while_an_address_in_it_is_and_never_wider_than_its_pool() {
    let aggregate = |length: u8| {
        vec![ad("a", 0, &json!({"aggregationLength": length, "aggregationLengthV6": 124}))]
    };
    let all = ["10.0.0.7", "10.0.0.9", "10.0.0.201", "fd00::7"];
    assert_eq!(
        announced(aggregate(26), &all),
        ["10.0.0.0/26 spine+tor", "10.0.0.192/26 spine+tor", "fd00::/124 spine"]
    );
    assert_eq!(announced(aggregate(24), &all), ["10.0.0.0/24 spine+tor", "fd00::/124 spine"]);
    assert_eq!(announced(aggregate(23), &all), [""; 0], "half of it is others'");
}

#[test]
fn a_name_that_stands_for_no_community_announces_nothing() {
    let named = || vec![ad("named", 0, &json!({"communities": ["quiet"]}))];
    let gives = |value: &str| json!({"communities": [{"name": "quiet", "value": value}]});
    let both = [endpoint("there", Family::V4)];
    let assigned = addresses(&["10.0.0.7"]);
    let mut cluster = Cluster::with(named());
    assert_eq!(cluster.routes(vec![served(TrafficPolicy::Cluster, &assigned, &both)]), [""; 0]);
    cluster.communities = [("a", "65535:1"), ("b", "65535:2")]
        .map(|(name, value)| read::<api::CommunityObject, Community>(name, 0, &gives(value)))
        .into();
    let lines = cluster.routes(vec![served(TrafficPolicy::Cluster, &assigned, &both)]);
    assert_eq!(lines, ["10.0.0.7/32 spine+tor 65535:1"], "the first by name counts");
}

#[test]
fn a_node_announces_what_it_serves_each_address_by_endpoints_of_its_own_family() {
    let both = addresses(&["10.0.0.7", "fd00::7"]);
    let v4_here = [endpoint("here", Family::V4), endpoint("there", Family::V6)];
    let cluster = Cluster::with(vec![ad("all", 0, &json!({}))]);
    assert_eq!(
        cluster.routes(vec![served(TrafficPolicy::Local, &both, &v4_here)]),
        ["10.0.0.7/32 spine+tor"]
    );
    assert_eq!(cluster.routes(vec![served(TrafficPolicy::Cluster, &both, &v4_here)]).len(), 2);
    assert_eq!(
        cluster.routes(vec![served(TrafficPolicy::Cluster, &both, &v4_here[..1])]),
        ["10.0.0.7/32 spine+tor"],
        "no endpoint of IPv6 anywhere"
    );
    assert_eq!(cluster.routes(vec![served(TrafficPolicy::Cluster, &both, &[])]), [""; 0]);
}

#[test]
fn services_of_one_address_count_together_and_who_has_no_endpoint_does_not() {
    let shared = addresses(&["10.0.0.7"]);
    let [here, there] = [[endpoint("here", Family::V4)], [endpoint("there", Family::V4)]];
    let cluster = Cluster::with(vec![ad("all", 0, &json!({}))]);
    let local = |endpoints| served(TrafficPolicy::Local, &shared, endpoints);
    assert_eq!(cluster.routes(vec![local(&here), local(&there)]), [""; 0]);
    assert_eq!(cluster.routes(vec![local(&here), local(&[])]).len(), 1);
    assert_eq!(
        cluster.routes(vec![local(&here), served(TrafficPolicy::Cluster, &shared, &there)]).len(),
        1
    );
}

#[test]
fn selectors_of_nodes_services_and_pools_are_kept() {
    let labelled = |labels: &'static crate::announce::SortedLabels, policy| {
        let (assigned, there) =
            (addresses(&["10.0.0.7"]).leak(), vec![endpoint("there", Family::V4)].leak());
        ServiceView { labels, ..served(policy, assigned, there) }
    };
    let web: &crate::announce::SortedLabels = vec![("tier".into(), "web".into())].leak();
    for (spec, announced) in [
        (json!({"nodeSelectors": [{"matchLabels": {"rack": "here"}}]}), true),
        (json!({"nodeSelectors": [{"matchLabels": {"rack": "there"}}]}), false),
        (json!({"serviceSelectors": [{"matchLabels": {"tier": "web"}}]}), true),
        (json!({"serviceSelectors": [{"matchLabels": {"tier": "db"}}]}), false),
        (json!({"ipAddressPools": ["lan"]}), true),
        (json!({"ipAddressPools": ["wan"]}), false),
        (json!({"peers": ["tor"]}), true),
        (json!({"peers": ["nobody"]}), false),
    ] {
        let lines = Cluster::with(vec![ad("one", 0, &spec)])
            .routes(vec![labelled(web, TrafficPolicy::Cluster)]);
        assert_eq!(!lines.is_empty(), announced, "{spec}: {lines:?}");
    }
}

#[test]
fn a_node_that_may_announce_nothing_announces_nothing() {
    let (assigned, there) = (addresses(&["10.0.0.7"]), [endpoint("there", Family::V4)]);
    let mut cluster = Cluster::with(vec![ad("all", 0, &json!({}))]);
    cluster.nodes[0].excluded = true;
    assert_eq!(cluster.routes(vec![served(TrafficPolicy::Cluster, &assigned, &there)]), [""; 0]);
    cluster.nodes[1].excluded = true;
    assert_eq!(
        cluster.routes(vec![served(TrafficPolicy::Cluster, &assigned, &there)]).len(),
        1,
        "all are: it means nothing"
    );
    cluster.nodes[0].unreachable = true;
    assert_eq!(cluster.routes(vec![served(TrafficPolicy::Cluster, &assigned, &there)]), [""; 0]);
}

#[test]
fn who_is_told_of_an_address_are_those_who_see_its_route_or_there_is_a_reason() {
    let both = addresses(&["10.0.0.7", "fd00::7"]);
    let [here, there] = [[endpoint("here", Family::V4)], [endpoint("there", Family::V4)]];
    let v6 = [endpoint("here", Family::V6)];
    let on = |rack: &str| json!({"nodeSelectors": [{"matchLabels": {"rack": rack}}]});
    let none = json!({"communities": ["nobody-gives-it"]});
    let cases = [
        (json!({}), TrafficPolicy::Local, &here, Ok("spine+tor")),
        (json!({"peers": ["tor"]}), TrafficPolicy::Cluster, &there, Ok("tor")),
        (
            json!({"peers": ["elsewhere"]}),
            TrafficPolicy::Cluster,
            &there,
            Err(Ineligible::NoRouter),
        ),
        (json!({}), TrafficPolicy::Local, &there, Err(Ineligible::CannotServe)),
        (on("there"), TrafficPolicy::Cluster, &there, Err(Ineligible::NotSelected)),
        (
            json!({"ipAddressPools": ["wan"]}),
            TrafficPolicy::Cluster,
            &there,
            Err(Ineligible::NotSelected),
        ),
        (
            json!({"aggregationLength": 8}),
            TrafficPolicy::Cluster,
            &there,
            Err(Ineligible::NotSelected),
        ),
        (none, TrafficPolicy::Cluster, &there, Err(Ineligible::NotSelected)),
        (json!({}), TrafficPolicy::Cluster, &v6, Err(Ineligible::NoEndpoint)),
    ];
    for (spec, policy, endpoints, expect) in cases {
        let cluster = Cluster::with(vec![ad("one", 0, &spec)]);
        let scene =
            ClusterView::new(cluster.nodes.iter(), cluster.pools.iter(), [].into_iter(), false);
        let (sessions, ads) = (
            sessions(&cluster.peers, &cluster.nodes[0].labels),
            BgpAdvertisements::new(&cluster.ads, []),
        );
        let asked = RouteInput {
            node: &cluster.nodes[0],
            sessions: &sessions,
            ads: &ads,
            unhealthy: false,
            withdrawable: &cluster.relief,
        };
        // A Service that has other addresses does not count.
        let elsewhere = addresses(&["10.0.0.99"]);
        let services =
            [served(policy, &both, endpoints), served(TrafficPolicy::Local, &elsewhere, &there)];
        let told = export_targets(&scene, &asked, &services, both[0]);
        let names = told.map(|told| told.peers.into_iter().collect::<Vec<_>>().join("+"));
        assert_eq!(names, expect.map(str::to_owned), "{spec}");
        let seen: BTreeSet<String> = routes(&scene, &asked, services.into_iter().take(1))
            .routes
            .iter()
            .filter(|(prefix, _)| prefix.to_string() == "10.0.0.7/32")
            .flat_map(|(_, class)| class.peers().map(str::to_owned).collect::<Vec<_>>())
            .collect();
        assert_eq!(
            seen.into_iter().collect::<Vec<_>>().join("+"),
            expect.unwrap_or_default(),
            "{spec}"
        );
    }
}

#[test]
fn a_node_that_is_not_sound_is_the_last_resort_and_never_silent() {
    let (assigned, here) = (addresses(&["10.0.0.7", "10.0.0.9"]), [endpoint("here", Family::V4)]);
    let spec = json!({"localPref": 200, "asPathPrepend": 1, "communities": ["1:1"]});
    let with = |change: fn(&mut Cluster)| {
        let mut cluster = Cluster::with(vec![ad("all", 0, &spec)]);
        change(&mut cluster);
        cluster.routes(vec![served(TrafficPolicy::Local, &assigned[..1], &here)])
    };
    let plain = ["10.0.0.7/32 tor 1:1 prepend1", "10.0.0.7/32 spine 1:1 pref200"];
    let last = [
        "10.0.0.7/32 tor 1:1,65535:0 med4294967295,prepend4",
        "10.0.0.7/32 spine 1:1,65535:0 pref0,med4294967295",
    ];
    assert_eq!(with(|_| ()), plain);
    for change in [
        (|cluster| cluster.unsound = true) as fn(&mut Cluster),
        |cluster| cluster.nodes[0].cordoned = true,
        |cluster| cluster.nodes[0].ready = false,
    ] {
        assert_eq!(with(change), last);
    }
    // The same properties of another node do not matter.
    assert_eq!(with(|cluster| cluster.nodes[1].cordoned = true), plain);
}

#[test]
fn an_address_whose_checks_fail_is_of_the_last_resort_and_an_aggregate_only_with_all_its_addresses()
{
    let (assigned, here) = (addresses(&["10.0.0.7", "10.0.0.9"]), [endpoint("here", Family::V4)]);
    let fails = |address, on: &'static str| ServiceView {
        failing_on: vec![(on, Family::V4)],
        ..served(TrafficPolicy::Local, address, &here)
    };
    let well = |address| served(TrafficPolicy::Local, address, &here);
    let (one, other) = (&assigned[..1], &assigned[1..]);
    let lines = |spec: Value, services| Cluster::with(vec![ad("all", 0, &spec)]).routes(services);
    let last = |line: &String| line.contains("65535:0");
    let each = lines(json!({"peers": ["tor"]}), vec![fails(one, "here"), well(other)]);
    assert_eq!(each.iter().map(last).collect::<Vec<_>>(), [true, false], "{each:?}");
    assert!(!lines(json!({}), vec![fails(one, "there")]).iter().any(last), "another node's");
    let whole = || json!({"peers": ["tor"], "aggregationLength": 24});
    assert!(!lines(whole(), vec![fails(one, "here"), well(other)]).iter().any(last));
    assert!(lines(whole(), vec![fails(one, "here"), fails(other, "here")]).iter().all(last));
}

#[test]
fn who_yields_to_an_older_one_is_named() {
    let both = addresses(&["10.0.0.7"]);
    let there = [endpoint("there", Family::V4)];
    let ads = vec![
        ad("old", 0, &json!({"peers": ["tor"]})),
        ad("young", 1, &json!({"med": 7})),
        ad("other", 2, &json!({"med": 8, "peers": ["nobody"]})),
    ];
    let cluster = Cluster::with(ads);
    let scene = ClusterView::new(cluster.nodes.iter(), cluster.pools.iter(), [].into_iter(), false);
    let (sessions, ads) = (
        sessions(&cluster.peers, &cluster.nodes[0].labels),
        BgpAdvertisements::new(&cluster.ads, []),
    );
    let asked = RouteInput {
        node: &cluster.nodes[0],
        sessions: &sessions,
        ads: &ads,
        unhealthy: false,
        withdrawable: &cluster.relief,
    };
    let told =
        export_targets(&scene, &asked, &[served(TrafficPolicy::Cluster, &both, &there)], both[0]);
    let expect = ExportTargets {
        peers: ["spine", "tor"].into(),
        de_preferred: false,
        yielding: ["young"].into(),
    };
    assert_eq!(told, Ok(expect));
}

#[test]
fn what_others_tell_in_place_of_the_node_is_told_no_longer_router_by_router() {
    let (assigned, here) = (addresses(&["10.0.0.7", "10.0.0.9"]), [endpoint("here", Family::V4)]);
    let relieved = |spec: Value, relief: &[(usize, &[&str])]| {
        let mut cluster = Cluster::with(vec![ad("all", 0, &spec)]);
        let of = |(place, peers): &(usize, &[&str])| {
            (assigned[*place], peers.iter().map(|peer| (*peer).into()).collect())
        };
        cluster.relief = relief.iter().map(of).collect();
        cluster.routes(vec![served(TrafficPolicy::Local, &assigned, &here)])
    };
    let both = &["spine", "tor"][..];
    assert_eq!(
        relieved(json!({}), &[(0, &["tor"])]),
        ["10.0.0.7/32 spine", "10.0.0.9/32 spine+tor"]
    );
    assert_eq!(relieved(json!({}), &[(0, both)]), ["10.0.0.9/32 spine+tor"]);
    assert_eq!(
        relieved(json!({"peers": ["spine"]}), &[(0, &["tor"])]).len(),
        2,
        "tor is not told of it anyway"
    );
    let whole = || json!({"aggregationLength": 24});
    assert_eq!(
        relieved(whole(), &[(0, both)]),
        ["10.0.0.0/24 spine+tor"],
        "the other address in it is this node's"
    );
    assert_eq!(relieved(whole(), &[(0, both), (1, &["tor"])]), ["10.0.0.0/24 spine"]);
    assert_eq!(relieved(whole(), &[(0, both), (1, both)]), [""; 0]);
}
