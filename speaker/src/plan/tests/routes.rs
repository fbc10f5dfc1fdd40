//! Tests of the desired configuration of gobgpd: when it is known, and which facts it follows.

use ferrolb_proto::api::{BgpSessionState, KubeProxyState, SpeakerIssue};
use ferrolb_proto::facts::{
    BfdProfile, BgpAdvertisement, BgpPeer, Community, DrainReason, PeerLocation, Speaker,
    SpeakerInterface, SpeakerSession,
};
use ferrolb_proto::health::kube_proxy::KubeProxyHealth;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;

use super::*;
use crate::event::{BgpReport, SessionIssue, SessionReport};
use crate::state::PasswordSecret;

fn peer(spec: &serde_json::Value) -> BgpPeer {
    let object = json!({"metadata": {"name": "tor", "namespace": "ferrolb-system", "generation": 1}, "spec": spec});
    serde_json::from_value::<api::BgpPeerObject>(object).expect("a peer").into()
}

fn numbered() -> BgpPeer {
    peer(&json!({"myASN": 64512, "peerASN": 64513, "peerAddress": "192.0.2.1"}))
}

/// Cluster whose node1 has a gobgpd, and a BGPAdvertisement for everything.
fn state(cluster: &Cluster, peers: &[BgpPeer]) -> State {
    let mut state = cluster.state();
    state.config.gobgp = true;
    let ad = json!({"metadata": {"name": "all", "generation": 1}});
    feed(&mut state, peers, Event::BgpPeer);
    feed(
        &mut state,
        &[serde_json::from_value::<api::BgpAdvertisementObject>(ad).expect("one").into()],
        Event::BgpAdvertisement,
    );
    feed::<Community>(&mut state, &[], Event::Community);
    feed::<BfdProfile>(&mut state, &[], Event::BfdProfile);
    feed::<PasswordSecret>(&mut state, &[], Event::Password);
    state.handle(Event::GobgpRead(1), Instant::ZERO);
    state
}

fn reasons(issues: &[SpeakerIssue]) -> String {
    issues.iter().map(|issue| &*issue.reason).collect::<Vec<_>>().join(",")
}

fn wanted(state: &State) -> GobgpConfig {
    plan(state, Instant::ZERO).bgp.expect("it is known")
}

fn report(state: &mut State, session: SessionReport) {
    let sessions = [("tor".into(), session)].into();
    state.handle(Event::Bgp(BgpReport { unusable: None, sessions }), Instant::ZERO);
}

#[test]
fn nothing_is_wanted_until_all_is_listed_and_of_a_node_without_gobgpd_never() {
    let mut early = Cluster::default().state();
    early.config.gobgp = true;
    feed(&mut early, &[numbered()], Event::BgpPeer);
    feed::<BgpAdvertisement>(&mut early, &[], Event::BgpAdvertisement);
    assert_eq!(plan(&early, Instant::ZERO).bgp, None, "what gobgpd has from before stays as it is");
    let mut whole = state(&Cluster::default(), &[numbered()]);
    assert_eq!(wanted(&whole).paths.len(), 1);
    whole.config.gobgp = false;
    let desired = plan(&whole, Instant::ZERO);
    assert_eq!((desired.bgp, desired.status.bgp), (None, None));
}

#[test]
fn routers_are_not_to_wait_for_a_node_that_may_not_be_back() {
    let ready = node("node1");
    let told = |node: &Node| {
        state(&Cluster { nodes: vec![node.clone()], ..Cluster::default() }, &[numbered()])
    };
    assert_eq!(wanted(&told(&ready)).no_restart_reason, None);
    for (node, why) in [
        (Node { ready: false, ..ready.clone() }, "the Node is not Ready"),
        (Node { cordoned: true, ..ready.clone() }, "the Node is cordoned"),
        (Node { drain: Some(DrainReason::Annotation), ..ready.clone() }, "the node drains"),
    ] {
        assert_eq!(wanted(&told(&node)).no_restart_reason, Some(why));
    }
    let mut leaving = told(&ready);
    leaving.handle(Event::StopRequested, Instant::ZERO);
    assert_eq!(wanted(&leaving).no_restart_reason, Some("its speaker stops"));
}

