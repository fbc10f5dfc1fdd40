//! The condition `Announced` of addresses that are announced by BGP, alone or also on layer 2.

use ferrolb_proto::facts::{
    BfdProfile, BgpAdvertisement, BgpPeer, Community, EndpointSlice, Node, Speaker, SpeakerSession,
};

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

fn bgp_advertisement(name: &str, spec: serde_json::Value) -> BgpAdvertisement {
    object::<api::BgpAdvertisementObject>(name, spec).into()
}

/// Returns a speaker with gobgpd. Each session is the name of its BGPPeer, with `!` if it is
/// established.
fn bgp_speaker(node: &str, addresses: &[&str], sessions: &[&str]) -> Speaker {
    let session = |text: &&str| SpeakerSession {
        peer: text.trim_end_matches('!').into(),
        established: text.ends_with('!'),
        ..SpeakerSession::default()
    };
    Speaker { bgp: Some(sessions.iter().map(session).collect()), ..speaker(node, addresses) }
}

/// Returns a cluster that advertises all addresses by BGP to all peers, and announces them on layer
/// 2 according to `advertisements`, with `owner` as the owner. `sessions` has the session of each
/// speaker, as in [`bgp_speaker`]; a speaker with an empty text has no gobgpd.
fn bgp_cluster(
    advertisements: Vec<serde_json::Value>,
    sessions: [&str; 3],
    owner: Option<&str>,
) -> Cluster {
    bgp_cluster_with_policy(TrafficPolicy::Local, advertisements, sessions, owner)
}

fn bgp_cluster_with_policy(
    policy: TrafficPolicy,
    advertisements: Vec<serde_json::Value>,
    sessions: [&str; 3],
    owner: Option<&str>,
) -> Cluster {
    let speakers = ["n1", "n2", "n3"].into_iter().zip(sessions).map(|(node, session)| {
        let addresses: &[&str] = if owner == Some(node) { &[ADDRESS] } else { &[] };
        if session.is_empty() {
            speaker(node, addresses)
        } else {
            bgp_speaker(node, addresses, &[session])
        }
    });
    let services = vec![Service { policy, ..service_with_addresses("a", &[ADDRESS], "lan") }];
    let mut cluster =
        Topology { services, advertisements, speakers: speakers.collect(), ..Topology::default() }
            .new_cluster();
    report_list(
        &mut cluster,
        [peer("tor", "192.0.2.1")].into_iter().map(Change::Apply),
        Event::of::<BgpPeer>,
    );
    report_list(
        &mut cluster,
        [bgp_advertisement("all", json!({}))].into_iter().map(Change::Apply),
        Event::of::<BgpAdvertisement>,
    );
    cluster.settle();
    cluster
}

#[test]
fn a_bgp_announcement_names_nodes_and_peers_or_the_cause() {
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
        let cluster = bgp_cluster(vec![], sessions, None);
        assert_eq!(
            reason_and_message(&cluster, "a"),
            (reason.to_owned(), message.to_owned()),
            "{sessions:?}"
        );
    }
}

#[test]
fn a_cause_that_excludes_the_same_nodes_on_both_paths_is_reported_once() {
    let mut cluster = bgp_cluster(vec![json!({})], ["tor!", "tor!", "tor!"], None);
    let unreachable =
        ["n1", "n2", "n3"].map(|name| Node { unreachable: true, ..node(name, "10.9.0.1") });
    report_list(&mut cluster, unreachable.into_iter().map(Change::Apply), Event::of::<Node>);
    cluster.settle();
    let message = "10.0.0.1 not announced: no node is eligible; of 3 nodes, 3 out of service or \
                   without network: see `kubectl describe nodes`";
    assert_eq!(
        reason_and_message(&cluster, "a"),
        ("NoCandidateNode".to_owned(), message.to_owned())
    );
}

#[test]
fn either_path_announces_an_address_and_both_are_reported() {
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
        let cluster = bgp_cluster(l2(), sessions, owner);
        assert_eq!(
            reason_and_message(&cluster, "a"),
            ("Announced".to_owned(), message.to_owned()),
            "{sessions:?}"
        );
    }
    let cluster = bgp_cluster(l2(), ["tor", "", ""], None);
    assert_eq!(reason_and_message(&cluster, "a").0, "Pending");
}

