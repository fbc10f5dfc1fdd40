//! `Announced` of addresses advertised by BGP: alone, together with L2, and reasons for no route.

use ferrolb_proto::facts::{BgpAdvertisement, BgpPeer, Community, SpeakerSession};

use super::*;

fn object<O: serde::de::DeserializeOwned>(name: &str, spec: serde_json::Value) -> O {
    serde_json::from_value(json!({"metadata": {"name": name, "generation": 1}, "spec": spec}))
        .unwrap()
}

fn peer(name: &str, address: &str) -> BgpPeer {
    object::<api::BgpPeerObject>(
        name,
        json!({"myASN": 64512, "peerASN": 64513, "peerAddress": address}),
    )
    .into()
}

fn advertised(name: &str, spec: serde_json::Value) -> BgpAdvertisement {
    object::<api::BgpAdvertisementObject>(name, spec).into()
}

/// Speaker with a gobgpd. Each session is its name, with `!` if it is established.
fn router(node: &str, addresses: &[&str], sessions: &[&str]) -> Speaker {
    let session = |text: &&str| SpeakerSession {
        peer: text.trim_end_matches('!').into(),
        established: text.ends_with('!'),
        ..SpeakerSession::default()
    };
    Speaker { bgp: Some(sessions.iter().map(session).collect()), ..speaker(node, addresses) }
}

/// Cluster that advertises all addresses by BGP to all peers, and announces them by L2 according to
/// `ads`. Each speaker has one session, from `sessions`.
fn cluster(ads: Vec<serde_json::Value>, sessions: [&str; 3], owner: Option<&str>) -> World {
    of_policy(TrafficPolicy::Local, ads, sessions, owner)
}

fn of_policy(
    policy: TrafficPolicy,
    ads: Vec<serde_json::Value>,
    sessions: [&str; 3],
    owner: Option<&str>,
) -> World {
    let speakers = ["n1", "n2", "n3"].into_iter().zip(sessions).map(|(node, session)| {
        let held: &[&str] = if owner == Some(node) { &[ADDRESS] } else { &[] };
        if session.is_empty() { speaker(node, held) } else { router(node, held, &[session]) }
    });
    let services = vec![Service { policy, ..assigned("a", &[ADDRESS], "lan") }];
    let mut world = Cast { services, ads, speakers: speakers.collect(), ..Cast::default() }.begun();
    feed(&mut world, [peer("tor", "192.0.2.1")].into_iter().map(Change::Apply), Event::Peer);
    feed(
        &mut world,
        [advertised("all", json!({}))].into_iter().map(Change::Apply),
        Event::BgpAdvertisement,
    );
    world.settle();
    world
}

#[test]
fn what_bgp_alone_announces_names_the_nodes_and_the_routers_or_what_is_missing() {
    let cases = [
        (["tor!", "tor!", "tor!"], "Announced", "10.0.0.1 by BGP from n1, n2, n3 to tor"),
        (["tor!", "tor", ""], "Announced", "10.0.0.1 by BGP from n1 to tor"),
        (
            ["tor", "tor", ""],
            "NoSession",
            "10.0.0.1 not announced by BGP: no session from n1, n2 to tor. See `kubectl -n \
             ferrolb-system describe bgppeers.ferrolb.io tor`",
        ),
        (
            ["", "", ""],
            "NoCandidateNode",
            "10.0.0.1 not announced by BGP: no node is eligible; of 3 nodes, 3 whose speaker has \
             no --gobgp: install gobgpd with deploy/install-bgp.yaml or the Helm value \
             bgp.enabled=true",
        ),
    ];
    for (sessions, reason, message) in cases {
        let world = cluster(vec![], sessions, None);
        assert_eq!(told(&world, "a"), (reason.to_owned(), message.to_owned()), "{sessions:?}");
    }
}

