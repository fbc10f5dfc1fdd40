//! Helm, asked for the chart. It sees no cluster: what it makes is for the Kubernetes that the lab has.

use anyhow::{Context, Result};
use ferrolb_proto::api::NAMESPACE;
use ferrolb_tests::cluster::apply;
use ferrolb_tests::run::run_with_input;
use ferrolb_tests::setup::{installers, repository};
use serde_json::Value;
use std::fs;
use std::path::PathBuf;

const KUBERNETES: &str = "1.36.0";

/// The folder of the chart.
pub(crate) fn folder() -> PathBuf {
    repository().join("deploy/helm/ferrolb")
}

/// A file of the chart, as it is.
pub(crate) fn file(name: &str) -> Result<String> {
    fs::read_to_string(folder().join(name)).with_context(|| format!("no {name} in the chart"))
}

/// What it makes of these values in a namespace, as YAML.
pub(crate) fn template(namespace: &str, values: &Value) -> Result<String> {
    let mut helm = installers::helm()?;
    helm.args(["template", "ferrolb"]).arg(folder()).args(["--namespace", namespace, "--include-crds"]);
    helm.args(["--kube-version", KUBERNETES, "--values", "-"]);
    run_with_input(&mut helm, &values.to_string())
}

/// The objects that it makes of these values in our namespace.
pub(crate) fn objects(values: &Value) -> Result<Vec<Value>> {
    apply::objects(&template(NAMESPACE, values)?)
}

/// What `helm lint` says of it with these values.
pub(crate) fn lint(values: &Value) -> Result<String> {
    let mut helm = installers::helm()?;
    helm.args(["lint", "--strict", "--kube-version", KUBERNETES, "--values", "-"]).arg(folder());
    run_with_input(&mut helm, &values.to_string())
}

/// Kind and name.
pub(crate) fn called(object: &Value) -> String {
    format!("{}/{}", apply::kind(object), object["metadata"]["name"].as_str().unwrap_or_default())
}
