//! Tests of the conditions of a BGPPeer, which depend on its spec, other BGPPeers, and its
//! sessions.

use ferrolb_proto::api::{self, ConditionStatus};
use ferrolb_proto::facts::{BfdProfile, SpeakerSession};
use serde_json::{Value, json};

use super::super::profiles::profile_status;
use super::*;
use crate::state::messages::Message;

fn peer(name: &str, created: usize, spec: &Value) -> BgpPeer {
    let metadata =
        json!({"name": name, "creationTimestamp": format!("2026-01-01T00:00:{created:02}Z")});
    let mut all = json!({"myASN": 64512, "peerASN": 64513, "peerAddress": "10.0.0.1"});
    spec.as_object().unwrap().iter().for_each(|(field, value)| all[field] = value.clone());
    serde_json::from_value::<api::BgpPeerObject>(json!({"metadata": metadata, "spec": all}))
        .unwrap()
        .into()
}

fn profile(name: &str, spec: &Value) -> BfdProfile {
    serde_json::from_value::<api::BfdProfileObject>(
        json!({"metadata": {"name": name}, "spec": spec}),
    )
    .unwrap()
    .into()
}

fn speaker(node: &str, peer: &str, message: &str) -> Speaker {
    let session =
        SpeakerSession { peer: peer.into(), message: message.into(), ..SpeakerSession::default() };
    Speaker { node: node.into(), bgp: Some([session].into()), ..Speaker::default() }
}

fn rack(name: &str) -> BTreeMap<String, String> {
    [("rack".to_owned(), name.to_owned())].into()
}

/// Reason of a valid BGPPeer whose graceful restart and BFD can conflict.
const RESTART_WITH_BFD: &str = "GracefulRestartWithBFD";

/// Returns reason and message of the condition `Valid` of the BGPPeer `tor`, which has this spec.
fn valid_condition(spec: &Value, others: Vec<BgpPeer>, speakers: &[Speaker]) -> (String, String) {
    let all: Vec<_> = others.into_iter().chain([peer("tor", 5, spec)]).collect();
    let profiles = [profile("fast", &json!({})), profile("bad", &json!({"echoMode": true}))];
    let inputs = PeerStatusInputs {
        conflicts: conflicts(all.iter(), &[&rack("x"), &rack("y")]),
        secrets: secrets(speakers.iter()),
        speakers: Vec::new(),
        stale: &BTreeSet::new(),
        profiles: profiles.iter().map(|profile| (&*profile.name, profile)).collect(),
    };
    let condition = peer_status(all.last().unwrap(), &inputs).unwrap().valid.condition;
    assert_eq!(
        condition.status == ConditionStatus::True,
        ["Valid", RESTART_WITH_BFD].contains(&&*condition.reason)
    );
    (condition.reason.into(), condition.message.to_string())
}

#[test]
fn a_peer_reports_invalid_fields_and_an_invalid_profile() {
    let cases = [
        (json!({}), "Valid", "can establish sessions"),
        (json!({"myASN": 0}), "BadASN", "spec.myASN is 0"),
        (json!({"dynamicASN": "internal"}), "BadASN", "spec.dynamicASN"),
        (json!({"peerAddress": "router"}), "BadAddress", "\"router\""),
        (json!({"sourceAddress": "fd00::1"}), "BadAddress", "families"),
        (json!({"holdTime": "1s"}), "BadTime", "spec.holdTime"),
        (json!({"peerASN": 64512, "ebgpMultiHop": true}), "BadHops", "spec.ebgpMultiHop"),
        (json!({"password": "x", "passwordSecret": {"name": "s"}}), "BadPassword", "both set"),
        (json!({"passwordSecret": {"name": "s", "namespace": "other"}}), "BadSecret", "\"other\""),
        (json!({"vrf": "red"}), "Unsupported", "spec.vrf"),
        (
            json!({"nodeSelectors": [{"matchExpressions": [{"key": "a", "operator": "Like"}]}]}),
            "BadSelector",
            "spec.nodeSelectors",
        ),
        (json!({"bfdProfile": "fast"}), "Valid", ""),
        (json!({"enableGracefulRestart": true}), "Valid", ""),
        (
            json!({"bfdProfile": "fast", "enableGracefulRestart": true}),
            RESTART_WITH_BFD,
            "remove one of them",
        ),
        (json!({"bfdProfile": "bad", "enableGracefulRestart": true}), "BadBFDProfile", ""),
        (
            json!({"bfdProfile": "slow"}),
            "UnknownBFDProfile",
            "BFD is off, because BFDProfile slow does not exist",
        ),
        (json!({"bfdProfile": "bad"}), "BadBFDProfile", "BFDProfile bad is invalid: spec.echoMode"),
        (
            json!({"bfdProfile": "fast", "ebgpMultiHop": true}),
            "Unsupported",
            "BFD is off, because GoBGP does not support it with spec.ebgpMultiHop",
        ),
    ];
    for (spec, reason, text) in cases {
        let (actual, message) = valid_condition(&spec, vec![], &[]);
        assert!(actual == reason && message.contains(text), "{spec}: {actual}: {message}");
    }
    let unreadable = BgpPeer::unreadable("tor".into(), "no").session.unwrap_err();
    assert_eq!(PeerMessage::Problem(&unreadable).reason(), "Unreadable");
}

