//! Tests of the desired BGP configuration: sessions, groups of routers, and the limit.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use ferrolb_core::bgp::{ClassCounts, Prefix, RouteAttributes, RouteClass, Routes};
use ferrolb_core::store::Store;
use ferrolb_proto::facts::{
    BfdProfile, BfdTimers, Node, PasswordProblem, PasswordSecret, PeerLocation,
};
use serde_json::{Value, json};

use super::*;
use crate::state::LastPasswords;

/// Returns a BGPPeer with the required fields and the fields of `spec`.
fn peer(name: &str, spec: &Value) -> BgpPeer {
    let mut object = json!({"metadata": {"name": name, "namespace": "ferrolb-system"},
        "spec": {"myASN": 64512, "peerASN": 64513, "peerAddress": "192.0.2.1"}});
    for (field, value) in spec.as_object().expect("fields") {
        object["spec"][field] = value.clone();
    }
    serde_json::from_value::<ferrolb_proto::api::BgpPeerObject>(object).expect("a peer").into()
}

fn node() -> Node {
    let internal: Vec<IpAddr> =
        ["172.30.0.11", "fd30::11"].map(|address| address.parse().expect("an address")).into();
    Node { name: "node1".into(), internal_addresses: internal, ..Node::default() }
}

/// Returns routes to these addresses, each with the peers that receive it and their attributes.
fn routes(all: &[(&str, &[(&str, RouteAttributes)])]) -> Routes {
    let class = |receivers: &[(&str, RouteAttributes)]| {
        let mut class = RouteClass::default();
        for (peer, attributes) in receivers {
            class.peers_by_attributes.entry(attributes.clone()).or_default().insert((*peer).into());
        }
        Arc::new(class)
    };
    all.iter()
        .map(|(address, receivers)| {
            (Prefix::of(address.parse().expect("an address"), 128), class(receivers))
        })
        .collect()
}

/// A Secret with a password, and one without.
static SECRETS: LazyLock<(Store<Box<str>, PasswordSecret>, LastPasswords)> = LazyLock::new(|| {
    let mut secrets = Store::default();
    for (name, password) in [("good", Ok("hush".into())), ("bad", Err(PasswordProblem::NoEntry))] {
        secrets.put(name.into(), PasswordSecret { name: name.into(), password });
    }
    (secrets, LastPasswords::default())
});

fn context<'a>(node: &'a Node, profiles: &'a [BfdProfile]) -> SessionContext<'a> {
    let profiles = profiles.iter().map(|profile| (&*profile.name, profile)).collect();
    let routers = [("eth7".to_owned(), "fe80::7".parse().expect("an address"))].into();
    let (secrets, last_passwords) = &*SECRETS;
    SessionContext { node, secrets, last_passwords, profiles, unnumbered_routers: routers }
}

fn profile(name: &str, spec: &Value) -> BfdProfile {
    let object = json!({"metadata": {"name": name}, "spec": spec});
    serde_json::from_value::<ferrolb_proto::api::BfdProfileObject>(object)
        .expect("a profile")
        .into()
}

/// Returns the configuration of one session, and its issue.
fn session_config(spec: &Value) -> (Option<SessionConfig>, Option<String>) {
    let (node, peers) = (node(), [peer("tor", spec)]);
    let profiles = [profile(
        "fast",
        &json!({"transmitInterval": 50, "receiveInterval": 60, "detectMultiplier": 4}),
    )];
    let sessions = sessions(&peers, &node.labels);
    let mut outcome = plan_config(
        &context(&node, &profiles),
        &sessions,
        (&Routes::default(), &ClassCounts::new()),
    );
    (
        outcome.config.sessions.into_values().next().map(|config| (*config).clone()),
        outcome.issues.remove("tor").map(|issue| issue.to_string()),
    )
}

#[test]
fn a_session_has_its_parameters_password_and_timers() {
    let spec = json!({"password": "hush", "bfdProfile": "fast", "peerPort": 1179});
    let (config, issue) = session_config(&spec);
    let config = config.expect("a session");
    assert_eq!((&*config.name, config.password.as_deref(), issue), ("tor", Some("hush"), None));
    assert_eq!(Ok(config.parameters), peer("tor", &spec).session);
    let millis = Duration::from_millis;
    let timers = BfdTimers { receive: millis(60), transmit: millis(50), multiplier: 4 };
    assert_eq!(config.bfd, Some(timers));
    let plain = session_config(&json!({})).0.expect("a session");
    assert_eq!((plain.password, plain.bfd), (None, None));
}

