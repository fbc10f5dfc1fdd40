//! Writes single statuses by server-side apply with the controller's field manager.
//! [`super::writer`] runs each write in a task.
//!
//! A Service's annotations, addresses, and conditions go in one request to the status subresource,
//! which also accepts metadata. A partial write is therefore impossible.
//!
//! The first request does not force ownership of fields. If another manager owns a field, the
//! Service is read again. If the Service is still FerroLB's, a second request forces ownership, but
//! only for exactly the version that was read.

use std::collections::BTreeMap;
use std::time::Duration;

use ferrolb_controller_core::desired::{
    Condition, CustomResourceStatus, Desired, IngressChange, PeerStatus, PoolStatus, ServiceStatus,
    Status, ValidStatus, Write,
};
use ferrolb_proto::api::{
    self, ASSIGNED_ANNOTATION, CONDITION_ADDRESS_ASSIGNED, CONDITION_ANNOUNCED,
    CONDITION_ESTABLISHED, CONDITION_VALID,
};
use ferrolb_proto::facts::{
    Key, RememberedAddresses, Service, ServiceConditionType, ServiceObject,
};
use ferrolb_runtime::clock::Clock;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::FieldsV1;
use kube::api::{DynamicObject, Patch, PatchParams};
use kube::core::{ApiResource, Status as ApiStatus};
use kube::{Api, Client, ResourceExt};
use serde_json::{Map, Value, json};
use tokio::sync::watch;

/// Timeout of one request. A write consists of up to four requests, one after the other.
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(5);

/// Reason why a write failed.
#[derive(Debug)]
pub enum WriteFailure {
    /// The API server is unreachable or overloaded, or rejects the credentials.
    /// [`ferrolb_runtime::api_health`] logs this once for all requests, except an overload (429).
    Unavailable,
    /// The API server did not respond within [`WRITE_TIMEOUT`].
    TimedOut,
    /// The response cannot be read, so it is unknown whether the status was written.
    Unreadable(String),
    /// The object was deleted or replaced, or is not FerroLB's any more.
    Outdated,
    /// The lease has expired, so no request was sent.
    Expired,
    /// The API server rejected the request.
    Refused(Box<ApiStatus>),
}

impl From<kube::Error> for WriteFailure {
    fn from(error: kube::Error) -> Self {
        #[expect(
            clippy::wildcard_enum_match_arm,
            reason = "every error without a response is handled alike"
        )]
        match error {
            kube::Error::Api(status) if status.is_not_found() => Self::Outdated,
            kube::Error::Api(status) if matches!(status.code, 401 | 429 | 502..=504) => {
                Self::Unavailable
            }
            kube::Error::Api(status) => Self::Refused(status),
            kube::Error::SerdeError(_) | kube::Error::FromUtf8(_) => {
                Self::Unreadable(error.to_string())
            }
            _ => Self::Unavailable,
        }
    }
}

impl WriteFailure {
    /// Returns the reason of the failure as text. `None`: the failure is logged elsewhere or needs
    /// no report.
    #[must_use]
    pub fn refusal(&self) -> Option<String> {
        match self {
            Self::Unavailable | Self::Outdated | Self::Expired => None,
            Self::TimedOut => {
                Some(format!("the API server did not respond within {} s", WRITE_TIMEOUT.as_secs()))
            }
            Self::Unreadable(why) => {
                Some(format!("cannot read the response of the API server: {why}"))
            }
            Self::Refused(status) => Some(format!("{} (code {})", status.message, status.code)),
        }
    }
}

/// Executes single status writes.
#[derive(Clone, Debug)]
pub struct Applier {
    client: DebugClient,
    namespace: String,
    group: String,
    /// The controller's field manager (`metadata.managedFields[].manager`).
    field_manager: String,
    classes: Vec<String>,
    default_implementation: bool,
    /// The latest [`Desired`], which contains `until`, the end of the lease.
    desired: watch::Receiver<Desired>,
}

/// A client that implements `Debug`.
#[derive(Clone)]
struct DebugClient(Client);

impl std::fmt::Debug for DebugClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Client")
    }
}

impl Applier {
    /// Creates an applier with the settings of the common flags.
    #[must_use]
    pub fn new(
        client: Client,
        flags: &ferrolb_runtime::flags::CommonFlags,
        desired: watch::Receiver<Desired>,
    ) -> Self {
        Self {
            client: DebugClient(client),
            namespace: flags.namespace.clone(),
            group: flags.api_group.clone(),
            field_manager: api::field_manager(&flags.namespace),
            classes: flags.load_balancer_class.clone(),
            default_implementation: flags.default_implementation,
            desired,
        }
    }