#[test]
fn a_peer_in_conflict_with_an_older_one_on_a_node_reports_it() {
    let rack_selector = |rack: &str| json!([{"matchLabels": {"rack": rack}}]);
    let older = |spec: Value| vec![peer("older", 1, &spec)];
    let cases = [
        (json!({}), older(json!({})), "Conflict"),
        (json!({"peerAddress": "10.0.0.2"}), older(json!({})), "Valid"),
        (
            json!({"nodeSelectors": rack_selector("x")}),
            older(json!({"nodeSelectors": rack_selector("y")})),
            "Valid",
        ),
        (json!({}), older(json!({"nodeSelectors": rack_selector("y")})), "Conflict"),
        (json!({"nodeSelectors": rack_selector("z")}), older(json!({})), "Valid"),
        (json!({}), older(json!({"myASN": 0})), "Valid"),
        (json!({}), vec![peer("younger", 9, &json!({}))], "Valid"),
        // A fault that prevents sessions takes precedence over a fault that prevents BFD.
        (json!({"bfdProfile": "none"}), older(json!({})), "Conflict"),
    ];
    for (spec, others, reason) in cases {
        let (actual, message) = valid_condition(&spec, others, &[]);
        assert!(
            actual == reason && (actual == "Valid" || message.contains("BGPPeer older")),
            "{spec}: {actual}: {message}"
        );
    }
    let twins = [peer("a", 1, &json!({})), peer("b", 2, &json!({}))];
    assert_eq!(
        conflicts(twins.iter(), &[]).keys().collect::<Vec<_>>(),
        [&"b"],
        "a cluster without nodes counts as one node without labels"
    );
    let labelled =
        twins.map(|twin| peer(&twin.name, 1, &json!({"nodeSelectors": rack_selector("x")})));
    assert!(conflicts(labelled.iter(), &[]).is_empty());
}

#[test]
fn a_peer_reports_the_node_that_cannot_use_its_secret() {
    let secret = json!({"passwordSecret": {"name": "s"}});
    let text = "spec.passwordSecret: Secret s does not exist";
    let without_password = |peer: &str| {
        let mut speaker = speaker("n1", peer, "no connection to the router");
        speaker
            .bgp
            .iter_mut()
            .flatten()
            .for_each(|session| session.password_unavailable = Some(text.into()));
        speaker
    };
    let cases = [
        (&secret, without_password("tor"), "BadSecret"),
        (&secret, without_password("other"), "Valid"),
        (&secret, speaker("n1", "tor", "no connection to the router"), "Valid"),
        // The condition depends on `password_unavailable`, not on the message of the session.
        (&secret, speaker("n1", "tor", text), "Valid"),
        // The report precedes a change of the BGPPeer, which has no Secret any more.
        (&json!({}), without_password("tor"), "Valid"),
    ];
    for (spec, speaker, reason) in cases {
        let (actual, message) =
            valid_condition(spec, vec![], &[Speaker::default(), speaker.clone()]);
        assert_eq!(actual, reason, "{spec} {speaker:?}");
        assert!(
            actual == "Valid" || message == format!("{text} (reported by node n1)"),
            "{message}"
        );
    }
}

#[test]
fn a_profile_reports_invalid_fields() {
    for (spec, reason) in [
        (json!({}), "Valid"),
        (json!({"echoMode": true}), "Unsupported"),
        (json!({"receiveInterval": 1}), "BadTime"),
    ] {
        let profile = profile("p", &spec);
        assert_eq!(profile_status(&profile).unwrap().condition.reason, reason, "{spec}");
    }
}

