//! kube-proxy is deleted while FerroLB runs, as before a change to a plugin's replacement, and put
//! back. Its rules stay, so clients lose hardly a page.

use crate::client::run_without_loss;
use crate::restart::named;
use crate::scenario::print_measured;
use crate::steps;
use crate::workload::Servers;
use anyhow::{Context, Result, ensure};
use ferrolb_lab::{Lab, wait};
use ferrolb_proto::api::NAMESPACE;
use serde_json::Value;
use std::time::Duration;

/// Path of kubeadm's DaemonSet in the API.
const DAEMON_SET: &str = "/apis/apps/v1/namespaces/kube-system/daemonsets/kube-proxy";
/// Maximum time until no speaker expects a kube-proxy: two minutes, and a busy machine.
const FORGOTTEN_MAX: Duration = Duration::from_secs(200);
/// Maximum time until all speakers have checked a new kube-proxy.
const FOUND_MAX: Duration = Duration::from_secs(90);
const STATES: &str = "jsonpath={.items[*].status.dataPath.state}";

pub(crate) fn check(lab: &Lab, servers: &Servers) -> Result<()> {
    let mut proxy = lab.get(DAEMON_SET)?;
    let fields = proxy.as_object_mut().context("the DaemonSet is an object")?;
    fields.remove("status");
    let metadata = fields.get_mut("metadata").and_then(Value::as_object_mut);
    metadata
        .context("the DaemonSet has metadata")?
        .retain(|field, _| ["name", "namespace", "labels"].contains(&field.as_str()));
    let delete = ["-n", "kube-system", "delete", "daemonset", "kube-proxy", "--wait"];
    run_without_loss(lab, "kube-proxy deleted", &named(servers), || {
        lab.kubectl(&delete)?;
        wait_states(lab, "Unhealthy", FOUND_MAX)
    })?;
    wait_states(lab, "NotChecked", FORGOTTEN_MAX)?;
    let report = lab.kubectl_ferrolb(&["check"])?;
    ensure!(report.contains("FLB015"), "no warning of the absence: {report}");
    run_without_loss(lab, "kube-proxy put back", &named(servers), || {
        lab.apply_objects(&[proxy])?;
        wait_states(lab, "Healthy", FOUND_MAX)
    })?;
    steps::check_clean(lab)
}

/// Waits until all speakers report this state of kube-proxy.
fn wait_states(lab: &Lab, state: &str, max: Duration) -> Result<()> {
    let start = wait::now();
    wait::until(&format!("kube-proxy is {state}"), max, || {
        let found = lab.kubectl(&["-n", NAMESPACE, "get", "fspeaker", "-o", STATES])?;
        ensure!(found.split(' ').all(|it| it == state), "the states are {found}");
        Ok(Some(()))
    })?;
    let after = start.elapsed().as_secs_f64();
    print_measured(&format!("kube-proxy is {state} on all nodes after {after:.1} s"));
    Ok(())
}