#[test]
fn it_is_announced_where_either_way_announces_it_and_the_other_is_said() {
    let l2 = || vec![json!({})];
    let cases = [
        (
            ["tor!", "tor!", "tor!"],
            Some("n2"),
            "10.0.0.1 from n2 (eth0), and by BGP from n1, n2, n3 to tor",
        ),
        (
            ["tor", "", ""],
            Some("n2"),
            "10.0.0.1 from n2 (eth0); not announced by BGP: no session from n1 to tor. See \
             `kubectl -n ferrolb-system describe bgppeers.ferrolb.io tor`",
        ),
        (
            ["tor!", "", ""],
            None,
            "10.0.0.1 by BGP from n1 to tor; not announced on layer 2: no speaker has claimed the \
             address yet (eligible: n1, n2, n3). If this persists, see `kubectl -n ferrolb-system \
             logs daemonset/speaker`",
        ),
    ];
    for (sessions, owner, message) in cases {
        let world = cluster(l2(), sessions, owner);
        assert_eq!(told(&world, "a"), ("Announced".to_owned(), message.to_owned()), "{sessions:?}");
    }
    let world = cluster(l2(), ["tor", "", ""], None);
    assert_eq!(told(&world, "a").0, "Pending");
}

#[test]
fn it_follows_sessions_objects_and_endpoints() {
    let mut world = cluster(vec![], ["tor!", "tor!", ""], None);
    let said = |world: &mut World| {
        world.settle();
        told(world, "a")
    };
    says(&mut world, router("n1", &[], &["tor"]));
    assert_eq!(said(&mut world).1, "10.0.0.1 by BGP from n2 to tor");
    world.handle(Event::Slice(Change::Apply(slice("a", &[]))));
    assert_eq!(said(&mut world).0, "NoEndpoints");
    world.handle(Event::Slice(Change::Apply(slice("a", &["n2", "n3"]))));
    assert_eq!(said(&mut world).1, "10.0.0.1 by BGP from n2 to tor");
    let changed = |spec| {
        let mut ad = advertised("all", spec);
        ad.generation = 2;
        Event::BgpAdvertisement(Change::Apply(ad))
    };
    world.handle(changed(json!({"communities": ["near"]})));
    assert_eq!(said(&mut world).0, "NoAdvertisement");
    let names = object::<api::CommunityObject>(
        "names",
        json!({"communities": [{"name": "near", "value": "1:2"}]}),
    );
    world.handle(Event::Community(Change::Apply(Community::from(names))));
    assert_eq!(said(&mut world).1, "10.0.0.1 by BGP from n2 to tor");
    world.handle(Event::Peer(Change::Delete(Key::new("ferrolb-system", "tor"))));
    assert_eq!(said(&mut world).0, "NoCandidateNode");
}

#[test]
fn with_policy_cluster_a_session_that_comes_or_goes_is_not_told_of_each_service() {
    let mut world = of_policy(TrafficPolicy::Cluster, vec![], ["tor!", "tor!", "tor!"], None);
    let text = "10.0.0.1 by BGP from every eligible node with a session to tor";
    let mut last = |node: &str, session: &str| {
        says(&mut world, router(node, &[], &[session]));
        world.settle();
        told(&world, "a")
    };
    assert_eq!(last("n1", "tor"), ("Announced".to_owned(), text.to_owned()));
    assert_eq!(last("n2", "tor").1, text);
    assert_eq!(last("n3", "tor").0, "NoSession");
}

#[test]
fn a_speaker_that_is_not_there_any_more_announces_nothing() {
    let mut world = cluster(vec![], ["tor!", "", ""], None);
    let lost = Node { ready_unknown: true, ..ready("n1") };
    world.handle(Event::Node(Change::Apply(lost)));
    world.settle();
    let (reason, message) = told(&world, "a");
    assert_eq!(reason, "NoCandidateNode");
    assert!(
        message.contains(
            "of 3 nodes, 1 without a live speaker, 2 whose speaker has no --gobgp: install gobgpd"
        ),
        "{message}"
    );
}

