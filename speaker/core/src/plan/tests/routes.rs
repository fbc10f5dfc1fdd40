//! Tests of the desired BGP configuration: when it is known, and which facts it follows.

use ferrolb_core::bgp::RouteAttributes;
use ferrolb_proto::api::{BgpSessionState, KubeProxyState, SpeakerIssue};
use ferrolb_proto::facts::{
    BfdProfile, BgpAdvertisement, BgpPeer, Community, CommunityValue, DrainReason, EndpointSlice,
    Node, PasswordSecret, PeerLocation, Service,
};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;

use super::*;
use crate::event::{BgpReport, SessionIssue, SessionReport};
use crate::health::kube_proxy::KubeProxyHealth;

fn peer(spec: &serde_json::Value) -> BgpPeer {
    let object = json!({"metadata": {"name": "tor", "namespace": "ferrolb-system", "generation": 1}, "spec": spec});
    serde_json::from_value::<api::BgpPeerObject>(object).expect("a peer").into()
}

fn numbered() -> BgpPeer {
    peer(&json!({"myASN": 64512, "peerASN": 64513, "peerAddress": "192.0.2.1"}))
}

/// Returns the state of node1 with a gobgpd, and a BGPAdvertisement that selects everything.
fn state(cluster: &Cluster, peers: &[BgpPeer]) -> State {
    let mut state = cluster.state();
    state.config.gobgp = true;
    let ad = json!({"metadata": {"name": "all", "generation": 1}});
    apply_resync(&mut state, peers, Event::of::<BgpPeer>);
    apply_resync(
        &mut state,
        &[serde_json::from_value::<api::BgpAdvertisementObject>(ad)
            .expect("an advertisement")
            .into()],
        Event::of::<BgpAdvertisement>,
    );
    apply_resync::<Community>(&mut state, &[], Event::of::<Community>);
    apply_resync::<BfdProfile>(&mut state, &[], Event::of::<BfdProfile>);
    apply_resync::<PasswordSecret>(&mut state, &[], Event::of::<PasswordSecret>);
    state.handle(Event::GobgpRead(1), Instant::ZERO);
    state
}

fn reasons(issues: &[SpeakerIssue]) -> String {
    issues.iter().map(|issue| &*issue.reason).collect::<Vec<_>>().join(",")
}

fn desired_config(state: &State) -> BgpConfig {
    plan(state, Instant::ZERO).bgp.expect("a BGP configuration")
}

fn report(state: &mut State, session: SessionReport) {
    let sessions = [("tor".into(), session)].into();
    state.handle(Event::Bgp(BgpReport { unusable: None, sessions }), Instant::ZERO);
}

#[test]
fn bgp_is_planned_only_after_all_lists_and_with_a_gobgpd() {
    let mut early = Cluster::default().state();
    early.config.gobgp = true;
    apply_resync(&mut early, &[numbered()], Event::of::<BgpPeer>);
    apply_resync::<BgpAdvertisement>(&mut early, &[], Event::of::<BgpAdvertisement>);
    assert_eq!(
        plan(&early, Instant::ZERO).bgp,
        None,
        "gobgpd is not changed before all lists have arrived"
    );
    let mut whole = state(&Cluster::default(), &[numbered()]);
    assert_eq!(desired_config(&whole).routes.len(), 1);
    whole.config.gobgp = false;
    let desired = plan(&whole, Instant::ZERO);
    assert_eq!((desired.bgp, &desired.status.bgp), (None, &None));
}

#[test]
fn a_new_address_is_claimed_at_once_and_announced_later() {
    let mut state = state(&Cluster::default(), &[numbered()]);
    let (mut memo, now) = (Memo::default(), Instant::from_millis(10_000));
    let change = Change::Apply(service("web", &["172.30.0.200", "172.30.0.201"]));
    memo.add(state.handle(Event::of::<Service>(change), now));
    let desired = crate::plan::plan(&state, &mut memo, now);
    let config = &desired.links[&2].config;
    let new = [("172.30.0.201".parse().unwrap(), now)].into();
    assert_eq!((config.units.values().count(), &*config.withheld), (2, &new));
    assert_eq!(desired.bgp.expect("a BGP configuration").routes.len(), 1);
    assert!(desired.proxy_targets.waits_for_rules);
    let now = now + Duration::from_secs(1);
    memo.add(state.expire(now));
    let desired = crate::plan::plan(&state, &mut memo, now);
    assert!(desired.links[&2].config.withheld.is_empty());
    assert_eq!(desired.bgp.expect("a BGP configuration").routes.len(), 2);
    assert!(!desired.proxy_targets.waits_for_rules);
}

