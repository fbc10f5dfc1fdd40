//! The progress of an installation: the objects or pods that have an effect. Pure.

use std::collections::BTreeSet;
use std::fmt;

use ferrolb_proto::api::SpeakerStatusObject;
use ferrolb_proto::facts::Node;
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;

use crate::table::first_names;

/// Number of objects or pods that have an effect, and of all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Number of those that have an effect.
    pub done: usize,
    /// Number of all, also of pods that will be replaced.
    pub all: usize,
    /// Nodes whose pods do not count, because the nodes are not Ready.
    pub left_out: Vec<String>,
}

/// The pods of a DaemonSet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DaemonPods {
    /// Nodes with a pod that counts.
    nodes: BTreeSet<String>,
    /// Nodes that are not Ready, as is their pod. Empty if no other node has a pod.
    left_out: BTreeSet<String>,
    /// Number of pods of the latest version on the nodes in `left_out`. Kubernetes deletes older
    /// ones there at once, without a wait for other pods.
    left_out_updated: usize,
}

impl Progress {
    /// Returns the progress of these objects.
    #[must_use]
    pub const fn new(done: usize, all: usize) -> Self {
        Self { done, all, left_out: Vec::new() }
    }

    /// Returns true if all have an effect.
    #[must_use]
    pub const fn is_complete(&self) -> bool {
        self.done >= self.all
    }

    /// Returns the progress of a workload. As long as Kubernetes has not read the latest change,
    /// its status is about other pods.
    fn of_pods(generation: Option<i64>, observed: Option<i64>, done: i32, all: i32) -> Self {
        let [done, all] = [done, all].map(|it| usize::try_from(it).unwrap_or(0));
        if observed >= generation { Self::new(done, all) } else { Self::new(0, all.max(1)) }
    }
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.done, self.all)?;
        if self.left_out.is_empty() {
            return Ok(());
        }
        write!(f, " (left out until they are Ready: {})", first_names(&self.left_out))
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

impl DaemonPods {
    /// Sorts the pods of a DaemonSet by the state of their nodes.
    #[must_use]
    pub fn new(pods: &[Pod], nodes: &[Node]) -> Self {
        let failed: BTreeSet<&str> =
            nodes.iter().filter(|node| !node.ready).map(|node| &*node.name).collect();
        let scheduled =
            pods.iter().filter_map(|pod| Some((pod.spec.as_ref()?.node_name.as_ref()?, pod)));
        let (off, on): (Vec<_>, Vec<_>) =
            scheduled.partition(|(node, pod)| failed.contains(&***node) && !is_ready(pod));
        let names =
            |pods: &[(&String, &Pod)]| pods.iter().map(|(node, _)| (*node).clone()).collect();
        let updated = off.iter().filter(|(_, pod)| pod.metadata.deletion_timestamp.is_none());
        if on.is_empty() {
            return Self { nodes: names(&off), ..Self::default() };
        }
        Self { left_out_updated: updated.count(), nodes: names(&on), left_out: names(&off) }
    }

    /// Returns the progress of the DaemonSet.
    #[must_use]
    pub fn progress(&self, object: &DaemonSet) -> Progress {
        let status = object.status.clone().unwrap_or_default();
        let [updated, available] =
            [status.updated_number_scheduled, status.number_available].map(|it| it.unwrap_or(0));
        let [updated_off, off] =
            [self.left_out_updated, self.left_out.len()].map(|it| i32::try_from(it).unwrap_or(0));
        let done = available.min(updated - updated_off);
        let all = status.desired_number_scheduled - off;
        let generation = object.metadata.generation;
        let progress = Progress::of_pods(generation, status.observed_generation, done, all);
        self.with_left_out(progress)
    }

    /// Returns the progress of the reports: SpeakerStatuses with interfaces, from which the pool
    /// follows.
    #[must_use]
    pub fn reports(&self, statuses: &[SpeakerStatusObject]) -> Progress {
        let has_interfaces = |it: &&SpeakerStatusObject| {
            it.status.as_ref().is_some_and(|status| !status.interfaces.is_empty())
        };
        let with_interfaces = statuses.iter().filter(has_interfaces);
        let reported = with_interfaces.filter_map(|it| it.metadata.name.as_ref());
        let done = reported.filter(|node| self.nodes.contains(*node)).count();
        self.with_left_out(Progress::new(done, self.nodes.len()))
    }

    fn with_left_out(&self, progress: Progress) -> Progress {
        Progress { left_out: self.left_out.iter().cloned().collect(), ..progress }
    }
}

/// Returns whether the API server serves the kind of a CustomResourceDefinition.
#[must_use]
pub fn is_established(object: &CustomResourceDefinition) -> bool {
    let conditions = object.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|it| it.type_ == "Established" && it.status == "True")
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|it| it.type_ == "Ready" && it.status == "True")
}