/// A node: its rack, whether its SpeakerStatus is stale, and the sessions of its speaker.
type NodeSessions = (&'static str, bool, Option<Box<[SpeakerSession]>>);

/// Returns the session with `tor`, which is established if `message` is `None`.
fn tor_session(message: Option<&str>) -> Option<Box<[SpeakerSession]>> {
    let session = SpeakerSession {
        peer: "tor".into(),
        established: message.is_none(),
        message: message.unwrap_or_default().into(),
        ..SpeakerSession::default()
    };
    Some([session].into())
}

/// Returns a node whose session with `tor` is established without BFD.
fn without_bfd(message: &str) -> NodeSessions {
    let session = SpeakerSession {
        peer: "tor".into(),
        established: true,
        bfd_down: true,
        message: message.into(),
        ..SpeakerSession::default()
    };
    ("x", false, Some([session].into()))
}

/// Returns cases: the nodes, the expected session count of `tor`, and a part of its message. `tor`
/// selects rack `x`.
fn session_cases() -> Vec<(Vec<NodeSessions>, Option<&'static str>, &'static str)> {
    let up = || ("x", false, tor_session(None));
    let down = || ("x", false, tor_session(Some("no connection")));
    let no_gobgpd = || ("x", false, None);
    vec![
        (vec![up(), up(), no_gobgpd()], Some("2/2"), "session established on all selected nodes"),
        (vec![up(), down()], Some("1/2"), "no session on n1; n1: no connection"),
        (vec![("x", false, Some(Box::default())), down()], Some("0/2"), "no session on n0, n1"),
        (
            vec![("x", true, tor_session(None))],
            Some("0/1"),
            "no session on n0; n0: its speaker does not run",
        ),
        (
            vec![("y", false, tor_session(Some("no"))), up()],
            Some("1/1"),
            "session established on all selected nodes",
        ),
        (
            (0..9).map(|_| down()).collect(),
            Some("0/9"),
            "n0, n1, n2, n3, n4 and others; n0: no connection",
        ),
        (vec![up(), without_bfd("")], Some("2/2"), "session established on all selected nodes"),
        (
            vec![up(), without_bfd("BFD is not up: x"), without_bfd("y")],
            Some("3/3"),
            "session established on all selected nodes, but BFD is not up on n1, n2; n1: BFD is not up: x",
        ),
        (
            vec![down(), without_bfd("BFD is not up: x")],
            Some("1/2"),
            "no session on n0; n0: no connection",
        ),
        (vec![no_gobgpd(), ("y", false, tor_session(None))], None, ""),
    ]
}

/// Checks the count and the condition `Established` in the status of a BGPPeer. If `expect` is
/// `None`, the status must have neither.
fn check_sessions(status: &PeerStatus, expect: Option<&str>, text: &str) {
    assert_eq!(status.sessions.as_deref(), expect, "{text}");
    let established =
        status.established.as_ref().map(|condition| (condition.status, &*condition.message));
    assert_eq!(
        established.map(|(status, _)| status == ConditionStatus::True),
        expect.map(|_| text.starts_with("session")),
        "{text}"
    );
    assert!(established.is_none_or(|(_, message)| message.contains(text)), "{established:?}");
    assert_eq!(
        established.is_some_and(|(_, message)| message.contains("BFD")),
        text.contains("BFD"),
        "{established:?}"
    );
}

#[test]
fn a_peer_counts_its_sessions_and_names_nodes_without_one() {
    let node = |i: usize, rack_name: &str| Node {
        name: format!("n{i}").into(),
        labels: rack(rack_name),
        ..Node::default()
    };
    for (nodes, expect, text) in session_cases() {
        let nodes = nodes.into_iter().enumerate();
        let nodes = nodes.map(|(i, (rack, is_stale, bgp))| (node(i, rack), is_stale, bgp));
        let all: Vec<_> = nodes
            .map(|(node, is_stale, bgp)| (node, is_stale, Speaker { bgp, ..Speaker::default() }))
            .collect();
        let stale = all.iter().filter(|(_, is_stale, _)| *is_stale);
        let stale = stale.map(|(node, ..)| (*node.name).into()).collect();
        let inputs = PeerStatusInputs {
            conflicts: BTreeMap::new(),
            secrets: BTreeMap::new(),
            profiles: BTreeMap::new(),
            speakers: all.iter().map(|(node, _, speaker)| (node, speaker)).collect(),
            stale: &stale,
        };
        let selects = json!({"nodeSelectors": [{"matchLabels": {"rack": "x"}}]});
        let mut tor = peer("tor", 1, &selects);
        let status = peer_status(&tor, &inputs).unwrap();
        check_sessions(&status, expect, text);
        tor.record_written(&CustomResourceStatus::Peer(status));
        assert_eq!(peer_status(&tor, &inputs), None, "{text}");
        // Without nodes, the desired status has neither the count nor the condition.
        let without_nodes = PeerStatusInputs { speakers: Vec::new(), ..inputs };
        let status = peer_status(&tor, &without_nodes);
        assert_eq!(
            status.map(|status| (status.sessions, status.established)),
            expect.map(|_| (None, None)),
            "{text}"
        );
    }
}
