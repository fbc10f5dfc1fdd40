//! Text format of the rows of the rule table: changes of a cluster, and the expected results.
//!
//! ```text
//! row: TITLE                                `first come` on the next line: Services come last
//! pool NAME RANGE,RANGE WORD...             exclude=RANGE,… manual buggy mode=Proxy made=N prio=N
//!                                           sticky=TIME (0s if missing, as in MetalLB)
//!                                           ns=A,B nssel=K:V svcsel=K:V,K:V
//! ns NAME K=V...                            labels of a Namespace
//! node NAME ADDRESS,ADDRESS
//! speaker NAME WORD...                      hosts=A,B (interfaces) gateways=A,B subnets=RANGE
//! apiserver ADDRESS,ADDRESS
//! svc [NAMESPACE/]NAME WORD...              v4 v6 (in order) prefer require type=T class=C
//!                                           ports=TCP/80,… local sel=A key=K
//!                                           ips=A,B lbip=A pool=P mode=M at:K=V (any annotation)
//!                                           external=A label=K:V
//!                                           has=A,B from=P (status; a later svc line keeps it)
//!                                           by=M (field manager that wrote the addresses, or own)
//!                                           headless leaving
//! gone svc|pool|ns|node|speaker NAME
//! => [NAMESPACE/]NAME ADDRESS,…|- REASON WORD...
//!                                           pool=P mode=M says TEXT to the end of the line
//! => NAME cleared | untouched
//! => pool NAME REASON USED/AVAILABLE USED/AVAILABLE says TEXT
//! then                                      the next step: changes of the present cluster
//! ```

use ferrolb_proto::facts::{EndpointSliceObject, ServiceObject};
use serde_json::{Map, Value, json};

use super::*;

/// Row of the rule table.
pub(super) struct Row {
    pub(super) name: String,
    /// True if the Services of the first step must follow its other objects, because a pool that
    /// appears later would change the result.
    pub(super) first_come: bool,
    pub(super) steps: Vec<Step>,
}

/// Changes of the cluster, and the expectations after them.
#[derive(Default)]
pub(super) struct Step {
    pub(super) changes: Vec<Op>,
    pub(super) expected: Vec<String>,
}

/// Change of the cluster.
#[derive(Clone)]
pub(super) enum Op {
    Service(Service),
    Pool(Pool),
    Namespace(Namespace),
    Node(Node),
    Speaker(Speaker),
    Slice(EndpointSlice),
    Delete(String, String),
}

pub(super) fn rows(text: &str) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    for line in
        text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'))
    {
        if let Some(name) = line.strip_prefix("row:") {
            rows.push(Row {
                name: name.trim().to_owned(),
                first_come: false,
                steps: vec![Step::default()],
            });
            continue;
        }
        let row = rows.last_mut().expect("a row begins with its name");
        let step = row.steps.last_mut().expect("a row has a step");
        match (line, line.strip_prefix("=>")) {
            (_, Some(expected)) => step.expected.push(expected.trim().to_owned()),
            ("first come", _) => row.first_come = true,
            ("then", _) => row.steps.push(Step::default()),
            _ => step.changes.push(parse_change(line)),
        }
    }
    rows
}

pub(super) fn service_key(name: &str) -> Key {
    let (namespace, name) = name.split_once('/').unwrap_or(("default", name));
    Key::new(namespace, name)
}

fn parse_change(line: &str) -> Op {
    let words: Vec<&str> = line.split_whitespace().collect();
    match words.as_slice() {
        ["pool", name, ranges, words @ ..] => Op::Pool(pool(name, ranges, words)),
        ["svc", name, words @ ..] => Op::Service(service(name, words)),
        ["ns", name, labels @ ..] => {
            let label = |text: &&str| {
                text.split_once('=')
                    .map(|(k, v)| (k.to_owned(), v.to_owned()))
                    .expect("a label is K=V")
            };
            Op::Namespace(Namespace {
                name: (*name).into(),
                labels: labels.iter().map(label).collect(),
            })
        }
        ["node", name, addresses] => Op::Node(Node {
            name: (*name).into(),
            addresses: addresses.split(',').map(|text| text.parse().expect(text)).collect(),
            ..Node::default()
        }),
        ["speaker", name, words @ ..] => Op::Speaker(speaker(name, words)),
        ["apiserver", addresses] => Op::Slice(api_server(&comma_list(addresses))),
        ["gone", kind, name] => Op::Delete((*kind).to_owned(), (*name).to_owned()),
        _ => panic!("{line:?} is not a valid change"),
    }
}