#[test]
fn a_bgp_announcement_follows_sessions_objects_and_endpoints() {
    let mut cluster = bgp_cluster(vec![], ["tor!", "tor!", ""], None);
    let settled_condition = |cluster: &mut Cluster| {
        cluster.settle();
        reason_and_message(cluster, "a")
    };
    report_speaker(&mut cluster, bgp_speaker("n1", &[], &["tor"]));
    assert_eq!(settled_condition(&mut cluster).1, "10.0.0.1 by BGP from n2 to tor");
    cluster.handle(Event::of::<EndpointSlice>(Change::Apply(endpoint_slice("a", &[]))));
    assert_eq!(settled_condition(&mut cluster).0, "NoEndpoints");
    cluster.handle(Event::of::<EndpointSlice>(Change::Apply(endpoint_slice("a", &["n2", "n3"]))));
    assert_eq!(settled_condition(&mut cluster).1, "10.0.0.1 by BGP from n2 to tor");
    let changed = |spec| {
        let mut ad = bgp_advertisement("all", spec);
        ad.generation = 2;
        Event::of::<BgpAdvertisement>(Change::Apply(ad))
    };
    cluster.handle(changed(json!({"communities": ["near"]})));
    assert_eq!(settled_condition(&mut cluster).0, "NoAdvertisement");
    let names = object::<api::CommunityObject>(
        "names",
        json!({"communities": [{"name": "near", "value": "1:2"}]}),
    );
    cluster.handle(Event::of::<Community>(Change::Apply(Community::from(names))));
    assert_eq!(settled_condition(&mut cluster).1, "10.0.0.1 by BGP from n2 to tor");
    cluster.handle(Event::of::<BgpPeer>(Change::Delete(Key::new("ferrolb-system", "tor"))));
    assert_eq!(settled_condition(&mut cluster).0, "NoCandidateNode");
}

#[test]
fn with_policy_cluster_a_session_change_writes_no_condition() {
    let mut cluster =
        bgp_cluster_with_policy(TrafficPolicy::Cluster, vec![], ["tor!", "tor!", "tor!"], None);
    let text = "10.0.0.1 by BGP from every eligible node with a session to tor";
    let mut after_session_change = |node: &str, session: &str| {
        report_speaker(&mut cluster, bgp_speaker(node, &[], &[session]));
        cluster.settle();
        reason_and_message(&cluster, "a")
    };
    assert_eq!(after_session_change("n1", "tor"), ("Announced".to_owned(), text.to_owned()));
    assert_eq!(after_session_change("n2", "tor").1, text);
    assert_eq!(after_session_change("n3", "tor").0, "NoSession");
}

#[test]
fn a_node_without_a_live_speaker_advertises_nothing() {
    let lost = |session: &str| {
        let mut cluster = bgp_cluster(vec![], [session, "", ""], None);
        for node in ["n2", "n3"] {
            report_speaker(&mut cluster, without_hellos_of("n1", speaker(node, &[])));
        }
        let lost = Node { ready_unknown: true, ..ready_node("n1") };
        cluster.handle(Event::of::<Node>(Change::Apply(lost)));
        cluster.settle();
        reason_and_message(&cluster, "a")
    };
    let (reason, message) = lost("tor!");
    assert_eq!(reason, "SpeakersNotRunning");
    assert!(
        message.contains(
            "10.0.0.1 announcement unknown: the speakers that announced it do not run (n1)"
        ),
        "{message}"
    );
    let (reason, message) = lost("tor");
    assert_eq!(reason, "NoCandidateNode");
    assert!(
        message.contains(
            "of 3 nodes, 1 without a live speaker, 2 whose speaker has no --gobgp: install gobgpd"
        ),
        "{message}"
    );
}

#[test]
fn without_speaker_statuses_the_bgp_announcement_is_unknown() {
    let mut cluster =
        Topology { advertisements: vec![], group: "metallb.io", ..Topology::default() }
            .new_cluster();
    report_list(
        &mut cluster,
        [peer("tor", "192.0.2.1")].into_iter().map(Change::Apply),
        Event::of::<BgpPeer>,
    );
    report_list(
        &mut cluster,
        [bgp_advertisement("all", json!({}))].into_iter().map(Change::Apply),
        Event::of::<BgpAdvertisement>,
    );
    cluster.settle();
    assert_eq!(reason_and_message(&cluster, "a").0, "Unobservable");
}

