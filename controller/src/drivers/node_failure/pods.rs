//! Selects the pods on a silent node that are marked or restored. Pure.

use std::collections::BTreeSet;

use ferrolb_proto::api::NODE_SILENT;
use ferrolb_proto::facts::Key;
use k8s_openapi::api::core::v1::{Pod, PodCondition};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};

/// A pod that an endpoint refers to: its namespace and name, and its UID.
pub(super) type PodRef = (Key, String);

/// A change of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PodChange {
    Mark,
    Restore,
}

/// The pods of Services on a node.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Pods {
    affected: BTreeSet<PodRef>,
    /// Pods of a Service without a ready endpoint on another node. No other pod could serve its
    /// clients, so these pods are not marked.
    last: BTreeSet<PodRef>,
}

impl Pods {
    /// Selects the pods of a Service on a node that may need the change, from the Service's
    /// EndpointSlices. A pod is marked only if its endpoint is ready.
    pub(super) fn select(
        namespace: &str,
        slices: &[EndpointSlice],
        node: &str,
        change: PodChange,
    ) -> Self {
        let endpoints = slices.iter().flat_map(|slice| slice.endpoints.iter().flatten());
        let is_on_node = |endpoint: &&Endpoint| endpoint.node_name.as_deref() == Some(node);
        let is_ready = |endpoint: &&Endpoint| {
            endpoint.conditions.as_ref().and_then(|conditions| conditions.ready).unwrap_or(true)
        };
        let pod = |endpoint: &Endpoint| {
            let target = endpoint.target_ref.as_ref()?;
            let is_pod = target.kind.as_deref() == Some("Pod");
            let name = target.name.as_deref().filter(|_| is_pod)?;
            Some((Key::new(namespace, name), target.uid.clone().unwrap_or_default()))
        };
        let (on_node, others): (Vec<_>, Vec<_>) = endpoints.partition(is_on_node);
        let marks = change == PodChange::Mark;
        let on_node = on_node.into_iter().filter(|endpoint| !marks || is_ready(endpoint));
        let affected: BTreeSet<_> = on_node.filter_map(pod).collect();
        let is_last = marks && !others.iter().any(is_ready);
        let last = if is_last { affected.clone() } else { BTreeSet::new() };
        Self { affected, last }
    }

    /// Adds the pods of another Service.
    pub(super) fn add(&mut self, mut other: Self) {
        self.affected.append(&mut other.affected);
        self.last.append(&mut other.last);
    }

    /// Returns the pods that are changed.
    pub(super) fn into_changed(self) -> impl Iterator<Item = PodRef> {
        let Self { affected, last } = self;
        affected.into_iter().filter(move |pod| !last.contains(pod))
    }
}

/// Returns whether a pod is marked, and all that its condition `Ready` depends on is true: its
/// containers and its readiness gates.
pub(super) fn is_restorable(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let has = |kind: &str, is: &dyn Fn(&PodCondition) -> bool| {
        conditions.clone().any(|condition| condition.type_ == kind && is(condition))
    };
    let is_true = |kind: &str| has(kind, &|condition| condition.status == "True");
    let gates = pod.spec.iter().flat_map(|spec| spec.readiness_gates.iter().flatten());
    has("Ready", &|ready| ready.status == "False" && ready.reason.as_deref() == Some(NODE_SILENT))
        && is_true("ContainersReady")
        && gates.map(|gate| &gate.condition_type).all(|kind| is_true(kind))
}
