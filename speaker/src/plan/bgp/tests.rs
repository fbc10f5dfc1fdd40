//! Tests of the configuration of gobgpd: the mapping of every field, and the content of every mark.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use ferrolb_proto::bgp::{Prefix, RouteAttributes, RouteClass, Routes};
use ferrolb_proto::facts::{BfdProfile, CommunityValue, Node, PeerLocation};
use gobgp_proto as gobgp;
use serde_json::{Value, json};

use ferrolb_proto::range::Family;

use super::*;
use crate::event::PasswordProblem;

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

fn context<'a>(node: &'a Node, profiles: &'a [BfdProfile]) -> SessionContext<'a> {
    let passwords = [("good", Ok("hush")), ("bad", Err(&PasswordProblem::NoEntry))].into();
    let profiles = profiles.iter().map(|profile| (&*profile.name, profile)).collect();
    let routers = [("eth7".to_owned(), "fe80::7".parse().expect("an address"))].into();
    SessionContext {
        node,
        passwords,
        last_passwords: BTreeMap::new(),
        profiles,
        unnumbered_routers: routers,
    }
}

fn profile(name: &str, spec: &Value) -> BfdProfile {
    let object = json!({"metadata": {"name": name}, "spec": spec});
    serde_json::from_value::<ferrolb_proto::api::BfdProfileObject>(object)
        .expect("a profile")
        .into()
}

/// Returns the configuration of one session, and its issue.
fn peer_config(spec: &Value) -> (Option<gobgp::Peer>, Option<String>) {
    let (node, peers) = (node(), [peer("tor", spec)]);
    let profiles = [profile(
        "fast",
        &json!({"transmitInterval": 50, "receiveInterval": 60, "detectMultiplier": 4}),
    )];
    let sessions = sessions(&peers, &node.labels);
    let mut outcome = plan_gobgp(&context(&node, &profiles), &sessions, &Routes::default());
    (
        outcome.config.peers.into_values().next().map(|config| config.peer.clone()),
        outcome.issues.remove("tor").map(|issue| issue.to_string()),
    )
}

#[test]
fn every_session_parameter_is_configured() {
    let (peer, issue) = peer_config(&json!({
        "localASN": 64999, "sourceAddress": "192.0.2.9", "peerPort": 1179, "holdTime": "30s", "keepaliveTime": "7s",
        "connectTime": "3s", "password": "hush", "bfdProfile": "fast", "enableGracefulRestart": true, "ttlSecurityHops": 2,
    }));
    let peer = peer.expect("a session");
    assert_eq!(issue, None);
    let conf = peer.conf.expect("a PeerConf");
    assert!(
        conf.description.starts_with("ferrolb-") && conf.description.ends_with(" tor"),
        "{}",
        conf.description
    );
    let text = [&conf.neighbor_address, &conf.neighbor_interface, &conf.auth_password];
    assert_eq!(text, ["192.0.2.1", "", "hush"]);
    assert_eq!((conf.peer_asn, conf.local_asn), (64513, 64999));
    let timers = peer.timers.expect("timers").config.expect("a TimersConfig");
    assert_eq!((timers.hold_time, timers.keepalive_interval, timers.connect_retry), (30, 7, 3));
    let transport = peer.transport.expect("transport");
    assert_eq!((&*transport.local_address, transport.remote_port), ("192.0.2.9", 1179));
    assert_eq!(peer.ebgp_multihop, None);
    assert_eq!(peer.ttl_security, Some(gobgp::TtlSecurity { enabled: true, ttl_min: 254 }));
    let bfd = peer.bfd.expect("BFD");
    let intervals =
        (bfd.desired_minimum_tx_interval, bfd.required_minimum_receive, bfd.detection_multiplier);
    assert_eq!((intervals, bfd.port), ((50_000, 60_000, 4), 3784));
    let graceful = peer.graceful_restart.expect("graceful restart");
    assert!(
        graceful.enabled
            && graceful.local_restarting
            && graceful.restart_time == 120
            && graceful.deferral_time == 1
    );
    let families: Vec<_> = peer
        .afi_safis
        .iter()
        .map(|family| family.config.and_then(|config| config.family))
        .collect();
    assert_eq!(families, [Some(family(Family::V4))]);
    assert!(peer.afi_safis[0].mp_graceful_restart.is_some());
}

