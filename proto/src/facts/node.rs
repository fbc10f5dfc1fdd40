//! The fact of a Node.

use super::kind::built_in;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use kube::Resource;
use kube::core::ObjectMeta;
use serde::Deserialize;

use super::metadata::{self, EXCLUDE_LABEL};
use crate::range::AddressRange;

/// The taint of a node that is shut down for good (KEP-2268).
const OUT_OF_SERVICE_TAINT: &str = "node.kubernetes.io/out-of-service";
/// The TCP port of a kubelet whose Node does not state another one.
const KUBELET_PORT: u16 = 10_250;
/// Maximum number of addresses that a Node counts with. A kubelet writes its own Node, and must not
/// exclude all addresses of the pools.
const ADDRESSES_MAX: usize = 64;
/// FerroLB's annotation that starts the announcement drain of a node, with any value except
/// `false`.
const DRAIN_ANNOTATION: &str = "ferrolb.io/drain";
/// The taint of a node that the cluster autoscaler is about to remove.
const TO_BE_DELETED_TAINT: &str = "ToBeDeletedByClusterAutoscaler";

/// A decoded Node.
#[derive(Resource, Deserialize, Clone, Debug, Default)]
#[resource(inherit = "k8s_openapi::api::core::v1::Node")]
pub struct NodeObject {
    /// `metadata`.
    #[serde(deserialize_with = "metadata::read")]
    pub metadata: ObjectMeta,
    #[serde(default)]
    spec: RawNodeSpec,
    #[serde(default)]
    status: RawNodeStatus,
}

#[derive(Deserialize, Clone, Debug, Default)]
#[serde(default)]
struct RawNodeSpec {
    #[serde(rename = "podCIDRs")]
    pod_cidrs: Option<Vec<String>>,
    unschedulable: Option<bool>,
    taints: Option<Vec<Taint>>,
}

#[derive(Deserialize, Clone, Debug, Default)]
#[serde(default)]
struct Taint {
    key: String,
}

#[derive(Deserialize, Clone, Debug, Default)]
#[serde(default)]
struct RawNodeStatus {
    addresses: Option<Vec<Address>>,
    conditions: Option<Vec<NodeCondition>>,
    #[serde(rename = "daemonEndpoints")]
    daemon_endpoints: Option<DaemonEndpoints>,
}

#[derive(Deserialize, Clone, Debug, Default)]
#[serde(default)]
struct DaemonEndpoints {
    #[serde(rename = "kubeletEndpoint")]
    kubelet: Option<DaemonEndpoint>,
}

#[derive(Deserialize, Clone, Debug, Default)]
#[serde(default)]
struct DaemonEndpoint {
    #[serde(rename = "Port")]
    port: i64,
}

#[derive(Deserialize, Clone, Debug, Default)]
#[serde(default)]
struct Address {
    r#type: String,
    address: String,
}

#[derive(Deserialize, Clone, Debug, Default)]
#[serde(default)]
struct NodeCondition {
    r#type: String,
    status: String,
}

/// The cause of a node's announcement drain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DrainReason {
    /// The Node has the annotation `ferrolb.io/drain`.
    Annotation,
    /// The Node has the taint `ToBeDeletedByClusterAutoscaler`.
    Autoscaler,
}

