//! The install files and the Helm chart on a real API server: installed, installed a second time,
//! and uninstalled. No kubelet runs here, so the workloads start no pods.

use crate::scenario::{run_scenario, step, without_proxy};
use anyhow::{Context, Result, bail, ensure};
use ferrolb_lab::setup::{installers, repository};
use ferrolb_lab::topology::CLIENT;
use ferrolb_lab::{Lab, run};
use ferrolb_proto::api::NAMESPACE;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;

const FILES: [&str; 4] =
    ["install.yaml", "install-bgp.yaml", "install-beside-metallb.yaml", TAKEOVER];
/// Install file that replaces MetalLB.
const TAKEOVER: &str = "install-metallb-takeover.yaml";
const METALLB: &str = "metallb-system";
const WORKLOADS: &str = "deployment,daemonset";
/// Cluster-scoped resources of FerroLB.
const OF_CLUSTER: &str =
    "clusterrole,clusterrolebinding,validatingadmissionpolicy,validatingadmissionpolicybinding";
const OURS: &str = "app.kubernetes.io/name=ferrolb";

#[test]
fn each_install_file_is_applied_twice_without_a_change_and_deleted_completely() {
    run_scenario(&without_proxy("files"), |lab| {
        step("what MetalLB leaves is there", || {
            lab.kubectl(&["create", "namespace", METALLB]).map(drop)
        })?;
        for file in FILES {
            step(&format!("{file} is applied, and again"), || {
                kubectl_file(lab, "apply", file)?;
                let first = generations(lab, file)?;
                kubectl_file(lab, "apply", file)?;
                let second = generations(lab, file)?;
                ensure!(
                    first.len() > 20 && first == second,
                    "{first:?}, and the second time {second:?}"
                );
                Ok(())
            })?;
        }
        step("the first one over the last: no switch is left", || {
            kubectl_file(lab, "apply", FILES[0])?;
            let containers = "jsonpath={.spec.template.spec.containers}";
            let speaker =
                lab.kubectl(&["get", "daemonset", "speaker", "-n", NAMESPACE, "-o", containers])?;
            ensure!(
                !speaker.contains("FERROLB_API_GROUP") && !speaker.contains(METALLB),
                "{speaker}"
            );
            Ok(())
        })?;
        step("it goes as the page says, and the kinds and pools stay", || {
            lab.apply_file(&repository().join("examples/first-pool.yaml"))?;
            run_documented_commands(lab)?;
            let left = lab.kubectl(&["get", OF_CLUSTER, "-l", OURS, "-o", "name"])?;
            ensure!(
                left.is_empty() && names(lab, WORKLOADS)?.is_empty(),
                "{left}{}",
                names(lab, WORKLOADS)?
            );
            ensure!(names(lab, "fpool,fl2")?.lines().count() == 2, "{}", names(lab, "fpool,fl2")?);
            let left = lab.kubectl(&["get", "role,rolebinding", "-n", METALLB, "-o", "name"])?;
            ensure!(left.is_empty(), "{left}");
            Ok(())
        })?;
        step("it is applied once more and deleted by its file, and nothing of it is left", || {
            kubectl_file(lab, "apply", FILES[0])?;
            kubectl_file(lab, "delete", FILES[0])?;
            for what in [OF_CLUSTER, "namespace"] {
                let left = lab.kubectl(&["get", what, "-l", OURS, "-o", "name"])?;
                ensure!(left.is_empty(), "{left}");
            }
            let kinds = lab.kubectl(&["get", "crd", "-o", "name"])?;
            ensure!(!kinds.contains("ferrolb.io"), "{kinds}");
            Ok(())
        })
    });
}

/// Returns a version of each object in a file that changes with its spec. Status does not count,
/// because the cluster writes it.
fn generations(lab: &Lab, file: &str) -> Result<BTreeMap<String, String>> {
    let list: Value =
        serde_json::from_str(&lab.kubectl(&["get", "-f", &path(file), "-o", "json"])?)?;
    let objects = list["items"].as_array().context("a list")?;
    let of = |object: &Value| {
        let meta = &object["metadata"];
        let counted = if meta["generation"].is_null() {
            &meta["resourceVersion"]
        } else {
            &meta["generation"]
        };
        (format!("{} {}", object["kind"], meta["name"]), counted.to_string())
    };
    // Controllers write a Namespace's status, and it has no generation.
    Ok(objects.iter().filter(|object| object["kind"] != "Namespace").map(of).collect())
}