#[test]
fn unset_fields_are_not_configured() {
    let peer = peer_config(&json!({})).0.expect("a session");
    let plain = (peer.ebgp_multihop, peer.ttl_security, peer.graceful_restart, peer.bfd);
    assert_eq!(plain, (None, None, None, None));
    assert_eq!(peer.conf.expect("a PeerConf").auth_password, "");
    let timers = peer.timers.expect("timers").config.expect("a TimersConfig");
    assert_eq!((timers.hold_time, timers.keepalive_interval, timers.connect_retry), (90, 30, 5));
    let external =
        peer_config(&json!({"peerASN": null, "dynamicASN": "external"})).0.expect("a session");
    assert_eq!(external.conf.expect("a PeerConf").peer_asn, 0, "0 accepts any AS");
    let multihop = peer_config(&json!({"ebgpMultiHop": true})).0.expect("a session");
    assert_eq!(
        multihop.ebgp_multihop,
        Some(gobgp::EbgpMultihop { enabled: true, multihop_ttl: 255 })
    );
    let unnumbered =
        peer_config(&json!({"peerAddress": "", "interface": "eth7"})).0.expect("a session");
    assert_eq!(unnumbered.afi_safis.len(), 2);
    let conf = unnumbered.conf.expect("a PeerConf");
    assert_eq!((&*conf.neighbor_address, &*conf.neighbor_interface), ("", "eth7"));
}

#[test]
fn a_missing_password_blocks_a_session_and_a_missing_profile_bfd() {
    for (secret, why) in
        [("bad", "Secret bad has no entry"), ("none", "Secret none does not exist")]
    {
        let (peer, issue) = peer_config(&json!({"passwordSecret": {"name": secret}}));
        assert!(
            peer.is_none() && issue.as_ref().is_some_and(|issue| issue.contains(why)),
            "{issue:?}"
        );
    }
    let (peer, issue) = peer_config(&json!({"passwordSecret": {"name": "good"}}));
    assert_eq!(
        (peer.expect("a session").conf.expect("a PeerConf").auth_password, issue),
        ("hush".to_owned(), None)
    );
    let description =
        |spec: &Value| peer_config(spec).0.and_then(|peer| peer.conf).map(|conf| conf.description);
    assert_eq!(
        description(&json!({"bfdProfile": "fast"})),
        description(&json!({})),
        "the description does not depend on BFD"
    );
    let multihop = json!({"bfdProfile": "fast", "ebgpMultiHop": true});
    for (spec, why) in [
        (json!({"bfdProfile": "none"}), "BFDProfile none does not exist"),
        (multihop, "does not support it with spec.ebgpMultiHop"),
    ] {
        let (peer, issue) = peer_config(&spec);
        assert_eq!(peer.expect("a session").bfd, None);
        assert!(issue.as_ref().is_some_and(|issue| issue.contains(why)), "{issue:?}");
    }
}

/// Returns the desired configuration of a node with these peers and routes.
fn desired_config(peers: &[BgpPeer], routes: &Routes) -> GobgpConfig {
    let node = node();
    let sessions = sessions(peers, &node.labels);
    assert!(sessions.conflicts.is_empty(), "{:?}", sessions.conflicts);
    plan_gobgp(&context(&node, &[]), &sessions, routes).config
}

fn community(texts: &[&str]) -> BTreeSet<CommunityValue> {
    texts.iter().map(|text| text.parse().expect("a community")).collect()
}

