//! One status write: server-side apply with our own field manager. A value with a client; run by [`super::writer`]'s tasks.
//!
//! A Service's annotation, addresses and condition go in one request to its status, which takes metadata too: half of it can
//! never be there alone. The first try does not force; if another manager owns a field, the Service is read again, and only
//! one that is still ours is forced, in exactly the version that was read.

use std::time::Duration;

use ferrolb_proto::api::{self, ANNOTATION_FROM_POOL, CONDITION_ADDRESS_ASSIGNED, CONDITION_VALID, Kind};
use ferrolb_proto::facts::{Key, Service, ServiceObject};
use jiff::Timestamp;
use kube::api::{DynamicObject, Patch, PatchParams};
use kube::core::Status as ApiStatus;
use kube::{Api, Client};
use serde_json::{Value, json};

use crate::desired::{AdvertisementStatus, Condition, PoolStatus, ServiceStatus, Status, Target, Write};

/// Our field manager (`metadata.managedFields[].manager`).
pub const FIELD_MANAGER: &str = "ferrolb-controller";
/// How long the API server may take for one request.
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(5);

/// Why a write was not done.
#[derive(Debug)]
pub enum Failure {
    /// No answer; that is said elsewhere, once for all requests.
    Unanswered,
    /// The object is another one by now, or no longer ours.
    Outdated,
    /// The API server refused it.
    Refused(Box<ApiStatus>),
}

impl From<kube::Error> for Failure {
    fn from(error: kube::Error) -> Self {
        #[expect(clippy::wildcard_enum_match_arm, reason = "every error that is no answer is the same to us")]
        match error {
            kube::Error::Api(status) if status.is_not_found() => Self::Outdated,
            kube::Error::Api(status) => Self::Refused(status),
            _ => Self::Unanswered,
        }
    }
}

/// Writes statuses.
#[derive(Clone, Debug)]
pub struct Applier {
    client: ClientOf,
    namespace: String,
    group: String,
    classes: Vec<String>,
    default_implementation: bool,
}

/// A client that can be printed.
#[derive(Clone)]
struct ClientOf(Client);

impl std::fmt::Debug for ClientOf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Client")
    }
}

impl Applier {
    /// An applier with the settings of the common flags.
    #[must_use]
    pub fn new(client: Client, flags: &ferrolb_runtime::flags::CommonFlags) -> Self {
        Self {
            client: ClientOf(client),
            namespace: flags.namespace.clone(),
            group: flags.api_group.clone(),
            classes: flags.load_balancer_class.clone(),
            default_implementation: flags.default_implementation,
        }
    }

    /// Does one write.
    ///
    /// # Errors
    /// [`Failure`]; also when it takes longer than [`WRITE_TIMEOUT`].
    pub async fn write(&self, write: &Write) -> Result<(), Failure> {
        tokio::time::timeout(WRITE_TIMEOUT, self.send(write)).await.unwrap_or(Err(Failure::Unanswered))
    }

    async fn send(&self, write: &Write) -> Result<(), Failure> {
        match (&write.target, &write.status) {
            (Target::Service(key), Status::Service(status)) => self.service(key, status).await,
            (Target::Pool(name), Status::Pool(status)) => {
                self.own(Kind::IPAddressPool, name, pool_status(status, now())).await
            }
            (Target::Advertisement(name), Status::Advertisement(status)) => {
                self.own(Kind::L2Advertisement, name, advertisement_status(status, now())).await
            }
            (target, status) => unreachable!("{target} has no status {status:?}"),
        }
    }

    async fn service(&self, key: &Key, status: &ServiceStatus) -> Result<(), Failure> {
        let services: Api<ServiceObject> = Api::namespaced(self.client.0.clone(), &key.namespace);
        let mut body = service_body(key, status, now());
        let params = PatchParams::apply(FIELD_MANAGER);
        match services.patch_status(&key.name, &params, &Patch::Apply(&body)).await {
            Err(kube::Error::Api(refused)) if refused.is_conflict() => {}
            answer => return answer.map(|_| ()).map_err(Into::into),
        }
        let found = services.get(&key.name).await?;
        let version = found.metadata.resource_version.clone();
        let found = Service::from(found);
        let ours = !found.load_balancer || found.is_ours(&self.classes, self.default_implementation);
        if found.uid != status.uid || !ours {
            return Err(Failure::Outdated);
        }
        body["metadata"]["resourceVersion"] = json!(version);
        services.patch_status(&key.name, &params.force(), &Patch::Apply(&body)).await?;
        Ok(())
    }

    /// Conditions and counts of our own kinds are nobody else's, so these are forced.
    async fn own(&self, kind: Kind, name: &str, status: Value) -> Result<(), Failure> {
        let resource = api::resource(kind, &self.group);
        let body = json!({
            "apiVersion": resource.api_version, "kind": resource.kind,
            "metadata": {"namespace": self.namespace, "name": name},
            "status": status,
        });
        let objects: Api<DynamicObject> = Api::namespaced_with(self.client.0.clone(), &self.namespace, &resource);
        objects.patch_status(name, &PatchParams::apply(FIELD_MANAGER).force(), &Patch::Apply(&body)).await?;
        Ok(())
    }
}

/// Conditions carry the wall clock's time, in seconds as the API server keeps it.
fn now() -> String {
    Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn condition(kind: &str, condition: &Condition, now: &str) -> Value {
    json!({
        "type": kind,
        "status": if condition.is_true { "True" } else { "False" },
        "reason": condition.reason,
        "message": condition.message,
        "lastTransitionTime": condition.since.as_deref().unwrap_or(now),
    })
}

/// The `uid` makes it a write to this Service or none: applying never creates one. An empty list of addresses is written
/// out, so that it also replaces one that another manager wrote.
fn service_body(key: &Key, status: &ServiceStatus, now: String) -> Value {
    let ingress: Vec<_> = status.addresses.iter().map(|address| json!({"ip": address, "ipMode": "VIP"})).collect();
    let mut body = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"namespace": key.namespace, "name": key.name, "uid": status.uid},
        "status": {"loadBalancer": {"ingress": ingress}},
    });
    if let Some(pool) = &status.pool {
        body["metadata"]["annotations"] = json!({ANNOTATION_FROM_POOL: pool});
    }
    if let Some(wanted) = &status.condition {
        body["status"]["conditions"] = json!([condition(CONDITION_ADDRESS_ASSIGNED, wanted, &now)]);
    }
    body
}

fn pool_status(status: &PoolStatus, now: String) -> Value {
    let mut body = json!({
        "assignedIPv4": status.assigned[0],
        "assignedIPv6": status.assigned[1],
        "conditions": [condition(CONDITION_VALID, &status.valid, &now)],
        "observedGeneration": status.generation,
    });
    for (field, available) in ["availableIPv4", "availableIPv6"].into_iter().zip(status.available) {
        if let Some(available) = available {
            body[field] = json!(available);
        }
    }
    body
}

fn advertisement_status(status: &AdvertisementStatus, now: String) -> Value {
    json!({
        "conditions": [condition(CONDITION_VALID, &status.valid, &now)],
        "observedGeneration": status.generation,
    })
}

#[cfg(test)]
mod tests;