/// Executes the commands that docs/uninstall.md lists for a removal that keeps the pools.
fn run_documented_commands(lab: &Lab) -> Result<()> {
    let page = fs::read_to_string(repository().join("docs/uninstall.md"))?;
    let lines = page
        .lines()
        .filter_map(|line| line.strip_prefix("kubectl "))
        .filter(|line| line.ends_with(OURS));
    let commands: Vec<Vec<&str>> = lines.map(|line| line.split_whitespace().collect()).collect();
    ensure!(commands.len() == 3, "the page has {commands:?}");
    commands.iter().try_for_each(|command| lab.kubectl(command).map(drop))
}

fn path(file: &str) -> String {
    repository().join("deploy").join(file).display().to_string()
}

fn kubectl_file(lab: &Lab, verb: &str, file: &str) -> Result<String> {
    lab.kubectl(&[verb, "-f", &path(file)])
}

#[test]
fn the_chart_is_installed_only_once_and_its_pools_outlive_it() {
    run_scenario(&without_proxy("helm"), |lab| {
        let pools =
            json!({"pools": [{"name": "first", "addresses": ["172.30.0.200-172.30.0.210"]}]});
        step(
            "it is installed, and the pools with it, on a cluster that has never heard of pools",
            || {
                helm(lab, &["install", "ferrolb"], NAMESPACE, &pools)?;
                ensure!(
                    names(lab, "fpool,fl2")?.lines().count() == 2,
                    "{}",
                    names(lab, "fpool,fl2")?
                );
                ensure!(names(lab, WORKLOADS)?.lines().count() == 2, "{}", names(lab, WORKLOADS)?);
                Ok(())
            },
        )?;
        step("a second one is refused, under the same name and under another one", || {
            refused(
                helm(lab, &["install", "ferrolb"], NAMESPACE, &pools),
                "a name that is still in use",
            )?;
            let other = helm(lab, &["install", "other"], "elsewhere", &json!({}));
            refused(other, "cannot be imported into the current release")
        })?;
        step(
            "it is upgraded to BGP, the pools are taken out of its values, and stay, and are put in again",
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
        step("it is uninstalled: the programs and their rights go, the pools stay", || {
            helm(lab, &["uninstall", "ferrolb"], NAMESPACE, &Value::Null)?;
            let left = lab.kubectl(&["get", OF_CLUSTER, "-l", OURS, "-o", "name"])?;
            ensure!(
                left.is_empty() && names(lab, WORKLOADS)?.is_empty(),
                "{left}{}",
                names(lab, WORKLOADS)?
            );
            ensure!(names(lab, "fpool,fl2")?.lines().count() == 2, "{}", names(lab, "fpool,fl2")?);
            Ok(())
        })?;
        step("it is installed again, and takes the pools that it finds", || {
            helm(lab, &["install", "ferrolb"], NAMESPACE, &pools).map(drop)
        })
    });
}

/// Returns the names of the objects of these resources in FerroLB's namespace.
fn names(lab: &Lab, kinds: &str) -> Result<String> {
    lab.kubectl(&["get", kinds, "-n", NAMESPACE, "-o", "name"])
}

/// Runs Helm with the chart and values, where the subcommand takes them.
fn helm(lab: &Lab, words: &[&str], namespace: &str, values: &Value) -> Result<String> {
    let mut helm = installers::helm()?;
    helm.args(words).args(["--namespace", namespace, "--kubeconfig"]).arg(lab.state().kubeconfig());
    for place in ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"] {
        helm.env(place, lab.state().file("helm"));
    }
    if !values.is_null() {
        helm.arg(repository().join("deploy/helm/ferrolb")).args(["--values", "-"]);
    }
    if words.contains(&"install") {
        helm.arg("--create-namespace");
    }
    lab.within(CLIENT, || run::run_with_input(&mut helm, &values.to_string()))?.context("helm")
}

fn refused(result: Result<String>, words: &str) -> Result<()> {
    match result {
        Ok(said) => bail!("the command succeeded: {said}"),
        Err(error) if format!("{error:#}").contains(words) => Ok(()),
        Err(error) => Err(error),
    }
}
