//! The fact of a Namespace: its labels, by which pools select namespaces.

use super::kind::built_in;
use std::collections::BTreeMap;

use kube::Resource;
use kube::core::ObjectMeta;
use serde::Deserialize;

use super::metadata;

/// A decoded Namespace.
#[derive(Resource, Deserialize, Clone, Debug, Default)]
#[resource(inherit = "k8s_openapi::api::core::v1::Namespace")]
pub struct NamespaceObject {
    /// `metadata`.
    #[serde(deserialize_with = "metadata::read")]
    pub metadata: ObjectMeta,
}

/// The fact of a Namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Namespace {
    /// `metadata.name`.
    pub name: Box<str>,
    /// `metadata.labels`.
    pub labels: BTreeMap<String, String>,
}

impl From<NamespaceObject> for Namespace {
    fn from(object: NamespaceObject) -> Self {
        Self {
            name: object.metadata.name.unwrap_or_default().into(),
            labels: object.metadata.labels.unwrap_or_default(),
        }
    }
}

built_in!(Namespace: NamespaceObject, "Namespace", "Namespaces", all);
