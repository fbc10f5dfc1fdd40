//! Rendering of the Helm chart without a cluster, for the Kubernetes version of the lab.

use anyhow::{Context, Result};
use ferrolb_lab::cluster::apply;
use ferrolb_lab::run::run_with_input;
use ferrolb_lab::setup::{installers, repository};
use ferrolb_proto::api::NAMESPACE;
use serde_json::Value;
use std::fs;
use std::path::PathBuf;

const KUBERNETES_VERSION: &str = "1.36.0";

/// Returns the folder of the chart.
pub(crate) fn folder() -> PathBuf {
    repository().join("deploy/helm/ferrolb")
}

/// Returns the text of a file of the chart.
pub(crate) fn file(name: &str) -> Result<String> {
    fs::read_to_string(folder().join(name))
        .with_context(|| format!("cannot read {name} of the chart"))
}

/// Renders the chart with these values for a namespace. Returns YAML.
pub(crate) fn template(namespace: &str, values: &Value) -> Result<String> {
    let mut helm = installers::helm()?;
    helm.args(["template", "ferrolb"]).arg(folder()).args([
        "--namespace",
        namespace,
        "--include-crds",
    ]);
    helm.args(["--kube-version", KUBERNETES_VERSION, "--values", "-"]);
    run_with_input(&mut helm, &values.to_string())
}

/// Returns the objects of the chart with these values in FerroLB's namespace.
pub(crate) fn objects(values: &Value) -> Result<Vec<Value>> {
    apply::objects(&template(NAMESPACE, values)?)
}

/// Returns the output of `helm lint` with these values.
pub(crate) fn lint(values: &Value) -> Result<String> {
    let mut helm = installers::helm()?;
    helm.args(["lint", "--strict", "--kube-version", KUBERNETES_VERSION, "--values", "-"])
        .arg(folder());
    run_with_input(&mut helm, &values.to_string())
}

/// Returns the kind and the name of an object, such as `Role/speaker`.
pub(crate) fn kind_and_name(object: &Value) -> String {
    format!("{}/{}", apply::kind(object), object["metadata"]["name"].as_str().unwrap_or_default())
}