#[test]
fn a_missing_password_blocks_a_session_and_a_missing_profile_bfd() {
    for (secret, why) in
        [("bad", "Secret bad has no entry"), ("none", "Secret none does not exist")]
    {
        let (config, issue) = session_config(&json!({"passwordSecret": {"name": secret}}));
        assert!(
            config.is_none() && issue.as_ref().is_some_and(|issue| issue.contains(why)),
            "{issue:?}"
        );
    }
    let (config, issue) = session_config(&json!({"passwordSecret": {"name": "good"}}));
    assert_eq!((config.expect("a session").password.as_deref(), issue), (Some("hush"), None));
    let multihop = json!({"bfdProfile": "fast", "ebgpMultiHop": true});
    for (spec, why) in [
        (json!({"bfdProfile": "none"}), "BFDProfile none does not exist"),
        (multihop, "does not support it with spec.ebgpMultiHop"),
    ] {
        let (config, issue) = session_config(&spec);
        assert_eq!(config.expect("a session").bfd, None);
        assert!(issue.as_ref().is_some_and(|issue| issue.contains(why)), "{issue:?}");
    }
}

/// Returns the number of prefixes of each class.
fn counts(routes: &Routes) -> ClassCounts {
    let mut counts = ClassCounts::new();
    for (prefix, class) in routes.iter() {
        *counts.entry((prefix.family(), Arc::clone(class))).or_default() += 1;
    }
    counts
}

/// Returns the desired configuration of a node with these peers and routes.
fn desired_config(peers: &[BgpPeer], routes: Routes) -> BgpConfig {
    let node = node();
    let sessions = sessions(peers, &node.labels);
    assert!(sessions.conflicts.is_empty(), "{:?}", sessions.conflicts);
    plan_config(&context(&node, &[]), &sessions, (&routes, &counts(&routes))).config
}

/// Returns the groups of the routers that receive the route to an address.
fn groups(config: &BgpConfig, address: &str) -> ExportGroups {
    let prefix = Prefix::of(address.parse().expect("an address"), 128);
    export_groups(config.routes.get(&prefix).expect("a route"), &config.receivers[&prefix.family()])
}

