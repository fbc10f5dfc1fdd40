//! Effect of each value of the chart: a table with a rendered field for every value.

use crate::chart::{self, kind_and_name};
use ferrolb_lab::setup::repository;
use ferrolb_proto::api::NAMESPACE;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;

/// The path of a chart value, its setting, and the effect: an object, a field of that object, and
/// the field's value.
type ValueRow = (&'static str, Value, &'static str, &'static str, Value);

const CONTROLLER: &str = "Deployment/controller";
const SPEAKER: &str = "DaemonSet/speaker";
const GOBGPD: &str = "DaemonSet/gobgpd";
/// Digest of the images.
const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

fn rows() -> Vec<ValueRow> {
    [
        general_rows(),
        controller_rows(),
        controller_pod_rows(),
        speaker_rows(),
        speaker_pod_rows(),
        bgp_rows(),
    ]
    .concat()
}

fn general_rows() -> Vec<ValueRow> {
    let pool = json!([{"name": "first", "addresses": ["10.0.0.0/24"]}]);
    let secrets = json!([{"name": "mine"}]);
    vec![
        ("/pools", pool, "IPAddressPool/first", "/spec/addresses", json!(["10.0.0.0/24"])),
        (
            "/loadBalancerClass",
            json!("example.com/mine"),
            SPEAKER,
            "/spec/template/spec/containers/0/env/1",
            json!({"name": "FERROLB_LOAD_BALANCER_CLASS", "value": "example.com/mine"}),
        ),
        (
            "/imagePullSecrets",
            secrets.clone(),
            GOBGPD,
            "/spec/template/spec/imagePullSecrets",
            secrets,
        ),
        (
            "/prometheus/metricsPort",
            json!(7500),
            SPEAKER,
            "/spec/template/spec/containers/0/ports/0/containerPort",
            json!(7500),
        ),
        (
            "/probePort",
            json!(7501),
            GOBGPD,
            "/spec/template/spec/containers/0/livenessProbe/httpGet/port",
            json!(7501),
        ),
        (
            "/prometheus/scrapeAnnotations",
            json!(true),
            SPEAKER,
            "/spec/template/metadata/annotations/prometheus.io~1port",
            json!("7500"),
        ),
        (
            "/prometheus/podMonitor/enabled",
            json!(true),
            "PodMonitor/ferrolb",
            "/spec/podMetricsEndpoints/0/port",
            json!("admin"),
        ),
        (
            "/prometheus/podMonitor/additionalLabels",
            json!({"a": "b"}),
            "PodMonitor/ferrolb",
            "/metadata/labels/a",
            json!("b"),
        ),
        (
            "/prometheus/podMonitor/interval",
            json!("15s"),
            "PodMonitor/ferrolb",
            "/spec/podMetricsEndpoints/0/interval",
            json!("15s"),
        ),
        (
            "/networkpolicies/apiPorts",
            json!([7443]),
            "NetworkPolicy/controller",
            "/spec/egress/0/ports/0/port",
            json!(7443),
        ),
    ]
}

fn image(repository: &str, policy: &str) -> Value {
    json!({"repository": repository, "tag": "t", "digest": DIGEST, "pullPolicy": policy})
}

fn bgp_rows() -> Vec<ValueRow> {
    vec![
        ("/bgp/enabled", json!(true), "Role/speaker-bgp", "/rules/1/resources", json!(["secrets"])),
        (
            "/bgp/image",
            image("r/g", "Never"),
            GOBGPD,
            "/spec/template/spec/containers/0/image",
            json!(format!("r/g:t@{DIGEST}")),
        ),
        (
            "/bgp/resources",
            json!({"limits": {"memory": "1Gi"}}),
            GOBGPD,
            "/spec/template/spec/containers/0/resources/limits/memory",
            json!("1Gi"),
        ),
    ]
}

fn controller_rows() -> Vec<ValueRow> {
    vec![
        (
            "/controller/logLevel",
            json!("debug"),
            CONTROLLER,
            "/spec/template/spec/containers/0/args/1",
            json!("--log-level=debug"),
        ),
        (
            "/controller/nodeFailureEndpoints",
            json!("all"),
            CONTROLLER,
            "/spec/template/spec/containers/0/args/2",
            json!("--node-failure-endpoints=all"),
        ),
        ("/controller/replicas", json!(3), CONTROLLER, "/spec/replicas", json!(3)),
        (
            "/controller/image",
            image("r/c", "Always"),
            CONTROLLER,
            "/spec/template/spec/containers/0/image",
            json!(format!("r/c:t@{DIGEST}")),
        ),
        (
            "/controller/extraArgs",
            json!(["--lease-duration=30s"]),
            CONTROLLER,
            "/spec/template/spec/containers/0/args/3",
            json!("--lease-duration=30s"),
        ),
    ]
}

fn controller_pod_rows() -> Vec<ValueRow> {
    let affinity = json!({"nodeAffinity": {}});
    let toleration = json!([{"key": "k", "operator": "Exists"}]);
    vec![
        (
            "/controller/serviceAccount/annotations",
            json!({"a": "c"}),
            "ServiceAccount/controller",
            "/metadata/annotations/a",
            json!("c"),
        ),
        (
            "/controller/podAnnotations",
            json!({"a": "c"}),
            CONTROLLER,
            "/spec/template/metadata/annotations/a",
            json!("c"),
        ),
        (
            "/controller/labels",
            json!({"a": "c"}),
            CONTROLLER,
            "/spec/template/metadata/labels/a",
            json!("c"),
        ),
        (
            "/controller/priorityClassName",
            json!("mine"),
            CONTROLLER,
            "/spec/template/spec/priorityClassName",
            json!("mine"),
        ),
        (
            "/controller/nodeSelector",
            json!({"a": "c"}),
            CONTROLLER,
            "/spec/template/spec/nodeSelector",
            json!({"a": "c", "kubernetes.io/os": "linux"}),
        ),
        (
            "/controller/tolerations",
            toleration.clone(),
            CONTROLLER,
            "/spec/template/spec/tolerations",
            toleration,
        ),
        (
            "/controller/affinity",
            affinity.clone(),
            CONTROLLER,
            "/spec/template/spec/affinity",
            affinity,
        ),
        (
            "/controller/resources",
            json!({"limits": {"memory": "1Gi"}}),
            CONTROLLER,
            "/spec/template/spec/containers/0/resources/limits/memory",
            json!("1Gi"),
        ),
    ]
}

fn speaker_rows() -> Vec<ValueRow> {
    vec![
        (
            "/speaker/logLevel",
            json!("warn"),
            SPEAKER,
            "/spec/template/spec/containers/0/args/1",
            json!("--log-level=warn"),
        ),
        (
            "/speaker/ignoreExcludeLB",
            json!(true),
            SPEAKER,
            "/spec/template/spec/containers/0/args/2",
            json!("--ignore-exclude-label=true"),
        ),
        (
            "/speaker/excludeInterfaces",
            json!(["wg.*", "tailscale0"]),
            SPEAKER,
            "/spec/template/spec/containers/0/args/3",
            json!("--exclude-interfaces=wg.*,tailscale0"),
        ),
        (
            "/speaker/extraArgs",
            json!(["--failback-delay=never"]),
            SPEAKER,
            "/spec/template/spec/containers/0/args/4",
            json!("--failback-delay=never"),
        ),
        (
            "/speaker/image",
            image("r/s", "Always"),
            SPEAKER,
            "/spec/template/spec/containers/0/image",
            json!(format!("r/s:t@{DIGEST}")),
        ),
    ]
}

fn speaker_pod_rows() -> Vec<ValueRow> {
    let toleration = json!([{"key": "s", "operator": "Exists"}]);
    vec![
        (
            "/speaker/serviceAccount/annotations",
            json!({"a": "s"}),
            "ServiceAccount/speaker",
            "/metadata/annotations/a",
            json!("s"),
        ),
        (
            "/speaker/podAnnotations",
            json!({"a": "s"}),
            SPEAKER,
            "/spec/template/metadata/annotations/a",
            json!("s"),
        ),
        (
            "/speaker/labels",
            json!({"a": "s"}),
            SPEAKER,
            "/spec/template/metadata/labels/a",
            json!("s"),
        ),
        (
            "/speaker/priorityClassName",
            json!("mine"),
            GOBGPD,
            "/spec/template/spec/priorityClassName",
            json!("mine"),
        ),
        (
            "/speaker/nodeSelector",
            json!({"a": "s"}),
            GOBGPD,
            "/spec/template/spec/nodeSelector",
            json!({"a": "s", "kubernetes.io/os": "linux"}),
        ),
        (
            "/speaker/tolerations",
            toleration.clone(),
            SPEAKER,
            "/spec/template/spec/tolerations",
            toleration,
        ),
        (
            "/speaker/resources",
            json!({"limits": {"memory": "2Gi"}}),
            SPEAKER,
            "/spec/template/spec/containers/0/resources/limits/memory",
            json!("2Gi"),
        ),
    ]
}

/// Returns one set of chart values with the values of all rows.
fn all_values() -> Value {
    let mut values = json!({});
    for (path, value, ..) in rows() {
        let field = path.split('/').skip(1).fold(&mut values, |field, name| &mut field[name]);
        *field = value;
    }
    values
}

/// Returns whether the rendered objects have the field of a row with the row's value.
fn has_field(objects: &[Value], (_, _, object, pointer, expect): &ValueRow) -> bool {
    let object = objects.iter().find(|found| kind_and_name(found) == *object);
    object.and_then(|object| object.pointer(pointer)) == Some(expect)
}

#[test]
fn every_value_sets_the_field_in_its_row() {
    let [default, set] = [json!({}), all_values()].map(|values| chart::objects(&values).unwrap());
    for row in rows() {
        assert!(!has_field(&default, &row), "the defaults already render the field of {}", row.0);
        let object = set.iter().find(|object| kind_and_name(object) == row.2);
        assert!(
            has_field(&set, &row),
            "{} does not set {} of {}: {object:#?}",
            row.0,
            row.3,
            row.2
        );
    }
    let lint = chart::lint(&all_values()).unwrap();
    assert!(lint.contains("0 chart(s) failed"), "helm lint found errors: {lint}");
    let lint = chart::lint(&json!({})).unwrap();
    assert!(lint.contains("0 chart(s) failed") && !lint.contains("[INFO]"), "{lint}");
}

#[test]
fn the_permission_to_mark_pods_exists_only_if_pods_are_marked() {
    let has_role = |values: Value| {
        let objects = chart::objects(&values).unwrap();
        let kinds = ["ClusterRole", "ClusterRoleBinding"];
        kinds.map(|kind| {
            let name = format!("{kind}/{NAMESPACE}:ferrolb-node-failure");
            objects.iter().any(|object| kind_and_name(object) == name)
        })
    };
    for scope in ["services", "all"] {
        assert_eq!(has_role(json!({"controller": {"nodeFailureEndpoints": scope}})), [true; 2]);
    }
    assert_eq!(has_role(json!({"controller": {"nodeFailureEndpoints": "off"}})), [false; 2]);
    assert_eq!(has_role(json!({"metallbNamespace": "lb"})), [false; 2]);
}

#[test]
fn metallb_namespace_sets_permissions_and_api_group() {
    let objects =
        chart::objects(&json!({"metallbNamespace": "lb", "bgp": {"enabled": true}})).unwrap();
    let field = |name: &str, pointer: &str| {
        let object = objects.iter().find(|object| kind_and_name(object) == name);
        object
            .and_then(|object| object.pointer(pointer))
            .cloned()
            .unwrap_or_else(|| panic!("{name} has no {pointer}"))
    };
    for role in ["ferrolb-controller", "ferrolb-speaker", "ferrolb-speaker-bgp"] {
        for kind in ["Role", "RoleBinding"] {
            assert_eq!(
                field(&format!("{kind}/{role}"), "/metadata/namespace"),
                "lb",
                "{kind} {role} is in another namespace"
            );
        }
        assert_eq!(field(&format!("RoleBinding/{role}"), "/roleRef/name"), role);
        assert_eq!(
            field(&format!("Role/{role}"), "/rules/0/apiGroups"),
            json!(["metallb.io"]),
            "the Role {role} has another API group"
        );
    }
    for workload in ["Deployment/controller", SPEAKER] {
        let variables = field(workload, "/spec/template/spec/containers/0/env");
        for expect in [("FERROLB_NAMESPACE", "lb"), ("FERROLB_API_GROUP", "metallb.io")] {
            let expect = json!({"name": expect.0, "value": expect.1});
            assert!(
                variables.as_array().unwrap().contains(&expect),
                "{workload} lacks {expect}: {variables}"
            );
        }
    }
    let roles = objects.iter().filter(|object| object["kind"] == "Role").map(Value::to_string);
    assert_eq!(
        roles.filter(|role| role.contains("ferrolb.io")).count(),
        0,
        "Roles grant permissions for ferrolb.io, which are unused"
    );
}

#[test]
fn disabled_network_policies_are_not_rendered() {
    let policies = |values: &Value| {
        let objects = chart::objects(values).unwrap();
        objects.iter().filter(|object| kind_and_name(object).starts_with("NetworkPolicy/")).count()
    };
    assert_eq!(policies(&json!({})), 1);
    assert_eq!(policies(&json!({"networkpolicies": {"enabled": false}})), 0);
}

/// Paths of the values that have no row, because they disable objects or exclude `pools`. Other
/// tests cover these values.
const PATHS_OF_OTHER_TESTS: [&str; 2] = ["/networkpolicies/enabled", "/metallbNamespace"];

/// Page with the table of MetalLB's values and those of this chart.
const METALLB_VALUES: &str = "docs/differences-from-metallb.md";

/// Returns the paths of the chart's values that are not in `covered`.
fn uncovered(values: &Value, path: &str, covered: &BTreeSet<&str>) -> Vec<String> {
    if covered.contains(path) {
        return Vec::new();
    }
    let Some(fields) = values.as_object().filter(|fields| !fields.is_empty()) else {
        return vec![path.to_owned()];
    };
    fields
        .iter()
        .flat_map(|(name, value)| uncovered(value, &format!("{path}/{name}"), covered))
        .collect()
}

#[test]
fn every_value_has_a_row() {
    let values: Value = serde_saphyr::from_str(&chart::file("values.yaml").unwrap()).unwrap();
    let covered = rows().iter().map(|row| row.0).chain(PATHS_OF_OTHER_TESTS).collect();
    assert_eq!(uncovered(&values, "", &covered), Vec::<String>::new());
}

#[test]
fn every_value_is_in_the_table_of_metallbs_values() {
    let page = fs::read_to_string(repository().join(METALLB_VALUES)).unwrap();
    let missing: Vec<_> = rows()
        .into_iter()
        .map(|row| row.0)
        .chain(PATHS_OF_OTHER_TESTS)
        .filter(|path| !is_named(&page, path))
        .collect();
    assert!(missing.is_empty(), "{METALLB_VALUES} does not name {missing:?}");
}

/// Returns whether a page names a value: in full, as a value of every component
/// (`*.image.repository`), or by its last part (`.tolerations`).
fn is_named(page: &str, path: &str) -> bool {
    let dotted = path.trim_start_matches('/').replace('/', ".");
    let last = dotted.rsplit('.').next().unwrap_or_default();
    let in_component = dotted.split_once('.').map(|(_, value)| format!("*.{value}"));
    [Some(format!(".{last}")), in_component, Some(dotted)]
        .into_iter()
        .flatten()
        .any(|name| page.contains(&format!("`{name}")))
}
