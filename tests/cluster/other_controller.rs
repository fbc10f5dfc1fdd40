//! Another controller that writes its own fields into FerroLB's objects: all of these fields stay.

use crate::pools::{self, pool};
use crate::scenario::step;
use crate::services::{self, ADDRESS_ASSIGNED};
use anyhow::{Context, Result, ensure};
use ferrolb_lab::Lab;
use ferrolb_proto::api::{CustomResourceKind, GROUP, IPAddressPoolObject, NAMESPACE, resource};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta};
use kube::api::{Api, DynamicObject, Patch, PatchParams};
use serde_json::{Value, json};

/// Field manager of the other controller, which is also the key of its label and its annotation,
/// and the type of its condition.
const OTHER_MANAGER: &str = "other-controller";
const OTHER_CONDITION: &str = "example.com/Checked";

pub(crate) fn part(lab: &Lab) -> Result<()> {
    step(
        "another controller sets label, annotation and condition of a Service and a pool",
        || {
            services::serve(lab, "web")?;
            apply_fields(lab)
        },
    )?;
    step("FerroLB writes both objects again, and the fields of the other controller stay", || {
        let mut lan = pool("lan", &["172.30.5.0/24"]);
        lan["spec"]["excludeAddresses"] = json!(["172.30.5.255"]);
        lab.apply_objects(&[lan])?;
        services::patch(
            lab,
            "web",
            &json!({"metadata": {"annotations": {"ferrolb.io/ip-mode": "Proxy"}}}),
        )?;
        pools::wait_for(lab, "lan", "the status has the new generation", |pool| {
            (pool.status.as_ref()?.observed_generation == pool.metadata.generation?).then_some(())
        })?;
        check_pool(lab)?;
        let service =
            services::wait_for(lab, "web", "the condition reports ipMode Proxy", |service| {
                let condition = services::condition(service, ADDRESS_ASSIGNED)?;
                condition.message.contains("ipMode is Proxy").then(|| service.clone())
            })?;
        check_fields(&service.metadata, conditions(&service))
    })?;
    step("FerroLB removes its own fields, and the fields of the other controller stay", || {
        services::patch(lab, "web", &json!({"spec": {"type": "ClusterIP"}}))?;
        services::wait_released(lab, "web")?;
        let service = services::get(lab, "web")?;
        check_fields(&service.metadata, conditions(&service))
    })
}

/// Returns the other controller's patches of an object: one with a label and an annotation, and one
/// with a condition in the status.
fn patches(version: &str, kind: &str, name: &str) -> [Value; 2] {
    let condition = json!({
        "type": OTHER_CONDITION, "status": "True", "reason": "Checked", "message": "it is", "lastTransitionTime": "2026-01-02T03:04:05Z",
    });
    let head = json!({"apiVersion": version, "kind": kind, "metadata": {"name": name}});
    let (mut metadata_patch, mut status) = (head.clone(), head);
    metadata_patch["metadata"]["labels"] = json!({OTHER_MANAGER: "label"});
    metadata_patch["metadata"]["annotations"] = json!({OTHER_MANAGER: "annotation"});
    status["status"] = json!({"conditions": [condition]});
    [metadata_patch, status]
}

fn apply_fields(lab: &Lab) -> Result<()> {
    let params = PatchParams::apply(OTHER_MANAGER);
    lab.api(async |client| {
        let services: Api<Service> = Api::default_namespaced(client.clone());
        let [metadata_patch, status] = patches("v1", "Service", "web");
        services.patch("web", &params, &Patch::Apply(metadata_patch)).await?;
        services.patch_status("web", &params, &Patch::Apply(status)).await?;
        let kind = resource(CustomResourceKind::IPAddressPool, GROUP);
        let pools: Api<IPAddressPoolObject> = Api::namespaced_with(client, NAMESPACE, &kind);
        let [mut metadata_patch, status] = patches(&kind.api_version, &kind.kind, "lan");
        // A pool without `spec.addresses` is not valid.
        metadata_patch["spec"] = json!({"addresses": pools.get("lan").await?.spec.addresses});
        pools.patch("lan", &params, &Patch::Apply(metadata_patch)).await?;
        pools.patch_status("lan", &params, &Patch::Apply(status)).await?;
        Ok(())
    })
}

fn conditions(service: &Service) -> Option<&[Condition]> {
    service.status.as_ref()?.conditions.as_deref()
}

/// Checks the pool as the API server has it: FerroLB's own type has only FerroLB's conditions.
fn check_pool(lab: &Lab) -> Result<()> {
    let kind = resource(CustomResourceKind::IPAddressPool, GROUP);
    let pool = lab.api(async |client| {
        let pools: Api<DynamicObject> = Api::namespaced_with(client, NAMESPACE, &kind);
        Ok(pools.get("lan").await?)
    })?;
    let conditions: Vec<Condition> =
        serde_json::from_value(pool.data["status"]["conditions"].clone())?;
    check_fields(&pool.metadata, Some(&conditions))
}

/// Checks that the object has all fields of the other controller.
fn check_fields(metadata: &ObjectMeta, conditions: Option<&[Condition]>) -> Result<()> {
    let label = metadata.labels.as_ref().and_then(|labels| labels.get(OTHER_MANAGER));
    let annotation =
        metadata.annotations.as_ref().and_then(|annotations| annotations.get(OTHER_MANAGER));
    ensure!(
        label.is_some() && annotation.is_some(),
        "the label is {label:?}, and the annotation {annotation:?}"
    );
    let conditions = conditions.context("the object has no conditions")?;
    let found = conditions.iter().find(|condition| condition.type_ == OTHER_CONDITION);
    ensure!(
        found.is_some_and(|condition| condition.message == "it is"),
        "the conditions are {conditions:?}"
    );
    Ok(())
}
