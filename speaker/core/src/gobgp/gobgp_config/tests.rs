//! Tests of the translation of whole configurations: the number of statements, the marks, and the
//! parts that are reused.

use std::net::IpAddr;

use crate::plan::{RouteReceiver, STATEMENTS_MAX, SessionConfig, limit_routes};
use ferrolb_core::bgp::{ClassCounts, RouteAttributes};
use ferrolb_proto::facts::BgpPeer;
use serde_json::json;

use super::*;

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn prefix(number: u32) -> Prefix {
    Prefix::of(std::net::Ipv4Addr::from(0x0a00_0000 + number).into(), 32)
}

fn session(name: &str, router: &str) -> (PeerLocation, Arc<SessionConfig>) {
    let object = json!({"metadata": {"name": name},
        "spec": {"myASN": 64512, "peerASN": 64513, "peerAddress": router}});
    let peer: BgpPeer =
        serde_json::from_value::<ferrolb_proto::api::BgpPeerObject>(object).expect("a peer").into();
    let parameters = peer.session.expect("a valid session");
    let location = parameters.location.clone();
    (location, Arc::new(SessionConfig { name: peer.name, parameters, password: None, bfd: None }))
}

/// Returns a session with an external router at this address.
fn external(router: &str) -> RouteReceiver {
    RouteReceiver { address: address(router), next_hop: None, own_asn: 64512, internal: false }
}

/// Returns the receivers `a`, an external router, `b`, one with another AS number of this node, and
/// `c`, an internal one.
fn receivers() -> RouteReceivers {
    [
        ("a".into(), external("192.0.2.1")),
        ("b".into(), RouteReceiver { own_asn: 64999, ..external("192.0.2.2") }),
        ("c".into(), RouteReceiver { internal: true, ..external("192.0.2.3") }),
    ]
    .into()
}

fn class(receivers: &[(&str, RouteAttributes)]) -> Arc<RouteClass> {
    let mut class = RouteClass::default();
    for (peer, attributes) in receivers {
        class.peers_by_attributes.entry(attributes.clone()).or_default().insert((*peer).into());
    }
    Arc::new(class)
}

/// Returns a class with this MED, which `a` receives.
fn class_with_med(med: u32) -> Arc<RouteClass> {
    class(&[("a", RouteAttributes { med: Some(med), ..RouteAttributes::default() })])
}

fn config(routes: &[(u32, &Arc<RouteClass>)]) -> BgpConfig {
    let routes: Routes =
        routes.iter().map(|(number, class)| (prefix(*number), Arc::clone(class))).collect();
    let sessions = [session("a", "192.0.2.1"), session("b", "192.0.2.2")];
    let receivers = [(Family::V4, receivers()), (Family::V6, receivers())].into();
    BgpConfig { sessions: sessions.into(), receivers, routes, ..BgpConfig::default() }
}

/// Returns the number of prefixes of each class.
fn counts(routes: &Routes) -> ClassCounts {
    let mut counts = ClassCounts::new();
    for (prefix, class) in routes.iter() {
        *counts.entry((prefix.family(), Arc::clone(class))).or_default() += 1;
    }
    counts
}

fn translate(source: &BgpConfig) -> GobgpConfig {
    let mut translation = Translation::default();
    translation.update(source.clone());
    translation.config
}

fn statements(config: &GobgpConfig) -> usize {
    config.policies.values().map(|policy| policy.statements.len()).sum()
}

#[test]
fn each_group_of_a_class_has_one_statement() {
    let with =
        |local_pref, prepend| RouteAttributes { local_pref, prepend, ..RouteAttributes::default() };
    let plain = || RouteAttributes::default();
    for (attributes, count) in [
        ([plain(), plain(), plain()], 2),
        ([with(None, 1), with(None, 1), plain()], 3),
        ([plain(), plain(), with(Some(0), 0)], 1),
        ([plain(), plain(), with(Some(100), 0)], 2),
        ([with(None, 1), plain(), with(Some(200), 0)], 3),
    ] {
        let [a, b, c] = attributes;
        let class = class(&[("a", a), ("b", b), ("c", c), ("unknown", plain())]);
        let groups = export_groups(&class, &receivers());
        let translated = translate(&config(&[(1, &class)]));
        assert_eq!((groups.len(), statements(&translated)), (count, count), "{class:?}");
        let [policy] = &translated.policies.values().collect::<Vec<_>>()[..] else {
            panic!("{:?}", translated.policies)
        };
        assert_eq!(translated.paths, [(prefix(1), Some(policy.hash))].into_iter().collect());
    }
}

