//! The fields of `metadata` that FerroLB reads from Services, EndpointSlices, Nodes and Namespaces.
//! The decoder skips all other fields, and for all but Services also `managedFields`. Pure.

use std::collections::BTreeMap;
use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::core::ObjectMeta;
use serde::de::{Error, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::field_managers::ManagedFields;

/// The label of an EndpointSlice with the name of its Service (`discovery.k8s.io/v1`).
pub const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";
/// The label that excludes a node from load balancer traffic, whatever its value (`core/v1`
/// well-known labels).
pub(super) const EXCLUDE_LABEL: &str = "node.kubernetes.io/exclude-from-external-load-balancers";

/// The memory that the labels of an object, or the selector of a Service, may take, in bytes.
/// Kubernetes limits the size of each label but not their number: a Service may have 150,000.
/// Labels beyond this limit, in the order of their keys, are ignored. The object is still decoded:
/// if a Service were skipped, its address would become free.
const LABELS_BYTES_MAX: usize = 32 * 1024;
/// Labels that are decoded even beyond [`LABELS_BYTES_MAX`]: the label with the name of an
/// EndpointSlice's Service, and the exclude label of a Node.
const REQUIRED_LABELS: [&str; 2] = [SERVICE_NAME_LABEL, EXCLUDE_LABEL];
/// The memory that a label takes in addition to its key and its value, in bytes.
const LABEL_OVERHEAD_BYTES: usize = 64;

/// `metadata` with `managedFields` decoded as `M`.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default, bound = "M: Deserialize<'de> + Default")]
struct Metadata<M> {
    namespace: Option<String>,
    name: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
    deletion_timestamp: Option<Time>,
    labels: Labels,
    annotations: Option<BTreeMap<String, String>>,
    managed_fields: M,
}

impl<M> Metadata<M> {
    fn into_parts(self) -> (ObjectMeta, M) {
        let metadata = ObjectMeta {
            namespace: self.namespace,
            name: self.name,
            uid: self.uid,
            resource_version: self.resource_version,
            deletion_timestamp: self.deletion_timestamp,
            labels: self.labels.0,
            annotations: self.annotations,
            ..ObjectMeta::default()
        };
        (metadata, self.managed_fields)
    }
}

/// Decodes `metadata`.
///
/// # Errors
/// A field has the wrong type.
pub(super) fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ObjectMeta, D::Error> {
    Ok(Metadata::<IgnoredAny>::deserialize(deserializer)?.into_parts().0)
}

/// Decodes `metadata` with the [`ManagedFields`] of a Service.
///
/// # Errors
/// A field has the wrong type.
pub(super) fn read_with_managers<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<ObjectMeta, D::Error> {
    let (metadata, managers) = Metadata::<ManagedFields>::deserialize(deserializer)?.into_parts();
    Ok(ObjectMeta { managed_fields: Some(managers.into()), ..metadata })
}

/// The labels of an object, or the selector of a Service, without the entries beyond
/// [`LABELS_BYTES_MAX`]. The labels in [`REQUIRED_LABELS`] are never left out.
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
            bytes += key.len() + value.len() + LABEL_OVERHEAD_BYTES;
            if bytes <= LABELS_BYTES_MAX || REQUIRED_LABELS.contains(&&*key) {
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
    fn labels_are_decoded_up_to_a_limit() {
        assert_eq!(labels(&Value::Null).unwrap().labels, None);
        assert_eq!(labels(&json!({"a": "b"})).unwrap().labels.unwrap()["a"], "b");
        let many =
            |count: usize| (0..count).map(|n| (format!("{n:03}"), json!(""))).collect::<Value>();
        let fit = LABELS_BYTES_MAX / (LABEL_OVERHEAD_BYTES + 3);
        let read = |value: &Value| labels(value).unwrap().labels.unwrap();
        assert_eq!(read(&many(fit)).len(), fit);
        assert_eq!(read(&many(fit + 1)), read(&many(fit)), "a label beyond the limit is ignored");
        let mut slice = many(fit + 1);
        slice[SERVICE_NAME_LABEL] = json!("web");
        assert_eq!(read(&slice)[SERVICE_NAME_LABEL], "web");
        assert!(labels(&json!({"a": 1})).is_err());
    }
}
