//! The install files and the Helm chart on a real API server: installation, second installation,
//! and removal. The lab has no kubelet, so the workloads start no pods.

use crate::scenario::{run_scenario, step, without_proxy};
use crate::second_installation;
use anyhow::{Context, Result, bail, ensure};
use ferrolb_lab::setup::{installers, repository};
use ferrolb_lab::topology::CLIENT;
use ferrolb_lab::{Lab, run};
use ferrolb_proto::api::NAMESPACE;
use ferrolb_tests::read_page;
use ferrolb_tests::run::Runner;
use serde_json::{Value, json};
use std::collections::BTreeMap;

const FILES: [&str; 4] =
    ["install.yaml", "install-bgp.yaml", "install-beside-metallb.yaml", MIGRATION_FILE];
/// Install file of the in-place migration from MetalLB.
const MIGRATION_FILE: &str = "install-metallb-takeover.yaml";
const METALLB_NAMESPACE: &str = "metallb-system";
const WORKLOADS: &str = "deployment,daemonset";
/// Types of FerroLB's cluster-scoped objects, apart from Namespaces and CRDs.
const CLUSTER_SCOPED: &str =
    "clusterrole,clusterrolebinding,validatingadmissionpolicy,validatingadmissionpolicybinding";
/// Label selector of all objects of FerroLB.
const FERROLB_LABEL: &str = "app.kubernetes.io/name=ferrolb";

#[test]
fn applying_an_install_file_again_changes_nothing() {
    run_scenario(&without_proxy("files"), |lab| {
        step("the namespace of MetalLB exists", || {
            lab.kubectl(&["create", "namespace", METALLB_NAMESPACE]).map(drop)
        })?;
        for file in FILES {
            step(&format!("{file} is applied twice"), || {
                kubectl_file(lab, "apply", file)?;
                let first = generations(lab, file)?;
                kubectl_file(lab, "apply", file)?;
                let second = generations(lab, file)?;
                ensure!(
                    first.len() > 20 && first == second,
                    "the versions are {first:?} after the first apply, and {second:?} after the second"
                );
                Ok(())
            })?;
        }
        step("install.yaml, applied over the last file, removes the flags of that file", || {
            kubectl_file(lab, "apply", FILES[0])?;
            let containers = "jsonpath={.spec.template.spec.containers}";
            let speaker =
                lab.kubectl(&["get", "daemonset", "speaker", "-n", NAMESPACE, "-o", containers])?;
            ensure!(
                !speaker.contains("FERROLB_API_GROUP") && !speaker.contains(METALLB_NAMESPACE),
                "the speaker still has a flag of {MIGRATION_FILE}: {speaker}"
            );
            Ok(())
        })?;
        second_installation::by_manifests(lab)?;
        second_installation::by_helm(lab)?;
        step(
            "the commands of docs/install/uninstall.md keep the custom resources and pools",
            || uninstall_except_pools(lab),
        )?;
        step("install.yaml is applied again, and its deletion removes everything", || {
            kubectl_file(lab, "apply", FILES[0])?;
            kubectl_file(lab, "delete", FILES[0])?;
            for types in [CLUSTER_SCOPED, "namespace"] {
                let left = lab.kubectl(&["get", types, "-l", FERROLB_LABEL, "-o", "name"])?;
                ensure!(left.is_empty(), "these objects are left:\n{left}");
            }
            let crds = lab.kubectl(&["get", "crd", "-o", "name"])?;
            ensure!(!crds.contains("ferrolb.io"), "CRDs of FerroLB are left:\n{crds}");
            Ok(())
        })
    });
}

/// Uninstalls FerroLB by the documented commands, and checks that only custom resources remain.
fn uninstall_except_pools(lab: &Lab) -> Result<()> {
    lab.apply_file(&repository().join("examples/first-pool.yaml"))?;
    run_documented_commands(lab)?;
    let left = lab.kubectl(&["get", CLUSTER_SCOPED, "-l", FERROLB_LABEL, "-o", "name"])?;
    let workloads = names(lab, WORKLOADS)?;
    ensure!(left.is_empty() && workloads.is_empty(), "{left}{workloads}");
    let kept = names(lab, "fpool,fl2")?;
    ensure!(kept.lines().count() == 2, "{kept}");
    let left = lab.kubectl(&["get", "role,rolebinding", "-n", METALLB_NAMESPACE, "-o", "name"])?;
    ensure!(left.is_empty(), "these objects are left:\n{left}");
    Ok(())
}

/// Returns a version of each object in a file: its generation, which status changes do not raise,
/// or its resourceVersion if the object has no generation.
fn generations(lab: &Lab, file: &str) -> Result<BTreeMap<String, String>> {
    let list: Value =
        serde_json::from_str(&lab.kubectl(&["get", "-f", &path(file), "-o", "json"])?)?;
    let objects = list["items"].as_array().context("the output of kubectl is no list")?;
    let version = |object: &Value| {
        let meta = &object["metadata"];
        let version = if meta["generation"].is_null() {
            &meta["resourceVersion"]
        } else {
            &meta["generation"]
        };
        (format!("{} {}", object["kind"], meta["name"]), version.to_string())
    };
    // Controllers write a Namespace's status, and it has no generation.
    Ok(objects.iter().filter(|object| object["kind"] != "Namespace").map(version).collect())
}

