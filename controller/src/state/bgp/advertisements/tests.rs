//! Tables of advertisements in one cluster: two racks, two pools, one router.

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

/// Returns reason and message of the last of these advertisements. The cluster has the pools `lan`
/// (10.0.0.0/24 and fd00::/120) and `wan` (10.1.0.0/16 and 10.2.0.0/28), the router `tor` and the
/// community `near`.
fn said_of(ads: &[BgpAdvertisement], racks: &[&str]) -> (String, String) {
    let pool = |name: &str, ranges: &[&str]| {
        let ranges = ranges.iter().map(|range| range.parse().unwrap()).collect();
        Pool { name: name.into(), ranges, ..Pool::default() }
    };
    let pools =
        [pool("lan", &["10.0.0.0/24", "fd00::/120"]), pool("wan", &["10.1.0.0/16", "10.2.0.0/28"])];
    let labels = racks.iter().map(|rack| BTreeMap::from([("rack".to_owned(), (*rack).to_owned())]));
    let labels: Vec<_> = labels.collect();
    let surroundings = AdvertisementStatusInputs::new(
        &ads.iter().collect::<Vec<_>>(),
        &labels.iter().collect::<Vec<_>>(),
        pools.iter().collect(),
        [("near", "names")].into(),
        ["tor"].into(),
    );
    let condition = surroundings.status(ads.last().unwrap(), &StatusFields::All).unwrap().condition;
    (condition.reason.into(), condition.message.into())
}

#[test]
fn an_advertisement_says_what_it_names_in_vain_and_what_is_wrong_with_itself() {
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
    for (spec, reason, word) in cases {
        let (is, message) = said_of(&[ad("a", 1, &spec)], &["x", "y"]);
        assert!(is == reason && message.contains(word), "{spec}: {is}: {message}");
    }
}

#[test]
fn the_younger_of_two_that_say_different_things_of_one_prefix_yields() {
    let on = |rack: &str| json!([{"matchLabels": {"rack": rack}}]);
    let bare = || json!({});
    let cases = [
        ("med", bare(), json!({"med": 5}), true),
        ("localPref", bare(), json!({"localPref": 5}), true),
        ("asPathPrepend", bare(), json!({"asPathPrepend": 5}), true),
        ("nothing differs", json!({"med": 5}), json!({"med": 5, "communities": ["1:2"]}), false),
        (
            "other pools",
            json!({"ipAddressPools": ["lan"]}),
            json!({"ipAddressPools": ["wan"], "med": 5}),
            false,
        ),
        (
            "one pool",
            json!({"ipAddressPools": ["lan"]}),
            json!({"ipAddressPools": ["lan"], "med": 5}),
            true,
        ),
        (
            "a wider prefix",
            bare(),
            json!({"ipAddressPools": ["wan"], "aggregationLength": 30, "med": 5}),
            false,
        ),
        ("of the other family", bare(), json!({"aggregationLength": 30, "med": 5}), true),
        ("one router", bare(), json!({"peers": ["tor"], "med": 5}), true),
        (
            "other nodes",
            json!({"nodeSelectors": on("x")}),
            json!({"nodeSelectors": on("y"), "med": 5}),
            false,
        ),
        ("one node", json!({"nodeSelectors": on("x")}), json!({"med": 5}), true),
        (
            "some Services",
            bare(),
            json!({"serviceSelectors": [{"matchLabels": {"a": "b"}}], "med": 5}),
            false,
        ),
        (
            "an older one that announces nothing",
            json!({"communities": ["far"]}),
            json!({"med": 5}),
            false,
        ),
    ];
    for (what, older, younger, yields) in cases {
        let (is, message) = said_of(&[ad("b", 1, &older), ad("a", 2, &younger)], &["x", "y"]);
        assert_eq!(is, if yields { "Conflict" } else { "Valid" }, "{what}: {message}");
        assert!(!yields || message.contains("BGPAdvertisement b,"), "{what}: {message}");
        assert_eq!(
            said_of(&[ad("a", 2, &younger), ad("b", 1, &json!({}))], &["x"]).0,
            "Valid",
            "{what}: the oldest"
        );
    }
    assert!(
        said_of(&[ad("b", 1, &bare()), ad("a", 2, &json!({"med": 5}))], &[])
            .1
            .starts_with("spec.med: ")
    );
    let only = |rack: &str, med: u32| json!({"nodeSelectors": on(rack), "med": med});
    assert_eq!(
        said_of(&[ad("b", 1, &only("z", 1)), ad("a", 2, &only("z", 2))], &["x"]).0,
        "Valid",
        "on no node"
    );
}

#[test]
fn who_agrees_with_the_oldest_yields_to_nobody() {
    let all = [ad("a", 1, &json!({})), ad("b", 2, &json!({"med": 5})), ad("c", 3, &json!({}))];
    assert_eq!((&*said_of(&all[..2], &["x"]).0, &*said_of(&all, &["x"]).0), ("Conflict", "Valid"));
    let apart = [
        ad("a", 1, &json!({"peers": ["tor"]})),
        ad("b", 2, &json!({"med": 5, "peers": ["spine"]})),
        ad("c", 3, &json!({"peers": ["spine", "tor"]})),
    ];
    let yields = conflicts_of(&apart);
    assert_eq!(yields, ["c to b"], "each router has its oldest");
}

fn conflicts_of(ads: &[BgpAdvertisement]) -> Vec<String> {
    let ranges = vec!["10.0.0.0/24".parse().unwrap()];
    let pool = Pool { name: "lan".into(), ranges, ..Pool::default() };
    let found = conflicts(&ads.iter().collect::<Vec<_>>(), &[&BTreeMap::new()], &[&pool]);
    found.into_iter().map(|(name, older)| format!("{name} to {}", older.name)).collect()
}
