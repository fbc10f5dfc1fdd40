//! Values that the chart refuses, and Helm's error: unknown names (such as typos), values of
//! another type, and two pools with one name.

use crate::chart;
use serde_json::{Value, json};

/// Values of the chart, and a part of the expected error.
type RefusalCase = (Value, &'static str);

fn cases() -> Vec<RefusalCase> {
    [component_values(), general_values(), pool_values(), missing_values()].concat()
}

/// Returns invalid values of the controller or of the speaker.
fn component_values() -> Vec<RefusalCase> {
    vec![
        (
            json!({"controler": {"replicas": 3}}),
            "at '': additional properties 'controler' not allowed",
        ),
        (
            json!({"controller": {"replica": 3}}),
            "at '/controller': additional properties 'replica' not allowed",
        ),
        (
            json!({"speaker": {"frr": {"enabled": true}}}),
            "at '/speaker': additional properties 'frr' not allowed",
        ),
        (
            json!({"speaker": {"image": {"name": "x"}}}),
            "at '/speaker/image': additional properties 'name' not allowed",
        ),
        (
            json!({"controller": {"replicas": "two"}}),
            "at '/controller/replicas': got string, want integer",
        ),
        (
            json!({"controller": {"replicas": 0}}),
            "at '/controller/replicas': minimum: got 0, want 1",
        ),
        (
            json!({"controller": {"logLevel": "loud"}}),
            "at '/controller/logLevel': value must be one of 'error'",
        ),
        (
            json!({"controller": {"affinity": []}}),
            "at '/controller/affinity': got array, want object",
        ),
        (
            json!({"speaker": {"tolerations": "all"}}),
            "at '/speaker/tolerations': got string, want array",
        ),
        (
            json!({"speaker": {"nodeSelector": {"edge": true}}}),
            "at '/speaker/nodeSelector/edge': got boolean, want string",
        ),
        (
            json!({"speaker": {"extraArgs": ["failback-delay"]}}),
            "at '/speaker/extraArgs/0': 'failback-delay' does not match",
        ),
        (
            json!({"speaker": {"excludeInterfaces": {"enabled": true}}}),
            "at '/speaker/excludeInterfaces': got object, want array",
        ),
        (
            json!({"speaker": {"resources": {"limit": {}}}}),
            "at '/speaker/resources': additional properties 'limit' not allowed",
        ),
        (
            json!({"speaker": {"image": {"pullPolicy": "Sometimes"}}}),
            "at '/speaker/image/pullPolicy': value must be one of",
        ),
    ]
}

fn general_values() -> Vec<RefusalCase> {
    vec![
        (json!({"bgp": {"enabled": "yes"}}), "at '/bgp/enabled': got string, want boolean"),
        (json!({"loadBalancerClass": 3}), "at '/loadBalancerClass': got number, want string"),
        (
            json!({"prometheus": {"metricsPort": 70000}}),
            "at '/prometheus/metricsPort': maximum: got 70,000, want 65,535",
        ),
        (
            json!({"networkpolicies": {"apiPorts": []}}),
            "at '/networkpolicies/apiPorts': minItems: got 0, want 1",
        ),
        (
            json!({"imagePullSecrets": ["mine"]}),
            "at '/imagePullSecrets/0': got string, want object",
        ),
        (json!({"metallbNamespace": true}), "at '/metallbNamespace': got boolean, want string"),
        (json!({"probePort": 7472}), "probePort and prometheus.metricsPort are the same port"),
    ]
}

fn pool_values() -> Vec<RefusalCase> {
    vec![
        (json!({"pools": [{"name": "first"}]}), "at '/pools/0': missing property 'addresses'"),
        (
            json!({"pools": [{"name": "First", "addresses": ["10.0.0.1"]}]}),
            "at '/pools/0/name': 'First' does not match",
        ),
        (
            json!({"pools": [{"name": "first", "addresses": "10.0.0.0/24"}]}),
            "at '/pools/0/addresses': got string, want array",
        ),
        (
            json!({"pools": [
                {"name": "first", "addresses": ["10.0.0.1"]},
                {"name": "first", "addresses": ["10.0.0.2"]},
            ]}),
            "pools: two have the name first",
        ),
        (
            json!({"metallbNamespace": "metallb-system", "pools": [{"name": "first", "addresses": ["10.0.0.1"]}]}),
            "at '/pools': maxItems: got 1, want 0",
        ),
        (json!({"pools": {"first": ["10.0.0.1"]}}), "at '/pools': got object, want array"),
    ]
}

/// Returns values in which a default of the chart is missing, as after `--reuse-values` with a
/// chart that is newer than the release.
fn missing_values() -> Vec<RefusalCase> {
    vec![
        (json!({"probePort": null}), "at '': missing property 'probePort'"),
        (
            json!({"prometheus": {"metricsPort": null}}),
            "at '/prometheus': missing property 'metricsPort'",
        ),
        (
            json!({"networkpolicies": {"apiPorts": null}}),
            "at '/networkpolicies': missing property 'apiPorts'",
        ),
        (
            json!({"controller": {"logLevel": null}}),
            "at '/controller': missing property 'logLevel'",
        ),
        (json!({"speaker": null}), "at '': missing property 'speaker'"),
        (
            json!({"speaker": {"serviceAccount": null}}),
            "at '/speaker': missing property 'serviceAccount'",
        ),
        (json!({"bgp": {"image": {"tag": null}}}), "at '/bgp/image': missing property 'tag'"),
    ]
}

#[test]
fn invalid_values_are_refused_and_named() {
    for (values, words) in cases() {
        let error = chart::objects(&values).map(|objects| objects.len()).unwrap_err().to_string();
        assert!(error.contains(words), "the error for {values} lacks {words:?}: {error}");
    }
}

#[test]
fn global_values_of_helm_are_accepted() {
    // Helm passes these values to every subchart.
    assert!(!chart::objects(&json!({"global": {"registry": "mine"}})).unwrap().is_empty());
}

#[test]
fn defaults_that_are_lists_or_maps_can_be_removed() {
    let none = json!({"nodeSelector": null, "podAnnotations": null, "labels": null, "tolerations": null,
        "resources": null, "priorityClassName": null, "extraArgs": null});
    let objects =
        chart::objects(&json!({"controller": none, "speaker": none, "bgp": {"enabled": true}}))
            .unwrap();
    let pods: Vec<_> =
        objects.iter().filter_map(|object| object.pointer("/spec/template/spec")).collect();
    assert_eq!(pods.len(), 3);
    for pod in pods {
        assert_eq!(
            pod["nodeSelector"],
            json!({"kubernetes.io/os": "linux"}),
            "the nodeSelector differs: {pod}"
        );
        assert!(
            pod.get("tolerations").is_none() && pod.get("priorityClassName").is_none(),
            "the pod still has tolerations or a priorityClassName: {pod}"
        );
    }
}