#[test]
fn routes_from_an_unhealthy_node_are_reported_as_de_preferred() {
    let mut cluster = bgp_cluster(vec![], ["tor!", "tor!", "tor!"], None);
    let settled_condition = |cluster: &mut Cluster| {
        cluster.settle();
        reason_and_message(cluster, "a").1
    };
    report_speaker(&mut cluster, Speaker { draining: true, ..bgp_speaker("n2", &[], &["tor!"]) });
    assert_eq!(
        settled_condition(&mut cluster),
        "10.0.0.1 by BGP from n1, n3 to tor, and de-preferred (RFC 8326) from n2"
    );
    for node in ["n1", "n3"] {
        cluster
            .handle(Event::of::<Node>(Change::Apply(Node { cordoned: true, ..ready_node(node) })));
    }
    assert_eq!(
        settled_condition(&mut cluster),
        "10.0.0.1 by BGP from n1, n2, n3 to tor, de-preferred (RFC 8326)"
    );
}

#[test]
fn a_family_without_endpoints_is_not_announced_by_bgp() {
    let dual_stack = Service {
        families: vec![Family::V4, Family::V6],
        ..service_with_addresses("a", &[ADDRESS, "fd00::1"], "lan")
    };
    let speakers = ["n1", "n2", "n3"].map(|node| bgp_speaker(node, &[], &["tor!"])).into();
    let mut cluster = Topology {
        services: vec![dual_stack],
        advertisements: vec![],
        speakers,
        ..Topology::default()
    }
    .new_cluster();
    let dual_stack_peer = json!({"myASN": 64512, "peerASN": 64513, "peerAddress": "192.0.2.1", "dualStackAddressFamily": true});
    let peer = object::<api::BgpPeerObject>("tor", dual_stack_peer).into();
    report_list(&mut cluster, [Change::Apply(peer)].into_iter(), Event::of::<BgpPeer>);
    report_list(
        &mut cluster,
        [Change::Apply(bgp_advertisement("all", json!({})))].into_iter(),
        Event::of::<BgpAdvertisement>,
    );
    cluster.settle();
    let (reason, message) = reason_and_message(&cluster, "a");
    assert_eq!(reason, "NoEndpoints");
    assert!(
        message.starts_with("fd00::1 not announced: no IPv6 endpoint of the Service is ready"),
        "{message}"
    );
    assert!(message.contains("; 10.0.0.1 by BGP from every eligible node"), "{message}");
}

#[test]
fn an_overridden_advertisement_is_named() {
    let mut cluster = bgp_cluster(vec![], ["tor!", "", ""], None);
    let mut younger = bgp_advertisement("young", json!({"med": 7}));
    younger.created = 1;
    cluster.handle(Event::of::<BgpAdvertisement>(Change::Apply(younger)));
    cluster.settle();
    let text = "10.0.0.1 by BGP from n1 to tor (BGPAdvertisement young is overridden by an older \
                one with another localPref, med or asPathPrepend)";
    assert_eq!(reason_and_message(&cluster, "a").1, text);
}

#[test]
fn a_bgp_peer_counts_no_session_of_a_speaker_that_does_not_run() {
    let mut cluster = bgp_cluster(vec![], ["tor!", "tor!", ""], None);
    report_list(&mut cluster, std::iter::empty(), Event::of::<BfdProfile>);
    let mut sessions = |event: Event| {
        cluster.now = cluster.now + CONDITION_DELAY;
        cluster.handle(event);
        let written = cluster.writes().into_iter().find_map(|write| {
            let Status::CustomResource(_, status) = write.status else { return None };
            let CustomResourceStatus::Peer(status) = status else { return None };
            status.sessions
        });
        cluster.settle();
        written.as_deref().map(str::to_owned)
    };
    let speaker_event = |speaker| Event::of::<Speaker>(Change::Apply(speaker));
    let second = || bgp_speaker("n2", &[], &["tor!"]);
    let third = || speaker("n3", &[]);
    sessions(speaker_event(without_hellos_of("n1", second())));
    let stale = sessions(speaker_event(without_hellos_of("n1", third())));
    assert_eq!(stale.as_deref(), Some("1/2"), "nobody receives the hellos of n1");
    assert_eq!(sessions(speaker_event(second())).as_deref(), Some("2/2"));
    let unknown = Node { ready_unknown: true, ..ready_node("n1") };
    let kubelet = sessions(Event::of::<Node>(Change::Apply(unknown)));
    assert_eq!(kubelet, None, "only the kubelet of n1 does not report");
}

