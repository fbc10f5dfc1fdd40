//! A copy of the objects that FerroLB reads, and the controller's state that follows from them.
//! Performs I/O.

use anyhow::{Context as _, Result, bail};
use ferrolb_controller_core::event::{Event, ObjectChange};
use ferrolb_controller_core::state::{Config, State};
use ferrolb_core::store::Change;
use ferrolb_core::watched::KindVisitor;
use ferrolb_proto::api;
use ferrolb_proto::facts::{AddressMemory, Key, Kind, Namespace, Pod, Pool, ReadContext, Speaker};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{ListParams, Request};
use kube::{Api, Client};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::events::leading_state;
use crate::installation::{self, Installation};
use crate::read::{NoPermission, permitted};

/// Seconds between the end of a lease and the time from which it counts as expired. The user's
/// clock can differ from the one of the controller.
const CLOCK_TOLERANCE: i64 = 60;

/// A copy of the objects that FerroLB reads.
pub struct Snapshot {
    /// The installation.
    pub installation: Installation,
    /// Message of the API server if it does not permit the list of Namespaces. Their labels then
    /// count as absent, so pools with Namespace selectors select no Service.
    pub namespaces_denied: Option<String>,
    /// Message of the API server if it does not permit the read of the speakers' DaemonSet. Its
    /// flags then count as absent.
    pub speaker_denied: Option<String>,
    events: Vec<Event>,
}

/// The items of a list, without their decoded fields.
#[derive(Deserialize)]
struct RawList<'a> {
    #[serde(borrow)]
    items: Vec<&'a RawValue>,
}

/// The key of an object whose other fields cannot be decoded.
#[derive(Deserialize)]
struct Named {
    metadata: NamedMetadata,
}

#[derive(Deserialize)]
struct NamedMetadata {
    name: String,
    namespace: Option<String>,
}

/// The objects of all kinds.
#[derive(Default)]
struct Lists {
    events: Vec<Event>,
    /// See [`Snapshot::namespaces_denied`].
    namespaces_denied: Option<String>,
    /// True if the cluster does not have the kind IPAddressPool.
    lacks_pools: bool,
}

/// A list of the objects of a kind, with the name of the kind.
type List = (&'static str, Result<Option<Vec<Event>>, NoPermission>);

/// Requests the lists of all kinds.
struct ListRequests<'a> {
    reader: &'a Reader<'a>,
    requests: Vec<BoxFuture<'a, Result<List>>>,
}

/// Reads lists from the API server.
struct Reader<'a> {
    client: &'a Client,
    /// Namespace of the installation.
    namespace: &'a str,
    config: &'a Config,
}

impl Snapshot {
    /// Reads all objects. `namespace` is the namespace of the installation, and `unix_time` the
    /// present time in seconds since 1970.
    ///
    /// # Errors
    /// The API server is unavailable, does not permit a list, or the namespace has no FerroLB.
    pub async fn read(client: &Client, namespace: &str, unix_time: i64) -> Result<Self> {
        let snapshot = Self::read_any(client, namespace, unix_time).await?;
        if !snapshot.installation.exists {
            bail!(
                "FerroLB is not installed in the namespace {namespace}: install it, or name its \
                 namespace with --installation"
            );
        }
        match snapshot.namespaces_denied.as_ref().or(snapshot.speaker_denied.as_ref()) {
            Some(message) => bail!(NoPermission(message.clone())),
            None => Ok(snapshot),
        }
    }

    /// Reads all objects, also before an installation.
    ///
    /// # Errors
    /// The API server is unavailable, or does not permit a read other than those of Namespaces and
    /// the DaemonSet ([`NoPermission`]).
    pub async fn read_any(client: &Client, namespace: &str, unix_time: i64) -> Result<Self> {
        let deployments = Api::<Deployment>::namespaced(client.clone(), namespace);
        let deployment = permitted(deployments.get_opt(installation::CONTROLLER).await)?.flatten();
        let config = installation::config(namespace, deployment.as_ref());
        let reader = Reader { client, namespace, config: &config };
        let (lists, speaker, lease) =
            futures::try_join!(reader.lists(), permission_of(reader.speaker()), reader.lease())?;
        let (speaker, speaker_denied) = or_denied(speaker);
        let leader = lease.and_then(|lease| leader(&lease, unix_time));
        let has_own = |event: &Event| {
            matches!(
                event,
                Event::Object(
                    ObjectChange::Pool(Change::Apply(_)) | ObjectChange::Speaker(Change::Apply(_))
                )
            )
        };
        Ok(Self {
            installation: Installation {
                namespace: namespace.to_owned(),
                exists: deployment.is_some()
                    || leader.is_some()
                    || lists.events.iter().any(has_own),
                marks_pods: installation::marks_pods(&config, deployment.as_ref()),
                ignores_exclude_label: installation::ignores_exclude_label(speaker.as_ref()),
                controllers: deployment.as_ref().map(ready_replicas),
                leader,
                lacks_pools: lists.lacks_pools,
                config,
            },
            namespaces_denied: lists.namespaces_denied,
            speaker_denied,
            events: lists.events,
        })
    }

    /// Returns the installation, and the state of a controller that leads and has just received
    /// these objects. `unix_time` is the present time, in seconds since 1970.
    #[must_use]
    pub fn into_state(self, unix_time: i64) -> (Installation, State) {
        let state = leading_state(&self.installation.config, unix_time, self.events);
        (self.installation, state)
    }
}

