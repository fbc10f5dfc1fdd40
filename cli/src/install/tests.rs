//! Decisions about installations of several programs, the order of the objects, and the progress.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use serde_json::{Value, json};

use super::decision::{chosen, installed, obstacle};
use super::manifests::Variant;
use super::wait::{Progress, wait};
use crate::check::finding::{Category, Code, Finding};
use crate::check::report::{CategoryReport, Report};
use crate::golden::golden;
use crate::objects::{name, text};

const VARIANTS: [Variant; 4] =
    [Variant::L2, Variant::Bgp, Variant::BesideMetallb, Variant::MetallbTakeover];

/// Returns the controller's Deployment of a manifest in `lb`, with these additional metadata.
fn deployment(variant: Variant, metadata: &Value) -> Deployment {
    let stages = variant.stages("lb").unwrap();
    let is_controller = |it: &&Value| name(it) == "controller";
    let mut object = stages.workloads.iter().find(is_controller).unwrap().clone();
    let target = object["metadata"].as_object_mut().unwrap();
    target.extend(metadata.as_object().unwrap().clone());
    serde_json::from_value(object).unwrap()
}

fn managed_by(manager: &str) -> Value {
    let status = json!({"manager": "kube-controller-manager", "subresource": "status"});
    json!({"managedFields": [status, {"manager": manager}]})
}

#[test]
fn an_upgrade_keeps_the_variant() {
    assert_eq!(installed(&[], "lb", false), Ok(None));
    for variant in VARIANTS {
        let own = deployment(variant, &managed_by("kubectl-ferrolb"));
        let has_gobgpd = variant == Variant::Bgp;
        assert_eq!(installed(&[own], "lb", has_gobgpd), Ok(Some(variant)));
    }
}

#[test]
fn installations_of_other_programs_are_refused() {
    let helm = json!({"labels": {"app.kubernetes.io/managed-by": "Helm"},
        "annotations": {"meta.helm.sh/release-name": "mine"}});
    let kubectl = managed_by("kubectl-client-side-apply");
    let own = managed_by("kubectl-ferrolb");
    let mut text = String::new();
    for (metadata, namespace) in [(helm, "lb"), (kubectl, "lb"), (own, "other")] {
        let found = installed(&[deployment(Variant::Bgp, &metadata)], namespace, true);
        text.push_str(&format!("{}\n\n", found.unwrap_err()));
    }
    golden("install/golden/refusals.txt", &text);
}

fn report(codes: &[Code]) -> Report {
    let findings: Vec<_> =
        codes.iter().map(|code| Finding::new(*code, Vec::new(), String::new())).collect();
    let problems = findings.iter().filter(|it| it.code == Code::StrictArpOff).count();
    let category = CategoryReport { category: Category::Cluster, summary: None, findings };
    let warnings = codes.len() - problems;
    Report { problems, warnings, incomplete: false, categories: vec![category] }
}

#[test]
fn problems_and_load_balancers_for_the_same_services_are_obstacles() {
    let of = |codes: &[Code], variant, is_installed| {
        let text = obstacle(&report(codes), variant, is_installed)?;
        Some(if text.contains("--variant beside-metallb") { "shared" } else { "problems" })
    };
    assert_eq!(of(&[], Variant::L2, false), None);
    assert_eq!(of(&[Code::NodeExcluded], Variant::L2, false), None);
    assert_eq!(of(&[Code::StrictArpOff], Variant::L2, true), Some("problems"));
    for code in [Code::MetalLb, Code::ServiceLb, Code::OtherLoadBalancer] {
        for variant in [Variant::L2, Variant::Bgp, Variant::MetallbTakeover] {
            assert_eq!(of(&[code], variant, false), Some("shared"));
            assert_eq!(of(&[code], variant, true), None);
        }
        assert_eq!(of(&[code], Variant::BesideMetallb, false), None);
    }
    let incomplete = Report { incomplete: true, ..report(&[]) };
    assert!(obstacle(&incomplete, Variant::L2, true).is_some());
}

#[test]
fn another_variant_than_the_installed_one_is_refused() {
    use Variant::{Bgp, L2};
    for (installed, wanted, expect) in [
        (None, None, Some(L2)),
        (None, Some(Bgp), Some(Bgp)),
        (Some(Bgp), None, Some(Bgp)),
        (Some(Bgp), Some(Bgp), Some(Bgp)),
        (Some(Bgp), Some(L2), None),
    ] {
        assert_eq!(chosen(installed, wanted).ok(), expect, "{installed:?} {wanted:?}");
    }
}

