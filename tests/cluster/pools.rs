//! Pools and advertisements as a test makes and reads them.

use anyhow::{Result, anyhow};
use ferrolb_proto::api::{CONDITION_VALID, GROUP, Kind, NAMESPACE, Pool, resource};
use ferrolb_tests::{Lab, wait};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::{Api, DynamicObject};
use serde_json::{Value, json};
use std::time::Duration;

/// How long FerroLB may take over anything a test waits for, on a busy machine. What has a budget is measured instead.
pub(crate) const BRINGING_MAX: Duration = Duration::from_secs(20);

/// A pool.
pub(crate) fn pool(name: &str, addresses: &[&str]) -> Value {
    json!({
        "apiVersion": format!("{GROUP}/v1beta1"), "kind": "IPAddressPool",
        "metadata": {"name": name, "namespace": NAMESPACE}, "spec": {"addresses": addresses},
    })
}

/// A bare advertisement: all pools, from all nodes, on all links.
pub(crate) fn advertisement() -> Value {
    json!({
        "apiVersion": format!("{GROUP}/v1beta1"), "kind": "L2Advertisement",
        "metadata": {"name": "all", "namespace": NAMESPACE},
    })
}

/// An object of one of our kinds.
pub(crate) fn object(kind: Kind, name: &str, spec: Value) -> Value {
    json!({
        "apiVersion": format!("{GROUP}/{}", kind.version()), "kind": kind.name(),
        "metadata": {"name": name, "namespace": NAMESPACE}, "spec": spec,
    })
}

/// A pool for those that `allocation` says.
pub(crate) fn pool_for(name: &str, addresses: &str, allocation: Value) -> Value {
    object(Kind::IPAddressPool, name, json!({"addresses": [addresses], "serviceAllocation": allocation}))
}

/// Waits until an object of one of our kinds says this reason in its condition `Valid`, and the message holds `word`.
pub(crate) fn wait_reason(lab: &Lab, kind: Kind, name: &str, reason: &str, word: &str) -> Result<()> {
    let what = format!("{} {name}: {reason}, {word:?}", kind.name());
    lab.api(async |client| {
        let objects: Api<DynamicObject> = Api::namespaced_with(client, NAMESPACE, &resource(kind, GROUP));
        wait::until_async(&what, BRINGING_MAX, async || {
            let status = objects.get(name).await?.data["status"].take();
            let conditions: Vec<Condition> = serde_json::from_value(status["conditions"].clone()).unwrap_or_default();
            let told = |is: &Condition| is.type_ == CONDITION_VALID && is.reason == reason && is.message.contains(word);
            if conditions.iter().any(told) { Ok(Some(())) } else { Err(anyhow!("it says {status}")) }
        })
        .await
    })
}

/// Waits until `look` finds in a pool what it looks for.
pub(crate) fn wait_for<T: Send>(
    lab: &Lab,
    name: &str,
    what: &str,
    look: impl Fn(&Pool) -> Option<T> + Send + Sync,
) -> Result<T> {
    let what = format!("pool {name}: {what}");
    lab.api(async |client| {
        let pools: Api<Pool> = Api::namespaced_with(client, NAMESPACE, &resource(Kind::IPAddressPool, GROUP));
        wait::until_async(&what, BRINGING_MAX, async || {
            let pool = pools.get(name).await?;
            match look(&pool) {
                Some(found) => Ok(Some(found)),
                None => Err(anyhow!("it says {}", serde_json::to_string(&pool.status)?)),
            }
        })
        .await
    })
}

/// Waits until a pool says whether it is valid, and that is `expect`; its condition.
pub(crate) fn wait_valid(lab: &Lab, name: &str, expect: bool) -> Result<Condition> {
    let status = if expect { "True" } else { "False" };
    wait_for(lab, name, &format!("Valid={status}"), |pool| {
        let conditions = &pool.status.as_ref()?.conditions;
        let valid = conditions.iter().find(|condition| condition.type_ == CONDITION_VALID)?;
        (valid.status == status).then(|| valid.clone())
    })
}
