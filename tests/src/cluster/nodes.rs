//! The lab's nodes: a Node object that says Ready, and a real kube-proxy in the node's namespace. There are no kubelets.

use super::apply::FIELD_MANAGER;
use crate::process::{self, Launch, Record};
use crate::state::{Facts, State};
use crate::topology::{self, Families, Host, POD_RANGES};
use anyhow::Result;
use k8s_openapi::api::core::v1::Node;
use kube::Client;
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

/// When the nodes' conditions say they came to be: any time does, and this one is always past.
const SINCE: &str = "2026-01-01T00:00:00Z";

/// Makes the Node objects, ready to serve.
///
/// # Errors
/// When the API server refuses one.
pub async fn register(client: &Client, facts: &Facts, version: &str) -> Result<()> {
    let nodes: Api<Node> = Api::all(client.clone());
    for index in 1..=facts.nodes {
        nodes.create(&PostParams::default(), &serde_json::from_value(object(index, facts.families))?).await?;
        let name = topology::node_name(index);
        nodes
            .patch_status(&name, &PatchParams::default(), &Patch::Merge(status(index, facts.families, version)))
            .await?;
        // The API server taints every new node as not ready; the controller that would take the taint back is off.
        let untainted = Patch::Merge(json!({"spec": {"taints": null}}));
        nodes
            .patch(
                &name,
                &PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() },
                &untainted,
            )
            .await?;
    }
    Ok(())
}

fn object(index: u8, families: Families) -> Value {
    let (name, ranges) = (topology::node_name(index), families.of(topology::pod_ranges(index)));
    json!({
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux"}},
        "spec": {"podCIDR": ranges[0], "podCIDRs": ranges},
    })
}

fn status(index: u8, families: Families, version: &str) -> Value {
    let host = Host::node(index);
    let mut addresses = vec![json!({"type": "Hostname", "address": host.name})];
    addresses
        .extend(families.of(host.addresses()).iter().map(|address| json!({"type": "InternalIP", "address": address})));
    let ready = json!({"type": "Ready", "status": "True", "reason": "Lab", "lastHeartbeatTime": SINCE, "lastTransitionTime": SINCE});
    json!({"status": {
        "addresses": addresses,
        "conditions": [ready],
        "nodeInfo": {
            "kubeletVersion": version, "operatingSystem": "linux", "architecture": "amd64", "kubeProxyVersion": "", "machineID": "",
            "systemUUID": "", "bootID": "", "kernelVersion": "", "osImage": "", "containerRuntimeVersion": "",
        },
    }})
}

/// Starts the kube-proxy of node `index` in `mode`; it waits for the API server and its Node by itself.
///
/// # Errors
/// When it cannot be started.
pub fn start_proxy(state: &State, facts: &Facts, mode: &str, index: u8) -> Result<Record> {
    let node = topology::node_name(index);
    let args = [
        format!("--kubeconfig={}", state.kubeconfig().display()),
        format!("--hostname-override={node}"),
        format!("--proxy-mode={mode}"),
        format!("--cluster-cidr={}", facts.families.of(POD_RANGES).join(",")),
        // The machine's own connection tracking limits are not the lab's to change.
        "--conntrack-max-per-core=0".to_owned(),
        "--conntrack-tcp-timeout-established=0s".to_owned(),
        "--conntrack-tcp-timeout-close-wait=0s".to_owned(),
    ];
    let launch = Launch {
        name: proxy_name(&node),
        host: node.clone(),
        node: Some(node),
        program: facts.kubernetes.join("kube-proxy"),
        args: args.into(),
        env: [("HOME".to_owned(), state.file("home").display().to_string())].into(),
        yields: facts.story,
    };
    process::start(state, launch)
}

/// How a lab's kube-proxies are spoken of.
pub fn proxies(mode: Option<&str>) -> String {
    mode.map_or_else(|| "no kube-proxy".to_owned(), |mode| format!("kube-proxy in {mode} mode"))
}

/// What the kube-proxy of a node is called in the lab.
pub fn proxy_name(node: &str) -> String {
    format!("kube-proxy-{node}")
}
