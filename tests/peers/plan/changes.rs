//! Random changes of the objects of the scenario, the same in every run.

use super::{Change, ROUTER};
use crate::objects::{host, object};
use anyhow::Result;
use fastrand::Rng;
use ferrolb_lab::Lab;
use ferrolb_lab::topology::routers::{NODE_AS, ROUTER_AS};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Ranges of the pools.
const RANGES: [&[&str]; 6] = [
    &["172.30.0.200-172.30.0.209"],
    &["172.30.0.204-172.30.0.209"],
    &["172.30.0.200-172.30.0.201"],
    &["172.30.0.210-172.30.0.215"],
    &["203.0.113.0/28"],
    &["172.30.0.220-172.30.0.221", "203.0.113.16/30"],
];
/// Names of the pools and of the Services.
const POOLS: [&str; 3] = ["one", "two", "three"];
const SERVICES: [&str; 7] = ["a", "b", "c", "d", "e", "f", "g"];
const NODES: [&str; 3] = ["node1", "node2", "node3"];
const EXCLUDE: &str = "node.kubernetes.io/exclude-from-external-load-balancers";

fn one_of<T: Copy>(random: &mut Rng, values: &[T]) -> T {
    values[random.usize(..values.len())]
}

fn one_in(random: &mut Rng, times: usize) -> bool {
    random.usize(..times) == 0
}

/// The objects of the scenario that exist, by kind and name.
pub(super) struct Objects {
    existing: BTreeMap<(String, String), Value>,
    peer: Value,
}

impl Objects {
    /// Returns the first objects.
    pub(super) fn new(lab: &Lab) -> Result<Self> {
        let address = host(lab, ROUTER)?.v4();
        let peer = json!({"myASN": NODE_AS, "peerASN": ROUTER_AS, "peerAddress": address,
            "holdTime": "9s", "connectTime": "1s"});
        let mut objects = Self { existing: BTreeMap::new(), peer };
        let first = [
            object("v1beta1", "IPAddressPool", "one", &json!({"addresses": RANGES[0]})),
            object("v1beta1", "IPAddressPool", "two", &json!({"addresses": RANGES[4]})),
            object("v1beta1", "L2Advertisement", "all", &json!({})),
            object("v1beta1", "BGPAdvertisement", "all", &json!({})),
            object("v1beta2", "BGPPeer", ROUTER, &objects.peer),
            service("a", &json!({}), &json!({"selector": {"app": "web"}})),
            service("b", &json!({}), &json!({"selector": {"app": "shop"}})),
        ];
        first.into_iter().for_each(|object| objects.store(object));
        Ok(objects)
    }

    /// Returns all existing objects.
    pub(super) fn all(&self) -> Vec<Value> {
        self.existing.values().cloned().collect()
    }

    fn store(&mut self, object: Value) {
        self.existing.insert(key(&object), object);
    }

    /// Returns the next change, with one or two objects.
    pub(super) fn change(&mut self, random: &mut Rng) -> Change {
        let mut change = Change::default();
        for _ in 0..if one_in(random, 4) { 2 } else { 1 } {
            let object = self.object(random);
            let is_known = |it: &Value| key(it) == key(&object);
            if change.applied.iter().chain(&change.deleted).any(is_known) {
                continue;
            }
            let is_node = object["kind"] == "Node";
            let is_deletion = self.existing.contains_key(&key(&object)) && one_in(random, 3);
            if is_deletion && !is_node {
                self.existing.remove(&key(&object));
                change.deleted.push(object);
            } else {
                if !is_node {
                    self.store(object.clone());
                }
                change.applied.push(object);
            }
        }
        change
    }

    /// Returns a random object.
    fn object(&self, random: &mut Rng) -> Value {
        match random.usize(..12) {
            0..3 => random_pool(random),
            3..8 => random_service(random),
            8 => {
                let spec = random_selection(random);
                object("v1beta1", "L2Advertisement", one_of(random, &["all", "some"]), &spec)
            }
            9 => {
                let mut spec = random_selection(random);
                if one_in(random, 3) {
                    spec["aggregationLength"] = json!(30);
                }
                object("v1beta1", "BGPAdvertisement", one_of(random, &["all", "some"]), &spec)
            }
            10 if one_in(random, 3) => {
                let mut spec = self.peer.clone();
                if one_in(random, 2) {
                    spec["nodeSelectors"] = selectors(random);
                }
                object("v1beta2", "BGPPeer", ROUTER, &spec)
            }
            _ => random_node(random),
        }
    }
}

fn key(object: &Value) -> (String, String) {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    (text(&object["kind"]), text(&object["metadata"]["name"]))
}

fn random_pool(random: &mut Rng) -> Value {
    let mut spec = json!({"addresses": one_of(random, &RANGES)});
    if one_in(random, 4) {
        spec["autoAssign"] = json!(false);
    }
    if one_in(random, 5) {
        spec["serviceAllocation"] =
            json!({"serviceSelectors": [{"matchLabels": {"tier": "front"}}]});
    }
    object("v1beta1", "IPAddressPool", one_of(random, &POOLS), &spec)
}

fn random_service(random: &mut Rng) -> Value {
    let mut annotations = json!({});
    match random.usize(..8) {
        0 => annotations["ferrolb.io/address-pool"] = json!(one_of(random, &POOLS)),
        1 => annotations["ferrolb.io/loadBalancerIPs"] = json!("172.30.0.205"),
        2 => annotations["ferrolb.io/loadBalancerIPs"] = json!("203.0.113.17"),
        3 | 4 => annotations["ferrolb.io/allow-shared-ip"] = json!("shared"),
        _ => {}
    }
    let mut spec = json!({"selector": {"app": one_of(random, &["web", "web", "shop", "none"])}});
    if one_in(random, 3) {
        spec["externalTrafficPolicy"] = json!("Local");
    }
    if one_in(random, 8) {
        spec["type"] = json!("ClusterIP");
        spec["externalTrafficPolicy"] = Value::Null;
    }
    let name = one_of(random, &SERVICES);
    let mut object = service(name, &annotations, &spec);
    if one_in(random, 4) {
        object["metadata"]["labels"] = json!({"tier": "front"});
    }
    object
}

/// Returns a Service whose port depends on its name, so that Services can share an address.
fn service(name: &str, annotations: &Value, fields: &Value) -> Value {
    let port = 80 + i64::from(name.as_bytes().first().copied().unwrap_or_default());
    let mut spec = json!({"type": "LoadBalancer", "ports": [{"port": port, "targetPort": 8080}]});
    for (key, value) in fields.as_object().into_iter().flatten() {
        spec[key] = value.clone();
    }
    json!({
        "apiVersion": "v1", "kind": "Service", "spec": spec,
        "metadata": {"name": name, "namespace": "default", "annotations": annotations},
    })
}

/// Returns a spec that selects pools or nodes, or all of them.
fn random_selection(random: &mut Rng) -> Value {
    match random.usize(..4) {
        0 => json!({"ipAddressPools": [one_of(random, &POOLS)]}),
        1 => json!({"nodeSelectors": selectors(random)}),
        _ => json!({}),
    }
}

fn selectors(random: &mut Rng) -> Value {
    json!([{"matchLabels": {"rack": one_of(random, &["a", "b"])}}])
}

/// Returns a Node with a label that is set or removed.
fn random_node(random: &mut Rng) -> Value {
    let labels = match random.usize(..4) {
        0 => json!({EXCLUDE: if one_in(random, 2) { json!("") } else { Value::Null }}),
        _ => json!({"rack": one_of(random, &["a", "b"])}),
    };
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": one_of(random, &NODES), "labels": labels},
    })
}
