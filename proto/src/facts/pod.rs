//! The fact of a pod of FerroLB: its node, and whether it is Ready. If it is not, its program does
//! not run, whatever that program has reported before.

use super::kind::built_in;
use kube::Resource;
use kube::core::ObjectMeta;
use serde::Deserialize;

use super::{Key, metadata};

/// Label selector of FerroLB's pods.
pub const PODS_SELECTOR: &str = "app.kubernetes.io/name=ferrolb";
/// Label with the component of a pod.
const COMPONENT_LABEL: &str = "app.kubernetes.io/component";
const SPEAKER: &str = "speaker";
const CONTROLLER: &str = "controller";

/// A decoded Pod.
#[derive(Resource, Deserialize, Clone, Debug, Default)]
#[resource(inherit = "k8s_openapi::api::core::v1::Pod")]
pub struct PodObject {
    /// `metadata`.
    #[serde(deserialize_with = "metadata::read")]
    pub metadata: ObjectMeta,
    #[serde(default)]
    spec: Spec,
    #[serde(default)]
    status: PodStatus,
}

#[derive(Deserialize, Clone, Debug, Default)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    node_name: String,
}

#[derive(Deserialize, Clone, Debug, Default)]
#[serde(default)]
struct PodStatus {
    phase: String,
    conditions: Vec<PodCondition>,
}

#[derive(Deserialize, Clone, Debug)]
struct PodCondition {
    r#type: String,
    status: String,
}

/// The fact of a pod of FerroLB.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// Namespace and name.
    pub key: Key,
    /// The program that runs in the pod; `None` if FerroLB has no such component.
    pub component: Option<Component>,
    /// `spec.nodeName`: empty until the pod is scheduled.
    pub node: Box<str>,
    /// True if the condition `Ready` is `True`.
    pub ready: bool,
    /// `metadata.uid`.
    pub uid: Box<str>,
    /// True if nobody has ended the pod: its phase is `Running`, and it has no deletion time.
    /// Kubernetes sets that time before it ends a pod, but not when a machine shuts down.
    pub is_wanted: bool,
}

/// A program of FerroLB that runs in pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Component {
    /// The controller.
    Controller,
    /// A speaker.
    Speaker,
}

impl From<PodObject> for Pod {
    fn from(object: PodObject) -> Self {
        let PodObject { metadata, spec, status } = object;
        let label = metadata.labels.unwrap_or_default().remove(COMPONENT_LABEL);
        let is_ready = |it: &PodCondition| it.r#type == "Ready" && it.status == "True";
        Self {
            key: Key::new(
                &metadata.namespace.unwrap_or_default(),
                &metadata.name.unwrap_or_default(),
            ),
            component: label.and_then(|label| match &*label {
                SPEAKER => Some(Component::Speaker),
                CONTROLLER => Some(Component::Controller),
                _ => None,
            }),
            node: spec.node_name.into(),
            ready: status.conditions.iter().any(is_ready),
            uid: metadata.uid.unwrap_or_default().into(),
            is_wanted: status.phase == "Running" && metadata.deletion_timestamp.is_none(),
        }
    }
}

built_in!(Pod: PodObject, "Pod", "Pods", own, LABELS = PODS_SELECTOR);

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn component_node_and_readiness_are_decoded() {
        let pod = |labels, spec, conditions| {
            let object = json!({"metadata": {"namespace": "lb", "name": "p", "uid": "u", "labels": labels},
                "spec": spec, "status": {"conditions": conditions}});
            Pod::from(serde_json::from_value::<PodObject>(object).expect("pod"))
        };
        let (labels, spec) = (json!({COMPONENT_LABEL: "speaker"}), json!({"nodeName": "n1"}));
        let ready = |status: &str| json!([{"type": "PodScheduled", "status": "True"}, {"type": "Ready", "status": status}]);
        let speaker = pod(labels.clone(), spec.clone(), ready("True"));
        let expect = Pod {
            key: Key::new("lb", "p"),
            component: Some(Component::Speaker),
            node: "n1".into(),
            ready: true,
            uid: "u".into(),
            is_wanted: false,
        };
        assert_eq!(speaker, expect);
        let is_wanted = |phase: &str, deletion: Option<&str>| {
            let object = json!({"metadata": {"name": "p", "deletionTimestamp": deletion},
                "status": {"phase": phase}});
            Pod::from(serde_json::from_value::<PodObject>(object).expect("pod")).is_wanted
        };
        assert!(is_wanted("Running", None));
        assert!(!is_wanted("Running", Some("2026-11-30T12:00:00Z")) && !is_wanted("Failed", None));
        assert!(!pod(labels.clone(), spec, ready("False")).ready);
        let pending = pod(labels, json!({}), json!([]));
        assert_eq!((&*pending.node, pending.ready), ("", false));
        let controller = pod(json!({COMPONENT_LABEL: "controller"}), json!({}), json!([]));
        assert_eq!(controller.component, Some(Component::Controller));
        assert_eq!(pod(json!({}), json!({}), json!([])).component, None);
    }
}
