//! BGPPeers, BGPAdvertisements and BFDProfiles that the API server refuses or accepts, each by
//! itself.

use crate::pools::object;
use crate::refusals::{RefusalCase, not_in_without_values};
use ferrolb_proto::api::CustomResourceKind;
use serde_json::{Value, json};

/// Returns a valid BGPPeer after its fields in `fields` have been replaced or added.
fn peer(fields: Value) -> Value {
    with(
        CustomResourceKind::BGPPeer,
        json!({"myASN": 64512, "peerASN": 64513, "peerAddress": "10.0.0.1"}),
        fields,
    )
}

/// Returns an object of this kind, with the fields added to the spec.
fn with(kind: CustomResourceKind, mut spec: Value, fields: Value) -> Value {
    let fields = fields.as_object().expect("fields").clone();
    spec.as_object_mut().expect("a spec").extend(fields);
    object(kind, "bad", spec)
}

/// Returns a case for each validation rule of BGPPeers, BGPAdvertisements and BFDProfiles.
pub(crate) fn cases() -> Vec<RefusalCase> {
    [peers(), sessions(), advertisements(), profiles()].concat()
}

/// Returns the cases of a BGPPeer's AS numbers, addresses, port and node selectors.
fn peers() -> Vec<RefusalCase> {
    vec![
        ("myASN is 0", peer(json!({"myASN": 0})), &["spec.myASN"]),
        (
            "neither peerASN nor dynamicASN",
            peer(json!({"peerASN": null})),
            &["spec.peerASN", "spec.dynamicASN"],
        ),
        (
            "both peerASN and dynamicASN",
            peer(json!({"dynamicASN": "internal"})),
            &["spec.peerASN", "spec.dynamicASN"],
        ),
        (
            "an unknown value of dynamicASN",
            peer(json!({"peerASN": null, "dynamicASN": "any"})),
            &["spec.dynamicASN"],
        ),
        (
            "neither peerAddress nor interface",
            peer(json!({"peerAddress": ""})),
            &["spec.peerAddress", "spec.interface"],
        ),
        (
            "both peerAddress and interface",
            peer(json!({"interface": "eth0"})),
            &["spec.peerAddress", "spec.interface"],
        ),
        (
            "a host name as peerAddress",
            peer(json!({"peerAddress": "tor.example"})),
            &["spec.peerAddress"],
        ),
        (
            "an invalid sourceAddress",
            peer(json!({"sourceAddress": "10.0.0"})),
            &["spec.sourceAddress"],
        ),
        ("an IPv6 address as routerID", peer(json!({"routerID": "fd00::1"})), &["spec.routerID"]),
        ("a peerPort above 65535", peer(json!({"peerPort": 65536})), &["spec.peerPort"]),
        (
            "nodeSelectors of a BGPPeer: NotIn without values",
            peer(json!({"nodeSelectors": not_in_without_values()})),
            &["spec.nodeSelectors[0]"],
        ),
    ]
}

/// Returns the cases of a BGPPeer's password, timers and hop limits.
fn sessions() -> Vec<RefusalCase> {
    vec![
        (
            "both password and passwordSecret",
            peer(json!({"password": "a", "passwordSecret": {"name": "b"}})),
            &["spec.password"],
        ),
        (
            "a password of 81 characters",
            peer(json!({"password": "x".repeat(81)})),
            &["spec.password", "80"],
        ),
        ("a hold time of two seconds", peer(json!({"holdTime": "2s"})), &["spec.holdTime", "3s"]),
        ("a hold time without a unit", peer(json!({"holdTime": "90"})), &["spec.holdTime"]),
        ("a keepalive time of zero", peer(json!({"keepaliveTime": "0s"})), &["spec.keepaliveTime"]),
        ("a connect time of a day", peer(json!({"connectTime": "24h"})), &["spec.connectTime"]),
        (
            "both ebgpMultiHop and ttlSecurityHops",
            peer(json!({"ebgpMultiHop": true, "ttlSecurityHops": 1})),
            &["spec.ttlSecurityHops"],
        ),
        (
            "ebgpMultiHop with an internal peer",
            peer(json!({"peerASN": 64512, "ebgpMultiHop": true})),
            &["spec.ebgpMultiHop"],
        ),
    ]
}

fn advertisements() -> Vec<RefusalCase> {
    let ad = |fields| with(CustomResourceKind::BGPAdvertisement, json!({}), fields);
    vec![
        (
            "nodeSelectors: NotIn without values",
            ad(json!({"nodeSelectors": not_in_without_values()})),
            &["spec.nodeSelectors[0]"],
        ),
        (
            "serviceSelectors: NotIn without values",
            ad(json!({"serviceSelectors": not_in_without_values()})),
            &["spec.serviceSelectors[0]"],
        ),
        (
            "ipAddressPoolSelectors: NotIn without values",
            ad(json!({"ipAddressPoolSelectors": not_in_without_values()})),
            &["spec.ipAddressPoolSelectors[0]"],
        ),
        (
            "an aggregation length of zero",
            ad(json!({"aggregationLength": 0})),
            &["spec.aggregationLength"],
        ),
        (
            "an IPv6 aggregation length above 128",
            ad(json!({"aggregationLengthV6": 129})),
            &["spec.aggregationLengthV6"],
        ),
        (
            "aggregation together with serviceSelectors",
            ad(json!({"aggregationLength": 24, "serviceSelectors": [{}]})),
            &["spec.serviceSelectors", "aggregation"],
        ),
        (
            "too many communities",
            ad(json!({"communities": vec!["1:2"; 64]})),
            &["spec.communities", "63"],
        ),
        (
            "asPathPrepend above the maximum",
            ad(json!({"asPathPrepend": 17})),
            &["spec.asPathPrepend"],
        ),
    ]
}

fn profiles() -> Vec<RefusalCase> {
    let bfd = |fields| with(CustomResourceKind::BFDProfile, json!({}), fields);
    vec![
        (
            "a receiveInterval below the minimum",
            bfd(json!({"receiveInterval": 9})),
            &["spec.receiveInterval"],
        ),
        (
            "a detectMultiplier below the minimum",
            bfd(json!({"detectMultiplier": 1})),
            &["spec.detectMultiplier"],
        ),
    ]
}

/// Returns objects that the API server accepts, with fields that users of MetalLB set.
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
