//! Another field manager that writes FerroLB's fields of Services.

use crate::services;
use anyhow::Result;
use ferrolb_lab::{Lab, wait};
use ferrolb_proto::api::{GROUP, pool_annotation};
use k8s_openapi::api::core::v1::Service;
use kube::api::{Api, Patch, PatchParams};
use serde_json::{Value, json};
use std::net::IpAddr;
use std::time::Duration;

/// Address that the other manager writes, which no pool contains.
pub(crate) const OTHER_ADDRESS: &str = "192.0.2.1";
/// Name of the other manager in `metadata.managedFields`.
const OTHER_MANAGER: &str = "rival";
/// Interval at which the other manager checks that the Service has its address.
const CHECK_INTERVAL: Duration = Duration::from_millis(20);

/// Returns the server-side apply patch of a Service with these fields.
fn body(name: &str, fields: &Value) -> Value {
    let mut body = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}});
    if let (Some(body), Value::Object(fields)) = (body.as_object_mut(), fields.clone()) {
        body.extend(fields);
    }
    body
}

/// Writes [`OTHER_ADDRESS`] into a Service's status, and takes over the ownership of the field by
/// force (server-side apply).
pub(crate) async fn write_addresses(services: &Api<Service>, name: &str) -> Result<()> {
    let status =
        json!({"status": {"loadBalancer": {"ingress": [{"ip": OTHER_ADDRESS, "ipMode": "VIP"}]}}});
    let params = PatchParams::apply(OTHER_MANAGER).force();
    services.patch_status(name, &params, &Patch::Apply(&body(name, &status))).await?;
    Ok(())
}

/// Writes another pool into a Service's annotation that names the pool, and takes over the
/// ownership of the annotation by force (server-side apply).
pub(crate) async fn write_annotation(services: &Api<Service>, name: &str) -> Result<()> {
    let metadata =
        json!({"metadata": {"name": name, "annotations": {pool_annotation(GROUP): "elsewhere"}}});
    let params = PatchParams::apply(OTHER_MANAGER).force();
    services.patch(name, &params, &Patch::Apply(&body(name, &metadata))).await?;
    Ok(())
}

/// For `length`, writes [`OTHER_ADDRESS`] again whenever another writer has replaced it. Returns
/// the number of writes.
pub(crate) fn write_repeatedly(lab: &Lab, name: &str, length: Duration) -> Result<usize> {
    let expected: IpAddr = OTHER_ADDRESS.parse()?;
    lab.api(async |client| {
        let services: Api<Service> = Api::default_namespaced(client);
        let (start, mut writes) = (wait::now(), 0);
        while start.elapsed() < length {
            if services::addresses(&services.get(name).await?) != [expected] {
                write_addresses(&services, name).await?;
                writes += 1;
            }
            tokio::time::sleep(CHECK_INTERVAL).await;
        }
        Ok(writes)
    })
}

/// For `length`, changes an annotation of a Service as fast as possible, so that the Service's
/// resourceVersion changes all the time. Returns the number of changes.
pub(crate) fn change_repeatedly(lab: &Lab, name: &str, length: Duration) -> Result<usize> {
    lab.api(async |client| {
        let services: Api<Service> = Api::default_namespaced(client);
        let (start, mut changes) = (wait::now(), 0);
        while start.elapsed() < length {
            changes += 1;
            let patch =
                json!({"metadata": {"annotations": {"example.com/count": changes.to_string()}}});
            services.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await?;
        }
        Ok(changes)
    })
}
