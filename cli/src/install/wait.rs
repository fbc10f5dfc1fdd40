//! Waits until the objects of an installation have an effect, and shows the progress. The caller
//! reads the objects.

use std::time::Duration;

use anyhow::{Result, bail};
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use tokio::time::Instant;

/// Maximum time without a change.
const CHANGE_MAX: Duration = Duration::from_secs(120);
/// Interval between two reads.
const INTERVAL: Duration = Duration::from_millis(500);

/// Number of objects or pods that have an effect, and of all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Number of those that have an effect.
    pub done: usize,
    /// Number of all, also of pods that will be replaced.
    pub all: usize,
}

/// Waits until all of `what` have an effect. `next` is the next command after the limit.
///
/// # Errors
/// A read fails, or nothing changes for [`CHANGE_MAX`].
pub async fn wait(
    what: &str,
    next: &str,
    read: impl AsyncFn() -> Result<Progress>,
    show: impl Fn(&str),
) -> Result<()> {
    let mut shown = String::new();
    let mut changed = Instant::now();
    loop {
        let Progress { done, all } = read().await?;
        let line = format!("{what}: {done} of {all}");
        if line != shown {
            show(&line);
            (shown, changed) = (line, Instant::now());
        }
        if done >= all {
            return Ok(());
        }
        if changed.elapsed() >= CHANGE_MAX {
            bail!("{shown}, without a change for {} s: {next}", CHANGE_MAX.as_secs());
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

impl Progress {
    /// Returns the progress of a workload. As long as Kubernetes has not read the latest change,
    /// its status is about other pods.
    fn of_pods(generation: Option<i64>, observed: Option<i64>, done: i32, all: i32) -> Self {
        let [done, all] = [done, all].map(|it| usize::try_from(it).unwrap_or(0));
        match observed >= generation {
            true => Self { done, all },
            false => Self { done: 0, all: all.max(1) },
        }
    }
}

impl From<&Deployment> for Progress {
    fn from(object: &Deployment) -> Self {
        let status = object.status.clone().unwrap_or_default();
        let wanted = object.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
        let [updated, available, all] =
            [status.updated_replicas, status.available_replicas, status.replicas]
                .map(|it| it.unwrap_or(0));
        let generation = object.metadata.generation;
        let (done, all) = (updated.min(available), all.max(wanted));
        Self::of_pods(generation, status.observed_generation, done, all)
    }
}

impl From<&DaemonSet> for Progress {
    fn from(object: &DaemonSet) -> Self {
        let status = object.status.clone().unwrap_or_default();
        let [updated, available] =
            [status.updated_number_scheduled, status.number_available].map(|it| it.unwrap_or(0));
        let (generation, all) = (object.metadata.generation, status.desired_number_scheduled);
        Self::of_pods(generation, status.observed_generation, updated.min(available), all)
    }
}

/// Returns whether the API server serves the kind of a CustomResourceDefinition.
#[must_use]
pub fn is_established(object: &CustomResourceDefinition) -> bool {
    let conditions = object.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|it| it.type_ == "Established" && it.status == "True")
}
