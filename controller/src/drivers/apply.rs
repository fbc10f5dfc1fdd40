//! One status write: server-side apply with our own field manager. A value with a client; run by [`super::writer`]'s tasks.
//!
//! A Service's annotation, addresses and condition go in one request to its status, which takes metadata too: half of it can
//! never be there alone. The first try does not force; if another manager owns a field, the Service is read again, and only
//! one that is still ours is forced, in exactly the version that was read.

use std::time::Duration;

use ferrolb_proto::api::{
    self, CONDITION_ADDRESS_ASSIGNED, CONDITION_ANNOUNCED, CONDITION_ESTABLISHED, CONDITION_VALID, Kind,
};
use ferrolb_proto::facts::{ConditionKind, Key, Service, ServiceObject};
use ferrolb_runtime::clock::Clock;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::FieldsV1;
use kube::api::{DynamicObject, Patch, PatchParams};
use kube::core::{ApiResource, Status as ApiStatus};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::desired::{Condition, Desired, PeerStatus, PoolStatus, ServiceStatus, Status, Target, ValidStatus, Write};

/// Our field manager (`metadata.managedFields[].manager`).
pub const FIELD_MANAGER: &str = "ferrolb-controller";
/// How long the API server may take for one request; a write is up to three, one after the other.
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(5);

/// Why a write was not done.
#[derive(Debug)]
pub enum Failure {
    /// The API server cannot be reached, is overloaded, or does not know us; that is said
    /// elsewhere, once for all requests.
    Unanswered,
    /// No answer within [`WRITE_TIMEOUT`].
    Late,
    /// An answer that cannot be read. The write was done, or not.
    Unreadable(String),
    /// The object is another one by now, or no longer ours.
    Outdated,
    /// The lease has ended: nothing was sent.
    Expired,
    /// The API server refused it.
    Refused(Box<ApiStatus>),
}

impl From<kube::Error> for Failure {
    fn from(error: kube::Error) -> Self {
        #[expect(clippy::wildcard_enum_match_arm, reason = "every error that is no answer is the same to us")]
        match error {
            kube::Error::Api(status) if status.is_not_found() => Self::Outdated,
            kube::Error::Api(status) if matches!(status.code, 401 | 429 | 502..=504) => Self::Unanswered,
            kube::Error::Api(status) => Self::Refused(status),
            kube::Error::SerdeError(_) | kube::Error::FromUtf8(_) => Self::Unreadable(error.to_string()),
            _ => Self::Unanswered,
        }
    }
}

