//! What BGPPeers, BGPAdvertisements and BFDProfiles say of themselves that only the whole cluster knows, or that the API server lets pass.

use crate::pools::{object, pool, wait_reason};
use crate::stage::step;
use anyhow::{Context, Result};
use ferrolb_proto::api::Kind;
use ferrolb_tests::Lab;
use serde_json::{Value, json};

/// An object and what it is to say: the reason, and what the message holds.
type Said = (Kind, Value, &'static str, &'static str);

pub(crate) fn part(lab: &Lab) -> Result<()> {
    step("each field of a BGPPeer, BGPAdvertisement or BFDProfile that cannot be served says so", || {
        let mut routed = pool("routed", &["203.0.113.0/28"]);
        routed["spec"]["autoAssign"] = json!(false);
        lab.apply_objects(&[routed])?;
        [profiles(), peers(), advertisements()].into_iter().flatten().try_for_each(|said| says(lab, said))
    })?;
    step("put right, they are valid, and so is what depends on them", || {
        let right = [
            (Kind::BGPPeer, "vrf", router(1, json!({}))),
            (Kind::BFDProfile, "echo", json!({})),
            (
                Kind::BGPAdvertisement,
                "wide",
                json!({"ipAddressPools": ["routed"], "peers": ["profile"], "aggregationLength": 28}),
            ),
            (Kind::BGPAdvertisement, "strange", json!({"peers": ["profile"], "communities": ["64512:1"]})),
        ];
        for (kind, name, spec) in right {
            // What was set is to be gone, not merged.
            lab.kubectl(&["delete", kind.name(), name, "--namespace", "ferrolb-system"])?;
            says(lab, (kind, object(kind, name, spec), "Valid", ""))?;
        }
        wait_reason(lab, Kind::BGPPeer, "profile-bad", "Valid", "")
    })
}

fn says(lab: &Lab, (kind, object, reason, word): Said) -> Result<()> {
    let name = object["metadata"]["name"].as_str().context("a name")?.to_owned();
    lab.apply_objects(&[object])?;
    wait_reason(lab, kind, &name, reason, word)
}

/// The terms of a session with a router of its own.
fn router(last: u8, fields: Value) -> Value {
    let mut spec = json!({"myASN": 64512, "peerASN": 64513, "peerAddress": format!("10.0.0.{last}")});
    spec.as_object_mut().expect("a spec").extend(fields.as_object().expect("fields").clone());
    spec
}

fn profiles() -> Vec<Said> {
    let profile = |name, spec, reason, word| (Kind::BFDProfile, object(Kind::BFDProfile, name, spec), reason, word);
    vec![
        profile("fast", json!({"receiveInterval": 50, "transmitInterval": 50}), "Valid", ""),
        profile("echo", json!({"echoMode": true}), "Unsupported", "spec.echoMode"),
        profile("echo-interval", json!({"echoMode": true, "echoInterval": 50}), "Unsupported", "spec.echoMode"),
        profile("passive", json!({"passiveMode": true}), "Unsupported", "spec.passiveMode"),
        profile("ttl", json!({"minimumTtl": 250}), "Unsupported", "spec.minimumTtl"),
    ]
}

/// The first is the oldest that is sound: those that exclude each other name it.
fn peers() -> Vec<Said> {
    let peer = |name, last, fields, reason, word| {
        (Kind::BGPPeer, object(Kind::BGPPeer, name, router(last, fields)), reason, word)
    };
    let elsewhere = json!({"passwordSecret": {"name": "tor", "namespace": "default"}});
    vec![
        peer("a-sound", 100, json!({}), "Valid", ""),
        peer("vrf", 1, json!({"vrf": "red"}), "Unsupported", "spec.vrf"),
        peer("source", 2, json!({"sourceAddress": "fd00::1"}), "BadAddress", "different families"),
        peer("keepalive", 3, json!({"holdTime": "3s", "keepaliveTime": "4s"}), "BadTime", "spec.keepaliveTime"),
        peer("secret", 4, elsewhere, "BadSecret", "spec.passwordSecret.namespace is \"default\""),
        peer("far-bfd", 6, json!({"ebgpMultiHop": true, "bfdProfile": "fast"}), "Unsupported", "more than one hop"),
        peer("profile-none", 7, json!({"bfdProfile": "none"}), "UnknownBFDProfile", "no BFDProfile none"),
        peer("profile-bad", 8, json!({"bfdProfile": "echo"}), "BadBFDProfile", "BFDProfile echo: spec.echoMode"),
        peer("profile", 9, json!({"bfdProfile": "fast"}), "Valid", ""),
        peer("twin", 100, json!({}), "Conflict", "BGPPeer a-sound has the same router"),
        peer("other-as", 10, json!({"myASN": 64999}), "Conflict", "spec.myASN: BGPPeer a-sound has 64512"),
        peer("other-id", 11, json!({"routerID": "10.0.0.9"}), "Conflict", "spec.routerID: BGPPeer a-sound has none"),
    ]
}

fn advertisements() -> Vec<Said> {
    let ad =
        |name, spec, reason, word| (Kind::BGPAdvertisement, object(Kind::BGPAdvertisement, name, spec), reason, word);
    let routed = |field: &str, value: Value| json!({"ipAddressPools": ["routed"], "peers": ["a-sound"], field: value});
    vec![
        ad("a-older", routed("localPref", json!(100)), "Valid", ""),
        ad("younger", routed("localPref", json!(200)), "Conflict", "spec.localPref: BGPAdvertisement a-older"),
        ad("pool", json!({"ipAddressPools": ["none"]}), "UnknownPool", "no IPAddressPool none"),
        ad(
            "twice",
            json!({"communities": ["64512:1", "64512:1"]}),
            "BadCommunity",
            "spec.communities: \"64512:1\" comes twice",
        ),
        ad("router", routed("peers", json!(["none"])), "UnknownPeer", "no BGPPeer none"),
        ad("wide", routed("aggregationLength", json!(8)), "TooWide", "spec.aggregationLength: a prefix of 8 bits"),
        ad("strange", json!({"communities": ["nowhere"]}), "UnknownCommunity", "the name nowhere"),
    ]
}