#[test]
fn a_node_without_a_session_has_the_cause_of_its_speaker() {
    let mut cluster = bgp_cluster(vec![], ["tor!", "tor", "tor!"], None);
    let mut speaker = bgp_speaker("n2", &[], &["tor"]);
    let cause = "the router has AS 64513, not spec.peerASN";
    speaker.bgp.iter_mut().flatten().for_each(|session| session.message = cause.into());
    report_speaker(&mut cluster, speaker);
    let expected = Verdict::Ineligible { why: format!("no session with tor ({cause})") };
    assert_eq!(verdicts(&cluster, "a")[1].bgp, Some(expected));
}

/// Returns a cluster in which the Service `b` has taken the address of a deleted one over, with
/// endpoints on these nodes. The speaker of n2 does not run.
fn with_taken_over_address(nodes: &[&str]) -> Cluster {
    let mut cluster = bgp_cluster(vec![], ["tor!", "tor!", "tor!"], None);
    for node in ["n1", "n3"] {
        let speaker = bgp_speaker(node, &[], &["tor!"]);
        report_speaker(&mut cluster, without_hellos_of("n2", speaker));
    }
    cluster.delete("a");
    cluster.handle(Event::of::<EndpointSlice>(Change::Apply(endpoint_slice("b", nodes))));
    let policy = TrafficPolicy::Local;
    cluster.apply(Service { policy, ..service_with_addresses("b", &[ADDRESS], "lan") });
    (0..10).for_each(|_| advance(&mut cluster, Duration::from_secs(1)));
    cluster
}

/// Lets this time pass, and executes the writes that are due then.
fn advance(cluster: &mut Cluster, time: Duration) {
    cluster.now = cluster.now + time;
    cluster.handle(Event::Tick);
    cluster.writes().iter().for_each(|write| cluster.write(write));
}

#[test]
fn a_node_that_may_still_advertise_a_taken_over_address_is_named_for_three_minutes() {
    let is_named = |cluster: &Cluster| reason_and_message(cluster, "b").1.contains("n2 may still");
    let mut cluster = with_taken_over_address(&["n1"]);
    assert!(is_named(&cluster), "{:?}", reason_and_message(&cluster, "b"));
    let warnings = cluster.state.explain(&key("b")).expect("a Service").row.warnings;
    assert!(warnings[0].starts_with("n2 may still advertise 10.0.0.1"), "{warnings:?}");
    advance(&mut cluster, Duration::from_secs(160));
    assert!(is_named(&cluster), "{:?}", reason_and_message(&cluster, "b"));
    (0..2).for_each(|_| advance(&mut cluster, Duration::from_secs(10)));
    assert!(!is_named(&cluster), "{:?}", reason_and_message(&cluster, "b"));

    let cluster = with_taken_over_address(&["n1", "n2"]);
    assert!(!is_named(&cluster), "the node should advertise the address");

    let mut cluster = with_taken_over_address(&["n1"]);
    let unknown = Node { ready_unknown: true, ..ready_node("n2") };
    cluster.handle(Event::of::<Node>(Change::Apply(unknown)));
    (0..10).for_each(|_| advance(&mut cluster, Duration::from_secs(1)));
    assert!(!is_named(&cluster), "the node is off, and its sessions end");
}

#[test]
fn a_service_without_a_request_gets_no_address_that_a_node_may_still_advertise() {
    let mut cluster = bgp_cluster(vec![], ["tor!", "tor!", "tor!"], None);
    cluster.apply_pool(pool("lan", &["10.0.0.1-10.0.0.9"]));
    for node in ["n1", "n3"] {
        let speaker = bgp_speaker(node, &[], &["tor!"]);
        report_speaker(&mut cluster, without_hellos_of("n2", speaker));
    }
    cluster.delete("a");
    cluster.apply(service("b"));
    advance(&mut cluster, Duration::from_secs(1));
    assert_eq!(cluster.statuses(), ["b=10.0.0.2"]);
    // The Service itself gets its address back if it requests it.
    cluster.apply(service_with_addresses("a", &[ADDRESS], "lan"));
    advance(&mut cluster, Duration::from_secs(1));
    assert_eq!(cluster.statuses(), ["a=10.0.0.1", "b=10.0.0.2"]);
    cluster.delete("a");
    (0..2).for_each(|_| advance(&mut cluster, Duration::from_secs(180)));
    cluster.apply(service("c"));
    advance(&mut cluster, Duration::from_secs(1));
    assert_eq!(cluster.statuses(), ["b=10.0.0.2", "c=10.0.0.1"]);
}
