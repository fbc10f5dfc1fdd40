//! Translation of MetalLB's custom resources to FerroLB's. Every field is in the manifest, or is a
//! problem. Pure.

use std::collections::BTreeSet;

use ferrolb_proto::api::{self, CustomResourceKind};
use serde_json::{Map, Value, json};

use super::Problem;
use crate::objects::{self, Objects, text};

/// MetalLB's API group.
pub const METALLB: &str = "metallb.io";
/// The kinds that both APIs have, in the order in which the manifests are written.
pub const KINDS: [CustomResourceKind; 6] = CustomResourceKind::WITH_CONTROLLER_STATUS;
/// Parts of label keys that belong to the tool that manages MetalLB's objects.
const TOOL_LABELS: [&str; 4] = ["app.kubernetes.io/", "helm.sh/", "argocd", "fluxcd"];
/// Fields with a duration. MetalLB accepts an empty text, which means the default.
const DURATIONS: [&str; 3] = ["holdTime", "keepaliveTime", "connectTime"];

/// FerroLB's objects, and the differences from MetalLB's.
#[derive(Debug, Default)]
pub struct Translation {
    /// The manifests.
    pub manifests: Vec<Value>,
    /// Secrets with the passwords of BGPPeers, each with its namespace and its name.
    pub secrets: BTreeSet<(String, String)>,
    /// Fields without an equivalent.
    pub problems: Vec<Problem>,
}

/// Translates MetalLB's objects in the namespace `from` to objects in the namespace `to`.
#[must_use]
pub fn translate(objects: &Objects, from: &str, to: &str) -> Translation {
    let mut translation = Translation::default();
    let schemas = spec_schemas();
    for kind in KINDS {
        let mut names = BTreeSet::new();
        for object in objects.of(METALLB, kind.name()) {
            if objects::namespace(object) != from {
                continue;
            }
            if names.insert(objects::name(object)) {
                translation.add(kind, object, to, &schemas);
            } else {
                let text = "occurs twice: only the first one is in the manifest";
                translation.problems.push(Problem::of(objects::label(object), text));
            }
        }
    }
    translation.check_selectors();
    translation
}

/// Returns the schema of `spec` of each kind.
fn spec_schemas() -> Map<String, Value> {
    let schema = |crd| {
        let crd = serde_json::to_value(crd).ok()?;
        let spec = "/spec/versions/0/schema/openAPIV3Schema/properties/spec";
        Some((text(&crd, "/spec/names/kind").to_owned(), crd.pointer(spec)?.clone()))
    };
    api::crds().into_iter().filter_map(schema).collect()
}

impl Translation {
    fn add(
        &mut self,
        kind: CustomResourceKind,
        object: &Value,
        namespace: &str,
        schemas: &Map<String, Value>,
    ) {
        let label = objects::label(object);
        let mut spec = object.get("spec").cloned().unwrap_or(Value::Null);
        if kind == CustomResourceKind::BGPPeer {
            self.translate_peer(object, &mut spec);
        }
        self.note_limits(kind, &label, &spec);
        let mut unknown = Vec::new();
        if let Some(schema) = schemas.get(kind.name()) {
            remove_unknown(schema, &mut spec, "spec", &mut unknown);
        }
        let problem = |path: String| {
            Problem::of(&*label, format!("{path}: FerroLB has no such field, so the copy lacks it"))
        };
        self.problems.extend(unknown.into_iter().map(problem));
        let mut manifest = json!({
            "apiVersion": format!("{}/{}", api::GROUP, kind.version()),
            "kind": kind.name(),
            "metadata": {"name": objects::name(object), "namespace": namespace},
        });
        let labels = own_labels(object);
        if !labels.is_empty() {
            manifest["metadata"]["labels"] = labels.into();
        }
        if !spec.is_null() {
            manifest["spec"] = spec;
        }
        self.manifests.push(manifest);
    }

