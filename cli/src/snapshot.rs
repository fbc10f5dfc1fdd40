//! A copy of the objects that FerroLB reads, and the controller's state that follows from them.
//! Performs I/O.

use anyhow::{Context as _, Result, bail};
use ferrolb_controller_core::event::Event;
use ferrolb_controller_core::state::{Config, State};
use ferrolb_core::store::Change;
use ferrolb_proto::api::{self, CustomResourceKind};
use ferrolb_proto::facts::{
    ADDRESS_MEMORY_SELECTOR, AddressMemoryObject, EndpointSliceObject, Key, NamespaceObject,
    NodeObject, PODS_SELECTOR, PodObject, SERVICE_SLICES_SELECTOR, Service, ServiceObject,
};
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{ListParams, Request};
use kube::core::ApiResource;
use kube::core::DynamicResourceScope;
use kube::{Api, Client, Resource};
use serde::Deserialize;
use serde::de::DeserializeOwned;
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
        let (cluster, namespaces, (custom, lacks_pools), memory, pods, speaker, lease) = futures::try_join!(
            reader.cluster_objects(),
            permission_of(reader.namespaces()),
            reader.custom_resources(),
            permission_of(reader.address_memory()),
            permission_of(reader.pods()),
            permission_of(reader.speaker()),
            reader.lease(),
        )?;
        let (namespaces, namespaces_denied) = or_denied(namespaces);
        let (speaker, speaker_denied) = or_denied(speaker);
        let leader = lease.and_then(|lease| leader(&lease, unix_time));
        let has_own = |event: &Event| {
            matches!(event, Event::Pool(Change::Apply(_)) | Event::Speaker(Change::Apply(_)))
        };
        Ok(Self {
            installation: Installation {
                namespace: namespace.to_owned(),
                exists: deployment.is_some() || leader.is_some() || custom.iter().any(has_own),
                marks_pods: installation::marks_pods(&config, deployment.as_ref()),
                ignores_exclude_label: installation::ignores_exclude_label(speaker.as_ref()),
                controllers: deployment.as_ref().map(ready_replicas),
                leader,
                lacks_pools,
                config,
            },
            namespaces_denied,
            speaker_denied,
            events: [
                cluster,
                namespaces,
                custom,
                memory.unwrap_or_default(),
                pods.unwrap_or_default(),
            ]
            .concat(),
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
    /// Reads the objects of Kubernetes, except Namespaces.
    async fn cluster_objects(&self) -> Result<Vec<Event>> {
        let names = &self.config.names;
        let (group, manager) = (names.group.clone(), api::field_manager(&names.namespace));
        let service =
            move |object: ServiceObject| Service::read_with_owners(object, &group, &manager);
        let all = ListParams::default;
        let slices = all().labels(SERVICE_SLICES_SELECTOR);
        let (services, slices, nodes) = futures::try_join!(
            self.list(ServiceObject::url_path(&(), None), all(), service),
            self.list(EndpointSliceObject::url_path(&(), None), slices, EndpointSliceObject::into),
            self.list(NodeObject::url_path(&(), None), all(), NodeObject::into),
        )?;
        Ok(events(services, Event::Service)
            .chain(events(slices, Event::Slice))
            .chain(events(nodes, Event::Node))
            .collect())
    }

    /// Reads the Namespaces.
    async fn namespaces(&self) -> Result<Vec<Event>> {
        let url = NamespaceObject::url_path(&(), None);
        let list = self.list(url, ListParams::default(), NamespaceObject::into).await?;
        Ok(events(list, Event::Namespace).collect())
    }

    /// Reads the ConfigMap with the addresses of deleted Services.
    async fn address_memory(&self) -> Result<Vec<Event>> {
        let url = AddressMemoryObject::url_path(&(), Some(&self.config.names.namespace));
        let params = ListParams::default().fields(ADDRESS_MEMORY_SELECTOR);
        let list = self.list(url, params, AddressMemoryObject::into).await?;
        Ok(events(list, Event::AddressMemory).collect())
    }

    /// Reads FerroLB's pods.
    async fn pods(&self) -> Result<Vec<Event>> {
        let url = PodObject::url_path(&(), Some(self.namespace));
        let params = ListParams::default().labels(PODS_SELECTOR);
        Ok(events(self.list(url, params, PodObject::into).await?, Event::Pod).collect())
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

    /// Reads FerroLB's custom resources. Also returns whether the cluster does not have the kind
    /// IPAddressPool.
    async fn custom_resources(&self) -> Result<(Vec<Event>, bool)> {
        let (pools, advertisements, communities, peers, bgp_advertisements, profiles, speakers) = futures::try_join!(
            self.custom::<api::IPAddressPoolObject, _>(CustomResourceKind::IPAddressPool),
            self.custom::<api::L2AdvertisementObject, _>(CustomResourceKind::L2Advertisement),
            self.custom::<api::CommunityObject, _>(CustomResourceKind::Community),
            self.custom::<api::BgpPeerObject, _>(CustomResourceKind::BGPPeer),
            self.custom::<api::BgpAdvertisementObject, _>(CustomResourceKind::BGPAdvertisement),
            self.custom::<api::BfdProfileObject, _>(CustomResourceKind::BFDProfile),
            self.custom::<api::SpeakerStatusObject, _>(CustomResourceKind::SpeakerStatus),
        )?;
        let lacks_pools = pools.is_none();
        let events = events(pools, Event::Pool)
            .chain(events(advertisements, Event::Advertisement))
            .chain(events(communities, Event::Community))
            .chain(events(peers, Event::Peer))
            .chain(events(bgp_advertisements, Event::BgpAdvertisement))
            .chain(events(profiles, Event::BfdProfile))
            .chain(events(speakers, Event::Speaker))
            .collect();
        Ok((events, lacks_pools))
    }

    /// Reads all custom resources of a kind in FerroLB's namespace.
    async fn custom<K, F>(&self, kind: CustomResourceKind) -> Result<Option<Vec<Change<F>>>>
    where
        K: Resource<DynamicType = ApiResource, Scope = DynamicResourceScope>
            + DeserializeOwned
            + Into<F>
            + 'static,
        F: Send + 'static,
    {
        let names = &self.config.names;
        // Only FerroLB's own API group has SpeakerStatuses.
        if kind == CustomResourceKind::SpeakerStatus && names.group != api::GROUP {
            return Ok(None);
        }
        let resource = api::resource(kind, &names.group);
        let url = K::url_path(&resource, Some(&names.namespace));
        self.list(url, ListParams::default(), K::into).await
    }

    /// Reads all objects; `None` if the cluster does not have the kind. An object that cannot be
    /// decoded does not affect the others.
    async fn list<K: DeserializeOwned, F: Send + 'static>(
        &self,
        url: String,
        params: ListParams,
        read: impl Fn(K) -> F + Send + 'static,
    ) -> Result<Option<Vec<Change<F>>>> {
        // The API server replies from its cache.
        let request = Request::new(&url).list(&params.match_any())?;
        let text = permitted(self.client.request_text(request).await);
        let Some(text) = text.with_context(|| format!("cannot list {url}"))? else {
            return Ok(None);
        };
        // A thread decodes the list while other lists arrive.
        let decoded = tokio::task::spawn_blocking(move || {
            let list: RawList<'_> = serde_json::from_str(&text)?;
            list.items.iter().map(|item| decode(item.get(), &read)).collect::<Result<_>>()
        });
        decoded.await?.map(Some).with_context(|| format!("cannot decode {url}"))
    }
}

fn decode<K: DeserializeOwned, F>(item: &str, read: impl Fn(K) -> F) -> Result<Change<F>> {
    let why = match serde_json::from_str(item) {
        Ok(object) => return Ok(Change::Apply(read(object))),
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

/// Returns the events of a list.
fn events<F>(
    changes: Option<Vec<Change<F>>>,
    wrap: fn(Change<F>) -> Event,
) -> impl Iterator<Item = Event> {
    changes.into_iter().flatten().map(wrap)
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