    /// Sends one request and returns the response, or a failure if the response takes too long.
    ///
    /// Sends nothing after the end of the lease. Otherwise a process that was stopped for a while
    /// could write at the same time as the next leader.
    async fn send<T>(
        &self,
        request: impl Future<Output = kube::Result<T>>,
    ) -> Result<T, WriteFailure> {
        if Clock::now() >= self.desired.borrow().until {
            return Err(WriteFailure::Expired);
        }
        match tokio::time::timeout(WRITE_TIMEOUT, request).await {
            Ok(response) => response.map_err(Into::into),
            Err(_) => Err(WriteFailure::TimedOut),
        }
    }

    /// Writes the status of one object.
    ///
    /// # Errors
    /// [`WriteFailure`], also if a request takes longer than [`WRITE_TIMEOUT`].
    pub async fn write(&self, write: &Write) -> Result<(), WriteFailure> {
        match &write.status {
            Status::Service(key, status) => self.write_service(key, status).await,
            Status::CustomResource(name, status) => self.write_custom_resource(name, status).await,
            Status::AddressMemory(services) => self.write_address_memory(services).await,
        }
    }

    async fn write_service(&self, key: &Key, status: &ServiceStatus) -> Result<(), WriteFailure> {
        match status.ingress {
            IngressChange::Assign => self.assign(key, status).await,
            IngressChange::KeepForMetalLb => self.write_metallb_service(key, status).await,
            IngressChange::Release => self.release(key, status).await,
        }
    }

    /// Writes the addresses of a Service that FerroLB serves.
    async fn assign(&self, key: &Key, status: &ServiceStatus) -> Result<(), WriteFailure> {
        let services: Api<ServiceObject> = Api::namespaced(self.client.0.clone(), key.namespace());
        let mut body = service_body(key, status, &self.group, &now());
        let params = PatchParams::apply(&self.field_manager);
        match self.send(services.patch_status(key.name(), &params, &Patch::Apply(&body))).await {
            Err(WriteFailure::Refused(refused)) if refused.is_conflict() => {}
            Err(failure) => return Err(failure),
            Ok(written) => return self.remove_leftovers(&services, &written, status).await,
        }
        let found = self.send(services.get(key.name())).await?;
        let version = found.metadata.resource_version.clone();
        let found = Service::read(found, &self.group);
        let may_write = found.is_served_by_ferrolb(&self.classes, self.default_implementation)
            && found
                .assigned
                .iter()
                .map(|assigned| assigned.address)
                .eq(status.seen.iter().copied());
        if found.uid != status.uid || !may_write {
            return Err(WriteFailure::Outdated);
        }
        body["metadata"]["resourceVersion"] = json!(version);
        let written = self
            .send(services.patch_status(key.name(), &params.force(), &Patch::Apply(&body)))
            .await?;
        self.remove_leftovers(&services, &written, status).await
    }

    /// Removes the addresses and other fields of a Service that only this controller owns, except
    /// for the conditions in `status`.
    ///
    /// Fields that another controller also owns remain, because it may serve the Service now. If
    /// the Service is no load balancer any more, none of FerroLB's fields has a meaning.
    async fn release(&self, key: &Key, status: &ServiceStatus) -> Result<(), WriteFailure> {
        let services: Api<ServiceObject> = Api::namespaced(self.client.0.clone(), key.namespace());
        let found = self.send(services.get(key.name())).await?;
        let version = found.metadata.resource_version.clone();
        let found = Service::read(found, &self.group);
        // The Service may be FerroLB's again, or FerroLB's address may have replaced the other one.
        let is_ours = match &status.condition {
            None => found.is_served_by_ferrolb(&self.classes, self.default_implementation),
            Some(_) => found.pool_annotation.is_some(),
        };
        if found.uid != status.uid || is_ours {
            return Err(WriteFailure::Outdated);
        }
        let mut body = service_body(key, status, &self.group, &now());
        body["metadata"]["resourceVersion"] = json!(version);
        remove_load_balancer(&mut body);
        let params = PatchParams::apply(&self.field_manager).force();
        let written =
            self.send(services.patch_status(key.name(), &params, &Patch::Apply(&body))).await?;
        if Service::read(written.clone(), &self.group).load_balancer {
            return Ok(());
        }
        self.remove_leftovers(&services, &written, status).await
    }