impl Failure {
    /// The reason for a person, where this failure is not reported elsewhere.
    #[must_use]
    pub fn refusal(&self) -> Option<String> {
        match self {
            Self::Unanswered | Self::Outdated | Self::Expired => None,
            Self::Late => Some(format!("the API server did not answer within {} s", WRITE_TIMEOUT.as_secs())),
            Self::Unreadable(why) => Some(format!("the answer of the API server cannot be read: {why}")),
            Self::Refused(status) => Some(format!("{} (code {})", status.message, status.code)),
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
    /// Until when requests may be sent.
    desired: watch::Receiver<Desired>,
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
    pub fn new(client: Client, flags: &ferrolb_runtime::flags::CommonFlags, desired: watch::Receiver<Desired>) -> Self {
        Self {
            client: ClientOf(client),
            namespace: flags.namespace.clone(),
            group: flags.api_group.clone(),
            classes: flags.load_balancer_class.clone(),
            default_implementation: flags.default_implementation,
            desired,
        }
    }

    /// The API server's answer to one request, if it comes in time. Nothing is sent after the end
    /// of the lease: a process that was stopped in between would otherwise write beside the next
    /// leader.
    async fn answer<T>(&self, request: impl Future<Output = kube::Result<T>>) -> Result<T, Failure> {
        if Clock::now() >= self.desired.borrow().until {
            return Err(Failure::Expired);
        }
        match tokio::time::timeout(WRITE_TIMEOUT, request).await {
            Ok(answer) => answer.map_err(Into::into),
            Err(_) => Err(Failure::Late),
        }
    }

    /// Does one write.
    ///
    /// # Errors
    /// [`Failure`]; also when a request takes longer than [`WRITE_TIMEOUT`].
    pub async fn write(&self, write: &Write) -> Result<(), Failure> {
        match (&write.target, &write.status) {
            (Target::Service(key), Status::Service(status)) => self.service(key, status).await,
            (Target::Pool(name), Status::Pool(status)) => {
                self.own(Kind::IPAddressPool, name, pool_status(status, &now())).await
            }
            (Target::Peer(name), Status::Peer(status)) => {
                self.own(Kind::BGPPeer, name, peer_status(status, &now())).await
            }
            (target, status) => match (target.own(), status) {
                (Some((kind, name)), Status::Valid(status)) => self.own(kind, name, valid_status(status, &now())).await,
                (_, _) => unreachable!("{target} has no status {status:?}"),
            },
        }
    }

    async fn service(&self, key: &Key, status: &ServiceStatus) -> Result<(), Failure> {
        if status.theirs {
            return self.tell(key, status).await;
        }
        let services: Api<ServiceObject> = Api::namespaced(self.client.0.clone(), &key.namespace);
        let mut body = service_body(key, status, &self.group, &now());
        let params = PatchParams::apply(FIELD_MANAGER);
        match self.answer(services.patch_status(&key.name, &params, &Patch::Apply(&body))).await {
            Err(Failure::Refused(refused)) if refused.is_conflict() => {}
            Err(failure) => return Err(failure),
            Ok(written) => return self.clear(&services, &written, status).await,
        }
        let found = self.answer(services.get(&key.name)).await?;
        let version = found.metadata.resource_version.clone();
        let found = Service::read(found, &self.group);
        let ours = !found.load_balancer || found.is_ours(&self.classes, self.default_implementation);
        if found.uid != status.uid || !ours {
            return Err(Failure::Outdated);
        }
        body["metadata"]["resourceVersion"] = json!(version);
        let written = self.answer(services.patch_status(&key.name, &params.force(), &Patch::Apply(&body))).await?;
        self.clear(&services, &written, status).await
    }

    /// Writes conditions to a Service that another load balancer has, in exactly the version that was read. Addresses of which we are
    /// an owner are written again as they are there: what an owner leaves out is taken away.
    async fn tell(&self, key: &Key, status: &ServiceStatus) -> Result<(), Failure> {
        let resource = ApiResource::erase::<ServiceObject>(&());
        let services: Api<DynamicObject> = Api::namespaced_with(self.client.0.clone(), &key.namespace, &resource);
        let found = self.answer(services.get(&key.name)).await?;
        let read = found.clone().try_parse().map(|object| Service::read(object, &self.group));
        let contested = |service: &Service| service.is_contested(self.default_implementation);
        if !read.is_ok_and(|service| service.uid == status.uid && contested(&service)) {
            return Err(Failure::Outdated);
        }
        let mut body = service_body(key, status, &self.group, &now());
        body["metadata"]["resourceVersion"] = json!(found.metadata.resource_version);
        match kept_balancer(&found) {
            Some(balancer) => body["status"]["loadBalancer"] = balancer.clone(),
            None => drop(body["status"].as_object_mut().and_then(|status| status.remove("loadBalancer"))),
        }
        let params = PatchParams::apply(FIELD_MANAGER).force();
        self.answer(services.patch_status(&key.name, &params, &Patch::Apply(&body))).await.map(drop)
    }

    /// Takes away what leaving it out did not, because we do not own it: an annotation that
    /// somebody else has written too, as MetalLB did before a take-over, and all of it where
    /// `managedFields` were emptied. Only in the version that our own write has made.
    async fn clear(
        &self,
        services: &Api<ServiceObject>,
        written: &ServiceObject,
        status: &ServiceStatus,
    ) -> Result<(), Failure> {
        let is = Service::read(written.clone(), &self.group);
        let mut without = json!({"metadata": {"resourceVersion": written.metadata.resource_version}});
        let annotation = is.from_pool.is_some() && status.pool.is_none();
        if annotation {
            without["metadata"]["annotations"] = json!({api::from_pool(&self.group): null});
        }
        let kinds = [
            (ConditionKind::AddressAssigned, CONDITION_ADDRESS_ASSIGNED, &status.condition),
            (ConditionKind::Announced, CONDITION_ANNOUNCED, &status.announced),
        ];
        let left = kinds.into_iter().filter(|(kind, _, wanted)| wanted.is_none() && is.condition(*kind).is_some());
        let conditions: Vec<_> = left.map(|(_, name, _)| json!({"$patch": "delete", "type": name})).collect();
        if !conditions.is_empty() {
            without["status"]["conditions"] = json!(conditions);
        } else if !annotation {
            return Ok(());
        }
        let name = &is.key.name;
        self.answer(services.patch_status(name, &PatchParams::default(), &Patch::Strategic(&without))).await.map(drop)
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
        self.answer(objects.patch_status(name, &PatchParams::apply(FIELD_MANAGER).force(), &Patch::Apply(&body)))
            .await
            .map(drop)
    }
}

/// Conditions carry the wall clock's time, in seconds as the API server keeps it.
fn now() -> String {
    written(Timestamp::now())
}

fn written(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn condition(kind: &str, condition: &Condition, now: &str) -> Value {
    let since = condition.since.and_then(|since| Timestamp::from_second(since).ok()).map(written);
    json!({
        "type": kind,
        "status": condition.status.name(),
        "reason": condition.reason,
        "message": condition.message,
        "lastTransitionTime": since.as_deref().unwrap_or(now),
    })
}

/// The `uid` makes it a write to this Service or none: applying never creates one. An empty list of addresses is written
/// out, so that it also replaces one that another manager wrote. `ipMode` is legal only beside an `ip`.
fn service_body(key: &Key, status: &ServiceStatus, group: &str, now: &str) -> Value {
    let ingress: Vec<_> =
        status.addresses.iter().map(|address| json!({"ip": address, "ipMode": status.mode})).collect();
    let mut body = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"namespace": key.namespace, "name": key.name, "uid": status.uid},
        "status": {"loadBalancer": {"ingress": ingress}},
    });
    if let Some(pool) = &status.pool {
        body["metadata"]["annotations"] = json!({api::from_pool(group): pool});
    }
    let assigned = status.condition.iter().map(|wanted| condition(CONDITION_ADDRESS_ASSIGNED, wanted, now));
    let announced = status.announced.iter().map(|wanted| condition(CONDITION_ANNOUNCED, wanted, now));
    // One that is left out is taken away.
    let conditions: Vec<_> = assigned.chain(announced).collect();
    if !conditions.is_empty() {
        body["status"]["conditions"] = json!(conditions);
    }
    body
}