#[test]
fn the_limit_counts_the_statements_of_the_translation() {
    let max = u32::try_from(STATEMENTS_MAX).expect("a small limit");
    let two_statements =
        class(&[("a", RouteAttributes::default()), ("c", RouteAttributes::default())]);
    let v6 = Prefix::of(address("fd00::7"), 128);
    let classes = (0..2 * max).map(|med| (prefix(med), class_with_med(med)));
    let mut routes: Routes = classes.collect();
    routes.insert(prefix(2 * max), two_statements);
    // The class of this prefix has the same groups as a class of the other family.
    routes.insert(v6, class_with_med(0));
    let mut source = config(&[]);
    let limited = limit_routes(&routes, &counts(&routes), &source.receivers);
    assert_eq!(limited.prefixes_over_limit, STATEMENTS_MAX + 2);
    source.routes = limited.routes;
    let translated = translate(&source);
    assert_eq!(statements(&translated), STATEMENTS_MAX);
    assert_eq!(translated.paths.get(&v6), translated.paths.get(&prefix(0)));
    let mut marks = translated.paths.values().flatten();
    assert!(marks.all(|mark| translated.policies.contains_key(mark)));
}

#[test]
fn marks_are_those_of_earlier_versions() {
    let communities = ["1:2", "large:3:4:5"].map(|text| text.parse().expect("a community"));
    let full = RouteAttributes {
        communities: communities.into(),
        med: Some(7),
        prepend: 2,
        ..RouteAttributes::default()
    };
    let internal = RouteAttributes { local_pref: Some(200), ..RouteAttributes::default() };
    let class = class(&[
        ("a", full.clone()),
        ("b", full),
        ("c", internal),
        ("d", RouteAttributes::default()),
    ]);
    let mut source = config(&[(7, &class)]);
    let unnumbered = RouteReceiver { internal: true, ..external("fe80::7") };
    source.receivers.get_mut(&Family::V4).expect("receivers").insert("d".into(), unnumbered);
    let a = RouteReceiver { next_hop: Some(address("fd30::11")), ..external("192.0.2.1") };
    source.receivers.insert(Family::V6, [("a".into(), a), ("d".into(), unnumbered)].into());
    let v6 = Prefix::of(address("fd00::7"), 128);
    source.routes = [(prefix(7), Arc::clone(&class)), (v6, class)].into_iter().collect();
    // A speaker with other marks would announce all paths of its predecessor again.
    let marks: Vec<_> =
        translate(&source).paths.values().flatten().map(ToString::to_string).collect();
    assert_eq!(marks, ["23cd3927b3e11c4d", "cb34493d3d4df212"]);
}

#[test]
fn only_changed_parts_are_translated_again() {
    let (one, two, three) = (class_with_med(1), class_with_med(2), class_with_med(3));
    let first = config(&[(1, &one), (2, &one), (3, &two)]);
    let mut translation = Translation::default();
    translation.update(first.clone());
    let mut expect_update = |source: &BgpConfig, new_policies: usize, new_peers: usize| {
        let before = translation.config.clone();
        translation.update(source.clone());
        let after = translation.config();
        assert_eq!(*after, translate(source));
        let reused = after.policies.iter().filter(|(mark, policy)| {
            before.policies.get(mark).is_some_and(|known| Arc::ptr_eq(known, policy))
        });
        assert_eq!(after.policies.len() - reused.count(), new_policies);
        let reused = after.peers.iter().filter(|(location, peer)| {
            before.peers.get(location).is_some_and(|known| Arc::ptr_eq(known, peer))
        });
        assert_eq!(after.peers.len() - reused.count(), new_peers);
    };
    expect_update(&first, 0, 0);
    expect_update(&config(&[(1, &class_with_med(1)), (2, &one), (3, &two), (4, &two)]), 0, 0);
    expect_update(&config(&[(2, &two), (3, &three), (4, &two)]), 1, 0);
    // The last prefix of a class is removed, and another prefix of the class is added.
    expect_update(&config(&[(2, &two), (5, &three)]), 0, 0);
    let mut other = config(&[(2, &two), (5, &three)]);
    other.no_restart_reason = Some("the node drains");
    let (location, session) = session("other", "192.0.2.2");
    other.sessions.insert(location, session);
    expect_update(&other, 0, 1);
    other.receivers.insert(Family::V4, [("a".into(), external("192.0.2.9"))].into());
    expect_update(&other, 2, 0);
    expect_update(&BgpConfig::default(), 0, 0);
}