#[test]
fn a_route_stays_for_a_moment_if_the_endpoints_move_to_another_node() {
    let web = Service { policy: TrafficPolicy::Local, ..service("web", &["172.30.0.200"]) };
    let (services, slices) = (vec![web], vec![slice("web", &["node1"])]);
    let mut state = state(&Cluster { services, slices, ..Cluster::default() }, &[numbered()]);
    let (mut memo, now) = (Memo::default(), Instant::from_millis(10_000));
    let routes = |state: &State, memo: &mut Memo, now| {
        let desired = crate::plan::plan(state, memo, now);
        let can_serve = desired.links[&2].config.units.values().all(|unit| unit.can_serve_here);
        (desired.bgp.expect("a BGP configuration").routes.len(), can_serve)
    };
    assert_eq!(routes(&state, &mut memo, now), (1, true));
    memo.add(
        state.handle(Event::of::<EndpointSlice>(Change::Apply(slice("web", &["node2"]))), now),
    );
    assert_eq!(routes(&state, &mut memo, now), (1, false), "layer 2 moves at once");
    let now = state.deadline().expect("the end of the hold");
    memo.add(state.expire(now));
    assert_eq!(routes(&state, &mut memo, now), (0, false));
}

#[test]
fn a_node_that_stops_or_drains_has_a_no_restart_reason() {
    let ready = node("node1");
    let state_with_node = |node: &Node| {
        state(&Cluster { nodes: vec![node.clone()], ..Cluster::default() }, &[numbered()])
    };
    assert_eq!(desired_config(&state_with_node(&ready)).no_restart_reason, None);
    for (node, why) in [
        (Node { ready: false, ..ready.clone() }, "the Node is not Ready"),
        (Node { cordoned: true, ..ready.clone() }, "the Node is cordoned"),
        (Node { drain: Some(DrainReason::Annotation), ..ready.clone() }, "the node drains"),
    ] {
        assert_eq!(desired_config(&state_with_node(&node)).no_restart_reason, Some(why));
    }
    let mut leaving = state_with_node(&ready);
    leaving.handle(Event::StopRequested, Instant::ZERO);
    assert_eq!(desired_config(&leaving).no_restart_reason, Some("its speaker stops"));
}

#[test]
fn a_deleted_node_announces_nothing() {
    let without_node = Cluster { nodes: vec![node("node2")], ..Cluster::default() };
    assert_eq!(desired_config(&state(&without_node, &[numbered()])), BgpConfig::default());
}

#[test]
fn layer_2_and_bgp_announce_side_by_side() {
    let state = state(&Cluster::default(), &[numbered()]);
    let desired = plan(&state, Instant::ZERO);
    assert_eq!(desired.links.values().next().expect("a link").config.units.len(), 1);
    assert_eq!(desired.bgp.expect("a BGP configuration").routes.len(), 1);
}

#[test]
fn an_unnumbered_router_gets_paths_once_it_is_discovered() {
    let unnumbered = peer(&json!({"myASN": 64512, "peerASN": 64513, "interface": "eth0"}));
    let mut state = state(&Cluster::default(), &[unnumbered]);
    let groups = |desired_config: &BgpConfig| {
        let routes = desired_config.routes.iter();
        let groups = routes.map(|(prefix, class)| {
            export_groups(class, &desired_config.receivers[&prefix.family()]).len()
        });
        groups.sum::<usize>()
    };
    let before = desired_config(&state);
    assert_eq!(
        before.sessions.keys().collect::<Vec<_>>(),
        [&PeerLocation::Interface("eth0".into())]
    );
    assert_eq!(groups(&before), 0, "an empty neighbor set would match every router");
    report(
        &mut state,
        SessionReport { address: "fe80::7".parse().ok(), ..SessionReport::default() },
    );
    let after = desired_config(&state);
    assert_eq!((groups(&after), after.sessions == before.sessions), (1, true));
}

