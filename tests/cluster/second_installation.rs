//! A second installation next to the one of the lab: both have their permissions and admit each
//! other's objects, and the uninstallation of the second one leaves the first one complete.

use crate::installed::{check_refused, helm, path};
use crate::privileges::POLICY_MAX;
use crate::scenario::step;
use anyhow::{Context, Result, ensure};
use ferrolb_lab::setup::repository;
use ferrolb_lab::{Lab, wait};
use ferrolb_proto::api::NAMESPACE;
use ferrolb_tests::Page;
use ferrolb_tests::run::Runner;
use serde_json::{Value, json};
use std::fs;

/// Label of a namespace with a FerroLB.
const LABEL: &str = "app.kubernetes.io/name=ferrolb";
/// Page with the commands of an uninstallation.
const PAGE: &str = "docs/install/uninstall.md";

/// Installs FerroLB a second time by manifests, and checks both installations. The first one is in
/// the usual namespace.
pub(crate) fn by_manifests(lab: &Lab) -> Result<()> {
    let second = "by-manifests";
    step("a second installation by manifests takes nothing from the first", || {
        let manifests = fs::read_to_string(path("install.yaml"))?.replace(NAMESPACE, second);
        lab.apply(&manifests)?;
        check_both(lab, second)?;
        let text = fs::read_to_string(repository().join(PAGE))?;
        let page = Page::parse(PAGE, &text.replace(NAMESPACE, second));
        let commands = page.commands_with("delete deployment,daemonset,networkpolicy")?;
        Runner::in_lab(lab)?.block(&page, commands)?;
        check_removed(lab, second)
    })
}

/// Installs FerroLB a second time by Helm with a pool, and checks both installations. The first one
/// refuses the pool until the namespace has the label that the refusal names.
pub(crate) fn by_helm(lab: &Lab) -> Result<()> {
    let second = "by-helm";
    step("a second installation by Helm takes nothing from the first", || {
        let pools = json!({"pools": [{"name": "second", "addresses": ["192.0.2.0/28"]}]});
        let label = ["label", "namespace", second, LABEL];
        let refused = helm(lab, &["install", "second"], second, &pools);
        check_refused(refused, &format!("run: kubectl {}", label.join(" ")))?;
        lab.kubectl(&label)?;
        // Helm has created the namespace of the first installation, without the label.
        lab.kubectl(&["label", "namespace", NAMESPACE, LABEL])?;
        wait::until("the API server knows the label", POLICY_MAX, || {
            helm(lab, &["upgrade", "--install", "second"], second, &pools).map(Some)
        })?;
        check_both(lab, second)?;
        helm(lab, &["uninstall", "second"], second, &Value::Null)?;
        check_removed(lab, second)
    })
}

/// Checks that only the first installation still has permissions. The namespace of the second one
/// remains, without its label.
fn check_removed(lab: &Lab, second: &str) -> Result<()> {
    lab.kubectl(&["label", "namespace", second, "app.kubernetes.io/name-"])?;
    check_permissions(lab, second, "no")?;
    check_permissions(lab, NAMESPACE, "yes")
}

/// Checks that both installations have their permissions, and that objects can be created in both
/// namespaces, but in no other one.
fn check_both(lab: &Lab, second: &str) -> Result<()> {
    for namespace in [NAMESPACE, second] {
        check_permissions(lab, namespace, "yes")?;
        wait::until("both policies admit a Community", POLICY_MAX, || {
            create_community(lab, namespace).map(Some)
        })?;
    }
    check_refused(create_community(lab, "default"), "FerroLB reads Community objects in")
}

/// Creates an object of FerroLB in a namespace, by a dry run.
fn create_community(lab: &Lab, namespace: &str) -> Result<String> {
    let object = json!({"apiVersion": "ferrolb.io/v1beta1", "kind": "Community",
        "metadata": {"name": "any", "namespace": namespace}, "spec": {"communities": []}});
    let file = lab.state().file("community.json");
    fs::write(&file, object.to_string())?;
    let file = file.to_str().context("the path is not UTF-8")?;
    lab.kubectl(&["create", "--dry-run=server", "-f", file])
}

/// Checks whether the components in a namespace have their permissions in all namespaces: `yes` or
/// `no`.
fn check_permissions(lab: &Lab, namespace: &str, expected: &str) -> Result<()> {
    for (component, verb, resource) in [
        ("controller", "patch", "services/status"),
        ("controller", "patch", "pods/status"),
        ("speaker", "watch", "services"),
    ] {
        let user = format!("system:serviceaccount:{namespace}:{component}");
        wait::until("the API server knows the permissions", POLICY_MAX, || {
            let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
            let subresource = format!("--subresource={subresource}");
            let user = format!("--as={user}");
            // kubectl prints the answer, and fails if it is `no`.
            let answer = lab.kubectl(&["auth", "can-i", verb, resource, &subresource, "-A", &user]);
            let found = if answer.is_ok() { "yes" } else { "no" };
            ensure!(found == expected, "{user} {verb} {resource}: {found}, {answer:?}");
            Ok(Some(()))
        })?;
    }
    Ok(())
}
