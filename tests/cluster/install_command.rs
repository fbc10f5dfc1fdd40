//! `kubectl ferrolb install` during an outage of the API server, with a node that is not Ready, and
//! in a terminal. No kubelet runs in the lab, so the test reports the pods as Ready.

use crate::scenario::{run_scenario, step};
use anyhow::{Context, Result, ensure};
use ferrolb_lab::{Lab, Options, Signal, wait};
use ferrolb_proto::api::NAMESPACE;
use serde_json::{Value, json};
use std::time::Duration;

/// Starts the command in the background. Its exit code follows its output.
const INSTALL: &str = "(kubectl ferrolb install --yes; echo exit code $?) \
                       > $HELM_DATA_HOME.install 2>&1 </dev/null &";
const OUTPUT: &str = "cat $HELM_DATA_HOME.install";
const LINE_MAX: Duration = Duration::from_secs(60);

#[test]
fn an_outage_and_a_node_that_is_not_ready_do_not_prevent_an_installation() {
    run_scenario(&Options::named("installcmd"), |lab| {
        lab.start_ferrolb()?;
        set_ready(lab, "node", "node3", "False")?;
        step("the command waits for pods", || {
            lab.shell(INSTALL)?;
            wait_line(lab, "ready pods of Deployment controller: 0 of 2")
        })?;
        step("it continues after an outage of the API server", || {
            lab.stop("kube-apiserver", Signal::KILL)?;
            wait_line(lab, "note: ready pods of Deployment controller: ")?;
            lab.restart("kube-apiserver")?;
            lab.wait_api_ready()
        })?;
        step("with the pods of Ready nodes, it applies a pool", || {
            wait::until("all pods exist", LINE_MAX, || Ok((pods(lab)?.len() == 5).then_some(())))?;
            run_pods(lab)?;
            for line in [
                "ready pods of DaemonSet speaker: 2 of 2 (left out until they are Ready: node3)",
                "speakers with a SpeakerStatus: 2 of 2 (left out until they are Ready: node3)",
                "applied IPAddressPool default",
                "exit code 0",
            ] {
                wait_line(lab, line)?;
            }
            Ok(())
        })?;
        step("in a terminal, it applies only a pool that the user confirms", || {
            lab.kubectl(&["-n", NAMESPACE, "delete", "fpool,fl2", "--all"])?;
            confirm(lab, "n", "IPAddressPool default is not applied yet")?;
            let pools = lab.kubectl(&["-n", NAMESPACE, "get", "fpool", "-o", "name"])?;
            ensure!(pools.is_empty(), "the command has applied {pools}");
            confirm(lab, "y", "applied IPAddressPool default")?;
            lab.kubectl(&["-n", NAMESPACE, "get", "fpool", "default"]).map(drop)
        })
    });
}

/// Runs the command in a terminal with a reply, and checks its output.
fn confirm(lab: &Lab, reply: &str, expect: &str) -> Result<()> {
    let text =
        lab.shell(&format!("echo {reply} | script -qec 'kubectl ferrolb install' /dev/null"))?;
    let is_expected = text.contains("Apply? [y/N]") && text.contains(expect);
    ensure!(is_expected, "after the reply {reply}, the output is {text}");
    Ok(())
}

/// Waits until the output of the command contains a part of a line.
fn wait_line(lab: &Lab, part: &str) -> Result<()> {
    wait::until(&format!("the output contains {part:?}"), LINE_MAX, || {
        let text = lab.shell(OUTPUT)?;
        ensure!(text.contains(part), "{text}");
        Ok(Some(()))
    })
}

fn pods(lab: &Lab) -> Result<Vec<Value>> {
    let mut list = lab.get(&format!("/api/v1/namespaces/{NAMESPACE}/pods"))?;
    let items = list["items"].take();
    items.as_array().cloned().context("the reply is no list of pods")
}

/// Schedules all pods, and reports those on other nodes than node3 as Ready.
fn run_pods(lab: &Lab) -> Result<()> {
    let of_daemon_set = "/spec/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution\
                         /nodeSelectorTerms/0/matchFields/0/values/0";
    for pod in pods(lab)? {
        let name = pod["metadata"]["name"].as_str().context("a pod has no name")?;
        let node = pod.pointer(of_daemon_set).and_then(Value::as_str).unwrap_or("node1");
        let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": name},
            "target": {"kind": "Node", "name": node}});
        let path = format!("/api/v1/namespaces/{NAMESPACE}/pods/{name}/binding");
        lab.shell(&format!("echo '{binding}' | kubectl create --raw {path} -f -"))?;
        if node != "node3" {
            set_ready(lab, "pod", name, "True")?;
        }
    }
    Ok(())
}

/// Sets the condition `Ready` of a node or a pod, as a kubelet does.
fn set_ready(lab: &Lab, kind: &str, name: &str, ready: &str) -> Result<()> {
    let status = json!({"conditions": [{"type": "Ready", "status": ready}]});
    let patch = json!({ "status": status }).to_string();
    let object = ["-n", NAMESPACE, "patch", kind, name, "--subresource=status"];
    lab.kubectl(&[&object[..], &["--type=strategic", "--patch", &patch]].concat()).map(drop)
}
