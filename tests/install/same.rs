//! Comparison of the chart and the overlays, which install the same objects.

use crate::chart::{self, kind_and_name};
use crate::kustomize;
use anyhow::Result;
use ferrolb_lab::cluster::apply;
use ferrolb_proto::api::NAMESPACE;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// Labels that only Helm sets.
const HELM_LABELS: [&str; 2] = ["app.kubernetes.io/managed-by", "helm.sh/chart"];

/// Returns each overlay with the values that render the same objects.
fn overlays_with_values() -> [(&'static str, Value); 4] {
    [
        ("l2", json!({})),
        ("bgp", json!({"bgp": {"enabled": true}})),
        ("metallb-takeover", json!({"metallbNamespace": "metallb-system"})),
        (
            "beside-metallb",
            json!({"loadBalancerClass": "ferrolb.io/ferrolb", "prometheus": {"metricsPort": 7476}}),
        ),
    ]
}

/// Returns the objects by kind and name, without the permitted differences: Helm's labels, and the
/// order of environment variables.
fn comparable(mut objects: Vec<Value>) -> BTreeMap<String, Value> {
    for object in &mut objects {
        if let Some(labels) = object.pointer_mut("/metadata/labels").and_then(Value::as_object_mut)
        {
            labels.retain(|name, _| !HELM_LABELS.contains(&name.as_str()));
        }
        let env = object
            .pointer_mut("/spec/template/spec/containers/0/env")
            .and_then(Value::as_array_mut);
        env.into_iter().for_each(|env| env.sort_by_key(|variable| variable["name"].to_string()));
    }
    objects.into_iter().map(|object| (kind_and_name(&object), object)).collect()
}

/// Returns the differences between two values, each with its path. Numbers compare by value,
/// because 3 and 3.0 are equal in YAML.
fn differences(left: &Value, right: &Value, path: &str) -> Vec<String> {
    match (left, right) {
        (Value::Object(one), Value::Object(other)) => {
            let names: BTreeSet<&String> = one.keys().chain(other.keys()).collect();
            names
                .iter()
                .flat_map(|name| {
                    differences(&left[*name], &right[*name], &format!("{path}.{name}"))
                })
                .collect()
        }
        (Value::Array(one), Value::Array(other)) if one.len() == other.len() => {
            let pairs = one.iter().zip(other).enumerate();
            pairs
                .flat_map(|(index, (one, other))| {
                    differences(one, other, &format!("{path}[{index}]"))
                })
                .collect()
        }
        (Value::Number(one), Value::Number(other)) if one.as_f64() == other.as_f64() => Vec::new(),
        _ if left == right => Vec::new(),
        _ => vec![format!("{path}: {left} and {right}")],
    }
}

/// Returns the objects without the Namespace, which the chart does not contain, because a Helm user
/// creates it.
fn without_namespace(mut objects: Vec<Value>) -> Vec<Value> {
    objects.retain(|object| apply::kind(object) != "Namespace");
    objects
}

/// Renders an overlay and the chart, in comparable form.
fn render_both(overlay: &str, values: &Value) -> Result<[BTreeMap<String, Value>; 2]> {
    let kustomize = without_namespace(apply::objects(&kustomize::build(overlay)?)?);
    Ok([comparable(kustomize), comparable(chart::objects(values)?)])
}

#[test]
fn the_chart_renders_the_same_objects_as_the_overlays() {
    for (overlay, values) in overlays_with_values() {
        let [kustomize, helm] = render_both(overlay, &values).unwrap();
        assert!(kustomize.len() > 20, "{overlay} has too few objects: {:?}", kustomize.keys());
        assert_eq!(
            kustomize.keys().collect::<Vec<_>>(),
            helm.keys().collect::<Vec<_>>(),
            "the overlay {overlay} and the chart have different objects"
        );
        let found: Vec<_> = kustomize
            .iter()
            .flat_map(|(name, object)| differences(object, &helm[name], name))
            .collect();
        assert!(
            found.is_empty(),
            "the objects of kustomize and Helm for {overlay} differ:\n{}",
            found.join("\n")
        );
    }
}

#[test]
fn the_chart_renders_for_any_namespace() {
    let yaml = chart::template("elsewhere", &json!({"bgp": {"enabled": true}})).unwrap();
    for object in apply::objects(&yaml).unwrap() {
        let text = object.to_string();
        let is_crd = apply::kind(&object) == "CustomResourceDefinition";
        assert!(
            is_crd || !text.contains(NAMESPACE),
            "{} contains {NAMESPACE}: {text}",
            kind_and_name(&object)
        );
    }
}
