//! Another controller that writes fields of its own into the same objects: all of them stay.

use crate::pools::{self, pool};
use crate::scenario::step;
use crate::services::{self, ADDRESS_ASSIGNED};
use anyhow::{Context, Result, ensure};
use ferrolb_lab::Lab;
use ferrolb_proto::api::{CustomResourceKind, GROUP, IPAddressPoolObject, NAMESPACE, resource};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta};
use kube::api::{Api, Patch, PatchParams};
use serde_json::{Value, json};

/// Name of the other controller in `metadata.managedFields`, and the type of its condition.
const NAME: &str = "neighbour";
const CHECKED: &str = "example.com/Checked";

pub(crate) fn part(lab: &Lab) -> Result<()> {
    step("a neighbour marks a Service and a pool, and gives each a condition of its own", || {
        services::serve(lab, "web")?;
        apply_fields(lab)
    })?;
    step("we write both again, and all of it is still there", || {
        let mut lan = pool("lan", &["172.30.5.0/24"]);
        lan["spec"]["excludeAddresses"] = json!(["172.30.5.255"]);
        lab.apply_objects(&[lan])?;
        services::patch(
            lab,
            "web",
            &json!({"metadata": {"annotations": {"ferrolb.io/ip-mode": "Proxy"}}}),
        )?;
        let pool = pools::wait_for(lab, "lan", "a status of its new generation", |pool| {
            (pool.status.as_ref()?.observed_generation == pool.metadata.generation?)
                .then(|| pool.clone())
        })?;
        check_fields(
            &pool.metadata,
            pool.status.as_ref().map(|status| status.conditions.as_slice()),
        )?;
        let service = services::wait_for(lab, "web", "ipMode Proxy in its condition", |service| {
            let said = services::condition(service, ADDRESS_ASSIGNED)?;
            said.message.contains("ipMode is Proxy").then(|| service.clone())
        })?;
        check_fields(&service.metadata, conditions(&service))
    })?;
    step("nor does it go when all that is ours does", || {
        services::patch(lab, "web", &json!({"spec": {"type": "ClusterIP"}}))?;
        services::wait_released(lab, "web")?;
        let service = services::get(lab, "web")?;
        check_fields(&service.metadata, conditions(&service))
    })
}

/// Returns the other controller's patches of an object: a label and an annotation, and a condition
/// in the status.
fn body(version: &str, kind: &str, name: &str) -> [Value; 2] {
    let condition = json!({
        "type": CHECKED, "status": "True", "reason": "Checked", "message": "it is", "lastTransitionTime": "2026-01-02T03:04:05Z",
    });
    let head = json!({"apiVersion": version, "kind": kind, "metadata": {"name": name}});
    let (mut marks, mut status) = (head.clone(), head);
    marks["metadata"]["labels"] = json!({NAME: "label"});
    marks["metadata"]["annotations"] = json!({NAME: "annotation"});
    status["status"] = json!({"conditions": [condition]});
    [marks, status]
}

fn apply_fields(lab: &Lab) -> Result<()> {
    let params = PatchParams::apply(NAME);
    lab.api(async |client| {
        let services: Api<Service> = Api::default_namespaced(client.clone());
        let [marks, status] = body("v1", "Service", "web");
        services.patch("web", &params, &Patch::Apply(marks)).await?;
        services.patch_status("web", &params, &Patch::Apply(status)).await?;
        let kind = resource(CustomResourceKind::IPAddressPool, GROUP);
        let pools: Api<IPAddressPoolObject> = Api::namespaced_with(client, NAMESPACE, &kind);
        let [mut marks, status] = body(&kind.api_version, &kind.kind, "lan");
        // A pool without `spec.addresses` is not valid.
        marks["spec"] = json!({"addresses": pools.get("lan").await?.spec.addresses});
        pools.patch("lan", &params, &Patch::Apply(marks)).await?;
        pools.patch_status("lan", &params, &Patch::Apply(status)).await?;
        Ok(())
    })
}

fn conditions(service: &Service) -> Option<&[Condition]> {
    service.status.as_ref()?.conditions.as_deref()
}

/// Checks that all fields of the other controller are there.
fn check_fields(metadata: &ObjectMeta, conditions: Option<&[Condition]>) -> Result<()> {
    let label = metadata.labels.as_ref().and_then(|labels| labels.get(NAME));
    let annotation = metadata.annotations.as_ref().and_then(|annotations| annotations.get(NAME));
    ensure!(
        label.is_some() && annotation.is_some(),
        "the label is {label:?}, and the annotation {annotation:?}"
    );
    let conditions = conditions.context("there are no conditions")?;
    let its = conditions.iter().find(|condition| condition.type_ == CHECKED);
    ensure!(its.is_some_and(|its| its.message == "it is"), "the conditions are {conditions:?}");
    Ok(())
}