fn split<'a>(word: &'a str, separator: &str) -> (&'a str, &'a str) {
    word.split_once(separator).unwrap_or((word, ""))
}

fn comma_list(text: &str) -> Vec<&str> {
    text.split(',').filter(|part| !part.is_empty()).collect()
}

/// Parses `K:V,K:V` as selectors, of which one must match.
fn selectors(text: &str) -> Vec<Value> {
    comma_list(text)
        .iter()
        .map(|pair| split(pair, ":"))
        .map(|(k, v)| json!({"matchLabels": {k: v}}))
        .collect()
}

fn pool(name: &str, ranges: &str, words: &[&str]) -> Pool {
    let mut spec = json!({"addresses": comma_list(ranges), "stickyFor": "0s"});
    let (mut allocation, mut created) = (Map::new(), 0);
    for (word, value) in words.iter().map(|word| split(word, "=")) {
        match word {
            "exclude" => spec["excludeAddresses"] = json!(comma_list(value)),
            "manual" => spec["autoAssign"] = json!(false),
            "buggy" => spec["avoidBuggyIPs"] = json!(true),
            "mode" => spec["ipMode"] = json!(value),
            "sticky" => spec["stickyFor"] = json!(value),
            "made" => created = value.parse().expect("the value is a number"),
            "prio" => drop(allocation.insert(
                "priority".into(),
                json!(value.parse::<i64>().expect("the value is a number")),
            )),
            "ns" => drop(allocation.insert("namespaces".into(), json!(comma_list(value)))),
            "nssel" => {
                drop(allocation.insert("namespaceSelectors".into(), json!(selectors(value))))
            }
            "svcsel" => drop(allocation.insert("serviceSelectors".into(), json!(selectors(value)))),
            "badsel" => drop(allocation.insert(
                "serviceSelectors".into(),
                json!([{"matchExpressions": [{"key": "a", "operator": value}]}]),
            )),
            _ => panic!("{word:?} is not a valid word of a pool"),
        }
    }
    if !allocation.is_empty() {
        spec["serviceAllocation"] = Value::Object(allocation);
    }
    let object = json!({"metadata": {"name": name, "generation": 1}, "spec": spec});
    let pool = serde_json::from_value::<api::IPAddressPoolObject>(object)
        .expect("the pool is valid JSON")
        .into();
    Pool { created, ..pool }
}

fn speaker(name: &str, words: &[&str]) -> Speaker {
    let (mut status, mut interface) = (json!({}), json!({"name": "eth0", "mac": "", "up": true}));
    for (word, value) in words.iter().map(|word| split(word, "=")) {
        match word {
            "hosts" => status["hostAddresses"] = json!(comma_list(value)),
            "gateways" => status["gateways"] = json!(comma_list(value)),
            "subnets" => interface["subnets"] = json!(comma_list(value)),
            _ => panic!("{word:?} is not a valid word of a speaker"),
        }
    }
    status["interfaces"] = json!([interface]);
    let object = json!({"metadata": {"name": name}, "status": status});
    let object = serde_json::from_value::<api::SpeakerStatusObject>(object);
    object.expect("the SpeakerStatus is valid JSON").into()
}

/// Returns the EndpointSlice of the API servers, as the API servers write it.
fn api_server(addresses: &[&str]) -> EndpointSlice {
    let endpoints: Vec<_> = addresses.iter().map(|it| json!({"addresses": [it]})).collect();
    let labels = json!({"kubernetes.io/service-name": "kubernetes"});
    let object = json!({
        "metadata": {"namespace": "default", "name": "kubernetes", "labels": labels},
        "addressType": "IPv4",
        "endpoints": endpoints,
    });
    let object = serde_json::from_value::<EndpointSliceObject>(object);
    object.expect("the EndpointSlice is valid JSON").into()
}

