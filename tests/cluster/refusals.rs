//! Refusals of the API server for single fields: invalid types, too many elements, and unknown
//! values.

use crate::pools::{object, pool, pool_for};
use ferrolb_proto::api::CustomResourceKind;
use serde_json::{Value, json};

/// The fault, the object, and parts of the API server's error.
pub(crate) type RefusalCase = (&'static str, Value, &'static [&'static str]);

/// Returns the cases of all fields, but not those of the syntax of `spec.addresses`, which are in
/// `bad_input.rs`.
pub(crate) fn cases() -> Vec<RefusalCase> {
    [pools(), allocations(), advertisements(), selectors(), expressions(), labels(), communities()]
        .concat()
}

fn repeated(count: usize, element: Value) -> Value {
    json!(vec![element; count])
}

fn pools() -> Vec<RefusalCase> {
    let with = |field: &str, value: Value| {
        let mut object = pool("bad", &["172.30.0.200"]);
        object["spec"][field] = value;
        object
    };
    let long = "0".repeat(101);
    let unassignable = |what, address: &str| {
        (what, pool("bad", &[address]), &["loopback, link-local, multicast"][..])
    };
    vec![
        unassignable("a loopback prefix", "127.0.0.0/8"),
        unassignable("a link-local range", "169.254.1.1-169.254.1.9"),
        unassignable("a link-local prefix", "fe80::/64"),
        unassignable("a multicast address", " 224.0.0.5 "),
        unassignable("the unspecified address", "::"),
        unassignable("the broadcast address", "255.255.255.255"),
        (
            "too many addresses",
            with("addresses", repeated(257, json!("172.30.0.200"))),
            &["spec.addresses", "256"],
        ),
        (
            "an address of 101 characters",
            with("addresses", json!([long])),
            &["spec.addresses[0]", "100"],
        ),
        (
            "too many exclusions",
            with("excludeAddresses", repeated(257, json!("172.30.0.200"))),
            &["spec.excludeAddresses", "256"],
        ),
        (
            "an exclusion of 101 characters",
            with("excludeAddresses", json!([long])),
            &["spec.excludeAddresses[0]", "100"],
        ),
        ("avoidBuggyIPs is a number", with("avoidBuggyIPs", json!(1)), &["spec.avoidBuggyIPs"]),
        (
            "ipMode in lower case",
            with("ipMode", json!("vip")),
            &["spec.ipMode", "\"VIP\", \"Proxy\""],
        ),
        (
            "an ipMode that only the annotation allows",
            with("ipMode", json!("Proxy,announce")),
            &["spec.ipMode", "\"VIP\", \"Proxy\""],
        ),
        ("ipMode is a list", with("ipMode", json!(["VIP"])), &["spec.ipMode"]),
    ]
}

fn allocations() -> Vec<RefusalCase> {
    let with = |field: &str, value: Value| pool_for("bad", "172.30.0.200", json!({field: value}));
    let no_key = json!([{"matchExpressions": [{"operator": "Exists"}]}]);
    let no_operator = json!([{"matchExpressions": [{"key": "tier"}]}]);
    vec![
        (
            "serviceAllocation is a string",
            pool_for("bad", "172.30.0.200", json!("team")),
            &["spec.serviceAllocation"],
        ),
        (
            "an unknown field of an allocation",
            with("namespace", json!("red")),
            &["serviceAllocation.namespace"],
        ),
        (
            "priority is a string",
            with("priority", json!("high")),
            &["spec.serviceAllocation.priority"],
        ),
        (
            "namespaces is a string",
            with("namespaces", json!("red")),
            &["spec.serviceAllocation.namespaces"],
        ),
        (
            "too many namespaces",
            with("namespaces", repeated(1025, json!("red"))),
            &["spec.serviceAllocation.namespaces", "1024"],
        ),
        (
            "namespaceSelectors is an object",
            with("namespaceSelectors", json!({"matchLabels": {}})),
            &["spec.serviceAllocation.namespaceSelectors"],
        ),
        (
            "too many namespaceSelectors",
            with("namespaceSelectors", repeated(65, json!({}))),
            &["spec.serviceAllocation.namespaceSelectors", "64"],
        ),
        (
            "a selector without a key",
            with("namespaceSelectors", no_key),
            &["spec.serviceAllocation.namespaceSelectors[0]", "key"],
        ),
        (
            "too many serviceSelectors",
            with("serviceSelectors", repeated(65, json!({}))),
            &["spec.serviceAllocation.serviceSelectors", "64"],
        ),
        (
            "a selector without an operator",
            with("serviceSelectors", no_operator),
            &["spec.serviceAllocation.serviceSelectors[0]", "operator"],
        ),
    ]
}

/// Returns an L2Advertisement whose spec has only this field.
fn advertisement(field: &str, value: Value) -> Value {
    object(CustomResourceKind::L2Advertisement, "bad", json!({field: value}))
}

fn advertisements() -> Vec<RefusalCase> {
    let with = advertisement;
    vec![
        (
            "ipAddressPools is a string",
            with("ipAddressPools", json!("lan")),
            &["spec.ipAddressPools"],
        ),
        (
            "too many pools",
            with("ipAddressPools", repeated(257, json!("lan"))),
            &["spec.ipAddressPools", "256"],
        ),
        (
            "too many ipAddressPoolSelectors",
            with("ipAddressPoolSelectors", repeated(65, json!({}))),
            &["spec.ipAddressPoolSelectors", "64"],
        ),
        (
            "too many nodeSelectors",
            with("nodeSelectors", repeated(65, json!({}))),
            &["spec.nodeSelectors", "64"],
        ),
        (
            "too many serviceSelectors",
            with("serviceSelectors", repeated(65, json!({}))),
            &["spec.serviceSelectors", "64"],
        ),
        (
            "a serviceSelector is a string",
            with("serviceSelectors", json!(["web"])),
            &["spec.serviceSelectors[0]"],
        ),
        (
            "too many preferredNodeSelectors",
            with("preferredNodeSelectors", repeated(65, json!({"weight": 1, "preference": {}}))),
            &["spec.preferredNodeSelectors", "64"],
        ),
        (
            "a preferredNodeSelector without weight",
            with("preferredNodeSelectors", json!([{"preference": {}}])),
            &["spec.preferredNodeSelectors[0].weight"],
        ),
        (
            "a preferredNodeSelector without preference",
            with("preferredNodeSelectors", json!([{"weight": 1}])),
            &["spec.preferredNodeSelectors[0].preference"],
        ),
        (
            "a weight of 0",
            with("preferredNodeSelectors", json!([{"weight": 0, "preference": {}}])),
            &["spec.preferredNodeSelectors[0].weight", "1"],
        ),
        (
            "a weight of 101",
            with("preferredNodeSelectors", json!([{"weight": 101, "preference": {}}])),
            &["spec.preferredNodeSelectors[0].weight", "100"],
        ),
        (
            "too many interfaces",
            with("interfaces", repeated(65, json!("eth0"))),
            &["spec.interfaces", "64"],
        ),
        ("an interface is a number", with("interfaces", json!([0])), &["spec.interfaces[0]"]),
    ]
}

/// Returns a selector with the operator NotIn and no values, which would select everything.
pub(crate) fn not_in_without_values() -> Value {
    json!([{"matchExpressions": [{"key": "team", "operator": "NotIn", "values": []}]}])
}

/// Returns a case for each field with selectors.
fn selectors() -> Vec<RefusalCase> {
    let with = advertisement;
    let allocation =
        |field: &str| pool_for("bad", "172.30.0.200", json!({field: not_in_without_values()}));
    let preferred = json!([{"weight": 1, "preference": not_in_without_values()[0]}]);
    vec![
        (
            "namespaceSelectors: NotIn without values",
            allocation("namespaceSelectors"),
            &["serviceAllocation.namespaceSelectors[0]"],
        ),
        (
            "serviceSelectors of a pool: NotIn without values",
            allocation("serviceSelectors"),
            &["spec.serviceAllocation.serviceSelectors[0]"],
        ),
        (
            "ipAddressPoolSelectors of an L2Advertisement: NotIn without values",
            with("ipAddressPoolSelectors", not_in_without_values()),
            &["spec.ipAddressPoolSelectors[0]"],
        ),
        (
            "serviceSelectors of an L2Advertisement: NotIn without values",
            with("serviceSelectors", not_in_without_values()),
            &["spec.serviceSelectors[0]"],
        ),
        (
            "preferredNodeSelectors: NotIn without values",
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
    let expression_field: &[&str] = &["spec.nodeSelectors[0].matchExpressions[0]"];
    let key_field: &[&str] = &["spec.nodeSelectors[0].matchExpressions[0].key"];
    vec![
        ("NotIn without values", expression("rack", "NotIn", json!([])), expression_field),
        ("In without values", expression("rack", "In", json!([])), expression_field),
        ("Exists with a value", expression("rack", "Exists", json!(["a"])), expression_field),
        (
            "DoesNotExist with a value",
            expression("rack", "DoesNotExist", json!(["a"])),
            expression_field,
        ),
        (
            "an unknown operator",
            expression("rack", "Near", json!(["a"])),
            &["matchExpressions[0].operator", "\"NotIn\""],
        ),
        ("a key with a space", expression("my rack", "Exists", json!([])), key_field),
        (
            "a key whose prefix has upper case",
            expression("Example.com/rack", "Exists", json!([])),
            key_field,
        ),
        ("a key whose prefix is too long", expression(&long_key(), "Exists", json!([])), key_field),
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
            "a label with an invalid key",
            labels(json!({"my rack": "a"})),
            &["spec.nodeSelectors[0].matchLabels"],
        ),
        (
            "a label with a long prefix",
            labels(json!({long_key(): "a"})),
            &["spec.nodeSelectors[0].matchLabels"],
        ),
        (
            "a label with an invalid value",
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
            "communities is an object",
            with(json!({"name": "near", "value": "64512:1"})),
            &["spec.communities"],
        ),
        (
            "too many communities",
            with(repeated(257, json!({"name": "near", "value": "64512:1"}))),
            &["spec.communities", "256"],
        ),
        (
            "a name of 254 characters",
            alias(json!("a".repeat(254)), json!("64512:1")),
            &["spec.communities[0].name", "253"],
        ),
        (
            "a value of 65 characters",
            alias(json!("near"), json!("1".repeat(65))),
            &["spec.communities[0].value", "64"],
        ),
        ("a value is a number", alias(json!("near"), json!(64512)), &["spec.communities[0].value"]),
        (
            "an unknown field of a community",
            with(json!([{"name": "near", "values": "64512:1"}])),
            &["values"],
        ),
    ]
}