/// Returns the addresses of a group of routers, separated by spaces.
fn routers(group: &BTreeSet<IpAddr>) -> String {
    group.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

#[test]
fn routers_with_equal_attributes_are_one_group() {
    let communities = ["1:2", "large:3:4:5"].map(|text| text.parse().expect("a community"));
    let full = RouteAttributes {
        communities: communities.into(),
        local_pref: Some(200),
        med: Some(7),
        prepend: 2,
    };
    let peers = [
        peer("a", &json!({})),
        peer("b", &json!({"peerAddress": "192.0.2.2"})),
        peer("c", &json!({"peerAddress": "192.0.2.3"})),
        peer("d", &json!({"peerAddress": "192.0.2.4", "localASN": 64999})),
    ];
    let plain = RouteAttributes::default();
    let receivers = [("a", full.clone()), ("b", full.clone()), ("c", plain), ("d", full)];
    let desired = desired_config(&peers, routes(&[("10.0.0.7", &receivers)]));
    let full_group = |asn| ExportAttributes {
        communities: communities.into(),
        local_pref: 200,
        med: Some(7),
        prepend: Some((asn, 2)),
        next_hop: None,
    };
    let plain_group = ExportAttributes {
        communities: BTreeSet::new(),
        local_pref: 0,
        med: None,
        prepend: None,
        next_hop: None,
    };
    let groups = groups(&desired, "10.0.0.7");
    assert_eq!(groups.len(), 3);
    assert_eq!(routers(&groups[&full_group(64512)]), "192.0.2.1 192.0.2.2");
    assert_eq!(routers(&groups[&plain_group]), "192.0.2.3");
    assert_eq!(routers(&groups[&full_group(64999)]), "192.0.2.4");
}

#[test]
fn internal_routers_get_the_default_local_pref() {
    for (asn, requested, expect) in
        [(64512, None, 100), (64512, Some(200), 200), (64512, Some(0), 0), (64513, None, 0)]
    {
        let attributes = RouteAttributes { local_pref: requested, ..RouteAttributes::default() };
        let desired = desired_config(
            &[peer("tor", &json!({"peerASN": asn}))],
            routes(&[("10.0.0.7", &[("tor", attributes)])]),
        );
        let groups = groups(&desired, "10.0.0.7");
        let (attributes, _) = groups.first_key_value().expect("a group");
        assert_eq!(
            attributes.local_pref, expect,
            "LOCAL_PREF for AS {asn} is wrong if the advertisement sets {requested:?}"
        );
    }
}

#[test]
fn prefixes_of_another_family_have_the_nodes_next_hop() {
    let plain = || RouteAttributes::default();
    let peers = [
        peer("both", &json!({"dualStackAddressFamily": true})),
        peer("link", &json!({"peerAddress": "", "interface": "eth7"})),
        peer("undiscovered", &json!({"peerAddress": "", "interface": "eth8"})),
    ];
    let receivers = [("both", plain()), ("link", plain()), ("undiscovered", plain())];
    let desired =
        desired_config(&peers, routes(&[("10.0.0.7", &receivers), ("fd00::7", &receivers)]));
    let next_hops = |address: &str| {
        let hop = |hop: Option<IpAddr>| hop.map(|hop| hop.to_string()).unwrap_or_default();
        groups(&desired, address)
            .iter()
            .map(|(attributes, group)| (routers(group), hop(attributes.next_hop)))
            .collect::<BTreeSet<_>>()
    };
    let pair = |list: &str, hop: &str| (list.to_owned(), hop.to_owned());
    assert_eq!(next_hops("10.0.0.7"), [pair("192.0.2.1 fe80::7", "")].into());
    assert_eq!(next_hops("fd00::7"), [pair("192.0.2.1", "fd30::11"), pair("fe80::7", "")].into());
}

#[test]
fn the_identity_comes_from_the_peers_and_is_absent_without_peers() {
    let identity = |spec: &Value| {
        desired_config(&[peer("tor", spec)], Routes::default()).identity.expect("an identity")
    };
    assert_eq!(identity(&json!({})).router_id.to_string(), "172.30.0.11");
    assert_eq!(identity(&json!({"routerID": "1.2.3.4"})).router_id.to_string(), "1.2.3.4");
    assert_eq!(identity(&json!({})).asn, 64512);
    assert_eq!(desired_config(&[], Routes::default()), BgpConfig::default());
    let (v6, peers) = (Node { internal_addresses: vec![], ..node() }, [peer("tor", &json!({}))]);
    let sessions = sessions(&peers, &v6.labels);
    let derived =
        plan_config(&context(&v6, &[]), &sessions, (&Routes::default(), &ClassCounts::new()))
            .config
            .identity
            .expect("an identity");
    assert!(!derived.router_id.is_unspecified());
    let without_password =
        desired_config(&[peer("tor", &json!({"passwordSecret": {"name": "none"}}))], routes(&[]));
    assert_eq!(without_password.identity, None);
    let locations = desired_config(&[peer("tor", &json!({}))], Routes::default())
        .sessions
        .into_keys()
        .collect::<Vec<_>>();
    assert_eq!(locations, [PeerLocation::Address([192, 0, 2, 1].into())]);
}

/// Returns a class with this MED, which the router `tor` receives.
fn class_with_med(med: u32) -> Arc<RouteClass> {
    let attributes = RouteAttributes { med: Some(med), ..RouteAttributes::default() };
    let peers_by_attributes = [(attributes, ["tor".into()].into())].into();
    Arc::new(RouteClass { peers_by_attributes })
}

/// Returns the routes of `count` classes with one prefix each. The order of the prefixes is the
/// reverse of the order of their classes.
fn distinct_classes(count: u32) -> Routes {
    let prefix = |med| Prefix::of(IpAddr::V4(Ipv4Addr::from(0x0a00_ffff - med)), 32);
    (0..count).rev().map(|med| (prefix(med), class_with_med(med))).collect()
}

#[test]
fn the_last_classes_above_the_statement_limit_are_left_out() {
    let (node, peers) = (node(), [peer("tor", &json!({}))]);
    let sessions = sessions(&peers, &node.labels);
    let max = u32::try_from(STATEMENTS_MAX).expect("a small limit");
    let routes = distinct_classes(max);
    let full = plan_config(&context(&node, &[]), &sessions, (&routes, &counts(&routes)));
    assert_eq!((full.config.routes.len(), full.prefixes_over_limit), (STATEMENTS_MAX, 0));
    let mut routes = distinct_classes(max + 2);
    // Another prefix of the first class needs no further statements.
    routes.insert(Prefix::of([10, 9, 9, 9].into(), 32), class_with_med(0));
    let outcome = plan_config(&context(&node, &[]), &sessions, (&routes, &counts(&routes)));
    let planned: BTreeSet<_> = outcome.config.routes.values().cloned().collect();
    assert_eq!(planned, (0..max).map(class_with_med).collect());
    assert_eq!((outcome.config.routes.len(), outcome.prefixes_over_limit), (STATEMENTS_MAX + 1, 2));
    assert_eq!(outcome.prefixes, [("tor".into(), i64::from(max) + 1)].into());
    assert_eq!(over_limit(&full), None);
    let issue = NodeIssue::TooManyAttributes { prefixes: 2, limit: STATEMENTS_MAX };
    assert_eq!(over_limit(&outcome), Some(issue));
}

#[test]
fn metrics_name_routers_as_metallb_does() {
    let router_name =
        |spec: &Value| router(peer("tor", spec).session.as_ref().expect("a valid session"));
    assert_eq!(router_name(&json!({})), "192.0.2.1:179");
    assert_eq!(
        router_name(&json!({"peerAddress": "2001:db8::1", "peerPort": 1179})),
        "[2001:db8::1]:1179"
    );
    assert_eq!(router_name(&json!({"peerAddress": "", "interface": "eth7"})), "eth7:179");
}