#[test]
fn a_node_that_is_gone_announces_nothing() {
    let gone = Cluster { nodes: vec![node("node2")], ..Cluster::default() };
    assert_eq!(wanted(&state(&gone, &[numbered()])), GobgpConfig::default());
}

#[test]
fn layer_2_and_bgp_announce_side_by_side() {
    let state = state(&Cluster::default(), &[numbered()]);
    let desired = plan(&state, Instant::ZERO);
    assert_eq!(desired.links.values().next().expect("a link").config.units.len(), 1);
    assert_eq!(desired.bgp.expect("it is known").paths.len(), 1);
}

#[test]
fn an_unnumbered_router_gets_paths_once_it_is_discovered() {
    let unnumbered = peer(&json!({"myASN": 64512, "peerASN": 64513, "interface": "eth0"}));
    let mut state = state(&Cluster::default(), &[unnumbered]);
    let statements = |wanted: &GobgpConfig| {
        wanted.policies.values().map(|class| class.statements.len()).sum::<usize>()
    };
    let before = wanted(&state);
    assert_eq!(before.peers.keys().collect::<Vec<_>>(), [&PeerLocation::Interface("eth0".into())]);
    assert_eq!(statements(&before), 0, "an empty set of neighbours would be everybody");
    report(
        &mut state,
        SessionReport { address: "fe80::7".parse().ok(), ..SessionReport::default() },
    );
    let after = wanted(&state);
    assert_eq!((statements(&after), after.peers == before.peers), (1, true));
}

#[test]
fn the_status_says_how_each_session_stands_and_how_much_it_carries() {
    let mut state = state(&Cluster::default(), &[numbered()]);
    let session = |state: &State| {
        let bgp = plan(state, Instant::ZERO).status.bgp.expect("a gobgpd");
        let session = bgp.sessions.into_iter().next().expect("a session");
        (session.state, session.prefixes, session.since, reasons(&session.issues))
    };
    assert_eq!(session(&state), (BgpSessionState::Idle, 0, None, String::new()));
    let issue = Some(SessionIssue::NoOpen);
    let no = SessionReport { state: BgpSessionState::Active, issue, ..SessionReport::default() };
    report(&mut state, no);
    assert_eq!(session(&state), (BgpSessionState::Active, 0, None, "NoOpen".to_owned()));
    let yes = SessionReport {
        state: BgpSessionState::Established,
        since: Some(0),
        ..SessionReport::default()
    };
    report(&mut state, yes);
    let since = Some("1970-01-01T00:00:00Z".to_owned());
    assert_eq!(session(&state), (BgpSessionState::Established, 1, since, String::new()));
    let shown = plan(&state, Instant::ZERO)
        .session_metrics
        .into_values()
        .map(|shown| (shown.established, shown.prefixes));
    assert_eq!(shown.collect::<Vec<_>>(), [(true, 1)]);
    let established =
        |state: &State| plan(state, Instant::ZERO).status.bgp.expect("a gobgpd").established;
    assert_eq!(established(&state), "1/1");
    state.handle(
        Event::Bgp(BgpReport { unusable: Some("away".into()), ..BgpReport::default() }),
        Instant::ZERO,
    );
    let bgp = plan(&state, Instant::ZERO).status.bgp.expect("a gobgpd");
    assert_eq!(
        (reasons(&bgp.issues), &*bgp.issues[0].message),
        ("GoBGPUnavailable".to_owned(), "away")
    );
    assert_eq!(session(&state), (BgpSessionState::Idle, 0, None, "GoBGPUnavailable".to_owned()));
    assert_eq!(established(&state), "0/1");
}

#[test]
fn routes_of_a_draining_or_unhealthy_node_are_de_preferred() {
    let mut state = state(&Cluster::default(), &[numbered()]);
    assert_eq!(state.proxy_health.state, KubeProxyState::Unknown);
    let marks = |state: &State| wanted(state).paths.values().copied().collect::<Vec<_>>();
    let judged = |state: KubeProxyState, ineligible| {
        Event::ProxyHealth(KubeProxyHealth { state, message: "why".into(), ineligible })
    };
    let sound = marks(&state);
    assert_eq!(sound.len(), 1);
    state.handle(judged(KubeProxyState::Unhealthy, false), Instant::ZERO);
    let broken = marks(&state);
    state.handle(judged(KubeProxyState::Healthy, true), Instant::ZERO);
    let draining = marks(&state);
    assert_eq!((draining != sound, &draining), (true, &broken), "said in the same way");
    state.handle(judged(KubeProxyState::Healthy, false), Instant::ZERO);
    assert_eq!(marks(&state), sound);
}