    /// Writes conditions to a Service that MetalLB serves, but only to exactly the version that was
    /// read.
    ///
    /// If the controller co-owns `status.loadBalancer`, the write repeats the current value.
    /// Server-side apply would remove a field that its owner omits.
    async fn write_metallb_service(
        &self,
        key: &Key,
        status: &ServiceStatus,
    ) -> Result<(), WriteFailure> {
        let resource = ApiResource::erase::<ServiceObject>(&());
        let services: Api<DynamicObject> =
            Api::namespaced_with(self.client.0.clone(), key.namespace(), &resource);
        let found = self.send(services.get(key.name())).await?;
        let read = found.clone().try_parse().map(|object| Service::read(object, &self.group));
        let served_by_metallb =
            |service: &Service| service.is_served_by_metallb(self.default_implementation);
        if !read.is_ok_and(|service| service.uid == status.uid && served_by_metallb(&service)) {
            return Err(WriteFailure::Outdated);
        }
        let mut body = service_body(key, status, &self.group, &now());
        body["metadata"]["resourceVersion"] = json!(found.metadata.resource_version);
        match co_owned_load_balancer(&found, &self.field_manager) {
            Some(balancer) => body["status"]["loadBalancer"] = balancer.clone(),
            None => remove_load_balancer(&mut body),
        }
        let params = PatchParams::apply(&self.field_manager).force();
        self.send(services.patch_status(key.name(), &params, &Patch::Apply(&body))).await.map(drop)
    }

    /// Removes annotations and conditions that the preceding apply request omitted and that the
    /// Service still has.
    ///
    /// Server-side apply keeps an omitted field that another manager also owns, for example an
    /// annotation that MetalLB wrote before an in-place migration. If another client has emptied
    /// `managedFields`, server-side apply keeps all omitted fields. The removal applies only to the
    /// version that the controller's own write created.
    async fn remove_leftovers(
        &self,
        services: &Api<ServiceObject>,
        written: &ServiceObject,
        status: &ServiceStatus,
    ) -> Result<(), WriteFailure> {
        let current = Service::read(written.clone(), &self.group);
        let mut patch = json!({"metadata": {"resourceVersion": written.metadata.resource_version}});
        let annotations = [
            (api::pool_annotation(&self.group), status.pool.is_none()),
            (ASSIGNED_ANNOTATION.to_owned(), status.record.is_none()),
        ];
        let present = |name: &String| written.annotations().contains_key(name);
        let removed: Map<_, _> = annotations
            .into_iter()
            .filter(|(name, is_omitted)| *is_omitted && present(name))
            .map(|(name, _)| (name, Value::Null))
            .collect();
        let has_annotations = !removed.is_empty();
        if has_annotations {
            patch["metadata"]["annotations"] = removed.into();
        }
        let conditions_by_type = [
            (ServiceConditionType::AddressAssigned, CONDITION_ADDRESS_ASSIGNED, &status.condition),
            (ServiceConditionType::Announced, CONDITION_ANNOUNCED, &status.announced),
        ];
        let leftovers = conditions_by_type
            .into_iter()
            .filter(|(kind, _, wanted)| wanted.is_none() && current.condition(*kind).is_some());
        let conditions: Vec<_> =
            leftovers.map(|(_, name, _)| json!({"$patch": "delete", "type": name})).collect();
        if !conditions.is_empty() {
            patch["status"]["conditions"] = json!(conditions);
        } else if !has_annotations {
            return Ok(());
        }
        let name = current.key.name();
        self.send(services.patch_status(name, &PatchParams::default(), &Patch::Strategic(&patch)))
            .await
            .map(drop)
    }

    /// Writes the status of a custom resource. Forces ownership, because no other manager owns
    /// these conditions and counts.
    async fn write_custom_resource(
        &self,
        name: &str,
        status: &CustomResourceStatus,
    ) -> Result<(), WriteFailure> {
        let resource = api::resource(status.kind(), &self.group);
        let body = json!({
            "apiVersion": resource.api_version, "kind": resource.kind,
            "metadata": {"namespace": self.namespace, "name": name},
            "status": custom_resource_status(status, &now()),
        });
        let objects: Api<DynamicObject> =
            Api::namespaced_with(self.client.0.clone(), &self.namespace, &resource);
        self.send(objects.patch_status(
            name,
            &PatchParams::apply(&self.field_manager).force(),
            &Patch::Apply(&body),
        ))
        .await
        .map(drop)
    }

    /// Writes the ConfigMap with the addresses of deleted Services. Forces ownership, because no
    /// other manager owns its data.
    async fn write_address_memory(
        &self,
        services: &[RememberedAddresses],
    ) -> Result<(), WriteFailure> {
        let data: BTreeMap<_, _> = services.iter().map(RememberedAddresses::entry).collect();
        let body = json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"namespace": self.namespace, "name": api::ADDRESS_MEMORY},
            "data": data,
        });
        let maps: Api<ConfigMap> = Api::namespaced(self.client.0.clone(), &self.namespace);
        let (name, params) = (api::ADDRESS_MEMORY, PatchParams::apply(&self.field_manager).force());
        let written = self.send(maps.patch(name, &params, &Patch::Apply(&body))).await?;
        // Apply keeps the entries of another field manager, as after a restoration from a backup.
        let present = written.data.unwrap_or_default().into_keys();
        let leftovers: Map<_, _> =
            present.filter(|it| !data.contains_key(it)).map(|it| (it, Value::Null)).collect();
        if leftovers.is_empty() {
            return Ok(());
        }
        let patch = Patch::Merge(json!({"data": leftovers}));
        self.send(maps.patch(name, &PatchParams::default(), &patch)).await.map(drop)
    }
}

