//! Applies objects to the API server, as `kubectl apply --server-side` does. Performs I/O.

use kube::api::{DynamicObject, Patch, PatchParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Api, Client};
use serde_json::Value;

use crate::objects::{name, text};

/// Field manager of the applied objects.
pub const FIELD_MANAGER: &str = "kubectl-ferrolb";

/// Creates or changes an object. With `force`, takes fields from other field managers.
///
/// # Errors
/// The API server is unavailable or rejects the object.
pub async fn apply(client: &Client, object: &Value, force: bool) -> Result<(), kube::Error> {
    let params = PatchParams { force, ..PatchParams::apply(FIELD_MANAGER) };
    api(client, object).patch(name(object), &params, &Patch::Apply(object)).await.map(drop)
}

/// Returns the API of the object's kind, in the object's namespace.
fn api(client: &Client, object: &Value) -> Api<DynamicObject> {
    let version = text(object, "/apiVersion");
    let (group, version) = version.split_once('/').unwrap_or(("", version));
    let kind = GroupVersionKind::gvk(group, version, text(object, "/kind"));
    let resource = ApiResource::from_gvk(&kind);
    match text(object, "/metadata/namespace") {
        "" => Api::all_with(client.clone(), &resource),
        namespace => Api::namespaced_with(client.clone(), namespace, &resource),
    }
}