/// Plans like the main loop, so that the next plan gets the result of this one. Returns the number
/// of paths and of withdrawn prefixes.
fn step(state: &mut State, second: u64) -> (usize, i64) {
    let now = Instant::from_millis(second * 1_000);
    let desired = plan(state, now);
    state.handle(Event::Alternates(Arc::clone(&desired.alternates)), now);
    (desired.bgp.expect("it is known").paths.len(), desired.status.bgp.expect("a gobgpd").withdrawn)
}

/// SpeakerStatus of node2.
fn other(established: bool) -> Speaker {
    let session = SpeakerSession { peer: "tor".into(), established, ..SpeakerSession::default() };
    Speaker { node: "node2".into(), bgp: Some([session].into()), ..Speaker::default() }
}

#[test]
fn a_node_that_drains_withdraws_after_the_delay_what_another_announces_and_not_the_last() {
    let mut state = state(&Cluster::default(), &[numbered()]);
    let change = |state: &mut State, event| assert!(state.handle(event, Instant::ZERO));
    let cordoned = |cordoned| Event::Node(Change::Apply(Node { cordoned, ..node("node1") }));
    let answered =
        |names: &[&str]| Event::LiveSpeakers(names.iter().map(|name| (*name).into()).collect());
    feed(&mut state, &[other(true)], Event::Speaker);
    change(&mut state, answered(&["node2"]));
    assert!(!state.handle(answered(&["node2"]), Instant::ZERO), "the same again");
    assert_eq!(
        (step(&mut state, 0), plan(&state, Instant::ZERO).watches_speakers),
        ((1, 0), false)
    );
    assert_eq!(step(&mut state, 100), (1, 0), "it does not drain");
    change(&mut state, cordoned(true));
    assert_eq!(
        (step(&mut state, 100), plan(&state, Instant::ZERO).watches_speakers),
        ((1, 0), true)
    );
    assert_eq!(step(&mut state, 159), (1, 0));
    assert_eq!(
        plan(&state, Instant::from_millis(159_000)).replan_at,
        Some(Instant::from_millis(160_000))
    );
    assert_eq!(step(&mut state, 160), (0, 1));
    change(&mut state, Event::Speaker(Change::Apply(other(false))));
    assert_eq!(step(&mut state, 161), (1, 0), "at once");
    change(&mut state, Event::Speaker(Change::Apply(other(true))));
    assert_eq!(step(&mut state, 162), (1, 0));
    assert_eq!(step(&mut state, 222), (0, 1));
    change(&mut state, answered(&[]));
    assert_eq!(step(&mut state, 223), (1, 0), "it has not answered lately");
    change(&mut state, answered(&["node2"]));
    assert_eq!((step(&mut state, 223), step(&mut state, 283)), ((1, 0), (0, 1)));
    change(&mut state, Event::SpeakersUnknown);
    assert_eq!(step(&mut state, 284), (1, 0), "what is not known does not count");
    feed(&mut state, &[other(true)], Event::Speaker);
    assert_eq!((step(&mut state, 300), step(&mut state, 400)), ((1, 0), (0, 1)));
    change(&mut state, cordoned(false));
    assert_eq!(step(&mut state, 401), (1, 0), "the drain is over");
    change(&mut state, cordoned(true));
    assert_eq!(step(&mut state, 402), (1, 0), "and another one begins anew");
    state.config.drain_delay = None;
    assert_eq!(
        (step(&mut state, 900), plan(&state, Instant::ZERO).watches_speakers),
        ((1, 0), false)
    );
}