/// Returns the wall-clock time in the format of conditions: whole seconds, as the API server stores
/// it.
fn now() -> String {
    format_time(Timestamp::now())
}

fn format_time(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn condition(kind: &str, condition: &Condition, now: &str) -> Value {
    let since =
        condition.since.and_then(|since| Timestamp::from_second(since).ok()).map(format_time);
    json!({
        "type": kind,
        "status": condition.status.name(),
        "reason": condition.reason,
        "message": condition.message,
        "lastTransitionTime": since.as_deref().unwrap_or(now),
    })
}

/// Returns the body of a Service write.
///
/// The `uid` limits the write to this Service, so that apply never creates a new one. An empty
/// address list is written explicitly, so that it also replaces a list of another manager. `ipMode`
/// is valid only together with an `ip`.
fn service_body(key: &Key, status: &ServiceStatus, group: &str, now: &str) -> Value {
    let ingress: Vec<_> = status
        .addresses
        .iter()
        .map(|address| json!({"ip": address, "ipMode": status.mode}))
        .collect();
    let mut body = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"namespace": key.namespace(), "name": key.name(), "uid": status.uid},
        "status": {"loadBalancer": {"ingress": ingress}},
    });
    let pool = status.pool.iter().map(|pool| (api::pool_annotation(group), json!(pool)));
    let record = status.record.iter();
    let record = record.map(|record| (ASSIGNED_ANNOTATION.to_owned(), json!(record.text(key))));
    let annotations: Map<_, _> = pool.chain(record).collect();
    if !annotations.is_empty() {
        body["metadata"]["annotations"] = annotations.into();
    }
    let assigned =
        status.condition.iter().map(|wanted| condition(CONDITION_ADDRESS_ASSIGNED, wanted, now));
    let announced =
        status.announced.iter().map(|wanted| condition(CONDITION_ANNOUNCED, wanted, now));
    // Server-side apply removes a condition that the controller wrote before and omits now.
    let conditions: Vec<_> = assigned.chain(announced).collect();
    if !conditions.is_empty() {
        body["status"]["conditions"] = json!(conditions);
    }
    body
}

/// Removes `status.loadBalancer` from the body of a Service write, and an empty `status`: the
/// controller would own that.
fn remove_load_balancer(body: &mut Value) {
    let Some(body) = body.as_object_mut() else { return };
    if let Some(status) = body.get_mut("status").and_then(Value::as_object_mut) {
        status.remove("loadBalancer");
        if status.is_empty() {
            body.remove("status");
        }
    }
}

/// Returns the current `status.loadBalancer` of a Service if `field_manager` owns a part of it.
fn co_owned_load_balancer<'a>(found: &'a DynamicObject, field_manager: &str) -> Option<&'a Value> {
    let own_entries = found
        .managed_fields()
        .iter()
        .filter(|entry| entry.manager.as_deref() == Some(field_manager));
    let owned = |fields: &FieldsV1| fields.0.pointer("/f:status/f:loadBalancer").is_some();
    let owned = own_entries.filter_map(|entry| entry.fields_v1.as_ref()).any(owned);
    found.data["status"].get("loadBalancer").filter(|_| owned)
}

fn custom_resource_status(status: &CustomResourceStatus, now: &str) -> Value {
    match status {
        CustomResourceStatus::Pool(status) => pool_status(status, now),
        CustomResourceStatus::Peer(status) => peer_status(status, now),
        CustomResourceStatus::Valid(_, status) => valid_status(status, now),
    }
}

/// Returns the status of an IPAddressPool. Omits a number that does not fit into an `i64`.
fn pool_status(status: &PoolStatus, now: &str) -> Value {
    let mut body = valid_status(&status.valid, now);
    let fields = ["assignedIPv4", "assignedIPv6"].into_iter().zip(status.assigned.map(Some));
    let fields = fields.chain(["availableIPv4", "availableIPv6"].into_iter().zip(status.available));
    for (field, number) in fields {
        if let Some(number) = number {
            body[field] = json!(number);
        }
    }
    body["available"] = json!(status.text);
    body
}

/// Returns the status of a BGPPeer. Omits each field that is `None`, so that apply removes a value
/// that was written before.
fn peer_status(status: &PeerStatus, now: &str) -> Value {
    let mut body = valid_status(&status.valid, now);
    let established =
        status.established.iter().map(|wanted| condition(CONDITION_ESTABLISHED, wanted, now));
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