/// The fact of a Node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// `metadata.name`, which all candidates of the node share.
    pub name: Arc<str>,
    /// `metadata.uid`. The UID distinguishes a new Node from a deleted one of the same name.
    pub uid: Box<str>,
    /// `metadata.labels`, for node selectors.
    pub labels: BTreeMap<String, String>,
    /// The first [`ADDRESSES_MAX`] addresses in `status.addresses`, of any type. Automatic
    /// assignment skips them.
    pub addresses: Vec<IpAddr>,
    /// The addresses of type `InternalIP`. The speaker uses an interface with one of these
    /// addresses even if a flag excludes it by name.
    pub internal_addresses: Vec<IpAddr>,
    /// `status.daemonEndpoints.kubeletEndpoint`: the TCP port of the kubelet, if it is not
    /// [`KUBELET_PORT`].
    pub kubelet_port: Option<u16>,
    /// `spec.podCIDRs`: the ranges of pod addresses, if the network plugin uses them.
    pub pod_cidrs: Vec<AddressRange>,
    /// True if the condition `Ready` is `True`.
    pub ready: bool,
    /// True if the condition `Ready` is `Unknown`: the kubelet has stopped reporting, so the other
    /// fields of the status may be stale.
    pub ready_unknown: bool,
    /// `spec.unschedulable`: true after `kubectl cordon`.
    pub cordoned: bool,
    /// True if the condition `NetworkUnavailable` is `True`, or if the out-of-service taint is
    /// present: the node cannot carry traffic.
    pub unreachable: bool,
    /// True if the label `node.kubernetes.io/exclude-from-external-load-balancers` is present.
    pub excluded: bool,
    /// The cause of the node's announcement drain, or `None`. Only the node's own speaker uses this
    /// field; its hellos report the drain to the other speakers.
    pub drain: Option<DrainReason>,
}

impl Node {
    /// Returns the TCP port of the kubelet.
    #[must_use]
    pub fn kubelet_port(&self) -> u16 {
        self.kubelet_port.unwrap_or(KUBELET_PORT)
    }

    /// Returns the InternalIPs that identify the node on every network. A link-local address is
    /// valid on one interface only.
    pub fn usable_addresses(&self) -> impl Iterator<Item = IpAddr> + '_ {
        let is_usable = |address: &&IpAddr| {
            let is_link_local = match address {
                IpAddr::V4(address) => address.is_link_local(),
                IpAddr::V6(address) => address.is_unicast_link_local(),
            };
            !(is_link_local || address.is_loopback() || address.is_unspecified())
        };
        self.internal_addresses.iter().filter(is_usable).copied()
    }
}

