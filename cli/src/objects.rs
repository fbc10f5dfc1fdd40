//! The objects of a cluster as JSON, from the API server or from files, and functions that read
//! their fields. Pure. A field of the wrong type counts as absent.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ferrolb_proto::api::{self, CustomResourceKind};
use ferrolb_proto::facts::Key;
use serde_json::{Value, json};

/// API group of the kinds in `core/v1`.
pub const CORE: &str = "";
/// API group of Deployments and DaemonSets.
pub const APPS: &str = "apps";

/// The objects of a cluster.
#[derive(Clone, Debug, Default)]
pub struct Objects(Vec<Value>);

impl Objects {
    /// Collects objects, and the items of lists.
    #[must_use]
    pub fn new(values: impl IntoIterator<Item = Value>) -> Self {
        let mut objects = Self::default();
        values.into_iter().for_each(|value| objects.add(value));
        objects
    }

    /// Adds an object, or the items of a list.
    fn add(&mut self, mut value: Value) {
        let is_list = text(&value, "/kind").ends_with("List");
        match value.get_mut("items").map(Value::take) {
            Some(Value::Array(items)) if is_list => {
                let kind = text(&value, "/kind").trim_end_matches("List");
                for mut item in items {
                    // The items of a typed list do not repeat their type.
                    if !kind.is_empty() && item["kind"].is_null() && item.is_object() {
                        (item["kind"], item["apiVersion"]) =
                            (kind.into(), value["apiVersion"].clone());
                    }
                    self.add(item);
                }
            }
            _ if value.pointer("/metadata").is_some_and(Value::is_object) => self.0.push(value),
            _ => {}
        }
    }

    /// Returns all objects.
    pub fn iter(&self) -> impl Iterator<Item = &Value> {
        self.0.iter()
    }

    /// Returns the objects of a kind.
    pub fn of<'a>(&'a self, group: &'a str, kind: &'a str) -> impl Iterator<Item = &'a Value> {
        self.iter().filter(move |object| has_type(object, group, kind))
    }

    /// Returns these objects, and others.
    #[must_use]
    pub fn with(mut self, others: impl IntoIterator<Item = Value>) -> Self {
        others.into_iter().for_each(|other| self.add(other));
        self
    }

    /// Returns the objects for which `is_removed` is false.
    #[must_use]
    pub fn without(mut self, is_removed: impl Fn(&Value) -> bool) -> Self {
        self.0.retain(|object| !is_removed(object));
        self
    }

    /// Returns these objects with changed Services.
    #[must_use]
    pub fn map_services(&self, mut change: impl FnMut(&mut Value)) -> Self {
        let mut objects = self.clone();
        let services = objects.0.iter_mut().filter(|it| has_type(it, CORE, "Service"));
        services.for_each(&mut change);
        objects
    }

    /// Returns the Services of type LoadBalancer.
    pub fn load_balancers(&self) -> impl Iterator<Item = &Value> {
        self.of(CORE, "Service").filter(|it| text(it, "/spec/type") == "LoadBalancer")
    }

    /// Returns the addresses of all Nodes, with the name of each Node.
    #[must_use]
    pub fn node_addresses(&self) -> Vec<(IpAddr, &str)> {
        let addresses = |node| {
            let all = list(node, "/status/addresses").iter();
            all.filter_map(|it| text(it, "/address").parse().ok()).map(move |ip| (ip, name(node)))
        };
        self.of(CORE, "Node").flat_map(addresses).collect()
    }
}

/// Returns the API group of an object.
#[must_use]
pub fn group(object: &Value) -> &str {
    text(object, "/apiVersion").split_once('/').map_or(CORE, |(group, _)| group)
}

/// Returns whether an object has this group and kind.
#[must_use]
pub fn has_type(object: &Value, of_group: &str, kind: &str) -> bool {
    text(object, "/kind") == kind && group(object) == of_group
}

/// Returns the text at a JSON pointer, or an empty text.
#[must_use]
pub fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// Returns the list at a JSON pointer, or an empty list.
#[must_use]
pub fn list<'a>(object: &'a Value, pointer: &str) -> &'a [Value] {
    object.pointer(pointer).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

/// Returns the texts of the list at a JSON pointer.
pub fn texts<'a>(object: &'a Value, pointer: &str) -> impl Iterator<Item = &'a str> {
    list(object, pointer).iter().filter_map(Value::as_str)
}

/// Returns `metadata.name`.
#[must_use]
pub fn name(object: &Value) -> &str {
    text(object, "/metadata/name")
}

/// Returns `metadata.namespace`; as kubectl, `default` if it is absent.
#[must_use]
pub fn namespace(object: &Value) -> &str {
    match text(object, "/metadata/namespace") {
        "" => "default",
        namespace => namespace,
    }
}

/// Returns the namespace and the name.
#[must_use]
pub fn key(object: &Value) -> Key {
    Key::new(namespace(object), name(object))
}

/// Returns the value of an annotation, or an empty text.
#[must_use]
pub fn annotation<'a>(object: &'a Value, name: &str) -> &'a str {
    let annotations = object.pointer("/metadata/annotations");
    annotations.and_then(|all| all.get(name)?.as_str()).unwrap_or_default()
}

/// Returns the addresses in the status of a Service.
#[must_use]
pub fn addresses(service: &Value) -> Vec<IpAddr> {
    let ingress = list(service, "/status/loadBalancer/ingress").iter();
    ingress.filter_map(|it| text(it, "/ip").parse().ok()).collect()
}

/// Returns the IP families of a Service, from its cluster IPs.
#[must_use]
pub fn families(service: &Value) -> BTreeSet<bool> {
    let all = texts(service, "/spec/clusterIPs").chain([text(service, "/spec/clusterIP")]);
    all.filter_map(|text| text.parse::<IpAddr>().ok()).map(|ip| ip.is_ipv4()).collect()
}

/// Returns an object for messages: `Service default/web`, or `Node node1`.
#[must_use]
pub fn label(object: &Value) -> String {
    let kind = text(object, "/kind");
    if kind == "Service" {
        format!("{kind} {}", key(object))
    } else {
        format!("{kind} {}", name(object))
    }
}

/// Returns a custom resource of FerroLB.
#[must_use]
pub fn object(kind: CustomResourceKind, name: &str, namespace: &str, spec: Value) -> Value {
    json!({
        "apiVersion": format!("{}/{}", api::GROUP, kind.version()), "kind": kind.name(),
        "metadata": {"name": name, "namespace": namespace}, "spec": spec,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_flattened_and_their_items_get_a_type() {
        let objects = Objects::new([
            json!({"apiVersion": "v1", "kind": "List", "items": [
                {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "a"}},
                {"apiVersion": "v1", "kind": "ServiceList", "items": [{"metadata": {"name": "b"}}]},
            ]}),
            json!({"apiVersion": "metallb.io/v1beta1", "kind": "Service", "metadata": {"name": "c"}}),
            json!("no object"),
            json!({"kind": "Node", "metadata": "no object"}),
        ]);
        assert_eq!(objects.of(CORE, "Node").map(name).collect::<Vec<_>>(), ["a"]);
        assert_eq!(objects.of(CORE, "Service").map(name).collect::<Vec<_>>(), ["b"]);
        assert_eq!(objects.of("metallb.io", "Service").map(name).collect::<Vec<_>>(), ["c"]);
        assert_eq!(objects.0.len(), 3);
    }
}
