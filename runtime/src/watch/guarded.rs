//! An object that may be unreadable, so that one bad object cannot fail the list it is in. Lives for one event.
//!
//! In place of kube's `DeserializeGuard`: the reason names the field, and a good object is not copied on the way.

use std::borrow::Cow;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// A `K`, or why there is none. Decoding it never fails on anything that is JSON.
#[derive(Debug, Clone)]
pub struct Guarded<K>(pub Result<K, Unreadable>);

/// Which object could not be decoded, and why.
#[derive(Debug, Clone, PartialEq)]
pub struct Unreadable {
    /// Its `namespace`, `name` and `resourceVersion`, and nothing else.
    pub metadata: Box<ObjectMeta>,
    /// The field's path and what is wrong with it: `spec.addresses[0]: invalid type: integer…`.
    pub why: String,
}

impl<'de, K: DeserializeOwned> Deserialize<'de> for Guarded<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut object = Value::deserialize(deserializer)?;
        forget_managers(&mut object);
        Ok(Self(serde_path_to_error::deserialize(&object).map_err(|error| {
            let text = |field| object["metadata"][field].as_str().map(str::to_owned);
            let metadata = ObjectMeta {
                namespace: text("namespace"),
                name: text("name"),
                resource_version: text("resourceVersion"),
                ..ObjectMeta::default()
            };
            Unreadable { metadata: Box::new(metadata), why: error.to_string() }
        })))
    }
}

/// Removes `metadata.managedFields`: nothing reads them, and decoded they take ten times the room of all the rest, for
/// every object of a page at once.
fn forget_managers(object: &mut Value) {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
    }
}

impl<K: Resource> Resource for Guarded<K> {
    type DynamicType = K::DynamicType;
    type Scope = K::Scope;

    fn kind(dynamic: &Self::DynamicType) -> Cow<'_, str> {
        K::kind(dynamic)
    }

    fn group(dynamic: &Self::DynamicType) -> Cow<'_, str> {
        K::group(dynamic)
    }

    fn version(dynamic: &Self::DynamicType) -> Cow<'_, str> {
        K::version(dynamic)
    }

    fn plural(dynamic: &Self::DynamicType) -> Cow<'_, str> {
        K::plural(dynamic)
    }

    fn meta(&self) -> &ObjectMeta {
        self.0.as_ref().map_or_else(|unreadable| &*unreadable.metadata, K::meta)
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        self.0.as_mut().map_or_else(|unreadable| &mut *unreadable.metadata, K::meta_mut)
    }
}
