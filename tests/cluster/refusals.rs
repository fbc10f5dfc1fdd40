//! Refusals of the API server for single fields: wrong types, too many elements, and unknown
//! values.

use crate::pools::{object, pool, pool_for};
use ferrolb_proto::api::CustomResourceKind;
use serde_json::{Value, json};

/// The fault, the object, and parts of the API server's error.
pub(crate) type RefusalCase = (&'static str, Value, &'static [&'static str]);

/// Returns cases for each field but `spec.addresses`, whose syntax has cases of its own.
pub(crate) fn cases() -> Vec<RefusalCase> {
    [pools(), allocations(), advertisements(), selectors(), expressions(), labels(), communities()]
        .concat()
}

fn many(count: usize, of: Value) -> Value {
    json!(vec![of; count])
}

fn pools() -> Vec<RefusalCase> {
    let with = |field: &str, value: Value| {
        let mut object = pool("bad", &["172.30.0.200"]);
        object["spec"][field] = value;
        object
    };
    let long = "0".repeat(101);
    let unreachable = |what, address: &str| {
        (what, pool("bad", &[address]), &["loopback, link-local, multicast"][..])
    };
    vec![
        unreachable("loopback", "127.0.0.0/8"),
        unreachable("a link-local range", "169.254.1.1-169.254.1.9"),
        unreachable("a link-local prefix", "fe80::/64"),
        unreachable("multicast", " 224.0.0.5 "),
        unreachable("the unspecified address", "::"),
        unreachable("broadcast", "255.255.255.255"),
        (
            "too many addresses",
            with("addresses", many(257, json!("172.30.0.200"))),
            &["spec.addresses", "256"],
        ),
        ("an address without end", with("addresses", json!([long])), &["spec.addresses[0]", "100"]),
        (
            "too many exclusions",
            with("excludeAddresses", many(257, json!("172.30.0.200"))),
            &["spec.excludeAddresses", "256"],
        ),
        (
            "an exclusion without end",
            with("excludeAddresses", json!([long])),
            &["spec.excludeAddresses[0]", "100"],
        ),
        ("a number for a switch", with("avoidBuggyIPs", json!(1)), &["spec.avoidBuggyIPs"]),
        (
            "a mode in small letters",
            with("ipMode", json!("vip")),
            &["spec.ipMode", "\"VIP\", \"Proxy\""],
        ),
        (
            "a mode that only an annotation has",
            with("ipMode", json!("Proxy,announce")),
            &["spec.ipMode", "\"VIP\", \"Proxy\""],
        ),
        ("a list of modes", with("ipMode", json!(["VIP"])), &["spec.ipMode"]),
    ]
}

fn allocations() -> Vec<RefusalCase> {
    let with = |field: &str, value: Value| pool_for("bad", "172.30.0.200", json!({field: value}));
    let keyless = json!([{"matchExpressions": [{"operator": "Exists"}]}]);
    let wordless = json!([{"matchExpressions": [{"key": "tier"}]}]);
    vec![
        (
            "an allocation that is a word",
            pool_for("bad", "172.30.0.200", json!("team")),
            &["spec.serviceAllocation"],
        ),
        (
            "an unknown field of an allocation",
            with("namespace", json!("red")),
            &["serviceAllocation.namespace"],
        ),
        (
            "a word for a priority",
            with("priority", json!("high")),
            &["spec.serviceAllocation.priority"],
        ),
        (
            "one namespace for a list",
            with("namespaces", json!("red")),
            &["spec.serviceAllocation.namespaces"],
        ),
        (
            "too many namespaces",
            with("namespaces", many(1025, json!("red"))),
            &["spec.serviceAllocation.namespaces", "1024"],
        ),
        (
            "one selector for a list",
            with("namespaceSelectors", json!({"matchLabels": {}})),
            &["spec.serviceAllocation.namespaceSelectors"],
        ),
        (
            "too many selectors of namespaces",
            with("namespaceSelectors", many(65, json!({}))),
            &["spec.serviceAllocation.namespaceSelectors", "64"],
        ),
        (
            "a selector without a key",
            with("namespaceSelectors", keyless),
            &["spec.serviceAllocation.namespaceSelectors[0]", "key"],
        ),
        (
            "too many selectors of Services",
            with("serviceSelectors", many(65, json!({}))),
            &["spec.serviceAllocation.serviceSelectors", "64"],
        ),
        (
            "a selector without an operator",
            with("serviceSelectors", wordless),
            &["spec.serviceAllocation.serviceSelectors[0]", "operator"],
        ),
    ]
}

/// Returns an L2Advertisement with this field.
fn advertisement(field: &str, value: Value) -> Value {
    object(CustomResourceKind::L2Advertisement, "bad", json!({field: value}))
}

fn advertisements() -> Vec<RefusalCase> {
    let with = advertisement;
    vec![
        ("one pool for a list", with("ipAddressPools", json!("lan")), &["spec.ipAddressPools"]),
        (
            "too many pools",
            with("ipAddressPools", many(257, json!("lan"))),
            &["spec.ipAddressPools", "256"],
        ),
        (
            "too many selectors of pools",
            with("ipAddressPoolSelectors", many(65, json!({}))),
            &["spec.ipAddressPoolSelectors", "64"],
        ),
        (
            "too many selectors of nodes",
            with("nodeSelectors", many(65, json!({}))),
            &["spec.nodeSelectors", "64"],
        ),
        (
            "too many selectors of Services",
            with("serviceSelectors", many(65, json!({}))),
            &["spec.serviceSelectors", "64"],
        ),
        (
            "a word for a selector of Services",
            with("serviceSelectors", json!(["web"])),
            &["spec.serviceSelectors[0]"],
        ),
        (
            "too many preferences",
            with("preferredNodeSelectors", many(65, json!({"weight": 1, "preference": {}}))),
            &["spec.preferredNodeSelectors", "64"],
        ),
        (
            "a preference without a weight",
            with("preferredNodeSelectors", json!([{"preference": {}}])),
            &["spec.preferredNodeSelectors[0].weight"],
        ),
        (
            "a preference of nothing",
            with("preferredNodeSelectors", json!([{"weight": 1}])),
            &["spec.preferredNodeSelectors[0].preference"],
        ),
        (
            "a weight that weighs nothing",
            with("preferredNodeSelectors", json!([{"weight": 0, "preference": {}}])),
            &["spec.preferredNodeSelectors[0].weight", "1"],
        ),
        (
            "a weight above all",
            with("preferredNodeSelectors", json!([{"weight": 101, "preference": {}}])),
            &["spec.preferredNodeSelectors[0].weight", "100"],
        ),
        ("too many links", with("interfaces", many(65, json!("eth0"))), &["spec.interfaces", "64"]),
        ("a number for a link", with("interfaces", json!([0])), &["spec.interfaces[0]"]),
    ]
}

/// Returns a selector that would select everything if it were accepted.
pub(crate) fn not_in_nothing() -> Value {
    json!([{"matchExpressions": [{"key": "team", "operator": "NotIn", "values": []}]}])
}

/// Returns a case for each field with selectors.
fn selectors() -> Vec<RefusalCase> {
    let with = advertisement;
    let allocation =
        |field: &str| pool_for("bad", "172.30.0.200", json!({field: not_in_nothing()}));
    let preferred = json!([{"weight": 1, "preference": not_in_nothing()[0]}]);
    vec![
        (
            "namespaces not in nothing",
            allocation("namespaceSelectors"),
            &["serviceAllocation.namespaceSelectors[0]"],
        ),
        (
            "Services not in nothing",
            allocation("serviceSelectors"),
            &["spec.serviceAllocation.serviceSelectors[0]"],
        ),
        (
            "pools not in nothing",
            with("ipAddressPoolSelectors", not_in_nothing()),
            &["spec.ipAddressPoolSelectors[0]"],
        ),
        (
            "announced not in nothing",
            with("serviceSelectors", not_in_nothing()),
            &["spec.serviceSelectors[0]"],
        ),
        (
            "preferred not in nothing",
            with("preferredNodeSelectors", preferred),
            &["spec.preferredNodeSelectors[0]"],
        ),
    ]
}

/// Returns a label key whose prefix is too long.
fn long_key() -> String {
    format!("{}/rack", "a".repeat(254))
}

/// Returns a case for each rule of `matchExpressions`.
fn expressions() -> Vec<RefusalCase> {
    let expression = |key: &str, operator: &str, values: Value| {
        let expression = json!({"key": key, "operator": operator, "values": values});
        advertisement("nodeSelectors", json!([{"matchExpressions": [expression]}]))
    };
    let here: &[&str] = &["spec.nodeSelectors[0].matchExpressions[0]"];
    let key: &[&str] = &["spec.nodeSelectors[0].matchExpressions[0].key"];
    vec![
        ("not in nothing", expression("rack", "NotIn", json!([])), here),
        ("in nothing", expression("rack", "In", json!([])), here),
        ("a value that has to exist", expression("rack", "Exists", json!(["a"])), here),
        ("a value that must not exist", expression("rack", "DoesNotExist", json!(["a"])), here),
        (
            "an unknown operator",
            expression("rack", "Near", json!(["a"])),
            &["matchExpressions[0].operator", "\"NotIn\""],
        ),
        ("a key with a space", expression("my rack", "Exists", json!([])), key),
        (
            "a key whose prefix has capitals",
            expression("Example.com/rack", "Exists", json!([])),
            key,
        ),
        ("a key whose prefix is too long", expression(&long_key(), "Exists", json!([])), key),
        (
            "a value with a space",
            expression("rack", "In", json!(["a", "b c"])),
            &["matchExpressions[0].values[1]"],
        ),
    ]
}

/// Returns a case for each rule of `matchLabels`.
fn labels() -> Vec<RefusalCase> {
    let labels = |labels: Value| advertisement("nodeSelectors", json!([{"matchLabels": labels}]));
    vec![
        (
            "a label with a bad key",
            labels(json!({"my rack": "a"})),
            &["spec.nodeSelectors[0].matchLabels"],
        ),
        (
            "a label with a long prefix",
            labels(json!({long_key(): "a"})),
            &["spec.nodeSelectors[0].matchLabels"],
        ),
        (
            "a label with a bad value",
            labels(json!({"rack": "a b"})),
            &["spec.nodeSelectors[0].matchLabels.rack"],
        ),
    ]
}

fn communities() -> Vec<RefusalCase> {
    let with = |communities: Value| {
        object(CustomResourceKind::Community, "bad", json!({"communities": communities}))
    };
    let alias = |name: Value, value: Value| with(json!([{"name": name, "value": value}]));
    vec![
        (
            "one name for a list",
            with(json!({"name": "near", "value": "64512:1"})),
            &["spec.communities"],
        ),
        (
            "too many names",
            with(many(257, json!({"name": "near", "value": "64512:1"}))),
            &["spec.communities", "256"],
        ),
        (
            "a name without end",
            alias(json!("a".repeat(254)), json!("64512:1")),
            &["spec.communities[0].name", "253"],
        ),
        (
            "a value without end",
            alias(json!("near"), json!("1".repeat(65))),
            &["spec.communities[0].value", "64"],
        ),
        (
            "a number for a value",
            alias(json!("near"), json!(64512)),
            &["spec.communities[0].value"],
        ),
        (
            "an unknown field of a name",
            with(json!([{"name": "near", "values": "64512:1"}])),
            &["values"],
        ),
    ]
}
