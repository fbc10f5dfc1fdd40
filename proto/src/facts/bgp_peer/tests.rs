//! Tests of the decoding of valid and invalid BGPPeers.

use serde_json::{Value, json};

use super::*;

fn peer(spec: Value) -> BgpPeer {
    let mut all = json!({"myASN": 64512, "peerASN": 64513, "peerAddress": "10.0.0.1"});
    for (field, value) in spec.as_object().expect("fields") {
        all[field] = value.clone();
    }
    let metadata = json!({"name": "tor", "namespace": "lb"});
    serde_json::from_value::<api::BgpPeerObject>(json!({"metadata": metadata, "spec": all}))
        .expect("peer")
        .into()
}

/// Returns the session parameters of a valid BGPPeer.
fn session_of(spec: Value) -> SessionParameters {
    peer(spec).session.expect("the BGPPeer is valid")
}

#[test]
fn the_defaults_are_those_of_metallb() {
    let defaults = SessionParameters {
        my_asn: 64512,
        peer_asn: PeerAsn::Number(64513),
        local_asn: None,
        location: PeerLocation::Address("10.0.0.1".parse().expect("address")),
        source: None,
        port: 179,
        hold: Duration::from_secs(90),
        keepalive: Duration::from_secs(30),
        connect: Duration::from_secs(5),
        router_id: None,
        password: None,
        bfd_profile: None,
        graceful_restart: false,
        multi_hop: false,
        ttl_security_hops: None,
        dual_stack: false,
    };
    assert_eq!(session_of(json!({})), defaults);
    assert_eq!(
        session_of(
            json!({"password": "", "passwordSecret": {"name": "", "namespace": ""}, "bfdProfile": ""})
        ),
        defaults
    );
    assert!(peer(json!({})).selects_node(&BTreeMap::new()));
}

#[test]
fn each_field_is_decoded() {
    let all = session_of(json!({
        "peerASN": null, "dynamicASN": "external", "localASN": 65000, "peerAddress": "", "interface": "eth1", "sourceAddress": "fd00::1",
        "peerPort": 1179, "connectTime": "10s", "routerID": "10.0.0.9", "passwordSecret": {"name": "secret", "namespace": "lb"},
        "bfdProfile": "fast", "enableGracefulRestart": true, "ttlSecurityHops": 2, "dualStackAddressFamily": true, "disableMP": true,
    }));
    assert_eq!((all.peer_asn, all.local_asn), (PeerAsn::External, Some(65000)));
    assert_eq!(all.location, PeerLocation::Interface("eth1".into()));
    assert_eq!((all.source, all.port), (Some("fd00::1".parse().expect("address")), 1179));
    assert_eq!(
        (all.connect, all.router_id),
        (Duration::from_secs(10), Some(Ipv4Addr::new(10, 0, 0, 9)))
    );
    assert_eq!(all.password, Some(PasswordSource::Secret("secret".into())));
    assert_eq!(
        (all.bfd_profile.as_deref(), all.graceful_restart, all.dual_stack),
        (Some("fast"), true, true)
    );
    assert_eq!((all.multi_hop, all.ttl_security_hops), (false, Some(2)));
    assert_eq!(
        session_of(json!({"password": "x"})).password,
        Some(PasswordSource::Plain("x".into()))
    );
    assert!(session_of(json!({"ebgpMultiHop": true})).multi_hop);
    let internal = session_of(json!({"peerASN": 0, "dynamicASN": "internal"}));
    assert_eq!(internal.peer_asn, PeerAsn::Number(64512));
    let of_rack = peer(json!({"nodeSelectors": [{"matchLabels": {"rack": "a"}}]}));
    assert!(
        !of_rack.selects_node(&BTreeMap::new())
            && of_rack.selects_node(&[("rack".into(), "a".into())].into())
    );
}

#[test]
fn hold_time_and_keepalive_time_determine_each_other() {
    let timers = |spec| {
        let session = session_of(spec);
        (session.hold.as_secs(), session.keepalive.as_secs())
    };
    assert_eq!(timers(json!({"holdTime": "30s"})), (30, 10));
    assert_eq!(timers(json!({"keepaliveTime": "7s"})), (21, 7));
    assert_eq!(timers(json!({"holdTime": "1m30s", "keepaliveTime": "1500ms"})), (90, 2));
    assert_eq!(timers(json!({"holdTime": "18h12m15s"})), (65_535, 21_845));
    assert_eq!(
        timers(json!({"holdTime": "2.6s", "keepaliveTime": "0.5s"})),
        (3, 1),
        "fractions are rounded to whole seconds"
    );
}

#[test]
fn an_invalid_field_is_reported_by_its_name() {
    let long = "x".repeat(81);
    let cases = [
        (json!({"myASN": 0}), "spec.myASN is 0"),
        (json!({"peerASN": null}), "none or both of spec.peerASN and spec.dynamicASN"),
        (json!({"dynamicASN": "internal"}), "none or both of spec.peerASN and spec.dynamicASN"),
        (json!({"peerAddress": ""}), "none or both of spec.peerAddress and spec.interface"),
        (json!({"interface": "eth0"}), "none or both of spec.peerAddress and spec.interface"),
        (
            json!({"peerAddress": "tor.example"}),
            "spec.peerAddress is \"tor.example\": write an IP address",
        ),
        (json!({"routerID": "fd00::1"}), "spec.routerID is \"fd00::1\": write an IPv4 address"),
        (json!({"sourceAddress": "10.0.0.0/24"}), "spec.sourceAddress is \"10.0.0.0/24\""),
        (json!({"sourceAddress": "fd00::1"}), "different families"),
        (
            json!({"holdTime": "0s"}),
            "spec.holdTime is \"0s\": write whole seconds from 3s to 65535s",
        ),
        (json!({"holdTime": "2s"}), "from 3s"),
        (json!({"holdTime": "65536s"}), "spec.holdTime"),
        (
            json!({"keepaliveTime": "0s"}),
            "spec.keepaliveTime is \"0s\": write whole seconds from 1s",
        ),
        (json!({"connectTime": "x"}), "spec.connectTime is \"x\""),
        (json!({"holdTime": "9s", "keepaliveTime": "10s"}), "longer than spec.holdTime"),
        (json!({"peerASN": 64512, "ebgpMultiHop": true}), "external peers"),
        (json!({"ttlSecurityHops": 1, "ebgpMultiHop": true}), "are both set"),
        (
            json!({"password": "x", "passwordSecret": {"name": "y"}}),
            "spec.password and spec.passwordSecret are both set",
        ),
        (json!({"password": long}), "longer than 80 bytes"),
        (
            json!({"passwordSecret": {"name": "y", "namespace": "other"}}),
            "spec.passwordSecret.namespace is \"other\"",
        ),
        (json!({"vrf": "red"}), "spec.vrf"),
        (
            json!({"nodeSelectors": [{"matchExpressions": [{"key": "a", "operator": "Near"}]}]}),
            "spec.nodeSelectors:",
        ),
    ];
    for (spec, reason) in cases {
        let problem = peer(spec.clone()).session.expect_err("the BGPPeer is invalid").to_string();
        assert!(problem.contains(reason), "the problem of {spec} contains {reason:?}: {problem}");
    }
}
