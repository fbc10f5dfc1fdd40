//! Replacement for a kubelet in a lab with leases: a process on each node that renews the node's
//! Lease and keeps its condition `Ready` true, with a kubelet's default times. The process ends
//! with its node, and Kubernetes detects the missing renewals like in any cluster.

use super::api;
use crate::process::{self, Launch, ProcessRecord};
use crate::state::LabState;
use anyhow::{Context, Result};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use kube::api::{Api, Patch, PatchParams};
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;
use tokio::time::MissedTickBehavior;

/// Namespace of all nodes' Leases (KEP-589).
const NAMESPACE: &str = "kube-node-lease";
/// Duration of a Lease: a kubelet's default (`nodeLeaseDurationSeconds`).
const LEASE_SECONDS: u32 = 40;
/// Renewal interval: a quarter of the duration, like a kubelet.
const RENEW_INTERVAL: Duration = Duration::from_secs(LEASE_SECONDS as u64 / 4);
/// Pause before the retry of a failed renewal.
const RETRY_DELAY: Duration = Duration::from_secs(1);

/// Starts the process that renews the Lease of a node.
///
/// # Errors
/// If the process cannot be started.
pub fn start(state: &LabState, lab: &Path, node: &str) -> Result<ProcessRecord> {
    let launch = Launch {
        name: process_name(node),
        host: node.to_owned(),
        node: Some(node.to_owned()),
        program: lab.to_owned(),
        args: vec!["renew".to_owned(), node.to_owned(), state.kubeconfig().display().to_string()],
        env: [].into(),
        low_priority: false,
    };
    process::start(state, launch)
}

/// Returns the process name, in the lab, of the process that renews a node's Lease.
pub fn process_name(node: &str) -> String {
    format!("lease-{node}")
}

/// Renews the Lease of a node until the process is killed. A failed renewal is logged and retried.
///
/// # Errors
/// If the kubeconfig is invalid.
pub async fn renew(node: &str, kubeconfig: &Path) -> Result<()> {
    let client = api::client(kubeconfig).await?;
    let mut ticks = tokio::time::interval(RENEW_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        // Without a timeout, one request into a failed network would block forever.
        let renewed = tokio::time::timeout(RENEW_INTERVAL, renew_once(&client, node)).await;
        if let Err(error) = renewed.context("no reply").and_then(|renewed| renewed) {
            eprintln!("the Lease of {node} was not renewed: {error:#}");
            ticks.reset_after(RETRY_DELAY);
        }
    }
}

async fn renew_once(client: &Client, node: &str) -> Result<()> {
    let leases: Api<Lease> = Api::namespaced(client.clone(), NAMESPACE);
    let lease = json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": node, "namespace": NAMESPACE},
        "spec": {"holderIdentity": node, "leaseDurationSeconds": LEASE_SECONDS, "renewTime": MicroTime(Timestamp::now())},
    });
    leases.patch(node, &PatchParams::apply("lab-lease").force(), &Patch::Apply(lease)).await?;
    let nodes: Api<Node> = Api::all(client.clone());
    if !is_ready(&nodes.get(node).await?) {
        nodes.patch_status(node, &PatchParams::default(), &Patch::Strategic(ready_patch())).await?;
    }
    Ok(())
}

/// Returns whether the Node reports Ready. A kubelet writes the condition again after another
/// client has changed it.
fn is_ready(node: &Node) -> bool {
    let conditions =
        node.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// Returns a patch with the Ready condition alone: a strategic patch keeps the other conditions.
fn ready_patch() -> Value {
    let now = Timestamp::now().to_string();
    let ready = json!({"type": "Ready", "status": "True", "reason": "Lab", "lastHeartbeatTime": now, "lastTransitionTime": now});
    json!({"status": {"conditions": [ready]}})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_condition_ready_true_is_ready() {
        let node = |conditions: Value| -> Node {
            serde_json::from_value(
                json!({"metadata": {"name": "node1"}, "status": {"conditions": conditions}}),
            )
            .unwrap()
        };
        let condition = |kind: &str, status: &str| json!({"type": kind, "status": status});
        for (conditions, expect) in [
            (json!([condition("MemoryPressure", "False"), condition("Ready", "True")]), true),
            (json!([condition("Ready", "Unknown")]), false),
            (json!([condition("NetworkUnavailable", "True")]), false),
            (json!([]), false),
        ] {
            assert_eq!(is_ready(&node(conditions.clone())), expect, "{conditions}");
        }
    }
}
