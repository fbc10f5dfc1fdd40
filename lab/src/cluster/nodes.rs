//! Nodes of the lab: a Node object with condition Ready, and a real kube-proxy in the node's
//! namespace. There are no kubelets.

use super::apply::FIELD_MANAGER;
use crate::process::{self, Launch, ProcessRecord};
use crate::state::{LabFacts, LabState};
use crate::topology::{self, Families, Host, POD_RANGES};
use anyhow::Result;
use k8s_openapi::api::core::v1::Node;
use kube::Client;
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

/// Transition time of the nodes' conditions; any time in the past works.
const CONDITION_TIME: &str = "2026-01-01T00:00:00Z";

/// Creates the Node objects as ready nodes.
///
/// # Errors
/// If the API server rejects an object.
pub async fn register(client: &Client, facts: &LabFacts, version: &str) -> Result<()> {
    let nodes: Api<Node> = Api::all(client.clone());
    for index in 1..=facts.nodes {
        nodes
            .create(
                &PostParams::default(),
                &serde_json::from_value(node_object(index, facts.families))?,
            )
            .await?;
        let name = topology::node_name(index);
        nodes
            .patch_status(
                &name,
                &PatchParams::default(),
                &Patch::Merge(node_status(index, facts.families, version)),
            )
            .await?;
        // The API server taints every new node as not ready, and the controller that would remove
        // the taint is off.
        let untainted = Patch::Merge(json!({"spec": {"taints": null}}));
        nodes
            .patch(
                &name,
                &PatchParams {
                    field_manager: Some(FIELD_MANAGER.to_owned()),
                    ..PatchParams::default()
                },
                &untainted,
            )
            .await?;
    }
    Ok(())
}

fn node_object(index: u8, families: Families) -> Value {
    let (name, ranges) = (topology::node_name(index), families.of(topology::pod_ranges(index)));
    json!({
        "metadata": {"name": name, "labels": {
            "kubernetes.io/arch": "amd64", "kubernetes.io/hostname": name, "kubernetes.io/os": "linux",
        }},
        "spec": {"podCIDR": ranges[0], "podCIDRs": ranges},
    })
}

fn node_status(index: u8, families: Families, version: &str) -> Value {
    let host = Host::node(index);
    let mut addresses = vec![json!({"type": "Hostname", "address": host.name})];
    addresses.extend(
        families
            .of(host.addresses())
            .iter()
            .map(|address| json!({"type": "InternalIP", "address": address})),
    );
    let ready = json!({"type": "Ready", "status": "True", "reason": "Lab", "lastHeartbeatTime": CONDITION_TIME, "lastTransitionTime": CONDITION_TIME});
    json!({"status": {
        "addresses": addresses,
        "conditions": [ready],
        "nodeInfo": {
            "kubeletVersion": version, "operatingSystem": "linux", "architecture": "amd64", "kubeProxyVersion": "", "machineID": "",
            "systemUUID": "", "bootID": "", "kernelVersion": "", "osImage": "", "containerRuntimeVersion": "",
        },
    }})
}

/// Starts the kube-proxy of node `index` in `mode`. The kube-proxy itself waits for the API server
/// and for its Node.
///
/// # Errors
/// If kube-proxy cannot be started.
pub fn start_proxy(
    state: &LabState,
    facts: &LabFacts,
    mode: &str,
    index: u8,
) -> Result<ProcessRecord> {
    let node = topology::node_name(index);
    let args = [
        format!("--kubeconfig={}", state.kubeconfig().display()),
        format!("--hostname-override={node}"),
        format!("--proxy-mode={mode}"),
        format!("--cluster-cidr={}", facts.families.of(POD_RANGES).join(",")),
        // The lab must not change the host's own connection tracking limits.
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
        low_priority: facts.scenario,
    };
    process::start(state, launch)
}

/// Describes the kube-proxies of a lab.
pub fn proxies(mode: Option<&str>) -> String {
    mode.map_or_else(|| "no kube-proxy".to_owned(), |mode| format!("kube-proxy in {mode} mode"))
}

/// Returns the process name of a node's kube-proxy in the lab.
pub fn proxy_name(node: &str) -> String {
    format!("kube-proxy-{node}")
}
