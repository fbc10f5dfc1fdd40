//! Another field manager, who writes what is ours to write.

use crate::services;
use anyhow::Result;
use ferrolb_proto::api::{GROUP, from_pool};
use ferrolb_tests::{Lab, wait};
use k8s_openapi::api::core::v1::Service;
use kube::api::{Api, Patch, PatchParams};
use serde_json::{Value, json};
use std::net::IpAddr;
use std::time::Duration;

/// The address that it writes: of no pool.
pub(crate) const ITS_ADDRESS: &str = "192.0.2.1";
/// Its name in `metadata.managedFields`.
const NAME: &str = "rival";
/// How often it looks whether its address is still there.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

fn body(name: &str, fields: &Value) -> Value {
    let mut body = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}});
    if let (Some(body), Value::Object(fields)) = (body.as_object_mut(), fields.clone()) {
        body.extend(fields);
    }
    body
}

/// Takes the addresses in a Service's status by force.
pub(crate) async fn claim(services: &Api<Service>, name: &str) -> Result<()> {
    let status = json!({"status": {"loadBalancer": {"ingress": [{"ip": ITS_ADDRESS, "ipMode": "VIP"}]}}});
    let params = PatchParams::apply(NAME).force();
    services.patch_status(name, &params, &Patch::Apply(&body(name, &status))).await?;
    Ok(())
}

/// Takes the annotation that names the pool by force.
pub(crate) async fn annotate(services: &Api<Service>, name: &str) -> Result<()> {
    let metadata = json!({"metadata": {"name": name, "annotations": {from_pool(GROUP): "elsewhere"}}});
    let params = PatchParams::apply(NAME).force();
    services.patch(name, &params, &Patch::Apply(&body(name, &metadata))).await?;
    Ok(())
}

/// Claims a Service again each time that somebody else has written its addresses; how often it did.
pub(crate) fn insist(lab: &Lab, name: &str, length: Duration) -> Result<usize> {
    let its: IpAddr = ITS_ADDRESS.parse()?;
    lab.api(async |client| {
        let services: Api<Service> = Api::default_namespaced(client);
        let (start, mut claims) = (wait::now(), 0);
        while start.elapsed() < length {
            if services::addresses(&services.get(name).await?) != [its] {
                claim(&services, name).await?;
                claims += 1;
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
        Ok(claims)
    })
}

/// Changes a Service's annotations as fast as it can, so that no version of it lasts; how often it did.
pub(crate) fn fidget(lab: &Lab, name: &str, length: Duration) -> Result<usize> {
    lab.api(async |client| {
        let services: Api<Service> = Api::default_namespaced(client);
        let (start, mut changes) = (wait::now(), 0);
        while start.elapsed() < length {
            changes += 1;
            let patch = json!({"metadata": {"annotations": {"example.com/count": changes.to_string()}}});
            services.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await?;
        }
        Ok(changes)
    })
}
