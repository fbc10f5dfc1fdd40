//! Tests of the condition of BGPAdvertisements in a cluster with two racks, two pools and one
//! router.

use ferrolb_proto::api;
use serde_json::{Value, json};

use super::*;

fn ad(name: &str, created: usize, spec: &Value) -> BgpAdvertisement {
    let metadata =
        json!({"name": name, "creationTimestamp": format!("2026-01-01T00:00:{created:02}Z")});
    serde_json::from_value::<api::BgpAdvertisementObject>(
        json!({"metadata": metadata, "spec": spec}),
    )
    .unwrap()
    .into()
}

/// Returns reason and message of the condition of the last of these BGPAdvertisements. The cluster
/// has the pools `lan` (10.0.0.0/24 and fd00::/120) and `wan` (10.1.0.0/16 and 10.2.0.0/28), the
/// router `tor` and the community `near`.
fn condition_of(advertisements: &[BgpAdvertisement], racks: &[&str]) -> (String, String) {
    let pool = |name: &str, ranges: &[&str]| {
        let ranges = ranges.iter().map(|range| range.parse().unwrap()).collect();
        Pool { name: name.into(), ranges, ..Pool::default() }
    };
    let pools =
        [pool("lan", &["10.0.0.0/24", "fd00::/120"]), pool("wan", &["10.1.0.0/16", "10.2.0.0/28"])];
    let labels = racks.iter().map(|rack| BTreeMap::from([("rack".to_owned(), (*rack).to_owned())]));
    let labels: Vec<_> = labels.collect();
    let inputs = AdvertisementStatusInputs::new(
        &advertisements.iter().collect::<Vec<_>>(),
        &labels.iter().collect::<Vec<_>>(),
        pools.iter().collect(),
        [("near", "names")].into(),
        ["tor"].into(),
    );
    let condition = inputs.status(advertisements.last().unwrap()).unwrap().condition;
    (condition.reason.into(), condition.message.to_string())
}

#[test]
fn an_advertisement_reports_unknown_names_and_invalid_fields() {
    let many: Vec<_> = (0..9).map(|i| format!("p{i}")).collect();
    let cases = [
        (
            json!({"peers": ["tor"], "ipAddressPools": ["lan"], "communities": ["near", "1:2"]}),
            "Valid",
            "",
        ),
        (json!({"aggregationLength": 0}), "BadLength", "spec.aggregationLength"),
        (
            json!({"aggregationLength": 24, "serviceSelectors": [{}]}),
            "BadLength",
            "spec.serviceSelectors",
        ),
        (json!({"communities": ["1:2", "1:2"]}), "BadCommunity", "twice"),
        (
            json!({"nodeSelectors": [{"matchExpressions": [{"key": "a", "operator": "Like"}]}]}),
            "BadSelector",
            "spec.nodeSelectors",
        ),
        (
            json!({"communities": ["near", "far"]}),
            "UnknownCommunity",
            "no Community defines far, so this advertisement announces nothing",
        ),
        (
            json!({"ipAddressPools": ["lan", "dmz"]}),
            "UnknownPool",
            "IPAddressPool dmz does not exist",
        ),
        (
            json!({"ipAddressPools": many}),
            "UnknownPool",
            "p0, p1, p2, p3, p4 and others does not exist",
        ),
        (json!({"peers": ["tor", "spine"]}), "UnknownPeer", "BGPPeer spine does not exist"),
        (json!({"ipAddressPools": ["lan"], "aggregationLength": 24}), "Valid", ""),
        (
            json!({"ipAddressPools": ["lan"], "aggregationLength": 23}),
            "TooWide",
            "IPAddressPool lan",
        ),
        (json!({"aggregationLength": 24}), "TooWide", "IPAddressPool wan"),
        (
            json!({"ipAddressPools": ["wan"], "aggregationLength": 20}),
            "TooWide",
            "write 28 or more",
        ),
        (
            json!({"aggregationLengthV6": 119}),
            "TooWide",
            "spec.aggregationLengthV6: a prefix of 119 bits",
        ),
    ];
    for (spec, reason, text) in cases {
        let (actual, message) = condition_of(&[ad("a", 1, &spec)], &["x", "y"]);
        assert!(actual == reason && message.contains(text), "{spec}: {actual}: {message}");
    }
}