#[test]
fn every_object_is_applied_after_those_that_it_needs() {
    for variant in VARIANTS {
        let stages = variant.stages("lb").unwrap();
        let kinds = |objects: &[Value]| -> BTreeSet<String> {
            objects.iter().map(|it| text(it, "/kind").to_owned()).collect()
        };
        assert_eq!(stages.first[0]["metadata"]["name"], "lb");
        let first = ["CustomResourceDefinition", "Namespace"].map(str::to_owned);
        assert_eq!(kinds(&stages.first), BTreeSet::from(first.clone()));
        let names: Vec<_> = stages.workloads.iter().map(name).collect();
        let all = ["controller", "speaker", "gobgpd"];
        assert_eq!(names, all[..if variant == Variant::Bgp { 3 } else { 2 }]);
        let then = kinds(&stages.then);
        assert!(then.contains("ClusterRoleBinding") && then.contains("Role"), "{then:?}");
        assert!(first.iter().all(|kind| !then.contains(kind)), "{then:?}");
    }
}

#[test]
fn another_namespace_replaces_the_one_of_the_manifests_everywhere() {
    for variant in VARIANTS {
        let default = variant.yaml("ferrolb-system");
        assert!(default.contains("kind: DaemonSet"), "{variant}");
        assert_eq!(default, variant.yaml("lb-one").replace("lb-one", "ferrolb-system"));
        assert!(!variant.yaml("lb").contains("ferrolb-system"), "{variant}");
    }
}

#[test]
fn pods_are_counted_as_by_kubectl_rollout_status() {
    let of = |status: &Value| {
        let object = json!({"metadata": {"generation": 2}, "spec": {"replicas": 3, "selector": {},
            "template": {}}, "status": status});
        Progress::from(&serde_json::from_value::<Deployment>(object).unwrap())
    };
    let done = json!({"observedGeneration": 2, "replicas": 3, "updatedReplicas": 3,
        "availableReplicas": 3});
    let with = |field: &str, value: i32| {
        let mut status = done.clone();
        status[field] = json!(value);
        of(&status)
    };
    let progress = |done, all| Progress { done, all };
    assert_eq!(of(&done), progress(3, 3));
    assert_eq!(with("observedGeneration", 1), progress(0, 3), "the change is not read yet");
    assert_eq!(with("replicas", 4), progress(3, 4), "a replaced pod still runs");
    assert_eq!(with("updatedReplicas", 1), progress(1, 3));
    assert_eq!(with("availableReplicas", 2), progress(2, 3));
    assert_eq!(of(&Value::Null), progress(0, 3));
    let of = |status: &Value| {
        let object = json!({"metadata": {"generation": 2}, "status": status});
        Progress::from(&serde_json::from_value::<DaemonSet>(object).unwrap())
    };
    let done = |observed: i32, updated: i32, available: i32| {
        json!({"observedGeneration": observed, "desiredNumberScheduled": 3,
            "numberMisscheduled": 0, "currentNumberScheduled": 3, "numberReady": 3,
            "updatedNumberScheduled": updated, "numberAvailable": available})
    };
    assert_eq!([(2, 3), (3, 2)].map(|(a, b)| of(&done(2, a, b))), [progress(2, 3); 2]);
    assert_eq!(of(&done(1, 3, 3)), progress(0, 3));
    assert_eq!(of(&Value::Null), progress(0, 1), "the DaemonSet is new");
}

/// Waits with the results of consecutive reads, the last of which repeats. Returns the lines, the
/// result and the seconds.
async fn waited(reads: &[Progress]) -> (Vec<String>, Result<(), String>, u64) {
    let (lines, index, start) =
        (RefCell::new(Vec::new()), Cell::new(0), tokio::time::Instant::now());
    let read = async || {
        let progress = reads[index.get().min(reads.len() - 1)];
        index.set(index.get() + 1);
        Ok(progress)
    };
    let show = |line: &str| lines.borrow_mut().push(line.to_owned());
    let result = wait("ready pods", "see the pods", read, show).await;
    (lines.into_inner(), result.map_err(|it| it.to_string()), start.elapsed().as_secs())
}

#[tokio::test(start_paused = true)]
async fn the_limit_begins_again_with_every_change() {
    let [none, one, all] = [0, 1, 3].map(|done| Progress { done, all: 3 });
    let (lines, result, _) = waited(&[none, none, one, one, all]).await;
    assert_eq!(result, Ok(()));
    let counts = ["0 of 3", "1 of 3", "3 of 3"];
    assert_eq!(lines, counts.map(|it| format!("ready pods: {it}")));
    // 100 s with none, then 120 s with one.
    let (_, result, seconds) = waited(&[vec![none; 200], vec![one]].concat()).await;
    let limit = "ready pods: 1 of 3, without a change for 120 s: see the pods";
    assert_eq!((result, seconds), (Err(limit.to_owned()), 220));
}