#[test]
fn liveness_is_checked_only_in_a_drain_and_only_of_speakers_not_received() {
    let address: IpAddr = "172.30.0.12".parse().expect("an address");
    let nodes = vec![node("node1"), Node { internal_addresses: vec![address], ..node("node2") }];
    let mut state = state(&Cluster { nodes, ..Cluster::default() }, &[numbered()]);
    feed(&mut state, &[other(true)], Event::Speaker);
    let asked = |state: &State| plan(state, Instant::ZERO).unverified;
    assert_eq!(asked(&state), UnverifiedSpeakers::new(), "it does not drain");
    state.handle(
        Event::Node(Change::Apply(Node { cordoned: true, ..node("node1") })),
        Instant::ZERO,
    );
    assert_eq!(asked(&state), UnverifiedSpeakers::from([("node2".into(), [address].into())]));
    let report = LinkReport { speakers: vec!["node2".into()], ..LinkReport::default() };
    state.handle(Event::Report { link: 2, report }, Instant::ZERO);
    assert_eq!(asked(&state).len(), 1, "it does not hear this node");
    let heard = [SpeakerInterface {
        hello_senders: ["node1".into()].into(),
        ..SpeakerInterface::default()
    }]
    .into();
    state.handle(
        Event::Speaker(Change::Apply(Speaker { interfaces: heard, ..other(true) })),
        Instant::ZERO,
    );
    assert_eq!(asked(&state), UnverifiedSpeakers::new(), "they hear each other");
    state.handle(Event::Report { link: 2, report: LinkReport::default() }, Instant::ZERO);
    assert_eq!(asked(&state).len(), 1);
    state.handle(Event::SpeakersUnknown, Instant::ZERO);
    assert_eq!(asked(&state), UnverifiedSpeakers::new(), "it is not known who there is");
}

#[test]
fn nothing_is_withdrawn_without_a_drain() {
    let mut state = state(&Cluster::default(), &[numbered()]);
    feed(&mut state, &[other(true)], Event::Speaker);
    state.handle(Event::LiveSpeakers(["node2".into()].into()), Instant::ZERO);
    let broken = KubeProxyHealth {
        state: KubeProxyState::Unhealthy,
        message: "why".into(),
        ineligible: false,
    };
    state.handle(Event::ProxyHealth(broken), Instant::ZERO);
    state.handle(Event::Node(Change::Apply(Node { ready: false, ..node("node1") })), Instant::ZERO);
    assert_eq!((step(&mut state, 0), step(&mut state, 1_000)), ((1, 0), (1, 0)));
    let ineligible =
        KubeProxyHealth { state: KubeProxyState::Healthy, message: "".into(), ineligible: true };
    state.handle(Event::ProxyHealth(ineligible), Instant::ZERO);
    assert_eq!((step(&mut state, 1_000), step(&mut state, 2_000)), ((1, 0), (0, 1)));
}

/// Returns the password of the one desired session, and the messages in its status.
fn session_password(state: &State) -> (Option<String>, String) {
    let desired = plan(state, Instant::ZERO);
    let session = desired.bgp.expect("it is known").peers.into_values().next();
    let password =
        session.and_then(|session| session.peer.conf.clone()).map(|conf| conf.auth_password);
    let status =
        desired.status.bgp.expect("a gobgpd").sessions.into_iter().next().expect("a session");
    let issues =
        status.issues.into_iter().map(|issue| issue.message).collect::<Vec<_>>().join("; ");
    (password, issues)
}

#[test]
fn routes_after_a_boot_are_de_preferred_until_kube_proxy_health_is_known() {
    let unsound = |found: usize, data_path: KubeProxyState| {
        let mut state = state(&Cluster::default(), &[numbered()]);
        state.handle(Event::GobgpRead(found), Instant::ZERO);
        let judgement = KubeProxyHealth { state: data_path, ..KubeProxyHealth::default() };
        state.handle(Event::ProxyHealth(judgement), Instant::ZERO);
        assert_eq!(
            plan(&state, Instant::ZERO).proxy_targets.situation.started_without_routes,
            found == 0
        );
        let wanted = wanted(&state);
        assert_eq!(wanted.paths.len(), 1, "it is announced all the same");
        format!("{:?}", wanted.policies.values().next().expect("a class").statements)
            .contains("65535:0")
    };
    assert!(unsound(0, KubeProxyState::Unknown), "after a boot");
    assert!(!unsound(5, KubeProxyState::Unknown), "a speaker that restarts changes nothing");
    assert!(!unsound(0, KubeProxyState::Healthy) && !unsound(0, KubeProxyState::NotChecked));
    assert!(unsound(5, KubeProxyState::Unhealthy));
}