#[test]
fn the_status_has_the_state_and_prefixes_of_each_session() {
    let mut state = state(&Cluster::default(), &[numbered()]);
    let session = |state: &State| {
        let bgp = plan(state, Instant::ZERO).status.bgp.clone().expect("a gobgpd");
        let session = bgp.sessions.into_iter().next().expect("a session");
        (session.state, session.prefixes, session.since, reasons(&session.issues))
    };
    assert_eq!(session(&state), (BgpSessionState::Idle, 0, None, String::new()));
    let issue = Some(SessionIssue::NoOpen { own_asn: 64500 });
    let failed_report =
        SessionReport { state: BgpSessionState::Active, issue, ..SessionReport::default() };
    report(&mut state, failed_report);
    assert_eq!(session(&state), (BgpSessionState::Active, 0, None, "NoOpen".to_owned()));
    let established_report = SessionReport {
        state: BgpSessionState::Established,
        since: Some(0),
        ..SessionReport::default()
    };
    report(&mut state, established_report);
    let since = Some("1970-01-01T00:00:00Z".to_owned());
    assert_eq!(session(&state), (BgpSessionState::Established, 1, since, String::new()));
    let metrics = plan(&state, Instant::ZERO)
        .session_metrics
        .into_values()
        .map(|metrics| (metrics.established, metrics.prefixes));
    assert_eq!(metrics.collect::<Vec<_>>(), [(true, 1)]);
    let established = |state: &State| {
        plan(state, Instant::ZERO).status.bgp.clone().expect("a gobgpd").established
    };
    assert_eq!(established(&state), "1/1");
    state.handle(
        Event::Bgp(BgpReport { unusable: Some("away".into()), ..BgpReport::default() }),
        Instant::ZERO,
    );
    let bgp = plan(&state, Instant::ZERO).status.bgp.clone().expect("a gobgpd");
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
    let classes =
        |state: &State| desired_config(state).routes.values().cloned().collect::<Vec<_>>();
    let proxy_health_event = |state: KubeProxyState, ineligible| {
        Event::ProxyHealth(KubeProxyHealth {
            state,
            message: "why".into(),
            ineligible,
            ..KubeProxyHealth::default()
        })
    };
    let healthy_classes = classes(&state);
    assert_eq!(healthy_classes.len(), 1);
    state.handle(proxy_health_event(KubeProxyState::Unhealthy, false), Instant::ZERO);
    let unhealthy_classes = classes(&state);
    state.handle(proxy_health_event(KubeProxyState::Healthy, true), Instant::ZERO);
    let draining_classes = classes(&state);
    assert_eq!(
        (draining_classes != healthy_classes, &draining_classes),
        (true, &unhealthy_classes),
        "an unhealthy and an ineligible node de-prefer their routes in the same way"
    );
    state.handle(proxy_health_event(KubeProxyState::Healthy, false), Instant::ZERO);
    assert_eq!(classes(&state), healthy_classes);
}

#[test]
fn a_draining_or_cordoned_node_keeps_all_its_routes() {
    let cordoned = Event::of::<Node>(Change::Apply(Node { cordoned: true, ..node("node1") }));
    let drains = Node { drain: Some(DrainReason::Annotation), ..node("node1") };
    for event in [cordoned, Event::of::<Node>(Change::Apply(drains))] {
        let mut state = state(&Cluster::default(), &[numbered()]);
        state.handle(event, Instant::ZERO);
        let memo = &mut Memo::default();
        for minute in [0, 10] {
            let now = Instant::from_millis(minute * 60_000);
            let config = crate::plan::plan(&state, memo, now).bgp.expect("a BGP configuration");
            let de_preferred = config.routes.iter().map(|(_, class)| {
                class.peers_by_attributes.keys().all(RouteAttributes::is_de_preferred)
            });
            assert_eq!(de_preferred.collect::<Vec<_>>(), [true], "after {minute} minutes");
        }
    }
}

/// Returns the password of the one desired session, and the messages in its status.
fn session_password(state: &State) -> (Option<String>, String) {
    let desired = plan(state, Instant::ZERO);
    let session = desired.bgp.expect("a BGP configuration").sessions.into_values().next();
    let password = session.and_then(|session| session.password.as_deref().map(str::to_owned));
    let status = desired
        .status
        .bgp
        .clone()
        .expect("a gobgpd")
        .sessions
        .into_iter()
        .next()
        .expect("a session");
    let issues =
        status.issues.into_iter().map(|issue| issue.message).collect::<Vec<_>>().join("; ");
    (password, issues)
}