impl Reader<'_> {
    /// Reads the objects of all kinds.
    async fn lists(&self) -> Result<Lists> {
        let mut requests = ListRequests { reader: self, requests: Vec::new() };
        Event::for_each_kind(&mut requests);
        Event::for_each_own_kind(&mut requests);
        let mut lists = Lists::default();
        for (kind, list) in futures::future::try_join_all(requests.requests).await? {
            match list {
                Ok(Some(events)) => lists.events.extend(events),
                Ok(None) => lists.lacks_pools |= kind == Pool::NAME,
                Err(NoPermission(message)) if kind == Namespace::NAME => {
                    lists.namespaces_denied = Some(message);
                }
                Err(_) if kind == AddressMemory::NAME || kind == Pod::NAME => {}
                Err(denied) => bail!(denied),
            }
        }
        Ok(lists)
    }

    /// Reads the DaemonSet of the speakers.
    async fn speaker(&self) -> Result<Option<DaemonSet>> {
        let sets = Api::<DaemonSet>::namespaced(self.client.clone(), self.namespace);
        Ok(permitted(sets.get_opt(installation::SPEAKER).await)?.flatten())
    }

    /// Reads the Lease of the active leader.
    async fn lease(&self) -> Result<Option<Lease>> {
        let namespace = &self.config.names.namespace;
        let leases = Api::<Lease>::namespaced(self.client.clone(), namespace);
        Ok(permitted(leases.get_opt(api::LEASE).await)?.flatten())
    }

    /// Reads all objects of a kind; `None` if the cluster does not have the kind. An object that
    /// cannot be decoded does not affect the others.
    async fn list<F: Kind>(&self) -> Result<Option<Vec<Event>>>
    where
        Event: From<Change<F>>,
    {
        let names = &self.config.names;
        let context = ReadContext::of_controller(&names.namespace, &names.group);
        let url = F::path(&context);
        let params = ListParams {
            label_selector: F::LABELS.map(str::to_owned),
            field_selector: F::FIELDS.map(str::to_owned),
            ..ListParams::default()
        };
        // The API server replies from its cache.
        let request = Request::new(&url).list(&params.match_any())?;
        let text = permitted(self.client.request_text(request).await);
        let Some(text) = text.with_context(|| format!("cannot list {url}"))? else {
            return Ok(None);
        };
        // A thread decodes the list while other lists arrive.
        let decoded = tokio::task::spawn_blocking(move || {
            let list: RawList<'_> = serde_json::from_str(&text)?;
            let events =
                list.items.iter().map(|item| Ok(decode::<F>(item.get(), &context)?.into()));
            events.collect::<Result<_>>()
        });
        decoded.await?.map(Some).with_context(|| format!("cannot decode {url}"))
    }
}

impl KindVisitor<Event> for ListRequests<'_> {
    fn visit<F: Kind>(&mut self)
    where
        Event: From<Change<F>>,
    {
        let reader = self.reader;
        // Only FerroLB's own API group has SpeakerStatuses.
        if F::NAME != Speaker::NAME || reader.config.names.group == api::GROUP {
            let list = permission_of(reader.list::<F>());
            self.requests.push(async move { Ok((F::NAME, list.await?)) }.boxed());
        }
    }
}

fn decode<F: Kind>(item: &str, context: &ReadContext) -> Result<Change<F>> {
    let why = match serde_json::from_str(item) {
        Ok(object) => return Ok(Change::Apply(F::read(object, context))),
        Err(error) => error.to_string(),
    };
    let Named { metadata } = serde_json::from_str(item).context("an object has no name")?;
    let namespace = metadata.namespace.unwrap_or_default();
    Ok(Change::Unreadable { key: Key::new(&namespace, &metadata.name), why })
}

/// Returns the result of a read. A missing permission is part of the result.
async fn permission_of<T>(
    read: impl Future<Output = Result<T>>,
) -> Result<Result<T, NoPermission>> {
    match read.await {
        Ok(value) => Ok(Ok(value)),
        Err(error) => Ok(Err(error.downcast()?)),
    }
}

/// Returns the value of a read, or the default and the message of the API server.
fn or_denied<T: Default>(read: Result<T, NoPermission>) -> (T, Option<String>) {
    match read {
        Ok(value) => (value, None),
        Err(NoPermission(message)) => (T::default(), Some(message)),
    }
}

fn ready_replicas(deployment: &Deployment) -> [i32; 2] {
    let ready = deployment.status.as_ref().and_then(|status| status.ready_replicas);
    let wanted = deployment.spec.as_ref().and_then(|spec| spec.replicas);
    [ready.unwrap_or(0), wanted.unwrap_or(1)]
}

/// Returns the pod of the active leader, if its lease has not expired. The identity in the Lease is
/// the pod's name, and a random number after an underscore.
fn leader(lease: &Lease, unix_time: i64) -> Option<String> {
    let spec = lease.spec.as_ref()?;
    let end = spec.renew_time.as_ref()?.0.as_second() + i64::from(spec.lease_duration_seconds?);
    let identity = spec.holder_identity.as_ref()?;
    let name = identity.rsplit_once('_').map_or(&**identity, |(name, _)| name);
    (!name.is_empty() && unix_time <= end + CLOCK_TOLERANCE).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_leader_may_have_another_clock() {
        let lease = json!({"spec": {
            "holderIdentity": "controller-x7k_42",
            "leaseDurationSeconds": 15,
            "renewTime": "2026-01-01T00:00:00.000000Z",
        }});
        let lease: Lease = serde_json::from_value(lease).unwrap();
        let renewed = lease.spec.as_ref().unwrap().renew_time.as_ref().unwrap().0.as_second();
        let found = |seconds| leader(&lease, renewed + seconds);
        assert_eq!(found(-20).as_deref(), Some("controller-x7k"));
        assert_eq!(found(75).as_deref(), Some("controller-x7k"));
        assert_eq!(found(76), None);
    }
}
