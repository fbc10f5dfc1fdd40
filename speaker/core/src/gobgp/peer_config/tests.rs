//! Tests of the configuration of sessions: the mapping of every field, and the content of marks.

use std::time::Duration;

use ferrolb_proto::facts::BgpPeer;
use serde_json::{Value, json};

use super::*;

/// Returns the configuration of the session of a BGPPeer with the required fields and the fields of
/// `spec`.
fn session(spec: &Value) -> SessionConfig {
    let mut object = json!({"metadata": {"name": "tor", "namespace": "ferrolb-system"},
        "spec": {"myASN": 64512, "peerASN": 64513, "peerAddress": "192.0.2.1"}});
    for (field, value) in spec.as_object().expect("fields") {
        object["spec"][field] = value.clone();
    }
    let peer: BgpPeer =
        serde_json::from_value::<ferrolb_proto::api::BgpPeerObject>(object).expect("a peer").into();
    let parameters = peer.session.expect("a valid session");
    SessionConfig { name: peer.name, parameters, password: None, bfd: None }
}

fn peer(spec: &Value) -> api::Peer {
    PeerConfig::new(&session(spec)).peer
}

/// Returns BFD timers whose values all differ from each other.
fn timers() -> BfdTimers {
    let millis = Duration::from_millis;
    BfdTimers { receive: millis(60), transmit: millis(50), multiplier: 4 }
}

/// Returns a configuration in which every field of a session is set.
fn full() -> SessionConfig {
    let session = session(&json!({
        "localASN": 64999, "sourceAddress": "192.0.2.9", "peerPort": 1179, "holdTime": "30s", "keepaliveTime": "7s",
        "connectTime": "3s", "password": "hush", "bfdProfile": "fast", "enableGracefulRestart": true, "ttlSecurityHops": 2,
    }));
    SessionConfig { password: Some("hush".into()), bfd: Some(timers()), ..session }
}

#[test]
fn every_session_parameter_is_configured() {
    let config = PeerConfig::new(&full());
    assert_eq!(&*config.name, "tor");
    let peer = config.peer;
    let conf = peer.conf.expect("a PeerConf");
    // A speaker with another mark would end the sessions of its predecessor.
    assert_eq!(conf.description, "ferrolb-a92a4da95f72bd70 tor");
    let text = [&conf.neighbor_address, &conf.neighbor_interface, &conf.auth_password];
    assert_eq!(text, ["192.0.2.1", "", "hush"]);
    assert_eq!((conf.peer_asn, conf.local_asn), (64513, 64999));
    let timers = peer.timers.expect("timers").config.expect("a TimersConfig");
    assert_eq!((timers.hold_time, timers.keepalive_interval, timers.connect_retry), (30, 7, 3));
    let transport = peer.transport.expect("transport");
    assert_eq!((&*transport.local_address, transport.remote_port), ("192.0.2.9", 1179));
    assert_eq!(peer.ebgp_multihop, None);
    assert_eq!(peer.ttl_security, Some(api::TtlSecurity { enabled: true, ttl_min: 254 }));
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
    let plain_peer = peer(&json!({}));
    let plain = (
        plain_peer.ebgp_multihop,
        plain_peer.ttl_security,
        plain_peer.graceful_restart,
        plain_peer.bfd,
    );
    assert_eq!(plain, (None, None, None, None));
    assert_eq!(plain_peer.conf.expect("a PeerConf").auth_password, "");
    let timers = plain_peer.timers.expect("timers").config.expect("a TimersConfig");
    assert_eq!((timers.hold_time, timers.keepalive_interval, timers.connect_retry), (90, 30, 5));
    let external = peer(&json!({"peerASN": null, "dynamicASN": "external"}));
    assert_eq!(external.conf.expect("a PeerConf").peer_asn, 0, "0 accepts any AS");
    let multihop = peer(&json!({"ebgpMultiHop": true}));
    assert_eq!(
        multihop.ebgp_multihop,
        Some(api::EbgpMultihop { enabled: true, multihop_ttl: 255 })
    );
    let unnumbered = peer(&json!({"peerAddress": "", "interface": "eth7"}));
    assert_eq!(unnumbered.afi_safis.len(), 2);
    let conf = unnumbered.conf.expect("a PeerConf");
    assert_eq!((&*conf.neighbor_address, &*conf.neighbor_interface), ("", "eth7"));
}

#[test]
fn a_description_identifies_all_parameters_except_bfd() {
    let description = |session: &SessionConfig| PeerConfig::new(session).description().to_owned();
    let plain = session(&json!({}));
    assert_eq!(description(&plain), description(&plain.clone()));
    let with_bfd = SessionConfig { bfd: Some(timers()), ..plain.clone() };
    assert_eq!(description(&with_bfd), description(&plain));
    let config = PeerConfig::new(&with_bfd);
    assert_eq!((config.with_bfd(true).bfd.is_some(), config.with_bfd(false).bfd), (true, None));
    let with_password = SessionConfig { password: Some("other".into()), ..plain.clone() };
    assert_ne!(description(&with_password), description(&plain));
    let with_other_name = SessionConfig { name: "tor2".into(), ..plain.clone() };
    assert_ne!(description(&with_other_name), description(&plain));
}
