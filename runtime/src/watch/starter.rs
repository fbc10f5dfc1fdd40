//! Starts the watches of a program, which share a client, an event queue and a task set. Used by
//! each program's main loop; owns nothing.

use std::sync::Arc;

use ferrolb_proto::api::{self, CustomResourceKind};
use kube::api::ApiResource;
use kube::core::DynamicResourceScope;
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::{Change, Watch};
use crate::flags::CommonFlags;
use crate::watchdog::Watchdog;

/// The client, the event queue and the task set of the watches that a program starts.
pub struct WatchStarter<'a, E> {
    /// Client of the API server.
    pub client: &'a Client,
    /// Namespace and API group of the custom resources.
    pub flags: &'a CommonFlags,
    /// Queue that receives the changes of all watches.
    pub events: &'a mpsc::Sender<E>,
    /// Task set that owns the watches.
    pub tasks: &'a mut JoinSet<()>,
    /// Receives the rejections of watches, for `/readyz`.
    pub watchdog: &'a Arc<Watchdog>,
}

impl<E: Send + 'static> WatchStarter<'_, E> {
    /// Starts a watch. `wrap` creates an event from a change.
    pub fn start<F: Send + 'static>(&mut self, watch: Watch<F>, wrap: fn(Change<F>) -> E) {
        self.tasks.spawn(watch.run(self.events.clone(), wrap, Arc::clone(self.watchdog)));
    }

    /// Starts a watch of all objects of a built-in kind. `what` is the plural of the kind for logs.
    pub fn start_all<K, F>(&mut self, what: &'static str, wrap: fn(Change<F>) -> E)
    where
        K: Resource<DynamicType = ()> + DeserializeOwned + Into<F> + 'static,
        F: Send + 'static,
    {
        self.start(Watch::new(what, Api::<K>::all(self.client.clone()), K::into), wrap);
    }

    /// Starts a watch of the custom resources of a kind in FerroLB's namespace. `what` is the
    /// plural of the kind for logs.
    pub fn start_custom_resources<K, F>(
        &mut self,
        what: &'static str,
        kind: CustomResourceKind,
        wrap: fn(Change<F>) -> E,
    ) where
        K: Resource<DynamicType = ApiResource, Scope = DynamicResourceScope>
            + DeserializeOwned
            + Into<F>
            + 'static,
        F: Send + 'static,
    {
        let resource = api::resource(kind, &self.flags.api_group);
        let api = Api::<K>::namespaced_with(self.client.clone(), &self.flags.namespace, &resource);
        self.start(Watch::new(what, api, K::into), wrap);
    }
}