#[test]
fn routers_with_equal_attributes_share_a_statement() {
    let full = RouteAttributes {
        communities: community(&["1:2", "large:3:4:5"]),
        local_pref: Some(200),
        med: Some(7),
        prepend: 2,
    };
    let peers = [
        peer("a", &json!({})),
        peer("b", &json!({"peerAddress": "192.0.2.2"})),
        peer("c", &json!({"peerAddress": "192.0.2.3"})),
    ];
    let plain = RouteAttributes::default();
    let receivers = [("a", full.clone()), ("b", full), ("c", plain)];
    let desired =
        desired_config(&peers, &routes(&[("10.0.0.7", &receivers), ("10.0.0.8", &receivers)]));
    let [class] = &desired.policies.values().collect::<Vec<_>>()[..] else {
        panic!("{:?}", desired.policies)
    };
    assert_eq!(desired.paths.values().collect::<Vec<_>>(), [&class.hash, &class.hash]);
    let [first, second] = &class.statements[..] else { panic!("{:?}", class.statements) };
    let set = |statement: &gobgp::Statement| {
        let conditions = statement.conditions.clone().expect("conditions");
        let name = conditions.neighbor_set.expect("a neighbor set").name;
        assert_eq!(
            conditions.large_community_set.expect("the set with the mark").name,
            class.sets[0].name
        );
        class
            .sets
            .iter()
            .find(|set| set.name == name)
            .map(|set| set.list.join(" "))
            .expect("the set of the statement")
    };
    let (full_statement, plain_statement) =
        if set(first) == "192.0.2.3" { (second, first) } else { (first, second) };
    assert_eq!(
        (set(full_statement), set(plain_statement)),
        ("192.0.2.1 192.0.2.2".to_owned(), "192.0.2.3".to_owned())
    );
    let actions = full_statement.actions.clone().expect("actions");
    assert_eq!(actions.community.expect("communities").communities, ["1:2"]);
    assert_eq!(
        actions.large_community.expect("large communities").communities,
        ["3:4:5"],
        "the large communities replace the mark"
    );
    assert_eq!(actions.local_pref, Some(gobgp::LocalPrefAction { value: 200 }));
    assert_eq!(actions.as_prepend, Some(gobgp::AsPrependAction { asn: 64512, repeat: 2 }));
    assert_eq!(actions.med.map(|med| med.value), Some(7));
    let actions = plain_statement.actions.clone().expect("actions");
    let mark_removal = actions.large_community.expect("the removal of the mark");
    assert_eq!(
        (mark_removal.r#type(), mark_removal.communities),
        (gobgp::community_action::Type::Remove, class.sets[0].list.clone())
    );
    assert_eq!(
        (actions.community, actions.local_pref, actions.med, actions.as_prepend),
        (None, None, None, None)
    );
}

#[test]
fn internal_routers_get_the_default_local_pref() {
    for (asn, requested, expect) in [
        (64512, None, Some(100)),
        (64512, Some(200), Some(200)),
        (64512, Some(0), None),
        (64513, None, None),
    ] {
        let attributes = RouteAttributes { local_pref: requested, ..RouteAttributes::default() };
        let desired = desired_config(
            &[peer("tor", &json!({"peerASN": asn}))],
            &routes(&[("10.0.0.7", &[("tor", attributes)])]),
        );
        let class = desired.policies.values().next().expect("a class");
        let local_pref = class.statements[0].actions.clone().expect("actions").local_pref;
        assert_eq!(
            local_pref.map(|action| action.value),
            expect,
            "LOCAL_PREF for AS {asn} is wrong if the advertisement sets {requested:?}"
        );
    }
}

#[test]
fn a_mark_identifies_the_content_of_a_class() {
    let attributes_with = |communities: &[&str]| RouteAttributes {
        communities: community(communities),
        ..RouteAttributes::default()
    };
    let mark = |spec: &Value, attributes: RouteAttributes| {
        let desired =
            desired_config(&[peer("tor", spec)], &routes(&[("10.0.0.7", &[("tor", attributes)])]));
        *desired.policies.keys().next().expect("a class")
    };
    let one = mark(&json!({}), attributes_with(&["1:2"]));
    assert_eq!(mark(&json!({}), attributes_with(&["1:2"])), one);
    let others = [
        mark(&json!({}), attributes_with(&["1:3"])),
        mark(&json!({}), attributes_with(&[])),
        mark(&json!({"peerAddress": "192.0.2.9"}), attributes_with(&["1:2"])),
        mark(&json!({}), RouteAttributes { prepend: 1, ..attributes_with(&["1:2"]) }),
    ];
    assert_eq!(others.iter().chain([&one]).collect::<BTreeSet<_>>().len(), 5);
    assert_eq!(ContentHash::from_community(&one.community()), Some(one));
    assert_eq!(
        ContentHash::from_community(&gobgp::LargeCommunity { global_admin: 1, ..one.community() }),
        None
    );
    assert_eq!(ContentHash::from_statement_name(&format!("ferrolb-{one}-0")), Some(one));
    assert_eq!(
        ["ferrolb-own", "own", "ferrolb-x-0"].map(ContentHash::from_statement_name),
        [None; 3]
    );
    let description = |spec: &Value| {
        peer_config(spec).0.expect("a session").conf.expect("a PeerConf").description
    };
    assert_eq!(description(&json!({})), description(&json!({})));
    assert_ne!(description(&json!({})), description(&json!({"password": "other"})));
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
        desired_config(&peers, &routes(&[("10.0.0.7", &receivers), ("fd00::7", &receivers)]));
    let class = |address: &str| {
        let prefix = Prefix::of(address.parse().expect("an address"), 128);
        let class = &desired.policies[&desired.paths[&prefix]];
        let hop = |statement: &gobgp::Statement| {
            let hop = statement
                .actions
                .clone()
                .and_then(|actions| actions.nexthop)
                .map(|hop| hop.address);
            let list = &class
                .sets
                .iter()
                .find(|set| set.name == statement.name)
                .expect("the set of the statement")
                .list;
            (list.join(" "), hop.unwrap_or_default())
        };
        class.statements.iter().map(hop).collect::<BTreeSet<_>>()
    };
    let pair = |list: &str, hop: &str| (list.to_owned(), hop.to_owned());
    assert_eq!(class("10.0.0.7"), [pair("192.0.2.1 fe80::7", "")].into());
    assert_eq!(class("fd00::7"), [pair("192.0.2.1", "fd30::11"), pair("fe80::7", "")].into());
}

#[test]
fn the_identity_comes_from_the_peers_and_is_absent_without_peers() {
    let identity = |spec: &Value| {
        desired_config(&[peer("tor", spec)], &Routes::default()).identity.expect("an identity")
    };
    assert_eq!(identity(&json!({})).router_id.to_string(), "172.30.0.11");
    assert_eq!(identity(&json!({"routerID": "1.2.3.4"})).router_id.to_string(), "1.2.3.4");
    assert_eq!(identity(&json!({})).asn, 64512);
    assert_eq!(desired_config(&[], &Routes::default()), GobgpConfig::default());
    let (v6, peers) = (Node { internal_addresses: vec![], ..node() }, [peer("tor", &json!({}))]);
    let sessions = sessions(&peers, &v6.labels);
    let derived = plan_gobgp(&context(&v6, &[]), &sessions, &Routes::default())
        .config
        .identity
        .expect("an identity");
    assert!(!derived.router_id.is_unspecified());
    let without_password =
        desired_config(&[peer("tor", &json!({"passwordSecret": {"name": "none"}}))], &routes(&[]));
    assert_eq!(without_password.identity, None);
    let locations = desired_config(&[peer("tor", &json!({}))], &Routes::default())
        .peers
        .into_keys()
        .collect::<Vec<_>>();
    assert_eq!(locations, [PeerLocation::Address([192, 0, 2, 1].into())]);
}

/// Returns the routes of `count` classes with one prefix each, which the router `tor` receives.
fn distinct_classes(count: u32) -> Routes {
    let class = |med| RouteClass {
        peers_by_attributes: [(
            RouteAttributes { med: Some(med), ..RouteAttributes::default() },
            ["tor".into()].into(),
        )]
        .into(),
    };
    let prefix = |med| Prefix::of(IpAddr::V4(Ipv4Addr::from(0x0a00_0000 + med)), 32);
    (0..count).map(|med| (prefix(med), Arc::new(class(med)))).collect()
}

#[test]
fn prefixes_above_the_statement_limit_are_counted() {
    let (node, peers) = (node(), [peer("tor", &json!({}))]);
    let sessions = sessions(&peers, &node.labels);
    let max = u32::try_from(STATEMENTS_MAX).expect("a small limit");
    let full = plan_gobgp(&context(&node, &[]), &sessions, &distinct_classes(max));
    assert_eq!((full.config.paths.len(), full.prefixes_over_limit), (STATEMENTS_MAX, 0));
    let mut routes = distinct_classes(max + 2);
    // Another prefix of the first class needs no further statements.
    let (_, first) = routes.first_key_value().expect("routes");
    let first_class = Arc::clone(first);
    routes.insert(Prefix::of([10, 9, 9, 9].into(), 32), first_class);
    let outcome = plan_gobgp(&context(&node, &[]), &sessions, &routes);
    let statements: usize =
        outcome.config.policies.values().map(|class| class.statements.len()).sum();
    assert_eq!((statements, outcome.prefixes_over_limit), (STATEMENTS_MAX, 2));
    assert_eq!(outcome.config.paths.len(), STATEMENTS_MAX + 1);
    assert!(outcome.config.paths.values().all(|mark| outcome.config.policies.contains_key(mark)));
    assert_eq!(outcome.prefixes, [("tor", i64::from(max) + 1)].into());
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
