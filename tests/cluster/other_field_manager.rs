//! Another field manager that writes fields of FerroLB.

use crate::services;
use anyhow::Result;
use ferrolb_lab::{Lab, wait};
use ferrolb_proto::api::{GROUP, pool_annotation};
use k8s_openapi::api::core::v1::Service;
use kube::api::{Api, Patch, PatchParams};
use serde_json::{Value, json};
use std::net::IpAddr;
use std::time::Duration;

/// Address that the other manager writes. No pool contains it.
pub(crate) const OTHER_ADDRESS: &str = "192.0.2.1";
/// Name of the other manager in `metadata.managedFields`.
const NAME: &str = "rival";
/// Interval at which the other manager checks its address.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

fn body(name: &str, fields: &Value) -> Value {
    let mut body = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}});
    if let (Some(body), Value::Object(fields)) = (body.as_object_mut(), fields.clone()) {
        body.extend(fields);
    }
    body
}

/// Takes over the addresses in a Service's status by force.
pub(crate) async fn claim_addresses(services: &Api<Service>, name: &str) -> Result<()> {
    let status =
        json!({"status": {"loadBalancer": {"ingress": [{"ip": OTHER_ADDRESS, "ipMode": "VIP"}]}}});
    let params = PatchParams::apply(NAME).force();
    services.patch_status(name, &params, &Patch::Apply(&body(name, &status))).await?;
    Ok(())
}

/// Takes over the annotation that names the pool by force.
pub(crate) async fn claim_annotation(services: &Api<Service>, name: &str) -> Result<()> {
    let metadata =
        json!({"metadata": {"name": name, "annotations": {pool_annotation(GROUP): "elsewhere"}}});
    let params = PatchParams::apply(NAME).force();
    services.patch(name, &params, &Patch::Apply(&body(name, &metadata))).await?;
    Ok(())
}

/// Claims a Service again each time that another writer has changed its addresses. Returns the
/// number of claims.
pub(crate) fn claim_repeatedly(lab: &Lab, name: &str, length: Duration) -> Result<usize> {
    let its: IpAddr = OTHER_ADDRESS.parse()?;
    lab.api(async |client| {
        let services: Api<Service> = Api::default_namespaced(client);
        let (start, mut claims) = (wait::now(), 0);
        while start.elapsed() < length {
            if services::addresses(&services.get(name).await?) != [its] {
                claim_addresses(&services, name).await?;
                claims += 1;
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
        Ok(claims)
    })
}

/// Changes a Service's annotations as fast as possible, so that no version of it lasts. Returns the
/// number of changes.
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
