//! Properties of the installed workloads that docs/install.md promises, in each rendered file.

use serde_json::{Value, json};

use crate::manifests::{RENDERED, objects};
use crate::tree::assert_none;

/// Field that keeps the controllers on different nodes, if there are several.
const ANTI_AFFINITY: &str = "/spec/template/spec/affinity/podAntiAffinity/preferredDuringSchedulingIgnoredDuringExecution/0/podAffinityTerm";

/// Returns the properties of a container: only the permissions that it needs, and no CPU limit, so
/// that it is not throttled while the node has time to spare.
fn of_container(name: &str) -> Vec<(&'static str, Value)> {
    // With a smaller request, a speaker sends its hello frames late on a busy node
    // (docs/benchmarks.md).
    let share = (name == "speaker").then(|| ("/resources/requests/cpu", json!("100m")));
    let of_all = [
        ("/securityContext/allowPrivilegeEscalation", json!(false)),
        ("/securityContext/readOnlyRootFilesystem", json!(true)),
        ("/securityContext/capabilities/drop", json!(["ALL"])),
        ("/resources/limits/cpu", Value::Null),
    ];
    of_all.into_iter().chain(share).collect()
}

/// Returns the properties of an object, by its kind. DaemonSets run on every node, are replaced one
/// by one and are probed at loopback. There are two controllers, on different nodes, with a
/// disruption budget and a network policy.
fn of_object(kind: &str) -> Vec<(&'static str, Value)> {
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
                json!({"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": controller}}),
            ),
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

/// Returns the fields of an object that differ from `expected`.
fn wrong(object: &Value, expected: Vec<(&'static str, Value)>) -> Vec<String> {
    let found = |place: &str| object.pointer(place).cloned().unwrap_or(Value::Null);
    let wrong = expected.into_iter().filter(|(place, expect)| found(place) != *expect);
    wrong.map(|(place, expect)| format!("{place} is {}, not {expect}", found(place))).collect()
}

#[test]
fn workloads_have_the_documented_properties() {
    let (mut problems, mut looked_at) = (Vec::new(), 0);
    for (path, object) in objects(RENDERED) {
        let kind = object["kind"].as_str().unwrap_or_default();
        let expected = of_object(kind);
        looked_at += usize::from(!expected.is_empty());
        let containers = object.pointer("/spec/template/spec/containers").and_then(Value::as_array);
        let of_containers = containers.into_iter().flatten().flat_map(|container| {
            wrong(container, of_container(container["name"].as_str().unwrap_or_default()))
        });
        let all = wrong(&object, expected).into_iter().chain(of_containers);
        problems.extend(
            all.map(|problem| format!("{path}: {kind} {}: {problem}", object["metadata"]["name"])),
        );
    }
    // Five objects of each of the four files, and gobgpd.
    assert_eq!(looked_at, 21, "objects were looked at");
    assert_none(&problems, "these differ from docs/install.md:");
}
