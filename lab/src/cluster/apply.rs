//! Applies YAML to the lab's API server like `kubectl apply --server-side`, and returns the
//! server's own message if it rejects an object.

use crate::wait;
use anyhow::{Context, Result, anyhow};
use kube::api::{Api, ApiResource, DynamicObject, Patch, PatchParams, ValidationDirective};
use kube::core::GroupVersionKind;
use kube::discovery::{ApiCapabilities, Scope, pinned_kind};
use kube::{Client, ResourceExt};
use serde_json::Value;
use std::time::Duration;

/// Field manager of the lab.
pub const FIELD_MANAGER: &str = "ferrolb-lab";
/// Maximum time until a kind is served after its CustomResourceDefinition was applied.
const KIND_SERVED_MAX: Duration = Duration::from_secs(10);

/// Returns the objects of a YAML text in the order in which they can be applied: namespaces and
/// definitions first.
///
/// # Errors
/// If the text is not YAML, or an object in it has no kind.
pub fn objects(yaml: &str) -> Result<Vec<Value>> {
    let mut objects: Vec<Value> =
        serde_saphyr::from_multiple(yaml).map_err(|error| anyhow!("not YAML: {error}"))?;
    objects.retain(|object| !object.is_null());
    if let Some(invalid) = objects.iter().find(|object| kind(object).is_empty()) {
        return Err(anyhow!("not a Kubernetes object: {invalid}"));
    }
    objects.sort_by_key(rank);
    Ok(objects)
}

/// Returns the kind of an object.
pub fn kind(object: &Value) -> &str {
    object["kind"].as_str().unwrap_or_default()
}

/// Returns the position of an object in the order of application.
pub fn rank(object: &Value) -> u8 {
    match kind(object) {
        "Namespace" => 0,
        "CustomResourceDefinition" => 1,
        _ => 2,
    }
}

/// Applies objects in their order. An object without a namespace goes into `default`.
///
/// # Errors
/// At the first rejected object, with its name and the server's message.
pub async fn apply(client: &Client, objects: &[Value]) -> Result<()> {
    apply_all(client, objects, false).await
}

/// Validates objects like [`apply`], with the admission of the API server, and changes nothing.
/// Their namespaces must exist.
///
/// # Errors
/// See [`apply`].
pub async fn dry_run(client: &Client, objects: &[Value]) -> Result<()> {
    apply_all(client, objects, true).await
}

async fn apply_all(client: &Client, objects: &[Value], dry_run: bool) -> Result<()> {
    for object in objects {
        let name = object["metadata"]["name"].as_str().unwrap_or("without a name");
        apply_one(client, object, dry_run)
            .await
            .with_context(|| format!("{} {name} was not applied", kind(object)))?;
    }
    Ok(())
}

async fn apply_one(client: &Client, object: &Value, dry_run: bool) -> Result<()> {
    let (resource, capabilities) = resource(client, object).await?;
    let object: DynamicObject = serde_json::from_value(object.clone())?;
    let api: Api<DynamicObject> = match capabilities.scope {
        Scope::Cluster => Api::all_with(client.clone(), &resource),
        Scope::Namespaced => Api::namespaced_with(
            client.clone(),
            &object.namespace().unwrap_or_else(|| "default".to_owned()),
            &resource,
        ),
    };
    let params = PatchParams {
        field_validation: Some(ValidationDirective::Strict),
        dry_run,
        ..PatchParams::apply(FIELD_MANAGER).force()
    };
    api.patch(&object.name_any(), &params, &Patch::Apply(&object)).await.map_err(api_message)?;
    Ok(())
}

/// Returns the server's endpoint for the object's kind. A newly defined kind is not served at once.
async fn resource(client: &Client, object: &Value) -> Result<(ApiResource, ApiCapabilities)> {
    let version = object["apiVersion"].as_str().unwrap_or_default();
    let (group, version) = version.split_once('/').unwrap_or(("", version));
    let kind = GroupVersionKind::gvk(group, version, kind(object));
    wait::until_async(
        "the API server serves the kind",
        KIND_SERVED_MAX,
        async || match pinned_kind(client, &kind).await {
            Ok(found) => Ok(Some(found)),
            Err(error) => Err(api_message(error)),
        },
    )
    .await
}

/// Returns the server's message without the client library's prefix.
fn api_message(error: kube::Error) -> anyhow::Error {
    if let kube::Error::Api(status) = &error { anyhow!("{}", status.message) } else { error.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn namespaces_and_definitions_come_first() {
        let yaml = "---\nkind: IPAddressPool\n---\n# only a comment\n---\nkind: CustomResourceDefinition\n---\nkind: Namespace\n";
        let kinds: Vec<String> =
            objects(yaml).unwrap().iter().map(|object| kind(object).to_owned()).collect();
        assert_eq!(kinds, ["Namespace", "CustomResourceDefinition", "IPAddressPool"]);
    }

    #[test]
    fn text_without_kubernetes_objects_is_rejected() {
        for invalid in ["a: [", "just words", "metadata: {name: x}"] {
            assert!(objects(invalid).is_err(), "{invalid}");
        }
    }
}