    /// Changes the fields of a BGPPeer that have another form in `v1beta1`, or another meaning.
    fn translate_peer(&mut self, object: &Value, spec: &mut Value) {
        let Value::Object(fields) = spec else { return };
        fields.retain(|name, value| !(DURATIONS.contains(&name.as_str()) && value == ""));
        if fields.get("peerPort").is_some_and(|port| port == 0) {
            fields.remove("peerPort");
        }
        for selector in
            fields.get_mut("nodeSelectors").and_then(Value::as_array_mut).into_iter().flatten()
        {
            let expressions = selector.get_mut("matchExpressions").and_then(Value::as_array_mut);
            for expression in expressions.into_iter().flatten().filter_map(Value::as_object_mut) {
                // `v1beta1` requires values, also for operators that have none.
                let operator = expression.get("operator").and_then(Value::as_str);
                if matches!(operator, Some("Exists" | "DoesNotExist")) {
                    expression.remove("values");
                }
            }
        }
        if let Some(Value::Object(secret)) = fields.get_mut("passwordSecret") {
            // FerroLB reads Secrets of its own namespace, which is the default.
            let namespace = secret.remove("namespace");
            let namespace = namespace.as_ref().and_then(Value::as_str).unwrap_or_default();
            let of_peer = objects::namespace(object);
            let namespace = if namespace.is_empty() { of_peer } else { namespace };
            if let Some(name) =
                secret.get("name").and_then(Value::as_str).filter(|it| !it.is_empty())
            {
                self.secrets.insert((namespace.to_owned(), name.to_owned()));
            }
        }
    }

    /// Adds the limits of fields that FerroLB accepts.
    fn note_limits(&mut self, kind: CustomResourceKind, label: &str, spec: &Value) {
        let is_set = |field: &str| match spec.get(field) {
            None | Some(Value::Null | Value::Bool(false)) => false,
            Some(value) => value != "",
        };
        let mut add = |problem| self.problems.push(problem);
        if kind == CustomResourceKind::BGPPeer && is_set("password") {
            add(Problem::note(label, "spec.password: the file contains the password"));
        }
        if kind == CustomResourceKind::BGPPeer && is_set("disableMP") {
            add(Problem::note(label, "spec.disableMP: ignored, as in MetalLB"));
        }
        // Only BFD profiles have this field.
        if is_set("echoInterval") {
            let text = "spec.echoInterval: ignored, because FerroLB has no echo mode";
            add(Problem::note(label, text));
        }
    }

    /// Reports advertisements that select pools by labels that the copies lack.
    fn check_selectors(&mut self) {
        let mut found = Vec::new();
        for manifest in &self.manifests {
            for selector in objects::list(manifest, "/spec/ipAddressPoolSelectors") {
                let labels = selector.get("matchLabels").and_then(Value::as_object);
                let expressions = objects::list(selector, "/matchExpressions").iter();
                let keys = labels.into_iter().flat_map(Map::keys).map(String::as_str);
                let keys = keys.chain(expressions.map(|it| text(it, "/key")));
                for key in keys.filter(|key| is_tool_label(key)) {
                    let text = format!(
                        "spec.ipAddressPoolSelectors: the copies of the pools lack the label \
                         {key}, which a tool manages: select them by name, or by a label of yours"
                    );
                    found.push(Problem::of(objects::label(manifest), text));
                }
            }
        }
        self.problems.extend(found);
    }
}

fn is_tool_label(key: &str) -> bool {
    TOOL_LABELS.iter().any(|part| key.contains(part))
}

/// Returns the labels of an object without those of Helm, Argo CD and Flux.
fn own_labels(object: &Value) -> Map<String, Value> {
    let labels = object.pointer("/metadata/labels").and_then(Value::as_object);
    let own = labels.into_iter().flatten().filter(|(key, _)| !is_tool_label(key));
    own.map(|(key, value)| (key.clone(), value.clone())).collect()
}

/// Removes the fields that a schema does not have, and adds their paths to `unknown`.
fn remove_unknown(schema: &Value, value: &mut Value, path: &str, unknown: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            let Some(properties) = schema.get("properties").and_then(Value::as_object) else {
                return;
            };
            fields.retain(|name, field| match properties.get(name) {
                Some(schema) => {
                    remove_unknown(schema, field, &format!("{path}.{name}"), unknown);
                    true
                }
                None => {
                    unknown.push(format!("{path}.{name}"));
                    false
                }
            });
        }
        Value::Array(items) => {
            let schema = schema.get("items").unwrap_or(&Value::Null);
            for (index, item) in items.iter_mut().enumerate() {
                remove_unknown(schema, item, &format!("{path}[{index}]"), unknown);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
