//! `metadata` of other people's objects, as far as it is read. Everything else, `managedFields`
//! above all, is skipped while an object is decoded. Pure.

use std::collections::BTreeMap;
use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::core::ObjectMeta;
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::node::EXCLUDE;
use super::slice::SERVICE_NAME;

/// The memory that the labels of an object may take, or the selector of a Service. Kubernetes
/// limits each label, but not how many there are: a Service may have 150,000. Those beyond, in the
/// order of their keys, do not count: an object with too many is read all the same, because its
/// address must not become free.
const LABELS_BYTES_MAX: usize = 32 * 1024;
/// Labels that always count: whose an EndpointSlice is, and that a Node announces nothing.
const ALWAYS: [&str; 2] = [SERVICE_NAME, EXCLUDE];
/// The memory that a label takes beside its own bytes.
const LABEL_BYTES: usize = 64;

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Metadata {
    namespace: Option<String>,
    name: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
    deletion_timestamp: Option<Time>,
    labels: Labels,
    annotations: Option<BTreeMap<String, String>>,
}

/// Decodes `metadata`.
///
/// # Errors
/// A field has the wrong type.
pub(super) fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ObjectMeta, D::Error> {
    let metadata = Metadata::deserialize(deserializer)?;
    Ok(ObjectMeta {
        namespace: metadata.namespace,
        name: metadata.name,
        uid: metadata.uid,
        resource_version: metadata.resource_version,
        deletion_timestamp: metadata.deletion_timestamp,
        labels: metadata.labels.0,
        annotations: metadata.annotations,
        ..ObjectMeta::default()
    })
}

/// The labels, or the part of a selector, that fit into [`LABELS_BYTES_MAX`], and those that
/// [`ALWAYS`] count.
#[derive(Clone, Debug, Default)]
pub(super) struct Labels(pub(super) Option<BTreeMap<String, String>>);

impl<'de> Deserialize<'de> for Labels {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(LabelsVisitor).map(Self)
    }
}

struct LabelsVisitor;

impl<'de> Visitor<'de> for LabelsVisitor {
    type Value = Option<BTreeMap<String, String>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map of strings")
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let (mut labels, mut bytes) = (BTreeMap::new(), 0);
        while let Some((key, value)) = map.next_entry::<String, String>()? {
            bytes += key.len() + value.len() + LABEL_BYTES;
            if bytes <= LABELS_BYTES_MAX || ALWAYS.contains(&&*key) {
                labels.insert(key, value);
            }
        }
        Ok(Some(labels))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn labels(value: &Value) -> Result<ObjectMeta, String> {
        let metadata = json!({"name": "x", "labels": value, "managedFields": "skipped"});
        read(metadata).map_err(|error| error.to_string())
    }

    #[test]
    fn labels_are_read_up_to_a_limit() {
        assert_eq!(labels(&Value::Null).unwrap().labels, None);
        assert_eq!(labels(&json!({"a": "b"})).unwrap().labels.unwrap()["a"], "b");
        let many = |count: usize| (0..count).map(|n| (format!("{n:03}"), json!(""))).collect::<Value>();
        let fit = LABELS_BYTES_MAX / (LABEL_BYTES + 3);
        let read = |value: &Value| labels(value).unwrap().labels.unwrap();
        assert_eq!(read(&many(fit)).len(), fit);
        assert_eq!(read(&many(fit + 1)), read(&many(fit)), "the last one does not count");
        let mut slice = many(fit + 1);
        slice[SERVICE_NAME] = json!("web");
        assert_eq!(read(&slice)[SERVICE_NAME], "web");
        assert!(labels(&json!({"a": 1})).is_err());
    }
}
