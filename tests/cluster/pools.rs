//! Pools and advertisements: functions that create and read them.

use anyhow::{Result, anyhow};
use ferrolb_lab::{Lab, wait};
use ferrolb_proto::api::{
    CONDITION_VALID, CustomResourceKind, GROUP, IPAddressPoolObject, NAMESPACE, resource,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::{Api, DynamicObject};
use serde_json::{Value, json};
use std::time::Duration;

/// Maximum time until an expected state is reached, on a busy machine. Times with a target have
/// limits of their own.
pub(crate) const STATE_MAX: Duration = Duration::from_secs(20);

/// Returns an IPAddressPool with these addresses.
pub(crate) fn pool(name: &str, addresses: &[&str]) -> Value {
    json!({
        "apiVersion": format!("{GROUP}/v1beta1"), "kind": "IPAddressPool",
        "metadata": {"name": name, "namespace": NAMESPACE}, "spec": {"addresses": addresses},
    })
}

/// Returns an L2Advertisement that selects all pools, nodes and interfaces.
pub(crate) fn advertisement() -> Value {
    json!({
        "apiVersion": format!("{GROUP}/v1beta1"), "kind": "L2Advertisement",
        "metadata": {"name": "all", "namespace": NAMESPACE},
    })
}

/// Returns an object of a FerroLB custom resource.
pub(crate) fn object(kind: CustomResourceKind, name: &str, spec: Value) -> Value {
    json!({
        "apiVersion": format!("{GROUP}/{}", kind.version()), "kind": kind.name(),
        "metadata": {"name": name, "namespace": NAMESPACE}, "spec": spec,
    })
}

/// Returns a pool with this `serviceAllocation`.
pub(crate) fn pool_for(name: &str, addresses: &str, allocation: Value) -> Value {
    object(
        CustomResourceKind::IPAddressPool,
        name,
        json!({"addresses": [addresses], "serviceAllocation": allocation}),
    )
}

/// Waits until the condition `Valid` of a custom resource has this reason, and a message that
/// contains `word`.
pub(crate) fn wait_reason(
    lab: &Lab,
    kind: CustomResourceKind,
    name: &str,
    reason: &str,
    word: &str,
) -> Result<()> {
    let what = format!("{} {name} has the reason {reason} and the text {word:?}", kind.name());
    lab.api(async |client| {
        let objects: Api<DynamicObject> =
            Api::namespaced_with(client, NAMESPACE, &resource(kind, GROUP));
        wait::until_async(&what, STATE_MAX, async || {
            let status = objects.get(name).await?.data["status"].take();
            let conditions: Vec<Condition> =
                serde_json::from_value(status["conditions"].clone()).unwrap_or_default();
            let matches = |condition: &Condition| {
                condition.type_ == CONDITION_VALID
                    && condition.reason == reason
                    && condition.message.contains(word)
            };
            if conditions.iter().any(matches) {
                Ok(Some(()))
            } else {
                Err(anyhow!("the status is {status}"))
            }
        })
        .await
    })
}

/// Waits until `check` returns `Some` for a pool, and returns the result.
pub(crate) fn wait_for<T: Send>(
    lab: &Lab,
    name: &str,
    what: &str,
    check: impl Fn(&IPAddressPoolObject) -> Option<T> + Send + Sync,
) -> Result<T> {
    let what = format!("pool {name}: {what}");
    lab.api(async |client| {
        let pools: Api<IPAddressPoolObject> = Api::namespaced_with(
            client,
            NAMESPACE,
            &resource(CustomResourceKind::IPAddressPool, GROUP),
        );
        wait::until_async(&what, STATE_MAX, async || {
            let pool = pools.get(name).await?;
            match check(&pool) {
                Some(found) => Ok(Some(found)),
                None => Err(anyhow!("the status is {}", serde_json::to_string(&pool.status)?)),
            }
        })
        .await
    })
}

/// Waits until a pool's condition `Valid` has the status `expect`, and returns the condition.
pub(crate) fn wait_valid(lab: &Lab, name: &str, expect: bool) -> Result<Condition> {
    let status = if expect { "True" } else { "False" };
    wait_for(lab, name, &format!("Valid={status}"), |pool| {
        let conditions = &pool.status.as_ref()?.conditions;
        let valid = conditions.iter().find(|condition| condition.type_ == CONDITION_VALID)?;
        (valid.status == status).then(|| valid.clone())
    })
}
