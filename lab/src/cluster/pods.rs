//! Pods of the lab: a namespace on a node's bridge with a web server in it, and the Pod object. The
//! lab sets the readiness of a pod, because there is no kubelet.

use super::network;
use crate::process::{self, Launch, ProcessRecord};
use crate::state::LabState;
use crate::topology;
use crate::{netns, run};
use anyhow::{Context, Result, anyhow};
use ferrolb_proto::api::NODE_SILENT;
use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use std::net::IpAddr;
use std::path::Path;

/// Grace period of a deleted pod in seconds: the default of `terminationGracePeriodSeconds`.
const GRACE_SECONDS: u32 = 30;

/// Location of a pod.
#[derive(Clone, Debug)]
pub struct PodPlacement {
    pub node: String,
    pub addresses: Vec<IpAddr>,
    pub port: u16,
}

/// Creates the pod's namespace and starts its web server. The arguments are the node, the pod's
/// number in the lab, and the port.
///
/// # Errors
/// If there is no such node, or the name is in use.
pub fn start(
    state: &LabState,
    server: &Path,
    name: &str,
    (node, number, port): (&str, u8, u16),
) -> Result<PodPlacement> {
    let index =
        topology::node_index(node).ok_or_else(|| anyhow!("{node} is not a node of the lab"))?;
    let (lab, families) = (&state.name, state.facts()?.families);
    run::ip_batch(None, &format!("netns add {}\n", lab.namespace(name)))?;
    network::set_families(&lab.namespace(name), families)?;
    run::ip_batch(Some(&lab.namespace(node)), &topology::batch_pod_link(lab, name, number))?;
    run::ip_batch(Some(&lab.namespace(name)), &topology::batch_pod(index, number, families))?;
    let launch = Launch {
        name: process_name(name),
        host: name.to_owned(),
        node: Some(node.to_owned()),
        program: server.to_owned(),
        args: vec!["serve".to_owned(), name.to_owned(), port.to_string()],
        env: [].into(),
        low_priority: false,
    };
    process::start(state, launch)?;
    Ok(PodPlacement {
        node: node.to_owned(),
        addresses: families.of(topology::pod_addresses(index, number)),
        port,
    })
}

/// Creates the Pod object of a running pod; it is ready from the start.
///
/// # Errors
/// If the API server rejects the object.
pub async fn register(
    client: &Client,
    name: &str,
    placement: &PodPlacement,
    labels: &[(&str, &str)],
) -> Result<()> {
    let pods: Api<Pod> = Api::default_namespaced(client.clone());
    let labels: serde_json::Map<String, Value> =
        labels.iter().map(|(key, value)| ((*key).to_owned(), json!(value))).collect();
    let pod = json!({
        "metadata": {"name": name, "labels": labels},
        "spec": {"nodeName": placement.node, "containers": [
            {"name": "web", "image": "none", "ports": [{"containerPort": placement.port, "name": "http"}]},
        ]},
    });
    pods.create(&PostParams::default(), &serde_json::from_value(pod)?)
        .await
        .with_context(|| format!("cannot create the pod {name}"))?;
    let all: Vec<Value> =
        placement.addresses.iter().map(|address| json!({"ip": address})).collect();
    let status = json!({"status": {"phase": "Running", "podIP": placement.addresses.first(), "podIPs": all}});
    pods.patch_status(name, &PatchParams::default(), &Patch::Merge(status)).await?;
    set_ready(client, name, true).await
}

/// Sets the readiness of a pod, like its kubelet would.
///
/// # Errors
/// If there is no such pod.
pub async fn set_ready(client: &Client, name: &str, ready: bool) -> Result<()> {
    let pods: Api<Pod> = Api::default_namespaced(client.clone());
    let status = if ready { "True" } else { "False" };
    let conditions = json!([{"type": "Ready", "status": status},
        {"type": "ContainersReady", "status": status}]);
    let patch = json!({"status": {"conditions": conditions}});
    pods.patch_status(name, &PatchParams::default(), &Patch::Merge(patch))
        .await
        .with_context(|| format!("cannot set the readiness of the pod {name}"))?;
    Ok(())
}

/// Sets those of the pods Ready that FerroLB has marked because their node failed, like their
/// kubelet would.
///
/// # Errors
/// If the API server rejects a request.
pub async fn unmark(client: &Client, names: &[String]) -> Result<()> {
    let pods: Api<Pod> = Api::default_namespaced(client.clone());
    for name in names {
        let Some(pod) = pods.get_opt(name).await? else { continue };
        let conditions = pod.status.and_then(|status| status.conditions).unwrap_or_default();
        if conditions.iter().any(|condition| condition.reason.as_deref() == Some(NODE_SILENT)) {
            set_ready(client, name, true).await?;
        }
    }
    Ok(())
}

/// Starts the termination of a pod: the API server keeps the object as terminating until the
/// kubelet has ended the pod.
///
/// # Errors
/// If there is no such pod.
pub async fn terminate(client: &Client, name: &str) -> Result<()> {
    let pods: Api<Pod> = Api::default_namespaced(client.clone());
    pods.delete(name, &DeleteParams::default().grace_period(GRACE_SECONDS))
        .await
        .with_context(|| format!("cannot terminate the pod {name}"))?;
    Ok(())
}

/// Deletes the Pod object.
///
/// # Errors
/// If there is no such pod.
pub async fn unregister(client: &Client, name: &str) -> Result<()> {
    let pods: Api<Pod> = Api::default_namespaced(client.clone());
    pods.delete(name, &DeleteParams::default().grace_period(0))
        .await
        .with_context(|| format!("cannot delete the pod {name}"))?;
    Ok(())
}

/// Ends a pod's web server and removes its namespace.
///
/// # Errors
/// If there is no such pod.
pub fn stop(state: &LabState, name: &str) -> Result<()> {
    let namespace = state.name.namespace(name);
    process::kill(
        netns::pids(std::slice::from_ref(&namespace)).into_iter().map(|pid| (pid, None)),
    )?;
    process::remove_record(state, &process_name(name));
    run::ip_batch(None, &format!("netns del {namespace}\n"))
}

/// Returns the process name of a pod's web server in the lab.
pub fn process_name(pod: &str) -> String {
    format!("pod-{pod}")
}

/// Returns the names of the pods on `node`.
pub fn on_node(state: &LabState, node: &str) -> Vec<String> {
    let on_node = |record: &ProcessRecord| {
        record.launch.node.as_deref() == Some(node) && record.launch.host != node
    };
    process::records(state).into_iter().filter(on_node).map(|record| record.launch.host).collect()
}
