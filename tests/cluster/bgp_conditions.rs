//! Conditions of BGPPeers, BGPAdvertisements and BFDProfiles for errors that the API server cannot
//! detect, because it accepts the field or because other objects are involved.

use crate::pools::{object, pool, wait_reason};
use crate::scenario::step;
use anyhow::{Context, Result};
use ferrolb_lab::Lab;
use ferrolb_proto::api::CustomResourceKind;
use serde_json::{Value, json};

/// An object, its kind, and the reason and a part of the message of its expected condition `Valid`.
type ExpectedCondition = (CustomResourceKind, Value, &'static str, &'static str);

pub(crate) fn part(lab: &Lab) -> Result<()> {
    step(
        "each unsupported or conflicting field of the BGP resources is reported in a condition",
        || {
            let mut routed = pool("routed", &["203.0.113.0/28"]);
            routed["spec"]["autoAssign"] = json!(false);
            lab.apply_objects(&[routed])?;
            [profiles(), peers(), advertisements()]
                .into_iter()
                .flatten()
                .try_for_each(|expected| wait_condition(lab, expected))
        },
    )?;
    step("after the corrections, the objects and those that refer to them are valid", || {
        let corrected = [
            (CustomResourceKind::BGPPeer, "vrf", peer_spec(1, json!({}))),
            (CustomResourceKind::BFDProfile, "echo", json!({})),
            (
                CustomResourceKind::BGPAdvertisement,
                "wide",
                json!({"ipAddressPools": ["routed"], "peers": ["profile"], "aggregationLength": 28}),
            ),
            (
                CustomResourceKind::BGPAdvertisement,
                "strange",
                json!({"peers": ["profile"], "communities": ["64512:1"]}),
            ),
        ];
        for (kind, name, spec) in corrected {
            // An apply alone would keep the invalid field.
            lab.kubectl(&["delete", kind.name(), name, "--namespace", "ferrolb-system"])?;
            wait_condition(lab, (kind, object(kind, name, spec), "Valid", ""))?;
        }
        wait_reason(lab, CustomResourceKind::BGPPeer, "profile-bad", "Valid", "")
    })
}

fn wait_condition(lab: &Lab, (kind, object, reason, word): ExpectedCondition) -> Result<()> {
    let name = object["metadata"]["name"].as_str().context("the object has no name")?.to_owned();
    lab.apply_objects(&[object])?;
    wait_reason(lab, kind, &name, reason, word)
}

/// Returns the spec of a BGPPeer for the router 10.0.0.`last`, with additional fields.
fn peer_spec(last: u8, fields: Value) -> Value {
    let mut spec =
        json!({"myASN": 64512, "peerASN": 64513, "peerAddress": format!("10.0.0.{last}")});
    spec.as_object_mut().expect("a spec").extend(fields.as_object().expect("fields").clone());
    spec
}

fn profiles() -> Vec<ExpectedCondition> {
    let profile = |name, spec, reason, word| {
        (
            CustomResourceKind::BFDProfile,
            object(CustomResourceKind::BFDProfile, name, spec),
            reason,
            word,
        )
    };
    vec![
        profile("fast", json!({"receiveInterval": 50, "transmitInterval": 50}), "Valid", ""),
        profile("echo", json!({"echoMode": true}), "Unsupported", "spec.echoMode"),
        profile(
            "echo-interval",
            json!({"echoMode": true, "echoInterval": 50}),
            "Unsupported",
            "spec.echoMode",
        ),
        profile("passive", json!({"passiveMode": true}), "Unsupported", "spec.passiveMode"),
        profile("ttl", json!({"minimumTtl": 250}), "Unsupported", "spec.minimumTtl"),
    ]
}

/// Returns the cases of BGPPeers. The first one is the oldest valid BGPPeer, so each conflicting
/// BGPPeer names it.
fn peers() -> Vec<ExpectedCondition> {
    let peer = |name, last, fields, reason, word| {
        (
            CustomResourceKind::BGPPeer,
            object(CustomResourceKind::BGPPeer, name, peer_spec(last, fields)),
            reason,
            word,
        )
    };
    let elsewhere = json!({"passwordSecret": {"name": "tor", "namespace": "default"}});
    vec![
        peer("a-valid", 100, json!({}), "Valid", ""),
        peer("vrf", 1, json!({"vrf": "red"}), "Unsupported", "spec.vrf"),
        peer("source", 2, json!({"sourceAddress": "fd00::1"}), "BadAddress", "different families"),
        peer(
            "keepalive",
            3,
            json!({"holdTime": "3s", "keepaliveTime": "4s"}),
            "BadTime",
            "spec.keepaliveTime",
        ),
        peer("secret", 4, elsewhere, "BadSecret", "spec.passwordSecret.namespace is \"default\""),
        peer(
            "far-bfd",
            6,
            json!({"ebgpMultiHop": true, "bfdProfile": "fast"}),
            "Unsupported",
            "BFD is off, because GoBGP does not support it with spec.ebgpMultiHop",
        ),
        peer(
            "profile-none",
            7,
            json!({"bfdProfile": "none"}),
            "UnknownBFDProfile",
            "BFDProfile none does not exist",
        ),
        peer(
            "profile-bad",
            8,
            json!({"bfdProfile": "echo"}),
            "BadBFDProfile",
            "BFDProfile echo is invalid: spec.echoMode",
        ),
        peer("profile", 9, json!({"bfdProfile": "fast"}), "Valid", ""),
        peer(
            "twin",
            100,
            json!({}),
            "Conflict",
            "BGPPeer a-valid, which is older, selects the same router",
        ),
        peer(
            "other-as",
            10,
            json!({"myASN": 64999}),
            "Conflict",
            "spec.myASN: BGPPeer a-valid, which is older, has 64512",
        ),
        peer(
            "other-id",
            11,
            json!({"routerID": "10.0.0.9"}),
            "Conflict",
            "spec.routerID: BGPPeer a-valid, which is older, has none",
        ),
    ]
}

fn advertisements() -> Vec<ExpectedCondition> {
    let ad = |name, spec, reason, word| {
        (
            CustomResourceKind::BGPAdvertisement,
            object(CustomResourceKind::BGPAdvertisement, name, spec),
            reason,
            word,
        )
    };
    let routed = |field: &str, value: Value| json!({"ipAddressPools": ["routed"], "peers": ["a-valid"], field: value});
    vec![
        ad("a-older", routed("localPref", json!(100)), "Valid", ""),
        ad(
            "younger",
            routed("localPref", json!(200)),
            "Conflict",
            "spec.localPref: BGPAdvertisement a-older",
        ),
        ad(
            "pool",
            json!({"ipAddressPools": ["none"]}),
            "UnknownPool",
            "IPAddressPool none does not exist",
        ),
        ad(
            "twice",
            json!({"communities": ["64512:1", "64512:1"]}),
            "BadCommunity",
            "spec.communities: \"64512:1\" occurs twice",
        ),
        ad(
            "router",
            routed("peers", json!(["none"])),
            "UnknownPeer",
            "BGPPeer none does not exist",
        ),
        ad(
            "wide",
            routed("aggregationLength", json!(8)),
            "TooWide",
            "spec.aggregationLength: a prefix of 8 bits",
        ),
        ad(
            "strange",
            json!({"communities": ["nowhere"]}),
            "UnknownCommunity",
            "no Community defines nowhere",
        ),
    ]
}