#[test]
fn routes_after_a_boot_are_de_preferred_until_kube_proxy_health_is_known() {
    let is_de_preferred = |found: usize, data_path: KubeProxyState| {
        let mut state = state(&Cluster::default(), &[numbered()]);
        state.handle(Event::GobgpRead(found), Instant::ZERO);
        let judgement = KubeProxyHealth { state: data_path, ..KubeProxyHealth::default() };
        state.handle(Event::ProxyHealth(judgement), Instant::ZERO);
        assert_eq!(
            plan(&state, Instant::ZERO).proxy_targets.context.started_without_routes,
            found == 0
        );
        let desired_config = desired_config(&state);
        assert_eq!(desired_config.routes.len(), 1, "the route is advertised in any case");
        let (_, class) = desired_config.routes.iter().next().expect("a route");
        let attributes = class.peers_by_attributes.keys();
        let has_community = |attributes: &RouteAttributes| {
            attributes.communities.contains(&CommunityValue::Standard(65535, 0))
        };
        attributes.map(has_community).eq([true])
    };
    assert!(is_de_preferred(0, KubeProxyState::Unknown), "routes are de-preferred after a boot");
    assert!(
        !is_de_preferred(5, KubeProxyState::Unknown),
        "a restarted speaker does not de-prefer routes"
    );
    assert!(
        !is_de_preferred(0, KubeProxyState::Healthy)
            && !is_de_preferred(0, KubeProxyState::NotChecked)
    );
    assert!(is_de_preferred(5, KubeProxyState::Unhealthy));
}

#[test]
fn nothing_is_planned_for_a_gobgpd_that_was_not_read() {
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
    let handle = |state: &mut State, event: Event| state.handle(event, Instant::ZERO);
    let deletion =
        || Event::of::<PasswordSecret>(Change::Delete(Key::new("ferrolb-system", "tor")));
    let without_secret = session_password(&state);
    assert!(
        without_secret.0.is_none()
            && without_secret.1.ends_with(
                "Secret tor does not exist: create it with type kubernetes.io/basic-auth"
            ),
        "{without_secret:?}"
    );
    handle(&mut state, Event::of::<PasswordSecret>(Change::Apply(good("hush"))));
    assert_eq!(session_password(&state), (Some("hush".to_owned()), String::new()));
    let changes =
        [deletion(), Event::of::<PasswordSecret>(Change::Apply(secret("Opaque", "hush")))];
    for (change, why) in changes.into_iter().zip(["Secret tor does not exist", "is of type Opaque"])
    {
        handle(&mut state, change);
        let (password, message) = session_password(&state);
        assert_eq!(password.as_deref(), Some("hush"), "{why}");
        assert!(
            message.contains(why) && message.contains("continues with the last password"),
            "{message}"
        );
    }
    apply_resync::<PasswordSecret>(&mut state, &[], Event::of::<PasswordSecret>);
    assert_eq!(session_password(&state).0.as_deref(), Some("hush"), "a list without the Secret");
    handle(&mut state, Event::of::<PasswordSecret>(Change::Apply(good("other"))));
    assert_eq!(session_password(&state), (Some("other".to_owned()), String::new()));
    handle(&mut state, deletion());
    let with = |generation: i64, field: &str, value: serde_json::Value| {
        let mut spec = spec.clone();
        spec[field] = value;
        let mut peer = peer(&spec);
        peer.generation = generation;
        Event::of::<BgpPeer>(Change::Apply(peer))
    };
    handle(&mut state, with(2, "nodeSelectors", json!([{}])));
    assert_eq!(
        session_password(&state).0.as_deref(),
        Some("other"),
        "the session parameters are unchanged"
    );
    handle(&mut state, with(3, "peerPort", json!(1790)));
    assert_eq!(
        session_password(&state).0,
        None,
        "a password is not used with other session parameters"
    );
    handle(&mut state, deletion());
    handle(&mut state, with(4, "peerPort", json!(179)));
    assert_eq!(session_password(&state).0, None, "the last password is removed");
}

#[test]
fn a_bgppeer_that_is_recreated_late_does_not_keep_the_last_password() {
    let spec = json!({"myASN": 64512, "peerASN": 64513, "peerAddress": "192.0.2.1", "passwordSecret": {"name": "tor"}});
    let data = json!({"password": ByteString("hush".into())});
    let secret =
        json!({"metadata": {"name": "tor"}, "type": "kubernetes.io/basic-auth", "data": data});
    let secret: PasswordSecret = serde_json::from_value::<Secret>(secret).expect("a Secret").into();
    let key = Key::new("ferrolb-system", "tor");
    for (seconds, password) in [(59, Some("hush")), (60, None)] {
        let mut state = state(&Cluster::default(), &[peer(&spec)]);
        for event in [
            Event::of::<PasswordSecret>(Change::Apply(secret.clone())),
            Event::of::<PasswordSecret>(Change::Delete(key.clone())),
            Event::of::<BgpPeer>(Change::Delete(key.clone())),
        ] {
            state.handle(event, Instant::ZERO);
        }
        let now = Instant::from_millis(seconds * 1_000);
        let _ = state.expire(now);
        state.handle(Event::of::<BgpPeer>(Change::Apply(peer(&spec))), now);
        assert_eq!(session_password(&state).0.as_deref(), password, "after {seconds} s");
    }
}