impl From<NodeObject> for Node {
    fn from(object: NodeObject) -> Self {
        let NodeObject { metadata, spec, status } = object;
        let labels = metadata.labels.unwrap_or_default();
        let addresses = status.addresses.unwrap_or_default();
        let conditions = status.conditions.unwrap_or_default();
        let taints = spec.taints.unwrap_or_default();
        let tainted = |key: &str| taints.iter().any(|taint| taint.key == key);
        let has_drain_annotation = metadata
            .annotations
            .is_some_and(|all| all.get(DRAIN_ANNOTATION).is_some_and(|value| value != "false"));
        let has = |kind: &str, status: &str| {
            conditions.iter().any(|c| c.r#type == kind && c.status == status)
        };
        let is_true = |kind: &str| has(kind, "True");
        let parse = |kind: Option<&str>| {
            let of_kind = addresses.iter().filter(|a| kind.is_none_or(|kind| a.r#type == kind));
            of_kind.filter_map(|a| a.address.parse().ok()).take(ADDRESSES_MAX).collect()
        };
        Self {
            name: metadata.name.unwrap_or_default().into(),
            uid: metadata.uid.unwrap_or_default().into(),
            addresses: parse(None),
            internal_addresses: parse(Some("InternalIP")),
            kubelet_port: status
                .daemon_endpoints
                .and_then(|endpoints| endpoints.kubelet)
                .and_then(|kubelet| u16::try_from(kubelet.port).ok())
                .filter(|port| *port != 0),
            pod_cidrs: spec
                .pod_cidrs
                .iter()
                .flatten()
                .filter_map(|text| text.parse().ok())
                .collect(),
            ready: is_true("Ready"),
            ready_unknown: has("Ready", "Unknown"),
            cordoned: spec.unschedulable.unwrap_or(false),
            unreachable: is_true("NetworkUnavailable") || tainted(OUT_OF_SERVICE_TAINT),
            excluded: labels.contains_key(EXCLUDE_LABEL),
            drain: match () {
                () if has_drain_annotation => Some(DrainReason::Annotation),
                () if tainted(TO_BE_DELETED_TAINT) => Some(DrainReason::Autoscaler),
                () => None,
            },
            labels,
        }
    }
}

built_in!(Node: NodeObject, "Node", "Nodes", all);

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_fields_of_a_node_are_decoded() {
        let node = |json| Node::from(serde_json::from_value::<NodeObject>(json).expect("node"));
        let plain = node(json!({"metadata": {"name": "n1"}, "status": {
            "daemonEndpoints": {"kubeletEndpoint": {"Port": 10250}},
            "addresses": [{"type": "InternalIP", "address": "10.0.0.1"}, {"type": "Hostname", "address": "n1"}, {"type": "ExternalIP", "address": "fd00::1"}],
            "conditions": [{"type": "Ready", "status": "True"}, {"type": "NetworkUnavailable", "status": "False"}]}}));
        assert_eq!((plain.addresses.len(), plain.internal_addresses.len()), (2, 1));
        assert_eq!(plain.kubelet_port, Some(10_250));
        let many: Vec<_> = (0..=255)
            .map(|last| json!({"type": "InternalIP", "address": format!("10.0.0.{last}")}))
            .collect();
        let many = node(json!({"metadata": {"name": "n1"}, "status": {"addresses": many}}));
        assert_eq!(many.addresses.len(), ADDRESSES_MAX);
        let pods = node(
            json!({"metadata": {"name": "n1"}, "spec": {"podCIDRs": ["10.244.1.0/24", "fd00:1::/64", "x"]}}),
        );
        let pods: Vec<_> = pods.pod_cidrs.iter().map(ToString::to_string).collect();
        assert_eq!(pods, ["10.244.1.0-10.244.1.255", "fd00:1::-fd00:1::ffff:ffff:ffff:ffff"]);
        assert!(plain.ready && !plain.cordoned && !plain.unreachable && !plain.excluded);
        let bad = node(
            json!({"metadata": {"name": "n2", "labels": {"node.kubernetes.io/exclude-from-external-load-balancers": ""}},
            "spec": {"unschedulable": true, "taints": [{"key": "node.kubernetes.io/out-of-service", "effect": "NoExecute"}]}}),
        );
        assert!(!bad.ready && bad.cordoned && bad.unreachable && bad.excluded);
        let net = node(
            json!({"metadata": {"name": "n3"}, "status": {"conditions": [{"type": "NetworkUnavailable", "status": "True"}]}}),
        );
        assert!(net.unreachable && !net.ready_unknown);
        let lost = node(
            json!({"metadata": {"name": "n4"}, "status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}}),
        );
        assert!(lost.ready_unknown && !lost.ready);
    }

    #[test]
    fn a_node_drains_by_annotation_or_taint() {
        let drain = |annotations, taints| {
            let node = json!({"metadata": {"name": "n1", "annotations": annotations}, "spec": {"taints": taints}});
            Node::from(serde_json::from_value::<NodeObject>(node).expect("node")).drain
        };
        let taint = json!([{"key": "x", "effect": "NoSchedule"}, {"key": TO_BE_DELETED_TAINT, "value": "1700000000", "effect": "NoSchedule"}]);
        let none = || json!(null);
        let cases = [
            (none(), none(), None),
            (json!({"ferrolb.io/drain": ""}), none(), Some(DrainReason::Annotation)),
            (json!({"ferrolb.io/drain": "true"}), taint.clone(), Some(DrainReason::Annotation)),
            (json!({"ferrolb.io/drain": "false"}), none(), None),
            (json!({"ferrolb.io/drain": "false"}), taint, Some(DrainReason::Autoscaler)),
            (
                json!({"other.io/drain": "true"}),
                json!([{"key": "DeletionCandidateOfClusterAutoscaler"}]),
                None,
            ),
        ];
        for (annotations, taints, expect) in cases {
            assert_eq!(
                drain(annotations.clone(), taints.clone()),
                expect,
                "the Node has the annotations {annotations} and the taints {taints}"
            );
        }
    }
}
