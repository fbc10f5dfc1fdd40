//! Checks that the workloads of each rendered file have the properties that
//! docs/operate/security.md documents.

use serde_json::{Value, json};

use crate::manifests::{RENDERED, objects};
use crate::tree::assert_none;

/// Field by which the scheduler prefers different nodes for the controllers.
const ANTI_AFFINITY: &str = "/spec/template/spec/affinity/podAntiAffinity/preferredDuringSchedulingIgnoredDuringExecution/0/podAffinityTerm";

/// Field by which it prefers control-plane nodes for them.
const NODE_AFFINITY: &str = "/spec/template/spec/affinity/nodeAffinity/preferredDuringSchedulingIgnoredDuringExecution/0/preference/matchExpressions/0/key";

/// Returns the expected fields of a container: restricted privileges, no CPU limit, which would
/// throttle the container while the node is idle, and time for the probes on a slow machine. A
/// speaker that its liveness probe kills drops its addresses.
fn container_fields(name: &str) -> Vec<(&'static str, Value)> {
    // With a smaller request, a speaker sends its hello frames late on a busy node
    // (docs/operate/scale.md).
    let cpu_request = (name == "speaker").then(|| ("/resources/requests/cpu", json!("100m")));
    // The readiness probe of gobgpd, which kills nothing, has Kubernetes' default.
    let readiness = (name != "gobgpd").then(|| ("/readinessProbe/timeoutSeconds", json!(5)));
    let common_fields = [
        ("/securityContext/allowPrivilegeEscalation", json!(false)),
        ("/securityContext/readOnlyRootFilesystem", json!(true)),
        ("/securityContext/capabilities/drop", json!(["ALL"])),
        ("/resources/limits/cpu", Value::Null),
        ("/livenessProbe/timeoutSeconds", json!(5)),
    ];
    common_fields.into_iter().chain(cpu_request).chain(readiness).collect()
}

/// Returns the expected fields of an object of this kind. The pods of DaemonSets run on every node,
/// are replaced one by one and have loopback probes. Two controllers run on different nodes, one of
/// them on a control-plane node, with a PodDisruptionBudget and a NetworkPolicy.
fn object_fields(kind: &str) -> Vec<(&'static str, Value)> {
    let controller =
        json!({"app.kubernetes.io/name": "ferrolb", "app.kubernetes.io/component": "controller"});
    match kind {
        "Namespace" => {
            vec![("/metadata/labels/pod-security.kubernetes.io~1enforce", json!("privileged"))]
        }
        "DaemonSet" => vec![
            ("/spec/updateStrategy/rollingUpdate/maxUnavailable", json!(1)),
            ("/spec/template/spec/tolerations", json!([{"operator": "Exists"}])),
            ("/spec/template/spec/priorityClassName", json!("system-node-critical")),
            ("/spec/template/spec/containers/0/livenessProbe/httpGet/host", json!("127.0.0.1")),
            ("/spec/template/spec/containers/0/readinessProbe/httpGet/host", json!("127.0.0.1")),
            ("/spec/template/spec/securityContext/seccompProfile/type", json!("RuntimeDefault")),
        ],
        "Deployment" => vec![
            ("/spec/replicas", json!(2)),
            ("/spec/template/metadata/labels", controller.clone()),
            (
                ANTI_AFFINITY,
                json!({"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": controller}, "matchLabelKeys": ["pod-template-hash"]}),
            ),
            (
                "/spec/template/spec/topologySpreadConstraints/0/whenUnsatisfiable",
                json!("ScheduleAnyway"),
            ),
            (NODE_AFFINITY, json!("node-role.kubernetes.io/control-plane")),
            ("/spec/template/spec/priorityClassName", json!("system-cluster-critical")),
            ("/spec/template/spec/securityContext/runAsNonRoot", json!(true)),
            ("/spec/template/spec/securityContext/seccompProfile/type", json!("RuntimeDefault")),
        ],
        "PodDisruptionBudget" => {
            vec![("/spec/maxUnavailable", json!(1)), ("/spec/selector/matchLabels", controller)]
        }
        "NetworkPolicy" => vec![
            ("/spec/podSelector/matchLabels", controller),
            ("/spec/policyTypes", json!(["Ingress", "Egress"])),
            ("/spec/ingress/0/ports", json!([{"port": "admin", "protocol": "TCP"}])),
        ],
        _ => Vec::new(),
    }
}

/// Returns a message for each field of an object that differs from `expected`.
fn differences(object: &Value, expected: Vec<(&'static str, Value)>) -> Vec<String> {
    let found = |pointer: &str| object.pointer(pointer).cloned().unwrap_or(Value::Null);
    let differing = expected.into_iter().filter(|(pointer, expect)| found(pointer) != *expect);
    differing
        .map(|(pointer, expect)| format!("{pointer} is {}, not {expect}", found(pointer)))
        .collect()
}

#[test]
fn workloads_have_the_documented_properties() {
    let (mut problems, mut checked_objects) = (Vec::new(), 0);
    for (path, object) in objects(RENDERED) {
        let kind = object["kind"].as_str().unwrap_or_default();
        let expected = object_fields(kind);
        checked_objects += usize::from(!expected.is_empty());
        let containers = object.pointer("/spec/template/spec/containers").and_then(Value::as_array);
        let container_problems = containers.into_iter().flatten().flat_map(|container| {
            differences(container, container_fields(container["name"].as_str().unwrap_or_default()))
        });
        let all = differences(&object, expected).into_iter().chain(container_problems);
        problems.extend(
            all.map(|problem| format!("{path}: {kind} {}: {problem}", object["metadata"]["name"])),
        );
    }
    // Each of the four files has five checked objects, and one file also has the DaemonSet gobgpd.
    assert_eq!(checked_objects, 21, "the number of checked objects has changed");
    assert_none(&problems, "these fields differ from docs/operate/security.md:");
}