#[test]
fn the_younger_of_two_conflicting_advertisements_yields() {
    let rack = |name: &str| json!([{"matchLabels": {"rack": name}}]);
    let empty = || json!({});
    let cases = [
        ("med", empty(), json!({"med": 5}), true),
        ("localPref", empty(), json!({"localPref": 5}), true),
        ("asPathPrepend", empty(), json!({"asPathPrepend": 5}), true),
        ("nothing differs", json!({"med": 5}), json!({"med": 5, "communities": ["1:2"]}), false),
        (
            "other pools",
            json!({"ipAddressPools": ["lan"]}),
            json!({"ipAddressPools": ["wan"], "med": 5}),
            false,
        ),
        (
            "a common pool",
            json!({"ipAddressPools": ["lan"]}),
            json!({"ipAddressPools": ["lan"], "med": 5}),
            true,
        ),
        (
            "a wider prefix",
            empty(),
            json!({"ipAddressPools": ["wan"], "aggregationLength": 30, "med": 5}),
            false,
        ),
        ("IPv6 without aggregation", empty(), json!({"aggregationLength": 30, "med": 5}), true),
        ("a common router", empty(), json!({"peers": ["tor"], "med": 5}), true),
        (
            "other nodes",
            json!({"nodeSelectors": rack("x")}),
            json!({"nodeSelectors": rack("y"), "med": 5}),
            false,
        ),
        ("a common node", json!({"nodeSelectors": rack("x")}), json!({"med": 5}), true),
        (
            "some Services",
            empty(),
            json!({"serviceSelectors": [{"matchLabels": {"a": "b"}}], "med": 5}),
            false,
        ),
        (
            "an older advertisement that announces nothing",
            json!({"communities": ["far"]}),
            json!({"med": 5}),
            false,
        ),
    ];
    for (case, older, younger, yields) in cases {
        let (actual, message) =
            condition_of(&[ad("b", 1, &older), ad("a", 2, &younger)], &["x", "y"]);
        assert_eq!(actual, if yields { "Conflict" } else { "Valid" }, "{case}: {message}");
        assert!(!yields || message.contains("BGPAdvertisement b,"), "{case}: {message}");
        assert_eq!(
            condition_of(&[ad("a", 2, &younger), ad("b", 1, &json!({}))], &["x"]).0,
            "Valid",
            "{case}: the oldest advertisement has no conflict"
        );
    }
    assert!(
        condition_of(&[ad("b", 1, &empty()), ad("a", 2, &json!({"med": 5}))], &[])
            .1
            .starts_with("spec.med: ")
    );
    let on_rack = |name: &str, med: u32| json!({"nodeSelectors": rack(name), "med": med});
    assert_eq!(
        condition_of(&[ad("b", 1, &on_rack("z", 1)), ad("a", 2, &on_rack("z", 2))], &["x"]).0,
        "Valid",
        "advertisements that select no node do not conflict"
    );
}

#[test]
fn an_advertisement_that_equals_the_oldest_does_not_yield() {
    let all = [ad("a", 1, &json!({})), ad("b", 2, &json!({"med": 5})), ad("c", 3, &json!({}))];
    assert_eq!(
        (&*condition_of(&all[..2], &["x"]).0, &*condition_of(&all, &["x"]).0),
        ("Conflict", "Valid")
    );
    let per_peer = [
        ad("a", 1, &json!({"peers": ["tor"]})),
        ad("b", 2, &json!({"med": 5, "peers": ["spine"]})),
        ad("c", 3, &json!({"peers": ["spine", "tor"]})),
    ];
    let yields = conflicts_of(&per_peer);
    assert_eq!(yields, ["c to b"], "the oldest advertisement is determined for each router");
}

fn conflicts_of(advertisements: &[BgpAdvertisement]) -> Vec<String> {
    let ranges = vec!["10.0.0.0/24".parse().unwrap()];
    let pool = Pool { name: "lan".into(), ranges, ..Pool::default() };
    let conflicting =
        conflicts(&advertisements.iter().collect::<Vec<_>>(), &[&BTreeMap::new()], &[&pool]);
    conflicting.into_iter().map(|(name, older)| format!("{name} to {}", older.name)).collect()
}
