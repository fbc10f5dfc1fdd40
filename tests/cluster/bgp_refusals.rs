//! BGPPeers, BGPAdvertisements and BFDProfiles that the API server refuses or accepts, each by
//! itself.

use crate::pools::object;
use crate::refusals::{RefusalCase, not_in_nothing};
use ferrolb_proto::api::CustomResourceKind;
use serde_json::{Value, json};

fn peer(fields: Value) -> Value {
    with(
        CustomResourceKind::BGPPeer,
        json!({"myASN": 64512, "peerASN": 64513, "peerAddress": "10.0.0.1"}),
        fields,
    )
}

fn with(kind: CustomResourceKind, mut spec: Value, fields: Value) -> Value {
    let fields = fields.as_object().expect("fields").clone();
    spec.as_object_mut().expect("a spec").extend(fields);
    object(kind, "bad", spec)
}

/// Returns a case for each rule.
pub(crate) fn cases() -> Vec<RefusalCase> {
    [peers(), sessions(), advertisements(), profiles()].concat()
}

/// Returns cases of a peer's AS, addresses, port and nodes.
fn peers() -> Vec<RefusalCase> {
    vec![
        ("a peer of no AS", peer(json!({"myASN": 0})), &["spec.myASN"]),
        (
            "a peer of no AS of its own",
            peer(json!({"peerASN": null})),
            &["spec.peerASN", "spec.dynamicASN"],
        ),
        (
            "a peer of two",
            peer(json!({"dynamicASN": "internal"})),
            &["spec.peerASN", "spec.dynamicASN"],
        ),
        (
            "an AS in words",
            peer(json!({"peerASN": null, "dynamicASN": "any"})),
            &["spec.dynamicASN"],
        ),
        (
            "a peer nowhere",
            peer(json!({"peerAddress": ""})),
            &["spec.peerAddress", "spec.interface"],
        ),
        (
            "a peer in two places",
            peer(json!({"interface": "eth0"})),
            &["spec.peerAddress", "spec.interface"],
        ),
        ("a peer by name", peer(json!({"peerAddress": "tor.example"})), &["spec.peerAddress"]),
        (
            "a source that is none",
            peer(json!({"sourceAddress": "10.0.0"})),
            &["spec.sourceAddress"],
        ),
        ("a router id of IPv6", peer(json!({"routerID": "fd00::1"})), &["spec.routerID"]),
        ("a port that is none", peer(json!({"peerPort": 65536})), &["spec.peerPort"]),
        (
            "a peer of nodes not in nothing",
            peer(json!({"nodeSelectors": not_in_nothing()})),
            &["spec.nodeSelectors[0]"],
        ),
    ]
}

/// Returns cases of a session's password, times and hops.
fn sessions() -> Vec<RefusalCase> {
    vec![
        (
            "two passwords",
            peer(json!({"password": "a", "passwordSecret": {"name": "b"}})),
            &["spec.password"],
        ),
        (
            "a password without end",
            peer(json!({"password": "x".repeat(81)})),
            &["spec.password", "80"],
        ),
        ("a hold time of two seconds", peer(json!({"holdTime": "2s"})), &["spec.holdTime", "3s"]),
        ("a hold time without a unit", peer(json!({"holdTime": "90"})), &["spec.holdTime"]),
        (
            "a keepalive time of nothing",
            peer(json!({"keepaliveTime": "0s"})),
            &["spec.keepaliveTime"],
        ),
        ("a connect time of a day", peer(json!({"connectTime": "24h"})), &["spec.connectTime"]),
        (
            "hops of two kinds",
            peer(json!({"ebgpMultiHop": true, "ttlSecurityHops": 1})),
            &["spec.ttlSecurityHops"],
        ),
        (
            "multihop to ourselves",
            peer(json!({"peerASN": 64512, "ebgpMultiHop": true})),
            &["spec.ebgpMultiHop"],
        ),
    ]
}

fn advertisements() -> Vec<RefusalCase> {
    let ad = |fields| with(CustomResourceKind::BGPAdvertisement, json!({}), fields);
    vec![
        (
            "nodes not in nothing",
            ad(json!({"nodeSelectors": not_in_nothing()})),
            &["spec.nodeSelectors[0]"],
        ),
        (
            "Services not in nothing",
            ad(json!({"serviceSelectors": not_in_nothing()})),
            &["spec.serviceSelectors[0]"],
        ),
        (
            "pools not in nothing",
            ad(json!({"ipAddressPoolSelectors": not_in_nothing()})),
            &["spec.ipAddressPoolSelectors[0]"],
        ),
        ("a prefix of nothing", ad(json!({"aggregationLength": 0})), &["spec.aggregationLength"]),
        (
            "a prefix too long",
            ad(json!({"aggregationLengthV6": 129})),
            &["spec.aggregationLengthV6"],
        ),
        (
            "a prefix of some Services",
            ad(json!({"aggregationLength": 24, "serviceSelectors": [{}]})),
            &["spec.serviceSelectors", "aggregation"],
        ),
        (
            "too many communities",
            ad(json!({"communities": vec!["1:2"; 64]})),
            &["spec.communities", "63"],
        ),
        ("a path without end", ad(json!({"asPathPrepend": 17})), &["spec.asPathPrepend"]),
    ]
}

fn profiles() -> Vec<RefusalCase> {
    let bfd = |fields| with(CustomResourceKind::BFDProfile, json!({}), fields);
    vec![
        (
            "a watch that is too close",
            bfd(json!({"receiveInterval": 9})),
            &["spec.receiveInterval"],
        ),
        ("a watch of nothing", bfd(json!({"detectMultiplier": 1})), &["spec.detectMultiplier"]),
    ]
}

/// Returns objects that the API server accepts, as users of MetalLB have them.
pub(crate) fn accepted() -> Vec<Value> {
    vec![
        peer(
            json!({"holdTime": "90s", "keepaliveTime": "30s", "connectTime": "10s", "routerID": "10.0.0.9",
            "passwordSecret": {"name": "tor", "namespace": "ferrolb-system"}, "bfdProfile": "fast", "enableGracefulRestart": true}),
        ),
        object(
            CustomResourceKind::BGPPeer,
            "unnumbered",
            json!({"myASN": 64512, "dynamicASN": "external", "interface": "eth1"}),
        ),
        object(
            CustomResourceKind::BGPAdvertisement,
            "all",
            json!({"aggregationLength": 24, "localPref": 100, "communities": ["64512:1", "large:1:2:3", "no-export"], "peers": ["tor"]}),
        ),
        object(
            CustomResourceKind::BFDProfile,
            "fast",
            json!({"receiveInterval": 50, "transmitInterval": 50, "detectMultiplier": 3}),
        ),
    ]
}