fn service(name: &str, words: &[&str]) -> Service {
    let key = service_key(name);
    let mut metadata = json!({"namespace": key.namespace(), "name": key.name(), "uid": format!("uid of {name}"),
        "annotations": {}, "labels": {}});
    let mut spec = json!({"type": "LoadBalancer", "selector": {"app": key.name()}});
    let (mut cluster_ips, mut ports, mut ingress) =
        (Vec::new(), vec![json!({"protocol": "TCP", "port": 80})], None);
    let mut annotate = |name: &str, value: &str| metadata["annotations"][name] = json!(value);
    let (mut labels, mut managers) = (Map::new(), Vec::new());
    for (word, value) in words.iter().map(|word| split(word, "=")) {
        match word {
            "v4" => cluster_ips.push("10.96.0.9"),
            "v6" => cluster_ips.push("fd96::9"),
            "headless" => cluster_ips.push("None"),
            "prefer" => spec["ipFamilyPolicy"] = json!("PreferDualStack"),
            "require" => spec["ipFamilyPolicy"] = json!("RequireDualStack"),
            "type" => spec["type"] = json!(value),
            "class" => spec["loadBalancerClass"] = json!(value),
            "local" => spec["externalTrafficPolicy"] = json!("Local"),
            "sel" => {
                spec["selector"] =
                    if value.is_empty() { Value::Null } else { json!({"app": value}) }
            }
            "lbip" => spec["loadBalancerIP"] = json!(value),
            "external" => spec["externalIPs"] = json!(comma_list(value)),
            "ports" => ports = comma_list(value).into_iter().map(port).collect(),
            "key" => annotate("metallb.io/allow-shared-ip", value),
            "ips" => annotate("metallb.io/loadBalancerIPs", value),
            "pool" => annotate("metallb.io/address-pool", value),
            "mode" => annotate("ferrolb.io/ip-mode", value),
            "from" => annotate("ferrolb.io/ip-allocated-from-pool", value),
            "label" => {
                drop(labels.insert(split(value, ":").0.to_owned(), json!(split(value, ":").1)))
            }
            "has" => {
                ingress = Some(
                    comma_list(value)
                        .iter()
                        .map(|ip| json!({"ip": ip, "ipMode": "VIP"}))
                        .collect::<Vec<_>>(),
                )
            }
            "by" => managers.push(value),
            "host" => ingress = Some(vec![json!({"hostname": value})]),
            "leaving" => {}
            _ => match word.strip_prefix("at:") {
                Some(annotation) => annotate(annotation, value),
                None => panic!("{word:?} is not a valid word of a Service"),
            },
        }
    }
    metadata["labels"] = Value::Object(labels);
    metadata["managedFields"] = managed_fields(&managers);
    if words.contains(&"leaving") {
        metadata["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    }
    spec["clusterIPs"] =
        if cluster_ips.is_empty() { json!(["10.96.0.9"]) } else { json!(cluster_ips) };
    spec["ports"] = json!(ports);
    let status = json!({"loadBalancer": {"ingress": ingress}});
    let object = serde_json::from_value::<ServiceObject>(
        json!({"metadata": metadata, "spec": spec, "status": status}),
    );
    let own = api::field_manager(api::NAMESPACE);
    Service::read_with_owners(object.expect("the Service is valid JSON"), api::GROUP, &own)
}

/// Parses `PROTOCOL/PORT`.
fn port(text: &str) -> Value {
    let (protocol, port) = split(text, "/");
    json!({"protocol": protocol, "port": port.parse::<u16>().expect("PROTOCOL/PORT")})
}

/// Returns `metadata.managedFields` in which these managers own the addresses.
fn managed_fields(managers: &[&str]) -> Value {
    let own = api::field_manager(api::NAMESPACE);
    let entry = |manager: &&str| {
        let manager = if *manager == "own" { &own } else { *manager };
        let fields = json!({"f:status": {"f:loadBalancer": {"f:ingress": {}}}});
        json!({"manager": manager, "operation": "Apply", "fieldsV1": fields})
    };
    managers.iter().map(entry).collect()
}
