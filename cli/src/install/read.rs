//! Reads the progress of an installation from the API server, and watches the objects that it
//! follows from.

use std::fmt::Debug;
use std::future::ready;

use anyhow::{Context as _, Result};
use ferrolb_proto::api::{self, CustomResourceKind, GROUP, SpeakerStatusObject};
use ferrolb_proto::facts::{Node, NodeObject};
use futures::{Stream, StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{ListParams, WatchEvent, WatchParams};
use kube::{Api, Client};
use serde::de::DeserializeOwned;

use super::progress::{DaemonPods, Progress, is_established};
use super::wait::RETRY;
use crate::installation::SPEAKER;
use crate::read::permitted;

/// Maximum duration of a watch, in seconds. A connection that was lost unnoticed ends, too.
const WATCH_MAX: u32 = 30;

/// The objects of an installation in the API server.
#[derive(Clone)]
pub struct Reader<'a> {
    /// The API server.
    pub client: &'a Client,
    /// Namespace of the installation.
    pub namespace: &'a str,
}

impl Reader<'_> {
    /// Returns the CustomResourceDefinitions with these names that the API server serves.
    ///
    /// # Errors
    /// They cannot be read, as in all other functions.
    pub async fn established(&self, names: &[&str]) -> Result<Progress> {
        let crds = self.crds().list(&ListParams::default()).await?;
        let is_ready = |it: &&CustomResourceDefinition| {
            let name = it.metadata.name.as_deref();
            is_established(it) && name.is_some_and(|name| names.contains(&name))
        };
        Ok(Progress::new(crds.items.iter().filter(is_ready).count(), names.len()))
    }

    /// Returns the progress of a Deployment.
    pub async fn deployment(&self, name: &str) -> Result<Progress> {
        let object = permitted(self.deployments().get_opt(name).await)?.flatten();
        let object = object.with_context(|| format!("Deployment {name} does not exist"))?;
        Ok(Progress::from(&object))
    }

    /// Returns the progress of a DaemonSet. Only if it is incomplete, pods and nodes are read.
    pub async fn daemon_set(&self, name: &str) -> Result<Progress> {
        let object = self.find_daemon_set(name).await?;
        let object = object.with_context(|| format!("DaemonSet {name} does not exist"))?;
        let progress = DaemonPods::default().progress(&object);
        if progress.is_complete() {
            return Ok(progress);
        }
        Ok(self.pods(object.clone()).await?.progress(&object))
    }

    /// Returns the progress of the reports of all speakers.
    pub async fn reports(&self) -> Result<Progress> {
        let object = self.find_daemon_set(SPEAKER).await?;
        let object = object.with_context(|| format!("DaemonSet {SPEAKER} does not exist"))?;
        let statuses = self.speaker_statuses().list(&ListParams::default()).await?;
        Ok(self.pods(object).await?.reports(&statuses.items))
    }

    /// Returns a DaemonSet; `None` if it does not exist.
    pub async fn find_daemon_set(&self, name: &str) -> Result<Option<DaemonSet>> {
        Ok(permitted(self.daemon_sets().get_opt(name).await)?.flatten())
    }

    async fn pods(&self, object: DaemonSet) -> Result<DaemonPods> {
        let selector = object.spec.context("the DaemonSet has no spec")?.selector.try_into()?;
        let pods = Api::<Pod>::namespaced(self.client.clone(), self.namespace);
        let pods = pods.list(&ListParams::default().labels_from(&selector)).await?;
        let nodes = Api::<NodeObject>::all(self.client.clone());
        let nodes = nodes.list(&ListParams::default()).await?;
        let nodes: Vec<_> = nodes.items.into_iter().map(Node::from).collect();
        Ok(DaemonPods::new(&pods.items, &nodes))
    }

    /// Returns all CustomResourceDefinitions.
    pub fn crds(&self) -> Api<CustomResourceDefinition> {
        Api::all(self.client.clone())
    }

    /// Returns the Deployments of the namespace.
    pub fn deployments(&self) -> Api<Deployment> {
        Api::namespaced(self.client.clone(), self.namespace)
    }

    /// Returns the DaemonSets of the namespace. A change of a node or a pod changes their status.
    pub fn daemon_sets(&self) -> Api<DaemonSet> {
        Api::namespaced(self.client.clone(), self.namespace)
    }

    /// Returns the SpeakerStatuses of the namespace.
    pub fn speaker_statuses(&self) -> Api<SpeakerStatusObject> {
        let resource = api::resource(CustomResourceKind::SpeakerStatus, GROUP);
        Api::namespaced_with(self.client.clone(), self.namespace, &resource)
    }
}

/// Returns a stream with an item after each change of objects. A watch begins with one item for
/// each object, so an interruption loses no change.
pub fn changes<K>(api: Api<K>) -> impl Stream<Item = ()>
where
    K: Clone + DeserializeOwned + Debug + Send + 'static,
{
    let params = WatchParams::default().timeout(WATCH_MAX).disable_bookmarks();
    stream::repeat(api).flat_map(move |api| {
        let params = params.clone();
        let events = stream::once(async move { api.watch(&params, "0").await }).try_flatten();
        let is_change = |event: &Result<_, _>| {
            ready(matches!(event, Ok(it) if !matches!(it, WatchEvent::Error(_))))
        };
        let ended = stream::once(tokio::time::sleep(RETRY));
        events.take_while(is_change).map(drop).chain(ended)
    })
}
