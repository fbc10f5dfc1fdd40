//! Decisions about installations of several programs, and the order of the objects. The modules
//! [`progress`] and [`wait`] test the progress.

mod progress;
mod wait;

use std::collections::BTreeSet;

use k8s_openapi::api::apps::v1::Deployment;
use serde_json::{Value, json};

use super::decision::{chosen, installed, obstacle, variant_in};
use super::manifests::Variant;
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
        let of_kubectl = [deployment(variant, &managed_by("kubectl"))];
        assert_eq!(variant_in(&of_kubectl, "lb", has_gobgpd), Some(variant), "for --dry-run");
        assert_eq!(variant_in(&of_kubectl, "other", has_gobgpd), None);
    }
}

#[test]
fn installations_of_other_programs_are_refused() {
    let helm = json!({"labels": {"app.kubernetes.io/managed-by": "Helm"},
        "annotations": {"meta.helm.sh/release-name": "mine"}});
    let kubectl = managed_by("kubectl-client-side-apply");
    let [server_side, flux] = ["kubectl", "kustomize-controller"].map(managed_by);
    let own = managed_by("kubectl-ferrolb");
    let mut text = String::new();
    let here = [helm, kubectl, server_side, flux].map(|metadata| (metadata, "lb"));
    for (metadata, namespace) in here.into_iter().chain([(own, "other")]) {
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