#[test]
fn where_speakers_cannot_say_it_whether_it_is_announced_is_not_known() {
    let mut world = Cast { ads: vec![], group: "metallb.io", ..Cast::default() }.begun();
    feed(&mut world, [peer("tor", "192.0.2.1")].into_iter().map(Change::Apply), Event::Peer);
    feed(
        &mut world,
        [advertised("all", json!({}))].into_iter().map(Change::Apply),
        Event::BgpAdvertisement,
    );
    world.settle();
    assert_eq!(told(&world, "a").0, "Unobservable");
}

#[test]
fn a_node_that_is_not_sound_is_named_as_the_last_resort() {
    let mut world = cluster(vec![], ["tor!", "tor!", "tor!"], None);
    let said = |world: &mut World| {
        world.settle();
        told(world, "a").1
    };
    says(&mut world, Speaker { draining: true, ..router("n2", &[], &["tor!"]) });
    assert_eq!(
        said(&mut world),
        "10.0.0.1 by BGP from n1, n3 to tor, and de-preferred (RFC 8326) from n2"
    );
    for node in ["n1", "n3"] {
        world.handle(Event::Node(Change::Apply(Node { cordoned: true, ..ready(node) })));
    }
    assert_eq!(said(&mut world), "10.0.0.1 by BGP from n1, n2, n3 to tor, de-preferred (RFC 8326)");
}

#[test]
fn a_node_that_has_withdrawn_what_others_announce_is_named_no_longer() {
    let mut world = cluster(vec![], ["tor!", "tor!", "tor!"], None);
    let mut said = |node: &str, draining: bool, withdraws: bool| {
        says(
            &mut world,
            Speaker { draining, has_withdrawn: withdraws, ..router(node, &[], &["tor!"]) },
        );
        world.settle();
        told(&world, "a").1
    };
    assert_eq!(said("n2", true, true), "10.0.0.1 by BGP from n1, n3 to tor");
    assert_eq!(said("n3", true, true), "10.0.0.1 by BGP from n1 to tor");
    // No healthy node is left, so the nodes that had withdrawn advertise again.
    assert_eq!(
        said("n1", true, false),
        "10.0.0.1 by BGP from n1, n2, n3 to tor, de-preferred (RFC 8326)"
    );
    assert_eq!(said("n1", false, false), "10.0.0.1 by BGP from n1 to tor");
    assert_eq!(
        said("n2", true, false),
        "10.0.0.1 by BGP from n1 to tor, and de-preferred (RFC 8326) from n2"
    );
}

#[test]
fn of_two_families_the_one_without_endpoints_is_not_announced_for_want_of_them() {
    let both = Service {
        families: vec![Family::V4, Family::V6],
        ..assigned("a", &[ADDRESS, "fd00::1"], "lan")
    };
    let speakers = ["n1", "n2", "n3"].map(|node| router(node, &[], &["tor!"])).into();
    let mut world = Cast { services: vec![both], ads: vec![], speakers, ..Cast::default() }.begun();
    let dual = json!({"myASN": 64512, "peerASN": 64513, "peerAddress": "192.0.2.1", "dualStackAddressFamily": true});
    let peer = object::<api::BgpPeerObject>("tor", dual).into();
    feed(&mut world, [Change::Apply(peer)].into_iter(), Event::Peer);
    feed(
        &mut world,
        [Change::Apply(advertised("all", json!({})))].into_iter(),
        Event::BgpAdvertisement,
    );
    world.settle();
    let (reason, message) = told(&world, "a");
    assert_eq!(reason, "NoEndpoints");
    assert!(
        message.starts_with("fd00::1 not announced: no IPv6 endpoint of the Service is ready"),
        "{message}"
    );
    assert!(message.contains("; 10.0.0.1 by BGP from every eligible node"), "{message}");
}

#[test]
fn an_advertisement_that_yields_is_named() {
    let mut world = cluster(vec![], ["tor!", "", ""], None);
    let mut young = advertised("young", json!({"med": 7}));
    young.created = 1;
    world.handle(Event::BgpAdvertisement(Change::Apply(young)));
    world.settle();
    let text = "10.0.0.1 by BGP from n1 to tor (BGPAdvertisement young is overridden by an older \
                one with another localPref, med or asPathPrepend)";
    assert_eq!(told(&world, "a").1, text);
}