/// Runs the commands of docs/install/uninstall.md that uninstall FerroLB and keep the pools, also
/// after an in-place migration.
fn run_documented_commands(lab: &Lab) -> Result<()> {
    let (runner, page) = (Runner::in_lab(lab)?, read_page("docs/install/uninstall.md")?);
    ["delete deployment,daemonset,networkpolicy", "kubectl -n metallb-system delete"]
        .iter()
        .try_for_each(|command| runner.block(&page, page.commands_with(command)?))
}

/// Returns the path of an install file.
pub(crate) fn path(file: &str) -> String {
    repository().join("deploy").join(file).display().to_string()
}

fn kubectl_file(lab: &Lab, verb: &str, file: &str) -> Result<String> {
    lab.kubectl(&[verb, "-f", &path(file)])
}

#[test]
fn the_chart_installs_once_per_namespace_and_keeps_pools_on_uninstall() {
    run_scenario(&without_proxy("helm"), |lab| {
        let pools =
            json!({"pools": [{"name": "first", "addresses": ["172.30.0.200-172.30.0.210"]}]});
        step("the chart and its pools are installed on a cluster without CRDs", || {
            helm(lab, &["install", "ferrolb"], NAMESPACE, &pools)?;
            ensure!(names(lab, "fpool,fl2")?.lines().count() == 2, "{}", names(lab, "fpool,fl2")?);
            ensure!(names(lab, WORKLOADS)?.lines().count() == 2, "{}", names(lab, WORKLOADS)?);
            Ok(())
        })?;
        step("a second release is refused, with the same name and with another one", || {
            check_refused(
                helm(lab, &["install", "ferrolb"], NAMESPACE, &pools),
                "a name that is still in use",
            )?;
            let other = helm(lab, &["install", "other"], NAMESPACE, &json!({}));
            check_refused(other, "cannot be imported into the current release")
        })?;
        step(
            "an upgrade to BGP without pools in the values keeps the pools, and a second one adopts them",
            || {
                helm(lab, &["upgrade", "ferrolb"], NAMESPACE, &json!({"bgp": {"enabled": true}}))?;
                ensure!(names(lab, WORKLOADS)?.contains("gobgpd"), "{}", names(lab, WORKLOADS)?);
                ensure!(
                    names(lab, "fpool,fl2")?.lines().count() == 2,
                    "{}",
                    names(lab, "fpool,fl2")?
                );
                helm(lab, &["upgrade", "ferrolb"], NAMESPACE, &pools).map(drop)
            },
        )?;
        second_installation::by_helm(lab)?;
        step("the uninstall removes the components and permissions and keeps the pools", || {
            helm(lab, &["uninstall", "ferrolb"], NAMESPACE, &Value::Null)?;
            let left = lab.kubectl(&["get", CLUSTER_SCOPED, "-l", FERROLB_LABEL, "-o", "name"])?;
            ensure!(
                left.is_empty() && names(lab, WORKLOADS)?.is_empty(),
                "{left}{}",
                names(lab, WORKLOADS)?
            );
            ensure!(names(lab, "fpool,fl2")?.lines().count() == 2, "{}", names(lab, "fpool,fl2")?);
            Ok(())
        })?;
        step("the chart is installed again and adopts the existing pools", || {
            helm(lab, &["install", "ferrolb"], NAMESPACE, &pools).map(drop)
        })
    });
}

/// Returns the names of the objects of these types in FerroLB's namespace, one per line.
fn names(lab: &Lab, types: &str) -> Result<String> {
    lab.kubectl(&["get", types, "-n", NAMESPACE, "-o", "name"])
}

/// Runs Helm. The command line contains the chart and the values unless `values` is null.
pub(crate) fn helm(
    lab: &Lab,
    arguments: &[&str],
    namespace: &str,
    values: &Value,
) -> Result<String> {
    let mut helm = installers::helm()?;
    helm.args(arguments)
        .args(["--namespace", namespace, "--kubeconfig"])
        .arg(lab.state().kubeconfig());
    for variable in ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"] {
        helm.env(variable, lab.state().file("helm"));
    }
    if !values.is_null() {
        helm.arg(repository().join("deploy/helm/ferrolb")).args(["--values", "-"]);
    }
    if arguments.contains(&"install") {
        helm.arg("--create-namespace");
    }
    lab.within(CLIENT, || run::run_with_input(&mut helm, &values.to_string()))?
        .context("helm failed")
}

/// Checks that a command failed with an error that contains `message`.
pub(crate) fn check_refused(result: Result<String>, message: &str) -> Result<()> {
    match result {
        Ok(output) => bail!("the command succeeded: {output}"),
        Err(error) if format!("{error:#}").contains(message) => Ok(()),
        Err(error) => Err(error),
    }
}
