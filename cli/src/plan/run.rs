//! Reads the inputs of `plan` and `drain`, and returns their effects. Performs I/O.

use ferrolb_proto::facts::EndpointSlice;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use ferrolb_controller_core::event::Event;
use ferrolb_controller_core::state::{Config, State};
use ferrolb_core::store::Change;
use ferrolb_proto::api::GROUP;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, Client};
use serde_json::Value;

use super::changes::Changes;
use super::{Effect, Prediction, endpoints};
use crate::installation::Installation;
use crate::kubectl::Kubectl;
use crate::objects::key;
use crate::snapshot::Snapshot;

/// Maximum number of lists of pods that are read at the same time.
const CONCURRENT_LISTS: usize = 8;

/// The files of a plan.
#[derive(Clone, Debug, Default)]
pub struct Files {
    /// Files to apply.
    pub applied: Vec<PathBuf>,
    /// Directory of a kustomization to apply.
    pub kustomize: Option<PathBuf>,
    /// Files to delete.
    pub deleted: Vec<PathBuf>,
}

/// Changes and their effect.
pub struct Plan {
    /// The effect.
    pub effect: Effect,
    changes: Changes,
    config: Config,
}

impl Plan {
    /// Returns the changes and their effect as text.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = self.effect.text(&self.changes, self.config.pool_grace);
        if self.config.names.group != GROUP {
            text.push_str(
                "not predicted: owners and routes, because speakers with this --api-group write no \
                 SpeakerStatus\n",
            );
        }
        text
    }
}

/// Returns the changes and their effect. `namespace` is the namespace of the installation, and
/// `unix_time` the present time in seconds since 1970.
///
/// # Errors
/// kubectl, the API server, or one of them rejects an object or a list.
pub async fn plan(
    client: &Client,
    kubectl: Kubectl,
    files: Files,
    namespace: &str,
    unix_time: i64,
) -> Result<Plan> {
    let objects = tokio::task::spawn_blocking(move || {
        let applied = kubectl.would_apply(&files.applied, files.kustomize.as_ref())?;
        Ok::<_, anyhow::Error>((applied, kubectl.existing(&files.deleted)?))
    });
    let objects = async { objects.await.context("the thread that runs kubectl failed")? };
    let ((applied, deleted), snapshot) =
        futures::try_join!(objects, Snapshot::read(client, namespace, unix_time))?;
    let (Installation { config, .. }, state) = snapshot.into_state(unix_time);
    let mut changes = Changes::new(&applied, &deleted, &config);
    add_endpoints(client, &applied, &state, &mut changes, &config).await?;
    let mut prediction = Prediction::new(state);
    let effect = prediction.effect(&mut changes);
    Ok(Plan { effect, changes, config })
}

/// Adds the EndpointSlices of the Services whose selector or families are new or change.
async fn add_endpoints(
    client: &Client,
    applied: &[Value],
    state: &State,
    changes: &mut Changes,
    config: &Config,
) -> Result<()> {
    let services = applied.iter().filter(|object| object["kind"] == "Service");
    let selecting: Vec<_> =
        services.filter_map(|service| Some((service, endpoints::selector(service)?))).collect();
    if selecting.is_empty() {
        return Ok(());
    }
    let changed = selecting.into_iter().filter(|(service, selector)| {
        let before = state.service(&key(service));
        let families = service["spec"]["ipFamilies"].as_array().map_or(0, Vec::len);
        before.is_none_or(|before| {
            *before.demand.selector != **selector || before.families.len() != families
        })
    });
    let read = |(service, selector): (&'_ Value, String)| {
        let service = service.clone();
        async move {
            let key = key(&service);
            let pods = Api::<Pod>::namespaced(client.clone(), key.namespace());
            let pods = pods.list(&ListParams::default().labels(&selector).match_any()).await;
            let pods = pods.with_context(|| format!("cannot list the pods of Service {key}"))?;
            Ok::<_, anyhow::Error>((key, endpoints::slices(&service, &pods.items)))
        }
    };
    let slices: Vec<_> =
        stream::iter(changed).map(read).buffered(CONCURRENT_LISTS).try_collect().await?;
    for (service, slices) in slices {
        let old = state
            .slices_of(&service)
            .map(|slice| Event::of::<EndpointSlice>(Change::Delete(slice)));
        changes.events.extend(old);
        changes.add_slices(&slices, config);
    }
    Ok(())
}