#[test]
fn nothing_is_wanted_of_a_gobgpd_that_was_not_read_yet() {
    let mut state = state(&Cluster::default(), &[numbered()]);
    state.prefixes_at_start = None;
    let desired = plan(&state, Instant::ZERO);
    assert_eq!((desired.bgp, desired.status.bgp.is_some()), (None, true));
}

#[test]
fn a_session_keeps_its_last_password_while_its_secret_has_none() {
    let spec = json!({"myASN": 64512, "peerASN": 64513, "peerAddress": "192.0.2.1", "passwordSecret": {"name": "tor"}});
    let secret = |kind: &str, password: &str| -> PasswordSecret {
        let object = json!({"metadata": {"name": "tor"}, "type": kind, "data": {"password": ByteString(password.into())}});
        serde_json::from_value::<Secret>(object).expect("a Secret").into()
    };
    let good = |password| secret("kubernetes.io/basic-auth", password);
    let mut state = state(&Cluster::default(), &[peer(&spec)]);
    let tell = |state: &mut State, event: Event| state.handle(event, Instant::ZERO);
    let gone = || Event::Password(Change::Delete(Key::new("ferrolb-system", "tor")));
    let never = session_password(&state);
    assert!(
        never.0.is_none()
            && never.1.ends_with(
                "Secret tor does not exist: create it with type kubernetes.io/basic-auth"
            ),
        "{never:?}"
    );
    tell(&mut state, Event::Password(Change::Apply(good("hush"))));
    assert_eq!(session_password(&state), (Some("hush".to_owned()), String::new()));
    let ways = [gone(), Event::Password(Change::Apply(secret("Opaque", "hush")))];
    for (way, why) in ways.into_iter().zip(["Secret tor does not exist", "its type is Opaque"]) {
        tell(&mut state, way);
        let (password, message) = session_password(&state);
        assert_eq!(password.as_deref(), Some("hush"), "{why}");
        assert!(
            message.contains(why) && message.contains("continues with the last password"),
            "{message}"
        );
    }
    feed::<PasswordSecret>(&mut state, &[], Event::Password);
    assert_eq!(session_password(&state).0.as_deref(), Some("hush"), "a list without it");
    tell(&mut state, Event::Password(Change::Apply(good("other"))));
    assert_eq!(session_password(&state), (Some("other".to_owned()), String::new()));
    tell(&mut state, gone());
    let with = |generation: i64, field: &str, value: serde_json::Value| {
        let mut spec = spec.clone();
        spec[field] = value;
        let mut peer = peer(&spec);
        peer.generation = generation;
        Event::BgpPeer(Change::Apply(peer))
    };
    tell(&mut state, with(2, "nodeSelectors", json!([{}])));
    assert_eq!(session_password(&state).0.as_deref(), Some("other"), "the terms are the same");
    tell(&mut state, with(3, "peerPort", json!(1790)));
    assert_eq!(session_password(&state).0, None, "a password is not used for other terms");
    tell(&mut state, gone());
    tell(&mut state, with(4, "peerPort", json!(179)));
    assert_eq!(session_password(&state).0, None, "it is forgotten");
}

#[test]
fn a_bgppeer_that_is_made_again_does_not_have_the_last_password() {
    let spec = json!({"myASN": 64512, "peerASN": 64513, "peerAddress": "192.0.2.1", "passwordSecret": {"name": "tor"}});
    let mut state = state(&Cluster::default(), &[peer(&spec)]);
    let data = json!({"password": ByteString("hush".into())});
    let secret =
        json!({"metadata": {"name": "tor"}, "type": "kubernetes.io/basic-auth", "data": data});
    let secret: PasswordSecret = serde_json::from_value::<Secret>(secret).expect("a Secret").into();
    let key = Key::new("ferrolb-system", "tor");
    for event in [
        Event::Password(Change::Apply(secret)),
        Event::Password(Change::Delete(key.clone())),
        Event::BgpPeer(Change::Delete(key)),
        Event::BgpPeer(Change::Apply(peer(&spec))),
    ] {
        state.handle(event, Instant::ZERO);
    }
    assert_eq!(session_password(&state).0, None);
}