/// The addresses of a Service as they are, if we are an owner of them.
fn kept_balancer(found: &DynamicObject) -> Option<&Value> {
    let ours = found.managed_fields().iter().filter(|entry| entry.manager.as_deref() == Some(FIELD_MANAGER));
    let owned = |fields: &FieldsV1| fields.0.pointer("/f:status/f:loadBalancer").is_some();
    let owned = ours.filter_map(|entry| entry.fields_v1.as_ref()).any(owned);
    found.data["status"].get("loadBalancer").filter(|_| owned)
}

/// What is none is a field that the CRD does not have.
fn pool_status(status: &PoolStatus, now: &str) -> Value {
    let mut body = status.valid.as_ref().map_or_else(|| json!({}), |valid| valid_status(valid, now));
    let fields = ["assignedIPv4", "assignedIPv6"].into_iter().zip(status.assigned.map(Some));
    let fields = fields.chain(["availableIPv4", "availableIPv6"].into_iter().zip(status.available));
    for (field, number) in fields {
        if let Some(number) = number {
            body[field] = json!(number);
        }
    }
    if let Some(text) = &status.text {
        body["available"] = json!(text);
    }
    body
}

/// What is none is left out, and taken away where it was there.
fn peer_status(status: &PeerStatus, now: &str) -> Value {
    let mut body = valid_status(&status.valid, now);
    let established = status.established.iter().map(|wanted| condition(CONDITION_ESTABLISHED, wanted, now));
    if let Some(conditions) = body["conditions"].as_array_mut() {
        conditions.extend(established);
    }
    if let Some(sessions) = &status.sessions {
        body["sessions"] = json!(sessions);
    }
    body
}

fn valid_status(status: &ValidStatus, now: &str) -> Value {
    json!({
        "conditions": [condition(CONDITION_VALID, &status.condition, now)],
        "observedGeneration": status.generation,
    })
}

#[cfg(test)]
pub(super) mod tests;
